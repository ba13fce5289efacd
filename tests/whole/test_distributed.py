"""Two processes compute what one computes, up to the order of summation."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from bench.errors import UsageError
from bench.evaluate.attentive import AttentiveConfig
from bench.launch.local import LocalLauncher
from bench.machine.world import SOLO, World, meeting
from bench.plan.identity import cell_id, pretrain_id
from bench.plan.study import CELL, PRETRAIN, Task
from bench.store.files import read_json
from bench.store.states import DONE, FAILED, STOPPED
from bench.store.store import Store
from tests.support.tiny_runs import QUICK, KillAt, in_process, run, tasks

TOLERANCE = 1e-6
"""Largest difference of any weight after six steps of AdamW (1e-8 is what was seen).

Key biases are left out: softmax cancels them, so their gradient is rounding noise around zero,
which Adam divides by its own size. Two micro-batches in one process differ there just as much.
"""


def member(root: Path, task: Task, rank: int, port: int, fault: Any = None) -> int:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    from bench.errors import StopRequestedError
    from bench.work.worker import compute

    if fault is not None and rank == fault[0]:
        fault[1]()
    try:
        compute(root, task.run_id, QUICK)
    except StopRequestedError as stop:
        return stop.exit_code
    except Exception:
        return 1
    return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pair(root: Path, task: Task, fault: Any = None) -> list[int]:
    """Runs a task in two processes; their exit codes."""
    Store(root).register(task)
    port = free_port()
    both = [in_process(member, root, task, rank, port, fault) for rank in (0, 1)]
    for process in both:
        process.join(120)
        process.kill()
    return [process.exitcode for process in both]


def weights(root: Path, task: Task) -> dict[str, torch.Tensor]:
    return load_file(Store(root).run(task.run_id).path / "method.safetensors")


def result(root: Path, task: Task) -> dict[str, Any]:
    return Store(root).run(task.run_id).result() or {}


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_local_launcher_computes_one_run_on_two_processes(
    compile: bool, tmp_path: Path
) -> None:
    pre = tasks("simmim")[0]
    alone, both = tmp_path / "alone", Store(tmp_path / "both")
    assert run(alone, pre) == 0
    both.register(pre)
    resources = replace(QUICK, compile=compile)
    (ended,) = LocalLauncher(both, resources, processes=2).launch([pre], lambda runs: None)
    assert ended.state == DONE
    assert result(both.root, pre)["digests"] == result(alone, pre)["digests"]
    one, two = weights(alone, pre), weights(both.root, pre)
    apart = [float((one[k] - two[k]).abs().max()) for k in one if not k.endswith("qkv.bias")]
    assert 0 < max(apart) < TOLERANCE
    facts = read_json(both.run(pre.run_id).path / "provenance.json") or {}
    assert facts["hardware"]["processes"] == 2


@pytest.mark.slow
def test_a_run_whose_second_process_is_killed_goes_on_from_its_last_state(tmp_path: Path) -> None:
    pre, store, killed = tasks("simmim", 60)[0], Store(tmp_path), []
    store.register(pre)
    launcher = LocalLauncher(store, QUICK, processes=2)

    def kill_once(runs: Any) -> None:
        if not killed and runs[0].status.get("step", 0) > 3:
            (gang, _, _) = launcher._running[pre.run_id]
            killed.append(gang.processes[1].pid)
            os.kill(killed[0], signal.SIGKILL)

    (ended,) = launcher.launch([pre], kill_once)
    assert killed
    assert ended.state == DONE
    assert ended.status["attempt"] == 2


PAIRS = ["conmim+mto"]
"""The arm of the default run: a teacher under a plug-in, statistics over the whole batch."""

SLOW = ("mae+mto", "simmim", "data2vec+mto", "bootmae", "simmim+disjoint", "crossmae")
SLOW_PAIRS = [pytest.param(arm, marks=pytest.mark.slow) for arm in SLOW]


@pytest.mark.parametrize("arm", [*PAIRS, *SLOW_PAIRS])
def test_two_processes_equal_one(arm: str, tmp_path: Path) -> None:
    pre, fin = tasks(arm)
    alone, both = tmp_path / "alone", tmp_path / "both"
    for task in (pre, fin):
        assert run(alone, task) == 0
        assert pair(both, task) == [0, 0]
    assert result(both, pre)["digests"] == result(alone, pre)["digests"]
    assert result(both, pre)["images_seen"] == result(alone, pre)["images_seen"]
    assert result(both, pre)["pretrain_loss"] == pytest.approx(
        result(alone, pre)["pretrain_loss"], rel=1e-5
    )
    one, two = weights(alone, pre), weights(both, pre)
    assert one.keys() == two.keys()
    compared = [n for n in one if not n.endswith("kv.bias")]
    worst = max(float((one[n] - two[n]).abs().max()) for n in compared)
    assert worst <= TOLERANCE
    assert len(result(alone, fin)["scores"]) == 3
    assert result(both, fin)["scores"] == result(alone, fin)["scores"]
    losses = [
        [m["loss"] for m in Store(root).run(fin.run_id).metrics() if m["stage"] == "finetune"]
        for root in (alone, both)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.slow
def test_a_process_without_an_image_computes_along(tmp_path: Path) -> None:
    """In every step of pre-training with scaled gradients, and in a last batch that is cut out."""
    config = tasks("mae")[1].config
    recipe = config.task("finetune")
    augment = replace(recipe.augment, flip=0.5)
    config = replace(
        config,
        pretrain=replace(config.pretrain, precision="fp16", batch_size=1),
        tasks=(("finetune", replace(recipe, batch_size=23, augment=augment)),),
    )
    pre = Task(PRETRAIN, pretrain_id(config), config)
    fin = Task(CELL, cell_id(config), config, pre.run_id)
    alone, both = tmp_path / "alone", tmp_path / "both"
    for task in (pre, fin):
        assert run(alone, task) == 0
        assert pair(both, task) == [0, 0]
    assert result(both, pre)["digests"] == result(alone, pre)["digests"]
    one, two = result(alone, fin)["scores"], result(both, fin)["scores"]
    assert two == pytest.approx(one, abs=100 / 16 + 1e-9), "one of the 16 test images may turn"


@pytest.mark.slow
@pytest.mark.parametrize("batch", [10, 23], ids=["", "one has no image of the last batch"])
def test_an_attentive_probe_on_two_processes_equals_one(batch: int, tmp_path: Path) -> None:
    pre, fin = tasks("mae")
    recipe = AttentiveConfig(epochs=3, batch_size=batch, blr=0.01, warmup_epochs=0)
    config = replace(fin.config, tasks=(("attentive", recipe),))
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert run(alone, pre) == 0
    shutil.copytree(alone, both)
    task = Task(CELL, cell_id(config), config, pre.run_id)
    assert run(alone, task) == 0
    assert pair(both, task) == [0, 0]
    assert result(both, task)["scores"] == result(alone, task)["scores"]
    one, two = (
        [m["loss"] for m in Store(root).run(task.run_id).metrics()] for root in (alone, both)
    )
    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-4)


def test_resume_at_world_size_two_is_bit_exact(tmp_path: Path) -> None:
    pre, _ = tasks("mae+mto")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert pair(whole, pre) == [0, 0]
    assert pair(cut, pre, (1, AskedAt(4))) == [130, 130], "a signal to one stops both"
    assert Store(cut).run(pre.run_id).status()["state"] == STOPPED
    assert pair(cut, pre) == [0, 0]
    one, two = weights(whole, pre), weights(cut, pre)
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert result(whole, pre)["digests"] == result(cut, pre)["digests"]


class AskedAt:
    """SIGTERM to this process, which does not lead, after ``step`` steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self) -> None:
        from bench.train.monitor import Monitor

        beat = Monitor.beat

        def asked(monitor: Monitor, stage: str, step: int, *rest: Any) -> None:
            beat(monitor, stage, step, *rest)
            if step == self.step:
                os.kill(os.getpid(), signal.SIGTERM)

        Monitor.beat = asked  # type: ignore[method-assign]


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_the_death_of_one_process_is_told_from_an_error_of_the_run(
    rank: int, tmp_path: Path
) -> None:
    """Whichever dies: the run is the machine's failure or stopped, and goes on to the same bits."""
    pre, _ = tasks("mae+mto")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert pair(whole, pre) == [0, 0]
    codes = pair(cut, pre, (rank, KillAt("pretrain", 4)))
    assert (codes[rank], codes[1 - rank]) == (-signal.SIGKILL, 1)
    status = Store(cut).run(pre.run_id).status()
    if rank:
        assert (status["state"], status["failure"]) == (FAILED, "node")
        assert status["message"].startswith("another process of this run died")
    else:
        assert status["state"] == STOPPED
    assert pair(cut, pre) == [0, 0]
    one, two = weights(whole, pre), weights(cut, pre)
    assert all(torch.equal(one[n], two[n]) for n in one)


@pytest.mark.slow
def test_plain_torchrun(tmp_path: Path) -> None:
    pre, _ = tasks("mae")
    Store(tmp_path).register(pre)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += [
        f"--master-port={free_port()}",
        "-m",
        "bench.work.worker",
        str(tmp_path),
        pre.run_id,
    ]
    done = subprocess.run(
        [*command, "--device=cpu", "--threads=1"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert run(tmp_path / "alone", pre) == 0
    assert result(tmp_path, pre)["digests"] == result(tmp_path / "alone", pre)["digests"]


@given(count=st.integers(0, 40), size=st.integers(1, 7))
def test_places_partition_a_batch_and_keep_mirror_pairs(count: int, size: int) -> None:
    parts = [World(rank, size).places(count) for rank in range(size)]
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    even = count // 2 * 2
    for rank, part in enumerate(parts):
        pairs = part[part < even]
        assert torch.equal(pairs.flip(0), even - 1 - pairs)
        assert len(pairs) % 2 == 0
        assert (len(part) > len(pairs)) == (count % 2 == 1 and rank == size - 1)


@given(count=st.integers(0, 40), size=st.integers(1, 7))
def test_spans_partition(count: int, size: int) -> None:
    everything = list(range(count))
    parts = [everything[World(rank, size).span(count)] for rank in range(size)]
    assert [i for part in parts for i in part] == everything


SLURM = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "41234",
}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[003-007,9],cpu1", "gpu003"),
        ("a1,b2", "a1"),
        ("node-7", "node-7"),
        ("n[12,14]", "n12"),
    ],
)
def test_meeting_of_a_slurm_step(nodes: str, first: str) -> None:
    found = meeting({**SLURM, "SLURM_STEP_NODELIST": nodes})
    assert found is not None
    assert (found.world, found.address) == (World(3, 4, 1), first)
    assert 20000 <= found.port < 40000


def test_meeting_without_peers() -> None:
    assert meeting({}) is None
    assert meeting({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert meeting({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}) is None
    with pytest.raises(UsageError, match="RANK"):
        meeting({"WORLD_SIZE": "2"})


def test_alone_nothing_is_sent() -> None:
    value = torch.ones(3)
    assert SOLO.total(value) is value
    assert SOLO.gather(value) is value
    assert (SOLO.share("x"), SOLO.highest(2)) == ("x", 2)
