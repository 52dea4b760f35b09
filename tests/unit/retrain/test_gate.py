from __future__ import annotations

import datetime as dt
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.retraining import shelf
from include.retraining.errors import DataError
from include.retraining.learning import metrics
from include.retraining.names import CHAMPION
from include.retraining.records import (
    Candidate,
    Gain,
    GateDecision,
    Performance,
    RetrainRequest,
    Traits,
)
from include.retraining.registry import ledger, server, succession, versions
from include.retraining.retrain import candidate as candidates
from include.retraining.retrain import duel as duels
from include.retraining.retrain import gate, gate_rules, training_set
from include.retraining.retrain.duel import Comparison, Duel
from include.retraining.retrain.gate import check_duel, conclude
from include.retraining.settings import Settings
from include.retraining.spec import Gate
from include.retraining.storage import Storage
from include.retraining.telling import duel_table
from tests.unit.pipeline import request_retrain, small_spec

GATE = Gate(floor=0.6, min_gain=0.01, max_slice_loss=0.05)
CLEAR = (0.03, 0.02, 0.04)
NAN = float("nan")


def performance(value: float) -> Performance:
    return Performance(metric="roc_auc", rows=1000, value=value, low=0.0, high=1.0)


def gain(value: float, low: float, high: float) -> Gain:
    return Gain(rows=1000, value=value, low=low, high=high)


def opponent(found: tuple[float, float, float] = CLEAR, **changes: object) -> Comparison:
    fields: dict[str, object] = {"gain": gain(*found), "leaked_rows": 0}
    return Comparison(7, performance(0.65), **(fields | changes))  # type: ignore[arg-type]


def judge(conditions: Gate, held: Duel) -> tuple[bool, tuple[str, ...]]:
    return conclude(conditions, check_duel(conditions, held), held)


def against(
    value: float = 0.7, champion: Comparison | None = None, **changes: object
) -> tuple[bool, tuple[str, ...]]:
    held = Duel(performance(value), champion=champion or opponent())
    return judge(GATE, held._replace(**changes))


def test_clear_win_passes_and_says_by_how_much():
    passed, reasons = against()
    assert passed
    assert reasons == (
        "roc_auc 0.700, +0.0300 on the champion (95% interval +0.0200 to +0.0400, 1,000 rows)",
    )


@pytest.mark.parametrize(("value", "passes"), [(0.5999, False), (0.6, True), (NAN, False)])
@pytest.mark.parametrize("first", [True, False], ids=["first-model", "against-a-champion"])
def test_gate_rejects_candidate_below_floor(value, passes, first):
    passed, reasons = against(value, **({"champion": None} if first else {}))
    assert passed is passes
    assert passes or "is below the floor 0.600" in reasons[0]


def test_first_model_needs_the_floor_only_and_says_so():
    passed, reasons = judge(GATE, Duel(performance(0.6)))
    assert passed
    assert reasons == ("no champion to beat: roc_auc 0.600, floor 0.600",)


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        pytest.param(0.0101, True, id="above"),
        pytest.param(0.01, False, id="equal"),
        pytest.param(0.0, False, id="tie"),
        pytest.param(-0.1, False, id="worse"),
        pytest.param(NAN, False, id="unknown"),
    ],
)
@pytest.mark.parametrize("who", ["champion", "rolled_back", "gated"])
def test_gain_has_to_be_larger_than_asked_for(value, passes, who):
    passed, reasons = against(**{who: opponent((value, 0.005, 0.2))})
    assert passed is passes
    assert passes or "is not above 0.0100" in reasons[0]


@pytest.mark.parametrize(
    ("low", "passes"),
    [
        pytest.param(0.0001, True, id="above-zero"),
        pytest.param(0.0, False, id="zero"),
        pytest.param(-0.01, False, id="below"),
        pytest.param(NAN, False, id="unknown"),
    ],
)
@pytest.mark.parametrize("who", ["champion", "rolled_back", "gated"])
@pytest.mark.parametrize("method", ["gain", "delong"])
def test_gain_that_could_be_chance_is_rejected(low, passes, who, method):
    passed, reasons = against(**{who: opponent(**{method: gain(0.03, low, 0.1)})})
    assert passed is passes
    assert passes or "could be chance" in reasons[0]


def test_tie_does_not_promote_even_where_nothing_is_asked_for():
    gate_of_nothing = Gate(floor=0.0, min_gain=0.0)
    assert not judge(gate_of_nothing, Duel(performance(0.7), champion=opponent((0.0, 0.0, 0.0))))[0]


@pytest.mark.parametrize(
    ("low", "passes"),
    [(0.1, True), (0.0, True), (-0.05, True), (-0.0501, False), (NAN, False)],
)
def test_slice_has_to_show_that_it_loses_no_more_than_allowed(low, passes):
    slices = {"origin=EWR": gain(0.1, 0.05, 0.2), "origin=JFK": gain(0.01, low, 0.1)}
    passed, reasons = against(champion=opponent(slices=slices))
    assert passed is passes
    assert passes or "roc_auc on origin=JFK changes by +0.0100" in reasons[0]


def test_slice_that_only_seems_fine_because_it_is_noisy_rejects():
    """It used to pass: the bare difference was within what is allowed."""
    noisy = {"origin=JFK": gain(-0.02, -0.09, 0.05)}
    assert not against(champion=opponent(slices=noisy))[0]


@pytest.mark.parametrize("who", ["champion", "rolled_back", "gated"])
def test_opponent_that_cannot_be_scored_fails_the_gate_closed(who):
    passed, reasons = against(**{who: Comparison(7, trouble="its artifact is gone")})
    assert not passed
    assert "version 7, cannot be compared: its artifact is gone" in reasons[0]


def test_champion_without_an_interval_fails_the_gate_closed():
    passed, reasons = against(champion=Comparison(7))
    assert not passed
    assert "the gain has no interval" in reasons[0]


def test_window_that_carries_no_metric_fails_the_gate_closed():
    passed, reasons = judge(GATE, Duel(None, window_trouble="the window is empty"))
    assert not passed
    assert reasons == ("the window is empty",)


@pytest.mark.parametrize(("leaked", "passes"), [(0, True), (1, False), (None, True)])
def test_row_that_was_trained_on_fails_the_gate(leaked, passes):
    assert against(leaked_rows=leaked)[0] is passes
    passed, reasons = against(champion=opponent(leaked_rows=leaked))
    assert passed is passes
    assert passes or "version 7 was trained on: 1 rows of the duel" in reasons[0]


def test_every_broken_condition_is_told():
    slices = {name: gain(-0.9, -0.95, -0.8) for name in "ab"}
    passed, reasons = against(0.5, opponent((-0.02, -0.03, 0.01), slices=slices))
    assert not passed
    assert len(reasons) == 5  # floor, gain, chance, two slices


MODES = {"enabled": False, "dry_run": True, "disabled": True}


@pytest.mark.parametrize(("mode", "passes"), MODES.items())
def test_mode_says_whether_a_lost_duel_stops_the_candidate(mode, passes):
    conditions = GATE.model_copy(update={"mode": mode})
    held = Duel(performance(0.5), champion=opponent((-0.1, -0.2, -0.05)))
    passed, reasons = judge(conditions, held)
    assert passed is passes
    told = [line for line in reasons if "would have been rejected" in line]
    assert len(told) == (3 if mode == "dry_run" else 0)


@pytest.mark.parametrize("mode", MODES)
def test_candidate_that_cannot_score_is_stopped_in_every_mode(mode):
    conditions = GATE.model_copy(update={"mode": mode})
    assert judge(conditions, Duel(None, unscorable="3 are NaN")) == (False, ("3 are NaN",))


def test_what_made_it_pass_is_told_in_every_mode():
    dry = GATE.model_copy(update={"mode": "dry_run"})
    assert judge(dry, Duel(performance(0.7)))[1][0].startswith("gate.mode is dry_run: no champion")
    assert "was not measured" in judge(dry, Duel(None, window_trouble="empty"))[1][0]
    off = GATE.model_copy(update={"mode": "disabled"})
    assert judge(off, Duel(None)) == (True, ("gate.mode is disabled: no duel was held",))


values = st.floats(0, 1)
changes = st.floats(-0.5, 0.5)
gains = st.tuples(changes, changes, changes).map(lambda g: gain(g[0], min(g), max(g)))
comparisons = st.builds(
    Comparison,
    st.integers(1, 9),
    gain=st.none() | gains,
    delong=st.none() | gains,
    slices=st.dictionaries(st.sampled_from("abc"), gains),
    leaked_rows=st.none() | st.integers(0, 3),
    trouble=st.sampled_from(["", "", "gone"]),
    traits=st.just(Traits()),
)
held_duels = st.builds(
    Duel,
    candidate=st.none() | values.map(performance),
    leaked_rows=st.none() | st.integers(0, 3),
    unscorable=st.sampled_from(["", "", "NaN"]),
    traits=st.just(Traits()),
    champion=st.none() | comparisons,
    rolled_back=st.none() | comparisons,
    gated=st.none() | comparisons,
)
levels = st.tuples(values, st.floats(0, 0.5), st.floats(0, 0.5), st.sampled_from(list(MODES)))


@given(held=held_duels, gates=st.lists(levels, min_size=2, max_size=2))
def test_stricter_gate_never_promotes_more(held, gates):
    (floor, margin, loss, mode), (more, more_margin, more_loss, other_mode) = gates
    lenient = Gate(floor=floor, min_gain=margin, max_slice_loss=loss, mode=mode)
    strict = Gate(
        floor=max(floor, more),
        min_gain=max(margin, more_margin),
        max_slice_loss=min(loss, more_loss),
        mode=min(mode, other_mode, key=["enabled", "dry_run", "disabled"].index),
    )
    assert [judge(one, held)[0] for one in (lenient, strict)] != [False, True]


@given(held=held_duels, floor=values)
def test_enabled_gate_passes_exactly_what_meets_every_condition(held, floor):
    conditions = Gate(floor=floor)
    checks = check_duel(conditions, held)
    assert conclude(conditions, checks, held)[0] is all(check.passed for check in checks)


@given(held=held_duels)
def test_tie_never_passes(held):
    tied = Comparison(1, gain=gain(0.0, -0.1, 0.1))
    for who in ("champion", "rolled_back", "gated"):
        passed = judge(Gate(floor=0.0), held._replace(**{who: tied}))[0]
        assert not passed


@settings(deadline=None, max_examples=30)  # the first one imports scipy
@given(st.integers(0, 2**32 - 1), st.floats(0.51, 0.99), st.floats(0.51, 0.99))
def test_higher_confidence_never_promotes_more(seed, one, other):
    generator = np.random.default_rng(seed)
    labels = np.r_[np.ones(10), np.zeros(10)]
    ours, theirs = generator.random(20) + 0.2 * labels, generator.random(20) + 0.1 * labels
    passed = []
    for confidence in sorted((one, other)):
        found = metrics.paired_gain("roc_auc", labels, ours, theirs, confidence=confidence)
        exact = metrics.delong_gain(labels, ours, theirs, confidence=confidence)
        held = Duel(
            performance(0.7),
            champion=opponent(found, delong=gain(*exact), slices={"a": gain(*found)}),
        )
        passed.append(judge(Gate(floor=0.0, confidence=confidence), held)[0])
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
    decision = gate.decide(spec, settings, request_of(settings, candidate, champion), candidate)
    kept = f"flights/retrain/incident={candidate.incident_id}/gate.json"
    assert Storage.of(settings).read_record(kept, GateDecision) == decision
    return decision


def crown(settings: Settings, version: int, champion: int | None) -> None:
    decision = duel(settings, version, champion, dry_run())
    succession.promote(SPEC, settings, decision, actor="test", at=AT)


def dry_run(**policies: object):
    return small_spec(gate={"mode": "dry_run"}, policies=policies)


AT = dt.datetime(2013, 2, 4, tzinfo=dt.UTC)


def check(decision: GateDecision, name: str):
    return next(check for check in decision.checks if check.name == name)


def broken(decision: GateDecision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def test_first_duel_has_no_champion(trained: Settings):
    decision = duel(trained, 1, None)
    assert decision.passed
    assert (decision.champion, decision.gain, decision.slices) == (None, None, {})
    assert decision.candidate.rows == candidate_of(trained, 1).training_set.duel_rows
    assert [one.name for one in decision.checks] == ["floor", "leakage, the candidate"]
    assert versions.version(SPEC, trained, 1).stage == "Staging"


def test_model_against_its_equal_is_a_tie_and_stays_out(trained: Settings):
    # without subsampling the seed changes nothing: the two versions are the same model
    decision = duel(trained, 2, 1)
    assert not decision.passed
    rows = decision.candidate.rows
    assert decision.gain == decision.delong == Gain(rows=rows, value=0.0, low=0.0, high=0.0)
    assert sorted(decision.slices) == ["origin=EWR", "origin=JFK", "origin=LGA"]
    assert sum(one.rows for one in decision.slices.values()) == rows
    assert {one.value for one in decision.slices.values()} == {0.0}
    assert decision.champion == decision.candidate
    assert broken(decision) == ["gain on the champion", "chance, champion", "DeLong, champion"]
    assert versions.version(SPEC, trained, 2).stage == "Archived"


def test_slices_of_large_numbers_stay_apart_where_one_is_missing():
    shops = [9007199254740992] * 500 + [9007199254740993] * 500 + [None]
    known = np.arange(1001) % 2
    spec = small_spec(gate={"slices": ["shop"], "min_slice_rows": 500, "duel_days": 7})
    rows = pa.table({"shop": pa.array(shops, pa.int64())})
    right, wrong = known.astype(float), np.r_[known[:500], 1 - known[500:]].astype(float)
    found = duels.compare_scores(spec, 1, rows=rows, known=known * 1.0, scores=right, theirs=wrong)
    assert {name: one.value for name, one in found.slices.items()} == {
        "shop=9007199254740992": 0.0,
        "shop=9007199254740993": 1.0,
    }


def test_traits_are_measured_on_both_sides(trained: Settings):
    decision = duel(trained, 2, 1)
    ours, theirs = decision.candidate_traits, decision.champion_traits
    assert theirs is not None
    assert ours.calibration_error == theirs.calibration_error
    assert 0 < ours.calibration_error < 0.2
    assert 0 < ours.scoring_ms_per_1000_rows < 10_000
    source = server.client(trained).get_model_version("flights", "2").source
    folder = trained.home / "mlflow-artifacts" / "flights" / "models"
    files = (folder / source.removeprefix("models:/") / "artifacts").rglob("*")
    on_disk = sum(file.stat().st_size for file in files if file.is_file())
    assert 0.5 * on_disk < ours.size_bytes <= on_disk


def test_duel_run_twice_decides_the_same(trained: Settings):
    timed = {"candidate_traits", "champion_traits"}
    first, second = (duel(trained, 2, 1).model_dump(exclude=timed) for _ in range(2))
    assert first == second


def test_duel_run_again_after_the_promotion_leaves_everything_as_it_was(trained: Settings):
    decision = duel(trained, 1, None)
    succession.promote(SPEC, trained, decision, actor="test", at=AT)
    assert duel(trained, 1, None) == decision
    assert versions.version(SPEC, trained, 1).stage == "Production"
    assert server.aliases(SPEC, trained)[CHAMPION] == 1


def test_better_model_passes_against_a_poor_champion(ingested: Settings):
    for seed, iterations, leaves in ((1, 1, 2), (2, 60, 31)):
        params = {"max_iter": iterations, "max_leaf_nodes": leaves, "early_stopping": False}
        spec = small_spec(training={"seed": seed, "params": params})
        request = request_retrain(spec, ingested, "2013-01-21")
        found = training_set.build_training_set(spec, ingested, request)
        candidates.train_candidate(spec, ingested, request, found)
    decision = duel(ingested, 2, 1)
    assert decision.passed, decision.reasons
    assert decision.champion is not None
    assert decision.gain.value == pytest.approx(decision.candidate.value - decision.champion.value)
    assert 0 < decision.gain.low < decision.gain.value < decision.gain.high
    assert decision.delong.value == pytest.approx(decision.gain.value)
    assert decision.delong.low == pytest.approx(decision.gain.low, abs=0.003)
    turned = duel(ingested, 1, 2)
    assert not turned.passed
    assert turned.gain.value == pytest.approx(-decision.gain.value)


def test_decision_is_in_mlflow_with_its_table(trained: Settings):
    import mlflow

    decision = duel(trained, 2, 1)
    run_id = candidate_of(trained, 2).run_id
    duel_table.publish(SPEC, trained, decision, run_id=run_id)
    text = mlflow.artifacts.load_text(f"runs:/{run_id}/{shelf.DUEL_ARTIFACT}")
    assert text == duel_table.as_markdown(decision)
    assert "| gain on the champion | FAILED | roc_auc gain +0.0000" in text
    metrics_ = server.client(trained).get_run(run_id).data.metrics
    assert metrics_["duel.gain.roc_auc"] == 0.0
    assert metrics_["duel.calibration_error"] == decision.candidate_traits.calibration_error
    tags = server.client(trained).get_model_version("flights", "2").tags
    assert tags["retraining.gate"] == "rejected"
    assert "could be chance" in tags["retraining.gate_reasons"]


# --- what cannot be compared fails closed ---------------------------------------------------------


def artifact_of(settings: Settings, version: int):
    source = server.client(settings).get_model_version("flights", str(version)).source
    folder = settings.home / "mlflow-artifacts" / "flights" / "models"
    return folder / source.removeprefix("models:/")


def test_champion_whose_artifact_is_gone_fails_the_gate_closed(trained: Settings):
    shutil.rmtree(artifact_of(trained, 1))
    decision = duel(trained, 2, 1)
    assert not decision.passed
    assert "the champion, version 1, cannot be compared" in decision.reasons[0]
    assert "Restore its artifact, or roll back" in decision.reasons[0]
    assert (decision.champion, decision.gain) == (None, None)


def test_champion_that_is_no_version_any_more_fails_the_gate_closed(trained: Settings):
    server.client(trained).delete_model_version("flights", "1")
    decision = duel(trained, 2, 1)
    assert not decision.passed
    assert "flights has no version 1" in decision.reasons[0]


def test_champion_whose_features_nobody_knows_fails_the_gate_closed(trained: Settings):
    tag(trained, versions.LEARNED_TAG, '{"numeric": ["temp", "colour"]}')
    decision = duel(trained, 2, 1)
    assert not decision.passed
    assert "its tag retraining.learned_features cannot be read" in decision.reasons[0]


def tag(settings: Settings, name: str, value: str | None, version: str = "1") -> None:
    api = server.client(settings)
    if value is None:
        api.delete_model_version_tag("flights", version, name)
    else:
        api.set_model_version_tag("flights", version, name, value)


@pytest.mark.parametrize(
    ("until", "can_compare"),
    [("2013-01-20T00:00:00+00:00", True), ("2013-01-20T00:00:01+00:00", False)],
)
def test_champion_that_saw_the_duels_rows_fails_the_gate_closed(trained, until, can_compare):
    tag(trained, versions.TRAINED_UNTIL_TAG, until)
    decision = duel(trained, 2, 1)
    assert (decision.gain is not None) is can_compare
    assert can_compare or "inside the duel window" in decision.reasons[0]


def test_champion_nobody_knows_the_training_data_of_fails_the_gate_closed(
    trained: Settings, monkeypatch
):
    tag(trained, versions.TRAINED_UNTIL_TAG, None)
    assert duel(trained, 2, 1).gain is not None  # its training set is there: no row leaked
    monkeypatch.setattr(duels, "training_rows", gone)
    decision = duel(trained, 2, 1)
    assert not decision.passed
    assert "nobody knows what it was trained on" in decision.reasons[0]
    tag(trained, versions.TRAINED_UNTIL_TAG, "2013-01-20T00:00:00+00:00")
    leakage = check(duel(trained, 2, 1), "leakage, the champion, version 1")
    assert leakage.passed
    assert "its training set is gone; by its time span" in leakage.detail


def gone(*_: object) -> pa.Table:
    raise DataError("version 3 needs a file that is gone")


@pytest.mark.parametrize("version", [1, 2], ids=["champion", "candidate"])
def test_duel_row_in_a_training_set_fails_the_gate(trained: Settings, monkeypatch, version):
    incident, real = candidate_of(trained, version).incident_id, duels.training_rows
    some = window(trained, 2).slice(3, 5)

    def leaking(spec, storage, learned, columns):
        rows = real(spec, storage, learned, columns)
        if learned.incident_id == incident:
            rows = pa.concat_tables([rows, some.select(columns)])
        return rows

    monkeypatch.setattr(duels, "training_rows", leaking)
    decision = duel(trained, 2, 1)
    who = {1: "the champion, version 1", 2: "the candidate"}[version]
    leakage = check(decision, f"leakage, {who}")
    assert not leakage.passed
    assert f"{who} was trained on: 5 rows of the duel" in leakage.detail
    assert sum(name.startswith("leakage") for name in broken(decision)) == 1


def with_window(patch: pytest.MonkeyPatch, rows: pa.Table) -> None:
    """Put other rows into the duel window."""
    for module in (duels, gate_rules):
        patch.setattr(module, "duel_rows", lambda *_: rows)


def window(settings: Settings, version: int) -> pa.Table:
    found = candidate_of(settings, version).training_set
    return training_set.duel_rows(SPEC, Storage.of(settings), found)


@pytest.mark.parametrize("champion", [None, 1])
def test_empty_window_fails_the_gate_closed(trained: Settings, monkeypatch, champion):
    with_window(monkeypatch, window(trained, 2).slice(0, 0))
    decision = duel(trained, 2, champion)
    assert not decision.passed
    assert (decision.candidate, decision.gain, broken(decision)) == (None, None, ["window"])
    assert "has 0 labelled rows of 0 different labels; it needs 200" in decision.reasons[0]
    assert "Retrain once more has landed" in decision.reasons[0]
    assert versions.version(SPEC, trained, 2).stage == "Archived"


def test_window_with_one_class_fails_the_gate_closed(trained: Settings, monkeypatch):
    rows = window(trained, 2)
    with_window(monkeypatch, rows.filter(pa.compute.equal(rows.column(training_set.LABEL), 1.0)))
    decision = duel(trained, 2, 1)
    assert not decision.passed
    assert "labelled rows of 1 different labels" in decision.reasons[0]


def test_window_with_one_row_of_a_class_fails_the_gate_closed(trained: Settings, monkeypatch):
    """The bootstrap gives an interval all the same, of the other class alone."""
    rows = window(trained, 2)
    late = pa.compute.equal(rows.column(training_set.LABEL), 1.0)
    few = pa.concat_tables(
        [rows.filter(late).slice(0, 1), rows.filter(pa.compute.invert(late)).slice(0, 300)]
    )
    with_window(monkeypatch, few)
    decision = duel(trained, 2, 1)
    assert not decision.passed
    assert "a class has one row in the window" in decision.reasons[-1]


def test_window_with_too_few_rows_fails_the_gate_closed(trained: Settings):
    rows = candidate_of(trained, 1).training_set.duel_rows
    decision = duel(trained, 1, None, small_spec(gate={"min_rows": rows + 1}))
    assert not decision.passed
    assert f"has {rows} labelled rows" in decision.reasons[0]
    assert duel(trained, 1, None, small_spec(gate={"min_rows": rows, "floor": 0.5})).passed


@pytest.mark.parametrize("bad", [1, 2], ids=["champion", "candidate"])
def test_predictions_that_are_nan_fail_the_gate_closed(trained: Settings, monkeypatch, bad):
    real = versions.load_model

    class Broken:
        def predict_proba(self, frame):
            return np.full((len(frame), 2), np.nan)

    monkeypatch.setattr(
        versions, "load_model", lambda s, t, v: Broken() if v.number == bad else real(s, t, v)
    )
    decision = duel(trained, 2, 1, dry_run() if bad == 2 else SPEC)
    assert not decision.passed
    assert "predictions are not finite numbers" in decision.reasons[0]


def test_slice_too_small_to_judge_does_not_count(trained: Settings):
    assert duel(trained, 2, 1, small_spec(gate={"min_slice_rows": 10_000})).slices == {}


def test_slice_of_one_class_does_not_count(trained: Settings, monkeypatch):
    rows = window(trained, 2)
    late = pa.compute.equal(rows.column(training_set.LABEL), 1.0)
    keep = pa.compute.or_(pa.compute.not_equal(rows.column("origin"), "LGA"), late)
    with_window(monkeypatch, rows.filter(keep))
    found = duel(trained, 2, 1, small_spec(gate={"min_slice_rows": 2})).slices
    assert sorted(found) == ["origin=EWR", "origin=JFK"]


# --- modes ----------------------------------------------------------------------------------------


def test_dry_run_holds_the_duel_tells_it_and_stops_nothing(trained: Settings):
    crown(trained, 1, None)
    decision = duel(trained, 2, 1, dry_run())
    assert decision.passed
    assert "gain on the champion" in broken(decision)
    assert "would have been rejected: roc_auc gain +0.0000" in decision.reasons[1]
    succession.promote(SPEC, trained, decision, actor="test", at=AT)
    assert server.aliases(SPEC, trained)[CHAMPION] == 2


def test_disabled_gate_holds_no_duel_and_keeps_the_promise(trained: Settings):
    crown(trained, 1, None)
    shutil.rmtree(artifact_of(trained, 1))  # the champion is not even looked at
    decision = duel(trained, 2, 1, small_spec(gate={"mode": "disabled"}))
    assert decision.passed
    assert decision.checks == ()
    assert decision.champion is None
    succession.promote(SPEC, trained, decision, actor="test", at=AT)
    assert versions.champion(SPEC, trained).promise == decision.candidate


def test_disabled_gate_promotes_without_a_promise_where_the_window_is_empty(
    trained: Settings, monkeypatch
):
    with_window(monkeypatch, window(trained, 2).slice(0, 0))
    decision = duel(trained, 2, None, small_spec(gate={"mode": "disabled"}))
    assert decision.passed
    succession.promote(SPEC, trained, decision, actor="test", at=AT)
    assert versions.champion(SPEC, trained).promise is None


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "holds", "breaks", "says"),
    [
        ("forbidden_features", ("sex",), ("temp", "dest"), "the candidate uses dest, temp"),
        ("max_data_age_days", 8.0, 7.9, "ended 8 days before the batch did, allowed are 7.9"),
        ("min_training_rows", 1, 10**9, "asked for are 1,000,000,000"),
        ("max_duel_distance", 1.0, 0.0, "between training data and duel window: minute_of_day"),
    ],
)
def test_broken_rule_blocks_in_every_mode(trained, mode, name, holds, breaks, says):
    spec = small_spec(gate={"mode": mode}, policies={name: holds})
    decision = duel(trained, 1, None, spec)
    assert decision.passed, decision.reasons
    assert check(decision, f"policies.{name}").binding
    decision = duel(trained, 1, None, small_spec(gate={"mode": mode}, policies={name: breaks}))
    assert not decision.passed
    assert broken(decision) == [f"policies.{name}"]
    assert says in decision.reasons[0]


def test_rule_about_distance_leaves_out_what_drifts_by_construction(trained: Settings):
    limit = {"max_duel_distance": 0.0}
    spec = small_spec(policies=limit, drift={"expected": SPEC.features.names[1:]})
    reason = duel(trained, 1, None, spec).reasons[0]
    assert "minute_of_day 0." in reason
    assert "weekday" not in reason


def test_feature_whose_distance_nobody_can_measure_breaks_the_rule(trained: Settings, monkeypatch):
    rows = window(trained, 1)
    position = rows.column_names.index("temp")
    nothing = pa.nulls(rows.num_rows, pa.float64())
    with_window(monkeypatch, rows.set_column(position, "temp", nothing))
    decision = duel(trained, 1, None, small_spec(policies={"max_duel_distance": 0.99}))
    assert not decision.passed
    assert "temp" in decision.reasons[0]


@pytest.mark.parametrize("mode", MODES)
def test_required_slice_has_to_be_judged(trained: Settings, mode):
    crown(trained, 1, None)
    policies = {"required_slices": ("origin=EWR", "origin=BOS")}
    spec = small_spec(gate={"mode": mode}, policies=policies)
    decision = duel(trained, 2, 1, spec)
    assert not decision.passed
    absent = "origin=EWR, origin=BOS" if mode == "disabled" else "origin=BOS"
    assert f"not judged: {absent}; each needs" in decision.reasons[-1]


def test_required_slice_asks_nothing_of_the_first_model_and_holds_when_judged(trained: Settings):
    assert duel(trained, 1, None, small_spec(policies={"required_slices": ("origin=BOS",)})).passed
    crown(trained, 1, None)
    decision = duel(trained, 2, 1, small_spec(policies={"required_slices": ("origin=EWR",)}))
    assert check(decision, "policies.required_slices").passed


# --- after a rollback -----------------------------------------------------------------------------


def score_better(
    monkeypatch: pytest.MonkeyPatch, trained: Settings, better: dict[int, float]
) -> None:
    """Let each version score the duel's rows so much nearer to their labels."""
    real = versions.score
    labels = window(trained, 3).column(training_set.LABEL).to_numpy()

    def scores(spec, settings, of, rows):
        return real(spec, settings, of, rows) + better[of.number] * labels

    monkeypatch.setattr(versions, "score", scores)


def test_model_like_the_one_rolled_back_is_not_promoted_again(trained: Settings, monkeypatch):
    """It used to be: it beat the champion of before as the first one had."""
    crown(trained, 1, None)
    crown(trained, 2, 1)
    succession.rollback(SPEC, trained, reason="bad", actor="test", request_id="r", at=AT)
    better = {1: 0.0, 2: 0.2, 3: 0.2}
    score_better(monkeypatch, trained, better)
    decision = duel(trained, 3, 1)
    assert check(decision, "gain on the champion").passed
    assert broken(decision) == [
        "gain on the rolled-back version",
        "chance, rolled-back version",
        "DeLong, rolled-back version",
    ]
    better[3] = 0.4
    assert duel(trained, 3, 1).passed
    crown(trained, 3, 1)
    assert (
        duels._rolled_back_from(SPEC, trained, ledger.last(Storage.of(trained), "flights")) is None
    )


def test_rolled_back_version_that_cannot_be_scored_fails_the_gate_closed(trained: Settings):
    crown(trained, 1, None)
    crown(trained, 2, 1)
    succession.rollback(SPEC, trained, reason="bad", actor="test", request_id="r", at=AT)
    shutil.rmtree(artifact_of(trained, 2))
    versions._load.cache_clear()
    reasons = duel(trained, 3, 1).reasons
    assert any("the rolled-back version, version 2, cannot be compared" in line for line in reasons)


# --- after a hand in MLflow -----------------------------------------------------------------------


def test_a_weak_champion_made_by_hand_does_not_lower_the_bar(trained: Settings, monkeypatch):
    crown(trained, 2, None)
    server.client(trained).set_registered_model_alias("flights", "champion", "1")
    succession.notice_hand_move(SPEC, trained, at=AT)
    better = {1: 0.0, 2: 0.2, 3: 0.2}
    score_better(monkeypatch, trained, better)
    decision = duel(trained, 3, 1)
    assert check(decision, "gain on the champion").passed
    assert "gain on the last champion that passed a gate" in broken(decision)
    better[3] = 0.4
    assert duel(trained, 3, 1).passed
    # one that is gone cannot bar the way for ever
    server.client(trained).delete_model_version("flights", "2")
    last = ledger.last(Storage.of(trained), "flights")
    assert duels._gated_before(SPEC, trained, last) is None
