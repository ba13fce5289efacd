"""``python -m tests.chaos --kills 200 --faults 100``: kills and file faults, and what they changed.

A study is disturbed (of six cells by kills, of two by file faults) and the same command given again
until it is complete; then weights, records, metrics and tables are compared with those of an
undisturbed one, and it starts afresh. ``--minutes`` ends sooner; what is told is what happened.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tests.chaos import faults, kills, study

PRELOADED = ("bench.work.runner", "bench.work.vet", "bench.report.write", "sklearn.datasets")
"""What forked commands need, imported once."""

TRIES = 60
"""Commands after which a study that is not complete cannot be mended."""


class Tally:
    """What happened, and what came of it."""

    def __init__(self, minutes: float) -> None:
        self.until = time.monotonic() + 60 * minutes
        self.happened: Counter[str] = Counter()
        self.studies = self.changed = self.lost = self.stuck = 0

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.until

    def compare(self, out: Path, expected: dict[str, Any]) -> None:
        """Counts runs that are gone or differ."""
        found = study.numbers(out)
        self.studies += 1
        self.lost += len(set(expected) - set(found))
        self.changed += sum(found[k] != expected[k] for k in set(expected) & set(found))

    def told(self, what: str) -> str:
        """One kind of disturbance in words."""
        parts = ", ".join(f"{n} {k}" for k, n in sorted(self.happened.items()))
        return (
            f"{sum(self.happened.values())} {what} ({parts}) over {self.studies} complete studies: "
            f"{self.changed} changed, {self.lost} lost, "
            f"{self.stuck} that the same command did not mend"
        )


def under_kills(count: int, root: Path, rng: random.Random, minutes: float) -> tuple[Tally, str]:
    """Disturbs studies by kills; the tally, and the kills by stage."""
    expected = study.undisturbed(root / "expected", study.SIX)
    tally, stages = Tally(minutes), Counter[str]()
    while sum(tally.happened.values()) < count and not tally.late:
        out = root / "killed"
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(TRIES):
            driver = study.forked(study.command(out, study.SIX, "local"))
            hit = None
            if sum(tally.happened.values()) < count and not tally.late:
                hit = kills.strike(out, driver, rng)
            if hit is None:
                code = study.ended(driver)
                if code == 0:
                    break
                continue
            tally.happened[hit[0]] += 1
            stages[hit[1]] += 1
            print(f"{sum(tally.happened.values())}: {hit[0]} in {hit[1]}", flush=True)
            if hit[0] in ("worker", "fork server") and rng.random() < 0.5:
                if study.ended(driver) == 0:  # the command itself gets over it
                    break
            else:
                kills.settle(driver)
        else:
            tally.stuck += 1
            print(f"not mended by {TRIES} commands: {study.SAID.read_text()}")
            continue
        tally.compare(out, expected)
    return tally, ", ".join(f"{n} {stage}" for stage, n in stages.most_common())


def under_faults(count: int, root: Path, rng: random.Random, minutes: float) -> Tally:
    """Disturbs studies at replacements of files: command after command, a fault of each kind.

    The first fault of a study lies a step further each time, from its first replacement to its
    last; those after it are drawn, near where the next command begins.
    """
    tally, counted, out = Tally(minutes), root / "replacements", root / "faulty"
    expected = study.undisturbed(root / "short", study.TWO, faults.Fault(counted=counted))
    total, arguments = counted.stat().st_size, study.command(out, study.TWO, "inline")
    print(f"{total} replacements of files in an undisturbed study", flush=True)
    number, turns = 0, max(1, count // 2)
    for turn in itertools.count():
        if tally.late or number == count:
            break
        shutil.rmtree(out, ignore_errors=True)
        for place, kind in enumerate(faults.turned(turn)[: count - number]):
            at = rng.randrange(total // 3) if place else turn % turns * total // turns
            code = study.ended(study.forked(arguments, faults.Fault(at, kind, met=root / "met")))
            if not faults.was_met(root / "met"):
                break  # the study was over before
            number += 1
            tally.happened[kind] += 1
            print(
                f"{number}: {kind} at {at}, number {place + 1} of its study, exit {code}",
                flush=True,
            )
        if any(study.ended(study.forked(arguments)) == 0 for _ in range(2)):
            tally.compare(out, expected)
        else:
            tally.stuck += 1
            print(f"not mended by the same command, which said: {study.SAID.read_text()}")
    return tally


def main(argv: Sequence[str] | None = None) -> int:
    """Disturbs and compares; 1 if anything changed, was lost or could not be mended."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="of kills, and of faults")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    for module in PRELOADED:
        import_module(module)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        root = Path(folder)
        tallies, rng = [], random.Random(args.seed)
        if args.faults:
            tallies.append(under_faults(args.faults, root, rng, args.minutes))
            print(tallies[-1].told("file faults"), flush=True)
        if args.kills:
            tally, stages = under_kills(args.kills, root, rng, args.minutes)
            tallies.append(tally)
            print(f"{tally.told('kills')}\nby stage: {stages}")
    return int(any(t.changed or t.lost or t.stuck for t in tallies))


if __name__ == "__main__":
    sys.exit(main())
