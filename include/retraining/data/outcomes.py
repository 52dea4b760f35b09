"""Gives rows their outcomes, as they were known at a moment, from a feed of their own.

The feed is validated and published as a batch is, and its table keeps every outcome ever delivered,
with when it was known: nothing is overwritten. Which one counts follows from the data alone, never
from which file landed first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining import shelf
from include.retraining.data.delta_log import PARTITION
from include.retraining.data.publication import BATCH, batches_of, names_of, rows_in_force
from include.retraining.data.tables import Snapshot
from include.retraining.names import OWN, outcome_feed
from include.retraining.records import BatchRef
from include.retraining.spec import ModelSpec, OutcomeFeed
from include.retraining.storage import Storage

KNOWN = f"{OWN}known"
PLACE = f"{OWN}place"
TIME = f"{OWN}time"


class Outcomes(NamedTuple):
    """The table of a model's outcomes as it is in one version, and until when it has all of them.

    `until` is the end of the last partition before which none is missing.
    """

    feed: OutcomeFeed
    table: Snapshot
    until: dt.datetime


def outcomes_of(spec: ModelSpec, storage: Storage, version: int | None = None) -> Outcomes | None:
    """Give a model's outcomes; None where labels come with the rows.

    Parameters
    ----------
    version : int, optional
        Of the table; as it is now, unless given.
    """
    feed = spec.outcomes
    if feed is None:
        return None
    table = rows_in_force(feed, storage)
    if version is not None:
        table = table.table.snapshot(version)
    return Outcomes(feed, table, _complete_until(feed, table))


def _complete_until(feed: OutcomeFeed, table: Snapshot) -> dt.datetime:
    parts, first = feed.partitions, feed.partitions.first
    if table.dropped_until:  # what retention has removed is not missing
        removed = dt.datetime.fromtimestamp(table.dropped_until, dt.UTC)
        first = max(first, parts.step(first, -parts.count(removed, first)))
    names = table.parts.names(feed.partition_key(first))
    there, missing = 0, len(names)  # so many from the first on are there
    while there < missing:
        middle = (there + missing + 1) // 2
        if names[middle - 1] == feed.partition_key(parts.step(first, middle - 1)):
            there = middle
        else:
            missing = middle - 1
    return parts.step(first, there)


def without_label(spec: ModelSpec, storage: Storage, rows: Snapshot) -> list[str]:
    """Give the batches that brought no label, though it could change no more, oldest first.

    Only where there are outcomes of a feed that the model file has no more: they do not count.
    """
    folder = shelf.table_key(outcome_feed(spec.model), "rows", BATCH)
    if spec.outcomes is not None or not storage.has_any(folder):
        return []
    batches = batches_of(spec, rows)
    mature = batches[-1].end - dt.timedelta(days=spec.label.maturity_days) if batches else None
    return [
        one.partition
        for one in batches
        if mature and one.end <= mature and not rows.values_of(spec.label.column, [one.partition])
    ]


def complete_by(outcomes: Outcomes | None, moment: dt.datetime) -> dt.datetime:
    """Give the last moment up to one as of which all outcomes are known that were due.

    Labels count as of then: those that are there later may be of another sort than those missing.
    Where the feed does not say when an outcome was known, that is the end of a partition of it.
    """
    if outcomes is None:
        return moment
    parts = outcomes.feed.partitions
    if not outcomes.feed.source.event_time:
        moment = parts.start_of(moment)
    return min(outcomes.until, moment)


def is_settled(outcomes: Outcomes | None, batch: BatchRef) -> bool:
    """Are all outcomes there that were due by the end of a batch?"""
    return outcomes is None or outcomes.until >= batch.end


def missing_until(outcomes: Outcomes, moment: dt.datetime) -> list[str]:
    """Give the partitions of outcomes that are due by a moment and not there, oldest first."""
    feed, found = outcomes.feed, []
    start = outcomes.until
    while (end := feed.partitions.step(start)) <= moment:
        name = feed.partition_key(start)
        if name not in outcomes.table.parts:
            found.append(name)
        start = end
    return found


def with_outcomes(
    spec: ModelSpec,
    outcomes: Outcomes | None,
    rows: pa.Table,
    *,
    known_at: dt.datetime,
    delivered_by: dt.datetime | None = None,
) -> pa.Table:
    """Give rows the column of their label: the outcome of each that was known last.

    Parameters
    ----------
    outcomes : Outcomes, optional
        None: the rows have their labels already.
    rows : Table
        With the columns that `needed_for_labels` names.
    known_at : datetime
        Only what was known by then counts.
    delivered_by : datetime, optional
        Only what was delivered by then counts; `known_at`, unless given.

    Notes
    -----
    A row that is mature and has no outcome has `label.never`, if the model file says so. An outcome
    from before its row's event is none. Of several that were known at the same moment
    the one of the later partition counts: it corrects the other. A label that came with its row,
    before the model file had `label.source`, counts where the feed says nothing about that row.
    """
    if outcomes is None:
        return rows
    found = told_about(spec, outcomes, rows, delivered_by=delivered_by or known_at)
    found = found.filter(pc.less_equal(found.column(KNOWN), _stamp(known_at)))
    at = found.column(PLACE).to_numpy()
    order = np.lexsort((found.column(KNOWN).to_numpy(), at))  # stable: later partitions stay later
    at = at[order]
    is_last = np.append(at[1:] != at[:-1], np.ones(min(len(at), 1), bool))
    chosen = np.full(rows.num_rows, -1, dtype=np.int64)
    chosen[at[is_last]] = order[is_last]
    label = found.column(spec.label.column).take(pa.array(chosen, mask=chosen < 0))
    if spec.label.column in rows.column_names:
        label = _told_or_own(label, _plain(rows.column(spec.label.column)))
        rows = rows.drop_columns([spec.label.column])
    if spec.label.never is not None:
        label = _never(spec, rows, label, known_at=complete_by(outcomes, known_at))
    return rows.append_column(spec.label.column, label)


def needed_for_labels(spec: ModelSpec, outcomes: Outcomes | None, rows: Snapshot) -> list[str]:
    """Give the columns of a table of rows that their labels follow from."""
    label, time = spec.label.column, spec.source.event_time
    if outcomes is None:
        return [time, label]
    own = [label] if label in rows.schema.names else []  # of batches from before there was a feed
    return list(dict.fromkeys([time, *spec.source.key, *own]))


def _told_or_own(told: pa.ChunkedArray, own: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give what the feed says of each row; where it says nothing, the label the row came with."""
    told = _plain(told)
    if told.type != own.type:  # declared otherwise since
        has_text = {pa.string(), pa.large_string()} & {told.type, own.type}
        common = pa.string() if has_text else pa.float64()
        told, own = (one.cast(common, safe=False) for one in (told, own))
    return pc.coalesce(told, own)


def _never(
    spec: ModelSpec, rows: pa.Table, label: pa.ChunkedArray, *, known_at: dt.datetime
) -> pa.ChunkedArray:
    """Give `label.never` to rows that have no outcome though it would be known by now."""
    latest = _stamp(known_at - dt.timedelta(days=spec.label.maturity_days))
    is_mature = pc.less(_microseconds(rows.column(spec.source.event_time)), latest)
    value = pa.scalar(spec.label.never_as_told).cast(label.type)
    return pc.if_else(pc.and_(pc.is_null(label), is_mature), value, label)


def told_about(
    spec: ModelSpec, outcomes: Outcomes, rows: pa.Table, *, delivered_by: dt.datetime
) -> pa.Table:
    """Give every outcome that was told of some rows after their events, oldest partition first.

    Returns
    -------
    Table
        With the label's column, `PLACE`: which row it is about, and `KNOWN`: when it was known.
    """
    kind = _arrow_type_of_label(outcomes)
    nothing = pa.schema([(spec.label.column, kind), (PLACE, pa.int64()), (KNOWN, pa.int64())])
    if not rows.num_rows:
        return nothing.empty_table()
    times = _microseconds(rows.column(spec.source.event_time))
    found = delivered(outcomes, since=_moment(pc.min(times).as_py()), until=delivered_by)
    if not found.num_rows:
        return nothing.empty_table()
    ours = pa.table(
        {
            **{f"{OWN}key{n}": _plain(rows.column(c)) for n, c in enumerate(spec.source.key)},
            PLACE: pa.array(np.arange(rows.num_rows)),
            TIME: times,
        }
    )
    theirs = pa.table(
        {
            **{f"{OWN}key{n}": _plain(found.column(c)) for n, c in enumerate(_key(outcomes))},
            f"{OWN}at": pa.array(np.arange(found.num_rows)),
            KNOWN: found.column(KNOWN),
        }
    )
    names = [f"{OWN}key{n}" for n in range(len(spec.source.key))]
    both = theirs.join(ours, names, join_type="inner").select([f"{OWN}at", PLACE, TIME, KNOWN])
    both = both.filter(pc.greater_equal(both.column(KNOWN), both.column(TIME)))
    both = both.sort_by(f"{OWN}at")
    label = found.column(spec.label.column).take(both.column(f"{OWN}at"))
    return pa.table(
        {spec.label.column: label, PLACE: both.column(PLACE), KNOWN: both.column(KNOWN)}
    )


def delivered(outcomes: Outcomes, *, since: dt.datetime | None, until: dt.datetime) -> pa.Table:
    """Give the outcomes of the partitions that ended in ``(since, until]``, with `KNOWN`.

    Rows without an outcome are left out: they say nothing. `KNOWN` is in microseconds since 1970.
    """
    feed = outcomes.feed
    known_at = feed.source.event_time
    names = partitions_of(outcomes, since=since, until=until)
    columns = dict.fromkeys([*_key(outcomes), feed.label.column, *filter(None, [known_at])])
    if not names:
        fields = [(name, pa.null()) for name in _key(outcomes)]
        kind = _arrow_type_of_label(outcomes)
        return pa.schema([*fields, (feed.label.column, kind), (KNOWN, pa.int64())]).empty_table()
    found = outcomes.table.read(names, [*columns, PARTITION])
    if known_at:
        known = _microseconds(found.column(known_at))
    else:
        of = _plain(found.column(PARTITION)).dictionary_encode().combine_chunks()
        ends = [_stamp(feed.batch_ref(name).end) for name in of.dictionary.to_pylist()]
        known = pa.chunked_array([pa.array(ends, pa.int64()).take(of.indices)])
    found = found.append_column(KNOWN, known)
    return found.filter(pc.is_valid(found.column(feed.label.column)))


def partitions_of(
    outcomes: Outcomes, *, since: dt.datetime | None, until: dt.datetime
) -> list[str]:
    """Give the partitions of outcomes that ended in ``(since, until]``, oldest first."""
    parts = outcomes.feed.partitions
    start = since - parts.length if since else None
    return [
        name
        for name, opens in names_of(outcomes.feed, outcomes.table, since=start, until=until)
        if (end := parts.step(opens)) <= until and (since is None or end > since)
    ]


def _key(outcomes: Outcomes) -> Sequence[str]:
    return outcomes.feed.source.key


def _arrow_type_of_label(outcomes: Outcomes) -> pa.DataType:
    name = outcomes.feed.label.column
    schema = outcomes.table.schema
    if name in schema.names:
        return schema.field(name).type
    return pa.string() if outcomes.feed.label_type == "string" else pa.float64()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())


def _stamp(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def _moment(stamp: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=stamp)
