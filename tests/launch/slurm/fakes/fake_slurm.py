#!/usr/bin/env python3
"""SLURM's commands without a cluster: a small state machine.

Jobs stay PENDING until a test moves them. The state is one JSON file in $FAKE_SLURM:
jobs {id: [state, reason]}, next, calls {command: count}, down (commands that fail), hang (commands
that do not answer), refuse (what sbatch answers after refuse_after submissions), limit (jobs that
may be queued at once), die_after (submissions after which sbatch kills its caller), max_array,
cluster, scripts {id: text}, heads {id: options of the script}.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"]) / "state.json"
BLANK = {
    "jobs": {},
    "next": 100,
    "calls": {},
    "down": [],
    "hang": [],
    "limit": 10**6,
    "die_after": 10**6,
    "cluster": "fake",
    "refuse": "",
    "refuse_after": 0,
    "max_array": 1001,
    "scripts": {},
    "dependencies": {},
    "heads": {},
}

GONE = {"COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "CANCELLED", "BOOT_FAIL"}


def load() -> dict:
    return json.loads(STATE.read_text()) if STATE.exists() else dict(BLANK)


def save(state: dict) -> None:
    """Whole or not at all: others read it while this command may be killed."""
    new = STATE.with_name(f"state.{os.getpid()}")
    new.write_text(json.dumps(state))
    new.replace(STATE)


def sbatch(state: dict, words: list[str]) -> str:
    if state["refuse"] and len(state["scripts"]) >= state["refuse_after"]:
        sys.exit(f"sbatch: error: {state['refuse']}")
    text = Path(words[-1]).read_text()
    head = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", text, re.M))
    array = re.match(r"0-(\d+)%\d+$", head.get("array", ""))
    if array and int(array[1]) >= state["max_array"]:
        sys.exit("sbatch: error: Batch job submission failed: Invalid job array specification")
    size = int(array[1]) + 1 if array else 1
    queued = sum(s not in GONE for s, _ in state["jobs"].values())
    if queued + size > state["limit"]:
        sys.exit(
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + "sbatch: error: Batch job "
            "submission failed: Job violates accounting/QOS policy (job submit limit)"
        )
    job = str(state["next"])
    state["next"] += 1
    state["scripts"][job], state["heads"][job] = text, head
    state["heard"] = {k: v for k, v in os.environ.items() if k.startswith(("SLURM_", "SBATCH_"))}
    after = head.get("dependency", "")
    state["dependencies"][job] = after
    ids = [f"{job}_{i}" for i in range(size)] if array else [job]
    state["jobs"] |= {i: ["PENDING", "Dependency" if after else "Priority"] for i in ids}
    if len(state["scripts"]) > state["die_after"]:
        save(state)
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(0)  # the test goes on with this state: nothing more may be written
    return f"Submitted batch job {job}"


def listing(state: dict, words: list[str], ended: bool) -> str:
    rows = state["jobs"]
    if "-j" in words:
        wanted = set(words[words.index("-j") + 1].split(","))
        rows = {i: s for i, s in rows.items() if i.partition("_")[0] in wanted}
    waits = {i for i, s in rows.items() if "Dependency" in s[1]}  # as sacct leaves them out
    kept = {i: s for i, s in rows.items() if (i not in waits if ended else s[0] not in GONE)}
    if not kept and not ended and "-j" in words:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    return "\n".join("|".join((i, *s, *marks(state, i, ended))) for i, s in kept.items())


def marks(state: dict, job: str, ended: bool) -> tuple[str, ...]:
    head = state["heads"].get(job.partition("_")[0], {})
    keys = ("job-name", "chdir") if ended else ("job-name", "chdir", "comment")
    return tuple(head.get(key, "(null)").strip("'") for key in keys)


def scancel(state: dict, words: list[str]) -> str:
    for word in words:
        for job in state["jobs"]:
            if job == word or job.startswith(f"{word}_"):
                state["jobs"][job] = ["CANCELLED", "None"]
    return ""


def scontrol(state: dict, words: list[str]) -> str:
    if words[:2] == ["show", "config"]:
        name = f"ClusterName             = {state['cluster']}\n"
        return f"Configuration data\n{name}MaxArraySize            = {state['max_array']}\n"
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
    if name in state["hang"]:
        time.sleep(60)
        return
    state["calls"][name] = state["calls"].get(name, 0) + 1
    try:
        if name in state["down"]:
            sys.exit(f"{name}: error: Unable to contact the database")
        print(COMMANDS[name](state, sys.argv[1:]))
    finally:
        save(state)


if __name__ == "__main__":
    main()
