"""What each sub-command does: from parsed arguments to an exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench.commands import (
    analyze,
    archives,
    cancel,
    doctor,
    listing,
    logs,
    results,
    show,
    status,
    study,
    top,
    tune,
)

ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "": study.run_study,
    "plan": study.show_plan,
    "tune": tune.tune,
    "status": status.show_status,
    "report": results.show_report,
    "compare": results.show_compare,
    "power": results.show_power,
    "top": top.top,
    "export": archives.export_study,
    "import": archives.import_archive,
    "analyze": analyze.analyze,
    "log": logs.show_log,
    "show": show.show_reconstructions,
    "retry": cancel.retry,
    "cancel": cancel.cancel,
    "doctor": doctor.doctor,
    "ls": listing.show_list,
}
