"""A step gets records, and gives one; between tasks they are JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from retraining_provider.context import Run
from retraining_provider.operators.record import RecordOperator, step

from include.retraining.records import BatchRef
from include.retraining.spec import MODELS_DIR, load_spec

SPEC = load_spec(MODELS_DIR / "flights.yaml")
WEEK = SPEC.batch_ref("2013-02-04")
NEXT = SPEC.batch_ref("2013-02-11")


def context(**params) -> dict:
    dag_run = SimpleNamespace(dag_id="flights__ingest", run_id="r", triggering_user_name=None)
    return {"dag_run": dag_run, "params": params}


def execute(function, *records, **params):
    found = RecordOperator(task_id="step", spec=SPEC, step=function, records=records)
    return found.execute(context(**params))


def test_records_come_as_json_and_go_as_json():
    def follow(run: Run, batch: BatchRef, other: BatchRef) -> BatchRef:
        assert (batch, other) == (WEEK, NEXT)
        return run.spec.batch_ref("2013-02-18")

    found = execute(follow, WEEK.model_dump(mode="json"), NEXT.model_dump(mode="json"))
    assert json.loads(json.dumps(found))["partition"] == "2013-02-18"


def test_a_step_without_records_gets_the_run():
    def ask(run: Run) -> BatchRef:
        return run.batch

    assert execute(ask, partition="2013-02-04")["end"] == "2013-02-11T00:00:00Z"


def test_a_step_that_makes_no_record_gives_what_it_gives():
    def nothing(run: Run) -> None:
        return None

    def listed(run: Run) -> list[dict[str, str]]:
        return [{"run": run.run_id}]

    assert execute(nothing) is None
    assert execute(listed) == [{"run": "r"}]


def test_json_that_is_no_such_record_stops_the_step():
    def never(run: Run, batch: BatchRef) -> None:
        raise AssertionError("was called")

    with pytest.raises(ValidationError, match="unheard"):
        execute(never, WEEK.model_dump(mode="json") | {"unheard": 1})


def test_a_missing_record_stops_the_step():
    def never(run: Run, batch: BatchRef) -> None:
        raise AssertionError("was called")

    with pytest.raises(ValueError, match="zip"):
        execute(never)


def test_a_step_is_named_like_its_function_and_explained_by_it():
    from airflow.sdk import DAG

    def first(run: Run) -> BatchRef:
        """Say which batch it is."""
        return run.batch

    def second(run: Run, batch: BatchRef) -> None:
        """Use it."""

    with DAG("flights__test") as dag:
        step(SPEC, second, step(SPEC, first), outlets=[])
    assert dag.get_task("first").doc_md == "Say which batch it is."
    assert dag.get_task("second").upstream_task_ids == {"first"}


def test_what_a_step_emits_goes_to_the_event_of_its_models_asset():
    from airflow.sdk import Asset
    from airflow.sdk.execution_time.context import OutletEventAccessors

    def publish(run: Run) -> None:
        run.emit("features", partitions=("2013-02-04", "2013-02-11"), rows=3)
        run.emit("champion", version=2)

    events = OutletEventAccessors()
    found = RecordOperator(task_id="step", spec=SPEC, step=publish)
    found.execute(context() | {"outlet_events": events})
    features, champion = events[Asset("flights.features")], events[Asset("flights.champion")]
    assert (features.partition_keys, features.extra) == ({"2013-02-04", "2013-02-11"}, {"rows": 3})
    assert (champion.partition_keys, champion.extra) == (set(), {"version": 2})


def test_a_run_that_nobody_started_was_started_by_airflow():
    def who(run: Run) -> list[str]:
        return [run.actor]

    assert execute(who) == ["Airflow, run r"]


def test_what_a_step_leaves_in_the_temporary_folder_goes_with_it():
    def leave(run: Run) -> str:
        return tempfile.mkdtemp()

    assert not Path(execute(leave)).exists()
