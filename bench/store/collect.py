"""The records of a study: finished cells, and failed ones with the reason, from folders alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bench.machine.provenance import hardware_label
from bench.plan.resolve import run_from_plain
from bench.store.folder import RunFolder
from bench.store.index import load_records
from bench.store.record import Record, blank
from bench.store.states import BLOCKED, FAILED
from bench.store.store import Store


def collect(store: Store, ids: Iterable[str] | None = None) -> list[Record]:
    """Records of the named cells (or all); a failed or blocked cell counts, with its reason."""
    names = [f.run_id for f in store.folders()] if ids is None else list(ids)
    records = load_records(store, names)
    done = {r.run_id for r in records}
    broken = (_broken(store, name) for name in names if name not in done)
    return records + [r for r in broken if r is not None]


def _broken(store: Store, run_id: str) -> Record | None:
    folder = store.run(run_id)
    stored = folder.config()
    if stored is None or not stored.get("parent"):
        return None
    parent = store.run(stored["parent"])
    status = folder.status()
    if status["state"] == BLOCKED:
        status = parent.status()
    if status["state"] != FAILED:
        return None
    config = run_from_plain(stored["config"])
    record = replace(
        blank(config, run_id, stored["parent"]), status=FAILED, failure=status.get("failure", "")
    )
    return _of_origin(record, parent)


def _of_origin(record: Record, folder: RunFolder) -> Record:
    """With code and hardware of a run that left no record, from its provenance."""
    origin = folder.provenance()
    if origin is None:
        return record
    return replace(
        record,
        commit=str(origin["code"].get("commit", "unknown")),
        dirty=bool(origin["code"].get("dirty")),
        hardware=hardware_label(origin["hardware"]),
        versions=origin.get("versions", {}),
    )
