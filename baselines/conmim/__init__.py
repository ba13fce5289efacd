"""ConMIM (arXiv 2205.09616): settings, model, projector, released checkpoints."""
