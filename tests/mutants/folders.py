"""The folders that are mutated, and the tests that speak for each."""

from __future__ import annotations

_IDS = tuple(
    f"tests/plan/test_config.py::test_ids_{which}equal_the_stored_ones"
    for which in ("", "of_the_papers_recipes_")
)
"""They hold defaults: one that moves moves the ids of runs."""

FOLDERS: dict[str, tuple[list[str], list[str]]] = {
    "stats": (["bench/stats/**/*.py"], ["tests/stats", "tests/report/test_answers.py"]),
    "streams": (["bench/streams.py"], ["tests/test_streams.py", "tests/test_digest.py"]),
    "evaluate": (
        ["bench/evaluate/*.py"],
        ["tests/evaluate", "tests/originals/test_baselines_finetune.py", *_IDS],
    ),
    "baselines": (
        ["baselines/**/*.py"],
        [
            *("tests/baselines", "tests/originals", "tests/mto/test_mto_leaving_out.py"),
            *("tests/work/test_given_checkpoints.py", *_IDS),
        ],
    ),
    "mto": (["mto/*.py"], ["tests/mto", *_IDS]),
    "store": (["bench/store/*.py"], ["tests/store"]),
}
"""By name: files that get faults, and tests."""

SLOW_IMPORTS = (
    *("torch", "numpy", "pandas", "scipy.stats", "timm", "timm.data", "timm.optim"),
    *("timm.loss", "timm.scheduler", "torchvision.transforms.v2", "sklearn.linear_model"),
    *("sklearn.neighbors", "matplotlib.figure", "hypothesis", "yaml", "tabulate", "rich.progress"),
    *("safetensors.torch", "transformers"),
)
"""Imported once for all; nothing of the project, which every fault imports anew."""
