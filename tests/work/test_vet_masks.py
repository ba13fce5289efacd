"""A method that hides another number of patches than it takes for hidden is not run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bench.errors import UsageError
from bench.work.vet import check_masks
from tests.conftest import tiny_study


@pytest.mark.parametrize(("said", "more"), [(10, 2), (10, -1)])
def test_masks_hide_as_many_patches_as_the_method_says(said: int, more: int) -> None:
    """As a subclass of MAE with masks of its own, where a preset sets another mask ratio."""
    (cell, *_) = tiny_study("mae").cells
    places = torch.arange(cell.config.model.patches)
    method = SimpleNamespace(
        hidden_count=said,
        draw_hidden=lambda stream: (places < said + more).expand(len(stream.uniform(1)), -1),
    )
    with pytest.raises(UsageError, match=f"hide {said + more} to {said + more} patches.*{said}"):
        check_masks(method, cell.config)
    method.hidden_count += more
    check_masks(method, cell.config)
