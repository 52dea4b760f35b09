"""A champion that learned from other features than the model file has: it keeps its own."""

from __future__ import annotations

import numpy as np
import pytest

from include.retraining.errors import FeaturesGone, RegistryError
from include.retraining.features import definitions, feature_sets, own_features
from include.retraining.monitor import measuring
from include.retraining.names import CHAMPION
from include.retraining.records import GateDecision, LearnedFeatures, Performance
from include.retraining.registry import server, succession, versions
from include.retraining.retrain import gate
from include.retraining.settings import Settings
from include.retraining.spec import Features, ModelSpec
from include.retraining.storage import Storage
from tests.unit.features.redefined import redefine
from tests.unit.pipeline import WEEKS, small_spec, train

SPEC = small_spec(training={"seed": 1})
PROMISE = Performance(metric="roc_auc", rows=1000, value=0.7, low=0.6, high=0.8)
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
LEFT = tuple(name for name in SPEC.features.numeric if name not in WEATHER)
VISIB = 'Field(name="visib", dtype=Float64),'
SERVICE = "flights_v1 = FeatureService("
ALL = "features=[weather, carrier_delays, origin_delays, flights_facts]"
NARROW = "features=[carrier_delays, origin_delays, flights_facts]"
V2 = f'\nflights_v2 = FeatureService(name="flights_v2", {NARROW})\n'


def having(spec: ModelSpec = SPEC, **changes: object) -> ModelSpec:
    features = Features(**(spec.features.model_dump() | changes))
    return spec.model_copy(update={"features": features})


INLINE = having(
    service=None,
    tables=None,
    numeric=("distance", "hour", "month"),
    categorical=("carrier", "origin"),
)


@pytest.fixture
def champion(trained: Settings) -> Settings:
    """Version 1, of all features, is in production."""
    about = GateDecision(
        incident_id=versions.version(SPEC, trained, 1).incident_id,
        model="flights", partition=WEEKS[2], candidate_version=1, champion_version=None,
        passed=True, candidate=PROMISE, reasons=("first",),
    )  # fmt: skip
    succession.promote(SPEC, trained, about, actor="test", at=SPEC.batch_ref(WEEKS[2]).end)
    return trained


def scores_then(settings: Settings) -> np.ndarray:
    """Give what version 1 said of the last week with the features that it learned from."""
    batch = SPEC.batch_ref(WEEKS[3])
    rows = feature_sets.rows_of(
        SPEC, Storage.of(settings), feature_sets.feature_set(SPEC, Storage.of(settings), batch)
    )
    return versions.score(SPEC, settings, 1, rows)


def scores_now(spec: ModelSpec, settings: Settings, number: int = 1) -> np.ndarray:
    """Give what a version says of the last week, its rows joined as the model file says now."""
    found = feature_sets.materialize(spec, settings, spec.batch_ref(WEEKS[3]))
    rows = feature_sets.rows_of(spec, Storage.of(settings), found)
    version = versions.version(spec, settings, number)
    learned = versions.learned_features(spec, settings, version)
    own, rows = own_features.rows_for(spec, settings, learned, rows, version=number)
    return versions.score(own, settings, version, rows)


def forced(spec: ModelSpec, settings: Settings) -> GateDecision:
    request, candidate = train(spec, settings, WEEKS[3])
    assert request.force
    return gate.decide(spec, settings, request, candidate)


def test_what_a_version_learned_from_is_kept_with_it(trained: Settings):
    version = versions.version(SPEC, trained, 1)
    kept = LearnedFeatures.model_validate_json(version.tags[versions.LEARNED_TAG])
    assert kept == versions.learned_features(SPEC, trained, version)
    assert kept.views["flights_weather"] == WEATHER
    assert kept.views["flights_facts"] == ("minute_of_day", "weekday")
    assert kept.names == SPEC.features.names
    assert kept.expected == ("weekday",)
    assert "distance" not in own_features._origins(kept.views)  # a column of the rows


def test_where_features_are_as_they_were_nothing_is_joined_or_asked_for(trained, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError(args)

    version = versions.version(SPEC, trained, 1)
    for module, name in (
        (own_features, "join_views"), (own_features, "look"), (definitions, "feature_store"),
        (definitions, "definitions_of"), (versions, "run_artifact"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, fail)
    learned = versions.learned_features(SPEC, trained, version)
    rows = object()
    assert own_features.rows_for(SPEC, trained, learned, rows, version=1) == (SPEC, rows)
    assert own_features.difference(SPEC, learned) == ""


@pytest.mark.parametrize(
    ("spec", "edits", "added"),
    [
        pytest.param(having(numeric=LEFT), [], "", id="left-out-of-the-model-file"),
        pytest.param(having(service="flights_v2", numeric=LEFT), [], V2, id="other-service"),
        pytest.param(having(numeric=LEFT), [(ALL, NARROW)], "", id="same-service-gives-less"),
        pytest.param(
            having(service="flights_v2", numeric=LEFT),
            [(SERVICE, "flights_v2 = FeatureService("), ('name="flights_v1"', 'name="flights_v2"'),
             (ALL, NARROW)],
            "",
            id="service-renamed",
        ),
        pytest.param(INLINE, [], "", id="inline-now"),
    ],
)  # fmt: skip
def test_a_champion_scores_with_features_of_its_own(
    champion, monkeypatch, tmp_path, spec, edits, added
):
    before = scores_then(champion)
    redefine(monkeypatch, tmp_path, *edits, added=added)
    assert np.array_equal(scores_now(spec, champion), before)


def test_a_feature_that_moved_to_another_view_is_the_one_that_was_learned_from(
    champion, monkeypatch, tmp_path
):
    """The service of that name gives another `temp` now: of its own, from a table of its own."""
    before = scores_then(champion)
    moved = """
other = FeatureView(
    name="flights_other", entities=[origin], ttl=dt.timedelta(days=8),
    source=_source("origin_delays"),
    schema=[Field(name="origin", dtype=String), Field(name="temp", dtype=Float64)],
)
other.batch_source.field_mapping = {"origin_delay_rate": "temp"}
flights_v1 = FeatureService(
    name="flights_v1",
    features=[
        weather[[w for w in WEATHER if w != "temp"]], other, carrier_delays, origin_delays,
        flights_facts,
    ],
)
""".replace("WEATHER", repr(WEATHER))
    redefine(monkeypatch, tmp_path, added=moved)
    assert np.array_equal(scores_now(SPEC, champion), before)
    batch = SPEC.batch_ref(WEEKS[3])
    found = feature_sets.feature_set(SPEC, Storage.of(champion), batch)
    rows = feature_sets.rows_of(SPEC, Storage.of(champion), found)
    assert not np.array_equal(versions.score(SPEC, champion, 1, rows), before)


def test_a_version_from_before_its_features_were_kept_is_read_from_its_model_file(
    champion, monkeypatch, tmp_path
):
    before = scores_then(champion)
    server.client(champion).delete_model_version_tag("flights", "1", versions.LEARNED_TAG)
    redefine(monkeypatch, tmp_path, added=V2)
    assert np.array_equal(scores_now(having(service="flights_v2", numeric=LEFT), champion), before)


def test_a_champion_of_columns_meets_a_candidate_of_a_service(ingested: Settings):
    _, first = train(INLINE, ingested, WEEKS[2])
    server.set_alias(INLINE, ingested, CHAMPION, first.version)
    decision = forced(SPEC, ingested)
    assert decision.champion_version == first.version
    assert decision.gain is not None
    assert decision.champion_traits.scoring_ms_per_1000_rows > 0


def test_a_candidate_with_a_feature_more_meets_the_champion_of_before(ingested: Settings):
    poor = having(numeric=("distance",), categorical=())
    _, first = train(poor, ingested, WEEKS[2])
    server.set_alias(SPEC, ingested, CHAMPION, first.version)
    decision = forced(SPEC, ingested)
    assert decision.passed, decision.reasons
    assert "on the champion" in decision.reasons[0]
    assert decision.gain.low > 0


def test_all_opponents_of_a_duel_score_with_features_of_their_own(champion, monkeypatch):
    """Champion by a rollback: the version that was rolled back has other features, too."""
    spec = having(numeric=LEFT)

    about = GateDecision(
        incident_id=versions.version(SPEC, champion, 2).incident_id,
        model="flights", partition=WEEKS[2], candidate_version=2, champion_version=1,
        passed=True, candidate=PROMISE, reasons=("better",),
    )  # fmt: skip
    at = SPEC.batch_ref(WEEKS[2]).end
    succession.promote(SPEC, champion, about, actor="test", at=at)
    succession.rollback(
        spec, champion, reason="worse", actor="test", request_id="r", at=at,
        why_not=lambda learned: own_features.why_not(spec, learned),
    )  # fmt: skip
    decision = forced(spec, champion)
    names = [check.name for check in decision.checks]
    assert {"gain on the champion", "gain on the rolled-back version"} <= {*names}


# --- gone for good --------------------------------------------------------------------------------


GONE = having(service="flights_v2", numeric=LEFT)


def without_weather(monkeypatch, tmp_path) -> None:
    text = (definitions.FEATURE_REPO / "flights_views.py").read_text()
    start, end = text.index("weather_feed = "), text.index("carrier_delays = ")
    redefine(monkeypatch, tmp_path, (text[start:end], ""), (ALL, NARROW), added=V2)


def test_a_view_that_is_gone_is_told_with_the_ways_out(champion, monkeypatch, tmp_path):
    without_weather(monkeypatch, tmp_path)
    with pytest.raises(FeaturesGone) as told:
        scores_now(GONE, champion)
    assert "temp, dewp, humid" in str(told.value)
    assert "came from view 'flights_weather', which feature_repo/flights_views.py no longer" in str(
        told.value
    )
    assert "flights__rollback" in str(told.value)
    assert "flights__retrain with force" in str(told.value)


def test_a_champion_of_gone_features_stops_a_retrain_that_nobody_forced(
    champion, monkeypatch, tmp_path
):
    without_weather(monkeypatch, tmp_path)
    request, candidate = train(GONE, champion, WEEKS[3])
    decision = gate.decide(GONE, champion, request.model_copy(update={"force": False}), candidate)
    assert not decision.passed
    assert "the champion, version 1, cannot be compared" in decision.reasons[0]
    assert "put that back" in decision.reasons[0]


def test_a_forced_retrain_needs_no_opponent_that_nothing_can_score(champion, monkeypatch, tmp_path):
    without_weather(monkeypatch, tmp_path)
    decision = forced(GONE, champion)
    assert decision.passed, decision.reasons
    assert "no duel: nothing here can score the champion, version 1" in decision.reasons[0]
    assert (decision.champion, decision.gain) == (None, None)
    (check,) = [one for one in decision.checks if one.name == "champion"]
    assert "is no opponent of this retrain, which was forced" in check.detail
    promoted = succession.promote(
        GONE, champion, decision, actor="test", at=GONE.batch_ref(WEEKS[3]).end
    )
    assert promoted.version == decision.candidate_version
    # and the monitor, which had been red, goes on
    assert (
        measuring.measure_drift(GONE, champion, GONE.batch_ref(WEEKS[3])).champion_version
        == promoted.version
    )


def test_a_forced_retrain_still_has_to_reach_the_floor(champion, monkeypatch, tmp_path):
    without_weather(monkeypatch, tmp_path)
    high = GONE.model_copy(update={"gate": GONE.gate.model_copy(update={"floor": 0.99})})
    decision = forced(high, champion)
    assert not decision.passed
    assert "is below the floor 0.990" in decision.reasons[0]


def test_no_other_trouble_of_the_champion_is_waived_for_who_forces(champion):
    digest = versions.SHA256_TAG
    server.set_tags(SPEC, champion, 1, {digest: "0" * 64})
    decision = forced(having(numeric=LEFT), champion)
    assert not decision.passed
    assert "cannot be compared" in decision.reasons[0]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        pytest.param("", "no longer gives visib", id="field"),
        pytest.param(
            VISIB.replace("Float64", "String"),
            "visib was numeric, and view 'flights_weather'",
            id="type",
        ),
    ],
)
def test_what_is_missing_of_a_view_is_named(champion, monkeypatch, tmp_path, edit, says):
    redefine(monkeypatch, tmp_path, (VISIB, edit), added=V2)
    learned = versions.learned_features(GONE, champion, versions.version(GONE, champion, 1))
    assert says in own_features.why_not(GONE, learned)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"distance": None}, "distance was a column of the rows, and is none"),
        ({"distance": "string"}, "distance was numeric, and is string in source.columns now"),
        ({"minute": None}, "need minute, not in source.columns any more"),
    ],
)
def test_what_is_missing_of_the_rows_is_named(champion, columns, says):
    found = {name: kind for name, kind in (SPEC.source.columns | columns).items() if kind}
    source = INLINE.source.model_copy(update={"columns": found})
    spec = INLINE.model_copy(update={"source": source})
    learned = versions.learned_features(spec, champion, versions.version(spec, champion, 1))
    assert says in own_features.why_not(spec, learned)


# --- between the change and the retrain, and after a rollback ------------------------------------


def test_the_monitor_measures_the_champion_by_its_own_features(champion, monkeypatch, tmp_path):
    batch = SPEC.batch_ref(WEEKS[3])
    before = measuring.measure_drift(SPEC, champion, batch)
    redefine(monkeypatch, tmp_path, added=V2)
    spec = having(service="flights_v2", numeric=LEFT)
    spec = spec.model_copy(update={"drift": spec.drift.model_copy(update={"expected": ()})})
    feature_sets.materialize(spec, champion, batch)
    report = measuring.measure_drift(spec, champion, batch, anew=True)
    assert {one.name for one in report.features} == {*SPEC.features.names}
    assert report.performance == before.performance
    assert [one.distance for one in report.columns] == [one.distance for one in before.columns]


def test_what_was_expected_to_drift_is_expected_though_the_model_file_names_it_no_more(champion):
    left = tuple(name for name in SPEC.features.numeric if name != "weekday")
    spec = having(numeric=left)
    spec = spec.model_copy(update={"drift": spec.drift.model_copy(update={"expected": ()})})
    report = measuring.measure_drift(spec, champion, spec.batch_ref(WEEKS[3]))
    (weekday,) = [one for one in report.features if one.name == "weekday"]
    assert weekday.expected


def test_a_rollback_to_a_version_of_other_features_is_measured_and_can_be_beaten(champion):
    spec = having(small_spec(training={"seed": 9}), numeric=LEFT)
    at = SPEC.batch_ref(WEEKS[3]).end
    request, candidate = train(spec, champion, WEEKS[2])
    about = GateDecision(
        incident_id=request.incident_id,
        model="flights", partition=WEEKS[2], candidate_version=candidate.version,
        champion_version=1, passed=True, candidate=PROMISE, reasons=("better",),
    )  # fmt: skip
    succession.promote(spec, champion, about, actor="test", at=at)
    back = succession.rollback(
        spec, champion, reason="worse", actor="test", request_id="r", at=at,
        why_not=lambda learned: own_features.why_not(spec, learned),
    )  # fmt: skip
    assert back.version == 1
    report = measuring.measure_drift(spec, champion, spec.batch_ref(WEEKS[3]))
    assert report.champion_version == 1
    assert {one.name for one in report.features} == {*SPEC.features.names}


def test_a_rollback_to_a_version_of_gone_features_is_refused(champion, monkeypatch, tmp_path):
    without_weather(monkeypatch, tmp_path)
    decision = forced(GONE, champion)
    at = GONE.batch_ref(WEEKS[3]).end
    succession.promote(GONE, champion, decision, actor="test", at=at)
    with pytest.raises(RegistryError, match="came from view 'flights_weather'"):
        succession.rollback(
            GONE, champion, reason="worse", actor="test", request_id="r", at=at,
            why_not=lambda learned: own_features.why_not(GONE, learned),
        )  # fmt: skip
    assert server.aliases(GONE, champion)[CHAMPION] == decision.candidate_version


def test_views_that_the_service_gives_no_more_are_made_and_served_on(
    ingested, monkeypatch, tmp_path
):
    """A champion in production still reads them."""
    redefine(
        monkeypatch,
        tmp_path,
        ("features=[weather, carrier_delays, origin_delays,", "features=[carrier_delays,"),
    )
    spec = having(numeric=tuple(n for n in LEFT if n != "origin_delay_rate"))
    assert {view.name for view in definitions.stored_views(spec)} == {
        "flights_weather", "flights_carrier_delays", "flights_origin_delays",
    }  # fmt: skip
    assert definitions.sources_of(spec).join_keys == ["carrier"]
