"""Checks the interval on rho by simulation: coverage and false claims on known curves.

``python -m tests.support.simulation`` rewrites docs/statistics.csv and the table in
docs/statistics.md. All draws come from one generator with a fixed seed; nothing else decides them.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.stats import saving
from bench.stats.means import Array
from bench.stats.saving import Curve

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- simulation -->\n", "<!-- end -->"
SEED = 20240404
STUDIES = 2000
EPOCHS = np.array([100.0, 200.0, 400.0, 800.0])
REFERENCE = 400.0
SD = 0.10
SHIFT = 0.2
"""Points that the variant is better by where the curve is flat and no ratio of epochs exists."""

CURVES: dict[str, Callable[[Array], Array]] = {
    "linear": lambda epochs: 80 + 0.6 * np.log2(epochs / 100),
    "saturating": lambda epochs: 83 - 3 * (epochs / 100) ** -0.5,
    "flat": lambda epochs: 83 + 0 * epochs,
}


@dataclass(frozen=True)
class Case:
    """One line of the table: n seeds, a curve, the true rho, the correlation of the arms."""

    n: int
    curve: str
    rho: float
    correlation: float


CASES = [Case(*c) for c in itertools.product((3, 5, 8), CURVES, (1.0, 1.5), (0.0, 0.5))]


def draw(case: Case, studies: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Scores [studies, n, B] of baseline and variant; a seed shares noise between the arms."""
    truth = CURVES[case.curve]
    shift = SHIFT if case.curve == "flat" and case.rho != 1 else 0.0
    means = truth(EPOCHS), truth(EPOCHS * case.rho) + shift
    shape = (studies, case.n, len(EPOCHS))
    common = rng.normal(0, SD, (studies, case.n, 1)) * np.sqrt(case.correlation)
    base, variant = (
        mean + common + rng.normal(0, SD, shape) * np.sqrt(1 - case.correlation) for mean in means
    )
    return base, variant


def interpolated_rho(case: Case) -> float:
    """rho of the noise-free curves read as the report reads them: straight between budgets.

    Where a curve bends, its chord lies below it, so this is smaller than the true rho.
    """
    truth = CURVES[case.curve]
    target = float(truth(np.array(REFERENCE)))
    _, epochs = saving.epochs_to_target(EPOCHS, truth(EPOCHS * case.rho), target)
    return REFERENCE / epochs


def simulate(case: Case, studies: int, rng: np.random.Generator) -> dict[str, object]:
    """Shares of studies: intervals that cover, that overstate, claims, undefined, bounded.

    ``coverage`` is of rho on the curves as interpolated, ``coverage_smooth`` of the rho that the
    smooth curves were made with, ``overstated`` counts intervals wholly above the latter. A claim
    is an interval wholly above 1 on a curve that is not flat: what a report would say before Holm
    and before asking for five seeds, both of which only lower it.
    """
    base, variant = draw(case, studies, rng)
    at = int(np.flatnonzero(EPOCHS == REFERENCE)[0])
    start = base[..., at]
    low, high = saving.ratio_interval(Curve(EPOCHS, variant), start, REFERENCE, 0.05)
    flat = saving.is_flat(base.mean(axis=-2)[..., : at + 1], start - base[..., 0], 0.05)
    row: dict[str, object] = {**vars(case), "studies": studies}
    if case.curve == "flat" and case.rho != 1:
        row |= {"coverage": np.nan, "coverage_smooth": np.nan, "overstated": np.nan}
    else:
        read = 1.0 if case.rho == 1 else interpolated_rho(case)
        row["coverage"] = np.mean((low <= read) & (read <= high))
        row["coverage_smooth"] = np.mean((low <= case.rho) & (case.rho <= high))
        row["overstated"] = np.mean((low > case.rho) & ~flat)
    row["claims"] = np.mean((low > 1) & ~flat)
    row["undefined"] = np.mean(flat)
    row["bounded"] = np.mean((low > 0) & np.isfinite(high))
    return row


def table(studies: int = STUDIES, seed: int = SEED) -> pd.DataFrame:
    """All cases, drawn in order from one generator."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame([simulate(case, studies, rng) for case in CASES])


def csv(frame: pd.DataFrame) -> str:
    """The table as docs/statistics.csv holds it."""
    return str(frame.to_csv(index=False, float_format="%.4g"))


def markdown(frame: pd.DataFrame) -> str:
    """The table as docs/statistics.md shows it."""
    text = pd.read_csv(io.StringIO(csv(frame)), dtype=str, keep_default_na=False)
    lines = [list(text.columns), ["---"] * len(text.columns), *text.to_numpy().tolist()]
    return "".join(f"| {' | '.join(cell or '—' for cell in line)} |\n" for line in lines)


def main() -> None:
    """Writes the table to the docs."""
    frame = table()
    (DOCS / "statistics.csv").write_text(csv(frame))
    page = (DOCS / "statistics.md").read_text()
    head, rest = page.split(BEGIN)
    tail = rest.split(END, 1)[1]
    (DOCS / "statistics.md").write_text(head + BEGIN + markdown(frame) + END + tail)


if __name__ == "__main__":
    main()
