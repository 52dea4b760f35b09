from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from include.retraining.__main__ import main
from include.retraining.errors import DamagedRecord, DataError, RetrainingError, Unavailable
from include.retraining.records import BatchRef
from include.retraining.settings import Settings
from include.retraining.storage import Storage, json_bytes, sha256
from tests.unit.writers import create_keys


def test_written_object_is_read_back_and_replaced(storage: Storage):
    storage.write("a/b.bin", b"one")
    assert storage.read("a/b.bin") == b"one"
    storage.write("a/b.bin", b"")
    assert storage.read("a/b.bin") == b""


def test_object_that_is_not_there_is_not_found(storage: Storage):
    assert not storage.exists("a")
    with pytest.raises(FileNotFoundError):
        storage.read("a")
    with pytest.raises(FileNotFoundError):
        storage.read_json("a")
    assert storage.read_record("a", BatchRef) is None


def test_delete_removes_an_object_and_forgives_one_that_is_gone(storage: Storage):
    storage.write("a", b"1")
    storage.delete("a")
    storage.delete("a")
    assert not storage.exists("a")


def test_list_gives_all_keys_below_a_folder_in_order(storage: Storage):
    for key in ("m/b/2", "m/b/10", "m/a", "mm/a", "m/.hidden", "m/b/.1.tmp"):
        storage.write(key, b"")
    assert storage.list("m") == ["m/a", "m/b/10", "m/b/2"]
    assert storage.list("m/b") == ["m/b/10", "m/b/2"]
    assert storage.list("") == ["m/a", "m/b/10", "m/b/2", "mm/a"]
    assert storage.list("nothing") == []


def test_list_sees_what_was_written_since_it_was_last_asked(storage: Storage):
    assert storage.list("m") == []
    Storage(storage.url).write("m/a", b"")
    assert storage.list("m") == ["m/a"]


def test_create_writes_once_and_keeps_the_first(storage: Storage):
    assert storage.create("a/b", b"first")
    assert not storage.create("a/b", b"second")
    assert storage.read("a/b") == b"first"
    assert storage.list("") == ["a/b"]


def test_create_is_free_again_after_a_delete(storage: Storage):
    storage.create("a", b"first")
    storage.delete("a")
    assert storage.create("a", b"second")


def test_create_lets_one_of_eight_processes_win_each_key(request, storage: Storage, processes):
    environment = {} if storage.is_local else request.getfixturevalue("s3_environment")
    answers = [processes.submit(create_keys, storage.url, environment, n) for n in range(8)]
    won = [answer.result(timeout=60) for answer in answers]
    for key in range(10):
        winners = [number for number in range(8) if won[number][key]]
        assert len(winners) == 1
        assert storage.read(f"race/{key}") == str(winners[0]).encode()


def test_create_lets_one_of_eight_threads_win_each_key(storage: Storage):
    with ThreadPoolExecutor(8) as pool:
        for key in range(10):
            won = list(
                pool.map(lambda n, key=key: storage.create(f"race/{key}", b"%d" % n), range(8))
            )
            assert sum(won) == 1
            assert storage.read(f"race/{key}") == str(won.index(True)).encode()


def test_reader_sees_a_whole_object_while_it_is_replaced(tmp_path):
    storage = Storage(tmp_path.as_uri())
    contents = {bytes([letter]) * size for letter, size in ((65, 1), (66, 1_000_000))}
    storage.write("a", min(contents))
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            for content in contents:
                storage.write("a", content)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(replace)
        seen = {storage.read("a") for _ in range(200)}
        stop.set()
        writing.result()
    assert seen <= contents


def test_write_that_dies_half_way_leaves_the_old_object(tmp_path, monkeypatch):
    storage = Storage(tmp_path.as_uri())
    storage.write("a", b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        storage.write("a", b"new")
    assert storage.read("a") == b"old"
    assert storage.list("") == ["a"]


def test_a_full_disk_is_said_in_one_sentence_and_leaves_the_old_object(tmp_path):
    if os.geteuid() != 0 or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False
    ).returncode:  # fmt: skip
        pytest.skip("no right to mount a small disk")
    try:
        storage = Storage(tmp_path.as_uri())
        storage.write("a", b"old")
        with pytest.raises(Unavailable, match=r"takes nothing: No space left on device \(.*Make"):
            storage.write("a", bytes(200_000))
        with pytest.raises(Unavailable, match="takes nothing"):
            storage.create("b/c", bytes(200_000))
        assert storage.read("a") == b"old"
        assert storage.list("") == ["a"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_home_with_a_space_keeps_its_storage_inside(tmp_path):
    settings = Settings(home=tmp_path / "my home")
    Storage.of(settings).write("a", b"1")
    assert (tmp_path / "my home" / "storage" / "a").read_bytes() == b"1"


def test_record_is_read_back_as_it_was(storage: Storage, flights):
    batch = flights.batch_ref("2013-02-11")
    storage.write_json("batch.json", batch)
    assert storage.read_record("batch.json", BatchRef) == batch


def test_json_is_reproducible_and_refuses_what_json_cannot_say():
    assert json_bytes({"b": 1, "a": None}) == json_bytes({"a": None, "b": 1})
    for number in (float("nan"), float("inf")):
        with pytest.raises(DataError, match="cannot be kept as JSON"):
            json_bytes({"a": number})


def test_table_keeps_its_rows_and_its_instants_in_microseconds(storage: Storage):
    instants = np.array(["2013-01-07T05:15:00.123456789", "NaT"], "datetime64[ns]")
    times = pa.array(instants, pa.timestamp("ns", "UTC"))
    table = pa.table({"at": times, "x": [1.5, None], "s": ["a", None]})
    digest = storage.write_table("t.parquet", table)
    found = storage.read_table("t.parquet")
    assert found.schema.field("at").type == pa.timestamp("us", "UTC")
    assert found.column("at").to_pylist()[0].isoformat() == "2013-01-07T05:15:00.123456+00:00"
    assert found.select(["x", "s"]) == table.select(["x", "s"])
    assert digest == sha256(storage.read("t.parquet"))
    assert storage.read_table("t.parquet", ["x"]).column_names == ["x"]
    assert storage.write_table("t.parquet", table) == digest


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_one_digest_means_the_same_contents_in_the_same_order(one, other):
    assert (sha256(*one) == sha256(*other)) == (one == other)


@pytest.mark.parametrize(
    ("url", "is_local"),
    [("file:///a", True), ("/a", True), ("s3://b/a", False), ("memory://a", False)],
)
def test_storage_knows_whether_it_is_of_this_machine(url, is_local):
    assert Storage(url).is_local is is_local


def test_url_of_a_key_is_below_the_root(tmp_path: Path):
    assert Storage("s3://b/root/").url_of("a/b") == "s3://b/root/a/b"


@pytest.mark.parametrize(
    "key", ["..", "a/../b", "landing/x/../../../b", "a\\..\\b", "a\0b", "../a"]
)
def test_key_that_could_leave_the_root_is_refused_before_anything_is_touched(tmp_path: Path, key):
    storage = Storage((tmp_path / "root").as_uri())
    for use in (
        storage.read, storage.exists, storage.delete, storage.list, storage.read_table,
        storage.url_of, lambda one: storage.write(one, b""), lambda one: storage.create(one, b""),
    ):  # fmt: skip
        with pytest.raises(DataError, match="must stay below"):
            use(key)
    assert list(tmp_path.iterdir()) == []


def test_key_may_have_dots_that_are_no_way_up(storage: Storage):
    storage.write("a..b/c...", b"1")
    assert storage.read("a..b/c...") == b"1"


@pytest.mark.parametrize("key", ["x/../..", "..", "2020-01-01\n", "2020-01-01/..", "", "2020-1-1"])
def test_batch_cannot_have_a_partition_that_names_a_path(key):
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    with pytest.raises(ValidationError, match="partition"):
        BatchRef(model="m", partition=key, start=start, end=start)


def test_version_of_an_object_changes_whenever_it_is_rewritten(storage: Storage):
    for content in (b"one", b"two", b"two"):
        storage.write("a/b.json", content)
    storage.write("a/.hidden", b"")
    before = storage.list_versions("a")
    assert list(before) == ["a/b.json"]
    assert storage.list_versions("a") == before
    storage.write("a/b.json", b"six")  # of the same length
    assert storage.list_versions("a") != before
    assert storage.list_versions("nowhere") == {}


# --- stores that differ from Amazon's -------------------------------------------------------------


@pytest.fixture
def other_store(
    s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[..., Any]], Storage]]:
    """An S3 server of another make: a WSGI middleware around the one there is."""
    from moto.server import ThreadedMotoServer

    made = []

    def start(middleware: Callable[..., Any]) -> Storage:
        server = ThreadedMotoServer(port=0, verbose=False)
        server.start()
        made.append(server)
        server._server.app = _one_by_one(partial(middleware, server._server.app))
        url = "http://{}:{}".format(*server.get_host_and_port())
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        return Storage(f"s3://retraining/{uuid.uuid4().hex}")

    yield start
    for server in made:
        server.stop()


def _one_by_one(app: Callable[..., Any]) -> Callable[..., list[bytes]]:
    lock = threading.Lock()

    def serve(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with lock:
            return list(app(environ, start_response))

    return serve


def test_a_store_that_tells_a_taken_key_without_the_condition_is_understood(other_store):
    def terse(ask, environ, start_response):
        body = b"".join(ask(environ, start_response))
        return [re.sub(rb"<Condition>.*?</Condition>", lambda found: b" " * len(found[0]), body)]

    storage = other_store(terse)
    assert storage.create("a", b"1")
    assert not storage.create("a", b"2")
    assert storage.read("a") == b"1"
    storage.require_one_winner()


def test_a_store_that_sees_a_conflict_is_asked_again(other_store):
    asked = []

    def busy(ask, environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT":
            asked.append(environ["PATH_INFO"])
            if len(asked) % 3:
                body = b"<Error><Code>ConditionalRequestConflict</Code><Message>m</Message></Error>"
                start_response("409 Conflict", [("Content-Length", str(len(body)))])
                return [body]
        return ask(environ, start_response)

    storage = other_store(busy)
    assert storage.create("a", b"1")
    assert not storage.create("a", b"2")
    assert len(asked) == 6


def test_a_store_that_ignores_the_condition_is_refused_in_one_sentence(other_store):
    def careless(ask, environ, start_response):
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return ask(environ, start_response)

    storage = other_store(careless)
    with pytest.raises(RetrainingError, match="16 were told that they did, allowed is 1"):
        storage.require_one_winner()
    assert storage.list("_store") == []


def test_a_store_that_passed_is_not_asked_again(storage: Storage, monkeypatch):
    storage.require_one_winner()
    monkeypatch.setattr(Storage, "create", lambda *_: pytest.fail("asked again"))
    storage.require_one_winner()


def test_lint_refuses_such_a_store_and_says_of_one_that_is_away_that_it_was_not_asked(
    other_store, monkeypatch, capsys
):
    def careless(ask, environ, start_response):
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return ask(environ, start_response)

    monkeypatch.setenv("RETRAINING_STORAGE_URL", other_store(careless).url)
    assert main(["lint", "churn"]) == 2
    assert "This store does not honour If-None-Match" in capsys.readouterr().err
    monkeypatch.setenv("RETRAINING_STORAGE_URL", other_store(lambda ask, *given: ask(*given)).url)
    assert main(["lint", "churn"]) == 0
    assert "was not asked" not in capsys.readouterr().err
    monkeypatch.setenv("RETRAINING_STORAGE_URL", "s3://no-such-bucket/a")
    assert main(["lint", "churn"]) == 0
    assert "s3://no-such-bucket/a was not asked whether" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b'{"model": "fl', b"\xff\x00", b"[]"])
def test_damaged_record_is_named_and_told_what_to_do(tmp_path, content):
    storage = Storage(f"file://{tmp_path}")
    storage.write("flights/one.json", content)
    with pytest.raises(DamagedRecord, match=r"flights/one\.json is damaged .* holds no BatchRef"):
        storage.read_record("flights/one.json", BatchRef)
    if content != b"[]":
        with pytest.raises(DamagedRecord, match=r"one\.json holds no JSON.*Restore it; or delete"):
            storage.read_json("flights/one.json")
