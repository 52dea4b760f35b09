"""Alerts through Airflow's Slack connection, against a loopback server that speaks its API."""

from __future__ import annotations

import datetime as dt
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from retraining_provider.defaults import task_defaults
from retraining_provider.hooks import retraining as hook
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.notifications.failure import FailureNotifier
from retraining_provider.operators import alert as operators

from include.retraining.errors import Busy, DataError, SpecError
from include.retraining.records import (
    BatchRef,
    FeatureSkew,
    Finding,
    SkewReport,
    ValidationReport,
    Verdict,
)
from include.retraining.spec import MODELS_DIR, load_spec

SPEC = load_spec(MODELS_DIR / "flights.yaml")
HOUR = dt.timedelta(hours=1)
BATCH = SPEC.batch_ref("2013-02-04")


class Slack(ThreadingHTTPServer):
    """Remembers calls; answers the first `failing` of them with an error of the server."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[tuple[str, dict]] = []
        self.failing = 0
        self.refusals: dict[str, list[tuple[int, str, str]]] = {}  # method -> status, error, header

    def posts(self) -> list[dict]:
        return [content for method, content in self.calls if method == "chat.postMessage"]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        is_json = "json" in self.headers.get("Content-Type", "")
        content = json.loads(body) if is_json else {k: v[0] for k, v in parse_qs(body).items()}
        if self.server.failing > 0:
            self.server.failing -= 1
            self.send_response(500)
            self.end_headers()
            return
        method = self.path.rpartition("/")[2]
        if self.server.refusals.get(method):
            status, error, retry_after = self.server.refusals[method].pop(0)
            self.send_response(status)
            if retry_after:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(json.dumps({"ok": False, "error": error}).encode())
            return
        self.server.calls.append((method, content))
        answer = json.dumps({"ok": True, "channel": "C1", "ts": f"{len(self.server.calls)}.0"})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def slack(monkeypatch, tmp_path):
    server = Slack()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    connection = {
        "conn_type": "slack",
        "password": "xoxb-test",
        "extra": {"base_url": f"http://127.0.0.1:{server.server_port}/api/", "timeout": 5},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", json.dumps(connection))
    monkeypatch.setenv("RETRAINING_HOME", str(tmp_path))
    yield server
    server.shutdown()
    server.server_close()


def context(partition: str = "2013-02-04", **more) -> dict:
    dag_run = SimpleNamespace(
        dag_id="flights__ingest", run_id="manual__1", run_type="manual", partition_key=partition
    )
    return {"dag_run": dag_run, "params": {}, **more}


def report(rows_bad: int) -> dict:
    finding = Finding(
        expectation="column_values_to_be_between",
        column="distance",
        severity="critical",
        failed_rows=rows_bad,
        detail=f"{rows_bad} of 100 rows, such as -1",
    )
    return ValidationReport(
        batch=BATCH,
        status="accepted",
        rows_in=100,
        rows_good=100 - rows_bad,
        rows_quarantined=rows_bad,
        findings=(finding,) if rows_bad else (),
        content_sha256=f"{rows_bad} bad",
        suite_sha256="b",
        quarantine_key="flights/quarantine/partition=2013-02-04" if rows_bad else None,
    ).model_dump(mode="json")


def alert(subject: str, record: dict):
    from retraining_provider.operators.alert import AlertOperator

    task = AlertOperator(task_id="alert", spec=SPEC, subject=subject, record=record)
    return task.execute(context())


def test_a_batch_has_one_thread_whose_opening_message_shows_the_newest_state(slack):
    alert("validation", report(5))
    verdict = Verdict(
        batch=BatchRef.model_validate(BATCH.model_dump()),
        outcome="retrain",
        reasons=("roc_auc 0.60 is below the 0.65 that version 1 promised",),
        content_sha256="a",
        champion_version=1,
        incident_id="i",
    )
    alert("verdict", verdict.model_dump(mode="json"))

    opening, *replies = slack.posts()
    assert "thread_ts" not in opening
    assert opening["channel"] == "#ml-flights"
    assert [reply["thread_ts"] for reply in replies] == ["1.0", "1.0"]
    assert "5 of 100 rows quarantined" in replies[0]["text"]
    assert "below the 0.65 that version 1 promised" in replies[1]["text"]
    ((_, update),) = [call for call in slack.calls if call[0] == "chat.update"]
    assert (update["channel"], update["ts"]) == ("C1", "1.0")
    assert "Retraining" in update["text"]


def test_the_same_alert_is_told_once_however_often_the_task_runs(slack):
    alert("validation", report(5))
    before = len(slack.calls)
    alert("validation", report(5))
    assert len(slack.calls) == before


def test_a_clean_batch_is_no_news(slack):
    with pytest.raises(AirflowSkipException):
        alert("validation", report(0))
    assert slack.calls == []


def test_the_page_about_a_batch_is_linked_where_a_browser_sees_the_storage(slack, monkeypatch):
    monkeypatch.setenv("RETRAINING_STORAGE_PAGE_URL", "https://reports.example")
    alert("validation", report(5) | {"page_key": "flights/validation.html"})
    assert "<https://reports.example/flights/validation.html|Data Docs>" in slack.posts()[1]["text"]


@pytest.mark.parametrize(("differing", "ahead"), [(0, 0), (3, 0), (0, 70), (3, 70)])
def test_online_values_that_are_not_the_offline_ones_or_came_late_are_told(slack, differing, ahead):
    feature = FeatureSkew(
        view="flights_weather",
        name="temp",
        compared=30,
        differing=differing,
        expired=0,
        age_hours=1.0,
        ttl_hours=3.0,
        example="30.0 online, 31.0 offline",
        ahead=ahead,
        ahead_example="31.0; none was there",
    )
    found = SkewReport(batch=BATCH, at=BATCH.end, keys=30, rows=90, features=(feature,))
    if not differing and not ahead:
        with pytest.raises(AirflowSkipException):
            alert("skew", found.model_dump(mode="json"))
        return
    alert("skew", found.model_dump(mode="json"))
    text = slack.posts()[1]["text"]
    told = "temp: 3 of 30 keys differ (30.0 online, 31.0 offline)"
    assert (told in text) == ("clear materialize_features" in text) == (differing > 0)
    told = "temp: of 90 rows, 70 were joined with a value that was not there yet when they were"
    assert (told in text) == ("date rows when they are there online" in text) == (ahead > 0)


def test_an_error_of_slack_is_retried_and_no_alert_is_lost(slack):
    slack.failing = 2
    alert("validation", report(5))
    assert len(slack.posts()) == 2


def test_a_slack_that_stays_down_fails_the_task_and_the_next_try_delivers(slack):
    slack.failing = 100
    with pytest.raises(Exception):  # noqa: B017 - which one is the Slack client's business
        alert("validation", report(5))
    slack.failing = 0
    alert("validation", report(5))
    assert "5 of 100 rows quarantined" in slack.posts()[-1]["text"]


def test_a_failed_task_is_told_with_its_error_and_what_to_do(slack):
    FailureNotifier(spec=SPEC).notify(
        context(
            exception=ValueError("disk <full>"),
            task_instance=SimpleNamespace(task_id="validate_batch"),
        )
    )
    text = slack.posts()[-1]["text"]
    assert "flights__ingest.validate_batch failed" in text
    assert "disk &lt;full&gt;" in text
    assert "clear the task" in text


def test_a_refused_batch_is_not_told_a_second_time_as_a_failure(slack):
    from include.retraining.errors import BatchRefused

    FailureNotifier(spec=SPEC).notify(context(exception=BatchRefused("x")))
    assert slack.calls == []


def test_without_a_connection_messages_are_kept_in_a_folder(slack, monkeypatch, tmp_path):
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_ALERTS")
    alert("validation", report(5))
    kept = sorted((tmp_path / "slack").glob("*.json"))
    assert [json.loads(file.read_text())["thread_ts"] for file in kept] == [None, kept[0].stem]
    assert slack.calls == []


@pytest.mark.parametrize(("url", "told"), [("", False), ("s3://lake/retraining", True)])
def test_that_nobody_is_told_is_in_the_log_unless_all_is_on_one_machine(
    slack, monkeypatch, caplog, url, told
):
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_ALERTS")
    monkeypatch.setenv("RETRAINING_STORAGE_URL", url)
    RetrainingHook().channel(SPEC)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [("#ml-flights" in one, "slack_alerts" in one) for one in warned] == [
        (True, True)
    ] * told


@pytest.mark.parametrize("error", ["edit_window_closed", "cant_update_message"])
def test_opening_that_cannot_be_edited_loses_no_alert(slack, error):
    alert("validation", report(5))
    slack.refusals["chat.update"] = [(200, error, "")]
    alert("validation", report(6))
    assert "6 of 100 rows quarantined" in slack.posts()[-1]["text"]
    assert slack.posts()[-1]["thread_ts"] == "1.0"


@pytest.mark.parametrize("method", ["chat.update", "chat.postMessage"])
def test_opening_that_was_deleted_is_opened_anew(slack, method):
    alert("validation", report(5))
    slack.refusals[method] = [(200, "message_not_found", "")]
    alert("validation", report(6))
    *_, opening, reply = slack.posts()
    assert "thread_ts" not in opening
    assert reply["thread_ts"] == f"{slack.calls.index(('chat.postMessage', opening)) + 1}.0"
    assert "6 of 100 rows quarantined" in reply["text"]


def test_short_limit_is_waited_for(slack, monkeypatch):
    slept = []
    monkeypatch.setattr(hook.time, "sleep", slept.append)
    slack.refusals["chat.postMessage"] = [(429, "ratelimited", "7")]
    alert("validation", report(5))
    assert slept == [7.0]
    assert len(slack.posts()) == 2


@pytest.mark.parametrize(("seconds", "hours"), [("3600", 1.0), ("864000", 6.0)])
def test_long_limit_gives_back_the_slot_and_comes_again_when_it_is_over(
    slack, monkeypatch, seconds, hours
):
    monkeypatch.setattr(hook.time, "sleep", lambda _: pytest.fail("slept"))
    slack.refusals["chat.postMessage"] = [(429, "ratelimited", seconds)]
    with pytest.raises(Busy) as raised:
        alert("validation", report(5))
    policy = task_defaults(SPEC, "ingest")["retry_policy"]
    decision = policy.evaluate(raised.value, 1, 3)
    assert (decision.action.value, decision.retry_delay / HOUR) == ("retry", hours)
    assert policy.evaluate(SpecError("x"), 1, 3).action.value == "fail"
    alert("validation", report(5))
    assert "5 of 100 rows quarantined" in slack.posts()[-1]["text"]


@pytest.mark.parametrize("partition", ["../../../outside", "2013-02-05", "x" * 300, 7, None])
def test_failure_of_a_run_that_names_no_partition_has_the_runs_thread(slack, partition):
    task = SimpleNamespace(task_id="validate_batch", try_number=1, map_index=-1)
    error = DataError("<!channel> <@U123> `x`")
    FailureNotifier(spec=SPEC).notify(context(partition, exception=error, task_instance=task))
    opening, reply = slack.posts()
    assert opening["text"].startswith(":rotating_light: *flights manual__1*: ")
    assert not set("<`") & set(reply["text"].partition("\n<")[0])
    assert "&lt;!channel&gt; &lt;@U123&gt;" in reply["text"]


def test_failure_after_a_new_try_is_told_again_and_each_once(slack):
    for attempt in (4, 4, 8):
        task = SimpleNamespace(task_id="validate_batch", try_number=attempt, map_index=-1)
        error = DataError("no rows")
        FailureNotifier(spec=SPEC).notify(context(exception=error, task_instance=task))
    assert len(slack.posts()) == 1 + 2


def test_name_of_a_run_ends_no_link_to_it(monkeypatch):
    monkeypatch.setattr(operators.conf, "get", lambda *_, **__: "http://airflow/")
    dag_run = SimpleNamespace(dag_id="flights__retrain", run_id="a) [x](http://evil) 1+0:0")
    assert operators.run_url({"dag_run": dag_run}) == (
        "http://airflow/dags/flights__retrain/runs/a%29%20%5Bx%5D%28http:%2F%2Fevil%29%201+0:0"
    )


def test_failure_that_slack_does_not_take_is_told_with_the_next_alert(slack):
    slack.refusals["chat.postMessage"] = [(429, "ratelimited", "3600")]
    task = SimpleNamespace(task_id="validate_batch", try_number=1, map_index=-1)
    error = DataError("no rows")
    FailureNotifier(spec=SPEC).notify(context(exception=error, task_instance=task))
    assert slack.posts() == []
    alert("validation", report(5))
    texts = [post["text"] for post in slack.posts()]
    assert sum("validate_batch failed*" in text for text in texts) == 1
    assert sum("5 of 100 rows quarantined*" in text for text in texts) == 1
    before = len(slack.calls)
    alert("validation", report(5))
    assert len(slack.calls) == before
