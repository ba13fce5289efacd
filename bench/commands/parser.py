"""Reading the command line. A :class:`BenchError` becomes one message and an exit code."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from bench.errors import BenchError, UsageError, unknown

DESCRIPTION = """\
Measure how many pre-training epochs a masked-image-modelling variant saves.

Without a sub-command: run a study (methods x epochs x seeds), print its table and save it.
Only what is missing is computed; a stopped study goes on where it was.
"""

EPILOG = """\
settings:
  SECTION.KEY=VALUE anywhere on the line overrides the preset, for all methods or for one:
    pretrain.blr=1.5e-4  finetune.layer_decay=0.65  mae.mask_ratio=0.75
    mto.lambda_spa=0.5   simmim.pretrain.blr=1e-4
  --config FILE.yaml holds the same sections; it may start with 'extends: PRESET'.

examples:
  python -m bench.run --methods mae,mae+mto --epochs 100,200,400
  python -m bench.run --preset smoke
  python -m bench.run --methods 'mae,mae+mto,mae+mto(recal)' --epochs 100,200 --seeds 5
  python -m bench.run --methods simmim,simmim+mto --epochs 100,200 --data cifar10:DIR
  python -m bench.run --methods mae,mae+mto --epochs 100,200 --dry-run

exit codes:
  0 complete   1 some runs failed (the table is still written)   2 usage, nothing started
  3 nothing measured   4 a gate failed   130 stopped, can be resumed
"""

COMMANDS = {
    "plan": "show the cells of a study and what is missing (the same as --dry-run)",
    "tune": "search a grid of settings, every trial recorded",
    "status": "studies in a results folder and their times; STUDY: its runs",
    "top": "live view of all runs, from their files alone",
    "report": "rebuild the tables of a study from its run folders",
    "compare": "two studies cell by cell",
    "power": "what more seeds would resolve, and their cost",
    "export": "pack a study or run into one archive",
    "import": "bring an archive's runs into a results folder",
    "analyze": "layers of runs: heterogeneity and attention mass against depth",
    "log": "how a run goes or went: epochs, losses, images/s, its log",
    "show": "draw original, masked and reconstructed images of a run or checkpoint",
    "retry": "run the failed and blocked cells of a study again, as it was started",
    "cancel": "stop runs; their states are kept",
    "doctor": "check versions, folder, devices, signals, data; --launcher slurm: the cluster",
    "ls": "list methods, plugins, datasets, presets, studies, runs, settings or published numbers",
}


LAUNCHERS = ("local", "inline", "slurm")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}. See 'python -m bench.run --help-all'.")


class _HelpAll(argparse.Action):
    """``--help-all``: the help with every option."""

    def __call__(self, parser: argparse.ArgumentParser, *values: Any) -> None:
        """Prints it and ends."""
        _study_parser(str(self.const), everything=True).print_help()
        parser.exit()


EVERYDAY = (
    *("help", "help_all", "methods", "epochs", "seeds", "data", "preset", "config", "launcher"),
    *("jobs", "out", "name", "dry_run", "calibrate", "retry", "gates", "grid"),
)
"""Options that ``--help`` shows; ``--help-all`` shows all."""


def _study_parser(command: str, everything: bool = False) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"python -m bench.run{' ' + command if command else ''}",
        description=DESCRIPTION if not command else COMMANDS[command],
        epilog=EPILOG + _command_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_study_flags(parser.add_argument_group("study"))
    _add_compute_flags(parser.add_argument_group("compute"))
    _add_slurm_flags(parser.add_argument_group("with --launcher slurm (or in the site file)"))
    _add_output_flags(parser.add_argument_group("output"))
    if command == "tune":
        parser.add_argument(
            "--grid",
            action="append",
            required=True,
            metavar="KEY=V1,V2",
            help="one axis of the grid",
        )
    parser.add_argument(
        "--help-all", action=_HelpAll, nargs=0, const=command, help="show every option and exit"
    )
    for action in parser._actions if not everything else ():
        if action.dest not in EVERYDAY:
            action.help = argparse.SUPPRESS
    return parser


def _command_help() -> str:
    lines = [f"  {name:8} {text}" for name, text in COMMANDS.items()]
    return "\nsub-commands (python -m bench.run COMMAND --help):\n" + "\n".join(lines)


def natural(text: str) -> int:
    """A whole number from 0 on, as an argument."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 on")
    return int(text)


def positive(text: str) -> float:
    """A number above 0, as an argument."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not above 0")
    return value


def _add_study_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--methods", nargs="+", metavar="M", help="arms: mae,mae+mto,simmim,...")
    group.add_argument("--epochs", nargs="+", metavar="E", help="pre-training budgets: 100,200,400")
    group.add_argument("--seeds", nargs="+", metavar="S", help="a count 5, a range 0-4, or 0,1,2")
    group.add_argument(
        "--data",
        default=None,
        metavar="NAME[:DIR]",
        help="digits, fashion-mnist[:DIR], cifar10:DIR, cifar100:DIR, imagenet:DIR, folder:DIR, "
        "procedural, or a timm name such as torch/cifar10:DIR (default: the preset's)",
    )
    group.add_argument("--preset", help="model, recipe and data: see 'ls presets' (from --data)")
    group.add_argument("--recipe", metavar="NAME", help="one of the preset's named recipes")
    group.add_argument(
        "--init",
        default="",
        metavar="FILE",
        help="evaluate this checkpoint (a release's or our own) instead of pre-training",
    )
    group.add_argument("-c", "--config", metavar="FILE", help="suite file in YAML")
    group.add_argument("--suite-seed", type=int, default=None, help="seed shared by all runs")
    group.add_argument(
        "--target", type=int, metavar="E", help="budget whose accuracy is the target"
    )
    group.add_argument("--margin", type=float, help="points within which accuracies count as equal")


def _add_compute_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--launcher", choices=LAUNCHERS, default="local")
    group.add_argument(
        "-j", "--jobs", type=natural, default=0, help="runs side by side (0: automatic)"
    )
    group.add_argument(
        "--threads", type=natural, default=0, help="CPU threads a run (0: automatic)"
    )
    group.add_argument("--workers", type=natural, default=None, help="data workers a run")
    group.add_argument("--device", default="auto", help="auto, cpu or cuda")
    group.add_argument("--batch-size", type=natural, default=0, help="images at once on a device")
    group.add_argument("--retry", action="store_true", help="run failed cells again")
    group.add_argument(
        "--strict-images", action="store_true", help="an unreadable image file is an error"
    )
    group.add_argument(
        "--checkpoint-every",
        type=positive,
        default=60.0,
        metavar="S",
        help="seconds between states",
    )


def _add_slurm_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--site", default="", metavar="FILE", help="the cluster's settings in TOML")
    group.add_argument("--partition", help="where the jobs run")
    group.add_argument("--nodes", type=int, help="nodes a run")
    group.add_argument(
        "--ngpus", "--gpus-per-node", type=int, dest="gpus_per_node", help="GPUs (processes) a node"
    )
    group.add_argument("--tasks-per-node", type=int, help="processes a node (default: one a GPU)")
    group.add_argument("--cpus-per-task", type=int, help="cores a process")
    group.add_argument("--mem-gb", type=float, help="memory a node")
    group.add_argument(
        "--timeout", "--timeout-min", type=int, dest="timeout_min", metavar="MIN", help="time limit"
    )
    group.add_argument("--account", help="whom to bill")
    group.add_argument("--qos", help="quality of service")
    group.add_argument("--constraint", help="node features")
    group.add_argument("--exclude", help="nodes to avoid")
    group.add_argument("--comment", help="comment on the jobs")
    group.add_argument("--array-parallelism", type=int, metavar="N", help="runs at once, at most")
    group.add_argument("--job-dir", metavar="DIR", help="scripts and logs of jobs (OUT/jobs)")
    group.add_argument("--poll", type=float, dest="poll_s", metavar="S", help="seconds a look")
    group.add_argument("--detach", action="store_true", help="submit and return at once")


def _add_output_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--out", default="results", metavar="DIR", help="folder of runs and tables")
    group.add_argument("--name", default="", help="name of the study's folder (default: readable)")
    group.add_argument("--dry-run", action="store_true", help="show the plan, compute nothing")
    group.add_argument("--calibrate", action="store_true", help="time a few steps for the plan")
    _add_result_flags(group)


def _add_result_flags(group: argparse._ActionsContainer) -> None:
    group.add_argument("--strict", action="store_true", help="exit 1 on anything missing or mixed")
    group.add_argument("--json", action="store_true", help="print the table as JSON")
    group.add_argument(
        "--assert",
        dest="gates",
        action="append",
        default=[],
        metavar="GATE",
        help="exit 4 unless it holds, as 'rho_low(mae+mto)>1.5' or 'noninferior(mae+mto)'",
    )
    group.add_argument(
        "--allow-pilot", action="store_true", help="gates may rest on fewer than five seeds"
    )


def _folder_parser(command: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m bench.run {command}", description=COMMANDS[command])
    parser.add_argument("--out", default="results", metavar="DIR", help="folder of runs and tables")
    if command in FLAGS:
        FLAGS[command](parser)
    return parser


def _report_flags(parser: argparse.ArgumentParser) -> None:
    _study_argument(parser)
    parser.add_argument("--all", action="store_true", help="every run in the folder, no plan")
    parser.add_argument("--format", nargs="+", default=["md", "csv", "json", "html", "png"])
    parser.add_argument("--archive", default="", metavar="FILE", help="read an exported study")
    parser.add_argument("--to", default="", metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--readme",
        default="",
        metavar="FILE",
        help="put verdicts and forest plot between its result marks",
    )
    _add_result_flags(parser)


def _study_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="?", default="", help="study name (default: the newest)")


def _status_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="?", default="", metavar="STUDY", help="its runs")


def _compare_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", help="study: name, folder, archive or report.json")
    parser.add_argument("b", help="study: name, folder, archive or report.json")


def _top_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--interval", type=float, default=2.0, help="seconds")
    parser.add_argument("--once", action="store_true", help="print once and end")


def _export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", default="", help="study or run (newest study)")
    parser.add_argument("--to", default="", metavar="FILE", help="archive to write (.tar.gz)")
    parser.add_argument(
        "--records", action="store_true", help="what a report needs alone: no weights, no logs"
    )


def _import_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", metavar="FILE")


def _analyze_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run ids, or checkpoint files")
    parser.add_argument("--images", type=int, default=64, help="test images, for a file")
    parser.add_argument("--data", metavar="NAME:DIR", help="their data set (default: procedural)")
    parser.add_argument("--method", metavar="M", help="for a released checkpoint: its method")
    parser.add_argument("--preset", default="imagenet", help="and the preset of its size")
    parser.add_argument("--to", metavar="DIR", help="folder for the plots (OUT/layers)")


def _show_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="+", metavar="RUN", help="run ids or beginnings, side by side, or a file"
    )
    parser.add_argument("--images", type=int, default=6, metavar="N", help="how many test images")
    parser.add_argument("--to", metavar="PNG", help="the picture (default: beside the weights)")
    parser.add_argument("--data", metavar="NAME:DIR", help="folder of the run's data set")
    parser.add_argument("--method", metavar="M", help="for a released checkpoint: its method")
    parser.add_argument("--preset", default="imagenet", help="and the preset of its size")


def _log_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run id, or the beginning of one")


def _ls_flags(parser: argparse.ArgumentParser) -> None:
    kinds = "methods, plugins, datasets, presets, studies, runs, settings, published"
    parser.add_argument("kind", nargs="?", default="methods", metavar="KIND", help=kinds)
    parser.add_argument("section", nargs="?", default="", metavar="SECTION", help="for settings")


def _cancel_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run ids or beginnings (all)")


def _doctor_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--launcher", choices=LAUNCHERS, default="local")
    parser.add_argument("--data", default=None, metavar="NAME[:DIR]", help="data set to open")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    _add_slurm_flags(parser.add_argument_group("with --launcher slurm"))


FLAGS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "report": _report_flags,
    "compare": _compare_flags,
    "power": _study_argument,
    "top": _top_flags,
    "export": _export_flags,
    "import": _import_flags,
    "analyze": _analyze_flags,
    "show": _show_flags,
    "log": _log_flags,
    "status": _status_flags,
    "retry": _study_argument,
    "cancel": _cancel_flags,
    "doctor": _doctor_flags,
    "ls": _ls_flags,
}

STUDY_COMMANDS = ("", "plan", "tune")
OVERRIDE = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)+=")


def parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """The sub-command ('' for a study) and its arguments; ``overrides`` holds the settings.

    ``command_line`` is what was given and ``parse`` this function, for a command given again.

    Raises:
        UsageError: for anything that cannot be read.
    """
    arguments = [_dashes(a) for a in argv]
    overrides, rest = _split_overrides(arguments)
    command = ""
    if rest and not rest[0].startswith("-"):
        command = rest.pop(0)
        if command not in COMMANDS:
            raise unknown("sub-command", command, COMMANDS)
    parser = _study_parser(command) if command in STUDY_COMMANDS else _folder_parser(command)
    parsed = parser.parse_args(rest)
    parsed.overrides, parsed.command_line, parsed.parse = overrides, arguments, parse
    return command, parsed


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


def guarded(action: Callable[[], int]) -> int:
    """Runs ``action``; an expected error is printed in one line and becomes its exit code."""
    try:
        return action()
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
