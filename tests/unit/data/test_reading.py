"""What comes out of a file is what its writer meant, value by value."""

from __future__ import annotations

import datetime as dt
import io
import json
import uuid
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.retraining.data import reading
from include.retraining.data.reading import Input, read_input
from tests.data_corpus import as_parquet, quoted, rows

COLUMNS = {"id": "string", "n": "integer", "x": "number", "ok": "boolean", "at": "timestamp"}


def read(name: str, content: bytes, *columns: str) -> Input:
    wanted = {column: COLUMNS[column] for column in columns}
    return read_input("batch", {name: content}, wanted, mapping=None, max_rows=10**7)  # type: ignore[arg-type]


def values(found: Input, column: str) -> list[object]:
    assert found.table is not None, found.findings
    return found.table.column(column).to_pylist()


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2020-01-02T03:04:05.123456789Z", 123456),
        ("2020-01-02T03:04:05.9999999Z", 999999),
        ("2020-01-02T03:04:05.12Z", 120000),
        ("2020-01-02 05:04:05,5+02:00", 500000),
        ("2020-01-02 03:04:05.25 UTC", 250000),
        ("2020-01-01 22:04:05 -0500", 0),
        ("2020-01-02t03:04:05z", 0),
        (" 2020-01-02T03:04:05+00 ", 0),
    ],
)
def test_one_instant_in_many_spellings_is_one_instant(text, microsecond):
    expected = dt.datetime(2020, 1, 2, 3, 4, 5, microsecond, tzinfo=dt.UTC)
    assert values(read("a.csv", f'at\n"{text}"\n'.encode(), "at"), "at") == [expected]
    assert values(read("a.jsonl", json.dumps({"at": text}).encode(), "at"), "at") == [expected]


@pytest.mark.parametrize("shift", range(12))
def test_no_byte_of_a_line_break_is_lost_at_the_edge_of_a_block(monkeypatch, shift):
    monkeypatch.setattr(reading, "BLOCK", 64)
    made = [row | {"id": f"{'x' * shift}{row['n']}\r\nb\rc\n"} for row in rows()]
    assert values(read("a.csv", quoted(made), "id"), "id") == [row["id"] for row in made]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_row_longer_than_many_blocks_is_read(monkeypatch, name):
    monkeypatch.setattr(reading, "BLOCK", 64)
    made = [row | {"id": "x" * 10_000} for row in rows()]
    content = quoted(made) if name == "a.csv" else "\n".join(map(json.dumps, made)).encode()
    assert values(read(name, content, "id"), "id") == ["x" * 10_000] * 20


@pytest.mark.parametrize("word", ["NULL", "\\N", "None", "nan", "N/A", "", " "])
def test_word_for_nothing_is_a_missing_value_where_no_text_is_declared(word):
    found = read("a.csv", f"n,x,ok,at\n{word},{word},{word},{word}\n1,2,true,\n".encode(), *COLUMNS)
    assert [f.column for f in found.findings] == ["id"]
    found = read("a.csv", f"n,x,ok\n{word},{word},{word}\n1,2,true\n".encode(), "n", "x", "ok")
    assert found.table.to_pylist()[0] == {"n": None, "x": None, "ok": None}
    assert not found.findings


def test_uuid_is_its_text_whatever_the_format():
    keys = [uuid.UUID(int=number << 100) for number in range(3)]
    table = pa.table({"id": pa.array([*(one.bytes for one in keys), None], pa.uuid())})
    assert values(read("a.parquet", as_parquet(table), "id"), "id") == [*map(str, keys), None]


def test_int96_is_an_instant_in_utc():
    at = [dt.datetime(year, 1, 1, 5, tzinfo=dt.UTC) for year in (1970, 2020, 2250)]
    buffer = io.BytesIO()
    table = pa.table({"at": pa.array(at, pa.timestamp("us", "UTC"))})
    pq.write_table(table, buffer, use_deprecated_int96_timestamps=True)
    assert values(read("a.parquet", buffer.getvalue(), "at"), "at") == at


def test_first_odd_value_and_its_row_are_named_however_many_follow():
    lines = [f"{number}" for number in range(1000)] + ["12,5"] * 3
    content = "n\n" + "\n".join(f'"{one}"' for one in lines)
    (finding,) = read("a.csv", content.encode(), "n").findings
    assert "must be integer, got '12,5' in row 1001 (the first is 1" in finding.detail


def test_odd_value_of_a_long_json_file_is_found():
    content = b'{"n": 1}\n' * 300_000 + b'{"n": "x"}\n'
    (finding,) = read("a.jsonl", content, "n").findings
    assert "got 'x' in row 300001" in finding.detail


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_text_with_too_many_rows_is_refused_like_any_other(name):
    content = b"n\n1\n2\n3\n" if name == "a.csv" else b'{"n": 1}\n' * 3
    found = read_input("batch", {name: content}, {"n": "integer"}, mapping=None, max_rows=2)
    assert "3 rows, validation.max_rows is 2" in found.findings[0].detail


def test_footer_is_believed_before_anything_is_unpacked(monkeypatch):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": ["A" * 70_000_000]}), buffer, compression="zstd")
    monkeypatch.setattr(pq, "ParquetFile", None)  # whoever opens it would fail
    found = read("a.parquet", buffer.getvalue(), "id")
    assert "looks like a decompression bomb" in found.findings[0].detail


def refusal(found: Input) -> str:
    assert found.is_refused
    return next(one.detail for one in found.findings if one.severity == "critical")


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_float_that_may_have_been_another_integer_is_refused_by_its_own_width(kind):
    first = {32: 2**24, 64: 2**53}[kind.bit_width]
    for number, is_kept in ((first - 1, True), (first, False), (-first, False)):
        sink = io.BytesIO()
        pq.write_table(
            pa.table({"n": pa.array([1, number], pa.int64()).cast(kind, safe=False)}), sink
        )
        found = read("a.parquet", sink.getvalue(), "n")
        if is_kept:
            assert values(found, "n") == [1, number]
        else:
            assert f"From {first} on a {kind.bit_width}-bit float leaves out" in refusal(found)


def test_decimals_become_the_nearest_float():
    texts = [f"{cents / 100:.2f}" for cents in range(2000)] + ["0.10000000000000000000"]
    decimals = pa.array([Decimal(text) for text in texts], pa.decimal128(38, 20))
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": decimals}), sink)
    expected = [float(text) for text in texts]
    assert values(read("a.parquet", sink.getvalue(), "x"), "x") == expected
    assert values(read("a.csv", ("x\n" + "\n".join(texts)).encode(), "x"), "x") == expected


@pytest.mark.parametrize("digits", ["9" * 400, "9" + "0" * 308, "0" * 5000 + "7"])
def test_number_of_any_length_is_told_and_not_raised(digits):
    found = read("a.csv", f"x\n1\n{digits}\n".encode(), "x")
    assert found.table is not None
    assert values(found, "x")[1] == float(digits)


@pytest.mark.parametrize("text", ["0x10", "0xFFFFFFFFFFFFFFFF", "-0X1"])
def test_integer_in_hexadecimal_is_refused(text):
    assert f"got '{text}' in row 2" in refusal(read("a.csv", f"n\n1\n{text}\n".encode(), "n"))


@pytest.mark.parametrize("header", ["id,note", "note,id"])
def test_quote_that_is_never_closed_is_refused_wherever_it_is(header):
    lines = [f"{n},{n}" for n in range(1000)]
    lines[990] = '990,"n990'
    found = read("a.csv", "\n".join([header, *lines]).encode(), "id")
    assert "a quote is never closed" in refusal(found)


def test_odd_quote_within_a_field_is_a_character():
    found = read("a.csv", b'id,note\n1,5" disk\n2,x\n', "id")
    assert values(found, "id") == ["1", "2"]


def test_brackets_without_end_are_refused_and_those_in_texts_are_not():
    deep = b'{"n":1,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert "nested more than 1,000 deep" in refusal(read("a.jsonl", deep, "n"))
    many = b'{"n":1,"a":"[[ \\" [{"}\n' * 2000
    assert len(values(read("a.jsonl", many, "n"), "n")) == 2000


def test_time_that_no_calendar_has_in_a_zone_that_is_none_is_refused():
    kind = pa.timestamp("ms", "Mars/Phobos")
    sink = io.BytesIO()
    pq.write_table(pa.table({"at": pa.array([2**60], pa.int64()).cast(kind)}), sink)
    assert "column 'at'" in refusal(read("a.parquet", sink.getvalue(), "at"))
