"""The settings of a cluster: their file, the flags above it, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.launch.slurm.scheduler import Job
from bench.launch.slurm.site import Site, load_site
from bench.launch.slurm.submit import Submitter
from bench.store.store import Store
from tests.support.tiny_runs import QUICK


def test_site_file_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.toml"
    path.write_text('[slurm]\npartition = "gpu"\nnodes = 2\nsetup = ["module load cuda"]\n')
    monkeypatch.setenv("MTO_BENCH_SITE", str(path))
    site = load_site("", {"nodes": 4, "account": None})
    assert (site.partition, site.nodes, site.setup) == ("gpu", 4, ("module load cuda",))
    path.write_text('[slurm]\npartiton = "gpu"\n')
    with pytest.raises(UsageError, match=r"Did you mean 'slurm\.partition'"):
        load_site(str(path), {})
    path.write_text("[slurm]\ntimeout_min = 1\n")
    with pytest.raises(UsageError, match="--timeout"):
        load_site(str(path), {})
    with pytest.raises(UsageError, match="cannot read"):
        load_site(str(tmp_path / "none.toml"), {})


def test_places_of_a_site_are_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "site.toml"
    path.write_text('[slurm]\njob_dir = "~/jobs"\nstage = "$TMPDIR"\nstage_from = "a.tar"\n')
    site = load_site(str(path), {})
    assert site.job_dir == str(tmp_path / "jobs")
    assert (site.stage, site.stage_from) == ("$TMPDIR", str(tmp_path / "a.tar"))


def test_srun_is_told_the_cores_too(tmp_path: Path) -> None:
    job = Job(token="a", name="b", place="/c", cluster="d", logs="e")
    for cores, told in ((0, []), (10, ["--cpus-per-task=10"])):
        submitter = Submitter(Store(tmp_path), QUICK, Site(cpus_per_task=cores), tmp_path)
        passed = submitter._parameters(job, "pretrain", [])["srun_args"]
        assert passed == [*told, "--kill-on-bad-exit=1"]


def test_further_options_of_sbatch(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(
        '[slurm.additional]\nexclusive = true\ngres_flags = "x"\nhold = false\nnice = 5\n'
    )
    site = load_site(str(path), {})
    assert site.additional == (("exclusive", ""), ("gres-flags", "x"), ("nice", "5"))
    submitter = Submitter(Store(tmp_path), QUICK, site, tmp_path)
    job = Job(token="a", name="b", place="/c", cluster="d", logs="e")
    passed = submitter._parameters(job, "pretrain", [])["additional_parameters"]
    ours = {"requeue": True, "chdir": "/c"}
    assert passed == {"exclusive": True, "gres-flags": "x", "nice": "5", **ours}
    for line, match in (
        ('dependency = "afterok:1"', "additional.dependency is set by the launcher"),
        ("job_name = 3", "additional.job-name is set by the launcher"),
        ("nice = [1]", "additional.nice must be one value"),
    ):
        path.write_text(f"[slurm.additional]\n{line}\n")
        with pytest.raises(UsageError, match=match):
            load_site(str(path), {})
    path.write_text('[slurm]\nstage_from = "/a.tar"\n')
    with pytest.raises(UsageError, match="stage_from is read with stage"):
        load_site(str(path), {})
