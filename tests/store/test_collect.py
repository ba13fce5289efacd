"""Cells as a report counts them: finished ones, and failed ones with the reason."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from bench.plan.identity import recipe_digest
from bench.plan.study import Cell, Study
from bench.store.collect import collect
from bench.store.files import write_json
from bench.store.record import Record, blank
from bench.store.states import BLOCKED, DONE, FAILED, PENDING, STOPPED
from bench.store.store import Store
from tests.conftest import tiny_study

ORIGIN = {
    "code": {"commit": "abc", "dirty": True},
    "hardware": {"cpu": "Xeon", "threads": 2},
    "versions": {"torch": "2.9"},
}


@pytest.fixture(scope="module")
def study() -> Study:
    return tiny_study("mae,mae+mto", seeds="2")


@pytest.fixture
def cell(study: Study, store: Store) -> Cell:
    """One cell of a study all of whose runs are registered and pending."""
    for task in study.tasks():
        store.register(task)
    return study.cells[0]


def leave(store: Store, run_id: str, state: str, failure: str = "") -> None:
    store.run(run_id).set_status(state, **({"failure": failure} if failure else {}))


def test_a_run_is_registered_once(study: Study, store: Store) -> None:
    """What was written first stands."""
    for task in study.tasks():
        store.register(task)
        path = store.run(task.run_id).path / "config.json"
        values = json.loads(path.read_text())
        assert values.pop("config")["seed"] == task.config.seed
        expected = {"stage": task.stage, "run_id": task.run_id, "parent": task.parent}
        assert values == {"schema": 1, **expected}
        path.write_text(path.read_text() + "\n")
        store.register(task)
        assert path.read_text().endswith("\n\n")


def test_a_blank_record_says_which_cell_it_is_of(study: Study) -> None:
    config = next(c for c in study.cells if c.config.arm == "mae+mto").config
    tasks = tuple((n, replace(r, repeat=3) if n == "finetune" else r) for n, r in config.tasks)
    record = blank(replace(config, tasks=tasks), "fin-x", "pre-x")
    assert record == Record(
        run_id="fin-x",
        pretrain_id="pre-x",
        arm="mae+mto",
        base_arm="mae",
        method="mae",
        plugins=["mto"],
        data="digits",
        model=config.model.name,
        epochs=2,
        seed=config.seed,
        repeat=3,
        recipe=recipe_digest(config),
    )
    alone = replace(config, tasks=tuple(t for t in config.tasks if t[0] == "knn"))
    assert blank(alone, "fin-x", "pre-x").repeat == 0


@pytest.mark.parametrize(
    ("parent", "own", "failure"),
    [
        ((FAILED, "oom"), (BLOCKED, ""), "oom"),
        ((FAILED, "oom"), (BLOCKED, "code"), "oom"),
        ((DONE, ""), (FAILED, "code"), "code"),
        ((FAILED, ""), (BLOCKED, ""), ""),
        ((FAILED, "oom"), (PENDING, ""), None),
        ((STOPPED, ""), (BLOCKED, ""), None),
        ((DONE, ""), (STOPPED, ""), None),
        ((PENDING, ""), (PENDING, ""), None),
    ],
)
def test_a_failed_cell_counts_with_its_reason(
    parent: tuple[str, str], own: tuple[str, str], failure: str | None, cell: Cell, store: Store
) -> None:
    """A pre-training alone is no cell, and one that may still be computed has not failed."""
    leave(store, cell.pretrain_id, *parent)
    leave(store, cell.run_id, *own)
    expected = blank(cell.config, cell.run_id, cell.pretrain_id)
    found = [] if failure is None else [replace(expected, status=FAILED, failure=failure)]
    assert collect(store) == found
    assert collect(store, [cell.pretrain_id, cell.run_id]) == found


@pytest.mark.parametrize(
    ("origin", "values"),
    [
        (ORIGIN, {"commit": "abc", "dirty": True, "hardware": "Xeon, 2 thread(s)"}),
        (
            {**ORIGIN, "code": {}, "hardware": {"gpu": "H100"}},
            {"commit": "unknown", "dirty": False, "hardware": "H100"},
        ),
    ],
)
def test_a_failed_cell_tells_on_what_it_failed(
    origin: dict[str, Any], values: dict[str, Any], cell: Cell, store: Store
) -> None:
    leave(store, cell.run_id, FAILED)
    write_json(store.run(cell.pretrain_id).path / "provenance.json", origin)
    (found,) = collect(store)
    expected = blank(cell.config, cell.run_id, cell.pretrain_id)
    assert found == replace(expected, status=FAILED, versions={"torch": "2.9"}, **values)


def test_finished_cells_come_with_the_failed_ones_of_those_that_are_named(
    study: Study, cell: Cell, store: Store
) -> None:
    failed, other = study.cells[1:3]
    done = replace(blank(cell.config, cell.run_id, cell.pretrain_id), scores={"knn_top1": 50.0})
    write_json(store.run(cell.run_id).path / "record.json", asdict(done))
    for name in (cell.run_id, failed.run_id, other.run_id):
        leave(store, name, FAILED, "code")  # a record counts more than what a status says
    store.run("bare").path.mkdir()
    names = [failed.run_id, "not there", "bare", cell.run_id]
    found = collect(store, names)
    assert found[0] == done
    assert [r.run_id for r in found] == [cell.run_id, failed.run_id]
    assert collect(store, iter(names)) == found
    assert len(collect(store)) == 3
