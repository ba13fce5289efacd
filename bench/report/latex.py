"""LaTeX: one table environment a table, for a paper that loads booktabs."""

from __future__ import annotations

from bench.report.sections import Findings
from bench.report.tables import Table, caption, section_tables

ESCAPES = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "ρ": r"$\rho$",
    "Δ": r"$\Delta$",
    "→": r"$\rightarrow$",
    "✓": r"$\checkmark$",
    "—": "---",
    "·": r"$\cdot$",
    "<": r"$<$",
    ">": r"$>$",
}


def escape(text: str) -> str:
    """Text as LaTeX; every character is replaced once."""
    return "".join(ESCAPES.get(c, c) for c in text)


def document(study: Findings) -> str:
    """All tables of all sections."""
    lines = [r"% needs \usepackage{booktabs,amssymb,graphicx}"]
    for section in study.sections:
        for table in section_tables(section):
            lines += _table(table, f"{table.title}. {caption(section)} {table.note}")
    return "\n".join(lines) + "\n"


def _table(table: Table, text: str) -> list[str]:
    rows = [" & ".join(map(escape, row)) + r" \\" for row in table.rows]
    return [
        "",
        r"\begin{table}",
        r"\centering\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(map(escape, table.columns)) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}}",
        rf"\caption{{{escape(text)}}}",
        r"\end{table}",
    ]
