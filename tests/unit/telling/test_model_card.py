from __future__ import annotations

import datetime as dt
from pathlib import Path

import mlflow
import pytest

from include.retraining import shelf
from include.retraining.monitor import measuring
from include.retraining.records import Candidate, GateDecision, RetrainRequest
from include.retraining.registry import server, succession, versions
from include.retraining.retrain import gate
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from include.retraining.telling import model_card
from tests.unit.pipeline import small_spec, train
from tests.unit.writers import draft

SPEC = small_spec()
AT = dt.datetime(2013, 2, 4, 9, 30, tzinfo=dt.UTC)


def described(settings: Settings, number: int) -> str:
    return str(server.client(settings).get_model_version("flights", str(number)).description)


def logged(settings: Settings, number: int) -> str:
    found = versions.version(SPEC, settings, number)
    path = mlflow.artifacts.download_artifacts(
        run_id=found.run_id, artifact_path=shelf.CARD_ARTIFACT
    )
    return Path(path).read_text()


def duel(settings: Settings, partition: str) -> tuple[RetrainRequest, Candidate, GateDecision]:
    request, candidate = train(SPEC, settings, partition)
    decision = gate.decide(SPEC, settings, request, candidate)
    model_card.publish(SPEC, settings, candidate.version)
    return request, candidate, decision


@pytest.fixture
def promoted(ingested: Settings) -> Settings:
    decision = duel(ingested, "2013-01-21")[2]
    succession.promote(SPEC, ingested, decision, actor="ada", at=AT)
    model_card.publish(SPEC, ingested, decision.candidate_version)
    return ingested


def test_candidate_has_a_card_before_it_is_judged(ingested):
    _, candidate = train(SPEC, ingested, "2013-01-21")
    model_card.publish(SPEC, ingested, candidate.version)
    card = described(ingested, 1)
    assert card == logged(ingested, 1)
    assert card.startswith("# flights, version 1\n")
    assert "## In production\n\nNever so far." in card
    assert "## How it did\n\nNot judged yet." in card
    rows = candidate.training_set
    assert f"{rows.training_rows:,} rows from 2013-01-07 to 2013-01-20 (window: expanding)" in card
    assert f"{rows.unlabelled_rows:,} rows left out" in card
    assert "manual, about 2013-01-21: a test" in card
    assert "on time-ordered folds" in card
    assert "most important: " in card
    for limit in SPEC.limitations:
        assert f"* {limit}" in card
    assert "Drift of weekday raises no alarm" in card
    assert rows.sha256 in card
    assert "python -m include.retraining reproduce flights --version 1" in card


def test_card_of_a_champion_has_its_duel_and_who_let_it_in(promoted):
    card = described(promoted, 1)
    assert card == logged(promoted, 1)
    assert "* 2013-02-04 09:30 UTC: promotion, by **ada**. " in card
    assert "On rows later than any it learned from: 2013-01-20 to 2013-01-27" in card
    promise = versions.version(SPEC, promoted, 1).promise
    assert promise is not None
    assert f"{promise.value:.4f} ({promise.low:.4f} to {promise.high:.4f})" in card


def test_card_of_a_challenger_has_the_drift_that_called_for_it_and_the_comparison(promoted):
    report = measuring.measure_drift(SPEC, promoted, SPEC.batch_ref("2013-01-28"))
    decision = duel(promoted, "2013-01-28")[2]
    card = described(promoted, 2)
    assert f"That batch against version 1 ({report.state}):" in card
    drifted = [feature for feature in report.features if feature.drifted]
    assert drifted
    for feature in drifted[: model_card.DRIFTED_SHOWN]:
        assert f"* {feature.name}: distance {feature.distance:.3f}, threshold" in card
    assert decision.slices
    for name in decision.slices:
        assert name in card
    assert "**may" in card


def test_card_written_twice_is_the_same_and_a_rollback_is_in_it(promoted):
    before = described(promoted, 1)
    assert model_card.publish(SPEC, promoted, 1) == before
    decision = duel(promoted, "2013-01-28")[2]
    passed = decision.model_copy(update={"passed": True})
    succession.promote(SPEC, promoted, passed, actor="bob", at=AT)
    succession.rollback(SPEC, promoted, reason="it is worse", actor="eve", request_id="r", at=AT)
    for number in (1, 2):
        model_card.publish(SPEC, promoted, number)
    assert "by **bob**" in described(promoted, 2)
    card = described(promoted, 1)
    assert "promotion, by **ada**" in card
    assert "rollback, by **eve**. it is worse" in card


def test_rollback_is_told_at_the_top_of_the_card_it_took_from_production(promoted):
    decision = duel(promoted, "2013-01-28")[2]
    passed = decision.model_copy(update={"passed": True})
    succession.promote(SPEC, promoted, passed, actor="bob", at=AT)
    model_card.publish_move(SPEC, promoted, 2)
    assert "version 2 took over (promotion), by **bob**" in described(promoted, 1)
    assert "Rolled back" not in described(promoted, 1)
    why = "late <b>alerts</b>\n# All is well"
    succession.rollback(SPEC, promoted, reason=why, actor="eve", request_id="r", at=AT)
    model_card.publish_move(SPEC, promoted, 1)
    heading, _, top, *rest = described(promoted, 2).splitlines()
    assert heading == "# flights, version 2"
    assert top == (
        "> **Rolled back** on 2013-02-04 09:30 UTC by eve, version 1 took over: late "
        "&lt;b&gt;alerts&lt;/b&gt; # All is well"
    )
    assert not any(line.startswith("# ") for line in rest)
    assert "Rolled back" not in described(promoted, 1)
    succession.rollback(
        SPEC, promoted, reason="not worse", actor="eve", request_id="s", at=AT, to_version=2
    )
    model_card.publish_move(SPEC, promoted, 2)
    assert "**Rolled back**" not in described(promoted, 2)
    assert "**Rolled back**" in described(promoted, 1)


def test_version_that_a_rollback_went_past_was_rolled_back_too():
    moves = [("promotion", 1, None), ("promotion", 2, 1), ("promotion", 3, 2), ("rollback", 1, 3)]
    entries = [
        draft(f"i{number}", version, action=action, previous_version=previous)
        for number, (action, version, previous) in enumerate(moves)
    ]
    removed = [model_card.removal(entries, number) for number in (1, 2, 3)]
    assert removed == [None, entries[3], entries[3]]
    assert [model_card.removal(entries[:3], number) for number in (1, 2, 3)] == [None] * 3


def test_what_could_not_be_judged_is_counted_by_importance_and_never_no_drift(promoted):
    report = measuring.measure_drift(SPEC, promoted, SPEC.batch_ref("2013-01-28"))
    blind = {"state": "insufficient", "drifted": False}
    features = tuple(
        one.model_copy(update=blind | {"importance": float(place)})
        for place, one in enumerate(report.features)
    )
    blinded = report.model_copy(update={"features": features, "score": None})
    shelf.keep(Storage.of(promoted), blinded)
    duel(promoted, "2013-01-28")
    card = described(promoted, 2)
    count, most = len(features), features[-1].name
    assert f"* {count} of {count} columns could not be judged, with 100% of the model's" in card
    assert f"importance: {most}, " in card
    assert "nothing that was judged drifted" in card


def test_tags_of_a_version_lead_to_what_it_was_made_of(promoted):
    version = server.client(promoted).get_model_version("flights", "1")
    run = server.client(promoted).get_run(version.run_id)
    tags = {name.removeprefix("retraining."): value for name, value in version.tags.items()}
    for name in ("data_sha256", "spec_sha256", "git_commit", "feature_service"):
        assert tags[name] == run.data.tags[f"retraining.{name}"] != ""
    assert tags["drift_report"] == "flights/reports/partition=2013-01-21/drift.json"
    assert tags["approver"] == "ada"
    assert len(tags["digest"]) == len(tags["model_sha256"]) == 64


def test_long_card_is_whole_in_the_run_and_cut_in_the_registry(ingested):
    train(SPEC, ingested, "2013-01-21")
    spec = SPEC.model_copy(
        update={"limitations": tuple(f"limit {n} " + "x" * 80 for n in range(90))}
    )
    card = model_card.publish(spec, ingested, 1)
    short = described(ingested, 1)
    assert card == logged(ingested, 1)
    assert len(card) > 5000 >= len(short)
    assert short.endswith("... the rest is in model_card.md of the run")
