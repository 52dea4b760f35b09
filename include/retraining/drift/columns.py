"""One column of a table at a time, as numbers counted in cells or as counts of levels.

Whatever a column holds comes out in one of these two forms; what cannot (text where numbers belong,
lists) counts as missing, with the problem said, so that no type change passes for "no drift".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from os import PathLike
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from include.retraining.drift.cells import CellCounts, Cells, Wanted
from include.retraining.drift.number_types import ordered, settle, union
from include.retraining.errors import DataError

Source: TypeAlias = "pa.Table | str | PathLike[str] | IO[bytes] | pa.Buffer | bytes"

_PIECE_ROWS = 32_768
_PART_ROWS = 1_048_576
_WHOLE_ROWS = 16_777_216  # 128 MB a column; beyond, no more than a part of it is in memory
_BUFFER_BYTES = 1 << 20


class NumericColumn(NamedTuple):
    """A numeric column, counted in the cells of a reference; missing values left out.

    `inside` gives the values in some cells, sorted, should the counts not be enough. `at_hand` says
    that it need not read again for that.
    """

    counts: CellCounts
    rows: int
    inside: Callable[[Wanted], NDArray[Any]]
    problem: str = ""
    at_hand: bool = False

    @property
    def present(self) -> int:
        """The number of rows that have a value."""
        return self.counts.size


class LevelColumn(NamedTuple):
    """A categorical column: how often each level occurs, missing values apart."""

    counts: Mapping[str, int]
    rows: int
    problem: str = ""

    @property
    def present(self) -> int:
        """The number of rows that have a level."""
        return sum(self.counts.values())


class Columns:
    """A table of which a piece of one column at a time is read: a pyarrow Table, or Parquet."""

    def __init__(self, source: Source, *, categorical: Sequence[str] = ()) -> None:
        self._table = source if isinstance(source, pa.Table) else None
        if self._table is not None:
            self.rows: int = self._table.num_rows
            self._schema = self._table.schema
            return
        if isinstance(source, bytes):
            source = pa.BufferReader(source)
        try:
            metadata = pq.ParquetFile(source).metadata
            flat = {
                field.name
                for field in metadata.schema.to_arrow_schema()
                if not pa.types.is_nested(field.type)
            }
            self._file = pq.ParquetFile(
                source,
                metadata=metadata,
                # Levels are counted by code, not text by text; an absent or nested column may not
                # be named here.
                read_dictionary=[name for name in categorical if name in flat],
                pre_buffer=False,
                buffer_size=_BUFFER_BYTES,
            )
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"window: must be a readable Parquet file: {error}") from error
        self.rows = self._file.metadata.num_rows
        self._schema = self._file.schema_arrow

    def numeric_blocks(self, name: str, blocks: int) -> list[NDArray[Any]]:
        """Read one column as sorted numbers, each of some equal parts of it by itself.

        Give the parts in the order of the rows. Where whole numbers are missing, the parts are
        equal in values instead of rows.
        """
        try:
            gathered = _gathered(self._numbers(name)[1], self.rows)
            return [ordered(settle(part)) for part in np.array_split(gathered, blocks)]
        except pa.ArrowInvalid:
            return [np.empty(0)] * blocks

    def counted(self, name: str, cells: Cells) -> NumericColumn:
        """Read one column as counts in some cells; of large ones, a part at a time."""
        problem, numbers = self._numbers(name)
        try:
            if self.rows <= _WHOLE_ROWS:
                counts, inside = cells.sample(_gathered(numbers, self.rows))
                return NumericColumn(counts, self.rows, inside, problem, at_hand=True)
            counts = cells.count(np.empty(0))
            for part in _parts(numbers):
                counts += cells.sample(part).counts
        except pa.ArrowInvalid:
            problem, counts = self._not_numbers(name), cells.count(np.empty(0))

        def read_inside(wanted: Wanted) -> NDArray[Any]:
            parts = _parts(self._numbers(name)[1])
            return union([cells.sample(part).inside(wanted) for part in parts])

        return NumericColumn(counts, self.rows, read_inside, problem)

    def _numbers(self, name: str) -> tuple[str, Iterator[NDArray[Any]]]:
        """Give the numbers of a column piece by piece, and what is odd about them."""
        if name not in self._schema.names:
            return "the column is absent", iter(())
        kind = self._schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        steps = _steps_to_numbers(kind)
        if steps is None:
            return self._not_numbers(name), iter(())
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        problem = f"values arrive as {kind}, read as numbers" if text else ""
        return problem, (_numbers(piece, steps) for piece in self._pieces(name))

    def _not_numbers(self, name: str) -> str:
        return f"values are {self._schema.field(name).type}, not numbers"

    def levels(self, name: str) -> LevelColumn:
        """Read one column as counts of levels."""
        if name not in self._schema.names:
            return LevelColumn({}, self.rows, "the column is absent")
        kind = self._schema.field(name).type
        if pa.types.is_nested(kind):
            return LevelColumn({}, self.rows, f"values are {kind}, which has no levels to count")
        counts: dict[str, int] = {}
        for group in _counted_groups(self._pieces(name)):
            for value, count in group:
                if not is_missing(value):
                    level = level_name(value)
                    counts[level] = counts.get(level, 0) + count
        return LevelColumn(counts, self.rows)

    def _pieces(self, name: str) -> Iterator[pa.Array]:
        if self._table is not None:
            yield from self._table.column(name).chunks
            return
        try:
            for batch in self._file.iter_batches(
                batch_size=_PIECE_ROWS, columns=[name], use_threads=False
            ):
                yield batch.column(0)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"column {name!r}: cannot be read from Parquet: {error}") from error


def _steps_to_numbers(kind: pa.DataType) -> list[pa.DataType] | None:  # noqa: PLR0911 - a table
    """Give the casts that turn a type into numbers; None where there is no such cast."""
    types = pa.types
    if types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind):
        return []
    if types.is_boolean(kind):
        return [pa.uint8()]
    if types.is_null(kind) or types.is_decimal(kind) or types.is_float16(kind):
        return [pa.float64()]
    if types.is_string(kind) or types.is_large_string(kind):
        return [pa.float64()]
    # One unit for all windows; microseconds are exact in float64 until the year 2255.
    if types.is_date(kind) or types.is_timestamp(kind):
        return [pa.timestamp("us"), pa.int64()]
    if types.is_time(kind):
        return [pa.time64("us"), pa.int64()]
    if types.is_duration(kind):
        return [pa.duration("us"), pa.int64()]
    return None


def _gathered(pieces: Iterable[NDArray[Any]], rows: int) -> NDArray[Any]:
    """Fill one buffer with the numbers of all pieces."""
    values: NDArray[Any] = np.empty(0)
    end = 0
    for numbers in pieces:
        if not end:
            values = np.empty(rows, dtype=numbers.dtype)
        values[end : end + len(numbers)] = numbers
        end += len(numbers)
    return values[:end]


def _parts(pieces: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Give the numbers of a column in parts of `_PART_ROWS`, which bounds the memory."""
    while taken := list(itertools.islice(pieces, _PART_ROWS // _PIECE_ROWS)):
        yield _gathered(taken, sum(map(len, taken)))


def _numbers(piece: pa.Array, steps: Sequence[pa.DataType]) -> NDArray[Any]:
    if pa.types.is_dictionary(piece.type):
        piece = piece.dictionary_decode()
    for step in steps:
        # Unsafe between units of time only: nanoseconds are cut to microseconds.
        piece = piece.cast(step, safe=not pa.types.is_temporal(step))
    if pa.types.is_floating(piece.type):
        filled = piece.fill_null(np.nan) if piece.null_count else piece
        return np.asarray(filled.to_numpy(), dtype=np.float64)
    return np.asarray((piece.drop_null() if piece.null_count else piece).to_numpy())


def _counted_groups(pieces: Iterable[pa.Array]) -> Iterator[Iterable[tuple[Any, int]]]:
    """Count the values of all pieces; pieces that share a dictionary are counted by its codes."""
    dictionary: pa.Array | None = None
    total: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    for piece in pieces:
        if not pa.types.is_dictionary(piece.type):
            counted = piece.value_counts()
            values, counts = counted.field("values"), counted.field("counts")
            yield zip(values.to_pylist(), counts.to_pylist(), strict=True)
            continue
        if dictionary is None or not piece.dictionary.equals(dictionary):
            yield _named(dictionary, total)
            dictionary, total = piece.dictionary, np.zeros(len(piece.dictionary), dtype=np.int64)
        codes = piece.indices.drop_null() if piece.indices.null_count else piece.indices
        total += np.bincount(codes.to_numpy(), minlength=len(total))
    yield _named(dictionary, total)


def _named(dictionary: pa.Array | None, counts: NDArray[np.int64]) -> Iterable[tuple[Any, int]]:
    if dictionary is None:
        return ()
    used = np.flatnonzero(counts)
    return zip(dictionary.take(pa.array(used)).to_pylist(), counts[used].tolist(), strict=True)


def is_missing(value: Any) -> bool:
    """Say whether a level is no level: null, or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def level_name(value: Any) -> str:
    """Name a level so that 1, 1.0, 1.00 and "1" are one: a missing value makes integers floats."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, bool):
        return str(value).lower()
    return value.hex() if isinstance(value, bytes) else str(value)
