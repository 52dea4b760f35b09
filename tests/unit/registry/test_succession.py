from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from include.retraining.errors import RegistryError, ScoringError
from include.retraining.features import own_features
from include.retraining.learning.estimator import build_pipeline
from include.retraining.names import CHALLENGER, CHAMPION, INCIDENT_TAG, PREVIOUS_CHAMPION
from include.retraining.records import GateDecision, Performance, Promotion, TrainingSet
from include.retraining.registry import ledger, server, succession, versions
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from tests.unit.pipeline import small_spec

SPEC = small_spec()
AT = dt.datetime(2013, 2, 4, tzinfo=dt.UTC)
PROMISE = Performance(metric="roc_auc", rows=5000, value=0.7, low=0.68, high=0.72)


@pytest.fixture
def trained(trained: Settings) -> Settings:
    """Versions 1, 2 and 3, made by the incidents of `decision`."""
    for number in (1, 2, 3):
        server.set_tags(SPEC, trained, number, {INCIDENT_TAG: f"incident-{number}"})
    return trained


def decision(version: int, champion: int | None, *, passed: bool = True) -> GateDecision:
    return GateDecision(
        incident_id=f"incident-{version}",
        model="flights",
        partition="2013-01-28",
        candidate_version=version,
        champion_version=champion,
        passed=passed,
        reasons=("better",),
        candidate=PROMISE,
    )


def promote(settings: Settings, version: int, champion: int | None) -> Promotion:
    made_by = versions.version(SPEC, settings, version).incident_id
    about = decision(version, champion).model_copy(update={"incident_id": made_by})
    return succession.promote(SPEC, settings, about, actor="test", at=AT)


def rollback(settings: Settings, request_id: str, to_version: int | None = None) -> Promotion:
    return succession.rollback(
        SPEC,
        settings,
        reason="it is worse",
        actor="test",
        request_id=request_id,
        at=AT,
        to_version=to_version,
        why_not=lambda learned: own_features.why_not(SPEC, learned),
    )


def production(settings: Settings) -> tuple[int | None, int | None, dict[int, str]]:
    """Give champion, previous champion, and the stages; the ledger must say the same."""
    found = server.aliases(SPEC, settings)
    stages = {n: versions.version(SPEC, settings, n).stage for n in (1, 2, 3)}
    line = ledger.reign(entries(settings))
    assert [entry.version for entry in line[-1:]] == [
        number for name, number in found.items() if name == CHAMPION
    ]
    assert ledger.verify(Storage.of(settings), "flights") == []
    return found.get(CHAMPION), found.get(PREVIOUS_CHAMPION), stages


def entries(settings: Settings) -> list[ledger.Entry]:
    return ledger.read(Storage.of(settings), "flights")


def three_reigns(settings: Settings) -> None:
    promote(settings, 1, None)
    promote(settings, 2, 1)
    promote(settings, 3, 2)


def test_model_without_versions_has_no_champion_and_no_aliases(empty: Settings):
    assert versions.champion(SPEC, empty) is None
    assert server.aliases(SPEC, empty) == {}
    assert versions.version_of_incident(SPEC, empty, "x") is None
    with pytest.raises(RegistryError, match="no version 1"):
        versions.version(SPEC, empty, 1)


def test_first_promotion_crowns_without_a_predecessor(trained: Settings):
    promotion = promote(trained, 3, None)
    assert production(trained) == (3, None, {1: "None", 2: "None", 3: "Production"})
    assert (promotion.previous_version, promotion.ledger_sequence) == (None, 1)
    assert CHALLENGER not in server.aliases(SPEC, trained)
    found = versions.champion(SPEC, trained)
    assert found is not None
    assert found.promise == PROMISE


def test_second_promotion_retires_the_first(trained: Settings):
    promote(trained, 1, None)
    promotion = promote(trained, 2, 1)
    assert production(trained) == (2, 1, {1: "Archived", 2: "Production", 3: "None"})
    assert (promotion.previous_version, promotion.ledger_sequence) == (1, 2)


def test_challenger_alias_of_another_version_stays(trained: Settings):
    assert server.aliases(SPEC, trained)[CHALLENGER] == 3
    promote(trained, 1, None)
    assert server.aliases(SPEC, trained)[CHALLENGER] == 3


def test_candidate_that_failed_the_gate_is_not_promoted(trained: Settings):
    with pytest.raises(RegistryError, match="did not pass the gate"):
        succession.promote(SPEC, trained, decision(1, None, passed=False), actor="test", at=AT)
    assert production(trained)[0] is None


def test_promotion_run_twice_is_one_promotion(trained: Settings):
    promote(trained, 1, None)
    before = production(trained)
    assert promote(trained, 1, None) == promote(trained, 1, None)
    assert production(trained) == before
    assert len(entries(trained)) == 1


CALLS = (
    "set_model_version_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "transition_model_version_stage",
)


class Killed(BaseException):
    """A kill -9 between two calls."""


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process die before its n-th change of registry or ledger."""
    from mlflow import MlflowClient

    seen = []

    def watch(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: object, **kwargs: object) -> object:
            seen.append(name)
            if len(seen) == number:
                raise Killed(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for name in CALLS:
        watch(MlflowClient, name)
    watch(Storage, "create")


@pytest.mark.parametrize("number", range(1, 9))
def test_promotion_killed_anywhere_is_finished_by_the_next_run(trained, monkeypatch, number):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    with monkeypatch.context() as patch:
        kill_at(patch, number)
        with pytest.raises(Killed):  # claim, tag, two aliases, challenger, two stages, the ledger
            promote(trained, 3, 2)
        assert server.aliases(SPEC, trained)[CHAMPION] in {2, 3}
    promote(trained, 3, 2)
    assert production(trained) == (3, 2, {1: "Archived", 2: "Archived", 3: "Production"})
    assert [entry.version for entry in entries(trained)] == [1, 2, 3]


@pytest.mark.parametrize("number", range(1, 7))
def test_rollback_killed_anywhere_is_finished_by_the_next_run(trained, monkeypatch, number):
    three_reigns(trained)
    with monkeypatch.context() as patch:
        kill_at(patch, number)
        with pytest.raises(Killed):
            rollback(trained, "r")
        assert server.aliases(SPEC, trained)[CHAMPION] in {2, 3}
    rollback(trained, "r")
    assert production(trained) == (2, 1, {1: "Archived", 2: "Production", 3: "Archived"})
    assert [entry.version for entry in entries(trained)] == [1, 2, 3, 2]


def test_champion_moved_by_hand_stops_a_promotion(trained: Settings):
    promote(trained, 1, None)
    server.client(trained).set_registered_model_alias("flights", CHAMPION, "3")
    with pytest.raises(RegistryError, match="version 3 is champion now; nothing was changed"):
        promote(trained, 2, 1)
    assert server.aliases(SPEC, trained)[CHAMPION] == 3
    assert [(entry.action, entry.version) for entry in entries(trained)] == [
        ("promotion", 1),
        ("by_hand", 3),
    ]


def test_champion_removed_by_hand_stops_a_promotion(trained: Settings):
    promote(trained, 1, None)
    server.client(trained).delete_registered_model_alias("flights", CHAMPION)
    with pytest.raises(
        RegistryError, match="somebody removed the alias 'champion'; by the ledger version 1"
    ):
        promote(trained, 2, 1)


def test_rollback_returns_to_the_champion_before(trained: Settings):
    three_reigns(trained)
    promotion = rollback(trained, "r1")
    assert (promotion.action, promotion.version, promotion.previous_version) == ("rollback", 2, 3)
    assert production(trained) == (2, 1, {1: "Archived", 2: "Production", 3: "Archived"})


def test_second_rollback_goes_one_further_and_a_third_has_nowhere_to_go(trained: Settings):
    three_reigns(trained)
    rollback(trained, "r1")
    rollback(trained, "r2")
    assert production(trained) == (1, None, {1: "Production", 2: "Archived", 3: "Archived"})
    with pytest.raises(RegistryError, match="version 1 is the only champion so far"):
        rollback(trained, "r3")
    assert production(trained)[0] == 1


def test_same_rollback_request_again_changes_nothing(trained: Settings):
    three_reigns(trained)
    assert rollback(trained, "r1") == rollback(trained, "r1")
    assert production(trained)[:2] == (2, 1)
    assert len(entries(trained)) == 4


def test_rollback_to_a_version_skips_those_after_it(trained: Settings):
    three_reigns(trained)
    promotion = rollback(trained, "r1", to_version=1)
    assert (promotion.version, promotion.previous_version) == (1, 3)
    assert production(trained) == (1, None, {1: "Production", 2: "Archived", 3: "Archived"})


def test_rollback_that_is_regretted_remembers_whom_it_replaced(trained: Settings):
    # the line of champions used to forget everyone when a removed version came back
    three_reigns(trained)
    rollback(trained, "r1", to_version=1)
    rollback(trained, "r2", to_version=3)
    assert production(trained)[:2] == (3, 1)
    rollback(trained, "r3")
    assert production(trained)[:2] == (1, None)


def test_rollback_from_a_champion_the_ledger_does_not_know_returns_to_the_one_it_knows(trained):
    """A promotion killed after the alias moved, or a hand in MLflow: one step back, not two."""
    promote(trained, 1, None)
    promote(trained, 2, 1)
    server.client(trained).set_registered_model_alias("flights", CHAMPION, "3")
    promotion = rollback(trained, "r1")
    assert (promotion.version, promotion.previous_version) == (2, 3)
    assert production(trained)[:2] == (2, 1)


def test_rollback_to_a_version_that_never_was_champion_is_refused(trained: Settings):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    with pytest.raises(RegistryError, match=r"version 3 never was champion; allowed: \[1, 2\]"):
        rollback(trained, "r1", to_version=3)
    assert production(trained)[:2] == (2, 1)


def test_rollback_to_the_champion_itself_is_refused(trained: Settings):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    with pytest.raises(RegistryError, match="version 2 is champion already"):
        rollback(trained, "r1", to_version=2)
    assert len(entries(trained)) == 2


def test_rollback_without_any_champion_is_refused(trained: Settings):
    with pytest.raises(RegistryError, match="no champion yet"):
        rollback(trained, "r1")


def test_rollback_never_crowns_a_version_that_cannot_be_loaded(trained: Settings):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    for folder in (trained.home / "mlflow-artifacts" / "flights" / "models").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(ScoringError, match="version 1 cannot be loaded"):
        rollback(trained, "r1")
    assert production(trained)[:2] == (2, 1)


def test_promotion_run_again_after_a_rollback_does_not_bring_the_version_back(trained: Settings):
    # it used to: the alias was again the one the duel was against
    promote(trained, 1, None)
    promote(trained, 2, 1)
    rollback(trained, "r1")
    with pytest.raises(RegistryError, match="nothing was changed"):
        promote(trained, 2, 1)
    assert production(trained)[:2] == (1, None)


def test_rollback_run_again_after_a_promotion_does_not_undo_it(trained: Settings):
    # it used to: the recorded target was crowned again, under a ledger that said otherwise
    promote(trained, 1, None)
    promote(trained, 2, 1)
    rollback(trained, "r1")
    promote(trained, 3, 1)
    with pytest.raises(RegistryError, match="nothing was changed"):
        rollback(trained, "r1")
    assert production(trained)[:2] == (3, 1)


def test_version_tells_what_it_was_trained_on(trained: Settings):
    found = versions.version(SPEC, trained, 2)
    assert found.features == SPEC.features.names
    assert found.trained_until == dt.datetime(2013, 1, 20, tzinfo=dt.UTC)
    assert versions.version_of_incident(SPEC, trained, found.incident_id) == found


def test_version_without_its_drift_profile_is_named(trained: Settings):
    found = versions.version(SPEC, trained, 1)
    path = next((trained.home / "mlflow-artifacts").rglob(f"{found.run_id}/artifacts"))
    shutil.rmtree(path)
    with pytest.raises(RegistryError, match="version 1 has no drift profile"):
        versions.profile_bytes(SPEC, trained, found)


# --- hands in MLflow ------------------------------------------------------------------------------


def test_alias_moved_by_hand_is_entered_once_and_can_be_rolled_back(trained: Settings):
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None  # nothing is known yet
    promote(trained, 1, None)
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None
    server.client(trained).set_registered_model_alias("flights", CHAMPION, "2")
    entry = succession.notice_hand_move(SPEC, trained, at=AT)
    assert (entry.action, entry.version, entry.previous_version) == ("by_hand", 2, 1)
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None
    promotion = rollback(trained, "r1")
    assert (promotion.version, promotion.previous_version) == (1, 2)
    assert production(trained)[:2] == (1, None)
    server.client(trained).set_registered_model_alias("flights", CHAMPION, "2")
    assert succession.notice_hand_move(SPEC, trained, at=AT).sequence == 4  # again, not the same


@pytest.mark.parametrize("number", range(1, 10))
def test_promotion_that_died_halfway_is_no_hand(trained: Settings, monkeypatch, number):
    promote(trained, 1, None)
    with monkeypatch.context() as patch:
        kill_at(patch, number)
        with pytest.raises(Killed):
            promote(trained, 2, 1)
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None
    # whoever looks next moves the alias to where the ledger has it
    assert server.aliases(SPEC, trained)[CHAMPION] == entries(trained)[-1].version
    promote(trained, 2, 1)
    assert [entry.action for entry in entries(trained)] == ["promotion", "promotion"]
    assert production(trained)[:2] == (2, 1)


def between(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, step: Callable[[], object]):
    """Let a step happen right before the first call of a function."""
    real, done = getattr(owner, name), []

    def call(*args: object, **kwargs: object) -> object:
        if not done:
            done.append(True)
            step()
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("where", [(ledger, "append"), (succession, "_enter"), (ledger, "intend")])
def test_promotion_loses_to_a_rollback_that_came_between_its_look_and_its_entry(
    trained: Settings, monkeypatch, where
):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    between(monkeypatch, *where, lambda: rollback(trained, "r1"))
    with pytest.raises(RegistryError, match="nothing was changed"):
        promote(trained, 3, 2)  # the duel was against version 2
    assert [(one.action, one.version) for one in entries(trained)][2:] == [("rollback", 1)]
    assert production(trained)[0] == 1


def test_rollback_loses_to_a_promotion_that_came_between(trained: Settings, monkeypatch):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    between(monkeypatch, ledger, "append", lambda: promote(trained, 3, 2))
    with pytest.raises(RegistryError, match="nothing was changed"):
        rollback(trained, "r1")
    assert [one.version for one in entries(trained)] == [1, 2, 3]
    assert production(trained)[0] == 3


def test_aliases_follow_the_newest_entry_whichever_step_is_last_to_move_them(
    trained: Settings, monkeypatch
):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    # the promotion is entered; before it moves the alias, a whole rollback happens
    between(monkeypatch, succession, "_crown", lambda: rollback(trained, "r1", to_version=1))
    promote(trained, 3, 2)
    assert [(one.action, one.version) for one in entries(trained)][2:] == [
        ("promotion", 3),
        ("rollback", 1),
    ]
    assert production(trained)[0] == 1
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None


def test_a_slow_maker_of_an_older_entry_is_no_hand_and_does_not_win(trained, monkeypatch):
    promote(trained, 1, None)
    real = server.set_alias

    def stalls(spec, settings, alias, version):
        if alias == CHAMPION:  # meanwhile a rollback happens, whole
            monkeypatch.setattr(server, "set_alias", real)
            rollback(trained, "r1", to_version=1)
        real(spec, settings, alias, version)
        raise Killed

    monkeypatch.setattr(server, "set_alias", stalls)
    with pytest.raises(Killed):
        promote(trained, 2, 1)
    assert server.aliases(SPEC, trained)[CHAMPION] == 2
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None
    assert production(trained)[0] == 1
    assert [one.action for one in entries(trained)] == ["promotion", "promotion", "rollback"]
    # hours later nobody is slow any more
    server.client(trained).set_registered_model_alias("flights", CHAMPION, "2")
    later = AT + dt.timedelta(hours=2)
    assert succession.notice_hand_move(SPEC, trained, at=later).action == "by_hand"


def right_after(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, step: Callable):
    """Let a step happen right after the first call of a function, before its answer is used."""
    real, done = getattr(owner, name), []

    def call(*args: object, **kwargs: object) -> object:
        answer = real(*args, **kwargs)
        if not done:
            done.append(True)
            step()
        return answer

    monkeypatch.setattr(owner, name, call)


def test_a_rollback_that_moves_the_alias_while_it_is_looked_at_is_no_hand(trained, monkeypatch):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    with monkeypatch.context() as patch:  # entered, and nothing moved yet
        patch.setattr(succession, "_follow", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            rollback(trained, "r1")
    entry = entries(trained)[-1]

    def finish() -> None:
        succession._follow(SPEC, trained, entry)
        ledger.mark(Storage.of(trained), entry, "done")

    right_after(monkeypatch, server, "aliases", finish)
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None
    assert [one.action for one in entries(trained)] == ["promotion", "promotion", "rollback"]
    assert production(trained)[0] == 1


def test_a_slow_maker_that_puts_the_alias_right_while_it_is_looked_at_is_no_hand(
    trained, monkeypatch
):
    promote(trained, 1, None)
    with monkeypatch.context() as patch:  # version 2 is entered, its alias comes late
        patch.setattr(succession, "_follow", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            promote(trained, 2, 1)
    slow = entries(trained)[-1]
    rollback(trained, "r1", to_version=1)
    server.set_alias(SPEC, trained, CHAMPION, 2)

    def finish() -> None:
        succession._follow(SPEC, trained, slow)
        ledger.mark(Storage.of(trained), slow, "done")

    right_after(monkeypatch, server, "aliases", finish)
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None
    assert [one.action for one in entries(trained)] == ["promotion", "promotion", "rollback"]
    assert production(trained)[0] == 1


def test_move_that_died_between_alias_and_stage_is_finished_by_the_next_look(trained, monkeypatch):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    with monkeypatch.context() as patch:
        patch.setattr(server, "set_stage", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            rollback(trained, "r1")
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None
    stages = {number: versions.version(SPEC, trained, number).stage for number in (1, 2)}
    assert stages == {1: "Production", 2: "Archived"}
    server.client(trained).set_registered_model_alias("flights", CHAMPION, "3")
    assert succession.notice_hand_move(SPEC, trained, at=AT).version == 3


def test_rollback_past_a_version_that_was_deleted_is_green(trained: Settings):
    three_reigns(trained)
    server.client(trained).delete_model_version("flights", "1")
    assert rollback(trained, "r1").version == 2
    assert server.aliases(SPEC, trained) == {CHAMPION: 2}


def test_promotion_beside_a_look_is_no_hand(trained: Settings, monkeypatch):
    promote(trained, 1, None)
    between(monkeypatch, server, "aliases", lambda: promote(trained, 2, 1))
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None
    assert [one.action for one in entries(trained)] == ["promotion", "promotion"]


def test_champion_that_no_ledger_knows_is_entered_as_made_by_hand(trained: Settings):
    server.client(trained).set_registered_model_alias("flights", CHAMPION, "2")
    entry = succession.notice_hand_move(SPEC, trained, at=AT)
    assert (entry.action, entry.version, entry.previous_version) == ("by_hand", 2, None)
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None
    with pytest.raises(RegistryError, match="version 2 is champion now"):
        promote(trained, 3, None)


def test_alias_removed_by_hand_comes_back_by_a_rollback(trained: Settings):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    server.client(trained).delete_registered_model_alias("flights", CHAMPION)
    with pytest.raises(RegistryError, match="Do: flights__rollback with that version"):
        succession.notice_hand_move(SPEC, trained, at=AT)
    assert rollback(trained, "r1", to_version=2).previous_version is None
    assert production(trained)[:2] == (2, 1)


# --- what a rollback refuses ----------------------------------------------------------------------


def quarantine(settings: Settings, version: int) -> None:
    server.client(settings).set_model_version_tag(
        "flights", str(version), versions.QUARANTINE_TAG, "leaks the label"
    )


def test_rollback_passes_over_a_quarantined_version(trained: Settings):
    three_reigns(trained)
    quarantine(trained, 2)
    with pytest.raises(RegistryError, match="version 2 is quarantined: leaks the label"):
        rollback(trained, "r1", to_version=2)
    assert production(trained)[:2] == (3, 2)
    assert rollback(trained, "r2").version == 1
    assert production(trained)[:2] == (1, None)


def test_rollback_with_only_quarantined_and_deleted_versions_left_is_refused(trained: Settings):
    three_reigns(trained)
    quarantine(trained, 2)
    server.client(trained).delete_model_version("flights", "1")
    with pytest.raises(
        RegistryError, match="version 3 is the only champion so far that is in MLflow and not"
    ):
        rollback(trained, "r1")
    assert server.aliases(SPEC, trained)[CHAMPION] == 3


def test_rollback_to_a_version_whose_features_are_gone_is_refused(trained: Settings):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    kept = versions.learned_features(SPEC, trained, versions.version(SPEC, trained, 1))
    views = kept.views | {"flights_radar": ("echo",)}
    other = kept.model_copy(update={"numeric": (*kept.numeric, "echo"), "views": views})
    server.set_tags(SPEC, trained, 1, {versions.LEARNED_TAG: other.model_dump_json()})
    with pytest.raises(RegistryError, match="cannot be given them: echo came from view 'flights_r"):
        rollback(trained, "r1")
    assert production(trained)[:2] == (2, 1)


def test_rollback_to_a_version_that_says_nothing_of_its_features_asks_its_run(trained: Settings):
    promote(trained, 1, None)
    promote(trained, 2, 1)
    api = server.client(trained)
    api.delete_model_version_tag("flights", "1", versions.LEARNED_TAG)
    other = json.dumps([*SPEC.features.names, "colour"])
    server.set_tags(SPEC, trained, 1, {versions.FEATURES_TAG: other})
    assert rollback(trained, "r1").version == 1  # as its run says, of those that the file has


def test_rollback_begun_before_another_change_is_not_taken_up(trained: Settings, monkeypatch):
    three_reigns(trained)
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            rollback(trained, "r1")
    rollback(trained, "r2", to_version=1)
    with pytest.raises(RegistryError, match="was begun before ledger entry 4 made version 1"):
        rollback(trained, "r1")
    assert production(trained)[:2] == (1, None)


def test_features_are_registered_whatever_their_names(empty: Settings) -> None:
    names = ("share%", "a,b", "größe (m²)", "plain")
    spec = small_spec(features={"numeric": names, "categorical": ()})
    frame = pd.DataFrame({name: np.arange(20.0) for name in names})
    pipeline = build_pipeline(spec).fit(frame, np.arange(20) % 2)
    about = versions.Registration(
        run_name="odd names", run_tags={}, version_tags={}, params={"model.a=b": 1},
        metrics={f"importance.{name}": 0.5 for name in names}, series={}, files={},
        data_source="file:///nowhere", data_sha256="ab" * 32,
    )  # fmt: skip
    learned_from = TrainingSet.model_construct(training_end=dt.datetime(2013, 1, 7, tzinfo=dt.UTC))
    found = versions.register(
        spec, empty, pipeline, frame, incident_id="odd", training_set=learned_from, about=about
    )
    assert found.features == names
    run = server.run_data(empty, found.run_id)
    assert run.params == {"model.a_3db": "1"}
    assert set(run.metrics) == {
        f"importance.{name}" for name in ("share_25", "a_2cb", "größe _28m²_29", "plain")
    }
