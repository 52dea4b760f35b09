"""The graph of every DAG, edge by edge, so that a change of structure is seen in a review."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from include.retraining.spec import MODELS_DIR, ModelSpec
from tests.airflow_home import ROOT

EDGES = {
    "ingest": {
        "wait_for_landing": {"validate_batch"},
        "validate_batch": {"publish_batch", "alert_validation"},
        "publish_batch": {"materialize_features"},
        "materialize_features": {"check_skew"},
        "check_skew": {"alert_skew"},
        "alert_skew": set(),
        "alert_validation": set(),
    },
    "monitor": {
        "measure_drift": {"judge_batch", "publish_report"},
        "judge_batch": {"decide", "alert_verdict", "publish_report"},
        "decide": {"request_retrain", "keep_watching", "ignore_batch"},
        "request_retrain": set(),
        "keep_watching": set(),
        "ignore_batch": set(),
        "alert_verdict": set(),
        "publish_report": set(),
    },
    "retrain": {
        "claim_retrain": {"build_training_set", "train_candidate", "run_duel"},
        "build_training_set": {"train_candidate"},
        "train_candidate": {"run_duel"},
        "run_duel": {"decide_promotion", "promote_candidate", "alert_gate"},
        "decide_promotion": {"promote_candidate", "alert_gate"},
        "promote_candidate": {"alert_promotion"},
        "alert_gate": set(),
        "alert_promotion": set(),
    },
    "replay_quarantine": {
        "revalidate_batch": {"publish_batch", "alert_validation"},
        "publish_batch": {"materialize_features"},
        "materialize_features": {"check_skew"},
        "check_skew": {"alert_skew"},
        "alert_skew": set(),
        "alert_validation": set(),
    },
    "watch_landing": {"find_landed": {"start_ingest"}, "start_ingest": set()},
    "rollback": {"rollback_champion": {"alert_rollback"}, "alert_rollback": set()},
}


def build(stage: str, **changes):
    """The DAG of one stage for flights, with some sections of its model file changed."""
    import importlib.util

    content = yaml.safe_load((MODELS_DIR / "flights.yaml").read_text())
    for section, values in changes.items():
        content[section] = content[section] | values
    location = importlib.util.spec_from_file_location(f"dag_{stage}", ROOT / "dags" / f"{stage}.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return getattr(module, stage)(ModelSpec.model_validate(content))


def edges(dag) -> dict[str, set[str]]:
    return {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}


@pytest.mark.parametrize("stage", EDGES)
def test_the_graph_is_as_documented(stage):
    assert edges(build(stage)) == EDGES[stage]


@pytest.mark.parametrize("stage", EDGES)
def test_each_dag_says_what_starts_it_and_what_to_do_when_it_fails(stage):
    text = build(stage).doc_md
    assert "**Starts**" in text
    assert "**When it fails**" in text


def test_autonomy_2_puts_a_person_between_the_duel_and_the_promotion():
    rules = {"autonomy": 2, "approval_timeout_hours": 5, "approvers": ["ada"]}
    dag = build("retrain", retrain=rules)
    approve = dag.get_task("approve_promotion")
    assert {"approve_promotion", "alert_question"} <= edges(dag)["decide_promotion"]
    assert edges(dag)["approve_promotion"] == {"promote_candidate"}
    assert edges(dag)["promote_candidate"] == {"alert_promotion", "alert_answer"}
    assert approve.defaults == ["Reject"]
    assert approve.response_timeout.total_seconds() == 5 * 3600
    assert approve.assigned_users == [{"id": "ada", "name": "ada"}]


def test_anybody_may_answer_where_nobody_is_named():
    dag = build("retrain", retrain={"autonomy": 2})
    assert dag.get_task("approve_promotion").assigned_users is None


@pytest.mark.parametrize(
    ("autonomy", "passed", "branch"),
    [
        pytest.param(1, True, "alert_gate", id="evaluate-only"),
        pytest.param(2, True, ["approve_promotion", "alert_question"], id="a-person-approves"),
        pytest.param(3, True, "promote_candidate", id="automatic"),
        pytest.param(3, False, "alert_gate", id="rejected"),
    ],
)
def test_what_follows_the_duel_depends_on_the_gate_and_the_autonomy(autonomy, passed, branch):
    dag = build("retrain", retrain={"autonomy": autonomy})
    assert dag.get_task("decide_promotion").python_callable({"passed": passed}) == branch


@pytest.mark.parametrize(
    ("outcome", "branch"),
    [
        ("ignore", "ignore_batch"),
        ("watch", "keep_watching"),
        ("blocked", "keep_watching"),
        ("retrain", "request_retrain"),
    ],
)
def test_the_monitor_branches_on_the_verdict(outcome, branch):
    dag = build("monitor")
    assert dag.get_task("decide").python_callable({"outcome": outcome}) == branch


def test_the_ingest_runs_once_per_partition_after_its_window_has_passed():
    import pendulum
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable

    timetable = decode_timetable(encode_timetable(build("ingest").timetable))
    assert timetable.summary.startswith("0 0 * * 1")
    _, partition = timetable._get_partition_info(pendulum.datetime(2013, 1, 14, tz="UTC"))
    assert partition == "2013-01-07"


def test_data_faults_fail_at_once_and_other_faults_are_retried():
    from airflow.sdk import RetryAction

    from include.retraining.errors import BatchRefused

    task = build("ingest").get_task("publish_batch")
    refused = task.retry_policy.evaluate(BatchRefused("x"), 1, 3)
    reset = task.retry_policy.evaluate(ConnectionResetError(), 1, 3)
    assert refused.action is RetryAction.FAIL
    assert reset.action is RetryAction.DEFAULT
    assert task.retries == 3


def test_the_training_task_has_a_button_that_leads_to_the_version(monkeypatch):
    from airflow.sdk.execution_time.xcom import XCom

    (link,) = build("retrain").get_task("train_candidate").operator_extra_links
    monkeypatch.setattr(XCom, "get_value", lambda **_: {"model": "flights", "version": 7})
    monkeypatch.setenv("RETRAINING_MLFLOW_URL", "https://mlflow.example")
    assert link.get_link(None, ti_key=None) == "https://mlflow.example/#/models/flights/versions/7"


def test_a_model_with_queries_takes_its_snapshots_before_it_waits_for_files():
    queries = {"batch": "select 1 where :start < :end"}
    dag = build("ingest", source={"connection": "shop", "queries": queries})
    assert edges(dag)["snapshot_source"] == {"wait_for_landing"}
    assert edges(dag)["wait_for_landing"] == {"validate_batch"}


@pytest.mark.parametrize(
    ("stage", "task"), [("ingest", "validate_batch"), ("replay_quarantine", "revalidate_batch")]
)
def test_the_validating_task_has_a_button_that_leads_to_the_data_docs(monkeypatch, stage, task):
    from airflow.sdk.execution_time.xcom import XCom

    (link,) = build(stage).get_task(task).operator_extra_links
    monkeypatch.setattr(XCom, "get_value", lambda **_: {"page_key": "flights/page.html"})
    monkeypatch.setenv("RETRAINING_STORAGE_PAGE_URL", "https://reports.example")
    assert link.get_link(None, ti_key=None) == "https://reports.example/flights/page.html"
    monkeypatch.setattr(XCom, "get_value", lambda **_: None)
    assert link.get_link(None, ti_key=None) == ""


def test_every_stage_has_a_file_of_its_own():
    stages = {path.stem for path in Path(ROOT, "dags").glob("*.py")} - {"model_files"}
    assert stages == set(EDGES)
