"""All tasks of a cell: each score computed once for an encoder, kept beside it, read afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench import registry
from bench.evaluate.encoder import Encoder
from bench.evaluate.task import Score
from bench.plan.identity import score_key
from bench.store.scores import KeptScore, KeptScores


def evaluate(encoder: Encoder, kept: KeptScores, code: Mapping[str, Any]) -> dict[str, KeptScore]:
    """Scores of an encoder by task, in the order of its configuration.

    One that is kept already, by the same recipe on the same labels, is not computed again.
    ``code`` says by which code the others are.
    """
    config, world = encoder.config, encoder.session.world
    found = {}
    for name, recipe in config.tasks:
        key = score_key(config, name)
        known = world.share(kept.read(name, key) if world.leads else None)
        if known is None:
            score: Score = registry.TASKS.load(name)(encoder, recipe)
            bits = list(score.correct)
            known = KeptScore(top1=score.top1, seconds=score.seconds, correct=bits, **code)
            if world.leads:
                encoder.session.monitor.check()
                kept.write(name, key, known)
        found[name] = known
    return found
