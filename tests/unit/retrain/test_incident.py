from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from include.retraining import shelf
from include.retraining.names import incident_id
from include.retraining.records import GateDecision, Performance, RetrainClaim, RetrainRequest
from include.retraining.registry import succession, versions
from include.retraining.retrain import claims, incident
from include.retraining.retrain.incident import NotDue, hold_reason, open_incident
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from tests.unit import pipeline
from tests.unit.pipeline import small_spec

NO_HOLD = {"cool_down_days": 0.0, "max_per_30_days": 100}


def week(number: int) -> str:
    first = dt.datetime(2013, 1, 7, tzinfo=dt.UTC)
    return f"{first + dt.timedelta(weeks=number):%Y-%m-%d}"


def claim(
    spec: ModelSpec, settings: Settings, partition: str, run_id: str, **changes: object
) -> RetrainRequest:
    arguments: dict[str, object] = {"trigger": "manual", "reason": "a test"}
    return open_incident(
        spec, settings, batch=spec.batch_ref(partition), run_id=run_id, **(arguments | changes)
    )


def crown(settings: Settings, version: int) -> None:
    succession.promote(
        small_spec(),
        settings,
        GateDecision(
            incident_id=versions.version(small_spec(), settings, version).incident_id,
            model="flights",
            partition="2013-01-21",
            candidate_version=version,
            champion_version=None,
            passed=True,
            reasons=("better",),
            candidate=Performance(metric="roc_auc", rows=9, value=0.7, low=0.6, high=0.8),
        ),
        actor="test",
        at=dt.datetime(2013, 2, 4, tzinfo=dt.UTC),
    )


def test_request_says_what_it_is_about(empty: Settings):
    spec = small_spec()
    request = claim(spec, empty, week(1), "run", reason="it is worse")
    assert request.incident_id == incident_id("flights", "manual", week(1), None)
    assert request.batch == spec.batch_ref(week(1))
    assert (request.reason, request.champion_version, request.force) == ("it is worse", None, False)
    found = shelf.find(Storage.of(empty), RetrainClaim, "flights", request.incident_id)
    assert (found.run_id, found.request) == ("run", request)


def test_same_run_gets_its_request_again_whatever_changed_since(empty: Settings):
    spec = small_spec()
    first = claim(spec, empty, week(1), "run")
    again = claim(spec, empty, week(3), "run", trigger="schedule", reason="other", force=True)
    assert again == first
    assert len(pipeline.claims(spec, Storage.of(empty))) == 1


def test_second_run_of_the_same_cause_is_not_due(empty: Settings):
    spec = small_spec(retrain=NO_HOLD)
    claim(spec, empty, week(1), "run 1")
    with pytest.raises(NotDue, match="is handled by run run 1; use force"):
        claim(spec, empty, week(1), "run 2")


def test_monitor_run_is_the_incident_it_is_named_after(empty: Settings):
    spec = small_spec()
    name = incident_id("flights", "monitor", week(1), 7)  # the champion of that moment
    request = claim(spec, empty, week(1), name, trigger="monitor")
    assert (request.incident_id, request.champion_version) == (name, None)


def test_force_overrides_cool_down_budget_and_an_earlier_run(empty: Settings):
    spec = small_spec(retrain={"cool_down_days": 99.0, "max_per_30_days": 1})
    ids = {claim(spec, empty, week(1), "run 1").incident_id}
    for run_id in ("run 2", "run 3"):
        request = claim(spec, empty, week(1), run_id, force=True)
        assert request.force
        ids.add(request.incident_id)
    assert len(ids) == 3
    with pytest.raises(NotDue):
        claim(spec, empty, week(1), "run 4")


@pytest.mark.parametrize(
    ("weeks_later", "is_held"),
    [
        pytest.param(0, True, id="same-batch"),
        pytest.param(1, True, id="within"),
        pytest.param(2, False, id="exactly-over"),
        pytest.param(-1, True, id="an-earlier-batch"),
        pytest.param(-2, False, id="an-earlier-batch-exactly-over"),
    ],
)
def test_cool_down_is_counted_in_data_time(empty: Settings, weeks_later, is_held):
    spec = small_spec(retrain={"cool_down_days": 14.0})
    claim(spec, empty, week(5), "run 1")
    hold = hold_reason(spec, Storage.of(empty), spec.batch_ref(week(5 + weeks_later)))
    assert bool(hold) is is_held
    if hold and weeks_later >= 0:
        assert "cooling down until 2013-03-04" in hold
    elif hold:
        assert hold == (
            "cooling down: a retrain was about the batch ending 2013-02-18, less than 14 days later"
        )


def test_nothing_holds_the_first_retrain(empty: Settings):
    spec = small_spec()
    assert hold_reason(spec, Storage.of(empty), spec.batch_ref(week(0))) is None


@pytest.mark.parametrize(
    ("asked", "is_held"),
    [
        pytest.param(2, True, id="two-within-30-days"),
        pytest.param(4, True, id="the-first-is-28-days-ago"),
        pytest.param(5, False, id="the-first-is-35-days-ago"),
        pytest.param(-3, True, id="the-later-ones-were-claimed-first"),
        pytest.param(-4, False, id="the-second-is-35-days-later"),
    ],
)
def test_budget_is_counted_over_30_days(empty: Settings, asked, is_held):
    first = dt.datetime(2012, 11, 5, tzinfo=dt.UTC)
    spec = small_spec(
        retrain={"cool_down_days": 0.0, "max_per_30_days": 2}, partitions={"first": first}
    )
    for number in (0, 1):
        claim(spec, empty, week(number), f"run {number}")
    hold = hold_reason(spec, Storage.of(empty), spec.batch_ref(week(asked)))
    assert bool(hold) is is_held
    if hold:
        assert hold == "budget spent: 2 retrains in 30 days, allowed are 2"


def test_hold_stops_a_manual_run_and_says_why(empty: Settings):
    spec = small_spec(retrain={"cool_down_days": 14.0})
    claim(spec, empty, week(1), "run 1")
    with pytest.raises(NotDue, match="cooling down until"):
        claim(spec, empty, week(2), "run 2")
    assert len(pipeline.claims(spec, Storage.of(empty))) == 1


def test_run_killed_right_after_its_claim_goes_on_with_it(empty: Settings, monkeypatch):
    # it used to find its own claim as a cool-down
    spec = small_spec(retrain={"cool_down_days": 14.0})
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            claim(spec, empty, week(1), "run 1")
    found = claim(spec, empty, week(1), "run 1")
    assert found == pipeline.claims(spec, Storage.of(empty))[0].request


def test_schedule_needs_an_age_limit_and_a_champion(empty: Settings):
    with pytest.raises(NotDue, match="max_age_days is not set"):
        claim(small_spec(retrain={"max_age_days": None}), empty, week(1), "a", trigger="schedule")
    with pytest.raises(NotDue, match="no model is in production yet"):
        claim(small_spec(), empty, week(1), "b", trigger="schedule")
    assert pipeline.claims(small_spec(), Storage.of(empty)) == []


@pytest.mark.parametrize(
    ("limit", "is_due"),
    [
        pytest.param(23.0, False, id="exactly-the-limit"),  # 2013-01-20 to 2013-02-12
        pytest.param(22.9, True, id="beyond"),
        pytest.param(56.0, False, id="young"),
    ],
)
def test_schedule_retrains_a_model_beyond_its_age(trained: Settings, limit, is_due):
    crown(trained, 1)
    first = dt.datetime(2013, 1, 8, tzinfo=dt.UTC)
    spec = small_spec(
        retrain=NO_HOLD | {"max_age_days": limit}, partitions={"first": first, "last": None}
    )
    if is_due:
        assert claim(spec, trained, "2013-02-05", "r", trigger="schedule").champion_version == 1
    else:
        with pytest.raises(NotDue, match="version 1 is 23 days old"):
            claim(spec, trained, "2013-02-05", "r", trigger="schedule")


def test_the_monitor_is_held_as_everybody_is(empty: Settings):
    spec = small_spec(retrain={"cool_down_days": 14.0})
    claim(spec, empty, week(1), "incident 1", trigger="monitor")
    with pytest.raises(NotDue, match="cooling down until"):
        claim(spec, empty, week(2), "incident 2", trigger="monitor")


def test_no_retrain_learns_from_less_than_the_champion_did(trained: Settings):
    crown(trained, 2)
    spec = small_spec(retrain=NO_HOLD)
    until = versions.version(spec, trained, 2).trained_until
    with pytest.raises(NotDue, match=f"version 2 .* mature on {until:%Y-%m-%d}"):
        claim(spec, trained, week(1), "run 1", trigger="monitor")
    assert claim(spec, trained, week(1), "run 1", force=True).force


def test_labels_that_mature_late_hold_no_retrain_back(trained: Settings):
    """Both sides know what was mature when their duels began, however long that takes."""
    crown(trained, 2)
    late = {"maturity_days": 35.0}
    spec = small_spec(retrain=NO_HOLD, label=late)
    until = versions.version(spec, trained, 2).trained_until
    same = until + dt.timedelta(days=35 + spec.gate.duel_days)  # the duel would begin at `until`
    weekly = {"first": same - dt.timedelta(days=7), "last": None}
    spec = small_spec(retrain=NO_HOLD, label=late, partitions=weekly)
    first, second = (spec.partition_key(same + dt.timedelta(days=days)) for days in (-7, 0))
    with pytest.raises(NotDue, match="Retrain by hand with force"):
        claim(spec, trained, first, "run 1", trigger="monitor")
    assert claim(spec, trained, second, "run 2", trigger="monitor").champion_version == 2


def test_a_retrain_that_trained_nothing_holds_back_no_other(empty: Settings):
    spec, storage = small_spec(retrain={"cool_down_days": 14.0}), Storage.of(empty)
    request = claim(spec, empty, week(1), "run 1")
    claims.release(storage, request, run_id="run 1")
    assert hold_reason(spec, storage, spec.batch_ref(week(1))) is None
    # another run of the same cause may handle it; the first one, cleared, then finds it taken
    assert claim(spec, empty, week(1), "run 2") == request
    with pytest.raises(NotDue, match="handled by run run 2"):
        claim(spec, empty, week(1), "run 1")
    # and neither goes on with it, nor gives it away
    assert claims.renew(storage, request, run_id="run 1").run_id == "run 2"
    claims.release(storage, request, run_id="run 1")
    assert claims.find(storage, "flights", request.incident_id).run_id == "run 2"


def test_a_released_retrain_that_goes_on_counts_again(empty: Settings):
    spec, storage = small_spec(retrain={"cool_down_days": 14.0}), Storage.of(empty)
    request = claim(spec, empty, week(1), "run 1")
    claims.release(storage, request, run_id="run 1")
    for _ in range(2):
        claims.renew(storage, request, run_id="run 1")
    assert "cooling down" in hold_reason(spec, storage, spec.batch_ref(week(2)))
    assert len(claims.claimed(storage, "flights")) == 1


def at_once(work: Sequence[Callable[[], object]]) -> list[object]:
    """Start all at one moment; give what each gave, or raised."""
    barrier = threading.Barrier(len(work))

    def go(one: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return one()
        except (NotDue, incident.Storm) as error:
            return error

    with ThreadPoolExecutor(len(work)) as threads:
        return list(threads.map(go, work))


def test_of_many_at_once_as_many_pass_as_one_after_the_other(empty: Settings):
    spec = small_spec(retrain={"cool_down_days": 0.0, "max_per_30_days": 3})
    found = at_once(
        [partial(claim, spec, empty, week(number % 4), f"run {number}") for number in range(12)]
    )
    assert sum(isinstance(one, RetrainRequest) for one in found) == 3
    assert len(pipeline.claims(spec, Storage.of(empty))) == 3


def test_of_many_runs_of_one_cause_one_handles_it(empty: Settings):
    spec = small_spec(retrain=NO_HOLD)
    found = at_once([partial(claim, spec, empty, week(1), f"run {n}") for n in range(12)])
    assert sum(isinstance(one, RetrainRequest) for one in found) == 1


# --- storm ----------------------------------------------------------------------------------------

NOON = dt.datetime(2026, 1, 5, 12, 30, tzinfo=dt.UTC)


def other_model(name: str) -> ModelSpec:
    return small_spec(retrain=NO_HOLD).model_copy(update={"model": name})


def test_storm_of_models_stops_the_next_one_and_says_what_to_do(empty: Settings):
    settings = empty.model_copy(update={"max_retrains_per_hour": 3})
    for minute, name in enumerate(("a", "b", "c")):
        claim(other_model(name), settings, week(1), "run", at=NOON + dt.timedelta(minutes=minute))
    later = NOON + dt.timedelta(minutes=59)
    with pytest.raises(incident.Storm, match="3 retrains of all models within an hour") as caught:
        claim(other_model("d"), settings, week(1), "run", at=later)
    assert "then clear this task, or retrain by hand with force" in str(caught.value)
    assert pipeline.claims(other_model("d"), Storage.of(settings)) == []
    # a run that has its claim is none more
    claim(other_model("a"), settings, week(1), "run", at=later)
    assert claim(other_model("d"), settings, week(1), "run", at=later, force=True).force
    # the first of the three is an hour old, the forced one is not
    after = NOON + dt.timedelta(minutes=61, seconds=1)
    assert claim(other_model("e"), settings, week(1), "run", at=after)


def test_a_storm_at_one_moment_lets_exactly_as_many_through(empty: Settings):
    settings = empty.model_copy(update={"max_retrains_per_hour": 5})
    found = at_once(
        [
            partial(claim, other_model(f"m{number}"), settings, week(1), "run", at=NOON)
            for number in range(30)
        ]
    )
    assert sum(isinstance(one, RetrainRequest) for one in found) == 5
    assert sum(isinstance(one, incident.Storm) for one in found) == 25


def test_what_lost_the_race_for_its_claim_is_no_storm(empty: Settings):
    spec = small_spec(retrain={"cool_down_days": 99.0})
    at_once([partial(claim, spec, empty, week(n), f"run {n}", at=NOON) for n in range(6)])
    assert len(pipeline.claims(spec, Storage.of(empty))) == 1
    settings = empty.model_copy(update={"max_retrains_per_hour": 2})
    assert claim(other_model("b"), settings, week(1), "run", at=NOON)


def test_storm_counts_by_the_order_in_the_list_whatever_the_clocks_say(empty: Settings):
    settings = empty.model_copy(update={"max_retrains_per_hour": 2})
    for number in (3, 2):  # the second has looked at its clock before the first did
        claim(other_model(f"m{number}"), settings, week(1), "run", at=NOON.replace(second=number))
    with pytest.raises(incident.Storm):
        claim(other_model("m1"), settings, week(1), "run", at=NOON.replace(second=1))


def test_a_foreign_file_among_the_claims_stops_nothing(empty: Settings):
    spec, storage = small_spec(), Storage.of(empty)
    storage.write("flights/retrain/claims/notes.json", b"{}")
    claim(spec, empty, week(1), "run 1")
    assert len(claims.claimed(storage, "flights")) == 1


def test_what_one_monitor_asks_for_counts_once_an_hour_so_a_backfill_is_no_storm(empty: Settings):
    spec = small_spec(retrain=NO_HOLD)
    settings = empty.model_copy(update={"max_retrains_per_hour": 2})

    def ask(spec: ModelSpec, number: int, *, minute: int) -> RetrainRequest:
        at = NOON + dt.timedelta(minutes=minute)
        return claim(spec, settings, week(number), f"{number}", trigger="monitor", at=at)

    for number in range(1, 6):
        ask(spec, number, minute=number)
    ask(other_model("b"), 1, minute=6)
    with pytest.raises(incident.Storm, match="2 retrains of all models within an hour"):
        ask(other_model("c"), 1, minute=7)
    ask(spec, 6, minute=8)
    # an hour after the first one the next counts anew, beside the one of b
    ask(spec, 7, minute=62)
    with pytest.raises(incident.Storm):
        ask(other_model("c"), 1, minute=63)


def test_storm_of_one_model_by_hand_is_stopped_too(empty: Settings):
    spec = small_spec(retrain=NO_HOLD)
    settings = empty.model_copy(update={"max_retrains_per_hour": 2})
    for number in (1, 2):
        claim(spec, settings, week(number), f"run {number}", at=NOON)
    with pytest.raises(incident.Storm):
        claim(spec, settings, week(3), "run 3", at=NOON)
