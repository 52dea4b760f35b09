"""Makes a `FirstLook`: what files hold that no model file describes yet, by the rules of a batch.

Types are inferred over all rows of all files, and the rows are then read as a batch of the inferred
columns is: what is accepted here is accepted there.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from include.retraining.data.reading import fits, read_input, untyped
from include.retraining.errors import DataError
from include.retraining.names import OWN
from include.retraining.spec import FORMATS, ColumnType, file_format

MAX_BYTES = 2 * 2**30  # of all files: they are held in memory
MAX_ROWS = 50_000_000
_ORDER: tuple[ColumnType, ...] = ("integer", "number", "boolean", "timestamp", "string")
_CODE = r"^\s*[+-]?0\d"  # 007: a number would lose its zeros
_NOT_WHOLE = r"[.eE]"


@dataclass(frozen=True)
class FirstLook:
    """What files hold.

    Attributes
    ----------
    rows : pa.Table
        All rows in the inferred types; times without a zone are ``timestamp[us]``.
    kinds : dict of str to ColumnType
        The inferred type of each column of `rows`.
    naive : tuple of str
        Columns with times that have no zone.
    left_out : dict of str to str
        Columns that no model file can declare, and why.
    """

    files: tuple[Path, ...]
    rows: pa.Table
    kinds: dict[str, ColumnType]
    naive: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def ending(self) -> str:
        """The format of the files, such as ``.csv`` or ``.csv.gz``."""
        return "".join(file_format(self.files[0].name))


def files_of(patterns: Iterable[str]) -> list[Path]:
    """Give the files that paths, folders and globs name, each once, in the order of their names.

    Raises
    ------
    DataError
        One names no file, or the files are not of one format.
    """
    found: dict[Path, None] = {}
    for one in patterns:
        path = Path(one)
        if path.is_dir():
            names = sorted(path.iterdir())
            inside = [file for file in names if file.is_file() and _is_readable(file.name)]
        else:
            inside = [path] if path.is_file() else sorted(map(Path, glob.glob(one)))  # noqa: PTH207
            inside = [file for file in inside if file.is_file()]
        if not inside:
            raise DataError(
                f"--from: {one!r} names no file that can be read; give files, a folder or a glob "
                f"of {', '.join(FORMATS)}"
            )
        found.update(dict.fromkeys(inside))
    endings = {}
    for file in found:
        try:
            endings["".join(file_format(file.name))] = file.name
        except ValueError as error:
            raise DataError(f"--from: {error}") from error
    if len(endings) > 1:
        raise DataError(
            f"--from: all files must be of one format, got {', '.join(sorted(endings.values()))}; "
            "give those of one"
        )
    size = sum(file.stat().st_size for file in found)
    if size > MAX_BYTES:
        raise DataError(
            f"--from: {size:,} bytes, at most {MAX_BYTES:,} are looked at together; give fewer "
            "files, some months of them are enough to start with"
        )
    return list(found)


def _is_readable(name: str) -> bool:
    try:
        file_format(name)
    except ValueError:
        return False
    return not name.startswith((".", "_"))


def look(files: Sequence[Path]) -> FirstLook:
    """Read files of one format, and infer the type of each column over all their rows.

    Raises
    ------
    DataError
        A file cannot be read, names a column twice, or has other columns than the first one.
    """
    contents: dict[Path, bytes] = {}
    tables: list[pa.Table] = []
    for file in files:
        try:
            contents[file] = file.read_bytes()
            tables.append(untyped(file.name, contents[file], MAX_ROWS))
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).strip().splitlines() or ["no detail"]
            raise DataError(f"{file}: {reason[0][:500]}") from error
        _check_names(file, tables[-1], tables[0], files[0])
    kinds: dict[str, ColumnType] = {}
    naive, left_out = [], {}
    for name in tables[0].column_names:
        columns = [table.column(name) for table in tables]
        if name.startswith(OWN) or not name.strip():
            left_out[name] = f"no name for a column: {OWN} begins the bundle's own, or it is empty"
        elif kind := _kind(columns, files[0].name):
            kinds[name] = kind
        elif all(_naive(column) is not None for column in columns):
            naive.append(name)
        else:
            types = " and ".join(sorted({str(column.type) for column in columns}))
            left_out[name] = f"{types[:100]}, which no declared type takes"
    for name in [one for one, kind in kinds.items() if kind == "string"]:
        # text that is all times without a zone
        columns = [table.column(name) for table in tables]
        if all(one.null_count < len(one) and _naive(one) is not None for one in columns):
            naive.append(name)
            del kinds[name]
    parts = [
        _typed(file, contents.pop(file), table, kinds, naive)
        for file, table in zip(files, tables, strict=True)
    ]
    rows = pa.concat_tables(parts)
    order = [name for name in tables[0].column_names if name in rows.column_names]
    all_kinds = {name: kinds.get(name, "timestamp") for name in order}
    return FirstLook(tuple(files), rows.select(order), all_kinds, tuple(naive), left_out)


def _check_names(file: Path, table: pa.Table, first: pa.Table, first_file: Path) -> None:
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise DataError(f"{file}: column {twice[0]!r} appears more than once; name it once")
    if not table.num_rows:
        raise DataError(f"{file}: readable, but without any row; leave it out")
    differ = set(table.column_names) ^ set(first.column_names)
    if differ:
        some = ", ".join(sorted(differ)[:5])
        raise DataError(
            f"{file} has other columns than {first_file}: {some}; give files of one kind"
        )


def _kind(columns: list[pa.ChunkedArray], file: str) -> ColumnType | None:
    """Give the narrowest type that every value can be had as, without a change."""
    candidates = list(_ORDER)
    for column in columns:
        is_text = pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)
        if pa.types.is_floating(column.type) or (is_text and _any(column, _NOT_WHOLE)):
            candidates = [one for one in candidates if one != "integer"]
        if is_text and (_any(column, _CODE) or _any(column, r"^\s*[+-]?\d{19,}\s*$")):
            longest_fits = not _any(column, _CODE) and fits(column, "integer", file)
            numbers = {"number"} if longest_fits else {"integer", "number"}
            candidates = [one for one in candidates if one not in numbers]
        candidates = [one for one in candidates if fits(column, one, file)]
    if "string" in candidates and all(one.null_count == len(one) for one in columns):
        return "string"  # nothing says what it is
    return candidates[0] if candidates else None


def _any(column: pa.ChunkedArray, pattern: str) -> bool:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    return bool(pc.any(pc.match_substring_regex(column, pattern), min_count=0).as_py())


def _naive(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Give times without a zone as such, or None where they are something else."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_time = pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None)
    if not (is_text or is_time):
        return None
    try:
        values = column.cast(kind)
        if is_text:
            text = pc.utf8_trim_whitespace(values.cast(pa.string()))
            values = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
        return values.cast(pa.timestamp("us"), safe=not pa.types.is_timestamp(kind))
    except pa.ArrowException:
        return None


def _typed(
    file: Path,
    content: bytes,
    table: pa.Table,
    kinds: dict[str, ColumnType],
    naive: Sequence[str],
) -> pa.Table:
    """Give the rows of a file as a batch of these columns gives them."""
    found: dict[str, pa.ChunkedArray] = {}
    if kinds:
        item = read_input("batch", {file.name: content}, kinds, None, MAX_ROWS)
        if item.table is None or item.is_refused:
            reasons = [one.detail for one in item.findings if one.severity == "critical"]
            raise DataError(f"{file}: {reasons[0] if reasons else 'cannot be read'}")
        found = dict(zip(item.table.column_names, item.table.columns, strict=True))
    for name in naive:
        times = _naive(table.column(name))
        assert times is not None, "asked of every file before"
        found[name] = times
    return pa.table(found)


def localized(column: pa.ChunkedArray, zone: str, name: str) -> pa.ChunkedArray:
    """Give times without a zone as instants, read in a zone.

    Raises
    ------
    DataError
        The zone is not known, or a time is not there, or is there twice, in it.
    """
    try:
        return pc.assume_timezone(column, zone).cast(pa.timestamp("us", "UTC"))
    except (pa.ArrowException, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(
            f"--time-zone: times of column {name!r} cannot be read in {zone!r}: {reason}; where "
            "clocks change a time is missing or there twice: write it with its zone at the source"
        ) from error
