"""A second place for the head of the ledger: a tag of the registered model in MLflow.

Whoever can write to the storage can rewrite the whole chain so that it is sound in itself, or cut
its end. What MLflow remembers tells: number and hash of the last entry that the aliases followed.
A move never overwrites what contradicts the ledger. Whoever can write to both can rewrite both; the
third copy stands in the message of each move.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

from include.retraining.registry import ledger, server
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

log = logging.getLogger(__name__)

HEAD_TAG = "retraining.ledger_head"
SHOWN = 12  # digits of a hash in a message: nobody makes another entry with the same 48 bits
WAY_OUT = (
    "no move overwrites what MLflow remembers there: once it is explained, delete the tag "
    f"{HEAD_TAG} of the registered model, and the next move keeps a new head"
)
_HEAD = re.compile(r"([1-9]\d{0,8}):([0-9a-f]{8,64})")


class Head(NamedTuple):
    """The last entry of a ledger: its number, and its hash or the beginning of it."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"


class Verification(NamedTuple):
    """What is wrong with a ledger, and what could not be compared."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]


def head_of(text: str) -> Head | None:
    """Read ``NUMBER:HASH``, the hash cut to 8 digits or more; None if it is none."""
    found = _HEAD.fullmatch(text.strip().lower())
    return Head(int(found[1]), found[2]) if found else None


def anchor(spec: ModelSpec, settings: Settings, entry: ledger.Entry) -> None:
    """Remember an entry as the head, unless a later one is remembered.

    What the ledger contradicts is evidence, and stays until a person deletes the tag: else the next
    move would cover up what was done to the entries before it.
    """
    storage, last = Storage.of(settings), entry
    while True:
        text = server.model_tags(spec, settings).get(HEAD_TAG, "")
        found = head_of(text)
        if found is not None and found.sequence > last.sequence:
            return
        if text and (found is None or _contradicted(spec, storage, found)):
            log.error(
                "%s: MLflow remembers the head %s, which is not in the ledger: it stays, see "
                "`ledger verify`",
                spec.model,
                text[:80],
            )
            return
        server.set_model_tag(spec, settings, HEAD_TAG, str(Head(last.sequence, last.hash)))
        after = ledger.numbered(storage, spec.model, last.sequence + 1)
        if after is None:
            return
        last = after  # it came meanwhile, and its maker may have been quicker than this one


def _contradicted(spec: ModelSpec, storage: Storage, head: Head) -> bool:
    there = ledger.numbered(storage, spec.model, head.sequence)
    return there is None or not there.hash.startswith(head.hash)


def verify(
    spec: ModelSpec,
    settings: Settings,
    entries: Sequence[ledger.Entry] | None = None,
    *,
    told: Head | None = None,
) -> Verification:
    """Hold the chain against itself, against what MLflow remembers, and against a message.

    Parameters
    ----------
    entries : sequence of Entry, optional
        The whole ledger, of who has read it.
    told : Head, optional
        What a message said that the head was.
    """
    storage = Storage.of(settings)
    problems = ledger.verify(storage, spec.model, entries)
    notes = []
    there = {one.sequence: one for one in entries or ledger.sound(storage, spec.model)}
    if told is not None:
        problems += _differences(there, told, "the message says")
    try:
        text = server.model_tags(spec, settings).get(HEAD_TAG, "")
    except Exception as error:
        if not server.is_trouble(error):
            raise
        notes.append(f"not compared with MLflow, which does not answer: {error}")
        return Verification(tuple(problems), tuple(notes))
    remembered = head_of(text)
    last = max(there, default=0)
    if remembered is not None:
        if differences := _differences(there, remembered, "MLflow remembers"):
            problems += differences
            notes.append(WAY_OUT)
        if remembered.sequence < last:
            notes.append(
                f"MLflow remembers entry {remembered.sequence}, those after it could not be "
                f"compared; the next move, or {spec.model}__monitor where it was killed, mends that"
            )
    elif text:
        problems.append(f"the tag {HEAD_TAG} in MLflow is no head of a ledger: {text[:80]!r}")
        notes.append(WAY_OUT)
    elif last:
        notes.append(
            "not compared with MLflow, which remembers no head: the registered model is from "
            "before heads were kept there, or was deleted; the next move of the champion keeps one"
        )
    return Verification(tuple(problems), tuple(notes))


def _differences(there: dict[int, ledger.Entry], head: Head, who: str) -> list[str]:
    found, last, shown = there.get(head.sequence), max(there, default=0), head.hash[:SHOWN]
    if found is None and head.sequence > last:
        removed = f"the ledger ends with {last}: entries were removed"
        return [f"{who} entry {head.sequence} ({shown}), {removed}"]
    if found is None:
        return [f"{who} entry {head.sequence}, which is missing or damaged"]
    if not found.hash.startswith(head.hash):
        hashes = f"has hash {found.hash[:SHOWN]}, {who} {shown}"
        return [f"entry {head.sequence} {hashes}: the ledger was written anew"]
    return []
