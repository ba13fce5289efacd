"""Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from bench.report.sections import Key, Section, Study
from bench.report.tables import Table, accuracy_table, caption, section_tables, sentences

Links = Mapping[Key, list[tuple[str, str]]]
"""Title and relative path of each plot, by section."""


def table_lines(table: Table) -> list[str]:
    """A pipe table; bars inside cells are escaped."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]


def summary_text(study: Study) -> str:
    """The main table of each section and a line a comparison."""
    lines = []
    for section in study.sections:
        table = accuracy_table(section)
        lines += [f"### {table.title}: {section.key[0]}", "", *table_lines(table), ""]
        lines += [caption(section), "", *_said(section)]
    return _joined([*lines, *_remarks(study)])


def document(study: Study, links: Links) -> str:
    """The whole report."""
    lines = ["# Results", ""]
    for section in study.sections:
        lines += [f"## {section.key[0]}, {section.key[1]}", "", *_said(section)]
        for title, path in links.get(section.key, []):
            lines += [f"![{title}]({path})", ""]
        for table in section_tables(section):
            lines += [f"### {table.title}", "", *table_lines(table), ""]
            lines += [caption(section), "", table.note, ""]
    return _joined([*lines, *_remarks(study)])


def _said(section: Section) -> list[str]:
    return [*(f"- {text}" for text in sentences(section)), ""]


def _remarks(study: Study) -> list[str]:
    """Warnings, deviations from the plan and missing cells, each under its head."""
    lines = []
    for head, found in study.remarks:
        if found:
            lines += [f"**{head}**", "", *(f"- {text}" for text in found), ""]
    return lines


def _joined(lines: list[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"
