"""Plots as small inline SVG for the page: text stays text, colours follow the page's scheme.

Series are drawn in ``currentColor`` under the classes ``s0``, ``s1``, ...; page.css names the
colours of both schemes. Files for papers are drawn by :mod:`bench.report.draw`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

from bench.report.draw import COLOURS, Plot, Series, forest_limits, forest_ticks

WIDTH, HEIGHT = 460.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 20.0, 42.0
LABELS, NOTES, ROW = 180.0, 270.0, 17.0
"""Of a forest plot: room for the names on the left, the words on the right, height of a row."""

DASHES = ("", "6 3", "8 3 2 3", "2 2", "5 2 1 2 1 2", "3 4", "1 1")
Scale = Callable[[float], float]


def svg(plot: Plot) -> str:
    """The plot as an ``<svg>`` element."""
    return _forest(plot) if plot.kind == "forest" else _lines(plot)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _svg(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{place}{named}>{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{kind}"/>'


# --- lines ------------------------------------------------------------------------------------


def _scale(low: float, high: float, start: float, stop: float, log: bool = False) -> Scale:
    """Maps values onto pixels, linear or logarithmic."""
    to = math.log2 if log else float
    a, b = to(low), to(high)
    width = (b - a) or 1.0
    return lambda value: start + (to(value) - a) / width * (stop - start)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values between two limits, about ``count`` of them."""
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / count))
    step = next((size * m for m in (1, 2, 5, 10) if span / (size * m) <= count), size * 10)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _lines(plot: Plot) -> str:
    xs = [x for s in plot.series for x in s.x]
    ys = [y for s in plot.series for y in (*s.y, *s.low, *s.high)]
    ys += [level for _, level in plot.targets]
    pad = (max(ys) - min(ys)) * 0.04 or 1.0
    top = TOP + 14 * len(plot.series)
    x = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT, plot.log_x)
    y = _scale(min(ys) - pad, max(ys) + pad, HEIGHT - BOTTOM, top)
    parts = [_text(2, 12, plot.title, kind="title")]
    for i, series in enumerate(plot.series):
        parts += _legend(series, i, TOP + 14 * i)
    for tick in nice_ticks(min(ys) - pad, max(ys) + pad):
        parts.append(_rule(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid"))
        parts.append(_text(LEFT - 5, y(tick) + 4, f"{tick:g}", "end"))
    for tick in plot.ticks or nice_ticks(min(xs), max(xs)):
        parts.append(_rule(x(tick), HEIGHT - BOTTOM, x(tick), HEIGHT - BOTTOM + 4, "axis"))
        parts.append(_text(x(tick), HEIGHT - BOTTOM + 16, f"{tick:g}", "middle"))
    parts.append(_rule(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"))
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 8, plot.x_label, "middle"))
    for label, level in plot.targets:
        parts.append(_rule(LEFT, y(level), WIDTH - RIGHT, y(level), "mark"))
        parts.append(_text(LEFT + 3, y(level) - 3, label, kind="small"))
    parts += [_curve(series, i, x, y, plot.markers) for i, series in enumerate(plot.series)]
    return _svg(WIDTH, HEIGHT, plot.title, parts)


def _legend(series: Series, i: int, y: float) -> list[str]:
    return [
        f'<g class="{_colour(i)}">{_stroke([(LEFT, y + 4), (LEFT + 26, y + 4)], i)}</g>',
        _text(LEFT + 32, y + 8, series.label),
    ]


def _colour(i: int) -> str:
    return f"s{i % len(COLOURS)}"


def _stroke(points: Sequence[tuple[float, float]], i: int) -> str:
    dash = DASHES[i % len(DASHES)]
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{_points(points)}" class="line"{style}/>'


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{_n(a)},{_n(b)}" for a, b in points)


def _curve(series: Series, i: int, x: Scale, y: Scale, markers: bool) -> str:
    points = [(x(a), y(b)) for a, b in zip(series.x, series.y, strict=True)]
    parts = [_stroke(points, i)]
    if series.low:
        under = [(x(a), y(b)) for a, b in zip(series.x, series.low, strict=True)]
        over = [(x(a), y(b)) for a, b in zip(series.x, series.high, strict=True)]
        parts.append(f'<polygon points="{_points([*under, *over[::-1]])}" class="band"/>')
    if markers:
        parts += [f'<circle cx="{_n(a)}" cy="{_n(b)}" r="3" class="dot"/>' for a, b in points]
    return f'<g class="{_colour(i)}" data-method="{escape(series.arm)}">{"".join(parts)}</g>'


# --- forest -----------------------------------------------------------------------------------


def _forest(plot: Plot) -> str:
    heads = list(dict.fromkeys(s.group for s in plot.series))
    top = TOP + 16
    height = top + ROW * (len(plot.series) + len(heads)) + BOTTOM
    width = LABELS + 330 + NOTES
    low, high = forest_limits(plot)
    x = _scale(low, high, LABELS + 12, width - NOTES - 12, log=True)
    floor = height - BOTTOM + 4
    parts = [_text(2, 12, plot.title, kind="title")]
    for at, label, kind in plot.marks:
        parts.append(_rule(x(at), top + 4, x(at), floor, kind))
        parts.append(_text(x(at), top, label, "middle", "small"))
    row = 0
    for head in heads:
        row += 1
        parts.append(_text(2, top + ROW * row, head, kind="head"))
        for series in (s for s in plot.series if s.group == head):
            row += 1
            parts.append(_forest_row(series, top + ROW * row, x, (low, high), width))
    parts.append(_rule(x(low), floor, x(high), floor, "axis"))
    for tick in forest_ticks(low, high):
        parts.append(_rule(x(tick), floor, x(tick), floor + 4, "axis"))
        parts.append(_text(x(tick), floor + 16, f"×{tick:g}", "middle"))
    less, more = plot.ends
    parts.append(_text(x(low), height - 6, f"← {less}", kind="small"))
    parts.append(_text(x(high), height - 6, f"{more} →", "end", "small"))
    return _svg(width, height, plot.title, parts)


def _forest_row(
    series: Series, y: float, x: Scale, limits: tuple[float, float], width: float
) -> str:
    low, high = limits
    middle = y - 4
    parts = [_text(10, y, series.label), _text(width - NOTES, y, series.note)]
    for dot in series.dots:
        place = min(max(dot, low), high)
        parts.append(f'<circle cx="{_n(x(place))}" cy="{_n(middle)}" r="2.2" class="pair"/>')
    for start, stop in zip(series.low, series.high, strict=True):
        a, b = x(min(max(start, low), high)), x(max(min(stop, high), low))
        parts.append(_rule(a, middle, b, middle, "range"))
        if start < low:
            parts.append(_arrow(a, middle, -1))
        if stop > high:
            parts.append(_arrow(b, middle, 1))
    for value in series.x:
        parts.append(
            f'<rect x="{_n(x(value) - 3.5)}" y="{_n(middle - 3.5)}" width="7" height="7" '
            'class="dot"/>'
        )
    kind = "faint" if series.faint else "strong" if series.strong else "plain"
    return f'<g class="{kind}" data-method="{escape(series.arm)}">{"".join(parts)}</g>'


def _arrow(x: float, y: float, side: int) -> str:
    points = [(x + 7 * side, y), (x, y - 4), (x, y + 4)]
    return f'<polygon points="{_points(points)}" class="dot"/>'
