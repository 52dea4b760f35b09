"""When runs are due, and that a run by hand has its tasks whatever the day is."""

from __future__ import annotations

import datetime as dt

import pendulum
import pytest
import yaml
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import TimeRestriction

from include.retraining.spec import MODELS_DIR, ModelSpec
from tests.dags.test_structure import EDGES, build

NEVER_ENDS = {"last": None}


def spec_of(**partitions) -> ModelSpec:
    content = yaml.safe_load((MODELS_DIR / "flights.yaml").read_text())
    content["partitions"] |= {"catch_up": True} | partitions
    return ModelSpec.model_validate(content)


def stored(timetable):
    """As the scheduler gets it."""
    return decode_timetable(encode_timetable(timetable))


def due(timetable, *, catchup: bool) -> list:
    """All runs the scheduler would make, one after the other, up to a hundred."""
    open_end = TimeRestriction(earliest=None, latest=None, catchup=catchup)
    found, last = [], None
    for _ in range(100):
        last = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=open_end)
        if last is None:
            break
        found.append(last)
    return found


def partitions(spec: ModelSpec):
    from retraining_provider.timetables import partition_timetable

    return stored(partition_timetable(spec))


def test_a_model_is_due_for_each_partition_from_its_first_to_its_last():
    found = due(partitions(spec_of()), catchup=True)
    assert [run.partition_key for run in found[:2]] == ["2013-01-07", "2013-01-14"]
    assert (found[-1].partition_key, len(found)) == ("2013-12-23", 51)
    # when the window has passed, not before
    assert found[0].run_after == pendulum.datetime(2013, 1, 14)


def test_nothing_is_due_any_more_after_the_last_partition():
    assert due(partitions(spec_of()), catchup=False) == []


def test_a_model_with_an_open_end_goes_on():
    found = due(partitions(spec_of(**NEVER_ENDS)), catchup=True)
    assert len(found) == 100


def test_a_model_with_one_partition_is_due_once():
    found = due(partitions(spec_of(last="2013-01-07")), catchup=True)
    assert [run.partition_key for run in found] == ["2013-01-07"]


def test_a_model_that_has_not_begun_is_due_when_its_first_window_has_passed():
    (first, *_) = due(partitions(spec_of(first="2099-01-05", **NEVER_ENDS)), catchup=False)
    assert (first.partition_key, first.run_after.to_date_string()) == ("2099-01-05", "2099-01-12")


def test_hours_are_due_an_hour_later():
    hours = spec_of(every="hour", first="2013-01-07T05:00:00", last="2013-01-07T07:00:00")
    keys = [run.partition_key for run in due(partitions(hours), catchup=True)]
    assert keys == ["2013-01-07T05", "2013-01-07T06", "2013-01-07T07"]


@pytest.mark.parametrize(
    ("every", "first", "keys"),
    [
        ("month", "2023-12-01", ["2023-12-01", "2024-01-01", "2024-02-01", "2024-03-01"]),
        ("quarter", "2023-11-01", ["2023-11-01", "2024-02-01", "2024-05-01", "2024-08-01"]),
        ("12h", "2024-02-28T06", ["2024-02-28T06", "2024-02-28T18", "2024-02-29T06"]),
    ],
)
def test_calendar_windows_are_due_when_they_have_passed(every, first, keys):
    moments = [dt.datetime.fromisoformat(key) for key in (first, keys[-1])]
    spec = spec_of(every=every, first=moments[0], last=moments[1])
    found = due(partitions(spec), catchup=True)
    assert [run.partition_key for run in found] == keys
    assert [run.run_after for run in found] == [spec.batch_ref(key).end for key in keys]


def test_the_bounds_that_airflow_gives_hold_too():
    narrow = TimeRestriction(
        earliest=pendulum.datetime(2013, 3, 1), latest=pendulum.datetime(2013, 3, 4), catchup=True
    )
    timetable = partitions(spec_of())
    found = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=narrow)
    assert found.partition_key == "2013-02-25"
    assert timetable.next_dagrun_info_v2(last_dagrun_info=found, restriction=narrow) is None


def test_a_backfill_leaves_out_partitions_that_the_model_does_not_have():
    infos = partitions(spec_of(last="2013-01-14")).iter_partition_dagrun_infos(
        earliest=dt.datetime(2012, 12, 1, tzinfo=dt.UTC),
        latest=dt.datetime(2013, 12, 1, tzinfo=dt.UTC),
    )
    assert [info.partition_key for info in infos] == ["2013-01-07", "2013-01-14"]


def test_a_backfill_of_a_model_with_an_open_end_ends_where_it_was_told_to():
    infos = partitions(spec_of(**NEVER_ENDS)).iter_partition_dagrun_infos(
        earliest=dt.datetime(2014, 1, 6, tzinfo=dt.UTC),
        latest=dt.datetime(2014, 1, 13, tzinfo=dt.UTC),
    )
    assert [info.partition_key for info in infos] == ["2014-01-06", "2014-01-13"]


def test_looks_at_a_models_age_end_with_its_partitions():
    from retraining_provider.timetables import retrain_timetable

    found = due(stored(retrain_timetable(spec_of(last="2013-02-04"))), catchup=True)
    assert found[0].run_after == pendulum.datetime(2013, 1, 14, 12)
    assert found[-1].run_after == pendulum.datetime(2013, 2, 4, 12)


def test_two_models_with_one_cron_expression_keep_their_own_bounds():
    early, late = partitions(spec_of()), partitions(spec_of(first="2013-06-03"))
    assert due(early, catchup=True)[0].partition_key == "2013-01-07"
    assert due(late, catchup=True)[0].partition_key == "2013-06-03"


@pytest.mark.parametrize("stage", EDGES)
@pytest.mark.parametrize(
    "when",
    [
        pytest.param({"first": "1997-04-07", "last": "1997-04-14"}, id="long-over"),
        pytest.param({"first": "2099-01-05", "last": None}, id="not-begun"),
    ],
)
def test_a_run_by_hand_has_all_its_tasks_whatever_the_models_dates_are(stage, when):
    from airflow.serialization.serialized_objects import DagSerialization

    now = dt.datetime.now(dt.UTC)  # what the form of the UI sends
    dag = DagSerialization.from_dict(DagSerialization.to_dict(build(stage, partitions=when)))
    assert dag.tasks
    for task in dag.tasks:  # as a DagRun chooses those it makes
        assert task.start_date is None or task.start_date <= now
        assert task.end_date is None or now <= task.end_date
