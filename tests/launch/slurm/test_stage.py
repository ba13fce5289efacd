"""Images on a node's own disk: once, whole, as the data set expects them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.launch.slurm.job import SlurmRun
from bench.launch.slurm.stage import staged
from tests.support.tiny_runs import QUICK


@pytest.mark.parametrize("kind", ["folder", "gztar", "zip"])
def test_images_are_staged_once_and_whole(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "images"
    for part in ("train", "val"):
        (source / part).mkdir(parents=True)
        (source / part / "0.png").write_bytes(part.encode())
    if kind != "folder":
        name = shutil.make_archive(str(tmp_path / "a"), kind, tmp_path, "images")
        shutil.rmtree(source)
        source = Path(name)
    monkeypatch.setenv("SCRATCH", str(tmp_path / "node"))
    job = SlurmRun(tmp_path, "run", replace(QUICK, data_root="/x"), 5, "$SCRATCH/mine", str(source))
    place = Path(job._placed().data_root)
    assert place.is_relative_to(tmp_path / "node" / "mine")
    assert [f.read_text() for f in sorted(place.rglob("*.png"))] == ["train", "val"]
    (place / "mark").touch()
    assert (Path(job._placed().data_root) / "mark").exists()
    with pytest.raises(UsageError, match="not set in the job"):
        staged(source, "$NOT_SET_HERE/x")


def test_a_folder_within_the_folder_stays_within(tmp_path: Path) -> None:
    """Readers of torchvision and of Hugging Face look for it there."""
    (tmp_path / "images" / "cifar-10-batches-py").mkdir(parents=True)
    place = staged(tmp_path / "images", str(tmp_path / "node"))
    assert [f.name for f in place.iterdir()] == ["cifar-10-batches-py"]


def test_a_copy_that_broke_off_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source := tmp_path / "images").mkdir()
    (source / "0.png").touch()

    def breaks(source: Path, target: Path) -> None:
        target.mkdir()
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "copytree", breaks)
        with pytest.raises(OSError, match="no space"):
            staged(source, str(tmp_path / "node"))
    assert [f.name for f in staged(source, str(tmp_path / "node")).iterdir()] == ["0.png"]


@pytest.mark.parametrize("kind", ["folder", "gztar"])
def test_images_that_changed_are_staged_anew(kind: str, tmp_path: Path) -> None:
    (folder := tmp_path / "images" / "train" / "a").mkdir(parents=True)
    (folder / "0.png").touch()

    def source() -> Path:
        if kind == "folder":
            return tmp_path / "images"
        return Path(shutil.make_archive(str(tmp_path / "a"), kind, tmp_path, "images"))

    first = staged(source(), str(tmp_path / "node"))
    (folder / "1.png").touch()
    second = staged(source(), str(tmp_path / "node"))
    assert [len(list(place.rglob("*.png"))) for place in (first, second)] == [1, 2]
