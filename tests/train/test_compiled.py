"""Compiled steps compute what the others do."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.data import load
from bench.errors import UsageError
from bench.machine import compiler, provenance
from bench.store.folder import RunFolder
from bench.store.store import Store
from bench.streams import Streams
from bench.train import loop
from bench.train.compiled import compiled
from bench.train.loop import Session
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.train.pretrain import Pretraining
from tests.support.tiny_runs import QUICK, KillAt, outcome, run, tasks

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
"""What the compiler itself makes torch say where it cuts a graph in two."""

CPU = torch.device("cpu")


def losses(folder: Path, arm: str, compile: bool, depth: int = 2) -> list[float]:
    """Mean losses of two epochs of three steps, each of micro-batches of 5 and 3 images."""
    config = tasks(arm)[0].config
    config = replace(config, model=replace(config.model, depth=depth))
    method: Any = build_method(config)
    monitor = Monitor(RunFolder(folder))
    session = Session(CPU, Streams(0, 0), monitor, micro_batch=5, compile=compile)
    Pretraining(method.train(), load.load(config, ""), config, session).run()
    return [m["loss"] for m in RunFolder(folder).metrics() if "loss" in m]


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["mae", "simmim", "data2vec", "mae+mto", "simmim+mto"])
def test_compiled_steps_have_the_same_losses(arm: str, tmp_path: Path) -> None:
    found = [losses(tmp_path / str(c), arm, c) for c in (False, True)]
    assert len(found[0]) == 2
    assert found[1] == pytest.approx(found[0], rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_many_layers_are_no_number_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All layers share functions, each of which is compiled for each layer and part of a batch."""
    monkeypatch.setattr(loop, "compiled", partial(compiled, backend="eager"))
    torch._dynamo.reset()
    found = [losses(tmp_path / str(c), "simmim+mto(all)", c, depth=12) for c in (False, True)]
    assert len(found[0]) == 2
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.slow
def test_a_compiled_run_that_was_killed_resumes_bit_for_bit(tmp_path: Path) -> None:
    resources, cell = replace(QUICK, compile=True), tasks("mae")
    for task in cell:
        assert run(tmp_path / "whole", task, resources) == 0
    assert run(tmp_path / "killed", cell[0], resources, KillAt("pretrain", 4)) == -9
    for task in cell:
        assert run(tmp_path / "killed", task, resources) == 0
        assert outcome(tmp_path / "killed", task) == outcome(tmp_path / "whole", task)
    record = Store(tmp_path / "whole").run(cell[1].run_id).result() or {}
    assert record["hardware"].endswith(", compiled")


@pytest.mark.slow
def test_a_module_that_every_step_would_compile_anew_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def at_its_limit(*batch: Any) -> None:
        raise torch._dynamo.exc.FailOnRecompileLimitHit("recompile_limit reached")

    monkeypatch.setattr(torch, "compile", lambda module, **_: at_its_limit)
    with pytest.raises(UsageError, match=r"Linear computes with a number that changes"):
        compiled(nn.Linear(1, 1), CPU)(torch.ones(1))
    assert torch._dynamo.config.fail_on_recompile_limit_hit


def test_without_a_compiler_it_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"lacks a C\+\+ compiler \('no-such-compiler'\).*CXX"):
        compiler.check_compiler("cpu")
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"and the package triton"):
        compiler.check_compiler("cuda")


def test_the_label_of_hardware_says_compiled() -> None:
    facts = {"cpu": "X", "threads": 1}
    assert provenance.hardware_label(facts) == "X, 1 thread(s)"
    assert provenance.hardware_label({**facts, "compiled": True}) == "X, 1 thread(s), compiled"
