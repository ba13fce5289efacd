"""What is set aside, what is removed and what stays, a file at a time; whole commands lie in
``tests/whole/test_mending.py``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.errors import StoreError
from bench.store.files import write_bytes, write_json
from bench.store.folder import RunFolder
from bench.store.mend import has_weights, is_whole, mend
from bench.store.states import PENDING, RUNNING
from bench.store.store import Store
from tests.support.synthetic import record

STATE = "checkpoints/pretrain/step-1.pt"
HALF = ".encoder.safetensors.ab12"
METADATA: dict[str, Any] = {"__metadata__": {"format": "pt"}}


def safetensors(*ends: int, more: dict[str, Any] | None = None) -> bytes:
    """A file of tensors that end at these bytes."""
    head = {f"t{n}": {"data_offsets": [0, end]} for n, end in enumerate(ends)} | (more or {})
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + bytes(max(ends, default=0))


WHOLE = safetensors(12)
WEIGHTS = {"whole": WHOLE, "cut": WHOLE[:-1], "lost": None}


def pretraining(store: Store, done: bool = True) -> RunFolder:
    """A folder with everything that a pre-training leaves."""
    folder = store.run("pre-x")
    write_json(folder.path / "config.json", {"stage": "pretrain", "config": {}})
    write_json(folder.path / "provenance.json", {"code": {}, "hardware": {}})
    write_json(folder.path / "status.json", {"state": "done" if done else "failed"})
    folder.append_metrics({"stage": "pretrain", "step": 1})
    write_bytes(folder.encoder, WHOLE)
    write_bytes(folder.method, WHOLE)
    if done:
        write_json(folder.path / "record.json", {"run_id": "pre-x"})
    return folder


def contents(folder: RunFolder) -> dict[str, bytes]:
    """Every file but the lock's."""
    found = (p for p in folder.path.rglob("*") if p.is_file() and p.name != "run.lock")
    return {p.relative_to(folder.path).as_posix(): p.read_bytes() for p in found}


@pytest.mark.parametrize("done", [True, False])
def test_a_sound_folder_stays_as_it_is(done: bool, store: Store) -> None:
    folder = pretraining(store, done)
    before = contents(folder)
    assert mend(folder, weights_wanted=True) == []
    assert contents(folder) == before
    assert not (folder.path / "run.lock").exists(), "it was not even locked"


def test_a_run_without_a_folder_gets_none(store: Store) -> None:
    assert mend(store.run("pre-x"), weights_wanted=True) == []
    assert not store.run("pre-x").path.exists()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("config.json", "{", "it is no JSON"),
        ("config.json", "{}", "it lacks 'config'"),
        ("status.json", '{"state": "dancing"}', "'state' cannot be \"dancing\""),
        ("record.json", "", "it is empty"),
        ("record.json", '{"run_id": "x", "pretrain_id": "y", "schema": 2}', "it lacks 'arm'"),
    ],
)
def test_damage_is_set_aside_with_its_bytes_and_told(
    name: str, text: str, why: str, store: Store
) -> None:
    folder = pretraining(store)
    (folder.path / name).write_text(text)
    before = contents(folder)
    assert mend(folder) == [f"'runs/pre-x/{name}' was set aside as '{name}.damaged-1': {why}"]
    before[f"{name}.damaged-1"] = before.pop(name)
    assert contents(folder) == before


@pytest.mark.parametrize(("done", "aside"), [(True, False), (False, True)])
def test_an_origin_is_needed_until_there_is_a_result(done: bool, aside: bool, store: Store) -> None:
    folder = pretraining(store, done)
    (folder.path / "provenance.json").write_text("{}")
    assert bool(mend(folder)) == aside
    assert (folder.path / "provenance.json.damaged-1").exists() == aside


def test_damaged_bits_take_their_record_with_them(store: Store) -> None:
    folder = store.run("fin-x")
    write_json(folder.path / "record.json", asdict(record("mae", 1, 0, 80)))
    (folder.path / "correct.json").write_text('{"a_top1": ["9:oA=="]}')
    bits, result = mend(folder)
    assert bits.startswith("'runs/fin-x/correct.json' was set aside as 'correct.json.damaged-1'")
    assert result == (
        "'runs/fin-x/record.json' was set aside as 'record.json.damaged-1': "
        "'correct.json', which belongs to it, is damaged"
    )
    assert sorted(contents(folder)) == ["correct.json.damaged-1", "record.json.damaged-1"]


def test_a_record_of_a_newer_version_is_no_damage(store: Store) -> None:
    folder = pretraining(store)
    write_json(folder.path / "record.json", {"run_id": "x", "pretrain_id": "y", "schema": 99})
    before = contents(folder)
    with pytest.raises(StoreError, match="Update mto-bench"):
        mend(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("others", ["all", "metrics lost"])
@pytest.mark.parametrize("method", WEIGHTS)
@pytest.mark.parametrize("encoder", WEIGHTS)
def test_weights_that_are_wanted(encoder: str, method: str, others: str, store: Store) -> None:
    """A method that is whole stands in for an encoder, if nothing else must be computed anew."""
    folder = pretraining(store)
    for path, state in ((folder.encoder, encoder), (folder.method, method)):
        path.unlink()
        if (data := WEIGHTS[state]) is not None:
            write_bytes(path, data)
    if others == "metrics lost":
        (folder.path / "metrics.jsonl").unlink()
    before = contents(folder)
    there = encoder == "whole" or (method == "whole" and others == "all")
    assert has_weights(folder) == there
    assert mend(folder) == [], "nobody wants them"
    assert contents(folder) == before
    notes = []
    if encoder == "cut":
        notes = [
            "'runs/pre-x/encoder.safetensors' was set aside as 'encoder.safetensors.damaged-1': "
            "it is cut"
        ]
    if not there:
        notes += [
            "'runs/pre-x/record.json' was set aside as 'record.json.damaged-1': "
            "'encoder.safetensors', which belongs to it, is lost or cut"
        ]
    assert mend(folder, weights_wanted=True) == notes
    assert len([n for n in contents(folder) if n.endswith(".damaged-1")]) == len(notes)


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (safetensors(4), True),
        (safetensors(4, 12, 8), True),
        (safetensors(12, more=METADATA), True),
        (WHOLE + b"x", False),
        (WHOLE[:-1], False),
        (WHOLE[:-12], False),
        (WHOLE[:20], False),
        (WHOLE[:4], False),
        (b"", False),
        (safetensors(), False),
        (safetensors(more=METADATA), False),
        (safetensors(4, more={"t": 5}), False),
        (safetensors(4, more={"t": {}}), False),
        ((2).to_bytes(8, "little") + b"[]", False),
        ((4).to_bytes(8, "little") + b"no j", False),
    ],
)
def test_weights_are_whole_with_all_their_bytes(data: bytes, whole: bool, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(data)
    assert is_whole(tmp_path / "w") is whole


def test_no_weights_are_not_whole(tmp_path: Path) -> None:
    assert is_whole(tmp_path / "nothing") is False


@pytest.mark.parametrize("done", [True, False])
def test_what_kills_left_is_removed(done: bool, store: Store) -> None:
    """States are kept for as long as a run may go on from them."""
    folder = pretraining(store, done)
    before = contents(folder)
    write_bytes(folder.path / STATE, b"state")
    write_bytes(folder.path / HALF, b"half")
    assert mend(folder) == []
    assert contents(folder) == (before if done else {**before, STATE: b"state"})


def test_what_cannot_be_removed_stops_nothing(store: Store, tmp_path: Path) -> None:
    """States that someone moved to another disk are not deleted through a link."""
    folder = pretraining(store)
    write_bytes(tmp_path / "scratch" / "step-1.pt", b"state")
    folder.checkpoints.mkdir()
    (folder.checkpoints / "pretrain").symlink_to(tmp_path / "scratch")
    (folder.path / "config.json").write_text("{")
    assert len(mend(folder)) == 1
    assert (tmp_path / "scratch" / "step-1.pt").read_bytes() == b"state"


@pytest.mark.parametrize("state", [RUNNING, PENDING])
def test_a_run_that_is_computed_is_left_alone(
    state: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that has just begun, and has not said so yet."""
    monkeypatch.setattr("bench.store.folder.LOCK_WAIT_S", 0.0)
    folder = pretraining(store, done=False)
    (folder.path / "config.json").write_text("{")
    write_bytes(folder.path / HALF, b"being written")
    with folder.lock():
        folder.set_status(state)
        before = contents(folder)
        assert mend(folder) == []
        assert contents(folder) == before
    assert len(mend(folder)) == 1
    assert HALF not in contents(folder)


def test_a_run_that_another_machine_computes_is_left_alone(store: Store) -> None:
    """Its lock may not be seen here."""
    folder = pretraining(store, done=False)
    (folder.path / "config.json").write_text("{")
    (folder.path / "run.lock").write_text("17 abc elsewhere")
    folder.set_status(RUNNING)
    assert mend(folder) == []
    assert (folder.path / "run.lock").read_text() == "17 abc elsewhere"
