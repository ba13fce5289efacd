"""Draws plots. What is drawn is plain data (:class:`Plot`); matplotlib is imported on first use."""

from __future__ import annotations

import hashlib
import io
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours without yellow: told apart by most kinds of colour vision, and in grey
together with the markers and dashes below."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", (0, (3, 1)), (0, (1, 1)))
STYLE: Any = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "mto-bench",
    "svg.fonttype": "path",
}
WIDTH, HEIGHT = 5.2, 3.4
"""Inches: the width of a text column."""

FOREST_WIDTH = 7.4
"""Inches: a forest plot has words on both sides."""

LABEL_WIDTH = 36
"""Characters that have room beside it."""

DRAWING = 3
"""Raised when the drawing changes, so that plots drawn before are drawn anew."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line or row: values, their interval where there is one, open ends as infinity.

    ``arm`` is the method it is of. Rows of a forest plot also have: the ``group`` they stand in,
    ``dots`` (a value a pair of seeds), and whether they are set ``strong`` or ``faint``.
    """

    label: str
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    note: str = ""
    arm: str = ""
    group: str = ""
    dots: tuple[float, ...] = ()
    strong: bool = False
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot as data. ``ticks`` are the x values to name; ``targets`` are levels to mark.

    ``lead`` is set for those that open a report. A forest plot has ``marks``, vertical lines with a
    label and a kind (``mark`` dotted, ``claim`` dashed), and says at the ``ends`` of its axis what
    lies that way.
    """

    name: str
    title: str
    x_label: str
    y_label: str = ""
    kind: Literal["lines", "forest"] = "lines"
    series: tuple[Series, ...]
    log_x: bool = False
    markers: bool = True
    ticks: tuple[float, ...] = ()
    targets: tuple[tuple[str, float], ...] = ()
    marks: tuple[tuple[float, str, str], ...] = ()
    ends: tuple[str, str] = ("", "")
    caption: str = ""
    lead: bool = False


def forest_limits(plot: Plot) -> tuple[float, float]:
    """Ends of a forest plot's axis: all closed ends and marks, within a quarter and four."""
    closed = [v for s in plot.series for v in (*s.low, *s.high, *s.x) if 0 < v < float("inf")]
    known = [*closed, *(at for at, _, _ in plot.marks), 1.0]
    return max(min(known) / 1.15, 0.25), min(max(known) * 1.15, 4.6)


def forest_ticks(low: float, high: float) -> list[float]:
    """The ratios named on a forest plot's axis."""
    return [t for t in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4) if low <= t <= high]


def fingerprint(plot: Plot) -> str:
    """Hash of all that is drawn: an equal one needs no new drawing."""
    text = json.dumps([DRAWING, asdict(plot)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw(plot: Plot, formats: Sequence[str]) -> dict[str, bytes]:
    """The plot as ``png`` and ``svg`` bytes, the same for the same data."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (WIDTH, HEIGHT)
    if plot.kind == "forest":
        size = (FOREST_WIDTH, 1.1 + 0.19 * (len(plot.series) + len({s.group for s in plot.series})))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        DRAWERS[plot.kind](axes, plot)
        axes.set_xlabel(plot.x_label)
        forest = plot.kind == "forest"
        axes.set_title(plot.title, fontsize=9.5, loc="left", pad=18 if forest else None)
        footer = textwrap.fill(plot.caption, 175 if forest else 120)
        figure.supxlabel(footer, fontsize=5.5, color="0.35", x=0.01, ha="left")
        return {name: _bytes(figure, name) for name in formats}


def _bytes(figure: Any, name: str) -> bytes:
    metadata = {"Date": None} if name == "svg" else {"Software": None}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=name, dpi=200, metadata=metadata)
    return buffer.getvalue()


def _lines(axes: Any, plot: Plot) -> None:
    for i, series in enumerate(plot.series):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        style = {"color": colour, "linestyle": DASHES[i % len(DASHES)], "markersize": 4}
        if plot.markers:
            style["marker"] = marker
        axes.plot(series.x, series.y, label=series.label, **style)
        if series.low:
            axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.15, lw=0)
    for label, level in plot.targets:
        axes.axhline(level, color="0.4", linewidth=0.9, linestyle=":")
        place = {"xycoords": ("axes fraction", "data"), "xytext": (2, 2)}
        axes.annotate(label, (0, level), textcoords="offset points", fontsize=7, **place)
    if plot.log_x:
        axes.set_xscale("log", base=2)
    if plot.ticks:
        axes.set_xticks(plot.ticks, [f"{tick:g}" for tick in plot.ticks], minor=False)
        axes.set_xticks([], minor=True)
    axes.set_ylabel(plot.y_label)
    axes.legend(fontsize=8)


def _forest(axes: Any, plot: Plot) -> None:
    """Rows from the top, under their groups; an open interval ends in an arrow at the edge."""
    left, right = forest_limits(plot)
    rows: list[Series | str] = []
    for series in plot.series:
        if not rows or series.group not in rows:
            rows.append(series.group)
        rows.append(series)
    for i, row in enumerate(rows):
        if isinstance(row, Series):
            _forest_row(axes, row, -i, (left, right))
    for at, label, kind in plot.marks:
        axes.axvline(at, color="0.3", linewidth=1.0, linestyle="--" if kind == "claim" else ":")
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(label, (at, 1.0), xytext=(0, 2), ha="center", fontsize=7, **place)
    axes.set_xscale("log", base=2)
    axes.set_xlim(left, right)
    ticks = forest_ticks(left, right)
    axes.set_xticks(ticks, [f"×{t:g}" for t in ticks], minor=False)
    axes.set_xticks([], minor=True)
    names = [_beside(r.label) if isinstance(r, Series) else r for r in rows]
    axes.set_yticks([-i for i in range(len(rows))], names, ha="left", fontsize=7.5)
    axes.tick_params(axis="y", length=0, pad=150)
    for name, row in zip(axes.get_yticklabels(), rows, strict=True):
        strong = isinstance(row, str) or row.strong
        name.set_fontweight("bold" if strong else "normal")
        name.set_color("0.55" if isinstance(row, Series) and row.faint else "0.0")
        if "\n" in name.get_text():
            name.set_fontsize(5.8)
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.grid(False, axis="y")
    for edge, text, side in (
        (0.0, f"← {plot.ends[0]}", "left"),
        (1.0, f"{plot.ends[1]} →", "right"),
    ):
        axes.annotate(text, (edge, 0.0), xytext=(0, -22), ha=side, fontsize=7.5,
                      xycoords="axes fraction", textcoords="offset points")  # fmt: skip


def _beside(label: str) -> str:
    """A row's name, in lines that have room beside the plot, broken behind commas."""
    lines = textwrap.wrap(", ".join(part.strip() for part in label.split(",")), LABEL_WIDTH)
    return "\n".join(f"  {line}" for line in lines)


def _forest_row(axes: Any, series: Series, y: float, limits: tuple[float, float]) -> None:
    left, right = limits
    colour = "0.55" if series.faint else COLOURS[0]
    dots = [min(max(dot, left), right) for dot in series.dots]
    axes.plot(dots, [y] * len(dots), "o", color=COLOURS[2], markersize=2.6, alpha=0.6)
    for low, high in zip(series.low, series.high, strict=True):
        start, stop = min(max(low, left), right), max(min(high, right), left)
        axes.plot([start, stop], [y, y], color=colour, linewidth=2.0 if series.strong else 1.1)
        if low < left:
            axes.plot(left, y, marker="<", color=colour, clip_on=False, markersize=5)
        if high > right:
            axes.plot(right, y, marker=">", color=colour, clip_on=False, markersize=5)
    axes.plot(series.x, [y] * len(series.x), "s", color=colour, markersize=5)
    weight = "bold" if series.strong and not series.faint else "normal"
    axes.annotate(series.note, (1.02, y), xycoords=("axes fraction", "data"), va="center",
                  fontsize=7.5, color=colour, fontweight=weight)  # fmt: skip


DRAWERS = {"lines": _lines, "forest": _forest}
