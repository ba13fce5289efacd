"""One HTML page that needs nothing else: the verdict first, the rest closed until it is asked for.

Figures are inline SVG in the colours of the page, light or dark. The filters act on everything
that carries ``data-method`` or ``data-data``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from bench.report import glossary, vector
from bench.report.draw import Plot
from bench.report.sections import Findings, Key, Section
from bench.report.tables import Table, accuracy_table, caption, section_tables, sentences
from bench.report.verdicts import NO_COMPARISON, QUESTION, Verdict, verdicts

Plots = Mapping[Key, Sequence[Plot]]


def document(study: Findings, plots: Plots) -> str:
    """The whole report as one page."""
    body = [
        '<header><h1 id="top">mto-bench results</h1>',
        f"<p>{escape(QUESTION)}</p>{_filters(study)}</header>",
        *(_verdict(section) for section in study.sections),
        _warned(study),
        *(_main(section, i, plots) for i, section in enumerate(study.sections)),
        *(_rest(section, i, plots) for i, section in enumerate(study.sections)),
        *_remarks(study),
        _glossary(),
    ]
    return "\n".join([_head(), _contents(study, plots), *body, _foot()]) + "\n"


def brief(study: Findings) -> str:
    """What a notebook shows: verdicts, main tables and how many remarks there are."""
    body = [
        *map(_verdict, study.sections),
        *(_main(s, i, {}) for i, s in enumerate(study.sections)),
    ]
    remarks = [text for _, found in study.remarks for text in found]
    return "\n".join([*body, *map(note, remarks)])


def note(text: str) -> str:
    """A line of text by itself."""
    return f'<p class="about">{escape(text)}</p>'


def _head() -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>mto-bench results</title><style>{_asset('page.css')}</style></head><body>"
    )


def _foot() -> str:
    return f"<script>{_asset('page.js')}</script></body></html>"


def _asset(name: str) -> str:
    return files("bench.report").joinpath(name).read_text(encoding="utf-8")


def _filters(study: Findings) -> str:
    arms = sorted(set(study.runs["arm"]))
    data = sorted(set(study.runs["data"]))
    return f'<form class="filters">{_select("method", arms)} {_select("data", data)}</form>'


def _select(name: str, values: list[str]) -> str:
    options = "".join(f"<option>{escape(value)}</option>" for value in values)
    return (
        f'<label>{name} <select id="{name}"><option value="">all</option>{options}</select></label>'
    )


def _contents(study: Findings, plots: Plots) -> str:
    links = []
    for i, section in enumerate(study.sections):
        suffix = f", {section.key[0]}" if len(study.sections) > 1 else ""
        names = [("accuracy", "Accuracy"), *((t.name, t.title) for t in _closed(section))]
        if more := _more(section, plots):
            names.append(("figures", f"More figures ({len(more)})"))
        links += [(f"{name}-{i}", f"{title}{suffix}") for name, title in names]
    links += [(_anchor(head), head) for head, found in study.remarks if found]
    links.append(("words", "Words and abbreviations"))
    rows = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title in links)
    return f'<details class="contents"><summary>Contents</summary><ul>{rows}</ul></details>'


def _closed(section: Section) -> list[Table]:
    """The tables that stand closed: all but the main one."""
    return [table for table in section_tables(section) if table.name != "accuracy"]


def _anchor(head: str) -> str:
    return head.split()[0].lower()


# --- the answer -------------------------------------------------------------------------------


def _verdict(section: Section) -> str:
    found = verdicts(section)
    said = "".join(map(_answer, found)) or f"<li>{NO_COMPARISON}</li>"
    name = escape(", ".join(section.key[:2]))
    about = f'<section class="verdict" data-data="{escape(section.key[0])}"><h2>{name}</h2>'
    return f"{about}<ul>{said}</ul></section>"


def _answer(found: Verdict) -> str:
    beside = f'<p class="beside">{escape(found.beside)}</p>' if found.beside else ""
    word = found.word
    kind = word.replace(" ", "-")
    return (
        f'<li data-method="{escape(found.arm)}"><b class="word {kind}">{word}</b> '
        f"{escape(found.sentence)}{beside}</li>"
    )


def _warned(study: Findings) -> str:
    """How many remarks there are, each kind with a link."""
    links = [
        f'<a href="#{_anchor(head)}">{len(found)} {_counted(head, len(found))}</a>'
        for head, found in study.remarks
        if found
    ]
    return f'<p class="warned">{" · ".join(links)}</p>' if links else ""


def _counted(head: str, count: int) -> str:
    name = head.lower()
    return name if count != 1 else name.replace("s", "", 1) if name == "warnings" else name


# --- figures and tables -----------------------------------------------------------------------


def _main(section: Section, i: int, plots: Plots) -> str:
    """Forest plot, a figure a method, the main table."""
    shown = [plot for plot in plots.get(section.key, []) if plot.lead]
    return "\n".join(
        [
            f'<section id="accuracy-{i}" data-data="{escape(section.key[0])}">',
            f"<h2>{escape(section.key[0])}</h2>",
            *map(_figure, shown),
            _table(accuracy_table(section)),
            f'<p class="about">{escape(caption(section))}</p>',
            "</section>",
        ]
    )


def _rest(section: Section, i: int, plots: Plots) -> str:
    """Everything else, each part closed."""
    data = escape(section.key[0])
    parts = []
    for table in _closed(section):
        lines = _sentences(section) if table.name == "epochs_to_target" else ""
        parts.append(_part(f"{table.name}-{i}", table.title, lines + _table(table)))
    if figures := _more(section, plots):
        drawn = "".join(map(_figure, figures))
        parts.append(_part(f"figures-{i}", f"More figures ({len(figures)})", drawn))
    return f'<section data-data="{data}"><h2>{data} in detail</h2>{"".join(parts)}</section>'


def _more(section: Section, plots: Plots) -> list[Plot]:
    """The figures that do not open the page."""
    return [plot for plot in plots.get(section.key, []) if not plot.lead]


def _part(name: str, title: str, inside: str) -> str:
    return f'<details id="{name}"><summary>{escape(title)}</summary>{inside}</details>'


def _sentences(section: Section) -> str:
    said = sentences(section)
    rows = "".join(f'<li data-method="{escape(arm)}">{escape(text)}</li>' for arm, text in said)
    return f"<ul>{rows}</ul>"


def _figure(plot: Plot) -> str:
    arms = " ".join(dict.fromkeys(s.arm for s in plot.series))
    kind = f' class="{plot.kind}"'
    return f'<figure{kind} data-method="{escape(arms)}">{vector.svg(plot)}</figure>'


def _table(table: Table) -> str:
    heads = "".join(map(_column, table.columns))
    rows = "\n".join(_row(table, i) for i in range(len(table.rows)))
    return (
        f'<h3>{escape(table.title)}</h3><div class="wide"><table><thead><tr>{heads}</tr></thead>'
        f'<tbody>\n{rows}\n</tbody></table></div><p class="about">{escape(table.note)}</p>'
    )


def _column(name: str) -> str:
    said = glossary.meaning(name)
    shown = f'<abbr title="{escape(said)}">{escape(name)}</abbr>' if said else escape(name)
    return f'<th scope="col">{shown}</th>'


def _row(table: Table, i: int) -> str:
    """Every table's first column is the method, which the filter reads and a phone keeps."""
    row = table.rows[i]
    cells = [
        f"<td><b>{escape(cell)}</b></td>" if (i, j) in table.strong else f"<td>{escape(cell)}</td>"
        for j, cell in enumerate(row)
    ]
    first = ' class="first"' if i and table.rows[i - 1][0] != row[0] else ""
    return f'<tr data-method="{escape(row[0])}"{first}>{"".join(cells)}</tr>'


def _remarks(study: Findings) -> list[str]:
    return [
        f'<section id="{_anchor(head)}"><h2>{head}</h2>'
        f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in found)}</ul></section>"
        for head, found in study.remarks
        if found
    ]


def _glossary() -> str:
    terms = "".join(
        f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in glossary.TERMS.items()
    )
    return (
        '<section><details id="words"><summary>Words and abbreviations</summary>'
        f"<dl>{terms}</dl></details></section>"
    )
