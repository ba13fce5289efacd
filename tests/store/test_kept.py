"""What lies beside records: kept scores, bits of images, logged lines; and how runs are named."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import DamagedError, StoreError, UsageError
from bench.plan.typed import LARGEST_SEED
from bench.store.correct import pack, read_correct, unpack, write_correct
from bench.store.files import read_json, write_bytes, write_json
from bench.store.record import Measured, measured
from bench.store.scores import KeptScore, KeptScores
from bench.store.shapes import PLAN, PROVENANCE, clean, fits, held, read_state
from bench.store.store import Store

SCORE = KeptScore(top1=71.5, seconds=None, commit="abc", dirty=True, correct=["3:oA=="])


@given(st.lists(st.booleans(), max_size=40))
def test_bits_survive_storage(flags: list[bool]) -> None:
    text = pack(np.array(flags, dtype=np.bool_))
    assert text.startswith(f"{len(flags)}:")
    assert unpack(text).tolist() == flags
    assert unpack(text).dtype == np.bool_


def test_the_first_image_is_the_highest_bit() -> None:
    assert pack(np.array([1, 0, 1], dtype=np.bool_)) == "3:oA=="
    assert base64.b64decode("oA==") == bytes([0b10100000])


@pytest.mark.parametrize("text", ["", "3", "3:", "3:oA=", "9:oA==", "0:oA==", "x:oA==", "3:o A=="])
def test_torn_bits_are_told(text: str) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        unpack(text)


def test_bits_are_kept_by_endpoint_and_draw(store: Store) -> None:
    folder = store.run("fin-x")
    assert read_correct(folder) == {}
    one, two = (pack(np.array(f, dtype=np.bool_)) for f in ([1, 0, 0], [0, 1, 1]))
    write_correct(folder, {"a_top1": [one, two], "b_top1": [], "c_top1": (two,)})
    found = read_correct(folder)
    assert {k: v.tolist() for k, v in found.items()} == {
        "a_top1": [[True, False, False], [False, True, True]],
        "c_top1": [[False, True, True]],
    }


def test_a_score_is_kept_for_its_task_and_recipe(store: Store) -> None:
    folder = store.run("pre-x")
    kept = KeptScores(folder)
    kept.write("probe", "k1", SCORE)
    assert not folder.path.exists(), "the run is gone: nothing is written"
    folder.path.mkdir(parents=True)
    assert kept.read("probe", "k1") is None
    kept.write("probe", "k1", SCORE)
    assert kept.read("probe", "k1") == SCORE
    assert kept.read("probe", "k2") is None
    assert kept.read("knn", "k1") is None
    assert [p.name for p in (folder.path / "scores").iterdir()] == ["probe-k1.json"]


def test_an_older_score_has_no_bits(store: Store) -> None:
    folder = store.run("pre-x")
    plain = {"top1": 71.5, "seconds": 2.0, "commit": "abc", "dirty": False}
    write_json(folder.path / "scores" / "probe-k.json", plain)
    found = KeptScores(folder).read("probe", "k")
    assert found == KeptScore(top1=71.5, seconds=2.0, commit="abc", dirty=False, correct=[])


@pytest.mark.parametrize("text", ["torn", "{}", '{"top1": "x"}', "more"])
def test_a_damaged_score_is_set_aside(text: str, store: Store) -> None:
    folder = store.run("pre-x")
    path = folder.path / "scores" / "probe-k.json"
    write_json(path, {**asdict(SCORE), **({"odd": 1} if text == "more" else {})})
    if text != "more":
        path.write_text(text)
    data = path.read_bytes()
    assert KeptScores(folder).read("probe", "k") is None
    assert path.with_name("probe-k.json.damaged-1").read_bytes() == data
    assert KeptScores(folder).read("probe", "k") is None, "it is gone"


def test_a_run_is_found_by_its_id_or_enough_of_it(store: Store) -> None:
    for name in ("pre-a", "pre-a2", "pre-b", "fin-c"):
        store.run(name).path.mkdir(parents=True)
    (store.runs / "a file").write_text("")
    assert [f.run_id for f in store.folders()] == ["fin-c", "pre-a", "pre-a2", "pre-b"]
    found = [store.find(name).run_id for name in ("pre-a", "pre-a2", "pre-b", "f")]
    assert found == ["pre-a", "pre-a2", "pre-b", "fin-c"]
    with pytest.raises(UsageError, match=r"Known: pre-a, pre-a2, pre-b\. Give enough of the id"):
        store.find("pre")
    with pytest.raises(UsageError, match=r"unknown cell 'x'.*Known: fin-c, pre-a, pre-a2, pre-b"):
        store.find("x", "cell")


def test_of_many_runs_eight_are_named(store: Store) -> None:
    for number in range(12):
        store.run(f"pre-{number:02}").path.mkdir(parents=True)
    for name in ("pre", "x"):
        with pytest.raises(UsageError, match=r"pre-06, pre-07\. Give"):
            store.find(name)


def test_a_cell_leads_to_its_pretraining(store: Store) -> None:
    shared = {"run_id": "x", "config": {}}
    write_json(store.run("pre-a").path / "config.json", {**shared, "stage": "pretrain"})
    cell = {**shared, "stage": "cell", "parent": "pre-a"}
    write_json(store.run("fin-a").path / "config.json", cell)
    store.run("bare").path.mkdir()
    found = [store.pretraining(name).run_id for name in ("pre-a", "fin-a", "bare")]
    assert found == ["pre-a", "pre-a", "bare"]
    with pytest.raises(UsageError, match="unknown pre-training"):
        store.pretraining("x", "pre-training")


def test_no_folder_has_no_runs(tmp_path: Path) -> None:
    assert Store(tmp_path / "nothing").folders() == []


def test_json_is_readable_and_sorted(tmp_path: Path) -> None:
    write_json(tmp_path / "f", {"b": [1], "a": {"d": 1, "c": "ä"}})
    assert (tmp_path / "f").read_text().splitlines()[:3] == ["{", ' "a": {', '  "c": "\\u00e4",']
    assert (tmp_path / "f").read_text().endswith("}\n")
    assert read_json(tmp_path / "f") == {"b": [1], "a": {"d": 1, "c": "ä"}}


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b"5"])
def test_what_is_no_json_object_is_read_as_nothing(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(text)
    assert read_json(tmp_path / "f") is None
    assert read_json(tmp_path / "nothing") is None


def test_lines_that_cannot_be_read_are_passed_over(store: Store) -> None:
    folder = store.run("r")
    assert folder.metrics() == []
    folder.append_metrics({"step": 1})
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(b'[1]\n\xff\n5\n{"step": [2]}\n{"stage": "a"}\n{"stage": "a"}\n')
    folder.append_metrics({"step": 3})
    assert folder.metrics() == [{"step": 1}, {"stage": "a"}, {"stage": "a"}, {"step": 3}]
    assert "\n\n" not in (folder.path / "metrics.jsonl").read_text(errors="replace")


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        ({"a": "b"}, dict[str, str], True),
        ({"a": 5}, dict[str, str], False),
        ({"a": "b", "c": 5}, dict[str, str], False),
        ([], dict[str, str], False),
        (["a"], list[str], True),
        (["a", 5], list[str], False),
        ({}, list[str], False),
        (5, int, True),
        (5.0, int, False),
        (5, float, True),
        (True, float, False),
        (True, int, False),
        (True, bool, True),
        (None, float | None, True),
        ("x", float | None, False),
        (object(), Any, True),
    ],
)
def test_values_fit_their_types(value: Any, hint: Any, expected: bool) -> None:
    assert fits(value, hint) == expected


def test_a_damaged_state_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "r" / "provenance.json"
    good = {"code": {}, "hardware": {}, "versions": {"torch": "2"}, "more": 5}
    assert held(good, PROVENANCE, path, ("code",)) == good
    with pytest.raises(StoreError, match=r"'runs/r/provenance.json' is .* 'versions' cannot be"):
        held({**good, "versions": {"torch": 2}}, PROVENANCE, path)
    with pytest.raises(StoreError, match="it lacks 'code'"):
        held({"hardware": {}}, PROVENANCE, path, ("code", "hardware"))
    with pytest.raises(StoreError, match=f"cannot be {'.' * 60}\\. "):
        held({"data": ["x" * 100]}, PROVENANCE, path)


def test_what_to_do_about_damage_depends_on_what_can_be_computed_anew(tmp_path: Path) -> None:
    for place, said in (
        ("runs/r/record.json", "The command of its study computes anew"),
        ("studies/s/plan.json", "Restore it, or delete its folder"),
    ):
        write_bytes(tmp_path / place, b"[1]")
        with pytest.raises(DamagedError, match=f"'{place}' .*no JSON object. {said}"):
            read_state(tmp_path / place)


def test_a_state_that_is_not_there_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert read_state(tmp_path / "nothing") is None
    assert read_state(tmp_path / "file" / "below") is None
    with pytest.raises(StoreError, match="cannot read"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a_top1": ["9:oA=="]}', "cannot be read"),
        ('{"a_top1": "3:oA=="}', "holds no bits"),
        ('{"a_top1": ["3:oA==", "4:oA=="]}', "same shape"),
    ],
)
def test_damaged_bits_name_their_file(text: str, expected: str, store: Store) -> None:
    write_bytes(store.run("r").path / "correct.json", text.encode())
    with pytest.raises(DamagedError, match=f"'runs/r/correct.json' .*{expected}"):
        read_correct(store.run("r"))


@pytest.mark.parametrize(("alpha", "fit"), [(0.05, True), (0, False), (1, False), (1.5, False)])
def test_a_plan_has_a_level_between_0_and_1(alpha: float, fit: bool) -> None:
    assert fits(alpha, PLAN["alpha"]) is fit


def test_text_loses_what_steers_a_terminal() -> None:
    assert clean({"a\x1b": ["b\x07", 5, None, "c"]}) == {"a\\x1b": ["b\\x07", 5, None, "c"]}


def test_what_a_pretraining_measured_is_read_by_its_types(store: Store) -> None:
    folder = store.run("pre-x")
    assert measured(folder) == Measured()
    assert measured(folder).images_seen == 0
    plain = {"stage": "pretrain", "run_id": "pre-x", "pretrain_s": 2.5, "notes": ["n"]}
    write_json(folder.path / "record.json", {**plain, "digests": {"mask": "b:1"}})
    found = measured(folder)
    assert found == Measured(pretrain_s=2.5, notes=["n"], digests={"mask": "b:1"})
    for more, said in (
        ({"speed": 5}, r"pre-x has unknown fields: \['speed'\]"),
        ({"flops": "x"}, "'flops' cannot be"),
    ):
        (folder.path / "record.json").write_text(json.dumps({**plain, **more}))
        with pytest.raises(StoreError, match=said):
            measured(folder)


def test_a_plan_may_hold_any_seed_that_may_be_asked_for() -> None:
    assert fits([0, LARGEST_SEED], PLAN["seeds"])
    assert not fits([LARGEST_SEED + 1], PLAN["seeds"])
