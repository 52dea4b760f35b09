"""Malformed and unusual batches of a small model, each with the verdict it must get.

`python -m tests.data_corpus` prints them as the table of docs/bad-input.md.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from include.retraining.spec import ModelSpec

PARTITION = "2020-01-02"
COLUMNS = {
    "id": "string",
    "at": "timestamp",
    "x": "number",
    "n": "integer",
    "ok": "boolean",
    "label": "integer",
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One delivery and its verdict.

    `rows_in` and `quarantined` count rows; a refused batch keeps all of its rows in quarantine.
    `says` is in a finding's text.
    """

    name: str
    suffix: str
    what: str
    files: Callable[[], dict[str, bytes]]
    verdict: Literal["accepted", "refused"]
    rows_in: int
    quarantined: int = 0
    expectation: str = ""
    says: str = ""

    @property
    def outcome(self) -> str:
        """The verdict in words."""
        if self.verdict == "refused":
            return f"refused: `{self.expectation}`"
        if self.quarantined:
            return f"{self.quarantined} of {self.rows_in} rows quarantined: `{self.expectation}`"
        return f"accepted, noted: `{self.expectation}`" if self.expectation else "accepted"


@dataclass
class _Corpus:
    cases: list[Case] = field(default_factory=list)

    def add(
        self, name: str, suffix: str, what: str, content: Callable[[], bytes], **verdict: Any
    ) -> None:
        """Add a delivery of one file."""
        self._add(name, suffix, what, lambda: {PARTITION + suffix: content()}, **verdict)

    def add_folder(
        self, name: str, pattern: str, what: str, parts: Callable[[], list[bytes]], **verdict: Any
    ) -> None:
        """Add a delivery of several files."""
        suffix = pattern.removeprefix("*")
        self._add(
            name,
            f"/{pattern}",
            what,
            lambda: {
                f"{PARTITION}/part-{number}{suffix}": content
                for number, content in enumerate(parts())
            },
            **verdict,
        )

    def _add(
        self,
        name: str,
        suffix: str,
        what: str,
        files: Callable[[], dict[str, bytes]],
        *,
        refused: str = "",
        quarantined: tuple[int, str] = (0, ""),
        noted: str = "",
        rows: int = 20,
        says: str = "",
    ) -> None:
        self.cases.append(
            Case(
                name=name,
                suffix=suffix,
                what=what,
                files=files,
                verdict="refused" if refused else "accepted",
                rows_in=rows,
                quarantined=quarantined[0],
                expectation=refused or quarantined[1] or noted,
                says=says,
            )
        )


def spec_of(suffix: str) -> ModelSpec:
    """Give the model whose batches these are."""
    return ModelSpec.model_validate(
        {
            "model": "corpus",
            "description": "a small model",
            "owner": "tests",
            "partitions": {"every": "day", "first": "2020-01-01"},
            "source": {
                "batch": "landing/{partition}" + suffix,
                "key": ["id"],
                "event_time": "at",
                "columns": COLUMNS,
            },
            "label": {"column": "label", "maturity_days": 0},
            "features": {"service": "corpus", "tables": "corpus:build", "numeric": ["x"]},
        }
    )


def rows(count: int = 20, /, **changes: Any) -> list[Row]:
    """Give good rows; `changes` sets a column in the first row, `changes__all` in every row."""
    made: list[Row] = [
        {
            "id": f"{number:03d}",
            "at": f"2020-01-02T{number % 24:02d}:30:00Z",
            "x": number + 0.5,
            "n": number,
            "ok": number % 2 == 0,
            "label": number % 2,
        }
        for number in range(count)
    ]
    for name, value in changes.items():
        if name.endswith("__all"):
            made = [row | {name.removesuffix("__all"): value} for row in made]
        elif made:
            made[0][name] = value
    return made


def as_csv(content: Iterable[Row], *, separator: str = ",", end: str = "\n") -> bytes:
    """Write rows as CSV, unquoted."""

    def text(value: object) -> str:
        if value is None:
            return ""
        return str(value).lower() if isinstance(value, bool) else str(value)

    found = list(content)
    names = list(found[0]) if found else list(COLUMNS)
    lines = [separator.join(names), *(separator.join(map(text, row.values())) for row in found)]
    return (end.join(lines) + end).encode()


def as_lines(content: Iterable[Any]) -> bytes:
    """Write values as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in content).encode()


def as_table(content: list[Row], **types: pa.DataType) -> pa.Table:
    """Give rows as an Arrow table of the declared types, or of `types`."""
    declared = {
        "string": pa.string(),
        "timestamp": pa.timestamp("us", "UTC"),
        "number": pa.float64(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
    }
    arrays = {}
    for name in content[0]:
        values = [row[name] for row in content]
        kind = types.get(name) or (declared[COLUMNS[name]] if name in COLUMNS else None)
        if kind is not None and pa.types.is_timestamp(kind):
            moments = [dt.datetime.fromisoformat(v) if isinstance(v, str) else v for v in values]
            values = [v.replace(tzinfo=None) if v and kind.tz is None else v for v in moments]
        arrays[name] = pa.array(values, kind)
    return pa.table(arrays)


def as_parquet(table: pa.Table) -> bytes:
    """Write a table as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def parquet(content: list[Row] | None = None, **types: pa.DataType) -> bytes:
    """Write rows as Parquet."""
    return as_parquet(as_table(rows() if content is None else content, **types))


def not_utf8() -> bytes:
    """A Parquet file whose text is not UTF-8: it opens, and breaks whoever looks at a value."""
    offsets = pa.py_buffer(b"\0\0\0\0" + b"\1\0\0\0" * 20)
    text = pa.Array.from_buffers(pa.string(), 20, [None, offsets, pa.py_buffer(b"\xff")])
    return as_parquet(as_table(rows()).set_column(0, "id", text))


def wide(content: Iterable[Row]) -> list[Row]:
    """Give the rows 5,000 more columns."""
    return [row | {f"c{number}": 1 for number in range(5000)} for row in content]


def quoted(content: Iterable[Row]) -> bytes:
    """Write rows as CSV, texts in quotes where they need them, Windows line ends."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(COLUMNS))
    writer.writeheader()
    writer.writerows(content)
    return buffer.getvalue().encode()


def times(form: str) -> list[Row]:
    """Give rows whose times are written in another form; ``{h}`` is the hour."""
    return [row | {"at": form.format(h=f"{row['n']:02d}")} for row in rows()]


def int96() -> bytes:
    """Parquet as Spark writes times unless told otherwise."""
    buffer = io.BytesIO()
    pq.write_table(as_table(rows()), buffer, use_deprecated_int96_timestamps=True)
    return buffer.getvalue()


def uuids(kind: pa.DataType) -> bytes:
    """Parquet whose keys are the 16 bytes of UUIDs."""
    keys = pa.array([uuid.UUID(int=number).bytes for number in range(20)], kind)
    return as_parquet(as_table(rows()).set_column(0, "id", keys))


def compressible() -> bytes:
    """A small Parquet file with a very long text in it."""
    buffer = io.BytesIO()
    table = as_table(rows()).append_column("extra", pa.array(["A" * 70_000_000] + [None] * 19))
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def long_in_every_row() -> bytes:
    """A small Parquet file that has one long text once, and names it in every row."""
    text = pa.DictionaryArray.from_arrays(
        pa.array([0] * 400, pa.int32()), pa.array(["A" * 3_000_000])
    )
    table = as_table(rows(400)).append_column("extra", text)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    """Compress as zstd does."""
    return bytes(pa.compress(content, "zstd", asbytes=True))


LONG = "x" * 1_000_000
READABLE, EXISTS, TYPE = "file_to_be_readable", "column_to_exist", "column_to_have_type"
ONCE, ROWS_EXIST, SHARE = "column_to_appear_once", "rows_to_exist", "share_of_good_rows"
UNIQUE, PRESENT = "column_values_to_be_unique", "column_values_to_not_be_null"
SPELT, ZONE = "text_not_to_spell_missing", "times_to_have_a_zone"
EXACT = "numbers_to_be_exact"
INSIDE, FINITE, NEW = "column_values_to_be_between", "column_values_to_be_finite", "no_new_columns"


def _of_any_text(corpus: _Corpus, suffix: str, write: Callable[..., bytes]) -> None:
    add = corpus.add
    add("good", suffix, "nothing is wrong", lambda: write(rows()))
    add("zero-bytes", suffix, "zero bytes", lambda: b"", refused=READABLE, rows=0, says="is empty")
    add(
        "truncated",
        suffix,
        "cut off in the middle of a row",
        lambda: write(rows())[:-15],
        refused=READABLE,
        rows=0,
    )
    add(
        "utf-16",
        suffix,
        "UTF-16",
        lambda: write(rows()).decode().encode("utf-16"),
        refused=READABLE,
        rows=0,
    )
    add(
        "latin-1",
        suffix,
        "Latin-1 text",
        lambda: write(rows()).replace(b"003", b"\xe9"),
        refused=READABLE,
        rows=0,
    )
    add("bom", suffix, "a byte order mark in front", lambda: b"\xef\xbb\xbf" + write(rows()))
    add(
        "nul-bytes",
        suffix,
        "NUL bytes in the middle",
        lambda: write(rows()).replace(b"17", b"\0\0"),
        refused=READABLE if suffix == ".jsonl" else TYPE,
        rows=0 if suffix == ".jsonl" else 20,
    )
    add(
        "gzip",
        suffix,
        "compressed, under the plain name",
        lambda: gzip.compress(write(rows()), mtime=0),
        refused=READABLE,
        rows=0,
    )
    add(
        "html",
        suffix,
        "an HTML error page",
        lambda: b"<html><body>503 Service Unavailable</body></html>\n",
        refused=READABLE if suffix == ".jsonl" else EXISTS,
        rows=0,
    )
    add("crlf", suffix, "Windows line ends", lambda: write(rows()).replace(b"\n", b"\r\n"))
    add(
        "blank-lines",
        suffix,
        "blank lines between rows",
        lambda: write(rows()).replace(b"\n", b"\n\n"),
    )
    add(
        "emoji",
        suffix,
        "emoji and control characters in text",
        lambda: write(rows(id="\u2708\x07\u0301")),
    )
    add("long-text", suffix, "a text of 1,000,000 characters", lambda: write(rows(id=LONG)))
    add(
        "column-renamed",
        suffix,
        "a column renamed",
        lambda: write(rows()).replace(b"label", b"lable"),
        refused=EXISTS,
        says="new columns: lable",
    )
    add(
        "column-case",
        suffix,
        "a column in capitals",
        lambda: write(rows()).replace(b"label", b"LABEL"),
        refused=EXISTS,
    )
    add("column-new", suffix, "a new column", lambda: write(rows(extra__all=1)), noted=NEW)
    add("columns-5000", suffix, "5,000 new columns", lambda: write(wide(rows())), noted=NEW)
    add(
        "columns-in-other-order",
        suffix,
        "columns in another order",
        lambda: write([dict(reversed(row.items())) for row in rows()]),
    )
    add(
        "number-as-word",
        suffix,
        "a word in a number column",
        lambda: write(rows(x="many")),
        refused=READABLE if suffix == ".jsonl" else TYPE,
        rows=0 if suffix == ".jsonl" else 20,
    )
    add(
        "numbers-as-text-all",
        suffix,
        "text in every row of a number column",
        lambda: write(rows(x__all="a1")),
        refused=TYPE,
    )
    add(
        "fraction",
        suffix,
        "a fraction in an integer column",
        lambda: write(rows(n=1.5)),
        refused=TYPE,
    )
    add("whole-float", suffix, "1.0 in an integer column", lambda: write(rows(n=1.0)))
    add(
        "integer-too-large",
        suffix,
        "an integer of 25 digits",
        lambda: write(rows(n=10**25)),
        refused=TYPE,
    )
    add(
        "no-zone",
        suffix,
        "times without a zone",
        lambda: write(rows(at__all="2020-01-02T03:00:00")),
        refused=TYPE,
        says="time zone",
    )
    add(
        "one-without-zone",
        suffix,
        "one time without a zone",
        lambda: write(rows(at="2020-01-02T03:00:00")),
        refused=TYPE,
        says="time zone",
    )
    add(
        "mixed-zones",
        suffix,
        "times in several zones",
        lambda: write(rows(at="2020-01-02T09:00:00+05:30")),
    )
    add(
        "other-zone-other-day",
        suffix,
        "a time that another zone puts outside",
        lambda: write(rows(at="2020-01-02T03:00:00+05:30")),
        quarantined=(1, INSIDE),
    )
    add(
        "date-format",
        suffix,
        "a date as 02/01/2020",
        lambda: write(rows(at="02/01/2020 03:00")),
        refused=TYPE,
    )
    add(
        "month-13", suffix, "month 13", lambda: write(rows(at="2020-13-01T00:00:00Z")), refused=TYPE
    )
    add(
        "no-such-day",
        suffix,
        "the 30th of February",
        lambda: write(rows(at="2020-02-30T00:00:00Z")),
        refused=TYPE,
    )
    add(
        "year-1",
        suffix,
        "the year 1",
        lambda: write(rows(at="0001-01-01T00:00:00Z")),
        quarantined=(1, INSIDE),
    )
    add(
        "year-9999",
        suffix,
        "the year 9999",
        lambda: write(rows(at="9999-12-31T23:59:59Z")),
        quarantined=(1, INSIDE),
    )
    add(
        "leap-second",
        suffix,
        "a leap second",
        lambda: write(rows(at="2020-01-02T23:59:60Z")),
        refused=TYPE,
    )
    add(
        "no-time",
        suffix,
        "a row without a time",
        lambda: write(rows(at=None)),
        quarantined=(1, PRESENT),
    )
    add(
        "no-key",
        suffix,
        "a row without a key",
        lambda: write(rows(id=None)),
        quarantined=(1, PRESENT),
    )
    add(
        "key-twice",
        suffix,
        "two rows with one key",
        lambda: write(rows(id="007")),
        quarantined=(2, UNIQUE),
    )
    add(
        "all-rows-twice",
        suffix,
        "every row twice",
        lambda: write(rows() + rows()),
        refused=SHARE,
        rows=40,
    )
    add(
        "all-keys-missing",
        suffix,
        "no row has a key",
        lambda: write(rows(id__all=None)),
        refused=SHARE,
    )
    add(
        "wrong-partition",
        suffix,
        "rows of another day",
        lambda: write(rows(at__all="2020-01-05T03:00:00Z")),
        refused=SHARE,
    )
    add(
        "some-of-the-next-day",
        suffix,
        "a row of the next day",
        lambda: write(rows(at="2020-01-03T00:00:00Z")),
        quarantined=(1, INSIDE),
    )
    add(
        "column-all-missing",
        suffix,
        "a number column without any value",
        lambda: write(rows(x__all=None)),
    )
    add("negative-zero", suffix, "negative zero", lambda: write(rows(x=-0.0)))
    for form, name, what in (
        ("2020-01-02T{h}:30:00.123456789Z", "times-ns", "times with nanoseconds"),
        ("2020-01-02 {h}:30:00 UTC", "times-utc", "times that end in UTC"),
        ("2020-01-02 {h}:30:00.5+00", "times-postgres", "times that end in +00"),
        ("2020-01-02T{h}:30:00+0000", "times-compact", "times that end in +0000"),
        ("2020-01-02 {h}:30:00 +0000", "times-blank", "times with a blank before their offset"),
        ("2020-01-02t{h}:30:00z", "times-lower", "times with a small t and z"),
    ):  # fmt: skip
        add(name, suffix, what, lambda form=form: write(times(form)))
    add(
        "empty-text",
        suffix,
        "a key of no characters",
        lambda: write(rows(id="")),
        quarantined=(1, PRESENT),
    )
    add(
        "null-as-text",
        suffix,
        "NULL in a text column",
        lambda: write(rows(id="NULL")),
        noted=SPELT,
        says="'NULL' or alike, the first in row 1",
    )
    add(
        "backslash-n-as-text",
        suffix,
        "\\N in a text column",
        lambda: write(rows(id="\\N")),
        noted=SPELT,
    )
    add(
        "null-as-time",
        suffix,
        "NULL for a time",
        lambda: write(rows(at="NULL")),
        quarantined=(1, PRESENT),
    )
    add(
        "long-row",
        suffix,
        "a row of 3,000,000 characters",
        lambda: write(rows(id=LONG * 3)),
    )
    add(
        "too-exact",
        suffix,
        "a whole number of 17 digits in a number column",
        lambda: write([row | {"x": 2**53 + 1} for row in rows()]),
        noted=EXACT,
        says="20 whole numbers",
    )
    add(
        "ids-of-19-digits",
        suffix,
        "integers of 19 digits, one missing, one written as 7.0",
        lambda: write(
            [
                row | {"n": [None, 7.0][row["n"]] if row["n"] < 2 else 2**62 + row["n"]}
                for row in rows()
            ]
        ),
    )


def _of_csv(corpus: _Corpus) -> None:
    add = corpus.add
    file = ".csv"
    add("header-only", file, "a header and no rows", lambda: as_csv([]), refused=ROWS_EXIST, rows=0)
    add(
        "no-header",
        file,
        "no header",
        lambda: as_csv(rows()).split(b"\n", 1)[1],
        refused=EXISTS,
        rows=19,
    )
    add(
        "row-too-short",
        file,
        "a row with a field too few",
        lambda: as_csv(rows()).replace(b",true,0\n", b",true\n", 1),
        refused=READABLE,
        rows=0,
    )
    add(
        "row-too-long",
        file,
        "a row with a field too many",
        lambda: as_csv(rows()).replace(b",true,0\n", b",true,0,9\n", 1),
        refused=READABLE,
        rows=0,
    )
    add(
        "semicolons",
        file,
        "semicolons between the fields",
        lambda: as_csv(rows(), separator=";"),
        refused=EXISTS,
    )
    add(
        "tabs",
        file,
        "tabs between the fields",
        lambda: as_csv(rows(), separator="\t"),
        refused=EXISTS,
    )
    add(
        "decimal-commas",
        file,
        "decimal commas, quoted",
        lambda: as_csv(rows(x__all='"1,5"')),
        refused=TYPE,
    )
    add(
        "decimal-commas-unquoted",
        file,
        "decimal commas, unquoted",
        lambda: as_csv(rows(x__all="1,5")),
        refused=READABLE,
        rows=0,
    )
    add("thousands", file, "1.000,50", lambda: as_csv(rows(x='"1.000,50"')), refused=TYPE)
    add(
        "currency",
        file,
        "an amount with its currency",
        lambda: as_csv(rows(x="5 EUR")),
        refused=TYPE,
    )
    add(
        "quote-open",
        file,
        "a quote that is never closed",
        lambda: as_csv(rows(id='"000')),
        refused=READABLE,
        rows=0,
    )
    add(
        "newline-in-quotes",
        file,
        "a line break inside of a quoted text",
        lambda: as_csv(rows(id='"0\n0"')),
    )
    add(
        "header-twice",
        file,
        "the header once more in the middle",
        lambda: as_csv(rows()) + as_csv([]),
        refused=TYPE,
        rows=21,
    )
    add(
        "column-twice",
        file,
        "a column name twice",
        lambda: as_csv(rows()).replace(b"id,at,x,n", b"id,at,x,x"),
        refused=ONCE,
    )
    add(
        "column-padded",
        file,
        "blanks around the column names",
        lambda: as_csv(rows()).replace(b"id,at,x", b"id , at , x"),
        refused=EXISTS,
    )
    add(
        "infinite",
        file,
        "inf and -inf",
        lambda: as_csv(rows(x="inf")).replace(b",1.5,", b",-inf,"),
        quarantined=(2, FINITE),
    )
    add("nan", file, "NaN in a number column", lambda: as_csv(rows(x="NaN")))
    add(
        "too-large-for-a-float",
        file,
        "1e999",
        lambda: as_csv(rows(x="1e999")),
        quarantined=(1, FINITE),
    )
    add(
        "null-words",
        file,
        "NULL, N/A and NA in a number column",
        lambda: as_csv(rows(x="NULL")).replace(b",1.5,", b",N/A,").replace(b",2.5,", b",NA,"),
    )
    add(
        "yes-and-no",
        file,
        "yes and no for booleans",
        lambda: as_csv(rows(ok__all="yes")),
        refused=TYPE,
    )
    add(
        "excel-date",
        file,
        "a day number of a spreadsheet",
        lambda: as_csv(rows(at__all="43832.5")),
        refused=TYPE,
    )
    add("formula", file, "a spreadsheet formula as text", lambda: as_csv(rows(id="=1+1")))
    add(
        "backslash-n",
        file,
        "\\N and None in columns of numbers and booleans",
        lambda: as_csv(rows(x="\\N", n="\\N", ok="None")),
    )
    add(
        "many-line-breaks",
        file,
        "quoted texts with line breaks, beyond a megabyte",
        lambda: quoted(row | {"id": f"{row['id']}\r\n{LONG[:60000]}"} for row in rows()),
    )
    add(
        "empty-columns",
        file,
        "two more commas in every line, as a spreadsheet leaves them",
        lambda: as_csv(rows()).replace(b"\n", b",,\n"),
    )
    add(
        "nameless-column",
        file,
        "a column with values and no name",
        lambda: as_csv(rows()).replace(b"\n", b",9\n").replace(b"label,9", b"label,"),
        noted=NEW,
        says="one without a name",
    )
    add(
        "empty-lines-of-commas",
        file,
        "a line of nothing but commas at the end",
        lambda: as_csv(rows()) + b",,,,,\n",
        quarantined=(1, PRESENT),
        rows=21,
    )
    add(
        "total",
        file,
        "a line with the total at the end",
        lambda: as_csv(rows()) + b"Total,,200.0,190,,10\n",
        quarantined=(1, PRESENT),
        rows=21,
    )
    add(
        "separator-line",
        file,
        "a first line sep=, as a spreadsheet wants it",
        lambda: b"sep=,\n" + as_csv(rows()),
        refused=READABLE,
        rows=0,
        says="the first line must name the columns",
    )
    add(
        "comment-line",
        file,
        "a comment in the first line",
        lambda: b"# made by the shop\n" + as_csv(rows()),
        refused=READABLE,
        rows=0,
    )
    add("old-mac", file, "old Mac line ends", lambda: as_csv(rows()).replace(b"\n", b"\r"))
    add(
        "blanks-after-commas",
        file,
        "a blank after each comma of the values",
        lambda: as_csv([]) + as_csv(rows()).split(b"\n", 1)[1].replace(b",", b", "),
    )
    add("plus-signs", file, "numbers with a plus sign", lambda: as_csv(rows(x="+1.5", n="+1")))
    add(
        "true-in-capitals",
        file,
        "TRUE and False",
        lambda: as_csv(rows()).replace(b"true", b"TRUE").replace(b"false", b"False"),
    )
    add("bits", file, "0 and 1 for booleans", lambda: as_csv(rows(ok__all=1)))
    add(
        "mixed-case",
        ".CSV",
        "a name that ends in capitals",
        lambda: as_csv(rows()),
    )
    for suffix, pack in (
        (".csv.gz", gzip.compress),
        (".csv.zst", zstd),
        (".jsonl.gz", gzip.compress),
    ):
        write = as_csv if "csv" in suffix else as_lines
        add("good", suffix, "compressed", lambda pack=pack, write=write: pack(write(rows())))
        add(
            "truncated",
            suffix,
            "compressed, and cut off",
            lambda pack=pack, write=write: pack(write(rows()))[:-9],
            refused=READABLE,
            rows=0,
        )
        add(
            "bomb",
            suffix,
            "a few kilobytes that unpack to 80 megabytes",
            lambda pack=pack, write=write: pack(write(rows()) + b" " * 80_000_000),
            refused=READABLE,
            rows=0,
            says="decompression bomb",
        )
    add(
        "two-members",
        ".csv.gz",
        "two compressed parts behind each other",
        lambda: b"".join(
            gzip.compress(part) for part in (as_csv(rows(9)), as_csv(rows()[9:]).split(b"\n", 1)[1])
        ),
    )
    add(
        "not-compressed",
        ".csv.gz",
        "not compressed, under the name of it",
        lambda: as_csv(rows()),
        refused=READABLE,
        rows=0,
    )
    add(
        "nothing-inside",
        ".csv.gz",
        "zero bytes, compressed",
        lambda: gzip.compress(b""),
        refused=READABLE,
        rows=0,
        says="is empty",
    )


def _of_json(corpus: _Corpus) -> None:
    add = corpus.add
    lines = ".jsonl"
    add(
        "array",
        lines,
        "one JSON array",
        lambda: json.dumps(rows()).encode(),
        refused=READABLE,
        rows=0,
    )
    add(
        "pretty-printed",
        lines,
        "objects over several lines",
        lambda: b"\n".join(json.dumps(row, indent=1).encode() for row in rows()),
    )
    add(
        "numbers-for-rows",
        lines,
        "numbers instead of objects",
        lambda: as_lines(range(20)),
        refused=READABLE,
        rows=0,
    )
    add(
        "nested",
        lines,
        "an object in a number column",
        lambda: as_lines(rows(x__all={"value": 1.0})),
        refused=TYPE,
    )
    add(
        "list",
        lines,
        "a list in a number column",
        lambda: as_lines(rows(x__all=[1.0])),
        refused=TYPE,
    )
    add(
        "numbers-as-text",
        lines,
        "numbers as text in every row",
        lambda: as_lines(rows(x__all="1.5")),
        refused=TYPE,
    )
    add(
        "number-for-text",
        lines,
        "a number in a text column",
        lambda: as_lines(rows(id=7)),
        refused=READABLE,
        rows=0,
    )
    add(
        "nan-literal",
        lines,
        "NaN: a missing number",
        lambda: as_lines(rows(x=float("nan"))),
    )
    add(
        "infinity-literal",
        lines,
        "Infinity",
        lambda: as_lines(rows(x=float("inf"))),
        quarantined=(1, FINITE),
    )
    add(
        "key-twice-in-object",
        lines,
        "a name twice in one object",
        lambda: as_lines(rows()).replace(b'"n": 0,', b'"n": 0, "n": 0,', 1),
        refused=READABLE,
        rows=0,
    )
    add(
        "key-left-out",
        lines,
        "a name left out of one object",
        lambda: as_lines(
            [{k: v for k, v in row.items() if k != "x" or row["n"]} for row in rows()]
        ),
    )
    add(
        "key-never-there",
        lines,
        "a name in no object",
        lambda: as_lines([{k: v for k, v in row.items() if k != "x"} for row in rows()]),
        refused=EXISTS,
    )
    add(
        "booleans-as-numbers",
        lines,
        "0 and 1 for booleans",
        lambda: as_lines(rows(ok__all=1)),
    )
    add(
        "booleans-as-other-numbers",
        lines,
        "a 2 for a boolean",
        lambda: as_lines([row | {"ok": row["n"] % 3} for row in rows()]),
        refused=TYPE,
        says="got 2 in row 3",
    )
    add(
        "epoch-seconds",
        lines,
        "seconds since 1970 for times",
        lambda: as_lines(rows(at__all=1577934000)),
        refused=READABLE,
        rows=0,
    )
    add(
        "null-word",
        lines,
        "NULL in a number column",
        lambda: as_lines(rows(x="NULL")),
        refused=READABLE,
        rows=0,
        says="column 'x' must be number, got 'NULL' in row 1",
    )
    add(
        "pretty-printed-large",
        lines,
        "objects over several lines, beyond a megabyte",
        lambda: b"\n".join(
            json.dumps(row | {"id": row["id"] + LONG[:60000]}, indent=1).encode() for row in rows()
        ),
    )


def _of_parquet(corpus: _Corpus) -> None:
    add = corpus.add
    file = ".parquet"
    utc = pa.timestamp("us", "UTC")
    add("good", file, "nothing is wrong", parquet)
    add("zero-bytes", file, "zero bytes", lambda: b"", refused=READABLE, rows=0, says="is empty")
    add(
        "truncated",
        file,
        "cut off in the middle",
        lambda: parquet()[: len(parquet()) // 2],
        refused=READABLE,
        rows=0,
    )
    add(
        "footer-missing",
        file,
        "the last bytes missing",
        lambda: parquet()[:-5],
        refused=READABLE,
        rows=0,
    )
    add(
        "magic-only",
        file,
        "nothing but the magic number",
        lambda: b"PAR1PAR1",
        refused=READABLE,
        rows=0,
    )
    add(
        "overwritten",
        file,
        "overwritten with zeros in the middle",
        lambda: parquet()[:200] + b"\0" * 400 + parquet()[600:],
        refused=READABLE,
        rows=0,
    )
    add(
        "csv-inside",
        file,
        "CSV under the name of Parquet",
        lambda: as_csv(rows()),
        refused=READABLE,
        rows=0,
    )
    add("not-utf-8", file, "text that is not UTF-8", not_utf8, refused=READABLE, rows=0)
    add(
        "no-rows",
        file,
        "no rows",
        lambda: as_parquet(as_table(rows()).slice(0, 0)),
        refused=ROWS_EXIST,
        rows=0,
    )
    add("no-columns", file, "no columns", lambda: as_parquet(pa.table({})), refused=EXISTS, rows=0)
    add(
        "column-twice",
        file,
        "a column name twice",
        lambda: as_parquet(as_table(rows()).append_column("x", pa.array([1.0] * 20))),
        refused=ONCE,
    )
    add(
        "column-removed",
        file,
        "a column removed",
        lambda: as_parquet(as_table(rows()).drop_columns("x")),
        refused=EXISTS,
    )
    add("columns-5000", file, "5,000 new columns", lambda: parquet(wide(rows())), noted=NEW)
    add("long-text", file, "a text of 1,000,000 characters", lambda: parquet(rows(id=LONG)))
    add(
        "numbers-as-text",
        file,
        "numbers as text",
        lambda: parquet(rows(x__all="1.5"), x=pa.string()),
        refused=TYPE,
        says="must be number, got string",
    )
    add(
        "text-as-numbers",
        file,
        "numbers in a text column",
        lambda: parquet(rows(id__all=7), id=pa.int64()),
        refused=TYPE,
    )
    add(
        "bytes-for-text",
        file,
        "bytes in a text column",
        lambda: parquet(rows(id__all=b"7"), id=pa.binary()),
        refused=TYPE,
    )
    add(
        "list",
        file,
        "lists in a number column",
        lambda: parquet(rows(x__all=[1.0]), x=pa.list_(pa.float64())),
        refused=TYPE,
    )
    add(
        "struct",
        file,
        "records in a number column",
        lambda: parquet(rows(x__all={"v": 1.0}), x=pa.struct({"v": pa.float64()})),
        refused=TYPE,
    )
    add(
        "new-nested-column",
        file,
        "a new nested column",
        lambda: parquet(rows(extra__all=[{"a": [1]}])),
        noted=NEW,
    )
    add(
        "object-typed-integers",
        file,
        "integers with gaps, stored as floats",
        lambda: parquet(rows(n=float("nan")), n=pa.float64()),
    )
    add(
        "large-integer-as-float",
        file,
        "an integer that a float cannot hold",
        lambda: parquet(rows(n=2.0**70), n=pa.float64()),
        refused=TYPE,
    )
    add(
        "id-as-float",
        file,
        "an id of 19 digits that was a float on its way",
        lambda: parquet(rows(n=float(9_067_651_234_567_890_123)), n=pa.float64()),
        refused=TYPE,
        says="a 64-bit float",
    )
    add(
        "last-exact-float",
        file,
        "the largest integer that every float below it can tell from its neighbours",
        lambda: parquet(rows(n=float(2**53 - 1)), n=pa.float64()),
    )
    add(
        "unsigned-too-large",
        file,
        "an unsigned integer above 2^63",
        lambda: parquet(rows(n=2**63 + 1), n=pa.uint64()),
        refused=TYPE,
    )
    add(
        "small-types",
        file,
        "int8, half floats, large strings",
        lambda: as_parquet(as_table(rows(), n=pa.int8(), x=pa.float16(), id=pa.large_string())),
    )
    add("string-view", file, "text as string views", lambda: parquet(id=pa.string_view()))
    add(
        "dictionary",
        file,
        "text as a dictionary",
        lambda: as_parquet(
            as_table(rows()).set_column(0, "id", as_table(rows()).column("id").dictionary_encode())
        ),
    )
    add(
        "decimal",
        file,
        "decimals in a number column",
        lambda: parquet(rows(x__all=1), x=pa.decimal128(10, 2)),
    )
    add("null-type", file, "a column of type null", lambda: parquet(rows(x__all=None), x=pa.null()))
    add(
        "all-missing-key",
        file,
        "a key column of type null",
        lambda: parquet(rows(id__all=None), id=pa.null()),
        refused=SHARE,
    )
    add(
        "no-zone",
        file,
        "times without a zone",
        lambda: parquet(at=pa.timestamp("us")),
        refused=TYPE,
        says="time zone",
    )
    add(
        "other-zone",
        file,
        "times in another zone",
        lambda: parquet(at=pa.timestamp("ms", "Asia/Kolkata")),
    )
    add("nanoseconds", file, "nanoseconds", lambda: parquet(at=pa.timestamp("ns", "UTC")))
    add(
        "dates",
        file,
        "dates for times",
        lambda: parquet(rows(at__all=dt.date(2020, 1, 2)), at=pa.date32()),
        refused=TYPE,
    )
    add(
        "times-as-text",
        file,
        "times as text",
        lambda: parquet(at=pa.string()),
        refused=TYPE,
        says="must be timestamp, got string: give it the declared type",
    )
    add(
        "year-1",
        file,
        "the year 1",
        lambda: parquet(rows(at="0001-01-01T00:00:00+00:00"), at=utc),
        quarantined=(1, INSIDE),
    )
    add(
        "year-9999",
        file,
        "the year 9999",
        lambda: parquet(rows(at="9999-12-31T23:59:59+00:00"), at=utc),
        quarantined=(1, INSIDE),
    )
    add(
        "year-290000",
        file,
        "the year 290,000, which no calendar has",
        lambda: as_parquet(
            as_table(rows()).set_column(
                1,
                "at",
                pa.array(
                    [9_100_000_000_000_000_000 // 1000 * 1000] + [1577934000000000] * 19, pa.int64()
                ).cast(utc),
            )
        ),
        quarantined=(1, INSIDE),
    )
    add(
        "infinite",
        file,
        "infinite numbers",
        lambda: parquet(rows(x=float("inf"))),
        quarantined=(1, FINITE),
    )
    add("nan", file, "NaN in a number column", lambda: parquet(rows(x=float("nan"))))
    add("negative-zero", file, "negative zero", lambda: parquet(rows(x=-0.0)))
    add(
        "smallest-float",
        file,
        "the smallest float there is",
        lambda: parquet(rows(x=5e-324)),
    )
    add(
        "key-twice",
        file,
        "two rows with one key",
        lambda: parquet(rows(id="007")),
        quarantined=(2, UNIQUE),
    )
    add(
        "keys-that-look-alike",
        file,
        "keys that differ in case, blanks, or Unicode form",
        lambda: parquet(
            [
                row | {"id": name}
                for row, name in zip(
                    rows(6), ["a", "A", "a ", " a", "\u00e9", "e\u0301"], strict=True
                )
            ]
        ),
        rows=6,
    )
    add("one-row", file, "one row", lambda: parquet(rows(1)), rows=1)
    add("upper-case", ".PARQUET", "a name that ends in capitals", parquet)
    add("uuid", file, "UUIDs in a text column", lambda: uuids(pa.uuid()))
    add(
        "uuid-as-bytes",
        file,
        "UUIDs as 16 bytes and no more said",
        lambda: uuids(pa.binary(16)),
        refused=TYPE,
    )
    add("int96", file, "times as INT96, as Spark writes them", int96, noted=ZONE)
    add(
        "bits",
        file,
        "int8 of 0 and 1 in a boolean column, one missing",
        lambda: parquet([row | {"ok": [None, 1, 0][row["n"] % 3]} for row in rows()], ok=pa.int8()),
    )
    add(
        "bits-and-more",
        file,
        "uint8 with a 3 in a boolean column",
        lambda: parquet([row | {"ok": 3 if row["n"] == 7 else 1} for row in rows()], ok=pa.uint8()),
        refused=TYPE,
        says="must be boolean, got 3 in row 8",
    )
    add(
        "whole-decimals",
        file,
        "decimals of 38 digits in an integer column",
        lambda: parquet(n=pa.decimal128(38, 0)),
    )
    add(
        "decimal-with-a-fraction",
        file,
        "a decimal with a fraction in an integer column",
        lambda: parquet(
            [row | {"n": Decimal("2.5") if row["n"] == 4 else row["n"]} for row in rows()],
            n=pa.decimal128(10, 2),
        ),
        refused=TYPE,
        says="got Decimal('2.50') in row 5",
    )
    add(
        "large-decimals",
        file,
        "decimals of 256 bits in a number column",
        lambda: parquet(rows(x__all=Decimal("1.5")), x=pa.decimal256(60, 2)),
    )
    add("unsigned", file, "unsigned 64-bit integers that fit", lambda: parquet(n=pa.uint64()))
    add(
        "integer-dictionary",
        file,
        "integers as a dictionary",
        lambda: as_parquet(
            as_table(rows()).set_column(3, "n", as_table(rows()).column("n").dictionary_encode())
        ),
    )
    add(
        "empty-text",
        file,
        "a key of no characters",
        lambda: parquet(rows(id="")),
        quarantined=(1, PRESENT),
    )
    add(
        "null-as-text", file, "NULL in a text column", lambda: parquet(rows(id="NULL")), noted=SPELT
    )
    add(
        "bomb",
        file,
        "a small file that takes 70 megabytes unpacked",
        compressible,
        refused=READABLE,
        rows=0,
        says="decompression bomb",
    )
    add(
        "long-text-everywhere",
        file,
        "a small file with one long text in every row: 1.1 gigabytes",
        long_in_every_row,
        refused=READABLE,
        rows=0,
        says="decompression bomb",
    )


def _of_folders(corpus: _Corpus) -> None:
    add = corpus.add_folder
    some, others = rows()[:12], rows()[12:]
    add("good", "*.csv", "two files", lambda: [as_csv(some), as_csv(others)])
    add("good", "*.parquet", "three files", lambda: [parquet([row]) for row in rows(3)], rows=3)
    add(
        "same-file-twice",
        "*.parquet",
        "the same file under two names",
        lambda: [parquet(), parquet()],
        refused="files_to_differ",
        rows=40,
        says="part-0.parquet and part-1.parquet hold the same bytes",
    )
    add(
        "two-without-rows",
        "*.csv",
        "three files, two of them without rows",
        lambda: [as_csv(some), *[as_csv(some).partition(b"\n")[0] + b"\n"] * 2],
        rows=12,
    )
    add(
        "row-in-two-files",
        "*.jsonl",
        "one row in two files",
        lambda: [as_lines(some), as_lines([*others, some[0]])],
        quarantined=(2, UNIQUE),
        rows=21,
    )
    add(
        "one-unreadable",
        "*.csv",
        "two files, one cut off",
        lambda: [as_csv(some), as_csv(others)[:-15]],
        refused=READABLE,
        rows=12,
        says="part-1.csv",
    )
    add(
        "one-without-a-column",
        "*.csv",
        "two files, one without a column",
        lambda: [
            as_csv(some),
            as_csv({k: v for k, v in row.items() if k != "x"} for row in others),
        ],
        refused=EXISTS,
        says="part-1.csv: column 'x' is missing",
    )
    add(
        "one-with-a-new-column",
        "*.jsonl",
        "two files, one with a new column",
        lambda: [as_lines(some), as_lines(row | {"new": 1} for row in others)],
        noted=NEW,
    )
    add(
        "other-types",
        "*.parquet",
        "two files, integers in one and floats in the other",
        lambda: [parquet(some), parquet(others, n=pa.float64())],
    )
    add(
        "one-without-rows",
        "*.csv",
        "two files, one with a header only",
        lambda: [as_csv(rows()), as_csv([])],
    )
    add(
        "all-without-rows",
        "*.parquet",
        "two files without rows",
        lambda: [
            as_parquet(as_table(rows()).slice(0, 0)),
            as_parquet(as_table(rows()).slice(0, 0).replace_schema_metadata({"a": "b"})),
        ],
        refused=ROWS_EXIST,
        rows=0,
    )
    add(
        "mixed-encodings",
        "*.parquet",
        "two files, text in one and a dictionary in the other",
        lambda: [
            parquet(some),
            as_parquet(
                as_table(others).set_column(
                    0, "id", as_table(others).column("id").dictionary_encode()
                )
            ),
        ],
    )
    add(
        "other-boolean-types",
        "*.parquet",
        "two files, booleans in one and 0 and 1 in the other",
        lambda: [parquet(some), parquet([r | {"ok": 1} for r in others], ok=pa.int8())],
    )
    add(
        "compressed",
        "*.csv.gz",
        "two files, compressed",
        lambda: [gzip.compress(as_csv(some)), gzip.compress(as_csv(others))],
    )
    add(
        "one-empty",
        "*.jsonl",
        "two files, one of zero bytes",
        lambda: [as_lines(rows()), b""],
        refused=READABLE,
        says="part-1.jsonl (0 bytes): the file is empty; deliver it again",
    )


def cases() -> list[Case]:
    """Give all cases."""
    corpus = _Corpus()
    _of_any_text(corpus, ".csv", as_csv)
    _of_any_text(corpus, ".jsonl", as_lines)
    _of_csv(corpus)
    _of_json(corpus)
    _of_parquet(corpus)
    _of_folders(corpus)
    return corpus.cases


def table() -> str:
    """Give the corpus as a Markdown table."""
    lines = ["| file | what it has | verdict |", "|---|---|---|"]
    lines += [f"| `{case.suffix}` | {case.what} | {case.outcome} |" for case in cases()]
    return "\n".join(lines)
