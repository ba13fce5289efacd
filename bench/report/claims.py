"""What may be claimed of a comparison: the only place that produces a word of a claim. Pure.

A row of the frame ``targets`` carries all that a claim depends on: the state of its target, its
seeds, whether its pairs are matched, and why a pair is unfair. Whatever stands in the way of a
claim is an :class:`Obstacle`; with one in the way no claim word is said, in any format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.report import words
from bench.report.words import Row, is_missing
from bench.stats.analysis import Analysis
from bench.stats.means import MIN_SEEDS
from bench.stats.power import seeds_to_settle

SHOWN, REFUTED, OPEN, UNMEASURABLE = "shown", "refuted", "open", "not measurable"
WORDS = (SHOWN, REFUTED, OPEN, UNMEASURABLE)
"""The one word on half the epochs."""

SAVES, MORE = "saves epochs", "needs more epochs"
CLAIMS = (SHOWN, REFUTED, SAVES, MORE)
"""The words of a claim; the rest says that there is none, and why."""

NO_PAIR = "nothing can be said: no seed has the baseline at this budget and the variant"
NO_DIFFERENCE = "no difference found"
NO_RATIO = "no claim on epochs, though accuracies differ at the target's"
EMPTY, UNMATCHED, UNFAIR, PILOT, FLAT = "empty", "unmatched", "unfair", "pilot", "flat"


@dataclass(frozen=True)
class Obstacle:
    """Why nothing may be claimed: a kind to decide by, and a text to read."""

    kind: str
    text: str


def obstacles(row: Row) -> Iterator[Obstacle]:
    """All that stands in the way of a claim from a row, the gravest first.

    ``state`` is there only in rows about a target; ``n`` is the number of pairs of seeds.
    """
    state, matched, unfair = row.get("state"), row.get("matched"), row.get("unfair")
    if state == "empty":
        yield Obstacle(EMPTY, NO_PAIR)
        return
    if matched != words.MATCHED:
        why = f"arms not matched ({matched})"
        if is_missing(matched):
            why = "no seed has finished runs of both arms at equal epochs"
        yield Obstacle(UNMATCHED, f"no claim: {why}")
    if unfair:
        yield Obstacle(UNFAIR, f"no claim: {unfair}")
    if (few := pilot(row["n"])) is not None:
        yield few
    if state == "flat":
        yield Obstacle(FLAT, words.FLAT)


def pilot(n: int) -> Obstacle | None:
    """That n seeds are too few for a claim, if they are."""
    text = f"pilot: no claim ({n} of {MIN_SEEDS} seeds)"
    return Obstacle(PILOT, text) if n < MIN_SEEDS else None


def obstacle(row: Row) -> Obstacle | None:
    """The gravest obstacle, if there is one."""
    return next(obstacles(row), None)


def unanswerable(row: Row) -> Obstacle | None:
    """The gravest obstacle but few seeds, which leave a question open: nothing is measured."""
    return next((found for found in obstacles(row) if found.kind != PILOT), None)


def differs(row: Row) -> bool:
    """Whether a difference at equal budgets may be set apart: its interval excludes 0.

    One in favour of an arm of which runs diverged is that of the others alone, and is not.
    """
    low, high = row["low"], row["high"]
    if obstacle(row) is not None or is_missing(low):
        return False
    return bool(high < 0 or (low > 0 and not row["diverged"]))


# --- saving of epochs -------------------------------------------------------------------------


def saving(row: Row, analysis: Analysis) -> str:
    """What may be claimed of the epochs to a target."""
    if (barred := obstacle(row)) is not None:
        return barred.text
    saves, more = row["rho_low"] > 1, row["rho_high"] < 1 or _out_of_reach(row)
    if not (saves or more):
        apart = not is_missing(row["p_holm"]) and row["p_holm"] <= analysis.alpha
        return NO_RATIO if apart else NO_DIFFERENCE
    if is_missing(row["p_holm"]):
        return "not tested: no cells at the target's epochs"
    if row["p_holm"] > analysis.alpha:
        return f"not significant over {row['comparisons']:.0f} comparisons (Holm)"
    return SAVES + _time(row) if saves else MORE


def _out_of_reach(row: Row) -> bool:
    """Whether the method is significantly below the target at all budgets up to the target's."""
    return row["state"] == "missed" and bool(row["rho_high"] <= row["bound"] <= 1)


def _time(row: Row) -> str:
    low, high = row["rho_low_pretrain_s"], row["rho_high_pretrain_s"]
    if row["mixed_hardware"]:
        return "; time not comparable"
    if is_missing(low):
        return "; time not measured"
    if low > 1:
        return " and time"
    return ", but costs time" if high < 1 else "; no difference of time found"


# --- half the epochs --------------------------------------------------------------------------


@dataclass(frozen=True)
class Half:
    """Whether half the epochs reach the baseline's accuracy: the word, and why there is none.

    ``seeds`` is how many would settle an open question if the mean and spread stayed as they are;
    None if they are not known or more than a thousand.
    """

    word: str
    why: str = ""
    seeds: int | None = None

    @property
    def text(self) -> str:
        """The word of a claim, or why there is none."""
        return self.why or self.word


def half(row: Row, analysis: Analysis, tests: int) -> Half:
    """Non-inferiority at half the epochs: its limit clears the margin, or it is refuted.

    Both directions are one-sided tests at the plan's level, adjusted over all comparisons of the
    endpoint.

    Args:
        row: a row of the frame ``targets``.
        analysis: the plan's margin and level.
        tests: comparisons of the endpoint that were tested at half their epochs.
    """
    if (barred := unanswerable(row)) is not None:
        return Half(UNMEASURABLE, barred.text)
    few = pilot(row["n"])
    if is_missing(row.get("half_low")):
        missing = f"no cells at {row['target_epochs'] / 2:g} epochs"
        return Half(UNMEASURABLE, f"{missing}; {few.text}" if few else missing)
    seeds = _settling(row, analysis, tests)
    if few is not None:
        return Half(OPEN, few.text, seeds)
    if is_missing(row["half_p_holm"]) or row["half_p_holm"] > analysis.alpha:
        return Half(OPEN, seeds=seeds)
    return Half(SHOWN if row["half_difference"] > -analysis.margin else REFUTED)


def judged(row: Row) -> Half:
    """What :func:`half` has said of a row of a report, from the columns that keep it."""
    word, said, seeds = row["half"], row["half_words"], row["half_seeds"]
    return Half(word, "" if said == word else said, None if is_missing(seeds) else int(seeds))


def _settling(row: Row, analysis: Analysis, tests: int) -> int | None:
    """Seeds that settle it with power 80 %, at the level that the adjustment leaves at most."""
    if is_missing(row["half_sd"]):
        return None
    level = analysis.alpha / max(1, tests)
    gap = row["half_difference"] + analysis.margin
    found = seeds_to_settle(gap, row["half_sd"], alpha=level)
    return None if found is None else max(found, MIN_SEEDS, row["n"] + 1)
