"""Freed memory stays with the process, so that steps do not fault their pages in anew."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from bench.machine.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
library, size = ctypes.CDLL(None), 20 << 20
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def step():
    taken = [library.malloc(size) for _ in range(4)]
    for place in taken:
        ctypes.memset(place, 1, size)
    for place in reversed(taken):
        library.free(place)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step(), step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is the GNU C library's")
def test_a_step_finds_the_memory_of_the_step_before() -> None:
    assert faults("kept") < 0.2 * faults("default")
