"""``python -m bench.run``: the main command and its sub-commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.commands import parser
from bench.commands.streams import take_any_character


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    take_any_character(sys.stdout)
    arguments = sys.argv[1:] if argv is None else argv
    return parser.guarded(lambda: parser.run(arguments or ["--help"]))


if __name__ == "__main__":
    sys.exit(main())
