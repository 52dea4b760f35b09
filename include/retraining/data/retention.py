"""Makes a `Sweep`: removes what retention no longer keeps of a model, and nothing pinned.

What is old is told by the end of the batch at hand, never by the clock. Rows and feature tables
stay as long as a batch that is kept sees them through its features; so none of those comes to be
joined again from less than it was joined from.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator

from include.retraining import shelf
from include.retraining.data.publication import BATCH
from include.retraining.data.tables import Table
from include.retraining.records import BatchRef, Sweep
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage


def is_due(spec: ModelSpec, batch: BatchRef) -> bool:
    """Is a sweep due with this batch? Once a day of hours, once a week of days, with every week.

    A sweep looks at all files of a table; once for each batch it would cost more than the batch.
    """
    start = batch.start
    if spec.partitions.every == "hour":
        return start.hour == 0
    return spec.partitions.every == "week" or start.isoweekday() == 1


def sweep(
    spec: ModelSpec,
    storage: Storage,
    batch: BatchRef,
    *,
    feature_tables: Collection[str],
    reach: dt.timedelta | None,
    pinned: Collection[int],
) -> Sweep:
    """Remove batches that are too old, and data files that nothing in force needs.

    Each table, and each folder of records, is asked for what is old in it. So a sweep that was
    killed is finished by the next one.

    Parameters
    ----------
    feature_tables : collection of str
        Their names.
    reach : timedelta, optional
        How long before the oldest batch that is kept its features reach; rows and feature tables
        stay so much longer. None: without end, so those are never removed.
    pinned : collection of int
        Versions of the table of joined rows that registered models learned from: they stay
        readable.
    """
    old, seen = _limits(spec, batch, reach)
    files, gone = 0, set[str]()
    for key, is_seen in _tables(spec, feature_tables):
        table, last = Table(storage, key), seen if is_seen else old
        if last is not None:
            names = _up_to(table.snapshot().parts.names(), last)
            table.drop(names)
            gone |= set(names)
        kept = pinned if key == shelf.joined_key(spec.model) else ()
        age = dt.timedelta(days=spec.retention.superseded_days)
        files += len(table.vacuum(keep_versions=kept, older_than=age))
    if old is not None:
        for name in _up_to(shelf.partitions_told_of(storage, spec.model), old):
            for folder in shelf.partition_folders(spec.model, name):
                for key in storage.list(folder):
                    storage.delete(key)
            gone.add(name)
    return Sweep(batch=batch, partitions=tuple(sorted(gone)), files=files)


def _limits(
    spec: ModelSpec, batch: BatchRef, reach: dt.timedelta | None
) -> tuple[str | None, str | None]:
    """Give the last partition that is old, and the last one that no kept batch sees any more."""
    if spec.retention.days is None:
        return None, None
    limit = batch.end - dt.timedelta(days=spec.retention.days) - spec.partitions.length
    return (
        spec.partition_key(limit),
        None if reach is None else spec.partition_key(limit - reach),
    )


def _up_to(names: Collection[str], last: str) -> list[str]:
    # names are in the order of time, those of a grid from before the model file changed, too
    return sorted(name for name in names if name <= last)


def _tables(spec: ModelSpec, feature_tables: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Give each table, and whether later batches see its rows; what is in force goes last."""
    inputs = (BATCH, *spec.source.companions)
    yield shelf.joined_key(spec.model), False
    for name in inputs:
        yield shelf.table_key(spec.model, "quarantine", name), False
    for name in feature_tables:
        yield shelf.table_key(spec.model, "features", name), True
    for name in reversed(inputs):
        yield shelf.table_key(spec.model, "rows", name), True
