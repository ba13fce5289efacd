"""Bad requests: each refused with exit 2 and one line, by dry run and every launcher alike.

Nothing is written and nothing started. Values that single fields refuse are in tests/test_rules.py,
data sets in tests/data/test_gate.py, archives in tests/store/test_archive.py, checkpoints and
state files beside this file.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.launch.inline import InlineLauncher
from bench.launch.local import LocalLauncher
from bench.launch.slurm.launcher import SlurmLauncher
from bench.run import main
from tests.data import test_gate
from tests.data.test_gate import root as root
from tests.support.bad_settings import SETTINGS

MODES = {
    "dry": ["--dry-run"],
    "inline": ["--launcher", "inline"],
    "local": ["--launcher", "local"],
    "slurm": ["--launcher", "slurm", "--partition", "p"],
}


ARMS = "mae,mae+mto,simmim,data2vec"


def refused(
    arguments: list[str],
    message: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit 2, one line with these words, and nothing written or started."""

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was started")

    monkeypatch.chdir(place)
    monkeypatch.delenv("MTO_BENCH_SITE", raising=False)
    for launcher in (InlineLauncher, LocalLauncher, SlurmLauncher):
        monkeypatch.setattr(launcher, "launch", forbidden)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    before = sorted(place.rglob("*"))
    code, shown = main(arguments), capsys.readouterr()
    assert shown.err.startswith("error: "), (code, shown)
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err
    assert "\x1b" not in shown.err
    assert len(shown.err) < 1200
    assert (code, shown.out) == (2, "")
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=[str(s[0])[:50] for s in SETTINGS])
def test_settings(
    settings: str | tuple[str, ...],
    message: str,
    mode: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [settings] if isinstance(settings, str) else [*settings]
    base = ["--methods", ARMS, "--epochs", "2", "--seeds", "1", "--out", str(tmp_path / "o")]
    refused([*base, *MODES[mode], *given], message, tmp_path, capsys, monkeypatch)


LINES: list[tuple[str, str]] = [
    ("--methods mae --epochs 1e9", "not a positive whole number"),
    ("--methods mae --epochs 99999999", "is above 100000"),
    ("--methods mae --epochs " + "9" * 5000, "is above 100000"),
    ("--methods mae --epochs -5", "not a positive whole number"),
    ("--methods mae --epochs 1.5", "not a positive whole number"),
    ("--methods mae --epochs ²", "not a positive whole number"),
    ("--methods mae --epochs 1 --seeds 0-99999999", "at most 1000 of them"),
    ("--methods mae --epochs 1 --seeds 99999999999", "at most 1000 of them"),
    ("--methods mae --epochs 1 --seeds " + "9" * 5000, "at most 1000 of them"),
    ("--methods mae --epochs 1 --seeds 5-3", "run backwards"),
    ("--methods mae --epochs 1 --seeds 1,99999999999", "none above 2147483647"),
    ("--methods mae --epochs 1 --seeds 0-999,2000", "1001 seeds are more than 1000"),
    ("--methods mae --epochs 1 --seeds 0", "zero seeds"),
    ("--methods mae --epochs 1 --seeds -1", "cannot read seeds"),
    ("--methods mae --epochs 1 --seeds ٣", "cannot read seeds"),
    ("--methods mae --epochs 1 --suite-seed -1", "suite_seed=-1"),
    ("--methods mae --epochs 1 --suite-seed 99999999999", "suite_seed=99999999999"),
    ("--methods mae --epochs 1 --suite-seed x", "invalid int value"),
    ("--methods mae --epochs 1,2 --target 3", "--target 3"),
    ("--methods mae --epochs 1 --target -1", "target=-1"),
    ("--methods mae --epochs 1 --margin nan", "margin=nan must be finite"),
    ("--methods mae --epochs 1 --margin -1", "margin=-1.0"),
    ("--methods mae --epochs 1 --margin 1e9", "margin=1000000000.0 must be at most 100"),
    ("--methods mae+mto+mto --epochs 1", "wraps 'mto' twice"),
    ("--methods mae+null+mto+null --epochs 1", "wraps 'null' twice"),
    ("--methods mae+mto(x) --epochs 1", "unknown mto term 'x'"),
    ("--methods mae+mto( --epochs 1", "cannot read plug-in"),
    ("--methods mae@a/b --epochs 1", "cannot read"),
    ("--methods mae@ --epochs 1", "cannot read"),
    ("--methods mae+null(x) --epochs 1", "no terms that can be switched"),
    ("--methods +mto --epochs 1", "unknown method ''"),
    ("--methods " + "m" * 5000 + " --epochs 1", "unknown method"),
    ("--methods mae@" + "x" * 300 + " --epochs 1", "run.alias"),
    ("--epochs 1", "no methods given"),
    ("--methods mae --epochs 1 mto.lambda_spa=1", "no arm of this study is METHOD+mto"),
    ("--methods mae,simmim+mto --epochs 1 mae.mto.lambda_spa=1", "'mae.mto' would be ignored"),
    ("--methods mae,mae+mto --epochs 1 null.draw=3", "'null' would be ignored"),
    ("--methods mae --epochs 1 --name ../x", "--name"),
    ("--methods mae --epochs 1 --name a/b", "--name"),
    ("--methods mae --epochs 1 --name ..", "--name"),
    ("--methods mae --epochs 1 --name .hidden", "--name"),
    ("--methods mae --epochs 1 --name " + "x" * 200, "--name"),
    ("--methods mae --epochs 1 --name a%b", "--name"),
    ("--methods mae --epochs 1 --name a\x1b[2J", "control character"),
    ("--methods mae --epochs 1 --out a\x00b", "control character"),
    ("--methods mae --epochs 1 --data cifar10:" + "x" * 5000, ""),
    ("--methods mae --epochs 1 --data folder", "needs a folder"),
    ("--methods mae --epochs 1 --data folder:/no/such", "does not exist"),
    ("--methods mae --epochs 1 --data torhc/cifar10:/tmp", "Did you mean 'torch/'"),
    ("--methods mae --epochs 1 --data wds/x:/tmp", "unknown prefix"),
    ("--methods mae --epochs 1 --preset nothing", "unknown preset"),
    ("--methods mae --epochs 1 --preset ../digits", "unknown preset"),
    ("--methods mae --epochs 1 --recipe nothing", "unknown recipe"),
    ("--methods mae --epochs 1 --device cuda:99", "torch sees"),
    ("--methods mae --epochs 1 --device gpu", "resources.device=gpu must be auto, cpu"),
    ("--methods mae --epochs 1 --device cuda:x", "must be auto, cpu"),
    ("--methods mae --epochs 1 --threads 99999", "resources.threads=99999 must be at most"),
    ("--methods mae --epochs 1 --workers 99999", "resources.workers=99999"),
    ("--methods mae --epochs 1 --batch-size 99999999", "resources.micro_batch"),
    ("--methods mae --epochs 1 --jobs -1", "whole number from 0 on"),
    ("--methods mae --epochs 1 --jobs 1000000", "at most 4096"),
    ("--methods mae --epochs 1 --checkpoint-every 0", "not above 0"),
    ("--methods mae --epochs 1 --checkpoint-every inf", "must be finite"),
    ("--methods mae --epochs 1 --partition p", "--partition is read with --launcher slurm alone"),
    ("--methods mae --epochs 1 --ngpus 8 --launcher inline", "read with --launcher slurm or local"),
    ("--methods mae --epochs 1 --ngpus 0", "--ngpus 0: a run takes one process or more"),
    ("--methods mae --epochs 1 --ngpus 999", "--ngpus 999: this machine shows"),
    ("--methods mae --epochs 1 --ngpus 999 --device cpu", "--device cpu: this machine has"),
    (
        "--methods mae --epochs 1 --ngpus 2 --device cpu pretrain.batch_size=3",
        "cannot share a batch",
    ),
    ("--methods mae --epochs 1 --nodes 2", "--nodes is read"),
    ("--methods mae --epochs 1 --timeout 60", "--timeout is read"),
    ("--methods mae --epochs 1 --detach", "--detach is read"),
    ("--methods mae --epochs 1 --site x.toml", "--site is read"),
    ("--methods mae --epochs 1 --launcher inline --jobs 2", "--jobs is for runs"),
    ("--methods mae --epochs 1 --launcher slurm --nodes 0", "slurm.nodes=0"),
    ("--methods mae --epochs 1 --launcher slurm --ngpus -1", "slurm.gpus_per_node=-1"),
    ("--methods mae --epochs 1 --launcher slurm --timeout 0", "slurm.timeout_min=0"),
    ("--methods mae --epochs 1 --launcher slurm --mem-gb nan", "slurm.mem_gb=nan"),
    ("--methods mae --epochs 1 --launcher slurm --poll 0", "slurm.poll_s=0.0"),
    ("--methods mae --epochs 1 --launcher slurm --nodes 99 --ngpus 8", "cannot share a batch"),
    ("--methods mae --epochs 1 --launcher slurm --out a%j", "SLURM reads '%'"),
    ("--methods mae --epochs 1 --launcher slurm --job-dir a%j", "--job-dir"),
    ("--methods mae --epochs 1 --calibrate", "add --dry-run"),
    ("--methods mae --epochs 1 --data folder:~nobody-of-this-name/x", "does not exist"),
    ("evaluate --with knn_all --track wandb", "unrecognized arguments: --track"),
    ("--methods mae --epochs 1 --launcher slurm --mem-gb 1e-5", "GiB hold 31"),
    ("--methods mae --epochs 1 --launcher slurm --mem-gb 0.01", "at once, --batch-size"),
    ("--methods mae --epochs 1 --launcher slurm --site /no/such", "cannot read the site file"),
    ("--methods mae --epochs 1 --init /no/such.pth", "does not exist"),
    ("--methods mae,simmim --epochs 1 --init x.pth", ""),
    ("--methods mae --epochs 1 --config /no/such.yaml", "cannot read suite file"),
    ("--methods mae --epochs 1 --config /", "cannot read suite file"),
    ("--methods mae --epochs 1 --assert rho", "is not a gate"),
    ("--methods mae --epochs 1 --assert rho(mae)>1", "unknown variant 'mae'"),
    ("--methods mae --epochs 1 --dry-run --assert rho", "is not a gate"),
    ("--methods mae,mae+null --epochs 1 --dry-run --assert rho(mae+nul)>1", "mean 'mae+null'?"),
    ("plan --methods mae --epochs 1 --assert accuracy(mea)>1", "Did you mean 'mae'"),
    ("--methods mae --epochs 1,2 --assert accuracy(mae,epochs=4)>1", "no epochs=4. Known: 1, 2"),
    ("--methods mae --epochs 1 --assert accuracy(mae,data=cifar10)>1", "Known: digits"),
    ("--methods mae --epochs 1 --assert accuracy(mae,model=x)>1", "no model=x"),
    ("--methods mae --epochs 1 --assert accuracy(mae,recipe=x)>1", "no recipe=x"),
    ("--methods mae --epochs 1 --tasks knn --assert accuracy(mae,endpoint=probe_top1)>1", "knn_t"),
    ("--methods mae --epochs 1 --assert accuracy(mae,target_epochs=1)>1", "takes epochs=E"),
    ("tune --methods mae --epochs 1 --grid pretrain.blr=1 --assert rho", "tune makes none"),
    ("tune --methods mae --epochs 1 --grid pretrain.blr=1 --json", "--json is about a study's"),
    ("tune --methods mae --epochs 1 --grid simmim.mask_ratio=0.5,0.6", "no arm is of simmim"),
    ("tune --methods mae --epochs 1 --grid mto.tau=1..2", "no arm is METHOD+mto. Add that arm"),
    ("tune --methods mae --epochs 1 --grid pretrain.blr=1 --name x", "--name is about a study's"),
    ("show nothing --to x.gif", "ends in none of .png, .pdf, .svg"),
    ("tune --methods mae --epochs 1 --grid pretrain.blr=0", "nothing would be learnt"),
    ("tune --methods mae --epochs 1 --grid knn.k=1 --grid knn.k=2", "knn.k is there twice"),
    ("--methods mae --epochs 1 --name all", "where 'report --all' writes"),
    ("tune --methods mae --epochs 1 --grid mae.mask_ratio=0.5,0.999", "hide every patch"),
    ("tune --methods mae --epochs 1 --grid pretrain.epochs=1,2", "would be ignored"),
    ("tune --methods mae --epochs 1 --grid seeds.x=1", "is no section"),
    ("tune --methods mae --epochs 1 --grid pretrain.blr=1 --nodes 2", "--nodes is read"),
    ("doctor --nodes 2", "--nodes is read"),
    ("report --all s", "--all is every run in the folder; leave it out, or 's'"),
    ("--methods mae --epochs 1 --out studies/s/plan.json", "is no folder that can be written"),
    ("--methods mae --epochs 1 --out studies/s/plan.json/x --dry-run", "is no folder that can"),
    ("--methods mae --epochs 100 --data torch/:.", "timm cannot open 'torch/'"),
    ("--methods mae --epochs 100 --data hfds/x/y:.", "hfds/x/y"),
    ("--methods mae --epochs 1 --data timm:.", "unknown data set 'timm'"),
    ("export s --to studies", "--to 'studies' is a folder"),
    ("export ..", "unknown study '..'"),
    ("export ../..", "unknown study"),
    ("export /tmp", "unknown study"),
    ("report ../x", "unknown study"),
    ("import /no/such.tar.gz", "does not exist"),
    ("import /", "does not exist, or is no file"),
    ("log x\x1b[2J", "control character"),
    ("log nothing", "unknown run"),
    ("show nothing", "unknown run"),
    ("show " + "x" * 5000, ""),
    ("analyze nothing", "unknown run"),
    ("ls \x07", "control character"),
]


@pytest.mark.parametrize(("line", "message"), LINES, ids=[line[:60] for line, _ in LINES])
def test_command_lines(
    line: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if line.startswith("tune"):
        pytest.importorskip("optuna")
    (tmp_path / "studies" / "s").mkdir(parents=True)
    (tmp_path / "studies" / "s" / "plan.json").write_text('{"ids": []}')
    words = line.split(" ")
    if words[0] in ("export", "report"):
        words += ["--out", str(tmp_path)]
    refused(words, message, tmp_path, capsys, monkeypatch)


FILES: list[tuple[bytes, str]] = [
    (b"\xff\xfe\x00a", "is not text in UTF-8"),
    (b"pretrain: {blr: 1}\n\xe4: 1", "is not text in UTF-8"),
    (b"\x89PNG\r\n\x1a\n\x00\x00", "is not text in UTF-8"),
    (b"a\x00b", "is not valid YAML"),
    (b"\x1b[2J", "is not valid YAML"),
    (b"pretrain: " + b"[" * 5000 + b"]" * 5000, "nested too deep"),
    (b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]", "aliases are not read"),
    (b"pretrain: &p {blr: 1}\nprobe: *p", "aliases are not read"),
    (b"pretrain: {<<: {blr: 1}}", "unknown setting 'pretrain.<<'"),
    (b"pretrain: {blr: 1, blr: 2}", "'blr' is given twice (line 1, column 20)"),
    (b"epochs: 1\nepochs: 2", "'epochs' is given twice"),
    (b"1: 2", "key 1 is no word"),
    (b"? [a, b]\n: 1", "is no word"),
    (b"null: 1", "is no word"),
    (b"yes: 1", "key True is no word"),
    (b"!!python/object/apply:os.system [ls]", "is not valid YAML"),
    (b"seeds: 010", "'010' is no plain number"),
    (b"epochs: [1:30]", "'1:30' is no plain number"),
    (b"trials: {mae: 5, mae+mot: 3}", "Did you mean 'mto'"),
    (b"recipe: r\nrecipes: {r: {seeds: 4}}", "'seeds' in the recipe 'r'"),
    (b"!x 1", "is not valid YAML"),
    (b"- a\n- b", "must hold sections"),
    (b"text", "must hold sections"),
    (b"a: b: c", "is not valid YAML"),
    (b"a: 'x", "is not valid YAML"),
    (b"\tpretrain: 1", "is not valid YAML"),
    (b"pretain: {blr: 1}", "Did you mean 'pretrain'"),
    (b"pretrain: 3", "must hold settings, not 3"),
    (b"pretrain: [1]", "must hold settings"),
    (b"pretrain: {blr: [1]}", "not a valid float"),
    (b"pretrain: {blr: 2001-01-01}", "not a valid float"),
    (b"pretrain: {epochs: 3}", "would be ignored"),
    (b"mae: {pretrain: {epochs: 3}}", "would be ignored"),
    (b"epochs: {a: 1}", "'epochs' in 'suite.yaml' must be a list"),
    (b"epochs: [1.5]", "must be a list of words or numbers"),
    (b"epochs: true", "must be a list of words or numbers"),
    (b"epochs: [x]", "not a positive whole number"),
    (b"epochs: []", "no epoch budgets"),
    (b"seeds: {a: 1}", "'seeds' in"),
    (b"seeds: [[1]]", "'seeds' in"),
    (b"seeds: x", "cannot read seeds 'x'"),
    (b"seeds: 99999999999", "at most 1000"),
    (b"methods: {mae: 1}", "'methods' in"),
    (b"methods: maee", "Did you mean 'mae'"),
    (b"suite_seed: x", "suite_seed='x' is not a valid int"),
    (b"suite_seed: [1]", "suite_seed"),
    (b"suite_seed: 1.5", "suite_seed=1.5"),
    (b"target: x", "target='x'"),
    (b"target: 7", "--target 7 is not among the budgets"),
    (b"margin: .nan", "margin=nan must be finite"),
    (b"margin: x", "margin='x'"),
    (b"margin: -1", "margin=-1.0"),
    (b"extends: [a]", "extends="),
    (b"extends: ../x", "unknown preset"),
    (b"extends: nothing", "unknown preset 'nothing'"),
    (b"trials: 3", "'trials' in"),
    (b"trials: {mae: x}", "trials.mae='x' is not a valid int"),
    (b"trials: {mae: -1}", "trials.mae=-1"),
    (b"recipe: nothing", "unknown recipe 'nothing'"),
    (b"recipe: {a: 1}", "recipe="),
    (b"recipes: 3", "'recipes' in"),
    (b"recipes: {a: 3}", "recipe 'a' in 'suite.yaml' must hold sections"),
    (b"recipes: {a: {pretrian: {blr: 1}}}", "Did you mean 'pretrain'"),
    (b"recipes: {a: {pretrain: {blrr: 1}}}", "Did you mean 'pretrain.blr'"),
    (b"mae: {mask_rtio: 1}", "Did you mean 'mae.mask_ratio'"),
    (b"simmim: {mask_rtio: 0.5}", "Did you mean 'simmim.mask_ratio'"),
    (b"data2vec: {mto: {lambda_e: nan}}", "data2vec.mto.lambda_e=nan"),
    (b"data: {name: torhc/x, train_images: 0}", "Did you mean 'torch/'"),
    (b'data: {name: "a\\e[2J"}', "control characters"),
    (b"data: {name: " + b"x" * 9999 + b"}", "data.name"),
    (b"x" * (1 << 20) + b"xxx", "larger than 1 MiB"),
    (b"pretrain: {blr: 0x}", "not a valid float"),
    (b"pretrain: {betas: {a: 1}}", "not a valid list"),
    (b"pretrain: {augment: {crop_scale: [1]}}", "pretrain.augment.crop_scale"),
]


@pytest.mark.parametrize(("content", "message"), FILES, ids=[str(c[:30]) for c, _ in FILES])
def test_suite_files(
    content: bytes,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "suite.yaml").write_bytes(content)
    line = ["--config", "suite.yaml", "--out", "o"]
    named = {"methods": b"methods:", "epochs": b"epochs:"}
    for name, value in (("methods", "mae"), ("epochs", "2")):
        line += [] if content.startswith(named[name]) else [f"--{name}", value]
    refused(line, message, tmp_path, capsys, monkeypatch)


HARMS: list[tuple[test_gate.Harm, str]] = [
    (test_gate.copied, "16 of 16 test images of 'folder' are copies of training images"),
    (test_gate.linked, "16 of 16 test images of 'folder' are training images"),
    (test_gate.shut, "nothing to tell apart"),
    (test_gate.emptied("train", "cat"), "no training image of class 'cat'"),
    (test_gate.text("train/cat/#.txt", 9), "are left out (9 .txt)"),
    (lambda root: shutil.rmtree(root / "val" / "dog"), "hold different class folders: 'dog'"),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("harm", "message"), HARMS, ids=[m[:20] for _, m in HARMS])
def test_folders(
    harm: test_gate.Harm,
    message: str,
    mode: str,
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harm(root)
    line = ["--preset", "smoke", "--methods", "mae", "--epochs", "1", "--data", f"folder:{root}"]
    line += [*test_gate.MORE, *MODES[mode], "--out", str(root / "o")]
    refused(line, message, root, capsys, monkeypatch)
    monkeypatch.undo()
    assert main(["doctor", "--data", f"folder:{root}", "--out", str(root / "o")]) == 1
    assert message in capsys.readouterr().out


def test_a_good_request_of_the_same_kind_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite.yaml").write_text(
        "extends: digits\nseeds: [0, 2-3]\nmargin: 2\ntrials: {mae: 1}"
    )
    line = ["--methods", ARMS, "--epochs", "2", "--config", "suite.yaml", "--dry-run"]
    assert main([*line, "pretrain.milestones=[0.5, 0.75]", "pretrain.schedule=multistep"]) == 0
    assert "24 runs, 0 done" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["suite.yaml"]
