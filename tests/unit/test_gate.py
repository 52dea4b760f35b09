from __future__ import annotations

import datetime as dt
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.retraining import gate, metrics, registry, training
from include.retraining.errors import DataError
from include.retraining.gate import decide
from include.retraining.names import CHAMPION
from include.retraining.records import Candidate, GateDecision, Performance, RetrainRequest
from include.retraining.settings import Settings
from include.retraining.spec import Gate
from include.retraining.storage import Storage
from tests.unit.pipeline import request_retrain, small_spec

GATE = Gate(floor=0.6, min_gain=0.01, max_slice_loss=0.05)
NAN = float("nan")


def performance(value: float) -> Performance:
    return Performance(metric="roc_auc", rows=1000, value=value, low=0.0, high=1.0)


def against(
    value: float = 0.7,
    gain: tuple[float, float, float] | None = (0.03, 0.02, 0.04),
    **changes: object,
) -> tuple[bool, tuple[str, ...]]:
    arguments: dict[str, object] = {"slices": {}, "first": False}
    return decide(GATE, performance(value), gain=gain, **(arguments | changes))  # type: ignore[arg-type]


def test_clear_win_passes_and_says_by_how_much():
    passed, reasons = against()
    assert passed
    assert reasons == (
        "roc_auc 0.700, +0.0300 on the champion (95% interval +0.0200 to +0.0400, 1000 rows)",
    )


@pytest.mark.parametrize(("value", "passes"), [(0.5999, False), (0.6, True), (NAN, False)])
@pytest.mark.parametrize("first", [True, False], ids=["first-model", "against-a-champion"])
def test_gate_rejects_candidate_below_floor(value, passes, first):
    passed, reasons = against(value, None if first else (0.03, 0.02, 0.04), first=first)
    assert passed is passes
    assert passes or "is below the floor 0.600" in reasons[0]


def test_first_model_needs_the_floor_only_and_says_so():
    passed, reasons = against(0.6, None, first=True)
    assert passed
    assert reasons == ("first model: roc_auc 0.600 reaches the floor 0.600",)


@pytest.mark.parametrize(
    ("gain", "passes"),
    [
        pytest.param(0.0101, True, id="above"),
        pytest.param(0.01, False, id="equal"),
        pytest.param(0.0, False, id="tie"),
        pytest.param(-0.1, False, id="worse"),
        pytest.param(NAN, False, id="unknown"),
    ],
)
def test_gain_has_to_be_larger_than_asked_for(gain, passes):
    passed, reasons = against(gain=(gain, 0.005, 0.2))
    assert passed is passes
    assert passes or "is not above 0.0100" in reasons[0]


@pytest.mark.parametrize(
    ("low", "passes"),
    [
        pytest.param(0.0001, True, id="above-zero"),
        pytest.param(0.0, False, id="zero"),
        pytest.param(-0.01, False, id="below"),
        pytest.param(NAN, False, id="unknown"),
        pytest.param(float("-inf"), False, id="no-interval"),
    ],
)
def test_gain_that_could_be_chance_is_rejected(low, passes):
    passed, reasons = against(gain=(0.03, low, 0.1))
    assert passed is passes
    assert passes or "could be chance" in reasons[0]


def test_tie_does_not_promote_even_where_nothing_is_asked_for():
    gate_of_nothing = Gate(floor=0.0, min_gain=0.0)
    passed, _ = decide(
        gate_of_nothing, performance(0.7), gain=(0.0, 0.0, 0.0), slices={}, first=False
    )
    assert not passed


@pytest.mark.parametrize(
    ("change", "passes"),
    [(0.1, True), (0.0, True), (-0.05, True), (-0.0501, False), (NAN, False)],
)
def test_slice_that_gets_worse_rejects(change, passes):
    passed, reasons = against(slices={"origin=EWR": 0.1, "origin=JFK": change})
    assert passed is passes
    assert passes or "roc_auc on origin=JFK changes by" in reasons[0]


def test_champion_that_cannot_be_scored_fails_the_gate_closed():
    passed, reasons = against(gain=None, trouble="the champion cannot be compared: gone")
    assert not passed
    assert reasons == ("the champion cannot be compared: gone",)


def test_champion_without_any_comparison_fails_the_gate_closed():
    passed, reasons = against(gain=None)
    assert not passed
    assert reasons == ("there is a champion, but no comparison with it",)


def test_every_broken_condition_is_told():
    passed, reasons = against(0.5, (-0.02, -0.03, 0.01), slices={"a": -0.9, "b": -0.8})
    assert not passed
    assert len(reasons) == 4


values = st.floats(0, 1)
changes = st.floats(-0.5, 0.5)


@given(
    value=values,
    gain=st.tuples(changes, changes, changes).map(lambda g: (g[0], min(g), max(g))),
    slices=st.dictionaries(st.sampled_from("abc"), changes),
    gates=st.lists(st.tuples(values, st.floats(0, 0.5), st.floats(0, 0.5)), min_size=2, max_size=2),
    first=st.booleans(),
)
def test_stricter_gate_never_promotes_more(value, gain, slices, gates, first):
    (floor, min_gain, loss), (more, more_gain, more_loss) = gates
    lenient = Gate(floor=floor, min_gain=min_gain, max_slice_loss=loss)
    strict = Gate(
        floor=max(floor, more),
        min_gain=max(min_gain, more_gain),
        max_slice_loss=min(loss, more_loss),
    )
    passed = [
        decide(one, performance(value), gain=None if first else gain, slices=slices, first=first)[0]
        for one in (lenient, strict)
    ]
    assert passed != [False, True]


@given(st.integers(0, 2**32 - 1), st.floats(0.51, 0.99), st.floats(0.51, 0.99))
def test_higher_confidence_never_promotes_more(seed, one, other):
    generator = np.random.default_rng(seed)
    labels = np.r_[np.ones(10), np.zeros(10)]
    ours, theirs = generator.random(20) + 0.2 * labels, generator.random(20) + 0.1 * labels
    passed = []
    for confidence in sorted((one, other)):
        gain = metrics.paired_gain("roc_auc", labels, ours, theirs, confidence=confidence)
        lenient = Gate(floor=0.0, confidence=confidence)
        passed.append(decide(lenient, performance(0.7), gain=gain, slices={}, first=False)[0])
    assert passed != [False, True]


# --- the whole duel, with real versions ----------------------------------------------------------

SPEC = small_spec(gate={"floor": 0.5, "duel_days": 7.0})


def candidate_of(settings: Settings, version: int) -> Candidate:
    storage = Storage.of(settings)
    keys = [key for key in storage.list("flights/retrain") if key.endswith("/candidate.json")]
    found = [storage.read_record(key, Candidate) for key in keys]
    return next(one for one in found if one and one.version == version)


def request_of(settings: Settings, candidate: Candidate, champion: int | None) -> RetrainRequest:
    return RetrainRequest(
        incident_id=candidate.incident_id,
        batch=SPEC.batch_ref("2013-01-21"),
        trigger="manual",
        reason="a test",
        champion_version=champion,
    )


def duel(settings: Settings, version: int, champion: int | None, spec=SPEC) -> GateDecision:
    candidate = candidate_of(settings, version)
    decision = gate.run_duel(spec, settings, request_of(settings, candidate, champion), candidate)
    kept = f"flights/retrain/incident={candidate.incident_id}/gate.json"
    assert Storage.of(settings).read_record(kept, GateDecision) == decision
    return decision


def test_first_duel_has_no_champion(trained: Settings):
    decision = duel(trained, 1, None)
    assert decision.passed
    assert (decision.champion, decision.gain, decision.slices) == (None, None, {})
    assert decision.candidate.rows == candidate_of(trained, 1).training_set.duel_rows
    assert registry.version(SPEC, trained, 1).stage == "Staging"


def test_model_against_its_equal_is_a_tie_and_stays_out(trained: Settings):
    # without subsampling the seed changes nothing: the two versions are the same model
    decision = duel(trained, 2, 1)
    assert not decision.passed
    assert (decision.gain, decision.gain_low, decision.gain_high) == (0.0, 0.0, 0.0)
    assert decision.slices == {"origin=EWR": 0.0, "origin=JFK": 0.0, "origin=LGA": 0.0}
    assert decision.champion == decision.candidate
    assert registry.version(SPEC, trained, 2).stage == "Archived"


def test_duel_run_twice_decides_the_same(trained: Settings):
    assert duel(trained, 2, 1) == duel(trained, 2, 1)


def test_duel_run_again_after_the_promotion_leaves_the_champion_in_production(trained: Settings):
    decision = duel(trained, 1, None)
    registry.promote(
        SPEC, trained, decision, actor="test", at=dt.datetime(2013, 2, 4, tzinfo=dt.UTC)
    )
    duel(trained, 1, None)
    assert registry.version(SPEC, trained, 1).stage == "Production"
    assert registry.aliases(SPEC, trained)[CHAMPION] == 1


def test_better_model_passes_against_a_poor_champion(ingested: Settings):
    for seed, iterations, leaves in ((1, 1, 2), (2, 60, 31)):
        params = {"max_iter": iterations, "max_leaf_nodes": leaves, "early_stopping": False}
        spec = small_spec(training={"seed": seed, "params": params})
        request = request_retrain(spec, ingested, "2013-01-21")
        found = training.build_training_set(spec, ingested, request)
        training.train_candidate(spec, ingested, request, found)
    decision = duel(ingested, 2, 1)
    assert decision.passed, decision.reasons
    assert decision.champion is not None
    assert decision.gain == pytest.approx(decision.candidate.value - decision.champion.value)
    assert 0 < decision.gain_low < decision.gain < decision.gain_high
    turned = duel(ingested, 1, 2)
    assert not turned.passed
    assert turned.gain == pytest.approx(-decision.gain)


def test_champion_whose_artifact_is_gone_fails_the_gate_closed(trained: Settings):
    found = registry.client(trained).get_model_version("flights", "1")
    name = found.source.removeprefix("models:/")
    shutil.rmtree(trained.home / "mlflow-artifacts" / "flights" / "models" / name)
    decision = duel(trained, 2, 1)
    assert not decision.passed
    assert "the champion, version 1, cannot be compared" in decision.reasons[0]
    assert (decision.champion, decision.gain) == (None, None)


def test_champion_with_other_features_fails_the_gate_closed(trained: Settings):
    registry.client(trained).set_model_version_tag(
        "flights", "1", registry.FEATURES_TAG, "temp,colour"
    )
    decision = duel(trained, 2, 1)
    assert not decision.passed
    assert "trained with other features (gone: ['colour']" in decision.reasons[0]


@pytest.mark.parametrize(
    ("until", "can_compare"),
    [("2013-01-20T00:00:00+00:00", True), ("2013-01-20T00:00:01+00:00", False)],
)
def test_champion_that_saw_the_duels_rows_fails_the_gate_closed(trained, until, can_compare):
    registry.client(trained).set_model_version_tag(
        "flights", "1", registry.TRAINED_UNTIL_TAG, until
    )
    decision = duel(trained, 2, 1)
    assert (decision.gain is not None) is can_compare
    assert can_compare or "inside the duel window" in decision.reasons[0]


def test_window_with_too_few_rows_says_nothing_about_the_candidate(trained: Settings):
    rows = candidate_of(trained, 1).training_set.duel_rows
    with pytest.raises(DataError, match=f"has {rows} labelled rows; it needs {rows + 1}"):
        duel(trained, 1, None, small_spec(gate={"min_rows": rows + 1}))
    assert duel(trained, 1, None, small_spec(gate={"min_rows": rows, "floor": 0.5})).passed


def test_slice_too_small_to_judge_does_not_count(trained: Settings):
    assert duel(trained, 2, 1, small_spec(gate={"min_slice_rows": 10_000})).slices == {}
