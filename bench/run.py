"""``python -m bench.run``: the main command and its sub-commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.commands import parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return parser.guarded(lambda: parser.run(arguments or ["--help"]))


if __name__ == "__main__":
    sys.exit(main())
