"""What was in production, when and why: an append-only, hash-chained list of champions.

One object per entry, created only if its number is free, so that two writers can never both be the
next. Each entry carries the hash of the one before it; changing or removing one breaks every later
hash, and ``head.json`` remembers how far the ledger reached, so that the last one cannot go either.

The entry is the move: who makes it says after which entry, and loses to whoever made another one
meanwhile. Aliases follow the ledger, and a mark beside each entry says that they have. An intent
per entry makes it happen once: whoever finds it looks for its entry from there on, not from the
beginning.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

from pydantic import AwareDatetime, Field

from include.retraining import shelf
from include.retraining.errors import DamagedRecord, LedgerError
from include.retraining.records import Record
from include.retraining.storage import Storage, at_once, json_bytes

GENESIS = "0" * 64
MAX_ATTEMPTS = 200


Action = Literal["promotion", "rollback", "by_hand"]
Mark = Literal["followed", "done"]


class Entry(Record):
    """One change of the champion."""

    sequence: int
    model: str
    action: Action
    version: int
    previous_version: int | None
    incident_id: str
    partition: str
    reason: str
    actor: str
    at: AwareDatetime
    previous_hash: str
    hash: str = ""
    version_incident: str | None = Field(
        default=None,
        description="the incident that made the version, by its tag; None: an entry from before "
        "this was kept",
    )
    version_sha256: str | None = Field(default=None, description="of its artifact, by its tag")

    def digest(self) -> str:
        """Give the SHA-256 of everything but the hash itself."""
        content = self.model_dump(mode="json", exclude={"hash"})
        for name in ("version_incident", "version_sha256"):
            if content[name] is None:  # older entries were hashed without them
                del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def made_by(self) -> str | None:
        """The incident that made the version; None: the entry does not know."""
        if self.version_incident is None and self.action == "promotion":
            return self.incident_id
        return self.version_incident

    def is_about_same(self, other: Entry) -> bool:
        """Are both about one version, as far as they know? A number alone comes back."""
        return all(
            None in {mine, theirs} or mine == theirs
            for mine, theirs in (
                (self.version, other.version),
                (self.made_by, other.made_by),
                (self.version_sha256, other.version_sha256),
            )
        )


class Intent(Record):
    """That an entry is about to be made, or was: its number, once it has one."""

    version: int
    after: int = Field(description="number of the last entry when it was kept")
    sequence: int | None = None


class Head(Record):
    """How far the ledger reached at least."""

    sequence: int


def intend(storage: Storage, draft: Entry) -> Intent:
    """Say that an entry is about to be made; the same entry has one intent, the first one."""
    after = last(storage, draft.model)
    made = Intent(version=draft.version, after=after.sequence if after else 0)
    key = shelf.ledger_intent_key(draft.model, draft.incident_id, draft.action)
    if not storage.create(key, json_bytes(made)):
        made = Intent.model_validate_json(storage.read(key))
    return made


def intended(storage: Storage, model: str, incident_id: str, action: Action) -> Intent | None:
    """Give the intent of an incident's action, or None."""
    return storage.read_record(shelf.ledger_intent_key(model, incident_id, action), Intent)


def made(storage: Storage, model: str, incident_id: str, action: Action) -> Entry | None:
    """Give the entry that an incident's action made, or None."""
    found = intended(storage, model, incident_id, action)
    if found is None:
        return None
    if found.sequence is not None:
        return numbered(storage, model, found.sequence)
    return next(
        (
            entry
            for entry in _walk(storage, model, found.after + 1)
            if (entry.incident_id, entry.action) == (incident_id, action)
        ),
        None,
    )


def append(storage: Storage, draft: Entry, *, after: int | None = None) -> Entry | None:
    """Add an entry, once: the one that an incident's action made before is returned as it is.

    `sequence`, `previous_hash` and `hash` of the draft are filled in here. Takes a few requests,
    however long the ledger is.

    Parameters
    ----------
    after : int, optional
        The number of the entry it has to follow, 0 for none; None is given back where another one
        does. By default it follows whichever is last.

    Raises
    ------
    LedgerError
        The last entry is gone, or other writers were always first.
    """
    mine = intend(storage, draft)
    if mine.sequence is not None and (entry := numbered(storage, draft.model, mine.sequence)):
        return entry
    if after is not None and mine.after > after:
        return None
    previous = _require(storage, draft.model, mine.after) if mine.after else None
    lost = 0
    while lost < MAX_ATTEMPTS:
        number = previous.sequence + 1 if previous else 1
        there = numbered(storage, draft.model, number)
        if there is None:
            entry = draft.model_copy(
                update={
                    "sequence": number,
                    "previous_hash": previous.hash if previous else GENESIS,
                }
            )
            entry = entry.model_copy(update={"hash": entry.digest()})
            if not storage.create(shelf.ledger_entry_key(draft.model, number), json_bytes(entry)):
                time.sleep(0.01 * min(lost, 20))
                lost += 1
                continue
            there = entry
        if (there.incident_id, there.action) == (draft.incident_id, draft.action):
            _settle(storage, there)
            return there
        if after is not None and number > after:
            return None
        previous = there
    raise LedgerError(
        f"{draft.model}: {MAX_ATTEMPTS} attempts to append to the ledger lost to other writers; "
        "run again"
    )


def _settle(storage: Storage, entry: Entry) -> None:
    """Note where an entry is, for those who come next; each note only saves them a walk."""
    key = shelf.ledger_intent_key(entry.model, entry.incident_id, entry.action)
    found = Intent.model_validate_json(storage.read(key))
    storage.write_json(key, found.model_copy(update={"sequence": entry.sequence}))
    head = storage.read_record(shelf.ledger_head_key(entry.model), Head)
    if head is None or head.sequence < entry.sequence:
        storage.write_json(shelf.ledger_head_key(entry.model), Head(sequence=entry.sequence))


def is_marked(storage: Storage, entry: Entry, mark: Mark) -> bool:
    """Have the aliases followed this entry; or is its maker done with them?"""
    return storage.exists(shelf.ledger_mark_key(entry.model, entry.sequence, mark))


def mark(storage: Storage, entry: Entry, mark: Mark) -> None:
    """Say that the aliases are as an entry has them, or as a later one has.

    Whoever has moved them says that they `followed`; only the entry's maker, that it is `done`.
    """
    storage.create(shelf.ledger_mark_key(entry.model, entry.sequence, mark), b"{}\n")


def last(storage: Storage, model: str) -> Entry | None:
    """Give the newest entry, or None; LedgerError if one that was there is gone."""
    head = storage.read_record(shelf.ledger_head_key(model), Head)
    if head is None:
        entries = read(storage, model)
        return entries[-1] if entries else None
    found = _require(storage, model, head.sequence)
    for found in _walk(storage, model, head.sequence + 1):  # noqa: B007 - the last one
        pass
    return found


def _walk(storage: Storage, model: str, number: int) -> Iterator[Entry]:
    while entry := numbered(storage, model, number):
        yield entry
        number += 1


def _require(storage: Storage, model: str, number: int) -> Entry:
    found = numbered(storage, model, number)
    if found is None:
        raise LedgerError(
            f"{model}: ledger entry {number} was there and is gone; restore "
            f"{shelf.ledger_entry_key(model, number)} from a backup of the storage"
        )
    return found


def numbered(storage: Storage, model: str, number: int) -> Entry | None:
    """Give the entry of a number, or None; LedgerError if it is damaged."""
    try:
        return storage.read_record(shelf.ledger_entry_key(model, number), Entry)
    except DamagedRecord as error:
        raise LedgerError(
            f"{model}: ledger entry {number} is damaged; restore "
            f"{shelf.ledger_entry_key(model, number)} from a backup of the storage"
        ) from error


def _numbers(storage: Storage, model: str) -> list[int]:
    keys = filter(shelf.is_ledger_entry, storage.list(shelf.ledger_folder(model)))
    return [shelf.number_of(key) for key in keys]


def count(storage: Storage, model: str) -> int:
    """Give how many entries there are, damaged ones among them."""
    return len(_numbers(storage, model))


def read(storage: Storage, model: str) -> list[Entry]:
    """Give all entries, oldest first; LedgerError if one is damaged."""
    found = at_once(partial(numbered, storage, model), _numbers(storage, model))
    return [entry for entry in found if entry is not None]


def sound(storage: Storage, model: str) -> list[Entry]:
    """Give all entries that can be read, oldest first."""
    found: list[Entry] = []
    for number in _numbers(storage, model):
        with contextlib.suppress(LedgerError):
            found += filter(None, [numbered(storage, model, number)])
    return found


def verify(storage: Storage, model: str, entries: Sequence[Entry] | None = None) -> list[str]:
    """Give what is wrong with the chain; an empty list means it is intact.

    Who has read the `entries` hands them in; they are read once.
    """
    problems = []
    previous, last_number = GENESIS, 0
    if entries is None:
        entries = []
        for number in _numbers(storage, model):
            try:
                entries += filter(None, [numbered(storage, model, number)])
            except LedgerError as error:
                problems.append(str(error))
    for number, entry in enumerate(entries, start=1):
        if entry.sequence != number:
            problems.append(
                f"entry {number} is missing: found number {entry.sequence} in its place"
            )
        if entry.previous_hash != previous:
            problems.append(f"entry {entry.sequence} does not follow the one before it")
        if entry.hash != entry.digest():
            problems.append(f"entry {entry.sequence} was changed after it was written")
        previous = entry.hash
        last_number = entry.sequence
    head = storage.read_record(shelf.ledger_head_key(model), Head)
    if head is not None and head.sequence > last_number:
        problems.append(f"entry {head.sequence} was the last one and is missing")
    return problems


def reign(entries: list[Entry], at: dt.datetime | None = None) -> list[Entry]:
    """Give the line of champions still standing at a moment, the current one last.

    A promotion, or a hand in MLflow, adds a champion to the line; a rollback removes all after the
    one it returns to. A rollback to a version that an earlier one removed adds it again.

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
            places = [place for place, one in enumerate(line) if one.is_about_same(entry)]
            line = line[: places[0]] if places else line
        line.append(entry)
    return line
