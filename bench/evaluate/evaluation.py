"""What an encoder is worth: every task, scored after its last epoch."""

from __future__ import annotations

from typing import Any

from bench.evaluate.encoder import Encoder
from bench.evaluate.finetune import finetune
from bench.evaluate.knn import knn
from bench.evaluate.probe import probe


def evaluate(encoder: Encoder) -> dict[str, Any]:
    """Fine-tunes, probes and votes; accuracies in per cent of the test images."""
    top1, seconds = finetune(encoder)
    return {
        "finetune_top1": top1,
        "finetune_s": seconds,
        "probe_top1": probe(encoder),
        "knn_top1": knn(encoder),
    }
