"""Interrupted and undisturbed runs end in the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.store.states import DONE, STOPPED
from bench.store.store import Store
from tests.support.tiny_runs import METHODS, KillAt, KillInWrite, outcome, run, slow, tasks

KILLED = -9

QUICK = ("mae", "data2vec+mto", "conmim")
"""Arms of the default run: a decoder, a teacher under a plug-in, second views; the rest is slow."""

CONTROLS = ("crossmae", "simmim+disjoint")

ARMS = [a if a in QUICK else pytest.param(a, marks=pytest.mark.slow) for a in (*METHODS, *CONTROLS)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every arm computed without any disturbance, on first use."""
    return tmp_path_factory.mktemp("undisturbed")


def reference(root: Path, arm: str) -> tuple[dict, dict]:
    for task in tasks(arm):
        assert run(root, task, slow()) == 0
    pre, fin = (outcome(root, t) for t in tasks(arm))
    assert len(pre["weights"]) == 2
    assert set(fin["record"]["scores"]) == {"finetune_top1", "probe_top1", "knn_top1"}
    return pre, fin


def with_parent(source: Path, target: Path, arm: str) -> None:
    run_id = tasks(arm)[0].run_id
    left = shutil.ignore_patterns("scores")
    shutil.copytree(Store(source).run(run_id).path, Store(target).run(run_id).path, ignore=left)


@pytest.mark.parametrize("arm", ARMS)
def test_kill_resume_is_bit_exact(arm: str, undisturbed: Path, tmp_path: Path) -> None:
    """Two kills in pre-training (first epoch, mid-epoch later), one in each evaluation stage."""
    pre, fin = tasks(arm)
    expected = reference(undisturbed, arm)
    for fault in (KillAt("pretrain", 2), KillAt("pretrain", 5)):
        assert run(tmp_path, pre, fault=fault) == KILLED
        assert Store(tmp_path).run(pre.run_id).status()["state"] == STOPPED
    assert run(tmp_path, pre) == 0
    for fault in (KillAt("finetune", 2), KillAt("finetune", 5), KillAt("probe", 4)):
        assert run(tmp_path, fin, fault=fault) == KILLED
    assert run(tmp_path, fin) == 0
    assert (outcome(tmp_path, pre), outcome(tmp_path, fin)) == expected


@pytest.mark.parametrize("torn", [False, True], ids=["temporary", "torn"])
def test_kill_inside_a_checkpoint_write(torn: bool, undisturbed: Path, tmp_path: Path) -> None:
    arm = "data2vec+mto"
    pre, _ = tasks(arm)
    expected = reference(undisturbed, arm)[0]
    assert run(tmp_path, pre, fault=KillInWrite("pretrain", 4, torn)) == KILLED
    assert run(tmp_path, pre, fault=KillAt("pretrain", 5)) == KILLED
    states = Store(tmp_path).run(pre.run_id).checkpoints / "pretrain"
    assert not list(states.glob(".step-*")), "what the first kill left was not removed"
    assert run(tmp_path, pre) == 0
    assert outcome(tmp_path, pre) == expected
    warned = "is unreadable" in Store(tmp_path).run(pre.run_id).log.read_text()
    assert warned == torn


@pytest.mark.parametrize("damage", ["empty", "zeros", "all"])
def test_damaged_states_fall_back(damage: str, undisturbed: Path, tmp_path: Path) -> None:
    pre, _ = tasks("mae")
    expected = reference(undisturbed, "mae")[0]
    assert run(tmp_path, pre, fault=KillAt("pretrain", 5)) == KILLED
    states = sorted((Store(tmp_path).run(pre.run_id).checkpoints / "pretrain").glob("step-*"))
    assert len(states) == 2, "retention keeps the last two"
    for path in states if damage == "all" else states[-1:]:
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 512] = bytes(512)
        path.write_bytes(b"" if damage == "empty" else bytes(data))
    assert run(tmp_path, pre) == 0
    assert outcome(tmp_path, pre) == expected


def test_killed_in_its_probe_a_cell_keeps_its_fine_tuning(
    undisturbed: Path, tmp_path: Path
) -> None:
    _, fin = tasks("mae")
    expected = reference(undisturbed, "mae")[1]
    with_parent(undisturbed, tmp_path, "mae")
    assert run(tmp_path, fin, slow(), KillAt("probe", 1)) == KILLED
    metrics = (Store(tmp_path).run(fin.run_id).path / "metrics.jsonl").read_text()
    assert run(tmp_path, fin, slow()) == 0
    after = (Store(tmp_path).run(fin.run_id).path / "metrics.jsonl").read_text()
    assert after == metrics, "fine-tuning was done again"
    assert outcome(tmp_path, fin) == expected


def test_a_finished_run_keeps_its_encoder_and_no_states(undisturbed: Path) -> None:
    reference(undisturbed, "mae")
    pre, fin = tasks("mae")
    for task in (pre, fin):
        folder = Store(undisturbed).run(task.run_id)
        assert not list(folder.checkpoints.rglob("*.pt"))
        assert folder.status()["state"] == DONE
    assert Store(undisturbed).run(pre.run_id).encoder.exists()


def test_a_finished_run_is_not_computed_again(undisturbed: Path) -> None:
    reference(undisturbed, "mae")
    pre, _ = tasks("mae")
    folder = Store(undisturbed).run(pre.run_id)
    attempt = folder.status()["attempt"]
    assert run(undisturbed, pre) == 0
    assert folder.status()["attempt"] == attempt
