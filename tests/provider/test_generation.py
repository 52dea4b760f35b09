"""A DAG for each model, and what happens where one cannot be made."""

from __future__ import annotations

import gc

import pytest
import yaml
from airflow.sdk import get_parsing_context
from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.sdk.exceptions import AirflowFailException
from retraining_provider import forms, generation
from retraining_provider.generation import generate, stage_dag

from include.retraining.spec import MODELS_DIR, ModelSpec, SpecFiles
from tests.dags.test_structure import EDGES, build


def spec_of(model: str) -> ModelSpec:
    content = yaml.safe_load((MODELS_DIR / "flights.yaml").read_text())
    return ModelSpec.model_validate(content | {"model": model})


@pytest.fixture(autouse=True)
def models(monkeypatch):
    found = SpecFiles((spec_of("first"), spec_of("second"), spec_of("third")), ())
    monkeypatch.setattr(generation, "load_specs", lambda: found)


def make(spec: ModelSpec, **arguments):
    with stage_dag(spec, "rollback", form=forms.of_rollback(), **arguments) as dag:
        pass
    return dag


def test_there_is_a_dag_for_each_model():
    assert list(generate(make)) == ["first__rollback", "second__rollback", "third__rollback"]


def test_a_model_without_the_stage_has_no_dag():
    found = generate(lambda spec: None if spec.model == "second" else make(spec))
    assert list(found) == ["first__rollback", "third__rollback"]


def test_whatever_goes_wrong_with_a_model_is_logged_and_goes_wrong_alone(caplog):
    def make_or_break(spec: ModelSpec):
        with stage_dag(spec, "rollback") as dag:
            if spec.model == "second":
                raise ZeroDivisionError("a surprise")
        return dag

    found = generate(make_or_break)
    assert list(found) == ["first__rollback", "second__make_or_break", "third__rollback"]
    broken = found["second__make_or_break"]
    assert "ZeroDivisionError: a surprise" in broken.doc_md
    assert "broken" in broken.tags
    (task,) = broken.tasks
    with pytest.raises(AirflowFailException, match="a surprise"):
        task.execute({})
    (told,) = caplog.records
    assert told.getMessage() == "no DAG make_or_break for model second"
    assert "a surprise" in caplog.text
    assert DagContext.get_current() is None


def test_a_dag_that_airflow_would_refuse_goes_wrong_alone(caplog):
    from airflow.timetables.trigger import CronTriggerTimetable

    def make_scheduled(spec: ModelSpec):
        cron = "61 * * * *" if spec.model == "second" else "1 * * * *"
        return make(spec, schedule=CronTriggerTimetable(cron, timezone="UTC"))

    found = generate(make_scheduled)
    assert [one for one in found if "broken" not in found[one].tags] == [
        "first__rollback",
        "third__rollback",
    ]
    assert "61 * * * *" in caplog.text


def test_a_dag_that_broke_half_way_is_not_registered(monkeypatch):
    monkeypatch.setattr(DagContext, "current_autoregister_module_name", __name__)
    before = set(DagContext.autoregistered_dags)

    def break_half_way(spec: ModelSpec):
        with stage_dag(spec, "rollback"):
            raise ZeroDivisionError

    assert all("broken" in dag.tags for dag in generate(break_half_way).values())
    assert set(DagContext.autoregistered_dags) == before


def test_a_task_gets_the_dags_of_its_own_model(monkeypatch):
    # Airflow's own context manager would leave it set
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "second__rollback")
    assert get_parsing_context().dag_id == "second__rollback"
    assert list(generate(make)) == ["second__rollback"]


def test_garbage_is_looked_for_again_afterwards():
    seen = []
    generate(lambda spec: seen.append(gc.isenabled()))
    assert seen == [False] * 3
    assert gc.isenabled()


@pytest.mark.parametrize("stage", EDGES)
def test_no_task_carries_a_copy_of_its_dags_form(stage):
    dag = build(stage)
    assert [task.task_id for task in dag.tasks if task.params] == []
    assert bool(dag.params) == (stage != "watch_landing")
