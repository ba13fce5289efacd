"""Trackers for real, offline: what their own readers find of a small study; never in its way."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.errors import UsageError
from bench.machine.world import World
from bench.plan.config import Resources
from bench.run import main
from bench.store.folder import RunFolder
from bench.store.store import Store
from bench.train.trackers import Trackers, checked, result_line
from bench.work import runner
from tests.conftest import TINY, tiny_study

SMALL = [s for s in TINY if not s.startswith("probe")]
LINE = ["--methods", "mae+null", "--epochs", "2", "--seeds", "1", "--tasks", "finetune,knn"]
Found = dict[str, list[tuple[int, float]]]
"""By name of a number: its steps and values."""


def study(out: Path, *more: str) -> tuple[RunFolder, RunFolder]:
    """Pre-training and cell of a tiny study."""
    assert (
        main([*LINE, "--name", "s", "--launcher", "inline", "--out", str(out), *SMALL, *more]) == 0
    )
    (fin, pre) = (RunFolder(p) for p in sorted(out.glob("runs/*")))
    return pre, fin


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that no tracker followed."""
    out = tmp_path_factory.mktemp("plain") / "out"
    study(out)
    return out


def in_tensorboard(root: Path, name: str) -> Found:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = events.EventAccumulator(str(root / "runs" / name / "tensorboard"))
    reader.Reload()
    assert reader.Tags()["tensors"] == ["config/text_summary"]
    tags = reader.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in tags}


def in_mlflow(root: Path, name: str) -> Found:
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=(root / "mlruns").as_uri())
    place = client.get_experiment_by_name("mto-bench").experiment_id
    runs = client.search_runs([place])
    (run,) = [r for r in runs if r.info.run_name == name]
    assert run.info.status == "FINISHED"
    assert run.data.params["method"] == "mae"
    assert run.data.params["pretrain.batch_size"] == "512"
    histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return {key: [(m.step, m.value) for m in found] for key, found in histories.items()}


def in_wandb(root: Path, name: str) -> Found:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2 as proto

    (path,) = (root / "runs" / name / "wandb").glob("offline-run-*/run-*.wandb")
    found: Found = {}
    records: list[Any] = []
    for _ in range(100):  # wandb's own process writes it, a little behind on a busy machine
        records = [proto.Record.FromString(data) for data in chunks(path.read_bytes())]
        if any(record.HasField("exit") for record in records):
            break
        time.sleep(0.1)
    for record in records:
        items = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item}
        stage = next((key.partition("/")[0] for key in items if key.endswith("/step")), "")
        for key, value in items.items():
            if "/" in key and not key.endswith("/step"):
                found.setdefault(key, []).append((items[f"{stage}/step"], value))
    return found


def chunks(data: bytes, block: int = 2**15) -> Iterator[bytes]:
    """The records of a wandb file: LevelDB's log format behind a head of seven bytes."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:  # what is left of a block holds no head
            at += block - at % block
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole in one piece, or its last
            yield whole
            whole = b""


READERS: dict[str, Callable[[Path, str], Found]] = {
    "tensorboard": in_tensorboard,
    "mlflow": in_mlflow,
    "wandb": in_wandb,
}


def check(found: Found, lines: list[dict[str, Any]], stage: str, key: str) -> None:
    wanted = [(x["step"], x[key]) for x in lines if x["stage"] == stage and key in x]
    assert wanted
    steps, values = zip(*found[f"{stage}/{key}"], strict=True)
    assert list(steps) == [step for step, _ in wanted]
    assert values == pytest.approx([value for _, value in wanted], rel=1e-6)


@pytest.mark.parametrize("name", READERS)
def test_what_runs_log_is_found_there(
    name: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(registry.TRACKERS.row(name).needs)
    for variable in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    out = tmp_path / "out"
    pre, fin = study(out, "--track", name)
    for run in (pre, fin):
        assert "left out" not in run.log.read_text()
    check(READERS[name](out, pre.run_id), pre.metrics(), "pretrain", "loss")
    cell = READERS[name](out, fin.run_id)
    check(cell, fin.metrics(), "finetune", "loss")
    check(cell, [result_line(fin.result() or {})], "result", "knn_top1")
    untracked = RunFolder(plain / "runs" / pre.run_id)
    assert pre.encoder.read_bytes() == untracked.encoder.read_bytes(), "it moves no number"


@pytest.mark.parametrize("name", READERS)
def test_runs_are_handed_over_afterwards(name: str, plain: Path, tmp_path: Path) -> None:
    pytest.importorskip(registry.TRACKERS.row(name).needs)
    to = tmp_path / "to"
    to.mkdir()
    words = ["export", "s", "--out", str(plain), "--format", name, "--to", str(to)]
    assert main(words) == 0
    assert main(words) == 2, "what is there is not written twice"
    for path in plain.glob("runs/*"):
        run = RunFolder(path)
        found = READERS[name](to, run.run_id)
        stage = "pretrain" if run.run_id.startswith("pre") else "finetune"
        check(found, run.metrics(), stage, "loss")
    assert "result/finetune_top1" in {
        key for path in plain.glob("runs/fin-*") for key in READERS[name](to, path.name)
    }


def test_mlflow_goes_on_with_the_run_of_an_earlier_attempt(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    for step in (1, 2):
        folder = tmp_path / "runs" / "pre-x"
        folder.mkdir(parents=True, exist_ok=True)
        config = {"method": "mae", "pretrain": {"batch_size": 512}}
        sink = registry.TRACKERS.load("mlflow")(folder, config)
        sink.log({"stage": "pretrain", "step": step, "loss": 0.5})
        sink.close()
    assert in_mlflow(tmp_path, "pre-x") == {"pretrain/loss": [(1, 0.5), (2, 0.5)]}


def test_folders_that_share_an_mlflow_server_share_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "server").as_uri())
    sinks = []
    for out in ("mine", "yours"):
        folder = tmp_path / out / "runs" / "pre-x"
        folder.mkdir(parents=True)
        sinks.append(registry.TRACKERS.load("mlflow")(folder, {"method": "mae"}))
    assert sinks[0].run_id != sinks[1].run_id


def test_a_tracker_that_is_not_installed_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.train.trackers.find_spec", lambda name: None)
    assert checked(["csv"]) == ("csv",)
    with pytest.raises(UsageError, match=r"pip install 'mto-bench\[wandb\]'"):
        checked(["csv", "wandb"])


def test_not_even_one_that_exits_ends_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Rude:
        def log(self, values: dict[str, Any]) -> None:
            sys.exit("bye")

    monkeypatch.setattr(registry, "load", lambda target: lambda folder, config: Rude())
    trackers = Trackers(["csv"], tmp_path, {})
    trackers.log({"step": 1})
    assert not trackers.sinks
    assert "tracker 'csv' is left out: bye" in caplog.text


def test_of_several_processes_the_leading_one_alone_tracks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Second(World):
        leads = False  # type: ignore[assignment]

        def share(self, value: Any) -> Any:
            return True

    silent: list[bool] = []
    monkeypatch.setattr(runner, "_tracked", lambda *given: pytest.fail("it tracks"))
    compute = lambda store, task, resources, place: silent.append(place.monitor.silent)  # noqa: E731
    monkeypatch.setattr(runner, "_compute", compute)
    (task, _) = tiny_study("mae").tasks()
    runner.execute(Store(tmp_path), task, Resources(trackers=("csv",)), Second())
    assert silent == [True]


def test_asking_for_trackers_imports_none_of_them() -> None:
    code = (
        "import sys; from bench.train.trackers import checked; checked(['csv', 'tensorboard']); "
        "assert not {'torch', 'tensorboard', 'wandb', 'mlflow'} & set(sys.modules)"
    )
    pytest.importorskip("tensorboard")
    subprocess.run([sys.executable, "-c", code], check=True)
