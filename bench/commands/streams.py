"""Output whose reader has gone: what computes goes on, and exit codes stay what they were."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, Any


def say(text: str) -> None:
    """Prints a result; where nobody reads it any more (``| head``), nothing."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        silence(sys.stdout)


def silence(stream: IO[str]) -> None:
    """Lets a stream end nowhere, what it has yet to flush included."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def take_any_character(stream: IO[str]) -> None:
    """Lets a stream whose encoding lacks a character show ``?`` for it."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")


class _Unbroken:
    """A text stream that a reader may leave."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes, or does nothing."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            silence(self._stream)
        return len(text)

    def flush(self) -> None:
        """Flushes, or does nothing."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def unbroken_stderr() -> Iterator[None]:
    """Progress that nobody reads any more stops no study."""
    before: Any = sys.stderr
    found: Any = _Unbroken(before)
    sys.stderr = found
    try:
        yield
    finally:
        if sys.stderr is found:
            sys.stderr = before
