"""Which test images a run got right: one bit an image, beside its record and in the archive."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from bench.evaluate.evaluation import evaluate
from bench.run import main
from bench.store.correct import FILE, read_correct, unpack
from bench.store.folder import RunFolder
from bench.store.scores import KeptScores
from bench.store.store import Store
from tests.conftest import TINY
from tests.evaluate import labelled

CODE = {"commit": "abc", "dirty": False}


def test_each_draw_of_labels_has_its_bits_and_they_make_the_score(tmp_path: Path) -> None:
    settings = labelled.config(finetune={"draws": 2})
    kept = KeptScores(RunFolder(tmp_path / "pre"))
    kept.folder.path.mkdir()
    found = evaluate(labelled.encoder(tmp_path / "a", labelled.plain(), settings), kept, CODE)
    assert [len(found[name].correct) for name in ("finetune", "probe", "knn")] == [2, 1, 1]
    for score in found.values():
        shares = [100 * unpack(bits).mean() for bits in score.correct]
        assert np.mean(shares) == pytest.approx(score.top1)
    read = evaluate(labelled.encoder(tmp_path / "b", labelled.plain(), settings), kept, CODE)
    assert read == found


def test_a_study_keeps_them_in_its_runs_its_report_and_its_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path), "--launcher", "inline"]
    line = ["--methods", "mae,mae+mto", "--epochs", "2", "--seeds", "2", "--name", "s", *TINY]
    assert main([*line, *out]) == 0
    folders = [f for f in Store(tmp_path).folders() if f.run_id.startswith("fin-")]
    assert len(folders) == 4
    for folder in folders:
        scores = json.loads((folder.path / "record.json").read_text())["scores"]
        bits = read_correct(folder)
        assert {name: 100 * flags.mean() for name, flags in bits.items()} == pytest.approx(scores)
    report = json.loads((tmp_path / "studies" / "s" / "report.json").read_text())
    images = bits["finetune_top1"].shape[1]
    assert {row["images"] for row in report["differences"]} == {images}
    for row in report["differences"]:
        assert row["image_low"] <= row["difference"] <= row["image_high"]
    packed = tmp_path / "s.tar.gz"
    assert main(["export", "s", "--records", "--to", str(packed), "--out", str(tmp_path)]) == 0
    with tarfile.open(packed) as archive:
        inside = [Path(name).name for name in archive.getnames()]
    assert inside.count(FILE) == 4
