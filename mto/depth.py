"""Which layer does what: pure functions of the number of layers L. No torch here."""

from __future__ import annotations

from mto.config import MTOConfig


def affected_layers(config: MTOConfig, count: int) -> int:
    """Number of first layers in which r may be below 1, of ``count``; halves round up."""
    return int(config.r_depth * count + 0.5)


def r_schedule(config: MTOConfig, count: int, progress: float = 0.0) -> tuple[float, ...]:
    """The r of each of L = ``count`` layers: strong early, none late.

    Reading: weight recalibration, "depending on layer depth". ``step`` holds ``r_first``;
    ``linear`` goes from ``r_first`` at layer 0 towards 1 at the first layer left alone.
    ``progress`` in [0, 1) is the share of the run that is done.
    """
    affected = affected_layers(config, count) if config.recalibrates else 0
    rise = (1 - config.r_first) if config.r_shape == "linear" else 0.0
    early = (config.r_first + rise * layer / affected for layer in range(affected))
    strength = time_strength(config, progress)
    return (
        *(1 - strength * (1 - r) if strength < 1 else r for r in early),
        *[1.0] * (count - affected),
    )


def time_strength(config: MTOConfig, progress: float) -> float:
    """How much of recalibration is on, in [0, 1], when ``progress`` of the run is done.

    Reading: none of the sources says whether r changes over a run; ``rising`` and ``falling`` are
    alternatives to a constant r.
    """
    if config.r_time == "constant":
        return 1.0
    return 1 - progress if config.r_time == "rising" else progress


def evenly(first: int, count: int, wanted: int) -> tuple[int, ...]:
    """``wanted`` layers from ``first`` to ``count - 1``, both ends kept; 0 means all of them."""
    available = count - first
    if available <= 0:
        return ()
    if wanted == 0 or wanted >= available:
        return tuple(range(first, count))
    if wanted == 1:
        return (first,)
    return tuple(first + round(i * (available - 1) / (wanted - 1)) for i in range(wanted))


def spa_layers(config: MTOConfig, count: int) -> tuple[int, ...]:
    """Layers whose visible rows L_spa reads."""
    return evenly(0, count, config.spa_layers) if config.lambda_spa else ()


def entry_layers(config: MTOConfig, count: int) -> int:
    """Number of first layers that mask tokens skip, of ``count``; at least one is left to them."""
    return min(int(config.enter_depth * count + 0.5), count - 1)


def read_layers(config: MTOConfig, count: int) -> set[int]:
    """Layers whose logits a loss reads; L_spa reads none in which recalibration shuts it out."""
    read = {*e_layers(config, count), *rank_layers(config, count)}
    return read if config.shuts_spa_out else read.union(spa_layers(config, count))


def e_layers(config: MTOConfig, count: int) -> tuple[int, ...]:
    """The initial layers, in which L_e raises H."""
    return tuple(range(min(config.e_layers, count))) if config.lambda_e else ()


def rank_layers(config: MTOConfig, count: int) -> tuple[int, ...]:
    """The layers over which L_r has H decrease: from the last initial layer to the last of all."""
    first = min(config.e_layers, count) - 1
    return evenly(first, count, config.rank_layers) if config.lambda_r else ()
