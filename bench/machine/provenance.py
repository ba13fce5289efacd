"""Where a result comes from: code, versions, hardware. No host names, no user names, no paths."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import registry

OWN = "mto-bench"

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "scikit-learn", OWN)

ROOT = Path(__file__).parents[2]
"""Folder of the packages."""

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux describes the processor."""

SNAPSHOT = "bench/SNAPSHOT.json"
"""In a snapshot of the code: what :func:`code` says."""


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def sources() -> list[str]:
    """Packages beside this one whose code can move a number: those that the registry names."""
    return [name for name in registry.packages() if (ROOT / name).is_dir()]


def folders() -> dict[str, Path]:
    """Folder (or file, of a single module) of each package of the registry, outside ones too."""
    found = {}
    for name in registry.packages():
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            found[name] = Path(next(iter(spec.submodule_search_locations)))
        elif spec is not None and spec.origin is not None:
            found[name] = Path(spec.origin)
    return found


_TOLD: dict[str, Any] = {}


def told(code: Mapping[str, Any]) -> None:
    """What :func:`code` says in this process from now on."""
    _TOLD.update(code)


@lru_cache(maxsize=1)
def code() -> dict[str, Any]:
    """Commit, and a hash of the uncommitted changes to the code ('' when there are none).

    ``outside`` has a hash of the code of each distribution that brought rows into the registry.
    A snapshot of the code carries both in a file. A repository around the packages that does not
    hold them, as that of a project with an environment inside, says nothing of them. A launcher
    that has loaded the code before hands on what it found then (:func:`told`).
    """
    if _TOLD:
        return dict(_TOLD)
    with contextlib.suppress(OSError, ValueError):
        kept: dict[str, Any] = json.loads((ROOT / SNAPSHOT).read_text())
        return kept
    held = _git("ls-files", "--error-unmatch", str(Path(__file__))) is not None
    commit = (held and _git("rev-parse", "HEAD")) or ""
    dirty = _changes() if commit else ""
    outside = {name: _digest(places) for name, places in _outside().items()}
    return {"commit": commit[:12] or "unknown", "dirty": dirty, "outside": outside}


def _changes() -> str:
    """Hash of what differs from the commit, new files too; '' where nothing does."""
    changed = _git("diff", "HEAD", "--", *sources()) or ""
    left_out = ("--exclude-standard", "--exclude=__pycache__/")
    new = _git("ls-files", "-z", "--others", *left_out, "--", *sources()) or ""
    if not changed and not new:
        return ""
    return _digest([ROOT / name for name in new.split("\0") if name], changed)


def _digest(places: Iterable[Path], first: str = "") -> str:
    """Hash of files and of the Python files in folders, wherever they lie."""
    found = hashlib.sha256(first.encode())
    for place in places:
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        for file in (f for f in files if f.is_file()):  # links may lead nowhere
            found.update(f"{file.relative_to(place.parent).as_posix()}\0".encode())
            found.update(file.read_bytes())
    return found.hexdigest()[:12]


def releases() -> dict[str, str]:
    """Versions of Python and of the packages that can move a number."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *_outside()):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def versions() -> dict[str, str]:
    """The same with hashes of code that changes under one version: ours, and outside packages'."""
    here = code()
    hashes = {name: f" (code {digest})" for name, digest in here.get("outside", {}).items()}
    if here["dirty"]:
        hashes[OWN] = f" (changes {here['dirty']})"
    return {name: number + hashes.get(name, "") for name, number in releases().items()}


def _outside() -> dict[str, list[Path]]:
    """Where the code lies of each distribution that brought rows of its own into the registry."""
    points = [point for kind in registry.KINDS.values() for point in kind.points().values()]
    places, found = folders(), dict[str, list[Path]]()
    for name, package in sorted(
        {(p.dist.name, p.module.partition(".")[0]) for p in points if p.dist is not None}
    ):
        found.setdefault(name, []).extend([places[package]] if package in places else [])
    return found


def cpu_name() -> str:
    """The processor's model name, with its family and model, as ``AMD EPYC (family 25 model 17)``.

    Clouds cut the name short, so that generations of different speed share it.
    """
    told: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in CPUINFO.read_text().splitlines():
            key, _, value = line.partition(":")
            told.setdefault(key.strip(), value.strip())
    if "model name" not in told:
        return platform.processor() or platform.machine()
    if not {"cpu family", "model"} <= told.keys():
        return told["model name"]
    return f"{told['model name']} (family {told['cpu family']} model {told['model']})"


def hardware(device: Any, threads: int) -> dict[str, Any]:
    """The device a run computes on; needs torch for a GPU's name and driver."""
    facts: dict[str, Any] = {"cpu": cpu_name(), "threads": threads, "device": device.type}
    if device.type == "cuda":
        import torch

        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
        facts["driver"] = _driver()
    return facts


def _driver() -> str:
    """Version of the NVIDIA driver, or 'unknown'."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split()
    except OSError:
        return "unknown"
    return next((w for w in words if w[0].isdigit() and w.count(".") >= 1), "unknown")


def hardware_label(facts: dict[str, Any]) -> str:
    """One line that names the hardware, such as ``AMD EPYC x1``."""
    name = facts.get("gpu") or f"{facts.get('cpu', '?')}, {facts.get('threads', '?')} thread(s)"
    return f"{name}, compiled" if facts.get("compiled") else str(name)
