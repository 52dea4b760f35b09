"""A version is its incident and digest: its number comes back when a model is made anew."""

from __future__ import annotations

import datetime as dt

import pytest

from include.retraining import shelf
from include.retraining.errors import RegistryError, ScoringError
from include.retraining.names import CHAMPION, INCIDENT_TAG
from include.retraining.records import Candidate, GateDecision, RetrainRequest
from include.retraining.registry import identity, ledger, server, succession, versions
from include.retraining.retrain import gate
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from include.retraining.telling import alerts
from include.retraining.telling.status import render, status_of
from tests.unit.pipeline import small_spec, train

SPEC = small_spec(gate={"mode": "enabled"})
FORCED = small_spec(training={"seed": 99})
AT = dt.datetime(2013, 2, 4, tzinfo=dt.UTC)


def entries(settings: Settings) -> list[ledger.Entry]:
    return ledger.read(Storage.of(settings), "flights")


def decision(settings: Settings, version: int, champion: int | None) -> GateDecision:
    return GateDecision(
        incident_id=versions.version(SPEC, settings, version).incident_id,
        model="flights",
        partition="2013-01-28",
        candidate_version=version,
        champion_version=champion,
        passed=True,
        reasons=("better",),
        candidate=None,
    )


def promote(settings: Settings, version: int, champion: int | None) -> None:
    about = decision(settings, version, champion)
    succession.promote(SPEC, settings, about, actor="test", at=AT)


def rollback(settings: Settings, request_id: str, to_version: int | None = None) -> int:
    return succession.rollback(
        SPEC, settings, reason="bad", actor="me", request_id=request_id, at=AT,
        to_version=to_version,
    ).version  # fmt: skip


def look(settings: Settings) -> ledger.Entry | None:
    return succession.notice_hand_move(SPEC, settings, at=AT)


def delete_model(settings: Settings) -> None:
    server.client(settings).delete_registered_model("flights")
    versions._load.cache_clear()


def forced_retrain(settings: Settings) -> tuple[RetrainRequest, Candidate, GateDecision]:
    """What the retrain DAG does when it is started by hand with force."""
    request, candidate = train(FORCED, settings, "2013-01-28")
    return request, candidate, gate.decide(SPEC, settings, request, candidate)


@pytest.fixture
def remade(trained: Settings) -> Settings:
    """Version 1 was champion; the registered model was deleted, and another model is version 1."""
    promote(trained, 1, None)
    delete_model(trained)
    train(FORCED, trained, "2013-01-28")
    return trained


def test_entry_says_which_version_its_number_means(trained: Settings):
    promote(trained, 1, None)
    found, entry = versions.version(SPEC, trained, 1), entries(trained)[0]
    assert (entry.version_incident, entry.version_sha256) == (found.incident_id, found.model_sha256)
    assert found.model_sha256
    assert ledger.verify(Storage.of(trained), "flights") == []
    changed = entry.model_copy(update={"version_sha256": None})
    assert changed.digest() != entry.hash  # it cannot be taken out again


def test_entries_from_before_identities_are_intact_and_know_what_they_knew(trained: Settings):
    """Their hashes were made without; a promotion names the incident of its version all along."""
    storage = Storage.of(trained)
    promote(trained, 1, None)
    old = entries(trained)[0].model_copy(update={"version_incident": None, "version_sha256": None})
    plain = old.model_dump(mode="json", exclude={"hash", "version_incident", "version_sha256"})
    old = old.model_copy(update={"hash": ledger.Entry.model_validate(plain).digest()})
    storage.write_json(shelf.ledger_entry_key("flights", 1), old)
    assert ledger.verify(storage, "flights") == []
    assert identity.loss(SPEC, trained, old) == ""
    server.set_tags(SPEC, trained, 1, {INCIDENT_TAG: "another"})
    assert "made by incident another, that one by" in identity.loss(SPEC, trained, old)


def test_rollback_never_crowns_another_model_under_the_number(remade: Settings):
    """It used to: the advised rollback crowned a worse model, and the ledger verified."""
    before = entries(remade)
    with pytest.raises(
        RegistryError, match="cannot return to version 1: version 1 in MLflow is an"
    ):
        rollback(remade, "r1", to_version=1)
    with pytest.raises(RegistryError, match="there is nothing to return to"):
        rollback(remade, "r2")
    assert server.aliases(SPEC, remade).get(CHAMPION) is None
    assert entries(remade) == before


def test_hand_at_another_model_under_the_number_is_a_hand(remade: Settings):
    server.set_alias(SPEC, remade, CHAMPION, 1)
    told = status_of(SPEC, remade, registry=True)
    assert (told.well, told.word) == (False, "no")
    assert "is at version 1, and version 1 in MLflow is another model than" in told.advice[0]
    entry = look(remade)
    assert entry is not None
    assert (entry.action, entry.version) == ("by_hand", 1)
    assert "another model than that of ledger entry 1: it was made by" in entry.reason
    told = alerts.of_hand_move(entry)
    assert told.title == (
        "Version 1 was made champion by hand, in place of another model with that number, which "
        "MLflow has no more"
    )
    assert "rollback" not in told.lines[-1]
    assert look(remade) is None
    assert len(entries(remade)) == 2
    with pytest.raises(RegistryError, match="nothing to return to"):
        rollback(remade, "r1")


def test_artifact_that_was_replaced_under_its_tags_is_another_model(trained: Settings):
    promote(trained, 1, None)
    server.set_tags(SPEC, trained, 1, {versions.SHA256_TAG: "f" * 64})
    entry = look(trained)
    assert entry is not None
    assert "its artifact has SHA-256 ffffffffffff, that one's" in entry.reason


def test_approval_of_a_candidate_that_was_replaced_promotes_nothing(trained: Settings):
    asked = decision(trained, 1, None)
    delete_model(trained)
    train(FORCED, trained, "2013-01-28")
    for answer in (
        lambda: succession.promote(SPEC, trained, asked, actor="ada", at=AT),
        lambda: succession.turn_down(SPEC, trained, asked, by="ada"),
    ):
        with pytest.raises(RegistryError, match="version 1 in MLflow is not the candidate of"):
            answer()
    assert entries(trained) == []
    assert succession.APPROVER_TAG not in versions.version(SPEC, trained, 1).tags


def test_duel_is_never_held_against_another_model_under_the_number(trained: Settings):
    promote(trained, 1, None)
    request, candidate = train(FORCED, trained, "2013-01-28")
    assert request.champion_version == 1
    server.set_tags(SPEC, trained, 1, {INCIDENT_TAG: "another"})
    found = gate.decide(SPEC, trained, request, candidate)
    assert not found.passed
    assert any("made by incident another" in reason for reason in found.reasons)


def test_promotion_after_a_duel_with_another_champion_of_that_number_is_refused(trained: Settings):
    promote(trained, 1, None)
    held = decision(trained, 2, 1).model_copy(
        update={"champion_incident": versions.version(SPEC, trained, 1).incident_id}
    )
    server.set_tags(SPEC, trained, 1, {INCIDENT_TAG: "another"})
    with pytest.raises(RegistryError, match="another model with that number is champion now"):
        succession.promote(SPEC, trained, held, actor="test", at=AT)
    assert [one.action for one in entries(trained)] == ["promotion", "by_hand"]


# --- what was deleted, and the way out ------------------------------------------------------------


def test_after_the_registered_model_was_deleted_a_forced_retrain_gives_a_champion(
    trained: Settings,
):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    delete_model(trained)
    with pytest.raises(succession.ChampionLost, match="no earlier champion is in MLflow either"):
        look(trained)
    told = status_of(SPEC, trained, registry=True)
    assert (told.version, told.well) == (None, False)
    assert "flights__retrain with force trains a new one" in render(told)
    request, candidate, decided = forced_retrain(trained)
    assert request.champion_version is None
    assert candidate.version == 1
    assert decided.passed, decided.reasons
    assert "no champion to beat" in decided.reasons[0]
    moved = succession.promote(SPEC, trained, decided, actor="test", at=AT)
    assert (moved.version, moved.previous_version, moved.ledger_sequence) == (1, None, 3)
    assert look(trained) is None
    assert server.aliases(SPEC, trained)[CHAMPION] == 1
    assert ledger.verify(Storage.of(trained), "flights") == []
    assert status_of(SPEC, trained, registry=True).run_id == candidate.run_id
    with pytest.raises(RegistryError, match="nothing to return to"):
        rollback(trained, "r1")  # to version 1 of before, or 2: neither is there


def test_after_the_champion_was_deleted_the_rollback_that_is_told_gives_one(trained: Settings):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    server.client(trained).delete_model_version("flights", "2")
    with pytest.raises(succession.ChampionLost, match="__rollback returns to version 1"):
        look(trained)
    with pytest.raises(RegistryError, match="MLflow has no version 2 of flights any more"):
        rollback(trained, "r0", to_version=2)
    assert rollback(trained, "r1") == 1
    assert look(trained) is None
    assert status_of(SPEC, trained, registry=True).version == 1


def test_version_that_was_rolled_back_from_and_deleted_bars_no_retrain(trained: Settings):
    """It used to: nothing could be compared with it any more, so no candidate passed."""
    promote(trained, 1, None)
    promote(trained, 2, 1)
    rollback(trained, "r1")
    server.client(trained).delete_model_version("flights", "2")
    _, _, decided = forced_retrain(trained)
    assert not [check for check in decided.checks if "rolled-back" in check.name]


def test_deleted_run_bars_no_rollback_and_one_that_is_gone_for_good_is_told(trained: Settings):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    server.client(trained).delete_run(versions.version(SPEC, trained, 1).run_id)
    assert rollback(trained, "r1") == 1
    with pytest.raises(RegistryError, match="MLflow has no run 'nobody' any more"):
        server.run_data(trained, "nobody")


def test_deleted_experiment_is_restored_as_it_is_told(trained: Settings):
    api = server.client(trained)
    found = server.experiment_id(SPEC, trained)
    api.delete_experiment(found)
    with pytest.raises(RegistryError, match=f"mlflow experiments restore -x {found}"):
        train(FORCED, trained, "2013-01-28")
    api.restore_experiment(found)
    _, candidate = train(FORCED, trained, "2013-01-28")
    assert candidate.version == 4


def test_only_champion_without_its_artifact_is_replaced_as_it_is_told(trained: Settings):
    promote(trained, 1, None)
    source = server.client(trained).get_model_version("flights", "1").source
    folder = trained.home / "mlflow-artifacts" / "flights" / "models"
    (folder / source.removeprefix("models:/")).rename(trained.home / "gone")
    with pytest.raises(ScoringError, match="delete version 1 in MLflow, and run flights__retrain"):
        versions.load_model(SPEC, trained, versions.version(SPEC, trained, 1))
    server.client(trained).delete_model_version("flights", "1")
    _, candidate, decided = forced_retrain(trained)
    succession.promote(SPEC, trained, decided, actor="test", at=AT)
    assert look(trained) is None
    assert server.aliases(SPEC, trained)[CHAMPION] == candidate.version


def test_move_that_died_before_its_alias_does_not_crown_another_model(trained: Settings):
    """An entry without its mark is followed by whoever looks next, if its version is there."""
    promote(trained, 1, None)
    storage = Storage.of(trained)
    storage.delete(shelf.ledger_mark_key("flights", 1, "followed"))
    delete_model(trained)
    train(FORCED, trained, "2013-01-28")
    with pytest.raises(succession.ChampionLost, match="another model than that of ledger entry 1"):
        look(trained)
    assert CHAMPION not in server.aliases(SPEC, trained)
