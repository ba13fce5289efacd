from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pytest

from bench.errors import StoreError
from bench.store import index
from bench.store.files import write_bytes, write_json
from bench.store.folder import RunFolder
from bench.store.index import load_records
from bench.store.record import Record, load_record
from bench.store.store import Store
from tests.support.synthetic import changed, runs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for record in runs({"mae": [80, 81], "mae+mto": [81, 82]}, seeds=range(2), budgets=[1, 2]):
        write_json(store.run(record.run_id).path / "record.json", dataclasses.asdict(record))
    pretrain = store.runs / "pre-mae"
    pretrain.mkdir()
    (pretrain / "record.json").write_text(json.dumps({"run_id": "pre-mae"}))
    (store.runs / "unfinished").mkdir()
    return store


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders whose records are read from now on."""
    found: list[str] = []

    def counted(folder: RunFolder) -> Record | None:
        found.append(folder.run_id)
        return load_record(folder)

    monkeypatch.setattr(index, "load_record", counted)
    return found


def test_agrees_with_the_folders_cold_and_warm(store: Store) -> None:
    expected = sorted(store.records(), key=lambda r: r.run_id)
    assert load_records(store) == expected
    assert load_records(store) == expected
    ids = [expected[0].run_id, "not there"]
    assert load_records(store, ids) == expected[:1]


def test_only_what_is_new_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    records = load_records(store)
    read = reads(monkeypatch)
    load_records(store)
    assert read == []
    other = changed(records[3], finetune_top1=12.5)
    write_json(store.run(other.run_id).path / "record.json", dataclasses.asdict(other))
    assert other in load_records(store)
    assert read == [other.run_id]


def test_deleted_runs_are_forgotten(store: Store) -> None:
    gone = load_records(store)[0].run_id
    (store.run(gone).path / "record.json").unlink()
    assert gone not in {record.run_id for record in load_records(store)}


@pytest.mark.parametrize(
    ("was", "then"),
    [
        (b'"epochs": 1', b'"epochs": "x"'),
        (b'"epochs": 1', b'"epochs": 3'),
        (b'"plugins": []', b'"plugins": 5'),
        (b'"pretrain_id"', b'"pretrain"'),
        (b'"runs": {', b'"runs": [{'),
        (b'"version": [1', b'"version": [2'),
    ],
)
def test_an_index_that_was_edited_is_built_anew(store: Store, was: bytes, then: bytes) -> None:
    expected, path = load_records(store), store.root / ".index.json"
    data = path.read_bytes()
    assert was in data
    path.write_bytes(data.replace(was, then, 1))
    assert load_records(store) == expected
    assert path.read_bytes() == data


@pytest.mark.parametrize("content", ["", "{", '{"version": [0, 0], "runs": {"x": [0, 0, {}]}}'])
def test_a_broken_or_older_index_is_built_anew(store: Store, content: str) -> None:
    expected = load_records(store)
    (store.root / ".index.json").write_text(content)
    assert load_records(store) == expected


def test_an_empty_store_has_no_records(tmp_path: Path) -> None:
    assert load_records(Store(tmp_path / "none")) == []


def test_unknown_fields_are_an_error(store: Store) -> None:
    path = store.runs / "odd"
    path.mkdir()
    (path / "record.json").write_text(json.dumps({"pretrain_id": "x", "schema": 1, "odd": 1}))
    with pytest.raises(StoreError, match="odd"):
        load_records(store)


@pytest.mark.parametrize("content", ['{"run', '{"pretrain_id": "x", "schema": 99}'])
def test_a_damaged_record_concerns_those_alone_who_ask_for_it(store: Store, content: str) -> None:
    expected = load_records(store)
    ids = [record.run_id for record in expected]
    write_bytes(store.run("fin-foreign").path / "record.json", content.encode())
    assert load_records(store, ids) == expected
    for asked in ([*ids, "fin-foreign"], None):
        with pytest.raises(StoreError, match="fin-foreign"):
            load_records(store, asked)


def test_a_store_that_cannot_be_written_is_still_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(index, "write_bytes", refuse)
    assert len(load_records(store)) == 8


@pytest.mark.slow
def test_ten_thousand_runs(tmp_path: Path) -> None:
    """Cold under 10 s, warm under 2 s, in processor time so that neighbours do not matter."""
    store = Store(tmp_path)
    text = json.dumps(dataclasses.asdict(runs({"mae": [80]}, budgets=[1])[0]))
    for number in range(10_000):
        os.makedirs(store.runs / f"r{number}")
        (store.runs / f"r{number}" / "record.json").write_text(text)
    for limit in (10.0, 2.0):
        start = time.process_time()
        assert len(load_records(store)) == 10_000
        assert time.process_time() - start < limit
