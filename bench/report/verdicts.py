"""The answer of a study: one word and one sentence a variant. Pure.

The question is whether a variant reaches its baseline's accuracy in half the epochs, how sure that
is and what it costs. It is asked of the plan's primary endpoint and target; which words may answer
it is decided in :mod:`bench.report.claims`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.report import claims, words
from bench.report.sections import Section
from bench.report.tables import Table
from bench.report.words import Row, is_missing
from bench.stats.analysis import Analysis, endpoint_label
from bench.stats.noise import NULL

QUESTION = "Does it reach the baseline's accuracy in half the epochs, how sure, and at what cost?"
NO_COMPARISON = "No comparison: there is no baseline with a variant of it to compare."


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a study says of one variant.

    ``beside`` answers at the largest target where the question can be measured, if it cannot at the
    primary one; ``seeds`` is how many would settle an open question.
    """

    arm: str
    base_arm: str
    word: str
    sentence: str
    target_epochs: int
    beside: str = ""
    beside_word: str = ""
    seeds: int | None = None

    @property
    def text(self) -> str:
        """Both sentences."""
        return f"{self.sentence} {self.beside}".rstrip()


def verdicts(section: Section) -> list[Verdict]:
    """One verdict a variant, by name; a null arm is no variant."""
    by_arm: dict[str, list[Row]] = {}
    for row in _asked(section):
        by_arm.setdefault(row["arm"], []).append(row)
    found = [_verdict(by_arm[arm], section.analysis) for arm in sorted(by_arm)]
    return [_swapped(v, section.analysis) for v in found] if _is_swapped(section) else found


def answers(section: Section) -> Table | None:
    """The verdicts as one table; None unless each is measured, at one target for all."""
    analysis = section.analysis
    rows = sorted((r for r in _asked(section) if r["main_target"]), key=lambda r: r["arm"])
    found = [claims.judged(row) for row in rows]
    targets = {row["target_epochs"] for row in rows}
    unmeasured = _is_swapped(section) or claims.UNMEASURABLE in {half.word for half in found}
    if len(targets) != 1 or unmeasured:
        return None
    (target,) = targets
    limit = words.minus(analysis.margin)
    name = endpoint_label(rows[0]["endpoint"]).removesuffix(" top-1")
    columns = ["method", f"half of {target} epochs", "Δ there", "the baseline itself"]
    columns += [f"epochs to its accuracy at {target}", "ρ epochs [95 %]", "ρ wall time"]
    digits = words.digits_of(analysis.margin)
    lines = [_line(row, half, digits) for row, half in zip(rows, found, strict=True)]
    note = (
        f"Half: {target / 2:g} epochs against the baseline at {target}, Δ in points of {name} "
        f"accuracy with one-sided limits of 95 % each. {claims.SHOWN.capitalize()} if Δ "
        f"is significantly above {limit}, {claims.REFUTED} if below, by p adjusted "
        f"over all comparisons: so it can be open though Δ's limits exclude {limit}. "
        f"Bold ρ: significant so too, a claim."
    )
    claimed = (claims.SAVES, claims.MORE)
    strong = [(i, 1) for i in range(len(rows))]
    strong += [(i, 5) for i, row in enumerate(rows) if row["verdict"].startswith(claimed)]
    return Table("answers", QUESTION, columns, lines, note, frozenset(strong))


def _line(row: Row, found: claims.Half, digits: int) -> list[str]:
    limits = words.interval(row["half_low"], row["half_high"], digits, True)
    told = (
        _until(row, found)
        if found.word == claims.OPEN
        else f"(p {words.p_value(row['half_p_holm'])})"
    )
    return [
        row["arm"],
        f"{found.word} {told}",
        f"{words.number(row['half_difference'], digits, True)} {limits}".rstrip(),
        words.number(row["half_base"], digits, True),
        f"{row['epochs_variant']:.0f}" if row["state"] == "measured" else words.NONE,
        words.factor(row),
        words.factor(row, "pretrain_s"),
    ]


def _asked(section: Section) -> list[Row]:
    """The rows of targets that the question is asked of."""
    endpoint = _endpoint(section)
    return [
        row
        for row in section.rows["targets"]
        if row["endpoint"] == endpoint and row["arm"] != row["base_arm"] + NULL
    ]


def _is_swapped(section: Section) -> bool:
    """Whether a plan's primary endpoint was not measured, so that another stands in its place."""
    analysis = section.analysis
    return analysis.planned and _endpoint(section) != analysis.endpoint


def _swapped(found: Verdict, analysis: Analysis) -> Verdict:
    """What another endpoint says is no answer to the question that was planned."""
    name = endpoint_label(analysis.endpoint)
    return replace(
        found,
        word=claims.UNMEASURABLE,
        sentence=f"{found.arm} cannot be measured by the planned endpoint, {name}: no run has it.",
        beside=f"Beside it: {found.text}",
        beside_word=found.word,
        seeds=None,
    )


def _endpoint(section: Section) -> str:
    """The primary endpoint; where none of it was measured, the first secondary one that was."""
    measured = {row["endpoint"] for row in section.rows["targets"]}
    return next((e for e in section.analysis.endpoints if e in measured), "")


def _verdict(rows: list[Row], analysis: Analysis) -> Verdict:
    row = next(row for row in rows if row["main_target"])
    found = claims.judged(row)
    defined = [r for r in rows if claims.judged(r).word != claims.UNMEASURABLE]
    other = max(defined, key=lambda r: r["target_epochs"], default=None)
    beside = found.word == claims.UNMEASURABLE and other is not None
    return Verdict(
        arm=row["arm"],
        base_arm=row["base_arm"],
        word=found.word,
        sentence=_sentence(row, analysis),
        target_epochs=row["target_epochs"],
        beside=f"Beside it: {_sentence(other, analysis)}" if beside and other else "",
        beside_word=claims.judged(other).word if beside and other else "",
        seeds=found.seeds,
    )


def _sentence(row: Row, analysis: Analysis) -> str:
    name = endpoint_label(row["endpoint"]).removesuffix(" top-1")
    if (barred := claims.unanswerable(row)) is not None:
        target = "planned target" if analysis.planned and row["main_target"] else "target"
        goal = f"{row['base_arm']}'s {name} accuracy at {row['target_epochs']} epochs"
        return f"{row['arm']} cannot be measured at its {target}, {goal}: {barred.text}."
    return f"{row['arm']}{_half(row, name, analysis)}. {_epochs(row)}."


def _half(row: Row, name: str, analysis: Analysis) -> str:
    """The variant at half the epochs against the baseline: the gap, its limit and the test."""
    found = claims.judged(row)
    if found.word == claims.UNMEASURABLE:
        return f": half the epochs cannot be measured ({_flowing(found.why)})"
    at, target = f"{row['target_epochs'] / 2:g}", row["target_epochs"]
    digits = words.digits_of(analysis.margin)
    low, high = (words.number(row[f"half_{end}"], digits, True) for end in ("low", "high"))
    gap = words.number(row["half_difference"], digits, True)
    said = f" at {at} epochs against {row['base_arm']} at {target}: {gap} points of {name} accuracy"
    if not is_missing(row["half_base"]):
        own = words.number(row["half_base"], digits, True)
        said += f" ({row['base_arm']} itself at {at}: {own})"
    margin = f"margin {analysis.margin:g}"
    if found.word == claims.OPEN:
        limits = "" if row["n"] < 2 else f", {low} to {high}"
        return f"{said}{limits} ({margin}); open {_until(row, found)}"
    limit = f"at least {low}" if found.word == claims.SHOWN else f"at most {high}"
    return f"{said}, {limit} ({margin}, p {words.p_value(row['half_p_holm'])})"


def _epochs(row: Row) -> str:
    """Epochs of both arms to the target and its time, under the claim if there is one."""
    goal = f"{row['base_arm']}'s accuracy at {row['target_epochs']} epochs"
    claim = next((c for c in (claims.SAVES, claims.MORE) if row["verdict"].startswith(c)), "")
    head = f"It {claim}: " if claim else ""
    ratio, time = _flowing(words.factor(row)), words.factor(row, "pretrain_s")
    if row["state"] == "missed":
        bound = time.partition(", ")[2]
        time = f"; wall time {bound}" if bound else ""
        missed = f"{goal} is not reached" if claim else f"It does not reach {goal}"
        return f"{head}{missed} ({ratio}{_said(row)}){time}"
    to = f"to {goal}"
    if row["state"] == "measured":
        to = f"{head or 'It takes '}{row['epochs_variant']:.0f} epochs {to}, "
        return f"{to}ρ {ratio}{_said(row)}; wall time {time}"
    return f"{head}ρ {ratio}{_said(row)}, {to}; wall time {time}"


def _flowing(text: str) -> str:
    """Words to stand inside brackets, so without brackets of their own."""
    return text.replace(" (", ", ").replace(")", "")


def _said(row: Row) -> str:
    """That there is no claim on epochs; a pilot says so once, at the end."""
    no_claim = row["verdict"].startswith((claims.NO_DIFFERENCE, claims.NO_RATIO, "not "))
    return f", {row['verdict']}" if no_claim else ""


def _until(row: Row, found: claims.Half) -> str:
    seeds = f"at {row['n']} seed{'s' if row['n'] != 1 else ''}"
    if row["n"] < 2:
        return f"{seeds} ({_flowing(found.why)})"
    told = f"about {found.seeds} would tell" if found.seeds else "more than 1000 would not tell"
    return f"{seeds} ({_flowing(found.why) + '; ' if found.why else ''}{told})"
