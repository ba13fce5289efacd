from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bench.report.draw import Plot, Series, draw, fingerprint

LINES = Plot(
    name="accuracy",
    title="accuracy",
    x_label="epochs",
    series=(
        Series(label="mae", x=(100, 200), y=(80, 81), low=(79, 80), high=(81, 82)),
        Series(label="mae+mto", x=(100, 200), y=(81, 82)),
    ),
    log_x=True,
    ticks=(100, 200),
    targets=(("target", 81.0),),
    caption="data digits",
)
FOREST = Plot(
    name="rho",
    title="rho",
    x_label="ρ",
    kind="forest",
    series=(
        Series(label="closed", x=(1.5,), low=(1.2,), high=(1.8,), note="×1.50"),
        Series(label="open", x=(), low=(0.0,), high=(math.inf,), note="not bounded"),
    ),
)


@pytest.mark.drawn
@pytest.mark.parametrize("plot", [LINES, FOREST])
def test_drawing_is_repeatable(plot: Plot) -> None:
    first = draw(plot, ["png", "svg"])
    assert first == draw(plot, ["png", "svg"])
    assert first["png"].startswith(b"\x89PNG")
    assert b"<svg" in first["svg"]


def test_fingerprint_changes_with_anything_drawn() -> None:
    series = (replace(LINES.series[0], y=(80, 81.5)), LINES.series[1])
    changed = [replace(LINES, series=series), replace(LINES, caption="data cifar10"), FOREST]
    assert len({fingerprint(plot) for plot in [LINES, *changed]}) == 4
    assert fingerprint(LINES) == fingerprint(replace(LINES))
