"""Things of every kind from another package, found through its entry points and used by name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from bench import registry
from bench.launch.snapshot import take_snapshot
from bench.machine import provenance
from bench.plan import layers
from bench.run import main
from tests.conftest import TINY

EXAMPLE = Path(__file__).parents[2] / "docs/example"
"""The package that the documentation shows: a plug-in, a method, a task, a data set."""

MODULES = {
    "launcher": """
from bench.launch.inline import InlineLauncher

class Host(InlineLauncher):
    def launch(self, tasks, observe):
        (self.store.root / "hosted").write_text("")
        return super().launch(tasks, observe)

def host(order):
    return Host(order.store, order.resources, order.retry)
""",
    "tracker": """
import json

class Sheet:
    def __init__(self, folder, config):
        self.file = (folder / "sheet.txt").open("a")
        self.method = config["method"]

    def log(self, values):
        self.file.write(json.dumps({"method": self.method, **values}) + "\\n")

    def close(self):
        self.file.close()
""",
    "statistic": """
def margin(base, variant, reference, analysis):
    return {"gap": float(variant.scores.max() - base.scores.max())}
""",
}

ENTRY_POINTS = """
[mto_bench.launchers]
host = guest.launcher:host
[mto_bench.trackers]
sheet = guest.tracker:Sheet
[mto_bench.statistics]
gap = guest.statistic:margin
"""


PACKAGES = ("guest", "mim_example")


def _forget() -> None:
    for kept in (registry._points, layers.load_preset, layers._recipes, provenance.code):
        kept.cache_clear()


def _offer(place: Path, name: str, points: str) -> None:
    """Makes the packages in ``place`` those of an installed distribution."""
    info = place / f"{name.replace('-', '_')}-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(points)


def _example_points() -> str:
    """The entry points that installing the example would write."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    sections = (
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items())])
        for group, points in project["entry-points"].items()
    )
    return "\n".join(sections)


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two distributions on the path that offer one thing of each kind, the example among them."""
    place = tmp_path / "site"
    (place / "guest").mkdir(parents=True)
    (place / "guest" / "__init__.py").write_text("")
    for name, text in MODULES.items():
        (place / "guest" / f"{name}.py").write_text(text)
    shutil.copytree(EXAMPLE / "mim_example", place / "mim_example")
    _offer(place, "guest-things", ENTRY_POINTS)
    _offer(place, "mim-example", _example_points())
    monkeypatch.syspath_prepend(place)
    _forget()
    yield place
    _forget()
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


def _digits_as_arrays(place: Path) -> Path:
    """Digits in a folder, as the example's data set reads them."""
    bunch = load_digits()
    images = (bunch.images * 15.9375).astype("uint8")[:, None]
    place.mkdir()
    for name, part in (("train", slice(1024)), ("test", slice(1024, 1324))):
        np.save(place / f"{name}_images.npy", images[part])
        np.save(place / f"{name}_labels.npy", bunch.target[part])
    return place


@pytest.mark.usefixtures("guest")
def test_one_of_each_kind_is_used_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "out", _digits_as_arrays(tmp_path / "numbers")
    methods = ["--methods", "mae,gridmae,gridmae+noisy", "--preset", "digits", "--epochs", "1,2"]
    things = ["--data", f"arrays:{folder}", "--launcher", "host", "--track", "sheet"]
    tasks = ["--tasks", "finetune,centroid"]
    settings = [s for s in TINY if "_images=" not in s and "probe" not in s]
    line = [*methods, *things, *tasks, "--seeds", "2", "--name", "s", "--out", str(out), *settings]
    assert main(line) == 0
    assert (out / "hosted").exists(), "the launcher"
    study = out / "studies" / "s"
    accuracy = pd.read_csv(study / "accuracy.csv")
    assert {"mae", "gridmae", "gridmae+noisy"} == set(accuracy["arm"])
    assert {"finetune_top1", "centroid_top1"} == set(accuracy["endpoint"])
    targets = pd.read_csv(study / "targets.csv")
    assert targets["gap"].notna().all(), "the statistic, in the frames"
    report = (study / "report.md").read_text()
    assert "| gap |" in report, "and as a column of the table"
    assert "nearest mean" in report
    assert "differs in mask" in report, "where masks cannot match it is said"
    differences = pd.read_csv(study / "differences.csv")
    assert {"gridmae", "gridmae+noisy"} == set(differences[differences["base_arm"] == "mae"]["arm"])
    line[line.index("--name") + 1] = "t"
    assert main([*line, "--baseline", "gridmae"]) == 0
    other = pd.read_csv(out / "studies/t/differences.csv")
    assert {"mae", "gridmae+noisy"} == set(other[other["base_arm"] == "gridmae"]["arm"])
    assert main([*line, "--baseline", "gridmea"]) == 2
    capsys.readouterr()
    assert main(line) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "planned with baseline=gridmae, which stands" in said
    (bare,) = out.glob("runs/pre-gridmae-*-e2-s0-*/metrics.jsonl")
    (noisy,) = out.glob("runs/pre-gridmae+noisy-*-e2-s0-*/metrics.jsonl")
    losses = [json.loads(p.read_text().splitlines()[-1])["loss"] for p in (bare, noisy)]
    assert losses[0] != losses[1], "the plug-in"
    (record, *_) = [json.loads(p.read_text()) for p in out.glob("runs/fin-*/record.json")]
    assert record["data"] == "arrays"
    for name in ("guest-things", "mim-example"):
        assert re.fullmatch(r"0\.3 \(code [0-9a-f]{12}\)", record["versions"][name])
    for run in out.glob("runs/pre-*"):
        lines = [json.loads(text) for text in (run / "sheet.txt").read_text().splitlines()]
        assert {values.pop("method") for values in lines} <= {"mae", "gridmae"}
        logged = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
        assert lines == logged, "the tracker"
        config = json.loads((run / "config.json").read_text())["config"]
        assert config["hyper"]["decoder_width"] == 16, "mae's settings, whose recipe it takes"


@pytest.mark.slow
def test_the_conformance_suite_ships(guest: Path, tmp_path: Path) -> None:
    """As in an environment with both installed, away from this folder's settings."""
    root = Path(__file__).parents[2]
    named = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]
    _offer(guest, "mto-bench", f"[pytest11]\nmto-bench = {named['pytest11']['mto-bench']}\n")
    line = "-m pytest -v -p no:cacheprovider --pyargs bench.testing --arm mae+noisy --arm gridmae"
    line += " --arm mae+anyratio --arm mae+apart"
    paths = os.pathsep.join(map(str, (guest, root)))
    done = subprocess.run(
        [sys.executable, *line.split(), "-k", "hook or masks or continues or hidden"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for arm in (
        "mae+noisy",
        "mae+anyratio",
        "mae+apart",
        "gridmae",
        "gridmae+mto",
        "gridmae+noisy",
    ):
        assert f"test_state_continues_bit_for_bit[{arm}] PASSED" in done.stdout


@pytest.mark.usefixtures("guest")
def test_its_code_is_in_the_snapshot_of_a_launch(tmp_path: Path) -> None:
    copy = take_snapshot(tmp_path / "code")
    assert (copy / "guest" / "launcher.py").read_text() == MODULES["launcher"]
    assert {p.name for p in copy.iterdir()} >= {"bench", "baselines", "mto", *PACKAGES}
    assert "guest" not in provenance.sources(), "git knows this repository alone"


def test_its_code_is_told_from_changed_code_of_the_same_version(guest: Path) -> None:
    """As of a plug-in in work, installed editable: runs of before and after are not one thing."""
    found = set[str]()
    for text in ("", "WEIGHT = 1", "WEIGHT = 2"):
        (guest / "guest" / "penalty.py").write_text(text)
        provenance.code.cache_clear()
        version = provenance.versions()["guest-things"]
        assert re.fullmatch(r"0\.3 \(code [0-9a-f]{12}\)", version)
        found.add(version)
    assert len(found) == 3
    assert set(provenance.releases().values()) >= {"0.3"}


def test_a_method_that_takes_no_recipe_is_warned_of(
    guest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["plan", "--methods", "mae,gridmae", "--epochs", "1", "--out", str(tmp_path)]
    assert main(line) == 0
    said = "".join(capsys.readouterr())
    assert "NO RECIPE" not in said
    assert "to be compared" not in said
    assert main([*line[:2], "gridmae,gridmae+mto", *line[3:]]) == 0
    assert "gridmae is to be compared with mae" in " ".join("".join(capsys.readouterr()).split())
    method = guest / "mim_example" / "gridmae.py"
    method.write_text(method.read_text().replace('recipe_of = "mae"', ""))
    for name in [name for name in sys.modules if name.startswith("mim_example")]:
        del sys.modules[name]
    assert main(line) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "NO RECIPE: gridmae brings none" in said
    assert re.search(r"differs from mae in [^;]*pretrain\.lr \(0.004 and 0.002\)", said)


@pytest.mark.parametrize(
    ("flag", "name", "kind"),
    [
        ("--methods", "gridmea", "method"),
        ("--track", "sheat", "tracker"),
        ("--data", "arays", "data"),
    ],
)
@pytest.mark.usefixtures("guest")
def test_a_name_next_to_an_outside_one_is_told(
    flag: str, name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"--methods": "mae", "--epochs": "1", "--out": str(tmp_path), flag: name}
    assert main([word for pair in line.items() for word in pair]) == 2
    error = capsys.readouterr().err
    assert f"unknown {kind}" in error
    assert "Known: " in error
    assert any(name in error for name in ("gridmae", "arrays", "sheet"))


def test_a_tracker_that_fails_costs_a_warning(
    guest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (guest / "guest" / "tracker.py").write_text("def Sheet(folder, config): raise OSError('full')")
    line = ["--methods", "mae", "--epochs", "1", "--seeds", "1", "--launcher", "inline"]
    assert main([*line, "--track", "sheet", "csv", "--out", str(tmp_path / "o"), *TINY]) == 0
    (folder,) = tmp_path.glob("o/runs/pre-*")
    assert "tracker 'sheet' is left out: full" in (folder / "log.txt").read_text()
    table = pd.read_csv(folder / "metrics.csv")
    assert {"loss", "token_distance", "heterogeneity.0"} <= set(table["name"])
