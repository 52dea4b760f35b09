"""Makes a `FeatureSet`: a batch's rows with the features that each could see, in one table.

Which rows and feature tables are in force follows from the tables of the inputs alone; the digest
of a feature set says which it was joined from, so that one that others have changed since is joined
again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import time
from collections.abc import Iterator, Sequence

import pyarrow as pa

from include.retraining import shelf
from include.retraining.data.publication import BATCH, not_published, publish_batch
from include.retraining.data.tables import Snapshot, Table, as_known
from include.retraining.errors import NotPublished, Superseded, Unavailable
from include.retraining.features import definitions
from include.retraining.features.feature_tables import InForce, look, make_tables, window_of
from include.retraining.features.join import join
from include.retraining.features.online import note_online, write_online
from include.retraining.records import BatchRef, FeatureSet, ValidationReport
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, sha256

TRIES = 20  # of a join whose inputs change meanwhile


def materialize(spec: ModelSpec, settings: Settings, batch: BatchRef) -> FeatureSet:
    """Make a published batch's feature tables, keep their join with its rows, load them online.

    Safe to run twice: values are overwritten with the same values. If other batches come in force
    meanwhile whose feature rows this one sees, or that are newer, it is done again.

    Raises
    ------
    NotPublished
        The batch is not in force.
    """
    storage = Storage.of(settings)
    definitions.apply_definitions(spec, settings)
    there = look(spec, storage)
    for pause in _pauses():
        # the tables of a batch look back into the one before it, so those of the next one, too
        following = filter(None, [there.at(batch.end)])
        make_tables(spec, storage, there, [*window(spec, there, batch), *following])
        found = _join_batch(spec, settings, batch, there)
        # an older batch that is delivered again must not set the online values back, so what came
        # after it is written once more; a neighbour may have been faster, so it looks again
        _write_online(spec, settings, batch, there)
        now = look(spec, storage)
        is_same = _digest(spec, now, batch) == _digest(spec, there, batch)
        if found is not None and is_same and now.end <= there.end:
            if not spec.features.is_inline:
                note_online(storage, spec.model, there.end)
            shelf.keep(storage, found)
            return found
        time.sleep(pause)
        there = now
    raise _restless(spec, batch)


def _write_online(spec: ModelSpec, settings: Settings, batch: BatchRef, there: InForce) -> None:
    """Load what a batch and those after it added; of inline features there is nothing to serve."""
    if spec.features.is_inline:
        return
    store = definitions.feature_store(settings)
    write_online(store, definitions.stored_views(spec), batch.start, there.end)


def publish_and_join(
    spec: ModelSpec, settings: Settings, report: ValidationReport
) -> list[FeatureSet]:
    """Put an accepted batch into force and join it, and the later ones that see what it changed.

    Safe to run again wherever it was killed. Of several tasks this is what they do one by one.

    Returns
    -------
    list of FeatureSet
        Of the batch, then of later ones; empty if all was done before.
    """
    storage, batch = Storage.of(settings), report.batch
    is_new = publish_batch(spec, storage, report)
    if not is_new and is_current(spec, storage, batch):
        return []
    return [materialize(spec, settings, batch), *refresh_later(spec, settings, batch)]


def refresh_later(spec: ModelSpec, settings: Settings, batch: BatchRef) -> list[FeatureSet]:
    """Join those later batches again whose rows see features that this batch has changed.

    A batch may come late, or be corrected, after later ones have been joined. This is for right
    after `materialize`: who publishes or joins a later batch since then sees the features of this
    one by itself.
    """
    with as_known():
        stale = stale_batches(
            spec, Storage.of(settings), since=batch.end, until=_seen_until(spec, batch)
        )
    return [join_anew(spec, settings, one) for one in stale]


def stale_batches(
    spec: ModelSpec,
    storage: Storage,
    *,
    since: dt.datetime,
    until: dt.datetime | None = None,
    with_missing: bool = False,
) -> list[BatchRef]:
    """Give the batches that start in ``[since, until)`` and whose feature sets are out of date.

    Parameters
    ----------
    with_missing : bool
        Count those that have no feature set yet as well.
    """
    there = look(spec, storage)
    inside = there.batches(since=since, until=until)
    if not inside:
        return []
    joined, found = joined_rows(spec, storage), []
    for one in inside:
        part = joined.parts.get(one.partition)
        is_stale = part is not None and part.content != _digest(spec, there, one)
        if is_stale or (with_missing and part is None):
            found.append(one)
    return found


def join_anew(spec: ModelSpec, settings: Settings, batch: BatchRef) -> FeatureSet:
    """Join a batch again, with the feature tables that it sees made as they have to be."""
    storage = Storage.of(settings)
    there = look(spec, storage)
    for pause in _pauses():
        make_tables(spec, storage, there, window(spec, there, batch))
        found = _join_batch(spec, settings, batch, there)
        now = look(spec, storage)
        if found is not None and _digest(spec, now, batch) == _digest(spec, there, batch):
            shelf.keep(storage, found)
            return found
        time.sleep(pause)
        there = now
    raise _restless(spec, batch)


def _pauses() -> Iterator[float]:
    """Give the seconds before each further try: others publish meanwhile, or join it, too."""
    for attempt in range(TRIES):
        yield random.uniform(0, min(0.05 * 2**attempt, 20))  # noqa: S311 - no secret


def _restless(spec: ModelSpec, batch: BatchRef) -> Unavailable:
    return Unavailable(
        f"{spec.model} {batch.partition}: what it is joined from changed under each of {TRIES} "
        "tries, or its table holds a join of newer data than there is; try again. If nothing is "
        "being published, a table of rows was restored to an older version: publish a batch again"
    )


def is_current(spec: ModelSpec, storage: Storage, batch: BatchRef) -> bool:
    """Is the feature set of a batch, and that of every later one, of the data in force?"""
    found = feature_set_or_none(spec, storage, batch)
    if found is None or found.sha256 != _digest(spec, look(spec, storage), batch):
        return False
    return not stale_batches(spec, storage, since=batch.end, until=_seen_until(spec, batch))


def _join_batch(
    spec: ModelSpec, settings: Settings, batch: BatchRef, there: InForce
) -> FeatureSet | None:
    """Join a batch with the feature tables; None if somebody has joined what is newer."""
    digest = _digest(spec, there, batch)
    with as_known():  # as they were made; who replaced one since is seen by the next look
        joined = join(spec, settings, there.read(BATCH, batch))
    table = _table(spec, Storage.of(settings))
    try:
        done = table.replace(batch.partition, joined, content=digest, order=there.order)
    except Superseded:
        return None
    return FeatureSet(
        batch=batch,
        service=spec.features.service or "",
        rows=joined.num_rows,
        table_version=done.version,
        file=f"{table.key}/{done.part.files[0].removeprefix(table.data_path(''))}",
        seen_from=_seen_from(spec, batch),
        sha256=digest,
    )


def window(spec: ModelSpec, there: InForce, batch: BatchRef) -> list[BatchRef]:
    """Give the batches whose feature rows the rows of one can see; raises NotPublished."""
    if batch.partition not in there.inputs[BATCH].parts:
        raise not_published(spec, batch.partition)
    if spec.features.is_inline:
        return [batch]
    return window_of(there, batch, _seen_from(spec, batch))


def _seen_from(spec: ModelSpec, batch: BatchRef) -> dt.datetime | None:
    """Give the moment before which no row of a batch sees feature rows; None: it sees all."""
    life = _life(spec)
    return None if life is None else batch.start - life


def reach(spec: ModelSpec) -> dt.timedelta | None:
    """Give how long before a batch the data of others reaches into it; None: without end.

    Through its features it sees those that live until it begins, and each of these was made with
    the one right before it.
    """
    if spec.features.is_inline:
        return dt.timedelta(0)
    life = _life(spec)
    return None if life is None else life + 2 * spec.partitions.length


def _seen_until(spec: ModelSpec, batch: BatchRef) -> dt.datetime | None:
    """Give the moment from which on no batch sees what follows from one; None: all later ones do.

    What follows from it are its own feature tables and those of the batch right after it.
    """
    if spec.features.is_inline:
        return batch.end
    life, length = _life(spec), batch.end - batch.start
    return None if life is None else batch.end + length + life + dt.timedelta(microseconds=1)


def _life(spec: ModelSpec) -> dt.timedelta | None:
    """Give how long a feature row is seen at the most; None: for ever."""
    lives = [view.ttl for view in definitions.stored_views(spec)]
    return max(lives, default=dt.timedelta(0)) if all(lives) else None


def _digest(spec: ModelSpec, there: InForce, batch: BatchRef) -> str:
    """Give one digest of a batch's rows and of all feature tables that they can see."""
    seen = [there.made_of(one) for one in window(spec, there, batch)]
    parts = (definitions.digest(spec), batch.partition, there.made_of(batch), *seen)
    return sha256(*(part.encode() for part in parts))


def feature_set(spec: ModelSpec, storage: Storage, batch: BatchRef) -> FeatureSet:
    """Give the feature set of a partition; raises NotPublished."""
    found = feature_set_or_none(spec, storage, batch)
    if found is None:
        raise NotPublished(
            f"{spec.model} {batch.partition}: no features; run {spec.model}__ingest for it"
        )
    return found


def feature_set_or_none(spec: ModelSpec, storage: Storage, batch: BatchRef) -> FeatureSet | None:
    """Give the feature set of a partition, or None while it has none."""
    return shelf.find(storage, FeatureSet, spec.model, batch.partition)


def rows_of(
    spec: ModelSpec, storage: Storage, found: FeatureSet, columns: Sequence[str] | None = None
) -> pa.Table:
    """Give the rows of a feature set with their features, as they were when it was made.

    Its data file is read, without opening the table; where it is gone, a kept version may have it.
    """
    with contextlib.suppress(FileNotFoundError):
        rows = storage.read_table(found.file, columns)
        if columns is None or set(columns) <= set(rows.column_names):
            return rows if columns is None else rows.select(list(columns))
    table = _table(spec, storage)
    now = table.snapshot()
    part = now.parts.get(found.batch.partition)
    if part is None or part.content != found.sha256:
        now = table.snapshot(found.table_version)
    return now.read([found.batch.partition], columns)


def joined_rows(spec: ModelSpec, storage: Storage, version: int | None = None) -> Snapshot:
    """Give the table of all batches' rows with their features, now or in a version."""
    return _table(spec, storage).snapshot(version)


def _table(spec: ModelSpec, storage: Storage) -> Table:
    return Table(storage, shelf.joined_key(spec.model))
