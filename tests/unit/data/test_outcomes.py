"""What the feed of outcomes may bring, and which outcome of a row counts."""

from __future__ import annotations

import datetime as dt
from contextlib import nullcontext

import pyarrow as pa
import pytest
from pydantic import ValidationError

from benchmarks import history
from include.retraining.data import publication, validation
from include.retraining.data.outcomes import (
    complete_by,
    is_settled,
    missing_until,
    needed_for_labels,
    outcomes_of,
    with_outcomes,
)
from include.retraining.records import ValidationReport
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

BIG = 9_007_199_254_740_993  # 2**53 + 1: as a float it would be its neighbour
DAY = dt.timedelta(days=1)
ENDS = {"every": "day", "first": "2024-01-01", "last": "2024-01-03"}
SOURCE = {
    "path": "landing/outcomes/{partition}.csv",
    "key": ["sale"],
    "columns": {"sale": "integer", "y": "integer", "told": "timestamp"},
    "known_at": "told",
}


def spec_of(known_at: str | None = "told", **label: object) -> ModelSpec:
    content = history.spec_of(every="day").model_dump(mode="json")
    del content["source"]["columns"]["y"]
    source = SOURCE | {"known_at": known_at}
    content["label"] |= {"maturity_days": 2, "source": source} | label
    return ModelSpec.model_validate(content)


def moment(day: int, hour: int = 0) -> dt.datetime:
    return history.FIRST + dt.timedelta(days=day, hours=hour)


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage.of(Settings(home=tmp_path))


def deliver(spec: ModelSpec, storage: Storage, day: int, *lines: str) -> ValidationReport:
    feed = spec.outcomes
    batch = feed.batch_ref(feed.partition_key(moment(day)))
    content = "\n".join(["sale,y,told", *lines]) + "\n"
    storage.write(f"landing/outcomes/{batch.partition}.csv", content.encode())
    report = validation.validate_batch(feed, storage, batch)
    publication.publish_batch(feed, storage, report)
    return report


def line(sale: int, y: int | str, day: int, hour: int = 12) -> str:
    return f"{sale},{y},{moment(day, hour):%Y-%m-%dT%H:%M:%SZ}"


def rows(*sales: int, day: int = 0) -> pa.Table:
    """Sales at six in the morning of a day."""
    at = pa.array([moment(day, 6)] * len(sales), pa.timestamp("us", "UTC"))
    return pa.table({"id": pa.array(sales, pa.int64()), "at": at})


def looked_up(spec, storage, sales, *, day: int, hour: int = 0, delivered: int | None = None):
    found = with_outcomes(
        spec, outcomes_of(spec, storage), rows(*sales), known_at=moment(day, hour),
        delivered_by=moment(day if delivered is None else delivered),
    )  # fmt: skip
    assert found.column("id").to_pylist() == list(sales)
    return found.column("y").to_pylist()


def test_rows_get_their_own_outcome_in_their_own_order(storage):
    spec = spec_of()
    deliver(spec, storage, 0, line(BIG, 1, 0), line(BIG - 1, 0, 0), line(7, 1, 0))
    assert looked_up(spec, storage, [7, 8, BIG - 1, BIG], day=1) == [1, None, 0, 1]
    assert looked_up(spec, storage, [], day=1) == []


def test_what_was_not_known_yet_does_not_count(storage):
    spec = spec_of()
    deliver(spec, storage, 0, line(1, 1, 0, hour=12))
    assert looked_up(spec, storage, [1], day=0, hour=11, delivered=1) == [None]
    assert looked_up(spec, storage, [1], day=0, hour=12, delivered=1) == [1]
    assert looked_up(spec, storage, [1], day=0, hour=12, delivered=0) == [None]


def test_of_several_the_one_known_last_counts_and_a_later_partition_corrects(storage):
    spec = spec_of()
    deliver(spec, storage, 0, line(1, 0, 0, 12), line(2, 0, 0, 12), line(2, 1, 0, 13))
    deliver(spec, storage, 1, line(1, 1, 0, 12), line(2, 0, 0, 9))
    assert looked_up(spec, storage, [1, 2], day=1) == [0, 1]
    assert looked_up(spec, storage, [1, 2], day=2) == [1, 1]  # the older word changes nothing


def test_the_same_outcome_twice_is_one(storage):
    spec = spec_of()
    report = deliver(spec, storage, 0, *[line(1, 1, 0)] * 2)
    assert report.rows_good == 2
    assert looked_up(spec, storage, [1], day=1) == [1]


def test_two_words_at_one_moment_are_both_quarantined(storage):
    spec = spec_of()
    lines = [line(sale, 1, 0) for sale in range(2, 30)]
    report = deliver(spec, storage, 0, line(1, 0, 0), line(1, 1, 0), *lines)
    assert (report.rows_good, report.rows_quarantined) == (28, 2)
    assert "such as about sale 1" in report.findings[0].detail
    assert looked_up(spec, storage, [1, 2], day=1) == [None, 1]


def test_what_was_known_before_its_event_or_is_empty_is_none(storage):
    spec = spec_of()
    report = deliver(spec, storage, 0, line(1, 1, 0, hour=5), line(2, "", 0), line(3, 1, 0))
    assert report.rows_good == 3
    assert looked_up(spec, storage, [1, 2, 3], day=1) == [None, None, 1]


def test_what_is_told_of_the_future_and_of_nobody_is_quarantined(storage):
    spec = spec_of()
    lines = [line(sale, 1, 0) for sale in range(2, 60)]
    report = deliver(spec, storage, 0, line(1, 1, 3), ",1,2024-01-01T12:00:00Z", *lines)
    assert report.rows_quarantined == 2
    assert looked_up(spec, storage, [1, 2], day=5) == [None, 1]


def test_an_outcome_may_come_before_its_row_and_years_after(storage):
    spec = spec_of()
    deliver(spec, storage, 0, line(1, 1, 0))
    for day in range(1, 9):
        deliver(spec, storage, day)
    deliver(spec, storage, 9, line(2, 1, 9))
    assert looked_up(spec, storage, [1, 2], day=9) == [1, None]
    assert looked_up(spec, storage, [1, 2], day=10) == [1, 1]


def test_labels_are_complete_until_the_first_gap(storage):
    spec, batch = spec_of(), history.spec_of(every="day").batch_ref("2024-01-03")
    assert outcomes_of(spec, storage).until == moment(0)
    for day in (0, 1, 3):
        deliver(spec, storage, day)
    found = outcomes_of(spec, storage)
    assert found.until == complete_by(found, moment(9)) == moment(2)
    assert complete_by(found, moment(1, 7)) == moment(1, 7)
    assert not is_settled(found, batch)
    assert missing_until(found, moment(4)) == ["2024-01-03"]
    deliver(spec, storage, 2)
    assert outcomes_of(spec, storage).until == moment(4)
    assert is_settled(outcomes_of(spec, storage), batch)


def test_who_has_no_outcome_when_it_is_due_has_what_never_says(storage):
    spec = spec_of(never=0)
    for day in range(4):
        deliver(spec, storage, day, *([line(1, 1, 0)] if day == 0 else []))
    assert looked_up(spec, storage, [1, 2], day=2) == [1, None]  # two days are not over at six
    assert looked_up(spec, storage, [1, 2], day=2, hour=7, delivered=3) == [1, 0]
    # of a later partition nothing is known, so neither that there was no outcome
    assert looked_up(spec_of(never=0, maturity_days=5), storage, [1, 2], day=9) == [1, None]


def test_without_a_moment_it_is_known_when_its_partition_has_ended(storage):
    spec = spec_of(known_at=None, never=0, maturity_days=0.5)
    deliver(spec, storage, 0, line(1, 1, 0))
    deliver(spec, storage, 1, line(1, 0, 0))
    assert looked_up(spec, storage, [1, 2], day=1) == [1, 0]
    assert looked_up(spec, storage, [1, 2], day=2) == [0, 0]
    # in the middle of a day that day's outcomes are not known: neither is that there are none
    assert looked_up(spec, storage, [1, 2], day=0, hour=20, delivered=1) == [None, None]


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.bool_(), pa.null()])
def test_a_label_that_came_with_its_row_counts_unless_the_feed_knows_better(storage, kind):
    spec = spec_of(never=0)
    own = [True, True, False, None, None, None]
    with_own = rows(1, 2, 3, 4, 5, 6).append_column("y", pa.array(own).cast(pa.int64()))
    with_own = with_own.set_column(2, "y", pa.nulls(6) if kind == pa.null() else
                                   with_own.column("y").cast(kind))  # fmt: skip
    own = [None] * 6 if kind == pa.null() else own

    def labels_of(day: int) -> list[float | None]:
        outcomes = outcomes_of(spec, storage)
        found = with_outcomes(spec, outcomes, with_own, known_at=moment(day))
        assert found.column_names.count("y") == 1
        assert needed_for_labels(spec, outcomes, outcomes.table) == ["at", "id", "y"]
        return found.column("y").to_pylist()

    deliver(spec, storage, 0, line(2, 0, 0), line(3, 1, 0), line(4, 1, 0), line(1, "", 0))
    assert labels_of(day=1) == [own[0], 0, 1, 1, None, None]
    for day in (1, 2):
        deliver(spec, storage, day)
    assert labels_of(day=3) == [1 if own[0] else 0, 0, 1, 1, 0, 0]


def test_before_the_first_outcome_has_landed_a_class_is_a_class(storage):
    content = spec_of().model_dump(mode="json")
    content["label"] |= {"task": "multiclass", "classes": ["late", "paid"], "never": "late"}
    content["label"]["source"]["columns"]["y"] = "string"
    content["gate"] |= {"metric": "accuracy", "floor": 0.1}
    spec = ModelSpec.model_validate(content)
    assert looked_up(spec, storage, [1], day=9) == [None]


def test_a_version_of_the_table_is_what_it_was(storage):
    spec = spec_of()
    deliver(spec, storage, 0, line(1, 1, 0))
    version = outcomes_of(spec, storage).table.version
    deliver(spec, storage, 0, line(1, 0, 0), line(2, 1, 0))
    then = outcomes_of(spec, storage, version)
    assert with_outcomes(spec, then, rows(1, 2), known_at=moment(1)).column("y").to_pylist() == [
        1,
        None,
    ]


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ({"source": SOURCE | {"key": ["id"]}}, "label.source.columns; did you mean"),
        ({"source": SOURCE | {"key": ["y", "sale"]}}, "must have 1 columns as source.key has"),
        ({"source": SOURCE | {"key": ["told"]}}, "the types of a key must be the same"),
        ({"source": SOURCE | {"known_at": "y"}}, "must be a timestamp"),
        ({"source": SOURCE | {"path": "landing/out.csv"}}, "must contain {partition}"),
        ({"source": SOURCE | {"path": "../{partition}.csv"}}, "below the storage root"),
        ({"source": SOURCE | {"query": "select 1"}}, "go together"),
        (
            {"source": SOURCE | {"path": "landing/{partition}.parquet"}},
            "read as the source's batch",
        ),
        ({"source": SOURCE | {"key": ["y"]}}, "label.source.key: 'y' is label.column"),
        ({"source": SOURCE | {"key": ["sale", "sale"]}}, "must name different columns"),
        ({"source": SOURCE | {"partitions": ENDS}}, "outcomes end at 2024-01-04 00:00, batches at"),
        ({"column": "z"}, "is not in label.source.columns"),
        ({"column": "amount"}, "is not in label.source.columns"),
        ({"never": 2}, "never must be one of 0, 1, got 2"),
        ({"source": None, "column": "shop", "never": 0}, "never is for outcomes"),
    ],
)
def test_a_feed_that_cannot_work_is_an_error_of_the_model_file(label, told):
    with pytest.raises(ValidationError) as error:
        spec_of(**label)
    assert told.split(";")[0] in str(error.value)


@pytest.mark.parametrize(
    ("batch", "outcomes", "is_refused"),
    [
        ("landing/{partition}/*.csv", "landing/{partition}/outcomes.csv", True),
        ("landing/{partition}/rows.csv", "landing/{partition}/*.csv", True),
        ("landing/{partition}/*.csv", "landing/{partition}/*.csv.gz", False),
        ("landing/{partition}/*.csv", "landing/{partition}/outcomes/*.csv", False),
        ("landing/{partition}.csv", "outcomes/{partition}.csv", False),
    ],
)
def test_no_file_is_rows_and_outcomes(batch, outcomes, is_refused):
    content = spec_of().model_dump(mode="json")
    content["source"]["batch"] = batch
    content["label"]["source"]["path"] = outcomes
    with pytest.raises(ValidationError, match="let outcomes land") if is_refused else nullcontext():
        ModelSpec.model_validate(content)


def test_when_it_was_known_is_no_part_of_which_row_it_is():
    content = spec_of().model_dump(mode="json")
    content["source"]["key"] = ["id", "at"]
    content["label"]["source"]["key"] = ["sale", "told"]
    with pytest.raises(ValidationError, match="'told' is a column of the key"):
        ModelSpec.model_validate(content)


@pytest.mark.parametrize(("last", "is_refused"), [("2024-01-03", False), ("2024-01-04", True)])
def test_outcomes_end_no_sooner_than_batches(last, is_refused):
    content = spec_of().model_dump(mode="json")
    content["partitions"]["last"] = last
    content["label"]["source"]["partitions"] = ENDS
    with pytest.raises(ValidationError, match="for ever") if is_refused else nullcontext():
        ModelSpec.model_validate(content)
