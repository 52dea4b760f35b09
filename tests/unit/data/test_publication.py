"""Publishing: which delivery is in force, whatever is late, twice, at once or killed."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import pytest

from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.data import publication, validation
from include.retraining.errors import DataError, Superseded
from include.retraining.records import ValidationReport
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from tests.unit.pipeline import WEEKS, small_spec, validate
from tests.unit.writers import publish

SPEC = small_spec()
WEEK = WEEKS[1]
BATCH = SPEC.batch_ref(WEEK)


def rows(settings: Settings) -> int:
    return publication.rows_in_force(SPEC, Storage.of(settings)).read([WEEK]).num_rows


def test_an_older_delivery_never_replaces_a_newer_one(empty: Settings):
    # a run that stalled between validating and publishing put the old rows back, and was green
    storage, flights = Storage.of(empty), flights_feed.flights_of(BATCH)
    stalled = validate(SPEC, empty, WEEK, flights.iloc[:-7])
    corrected = validate(SPEC, empty, WEEK, flights)
    assert publication.publish_batch(SPEC, storage, corrected)
    with pytest.raises(Superseded, match="delivery 2 is in force, this is delivery 1"):
        publication.publish_batch(SPEC, storage, stalled)
    assert rows(empty) == len(flights)
    assert not publication.publish_batch(SPEC, storage, corrected)


def test_the_first_delivery_landed_once_more_is_the_newest(empty: Settings):
    storage, flights = Storage.of(empty), flights_feed.flights_of(BATCH)
    for frame in (flights, flights.iloc[:-7], flights):
        report = validate(SPEC, empty, WEEK, frame)
        assert publication.publish_batch(SPEC, storage, report)
        assert rows(empty) == len(frame)
    assert publication.rows_in_force(SPEC, storage).parts.get(WEEK).order == 3


def test_good_and_quarantined_rows_are_the_whole_delivery(empty: Settings):
    storage, flights = Storage.of(empty), flights_feed.flights_of(BATCH)
    flights.loc[[3, 5], "distance"] = -1.0
    report = validate(SPEC, empty, WEEK, flights)
    publication.publish_batch(SPEC, storage, report)
    bad = publication.quarantined_rows(SPEC, storage).read([WEEK])
    assert rows(empty) + bad.num_rows == report.rows_in == len(flights)
    assert bad.column("_rt_row").to_pylist() == [3, 5]
    assert all(bad.column("_rt_broken").to_pylist())
    assert not storage.list("flights/staged")


def test_a_delivery_without_bad_rows_empties_the_quarantine(empty: Settings):
    storage, flights = Storage.of(empty), flights_feed.flights_of(BATCH)
    flights.loc[[3, 5], "distance"] = -1.0
    publication.publish_batch(SPEC, storage, validate(SPEC, empty, WEEK, flights))
    publication.publish_batch(
        SPEC, storage, validate(SPEC, empty, WEEK, flights_feed.flights_of(BATCH))
    )
    assert publication.quarantined_rows(SPEC, storage).read([WEEK]).num_rows == 0
    assert rows(empty) == len(flights)


def test_slow_older_delivery_leaves_no_row_in_quarantine(empty: Settings, monkeypatch):
    storage, flights = Storage.of(empty), flights_feed.flights_of(BATCH)
    flights.loc[[3, 5], "distance"] = -1.0
    older = validate(SPEC, empty, WEEK, flights)
    newer = validate(SPEC, empty, WEEK)
    real = publication._replace_tables

    def after_the_newer(*arguments):
        monkeypatch.setattr(publication, "_replace_tables", real)
        assert publication.publish_batch(SPEC, storage, newer)
        return real(*arguments)

    monkeypatch.setattr(publication, "_replace_tables", after_the_newer)
    with pytest.raises(Superseded):
        publication.publish_batch(SPEC, storage, older)
    assert publication.quarantined_rows(SPEC, storage).read([WEEK]).num_rows == 0
    assert rows(empty) == len(flights)
    # and bad rows that come later have a place
    publication.publish_batch(SPEC, storage, validate(SPEC, empty, WEEK, flights))
    left = publication.quarantined_rows(SPEC, storage).read([WEEK])
    assert left.column("distance").to_pylist() == [-1.0, -1.0]


def test_superseded_delivery_takes_no_rows_of_a_newer_one_of_the_same_content(empty: Settings):
    storage = Storage.of(empty)
    first = validate(SPEC, empty, WEEK)
    other = flights_feed.flights_of(BATCH).iloc[1:]
    publication.publish_batch(SPEC, storage, validate(SPEC, empty, WEEK, other))
    again = validate(SPEC, empty, WEEK)
    with pytest.raises(Superseded):
        publication.publish_batch(SPEC, storage, first)
    assert publication.publish_batch(SPEC, storage, again)
    assert rows(empty) == len(other) + 1


def test_delivery_that_landed_while_an_older_one_was_read_comes_in_force(empty, monkeypatch):
    storage, flights = Storage.of(empty), flights_feed.flights_of(BATCH)
    publication.publish_batch(SPEC, storage, validate(SPEC, empty, WEEK, flights))
    real = validation.number_delivery

    def after_the_newer(*arguments, **named):
        monkeypatch.setattr(validation, "number_delivery", real)
        publication.publish_batch(SPEC, storage, validate(SPEC, empty, WEEK, flights.iloc[2:]))
        return real(*arguments, **named)

    monkeypatch.setattr(validation, "number_delivery", after_the_newer)
    slow = validate(SPEC, empty, WEEK, flights.iloc[1:])
    publication.publish_batch(SPEC, storage, slow)
    assert slow.rows_in == rows(empty) == len(flights) - 2


@pytest.mark.parametrize("number", [1, 2])
def test_report_is_that_of_the_newest_delivery_however_slow_an_older_one(
    empty, monkeypatch, number
):
    storage, flights = Storage.of(empty), flights_feed.flights_of(BATCH)
    if number == 2:
        validate(SPEC, empty, WEEK, flights.iloc[3:])
    real, landed = validation._write_rows, []

    def after_the_newer(*arguments):
        monkeypatch.setattr(validation, "_write_rows", real)
        landed.append(validate(SPEC, empty, WEEK, flights.iloc[2:]))
        return real(*arguments)

    monkeypatch.setattr(validation, "_write_rows", after_the_newer)
    validate(SPEC, empty, WEEK, flights.iloc[1:])
    found = shelf.find(storage, ValidationReport, SPEC.model, WEEK)
    assert (found.delivery, found.rows_in) == (landed[0].delivery, len(flights) - 2)


def test_twins_publish_once_and_leave_nothing_behind(
    empty: Settings, processes: ProcessPoolExecutor
):
    report = validate(SPEC, empty, WEEK)
    content = report.model_dump_json()
    runs = [processes.submit(publish, str(empty.home), content) for _ in range(4)]
    changed = [run.result(timeout=120) for run in runs]
    assert sum(changed) >= 1
    storage = Storage.of(empty)
    assert publication.rows_in_force(SPEC, storage).version == 0
    assert rows(empty) == report.rows_good
    assert not storage.list("flights/staged")


def test_validated_rows_that_are_gone_are_said(empty: Settings):
    storage, report = Storage.of(empty), validate(SPEC, empty, WEEK)
    for key in storage.list("flights/staged"):
        storage.delete(key)
    with pytest.raises(DataError, match=r"validated rows are gone.*Clear the task"):
        publication.publish_batch(SPEC, storage, report)


def test_state_of_the_old_layout_is_named_and_not_mixed_with_the_new(empty: Settings):
    storage = Storage.of(empty)
    report = validate(SPEC, empty, WEEK)
    storage.write("flights/validated/partition=2013-01-07/published.json", b"{}")
    with pytest.raises(DataError, match=r"is state of release 0\.1.*Start anew"):
        publication.publish_batch(SPEC, storage, report)
    assert not storage.list("flights/tables")


def test_state_of_the_old_layout_is_named_before_anything_is_written(empty: Settings):
    # a delivery had been numbered, and rows staged, when it was told at publishing
    storage = Storage.of(empty)
    storage.write("flights/validated/partition=2013-01-07/published.json", b"{}")
    before = storage.list("flights")
    with pytest.raises(DataError, match=r"is state of release 0\.1.*Start anew"):
        validate(SPEC, empty, WEEK)
    assert storage.list("flights") == before


def test_commits_say_what_was_published(empty: Settings):
    from deltalake import DeltaTable

    storage, report = Storage.of(empty), validate(SPEC, empty, WEEK)
    publication.publish_batch(SPEC, storage, report)
    table = DeltaTable(f"{empty.home}/storage/flights/tables/rows/batch")
    (commit,) = table.history()
    assert commit["delivery"] == report.content_sha256
    assert commit["content"] == report.identity
    assert commit["suite"] == report.suite_sha256
