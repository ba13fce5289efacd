"""The attentive probe: textbook attention, learned until it reads the token that knows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from bench.data.images import ImageSet
from bench.errors import UsageError
from bench.evaluate.attentive import AttentiveConfig, _head, attentive
from bench.evaluate.encoder import Encoder
from bench.evaluate.ridge_all import RidgeAllConfig
from tests.evaluate import labelled
from tests.evaluate.labelled import ROWS, K, one_hot

RECIPE = AttentiveConfig(epochs=60, batch_size=50, blr=0.5, warmup_epochs=0, weight_decay=0)


def encoder(folder: Path, images: ImageSet, seed: int = 0, heads: int = 1) -> Encoder:
    settings = labelled.config()
    model = dataclasses.replace(settings.model, width=K, heads=heads)
    return labelled.encoder(folder, images, dataclasses.replace(settings, model=model, seed=seed))


def hidden(count: int, seed: int, kind: int = -1) -> labelled.ArraySplit:
    """Two tokens a picture: a loud one of another class, and a quiet one that names the class."""
    truth = labelled.labels(count, seed) if kind < 0 else torch.full((count,), kind)
    loud = (truth + 1 + torch.arange(count) % 2 * 2) % K
    return labelled.split(truth, one_hot(loud), one_hot(truth) * 0.4)


def test_the_head_is_attention_of_one_query_a_head(tmp_path: Path) -> None:
    given = encoder(tmp_path, labelled.plain(), heads=2)
    head = _head(given, 2).eval()
    tokens = torch.randn(3, 5, K, generator=torch.Generator().manual_seed(0))
    weights = head.state_dict()
    learned = {name for name, _ in head.named_parameters()}
    assert learned == {"query", "read.weight", "linear.weight", "linear.bias"}
    drawn = torch.cat([weights[n].flatten() for n in ("query", "read.weight", "linear.weight")])
    assert 0.013 < drawn.std() < 0.027, "a deviation of 0.02"
    assert head.norm.eps == 1e-6
    keys, values = (tokens / (1 + 1e-6) ** 0.5 @ weights["read.weight"].T).chunk(2, dim=2)
    pooled = []
    for h, query in enumerate(weights["query"]):
        part = slice(h * K // 2, (h + 1) * K // 2)
        scores = (keys[:, :, part] @ query / (K // 2) ** 0.5).softmax(1)
        pooled.append((scores[:, :, None] * values[:, :, part]).sum(1))
    wanted = torch.cat(pooled, dim=1) @ weights["linear.weight"].T
    torch.testing.assert_close(head(tokens), wanted)
    for seed in (0, 1):
        again = _head(encoder(tmp_path, labelled.plain(), seed=seed, heads=2), 2)
        assert torch.equal(weights["query"], again.query) == (seed == 0)


def test_it_tells_classes_by_their_tokens(tmp_path: Path) -> None:
    images = ImageSet(hidden(200, 0), hidden(200, 1), K)
    given = encoder(tmp_path, images)
    score = attentive(given, RECIPE)
    assert score.top1 == 100.0
    assert score.seconds is not None
    losses = [line["loss"] for line in given.session.monitor.folder.metrics()]
    assert len(losses) == RECIPE.epochs
    assert losses[-1] < 0.1 < losses[0]
    assert set(given.frozen.modes) == {False}
    assert torch.equal(given.frozen.weight, torch.eye(K)), "the encoder stays as it is"
    assert attentive(encoder(tmp_path / "again", images), RECIPE).correct == score.correct


def test_an_image_is_named_whatever_others_are_tested_beside_it(tmp_path: Path) -> None:
    """The head's batch norm goes by what it has seen in training."""
    images = ImageSet(hidden(200, 0), hidden(40, 1, kind=2), K)
    assert attentive(encoder(tmp_path, images), RECIPE).top1 == 100.0


def test_what_it_cannot_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = encoder(tmp_path, labelled.plain())
    with pytest.raises(UsageError, match=r"attentive.heads=3 do not divide model.width=4"):
        attentive(given, dataclasses.replace(RECIPE, heads=3))
    with pytest.raises(UsageError, match="heads=3 do not divide"):
        attentive(encoder(tmp_path, labelled.plain(), heads=3), RECIPE)  # by default the encoder's
    monkeypatch.setitem(ROWS, "tokens", 0)
    monkeypatch.setattr(
        labelled.Encoder, "features", lambda self, images, pool: images[:, 0, 0, :K] @ self.weight
    )
    with pytest.raises(UsageError, match="gives no features"):
        attentive(given, RECIPE)


def test_defaults_of_added_tasks_are_part_of_ids() -> None:
    """A change of one is a change of every study that names the task."""
    assert dataclasses.asdict(RidgeAllConfig()) == {"penalty": 0.01, "pool": "mean"}
    assert dataclasses.asdict(AttentiveConfig()) == {
        "epochs": 100,
        "batch_size": 1024,
        "blr": 2.5e-4,
        "lr_batch": 256,
        "warmup_epochs": 5.0,
        "weight_decay": 0.1,
        "heads": 0,
        "precision": "fp32",
    }
