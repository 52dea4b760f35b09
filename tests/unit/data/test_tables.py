"""Tables on files and on S3, written by one, by many, and by hands that should not have."""

from __future__ import annotations

import datetime as dt
import decimal
import errno
import hashlib
import itertools
import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.retraining.data import delta_log, tables
from include.retraining.data.tables import DELIVERY, PARTITION, Snapshot, Table
from include.retraining.errors import DataError, NotPublished, Superseded, Unavailable
from include.retraining.storage import Storage

NOON = dt.datetime(2013, 1, 21, 12, tzinfo=dt.UTC)
NO_AGE = dt.timedelta(0)


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def content_of(rows: pa.Table, order: int) -> str:
    with pa.BufferOutputStream() as sink:
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        return digest(sink.getvalue().to_pybytes(), order)


def batch(*values: int | None) -> pa.Table:
    at = [NOON + dt.timedelta(hours=index) for index in range(len(values))]
    return pa.table(
        {"x": pa.array(values, pa.int64()), "at": pa.array(at, pa.timestamp("us", "UTC"))}
    )


def put(table: Table, partition: str, rows: pa.Table, order: int = 0) -> tables.Published:
    return table.replace(partition, rows, content=content_of(rows, order), order=order)


def values(snapshot: Snapshot, *partitions: str) -> list[Any]:
    return list(snapshot.read(partitions or None).column("x").to_pylist())


@pytest.fixture
def table(storage: Storage) -> Table:
    return Table(storage, "flights/tables/rows/batch")


@pytest.fixture
def local(tmp_path: Path) -> Table:
    return Table(Storage(f"file://{tmp_path}/a b é"), "flights/tables/rows/batch")


def folder(table: Table) -> Path:
    return Path(table.url.removeprefix("file://"))


def entry(table: Table, version: int) -> Path:
    return folder(table) / "_delta_log" / f"{version:020}.json"


def seen_by_another_process(table: Table) -> Snapshot:
    tables._forget()
    return table.snapshot()


# ---- what is in force


def test_a_table_that_is_not_there_is_empty(table: Table) -> None:
    snapshot = table.snapshot()
    assert (snapshot.version, dict(snapshot.parts), snapshot.schema.names) == (-1, {}, [])
    assert snapshot.read().num_rows == 0
    assert snapshot.files(column="at") == []
    assert table.snapshot(-1).version == -1
    with pytest.raises(NotPublished, match="no partition '2013-01-21' in version -1"):
        snapshot.read(["2013-01-21"])


def test_a_partition_comes_back_as_it_was_written(table: Table) -> None:
    rows = batch(3, None, 1)
    done = put(table, "2013-01-21", rows, order=2)
    assert done.changed
    assert done.before is None
    assert done.version == 0
    for snapshot in (table.snapshot(), seen_by_another_process(table)):
        assert snapshot.read().equals(rows)
        part = snapshot.parts["2013-01-21"]
        assert (part.order, part.rows, part.nulls) == (2, 3, {"x": 1, "at": 0})
        assert part.content == content_of(rows, 2)
        assert part.bytes == fsspec.url_to_fs(table.url)[0].size(part.files[0])
        assert snapshot.schema == rows.schema


def test_rows_come_in_order_of_partition_whatever_was_written_first(table: Table) -> None:
    put(table, "b", batch(4, 3))
    put(table, "c", batch(5))
    put(table, "a", batch(9, 1))
    snapshot = table.snapshot()
    assert list(snapshot.parts) == ["a", "b", "c"]
    assert values(snapshot) == [9, 1, 4, 3, 5]
    assert values(snapshot, "c", "a") == [9, 1, 5]


def test_only_the_columns_that_are_asked_for_are_read(table: Table) -> None:
    put(table, "a", batch(1, 2), order=7)
    snapshot = table.snapshot()
    read = snapshot.read(columns=[DELIVERY, "x", PARTITION])
    assert read.column_names == [DELIVERY, "x", PARTITION]
    content = snapshot.parts["a"].content
    assert read.to_pylist()[1] == {DELIVERY: f"000007-{content[:12]}", "x": 2, PARTITION: "a"}
    assert snapshot.read(columns=[]).num_columns == 0
    with pytest.raises(DataError, match="no column 'att' in version 0; did you mean 'at'"):
        snapshot.read(columns=["att"])


def test_no_rows_are_not_the_same_as_nothing(table: Table) -> None:
    put(table, "a", batch())
    part = table.snapshot().parts["a"]
    assert (part.rows, part.nulls) == (0, {"x": 0, "at": 0})
    assert table.snapshot().read(["a"]).equals(batch())
    with pytest.raises(NotPublished):
        table.snapshot().read(["b"])
    assert table.snapshot().files(column="at") == []


def test_the_same_delivery_twice_is_one_commit(table: Table) -> None:
    put(table, "a", batch(1), order=1)
    again = put(table, "a", batch(1), order=1)
    assert not again.changed
    assert again.version == 0
    assert again.part == again.before == table.snapshot().parts["a"]


def test_a_correction_takes_the_place_of_what_it_corrects(table: Table) -> None:
    put(table, "a", batch(1, 2), order=1)
    put(table, "b", batch(7), order=1)
    done = put(table, "a", batch(5), order=2)
    assert done.before is not None
    assert (done.before.order, done.part.order, done.version) == (1, 2, 2)
    assert values(table.snapshot()) == [5, 7]
    assert values(table.snapshot(1)) == [1, 2, 7]


def test_an_older_delivery_is_refused_and_leaves_nothing_behind(local: Table) -> None:
    put(local, "a", batch(1), order=5)
    files = {*folder(local).rglob("*")}
    with pytest.raises(Superseded, match=r"delivery 5 in force .* delivery 4 .* is older"):
        put(local, "a", batch(2), order=4)
    assert {*folder(local).rglob("*")} == files
    assert values(local.snapshot()) == [1]


def test_rows_of_the_same_delivery_may_be_made_anew(table: Table) -> None:
    put(table, "a", batch(1), order=5)
    assert put(table, "a", batch(2), order=5).changed
    assert values(table.snapshot()) == [2]


def test_the_commit_says_what_it_is(local: Table) -> None:
    local.replace(
        "a", batch(1), content=digest(1), order=3, about={"suite": "flights 7", "by": "x"}
    )
    put(local, "b", batch(1))
    local.replace("b", batch(2), content=digest(2), order=3, about={"suite": "flights 8"})
    told = DeltaTable(str(folder(local))).history()
    assert [one.get("suite") for one in told] == ["flights 8", None, "flights 7"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"partition": "../a"}, "cannot name a folder"),
        ({"partition": ""}, "cannot name a folder"),
        ({"partition": "a/b"}, "cannot name a folder"),
        ({"content": "xyz"}, "content must be 12 to 128 lower-case hex digits"),
        ({"order": -1}, "order must be 0"),
        ({"order": 10**9}, "order must be 0"),
    ],
)
def test_what_cannot_be_in_a_path_is_refused(
    local: Table, wrong: dict[str, Any], message: str
) -> None:
    asked: dict[str, Any] = {"partition": "a", "content": digest(1), "order": 0} | wrong
    with pytest.raises(DataError, match=message):
        local.replace(asked.pop("partition"), batch(1), **asked)
    assert local.snapshot().version == -1


def test_a_folder_that_delta_would_misread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without a percent sign"):
        Table(Storage(f"file://{tmp_path}/a%20b"), "m/tables/rows")


def test_a_stream_is_written_as_it_comes(table: Table) -> None:
    pieces = [batch(*range(n)).to_batches() for n in (1, 5, 0, 3)]
    flat = [one for some in pieces for one in some]
    reader = pa.RecordBatchReader.from_batches(batch().schema, iter(flat))
    table.replace("a", reader, content=digest("stream"))
    assert values(table.snapshot()) == [0, 0, 1, 2, 3, 4, 0, 1, 2]


def test_a_stream_that_breaks_leaves_nothing_behind(table: Table) -> None:
    put(table, "a", batch(1))

    def broken() -> Iterator[pa.RecordBatch]:
        yield from batch(2, 3).to_batches()
        raise ConnectionResetError("the source is gone")

    reader = pa.RecordBatchReader.from_batches(batch().schema, broken())
    with pytest.raises(ConnectionResetError):
        table.replace("b", reader, content=digest("broken"))
    assert values(seen_by_another_process(table)) == [1]
    assert not [key for key in table.storage.list(table.key) if f"{PARTITION}=b" in key]


def test_a_stream_is_never_held_whole(local: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 10_000)
    piece = pa.record_batch({f"c{n}": pa.array(range(10_000), pa.int64()) for n in range(10)})

    def stream() -> Iterator[pa.RecordBatch]:
        for _ in range(100):
            held.append(pa.total_allocated_bytes())
            yield piece

    held: list[int] = []
    reader = pa.RecordBatchReader.from_batches(piece.schema, stream())
    local.replace("a", reader, content=digest("long"))
    assert local.snapshot().parts["a"].rows == 1_000_000
    assert max(held) - held[0] < 10 * piece.nbytes  # of 100


# ---- versions, and what is removed


def test_a_version_stays_what_it_was(table: Table) -> None:
    for order in range(25):  # beyond two checkpoints
        put(table, "a", batch(order), order=order)
    for version in (0, 9, 10, 11, 19, 20, 24):
        assert values(table.snapshot(version)) == [version]
        tables._forget()
    with pytest.raises(DataError, match="version 25"):
        table.snapshot(25)


def test_vacuum_keeps_what_is_pinned_and_removes_the_rest(table: Table) -> None:
    for order in range(45):
        put(table, "a", batch(order), order=order)
        if order % 10 == 0:
            put(table, f"b{order}", batch(-order))
    pinned = 17
    was = table.snapshot(pinned).read()
    newest = table.snapshot().read()
    told = table.vacuum(keep_versions=[pinned], older_than=NO_AGE, dry_run=True)
    assert table.snapshot(3).read() is not None  # only told
    removed = table.vacuum(keep_versions=[pinned], older_than=NO_AGE)
    assert set(told) <= set(removed)
    assert [one for one in removed if one.startswith("_delta_log/")]
    tables._forget()
    assert table.snapshot(pinned).read().equals(was)
    assert table.snapshot().read().equals(newest)
    for version in (3, 30):
        with pytest.raises(DataError):
            tables._forget() or table.snapshot(version).read()
    for order in range(100, 125):  # through more checkpoints, and another vacuum
        put(table, "a", batch(order), order=order)
    table.vacuum(keep_versions=[pinned], older_than=NO_AGE)
    tables._forget()
    assert table.snapshot(pinned).read().equals(was)
    assert values(table.snapshot(), "a") == [124]


def test_vacuum_leaves_what_is_recent(table: Table) -> None:
    for order in range(25):
        put(table, "a", batch(order), order=order)
    assert table.vacuum(keep_versions=[], older_than=dt.timedelta(hours=1)) == []
    for version in (0, 12, 24):
        assert values(table.snapshot(version)) == [version]


def test_vacuum_leaves_a_file_that_is_about_to_be_committed(local: Table) -> None:
    put(local, "a", batch(1))
    waiting = tables._write(local, batch(2), local.snapshot(), "b", tables._name(0, digest(2)))
    local.vacuum(keep_versions=[], older_than=NO_AGE)
    assert local.data_path(waiting.path) in map(str, folder(local).rglob("*.parquet"))
    old = time.time() - 2 * 86_400
    os.utime(local.data_path(waiting.path), (old, old))
    assert local.vacuum(keep_versions=[], older_than=NO_AGE) == [waiting.path]


def test_vacuum_refuses_to_keep_what_was_never_there(local: Table) -> None:
    assert local.vacuum(keep_versions=[], older_than=NO_AGE) == []
    put(local, "a", batch(1))
    with pytest.raises(DataError, match=r"0 to 0, got \[3\]"):
        local.vacuum(keep_versions=[3], older_than=NO_AGE)


def _fill(log: delta_log.Log, count: int, state: delta_log.State) -> delta_log.State:
    """Commit partitions that have no data file: what is looked at is the log."""
    for version in range(state.version + 1, count):
        name = f"p{version:05}"
        add = {
            "path": f"{PARTITION}={name}/{DELIVERY}=000000-{digest(version)[:12]}/"
            f"000000-{digest(version)}-{version + 1}-{version:08x}.parquet",
            "partitionValues": {PARTITION: name, DELIVERY: f"000000-{digest(version)[:12]}"},
            "size": 1, "modificationTime": 0, "dataChange": True,
            "stats": '{"numRecords": 1, "nullCount": {"x": 0, "at": 0}}',
        }  # fmt: skip
        about = {"commitInfo": {"engineInfo": delta_log.ENGINE, "operation": "WRITE"}}
        actions = [about, {"add": add}, {"txn": {"appId": name, "version": 0}}]
        after = log.commit(state, actions)
        assert after is not None
        state = after
    return state


def _log_sizes(table: Table) -> tuple[int, dict[int, int]]:
    """Give the bytes of all commits, and of each checkpoint."""
    files = {path.name: path.stat().st_size for path in (folder(table) / "_delta_log").iterdir()}
    commits = sum(size for name, size in files.items() if name.endswith(".json"))
    return commits, {int(n[:20]): s for n, s in files.items() if n.endswith(".parquet")}


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("no_sync")
def test_a_log_grows_with_the_history_and_not_with_its_square(local: Table, monkeypatch) -> None:
    # after a backfilled year of hours it was 860 MB, because every checkpoint stayed
    monkeypatch.setattr(delta_log, "KEPT_EVERY", 32)
    monkeypatch.setattr(delta_log, "COMMIT_BYTES", 256)
    put(local, "p00000", batch(0))
    state = local._log.newest()
    for count in (150, 300, 600):
        state = _fill(local._log, count, state)
        commits, checkpoints = _log_sizes(local)
        newest = checkpoints[max(checkpoints)]
        assert sum(checkpoints.values()) < commits + (delta_log.HINT_EVERY + 2) * newest
        # any version is made again from one checkpoint and no more commits than this
        marks = [0, *sorted(checkpoints), state.version]
        apart = max(later - one for one, later in itertools.pairwise(marks))
        assert apart <= 2 * delta_log.spacing_of(newest)
    for version in (0, 1, 31, 32, 33, 200, 450, 575, 598, 599):
        assert local._log.at(version).files.num_rows == version + 1
        assert DeltaTable(str(folder(local)), version=version).version() == version
    assert DeltaTable(str(folder(local))).version() == 599
    # a vacuum finds nothing more to thin, and what it leaves can still be read after more commits
    with local._lock_of():
        local._clean_log([300], 599, dt.timedelta(0), dry_run=False)
    state = _fill(local._log, 700, state)
    for version in (300, 301, 450, 597, 598, 599, 650, 699):
        assert local._log.at(version).files.num_rows == version + 1
    with pytest.raises(DataError):
        local._log.at(3)


@pytest.mark.usefixtures("no_sync")
def test_a_vacuum_removes_checkpoints_that_its_own_commits_keep_from_writers(local: Table) -> None:
    # delta-rs commits twice for a vacuum; that can be the commit with which writers remove some
    for order in range(49):
        put(local, "a", batch(order), order)
    local.vacuum(keep_versions=[], older_than=NO_AGE)
    assert local.snapshot().version == 50
    _, checkpoints = _log_sizes(local)
    assert len(checkpoints) <= 4
    tables._forget()
    assert values(local.snapshot()) == [48]
    put(local, "a", batch(49), 49)
    assert values(seen_by_another_process(local)) == [49]


@pytest.mark.usefixtures("no_sync")
def test_a_hint_to_a_checkpoint_that_was_removed_leads_to_a_newer_one(local: Table) -> None:
    put(local, "p00000", batch(0))
    _fill(local._log, 60, local._log.newest())
    hint = folder(local) / "_delta_log" / "_last_checkpoint"
    # a slow writer has put it there after others had gone on
    hint.write_text(hint.read_text().replace('"version": 50', '"version": 14'))
    assert 14 not in _log_sizes(local)[1]
    assert local._log.newest().version == 59
    assert DeltaTable(str(folder(local))).version() == 59


@pytest.mark.usefixtures("no_sync")
def test_a_reader_whose_checkpoint_is_removed_meanwhile_looks_again(local: Table, monkeypatch):
    put(local, "p00000", batch(0))
    state, log = _fill(local._log, 49, local._log.newest()), local._log
    listed = log._list

    def slow(*arguments: Any) -> Any:
        found = listed(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(log, "_list", listed)
            _fill(log, 80, log._open(None))
        return found

    monkeypatch.setattr(log, "_list", slow)
    assert log.newest().version == 79
    assert state.version == 48
    assert log.at(40).files.num_rows == 41


def test_a_folder_has_any_object_or_none(storage: Storage) -> None:
    storage.write("m/validated/a/b", b"1")
    told = [storage.has_any(name) for name in ("m", "m/validated", "m/valid", "m/never")]
    assert told == [True, True, False, False]


def test_objects_are_removed_all_at_once(storage: Storage) -> None:
    for name in "abc":
        storage.write(f"m/{name}", b"1")
    storage.delete_all(["m/a", "m/c", "m/never"])
    assert storage.list("m") == ["m/b"]
    storage.delete_all([])


# ---- types


KEPT = [
    pytest.param(pa.array([1, None, 127], pa.int8()), pa.int8(), id="int8"),
    pytest.param(pa.array([1, None, -(2**63)], pa.int64()), pa.int64(), id="int64"),
    pytest.param(pa.array([1, None, 255], pa.uint8()), pa.int16(), id="uint8"),
    pytest.param(pa.array([1, None, 65_535], pa.uint16()), pa.int32(), id="uint16"),
    pytest.param(pa.array([1, None, 2**32 - 1], pa.uint32()), pa.int64(), id="uint32"),
    pytest.param(pa.array([1, None, 2**64 - 1], pa.uint64()), pa.decimal128(20, 0), id="uint64"),
    pytest.param(pa.array([0.5, None, float("inf")], pa.float32()), pa.float32(), id="float32"),
    pytest.param(pa.array([0.1, None, 5e-324], pa.float64()), pa.float64(), id="float64"),
    pytest.param(pa.array([True, None, False]), pa.bool_(), id="bool"),
    pytest.param(pa.array(["", None, "é\x00\n"]), pa.string(), id="string"),
    pytest.param(pa.array(["a", None], pa.large_string()), pa.string(), id="large string"),
    pytest.param(pa.array(["a", None, "b", "a"]).dictionary_encode(), pa.string(), id="category"),
    pytest.param(pa.array([b"", None, b"\xff"]), pa.binary(), id="binary"),
    pytest.param(pa.array([b"ab", None], pa.binary(2)), pa.binary(), id="fixed binary"),
    pytest.param(
        pa.array([decimal.Decimal("1.10"), None], pa.decimal128(38, 2)),
        pa.decimal128(38, 2),
        id="decimal",
    ),
    pytest.param(pa.array([dt.date(1, 1, 1), None, dt.date(9999, 12, 31)]), pa.date32(), id="date"),
    pytest.param(
        pa.array([-1, None, 2**61], pa.timestamp("us", "UTC")), pa.timestamp("us", "UTC"), id="utc"
    ),
    pytest.param(pa.array([-1, None, 5], pa.timestamp("us")), pa.timestamp("us"), id="naive"),
    pytest.param(
        pa.array([-1, None, 5], pa.timestamp("s", "Europe/Paris")),
        pa.timestamp("us", "UTC"),
        id="zone",
    ),
    pytest.param(
        pa.array([[1], None, [], [None]], pa.list_(pa.uint8())), pa.list_(pa.int16()), id="list"
    ),
    pytest.param(
        pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
        pa.struct([("a", pa.int64()), ("b", pa.string())]),
        id="struct",
    ),
    pytest.param(
        pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        pa.map_(pa.string(), pa.int32()),
        id="map",
    ),
]


@pytest.mark.parametrize(("column", "kind"), KEPT)
def test_values_come_back_in_a_type_that_holds_them(
    local: Table, column: pa.Array, kind: pa.DataType
) -> None:
    put(local, "a", pa.table({"id": range(len(column)), "c": column}))
    snapshot = seen_by_another_process(local)
    read = snapshot.read().column("c")
    assert snapshot.schema.field("c").type == read.type == kind
    if kind == pa.timestamp("us", "UTC"):  # the same instants
        column = column.cast(kind)
    if kind == pa.decimal128(20, 0):  # Arrow has no cast back
        assert read.to_pylist() == column.to_pylist()
    else:
        assert read.cast(column.type).equals(pa.chunked_array([column]))
    # and so it does to those who know nothing of us
    foreign = DeltaTable(str(folder(local))).to_pyarrow_table().column("c")
    assert foreign.cast(kind).equals(read)


def test_nanoseconds_are_cut_to_microseconds(local: Table) -> None:
    fine = pa.array([1_999, None, -1], pa.timestamp("ns", "UTC"))
    put(local, "a", pa.table({"at": fine}))
    got = local.snapshot().read().column("at").cast(pa.int64()).to_pylist()
    assert got == fine.cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64()).to_pylist()
    assert got[:2] == [1, None]


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(pa.array([1], pa.time64("us")), id="time of day"),
        pytest.param(pa.array([1], pa.duration("s")), id="duration"),
        pytest.param(pa.array([[1]], pa.list_(pa.duration("s"))), id="nested"),
        pytest.param(pa.array([{}], pa.struct([])), id="struct of nothing"),
        pytest.param(pa.array([[]], pa.list_(pa.null())), id="list of nothing"),
    ],
)
def test_what_delta_cannot_hold_is_refused_by_name(local: Table, column: pa.Array) -> None:
    with pytest.raises(DataError, match=r"'c' is .* which a Delta table cannot hold; convert it"):
        put(local, "a", pa.table({"id": [1], "c": column}))
    assert local.snapshot().version == -1
    assert not list(folder(local).rglob("*.parquet"))


@pytest.mark.parametrize("name", [PARTITION, DELIVERY, "id"])
def test_names_that_would_clash_are_refused(local: Table, name: str) -> None:
    with pytest.raises(DataError, match="column names must differ"):
        put(local, "a", pa.Table.from_arrays([pa.array([1]), pa.array([1])], names=["id", name]))


def test_a_column_may_come_later_and_another_may_go(table: Table) -> None:
    put(table, "a", pa.table({"id": [1, 2], "old": [1.5, None]}))
    put(table, "b", pa.table({"id": [3], "new": ["x"], "none": pa.nulls(1)}))
    snapshot = seen_by_another_process(table)
    assert snapshot.schema.names == ["id", "old", "new"]
    assert snapshot.read().to_pydict() == {
        "id": [1, 2, 3],
        "old": [1.5, None, None],
        "new": [None, None, "x"],
    }
    assert snapshot.parts["a"].nulls == {"id": 0, "old": 1, "new": 2}
    assert snapshot.parts["b"].nulls == {"id": 0, "old": 1, "new": 0}
    assert table.snapshot(0).schema.names == ["id", "old"]


def test_a_column_without_values_takes_the_type_the_table_has(local: Table) -> None:
    put(local, "a", pa.table({"id": [1], "c": pa.nulls(1)}))
    assert local.snapshot().schema.names == ["id"]
    put(local, "b", pa.table({"id": [1], "c": ["x"]}))
    put(local, "c", pa.table({"id": [1], "c": pa.array([None], pa.float64())}))
    put(local, "d", pa.table({"id": [1], "c": pa.nulls(1)}))
    assert local.snapshot().read().column("c").to_pylist() == [None, "x", None, None]
    assert local.snapshot().schema.field("c").type == pa.string()


@pytest.mark.parametrize(
    ("has", "comes"),
    [
        pytest.param(pa.array([1]), pa.array([2.0, None, 2.0**62]), id="whole floats"),
        pytest.param(pa.array([0.5]), pa.array([2, None, 2**53]), id="integers"),
        pytest.param(pa.array([0.5]), pa.array([0.1, float("nan")], pa.float32()), id="float32"),
        pytest.param(
            pa.array([0.5], pa.float32()), pa.array([0.25, None, float("nan")]), id="float64"
        ),
        pytest.param(pa.array([1], pa.int64()), pa.array([7], pa.int32()), id="int32"),
        pytest.param(pa.array([1], pa.int8()), pa.array([127], pa.int64()), id="small int64"),
        pytest.param(pa.array([1], pa.uint64()), pa.array([2**62]), id="into uint64"),
        pytest.param(
            pa.array([1], pa.timestamp("us", "UTC")), pa.array([7], pa.timestamp("us")), id="naive"
        ),
    ],
)
def test_another_type_is_taken_where_every_value_survives(
    local: Table, has: pa.Array, comes: pa.Array
) -> None:
    put(local, "a", pa.table({"c": has}))
    put(local, "b", pa.table({"c": comes}))
    read = local.snapshot().read(["b"]).column("c")
    assert read.type == local.snapshot(0).schema.field("c").type
    assert read.null_count == comes.null_count
    back = read.cast(comes.type, safe=False).to_pandas()
    pd.testing.assert_series_equal(back, pa.chunked_array([comes]).to_pandas())


@pytest.mark.parametrize(
    ("has", "comes"),
    [
        pytest.param(pa.array([1]), pa.array([2.5]), id="a fraction"),
        pytest.param(pa.array([1]), pa.array([float("nan")]), id="not a number"),
        pytest.param(pa.array([1]), pa.array([2.0**63]), id="a float beyond int64"),
        pytest.param(pa.array([0.5]), pa.array([2**53 + 1]), id="an integer beyond float64"),
        pytest.param(pa.array([0.5], pa.float32()), pa.array([0.1]), id="float64"),
        pytest.param(pa.array([1], pa.int8()), pa.array([128]), id="too large"),
        pytest.param(pa.array([1]), pa.array(["1"]), id="text"),
        pytest.param(pa.array(["1"]), pa.array([1]), id="into text"),
        pytest.param(pa.array([True]), pa.array([1]), id="into bool"),
        pytest.param(
            pa.array([1], pa.timestamp("us", "UTC")), pa.array([dt.date(2013, 1, 1)]), id="date"
        ),
        pytest.param(pa.array([1], pa.uint64()), pa.array([2.5]), id="a fraction into uint64"),
    ],
)
def test_a_value_is_never_changed_to_fit(local: Table, has: pa.Array, comes: pa.Array) -> None:
    put(local, "a", pa.table({"c": has}))
    with pytest.raises(DataError, match=r"column 'c' is .* in this batch and .* in the table"):
        put(local, "b", pa.table({"c": comes}))
    assert list(local.snapshot().parts) == ["a"]


_NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)
_VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(),
    pa.string(): st.text(st.characters(codec="utf-8")),
    pa.bool_(): st.booleans(),
    pa.timestamp("us", "UTC"): st.integers(-(2**62), 2**62),
    pa.timestamp("us"): st.integers(-(2**62), 2**62),
}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_columns_come_back(tmp_path: Path, data: st.DataObject) -> None:
    names = data.draw(st.lists(_NAMES, min_size=1, max_size=4, unique_by=str.casefold))
    rows = data.draw(st.integers(0, 4))
    columns = {}
    for name in names:
        kind = data.draw(st.sampled_from(list(_VALUES)))
        some = _VALUES[kind]
        columns[name] = pa.array(
            data.draw(st.lists(st.none() | some, min_size=rows, max_size=rows)), kind
        )
    written = pa.table(columns)
    table = Table(Storage(f"file://{tmp_path}/{uuid.uuid4().hex}"), "m/tables/rows")
    table.replace("a", written, content=digest("any"))
    snapshot = seen_by_another_process(table)
    read = snapshot.read()
    assert read.schema == written.schema
    for name in names:
        left, right = read.column(name).combine_chunks(), columns[name]
        assert left.is_null().equals(right.is_null())
        if right.type == pa.float64():
            assert repr(left.to_pylist()) == repr(right.to_pylist())
        else:
            assert left.equals(right)
        assert snapshot.parts["a"].nulls[name] == right.null_count


# ---- statistics


def test_files_are_found_by_when_their_rows_were(table: Table) -> None:
    day = dt.timedelta(days=1)
    for number in range(3):
        at = [NOON + number * day, NOON + number * day + dt.timedelta(microseconds=1), None]
        put(
            table,
            f"p{number}",
            pa.table({"at": pa.array(at, pa.timestamp("us", "UTC")), "id": range(3)}),
        )
    put(table, "p3", pa.table({"at": pa.array([None], pa.timestamp("us", "UTC")), "id": [1]}))
    snapshot = seen_by_another_process(table)

    def found(first: dt.datetime | None, last: dt.datetime | None) -> list[str]:
        paths = snapshot.files(column="at", first=first, last=last)
        return [path.split(f"{PARTITION}=")[1][:2] for path in paths]

    tick = dt.timedelta(microseconds=1)
    assert found(None, None) == ["p0", "p1", "p2"]
    assert found(NOON + day, NOON + day) == ["p1"]
    assert found(NOON + day + tick, NOON + day + tick) == ["p1"]
    assert found(NOON + day + 2 * tick, NOON + 2 * day - tick) == []
    assert found(NOON + day + tick, NOON + 2 * day) == ["p1", "p2"]
    assert found(None, NOON.replace(tzinfo=None)) == ["p0"]
    path = snapshot.files(column="at")[0]
    with fsspec.open(path if path.startswith("s3://") else f"file://{path}") as file:
        assert pq.read_table(file, partitioning=None).num_rows == 3
    with pytest.raises(DataError, match="not a timestamp"):
        snapshot.files(column="id")
    with pytest.raises(DataError, match="no column 'when'"):
        snapshot.files(column="when")


def test_moments_that_no_text_can_tell_are_never_left_out(local: Table) -> None:
    far = pa.array([2**62], pa.timestamp("us", "UTC"))
    put(local, "a", pa.table({"at": far, "naive": far.cast(pa.timestamp("us"))}))
    assert len(local.snapshot().files(column="at", last=NOON)) == 1
    assert len(local.snapshot().files(column="naive", last=NOON)) == 1


def test_moments_and_counts_are_found_whatever_columns_are_called(local: Table) -> None:
    names = [
        "at",
        'x"at',
        "at}",
        "at{",
        ', "at": "2001-01-01Z"',
        "maxValues",
        '"maxValues": {',
        "é",
    ]
    moments = {name: NOON + n * dt.timedelta(days=1) for n, name in enumerate(names)}
    some = {name: pa.array([moment, None, moment]) for name, moment in moments.items()}
    put(local, "a", pa.table(some))
    put(local, "b", pa.table({"at": some["at"]}))  # and one without any brace
    snapshot = seen_by_another_process(local)
    tick = dt.timedelta(microseconds=1)
    for name, moment in moments.items():
        also = ["b"] if name == "at" else []
        assert snapshot.between(name, moment, moment) == ["a", *also]
        assert snapshot.between(name, moment + tick) == snapshot.between(name, None, moment - tick)
        assert snapshot.between(name, moment + tick) == []
        assert snapshot.values_of(name, ["a"]) == 2
        assert snapshot.values_of(name, ["a", "b"]) == (4 if also else 2)


def test_a_column_that_came_later_has_no_moments_before(local: Table) -> None:
    put(local, "a", pa.table({"id": [1]}))
    put(local, "b", pa.table({"id": [1], "at": pa.array([NOON])}))
    assert len(local.snapshot().files(column="at")) == 1


def test_every_column_of_a_wide_table_is_counted(local: Table) -> None:
    wide = {f"column {number}.é": pa.array([1.0, None]) for number in range(350)}
    put(local, "a", pa.table(wide | {"at": pa.array([NOON, None])}))
    snapshot = seen_by_another_process(local)
    assert snapshot.parts["a"].nulls == dict.fromkeys([*wide, "at"], 1)
    assert snapshot.files(column="at", first=NOON + dt.timedelta(days=1)) == []


# ---- other readers


def test_others_read_the_same_rows(local: Table) -> None:
    put(local, "2013-01-21", batch(1, 2), order=1)
    put(local, "2013-01-28", batch(3), order=2)
    put(local, "2013-01-28", batch(4), order=3)
    put(local, "2013-02-04", batch())
    ours = local.snapshot().read(columns=["x", "at", PARTITION, DELIVERY]).sort_by("x").to_pandas()
    theirs = DeltaTable(str(folder(local)))
    frame = theirs.to_pyarrow_table().sort_by("x").to_pandas()
    pd.testing.assert_frame_equal(frame, ours)
    pd.testing.assert_frame_equal(theirs.to_pandas().sort_values("x", ignore_index=True), ours)
    files = [str(path) for part in local.snapshot().parts.values() for path in part.files]
    found = duckdb.execute(
        f'SELECT x, "at", {PARTITION}::VARCHAR, {DELIVERY} FROM read_parquet(?) ORDER BY x', [files]
    ).fetchall()
    assert [row[0] for row in found] == [1, 2, 4]
    assert [row[2] for row in found] == ["2013-01-21", "2013-01-21", "2013-01-28"]
    assert [row[3] for row in found] == ours[DELIVERY].tolist()
    frames = [pd.read_parquet(path, partitioning=None) for path in files]
    assert pd.concat(frames)["x"].tolist() == [1, 2, 4]


# ---- who else is there


@pytest.fixture
def environment(request: pytest.FixtureRequest, table: Table) -> dict[str, str]:
    if table.storage.is_local:
        return {}
    return dict(request.getfixturevalue("s3_environment"))


def test_first_writers_of_one_partition_leave_one_of_them(
    table: Table, environment: dict[str, str], processes: ProcessPoolExecutor
) -> None:
    args = [(table.storage.url, table.key, environment, number, 0) for number in range(24)]
    told = list(processes.map(_replace_one, *zip(*args, strict=True)))
    snapshot = table.snapshot()
    (value,) = values(snapshot)
    assert told.count("refused") + told.count("changed") == 24
    assert told[value] == "changed"
    # each one that was told it is in force was, in a version of its own
    assert snapshot.version + 1 == told.count("changed")
    read = {values(table.snapshot(version))[0] for version in range(snapshot.version + 1)}
    assert read == {number for number, one in enumerate(told) if one == "changed"}


def test_the_newest_of_many_deliveries_wins_whoever_is_first(
    table: Table, environment: dict[str, str], processes: ProcessPoolExecutor
) -> None:
    args = [(table.storage.url, table.key, environment, number, number) for number in range(24)]
    told = list(processes.map(_replace_one, *zip(*args, strict=True)))
    assert values(table.snapshot()) == [23]
    assert told[23] == "changed"
    orders = [
        table.snapshot(version).parts["a"].order for version in range(table.snapshot().version + 1)
    ]
    assert orders == sorted(orders)


def test_the_same_delivery_from_many_is_one_commit(
    table: Table, environment: dict[str, str], processes: ProcessPoolExecutor
) -> None:
    args = [(table.storage.url, table.key, environment, 5, 1) for _ in range(24)]
    told = list(processes.map(_replace_one, *zip(*args, strict=True)))
    assert sorted(told) == ["changed"] + ["there"] * 23
    assert table.snapshot().version == 0


def test_writers_of_different_partitions_do_not_hinder_each_other(
    table: Table, environment: dict[str, str], processes: ProcessPoolExecutor
) -> None:
    args = [(table.storage.url, table.key, environment, number) for number in range(8)]
    told = [one for some in processes.map(_replace_five, *zip(*args, strict=True)) for one in some]
    snapshot = table.snapshot()
    assert told == [True] * 40
    assert len(snapshot.parts) == 40
    assert values(snapshot) == sorted(range(40), key=lambda number: f"p{number:02}")
    # each brought a column of its own
    assert {f"by_{number}" for number in range(8)} <= set(snapshot.schema.names)
    assert snapshot.version == 39


def _replace_one(url: str, key: str, environment: dict[str, str], number: int, order: int) -> str:
    os.environ |= environment
    try:
        done = put(Table(Storage(url), key), "a", batch(number), order)
    except Superseded:
        return "refused"
    return "changed" if done.changed else "there"


def _replace_five(url: str, key: str, environment: dict[str, str], number: int) -> list[bool]:
    os.environ |= environment
    table = Table(Storage(url), key)
    told = []
    for one in range(number * 5, number * 5 + 5):
        rows = batch(one).append_column(f"by_{number}", pa.array([number]))
        told.append(put(table, f"p{one:02}", rows).changed)
    return told


def test_a_lost_race_for_a_columns_type_writes_the_rows_again(local: Table) -> None:
    put(local, "a", batch(1))

    def rows() -> Iterator[pa.RecordBatch]:
        # while these are on their way, another process decides what type the new column has
        _in_another_process(_put_column, local.storage.url, local.key)
        yield pa.record_batch({"x": pa.array([7]), "new": pa.array([2])})

    reader = pa.RecordBatchReader.from_batches(
        pa.schema([("x", pa.int64()), ("new", pa.int64())]), rows()
    )
    done = local.replace("b", reader, content=digest("mine"))
    assert done.changed
    assert local.snapshot().read(["b"]).to_pydict() == {"x": [7], "at": [None], "new": [2.0]}
    there = [path for path in folder(local).rglob("*.parquet") if "_delta_log" not in path.parts]
    assert len(there) == 3  # the first attempt is gone


def _put_column(url: str, key: str) -> None:
    put(Table(Storage(url), key), "other", pa.table({"x": [1], "new": [0.5]}))


def test_a_rival_of_the_same_delivery_is_told_of(local: Table) -> None:
    def rows() -> Iterator[pa.RecordBatch]:
        _in_another_process(_put_rival, local.storage.url, local.key)
        yield from batch(7).to_batches()

    reader = pa.RecordBatchReader.from_batches(batch().schema, rows())
    with pytest.raises(Superseded, match="one delivery has two contents"):
        local.replace("a", reader, content=digest("mine"), order=1)
    assert values(local.snapshot()) == [8]
    assert len(list(folder(local).rglob("*.parquet"))) == 1


def _put_rival(url: str, key: str) -> None:
    put(Table(Storage(url), key), "a", batch(8), order=1)


def _in_another_process(target: Callable[..., None], *args: str) -> None:
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_threads_share_what_is_opened(table: Table) -> None:
    put(table, "a", batch(0))
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for one in range(5):
                put(table, f"p{number}-{one}", batch(number))
                assert f"p{number}-{one}" in table.snapshot().parts
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(table.snapshot().parts) == 21
    assert table.snapshot().version == 20


def test_an_object_that_is_kept_open_sees_what_others_write(local: Table) -> None:
    put(local, "a", batch(0))
    for order in range(1, 30):
        tables._forget() if order % 3 == 0 else None
        put(Table(local.storage, local.key), "a", batch(order), order)
        assert values(local.snapshot()) == [order]


def _fork(work: Callable[[], object]) -> str:
    """Do work in a forked child; give what it says."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def child() -> None:
        try:
            queue.put(repr(work()))
        except BaseException as error:  # noqa: BLE001 - told by the parent
            queue.put(f"{type(error).__name__}: {error}")

    process = context.Process(target=child)
    process.start()
    told = str(queue.get(timeout=60))
    process.join(60)
    return told


def _from_a_parent_that(url: str, key: str, opens: bool, result: str) -> None:
    table = Table(Storage(url), key)
    if opens:
        put(table, "parent", batch(3))

    def work() -> object:
        put(table, "forked", batch(5))
        return values(table.snapshot())

    Path(result).write_text(_fork(work))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("opens", "told"),
    [
        pytest.param(False, "[1, 5]", id="imports"),
        pytest.param(True, "[1, 5, 3]", id="writes"),
    ],
)
def test_a_forked_child_can_work_whatever_its_parent_has_done(
    table: Table, environment: dict[str, str], tmp_path: Path, opens: bool, told: str
) -> None:
    put(table, "a", batch(1))
    result = tmp_path / "told"
    process = multiprocessing.get_context("spawn").Process(
        target=_from_a_parent_that, args=(table.storage.url, table.key, opens, str(result))
    )
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert told in result.read_text()


# ---- what should not have happened


@pytest.fixture
def damaged(local: Table) -> Table:
    for order in range(4):
        put(local, "a", batch(order), order)
        put(local, f"b{order}", batch(order))
    for path in (folder(local) / "_delta_log").glob("*checkpoint*"):
        path.unlink()  # an entry before a checkpoint is never looked at again
    tables._forget()
    return local


@pytest.mark.parametrize("version", [0, 3, 7])
def test_an_entry_of_the_log_that_is_cut_off_is_told(damaged: Table, version: int) -> None:
    path = entry(damaged, version)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"from a backup; or stop what works with the table"):
        damaged.snapshot()
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")  # all but the first line
    with pytest.raises(DataError, match="its end is missing"):
        damaged.snapshot()


@pytest.mark.parametrize("damage", ["gone", "cut off"])
def test_a_data_file_that_is_gone_or_broken_is_mended_by_publishing_again(table: Table, damage):
    # publish it again was the advice, and publishing again found that it was in force
    put(table, "a", batch(1, 2), order=1)
    (path,) = table.snapshot().parts["a"].files
    files = fsspec.url_to_fs(table.url)[0]
    if damage == "gone":
        files.rm_file(path)
    else:
        files.pipe_file(path, b"PAR1")
    with pytest.raises(DataError, match="publish partition 'a' again"):
        seen_by_another_process(table).read()
    assert put(table, "a", batch(1, 2), order=1).changed
    assert values(seen_by_another_process(table)) == [1, 2]
    assert not put(table, "a", batch(1, 2), order=1).changed


def test_a_checkpoint_that_is_broken_is_done_without(local: Table) -> None:
    # all entries were there, and it was told to restore a backup
    for number in range(7):
        put(local, f"p{number}", batch(number))
    checkpoints = sorted((folder(local) / "_delta_log").glob("*.checkpoint.parquet"))
    assert len(checkpoints) == 2
    for number, path in enumerate(reversed(checkpoints)):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2 * number])  # nothing, then a half
        assert values(seen_by_another_process(local)) == list(range(7))
    put(local, "p7", batch(7))
    assert values(seen_by_another_process(local)) == list(range(8))
    for number in range(3):
        entry(local, number).unlink()
    tables._forget()
    with pytest.raises(DataError, match=r"neither a checkpoint nor the commits before it"):
        local.snapshot()


def test_any_number_of_broken_checkpoints_is_done_without(local: Table) -> None:
    # after three it was told that files are being removed while they are read
    for number in range(14):
        put(local, f"p{number:02}", batch(number))
    checkpoints = list((folder(local) / "_delta_log").glob("*.checkpoint.parquet"))
    assert len(checkpoints) == 4
    for path in checkpoints:
        path.write_bytes(b"PAR1")
    assert values(seen_by_another_process(local)) == list(range(14))


def test_a_refusal_after_an_answer_that_was_lost_leaves_the_commit_unknown(
    local: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    # that it was not committed is known of a first answer alone
    put(local, "a", batch(1))
    answers = [TimeoutError("slow"), PermissionError(errno.EACCES, "no"), TimeoutError("slow")]

    def create(*_: object) -> bool:
        raise answers.pop(0)

    def read(*_: object) -> bytes:
        raise TimeoutError("slow")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "create", create)
        patch.setattr(type(local._log), "_read", read)
        with pytest.raises(Unavailable, match="is unknown, because the storage does not answer"):
            local._log._create("00000000000000000001.json", b"")
    assert not answers


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_is_told_as_such(local: Table, monkeypatch, code: int) -> None:
    # it was told that whether there was a commit is unknown, because the storage does not answer
    put(local, "a", batch(1))

    def create(*_: object) -> bool:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "create", create)
        with pytest.raises(Unavailable, match="was not committed, because nothing can be written"):
            put(local, "b", batch(2))
    assert values(local.snapshot()) == [1]
    put(local, "b", batch(2))
    assert values(local.snapshot()) == [1, 2]


@pytest.mark.parametrize("version", [0, 3, 7])
def test_an_entry_of_the_log_that_is_empty_is_told(damaged: Table, version: int) -> None:
    entry(damaged, version).write_bytes(b"")
    with pytest.raises(DataError, match=r"what was committed there is lost|from a backup"):
        damaged.snapshot()


@pytest.mark.parametrize("version", [0, 3])
def test_an_entry_of_the_log_that_is_gone_is_told(damaged: Table, version: int) -> None:
    entry(damaged, version).unlink()
    with pytest.raises(DataError, match="log of the table cannot be used"):
        damaged.snapshot()


def _cut(path: Path, *, lines: bool = False) -> None:
    content = path.read_bytes()
    path.write_bytes(content.split(b"\n")[0] + b"\n" if lines else content[:-20])


def _checkpoints_away(table: Table, *, broken: bool = False) -> None:
    for path in (folder(table) / "_delta_log").glob("*checkpoint*"):
        path.write_bytes(b"PAR1") if broken else path.unlink()


def _without_entry(table: Table, version: int) -> None:
    _checkpoints_away(table)
    entry(table, version).unlink()


def _broken_and_away(table: Table) -> None:
    _checkpoints_away(table, broken=True)
    entry(table, 0).unlink()


def _entry(table: Table, damage: Callable[[Path], object]) -> None:
    _checkpoints_away(table)
    damage(entry(table, 1))


def _partition_deleted(table: Table) -> None:
    foreign = DeltaTable(str(folder(table)))
    foreign.delete(f"{PARTITION} = 'p1'")
    foreign.create_checkpoint()


TOLD = {
    "another program has written to the table": lambda table: DeltaTable(str(folder(table))).delete(
        f"{PARTITION} = 'p1'"
    ),
    "which this package does not write": lambda table: entry(table, 6).write_text(
        '{"domainMetadata": {}}\n'
    ),
    "another program has removed some": _partition_deleted,
    "is missing, but there is": lambda table: _without_entry(table, 3),
    "its end is missing": lambda table: _entry(table, lambda path: _cut(path, lines=True)),
    "cannot be read": lambda table: _entry(table, _cut),
    "what was committed there is lost": lambda table: _entry(table, lambda p: p.write_bytes(b"")),
    "neither a checkpoint nor the commits before it are there any more": _broken_and_away,
    "is gone, but version": lambda table: Path(table.snapshot().parts["p1"].files[0]).unlink(),
    "it is not what version": lambda table: _cut(Path(table.snapshot().parts["p1"].files[0])),
    "has no version": lambda table: _without_entry(table, 5),
}


@pytest.mark.parametrize("told", TOLD)
def test_what_the_page_on_bad_input_says_of_tables_is_told(local: Table, told: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "bad-input.md").read_text()
    section = page.split("## Tables that somebody has touched")[1].split("\n## ")[0]
    assert f"`{told}`" in section
    for number in range(6):
        put(local, f"p{number}", batch(number))
    TOLD[told](local)
    tables._forget()
    with pytest.raises(DataError, match=told):
        local.snapshot(5 if told == "has no version" else None).read()


def test_a_version_that_is_lost_is_not_read_as_another(damaged: Table) -> None:
    entry(damaged, 7).unlink()
    assert damaged.snapshot().version == 6  # nobody can tell; but who has read 7 finds out
    with pytest.raises(DataError, match="7"):
        damaged.snapshot(7)


def test_a_data_file_that_is_gone_is_told(table: Table) -> None:
    put(table, "a", batch(1))
    put(table, "b", batch(2))
    snapshot = table.snapshot()
    fsspec.url_to_fs(table.url)[0].rm_file(snapshot.parts["a"].files[0])
    with pytest.raises(DataError, match=r"is gone, but version 1 .* publish partition 'a'"):
        snapshot.read()
    assert values(snapshot, "b") == [2]
    # a correction mends it
    put(table, "a", batch(3), order=1)
    assert values(table.snapshot()) == [3, 2]


@pytest.mark.parametrize("left", [0, 10, 300])
def test_a_data_file_that_is_cut_off_is_told(table: Table, left: int) -> None:
    put(table, "a", batch(1))
    (path,) = table.snapshot().parts["a"].files
    filesystem = fsspec.url_to_fs(table.url)[0]
    filesystem.pipe_file(path, filesystem.cat_file(path)[:left])
    with pytest.raises(DataError, match="publish partition 'a' again"):
        table.snapshot().read()


def test_a_data_file_with_other_rows_is_told(local: Table) -> None:
    put(local, "a", batch(1, 2))
    pq.write_table(batch(1), local.snapshot().parts["a"].files[0])
    with pytest.raises(DataError, match=r"has 1 rows, but version 0 .* was written with 2"):
        local.snapshot().read()


def _append(table: Table) -> None:
    foreign = batch(9).append_column(PARTITION, pa.array(["z"]))
    write_deltalake(
        str(folder(table)), foreign.append_column(DELIVERY, pa.array(["x"])), mode="append"
    )


def _double(table: Table) -> None:
    write_deltalake(
        str(folder(table)),
        table.snapshot().read(["a"], columns=["x", "at", PARTITION, DELIVERY]),
        mode="append",
    )


def _delete_rows(table: Table) -> None:
    DeltaTable(str(folder(table))).delete("x = 1")


def _delete_partition(table: Table) -> None:
    DeltaTable(str(folder(table))).delete(f"{PARTITION} = 'a'")


def _compact(table: Table) -> None:
    put(table, "a", batch(5, 6), 9)
    DeltaTable(str(folder(table))).optimize.z_order(["x"])


@pytest.mark.parametrize("write", [_append, _double, _delete_rows, _delete_partition, _compact])
def test_what_another_program_has_written_is_told(
    local: Table, write: Callable[[Table], None]
) -> None:
    put(local, "a", batch(1, 2))
    put(local, "b", batch(3))
    write(local)
    for _ in range(2):
        with pytest.raises(DataError, match="another program has"):
            local.snapshot()
        with pytest.raises(DataError, match="another program has"):
            put(local, "c", batch(4))
        tables._forget()
    assert values(local.snapshot(1)) == [1, 2, 3]
    DeltaTable(str(folder(local))).restore(1)  # as the message says
    assert values(local.snapshot()) == [1, 2, 3]


def test_an_outage_is_not_told_as_a_fault_of_the_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    table = Table(Storage("s3://retraining/x"), "m/tables/rows")
    with pytest.raises(Unavailable, match="does not answer"):
        table.snapshot()
    with pytest.raises(Unavailable, match="does not answer"):
        put(table, "a", batch(1))


def test_the_endpoint_is_the_one_that_the_rest_of_the_package_uses() -> None:
    given_both = {"AWS_ENDPOINT_URL_S3": "https://a", "AWS_ENDPOINT_URL": "http://b"}
    options = tables.s3_options(given_both | {"HOME": "/"})
    assert options["AWS_ENDPOINT_URL"] == "https://a"
    assert options["allow_http"] == "false"
    assert options["conditional_put"] == "etag"
    assert "HOME" not in options
    assert tables.s3_options({"AWS_ENDPOINT_URL": "http://b"})["allow_http"] == "true"
    assert "allow_http" not in tables.s3_options({})


# ---- what it costs


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What an S3 server of its own is asked for; the environment names it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    seen: list[str] = []
    one_by_one, app = threading.Lock(), server._server.app  # type: ignore[union-attr]

    def serve(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        with one_by_one:
            return list(app(environ, start_response))

    server._server.app = serve  # type: ignore[union-attr]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://{}:{}".format(*server.get_host_and_port()))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"]).create_bucket(
        Bucket="counted"
    )
    yield seen
    server.stop()


def test_opening_and_publishing_cost_the_same_however_long_the_history(
    requests: list[str],
) -> None:
    table = Table(Storage(f"s3://counted/{uuid.uuid4().hex}"), "m/tables/rows")
    cost = {}

    def count(work: Callable[[], object]) -> int:
        before = len(requests)
        work()
        return len(requests) - before

    for number in range(64):
        put(table, f"{number:03}", batch(number))
        if number in {23, 61}:  # both right after a checkpoint
            tables._forget()
            cost[number] = [
                count(work)
                for work in (
                    table.snapshot,
                    table.snapshot,
                    lambda: table.snapshot().read(["005"]),
                    lambda number=number: put(table, f"{number:03}", batch(number), number),
                )
            ]
    assert cost[61] == cost[23]
    opened, opened_again, read, replaced = cost[61]
    assert opened == 3  # where the newest checkpoint is told, the names from there on, and itself
    assert opened_again == 1  # the next commit is not there
    assert read == 2  # neither, and the file
    assert replaced == 2  # the file, and the commit


# --- taking partitions out of force ---------------------------------------------------------------


def test_dropped_partitions_are_gone_and_the_version_before_still_has_them(storage: Storage):
    table = Table(storage, "m/tables/rows/batch")
    for number in range(5):
        rows = pa.table({"x": [number, number + 1]})
        table.replace(f"2024-01-0{number + 1}", rows, content=f"{number:032x}")
    before = table.snapshot()
    after = table.drop(["2024-01-01", "2024-01-02", "2030-01-01"])
    assert list(after.parts) == ["2024-01-03", "2024-01-04", "2024-01-05"]
    assert table.drop(["2024-01-01"]).version == after.version
    tables._forget()
    again = Table(storage, "m/tables/rows/batch")
    assert again.snapshot().read().column("x").to_pylist() == [2, 3, 3, 4, 4, 5]
    assert again.snapshot(before.version).read().num_rows == 10
    again.replace("2024-01-06", pa.table({"x": [9]}), content="a" * 32)
    tables._forget()
    assert Table(storage, "m/tables/rows/batch").snapshot().read().num_rows == 7


def test_replacing_from_old_knowledge_looks_again(storage: Storage):
    table = Table(storage, "m/tables/rows/batch")
    table.replace("2024-01-01", pa.table({"x": [1]}), content="a" * 32, order=1)
    known = dict(tables._opened)
    table.replace("2024-01-01", pa.table({"x": [2]}), content="b" * 32, order=2)
    tables._opened.clear()
    tables._opened.update(known)
    with pytest.raises(Superseded, match="has delivery 2 in force"):
        table.replace("2024-01-01", pa.table({"x": [1]}), content="a" * 32, order=1)
    tables._opened.clear()
    tables._opened.update(known)
    done = table.replace("2024-01-02", pa.table({"x": [3]}), content="c" * 32)
    assert done.changed
    assert table.snapshot().read().column("x").to_pylist() == [2, 3]


def test_a_partition_that_another_program_deleted_is_missed_whichever_it_is(local: Table) -> None:
    # of the newest one nothing was noticed: the count was told by the newest file
    for number in range(6):
        put(local, f"p{number}", batch(number))
    before = local.snapshot().version
    for number in (5, 2):
        foreign = DeltaTable(str(folder(local)))
        foreign.delete(f"{PARTITION} = 'p{number}'")
        # delta-rs may put a checkpoint behind it, which does not say who it was
        with pytest.raises(DataError, match=r"another program has .* restore"):
            seen_by_another_process(local)
        with pytest.raises(DataError, match="another program"):
            put(local, "p6", batch(6))
        DeltaTable(str(folder(local))).restore(before)
        assert values(seen_by_another_process(local)) == list(range(6))


def test_a_checkpoint_forgets_what_dropped_partitions_told(local: Table) -> None:
    # it had one line for each partition there had ever been
    for number in range(7):
        put(local, f"p{number}", batch(number))
    local.drop([f"p{number}" for number in range(5)])
    put(local, "p7", batch(7))
    tables._forget()
    known = local._log.newest()
    assert known.version == 8  # a checkpoint was written with it
    assert set(known.transactions) == {"p5", "p6", "p7", tables.DROPPED}
    assert list(local.snapshot().parts) == ["p5", "p6", "p7"]
