"""data2vec for images (arXiv 2202.03555): settings, model, released checkpoints."""
