#!/usr/bin/env python3
"""SLURM's commands without a cluster: a small state machine.

Jobs stay PENDING until a test moves them. The state is one JSON file in $FAKE_SLURM:
jobs {id: [state, reason]}, next, calls {command: count}, down (commands that fail), refuse
(what sbatch answers), max_array, scripts {id: text}.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"]) / "state.json"
BLANK = {
    "jobs": {},
    "next": 100,
    "calls": {},
    "down": [],
    "refuse": "",
    "refuse_after": 0,
    "max_array": 1001,
    "scripts": {},
    "dependencies": {},
}


def load() -> dict:
    return json.loads(STATE.read_text()) if STATE.exists() else dict(BLANK)


def sbatch(state: dict, words: list[str]) -> str:
    if state["refuse"] and len(state["scripts"]) >= state["refuse_after"]:
        sys.exit(f"sbatch: error: {state['refuse']}")
    text = Path(words[-1]).read_text()
    job = str(state["next"])
    state["next"] += 1
    state["scripts"][job] = text
    array = re.search(r"^#SBATCH --array=0-(\d+)%\d+$", text, re.M)
    after = re.search(r"^#SBATCH --dependency=(\S+)$", text, re.M)
    state["dependencies"][job] = after[1] if after else ""
    if array and int(array[1]) >= state["max_array"]:
        sys.exit("sbatch: error: Batch job submission failed: Invalid job array specification")
    ids = [f"{job}_{i}" for i in range(int(array[1]) + 1)] if array else [job]
    state["jobs"] |= {i: ["PENDING", "Dependency" if after else "Priority"] for i in ids}
    return f"Submitted batch job {job}"


def listing(state: dict, words: list[str], ended: bool) -> str:
    wanted = set(words[words.index("-j") + 1].split(","))
    rows = {i: s for i, s in state["jobs"].items() if i.partition("_")[0] in wanted}
    gone = {"COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "CANCELLED"}
    waits = {i for i, s in rows.items() if "Dependency" in s[1]}  # as sacct leaves them out
    kept = {i: s for i, s in rows.items() if (i not in waits if ended else s[0] not in gone)}
    if not kept and not ended:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    return "\n".join("|".join((i, *s)) for i, s in kept.items())


def scancel(state: dict, words: list[str]) -> str:
    for word in words:
        for job in state["jobs"]:
            if job == word or job.startswith(f"{word}_"):
                state["jobs"][job] = ["CANCELLED", "None"]
    return ""


def scontrol(state: dict, words: list[str]) -> str:
    if words[:2] == ["show", "config"]:
        return f"Configuration data\nMaxArraySize            = {state['max_array']}\n"
    if words[0] == "requeue":
        state["jobs"][words[1]] = ["PENDING", "BeginTime"]
    return ""


COMMANDS = {
    "sbatch": sbatch,
    "squeue": lambda state, words: listing(state, words, ended=False),
    "sacct": lambda state, words: listing(state, words, ended=True),
    "scancel": scancel,
    "scontrol": scontrol,
    "srun": lambda state, words: "",
    "sinfo": lambda state, words: "main\nurgent",
}


def main() -> None:
    name, state = Path(sys.argv[0]).name, load()
    state["calls"][name] = state["calls"].get(name, 0) + 1
    try:
        if name in state["down"]:
            sys.exit(f"{name}: error: Unable to contact the database")
        print(COMMANDS[name](state, sys.argv[1:]))
    finally:
        STATE.write_text(json.dumps(state))


if __name__ == "__main__":
    main()
