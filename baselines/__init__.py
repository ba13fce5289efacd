"""Masked-image-modelling methods, each in its own file."""
