"""What is published under results/ comes from the committed records and from nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.run import main

ROOT = Path(__file__).parents[2]
ARCHIVES = sorted((ROOT / "results").glob("*.tar.gz"))
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "results" / "README.md").read_text()
SCHEMA_1 = ROOT / "tests" / "golden" / "schema-1"
"""A study computed when records had schema 1, with the tables that it has to give for ever."""


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_published_tables_and_the_verdicts_follow_from_the_records(
    archive: Path, tmp_path: Path
) -> None:
    name, readme = archive.name.removesuffix(".tar.gz"), tmp_path / "README.md"
    readme.write_text(RESULTS)
    to = tmp_path / name  # the figures as seen from results/README.md
    shown = ["--readme", str(readme)] if f"<!-- result {name} -->" in RESULTS else []
    tables_follow(archive, ROOT / "results" / name, to, shown)
    assert readme.read_text() == RESULTS


def test_the_verdicts_of_both_studies_of_the_variant_are_shown() -> None:
    for name in ("mto-digits", "mto-fashion-mnist"):
        assert f"<!-- result {name} -->" in RESULTS


def test_the_readme_shows_figures_that_are_there() -> None:
    figures = re.findall(r'<img src="([^"]+)"', README)
    assert len(figures) == 2
    for figure in figures:
        assert (ROOT / figure).is_file(), figure


PAIRS = {
    "digits": [
        "mto-digits",
        "mto-digits-longer",
        "mto-digits-whole-parts",
        "mto-digits-mae-again",
        "mto-digits-simmim-half",
    ],
    "Fashion-MNIST": [
        "mto-fashion-mnist",
        "mto-fashion-mnist-confirm",
        "mto-fashion-mnist-longer",
        "mto-fashion-mnist-whole-parts",
    ],
}
"""The studies of each data set in the order in which they were planned."""

BASELINES = {
    "mae": "MAE",
    "simmim": "SimMIM",
    "data2vec": "data2vec",
    "bootmae": "BootMAE",
    "conmim": "ConMIM",
}

WHOLE = {
    "digits": [
        "mto-digits-whole",
        "mto-digits-whole-confirm",
        "mto-digits-whole-more",
        "mto-digits-whole-400",
        "mto-digits-simmim-half",
    ],
    "Fashion-MNIST": [
        "mto-fashion-mnist-whole",
        "mto-fashion-mnist-whole-confirm",
        "mto-fashion-mnist-whole-400",
        "mto-fashion-mnist-whole-more",
    ],
}
"""The studies of every part of MTO at once, likewise."""


def default_answers() -> dict[str, Answers]:
    """Of `+mto` by its default, a pair of baseline and data set each."""
    return {
        f"{name}, {data}": Answers.of(studies, f"{arm}+mto")
        for data, studies in PAIRS.items()
        for arm, name in BASELINES.items()
    }


def whole_answers() -> dict[str, Answers]:
    """Of every part of MTO at once."""
    rows = {}
    for data, studies in WHOLE.items():
        for arm in dict.fromkeys(
            arm for study in studies for arm in frame(study, "targets")["arm"] if "(all" in arm
        ):
            reading = "all rows" if "rows=all" in arm else "visible rows"
            name = BASELINES[arm.partition("+")[0]]
            rows[f"{name}, {data}, {reading}"] = Answers.of(studies, arm)
    return rows


def test_the_readme_opens_with_the_epochs_that_the_last_studies_found() -> None:
    assert glance_table() in README


def test_the_results_hold_the_answers_of_all_studies() -> None:
    assert short_table() in RESULTS
    assert table("baseline", (200, 400, 800), default_answers()) in RESULTS
    assert table("the whole method", (200, 400), whole_answers()) in RESULTS
    assert ends_table() in RESULTS


def test_the_readme_counts_the_halves_it_speaks_of() -> None:
    pairs = [study for studies in PAIRS.values() for study in studies]
    found = pd.concat(frame(study, "targets") for study in pairs)
    words = found.loc[found["arm"].str.endswith("+mto"), "half"].value_counts()
    assert f"in {words['shown']} of {words.sum()} comparisons of `+mto`" in README
    assert f"*refuted* in {words['refuted']}; {words['open']} are *open*" in README
    whole = pd.concat(frame(study, "targets") for studies in WHOLE.values() for study in studies)
    whole = whole[whole["arm"].str.contains("(all", regex=False)]
    refuted = (whole["half"] == "refuted").sum()
    assert f"Of the whole method none of {len(whole)} is shown, {refuted} are refuted" in README
    assert "shown" not in set(whole["half"])


def frame(study: str, name: str) -> pd.DataFrame:
    """A published frame, of the endpoint that the study's plan made primary."""
    folder = ROOT / "results" / study
    targets, found = (pd.read_csv(folder / f"{n}.csv") for n in ("targets", name))
    return found[found["endpoint"] == targets.loc[targets["primary"], "endpoint"].iloc[0]]


@dataclass(frozen=True)
class Answers:
    """What the studies of a pair say of an arm, in the order in which they were planned."""

    targets: pd.DataFrame
    differences: pd.DataFrame
    levels: pd.DataFrame

    @classmethod
    def of(cls, studies: Sequence[str], arm: str) -> Answers:
        """Of all these studies that have the arm; runs that two of them share are there once."""
        having = [study for study in studies if arm in set(frame(study, "targets")["arm"])]
        targets, differences, accuracy = (
            pd.concat(frame(study, name) for study in having).drop_duplicates(known)
            for name, known in (
                ("targets", ["arm", "target_epochs", "target_top1"]),
                ("differences", ["arm", "epochs", "difference", "n"]),
                ("accuracy", ["arm", "epochs", "mean", "n"]),
            )
        )
        base = accuracy[accuracy["arm"] == arm.partition("+")[0]]
        own = (found[found["arm"] == arm] for found in (targets, differences))
        return cls(*own, base)


def glance_table() -> str:
    """A row a baseline: epochs to its accuracy at 200, by the last study that asked each pair."""
    heads = [f"{arm}, {data}" for arm in ("`+mto`", "whole") for data in PAIRS]
    lines = [f"| {' | '.join(['', *heads])} |", "| --- " * (len(heads) + 1) + "|"]
    answers = default_answers() | whole_answers()
    for name in BASELINES.values():
        keys = [f"{name}, {data}{rest}" for rest in ("", ", all rows") for data in PAIRS]
        said = [glance_words(answers.get(key)) for key in keys]
        lines.append(f"| {' | '.join([name, *said])} |")
    return "\n".join(lines)


def glance_words(row: Answers | None) -> str:
    """Epochs, the word on half of 200 and the number of seeds; a dash where nothing was run."""
    if row is None:
        return "–"
    last = row.targets[row.targets["target_epochs"] == 200].to_dict("records")[-1]
    return f"{epochs_words(last)}; half {last['half']}; {last['seeds']:.0f} seeds"


def short_table() -> str:
    """Epochs to the baseline's accuracy at 200, and whether half of them suffice; both sets."""
    heads = ["", *(f"{data}: {column}" for data in PAIRS for column in ("epochs", "half of 200"))]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    default, whole = default_answers(), whole_answers()
    pairs = {f"{name} `+mto`": [f"{name}, {data}" for data in PAIRS] for name in BASELINES.values()}
    for key in whole:
        name, _, reading = key.split(", ")
        pairs[f"{name}, whole, {reading}"] = [f"{name}, {data}, {reading}" for data in PAIRS]
    for name, keys in pairs.items():
        rows = [(default | whole).get(key) for key in keys]
        sides = [row.targets if row else pd.DataFrame({"target_epochs": []}) for row in rows]
        found = [side[side["target_epochs"] == 200].to_dict("records") for side in sides]
        for at, side in enumerate(zip_longest(*found)):
            said = [words for row in side for words in short_words(row)]
            seeds = max(row["n"] for row in side if row)
            new = f", {seeds} new seeds" if at else ""
            lines.append(f"| {' | '.join([name + new, *said])} |")
    return "\n".join(lines)


def short_words(row: Mapping[str, Any] | None) -> tuple[str, str]:
    """Epochs to the target, and whether half of them suffice; dashes where nothing was run."""
    return (epochs_words(row), row["half"]) if row else ("–", "–")


def epochs_words(row: Mapping[str, Any]) -> str:
    """Epochs to the target with their 95 % interval, in bold where ρ is significant."""
    target, low, high = row["target_epochs"], row["rho_low"], row["rho_high"]
    bold = "**" if row["p_holm"] < 0.05 else ""
    if row["state"] == "missed":
        within = f" (at least {target / high:.0f})" if high > row["bound"] else ""
        return f"{bold}over {target / row['bound']:.0f}{bold}{within}"
    if low > 0 and high < float("inf"):
        interval = f"[{target / high:.0f}, {target / low:.0f}]"
    else:
        words = f"at least {target / high:.0f}" if low == 0 else f"at most {target / low:.0f}"
        interval = f"({words})"
    return f"{bold}{row['epochs_variant']:.0f}{bold} {interval}"


def ends_table() -> str:
    """Upper ends of ρ's intervals on the first eight seeds, a row a target."""
    firsts = {
        f"{name}, {data}": Answers.of(studies[:1], f"{arm}+mto").targets
        for data, studies in PAIRS.items()
        for arm, name in BASELINES.items()
    }
    lines = [f"| target | {' | '.join(firsts)} |", "| --- " * (len(firsts) + 1) + "|"]
    for epochs in (200, 400):
        rows = [found[found["target_epochs"] == epochs].iloc[0] for found in firsts.values()]
        ends = " | ".join(f"{row['rho_high']:.2f}" for row in rows)
        lines.append(f"| at {epochs} epochs | {ends} |")
    return "\n".join(lines)


def table(head: str, halves: Sequence[int], rows: Mapping[str, Answers]) -> str:
    """A table of levels, halves and ratios, one row for each name."""
    heads = [head, "top-1 at 200, Δ", *(f"half of {e}" for e in halves), "ρ to 200", "ρ to 400"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, row in rows.items():
        mine = row.targets
        said = [level_words(row, 200)]
        said += [half_words(mine[mine["target_epochs"] == e]) for e in halves]
        said += [rho_words(mine[mine["target_epochs"] == e]) for e in (200, 400)]
        lines.append(f"| {' | '.join([name, *said])} |")
    return "\n".join(lines)


def level_words(row: Answers, epochs: int) -> str:
    """The baseline's accuracy, and what the arm differs by at as many epochs."""
    levels, differences = (f[f["epochs"] == epochs] for f in (row.levels, row.differences))
    values = zip(
        levels["mean"],
        *(differences[c] for c in ("difference", "low", "high")),
        strict=True,
    )
    return ", again ".join(f"{m:.1f}, {d:+.1f} [{a:+.1f}, {b:+.1f}]" for m, d, a, b in values)


def half_words(rows: pd.DataFrame) -> str:
    """Word, gap, and what the baseline itself loses; those of later seeds behind earlier ones."""
    values = zip(rows["half"], rows["half_difference"], rows["half_base"], strict=True)
    said = [
        f"{half if half == 'open' else f'**{half}**'} ({gap:+.1f}; itself {base:+.1f})"
        for half, gap, base in values
    ]
    return ", again ".join(said) or "–"


def rho_words(rows: pd.DataFrame) -> str:
    """Ratios with their intervals; bold where they are significant in their table."""
    said = [
        f"**{text}**" if p < 0.05 else str(text)
        for text, p in zip(rows["rho_words"], rows["p_holm"], strict=True)
    ]
    return ", again ".join(said) or "–"


def test_an_archive_of_schema_1_gives_the_same_tables(tmp_path: Path) -> None:
    tables_follow(SCHEMA_1 / "study.tar.gz", SCHEMA_1, tmp_path)


def tables_follow(archive: Path, published: Path, to: Path, more: Sequence[str] = ()) -> None:
    """The report of an archive equals the published one; numbers but for rounding."""
    words = ["report", "--archive", str(archive), "--to", str(to), *more]
    assert main([*words, "--format", "md", "csv", "png"]) == 0
    same_tables(published, to)


def same_tables(published: Path, tmp_path: Path) -> None:
    assert (published / "report.md").read_text() == (tmp_path / "report.md").read_text()
    frames = sorted(tmp_path.glob("*.csv"))
    assert frames
    for path in frames:  # another processor may round the last digit otherwise
        once, again = pd.read_csv(published / path.name), pd.read_csv(path)
        pd.testing.assert_frame_equal(once, again, rtol=1e-9)


@pytest.mark.parametrize("data", ["digits", "fashion-mnist"])
def test_the_instruments_tables_are_of_the_same_records(data: str, tmp_path: Path) -> None:
    """Each baseline is computed once for the study of its null arm and that of its variant."""
    plan, out = ROOT / "results" / "instrument" / f"{data}.yaml", ["--out", str(tmp_path / "runs")]
    assert main(["import", str(ROOT / "results" / f"mto-{data}.tar.gz"), *out]) == 0
    assert main(["--config", str(plan), "--name", data, *out]) == 0
    words = ["report", data, *out, "--to", str(tmp_path / "tables"), "--format", "md", "csv"]
    assert main(words) == 0
    same_tables(plan.with_suffix(""), tmp_path / "tables")


@pytest.mark.parametrize(
    "archive",
    sorted((ROOT / "results" / "instrument").glob("*.tar.gz")),
    ids=lambda path: path.name,
)
def test_the_instruments_other_tables_follow_from_their_records(
    archive: Path, tmp_path: Path
) -> None:
    tables_follow(archive, archive.parent / archive.name.removesuffix(".tar.gz"), tmp_path)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_published_pages_load_fast(archive: Path) -> None:
    page = ROOT / "results" / archive.name.removesuffix(".tar.gz") / "report.html"
    assert page.stat().st_size <= 600_000
