from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from include.retraining.records import (
    Finding,
    GateDecision,
    Performance,
    Promotion,
    ValidationReport,
    Verdict,
)
from include.retraining.storage import Storage
from include.retraining.telling import alerts
from include.retraining.telling.alerts import Alert, FolderChannel, deliver
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
    assert sorted(message["ts"] for message in found) == [f"{n:04d}" for n in range(1, 26)]


def test_markup_of_the_data_is_not_markup_of_slack(state, channel):
    deliver(alert("<!channel> & more", lines=("<http://evil|click> x>y",)), state, channel)
    for message in messages(channel):
        assert "<" not in message["text"]
        assert "&lt;!channel&gt; &amp; more" in message["text"]


@pytest.mark.parametrize(
    "typed", ["x/../../../..", "..", "<!channel>", "a" * 300, "2013-01-07/../../ledger", "é b"]
)
def test_alert_of_a_run_whose_form_had_no_partition_is_told_and_names_no_path(
    tmp_path, state, channel, typed
):
    one = alerts.of_failure(model="flights", thread=typed, task="t", run_id="r", error="SpecError")
    assert deliver(one, state, channel)
    assert not deliver(one, state, channel)
    assert {path.name for path in tmp_path.iterdir()} == {"state", "channel"}
    assert all(key.startswith("flights/alerts/thread=other-") for key in state.list(""))
    assert "<!channel>" not in messages(channel)[0]["text"]


def test_every_line_of_a_text_is_quoted():
    text = alert(lines=("Traceback:\n  File x\nValueError",)).text
    assert text.splitlines()[1:] == ["> Traceback:", ">   File x", "> ValueError"]


def test_address_of_the_run_is_the_only_link():
    text = alert(url="http://airflow/dags/x").text
    assert text.endswith("\n<http://airflow/dags/x|Open in Airflow>")


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


def test_clean_batch_is_not_worth_a_message():
    assert alerts.of_validation(validation()) is None
    assert alerts.of_validation(validation(findings=(NOTE,))) is None


def test_quarantined_rows_are_counted_and_located():
    report = validation(
        findings=(NOTE, BAD), rows_good=990, rows_quarantined=10, quarantine_key="flights/q"
    )
    found = alerts.of_validation(report)
    assert found is not None
    assert (found.level, found.title) == ("warning", "10 of 1,000 rows quarantined")
    assert found.lines == (
        "critical: distance: not_null: 10 of 1000",
        "Quarantined rows: flights/q",
    )


def test_refused_batch_is_critical_and_says_what_to_do():
    report = validation(
        status="refused", findings=(GONE,), rows_good=0, rows_quarantined=1000, quarantine_key="q"
    )
    found = alerts.of_validation(report)
    assert found is not None
    assert found.level == "critical"
    assert "deliver a corrected file" in found.lines[-1]


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
        pytest.param(verdict("ignore"), None, None, id="all-is-well"),
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
