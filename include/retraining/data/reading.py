"""Turns the files that landed into one Arrow table of the declared columns, or says why not.

One rule for all formats: what is declared is what comes out, no value changes on the way, and what
cannot be had without a change refuses the input, with the first such value and its row. Empty text
is a missing value, and so are NULL and its like where no text is declared. A `number` is the
nearest 64-bit float; whole ones that are rounded to it are told of.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from include.retraining.data.column_types import plain, value_type
from include.retraining.errors import DataError, did_you_mean
from include.retraining.records import DeliveryMapping, Finding
from include.retraining.spec import ColumnType, ModelSpec, file_format
from include.retraining.storage import sha256

LARGE_BYTES = 2**30  # in memory; a smaller table may expand as it likes
MAX_EXPANSION = 1000  # times the bytes of its file: equal values take next to nothing there
LARGE_UNPACKED = 64 * 2**20  # a smaller file may be compressed as it likes
MAX_COMPRESSION = 100  # times
BLOCK = 2**20  # bytes that Arrow parses at once
MAX_DEPTH = 1000  # of brackets within brackets
MISSING = (
    *("", "NULL", "null", "\\N", "None", "NA", "N/A", "n/a", "#NA", "#N/A", "#N/A N/A"),
    *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
SPELT_MISSING = ("NULL", "null", "\\N")  # that hardly any text is
# which declared types may be written as text: only text formats have no types of their own
_AS_TEXT: dict[str, tuple[ColumnType, ...]] = {
    ".parquet": (),
    ".csv": ("integer", "number", "boolean", "timestamp"),
    ".json": ("timestamp",),
    ".jsonl": ("timestamp",),
}


@dataclass
class Input:
    """The files of one input on their way through validation."""

    name: str
    table: pa.Table | None = None
    unusable_rows: int = 0
    landed: tuple[str, ...] = ()  # columns, as the files name them
    result: Any = None
    findings: list[Finding] = field(default_factory=list)
    broken_rows: dict[int, list[str]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """As many as landed."""
        return self.unusable_rows if self.table is None else int(self.table.num_rows)

    @property
    def is_refused(self) -> bool:
        """Did the input as a whole break something critical?"""
        return any(f.severity == "critical" and f.failed_rows is None for f in self.findings)

    def refuse(self, expectation: str, detail: str, column: str | None = None) -> None:
        """Find something that no row of it survives."""
        self.findings.append(
            Finding(expectation=expectation, column=column, severity="critical", detail=detail)
        )

    def break_rows(self, rows: list[int], label: str) -> None:
        """Find something wrong with some rows."""
        for row in rows:
            broken = self.broken_rows.setdefault(row, [])
            if label not in broken:
                broken.append(label)


def read_input(
    name: str,
    files: dict[str, bytes],
    columns: dict[str, ColumnType],
    mapping: DeliveryMapping | None,
    max_rows: int,
) -> Input:
    """Read the files of an input as one table of the declared columns, or say why not."""
    parts = [
        _read_file(name, file, content, columns, mapping=mapping, max_rows=max_rows)
        for file, content in files.items()
    ]
    item = Input(name, findings=[finding for part in parts for finding in part.findings])
    if len(parts) > 1:
        item.findings = [
            finding.model_copy(update={"detail": f"{file}: {finding.detail}"})
            for file, part in zip(files, parts, strict=True)
            for finding in part.findings
        ]
        for twice in _equal_files(files, parts):
            item.refuse("files_to_differ", f"{twice} hold the same bytes; deliver each file once")
    landed = {column for part in parts for column in part.landed}
    is_known = all(part.landed for part in parts)
    for old, new in mapping.renames.items() if mapping and is_known else ():
        if old not in landed:
            item.refuse(
                "mapping_to_fit",
                f"{new!r} is to be read from {old!r}, which no file has{did_you_mean(old, landed)};"
                f" columns: {', '.join(sorted(landed))}",
                column=new,
            )
    if item.is_refused:
        item.unusable_rows = sum(part.rows for part in parts)
        return item
    item.table = pa.concat_tables([part.table for part in parts])
    return item


def _equal_files(files: dict[str, bytes], parts: Sequence[Input]) -> list[str]:
    """Name files that say the same; those without rows say nothing that could count twice."""
    names: dict[str, list[str]] = {}
    for (file, content), part in zip(files.items(), parts, strict=True):
        if part.rows:
            names.setdefault(sha256(content), []).append(file)
    return [" and ".join(equal) for equal in names.values() if len(equal) > 1]


def _read_file(
    name: str,
    file: str,
    content: bytes,
    columns: dict[str, ColumnType],
    *,
    mapping: DeliveryMapping | None,
    max_rows: int,
) -> Input:
    part = Input(name)
    renamed = mapping.renames if mapping else {}
    as_landed = columns | {old: columns[new] for old, new in renamed.items()}
    try:
        kind, packing = file_format(file)
        plain_content = _unpacked(content, packing) if packing else content
        if not plain_content:
            raise ValueError("the file is empty; deliver it again")  # noqa: TRY301 - one answer
        table = _PARSE[kind](part, plain_content, as_landed, max_rows)
        table.validate(full=True)  # text that is not UTF-8 shows here, or in mid-task
        part.landed = tuple(table.column_names)
        part.table = table.rename_columns([renamed.get(one, one) for one in table.column_names])
    except (pa.ArrowException, OSError, ValueError) as error:
        text = str(error).strip()
        first_line = text.splitlines()[0][:500] if text else "no detail"
        part.refuse("file_to_be_readable", f"{file} ({len(content)} bytes): {first_line}")
        return part
    _check_columns(part, columns, _AS_TEXT[kind])
    return part


def _unpacked(content: bytes, packing: str) -> bytes:
    limit = max(LARGE_UNPACKED, MAX_COMPRESSION * len(content))
    blocks, size = [], 0
    with pa.CompressedInputStream(pa.BufferReader(content), _CODECS[packing]) as stream:
        while block := stream.read(BLOCK):
            size += len(block)
            if size > limit:
                raise ValueError(
                    f"unpacked it takes more than {limit:,} bytes, {MAX_COMPRESSION} times as "
                    "much; it looks like a decompression bomb. Deliver it as Parquet, or not "
                    "compressed"
                )
            blocks.append(block)
    return b"".join(blocks)


_CODECS = {".gz": "gzip", ".zst": "zstd"}


def _read_parquet(
    part: Input, content: bytes, columns: dict[str, ColumnType], max_rows: int
) -> pa.Table:
    """Read all that is flat, damage in any column refuses; of nested columns only the types."""
    about = pq.read_metadata(pa.BufferReader(content))
    _refuse_bomb(about, len(content), max_rows)
    leaves = [about.schema.column(number) for number in range(about.num_columns)]
    file = pq.ParquetFile(
        pa.BufferReader(content),
        # text stays a dictionary until its size is known: a long value may stand in every row
        read_dictionary=[one.path for one in leaves if one.physical_type == "BYTE_ARRAY"],
        coerce_int96_timestamp_unit="us",
    )
    schema = file.schema_arrow
    flat = [one.name for one in schema if not pa.types.is_nested(one.type)]
    if len(set(schema.names)) < len(schema.names):  # which the check of the columns refuses
        return pa.table([pa.nulls(about.num_rows) for _ in schema], names=schema.names)
    found = file.read(flat)
    _refuse_long_text(found, len(content))
    columns_read = dict(zip(found.column_names, found.columns, strict=True))
    for one in leaves:
        if one.physical_type == "INT96" and one.path in columns_read:
            columns_read[one.path] = columns_read[one.path].cast(_TARGET["timestamp"])
            if columns.get(one.path) == "timestamp":
                part.findings.append(_int96(one.path))
    return pa.table(
        {
            one.name: columns_read[one.name]
            if one.name in columns_read
            else pa.nulls(about.num_rows, one.type)
            for one in schema
        }
    )


def _int96(name: str) -> Finding:
    return Finding(
        expectation="times_to_have_a_zone",
        column=name,
        severity="info",
        failed_rows=0,
        detail=f"column {name!r} is of the old type INT96, which has no zone, and was read as UTC, "
        "which Spark writes; to be sure, let Spark's outputTimestampType be TIMESTAMP_MICROS",
    )


def _refuse_bomb(found: pq.FileMetaData, size: int, max_rows: int) -> None:
    """Believe what a footer says before anything is read."""
    _refuse_many(found.num_rows, max_rows)
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    unpacked = sum(
        max(
            group.total_byte_size,
            sum(group.column(one).total_uncompressed_size for one in range(group.num_columns)),
        )
        for group in groups
    )
    if unpacked > max(LARGE_UNPACKED, MAX_COMPRESSION * size):
        raise ValueError(
            f"{size:,} bytes would take {unpacked:,} unpacked, more than {MAX_COMPRESSION} times "
            "as much; it looks like a decompression bomb. Deliver it with dictionaries, or not "
            "compressed"
        )
    _refuse_large(found.num_rows * found.num_columns * 8, size)


def _refuse_long_text(table: pa.Table, size: int) -> None:
    expanded = 0
    for column in table.columns:
        if not pa.types.is_dictionary(column.type):
            continue
        for chunk in column.chunks:
            lengths = pc.binary_length(chunk.dictionary.cast(pa.large_binary()))
            expanded += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    _refuse_large(expanded, size)


def _refuse_large(expanded: int, size: int) -> None:
    if expanded > max(LARGE_BYTES, MAX_EXPANSION * size):
        raise ValueError(
            f"{size:,} bytes would take {expanded / 2**30:.1f} GiB in memory, more than "
            f"{MAX_EXPANSION:,} times as much; it looks like a decompression bomb. Deliver it with "
            "fewer equal rows a file"
        )


def _refuse_many(rows: int, max_rows: int) -> None:
    if rows > max_rows:
        raise ValueError(
            f"{rows:,} rows, validation.max_rows is {max_rows:,}; deliver smaller "
            "partitions, or raise it"
        )


class _Blocks(io.BytesIO):
    """Ends no block between CR and LF: Arrow would lose the LF, in a quoted text as well."""

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        if len(block) > 1 and block.endswith(b"\r"):
            self.seek(-1, io.SEEK_CUR)
            return block[:-1]
        return block


def _in_blocks(content: bytes, read: Callable[[io.BytesIO, int], pa.Table]) -> pa.Table:
    """Read text in blocks that are large enough for its longest row."""
    size = BLOCK
    while True:
        try:
            return read(_Blocks(content), size)
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error) or size > len(content):
                raise
        size = min(8 * size, 2**31 - 1)


def _read_csv(
    part: Input,  # noqa: ARG001 - all formats are read alike
    content: bytes,
    columns: dict[str, ColumnType],
    max_rows: int,
) -> pa.Table:
    """Read the declared columns as text: a guess takes the code 007 for a number."""
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=b'"' in content)
    converting = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
    try:
        table = _in_blocks(
            content,
            lambda source, size: pyarrow.csv.read_csv(
                source,
                read_options=pyarrow.csv.ReadOptions(block_size=size),
                parse_options=parsing,
                convert_options=converting,
            ),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{str(error).splitlines()[0][:200]}; the first line must name the columns, and every "
            "row have as many fields, between commas, in UTF-8" + _other_separator(content)
        ) from error
    _refuse_many(table.num_rows, max_rows)
    _refuse_open_quote(content)
    # a spreadsheet leaves commas where columns were
    fields = enumerate(table.schema)
    kept = [place for place, one in fields if one.name or not pa.types.is_null(one.type)]
    return table.select(kept)


def _other_separator(content: bytes) -> str:
    """Say what the first line has in place of commas, if that is so."""
    first = content.partition(b"\n")[0]
    for name, sign in (("semicolons", b";"), ("tabs", b"\t"), ("bars", b"|")):
        if first.count(sign) > first.count(b","):
            comma = " and a point in numbers" if sign == b";" else ""
            return f". Its fields seem to be between {name}: write commas{comma}"
    return ""


def _refuse_open_quote(content: bytes) -> None:
    """Refuse a quote that is never closed: Arrow takes the rest of the file for its field."""
    if content.count(b'"') % 2 == 0:
        return
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="")
    limit = csv.field_size_limit(len(content) + 1)
    try:
        for _ in csv.reader(text, strict=True):
            pass
    except csv.Error as error:
        if "end of data" in str(error):
            raise ValueError("a quote is never closed, and what follows it is one field") from error
    finally:
        csv.field_size_limit(limit)


def _read_json(
    part: Input,  # noqa: ARG001 - all formats are read alike
    content: bytes,
    columns: dict[str, ColumnType],
    max_rows: int,
) -> pa.Table:
    """Read texts as text, and whole numbers as such where one is written as 7.0."""
    _refuse_deep(content)
    first_line = content[: content.find(b"\n")].rstrip()
    is_spread = not first_line.endswith(b"}")  # one object over several lines

    def read(types: dict[str, pa.DataType]) -> pa.Table:
        options = pyarrow.json.ParseOptions(
            explicit_schema=pa.schema(list(types.items())) if types else None,
            newlines_in_values=is_spread,
        )
        return _in_blocks(
            content,
            lambda source, size: pyarrow.json.read_json(
                source,
                read_options=pyarrow.json.ReadOptions(block_size=size),
                parse_options=options,
            ),
        )

    try:
        guessed = read({})
        text = {
            one: pa.string()
            for one, kind in columns.items()
            if kind in {"string", "timestamp"} and one in guessed.column_names
        }
        table = read(text)
        # all whole numbers would have passed through a float
        floats = {
            one.name: pa.decimal128(38, 9)
            for one in table.schema
            if columns.get(one.name) == "integer" and pa.types.is_floating(one.type)
        }
        if floats:
            table = read(text | floats)
    except pa.ArrowException as error:
        raise ValueError(next(_odd_json(content, columns), str(error))) from error
    _refuse_many(table.num_rows, max_rows)
    return table


def _refuse_deep(content: bytes) -> None:
    """Refuse brackets within brackets without end: Arrow's reader calls itself for each."""
    # those within texts count only at first
    if _depth(content) > MAX_DEPTH and _depth(_JSON_TEXT.sub(b"", content)) > MAX_DEPTH:
        raise ValueError(
            f"values are nested more than {MAX_DEPTH:,} deep; write what is declared as plain "
            "fields"
        )


def _depth(content: bytes) -> int:
    """Give how many brackets are open at once, at most."""
    depth = deepest = 0
    for start in range(0, len(content), BLOCK):
        found = np.frombuffer(content, np.uint8, min(BLOCK, len(content) - start), start)
        opens, closes = np.isin(found, (0x5B, 0x7B)), np.isin(found, (0x5D, 0x7D))
        steps = opens.astype(np.int32) - closes
        deepest = max(deepest, depth + int(np.cumsum(steps).max()))
        depth += int(steps.sum())
    return deepest


_JSON_TYPES: dict[ColumnType, tuple[type, ...]] = {
    "string": (str,),
    "timestamp": (str,),
    "integer": (int, float),
    "number": (int, float),
    "boolean": (bool, int),
}


_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BLANKS = re.compile(r"\s*")


def _odd_json(content: bytes, columns: dict[str, ColumnType]) -> Iterator[str]:
    """Say what is wrong with JSON that Arrow cannot read: which value, in which row."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                raise ValueError(f"name {name!r} is there more than once")
        return dict(pairs)

    decoder = json.JSONDecoder(object_pairs_hook=once)
    text = content.decode("utf-8-sig").rstrip()
    place, row = 0, 0
    while place < len(text):
        row += 1
        place = _BLANKS.match(text, place).end()  # type: ignore[union-attr]
        try:
            value, place = decoder.raw_decode(text, place)
        except ValueError as error:
            yield f"row {row}: {error}"
            return
        if not isinstance(value, dict):
            yield f"row {row} must be an object, got {_shown(value)}; write one object a line"
            return
        for name, kind in columns.items():
            one = value.get(name)
            is_odd = isinstance(one, bool) and kind != "boolean"
            if one is not None and (is_odd or not isinstance(one, _JSON_TYPES[kind])):
                yield f"column {name!r} must be {kind}, got {_shown(one)} in row {row}; {_DO[kind]}"


_PARSE = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json,
}


def _check_columns(
    item: Input, columns: dict[str, ColumnType], as_text: Collection[ColumnType]
) -> None:
    """Compare the columns with the model file; cast what can be cast without loss."""
    if item.table is None:
        return
    names = item.table.column_names
    for twice in sorted(name for name, count in Counter(names).items() if count > 1):
        said = f"column {twice!r}" if twice else "a column without a name"
        item.refuse("column_to_appear_once", f"{said} appears more than once", twice)
    missing = [name for name in columns if name not in names]
    extra = [name for name in names if name not in columns]
    for name in missing:
        hint = f"; new columns: {_some(extra)}" if extra else ""
        item.refuse("column_to_exist", f"column {name!r} is missing{hint}", name)
    if item.is_refused:
        return
    arrays = {
        name: _declared_column(item, plain(item.table.column(name)), name, kind, as_text)
        for name, kind in columns.items()
    }
    if extra and not missing:
        item.findings.append(
            Finding(
                expectation="no_new_columns",
                severity="info",
                failed_rows=0,
                detail=f"new columns, left out: {_some(extra)}",
            )
        )
    if not item.is_refused:
        item.table = pa.table(arrays)


def _declared_column(
    item: Input,
    column: pa.ChunkedArray,
    name: str,
    kind: ColumnType,
    as_text: Collection[ColumnType],
) -> pa.ChunkedArray | None:
    try:
        found = _cast(column, kind, as_text)
    except pa.ArrowException as error:
        item.refuse("column_to_have_type", _odd_value(column, name, kind, as_text, error), name)
        return None
    except ValueError as error:
        detail = f"column {name!r} must be {kind}, got {value_type(column.type)}: {error}"
        item.refuse("column_to_have_type", detail, name)
        return None
    if kind == "string":
        _tell_spelt_missing(item, found, name)
    if rounded := _rounded(column, kind):
        item.findings.append(
            Finding(
                expectation="numbers_to_be_exact",
                column=name,
                severity="info",
                failed_rows=0,
                detail=f"{rounded:,} whole numbers of column {name!r} have more digits than a "
                "number holds, and were rounded to it; declare it as integer, or as string, to "
                "keep them",
            )
        )
    return found


def _tell_spelt_missing(item: Input, text: pa.ChunkedArray, name: str) -> None:
    is_spelt = pc.is_in(text, value_set=pa.array(SPELT_MISSING))
    if not (count := pc.sum(is_spelt, min_count=0).as_py()):
        return
    first = pc.index(is_spelt, value=True).as_py()
    item.findings.append(
        Finding(
            expectation="text_not_to_spell_missing",
            column=name,
            severity="info",
            failed_rows=0,
            detail=f"{count:,} texts of column {name!r} are {text[first].as_py()!r} or alike, the "
            f"first in row {first + 1}, and were kept as text; leave the field empty where a value "
            "is missing",
        )
    )


_DO: dict[ColumnType, str] = {
    "string": "write it as text, or declare another type",
    "integer": "write whole numbers of at most 64 bits as 7, 7.0 or 7e0, or declare another type",
    "number": "write numbers as 1234.5, or declare another type",
    "boolean": "write true and false, or 1 and 0, or declare another type",
    "timestamp": "must be ISO 8601 with a time zone, such as 2013-01-07T05:15:00Z",
}


def _odd_value(
    column: pa.ChunkedArray,
    name: str,
    kind: ColumnType,
    as_text: Collection[ColumnType],
    error: pa.ArrowException,
) -> str:
    """Name the first value that cannot be had as the declared type, and its row."""
    start, stop = 0, len(column)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            _cast(column.slice(start, middle - start), kind, as_text)
            start = middle
        except pa.ArrowException:
            stop = middle
    try:
        value = _shown(column[start].as_py())
    except (ValueError, OverflowError, KeyError):  # a time, or a zone, that no calendar has
        value = str(error).splitlines()[0]
    return (
        f"column {name!r} must be {kind}, got {value} in row {start + 1} (the first is 1; "
        f"{value_type(column.type)}); {_DO[kind]}{_why(column.type, kind)}"
    )


def _why(found: pa.DataType, kind: ColumnType) -> str:
    if kind == "integer" and pa.types.is_floating(found):
        return (
            f". From {_EXACT_BELOW[found.bit_width]} on a {found.bit_width}-bit float leaves out "
            "integers: write the column as int64 or as text where it is made, with a nullable type "
            "such as pandas' Int64"
        )
    return ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _some(names: list[str]) -> str:
    """Give the first names, and how many more there are."""
    rest = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return ", ".join(name[:100] or "one without a name" for name in names[:10]) + rest


_ACCEPTED = {
    "string": lambda t: (
        pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)
    ),
    "integer": lambda t: (
        pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)
    ),
    "number": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t),
    "boolean": lambda t: (
        pa.types.is_boolean(t) or pa.types.is_integer(t) or pa.types.is_floating(t)
    ),
    "timestamp": pa.types.is_timestamp,
}
_EXACT_BELOW = {16: 2**11, 32: 2**24, 64: 2**53}  # from here on a float leaves out integers

_TARGET = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def _cast(
    column: pa.ChunkedArray, kind: ColumnType, as_text: Collection[ColumnType] = ()
) -> pa.ChunkedArray:
    """Give a column its declared type.

    Raises
    ------
    ArrowException
        A value cannot be had as that type.
    ValueError
        No value of the column's type can.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return column.cast(_TARGET[kind])
    if _is_text(column.type) and kind in as_text:
        return _FROM_TEXT[kind](_without_missing(column))
    _check_type(column.type, kind)
    if pa.types.is_floating(column.type):  # a number that is none is a missing one
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        if kind == "integer":
            _check_exact(column)
    if kind == "string":
        column = _without(column.cast(pa.string()), ("",))
    if kind == "boolean":
        _check_bits(column)
    if kind == "number" and pa.types.is_decimal(column.type):
        column = column.cast(pa.string())  # Arrow's own way from there is not to the nearest float
    # nanoseconds, and digits that a number does not hold, go on purpose; nothing else may
    is_cut = kind == "timestamp" and column.type.unit == "ns"
    is_rounded = kind == "number" and pa.types.is_integer(column.type)
    return column.cast(_TARGET[kind], safe=not (is_cut or is_rounded))


def _check_type(found: pa.DataType, kind: ColumnType) -> None:
    if not _ACCEPTED[kind](found):
        raise ValueError("give it the declared type at the source, or declare the new one")
    if kind == "timestamp" and found.tz is None:
        raise ValueError("timestamps need a time zone")


def _is_text(kind: pa.DataType) -> bool:
    return bool(_ACCEPTED["string"](kind))


def _check_exact(column: pa.ChunkedArray) -> None:
    """Refuse a float that may have been another integer before it became one."""
    is_large = pc.greater_equal(
        pc.abs(column.cast(pa.float64())), float(_EXACT_BELOW[column.type.bit_width])
    )
    if pc.any(is_large, min_count=0).as_py():
        raise pa.ArrowInvalid("a float does not hold integers as large")


def _check_bits(column: pa.ChunkedArray) -> None:
    """Take 0 and 1 for booleans, as databases without booleans write them."""
    bits = pa.array([0, 1, None]).cast(column.type)
    if not pc.all(pc.is_in(column, bits), min_count=0).as_py():
        raise pa.ArrowInvalid("neither 0 nor 1")


def _without_missing(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Blanks around a value do not count, and no number or time is spelt NULL."""
    return _without(pc.utf8_trim_whitespace(text.cast(pa.string())), MISSING)


def _without(text: pa.ChunkedArray, words: tuple[str, ...]) -> pa.ChunkedArray:
    is_missing = pc.is_in(text, value_set=pa.array(words))
    return pc.if_else(is_missing, pa.scalar(None, pa.string()), text)


def _integers_from_text(text: pa.ChunkedArray) -> pa.ChunkedArray:
    if pc.any(pc.match_substring(text, "x", ignore_case=True), min_count=0).as_py():
        raise pa.ArrowInvalid("hexadecimal")  # which Arrow would read, and wrap around
    try:
        return text.cast(pa.int64())
    except pa.ArrowInvalid:  # one 7.0, and nothing must pass through a float
        return text.cast(pa.decimal128(38, 0)).cast(pa.int64())


def _times_from_text(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read ISO 8601 as databases and languages write it; digits below a microsecond are cut."""
    try:
        return text.cast(_TARGET["timestamp"])
    except pa.ArrowInvalid:
        for pattern, right in (
            (r"^(\d{4}-\d\d-\d\d)t", r"\1T"),
            (r"(:\d\d)[.,](\d{1,6})\d*", r"\1.\2"),
            (r" ?(UTC|utc|GMT|[Zz])$", "Z"),
            (r" ([+-]\d\d:?(\d\d)?)$", r"\1"),
        ):
            text = pc.replace_substring_regex(text, pattern, right)
        return text.cast(_TARGET["timestamp"])


_FROM_TEXT: dict[ColumnType, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
    "integer": _integers_from_text,
    "number": lambda text: text.cast(pa.float64()),
    "boolean": lambda text: text.cast(pa.bool_()),
    "timestamp": _times_from_text,
}


def _rounded(column: pa.ChunkedArray, kind: ColumnType) -> int:
    """Count the whole numbers that a `number` does not hold exactly."""
    if kind != "number":
        return 0
    if _is_text(column.type):
        is_long = pc.match_substring_regex(column, r"^\s*[+-]?\d{16,}\s*$")
        return sum(
            not isfinite(float(one)) or Decimal(float(one)) != Decimal(one)
            for one in column.filter(is_long).to_pylist()
        )
    is_decimal = pa.types.is_decimal(column.type) and column.type.scale == 0
    if not (pa.types.is_integer(column.type) or is_decimal):
        return 0
    found = pc.min_max(column)
    if all(one.as_py() is None or abs(one.as_py()) <= _EXACT_BELOW[64] for one in found.values()):
        return 0
    return sum(int(float(one)) != one for one in column.to_pylist() if one is not None)


def check_mapping(spec: ModelSpec, mapping: DeliveryMapping) -> None:
    """Raise DataError if a mapping names what the model file does not have."""
    declared = {"batch": spec.source.columns, **spec.source.companion_columns}
    if mapping.input not in declared:
        raise DataError(f"no input {mapping.input!r}; allowed: {', '.join(declared)}")
    columns = declared[mapping.input]
    for name in (*mapping.renames.values(), *mapping.replacements):
        if name not in columns:
            raise DataError(
                f"{name!r} is no column of {mapping.input}{did_you_mean(name, columns)}; "
                f"allowed: {', '.join(columns)}"
            )
    for name, values in mapping.replacements.items():
        for value in (*values, *values.values()):
            try:
                pa.array([value], pa.string()).cast(_TARGET[columns[name]])
            except pa.ArrowInvalid as error:
                raise DataError(f"{name!r} must be {columns[name]}, got {value!r}") from error


def fitted_mapping(
    spec: ModelSpec, mapping: DeliveryMapping
) -> tuple[DeliveryMapping | None, list[str]]:
    """Give what of a kept mapping the model file of today has a place for, and what it has not.

    A mapping is checked when it is given; the model file may change after that.
    """
    columns = {"batch": spec.source.columns, **spec.source.companion_columns}.get(mapping.input)
    if columns is None:
        return None, [f"input {mapping.input!r}"]
    renames = {old: new for old, new in mapping.renames.items() if new in columns}
    left_out = [f"column {new!r}" for new in mapping.renames.values() if new not in columns]
    replacements: dict[str, dict[str, str | None]] = {}
    for name, values in mapping.replacements.items():
        if name not in columns:
            left_out.append(f"column {name!r}")
            continue
        for wrong, right in values.items():
            try:
                pa.array([wrong, right], pa.string()).cast(_TARGET[columns[name]])
            except pa.ArrowInvalid:
                left_out.append(f"{wrong!r} -> {right!r}, as column {name!r} is {columns[name]}")
            else:
                replacements.setdefault(name, {})[wrong] = right
    found = mapping.model_copy(update={"renames": renames, "replacements": replacements})
    return found, left_out


def map_values(item: Input, mapping: DeliveryMapping) -> None:
    """Put the right values in place of the wrong ones that a mapping names."""
    assert item.table is not None
    for name, values in mapping.replacements.items():
        position, column = item.table.column_names.index(name), item.table.column(name)
        wrong = pa.array(list(values), pa.string()).cast(column.type)
        right = pa.array(list(values.values()), pa.string()).cast(column.type)
        found = pc.index_in(column, value_set=wrong)
        used = set(pc.unique(found).to_pylist())
        for place, value in enumerate(values):
            if place not in used:
                item.findings.append(
                    Finding(
                        expectation="mapping_to_fit",
                        column=name,
                        severity="warning",
                        detail=f"no row holds {value!r}, which is to be read as {values[value]!r}",
                    )
                )
        column = pc.if_else(pc.is_null(found), column, right.take(found.combine_chunks()))
        item.table = item.table.set_column(position, name, column)


def untyped(file: str, content: bytes, max_rows: int) -> pa.Table:
    """Read a file before anything is declared: all of a CSV is text, and so is text in JSON.

    Raises
    ------
    ValueError, OSError, ArrowException
        It cannot be read, by the rules for a batch.
    """
    kind, packing = file_format(file)
    content = _unpacked(content, packing) if packing else content
    if not content:
        raise ValueError("the file is empty; deliver it again")
    found = _PARSE[kind](Input("batch"), content, {}, max_rows)
    text: dict[str, ColumnType] = {
        one.name: "string"
        for one in found.schema
        if kind == ".csv" or pa.types.is_string(one.type) or pa.types.is_timestamp(one.type)
    }
    if kind != ".parquet" and text:
        found = _PARSE[kind](Input("batch"), content, text, max_rows)
    found.validate(full=True)
    return pa.table([plain(one) for one in found.columns], names=found.column_names)


def fits(column: pa.ChunkedArray, kind: ColumnType, file: str) -> bool:
    """Would every value of a column of a file be had as a declared type?"""
    try:
        _cast(column, kind, _AS_TEXT[file_format(file)[0]])
    except (pa.ArrowException, ValueError):
        return False
    return True
