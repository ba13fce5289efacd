"""Masked autoencoder (arXiv 2111.06377): settings, model, released checkpoints."""
