"""A monitor that is not due lets go of its slot, and waits no longer than makes sense."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowRescheduleException
from retraining_provider import context as contexts
from retraining_provider.context import Run

from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.monitor import turn
from include.retraining.monitor.turn import Wait
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, load_spec

SPEC = load_spec(MODELS_DIR / "flights.yaml")
WEEK = "2013-01-14"


class Instance:
    """What a task knows of other runs, with the states that a test gives."""

    def __init__(self, states: dict[str, str], *, paused: bool = False) -> None:
        self.states, self.paused = states, paused

    def get_dr_count(self, dag, run_ids=None, states=None) -> int:
        found = [self.states[one] for one in run_ids or self.states if one in self.states]
        return len([one for one in found if states is None or one in states])

    def get_dag(self, dag):
        return SimpleNamespace(is_paused=self.paused)


def run_of(settings: Settings, monkeypatch, instance=None, run_id: str = "mine") -> Run:
    dag_run = SimpleNamespace(run_id=run_id, partition_key=WEEK, run_type="asset_triggered")
    context = {"dag_run": dag_run, "task_instance": instance or Instance({}), "params": {}}
    monkeypatch.setattr(Run, "settings", settings)
    return Run(SPEC, context)


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(home=tmp_path)


def test_the_first_batch_has_its_turn(settings, monkeypatch):
    run_of(settings, monkeypatch).wait_for_turn()


def test_one_that_has_landed_before_it_is_waited_for(settings, monkeypatch):
    run = run_of(settings, monkeypatch, Instance({"another ingest": "running"}))
    flights_feed.land(run.storage, SPEC.batch_ref("2013-01-07"))
    with pytest.raises(AirflowRescheduleException) as asked:
        run.wait_for_turn()
    seconds = (asked.value.reschedule_date - dt.datetime.now(dt.UTC)).total_seconds()
    assert 0 < seconds <= contexts.SECONDS_AHEAD
    assert shelf.find_run(run.storage, "flights", WEEK, "monitor").run_id == "mine"


def test_what_no_run_is_known_of_is_waited_for_an_hour_from_then_on(settings, monkeypatch):
    run = run_of(settings, monkeypatch)
    waits = {"is": Wait("waits", 1, is_certain=True)}
    monkeypatch.setattr(turn, "waits_for", lambda *_, **__: waits["is"])
    for _ in range(2):  # however long it has waited for a retrain that runs
        with pytest.raises(AirflowRescheduleException):
            run.wait_for_turn()
    waits["is"] = Wait("waits", 1, is_certain=False)
    with pytest.raises(AirflowRescheduleException):
        run.wait_for_turn()
    known = shelf.find_run(run.storage, "flights", WEEK, "monitor")
    assert known.uncertain_since is not None
    shelf.keep_run(
        run.storage,
        known.model_copy(update={"uncertain_since": known.uncertain_since - dt.timedelta(hours=2)}),
    )
    run.wait_for_turn()  # goes on without
    with pytest.raises(AirflowRescheduleException):  # that was another run's wait
        run_of(settings, monkeypatch, run_id="cleared").wait_for_turn()


@pytest.mark.parametrize(
    ("states", "paused", "told"),
    [
        ({"a": "running"}, False, "active"),
        ({"a": "queued"}, False, "active"),
        ({"a": "queued"}, True, None),
        ({"a": "failed"}, False, "failed"),
        ({"a": "success"}, False, "done"),
        ({}, False, None),
    ],
)
def test_a_run_is_told_by_its_state(settings, monkeypatch, states, paused, told):
    seen = []
    monkeypatch.setattr(
        turn, "waits_for", lambda *_, state_of, **__: seen.append(state_of("any", "a"))
    )
    run_of(settings, monkeypatch, Instance(states, paused=paused)).wait_for_turn()
    assert seen == [told]
