"""Which code computed a run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.machine import provenance

ROOT = Path(__file__).parents[2]


def test_a_repository_around_an_installed_copy_is_not_its_own(tmp_path: Path) -> None:
    """As with an environment inside a user's project: its commit says nothing of this code."""
    packages = tmp_path / "env"
    for name in ("bench", "mto", "baselines"):
        shutil.copytree(ROOT / name, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    script = "from bench.machine.provenance import code; print(code()['commit'])"
    for add, known in ((["status", "-s"], False), (["add", "env"], True)):
        subprocess.run([*git, *add], cwd=tmp_path, check=True, capture_output=True)
        line = [sys.executable, "-c", script]
        done = subprocess.run(line, cwd=packages, check=True, capture_output=True, text=True)
        assert (done.stdout.strip() != "unknown") is known


def test_new_files_and_changed_ones_are_told_from_the_commit(tmp_path: Path) -> None:
    for name in ("bench", "mto", "baselines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "ours"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    script = "from bench.machine.provenance import code; print(code()['dirty'])"
    found = []
    for name, text in (("", ""), ("yours.py", "A = 1"), ("yours.py", "A = 2"), ("null.py", "#")):
        if name:
            (tmp_path / "baselines" / name).write_text(text)
        line = [sys.executable, "-c", script]
        done = subprocess.run(line, cwd=tmp_path, check=True, capture_output=True, text=True)
        found.append(done.stdout.strip())
    assert not found[0]
    assert len(set(found)) == 4


def test_processors_of_one_name_and_two_generations_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, names = tmp_path / "cpuinfo", set[str]()
    monkeypatch.setattr(provenance, "CPUINFO", told)
    for model in (1, 17):
        told.write_text(f"cpu family\t: 25\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\n" * 2)
        names.add(provenance.cpu_name())
    assert names == {"AMD EPYC (family 25 model 1)", "AMD EPYC (family 25 model 17)"}


def test_a_processor_without_such_numbers_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(provenance, "CPUINFO", told)
    told.write_text("model name\t: Some Core\n")
    assert provenance.cpu_name() == "Some Core"
    told.unlink()
    assert provenance.cpu_name()
