"""The graph of every DAG, edge by edge, so that a change of structure is seen in a review."""

from __future__ import annotations

import datetime as dt
import inspect
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import yaml
from airflow.sdk.exceptions import AirflowSkipException
from markdown_it import MarkdownIt

from benchmarks import history
from include.retraining.data.validation import validate_batch
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, ModelSpec
from include.retraining.storage import Storage
from tests.airflow_home import ROOT
from tests.unit.data.test_outcomes import line, moment, spec_of

EDGES = {
    "ingest": {
        "wait_for_landing": {"validate_batch"},
        "validate_batch": {"publish_batch", "publish_validation_page", "alert_validation"},
        "publish_validation_page": set(),
        "publish_batch": {"materialize_features"},
        "materialize_features": {"check_skew", "sweep_tables"},
        "sweep_tables": set(),
        "check_skew": {"alert_skew"},
        "alert_skew": set(),
        "alert_validation": set(),
    },
    "monitor": {
        "measure_drift": {"judge_batch", "publish_report"},
        "judge_batch": {"decide", "alert_verdict", "publish_report"},
        "decide": {"request_retrain", "request_rollback", "keep_watching", "ignore_batch"},
        "request_retrain": set(),
        "request_rollback": set(),
        "keep_watching": set(),
        "ignore_batch": set(),
        "alert_verdict": set(),
        "publish_report": set(),
    },
    "retrain": {
        "claim_retrain": {"build_training_set", "train_candidate", "run_duel"},
        "build_training_set": {"train_candidate"},
        "train_candidate": {"run_duel", "write_candidate_card"},
        "run_duel": {
            "decide_promotion",
            "promote_candidate",
            "alert_gate",
            "write_candidate_card",
        },
        "decide_promotion": {"promote_candidate", "alert_gate"},
        "promote_candidate": {"alert_promotion", "write_champion_card"},
        "alert_gate": set(),
        "alert_promotion": set(),
        "write_candidate_card": set(),
        "write_champion_card": set(),
    },
    "replay_quarantine": {
        "revalidate_batch": {"publish_batch", "publish_validation_page", "alert_validation"},
        "publish_validation_page": set(),
        "publish_batch": {"materialize_features"},
        "materialize_features": {"check_skew", "sweep_tables"},
        "sweep_tables": set(),
        "check_skew": {"alert_skew"},
        "alert_skew": set(),
        "alert_validation": set(),
    },
    "watch_landing": {"find_landed": {"start_ingest"}, "start_ingest": set()},
    "outcomes": {
        "wait_for_landing": {"validate_outcomes"},
        "validate_outcomes": {"publish_outcomes", "publish_validation_page", "alert_validation"},
        "publish_outcomes": {"find_waiting"},
        "find_waiting": {"judge_again"},
        "judge_again": set(),
        "publish_validation_page": set(),
        "alert_validation": set(),
    },
    "guard": {
        "read_verdict": {"return_to_version_before"},
        "return_to_version_before": {"alert_rollback", "write_card"},
        "alert_rollback": set(),
        "write_card": set(),
    },
    "rollback": {
        "rollback_champion": {"alert_rollback", "write_card"},
        "alert_rollback": set(),
        "write_card": set(),
    },
}
QUERIES = {"connection": "shop", "queries": {"batch": "select 1 where :start < :end"}}
# what a stage's DAG needs beside the model file of the flights
NEEDS = {
    "watch_landing": {"source": {"landing_queue": "http://127.0.0.1/queue"}},
    "outcomes": {
        "label": {
            "column": "late",
            "source": {
                "path": "landing/late/{partition}.csv",
                "columns": {
                    "sched_dep": "timestamp",
                    "carrier": "string",
                    "flight": "integer",
                    "late": "number",
                },
            },
        }
    },
}


def build(stage: str, **changes):
    """The DAG of one stage for flights, with some sections of its model file changed."""
    content = yaml.safe_load((MODELS_DIR / "flights.yaml").read_text())
    for section, values in (NEEDS.get(stage, {}) | changes).items():
        content[section] = content.get(section, {}) | values
    return getattr(module_of(stage), stage)(ModelSpec.model_validate(content))


def module_of(stage: str):
    import importlib.util

    location = importlib.util.spec_from_file_location(f"dag_{stage}", ROOT / "dags" / f"{stage}.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


def edges(dag) -> dict[str, set[str]]:
    return {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}


@pytest.mark.parametrize("stage", EDGES)
def test_the_graph_is_as_documented(stage):
    assert edges(build(stage)) == EDGES[stage]


@pytest.mark.parametrize("stage", EDGES)
def test_each_dags_page_says_what_starts_it_what_it_emits_and_what_to_do_when_it_fails(stage):
    heading, *blocks = rendered(build(stage).doc_md)
    assert heading.tag == "h3"
    paragraphs = [block.text for block in blocks if block.tag == "p"]
    questions = ("Starts", "Does", "Emits", "When it fails")
    for question in questions:
        (answer,) = [text for text in paragraphs if text.startswith(f"**{question}**")]
        # a single newline does not begin a paragraph
        assert [other for other in questions if f"**{other}**" in answer] == [question]


def test_a_list_on_a_page_is_a_list():
    blocks = rendered(build("ingest").doc_md)
    assert [block.text.split()[0] for block in blocks if block.tag == "li"] == ["deliver", "mend"]


class Block(NamedTuple):
    tag: str
    text: str


def rendered(text: str) -> list[Block]:
    """The headings, paragraphs and list items that Markdown makes of a text."""
    tokens = MarkdownIt().parse(inspect.cleandoc(text))
    found, is_item = [], False
    for token, content in pairwise(tokens):
        is_item = token.type == "list_item_open" or (is_item and token.type != "list_item_close")
        if content.type == "inline":
            found.append(Block("li" if is_item else token.tag, content.content))
    return found


def test_autonomy_2_puts_a_person_between_the_duel_and_the_promotion():
    rules = {"autonomy": 2, "approval_timeout_hours": 5, "approvers": ["ada"]}
    dag = build("retrain", retrain=rules)
    approve = dag.get_task("approve_promotion")
    assert {"approve_promotion", "alert_question"} <= edges(dag)["decide_promotion"]
    assert edges(dag)["approve_promotion"] == {"promote_candidate"}
    assert edges(dag)["promote_candidate"] == {
        "alert_promotion",
        "alert_answer",
        "write_champion_card",
    }
    assert approve.defaults == ["Reject"]
    assert approve.response_timeout.total_seconds() == 5 * 3600
    assert approve.assigned_users == [{"id": "ada", "name": "ada"}]


def test_the_guard_asks_a_person_where_the_model_file_says_so():
    dag = build("guard", retrain={"autonomy": 2, "approvers": ["ada"]})
    assert edges(dag)["read_verdict"] >= {"approve_rollback", "alert_question"}
    assert edges(dag)["approve_rollback"] == {"return_to_version_before"}
    # not right after the question, where a no would skip it
    assert "alert_answer" in edges(dag)["return_to_version_before"]
    assert dag.get_task("alert_answer").trigger_rule == "none_failed"
    question = dag.get_task("approve_rollback")
    assert (question.defaults, question.assigned_users) == (
        ["Reject"],
        [{"id": "ada", "name": "ada"}],
    )


@pytest.mark.parametrize("mode", ["tell", "off"])
def test_a_guard_that_only_tells_moves_nothing_and_nothing_asks_for_it(mode):
    monitor = build("monitor", guard={"mode": mode})
    assert "request_rollback" not in edges(monitor)
    # a verdict from before the mode was edited stands, and its run goes on
    decide = monitor.get_task("decide").python_callable
    assert decide({"outcome": "rollback"}) == "keep_watching"
    # so does a run that waited for an answer then: its question goes, and the run ends
    dag = build("guard", guard={"mode": mode})
    assert edges(dag) == EDGES["guard"]
    task = dag.get_task("return_to_version_before")
    with pytest.raises(AirflowSkipException, match=f"guard.mode is {mode}"):
        task.step(SimpleNamespace(spec=task.spec), None)


def test_nobody_is_asked_about_a_model_that_is_served_elsewhere():
    parts = {"predictions": {"column": "dep_delay"}, "retrain": {"autonomy": 3}}
    assert edges(build("retrain", **parts)) == EDGES["retrain"]
    assert "request_rollback" not in edges(build("monitor", **parts))


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
        ("broken_feed", "keep_watching"),
        ("retrain", "request_retrain"),
        ("rollback", "request_rollback"),
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
    dag = build("ingest", source=QUERIES)
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


@pytest.mark.parametrize("stage", EDGES)
def test_no_task_may_hold_its_slot_for_ever(stage):
    changes = {"retrain": {"retrain": {"autonomy": 2}}, "ingest": {"source": QUERIES}}
    for task in build(stage, **changes.get(stage, {})).tasks:
        assert task.execution_timeout is not None, task.task_id


def test_a_fit_may_take_long_and_an_alert_may_not():
    dag = build("retrain")
    limits = {task.task_id: task.execution_timeout.total_seconds() / 3600 for task in dag.tasks}
    assert limits["train_candidate"] == 24
    assert limits["run_duel"] == limits["build_training_set"] == 3
    assert limits["alert_gate"] == limits["decide_promotion"] == 0.25
    assert limits["claim_retrain"] == limits["promote_candidate"] == 0.25


def test_what_works_on_rows_may_take_three_hours_and_what_decides_may_not():
    ingest, monitor, rollback = build("ingest"), build("monitor"), build("rollback")
    for dag, tasks, hours in (
        (ingest, ("validate_batch", "publish_batch", "materialize_features", "sweep_tables"), 3),
        (ingest, ("check_skew", "publish_validation_page"), 0.25),
        (monitor, ("measure_drift",), 3),
        (monitor, ("judge_batch", "publish_report"), 0.25),
        (rollback, ("rollback_champion",), 0.25),
    ):
        for task in tasks:
            assert dag.get_task(task).execution_timeout == dt.timedelta(hours=hours), task


def test_waiting_for_files_or_a_person_is_bounded_by_the_model_file_alone():
    # the limit of a task counts per start of its process: what is deferred or parked has none
    waits = build("ingest").get_task("wait_for_landing")
    assert waits.timeout == 48 * 3600 > waits.execution_timeout.total_seconds()
    asks = build("retrain", retrain={"autonomy": 2}).get_task("approve_promotion")
    assert asks.response_timeout > asks.execution_timeout


@pytest.mark.parametrize(
    ("partitions", "missing"),
    [
        pytest.param({"every": "hour", "landing_timeout_hours": 48.0}, 48, id="hourly"),
        pytest.param({"every": "day", "landing_timeout_hours": 24.5}, 2, id="daily"),
        pytest.param({"every": "week", "landing_timeout_hours": 1.0}, 1, id="weekly"),
    ],
)
def test_partitions_that_are_missing_do_not_stop_those_that_land(partitions, missing):
    # a run that waits counts as an active one, though its task is deferred
    dag = build("ingest", partitions={**partitions, "last": None})
    assert dag.max_active_runs >= missing + 4
    assert dag.max_active_runs >= 32  # and of a past that is caught up with
    # what works on rows is bounded by itself: no more of it at once than before
    at_work = {"validate_batch", "publish_batch", "materialize_features"}
    assert {task.task_id for task in dag.tasks if task.max_active_tis_per_dag == 4} == at_work
    assert dag.get_task("wait_for_landing").max_active_tis_per_dag is None


def test_a_wait_of_a_year_leaves_the_triggerer_room():
    dag = build("ingest", partitions={"every": "hour", "landing_timeout_hours": 8760, "last": None})
    assert dag.max_active_runs == 512


BACKGROUND = {
    ("ingest", "check_skew"),
    ("replay_quarantine", "check_skew"),
    *(
        (stage, task)
        for stage in ("ingest", "replay_quarantine")
        for task in ("publish_validation_page", "sweep_tables")
    ),
    ("outcomes", "publish_validation_page"),
    ("monitor", "publish_report"),
    ("retrain", "write_candidate_card"),
    ("retrain", "write_champion_card"),
    ("guard", "write_card"),
    ("rollback", "write_card"),
}


def test_pages_and_cards_are_last_in_line_and_one_at_a_time():
    found = {
        (stage, task.task_id): (task.priority_weight, task.max_active_tis_per_dag)
        for stage in EDGES
        for task in build(stage).tasks
    }
    assert {task for task, (_, limit) in found.items() if limit == 1} == BACKGROUND
    least = min(weight for task, (weight, _) in found.items() if task not in BACKGROUND)
    assert all(found[task][0] < least for task in BACKGROUND)


def test_a_retrain_goes_before_the_batches_that_come_in():
    weight = {
        stage: {task.priority_weight for task in build(stage).tasks if task.priority_weight > 1}
        for stage in ("rollback", "retrain", "monitor", "ingest")
    }
    # the same all along a chain: Airflow adds nothing for the tasks that follow
    assert weight == {"rollback": {50}, "retrain": {40}, "monitor": {30}, "ingest": {10}}
    assert {task.weight_rule for task in build("retrain").tasks} == {"absolute"}


@pytest.mark.parametrize("stage", EDGES)
def test_what_a_form_offers_without_being_asked_is_valid(stage):
    form = build(stage).params
    given = {"partition": "2013-02-04", "reason": "a test"}
    for name in form:
        field = form.get_param(name)
        if field.value is not None and type(field.value) in {str, bool, dict}:
            field.resolve()
        else:
            field.resolve(given.get(name))


def test_every_stage_has_a_file_of_its_own():
    stages = {path.stem for path in Path(ROOT, "dags").glob("*.py")} - {"model_files"}
    assert stages == set(EDGES)


def test_outcomes_ask_for_no_more_runs_of_the_monitor_than_airflow_takes(caplog):
    from airflow.configuration import conf

    module, hourly = module_of("outcomes"), history.spec_of(every="hour")
    start, hour = hourly.partitions.first, hourly.partitions.length
    waiting = [hourly.batch_ref(hourly.partition_key(start + n * hour)) for n in range(1500)]
    asked = module.runs_of_the_monitor(waiting, "2024-02-05")
    assert len(asked) == 500 < conf.getint("core", "max_map_length")
    assert [one["conf"]["partition"] for one in asked] == [one.partition for one in waiting[:500]]
    assert "1,500 batches wait for these outcomes" in caplog.text
    caplog.clear()
    assert len(module.runs_of_the_monitor(waiting[500:503], "2024-02-05")) == 3
    assert not caplog.text


def test_outcomes_that_replace_others_say_how_a_batch_is_judged_by_them(tmp_path, caplog):
    spec, settings = spec_of(), Settings(home=tmp_path)
    storage, feed = Storage.of(settings), spec.outcomes
    run = SimpleNamespace(spec=feed, storage=storage)
    module, batch = module_of("outcomes"), feed.batch_ref(feed.partition_key(moment(0)))

    def land(*lines: str) -> None:
        storage.write(
            feed.source.batch.format(partition=batch.partition),
            "\n".join(["sale,y,told", *lines, ""]).encode(),
        )
        module.publish_outcomes(run, validate_batch(feed, storage, batch))

    land()
    land()  # the same again
    assert "replace" not in caplog.text
    land(line(1, 1, 0))
    assert f"run {spec.model}__monitor for it with 'measure anew'" in caplog.text


@pytest.mark.parametrize("came", [False, True])
def test_a_batch_whose_outcomes_came_meanwhile_takes_its_turn_and_is_measured_again(
    monkeypatch, came
):
    from include.retraining.monitor import measuring
    from include.retraining.retrain import incident

    module, done = module_of("monitor"), []
    run = SimpleNamespace(
        spec=None, settings=None, storage=None, batch=None, is_asked_anew=False,
        wait_for_turn=lambda: done.append("turn"), notice_hand_move=lambda: None,
        accept_feed=lambda: None,
    )  # fmt: skip
    monkeypatch.setattr(incident, "last_training", lambda *_: None)
    monkeypatch.setattr(measuring, "measure_drift", lambda *_, **__: done.append("measured"))
    monkeypatch.setattr(measuring, "came_meanwhile", lambda *_: came)
    module.measure_drift(run)
    assert done == ["turn", "measured"] * (2 if came else 1)


def test_numbers_go_to_cloudwatch_only_where_the_model_file_says_so():
    asked = edges(build("monitor", export={"cloudwatch": "Models"}))
    assert "put_metrics" not in EDGES["monitor"]
    assert set(asked) == {*EDGES["monitor"], "put_metrics"}
    assert {task for task, later in asked.items() if "put_metrics" in later} == {"judge_batch"}
