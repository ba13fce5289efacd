"""What each sub-command does: from parsed arguments to an exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench.commands import inspect, show, study, tune

ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "": study.run_study,
    "plan": study.show_plan,
    "tune": tune.tune,
    "status": inspect.show_status,
    "report": inspect.show_report,
    "log": inspect.show_log,
    "show": show.show_reconstructions,
    "ls": inspect.show_list,
}
