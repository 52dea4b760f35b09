from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.demo import flights_feed
from include.retraining.data import publication, reading, validation
from include.retraining.errors import BatchRefused, DataError
from include.retraining.records import BatchRef, ValidationReport
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

WEEK = "2013-01-14"


@pytest.fixture
def batch(flights: ModelSpec) -> BatchRef:
    return flights.batch_ref(WEEK)


@pytest.fixture
def landing(tmp_path: Path, flights: ModelSpec, batch: BatchRef) -> Storage:
    """One real week has landed."""
    storage = Storage(tmp_path.as_uri())
    flights_feed.land(storage, batch)
    return storage


def flights_of(batch: BatchRef) -> pd.DataFrame:
    return flights_feed.flights_of(batch).copy()


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def land_weather(storage: Storage, batch: BatchRef, frame: pd.DataFrame) -> None:
    key = flights_feed.WEATHER_KEY.format(partition=batch.partition)
    storage.write(key, parquet(frame))


def told(report: ValidationReport) -> dict[str, str]:
    """Give the findings that matter: expectation to severity."""
    return {f.expectation: f.severity for f in report.findings if f.severity != "info"}


def assert_every_row_is_somewhere(storage: Storage, report: ValidationReport, rows_in: int) -> None:
    assert report.rows_in == rows_in == report.rows_good + report.rows_quarantined
    if report.status == "refused":
        assert report.files == {}
        assert report.rows_good == 0
        folder = f"{report.quarantine_key}/delivery-{report.content_sha256[:12]}"
        for name, kept in (("flights", "batch"), ("weather", "weather")):
            # the second used to take the place of the first: both are called like the partition
            landed = storage.read(f"landing/{name}/{WEEK}.parquet")
            assert storage.read(f"{folder}/{kept}/{WEEK}.parquet") == landed
        return
    good = storage.read_table(report.files["batch"])
    assert good.num_rows == report.rows_good
    if report.rows_quarantined:
        bad = storage.read_table(validation.quarantined_key(report))
        assert bad.num_rows == report.rows_quarantined
        assert all(bad.column(validation.BROKEN).to_pylist())
        landed = pq.read_table(io.BytesIO(storage.read(f"landing/flights/{WEEK}.parquet")))
        places = bad.column(validation.ROW).to_pylist()
        assert bad.column("flight").to_pylist() == landed.take(places).column("flight").to_pylist()
        rest = [n for n in range(rows_in) if n not in set(places)]
        assert good.column("flight").to_pylist() == landed.take(rest).column("flight").to_pylist()


def assert_refused(
    flights: ModelSpec, storage: Storage, batch: BatchRef, rows_in: int, expectation: str
) -> ValidationReport:
    """A verdict, the files kept, nothing published."""
    report = validation.validate_batch(flights, storage, batch)
    assert report.status == "refused"
    assert told(report)[expectation] == "critical"
    assert_every_row_is_somewhere(storage, report, rows_in)
    with pytest.raises(BatchRefused, match=expectation):
        publication.publish_batch(flights, storage, report)
    assert publication.rows_in_force(flights, storage).parts.get(batch.partition) is None
    assert not storage.list("flights/tables")
    assert not storage.list("flights/staged")
    return report


def test_good_week_is_accepted_whole(flights, landing, batch):
    report = validation.validate_batch(flights, landing, batch)
    assert report.status == "accepted"
    assert told(report) == {}
    assert report.quarantine_key is None
    assert_every_row_is_somewhere(landing, report, len(flights_of(batch)))
    assert landing.read_record(
        f"flights/reports/partition={WEEK}/validation.json", ValidationReport
    )
    good = landing.read_table(report.files["batch"])
    assert good.column_names == list(flights.source.columns)
    assert good.schema.field("sched_dep").type == pa.timestamp("us", "UTC")


def test_same_files_give_the_same_report(flights, landing, batch):
    one, other = (validation.validate_batch(flights, landing, batch) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("name", ["flights", "weather"])
def test_file_that_did_not_land_is_named(flights, landing, batch, name):
    landing.delete(f"landing/{name}/{WEEK}.parquet")
    with pytest.raises(DataError, match=f"no file at .*landing/{name}/{WEEK}.parquet; deliver it"):
        validation.validate_batch(flights, landing, batch)
    assert not landing.list("flights")


def unreadable_text() -> bytes:
    """A Parquet file whose text is not UTF-8: it opens, and breaks whoever looks at a value."""
    offsets = pa.py_buffer(np.array([0, 1], np.int32).tobytes())
    text = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"carrier": text}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["flights", "weather"])
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: content[:-5], id="last-bytes-missing"),
        pytest.param(
            lambda content: (
                content[: len(content) // 3] + b"\0" * 5000 + content[len(content) // 3 + 5000 :]
            ),
            id="overwritten-in-the-middle",
        ),
        pytest.param(lambda content: b"PK\x03\x04 not parquet", id="another-format"),
        pytest.param(lambda content: unreadable_text(), id="text-not-utf-8"),
    ],
)
def test_file_that_cannot_be_read_refuses_the_batch(flights, landing, batch, name, spoil):
    key = f"landing/{name}/{WEEK}.parquet"
    landing.write(key, spoil(landing.read(key)))
    rows = 0 if name == "flights" else len(flights_of(batch))
    assert_refused(flights, landing, batch, rows, "file_to_be_readable")


@pytest.mark.parametrize(
    ("change", "expectation", "says"),
    [
        pytest.param(
            lambda f: f.drop(columns="distance"),
            "column_to_exist",
            "'distance' is missing",
            id="missing",
        ),
        pytest.param(
            lambda f: f.rename(columns={"distance": "dist"}),
            "column_to_exist",
            "'distance' is missing; new columns: .*dist",
            id="renamed",
        ),
        pytest.param(
            lambda f: f.assign(distance=f["distance"].astype(str)),
            "column_to_have_type",
            "'distance' must be number, got .*string",
            id="text-for-numbers",
        ),
        pytest.param(
            lambda f: f.assign(carrier=range(len(f))),
            "column_to_have_type",
            "'carrier' must be string, got int64",
            id="numbers-for-text",
        ),
        pytest.param(
            lambda f: f.assign(flight=f["flight"] + 0.5),
            "column_to_have_type",
            "'flight' must be integer",
            id="fractions-for-whole-numbers",
        ),
        pytest.param(
            lambda f: f.assign(sched_dep=f["sched_dep"].dt.tz_localize(None)),
            "column_to_have_type",
            "'sched_dep' must be timestamp.*time zone",
            id="no-time-zone",
        ),
        pytest.param(
            lambda f: f.assign(sched_dep=f["sched_dep"].astype(str)),
            "column_to_have_type",
            "'sched_dep' must be timestamp",
            id="text-for-instants",
        ),
        pytest.param(
            lambda f: f.iloc[:499],
            "table_row_count_to_be_between",
            "observed 499",
            id="too-few",
        ),
        pytest.param(
            lambda f: f.iloc[:0],
            "rows_to_exist",
            "without any row",
            id="no-rows",
        ),
        pytest.param(
            lambda f: f.assign(sched_dep=f["sched_dep"] + pd.Timedelta(days=7)),
            "share_of_good_rows",
            "100.0% of the rows are bad",
            id="another-week",
        ),
        pytest.param(
            lambda f: f.assign(origin=None),
            "share_of_good_rows",
            "100.0%",
            id="all-missing",
        ),
    ],
)
def test_broken_batch_is_refused_whole(flights, landing, batch, change, expectation, says):
    broken = change(flights_of(batch))
    flights_feed.land(landing, batch, broken)
    report = assert_refused(flights, landing, batch, len(broken), expectation)
    details = " | ".join(f.detail for f in report.findings if f.expectation == expectation)
    assert pd.Series([details]).str.contains(says).item(), details


def test_column_given_twice_is_refused(flights, landing, batch):
    table = pa.Table.from_pandas(flights_of(batch), preserve_index=False)
    table = table.append_column("carrier", table.column("carrier"))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    landing.write(f"landing/flights/{WEEK}.parquet", buffer.getvalue())
    assert_refused(flights, landing, batch, table.num_rows, "column_to_appear_once")


@pytest.mark.parametrize(
    ("change", "expectation"),
    [
        pytest.param(lambda w: w.drop(columns="temp"), "column_to_exist", id="missing-column"),
        pytest.param(
            lambda w: w.assign(temp=w["temp"].astype(str)), "column_to_have_type", id="wrong-type"
        ),
        pytest.param(
            lambda w: w.assign(observed_at=w["observed_at"].dt.tz_localize(None)),
            "column_to_have_type",
            id="no-time-zone",
        ),
        pytest.param(lambda w: w.iloc[:0], "rows_to_exist", id="no-rows"),
        pytest.param(
            lambda w: w.assign(observed_at=w["observed_at"] - pd.Timedelta(days=7)),
            "share_of_good_rows",
            id="another-week",
        ),
    ],
)
def test_broken_weather_refuses_the_flights_too(flights, landing, batch, change, expectation):
    land_weather(landing, batch, change(flights_feed.weather_of(batch).copy()))
    report = assert_refused(flights, landing, batch, len(flights_of(batch)), expectation)
    critical = [f for f in report.findings if f.severity == "critical"]
    assert all(finding.detail.startswith("weather: ") for finding in critical)


def spoil(frame: pd.DataFrame, column: str, rows: list[int], value: Any) -> pd.DataFrame:
    dtype = object if isinstance(value, str) or value is None else "float64"
    changed = frame[column] if "sched" in column else frame[column].astype(dtype)
    changed = changed.copy()
    changed.iloc[rows] = value
    return frame.assign(**{column: changed})


@pytest.mark.parametrize(
    ("column", "value", "expectation"),
    [
        pytest.param("distance", np.nan, "column_values_to_not_be_null", id="nan"),
        pytest.param("distance", np.inf, "column_values_to_be_finite", id="infinite"),
        pytest.param("distance", -np.inf, "column_values_to_be_finite", id="minus-infinite"),
        pytest.param("dep_delay", np.inf, "column_values_to_be_finite", id="infinite-unexpected"),
        pytest.param("distance", -1.0, "column_values_to_be_between", id="negative"),
        pytest.param("distance", 1e300, "column_values_to_be_between", id="huge"),
        pytest.param("origin", "XXX", "column_values_to_be_in_set", id="unknown-origin"),
        pytest.param("origin", None, "column_values_to_not_be_null", id="missing-origin"),
        pytest.param("hour", 24.0, "column_values_to_be_between", id="hour-24"),
        pytest.param(
            "sched_dep",
            pd.Timestamp("2013-01-21", tz="UTC"),
            "column_values_to_be_between",
            id="at-the-end",
        ),
        pytest.param(
            "sched_dep",
            pd.Timestamp("2013-01-13 23:59:59", tz="UTC"),
            "column_values_to_be_between",
            id="before-the-start",
        ),
        pytest.param("sched_dep", pd.NaT, "column_values_to_not_be_null", id="no-time"),
    ],
)
def test_bad_rows_go_to_quarantine_and_the_others_on(
    flights, landing, batch, column, value, expectation
):
    rows = [0, 17, 400]
    frame = spoil(flights_of(batch), column, rows, value)
    flights_feed.land(landing, batch, frame)
    report = validation.validate_batch(flights, landing, batch)
    assert report.status == "accepted"
    others = {"column_values_to_be_between"} if value in (np.inf, -np.inf) else set()
    assert {expectation} <= set(told(report)) <= {expectation} | others
    assert report.rows_quarantined == 3
    assert_every_row_is_somewhere(landing, report, len(frame))
    bad = landing.read_table(validation.quarantined_key(report))
    assert bad.column(validation.ROW).to_pylist() == rows
    assert all(
        f"{column}: {expectation}" in broken for broken in bad.column(validation.BROKEN).to_pylist()
    )


def test_row_at_the_very_start_of_its_window_is_good(flights, landing, batch):
    start = pd.Timestamp(batch.start)
    flights_feed.land(landing, batch, spoil(flights_of(batch), "sched_dep", [3], start))
    assert validation.validate_batch(flights, landing, batch).rows_quarantined == 0


def test_row_tells_every_expectation_it_broke(flights, landing, batch):
    frame = spoil(spoil(flights_of(batch), "distance", [5], -1.0), "origin", [5], "XXX")
    flights_feed.land(landing, batch, frame)
    report = validation.validate_batch(flights, landing, batch)
    bad = landing.read_table(validation.quarantined_key(report))
    assert bad.num_rows == 1
    assert sorted(bad.column(validation.BROKEN)[0].as_py()) == [
        "distance: column_values_to_be_between",
        "origin: column_values_to_be_in_set",
    ]


def test_rows_with_one_key_are_all_quarantined(flights, landing, batch):
    frame = flights_of(batch)
    frame = pd.concat([frame, frame.iloc[[7, 8, 8]]], ignore_index=True)
    flights_feed.land(landing, batch, frame)
    report = validation.validate_batch(flights, landing, batch)
    assert told(report) == {"compound_columns_to_be_unique": "critical"}
    assert report.rows_quarantined == 5
    assert_every_row_is_somewhere(landing, report, len(frame))


def test_unseen_category_is_a_warning_and_its_rows_stay(flights, landing, batch):
    frame = spoil(flights_of(batch), "carrier", [1, 2], "ZZ")
    flights_feed.land(landing, batch, frame)
    report = validation.validate_batch(flights, landing, batch)
    assert (report.status, report.rows_quarantined) == ("accepted", 0)
    finding = next(f for f in report.findings if f.severity == "warning")
    assert (finding.column, finding.failed_rows) == ("carrier", 2)
    assert "ZZ" in finding.detail


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="good-otherwise"),
        pytest.param({"distance": -1.0}, id="and-bad-rows"),
    ],
)
def test_new_column_is_noted_and_switches_nothing_off(flights, landing, batch, change):
    frame = flights_of(batch).assign(brand_new=1)
    for column, value in change.items():
        frame = spoil(frame, column, [4], value)
    flights_feed.land(landing, batch, frame)
    report = validation.validate_batch(flights, landing, batch)
    assert report.status == "accepted"
    assert report.rows_quarantined == len(change)
    note = next(f for f in report.findings if f.expectation == "no_new_columns")
    assert (note.severity, "brand_new" in note.detail) == ("info", True)
    assert "brand_new" not in landing.read_table(report.files["batch"]).column_names


@pytest.mark.parametrize(
    ("share", "status"), [(0.2, "accepted"), (0.2001, "refused"), (0.0, "accepted")]
)
def test_share_of_bad_rows_has_an_edge(flights, landing, batch, share, status):
    frame = flights_of(batch).iloc[:5000]
    bad = list(range(int(share * 5000) + (1 if share == 0.2001 else 0)))
    flights_feed.land(landing, batch, spoil(frame, "distance", bad, -1.0))
    report = validation.validate_batch(flights, landing, batch)
    assert report.status == status
    assert_every_row_is_somewhere(landing, report, 5000)


def test_bad_weather_rows_are_quarantined_and_the_flights_are_whole(flights, landing, batch):
    weather = flights_feed.weather_of(batch).copy()
    weather = spoil(weather, "temp", [0, 1], np.inf)
    land_weather(landing, batch, weather)
    report = validation.validate_batch(flights, landing, batch)
    assert (report.status, report.rows_quarantined) == ("accepted", 0)
    assert landing.read_table(validation.quarantined_key(report, "weather")).num_rows == 2
    assert landing.read_table(report.files["weather"]).num_rows == len(weather) - 2


# --- a small model of its own, in other formats -------------------------------------------------

COLUMNS = {
    "id": "string",
    "at": "timestamp",
    "x": "number",
    "n": "integer",
    "ok": "boolean",
    "label": "integer",
}
ROWS = [
    {"id": "007", "at": "2020-01-02T03:00:00Z", "x": 1.5, "n": 3, "ok": True, "label": 1},
    {"id": "008", "at": "2020-01-02T05:30:00+02:00", "x": 2, "n": 4, "ok": False, "label": 0},
]
UNIQUE = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}}
PRESENT = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "id"}}
INSIDE = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {
        "column": "at",
        "min_value": {"$PARAMETER": "start"},
        "max_value": {"$PARAMETER": "end"},
        "strict_max": True,
    },
}
SUITE = [{**one, "severity": "critical"} for one in (UNIQUE, PRESENT, INSIDE)]

Check = Callable[..., ValidationReport]


def toy_spec(suffix: str, max_quarantined_share: float = 1.0) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "model": "toy",
            "description": "a toy",
            "owner": "tests",
            "partitions": {"every": "day", "first": "2020-01-01"},
            "source": {
                "batch": "landing/{partition}" + suffix,
                "key": ["id"],
                "event_time": "at",
                "columns": COLUMNS,
            },
            "label": {"column": "label", "maturity_days": 0},
            "features": {"service": "toy", "tables": "toy:build", "numeric": ["x"]},
            "validation": {"max_quarantined_share": max_quarantined_share},
        }
    )


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Validate one file of the toy model against a suite."""
    storage, suites = Storage((tmp_path / "storage").as_uri()), tmp_path / "suites"
    suites.mkdir()

    def run(
        content: bytes, suffix: str, *, suite: object = SUITE, share: float = 1.0
    ) -> ValidationReport:
        text = suite if isinstance(suite, str) else json.dumps({"name": "t", "expectations": suite})
        (suites / "toy.json").write_text(text)
        spec = toy_spec(suffix, share)
        storage.write(f"landing/2020-01-02{suffix}", content)
        return validation.validate_batch(spec, storage, spec.batch_ref("2020-01-02"), suites=suites)

    run.storage = storage  # type: ignore[attr-defined]
    return run


def as_suite(kind: str, severity: str = "critical", **kwargs: object) -> str:
    rule = json.dumps({"type": kind, "severity": severity, "kwargs": kwargs})
    return f'{{"name": "t",\n "expectations": [\n  {rule}\n]}}'


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    def text(value: object) -> str:
        return (
            "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        )

    lines = [",".join(COLUMNS), *(",".join(text(row[c]) for c in COLUMNS) for row in rows)]
    return "\n".join(lines).encode() + b"\n"


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode() + b"\n"


TEXTS = pytest.mark.parametrize(
    ("suffix", "write"),
    [(".csv", as_csv), (".jsonl", as_lines), (".json", as_lines)],
    ids=["csv", "jsonl", "json"],
)


@TEXTS
def test_text_file_is_read_by_the_declared_types(check, suffix, write):
    report = check(write(ROWS), suffix)
    assert (report.status, report.rows_good, report.findings) == ("accepted", 2, ())
    good = check.storage.read_table(report.files["batch"])
    assert good.schema.types == [reading._TARGET[kind] for kind in COLUMNS.values()]
    assert good.column("id").to_pylist() == ["007", "008"]  # no number, however it looks
    assert [at.isoformat() for at in good.column("at").to_pylist()] == [
        "2020-01-02T03:00:00+00:00",
        "2020-01-02T03:30:00+00:00",
    ]


@TEXTS
def test_text_file_may_leave_values_out(check, suffix, write):
    rows = [ROWS[0], ROWS[1] | {"id": None, "x": None, "n": None, "ok": None}]
    report = check(write(rows), suffix)
    assert (report.rows_good, report.rows_quarantined) == (1, 1)
    assert [f.expectation for f in report.findings] == ["column_values_to_not_be_null"]


@TEXTS
@pytest.mark.parametrize("at", ["2020-01-02T03:00:00", "2020-01-02 03:00:00", "2020-01-02", "soon"])
def test_text_file_with_an_instant_without_zone_is_refused(check, suffix, write, at):
    report = check(write([ROWS[0], ROWS[1] | {"at": at}]), suffix)
    assert (report.status, report.rows_in) == ("refused", 2)
    assert "must be ISO 8601 with a time zone" in report.findings[0].detail


@TEXTS
def test_text_file_with_infinite_or_missing_numbers_gets_its_verdict(check, suffix, write):
    missing = ROWS[1] | {"x": None}
    report = check(write([ROWS[0], missing]), suffix)
    assert report.rows_good == 2
    if suffix == ".csv":
        report = check(write([ROWS[0], ROWS[1] | {"x": "inf"}]), suffix)
        assert [f.expectation for f in report.findings] == ["column_values_to_be_finite"]
        assert (report.rows_good, report.rows_quarantined) == (1, 1)


@pytest.mark.parametrize(
    ("suffix", "content", "expectation", "rows"),
    [
        pytest.param(".csv", b"", "file_to_be_readable", 0, id="csv-empty"),
        pytest.param(".csv", as_csv(ROWS)[:-20], "file_to_be_readable", 0, id="csv-truncated"),
        pytest.param(".csv", b"\xff\xfe\x00", "file_to_be_readable", 0, id="csv-not-text"),
        pytest.param(
            ".csv",
            as_csv(ROWS).replace(b"id,at", b"id,id"),
            "column_to_appear_once",
            2,
            id="csv-column-twice",
        ),
        pytest.param(
            ".csv",
            as_csv(ROWS).replace(b"id,at", b"id,when"),
            "column_to_exist",
            2,
            id="csv-column-renamed",
        ),
        pytest.param(
            ".csv", as_csv([ROWS[0] | {"x": "abc"}]), "column_to_have_type", 1, id="csv-wrong-type"
        ),
        pytest.param(
            ".csv",
            as_csv([ROWS[0] | {"ok": "maybe"}]),
            "column_to_have_type",
            1,
            id="csv-no-boolean",
        ),
        pytest.param(".jsonl", b"", "file_to_be_readable", 0, id="json-empty"),
        pytest.param(".jsonl", as_lines(ROWS)[:-20], "file_to_be_readable", 0, id="json-truncated"),
        pytest.param(".json", json.dumps(ROWS).encode(), "file_to_be_readable", 0, id="json-array"),
        pytest.param(
            ".jsonl",
            as_lines(ROWS).replace(b'"at"', b'"when"'),
            "column_to_exist",
            2,
            id="json-column-renamed",
        ),
        pytest.param(
            ".jsonl",
            as_lines([ROWS[0] | {"x": "abc"}]),
            "column_to_have_type",
            1,
            id="json-wrong-type",
        ),
        pytest.param(
            ".jsonl",
            as_lines([ROWS[0], ROWS[1] | {"id": 5}]),
            "file_to_be_readable",
            0,
            id="json-number-for-text",
        ),
    ],
)
def test_broken_text_file_is_refused(check, suffix, content, expectation, rows):
    report = check(content, suffix)
    assert (report.status, report.rows_in) == ("refused", rows)
    assert expectation in {f.expectation for f in report.findings}
    kept = check.storage.list(str(report.quarantine_key))
    kept = [key for key in kept if not key.endswith("/delivery.json")]
    assert len(kept) == 1
    assert [check.storage.read(key) for key in kept] == [content]


def test_file_with_a_header_only_is_refused_whatever_the_suite_says(check):
    report = check(as_csv([]), ".csv", suite=[])
    assert (report.status, report.rows_in) == ("refused", 0)
    assert [f.expectation for f in report.findings] == ["rows_to_exist"]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        pytest.param({"id": None}, "id: column_values_to_not_be_null", id="no-key"),
        pytest.param({"id": "007"}, "id: column_values_to_be_unique", id="key-twice"),
        pytest.param({"at": None}, "at: column_values_to_not_be_null", id="no-event-time"),
        pytest.param(
            {"at": "2020-01-03T00:00:00Z"}, "at: column_values_to_be_between", id="at-the-end"
        ),
        pytest.param(
            {"at": "2020-01-01T23:59:59Z"}, "at: column_values_to_be_between", id="too-early"
        ),
    ],
)
@pytest.mark.parametrize(
    "severity", [pytest.param(None, id="no-suite"), "warning", "info", "critical"]
)
def test_keys_event_time_and_window_are_checked_whatever_the_suite_says(
    check, change, broken, severity
):
    # a suite that forgot them, or only warned, let such rows into training
    suite = [{**one, "severity": severity} for one in (UNIQUE, PRESENT, INSIDE)] if severity else []
    report = check(as_csv([*ROWS, ROWS[1] | {"id": "009"} | change]), ".csv", suite=suite)
    bad = check.storage.read_table(validation.quarantined_key(report))
    assert {one for row in bad.column(validation.BROKEN).to_pylist() for one in row} == {broken}
    assert report.rows_quarantined == (2 if change == {"id": "007"} else 1)
    assert report.rows_good + report.rows_quarantined == report.rows_in == 3


def test_row_at_the_very_start_of_the_window_is_good_without_a_suite(check):
    report = check(as_csv([ROWS[0] | {"at": "2020-01-02T00:00:00Z"}]), ".csv", suite=[])
    assert (report.status, report.rows_good, report.findings) == ("accepted", 1, ())


def test_key_of_several_columns_may_share_one_of_them(flights, landing, batch):
    same_flight = flights_of(batch).assign(carrier="UA", flight=1)
    flights_feed.land(landing, batch, same_flight.drop_duplicates("sched_dep"))
    assert validation.validate_batch(flights, landing, batch).rows_quarantined == 0


def expectation(kind: str, severity: str = "critical", **kwargs: object) -> dict[str, object]:
    return {"type": f"expect_{kind}", "severity": severity, "kwargs": kwargs}


@pytest.mark.parametrize("severity", ["critical", "warning", "info"])
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"column": "id", "min_value": 1, "max_value": 2}, id="numbers-for-text"),
        pytest.param({"column": "nowhere", "min_value": 1, "max_value": 2}, id="no-such-column"),
    ],
)
def test_expectation_that_cannot_be_evaluated_is_never_passed(check, severity, broken):
    report = check(
        as_csv(ROWS), ".csv", suite=[expectation("column_values_to_be_between", severity, **broken)]
    )
    assert report.status == "refused"
    assert "could not be evaluated" in report.findings[0].detail


def test_misspelt_expectation_is_an_error_and_not_a_check_less(check):
    # Great Expectations logs it and goes on with the others
    with pytest.raises(DataError, match=r"toy\.json: .*expect_column_values_to_be_unqiue"):
        check(
            as_csv(ROWS),
            ".csv",
            suite=[*SUITE, expectation("column_values_to_be_unqiue", column="id")],
        )


@pytest.mark.parametrize(
    "suite", ["{", "[]", '{"name": "t"}', '{"expectations": [{}], "name": "t"}']
)
def test_suite_that_is_none_is_named(check, suite):
    with pytest.raises(DataError, match=r"toy\.json"):
        check(as_csv(ROWS), ".csv", suite=suite)


def test_missing_suite_is_named(tmp_path, flights, landing, batch):
    with pytest.raises(DataError, match=r"no expectation suite flights\.json"):
        validation.validate_batch(flights, landing, batch, suites=tmp_path)


@pytest.mark.parametrize(
    ("severity", "status"), [("critical", "refused"), ("warning", "accepted"), ("info", "accepted")]
)
def test_expectation_about_the_whole_batch_counts_by_its_severity(check, severity, status):
    mean = expectation("column_mean_to_be_between", severity, column="x", min_value=100)
    report = check(as_csv(ROWS), ".csv", suite=[mean])
    assert report.status == status
    assert report.findings[0].failed_rows is None
    assert "observed 1.75" in report.findings[0].detail


def test_expectations_see_the_declared_columns_and_no_others(check):
    columns = expectation("table_columns_to_match_set", column_set=list(COLUMNS))
    assert check(as_csv(ROWS), ".csv", suite=[columns]).findings == ()


def test_expectation_over_two_columns_quarantines_its_rows(check):
    pair = expectation(
        "column_pair_values_a_to_be_greater_than_b", column_A="n", column_B="x", or_equal=False
    )
    report = check(as_csv([*ROWS, ROWS[0] | {"id": "x", "n": 1}]), ".csv", suite=[pair])
    assert (report.status, report.rows_quarantined) == ("accepted", 1)


ids = st.sampled_from(["a", "b", "c", "d", None])
moments = st.datetimes(
    dt.datetime.fromisoformat("2020-01-01T20:00"),
    dt.datetime.fromisoformat("2020-01-03T04:00"),
    timezones=st.just(dt.UTC),
)
numbers = st.none() | st.sampled_from([0.0, 1.5, float("inf"), float("-inf"), float("nan")])


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(ids, moments, numbers), min_size=1, max_size=12), st.floats(0, 1))
def test_every_row_lands_in_exactly_one_place(check, rows, share):
    table = pa.table(
        {
            "id": pa.array([row[0] for row in rows], pa.string()),
            "at": pa.array([row[1] for row in rows], pa.timestamp("us", "UTC")),
            "x": pa.array([row[2] for row in rows], pa.float64()),
            "n": pa.array(range(len(rows)), pa.int64()),
            "ok": pa.array([None] * len(rows), pa.bool_()),
            "label": pa.array([0] * len(rows), pa.int64()),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    report = check(buffer.getvalue(), ".parquet", share=share)
    start, end = dt.datetime(2020, 1, 2, tzinfo=dt.UTC), dt.datetime(2020, 1, 3, tzinfo=dt.UTC)
    twice = [row[0] for row in rows]
    bad = [
        n
        for n, (name, at, x) in enumerate(rows)
        if name is None
        or twice.count(name) > 1
        or not start <= at < end
        or (x is not None and np.isinf(x))
    ]
    assert report.rows_in == len(rows) == report.rows_good + report.rows_quarantined
    if len(bad) / len(rows) > share:
        assert (report.status, report.rows_good) == ("refused", 0)
        return
    assert (report.status, report.rows_quarantined) == ("accepted", len(bad))
    good = check.storage.read_table(report.files["batch"])
    quarantined = []
    if bad:
        table = check.storage.read_table(validation.quarantined_key(report))
        quarantined = table.column("n").to_pylist()
    assert quarantined == bad
    assert sorted(good.column("n").to_pylist() + quarantined) == list(range(len(rows)))


# --- suites at rest -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "line", "says"),
    [
        pytest.param(None, 0, "no expectation suite toy.json", id="missing"),
        pytest.param('{"name": "t",\n "expectations": [}', 2, "no expectation suite", id="no-json"),
        pytest.param("[]", 0, "no expectation suite", id="list"),
        pytest.param(
            as_suite("expect_column_values_to_be_betwen", column="x", min_value=0), 0,
            "did you mean 'expect_column_values_to_be_between'?", id="unknown-check",
        ),
        pytest.param(
            as_suite("expect_column_values_to_not_be_null", column="idd"), 3,
            "column 'idd' is not in source.columns; did you mean 'id'?", id="unknown-column",
        ),
        pytest.param(
            as_suite("expect_compound_columns_to_be_unique", column_list=["id", "y"]), 3,
            "column 'y' is not in source.columns", id="unknown-column-of-several",
        ),
        pytest.param(
            as_suite("expect_table_columns_to_match_set", column_set=["id", "y"]), 3,
            "column 'y' is not in source.columns", id="unknown-column-of-a-set",
        ),
        pytest.param(
            as_suite("expect_column_values_to_not_be_null", "critcal", column="id"), 0,
            "severity must be one of critical, warning, info, got 'critcal'", id="severity",
        ),
        pytest.param(
            as_suite("expect_column_values_to_be_between", column="x", min_valu=0), 0,
            "min_valu", id="unknown-argument",
        ),
        pytest.param(
            as_suite("expect_column_values_to_be_between", column="at",
                     min_value={"$PARAMETER": "begin"}), 0,
            "$PARAMETER must be start or end, the window of the batch, got 'begin'",
            id="unknown-parameter",
        ),
    ],
)  # fmt: skip
def test_suite_that_cannot_be_used_is_found_at_rest(tmp_path, suite, line, says):
    if suite is not None:
        (tmp_path / "toy.json").write_text(suite)
    (found,) = validation.check_suites(toy_spec(".csv"), tmp_path)
    assert says in str(found)
    assert found.line == line


def test_suite_that_is_fine_has_no_finding(tmp_path):
    (tmp_path / "toy.json").write_text(as_suite("expect_column_values_to_not_be_null", column="x"))
    assert not [*validation.check_suites(toy_spec(".csv"), tmp_path)]
