"""What ``torch.compile`` needs of a machine. Imports no torch."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from bench.errors import UsageError


def check_compiler(device: str) -> None:
    """Refuses to compile where a part is missing: a C++ compiler, Python's headers, on CUDA Triton.

    Raises:
        UsageError: naming what is missing.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    missing = [] if shutil.which(compiler) else [f"a C++ compiler ('{compiler}')"]
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing.append("the headers of Python (Python.h)")
    if device.startswith("cuda") and find_spec("triton") is None:
        missing.append("the package triton")
    if missing:
        raise UsageError(
            f"--compile: this machine lacks {' and '.join(missing)}. Install it (Debian: g++, "
            "python3-dev), name a compiler in CXX, or leave --compile away: the numbers are the "
            "same up to rounding."
        )
