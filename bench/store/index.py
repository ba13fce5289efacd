"""A cache of all records of a store, so that a report on many runs reads only what is new.

The run folders stay the truth: a record is read anew when its file's time or size has changed,
and the index may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.errors import StoreError
from bench.store.files import write_bytes
from bench.store.folder import RunFolder
from bench.store.record import SCHEMA, Record, load_record
from bench.store.store import Store

VERSION = 1
"""Version of the index; with the record's schema it decides whether an index can be used."""

Entry = list[Any]
"""Time in ns, size, values of the record (None for a pre-training run)."""


def load_records(store: Store, ids: Iterable[str] | None = None) -> list[Record]:
    """Records of finished cells (all, or those named), by run id; only what is new is read.

    Raises:
        StoreError: if one of these records is damaged, has unknown fields or a newer schema.
    """
    path = store.root / ".index.json"
    known, asked = _known(path), None if ids is None else set(ids)
    current = {}
    for name, stamp in _stamps(store.runs):
        try:
            current[name] = _entry(store, name, stamp, known)
        except StoreError:  # a damaged run is no matter of other studies
            if asked is None or name in asked:
                raise
    if current != known:
        data = json.dumps({"version": [VERSION, SCHEMA], "runs": current}).encode()
        data = _sum(data) + b"\n" + data
        with contextlib.suppress(OSError):  # a store that may only be read has no index
            write_bytes(path, data)
    wanted = sorted(current if asked is None else current.keys() & asked)
    found = (current[name][2] for name in wanted)
    return [Record(**values) for values in found if values is not None]


def _known(path: Path) -> dict[str, Entry]:
    """The entries as they were written; none of an index that is damaged, edited or older."""
    with contextlib.suppress(OSError):
        digest, _, data = path.read_bytes().partition(b"\n")
        if digest == _sum(data):
            values = json.loads(data)
            runs: dict[str, Entry] = values["runs"]
            return runs if values["version"] == [VERSION, SCHEMA] else {}
    return {}


def _sum(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _stamps(runs: Path) -> list[tuple[str, tuple[int, int]]]:
    """Run ids that have a result, with the time and size of record.json."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(runs) as folders:
        for folder in folders:
            with contextlib.suppress(OSError):
                stat = os.stat(os.path.join(folder.path, "record.json"))
                found.append((folder.name, (stat.st_mtime_ns, stat.st_size)))
    return found


def _entry(store: Store, name: str, stamp: tuple[int, int], known: dict[str, Entry]) -> Entry:
    entry = known.get(name)
    if entry is not None and entry[:2] == [*stamp]:
        return entry
    record = load_record(RunFolder(store.runs / name))
    return [*stamp, None if record is None else asdict(record)]
