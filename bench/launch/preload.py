"""Imported first by the process that forks runs: no garbage is collected while it imports.

PyTorch and its compiler are half a million objects that live as long as the process; walking them a
dozen times is a fifth of the time of their import. Before the first fork they are set aside
(``gc.freeze``), so that no run walks them either, and collection goes on. At the end they are taken
back: libraries that count what is left would else print that it leaked.
"""

from __future__ import annotations

import atexit
import gc
import os


def _settle() -> None:
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


gc.disable()
os.register_at_fork(before=_settle)
atexit.register(gc.unfreeze)
