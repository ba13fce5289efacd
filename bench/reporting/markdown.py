"""Markdown."""

from __future__ import annotations

from bench.reporting.study import Key, Study
from bench.reporting.tables import Table, accuracy_table, caption, section_tables, sentences


def table_lines(table: Table) -> list[str]:
    """A pipe table; bars inside cells are escaped."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]


def remarks(study: Study) -> list[str]:
    """Warnings, deviations from the plan and missing cells, each under its head."""
    lines = []
    heads = ("Warnings", "Deviations from the plan", "Missing cells")
    for head, found in zip(heads, (study.warnings, study.deviations, study.missing), strict=True):
        if found:
            lines += [f"**{head}**", "", *(f"- {text}" for text in found), ""]
    return lines


def summary_text(study: Study) -> str:
    """The main table of each section and a line a comparison."""
    lines = []
    for key in study.sections:
        table = accuracy_table(study, key)
        lines += [
            f"### {table.title}: {key[0]}",
            "",
            *table_lines(table),
            "",
            caption(study, key),
            "",
        ]
        lines += [f"- {text}" for text in sentences(study, key)] + [""]
    return "\n".join([*lines, *remarks(study)]).rstrip() + "\n"


def document(study: Study) -> str:
    """The whole report."""
    lines = ["# Results", ""]
    for key in study.sections:
        lines += [f"## {key[0]}, {key[1]}", ""]
        lines += [f"- {text}" for text in sentences(study, key)] + [""]
        for table in section_tables(study, key):
            lines += [f"### {table.title}", "", *table_lines(table), ""]
            lines += [caption(study, key), "", table.note, ""]
    return "\n".join([*lines, *remarks(study)]).rstrip() + "\n"
