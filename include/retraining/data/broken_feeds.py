"""Which batches are left out of training because their feed broke, and what people said of it.

A batch is kept here as long as it is broken: a corrected delivery takes it away, and so does a
person who says that it is right. Nothing is listed but what is open.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from include.retraining import shelf
from include.retraining.errors import DataError
from include.retraining.names import dag_id
from include.retraining.records import BatchRef, Break, BrokenFeed, FeedAcceptance
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, at_once


def left_out(storage: Storage, model: str) -> tuple[str, ...]:
    """Give the partitions whose rows are in no training set and no duel, oldest first."""
    return shelf.broken_partitions(storage, model)


def what_to_do(model: str, partition: str) -> str:
    """Say what a person can do about a batch whose feed broke."""
    return (
        f"Deliver a corrected file to {dag_id(model, 'ingest')}; or, if the values are right, say "
        f"so on the page Models, in the form of {dag_id(model, 'monitor')}, or with python -m "
        f"include.retraining feed accept {model} {partition} --column NAME --reason WHY"
    )


def all_open(storage: Storage, model: str) -> list[BrokenFeed]:
    """Give what is known of each of them, oldest first."""
    found = at_once(
        lambda name: storage.read_record(shelf.broken_key(model, name), BrokenFeed),
        left_out(storage, model),
    )
    return [one for one in found if one is not None]


def leave_out(
    storage: Storage, batch: BatchRef, content_sha256: str, columns: Mapping[str, Break]
) -> None:
    """Leave the rows of a batch out of training from now on."""
    found = BrokenFeed(batch=batch, content_sha256=content_sha256, columns=dict(columns))
    storage.write_json(shelf.broken_key(batch.model, batch.partition), found)


def take_back(storage: Storage, batch: BatchRef) -> None:
    """Let the rows of a batch train again."""
    key = shelf.broken_key(batch.model, batch.partition)
    if storage.exists(key):
        storage.delete(key)


def withdraw(spec: ModelSpec, storage: Storage, *, partition: str, column: str) -> None:
    """Take back what was said of a column from a partition on; the next batches are judged without.

    Raises
    ------
    DataError
        Nothing was said of it.
    """
    said = _said_of(spec, storage, partition, column)
    if not said:
        known = "; ".join(f"{one.column} from {one.since} on" for one in all_said(spec, storage))
        raise DataError(
            f"{spec.model} {partition}: nobody has said that {column!r} is right from there on; "
            f"what was said: {known or 'nothing'}"
        )
    for one in said:
        storage.delete(shelf.acceptance_key(one))


def _said_of(
    spec: ModelSpec, storage: Storage, partition: str, column: str
) -> list[FeedAcceptance]:
    found = all_said(spec, storage)
    return [one for one in found if (one.since, one.column) == (partition, column)]


def all_said(spec: ModelSpec, storage: Storage) -> list[FeedAcceptance]:
    """Give what people said, by the partitions that it counts from."""
    found = at_once(
        lambda key: storage.read_record(key, FeedAcceptance),
        storage.list(shelf.acceptance_folder(spec.model)),
    )
    return [one for one in found if one is not None]


def accepted(spec: ModelSpec, storage: Storage, batch: BatchRef) -> list[FeedAcceptance]:
    """Give what people said that counts for a batch."""
    found = all_said(spec, storage)
    return [one for one in found if spec.batch_ref(one.since).start <= batch.start]


def is_accepted(column: str, broken: Break, said: Sequence[FeedAcceptance]) -> bool:
    """Has a person said that this is right?"""
    about = (column, broken.kind, broken.identity)
    return any((one.column, one.kind, one.cause) == about for one in said)


def accept(
    spec: ModelSpec,
    storage: Storage,
    *,
    partition: str,
    column: str,
    reason: str,
    actor: str,
    at: dt.datetime,
) -> tuple[FeedAcceptance, list[str]]:
    """Say that a column is right from a partition on; give what was said, and the batches it frees.

    Raises
    ------
    DataError
        That column of that batch is not known as broken, or no reason is given.
    """
    open_ones = all_open(storage, spec.model)
    broken = {one.batch.partition: one for one in open_ones}
    found = broken[partition].columns.get(column) if partition in broken else None
    if not reason.strip():
        raise DataError("reason: must say why the values are right, got nothing")
    if found is None:
        if before := _said_of(spec, storage, partition, column):
            return before[0], []
        known = "; ".join(f"{name}: {', '.join(one.columns)}" for name, one in broken.items())
        raise DataError(
            f"{spec.model} {partition}: column {column!r} is not known as broken; "
            f"known are: {known or 'none'}"
        )
    said = FeedAcceptance(
        model=spec.model, column=column, kind=found.kind, cause=found.identity, since=partition,
        reason=reason, actor=actor, at=at,
    )  # fmt: skip
    storage.write_json(shelf.acceptance_key(said), said)
    freed = []
    for one in open_ones:
        told = accepted(spec, storage, one.batch)
        if all(is_accepted(name, broken, told) for name, broken in one.columns.items()):
            take_back(storage, one.batch)
            freed.append(one.batch.partition)
    return said, freed
