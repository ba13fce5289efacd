"""SimMIM (arXiv 2111.09886): settings, model, released checkpoints."""
