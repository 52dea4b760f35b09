"""A new champion against the one before it, on real weeks with real models."""

from __future__ import annotations

import datetime as dt

import pytest

from include.retraining import shelf
from include.retraining.errors import RegistryError
from include.retraining.features import feature_sets
from include.retraining.monitor import measuring, probation, turn
from include.retraining.monitor.verdict import judge
from include.retraining.names import CHAMPION
from include.retraining.records import (
    DriftReport,
    GateDecision,
    GuardAnswer,
    GuardWindow,
    Probation,
    Promotion,
    Verdict,
)
from include.retraining.registry import guard, ledger, server, succession, versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.status import render, status_of
from tests.unit import pipeline

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SPEC = pipeline.small_spec(guard={"mode": "rollback", "error": 0.1})  # one window is enough
THIRD, FOURTH = pipeline.WEEKS[2:]


def crown(spec: ModelSpec, settings: Settings, number: int) -> Promotion:
    """Make a version champion as a gate would that lets everything pass."""
    client = server.client(settings)
    client.set_registered_model_alias(spec.model, CHAMPION, str(number))
    entry = succession.notice_hand_move(spec, settings, at=AT)
    assert entry is not None


@pytest.fixture
def worse(trained: Settings) -> Settings:
    """Version 1, which the weather has misled, is champion in place of a stump, version 4."""
    stump = pipeline.small_spec(training={"params": {"max_iter": 1, "max_leaf_nodes": 2}})
    _, made = pipeline.train(stump, trained, THIRD)
    crown(SPEC, trained, made.version)
    crown(SPEC, trained, 1)
    return trained


def monitor(spec: ModelSpec, settings: Settings, week: str) -> tuple[DriftReport, Verdict]:
    report = measuring.measure_drift(spec, settings, spec.batch_ref(week))
    return report, measuring.judge_batch(spec, settings, report)


def test_a_champion_that_is_worse_is_rolled_back(worse: Settings):
    report, verdict = monitor(SPEC, worse, FOURTH)
    found = report.probation
    assert (found.version, found.against, found.looked_at) == (1, 4, 1)
    assert (found.state, found.ended_with) == ("worse", report.batch.partition)
    assert found.gain < -0.02
    assert verdict.outcome == "rollback"
    assert verdict.reasons[0].startswith("version 1 against version 4")
    told = status_of(SPEC, worse)
    assert (told.well, told.word) == (False, "no: it is worse than the version before it")
    assert told.probation == verdict.reasons[0]
    assert told.advice == ("A rollback was asked for: look at flights__guard",)
    promotion = guard.roll_back(SPEC, worse, verdict, actor="the guard", at=AT)
    assert (promotion.action, promotion.version) == ("rollback", 4)
    marked = versions.version(SPEC, worse, 1)
    assert marked.tags[guard.WORSE_TAG] == verdict.reasons[0]
    assert versions.champion(SPEC, worse).number == 4
    assert (status_of(SPEC, worse).word, status_of(SPEC, worse).probation) == (
        "not judged yet", None,
    )  # fmt: skip
    storage = Storage.of(worse)
    # once, whatever runs again
    assert guard.roll_back(SPEC, worse, verdict, actor="the guard", at=AT) == promotion
    assert ledger.verify(storage, SPEC.model) == []
    assert ledger.last(storage, SPEC.model).sequence == promotion.ledger_sequence
    # judged again, it does not ask again
    assert judge(SPEC, report.model_copy(update={"champion_version": 4})).outcome != "rollback"


def test_no_window_counts_while_outcomes_are_missing_that_were_due(worse: Settings, monkeypatch):
    """Those that are there may be of another sort than those still to come."""
    monkeypatch.setattr(measuring, "is_settled", lambda *_: False)
    report, verdict = monitor(SPEC, worse, FOURTH)
    assert report.probation.state == "running"
    assert not report.probation.windows
    assert verdict.outcome != "rollback"


def test_who_was_made_champion_meanwhile_is_left_alone(worse: Settings):
    report, _ = monitor(SPEC, worse, FOURTH)
    told = report.probation.model_copy(update={"state": "worse", "ended_with": FOURTH, "gain": -0.1,
                                               "times_worse": 500.0})  # fmt: skip
    verdict = judge(SPEC, report.model_copy(update={"probation": told}))
    assert verdict.outcome == "rollback"
    crown(SPEC, worse, 2)
    with pytest.raises(guard.NoLonger, match="version 2 is champion now"):
        guard.roll_back(SPEC, worse, verdict, actor="the guard", at=AT)


def moves(settings: Settings) -> list[tuple[str, int, str]]:
    return [(e.action, e.version, e.actor) for e in ledger.read(Storage.of(settings), SPEC.model)]


def person_rolls_back(settings: Settings) -> None:
    succession.rollback(
        SPEC, settings, reason="seen, too", actor="ada", request_id="manual__1", at=AT
    )


def retrain_promotes(settings: Settings) -> None:
    made = versions.version(SPEC, settings, 2)
    won = GateDecision(
        incident_id=made.incident_id, model=SPEC.model, partition=THIRD, candidate_version=2,
        champion_version=1, passed=True, reasons=("won",), candidate=None,
    )  # fmt: skip
    succession.promote(SPEC, settings, won, actor="retrain", at=AT)


def hand_moves(settings: Settings) -> None:
    server.client(settings).set_registered_model_alias(SPEC.model, CHAMPION, "2")


@pytest.mark.parametrize("move", [person_rolls_back, retrain_promotes, hand_moves])
def test_a_move_between_the_guards_look_and_its_own_stands(worse: Settings, monkeypatch, move):
    crown(SPEC, worse, 3)
    crown(SPEC, worse, 4)
    crown(SPEC, worse, 1)
    _, verdict = monitor(SPEC, worse, FOURTH)
    assert verdict.outcome == "rollback"
    set_tags, seen = server.set_tags, []

    def and_then_another(spec, settings, number, tags):
        set_tags(spec, settings, number, tags)
        if guard.WORSE_TAG in tags:
            move(settings)
            seen.extend(moves(settings))

    monkeypatch.setattr(server, "set_tags", and_then_another)
    with pytest.raises(guard.NoLonger, match="another champion came while this step looked"):
        guard.roll_back(SPEC, worse, verdict, actor="the guard", at=AT)
    assert [one for one in moves(worse) if one[2] == "the guard"] == []
    assert moves(worse)[: len(seen)] == seen
    assert versions.champion(SPEC, worse).number == (4 if move is person_rolls_back else 2)
    monkeypatch.undo()
    with pytest.raises(guard.NoLonger):  # and when its task is cleared
        guard.roll_back(SPEC, worse, verdict, actor="the guard", at=AT)


def test_another_model_with_the_champions_number_is_left_alone(worse: Settings):
    _, verdict = monitor(SPEC, worse, FOURTH)
    assert verdict.champion_incident == versions.champion(SPEC, worse).incident_id
    server.client(worse).delete_registered_model(SPEC.model)
    for seed in (901, 902):
        anew = pipeline.small_spec(training={"seed": seed, "params": {"max_iter": 12}})
        pipeline.train(anew, worse, THIRD)
    crown(SPEC, worse, 2)
    crown(SPEC, worse, 1)
    before = moves(worse)
    storage = Storage.of(worse)
    older = verdict.model_copy(update={"champion_incident": None})
    for told in (verdict, older):  # from before it was kept: the probation knows
        shelf.keep(storage, told)
        with pytest.raises(guard.NoLonger, match="another model has the number 1 now"):
            guard.roll_back(SPEC, worse, told, actor="the guard", at=AT)
    assert moves(worse) == before
    assert guard.WORSE_TAG not in versions.version(SPEC, worse, 1).tags


@pytest.mark.parametrize(
    ("ails", "why"),
    [("quarantined", "is quarantined: leaks the label"), ("deleted", "MLflow has no version 4")],
)
def test_the_guard_returns_to_no_version_that_nobody_compared(trained: Settings, ails, why):
    stump = pipeline.small_spec(training={"params": {"max_iter": 1, "max_leaf_nodes": 2}})
    _, made = pipeline.train(stump, trained, THIRD)
    for number in (2, made.version, 1):
        crown(SPEC, trained, number)
    _, verdict = monitor(SPEC, trained, FOURTH)
    assert verdict.outcome == "rollback"
    if ails == "quarantined":
        server.set_tags(SPEC, trained, 4, {versions.QUARANTINE_TAG: "leaks the label"})
    else:
        server.client(trained).delete_model_version(SPEC.model, "4")
    before = moves(trained)
    with pytest.raises(RegistryError, match=why) as refused:
        guard.roll_back(SPEC, trained, verdict, actor="the guard", at=AT)
    assert not isinstance(refused.value, guard.NoLonger)
    assert "flights__rollback with the version that you choose" in str(refused.value)
    assert moves(trained) == before
    assert versions.champion(SPEC, trained).number == 1
    assert guard.WORSE_TAG not in versions.version(SPEC, trained, 1).tags


def test_a_yes_to_a_verdict_that_was_replaced_moves_nothing(worse: Settings):
    report, verdict = monitor(SPEC, worse, FOURTH)
    storage = Storage.of(worse)
    changes = (
        ({"outcome": "ignore", "content_sha256": "corrected"}, {}, "the verdict is ignore"),
        ({"content_sha256": "corrected"}, {}, "clear all tasks of this run"),
        ({}, {"content_sha256": "corrected"}, "clear all tasks of this run"),
        ({}, {"probation": None}, "clear all tasks of this run"),
    )
    for of_verdict, of_report, why in changes:
        shelf.keep(storage, verdict.model_copy(update=of_verdict))
        shelf.keep(storage, report.model_copy(update=of_report))
        with pytest.raises(guard.NoLonger, match=why):
            guard.roll_back(SPEC, worse, verdict, actor="ada, who approved", at=AT)
    assert versions.champion(SPEC, worse).number == 1
    shelf.keep(storage, report)
    shelf.keep(storage, verdict)
    guard.roll_back(SPEC, worse, verdict, actor="ada, who approved", at=AT)
    assert versions.champion(SPEC, worse).number == 4


def test_the_status_says_what_a_person_said_to_the_question(worse: Settings):
    ask = pipeline.small_spec(guard={"mode": "ask", "error": 0.1})
    _, verdict = monitor(ask, worse, FOURTH)
    storage = Storage.of(worse)
    assert status_of(ask, worse).advice == (
        "A rollback was asked for: a person decides in flights__guard",
    )
    said = GuardAnswer.to(verdict, approved=False, by="ada")
    shelf.keep(storage, said)
    assert "Version 1 is not rolled back, ada said no." in render(status_of(ask, worse))
    shelf.keep(storage, GuardAnswer.to(verdict, approved=False, by=GuardAnswer.NOBODY))
    assert "not rolled back, nobody answered in time." in render(status_of(ask, worse))
    # about another verdict
    shelf.keep(storage, said.model_copy(update={"incident_id": "another"}))
    assert "a person decides" in render(status_of(ask, worse))
    tell = pipeline.small_spec(guard={"mode": "tell", "error": 0.1})
    assert "guard.mode is tell now" in render(status_of(tell, worse))


@pytest.mark.parametrize(
    ("mode", "autonomy", "outcome"),
    [("tell", 3, "watch"), (None, 1, "watch"), (None, 2, "rollback"), ("ask", 3, "rollback")],
)
def test_what_follows_is_as_the_model_file_says(worse: Settings, mode, autonomy, outcome):
    spec = pipeline.small_spec(guard={"mode": mode}, retrain={"autonomy": autonomy})
    report, _ = monitor(spec, worse, FOURTH)
    told = report.probation.model_copy(update={"state": "worse", "ended_with": FOURTH, "gain": -0.1,
                                               "times_worse": 500.0})  # fmt: skip
    quiet = report.model_copy(update={"probation": told, "features": (), "performance": None})
    assert judge(spec, quiet).outcome in {outcome, "retrain" if outcome == "watch" else outcome}
    # in the next batch it is said, and asked for no more
    later = quiet.model_copy(update={"batch": spec.batch_ref("2013-02-04")})
    verdict = judge(spec, later)
    assert verdict.outcome != "rollback"
    assert any("worse" in reason for reason in verdict.reasons)


def test_off_asks_nobody(worse: Settings):
    spec = pipeline.small_spec(guard={"mode": "off"})
    assert monitor(spec, worse, FOURTH)[0].probation is None


def test_equal_models_stay_and_nothing_is_claimed(trained: Settings):
    crown(SPEC, trained, 1)
    crown(SPEC, trained, 2)
    found = monitor(SPEC, trained, FOURTH)[0].probation
    assert (found.state, found.looked_at, found.gain) == ("running", 1, None)
    assert "not known yet" in found.in_words
    found = probation.weigh(pipeline.small_spec(guard={"max_windows": 1}), found)
    assert (found.state, found.looked_at, found.windows) == ("kept", 1, ())
    assert "both said the same" in found.in_words


def test_who_came_back_by_a_rollback_is_on_no_probation(trained: Settings):
    for number in (1, 2, 3):
        crown(SPEC, trained, number)
    last, _ = monitor(SPEC, trained, THIRD)
    assert last.champion_version == 3
    succession.rollback(SPEC, trained, reason="a test", actor="ada", request_id="r", at=AT)
    champion = versions.champion(SPEC, trained)
    found = probation.begin(SPEC, trained, champion, last)
    assert (champion.number, found.state, found.ended_with) == (2, "kept", None)
    assert found.in_words == "version 2 came back by a rollback: it is on no probation"
    # and so it stays
    later = last.model_copy(update={"champion_version": 2, "probation": found})
    assert probation.begin(SPEC, trained, champion, later) == found
    # a new champion is
    crown(SPEC, trained, 3)
    assert (
        probation.begin(SPEC, trained, versions.champion(SPEC, trained), later).state == "running"
    )


def test_who_was_brought_back_by_a_rollback_to_a_later_version_is_on_no_probation(worse: Settings):
    """Numbers do not say who came back: a person may return to the later one."""
    crown(SPEC, worse, 4)
    last, _ = monitor(SPEC, worse, THIRD)
    running = probation.begin(SPEC, worse, versions.champion(SPEC, worse), last)
    assert (running.version, running.against, running.state) == (4, 1, "running")
    # a hand that moved the alias to an earlier version is no rollback
    crown(SPEC, worse, 1)
    found = probation.begin(SPEC, worse, versions.champion(SPEC, worse), last)
    assert (last.champion_version, found.version, found.state) == (4, 1, "running")
    report, verdict = monitor(SPEC, worse, FOURTH)
    assert verdict.outcome == "rollback"
    guard.roll_back(SPEC, worse, verdict, actor="the guard", at=AT)
    crown(SPEC, worse, 3)
    for number, request in ((1, "a"), (3, "b")):
        succession.rollback(
            SPEC, worse, reason="we know better", actor="ada", request_id=request, at=AT,
            to_version=number,
        )  # fmt: skip
    champion = versions.champion(SPEC, worse)
    before = report.model_copy(update={"champion_version": 1, "probation": None})
    found = probation.begin(SPEC, worse, champion, before)
    assert (found.version, found.state) == (3, "kept")
    assert found.in_words == "version 3 came back by a rollback: it is on no probation"


def test_who_went_and_came_back_between_two_batches_is_not_called_worse(worse: Settings):
    begun = probation.begin(SPEC, worse, versions.champion(SPEC, worse), None)
    assert begun.state == "running"
    succession.rollback(SPEC, worse, reason="a test", actor="ada", request_id="a", at=AT)
    succession.rollback(
        SPEC, worse, reason="and back", actor="ada", request_id="b", at=AT, to_version=1
    )
    storage = Storage.of(worse)
    third = measuring.measure_drift(SPEC, worse, SPEC.batch_ref(THIRD))
    shelf.keep(storage, third.model_copy(update={"probation": begun}))
    report, verdict = monitor(SPEC, worse, FOURTH)
    assert (report.probation.state, verdict.outcome == "rollback") == ("kept", False)
    # nor rolled back, where the verdict is from before
    late = judge(SPEC, report.model_copy(update={"probation": begun.model_copy(update={
        "state": "worse", "ended_with": FOURTH, "gain": -0.1, "times_worse": 500.0})}))  # fmt: skip
    with pytest.raises(guard.NoLonger, match="version 1 was brought back by ada"):
        guard.roll_back(SPEC, worse, late, actor="the guard", at=AT)


def test_a_probation_begins_anew_where_the_metric_is_another_one(worse: Settings):
    spec = pipeline.small_spec(guard={"error": 0.001})
    report, _ = monitor(spec, worse, FOURTH)
    assert (report.probation.metric, len(report.probation.windows)) == ("roc_auc", 1)
    champion = versions.champion(spec, worse)
    assert probation.begin(spec, worse, champion, report) == report.probation
    loss = pipeline.small_spec(guard={"error": 0.001}, gate={"metric": "neg_log_loss"})
    found = probation.begin(loss, worse, champion, report)
    assert (found.metric, found.windows, found.gain, found.looked_at) == (
        "neg_log_loss", (), None, 0,
    )  # fmt: skip
    # a report from before the metric was kept goes on
    older = report.probation.model_copy(update={"metric": None})
    found = probation.begin(spec, worse, champion, report.model_copy(update={"probation": older}))
    assert found == report.probation


def test_a_running_probation_asks_the_ledger_nothing(worse: Settings, monkeypatch):
    spec = pipeline.small_spec(guard={"error": 0.001})
    report, _ = monitor(spec, worse, FOURTH)
    champion = versions.champion(spec, worse)
    monkeypatch.delattr(ledger, "last")
    assert probation.begin(spec, worse, champion, report).state == "running"


def test_rows_of_the_duel_do_not_count(worse: Settings):
    """The winner of a duel is flattered by its rows: only later ones say how it does."""
    champion = versions.champion(SPEC, worse)
    storage = Storage.of(worse)
    batch = SPEC.batch_ref(FOURTH)
    rows = feature_sets.rows_of(SPEC, storage, feature_sets.feature_set(SPEC, storage, batch))
    known = measuring._labels(SPEC, None, rows, batch.end)
    begun = probation.begin(SPEC, worse, champion, None)
    never = pipeline.small_spec(guard={"error": 1e-12})  # so that it does not end with the window

    scores = probation.scores_of(SPEC, worse, champion, rows)

    def rows_seen(since: dt.datetime) -> int:
        found = probation.go_on(
            never, worse, begun, batch, rows=rows, known=known, scores=scores, since=since
        )
        return found.windows[0].rows if found.windows else 0

    whole, half = rows_seen(batch.start), rows_seen(batch.start + dt.timedelta(days=3))
    assert 0 < half < whole
    assert rows_seen(batch.end) == 0
    assert measuring._decided_until(SPEC, storage, champion, None) == SPEC.batch_ref(
        THIRD
    ).end - dt.timedelta(days=1)


def window(partition: str, gain: float, error: float = 0.005) -> GuardWindow:
    return GuardWindow(partition=partition, rows=5000, gain=gain, error=error)


def running(*windows: GuardWindow) -> Probation:
    return Probation(
        version=3, incident_id="b", against=2, against_incident="a", state="running",
        windows=windows,
    )  # fmt: skip


def test_a_champion_that_is_not_worse_ends_its_probation():
    found = probation.weigh(SPEC, running(window("2013-01-07", 0.0)))
    assert found.state == "running"
    for week in range(60):
        if found.state != "running":
            break
        more = window(f"2013-{1 + week // 28:02}-{1 + week % 28:02}", 0.001)
        found = probation.weigh(SPEC, found.model_copy(update={"windows": (*found.windows, more)}))
    assert found.state == "kept"
    assert found.looked_at < 30
    assert "not worse by more than 0.0050" in found.in_words


def test_later_batches_wait_for_the_rollback_that_one_asked_for(worse: Settings):
    storage = Storage.of(worse)
    _, verdict = monitor(SPEC, worse, FOURTH)
    asked = verdict.model_copy(update={"outcome": "rollback"})
    shelf.keep(storage, asked)

    def wait(state: str | None, spec: ModelSpec = SPEC) -> turn.Wait | None:
        return turn.waits_for(
            spec, storage, SPEC.batch_ref("2013-02-04"),
            state_of=lambda dag, _: state if dag.endswith("guard") else None,
            is_ingesting=lambda: False,
        )  # fmt: skip

    assert "waits for the rollback that 2013-01-28 asked for" in wait("active").why
    assert wait("failed") is None
    assert wait("active", pipeline.small_spec(guard={"mode": "ask"})) is None
    guard.roll_back(SPEC, worse, asked, actor="the guard", at=AT)
    assert wait("active") is None
