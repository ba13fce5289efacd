"""Data sets, one file each: a function ``(DataConfig, root, image_size) -> ImageSet``."""
