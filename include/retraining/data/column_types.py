"""What a `Table` can hold: which type keeps the values of a type, and how a batch is brought to it.

No value changes on the way, but for three rules of this package: rows are in microseconds, a naive
timestamp is UTC, and an instant is kept without the zone it was told in.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from include.retraining.errors import DataError

_LIST = pa.ListType | pa.LargeListType | pa.FixedSizeListType
# Delta has no unsigned integers and no half precision
_KEPT_IN = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
} | {
    kind: kind
    for kind in (
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
        *(pa.bool_(), pa.date32(), pa.string(), pa.binary()),
    )
}


def value_type(kind: pa.DataType) -> pa.DataType:
    """Give the type of the values, where a type is a dictionary of them."""
    return value_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give the values of a column without its extension type: a UUID is text, others as stored.

    >>> import uuid
    >>> plain(pa.chunked_array([pa.array([uuid.UUID(int=7).bytes], pa.uuid())])).to_pylist()
    ['00000000-0000-0000-0000-000000000007']
    """
    kind = column.type
    if not isinstance(kind, pa.BaseExtensionType):
        return column
    if isinstance(kind, pa.UuidType):
        values = (None if one is None else str(one) for one in column.to_pylist())
        return pa.chunked_array([pa.array(values, pa.string())])
    return pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)


def kept_type(kind: pa.DataType) -> pa.DataType | None:
    """Give the type that a table keeps values of a type in, or None where Delta has none.

    >>> kept_type(pa.uint32())
    DataType(int64)
    >>> kept_type(pa.timestamp("ns", "Europe/Paris"))
    TimestampType(timestamp[us, tz=UTC])
    >>> kept_type(pa.time64("us"))
    """
    kind = value_type(kind)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if pa.types.is_decimal(kind):
        fits = 0 <= kind.scale <= kind.precision <= 38
        return pa.decimal128(kind.precision, kind.scale) if fits else None
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    return _nested_type(kind) if pa.types.is_nested(kind) else _KEPT_IN.get(kind)


def _nested_type(kind: Any) -> pa.DataType | None:
    if pa.types.is_struct(kind):
        inner = [(item.name, kept_type(item.type)) for item in kind]
        return pa.struct(inner) if inner and all(one for _, one in inner) else None
    if pa.types.is_map(kind):
        key, item = kept_type(kind.key_type), kept_type(kind.item_type)
        return pa.map_(key, item) if key and item else None
    if isinstance(kind, _LIST):
        item = kept_type(kind.value_type)
        return pa.list_(pa.field("element", item)) if item else None
    return None  # a union, a list view


def kept_schema(schema: pa.Schema, known: pa.Schema, where: str) -> pa.Schema:
    """Give the types in which a table keeps the columns of a batch.

    Parameters
    ----------
    schema : pa.Schema
        Of the batch.
    known : pa.Schema
        Of the table; what it has already, keeps its type.
    where : str
        URL of the table.

    Returns
    -------
    pa.Schema
        Without the columns that have no type, because no row has a value, and that the table does
        not have either.

    Raises
    ------
    DataError
        Delta has no type for a column.
    """
    types = dict(zip(known.names, known.types, strict=True))
    kept = []
    for item in schema:
        kind = types.get(item.name)
        if kind is None:
            if pa.types.is_null(value_type(item.type)):
                continue
            kind = kept_type(item.type)
        if kind is None:
            raise _cannot_be_kept(item.name, item.type, where)
        kept.append((item.name, kind))
    return pa.schema(kept)


def cast(column: pa.ChunkedArray, kind: pa.DataType, *, name: str, where: str) -> pa.ChunkedArray:
    """Give a column the type that its table has.

    Raises
    ------
    DataError
        A value would not be the same.
    """
    if column.type == kind:
        return column
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), kind)])
    natural = kept_type(column.type)
    if natural is None:
        raise _cannot_be_kept(name, column.type, where)
    reason = ""
    try:
        # where a unit is finer than ours, the rest of it is cut off
        is_fine = pa.types.is_timestamp(column.type) and column.type.unit == "ns"
        kept = column.cast(natural, safe=not is_fine)
        if natural == kind:
            return kept
        if pa.types.is_timestamp(natural) and pa.types.is_timestamp(kind):
            return kept.cast(kind)
        if _is_number(natural) and _is_number(kind):
            changed = _cast_number(kept, kind)
            if _are_same(_cast_number(changed, natural), kept):
                return changed
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = f" ({str(error).splitlines()[0]})"
    raise DataError(
        f"{where}: column {name!r} is {column.type} in this batch and {kind} in the table, and not "
        f"every value survives the change{reason}; declare the column's type, so that it is the "
        "same in every batch, or give the column another name"
    )


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _cast_number(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    # Arrow would refuse all integers beyond 2^53, those that a float holds exactly too
    is_rounded = pa.types.is_integer(column.type) and pa.types.is_floating(kind)
    return column.cast(kind, safe=not is_rounded)


def _are_same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> bool:
    """Are all values equal, NaN to itself too?"""
    if left.null_count != right.null_count:
        return False
    equal = pc.equal(left, right)
    if pa.types.is_floating(left.type):
        equal = pc.or_(equal, pc.and_(pc.is_nan(left), pc.is_nan(right)))
    return bool(pc.all(equal, min_count=0).as_py())


def _cannot_be_kept(name: str, kind: pa.DataType, where: str) -> DataError:
    return DataError(
        f"{where}: column {name!r} is {kind}, which a Delta table cannot hold; convert it before "
        "it is published (a duration or a time of day to a number of seconds, say), or leave it out"
    )
