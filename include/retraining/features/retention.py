"""Makes a `Sweep`: removes what retention no longer keeps of a model, and nothing pinned."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator

from include.retraining import shelf
from include.retraining.data.publication import BATCH, batches_of
from include.retraining.data.tables import Table
from include.retraining.features.definitions import table_names
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


def sweep(spec: ModelSpec, storage: Storage, batch: BatchRef, *, pinned: Collection[int]) -> Sweep:
    """Remove batches that are too old, and data files that nothing in force needs.

    Old is told by the end of the batch at hand, not by the clock. Safe to run twice.

    Parameters
    ----------
    pinned : collection of int
        Versions of the table of joined rows that registered models learned from: they stay
        readable.
    """
    tables = dict(_tables(spec, storage))
    old = _old(spec, tables[shelf.table_key(spec.model, "rows", BATCH)], batch)
    removed = 0
    for key, table in tables.items():
        table.drop(old)
        kept = pinned if key == shelf.joined_key(spec.model) else ()
        age = dt.timedelta(days=spec.retention.superseded_days)
        removed += len(table.vacuum(keep_versions=kept, older_than=age))
    for partition in old:
        for folder in shelf.partition_folders(spec.model, partition):
            for key in storage.list(folder):
                storage.delete(key)
    return Sweep(batch=batch, partitions=tuple(old), files=removed)


def _old(spec: ModelSpec, rows: Table, batch: BatchRef) -> list[str]:
    """Give the partitions in force that ended too long before the batch at hand."""
    if spec.retention.days is None:
        return []
    limit = batch.end - dt.timedelta(days=spec.retention.days)
    return [
        one.partition for one in batches_of(spec, rows.snapshot(), until=limit) if one.end <= limit
    ]


def _tables(spec: ModelSpec, storage: Storage) -> Iterator[tuple[str, Table]]:
    inputs = (BATCH, *spec.source.companions)
    keys = [
        *(shelf.table_key(spec.model, "rows", name) for name in inputs),
        *(shelf.table_key(spec.model, "quarantine", name) for name in inputs),
        *(shelf.table_key(spec.model, "features", name) for name in table_names(spec)),
        shelf.joined_key(spec.model),
    ]
    for key in keys:
        yield key, Table(storage, key)
