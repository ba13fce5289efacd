"""``--init`` and ``show`` as a user runs them, on a model small enough for seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from bench.data.load import load
from bench.run import main
from bench.work import pictures
from bench.work.pictures import Pictures
from tests.conftest import TINY, tiny_study


def run(out: Path, *arguments: str) -> int:
    return main([*arguments, "--seeds", "1", "--launcher", "inline", "--out", str(out), *TINY])


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studied")
    assert run(out, "--methods", "mae,mae+mto,simmim,data2vec", "--epochs", "1") == 0
    return out


def folder(out: Path, beginning: str) -> Path:
    return next(out.glob(f"runs/{beginning}*"))


@pytest.mark.parametrize("arm", ["mae", "simmim", "data2vec"])
@pytest.mark.parametrize("file", ["encoder", "method"])
def test_a_checkpoint_is_evaluated_as_its_own_run_was(
    arm: str, file: str, studied: Path, tmp_path: Path
) -> None:
    path = folder(studied, f"pre-{arm}-") / f"{file}.safetensors"
    assert run(tmp_path, "--methods", arm, "--epochs", "1", "--init", str(path)) == 0
    ours, imported = (
        json.loads((folder(p, f"fin-{arm}-") / "record.json").read_text())
        for p in (studied, tmp_path)
    )
    assert ours["scores"] == imported["scores"]
    assert len(ours["scores"]) == 3
    assert ours["run_id"] != imported["run_id"]
    assert "imported, not pre-trained here" in imported["notes"][0]
    assert imported["pretrain_loss"] is None


def test_an_official_release_is_evaluated_and_counts_by_content(
    studied: Path, tmp_path: Path
) -> None:
    weights = load_file(folder(studied, "pre-data2vec-") / "method.safetensors")
    official = {
        n.removeprefix("vit."): v for n, v in weights.items() if not n.startswith("teacher.")
    }
    stamps = []
    for name in ("a", "b"):
        save_file(official, tmp_path / f"{name}.safetensors")
        path = str(tmp_path / f"{name}.safetensors")
        assert run(tmp_path, "--methods", "data2vec", "--epochs", "1", "--init", path) == 0
        stamps.append((folder(tmp_path, "fin-") / "record.json").stat().st_mtime_ns)
    assert stamps[0] == stamps[1]
    assert len(list(tmp_path.glob("runs/*"))) == 2
    found = json.loads((folder(tmp_path, "fin-") / "record.json").read_text())
    expected = json.loads((folder(studied, "fin-data2vec-") / "record.json").read_text())
    assert found["scores"] == expected["scores"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "mae,simmim"], "one method"),
        (["--methods", "mae+mto"], "without plug-ins"),
        (["--methods", "mae", "--init", "nowhere.pth"], "does not exist"),
        (["--methods", "mae", "--recipe", "papers"], "unknown recipe"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    arguments: list[str],
    message: str,
    studied: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = folder(studied, "pre-mae-") / "encoder.safetensors"
    init = [] if "--init" in arguments else ["--init", str(path)]
    assert run(tmp_path, *arguments, "--epochs", "1", *init) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_method_is_refused_before_anything_starts(
    studied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(folder(studied, "pre-simmim-") / "encoder.safetensors")
    assert run(tmp_path, "--methods", "mae", "--epochs", "1", "--init", path) == 2
    assert "missing vit." in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*"))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Pictures, str]]:
    """What ``show`` draws from now on: the pictures and their title."""
    found: list[tuple[Pictures, str]] = []

    def kept(drawn: dict[str, Pictures], path: Path) -> None:
        found.extend((pictures, title) for title, pictures in drawn.items())
        draw(drawn, path)

    draw = pictures.draw
    monkeypatch.setattr(pictures, "draw", kept)
    return found


@pytest.mark.parametrize("arm", ["mae", "mae+mto", "simmim"])
def test_show_draws_what_a_run_reconstructs(
    arm: str,
    studied: Path,
    capsys: pytest.CaptureFixture[str],
    shown: list[tuple[Pictures, str]],
) -> None:
    before = capsys.readouterr()
    assert main(["show", f"pre-{arm}-", "--out", str(studied), "--images", "3"]) == 0, before
    path = Path(capsys.readouterr().out.strip())
    assert path == folder(studied, f"pre-{arm}-") / "reconstructions.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    ((found, title),) = shown
    assert title == f"{arm}, 1 epochs"
    test = load(tiny_study(arm).cells[0].config, "").test
    chosen = test.images[[0, (len(test) - 1) // 2, len(test) - 1]] / 255
    torch.testing.assert_close(found.original, chosen, atol=1e-6, rtol=0)
    hidden = found.masked != found.original
    assert set(found.masked[hidden].tolist()) == {0.5}
    assert torch.equal(found.reconstruction[~hidden], found.original[~hidden])
    assert 0.4 < hidden.float().mean() <= 0.63, "60 % is hidden; some of it may be grey itself"
    assert (found.reconstruction - found.original)[hidden].abs().mean() > 0.05


def test_show_takes_a_file_and_a_cell_too(
    studied: Path, tmp_path: Path, shown: list[tuple[Pictures, str]]
) -> None:
    line = ["--out", str(studied), "--to", str(tmp_path / "a.png")]
    file = str(folder(studied, "pre-mae-") / "method.safetensors")
    for what in ("fin-mae-", file, "pre-simmim-"):
        assert main(["show", what, *line]) == 0
    (cell, one), (alone, two), (other, _) = shown
    assert (one, two) == ("mae, 1 epochs", "mae, method.safetensors")
    assert torch.equal(cell.reconstruction, alone.reconstruction)
    assert not torch.equal(cell.reconstruction, other.reconstruction)
    shown.clear()
    assert main(["show", "pre-mae-", "pre-mae+mto", *line]) == 0
    (bare, _), (wrapped, title) = shown
    assert title == "mae+mto, 1 epochs"
    assert torch.equal(bare.masked, wrapped.masked)
    assert not torch.equal(bare.reconstruction, wrapped.reconstruction)
    assert main(["show", "pre-mae-", "pre-simmim-", *line]) == 2


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("pre-data2vec-", "predicts features, not pixels"),
        ("pre-maee", "unknown run or file"),
        ("encoder", "an encoder alone"),
    ],
)
def test_show_says_what_it_cannot_draw(
    what: str, message: str, studied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if what == "encoder":
        what = str(folder(studied, "pre-mae-") / "encoder.safetensors")
    assert main(["show", what, "--out", str(studied)]) == 2
    assert message in capsys.readouterr().err


SMALL = (
    *("model.image_size=64", "model.width=24", "model.depth=2", "model.heads=2"),
    *("mae.decoder_width=16", "mae.decoder_depth=1", "mae.decoder_heads=2"),
    *("data2vec.target_layers=2", "data2vec.min_block=2"),
    *("pretrain.batch_size=9", "pretrain.warmup_epochs=0", "finetune.batch_size=5"),
    *("finetune.epochs=1", "finetune.warmup_epochs=0", "probe.epochs=1", "probe.warmup_epochs=0"),
    *("probe.batch_size=6", "knn.k=3"),
)


def test_the_imagenet_recipes_run_from_files_to_table(tmp_path: Path) -> None:
    """Every stage of the presets but for size: bf16, RandAugment, mixup, layer decay, LARS."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 4)):
        for label in ("a", "b"):
            place = tmp_path / "data" / split / label
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (70, 90, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    line = ["--preset", "imagenet", "--recipe", "own", "--methods", "mae,simmim+mto,data2vec"]
    line += ["--data", f"imagenet:{tmp_path / 'data'}", "--epochs", "1", "--seeds", "1"]
    line += ["--launcher", "inline", "--workers", "0", "--batch-size", "4", "--threads", "1"]
    assert main([*line, "--out", str(tmp_path / "out"), *SMALL]) == 0
    records = [json.loads(p.read_text()) for p in tmp_path.glob("out/runs/fin-*/record.json")]
    assert len(records) == 3
    for record in records:
        assert set(record["scores"]) == {"finetune_top1", "probe_top1", "knn_top1"}
        assert set(record["scores"].values()) <= {12.5 * n for n in range(9)}, "of 8 test images"
        assert record["pretrain_loss"] > 0
