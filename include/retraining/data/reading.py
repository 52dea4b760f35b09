"""Turns the files that landed into one Arrow table of the declared columns, or says why not.

One rule for all formats: what is declared is what comes out, no value changes on the way, and what
cannot be had without a change refuses the input. A `number` is the nearest 64-bit float; whole ones
that are rounded to it are told of.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from include.retraining.errors import DataError, did_you_mean
from include.retraining.records import DeliveryMapping, Finding
from include.retraining.spec import ColumnType, ModelSpec
from include.retraining.storage import sha256

LARGE_BYTES = 2**30  # in memory; a smaller table may expand as it likes
MAX_EXPANSION = 1000  # times the bytes of its file


@dataclass
class Input:
    """The files of one input on their way through validation."""

    name: str
    table: pa.Table | None = None
    unusable_rows: int = 0
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
        for twice in _equal_files(files):
            item.refuse("files_to_differ", f"{twice} hold the same bytes; deliver each file once")
    if item.is_refused:
        item.unusable_rows = sum(part.rows for part in parts)
        return item
    item.table = pa.concat_tables([part.table for part in parts])
    if item.rows == 0:
        item.refuse("rows_to_exist", "readable, but without any row; deliver it again")
    return item


def _equal_files(files: dict[str, bytes]) -> list[str]:
    names: dict[str, list[str]] = {}
    for file, content in files.items():
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
        table = _parse(content, PurePosixPath(file).suffix, as_landed, max_rows)
        table.validate(full=True)  # text that is not UTF-8 shows here, or in mid-task
        part.table = table.rename_columns([renamed.get(one, one) for one in table.column_names])
    except (pa.ArrowException, OSError, ValueError) as error:
        text = str(error).strip()
        first_line = text.splitlines()[0][:200] if text else "no detail"
        part.refuse("file_to_be_readable", f"{file} ({len(content)} bytes): {first_line}")
        return part
    _check_columns(part, columns)
    return part


def _parse(content: bytes, suffix: str, columns: dict[str, ColumnType], max_rows: int) -> pa.Table:
    if not content:
        raise ValueError("the file is empty")
    if suffix == ".parquet":
        file = pq.ParquetFile(pa.BufferReader(content))
        _refuse_bomb(file.metadata, len(content), max_rows)
        return file.read()
    if suffix not in _TEXT_FORMATS:
        raise ValueError(f"unknown format {suffix!r}; allowed: .parquet, .csv, .json, .jsonl")
    read = _TEXT_FORMATS[suffix]
    # text formats have no types of their own, and a guess takes the code 007 for a number
    text = [name for name, kind in columns.items() if kind in {"string", "timestamp"}]
    types = dict.fromkeys(text, pa.string())
    table = read(content, types)
    # one 7.0, and all whole numbers would have passed through a float
    floats = [
        item.name
        for item in table.schema
        if columns.get(item.name) == "integer" and pa.types.is_floating(item.type)
    ]
    if floats:
        try:
            table = read(content, types | dict.fromkeys(floats, pa.decimal128(38, 9)))
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"{_some(floats)} must be whole numbers, written as 7, 7.0 or 7e0: "
                f"{str(error).splitlines()[0][:120]}"
            ) from error
    return _read_text(table, columns)


def _read_csv(content: bytes, types: dict[str, pa.DataType]) -> pa.Table:
    options = pyarrow.csv.ConvertOptions(column_types=types)
    return pyarrow.csv.read_csv(BytesIO(content), convert_options=options)


def _read_json(content: bytes, types: dict[str, pa.DataType]) -> pa.Table:
    there = set(pyarrow.json.read_json(BytesIO(content)).column_names)
    schema = pa.schema([(name, kind) for name, kind in types.items() if name in there])
    options = pyarrow.json.ParseOptions(explicit_schema=schema)
    return pyarrow.json.read_json(BytesIO(content), parse_options=options)


_TEXT_FORMATS = {".csv": _read_csv, ".json": _read_json, ".jsonl": _read_json}


def _refuse_bomb(found: pq.FileMetaData, size: int, max_rows: int) -> None:
    """Believe what a footer says before anything is read."""
    if found.num_rows > max_rows:
        raise ValueError(
            f"{found.num_rows:,} rows, validation.max_rows is {max_rows:,}; deliver smaller "
            "partitions, or raise it"
        )
    expanded = found.num_rows * found.num_columns * 8
    if expanded > max(LARGE_BYTES, MAX_EXPANSION * size):
        raise ValueError(
            f"{size:,} bytes would take {expanded / 2**30:.1f} GiB in memory, more than "
            f"{MAX_EXPANSION:,} times as much; it looks like a decompression bomb. Deliver it with "
            "fewer equal rows a file"
        )


def _read_text(table: pa.Table, columns: dict[str, ColumnType]) -> pa.Table:
    """Empty text is a missing value; a timestamp is ISO 8601 with a time zone, or stays text."""
    for position, name in enumerate(table.column_names):
        kind, column = columns.get(name), table.column(position)
        if kind not in {"string", "timestamp"} or not pa.types.is_string(column.type):
            continue
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        if kind == "timestamp":
            with contextlib.suppress(pa.ArrowInvalid):  # the check of the types says it better
                column = column.cast(pa.timestamp("us", tz="UTC"))
        table = table.set_column(position, name, column)
    return table


def _check_columns(item: Input, columns: dict[str, ColumnType]) -> None:
    """Compare the columns with the model file; cast what can be cast without loss."""
    if item.table is None:
        return
    names = item.table.column_names
    for twice in sorted({name for name in names if names.count(name) > 1}):
        item.refuse("column_to_appear_once", f"column {twice!r} appears more than once", twice)
    missing = [name for name in columns if name not in names]
    extra = [name for name in names if name not in columns]
    for name in missing:
        hint = f"; new columns: {_some(extra)}" if extra else ""
        item.refuse("column_to_exist", f"column {name!r} is missing{hint}", name)
    if item.findings:
        return
    arrays = {}
    for name, kind in columns.items():
        try:
            arrays[name] = _cast(item.table.column(name), kind)
        except (pa.ArrowException, ValueError) as error:
            got = item.table.schema.field(name).type
            detail = (
                f"column {name!r} must be {kind}, got {got}: {str(error).splitlines()[0][:150]}"
            )
            item.refuse("column_to_have_type", detail, name)
            continue
        if rounded := _rounded(item.table.column(name), kind):
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


def _some(names: list[str]) -> str:
    """Give the first names, and how many more there are."""
    rest = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return ", ".join(name[:100] for name in names[:10]) + rest


_ACCEPTED = {
    "string": lambda t: (
        pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)
    ),
    "integer": lambda t: (
        pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)
    ),
    "number": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t),
    "boolean": pa.types.is_boolean,
    "timestamp": pa.types.is_timestamp,
}
_TARGET = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def _cast(column: pa.ChunkedArray, kind: ColumnType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return column.cast(_TARGET[kind])
    if kind == "timestamp" and pa.types.is_string(column.type):
        raise ValueError("must be ISO 8601 with a time zone, such as 2013-01-07T05:15:00Z")
    if not _ACCEPTED[kind](column.type):
        raise ValueError("give it the declared type at the source, or declare the new one")
    if kind == "timestamp" and column.type.tz is None:
        raise ValueError("timestamps need a time zone")
    if pa.types.is_floating(column.type):  # a number that is none is a missing one
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if kind == "timestamp":
        # drops nanoseconds on purpose; nothing else may be lost
        return column.cast(_TARGET[kind], safe=column.type.unit != "ns")
    if kind == "number" and pa.types.is_integer(column.type):
        return column.cast(_TARGET[kind], safe=False)
    return column.cast(_TARGET[kind])


def _rounded(column: pa.ChunkedArray, kind: ColumnType) -> int:
    """Count the whole numbers that a `number` does not hold exactly."""
    is_decimal = pa.types.is_decimal(column.type) and column.type.scale == 0
    if kind != "number" or not (pa.types.is_integer(column.type) or is_decimal):
        return 0
    limit = 2**53
    found = pc.min_max(column)
    if all(one.as_py() is None or abs(one.as_py()) <= limit for one in found.values()):
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


def map_values(item: Input, mapping: DeliveryMapping) -> None:
    """Put the right values in place of the wrong ones that a mapping names."""
    assert item.table is not None
    for name, values in mapping.replacements.items():
        position, column = item.table.column_names.index(name), item.table.column(name)
        wrong = pa.array(list(values), pa.string()).cast(column.type)
        right = pa.array(list(values.values()), pa.string()).cast(column.type)
        found = pc.index_in(column, value_set=wrong)
        column = pc.if_else(pc.is_null(found), column, right.take(found.combine_chunks()))
        item.table = item.table.set_column(position, name, column)
