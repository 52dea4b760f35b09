"""What was in production, when and why: an append-only, hash-chained list of champions.

One object per entry, created only if its number is free, so that two writers can never both be the
next. Each entry carries the hash of the one before it; changing or removing one breaks every later
hash.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from collections.abc import Iterable
from typing import Literal

from pydantic import AwareDatetime

from include.retraining.errors import LedgerError
from include.retraining.names import storage_key
from include.retraining.records import Record
from include.retraining.storage import Storage, json_bytes

GENESIS = "0" * 64
MAX_ATTEMPTS = 200


class Entry(Record):
    """One change of the champion."""

    sequence: int
    model: str
    action: Literal["promotion", "rollback"]
    version: int
    previous_version: int | None
    incident_id: str
    partition: str
    reason: str
    actor: str
    at: AwareDatetime
    previous_hash: str
    hash: str = ""

    def digest(self) -> str:
        """Give the SHA-256 of everything but the hash itself."""
        content = self.model_dump(mode="json", exclude={"hash"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def find(entries: Iterable[Entry], incident_id: str, action: str) -> Entry | None:
    """Give the entry that an incident's action made, or None."""
    return next((e for e in entries if (e.incident_id, e.action) == (incident_id, action)), None)


def append(storage: Storage, draft: Entry) -> Entry:
    """Add an entry, once: one with the same incident, action and version is returned as it is.

    `sequence`, `previous_hash` and `hash` of the draft are filled in here.
    """
    for attempt in range(MAX_ATTEMPTS):
        entries = read(storage, draft.model)
        for entry in entries:
            same = (entry.incident_id, entry.action, entry.version)
            if same == (draft.incident_id, draft.action, draft.version):
                return entry
        entry = draft.model_copy(
            update={
                "sequence": len(entries) + 1,
                "previous_hash": entries[-1].hash if entries else GENESIS,
            }
        )
        entry = entry.model_copy(update={"hash": entry.digest()})
        if storage.create(_key(draft.model, entry.sequence), json_bytes(entry)):
            return entry
        time.sleep(0.01 * min(attempt, 20))
    raise LedgerError(
        f"{draft.model}: {MAX_ATTEMPTS} attempts to append to the ledger lost to other writers; "
        "run again"
    )


def read(storage: Storage, model: str) -> list[Entry]:
    """Give all entries, oldest first."""
    keys = storage.list(storage_key(model, "ledger"))
    return [Entry.model_validate_json(storage.read(key)) for key in keys if key.endswith(".json")]


def verify(storage: Storage, model: str) -> list[str]:
    """Give what is wrong with the chain; an empty list means it is intact."""
    problems = []
    previous = GENESIS
    for number, entry in enumerate(read(storage, model), start=1):
        if entry.sequence != number:
            problems.append(
                f"entry {number} is missing: found number {entry.sequence} in its place"
            )
        if entry.previous_hash != previous:
            problems.append(f"entry {entry.sequence} does not follow the one before it")
        if entry.hash != entry.digest():
            problems.append(f"entry {entry.sequence} was changed after it was written")
        previous = entry.hash
    return problems


def reign(entries: list[Entry], at: dt.datetime | None = None) -> list[Entry]:
    """Give the line of champions still standing at a moment, the current one last.

    A promotion adds a champion to the line; a rollback removes all after the one it returns to. A
    rollback to a version that an earlier one removed adds it again.

    Parameters
    ----------
    entries : list of Entry
        The whole ledger, oldest first.
    at : datetime, optional
        The moment; now by default.
    """
    line: list[Entry] = []
    for entry in entries:
        if at is not None and entry.at > at:
            break
        if entry.action == "rollback":
            versions = [earlier.version for earlier in line]
            if entry.version in versions:
                line = line[: versions.index(entry.version)]
        line.append(entry)
    return line


def _key(model: str, sequence: int) -> str:
    return f"{storage_key(model, 'ledger')}/{sequence:06d}.json"
