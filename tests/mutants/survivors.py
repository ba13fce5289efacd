"""Faults that no test notices and that stay: equal ones, and those left with a reason.

``survivors.txt`` has one a line: ``equal`` (no test could tell) or ``left``, the fault's name, and
after ``|`` the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.operators import Mutant

LIST = Path(__file__).with_name("survivors.txt")
LEAST = 0.9
"""Share of the faults that are not equal to be noticed in every folder."""


@dataclass(frozen=True)
class Known:
    """A listed survivor."""

    equal: bool
    name: str
    reason: str


def listed() -> dict[str, Known]:
    """All listed survivors by name."""
    found = {}
    for line in LIST.read_text().splitlines():
        if line and not line.startswith("#"):
            kind, _, rest = line.partition(" ")
            name, _, reason = rest.partition(" | ")
            assert kind in ("equal", "left"), line
            assert reason, line
            found[name] = Known(kind == "equal", name, reason)
    return found


def report(survived: Sequence[Mutant], tried: Sequence[Mutant]) -> int:
    """Prints the share noticed and what is not listed; 0 if both are as they should be."""
    known = listed()
    fresh = [m for m in survived if m.name not in known]
    equal = sum(known[m.name].equal for m in survived if m.name in known)
    noticed, count = len(tried) - len(survived), len(tried) - equal
    share = noticed / count if count else 1.0
    for mutant in fresh:
        print(f"survived, not listed: {mutant.name} | (line {mutant.lines[0]})")
    gone = {m.name for m in tried} - {m.name for m in survived}
    for name in sorted(gone & known.keys()):
        print(f"listed, but noticed: {name}")
    left = len(survived) - equal - len(fresh)
    print(
        f"{noticed} of {count} faults noticed ({share:.1%}); {equal} equal, {left} left with a "
        f"reason, {len(fresh)} not listed"
    )
    return int(share < LEAST or bool(fresh))
