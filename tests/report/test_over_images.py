"""The test-set component beside the seeds' one, from the bits that runs leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.report import markdown
from bench.report import write as report
from bench.store.archive import RECORDS
from bench.store.correct import FILE, pack, write_correct
from bench.store.record import Record
from bench.store.store import Store
from tests.support.synthetic import RISING, changed, runs

IMAGES = 1000


def with_bits(root: Path) -> tuple[list[Record], Store]:
    """A study whose runs left which images they got right, and scores to match."""
    store, found = Store(root), []
    for i, record in enumerate(runs(RISING)):
        bits = np.random.default_rng(i).random(IMAGES) < record.scores["finetune_top1"] / 100
        write_correct(store.run(record.run_id), {"finetune_top1": [pack(bits)]})
        found.append(changed(record, finetune_top1=100 * float(bits.mean())))
    return found, store


def test_the_interval_over_images_stands_beside_that_over_seeds(tmp_path: Path) -> None:
    records, store = with_bits(tmp_path)
    found = report.prepare(records, None, store)
    rows = found.differences
    mine = rows[rows["endpoint"] == "finetune_top1"]
    assert (mine["image_low"] < mine["difference"]).all()
    assert (mine["difference"] < mine["image_high"]).all()
    assert set(mine["images"]) == {IMAGES}
    assert set(mine["image_pairs"]) == {5}
    assert mine["discordant"].between(0.2, 0.4).all()
    assert rows.loc[rows["endpoint"] == "probe_top1", "images"].isna().all()
    table = markdown.document(found, {}).split("### Difference at equal budgets")[1]
    assert "| test images |" in table
    assert "a bootstrap over images, paired between the arms" in table


@pytest.mark.parametrize("lost", ["a file", "an image"])
def test_pairs_that_left_no_bits_or_other_images_have_none(lost: str, tmp_path: Path) -> None:
    records, store = with_bits(tmp_path)
    path = store.run(records[0].run_id).path / FILE
    path.unlink()
    if lost == "an image":
        write_correct(store.run(records[0].run_id), {"finetune_top1": [pack(np.ones(3, bool))]})
    rows = report.prepare(records, None, store).differences
    at = (rows["epochs"] == records[0].epochs) & (rows["endpoint"] == "finetune_top1")
    assert rows.loc[at, "images"].isna().all()
    assert rows.loc[~at & (rows["endpoint"] == "finetune_top1"), "images"].notna().all()


@pytest.mark.parametrize("left", [{}, {"probe_top1": [pack(np.ones(3, bool))]}])
def test_bits_that_one_run_alone_lacks_are_told(left: dict[str, list[str]], tmp_path: Path) -> None:
    records, store = with_bits(tmp_path)
    assert report.prepare(records, None, store).warnings == []
    folder = store.run(records[0].run_id)
    write_correct(folder, left)
    if not left:
        (folder.path / FILE).unlink()
    records = [changed(r, probe_top1=None) for r in records]
    (told,) = report.prepare(records, None, store).warnings
    assert told.startswith(f"1 of {len(records)} runs lack bits in their '{FILE}'")
    assert told.endswith(records[0].run_id)


def test_without_bits_there_is_no_column() -> None:
    found = report.prepare(runs(RISING), None)
    assert "| test images |" not in markdown.document(found, {})


def test_an_archive_of_records_takes_the_bits_along() -> None:
    assert FILE in RECORDS
