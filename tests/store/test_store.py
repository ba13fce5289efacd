from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path

import pytest

from bench.errors import DamagedError, StoreError, UsageError
from bench.store.files import write_bytes, write_json
from bench.store.folder import RunFolder
from bench.store.record import SCHEMA, Record, load_record, migrate
from bench.store.states import DONE, PENDING, RUNNING, STOPPED
from bench.store.store import Store
from tests.support.tiny_runs import forked

RECORD = Record(
    run_id="fin-x",
    pretrain_id="pre-x",
    arm="mae",
    base_arm="mae",
    method="mae",
    data="digits",
    model="ViT",
    epochs=2,
    seed=0,
    scores={"finetune_top1": 71.25},
    digests={"order": "ab"},
)


def test_a_record_survives_storage(store: Store) -> None:
    folder = store.run("fin-x")
    assert not folder.is_done()
    write_json(folder.path / "record.json", asdict(RECORD))
    assert folder.is_done()
    assert store.records() == [RECORD]
    assert store.records(["fin-x", "fin-missing"]) == [RECORD]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": SCHEMA + 1}, f"fin-x has schema {SCHEMA + 1}, this software knows up to"),
        ({"surprise": 1, "another": 2}, r"fin-x has unknown fields: \['another', 'surprise'\]"),
    ],
)
def test_a_record_of_a_newer_schema_or_with_unknown_fields_is_refused(
    change: dict[str, int], said: str, store: Store
) -> None:
    folder = store.run("fin-x")
    write_bytes(folder.path / "record.json", json.dumps({**asdict(RECORD), **change}).encode())
    with pytest.raises(StoreError, match=said):
        load_record(folder)


@pytest.mark.parametrize("schema", [{}, {"schema": 0}, {"schema": 1}])
def test_a_record_of_schema_1_has_its_scores_in_fields(schema: dict[str, int]) -> None:
    scores = {"finetune_top1": 71.25, "knn_top1": 60.0}
    new = replace(RECORD, scores=scores, seconds={"finetune": 3})
    rest = {k: v for k, v in asdict(new).items() if k not in ("schema", "scores", "seconds")}
    fields = {"finetune_top1": 71.25, "probe_top1": None, "knn_top1": 60.0, "finetune_s": 3}
    old = {**rest, **schema, **fields}
    assert Record(**migrate(old)) == new
    assert "finetune_top1" in old, "what was read is left as it was"
    failed = {**old, "finetune_top1": None, "knn_top1": None, "finetune_s": None}
    assert Record(**migrate(failed)) == replace(RECORD, scores={}, seconds={})


def test_a_record_of_today_is_read_as_it_is() -> None:
    assert migrate(asdict(RECORD)) == asdict(RECORD)


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    write_bytes(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_status_keeps_earlier_values_and_a_dead_run_reads_as_stopped(store: Store) -> None:
    folder = store.run("r")
    folder.set_status(RUNNING)
    assert not folder.path.exists(), "no folder is made for a status"
    folder.path.mkdir()
    assert folder.status()["state"] == PENDING
    folder.set_status(RUNNING, attempt=2)
    with folder.lock():
        folder.set_status(RUNNING, step=5)
        assert folder.status()["state"] == RUNNING
        assert folder.status()["attempt"] == 2
    assert folder.status()["state"] == STOPPED


def _try_to_lock(path: Path, answers: multiprocessing.Queue) -> None:
    try:
        with RunFolder(path).lock():
            answers.put("locked")
    except StoreError as error:
        answers.put(str(error))


def test_a_second_process_cannot_take_a_run(store: Store) -> None:
    context = forked()
    answers = context.Queue()
    folder = store.run("r")

    def ask() -> str:
        process = context.Process(target=_try_to_lock, args=(folder.path, answers))
        process.start()
        process.join()
        return answers.get(timeout=10)

    with folder.lock():
        assert "another process" in ask()
    assert ask() == "locked"
    answers.close()
    answers.join_thread()


def test_of_lines_logged_twice_the_later_counts(store: Store) -> None:
    folder = store.run("r")
    for step, loss in ((1, 3.0), (2, 2.0), (2, 2.5), (3, 1.0)):
        folder.append_metrics({"stage": "pretrain", "step": step, "loss": loss})
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "pretrain", "st')
    assert [line["loss"] for line in folder.metrics()] == [3.0, 2.5, 1.0]


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', '{"step": 2', "{", '"'])
def test_a_torn_line_does_not_swallow_the_next(torn: str, store: Store) -> None:
    folder = store.run("r")
    folder.append_metrics({"step": 1})
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    folder.append_metrics({"step": 3})
    folder.append_metrics({"step": 4})
    assert [line["step"] for line in folder.metrics()] == [1, 3, 4]
    assert (folder.path / "metrics.jsonl").read_text().count("\n") == 4


def test_an_unwritable_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--out DIR"):
        Store(tmp_path / "file").check_writable()


def test_a_folder_that_cannot_be_written_is_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("bench.store.store.tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(UsageError, match=rf"output folder '{tmp_path}' \(Permission denied\)"):
        Store(tmp_path).check_writable()
    with pytest.raises(UsageError, match="null"):
        Store(tmp_path / "a\0b").check_writable()


@pytest.mark.parametrize(
    ("place", "refused"),
    [
        (".", 0),
        ("new", 0),
        ("new/deep/down", 0),
        ("file", 0),
        ("file/below", 0),
        (".", os.W_OK),
        (".", os.X_OK),
        ("new/deep", os.W_OK),
    ],
)
def test_a_place_is_looked_at_and_not_made(
    place: str, refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & refused)
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / place)
    if refused or place.startswith("file"):
        with pytest.raises(UsageError, match=r"is no folder that can be written.*--out DIR"):
            store.check_place()
    else:
        store.check_place()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_record_that_says_the_least_is_read(store: Store) -> None:
    """Fields came one after the other; a record from before a field has its plain value."""
    folder, least = store.run("fin-x"), {f.name for f in fields(Record) if f.default is MISSING}
    least -= {f.name for f in fields(Record) if f.default_factory is not MISSING}
    values = {k: v for k, v in asdict(RECORD).items() if k in least}
    write_json(folder.path / "record.json", {"schema": SCHEMA, **values})
    found = load_record(folder)
    assert found == replace(RECORD, scores={}, digests={})
    assert (found.status, found.repeat, found.images_seen, found.dirty) == (DONE, 0, 0, False)
    for name in least:
        write_json(folder.path / "record.json", {"schema": SCHEMA, **values} | {name: None})
        with pytest.raises(DamagedError):
            load_record(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 0}, "'epochs' cannot be 0"),
        ({"seed": -1}, "'seed' cannot be -1"),
        ({"scores": {"a_top1": "x"}}, "'scores' cannot be"),
        ({"schema": "new"}, "fin-x has schema 'new'"),
    ],
)
def test_a_record_is_held_to_its_rules(change: dict[str, object], said: str, store: Store) -> None:
    folder = store.run("fin-x")
    write_json(folder.path / "record.json", {**asdict(RECORD), **change})
    with pytest.raises(StoreError, match=said):
        load_record(folder)


def test_every_cancellation_leaves_another_mark(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher compares with the mark it began with, so a clock set back hides none."""
    folder = store.run("r")
    monkeypatch.setattr("bench.store.folder.now", lambda: 0.0)
    marks = [folder.cancellation()]
    for _ in range(2):
        folder.cancel()
        marks.append(folder.cancellation())
    assert marks[0] == ""
    assert len(set(marks)) == 3
