"""Markdown: the report, and the short form that a README carries."""

from __future__ import annotations

from collections.abc import Mapping

from bench.report.draw import Plot
from bench.report.sections import Findings, Key, Section
from bench.report.tables import Table, caption, section_tables, sentences
from bench.report.verdicts import NO_COMPARISON, QUESTION, answers, verdicts

Links = Mapping[Key, list[tuple[Plot, str]]]
"""Each plot and its relative path, by section."""

PICTURE_PX = 620
"""Width of a README's forest plot: with the verdicts it fits a screen of 1280 x 900."""


def table_lines(table: Table) -> list[str]:
    """A pipe table; bars inside cells are escaped, strong ones bold."""
    rows = [
        [f"**{cell}**" if (i, j) in table.strong else cell for j, cell in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    rows = [table.columns, ["---"] * len(table.columns), *rows]
    return ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]


def document(study: Findings, links: Links) -> str:
    """The whole report: the answer first."""
    lines = ["# Results", "", f"**{QUESTION}**", ""]
    for section in study.sections:
        lines += [f"## Verdict: {section.key[0]}, {section.key[1]}", "", *_answers(section)]
        lines += [f"![{p.title}]({path})\n" for p, path in links.get(section.key, []) if p.lead]
    if count := sum(len(found) for _, found in study.remarks):
        lines += [f"{count} remark{'s' if count != 1 else ''} at the end.", ""]
    for section in study.sections:
        lines += _details(section, links)
    return _joined([*lines, *_remarks(study)])


def _details(section: Section, links: Links) -> list[str]:
    lines = [f"## {section.key[0]}, {section.key[1]}", ""]
    for table in section_tables(section):
        lines += [f"### {table.title}", "", *table_lines(table), ""]
        lines += [caption(section), "", table.note, ""]
        if table.name == "epochs_to_target":
            lines += [*(f"- {text}" for _, text in sentences(section)), ""]
    rest = [f"![{p.title}]({path})\n" for p, path in links.get(section.key, []) if not p.lead]
    return [*lines, "### More figures", "", *rest] if rest else lines


def block(study: Findings, links: Links) -> str:
    """What a README shows: the verdicts, as a table where all are measured, the primary endpoint in
    a forest plot, its facts.
    """
    lines = []
    for section in study.sections:
        if len(study.sections) > 1:
            lines += [f"**{section.key[0]}**", ""]
        table = answers(section)
        lines += _answers(section) if table is None else [*table_lines(table), "", table.note, ""]
        shown = [
            (p, path) for p, path in links.get(section.key, []) if p.kind == "forest" and p.lead
        ]
        lines += [f'<img src="{path}" width="{PICTURE_PX}" alt="{p.title}">\n' for p, path in shown]
        lines += [f"<sub>{caption(section)}</sub>", ""]
    return _joined(lines)


def _answers(section: Section) -> list[str]:
    found = [f"- **{v.word}** · {v.text}" for v in verdicts(section)]
    return [*(found or [NO_COMPARISON]), ""]


def _remarks(study: Findings) -> list[str]:
    """Warnings, deviations from the plan and missing cells, each under its head."""
    lines = []
    for head, found in study.remarks:
        if found:
            lines += [f"## {head}", "", *(f"- {text}" for text in found), ""]
    return lines


def _joined(lines: list[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"
