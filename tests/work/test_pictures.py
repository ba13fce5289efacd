"""What a drawing shows, and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.run import main
from bench.work.pictures import Pictures, draw

BLACK = Pictures(*(torch.zeros(3, 1, 8, 8) for _ in range(3)))


def drawn(pictures: Pictures, folder: Path, title: str = "title") -> np.ndarray:
    draw({title: pictures}, folder / "a" / "picture.png")
    with Image.open(folder / "a" / "picture.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("column", range(3))
def test_each_picture_stands_in_its_row_and_column(row: int, column: int, tmp_path: Path) -> None:
    """A white field in the upper left of one image is all that changes, and where it belongs."""
    name = ("original", "masked", "reconstruction")[column]
    image = torch.zeros(3, 1, 8, 8)
    image[row, 0, 0, 0] = 1
    before = drawn(BLACK, tmp_path)
    after = drawn(replace(BLACK, **{name: image}), tmp_path)
    y, x = (before != after).any(-1).nonzero()
    height, width = before.shape[:2]
    assert len(y) > 100
    assert column * width / 3 < x.min() < x.max() < (column + 0.3) * width / 3
    body = height - (height - width) / 1.5  # the title takes the rest
    assert row == int((y.mean() - (height - body)) / body * 3)
    assert (after[y, x] - before[y, x]).mean() > 200


def test_colours_are_drawn_as_they_are(tmp_path: Path) -> None:
    red = torch.zeros(1, 3, 8, 8)
    red[:, 0] = 1
    found = drawn(Pictures(red, red.flip(1), red), tmp_path)
    middle = found[found.shape[0] * 2 // 3, [found.shape[1] // 6, found.shape[1] // 2]]
    assert middle.tolist() == [[255, 0, 0], [0, 0, 255]]


def test_the_title_is_drawn(tmp_path: Path) -> None:
    assert (drawn(BLACK, tmp_path) != drawn(BLACK, tmp_path, "another")).any()


def test_arms_stand_side_by_side(tmp_path: Path) -> None:
    black = Pictures(*(torch.zeros(1, 1, 8, 8) for _ in range(3)))
    white = replace(black, reconstruction=torch.ones(1, 1, 8, 8))
    draw({"a": black, "b": white}, tmp_path / "two.png")
    with Image.open(tmp_path / "two.png") as picture:
        found = np.asarray(picture.convert("L")).astype(int)
    middle = found[found.shape[0] * 2 // 3, [found.shape[1] * i // 8 for i in (1, 3, 5, 7)]]
    assert middle.tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize(
    ("command", "count"),
    [("show", "0"), ("show", "101"), ("show", "-1"), ("analyze", "0"), ("analyze", "many")],
)
def test_no_picture_of_nothing_nor_of_more_than_fits(
    command: str, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "run", "--images", count]) == 2
    assert f"'{count}' is not a whole number from 1 to" in capsys.readouterr().err
