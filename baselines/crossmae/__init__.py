"""CrossMAE (arXiv 2401.14391): settings, model, released checkpoints."""
