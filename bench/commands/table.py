"""Sub-commands by name; '' is the main command."""

from __future__ import annotations

from bench.commands import (
    analyze,
    cancel,
    compare,
    doctor,
    export,
    import_,
    log,
    ls,
    plan,
    power,
    report,
    retry,
    show,
    status,
    study,
    top,
    tune,
)
from bench.commands.flags import Command

COMMANDS: dict[str, Command] = {
    "": study.COMMAND,
    "plan": plan.COMMAND,
    "tune": tune.COMMAND,
    "status": status.COMMAND,
    "top": top.COMMAND,
    "report": report.COMMAND,
    "compare": compare.COMMAND,
    "power": power.COMMAND,
    "export": export.COMMAND,
    "import": import_.COMMAND,
    "analyze": analyze.COMMAND,
    "log": log.COMMAND,
    "show": show.COMMAND,
    "retry": retry.COMMAND,
    "cancel": cancel.COMMAND,
    "doctor": doctor.COMMAND,
    "ls": ls.COMMAND,
}
