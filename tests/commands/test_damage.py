"""Commands that look at what is there end in one line, whatever a hand or a disk made of a file.

Each key of each state file takes values that it cannot mean, and each file is cut, emptied and
overwritten; every command then answers, or refuses with exit 2 and one line.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.run import main
from bench.store.files import write_json
from bench.store.states import RUNNING
from bench.store.store import Store
from tests.support.synthetic import PLAN, record

Commands = Sequence[list[str]]

NOISE = "\x1b[2J[/x]"
VALUES: list[Any] = [None, NOISE, [], {"a": {NOISE: [None]}}, -1, 1e30, math.nan, True, [[1], "x"]]
RUN, LIVE = "fin-mae-digits-e1-s0", "pre-mae-digits-e1-s0"
QUICK = (["status", "s"], ["top", "--once"], ["log", RUN], ["log", LIVE], ["power", "s"])
SLOWER = (["status"], ["ls", "studies"], ["report", "s", "--to", "tables"])
FILES = {
    "studies/s/plan.json": PLAN | {"schema": 1, "preset": "digits", "warnings": ["w"]},
    "studies/s/command.json": {"arguments": ["--methods", "mae"]},
    f"runs/{RUN}/record.json": asdict(record("mae", 1, 0, 80.0)),
    f"runs/{RUN}/config.json": {"stage": "cell", "run_id": RUN, "parent": LIVE, "config": {"a": 1}},
    f"runs/{LIVE}/status.json": {
        "state": RUNNING,
        "stage": "pretrain",
        "step": 5,
        "total": 9,
        "started": 1.0,
        "beat": 2.0,
        "attempt": 2,
        "images_per_s": 3.0,
        "data_wait_share": 0.5,
        "loss": 0.1,
        "failure": "oom",
        "message": "m",
    },
    f"runs/{LIVE}/metrics.jsonl": {"stage": "pretrain", "epoch": 1, "step": 5, "loss": 0.5},
}


def write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values) + "\n")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small study that was never trained, one of its runs under way."""
    monkeypatch.chdir(tmp_path)
    store, ids = Store(tmp_path / "o"), [LIVE]
    store.check_writable()
    for arm in ("mae", "mae+mto"):
        for epochs in (1, 2):
            for seed in (0, 1):
                made = record(arm, epochs, seed, 80.0 + epochs + seed)
                write_json(store.run(made.run_id).path / "record.json", asdict(made))
                ids.append(made.run_id)
    for name, values in FILES.items():
        own = {"budgets": [1, 2], "seeds": [0, 1], "target_epochs": 2, "ids": ids}
        write(store.root / name, values | own if name.endswith("plan.json") else values)
    return store.root


def answers(out: Path, shown: Callable[[], Any], what: object, commands: Commands) -> None:
    """Every command ends as it should."""
    for line in commands:
        code, said = main([*line, "--out", str(out)]), shown()
        assert code in (0, 1, 2, 3), (what, line, said)
        assert "\x1b[2J" not in said.out + said.err, (what, line)
        assert "Traceback" not in said.out + said.err, (what, line)
        if code > 1:
            assert said.err.startswith("error: "), (what, line, said)
            assert said.err.count("\n") == 1, (what, line, said)


WHOLE = pytest.mark.parametrize(
    ("commands", "every"),
    [
        pytest.param(QUICK, len(VALUES), id="some"),
        pytest.param((*QUICK, *SLOWER), 1, id="all", marks=pytest.mark.slow),
    ],
)
"""One value a key, in turns, or all of them."""


@WHOLE
@pytest.mark.parametrize("name", FILES)
def test_values_that_no_key_can_mean(
    name: str, commands: Commands, every: int, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((out / name).read_text())
    for number, (key, value) in enumerate(itertools.product(whole, VALUES)):
        if (number + number // len(VALUES)) % every == 0:
            write(out / name, {**whole, key: value})
            answers(out, capsys.readouterr, (key, value), commands)


@WHOLE
@pytest.mark.parametrize("name", FILES)
def test_bytes_that_are_no_such_file(
    name: str, commands: Commands, every: int, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (out / name).read_bytes()
    contents = (b"[" * 100_000, b"\xff\xfe\x00", b"", whole[:-9], b"null", b"[1]", b'"x"')
    for content in contents[:2] if every > 1 else contents:
        (out / name).write_bytes(content)
        answers(out, capsys.readouterr, content[:9], commands)
    (out / name).unlink()
    (out / name).mkdir()
    answers(out, capsys.readouterr, "a folder", commands)


@pytest.mark.parametrize(
    "key", ["token_distance", "heterogeneity", "mass_to_masked", "loss", "step"]
)
def test_measurements_that_are_none_are_passed_over(
    key: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"stage": "pretrain", "epoch": 1, "step": 4, "loss": 0.5, "token_distance": 0.25}
    good |= {"heterogeneity": [0.5, 0.75], "mass_to_masked": [0.1, 0.2]}
    lines = [good, {**good, "epoch": 2, "step": 8, key: [None]}]
    path = out / "runs" / LIVE / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["analyze", LIVE, "--out", str(out), "--to", str(out / "x")]) == 0
    table = capsys.readouterr().out
    assert "0.500 0.750" in table
    assert "\n2 " not in table
