"""Golden reports: one small study with most of what can happen, in every text format.

``python -m tests.support.golden_report`` rewrites tests/golden/report/. Look at the
difference before committing it: it is what readers will see.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.report import html, markdown, terminal
from bench.report.plots import section_plots
from bench.report.write import prepare, write_report
from bench.store.files import write_bytes
from bench.store.record import Record
from tests.support.synthetic import changed, runs

FOLDER = Path(__file__).parents[1] / "golden" / "report"
PLAN: dict[str, Any] = {
    "arms": ["mae", "mae+mto", "mae+mto(recal)"],
    "budgets": [100, 200, 400],
    "seeds": [0, 1, 2, 3, 4],
    "margin": 0.1,
    "alpha": 0.05,
    "warnings": ["unequal tuning: mae+mto had 8 trials, mae 4"],
}


def records() -> list[Record]:
    """Digits: a failed run, a mask that differs, an unplanned seed. ImageNet: a pilot."""
    digits = runs(
        {"mae": [80, 81, 82], "mae+mto": [80.6, 81.7, 82.3], "mae+mto(recal)": [80.2, 81.2, 82.1]}
    )
    digits += [replace(r, seed=5, run_id=f"{r.run_id}-5") for r in digits[:1]]
    odd = {"mae+mto(recal)": (400, 2), "mae+mto": (100, 3)}
    for i, r in enumerate(digits):
        if odd.get(r.arm) == (r.epochs, r.seed):
            values: dict[str, Any] = {"digests": {**r.digests, "mask": "other"}}
            if r.arm != "mae+mto":
                values = {"status": "failed", "failure": "non-finite", "finetune_top1": None}
            digits[i] = changed(r, **values)
    pilot = runs({"mae": [83.1, 83.3, 83.5], "mae+mto": [83.3, 83.4, 83.6]}, seeds=range(3))
    place = {"data": "imagenet", "model": "ViT 768x12 /16 224px", "recipe": "fedcba543210"}
    return digits + [
        replace(r, **place, run_id=f"{r.run_id}-in", hardware="8 GPUs")  # type: ignore[arg-type]
        for r in pilot
    ]


def write(folder: Path) -> list[Path]:
    """Writes every text format, what the terminal prints and what a README carries."""
    known = prepare(records(), PLAN)
    paths = write_report(known, folder, ["md", "csv", "json", "tex"])
    plots = {part.key: section_plots(part, None) for part in known.sections}
    said = {
        "report.html": html.document(known, plots),
        "terminal.txt": terminal.text(known),
        "block.md": markdown.block(known, {}),
    }
    for name, text in said.items():
        write_bytes(folder / name, text.encode())
    return [*paths, *(folder / name for name in said)]


if __name__ == "__main__":
    write(FOLDER)
