"""How the C library keeps memory that PyTorch's CPU tensors have freed."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt`` (``malloc.h``)."""

KEPT_BYTES = 1 << 30
"""Free memory at the end of the heap that stays with the process."""

HEAP_BYTES = 32 << 20
"""Up to this size (glibc's largest) memory comes from the heap instead of from its own mapping."""


def keep_freed_memory() -> bool:
    """Keeps freed memory for the next step; returns whether the C library can do so.

    A step frees its activations and the next one needs as many. By default glibc gives them back to
    the system in between, and each page is faulted in again: an eighth of the time on small models
    (docs/performance.md). Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trim, mapping = mallopt(M_TRIM_THRESHOLD, KEPT_BYTES), mallopt(M_MMAP_THRESHOLD, HEAP_BYTES)
    return bool(trim and mapping)
