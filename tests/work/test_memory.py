"""What a training keeps in memory, by value; more than there is is refused before it starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bench import registry
from bench.errors import UsageError
from bench.machine.memory import physical
from bench.plan.config import Resources
from bench.work import memory, trial
from bench.work.memory import GIB, Saved, Stage
from bench.work.place import Place
from tests.conftest import tiny_study


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_each_storage_that_a_backward_pass_needs_is_counted_once(device: str) -> None:
    first, last = nn.Linear(8, 32, device=device), nn.Linear(32, 8, device=device)
    images = torch.zeros(3, 8, device=device)
    saved = Saved([*first.parameters(), *last.parameters()])
    with saved:
        last(nn.functional.gelu(first(images)))
    # the input, what enters GELU, what leaves it; no weights, and nothing of the last output
    assert saved.bytes() == 4 * 3 * (8 + 32 + 32)


def test_attention_keeps_no_square_of_its_tokens() -> None:
    query, key, value = torch.zeros(3, 2, 4, 50, 8, device="meta", requires_grad=True)
    bias = torch.zeros(1, 4, 50, 50, device="meta")
    saved = Saved([])
    with saved:
        nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    tokens = 2 * 4 * 50
    assert saved.bytes() == 4 * (3 * tokens * 8 + tokens * 8 + tokens + 4 * 50 * 50)


@pytest.mark.parametrize("method", registry.METHODS.names())
def test_shapes_tell_what_values_tell(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_study(method).cells[0].config
    with torch.device("meta"):
        bare = registry.METHODS.load(method)(config.model, config.hyper)
    valued = trial.Trial(bare, config)
    monkeypatch.setattr(trial, "FEW", 1)
    shaped = trial.Trial(bare, config)
    assert (valued.device.type, shaped.device.type) == ("cpu", "meta")
    assert valued.layers == shaped.layers
    assert 0.9 * valued.kept < shaped.kept <= 1.01 * valued.kept
    assert valued.kept > 4 * config.model.width * config.model.depth * config.model.patches / 4


def stage(image: float = GIB, whole: bool = False, **recipe: object) -> Stage:
    """Weights of 1 GiB with their training, and so much an image."""
    given = SimpleNamespace(**{"batch_size": 64, "precision": "fp32", **recipe})
    return Stage(
        "fine-tuning", given, nn.Linear(2**13, 2**13, bias=False, device="meta"), image, whole
    )


@pytest.mark.parametrize(
    ("given", "micro", "processes", "images"),
    [
        (stage(), 0, 1, 64),
        (stage(batch_size=7), 0, 1, 7),
        (stage(batch_size=10_000), 0, 1, 500),
        (stage(), 16, 1, 16),
        (stage(), 100, 1, 64),
        (stage(), 0, 6, 11),
        (stage(), 8, 6, 8),
        (stage(whole=True), 8, 1, 64),
        (replace(stage(), most=10), 0, 1, 10),
        (replace(stage(batch_size=7), most=10), 0, 1, 7),
    ],
)
def test_images_held_at_once(given: Stage, micro: int, processes: int, images: int) -> None:
    assert given.held(500, micro, processes) == images


def check(given: Stage, gib: float, micro: int = 0, processes: int = 1) -> None:
    place = Place(here=False, memory_gb=gib * GIB / 1e9, processes=processes)
    memory.check([given], 500, replace(Resources(), micro_batch=micro), place)


def test_what_fits_passes_and_one_image_more_is_refused() -> None:
    check(stage(), 65.01)
    check(stage(precision="bf16"), 33.01)
    check(stage(), 17.01, micro=16)
    check(stage(), 17.01, processes=4)
    check(stage(), 0)  # unknown
    with pytest.raises(UsageError, match=r"at least 65 GiB, of 64 GiB .* --batch-size 63, or"):
        check(stage(), 64)
    with pytest.raises(UsageError, match="17 images and the weights take at least 18 GiB"):
        check(stage(), 17.01, micro=17)
    with pytest.raises(UsageError, match=r"there are\. Choose a smaller model"):
        check(stage(whole=True), 64)
    with pytest.raises(UsageError, match=r"moments alone take 1 GiB, of 0\.9 GiB there are"):
        check(stage(), 0.9)


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    there = physical(tmp_path)
    assert there > 1 << 28
    (tmp_path / "memory.max").write_text("max\n")
    assert physical(tmp_path) == there
    (tmp_path / "memory.max").write_text("1048576\n")
    assert physical(tmp_path) == 1 << 20
