"""What each sub-command does: from parsed arguments to an exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench.commands import (
    analyze,
    archives,
    cancel,
    doctor,
    inspect,
    results,
    show,
    study,
    top,
    tune,
)

ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "": study.run_study,
    "plan": study.show_plan,
    "tune": tune.tune,
    "status": inspect.show_status,
    "report": results.show_report,
    "compare": results.show_compare,
    "power": results.show_power,
    "top": top.top,
    "export": archives.export_study,
    "import": archives.import_archive,
    "analyze": analyze.analyze,
    "log": inspect.show_log,
    "show": show.show_reconstructions,
    "retry": cancel.retry,
    "cancel": cancel.cancel,
    "doctor": doctor.doctor,
    "ls": inspect.show_list,
}
