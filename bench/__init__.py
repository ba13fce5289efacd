"""How many pre-training epochs does a masked-image-modelling variant save?

    import bench

    study = bench.Study(methods=["mae", "mae+null"], epochs=[100, 200], seeds=5, data="digits")
    study.plan()                  # cells, ids and states; computes nothing
    study.run().verdict()         # computes what is missing
    study.accuracy                # a pandas frame; also targets, differences, costs, results()
    bench.open("results")         # tables of a folder, a study's folder or an archive
    bench.encoder("pre-mae-")     # a run's encoder as a timm model

What is named here is all that is public; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.errors import BenchError
    from bench.notebook.encoder import encoder
    from bench.notebook.results import Results
    from bench.notebook.results import open_results as open
    from bench.notebook.study import Study

__all__ = ["BenchError", "Results", "Study", "encoder", "open"]

_PLACES = {
    "BenchError": "bench.errors:BenchError",
    "Results": "bench.notebook.results:Results",
    "Study": "bench.notebook.study:Study",
    "encoder": "bench.notebook.encoder:encoder",
    "open": "bench.notebook.results:open_results",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'bench' has no attribute '{name}'. Public: {__all__}.")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
