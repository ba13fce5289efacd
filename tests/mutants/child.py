"""What happens in a forked process: tests run, with a faulty module or with their lines recorded.

The parent has imported what is slow to import and nothing of the project, so that every child
imports the project anew, the faulty module among it.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = [
    "-x",
    "-q",
    "--no-header",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
]


class Faulty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module other code."""

    def __init__(self, module: str, path: Path, code: CodeType) -> None:
        self.module, self.path, self.code = module, path, code

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.module:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(self.path))
        spec.has_location = True
        if self.path.name == "__init__.py":
            spec.submodule_search_locations = [str(self.path.parent)]
        return spec

    def exec_module(self, module: Any) -> None:
        exec(self.code, module.__dict__)


def module_of(path: str) -> str:
    """The name by which a file of the project is imported."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Lines:
    """A pytest plugin that notes which lines of some files a test runs, and how long it takes."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = {str(ROOT / f): f for f in files}
        self.seen: dict[str, set[tuple[str, int]]] = {}
        self.took: dict[str, float] = {}
        self.now: set[tuple[str, int]] = set()

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        file = self.files.get(frame.f_code.co_filename)
        if file is None:
            return None

        def local(frame: FrameType, event: str, argument: Any) -> Any:
            self.now.add((file, frame.f_lineno))
            return local

        return local(frame, event, argument)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.now = self.seen.setdefault(item.nodeid, set())
        begin = time.perf_counter()
        sys.settrace(self._trace)
        try:
            return (yield)  # type: ignore[misc]
        finally:
            sys.settrace(None)
            self.took[item.nodeid] = time.perf_counter() - begin


def forked(work: Callable[[], int], limit_s: float) -> int:
    """Exit status of ``work`` in a process of its own; -9 where it had to be ended."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with open(os.devnull, "w") as nowhere, contextlib.suppress(BaseException):
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            os.chdir(ROOT)
            os._exit(work())
        os._exit(1)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -9


def run_tests(tests: Sequence[str], faulty: Faulty | None = None, plugin: Any = None) -> int:
    """pytest's exit code for these tests, in this process."""
    if faulty is not None:
        sys.meta_path.insert(0, faulty)
    return int(pytest.main([*OPTIONS, *tests], plugins=[plugin] if plugin else []))
