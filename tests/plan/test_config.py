from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import UsageError
from bench.evaluate.finetune import FinetuneConfig
from bench.plan import resolve, typed
from bench.plan.identity import cell_id, pretrain_id
from bench.plan.layers import load_preset
from bench.plan.loading import load_section
from bench.plan.sections import PretrainConfig, peak_lr, warmup
from bench.plan.study import plain_config
from tests.conftest import tiny_study

FIXTURES = Path(__file__).parents[1] / "golden" / "run_ids.json"


def configs() -> dict[str, Any]:
    arms = "mae,mae+mto,simmim,data2vec+mto,mae+mto(spa),mae@again"
    cells = tiny_study(arms, "2,4", "2").cells
    return {f"{c.config.arm} {c.config.pretrain.epochs} {c.config.seed}": c.config for c in cells}


def test_ids_equal_the_stored_ones() -> None:
    """Stored fixtures: ids are the same in every process, on every machine and Python version.

    A failure after a deliberate change of a recipe field means: raise RECIPE_VERSION, write the
    file anew, and say so in the changelog.
    """
    stored = json.loads(FIXTURES.read_text())
    assert {n: [pretrain_id(c), cell_id(c)] for n, c in configs().items()} == stored


PAPERS = json.loads(FIXTURES.with_name("imagenet_ids.json").read_text())


@pytest.mark.parametrize("arm", PAPERS)
def test_ids_of_the_papers_recipes_equal_the_stored_ones(arm: str) -> None:
    """There a method's settings are its defaults, so a default that moves moves an id."""
    resolver = resolve.Resolver(load_preset("imagenet"))
    config = resolver.resolve(typed.parse_arm(arm), 800, 0)
    assert [pretrain_id(config), cell_id(config)] == PAPERS[arm]


def test_ids_do_not_depend_on_the_hash_seed() -> None:
    """This process draws its own; the other one's is fixed."""
    code = (
        "from tests.plan.test_config import configs\n"
        "from bench.plan.identity import cell_id\n"
        "print([cell_id(c) for c in configs().values()])"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == str([cell_id(c) for c in configs().values()])


def _leaves(section: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for f in dataclasses.fields(section):
        value = getattr(section, f.name)
        here = (*path, f.name)
        if here in (("plugins",), ("own",)):
            continue  # tested on their own below
        if here == ("tasks",):
            found += [leaf for name, recipe in value for leaf in _leaves(recipe, (name,))]
            continue
        found += _leaves(value, here) if dataclasses.is_dataclass(value) else [here]
    return found


def _changed(section: Any, path: tuple[str, ...]) -> Any:
    name, rest = path[0], path[1:]
    if name in EVALUATION:
        return section.with_task(name, _changed(section.task(name), rest))
    value = getattr(section, name)
    if rest:
        return dataclasses.replace(section, **{name: _changed(value, rest)})
    other = "rand-m9" if name == "auto_augment" else _other(value)
    return dataclasses.replace(section, **{name: other})


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value / 2 if 0 < value < 1 else value + 1 if isinstance(value, int) else value + 0.5
    if isinstance(value, str):
        return value + "x"
    if value and isinstance(value[0], int | float):
        return (value[0] * 0.9, *value[1:])
    return (*value, 0.5)


EVALUATION = {"finetune", "probe", "knn"}


@pytest.mark.parametrize("path", _leaves(configs()["mae 2 0"]), ids=".".join)
def test_every_field_that_can_move_a_number_changes_the_id(path: tuple[str, ...]) -> None:
    config = configs()["mae 2 0"]
    name = "folder" if path[-1] == "holdout" else "procedural"  # those with sizes to set
    data = dataclasses.replace(config.data, name=name, train_images=0)
    config = dataclasses.replace(config, data=data)
    changed = _changed(config, path)
    assert cell_id(changed) != cell_id(config)
    only_evaluation = path[0] in EVALUATION or path == ("data", "labels")
    assert (pretrain_id(changed) == pretrain_id(config)) == only_evaluation


def test_plug_in_settings_change_the_id() -> None:
    one = tiny_study("mae+mto").cells[0]
    two = tiny_study("mae+mto", more=["mto.lambda_spa=0.7"]).cells[0]
    assert one.pretrain_id != two.pretrain_id


def test_no_collisions_among_a_hundred_thousand_random_configs() -> None:
    base = configs()["mae 2 0"]
    rng = np.random.default_rng(0)
    seeds, epochs = rng.integers(0, 1 << 30, 100_000), rng.integers(1, 2000, 100_000)
    wanted = {(int(s), int(e)) for s, e in zip(seeds, epochs, strict=True)}
    budgets = {e: dataclasses.replace(base.pretrain, epochs=e) for e in {e for _, e in wanted}}
    ids = {
        pretrain_id(dataclasses.replace(base, seed=s, pretrain=budgets[e])).rsplit("-", 1)[1]
        for s, e in wanted
    }
    assert len(ids) == len(wanted)


def test_a_configuration_survives_storage() -> None:
    for config in configs().values():
        stored = json.loads(json.dumps(plain_config(config)))
        assert resolve.run_from_plain(stored) == config


def test_integers_and_floats_that_are_equal_give_one_id() -> None:
    texts = ("pretrain.weight_decay=0", "pretrain.weight_decay=0.0", "pretrain.weight_decay=0e1")
    ids = {tiny_study("mae", more=[text]).cells[0].run_id for text in texts}
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "Did you mean 'pretrain.epochs'"),
        ({"epochs": "three"}, "pretrain.epochs='three' is not a valid int"),
        ({"epochs": 1.5}, "not a valid int"),
        ({"epochs": True}, "not a valid int"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"betas": [0.9]}, "list of 2 values"),
        ({}, "missing setting: pretrain.batch_size, pretrain.blr, pretrain.epochs"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        load_section(PretrainConfig, values, "pretrain")


def test_learning_rate_and_warm_up() -> None:
    recipe = PretrainConfig(epochs=800, batch_size=4096, blr=1.5e-4, warmup_epochs=40)
    assert peak_lr(recipe) == pytest.approx(2.4e-3)
    assert warmup(recipe) == 40
    assert warmup(dataclasses.replace(recipe, warmup_share=0.1)) == 80
    assert peak_lr(FinetuneConfig(epochs=1, batch_size=1, blr=1, lr=4e-3)) == 4e-3


def test_shared_pretraining_is_one_run() -> None:
    studies = [tiny_study("mae", more=[f"finetune.repeat={k}"]) for k in range(3)]
    cells = list(itertools.chain(*(s.cells for s in studies)))
    assert len({c.pretrain_id for c in cells}) == 1
    assert len({c.run_id for c in cells}) == 3


if __name__ == "__main__":  # python -m tests.plan.test_config writes the stored ids anew
    ids = {n: [pretrain_id(c), cell_id(c)] for n, c in configs().items()}
    FIXTURES.write_text(json.dumps(ids, indent=1) + "\n")
