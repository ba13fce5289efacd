"""BootMAE (arXiv 2207.07116): settings, model, decoders, released checkpoints."""
