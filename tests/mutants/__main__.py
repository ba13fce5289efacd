"""``python -m tests.mutants FOLDER``: puts faults into a folder and lists those no test notices.

Each fault runs in a forked process with the tests that run its lines, the quickest first. A fault
that survives is a test to write, or belongs into ``survivors.txt`` with a reason.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pickle
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants import child, survivors
from tests.mutants.folders import FOLDERS, SLOW_IMPORTS
from tests.mutants.operators import Mutant, mutants, mutated

LIMIT_S, SLOWER = 30.0, 10.0
"""A test that takes this many times as long, and this many seconds more, runs for ever."""


def main(argv: Sequence[str] | None = None) -> int:
    """Mutates a folder; 1 if too few faults are noticed or one that is not is not listed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("folder", choices=sorted(FOLDERS))
    parser.add_argument("--file", help="only files whose path holds this text")
    parser.add_argument("--sample", type=int, default=0, help="so many faults, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("-j", "--jobs", type=int, default=1)
    args = parser.parse_args(argv)
    sources, tests = FOLDERS[args.folder]
    files = [str(p.relative_to(child.ROOT)) for s in sources for p in sorted(child.ROOT.glob(s))]
    files = [f for f in files if not args.file or args.file in f]
    every = [m for f in files for m in mutants(f, (child.ROOT / f).read_text())]
    chosen = every
    if args.sample and args.sample < len(every):
        chosen = sorted(random.Random(args.seed).sample(every, args.sample), key=every.index)
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", MPLBACKEND="Agg")
    for module in SLOW_IMPORTS:
        importlib.import_module(module)
    print(f"{len(chosen)} of {len(every)} faults in {len(files)} files", flush=True)
    lines = recorded(tests, files)
    begin = time.monotonic()
    with ThreadPoolExecutor(args.jobs) as pool:
        noticed = list(pool.map(lambda m: is_noticed(m, lines), chosen))
    print(f"{time.monotonic() - begin:.0f} s")
    return survivors.report([m for m, n in zip(chosen, noticed, strict=True) if not n], chosen)


def recorded(tests: Sequence[str], files: Sequence[str]) -> child.Lines:
    """Which lines each test runs, and how long it takes, without a fault.

    Raises:
        SystemExit: if a test fails as it is.
    """
    lines = child.Lines(files)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "lines"

        def work() -> int:
            code = child.run_tests(tests, plugin=lines)
            kept.write_bytes(pickle.dumps((lines.seen, lines.took)))
            return code

        code = child.forked(work, 3600)
        if code != 0:
            sys.exit(f"the tests fail as they are (pytest's exit code {code}): {' '.join(tests)}")
        lines.seen, lines.took = pickle.loads(kept.read_bytes())
    print(f"{len(lines.seen)} tests take {sum(lines.took.values()):.0f} s", flush=True)
    return lines


def is_noticed(mutant: Mutant, lines: child.Lines) -> bool:
    """Whether a test fails, or never ends, with this fault."""
    tests = tests_for(mutant, lines)
    if not tests:
        return False
    path = child.ROOT / mutant.path
    code = compile(mutated(path.read_text(), mutant.place), str(path), "exec")
    faulty = child.Faulty(child.module_of(mutant.path), path, code)
    limit = LIMIT_S + SLOWER * sum(lines.took[t] for t in tests)
    killed = child.forked(lambda: child.run_tests(tests, faulty), limit) != 0
    print("." if killed else f"\n{mutant.name} (line {mutant.lines[0]})\n", end="", flush=True)
    return killed


def tests_for(mutant: Mutant, lines: child.Lines) -> list[str]:
    """Tests that run a fault's lines, the quickest first.

    If it acts at import, any that runs its file, and those that run no line at all: they look at
    what stands there when it is imported, as the defaults of settings.
    """
    first, last = mutant.lines
    found = [
        test
        for test, seen in lines.seen.items()
        if any(f == mutant.path and (mutant.at_import or first <= n <= last) for f, n in seen)
        or (mutant.at_import and not seen)
    ]
    return sorted(found, key=lambda test: lines.took[test])


if __name__ == "__main__":
    sys.exit(main())
