"""Saved weights carry a checksum, and a damaged file is never used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench import errors
from bench.errors import StoreError
from bench.train.checkpoint import load_weights, save_weights
from bench.work.failure import classify

WEIGHTS = {
    "b.weight": torch.arange(12.0).view(3, 4).T,
    "a.count": torch.tensor(7),
    "c": torch.ones(5, dtype=torch.bfloat16),
    "d": torch.zeros(0, 3),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_weights(tmp_path / "encoder.safetensors", WEIGHTS)
    return tmp_path / "encoder.safetensors"


def test_weights_come_back_as_they_were_saved(path: Path) -> None:
    found = load_weights(path)
    assert set(found) == set(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def told(path: Path) -> str:
    """What loading a file says, '' if it gives the weights that were saved."""
    try:
        found = load_weights(path)
    except StoreError as error:
        return f"{classify(error)}: {error}"
    assert all(torch.equal(found[n], v) for n, v in WEIGHTS.items())
    return ""


def test_a_flipped_byte_anywhere_never_gives_other_weights(path: Path) -> None:
    data = path.read_bytes()
    body = 8 + int.from_bytes(data[:8], "little")
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        message = told(path)
        assert message or place < body, "a tensor's byte"
        if message:
            assert message.startswith(f"{errors.DATA}: '{path}' is damaged")
            assert "--retry" in message


@pytest.mark.parametrize("left", [0, 5, 40, -1])
def test_a_cut_file_is_told(left: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(StoreError, match="damaged or cut"):
        load_weights(path)


def test_files_from_before_the_checksum_still_load(tmp_path: Path) -> None:
    values = {n: v.contiguous() for n, v in WEIGHTS.items()}
    save_file(values, tmp_path / "old.safetensors")
    assert set(load_weights(tmp_path / "old.safetensors")) == set(values)
