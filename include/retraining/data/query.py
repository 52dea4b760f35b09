"""Makes `QueryResult`s: the results of a model's queries over one window, as files that land.

From there on a database is a source like any other: what is validated is the file. Each result is
also kept under a name made of its content, so that what a model learnt from can be read again when
the tables have long changed.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from include.retraining import shelf
from include.retraining.data.column_types import plain
from include.retraining.data.delivery import input_paths
from include.retraining.errors import DataError
from include.retraining.records import BatchRef, QueryResult
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, sha256

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

ROWS_PER_FETCH = 50_000


def land_queries(
    spec: ModelSpec, storage: Storage, batch: BatchRef, engine: Engine
) -> list[QueryResult]:
    """Run the queries of a model over a batch's window, and let their results land.

    All queries of a batch see the database at one moment, where it can do that (PostgreSQL, MySQL).
    Equal rows give an equal file, in whatever order the database returns them.

    Raises
    ------
    DataError
        A query is wrong, or gives values that no Parquet column takes.
    """
    from sqlalchemy import exc, text

    at_once = engine.dialect.name in {"postgresql", "mysql", "mariadb"}
    options = {"isolation_level": "REPEATABLE READ"} if at_once else {}
    try:
        with engine.connect().execution_options(**options) as connection:
            if engine.dialect.name == "postgresql":  # else `:start` is cut off in another zone
                connection.execute(text("set local time zone 'UTC'"))
            tables = {
                name: _run(connection, name, query, batch)
                for name, query in spec.source.queries.items()
            }
    except exc.StatementError as error:
        ours = exc.ProgrammingError | exc.DataError | exc.NotSupportedError
        if isinstance(error, exc.DBAPIError) and not isinstance(error, ours):
            raise
        raise DataError(
            f"source.queries of {spec.model}: {str(error.orig).strip()}; mend the model file"
        ) from error
    return [_land(spec, storage, batch, name, table) for name, table in tables.items()]


def _run(connection: Connection, name: str, query: str, batch: BatchRef) -> pa.Table:
    from sqlalchemy import bindparam, text

    statement = text(query)
    window = {"start": batch.start, "end": batch.end}
    used = {key: value for key, value in window.items() if key in statement.compile().params}
    statement = statement.bindparams(*(bindparam(key, value) for key, value in used.items()))
    result = connection.execution_options(yield_per=ROWS_PER_FETCH).execute(statement)
    columns = list(result.keys())
    if twice := sorted(one for one, count in Counter(columns).items() if count > 1):
        raise DataError(
            f"source.queries.{name}: gives {', '.join(map(repr, twice))} more than once; name each "
            "column once in the query, with `as`"
        )
    parts = [_table(name, columns, part) for part in result.partitions()]
    if not parts:
        return pa.table({column: pa.nulls(0) for column in columns})
    table = pa.table({column: _joined(name, column, parts) for column in columns})
    # a database gives rows in any order; sorted, equal rows are an equal file
    sortable = [
        (one.name, "ascending")
        for one in table.schema
        if not pa.types.is_nested(one.type) and not pa.types.is_null(one.type)
    ]
    return table.sort_by(sortable)


def _table(name: str, columns: list[str], rows: Iterable[Any]) -> pa.Table:
    arrays = []
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        try:
            arrays.append(_array(values))
        except (pa.ArrowException, TypeError, OverflowError) as error:
            kinds = sorted({type(value).__name__ for value in values if value is not None})
            raise DataError(
                f"source.queries.{name}: column {column!r} gives {', '.join(kinds)}, which no file "
                f"can hold ({str(error).splitlines()[0][:200]}); cast it in the query"
            ) from error
    return pa.table(arrays, names=columns)


def _array(values: Sequence[Any]) -> pa.ChunkedArray:
    """Give values as a column: NaN among decimals is a missing one, a UUID is text.

    Raises
    ------
    ArrowException, OverflowError, TypeError
        No one type holds them all as they are.
    """
    kinds = {type(one) for one in values if one is not None}
    if {date, datetime} <= kinds:
        raise TypeError("Arrow would cut the times off")
    if len({one.tzinfo is None for one in values if isinstance(one, datetime)}) > 1:
        raise TypeError("times with and without a zone")
    if datetime in kinds:  # one zone for all: a session's changes between summer and winter
        values = [
            one.astimezone(UTC) if isinstance(one, datetime) and one.tzinfo else one
            for one in values
        ]
    if Decimal in kinds:
        values = [None if isinstance(one, Decimal) and one.is_nan() else one for one in values]
        if any(isinstance(one, Decimal) and one.is_infinite() for one in values):
            raise TypeError("no decimal is infinite")
    if kinds <= {int, Decimal} and (
        len(kinds) > 1 or any(one is not None and abs(one) >= 2**63 for one in values)
    ):
        values = [None if one is None else Decimal(one) for one in values]
    return plain(pa.chunked_array([pa.array(values)]))


def _joined(name: str, column: str, parts: list[pa.Table]) -> pa.ChunkedArray:
    """Put the parts of a column together; a database may type every row anew (SQLite)."""
    columns = [part.column(column) for part in parts]
    kinds = list(dict.fromkeys(one.type for one in columns if not pa.types.is_null(one.type)))
    if len(kinds) > 1 and all(pa.types.is_integer(t) or pa.types.is_decimal(t) for t in kinds):
        scale = max(0, *(kind.scale for kind in kinds if pa.types.is_decimal(kind)))
        columns = [one.cast(pa.decimal256(76, scale)) for one in columns]
    try:
        tables = [pa.table({column: one}) for one in columns]
        return pa.concat_tables(tables, promote_options="permissive").column(column)
    except pa.ArrowException as error:
        raise DataError(
            f"source.queries.{name}: column {column!r} gives {', then '.join(map(str, kinds))}, "
            "and no column of a file can hold all of them as they are; cast it in the query"
        ) from error


def _land(
    spec: ModelSpec, storage: Storage, batch: BatchRef, name: str, table: pa.Table
) -> QueryResult:
    buffer = io.BytesIO()
    try:
        pq.write_table(table, buffer)
    except pa.ArrowException as error:
        raise DataError(
            f"source.queries.{name}: its result cannot be kept as Parquet: {error}; cast that "
            "column in the query, or leave it out"
        ) from error
    content = buffer.getvalue()
    digest = sha256(content)
    found = QueryResult(
        batch=batch,
        input=name,
        query_sha256=sha256(spec.source.queries[name].encode()),
        rows=table.num_rows,
        key=shelf.query_copy_key(spec.model, batch.partition, name, digest),
        sha256=digest,
    )
    storage.create(found.key, content)
    storage.write_json(shelf.query_result_key(found), found)
    storage.write(input_paths(spec, batch.partition)[name], content)
    return found
