"""One HTML page that needs nothing else: tables that sort and filter, plots inside the file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from importlib.resources import files

from bench.report.sections import Key, Section, Study
from bench.report.tables import Table, caption, section_tables, sentences

Pictures = Mapping[Key, list[tuple[str, bytes]]]
"""Title and SVG of each plot, by section."""


def document(study: Study, pictures: Pictures) -> str:
    """The whole report as one page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>mto-bench results</title><style>{_asset('page.css')}</style></head><body>",
        "<h1>mto-bench results</h1>",
        _filters(study),
        *(_section(section, pictures.get(section.key, [])) for section in study.sections),
        *_remarks(study),
        f"<script>{_asset('page.js')}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _asset(name: str) -> str:
    return files("bench.report").joinpath(name).read_text(encoding="utf-8")


def _filters(study: Study) -> str:
    arms = sorted(set(study.runs["arm"]))
    data = sorted(set(study.runs["data"]))
    return f"<nav>{_select('method', arms)} {_select('data', data)}</nav>"


def _select(name: str, values: list[str]) -> str:
    options = "".join(f"<option>{escape(value)}</option>" for value in values)
    return (
        f'<label>{name} <select id="{name}"><option value="">all</option>{options}</select></label>'
    )


def _section(section: Section, pictures: list[tuple[str, bytes]]) -> str:
    said = "".join(f"<li>{escape(text)}</li>" for text in sentences(section))
    parts = [
        f'<section data-data="{escape(section.key[0])}">',
        f"<h2>{escape(', '.join(section.key[:2]))}</h2>",
        f"<ul>{said}</ul>",
        *(_figure(title, svg) for title, svg in pictures),
        *(_table(table, caption(section)) for table in section_tables(section)),
        "</section>",
    ]
    return "\n".join(parts)


def _figure(title: str, svg: bytes) -> str:
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    return f'<figure><img src="{source}" alt="{escape(title)}"></figure>'


def _table(table: Table, about: str) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "\n".join(_row(row) for row in table.rows)
    return (
        f"<h3>{escape(table.title)}</h3><div><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>\n{rows}\n</tbody></table></div>"
        f"<p>{escape(about)}</p><p>{escape(table.note)}</p>"
    )


def _row(row: list[str]) -> str:
    """Every table's first column is the method, which the filter reads."""
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
    return f'<tr data-method="{escape(row[0])}">{cells}</tr>'


def _remarks(study: Study) -> list[str]:
    return [
        f"<h2>{head}</h2><ul>{''.join(f'<li>{escape(text)}</li>' for text in found)}</ul>"
        for head, found in study.remarks
        if found
    ]
