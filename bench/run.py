"""``python -m bench.run``: the main command and its sub-commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench import commands
from bench.commands import parser as cli


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv

    def action() -> int:
        command, parsed = cli.parse(arguments or ["--help"])
        return commands.ACTIONS[command](parsed)

    return cli.guarded(action)


if __name__ == "__main__":
    sys.exit(main())
