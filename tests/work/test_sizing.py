"""Images of one's own with nothing else said: looked at, sized, kept in a file, taken up again."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bench import library
from bench.commands.recipe import recipe_lines
from bench.library import Means, Request, Wish
from tests.data.test_gate import paint

CPU = Means(device="cpu", jobs=2, threads=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 24 training and four test pictures of noise, 14 x 12."""
    for part, count in (("train", 24), ("val", 4)):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "mine" / part / name).mkdir(parents=True)
            for i in range(count):
                seed = 100 * number + i + 1000 * (part == "val")
                paint(tmp_path / "mine" / part / name / f"{i}.png", seed)
    return tmp_path / "mine"


def asked(root: Path, out: Path, **words: Any) -> Request:
    return library.outline(Wish(data=str(root), **words), out, CPU)


def test_a_folder_without_a_test_part_is_sized_by_the_share_held_out(
    root: Path, tmp_path: Path
) -> None:
    request = asked(root / "train", tmp_path / "o", settings=["data.holdout=0.25"])
    assert request.sizing is not None
    assert request.sizing.seen().startswith("36 training and 12 test images of 2 classes")
    assert request.study.cells[0].config.data.holdout == 0.25


def test_unlabelled_images_are_told_and_are_part_of_what_the_file_is_for(
    root: Path, tmp_path: Path
) -> None:
    before = asked(root, tmp_path / "o").sizing
    (root / "unlabeled").mkdir()
    for i in range(40):
        paint(root / "unlabeled" / f"{i}.png", 5000 + i)
    request = library.plan(Wish(data=str(root)), tmp_path / "o", CPU)
    assert request.sizing is not None
    assert before is not None
    assert request.sizing.path != before.path
    said = "48 training and 8 test images of 2 classes, 40 unlabelled ones, 12 px"
    assert request.sizing.seen().startswith(said)
    said = "pre-training on the 48 training images and 40 unlabelled ones"
    assert said in request.planned.warnings
    config = request.study.cells[0].config
    assert (config.pretrain.batch_size, config.data.labels) == (11, 48)


def test_a_folder_alone_is_a_whole_study(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asked(root, tmp_path / "o")
    assert not (tmp_path / "o").exists()
    config = request.study.cells[0].config
    assert {c.config.arm for c in request.study.cells} == {"mae", "mae+mto"}
    assert (config.model.image_size, config.model.patch_size) == (12, 3)
    assert (config.pretrain.batch_size, config.data.labels) == (6, 48)
    assert config.data.mean == pytest.approx((0.5,) * 3, abs=0.01)  # noise: even over 0 to 255
    assert config.data.std == pytest.approx((12**-0.5,) * 3, abs=0.01)
    assert request.sizing is not None
    counted = SimpleNamespace(seconds=lambda *_: (1200, 72_000))  # of one core, and two compute
    monkeypatch.setitem(sys.modules, "bench.work.operations", counted)
    seen, pilot = recipe_lines(request, request.study.tasks())
    assert re.fullmatch(
        r"48 training and 8 test images of 2 classes, 12 px, colour; \d+ cores, \d+ GiB, no GPU -> "
        r"ViT 48x4 /3 12px, 16 patches, batch 6, 48 labels",
        seen,
    )
    assert re.fullmatch(
        r"pilot of mae, mae\+mto: 100 and 200 epochs, 3 seeds; an estimate from counted operations"
        r", reading apart: 10 to 600 min; recipe \(will lie there to edit\): .*/mine-\w+.yaml",
        pilot,
    )


@pytest.mark.parametrize(
    ("file", "flags", "gpu"),
    [
        ("", {}, False),
        ("", {"gpus_per_node": 2}, True),
        ("gpus_per_node = 4", {}, True),
        ("gpus_per_node = 4", {"gpus_per_node": 0}, False),
    ],
)
def test_on_a_cluster_the_recipe_is_for_what_its_jobs_ask_for(
    file: str, flags: dict[str, int], gpu: bool, root: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site.toml"
    site.write_text(f"[slurm]\n{file}\n")
    means = Means(launcher="slurm", site=str(site), settings=flags)
    request = library.outline(Wish(data=str(root)), tmp_path / "o", means)
    assert request.sizing is not None
    assert request.sizing.gpu is gpu


def test_the_file_is_taken_up_again_edited_or_not(root: Path, tmp_path: Path) -> None:
    first = asked(root, tmp_path / "o")
    library.freeze(first)
    assert first.sizing is not None
    path = first.sizing.path
    kept = path.read_bytes()
    moved = shutil.copytree(root, tmp_path / "copy" / "mine")
    for again in (asked(root, tmp_path / "o"), asked(moved, tmp_path / "o")):
        assert again.study.ids == first.study.ids
        assert again.name == first.name
        assert again.sizing is not None
        assert (again.sizing.path, again.sizing.facts) == (path, None)
    given = asked(root, tmp_path / "p", config=str(path))
    assert given.sizing is None
    assert given.study == first.study
    said = " ".join(recipe_lines(again, []))
    assert "as sized or edited before" in said
    assert f"nothing is missing; recipe (yours to edit): {path}" in said
    path.write_text(yaml.safe_dump({**yaml.safe_load(kept), "seeds": 1}))
    library.freeze(asked(root, tmp_path / "o"))
    assert yaml.safe_load(path.read_bytes())["seeds"] == 1
    assert asked(root, tmp_path / "o").study.ids == [
        c.run_id for c in first.study.cells if c.config.seed == 0
    ]


def test_words_win_and_a_preset_chosen_is_the_presets(root: Path, tmp_path: Path) -> None:
    typed = asked(root, tmp_path, methods="simmim", epochs="3", seeds="1", settings=["knn.k=2"])
    (cell,) = typed.study.cells
    assert (cell.config.method, cell.config.task("knn").k) == ("simmim", 2)
    assert cell.config.pretrain.batch_size == 6
    chosen = asked(root, tmp_path, methods="mae", epochs="50", preset="imagenet")
    assert chosen.sizing is None
    assert chosen.study.cells[0].config.model.image_size == 224


def test_what_a_preset_of_other_images_says_of_them_is_dropped_with_a_word(
    root: Path, tmp_path: Path
) -> None:
    words = {"methods": "mae", "epochs": "3", "preset": "digits"}
    request = asked(root, tmp_path, **words)
    data = request.study.cells[0].config.data
    assert (data.train_images, data.labels, len(data.mean)) == (0, 48, 3)
    assert request.study.cells[0].config.model.channels == 3
    assert request.planned.warnings == [
        "model.channels=3, data.mean and data.std are those of folder",
        "data.labels=48 instead of 150, which the 2 classes of folder cannot share",
        "data.train_images=512 left out: meant for digits, not for folder",
    ]
    typed = asked(root, tmp_path, **words, settings=["data.labels=10"])
    assert typed.study.cells[0].config.data.labels == 10
