"""What was found sound is not vetted again; anything that could change the verdict is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import UsageError
from bench.machine import cache
from bench.plan.config import Resources, RunConfig
from bench.work import vetted
from bench.work.place import Place
from bench.work.vet import check_device
from tests.conftest import tiny_study

HERE = Place(memory_gb=1.0)
Vetted = list[list[RunConfig]]


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vetted:
    """What reached the checks; verdicts lie in a folder of the test's own."""
    found: Vetted = []

    def vet(configs: Sequence[RunConfig], *_: Any) -> list[str]:
        found.append([*configs])
        return [f"{len(configs)} looked at"]

    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(vetted, "_vet", vet)
    return found


def configs(methods: str = "mae,mae+mto", **more: Any) -> list[RunConfig]:
    return [c.config for c in tiny_study(methods, **more).cells]


def test_what_was_found_sound_is_not_built_again(seen: Vetted, resources: Resources) -> None:
    both = configs(epochs="1,2", seeds="2")
    assert vetted.vet(both, resources, HERE) == ["2 looked at"]  # an arm once, whatever its budgets
    assert vetted.vet(both, resources, HERE) == []
    assert vetted.vet(configs(epochs="1,2,7", seeds="2"), resources, HERE) == []
    third = configs("mae,mae+mto,simmim", seeds="2")
    assert vetted.vet(third, resources, HERE) == ["1 looked at"]
    assert [c.arm for c in seen[-1]] == ["simmim"]
    assert vetted.vet(third, resources, HERE) == []
    assert len(seen) == 2


def other_data(config: RunConfig) -> RunConfig:
    return replace(config, data=replace(config.data, labels=30))


def other_model(config: RunConfig) -> RunConfig:
    return replace(config, model=replace(config.model, width=24))


def other_recipe(config: RunConfig) -> RunConfig:
    return config.with_task("probe", replace(config.task("probe"), batch_size=7))


def other_hyper(config: RunConfig) -> RunConfig:
    return replace(config, hyper=replace(config.hyper, mask_ratio=0.5))


def other_seeds(config: RunConfig) -> RunConfig:
    return replace(config, seed=5)


def other_suite(config: RunConfig) -> RunConfig:
    return replace(config, suite_seed=5)


@pytest.mark.parametrize(
    "change", [other_data, other_model, other_recipe, other_hyper, other_seeds, other_suite]
)
def test_other_settings_are_vetted(
    change: Callable[[RunConfig], RunConfig], seen: Vetted, resources: Resources
) -> None:
    (config,) = configs("mae")
    vetted.vet([config], resources, HERE)
    vetted.vet([change(config)], resources, HERE)
    assert seen == [[config], [change(config)]]


@pytest.mark.parametrize(
    ("name", "value"), [("_memory", (2**30,)), ("_code", "other"), ("_kept", set())]
)
def test_another_machine_or_other_code_is_vetted(
    name: str, value: Any, seen: Vetted, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    vetted.vet(configs(), resources, HERE)
    monkeypatch.setattr(vetted, name, lambda *_: value)
    vetted.vet(configs(), resources, HERE)
    assert len(seen) == 2


@pytest.mark.parametrize("place", [Place(here=False, memory_gb=1.0), Place(memory_gb=2.0)])
def test_another_place_is_vetted(place: Place, seen: Vetted, resources: Resources) -> None:
    vetted.vet(configs(), resources, HERE)
    vetted.vet(configs(), resources, place)
    assert len(seen) == 2


@pytest.mark.parametrize("more", [{"data_root": "x"}, {"init_path": "x"}, {"device": "cuda:0"}])
def test_what_rests_on_files_or_a_gpu_is_vetted_each_time(
    more: dict[str, Any], seen: Vetted, resources: Resources
) -> None:
    for _ in range(2):
        assert vetted.vet(configs(), replace(resources, **more), HERE) == ["2 looked at"]


def test_images_that_only_files_can_tell_are_looked_at_each_time(
    seen: Vetted, resources: Resources
) -> None:
    (config,) = configs("mae")
    config = replace(config, data=replace(config.data, name="fashion-mnist"))
    for _ in range(2):
        assert vetted.vet([config], resources, HERE) == ["1 looked at"]


def test_a_refusal_is_said_again(
    seen: Vetted, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> list[str]:
        raise UsageError("no")

    monkeypatch.setattr(vetted, "_vet", refuse)
    for _ in range(2):
        with pytest.raises(UsageError, match="no"):
            vetted.vet(configs(), resources, HERE)


@pytest.mark.parametrize("text", ["", "x", "[]", '{"sound": 5}', '{"sound": [5, null]}'])
def test_damaged_verdicts_count_for_nothing(
    text: str, seen: Vetted, resources: Resources, tmp_path: Path
) -> None:
    file = tmp_path / "cache" / "vetted.json"
    file.parent.mkdir()
    file.write_text(text)
    vetted.vet(configs(), resources, HERE)
    assert len(seen) == 1
    assert len(json.loads(file.read_text())["sound"]) == 2


@pytest.mark.parametrize("folder", ["", "/dev/null/nowhere"])
def test_without_a_cache_everything_is_vetted(
    folder: str, seen: Vetted, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, folder)
    for _ in range(2):
        assert vetted.vet(configs(), resources, HERE) == ["2 looked at"]


def test_the_code_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = [*vetted._sources(tmp_path)]
    (tmp_path / "a.py").write_text("12")
    assert [*vetted._sources(tmp_path)] != before
    assert [*vetted._sources(tmp_path / "a.py")] == [*vetted._sources(tmp_path)]


IMPORTED = """
import sys
from bench.run import main
main(sys.argv[2:])
print([m for m in sys.argv[1].split() if m in sys.modules], file=sys.stderr)
"""


def imported(modules: str, *line: str) -> str:
    """Which of these modules a command line imports."""
    command = [sys.executable, "-c", IMPORTED, modules, *line]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.strip()


def test_a_dry_run_imports_no_compiler_and_its_repetition_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    line = ["--preset", "smoke", "--dry-run", "--out", str(tmp_path / "o")]
    slow = "torch torch._dynamo pandas scipy matplotlib sklearn rich"
    assert imported(slow, *line) == "['torch']"
    assert imported(slow, *line) == "[]"
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_what_needs_a_gpu_is_looked_at_each_time(seen: Vetted) -> None:
    for _ in range(2):
        vetted.vet(configs(), Resources(), replace(HERE, gpus=True))
    assert len(seen) == 2


def test_a_gpu_that_torch_does_not_see_is_refused_before_any_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_device("auto")
    check_device("cpu")
    with pytest.raises(UsageError, match=r"auto: torch sees 0 GPU\(s\).*--device cpu"):
        check_device("auto", on_gpus=True)
