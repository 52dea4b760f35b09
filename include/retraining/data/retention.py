"""Makes a `Sweep`: removes what retention no longer keeps of a model, and nothing pinned.

What is old is told by the end of the batch at hand, never by the clock. Rows and feature tables
stay as long as a batch that is kept sees them through its features; so none of those comes to be
joined again from less than it was joined from.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator

from include.retraining import shelf
from include.retraining.data.publication import BATCH
from include.retraining.data.tables import Table
from include.retraining.records import BatchRef, Sweep, TrainingSet
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

LEFTOVER_AGE = dt.timedelta(days=1)
DAY, WEEK = dt.timedelta(days=1), dt.timedelta(weeks=1)


def is_due(spec: ModelSpec, storage: Storage, batch: BatchRef) -> bool:
    """Is the last sweep a day old in data time, for batches of hours, or else a week?

    A sweep looks at all files of a table; once for each batch it would cost more than the batch.
    It hangs on no hour and no weekday, which a feed may not have.
    """
    last = shelf.find_sweep(storage, spec.model)
    age = DAY if spec.partitions.length < DAY else WEEK
    return last is None or batch.end - last.batch.end >= age


def sweep(
    spec: ModelSpec,
    storage: Storage,
    batch: BatchRef,
    *,
    feature_tables: Collection[str],
    reach: dt.timedelta | None,
    pinned: Collection[TrainingSet],
    forget: Callable[[Collection[str]], None],
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
    pinned : collection of TrainingSet
        What registered models learned from: the versions of tables that these name stay readable.
    forget : callable
        Is given the partitions whose records are about to go, to remove what else was kept of them.
    """
    old, seen = _limits(spec, batch, reach)
    age = dt.timedelta(days=spec.retention.superseded_days)
    files, gone = 0, set[str]()
    for key, is_seen in _tables(spec, feature_tables):
        table, last = Table(storage, key), seen if is_seen else old
        if last is not None:
            names = _up_to(table.snapshot().parts.names(), last)
            table.drop(names)
            gone |= set(names)
        is_joined = key == shelf.joined_key(spec.model)
        kept = {one.table_version for one in pinned} if is_joined else ()
        files += len(table.vacuum(keep_versions=kept, older_than=age))
    if old is not None:
        told = _up_to(shelf.partitions_told_of(storage, spec.model), old)
        forget(told)
        _remove_records(spec.model, storage, told)
        gone |= set(told)
    outcomes, removed = _sweep_outcomes(spec, storage, batch, pinned)
    files += removed + storage.remove_leftovers(spec.model, older_than=LEFTOVER_AGE)
    done = Sweep(
        batch=batch, partitions=tuple(sorted(gone)), outcomes=tuple(sorted(outcomes)), files=files
    )
    shelf.keep_sweep(storage, done)
    return done


def _remove_records(model: str, storage: Storage, partitions: Collection[str]) -> None:
    for name in partitions:
        for folder in shelf.partition_folders(model, name):
            for key in storage.list(folder):
                storage.delete(key)


def _sweep_outcomes(
    spec: ModelSpec, storage: Storage, batch: BatchRef, pinned: Collection[TrainingSet]
) -> tuple[set[str], int]:
    """Sweep the feed of outcomes, if there is one; give its partitions that went, and the files.

    An outcome counts only from its row's event on, and is known by the end of its partition. So a
    partition that ended before the first row that is kept says nothing of any kept row. It stays
    for `label.maturity_days` more, to be on the safe side. Training sets name the version that they
    read, and it stays readable.
    """
    feed, files, gone = spec.outcomes, 0, set[str]()
    if feed is None:
        return gone, files
    last, until = None, 0
    if spec.retention.days is not None:
        kept = dt.timedelta(days=spec.retention.days + spec.label.maturity_days)
        start = batch.end - kept - spec.partitions.length - feed.partitions.length
        if start >= feed.partitions.first:
            start = feed.partitions.start_of(start)
            last = feed.partition_key(start)
            until = int(feed.partitions.step(start).timestamp())
    age = dt.timedelta(days=spec.retention.superseded_days)
    versions = {one.outcomes_version for one in pinned if one.outcomes_version is not None}
    kept_of: dict[shelf.TableKind, set[int]] = {"quarantine": set(), "rows": versions}
    for kind, keep_versions in kept_of.items():
        table = Table(storage, shelf.table_key(feed.model, kind, BATCH))
        if last is not None:
            names = _up_to(table.snapshot().parts.names(), last)
            table.drop(names, until=until)
            gone |= set(names)
        files += len(table.vacuum(keep_versions=keep_versions, older_than=age))
    if last is not None:
        told = _up_to(shelf.partitions_told_of(storage, feed.model), last)
        _remove_records(feed.model, storage, told)
        gone |= set(told)
    return gone, files


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
