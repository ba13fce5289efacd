"""What the main command prints at its end: the verdict, then a table within 80 columns."""

from __future__ import annotations

import textwrap

from tabulate import tabulate

from bench.report import checks, noise, words
from bench.report.sections import Findings, Section
from bench.report.tables import matched
from bench.report.verdicts import NO_COMPARISON, verdicts
from bench.stats.analysis import endpoint_label

COLUMNS = 80
REMARKS = 3
"""Remarks printed in full; the report holds them all."""


def text(study: Findings) -> str:
    """Verdicts, a table a section, and what to know about them."""
    blocks = [part for section in study.sections for part in _section(section)]
    return "\n\n".join([*blocks, *_remarks(study)]) + "\n"


def _section(section: Section) -> list[str]:
    said = [_wrapped(f"{v.word.upper()}  {v.text}") for v in verdicts(section)]
    floor = [_wrapped(line) for _, line in noise.sentences(section)]
    return ["\n".join(said or [NO_COMPARISON]), "\n".join([_table(section), *floor])]


def _wrapped(line: str) -> str:
    return textwrap.fill(line, COLUMNS, subsequent_indent="  ", break_on_hyphens=False)


def _table(section: Section) -> str:
    """Method, epochs, the primary endpoint and its difference."""
    measured = {row["endpoint"] for row in section.rows["accuracy"]}
    endpoint = next((e for e in section.analysis.endpoints if e in measured), "")
    if not endpoint:
        return f"{_wrapped(_about(section))}\nno finished run that counts: see what is said below"
    gains = {
        (row["arm"], row["epochs"]): words.gain(row)
        for row in section.rows["differences"]
        if row["endpoint"] == endpoint
    }
    rows = [r for r in section.rows["accuracy"] if r["endpoint"] == endpoint]
    rows.sort(key=lambda r: (r["base_arm"], r["arm"] != r["base_arm"], r["arm"], r["epochs"]))
    shown = [
        [
            _name(row["arm"]),
            str(row["epochs"]),
            words.mean_sd(row["mean"], row["sd"]),
            *([gains.get((row["arm"], row["epochs"]), "")] if gains else []),
            f"{row['n_ok']}/{row['n']}",
        ]
        for row in rows
    ]
    compared = ["Δ [95 %]"] if gains else []
    heads = ["method", "epochs", endpoint_label(endpoint), *compared, "n"]
    drawn = tabulate(shown, heads, tablefmt="simple", disable_numparse=True)
    return f"{_wrapped(_about(section))}\n{drawn}"


def _about(section: Section) -> str:
    """Data, model, seeds, matching; what must be said of the plug-ins."""
    facts = [*section.key[:2], f"seeds {checks.spans(section.runs['seed'])}", matched(section)]
    return " · ".join([*facts, *(row.short for row in section.plugins if row.short)])


def _name(arm: str, room: int = 24) -> str:
    """The arm's whole name, on several lines where it is long: two arms are never shown alike."""
    parts = textwrap.wrap(arm.replace(",", ", "), room, subsequent_indent=" ")
    return "\n".join(part.replace(", ", ",") for part in parts)


def _remarks(study: Findings) -> list[str]:
    found = [f"{head.lower()}: {text}" for head, texts in study.remarks for text in texts]
    lines = [_wrapped(line) for line in found[:REMARKS]]
    if len(found) > REMARKS:
        lines.append(f"and {len(found) - REMARKS} more in report.md")
    return ["\n".join(lines)] if lines else []
