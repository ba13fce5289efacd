"""One run's folder: whether it lives, who holds it, and what its files say."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BusyError
from bench.store.files import write_bytes, write_json
from bench.store.folder import BEAT_KEPT_S, RunFolder, host_key
from bench.store.states import DONE, FAILED, PENDING, RUNNING, STOPPED
from bench.store.store import Store


@pytest.fixture
def folder(store: Store) -> RunFolder:
    found = store.run("r")
    found.path.mkdir()
    return found


def test_files_lie_where_they_lay_in_stores_there_are(tmp_path: Path) -> None:
    folder = Store(tmp_path).run("r")
    places = (folder.checkpoints, folder.encoder, folder.method, folder.log)
    names = ("checkpoints", "encoder.safetensors", "method.safetensors", "log.txt")
    assert places == tuple(tmp_path / "runs" / "r" / name for name in names)


OWN, OTHER = f"1 ab {host_key()}", "1 ab elsewhere"


@pytest.mark.parametrize(
    ("claim", "age", "state"),
    [
        (OTHER, 0.0, RUNNING),
        (OTHER, 0.9 * BEAT_KEPT_S, RUNNING),
        (OTHER, -0.9 * BEAT_KEPT_S, RUNNING),
        (OTHER, 1.1 * BEAT_KEPT_S, STOPPED),
        (OTHER, -1.1 * BEAT_KEPT_S, STOPPED),
        (OTHER, None, STOPPED),
        (OWN, 0.0, STOPPED),
        ("1 ab", 0.0, STOPPED),
        (None, 0.0, STOPPED),
    ],
)
def test_a_run_of_another_machine_lives_while_its_heart_beats(
    claim: str | None, age: float | None, state: str, folder: RunFolder
) -> None:
    """Its lock may not be seen here; whose clock is ahead does not matter."""
    if claim is not None:
        (folder.path / "run.lock").write_text(claim)
    beat = {} if age is None else {"beat": time.time() - age}
    write_json(folder.path / "status.json", {"state": RUNNING, **beat})
    assert folder.status()["state"] == state
    assert folder.word()["state"] == RUNNING


def test_a_status_carries_the_time_it_was_written(folder: RunFolder) -> None:
    before = time.time()
    folder.set_status(FAILED)
    assert before <= folder.status()["beat"] <= time.time()


@pytest.mark.parametrize(
    ("record", "state"), [(None, STOPPED), ("{", STOPPED), ('{"run_id": "r"}', DONE)]
)
def test_done_is_what_has_a_record(record: str | None, state: str, folder: RunFolder) -> None:
    folder.set_status(DONE)
    if record is not None:
        (folder.path / "record.json").write_text(record)
    assert folder.is_done() is (state == DONE)
    status = folder.status()
    assert status["state"] == state
    assert status.get("message", "") == ("" if state == DONE else "its record is lost or damaged")


def test_of_a_damaged_status_counts_what_fits(folder: RunFolder) -> None:
    values = {"state": FAILED, "attempt": "many", "message": "a\x1b", "more": 5}
    write_json(folder.path / "status.json", values)
    assert folder.word() == {"state": FAILED, "message": "a\\x1b", "more": 5}
    write_json(folder.path / "status.json", {**values, "state": "dancing"})
    assert folder.status()["state"] == PENDING


def test_a_mark_that_no_text_can_hold_is_a_mark(folder: RunFolder) -> None:
    assert (folder.cancellation(), folder.claim()) == ("", "")
    for name in ("cancelled.json", "run.lock"):
        write_bytes(folder.path / name, b"\xff")
    assert folder.cancellation()
    assert folder.claim()


@pytest.mark.parametrize(
    ("values", "images"),
    [
        (None, ""),
        ({"code": {}, "hardware": {}}, ""),
        ({"code": {}, "hardware": {}, "data": "ab"}, "ab"),
        ({"code": {}, "data": "ab"}, ""),
    ],
)
def test_the_images_a_run_saw(
    values: dict[str, object] | None, images: str, folder: RunFolder
) -> None:
    if values is not None:
        write_json(folder.path / "provenance.json", values)
    assert folder.images() == images


@pytest.mark.parametrize("torn", ["{", '{"step": 1'])
def test_a_log_that_is_one_torn_line_goes_on(torn: str, folder: RunFolder) -> None:
    (folder.path / "metrics.jsonl").write_text(torn)
    folder.append_metrics({"step": 2})
    assert folder.metrics() == [{"step": 2}]


def test_lines_without_a_step_all_count(folder: RunFolder) -> None:
    lines: list[dict[str, object]] = [{"stage": "a", "step": 1}, {"stage": "a"}, {"stage": "a"}]
    for line in lines:
        folder.append_metrics(line)
    assert folder.metrics() == lines


def test_the_line_logged_last_is_the_last(folder: RunFolder) -> None:
    for step, loss in ((1, 3.0), (2, 2.0), (3, 1.0), (2, 2.5)):
        folder.append_metrics({"stage": "a", "step": step, "loss": loss})
    assert [line["loss"] for line in folder.metrics()] == [3.0, 1.0, 2.5]


@pytest.mark.parametrize("count", [1, 2])
def test_a_folder_is_made_for_what_is_written_into_it(count: int, tmp_path: Path) -> None:
    one, two = (RunFolder(tmp_path / name / "runs" / "r") for name in "ab")
    for _ in range(count):
        one.append_metrics({"loss": 1.0})
        with two.lock():
            pass
    assert len(one.metrics()) == count
    assert two.claim()


def test_a_lock_file_names_its_holder_alone(folder: RunFolder) -> None:
    assert folder.is_locked() is False
    claims = []
    for _ in range(2):
        with folder.lock() as claim:
            assert folder.is_locked() is True
            assert folder.claim() == claim
        claims.append(claim)
        assert folder.is_locked() is False
    assert claims[0] != claims[1]
    assert folder.claim() == claims[1]
    pid, _, machine = claim.split()
    assert (pid, machine) == (str(os.getpid()), host_key())


def test_a_lock_is_seen_where_nothing_may_be_written(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a dead run in a colleague's folder would count as running for ever."""
    opened, plain = [], Path.open

    def watched(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        opened.append(mode)
        return plain(path, mode, *more, **named)

    with folder.lock():
        pass
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(Path, "open", watched)
    assert folder.is_locked() is False
    assert opened == ["r"]
    with folder.lock():
        assert folder.is_locked() is True


@pytest.mark.parametrize("instant", [True, False])
def test_a_lock_waits_for_one_who_only_looks(
    instant: bool, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks whether a run is locked holds it for an instant; who computes it, for long."""
    with folder.lock():
        pass
    with (folder.path / "run.lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(time, "sleep", lambda _: other.close() if instant else None)
        if instant:
            with folder.lock():
                assert folder.is_locked()
        else:
            with pytest.raises(BusyError, match="run r is being computed"), folder.lock():
                pass
