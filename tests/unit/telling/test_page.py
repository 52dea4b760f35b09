"""The page "Models" says what the records say: in every state, and where they are damaged."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from include.retraining import shelf
from include.retraining.errors import SpecError
from include.retraining.records import (
    DriftReport,
    GateDecision,
    GuardAnswer,
    Probation,
    RetrainClaim,
    ValidationReport,
    Verdict,
)
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.batch_page import batch_page
from include.retraining.telling.model_page import BATCHES, ModelPage, model_page
from include.retraining.telling.page import (
    FleetRow,
    as_json,
    fleet,
    fleet_row,
    not_read_yet,
    version_link,
)
from include.retraining.telling.status import status_of
from tests.hostile import HOSTILE
from tests.made_state import AT, Made, column, performance, summer
from tests.unit.pipeline import small_spec

SPEC = small_spec(partitions={"last": None})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def made(settings: Settings) -> Made:
    return Made(SPEC, settings)


def row(settings: Settings, spec: ModelSpec = SPEC) -> FleetRow:
    return fleet_row(spec, settings, at=AT)


def page(settings: Settings, spec: ModelSpec = SPEC) -> ModelPage:
    return model_page(spec, settings, at=AT)


# --- fleet ----------------------------------------------------------------------------------------


def test_model_without_any_record_has_nothing_yet(settings):
    found = row(settings)
    assert (found.state, found.version, found.now) == ("nothing yet", None, None)
    assert found.sentence == "no version is in production yet"
    assert found.next_step.startswith("Let batches land")
    assert found.budget is None


def test_model_that_collects_says_how_far_it_is(made, settings):
    made.lands(0)
    made.measured(0, champion=None)
    made.judged(0, "ignore", "collecting: 4,832 of 15,000 labelled rows", champion=None)
    found = row(settings)
    assert (found.state, found.outcome) == ("nothing yet", "ignore")
    assert found.reason == "collecting: 4,832 of 15,000 labelled rows"


def healthy(made: Made) -> None:
    incident = made.first_model()
    made.lands(3)
    made.measured(
        3,
        champion=1,
        champion_incident=incident,
        features=[column("pressure", 0.4)],
        performance=performance(0.75),
        history=(performance(0.7), performance(0.72)),
    )
    made.judged(3, "ignore", "nothing is out of the ordinary", champion=1)


def test_healthy_model_is_well_with_metric_promise_and_trend(made, settings):
    healthy(made)
    found = row(settings)
    assert (found.state, found.sentence, found.version) == ("well", "yes", 1)
    assert (found.now, found.now_version) == (performance(0.75), 1)
    assert found.promise.value == 0.744
    assert found.trend == (0.7, 0.72, 0.75)
    assert found.next_step == "Nothing to do"
    assert (found.budget.retrains, found.budget.allowed) == (1, SPEC.retrain.max_per_30_days)


def test_model_that_falls_below_its_promise_is_not_well_and_says_why(made, settings):
    made.first_model()
    made.lands(3)
    made.measured(3, champion=1, performance=performance(0.684))
    verdict = made.judged(3, "retrain", "roc_auc 0.684 is below the 0.744", champion=1)
    found = row(settings)
    assert found.state == "not well"
    assert found.sentence == f"no: {verdict.harm.in_words}"
    assert found.sentence.startswith("no: roc_auc has fallen since 2013-01-28: 0.684, before that ")
    assert found.next_step.startswith(f"A retrain was asked for: {verdict.incident_id} has not")


def test_model_whose_columns_drifted_says_the_first_reason(made, settings):
    made.first_model()
    made.lands(3)
    made.measured(3, champion=1, features=[column("pressure", 3.4)])
    made.judged(3, "retrain", "pressure drifted twice", "and more", champion=1, harm=None)
    found = row(settings)
    assert found.sentence.startswith("no: pressure has drifted, 3.4x its threshold")
    made.judged(3, "retrain", "pressure drifted twice", champion=1)
    found = row(settings)
    assert found.state == "to be looked at"  # outcomes say that it does as well as before
    assert found.sentence.startswith(
        "cannot be said for certain: pressure has drifted, 3.4x its threshold; "
    )


def test_retrain_of_a_model_whose_outcomes_are_unknown_does_not_say_that_it_is_ill(made, settings):
    made.first_model()
    made.lands(3)
    made.measured(3, champion=1)
    made.judged(3, "retrain", "7,982 new labelled rows", champion=1, harm=None)
    found = row(settings)
    assert found.state == "to be looked at"
    assert "no outcome is known yet" in found.sentence


def test_drifted_model_is_to_be_looked_at_while_drift_is_watched(made, settings):
    made.first_model()
    made.lands(3)
    made.measured(3, champion=1, features=[column("pressure", 3.4)])
    made.judged(3, "watch", "pressure drifted", champion=1)
    found = row(settings)
    assert found.state == "to be looked at"
    assert found.sentence == "drift is watched: pressure at 3.4x its threshold"


def test_blocked_retrain_says_what_holds_it(made, settings):
    made.first_model()
    made.lands(3)
    made.measured(3, champion=1, performance=performance(0.684))
    made.judged(3, "blocked", "roc_auc 0.684", "cooling down until 2013-02-11", champion=1)
    found = row(settings)
    assert found.outcome == "blocked"
    assert "(cooling down until 2013-02-11)" in found.next_step
    assert found.budget.hold.startswith("cooling down until")


def test_rolled_back_model_does_not_show_the_metric_as_that_of_the_version_now(made, settings):
    summer(made)
    found = row(settings)
    assert (found.version, found.now_version) == (1, 2)
    assert found.sentence == "not judged yet"
    assert found.why == "rollback: rollback drill"


def test_model_in_probation_says_how_it_does_and_asks_for_the_rollback(made, settings):
    made.first_model()
    incident = made.retrained(3, version=2, champion=1, passed=True, why="better")
    made.moved(3, 2, previous=1, incident=incident)
    made.lands(4)
    probation = Probation(
        version=2, incident_id=incident, against=1, against_incident="x", state="worse",
        looked_at=3, gain=-0.02, times_worse=400.0, margin=0.01,
    )  # fmt: skip
    made.measured(4, champion=2, champion_incident=incident, probation=probation)
    made.judged(4, "rollback", probation.in_words, champion=2)
    found = page(settings)
    assert found.row.state == "not well"
    assert found.row.sentence == "no: it is worse than the version before it"
    assert "version 2 against version 1" in found.status.probation
    assert [one.title for one in found.actions][:2] == ["Retrain", "Roll back to version 1"]


def test_missing_outcomes_are_counted_and_judge_nothing(made, settings):
    made.first_model()
    made.lands(3)
    made.measured(3, champion=1, features=[column("pressure", 0.4)])
    made.judged(3, "ignore", "outcomes are missing", champion=1, awaits_outcomes=True)
    found = row(settings)
    assert found.state == "to be looked at"
    assert found.sentence.startswith("cannot be said, outcomes are missing")


def test_columns_without_a_verdict_are_named_and_limit_the_yes(made, settings):
    made.first_model()
    made.lands(3)
    made.measured(3, champion=1, features=[column("pressure", 0.4), column("temp", None)])
    made.judged(3, "ignore", "nothing", champion=1)
    found = row(settings)
    assert found.unjudged == ("temp",)
    assert found.sentence == "yes, as far as 1 of 2 columns say"


def test_damaged_ledger_is_not_well_whatever_the_verdict_says(made, settings):
    healthy(made)
    key = shelf.ledger_entry_key(SPEC.model, 1)
    storage = Storage.of(settings)
    storage.write_json(key, storage.read_json(key) | {"reason": "another"})
    found = row(settings)
    assert found.state == "not well"
    assert found.sentence == "no: the ledger is damaged: entry 1 was changed after it was written"
    assert page(settings).ledger_problems == ("entry 1 was changed after it was written",)


def test_half_written_verdict_makes_the_row_unknown_and_no_other(made, settings):
    healthy(made)
    other = SPEC.model_copy(update={"model": "other"})
    healthy(Made(other, settings))
    Storage.of(settings).write(shelf.key_of(Verdict, SPEC.model, "2013-01-28"), b'{"batch": {')
    found = fleet([row(settings, other), row(settings)], at=AT)
    assert [(one.model, one.state) for one in found.rows] == [
        ("flights", "to be looked at"),
        ("other", "well"),
    ]
    assert found.rows[0].version == 1  # that much is known
    assert found.rows[0].sentence == "cannot be said: the newest verdict is damaged"
    assert found.rows[0].next_step == (
        "What was kept about 2013-01-28 is damaged: clear its run of flights__monitor"
    )


def test_damaged_report_of_an_earlier_batch_hides_nothing_that_is_known(made, settings):
    healthy(made)
    Storage.of(settings).write(shelf.key_of(ValidationReport, SPEC.model, "2013-01-14"), b"{")
    found = status_of(SPEC, settings)
    assert (found.well, found.word) == (True, "yes")
    assert found.advice == (
        "What was kept about 2013-01-14 is damaged: clear its run of flights__ingest",
    )


def test_storage_that_is_down_is_said_in_the_row(made, settings, monkeypatch):
    healthy(made)

    def down(*_: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(Storage, "read", down)
    found = row(settings)
    assert (found.state, found.version) == ("unknown", None)
    assert "ConnectionError: no route to host" in found.sentence


def test_what_is_due_comes_first_and_then_the_name():
    rows = [
        FleetRow(
            model=name, description="", owner="", state=state, sentence="", next_step="x"
        )
        for name, state in (
            ("a", "well"), ("b", "nothing yet"), ("d", "not well"), ("c", "not well"),
            ("e", "unknown"), ("f", "to be looked at"),
        )
    ]  # fmt: skip
    assert [one.model for one in fleet(rows, at=AT).rows] == ["e", "c", "d", "f", "b", "a"]


def test_fleet_is_as_old_as_its_oldest_row(settings):
    early = AT - dt.timedelta(minutes=5)
    rows = [row(settings), fleet_row(SPEC, settings, at=early), not_read_yet(SPEC)]
    assert fleet(rows, at=AT).as_of == early
    assert fleet([not_read_yet(SPEC)], at=AT).as_of == AT


def test_a_model_that_was_not_read_yet_claims_nothing():
    found = not_read_yet(SPEC)
    assert (found.state, found.version, found.outcome) == ("unknown", None, None)


# --- one model ------------------------------------------------------------------------------------


def test_whole_story_of_a_model(made, settings):
    summer(made)
    found = page(settings)
    assert found.trouble == ()
    assert [one.partition for one in found.batches] == [made.batch(n).partition for n in range(12)]
    by_name = {one.partition: one for one in found.batches}
    refused = by_name[made.batch(6).partition]
    assert (refused.delivery, refused.in_force, refused.rows) == ("refused", False, 6500)
    assert refused.reasons[0].startswith("column must exist: column 'distance' is missing")
    assert by_name[made.batch(3).partition].quarantined == 95
    assert [(m.action, m.version) for m in found.moves] == [
        ("promotion", 1), ("promotion", 2), ("rollback", 1),
    ]  # fmt: skip
    assert found.ledger_problems == ()
    assert [(d.candidate_version, d.passed) for d in found.duels] == [
        (3, False), (2, True), (1, True),
    ]  # fmt: skip
    assert found.duels[1].gain.value == 0.0144
    assert {one.partition for one in found.actions if one.name == "replay"} == {
        made.batch(6).partition,
        made.batch(3).partition,
    }


def test_pages_are_the_same_on_s3(made, settings, s3_environment, tmp_path):
    url = f"s3://retraining/page-{tmp_path.name}"
    elsewhere = Settings(home=tmp_path, storage_url=url)
    for one in (made, Made(SPEC, elsewhere)):
        summer(one, 8)
    assert page(elsewhere) == page(settings)
    partition = made.batch(4).partition
    assert batch_page(SPEC, elsewhere, partition, at=AT) == batch_page(
        SPEC, settings, partition, at=AT
    )


def test_map_tells_not_judged_expected_drifted_and_not_measured_apart(made, settings):
    summer(made)
    found = {one.name: one for one in page(settings).columns}
    assert next(iter(found)) == "minute_of_day"  # the most important one
    temp = [cell and (cell.state, cell.times is None) for cell in found["temp"].cells]
    assert temp[:3] == [None, None, None]
    assert temp[3] == ("not judged", True)
    assert temp[4][0] == "drifted"
    assert temp[6] is None  # refused
    assert found["pressure"].cells[4].times > 1
    assert "expected" not in {c.state for c in found["pressure"].cells if c}


def test_expected_drift_is_no_drift_in_the_map(made, settings):
    made.first_model()
    made.lands(3)
    made.measured(3, champion=1, features=[column("month", 4.0, expected=True)])
    cell = page(settings).columns[0].cells[-1]
    assert (cell.state, cell.times) == ("expected", pytest.approx(4.0))


def test_thresholds_that_no_history_has_calibrated_are_told(made, settings):
    made.first_model()
    made.lands(3)
    early = column("temp", 4.0).model_copy(update={"state": "uncalibrated"})
    made.measured(3, champion=1, features=[early, column("dewp", 2.0)], state="uncalibrated")
    found = {one.name: one.cells[-1] for one in page(settings).columns}
    assert (found["temp"].state, found["temp"].calibrated) == ("drifted", False)
    assert found["dewp"].calibrated
    chapters = batch_page(SPEC, settings, made.batch(3).partition, at=AT).chapters
    (drift,) = [one for one in chapters if one.key == "drift"]
    assert "thresholds are not calibrated yet" in drift.lines[0]


def test_only_the_newest_batches_are_read(made, settings):
    for number in range(BATCHES + 5):
        made.lands(number)
    found = page(settings)
    assert len(found.batches) == BATCHES
    assert found.batches[-1].partition == made.batch(BATCHES + 4).partition


def test_batches_after_a_long_gap_are_found(made, settings):
    for number in (0, 1, 200):
        made.lands(number)
    assert [one.partition for one in page(settings).batches] == [
        made.batch(number).partition for number in (0, 1, 200)
    ]


def test_batch_without_records_is_shown_as_what_it_is(made, settings):
    batch = made.lands(0)
    storage = Storage.of(settings)
    storage.delete(shelf.key_of(ValidationReport, SPEC.model, batch.partition))
    (found,) = page(settings).batches
    assert (found.delivery, found.in_force, found.rows, found.outcome) == (None, True, None, None)


@pytest.mark.parametrize(
    ("kind", "told"),
    [(ValidationReport, "validation"), (DriftReport, "drift"), (Verdict, "verdict")],
)
def test_damaged_record_of_a_batch_is_named_and_hides_no_other(made, settings, kind, told):
    summer(made)
    partition = made.batch(4).partition
    Storage.of(settings).write(shelf.key_of(kind, SPEC.model, partition), b"\xff\x00half")
    found = page(settings)
    assert f"the {told} record of {partition} is damaged" in found.trouble
    assert len(found.batches) == 12
    assert found.row.version == 1  # the ledger knows it, whatever else cannot be read


def test_damaged_records_of_a_retrain_leave_its_row(made, settings):
    summer(made)
    storage = Storage.of(settings)
    incident = page(settings).duels[1].incident_id
    for kind in (GateDecision, RetrainClaim):
        storage.write(shelf.key_of(kind, SPEC.model, incident), b"{}")
    found = page(settings)
    assert {f"the gate's decision about {incident} is damaged",
            f"the claim of {incident} is damaged"} <= set(found.trouble)  # fmt: skip
    one = found.duels[1]
    assert (one.passed, one.run_id, one.candidate_version) == (None, None, None)


def test_damaged_ledger_entry_leaves_those_that_can_be_read(made, settings):
    summer(made)
    Storage.of(settings).write(shelf.ledger_entry_key(SPEC.model, 2), b"{")
    found = page(settings)
    assert [one.sequence for one in found.moves] == [1, 3]
    assert any("entry 2 is missing" in one for one in found.ledger_problems)
    assert (found.status, found.row.state) == (None, "unknown")


def test_storage_that_is_down_raises_so_that_nobody_takes_it_for_an_empty_model(
    made, settings, monkeypatch
):
    healthy(made)

    def down(*_: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(Storage, "read", down)
    with pytest.raises(ConnectionError):
        page(settings)


def test_without_a_champion_there_is_nothing_to_roll_back(made, settings):
    made.lands(0)
    assert [one.name for one in page(settings).actions] == ["retrain"]


@pytest.mark.parametrize(
    ("autonomy", "told"),
    [(1, "Nothing is promoted"), (2, "if a person approves"), (3, "promoted without asking")],
)
def test_what_a_retrain_leads_to_is_what_the_model_file_says(settings, autonomy, told):
    spec = small_spec(retrain={"autonomy": autonomy})
    found = page(settings, spec)
    assert told in found.actions[0].meaning
    assert told in found.retrain_rules[0]


@pytest.mark.parametrize(
    ("address", "links"), [("https://mlflow", 1), ("javascript:alert(1)//", 0), ("mlflow", 0)]
)
def test_only_addresses_of_the_web_are_linked(tmp_path, address, links):
    settings = Settings(home=tmp_path, mlflow_url=address)
    found = version_link(settings, "a/b", 3)
    assert len(found) == links
    assert [one.url for one in found] == ["https://mlflow/#/models/a%2Fb/versions/3"][:links]


# --- one batch ------------------------------------------------------------------------------------


def story(settings: Settings, made: Made, number: int) -> dict[str, str]:
    found = batch_page(SPEC, settings, made.batch(number).partition, at=AT)
    return {one.key: one.told for one in found.chapters}


def test_story_of_a_batch_that_led_to_a_promotion_is_in_order(made, settings):
    summer(made)
    found = batch_page(SPEC, settings, made.batch(4).partition, at=AT)
    assert [one.key for one in found.chapters] == [
        "validation", "features", "drift", "verdict", "retrain", "gate", "production",
    ]  # fmt: skip
    told = {one.key: one for one in found.chapters}
    assert told["verdict"].told == "retrain, about version 1."
    assert told["retrain"].told == "Version 2 was trained."
    assert told["gate"].told == "Version 2 passed."
    assert "version 2 was promoted, by Airflow" in told["production"].lines[0]
    assert found.columns[0].cell.state == "drifted"
    assert found.trouble == ()


def test_story_of_a_refused_batch_ends_there(made, settings):
    summer(made)
    told = story(settings, made, 6)
    assert told["validation"] == "Refused: all 6,500 rows were kept apart."
    assert told["verdict"] == "No verdict is known of it."
    assert "retrain" not in told


def test_story_tells_of_the_quarantine_and_of_a_rollback(made, settings):
    summer(made)
    assert story(settings, made, 3)["quarantine"].startswith("95 rows are kept apart")
    assert story(settings, made, 11)["production"] == "The champion was changed 1 time."


def test_story_of_a_batch_nobody_knows_claims_nothing(settings, made):
    assert set(story(settings, made, 0).values()) == {
        "No validation is known of it.", "No features are known of it.",
        "No measurement is known of it.", "No verdict is known of it.",
    }  # fmt: skip


def test_rejected_candidate_changed_nothing(made, settings):
    summer(made)
    told = story(settings, made, 5)
    assert told["gate"] == "Version 3 was rejected."
    assert told["production"] == "The champion was not changed because of it."


def test_answer_to_the_guard_is_told_where_it_is_about_this_verdict(made, settings):
    made.first_model()
    made.lands(3)
    verdict = made.judged(3, "rollback", "worse", champion=1)
    shelf.keep(Storage.of(settings), GuardAnswer.to(verdict, approved=False, by="ann"))
    found = batch_page(SPEC, settings, made.batch(3).partition, at=AT)
    (chapter,) = [one for one in found.chapters if one.key == "verdict"]
    assert chapter.lines[-1] == "Asked about the rollback: ann said no."


@pytest.mark.parametrize("partition", ["2013-01-08", "../../etc", "2013-13-01", ""])
def test_partition_that_the_model_does_not_have_is_refused(settings, partition):
    with pytest.raises(SpecError, match="partition"):
        batch_page(SPEC, settings, partition, at=AT)


# --- hostile values -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_hostile_values_stay_text_and_turn_nothing_around(made, settings, value):
    made.first_model()
    made.lands(3, refused=(value,))
    made.lands(4)
    made.measured(4, champion=1, features=[column(value, 2.0, reason=value)])
    made.judged(4, "watch", value, champion=1)
    made.moved(4, 1, previous=1, action="rollback", reason=value, actor=value)
    batch = made.batch(4).partition
    pages = (
        fleet([row(settings)], at=AT),
        page(settings),
        batch_page(SPEC, settings, batch, at=AT),
    )
    for one in pages:
        text = as_json(one).decode()
        content = json.loads(text)
        assert content["as_of"] == AT.isoformat().replace("+00:00", "Z")
        seen = "".join(strings(content))
        assert not set(seen) & {"\u202e", "\u2066", "\u200e", "\u2028", "\x1b", "\x07", "\x00"}
        assert max(map(len, strings(content))) <= 2000


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for one in value.values() for text in strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return []


def test_times_are_told_in_utc(made, settings):
    healthy(made)
    since = json.loads(as_json(page(settings)))["row"]["since"]
    assert dt.datetime.fromisoformat(since).utcoffset() == dt.timedelta(0)
