"""Reading the command line. A :class:`BenchError` becomes one message and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.commands.flags import ARM, METHOD
from bench.commands.streams import silence, unbroken_stderr
from bench.commands.table import COMMANDS
from bench.errors import DISK_ERRORS, EXIT_CODES, BenchError, UsageError, printable, shown, unknown

ODD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Characters that no argument holds; line ends and tabs may separate a list."""

PATH_ERRORS = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM}
    | {errno.ENOENT, errno.EINVAL, errno.EEXIST}
)
"""Numbers of errors that say that a path given is of no use."""

EPILOG = f"""\
settings:
  SECTION.KEY=VALUE anywhere on the line overrides the preset, for all methods or for one:
    pretrain.blr=1.5e-4  finetune.layer_decay=0.65  mae.mask_ratio=0.75  simmim.pretrain.blr=1e-4
  --config FILE.yaml holds the same sections; it may start with 'extends: PRESET'.
  'ls settings' lists them all, those of methods and plug-ins among them.

examples:
  python -m bench.run --methods {METHOD},{ARM} --epochs 100,200,400
  python -m bench.run --preset smoke
  python -m bench.run --data DIR
  python -m bench.run --methods '{METHOD},{ARM},{ARM}(TERM)' --epochs 100,200 --seeds 5
  python -m bench.run --methods '{METHOD},{ARM},{ARM}(TERM,KEY=VALUE)' --epochs 100,200
  python -m bench.run --methods {METHOD},{ARM} --epochs 100,200 --data cifar10:DIR
  python -m bench.run --methods {METHOD},{ARM} --epochs 100,200 --dry-run
  python -m bench.run tune --methods {METHOD} --epochs 100 --grid pretrain.lr=2e-3,4e-3

exit codes:
""" + "".join(f"  {code:<4} {meaning}\n" for code, meaning in EXIT_CODES.items())

PRINTED = frozenset({"help", "help_all", "dry_run", "json", "strict", "assert", "allow_pilot"})
"""Flags of what a command prints and of its exit code: a notebook has neither."""

PATHS = ("DIR", "FILE", "PATH", "PNG")
"""What the help calls the value of an option that names a place; ``~`` in it is the user's home."""

OVERRIDE = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)+=")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}. See 'python -m bench.run --help-all'.")


def parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """The sub-command ('' for a study) and its arguments; ``overrides`` holds the settings.

    ``command_line`` is what was given and ``parse`` this function, for a command given again.

    Raises:
        UsageError: for anything that cannot be read.
    """
    for argument in argv:
        if odd := ODD.search(argument):
            raise UsageError(f"'{shown(argument)}' holds a control character, {odd[0]!r}.")
    arguments = [_dashes(a) for a in argv]
    overrides, rest = _split_overrides(arguments)
    name = ""
    if rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in COMMANDS or not name:
            raise unknown("sub-command", name, [n for n in COMMANDS if n])
    parsed = _parser(name).parse_args(rest)
    if overrides and not (COMMANDS[name].study or COMMANDS[name].settings):
        more = " Give the study's own command with it." if name == "retry" else ""
        raise UsageError(f"'{shown(overrides[0])}' is not read by '{name}'.{more}")
    parsed.overrides, parsed.command_line, parsed.parse = overrides, arguments, parse
    return name, parsed


def spelled(
    flags: Mapping[str, Any], settings: Mapping[str, Any] | Iterable[str] = ()
) -> list[str]:
    """The command line of a study that says the same as keywords: ``{"seeds": 5}``, ``--seeds 5``.

    What is None or False is left out.

    Raises:
        UsageError: for a keyword that is no flag.
    """
    known = {option for action in _parser("")._actions for option in action.option_strings}
    names = {option[2:].replace("-", "_") for option in known if option.startswith("--")}
    line = []
    for name, value in flags.items():
        if name not in names - PRINTED:
            raise unknown("keyword", name, names - PRINTED)
        if isinstance(value, Iterable) and not isinstance(value, str | bytes):
            line += [f"--{name}", *map(str, value)]
        elif value is True:
            line.append(f"--{name}")
        elif value is not None and value is not False:
            line.append(f"--{name}={value}")
    settings = [settings] if isinstance(settings, str) else settings
    pairs = settings.items() if isinstance(settings, Mapping) else ()
    return [*line, *(f"{k}={v}" for k, v in pairs), *(() if pairs else map(str, settings))]


def run(argv: Sequence[str]) -> int:
    """Reads one command line and does what it says; the exit code."""
    name, parsed = parse(argv)
    dry = not name and parsed.dry_run  # the plan alone is printed without what computes it
    return COMMANDS["plan" if dry else name].run(parsed)


class _HelpAll(argparse.Action):
    """``--help-all``: the help with every option."""

    def __call__(self, parser: argparse.ArgumentParser, *values: Any) -> None:
        """Prints it and ends."""
        _parser(str(self.const), everything=True).print_help()
        parser.exit()


EVERYDAY = (
    *("help", "help_all", "methods", "epochs", "seeds", "data", "preset", "config", "launcher"),
    *("jobs", "out", "name", "dry_run", "calibrate", "retry", "gates"),
    *("grid", "search", "trials", "prune"),
)
"""Options of a study's commands that ``--help`` shows; ``--help-all`` shows all."""


def _parser(name: str, everything: bool = False) -> argparse.ArgumentParser:
    command = COMMANDS[name]
    parser = _Parser(
        prog=f"python -m bench.run {name}".strip(),
        description=command.help,
        epilog=EPILOG + _command_help() if command.study else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=not command.study,
    )
    command.add_flags(parser)
    if command.study:
        parser.add_argument(
            "--help-all", action=_HelpAll, nargs=0, const=name, help="show every option and exit"
        )
    for action in parser._actions:
        if action.metavar in PATHS and action.type is None:
            action.type = os.path.expanduser
    for action in parser._actions if command.study and not everything else ():
        if action.dest not in EVERYDAY:
            action.help = argparse.SUPPRESS
    return parser


def _command_help() -> str:
    lines = [f"  {name:8} {command.help}" for name, command in COMMANDS.items() if name]
    return "\nsub-commands (python -m bench.run COMMAND --help):\n" + "\n".join(lines)


def _split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings, and everything else; what follows ``--grid`` is its value."""
    after = ["", *arguments]
    found = [bool(OVERRIDE.match(a)) and after[i] != "--grid" for i, a in enumerate(arguments)]
    return (
        [a for a, hit in zip(arguments, found, strict=True) if hit],
        [a for a, hit in zip(arguments, found, strict=True) if not hit],
    )


def _dashes(argument: str) -> str:
    """``--job_dir`` is as good as ``--job-dir``."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


@unbroken_stderr()
def guarded(action: Callable[[], int]) -> int:
    """Runs ``action``; an expected error is printed in one line and becomes its exit code."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except BenchError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # a reader such as ``head`` has enough; nothing is left to flush
        silence(sys.stdout)
        return 0
    except OSError as error:
        if error.errno not in PATH_ERRORS | DISK_ERRORS:
            raise
        what = f"'{error.filename}': {error.strerror}" if error.filename else str(error)
        todo = "Check the path."
        if error.errno == errno.EEXIST:
            todo = "A folder is needed there: name another place, or move the file."
        if error.errno in DISK_ERRORS:
            todo = "Check the disk; the same command goes on from here."
        print(f"error: {shown(what, 200)}. {todo}", file=sys.stderr)
        return UsageError.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
