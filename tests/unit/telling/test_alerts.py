from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from include.retraining.records import (
    Finding,
    GateDecision,
    GuardAnswer,
    Performance,
    Promotion,
    ValidationReport,
    Verdict,
)
from include.retraining.storage import Storage
from include.retraining.telling import alerts
from include.retraining.telling.alerts import Alert, FolderChannel, MessageGone, deliver
from tests.unit.writers import deliver_alerts


def alert(title: str = "Batch refused", **changes: object) -> Alert:
    fields: dict[str, object] = {
        "model": "flights",
        "thread": "2013-02-11",
        "level": "critical",
        "title": title,
    }
    return Alert.model_validate(fields | changes)


@pytest.fixture
def state(tmp_path) -> Storage:
    return Storage((tmp_path / "state").as_uri())


@pytest.fixture
def channel(tmp_path) -> FolderChannel:
    return FolderChannel(Storage((tmp_path / "channel").as_uri()), "#ml-flights")


def messages(channel: FolderChannel) -> list[dict[str, str]]:
    return [channel.storage.read_json(key) for key in channel.storage.list("")]


def test_first_alert_opens_the_thread_and_is_its_first_reply(state, channel):
    assert deliver(alert(lines=("a column is gone",)), state, channel)
    opening, reply = messages(channel)
    assert opening["thread_ts"] is None
    assert opening["text"] == ":rotating_light: *flights 2013-02-11*: Batch refused"
    assert reply["thread_ts"] == opening["ts"]
    assert reply["text"] == ":rotating_light: *Batch refused*\n> a column is gone"
    assert reply["channel"] == "#ml-flights"


def test_later_alerts_reply_and_the_opening_shows_the_newest_state(state, channel):
    deliver(alert("Batch refused"), state, channel)
    deliver(alert("All is well", level="good"), state, channel)
    opening, *replies = messages(channel)
    assert opening["text"] == ":white_check_mark: *flights 2013-02-11*: All is well"
    assert [reply["thread_ts"] for reply in replies] == [opening["ts"]] * 2


def test_alert_is_told_once_whoever_tells_it_again(state, channel):
    assert deliver(alert(), state, channel)
    assert not deliver(alert(), state, channel)
    assert not deliver(alert(url="http://another-run"), state, channel)
    assert len(messages(channel)) == 2


def test_other_batch_and_other_model_have_threads_of_their_own(state, channel):
    for one in (alert(), alert(thread="2013-02-18"), alert(model="churn")):
        assert deliver(one, state, channel)
    found = messages(channel)
    assert sum(message["thread_ts"] is None for message in found) == 3
    assert len({message["thread_ts"] for message in found}) == 4


@pytest.mark.parametrize(
    "changes", [{"title": "x"}, {"level": "good"}, {"lines": ("x",)}, {"thread": "x"}]
)
def test_alert_that_says_something_else_has_another_id(changes):
    assert alert(**changes).alert_id != alert().alert_id


class Broken(FolderChannel):
    """A channel that breaks at the n-th message."""

    failing = 0

    def post(self, text: str, *, thread: str | None) -> str:
        self.failing -= 1
        if self.failing == 0:
            raise ConnectionError("slack is down")
        return super().post(text, thread=thread)


@pytest.mark.parametrize("failing", [1, 2], ids=["opening", "reply"])
def test_alert_lost_to_a_broken_channel_is_told_by_the_next_try(state, channel, failing):
    broken = Broken(channel.storage, channel.channel)
    broken.failing = failing
    with pytest.raises(ConnectionError):
        deliver(alert(), state, broken)
    assert deliver(alert(), state, channel)
    opening, reply = messages(channel)
    assert reply["thread_ts"] == opening["ts"]


def test_thread_whose_opener_died_is_opened_by_the_next_alert(state, channel, monkeypatch):
    ticks = iter(range(0, 10_000, 1))
    monkeypatch.setattr(alerts.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(alerts.time, "sleep", lambda seconds: None)
    broken = Broken(channel.storage, channel.channel)
    broken.failing = 1
    with pytest.raises(ConnectionError):
        deliver(alert("first"), state, broken)
    assert deliver(alert("second"), state, channel)
    opening, reply = messages(channel)
    assert reply["thread_ts"] == opening["ts"]
    assert "second" in opening["text"]


def test_threads_that_open_at_once_open_one_thread(state, channel):
    barrier = threading.Barrier(8)

    def tell(number: int) -> bool:
        barrier.wait()
        return deliver(alert(f"number {number}"), state, channel)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(tell, range(8)))
    found = messages(channel)
    assert sum(message["thread_ts"] is None for message in found) == 1
    assert len(found) == 9


def test_processes_that_open_at_once_open_one_thread(tmp_path, processes):
    url = tmp_path.as_uri()
    answers = [processes.submit(deliver_alerts, url, number, 3) for number in range(8)]
    assert all(told for answer in answers for told in answer.result(timeout=60))
    found = messages(FolderChannel(Storage(f"{url}/channel"), "#test"))
    assert sum(message["thread_ts"] is None for message in found) == 1
    assert len(found) == 1 + 8 * 3
    assert len({message["ts"] for message in found}) == 25


def test_markup_of_the_data_is_not_markup_of_slack(state, channel):
    deliver(alert("<!channel> & more", lines=("<http://evil|click> x>y",)), state, channel)
    for message in messages(channel):
        assert "<" not in message["text"]
        assert "&lt;!channel&gt; &amp; more" in message["text"]


class Slack:
    """A channel that remembers, with messages that can be deleted or be too old to edit."""

    name = "slack #test"

    def __init__(self) -> None:
        self.texts: dict[str, tuple[str | None, str]] = {}
        self.locked: set[str] = set()

    def post(self, text: str, *, thread: str | None) -> str:
        if thread in self.locked:
            raise MessageGone("restricted_action_thread_locked")
        message = f"C1:{len(self.texts) + 1}.0"
        self.texts[message] = (thread, text)
        return message

    def update(self, message: str, text: str) -> None:
        if message not in self.texts:
            raise MessageGone("message_not_found")
        self.texts[message] = (None, text)


def test_alert_of_a_thread_whose_opening_is_gone_opens_it_anew(state):
    slack = Slack()
    deliver(alert("first"), state, slack)
    slack.texts["C1:0.0"] = slack.texts.pop("C1:1.0")  # somebody deleted it
    assert deliver(alert("second"), state, slack)
    *_, (opening, (none, shown)), (_, (thread, text)) = slack.texts.items()
    assert (none, thread) == (None, opening)
    assert "second" in shown
    assert "second" in text
    before = len(slack.texts)
    assert deliver(alert("third"), state, slack)
    assert len(slack.texts) == before + 1  # in the thread that was opened anew


def test_alert_of_a_locked_thread_opens_another(state):
    slack = Slack()
    deliver(alert("first"), state, slack)
    slack.locked.add("C1:1.0")
    assert deliver(alert("second"), state, slack)
    (_, (thread, text)) = list(slack.texts.items())[-1]
    assert thread not in {None, "C1:1.0"}
    assert "second" in text


def test_message_of_a_folder_that_was_removed_opens_the_thread_anew(state, channel):
    deliver(alert("first"), state, channel)
    for key in channel.storage.list(""):
        channel.storage.delete(key)
    assert deliver(alert("second"), state, channel)
    opening, reply = messages(channel)
    assert reply["thread_ts"] == opening["ts"]


def test_channel_may_be_switched_at_any_time_and_nothing_is_told_again(state, channel):
    slack = Slack()
    assert deliver(alert("one"), state, channel)
    assert not deliver(alert("one"), state, slack)
    assert deliver(alert("two"), state, slack)
    assert deliver(alert("three"), state, channel)
    assert deliver(alert("four"), state, slack)
    assert [thread for thread, _ in slack.texts.values()] == [None, "C1:1.0", "C1:1.0"]
    opening, *replies = messages(channel)
    assert [reply["thread_ts"] for reply in replies] == [opening["ts"]] * 2
    assert "three" in opening["text"]


def test_post_to_a_folder_lists_none_of_its_messages(channel, monkeypatch):
    monkeypatch.setattr(Storage, "list", lambda *_: pytest.fail("listed"))
    assert channel.post("x", thread=None) < channel.post("y", thread=None)


def promotion(number: int, version: int, previous: int, **changes: object) -> Promotion:
    fields: dict[str, object] = {
        "incident_id": f"request {number}",
        "model": "flights",
        "partition": "2013-02-11",
        "action": "rollback",
        "version": version,
        "previous_version": previous,
        "reason": "late alerts",
        "actor": "ada",
        "at": "2013-02-20T00:00:00Z",
        "ledger_sequence": number,
    }
    return Promotion.model_validate(fields | changes)


def test_the_same_rollback_again_is_another_ledger_entry_and_told(state, channel):
    moves = [promotion(3, 1, 2), promotion(4, 2, 1), promotion(5, 1, 2)]
    assert all(deliver(alerts.of_promotion(move), state, channel) for move in moves)
    assert not deliver(alerts.of_promotion(moves[-1]), state, channel)
    assert "Ledger entry 5, by ada" in messages(channel)[-1]["text"]


def failure(attempt: str, error: str = "Unavailable: MLflow does not answer") -> Alert:
    return alerts.of_failure(
        model="flights", thread="2013-02-11", task="flights__retrain.train_candidate",
        run_id="r1", error=error, attempt=attempt,
    )  # fmt: skip


def test_task_that_was_cleared_and_fails_again_is_told_again_and_a_failure_once(state, channel):
    assert deliver(failure("4"), state, channel)
    assert not deliver(failure("4"), state, channel)
    assert deliver(failure("8"), state, channel)
    assert not deliver(failure("4"), state, channel)


def test_decision_of_another_incident_is_told_though_it_reads_the_same(state, channel):
    decision = GateDecision(
        incident_id="one", model="flights", partition="2013-02-11", candidate_version=4,
        champion_version=3, passed=False, reasons=("too weak",), candidate=None,
    )  # fmt: skip
    other = decision.model_copy(update={"incident_id": "two"})
    assert deliver(alerts.of_gate(decision), state, channel)
    assert not deliver(alerts.of_gate(decision), state, channel)
    assert deliver(alerts.of_gate(other), state, channel)
    assert deliver(alerts.of_question(other), state, channel)


def told_by(run_id: str, found: Alert | None) -> Alert:
    assert found is not None
    return found.model_copy(update={"run_id": run_id})


def test_verdict_that_comes_back_is_told_again_and_the_all_clear_between_them(state, channel):
    wanted, well = verdict("retrain"), verdict("ignore", content_sha256="d")
    told = [
        deliver(told_by(run, alerts.of_verdict(found, None)), state, channel)
        for run, found in (("1", wanted), ("2", wanted), ("3", well), ("4", well), ("5", wanted))
    ]
    assert told == [True, False, True, False, True]
    # a task of a run that told it before is cleared
    assert not deliver(told_by("1", alerts.of_verdict(wanted, None)), state, channel)


def test_corrected_delivery_takes_the_refusal_off_the_opening(state, channel):
    refused = validation(
        status="refused", rows_good=0, rows_quarantined=1000, findings=(GONE,), delivery=1
    )
    right = validation(content_sha256="d", delivery=2)
    told = [
        deliver(alerts.of_validation(report), state, channel)
        for report in (refused, right, right, refused.model_copy(update={"delivery": 3}))
    ]
    assert told == [True, True, False, True]
    assert "all 1,000 rows are good" in messages(channel)[2]["text"]


@pytest.mark.parametrize("thread", ["x" * 300, "../../../outside", "a/b", "", "é"])
def test_any_thread_has_a_place_of_its_own(tmp_path, channel, thread):
    state = Storage((tmp_path / "a" / "state").as_uri())
    assert deliver(alert(thread=thread), state, channel)
    keys = state.list("flights/alerts")
    assert len({key.split("/")[2] for key in keys}) == 1
    assert len(keys) == 4
    assert all(len(part) < 200 for key in keys for part in key.split("/"))
    assert len(messages(channel)[0]["text"]) < 300


def test_every_line_of_a_text_is_quoted():
    text = alert(lines=("Traceback:\n  File x\nValueError",)).text
    assert text.splitlines()[1:] == ["> Traceback:", ">   File x", "> ValueError"]


def test_address_of_the_run_is_the_only_link():
    text = alert(url="http://airflow/dags/x").text
    assert text.endswith("\n<http://airflow/dags/x|Open in Airflow>")


def test_nothing_in_an_address_ends_its_link():
    text = alert(url="http://airflow/x|Approve> <!channel>?a=1&b=2").text
    assert text.endswith(
        "\n<http://airflow/x%7CApprove%3E%20%3C!channel%3E?a=1&amp;b=2|Open in Airflow>"
    )


@pytest.mark.parametrize(
    ("lines", "more"), [(0, None), (12, None), (13, "... and 1 more"), (100, "... and 88 more")]
)
def test_long_list_is_cut_and_says_by_how_much(lines, more):
    text = alert(lines=tuple(f"line {n}" for n in range(lines))).text
    assert text.count("\n> line") == min(lines, 12)
    assert text.endswith(f"> {more}") if more else "more" not in text


@pytest.mark.parametrize("character", ["x", "<", "&"])
def test_long_text_is_cut_below_what_slack_takes_and_keeps_its_link(character):
    text = alert(lines=(character * 40_000,), url="http://airflow").text
    assert len(text) < 3000
    assert text.endswith(" ...\n<http://airflow|Open in Airflow>")
    quoted = text.split("\n")[1].removeprefix("> ").removesuffix(" ...")
    assert set(quoted.replace("&amp;", "&").replace("&lt;", "<")) == {character}


def validation(**changes: object) -> ValidationReport:
    fields: dict[str, object] = {
        "batch": {
            "model": "flights",
            "partition": "2013-02-11",
            "start": "2013-02-11T00:00:00Z",
            "end": "2013-02-18T00:00:00Z",
        },
        "status": "accepted",
        "rows_in": 1000,
        "rows_good": 1000,
        "rows_quarantined": 0,
        "content_sha256": "c",
        "suite_sha256": "s",
    }
    return ValidationReport.model_validate(fields | changes)


NOTE = Finding(expectation="no_new_columns", severity="info", failed_rows=0, detail="new: x")
BAD = Finding(
    expectation="not_null",
    column="distance",
    severity="critical",
    failed_rows=10,
    detail="10 of 1000",
)
GONE = Finding(expectation="column_to_exist", severity="critical", detail="x is missing")


@pytest.mark.parametrize("findings", [(), (NOTE,)])
def test_clean_batch_is_not_worth_a_message(state, channel, findings):
    assert not deliver(alerts.of_validation(validation(findings=findings)), state, channel)
    assert messages(channel) == []


def test_quarantined_rows_are_counted_and_located():
    report = validation(
        findings=(NOTE, BAD), rows_good=990, rows_quarantined=10, quarantine_key="flights/q"
    )
    found = alerts.of_validation(report)
    assert (found.level, found.title) == ("warning", "10 of 1,000 rows quarantined")
    assert found.lines == (
        "critical: distance: not_null: 10 of 1000",
        "Quarantined rows: flights/tables/quarantine/batch, partition 2013-02-11",
    )


def test_refused_batch_is_critical_and_says_what_to_do():
    report = validation(
        status="refused", findings=(GONE,), rows_good=0, rows_quarantined=1000, quarantine_key="q"
    )
    found = alerts.of_validation(report)
    assert found.level == "critical"
    assert "deliver a corrected file" in found.lines[-1]
    assert "flights__replay_quarantine" in found.lines[-1]


def test_refused_outcomes_name_the_run_to_clear_and_what_waits_for_them():
    batch = validation().batch.model_copy(update={"model": "flights/outcomes"})
    report = validation(
        batch=batch.model_dump(), status="refused", findings=(GONE,), rows_good=0,
        rows_quarantined=1000, quarantine_key="q",
    )  # fmt: skip
    found = alerts.of_validation(report)
    assert found.title == "Outcomes refused, the last good data stays in force"
    assert "retrains of flights wait" in found.lines[-2]
    assert "clear this run of flights__outcomes" in found.lines[-1]
    assert "replay_quarantine" not in found.text
    assert "ingest" not in found.text
    some = report.model_copy(
        update={"status": "accepted", "rows_good": 990, "rows_quarantined": 10}
    )
    assert alerts.of_validation(some).title == "10 of 1,000 outcomes quarantined"


def verdict(outcome: str, **changes: object) -> Verdict:
    fields: dict[str, object] = {
        "batch": validation().batch,
        "outcome": outcome,
        "reasons": ("because",),
        "content_sha256": "c",
        "champion_version": 1,
        "incident_id": "i",
        "worst_feature": "temp",
    }
    return Verdict.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("now", "before", "level"),
    [
        pytest.param(verdict("ignore"), None, "good", id="all-is-well"),
        pytest.param(verdict("watch"), None, "info", id="watched-for-the-first-time"),
        pytest.param(verdict("watch"), verdict("ignore"), "info", id="watched-again"),
        pytest.param(verdict("watch"), verdict("watch"), None, id="watched-as-before"),
        pytest.param(
            verdict("watch"), verdict("watch", worst_feature="dewp"), "info", id="another-feature"
        ),
        pytest.param(
            verdict("watch"), verdict("watch", champion_version=2), "info", id="another-champion"
        ),
        pytest.param(verdict("retrain"), verdict("retrain"), "warning", id="retrain"),
        pytest.param(verdict("blocked"), verdict("blocked"), "warning", id="blocked"),
    ],
)
def test_verdict_is_told_when_it_changes(now, before, level):
    found = alerts.of_verdict(now, before)
    assert (found.level if found else None) == level


def test_a_verdict_says_where_the_model_file_asks_for_no_rollback_any_more():
    wanted = verdict("rollback")
    asked = alerts.of_verdict(wanted, None, guard_mode="ask")
    assert asked == alerts.of_verdict(wanted, None)
    told = alerts.of_verdict(wanted, None, guard_mode="tell")
    assert told.lines[-1].startswith("guard.mode is tell now: nothing follows.")
    assert told.fact_id != asked.fact_id  # so it is told where the other one was


def test_a_no_to_the_guards_question_is_told():
    wanted = verdict("rollback")
    yes, no = (GuardAnswer.to(wanted, approved=approved, by="ada") for approved in (True, False))
    assert alerts.of_guard_answer(wanted, yes, is_made=True) is None
    late = alerts.of_guard_answer(wanted, yes, is_made=False)
    assert late.title.endswith("is not rolled back: ada said yes, and it was too late")
    said = alerts.of_guard_answer(wanted, no, is_made=False)
    assert said.title.endswith("is not rolled back: ada said no")
    silence = GuardAnswer.to(wanted, approved=False, by=GuardAnswer.NOBODY)
    told = alerts.of_guard_answer(wanted, silence, is_made=False)
    assert "nobody answered in time" in told.title
    assert "flights__rollback" in said.text


def test_gate_and_promotion_and_failure_name_what_happened():
    duel = GateDecision(
        incident_id="i",
        model="flights",
        partition="2013-02-11",
        candidate_version=4,
        champion_version=3,
        passed=False,
        reasons=("too weak",),
        candidate=Performance(metric="roc_auc", rows=9, value=0.5, low=0.4, high=0.6),
    )
    assert "version 4 rejected: version 3 stays" in alerts.of_gate(duel).title
    assert "was not promoted" in alerts.of_gate(duel.model_copy(update={"passed": True})).title
    first = duel.model_copy(update={"champion_version": None})
    assert "no champion stays" in alerts.of_gate(first).title
    question = alerts.of_question(duel)
    assert "Promote candidate version 4? A person has to answer" in question.title
    assert "roc_auc on 9 rows" in "\n".join(question.lines)
    assert alerts.of_answer(duel, approved=True, by="ada") is None
    assert "is not promoted: ada said no" in alerts.of_answer(duel, approved=False, by="ada").title
    silence = alerts.of_answer(duel, approved=False, by="nobody")
    assert "nobody answered in time" in silence.title
    promotion = Promotion(
        incident_id="i",
        model="flights",
        partition="2013-02-11",
        action="promotion",
        version=4,
        previous_version=None,
        reason="better",
        actor="test",
        at=validation().batch.end,
        ledger_sequence=1,
    )
    assert alerts.of_promotion(promotion).title == "Version 4 is in production, the first model"
    back = promotion.model_copy(update={"action": "rollback", "previous_version": 5})
    assert "Rolled back: version 4" in alerts.of_promotion(back).title
    failure = alerts.of_failure(
        model="flights", thread="2013-02-11", task="run_duel", run_id="r", error="boom"
    )
    assert (failure.level, failure.title) == ("critical", "run_duel failed")
