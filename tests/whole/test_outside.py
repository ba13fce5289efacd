"""Things of every kind from another package, found through its entry points and used by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from bench import registry
from bench.launch.snapshot import take_snapshot
from bench.machine import provenance
from bench.plan import layers
from bench.run import main
from tests.conftest import TINY

MODULES = {
    "method": """
from dataclasses import dataclass
from baselines.mae.config import MAEConfig
from baselines.mae.model import MAE

@dataclass(frozen=True, kw_only=True)
class GuestConfig(MAEConfig):
    pass

class Guest(MAE):
    Config = GuestConfig
""",
    "plugin": """
from dataclasses import dataclass

@dataclass(frozen=True, kw_only=True)
class NodConfig:
    weight: float = 0.0

def with_nod(method, config):
    return method

with_nod.Config = NodConfig
""",
    "images": """
from bench.data.sets.digits import digits
""",
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
[mto_bench.methods]
guest = guest.method:Guest
[mto_bench.plugins]
nod = guest.plugin:with_nod
[mto_bench.datasets]
guest-digits = guest.images:digits
[mto_bench.launchers]
host = guest.launcher:host
[mto_bench.trackers]
sheet = guest.tracker:Sheet
[mto_bench.statistics]
gap = guest.statistic:margin
"""


def _forget() -> None:
    for kept in (registry._points, layers.load_preset, layers._recipes):
        kept.cache_clear()


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution on the path that offers one thing of each kind."""
    place = tmp_path / "site"
    (place / "guest").mkdir(parents=True)
    (place / "guest" / "__init__.py").write_text("")
    for name, text in MODULES.items():
        (place / "guest" / f"{name}.py").write_text(text)
    (place / "guest" / "recipes.yaml").write_text("digits: {mask_ratio: 0.5}\n")
    info = place / "guest_things-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest-things\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(place)
    _forget()
    yield place
    _forget()
    for name in [name for name in sys.modules if name.partition(".")[0] == "guest"]:
        del sys.modules[name]


def test_one_of_each_kind_is_used_by_its_name(guest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    methods = ["--methods", "guest,guest+nod", "--preset", "digits", "--epochs", "1,2"]
    things = ["--data", f"guest-digits:{guest}", "--launcher", "host", "--track", "sheet"]
    settings = [s.replace("mae.", "guest.") for s in TINY if "_images=" not in s]
    line = [*methods, *things, "--seeds", "2", "--name", "s", "--out", str(out), *settings]
    assert main(line) == 0
    assert (out / "hosted").exists(), "the launcher"
    study = out / "studies" / "s"
    assert {"guest", "guest+nod"} == set(pd.read_csv(study / "accuracy.csv")["arm"])
    targets = pd.read_csv(study / "targets.csv")
    assert targets["gap"].notna().all(), "the statistic, in the frames"
    assert "| gap |" in (study / "report.md").read_text(), "and as a column of the table"
    (record, *_) = [json.loads(p.read_text()) for p in out.glob("runs/fin-*/record.json")]
    assert record["data"] == "guest-digits"
    assert record["versions"]["guest-things"] == "0.3"
    for folder in out.glob("runs/pre-*"):
        config = json.loads((folder / "config.json").read_text())["config"]
        assert config["hyper"]["mask_ratio"] == 0.5, "its recipe for the preset"
        lines = [json.loads(text) for text in (folder / "sheet.txt").read_text().splitlines()]
        assert {values.pop("method") for values in lines} == {"guest"}
        logged = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        assert lines == logged, "the tracker"


@pytest.mark.usefixtures("guest")
def test_its_code_is_in_the_snapshot_of_a_launch(tmp_path: Path) -> None:
    copy = take_snapshot(tmp_path / "code")
    assert (copy / "guest" / "launcher.py").read_text() == MODULES["launcher"]
    assert {p.name for p in copy.iterdir()} >= {"bench", "baselines", "mto", "guest"}
    assert "guest" not in provenance.sources(), "git knows this repository alone"


@pytest.mark.parametrize(
    ("flag", "name", "kind"),
    [("--methods", "gast", "method"), ("--track", "sheat", "tracker"), ("--data", "gst", "data")],
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
    assert ("guest" in error) or ("sheet" in error)


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
