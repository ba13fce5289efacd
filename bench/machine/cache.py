"""Where is kept what can be found anew at any time, at a cost."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "MTO_BENCH_CACHE"
"""Environment: that folder (``~/.cache/mto-bench``); empty for none."""


def folder() -> Path | None:
    """The folder; None where the environment wants none."""
    chosen = os.environ.get(VARIABLE)
    if chosen == "":
        return None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen or Path(home) / "mto-bench")
