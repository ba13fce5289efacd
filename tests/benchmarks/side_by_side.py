"""Timing of several arms in one run: they take turns, so that a slow spell meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

Step = Callable[[], Any]


def race(benchmark: Any, arms: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """Median seconds of each arm; the first one is the reference of the printed ratios.

    In each round every arm runs once, in an order that rotates from round to round. A ratio is the
    median over the rounds of an arm's time over the reference's in the same round. Times and ratios
    are kept in the benchmark's ``extra_info``.
    """
    names, times = list(arms), {name: [] for name in arms}
    for step in arms.values():
        step()
    turn = iter(range(rounds))

    def one_round() -> None:
        first = next(turn) % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            arms[name]()
            times[name].append(time.perf_counter() - start)

    benchmark.pedantic(one_round, rounds=rounds, iterations=1)
    reference = times[names[0]]
    medians = {name: median(found) for name, found in times.items()}
    ratios = {
        name: median(own / base for own, base in zip(found, reference, strict=True))
        for name, found in times.items()
    }
    benchmark.extra_info.update(seconds=medians, ratios=ratios, rounds=rounds)
    print()
    for name in names:
        print(f"  {name:32} {medians[name] * 1e3:10.1f} ms   x{ratios[name]:.3f}")
    return ratios
