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

DRAWING = 1
"""Raised when the drawing changes, so that plots drawn before are drawn anew."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line or row: values, their interval where there is one, open ends as infinity."""

    label: str
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot as data. ``ticks`` are the x values to name; ``targets`` are levels to mark."""

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
    caption: str = ""


def fingerprint(plot: Plot) -> str:
    """Hash of all that is drawn: an equal one needs no new drawing."""
    text = json.dumps([DRAWING, asdict(plot)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw(plot: Plot, formats: Sequence[str]) -> dict[str, bytes]:
    """The plot as ``png`` and ``svg`` bytes, the same for the same data."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(plot.series) if plot.kind == "forest" else 0
    height = 1.4 + 0.32 * rows if rows else HEIGHT
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        DRAWERS[plot.kind](axes, plot)
        axes.set_xlabel(plot.x_label)
        axes.set_title(plot.title, fontsize=9.5, loc="left")
        footer = textwrap.fill(plot.caption, 120)
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
    """Rows from the top; an open interval ends in an arrow at the edge of the plot."""
    ends = [v for s in plot.series for v in (*s.low, *s.high, *s.x) if 0 < v < float("inf")]
    left, right = min([*ends, 1.0]) / 1.3, max([*ends, 1.0]) * 1.3
    for i, series in enumerate(plot.series):
        y, colour = -i, COLOURS[0]
        for low, high in zip(series.low, series.high, strict=True):
            start, stop = max(low, left), min(high, right)
            axes.plot([start, stop], [y, y], color=colour, linewidth=1.4)
            if low <= 0:
                axes.plot(left, y, marker="<", color=colour, clip_on=False)
            if high == float("inf"):
                axes.plot(right, y, marker=">", color=colour, clip_on=False)
        axes.plot(series.x, [y] * len(series.x), "s", color=colour, markersize=5)
        axes.annotate(
            series.note, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=7
        )
    axes.axvline(1.0, color="0.4", linewidth=0.9, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_xlim(left, right)
    ticks = [t for t in (0.25, 0.5, 0.71, 1, 1.41, 2, 2.83, 4, 8) if left <= t <= right]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_yticks([-i for i in range(len(plot.series))], [s.label for s in plot.series])
    axes.set_ylim(-len(plot.series) + 0.4, 0.6)
    axes.grid(False, axis="y")


DRAWERS = {"lines": _lines, "forest": _forest}
