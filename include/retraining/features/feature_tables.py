"""Makes the feature tables of batches: what each adds, out of its rows and those before it.

What a batch adds is a function of its own rows and of those of the batch right before it. So is the
name of what it is made of, and from these names alone follows what has to be made again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from include.retraining import shelf
from include.retraining.data.publication import BATCH, batches_of, newest_published, rows_in_force
from include.retraining.data.tables import Snapshot, Table
from include.retraining.errors import DataError, Superseded
from include.retraining.features.definitions import (
    event_times,
    feature_types,
    load_function,
    table_names,
    tables_digest,
)
from include.retraining.records import BatchRef
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, sha256

if TYPE_CHECKING:
    import pandas as pd


class InForce:
    """The rows of all inputs at one look, each a version of its table."""

    def __init__(self, spec: ModelSpec, inputs: dict[str, Snapshot]) -> None:
        self.inputs = inputs
        self._spec = spec
        self._read: dict[tuple[str, str], pa.Table] = {}
        self._made_of: dict[str, str] = {}

    def batches(self, *, since: dt.datetime | None, until: dt.datetime | None) -> list[BatchRef]:
        """Give the batches that start in ``[since, until)``, oldest first; None is no bound."""
        return batches_of(self._spec, self.inputs[BATCH], since=since, until=until)

    def at(self, start: dt.datetime) -> BatchRef | None:
        """Give the batch that starts at a moment, or None."""
        found = self.batches(since=start, until=start + dt.timedelta(microseconds=1))
        return found[0] if found else None

    def before(self, batch: BatchRef) -> BatchRef | None:
        """Give the batch right before one, or None."""
        return self.at(self._spec.partitions.step(batch.start, -1))

    @cached_property
    def end(self) -> dt.datetime:
        """The end of the newest batch."""
        newest = newest_published(self._spec, self.inputs[BATCH])
        assert newest is not None, "asked for before any batch is in force"
        return newest.end

    def made_of(self, batch: BatchRef) -> str:
        """Give a digest of what the feature tables of a batch are to be made of."""
        if batch.partition not in self._made_of:
            is_inline = self._spec.features.is_inline
            seen = [batch, *filter(None, [None if is_inline else self.before(batch)])]
            self._made_of[batch.partition] = sha256(
                tables_digest(self._spec.features.tables).encode(),
                *(
                    f"{name} {one.partition} {_delivery(rows, one)}".encode()
                    for one in seen
                    for name, rows in self.inputs.items()
                ),
            )
        return self._made_of[batch.partition]

    def read(self, name: str, batch: BatchRef) -> pa.Table:
        """Give the rows of one input of a batch; asked twice, they are read once."""
        key = name, batch.partition
        if key not in self._read:
            self._read[key] = self.inputs[name].read([batch.partition])
        return self._read[key]

    @property
    def order(self) -> int:
        """Grows with every publication: of two looks, the later one has the larger."""
        return sum(snapshot.version for snapshot in self.inputs.values())


def look(spec: ModelSpec, storage: Storage) -> InForce:
    """Give the rows in force, from which follows what feature tables are to be made of."""
    names = (BATCH, *spec.source.companions)
    # the batch comes last, as it is published last: what it says is there is there
    inputs = {name: rows_in_force(spec, storage, name) for name in reversed(names)}
    return InForce(spec, {name: inputs[name] for name in names})


def _delivery(rows: Snapshot, batch: BatchRef) -> str:
    part = rows.parts.get(batch.partition)
    return f"{part.order} {part.content}" if part else ""


def make_tables(
    spec: ModelSpec, storage: Storage, there: InForce, wanted: Sequence[BatchRef]
) -> None:
    """Make the feature tables of some batches, those that are not there as they have to be.

    Raises
    ------
    DataError
        The function of the model file does not give a table that a feature view reads, or values of
        another type than the view declares.
    """
    names = table_names(spec)
    if not names:
        return
    tables = {name: Table(storage, shelf.table_key(spec.model, "features", name)) for name in names}
    kept = {name: table.snapshot() for name, table in tables.items()}
    for batch in wanted:
        made_of = there.made_of(batch)
        if all(_is_made(kept[name], batch, made_of) for name in names):
            continue
        inputs = {name: _frame(there.read(name, batch)) for name in there.inputs}
        before = there.before(batch)
        earlier = {
            name: _frame(there.read(name, before)) if before else frame.iloc[:0]
            for name, frame in inputs.items()
        }
        made = load_function(spec.features.tables)(inputs, earlier, batch)
        if missing := [name for name in names if name not in made]:
            raise DataError(
                f"{spec.features.tables} gave no table {', '.join(missing)}, which views in "
                f"feature_repo/{spec.model}_views.py read; it gave {', '.join(made) or 'none'}. "
                "Make the table, or take out its views if no version in use learned from them"
            )
        for name in names:
            rows = _as_declared(spec, name, made[name])
            _check_times(spec, name, rows, batch)
            try:
                tables[name].replace(batch.partition, rows, content=made_of, order=there.order)
            except Superseded:  # somebody has looked later, and made them of what is newer
                continue


def _is_made(kept: Snapshot, batch: BatchRef, made_of: str) -> bool:
    part = kept.parts.get(batch.partition)
    return part is not None and part.content == made_of


def _frame(table: pa.Table) -> pd.DataFrame:
    """Give rows with exact types: those of Arrow, within pandas."""
    import pandas as pd

    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def _as_declared(spec: ModelSpec, name: str, frame: pd.DataFrame) -> pa.Table:
    """Give a table with the types that its views declare; all else keeps its own."""
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    for column, wanted in feature_types(spec, name).items():
        if column in table.column_names:
            position = table.column_names.index(column)
            values = cast_exactly(
                table.column(position), wanted, f"{spec.features.tables}: {name}.{column}"
            )
            table = table.set_column(position, column, values)
    return table


def _check_times(spec: ModelSpec, name: str, rows: pa.Table, batch: BatchRef) -> None:
    """Refuse rows that say they were known before their batch began, or after it ended.

    Which batches see a row is told by its batch, so an earlier one that sees it would not be joined
    again, and a later one would not notice that it changed.
    """
    import pyarrow.compute as pc

    for column in event_times(spec, name):
        if column not in rows.column_names:
            continue  # the join says so
        times = rows.column(column)
        if not pa.types.is_timestamp(times.type):
            continue  # and that
        utc = times.cast(pa.timestamp("us", "UTC"), safe=False)
        early, late = pc.less(utc, batch.start), pc.greater(utc, batch.end)
        wrong = utc.filter(pc.or_(early, late))
        if len(wrong):
            start, end, got = (
                one.isoformat() for one in (batch.start, batch.end, wrong[0].as_py())
            )
            raise DataError(
                f"{spec.features.tables}: {name}.{column} must be from {start} to {end}, the batch "
                f"at hand, got {got} and {len(wrong) - 1} others. A row is there online when its "
                "batch has ended: date earlier facts at batch.end; what is known later belongs to "
                "the next batch, which is given this one as `previous`"
            )


def cast_exactly(column: pa.ChunkedArray, wanted: pa.DataType, what: str) -> pa.ChunkedArray:
    """Give a column in a declared type; NaN of a float is a missing value of any other type.

    Raises
    ------
    DataError
        A value would change.
    """
    import pyarrow.compute as pc

    if column.type == wanted:
        return column
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type) and not pa.types.is_floating(wanted):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    loses_nanoseconds = pa.types.is_timestamp(wanted) and pa.types.is_timestamp(column.type)
    try:
        return column.cast(wanted, safe=not loses_nanoseconds)
    except pa.ArrowException as error:
        raise DataError(
            f"{what} must be {wanted}, as its feature view declares, got {column.type}: "
            f"{str(error).splitlines()[0][:150]}. Mend the function, or declare another type"
        ) from error


def window_of(there: InForce, batch: BatchRef, seen_from: dt.datetime | None) -> list[BatchRef]:
    """Give the batches whose feature rows the rows of one can see, oldest first."""
    since = None if seen_from is None else seen_from - (batch.end - batch.start)
    return there.batches(since=since, until=batch.end)
