from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.retraining.monitor.verdict import judge, overlap
from include.retraining.names import incident_id
from include.retraining.records import DriftReport, FeatureDrift, Performance
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec

SPEC = load_spec(MODELS_DIR / "flights.yaml")
BATCH = SPEC.batch_ref("2013-03-04")


def configured(**sections: dict[str, object]) -> ModelSpec:
    update = {
        name: getattr(SPEC, name).model_copy(update=changes) for name, changes in sections.items()
    }
    return SPEC.model_copy(update=update)


def feature(
    name: str = "temp",
    distance: float | None = 0.01,
    *,
    threshold: float | None = 0.1,
    importance: float | None = 0.1,
    **changes: object,
) -> FeatureDrift:
    fields: dict[str, object] = {
        "name": name,
        "kind": "numeric",
        "distance": distance,
        "p_value": 0.5,
        "threshold": threshold,
        "importance": importance,
        "state": "calibrated",
        "drifted": distance is not None and threshold is not None and distance > threshold,
        "reason": "measured",
    }
    return FeatureDrift.model_validate(fields | changes)


def performance(value: float, *, spread: float = 0.02, rows: int = 5000) -> Performance:
    return Performance(
        metric="roc_auc", rows=rows, value=value, low=value - spread, high=value + spread
    )


def report(*features: FeatureDrift, **changes: object) -> DriftReport:
    fields: dict[str, object] = {
        "batch": BATCH,
        "content_sha256": "c0ffee",
        "champion_version": 3,
        "state": "calibrated",
        "rows": 6000,
        "labelled_rows": 5000,
        "features": features or (feature(),),
        "champion_age_days": 10.0,
    }
    return DriftReport.model_validate(fields | changes)


def dated(reports: list[DriftReport]) -> list[DriftReport]:
    """Put reports into the weeks before the judged one, the last of them right before it."""
    weeks = [BATCH.start - SPEC.partitions.length * n for n in range(len(reports), 0, -1)]
    return [
        found.model_copy(update={"batch": SPEC.batch_ref(SPEC.partition_key(week))})
        for found, week in zip(reports, weeks, strict=True)
    ]


DRIFTED = feature("temp", 0.15, importance=0.5)
FAR = feature("temp", 0.25, importance=0.5)
CALM = feature("distance", 0.01, importance=0.5)


def test_nothing_out_of_the_ordinary_is_ignored():
    verdict = judge(SPEC, report(CALM))
    assert verdict.outcome == "ignore"
    assert verdict.reasons == ("nothing is out of the ordinary",)
    assert verdict.content_sha256 == "c0ffee"
    assert verdict.incident_id == incident_id("flights", "monitor", "2013-03-04", 3)


def test_columns_that_could_not_be_judged_are_counted_and_named():
    left = [
        feature(f"c{n}", 0.01, importance=n / 100).model_copy(update={"state": "insufficient"})
        for n in range(7)
    ]
    verdict = judge(SPEC, report(CALM, *left))
    assert verdict.outcome == "ignore"
    told = (
        "nothing that could be judged is out of the ordinary; 7 of 8 columns could not be judged "
        "(30% of the model's importance): "
    )
    assert verdict.reasons == (f"{told}c6, c5, c4, c3, c2 and 2 more",)
    (one,) = judge(SPEC, report(CALM, left[1])).reasons
    assert one.endswith("1 of 2 columns could not be judged (2% of the model's importance): c1")


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [(None, "ignore"), (0, "ignore"), (14_999, "ignore"), (15_000, "retrain")],
)
def test_first_model_is_asked_for_once_there_are_rows_enough(rows, outcome):
    verdict = judge(SPEC, report(champion_version=None, trainable_rows=rows, features=()))
    assert verdict.outcome == outcome
    assert "no model is in production yet" in verdict.reasons[0]
    assert "-none-" in verdict.incident_id


def test_no_retrain_follows_from_a_batch_the_champion_learned_from():
    verdict = judge(SPEC, report(FAR, in_sample=True, champion_age_days=-20.0))
    assert verdict.outcome == "ignore"
    assert verdict.reasons == (
        "measured, not judged: version 3 learned from rows as late as these are",
        "unlike what it learned from: temp (2.5x its threshold)",
    )


def test_drift_seen_for_the_first_time_is_watched():
    verdict = judge(SPEC, report(DRIFTED, CALM))
    assert verdict.outcome == "watch"
    assert "drifted for the first time: temp (1.5x its threshold)" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("earlier", "outcome"),
    [
        pytest.param([], "watch", id="first-time"),
        pytest.param([report(DRIFTED)], "retrain", id="second-in-a-row"),
        pytest.param([report(DRIFTED), report(CALM)], "retrain", id="two-of-three"),
        pytest.param([report(CALM), report(CALM)], "watch", id="one-of-three"),
        pytest.param([report(DRIFTED), report(CALM), report(CALM)], "watch", id="too-long-ago"),
        pytest.param([report(DRIFTED, champion_version=2)], "watch", id="against-another-champion"),
        pytest.param([report(feature("distance", 0.15))], "watch", id="another-feature-before"),
    ],
)
def test_persistent_drift_without_labels_asks_for_a_retrain(earlier, outcome):
    assert judge(SPEC, report(DRIFTED, CALM), earlier=dated(earlier)).outcome == outcome


@pytest.mark.parametrize(
    ("distance", "outcome"), [(0.1999, "watch"), (0.2, "retrain"), (0.25, "retrain")]
)
def test_twice_the_threshold_counts_at_once(distance, outcome):
    found = judge(SPEC, report(feature("temp", distance, importance=0.5), CALM))
    assert found.outcome == outcome


@pytest.mark.parametrize(
    ("importance", "outcome"), [(0.29, "watch"), (0.3, "retrain"), (0.5, "retrain")]
)
def test_drift_counts_by_the_importance_it_carries(importance, outcome):
    drifted = feature("temp", 0.25, importance=importance)
    rest = feature("distance", 0.01, importance=1 - importance)
    assert judge(SPEC, report(drifted, rest)).outcome == outcome


@pytest.mark.parametrize("importance", [None, 0.0])
def test_all_features_count_alike_where_no_importance_is_known(importance):
    drifted = feature("temp", 0.25, importance=importance)
    rest = [feature(f"x{n}", 0.01, importance=importance) for n in range(4)]
    assert judge(SPEC, report(drifted, *rest[:1])).outcome == "retrain"
    assert judge(SPEC, report(drifted, *rest)).outcome == "watch"


def test_feature_declared_to_drift_never_counts():
    expected = feature("weekday", 0.9, importance=0.9, expected=True)
    verdict = judge(SPEC, report(expected, CALM))
    assert verdict.outcome == "ignore"
    assert verdict.worst_feature == "distance"


def test_stable_performance_turns_drift_into_a_watch():
    found = report(FAR, CALM, performance=performance(0.7), promise=performance(0.7))
    verdict = judge(SPEC, found)
    assert verdict.outcome == "watch"
    assert verdict.reasons[-1] == (
        "not known yet whether roc_auc has fallen (1 window): watched, not retrained"
    )
    several = judge(SPEC, found, earlier=weeks_of(0.7, 0.71, 0.69, 0.7, 0.7))
    assert several.reasons[-1] == (
        "roc_auc has not fallen, as far as 6 windows can tell: watched, not retrained"
    )


def test_outcomes_from_before_a_drift_say_nothing_of_it():
    begin = report(CALM).batch.start
    old = {"measured_from": begin - dt.timedelta(days=28), "is_of_earlier_rows": True,
           "performance": performance(0.7), "promise": performance(0.7)}  # fmt: skip
    earlier = weeks_of(0.7, 0.71, 0.69, 0.7, 0.7)
    found = report(FAR, CALM, **old, measured_until=begin - dt.timedelta(days=21),
                   drifting_since=begin - dt.timedelta(days=7))  # fmt: skip
    verdict = judge(SPEC, found, earlier=earlier)
    assert (verdict.outcome, verdict.harm.state) == ("watch", "not known")
    assert verdict.outcomes_are_older
    assert verdict.reasons[-1].startswith("not known yet whether it does harm: the newest outcomes")
    # outcomes of rows that drifted say it
    known = found.model_copy(update={"drifting_since": begin - dt.timedelta(days=28)})
    verdict = judge(SPEC, known, earlier=earlier)
    assert verdict.reasons[-1].startswith("roc_auc has not fallen")
    assert not verdict.outcomes_are_older
    # and who did not see it begin says nothing of it
    verdict = judge(SPEC, found.model_copy(update={"drifting_since": None}), earlier=earlier)
    assert not verdict.outcomes_are_older


def test_a_little_drift_does_not_make_outcomes_doubtful_or_an_alert_louder():
    begin = report(CALM).batch.start
    old = {"measured_from": begin - dt.timedelta(days=28), "is_of_earlier_rows": True,
           "measured_until": begin - dt.timedelta(days=21), "drifting_since": begin,
           "performance": performance(0.7), "promise": performance(0.7)}  # fmt: skip
    expensive = CALM.model_copy(update={"importance": 100.0})
    verdict = judge(
        SPEC, report(FAR, expensive, **old), earlier=weeks_of(0.7, 0.71, 0.69, 0.7, 0.7)
    )
    assert (verdict.outcome, verdict.harm.state) == ("watch", "within")
    assert not verdict.outcomes_are_older


def test_a_fall_is_dated_by_its_rows_not_by_who_knew_it():
    begin = report(CALM).batch.start
    now = report(CALM, performance=performance(0.60), promise=performance(0.80),
                 is_of_earlier_rows=True, measured_from=begin - dt.timedelta(days=21))  # fmt: skip
    earlier = [
        one.model_copy(update={"measured_from": one.batch.start - dt.timedelta(days=21)})
        for one in weeks_of(0.80, 0.78, 0.79, 0.81, 0.79, 0.62, 0.60)
    ]
    fell = earlier[5].batch.start - dt.timedelta(days=21)
    assert (
        judge(SPEC, now, earlier=earlier)
        .reasons[0]
        .startswith(
            f"roc_auc has fallen since the rows of {fell:%Y-%m-%d} (known with "
            f"{earlier[5].batch.partition}): 0.607"
        )
    )


def test_model_file_may_ask_for_a_retrain_on_drift_alone():
    spec = configured(drift={"retrain_on_stable_performance": True})
    found = report(FAR, CALM, performance=performance(0.7), promise=performance(0.7))
    assert judge(spec, found).outcome == "retrain"


def test_one_window_below_the_promise_is_watched_and_told():
    """Neither the duel nor one window says how much windows differ."""
    found = report(CALM, performance=performance(0.6), promise=performance(0.7))
    verdict = judge(SPEC, found)
    assert verdict.outcome == "watch"
    assert verdict.reasons[0].startswith(
        "roc_auc 0.600 (0.580 to 0.620, 5,000 rows) is below the 0.700 that version 3 promised; "
        "not known yet whether roc_auc has fallen: "
    )
    assert verdict.harm is not None
    assert (verdict.harm.state, verdict.harm.windows) == ("not known", 1)
    inside = report(CALM, performance=performance(0.68), promise=performance(0.7))
    assert judge(SPEC, inside).outcome == "ignore"


@pytest.mark.parametrize(("drop", "outcome"), [(0.05, "retrain"), (0.09, "watch")])
def test_a_fall_that_the_model_file_allows_is_no_harm(drop, outcome):
    spec = configured(retrain={"min_performance_drop": drop})
    found = report(CALM, performance=performance(0.62), promise=performance(0.7))
    verdict = judge(spec, found, earlier=weeks_of(0.7, 0.69, 0.71, 0.7, 0.62, 0.62))
    assert verdict.outcome == outcome
    assert ("no more than is allowed" in verdict.reasons[0]) == (outcome == "watch")


def test_harm_outranks_calm_features_and_a_small_batch():
    found = report(
        feature(state="insufficient"),
        state="insufficient",
        performance=performance(0.6),
        promise=performance(0.7),
    )
    assert judge(SPEC, found, earlier=weeks_of(0.7, 0.7, 0.7, 0.7, 0.7, 0.6)).outcome == "retrain"


@pytest.mark.parametrize(
    ("age", "outcome"), [(None, "ignore"), (91.0, "ignore"), (91.01, "retrain")]
)
def test_model_beyond_its_age_is_retrained(age, outcome):
    assert judge(SPEC, report(CALM, champion_age_days=age)).outcome == outcome


def test_age_does_not_count_where_the_model_file_sets_none():
    spec = configured(retrain={"max_age_days": None})
    assert judge(spec, report(CALM, champion_age_days=9999.0)).outcome == "ignore"


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        pytest.param(report(FAR, CALM), "blocked", id="drift"),
        pytest.param(report(CALM, champion_age_days=99.0), "blocked", id="age"),
        pytest.param(
            report(champion_version=None, trainable_rows=99_999), "blocked", id="first-model"
        ),
        pytest.param(report(DRIFTED, CALM), "watch", id="watched-anyway"),
        pytest.param(report(CALM), "ignore", id="nothing-wanted"),
    ],
)
def test_hold_blocks_what_asks_for_a_retrain_and_nothing_else(found, outcome):
    verdict = judge(SPEC, found, hold="cooling down")
    assert verdict.outcome == outcome
    assert ("cooling down" in verdict.reasons) == (outcome == "blocked")


def test_batch_too_small_to_judge_is_watched_and_never_passed():
    found = report(
        feature(distance=None, threshold=None, state="insufficient"), state="insufficient", rows=7
    )
    verdict = judge(SPEC, found)
    assert verdict.outcome == "watch"
    assert "7 rows are too few" in verdict.reasons[0]


def test_drifting_predictions_alone_are_watched():
    verdict = judge(SPEC, report(CALM, score=feature("prediction", 0.3, importance=None)))
    assert verdict.outcome == "watch"
    assert "prediction (3.0x its threshold)" in verdict.reasons[0]


def test_verdict_names_the_worst_feature_by_its_own_threshold():
    near = feature("temp", 0.3, threshold=0.25)
    far = feature("humid", 0.2, threshold=0.1)
    verdict = judge(SPEC, report(near, far, CALM))
    assert (verdict.worst_feature, verdict.ks_distance) == ("humid", 0.2)


def test_categorical_distance_is_not_called_a_ks_distance():
    verdict = judge(SPEC, report(feature("dest", 0.3, kind="categorical"), CALM))
    assert (verdict.worst_feature, verdict.ks_distance) == ("dest", None)


def test_column_that_cannot_be_measured_still_gives_a_verdict():
    gone = feature("temp", None, threshold=None, drifted=True, reason="all values are missing")
    verdict = judge(SPEC, report(gone, CALM))
    assert verdict.outcome == "watch"
    assert "temp (all values are missing)" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("growth", "new", "outcome"),
    [(0.2, 1999, "ignore"), (0.2, 2000, "retrain"), (None, 9000, "ignore"), (0.2, None, "ignore")],
)
def test_enough_new_rows_to_learn_from_ask_for_a_retrain(growth, new, outcome):
    spec = configured(retrain={"growth": growth})
    still = feature("distance", 0.0, importance=0.5)
    verdict = judge(spec, report(still, learned_rows=10_000, new_rows=new))
    assert verdict.outcome == outcome
    if outcome == "retrain":
        assert verdict.reasons[0] == (
            "2,000 new labelled rows are 20% of the 10,000 that the last retrain learned from "
            "(retrain.growth 20%)"
        )


def test_fewer_new_rows_are_enough_where_the_old_ones_are_unlike_today():
    spec = configured(retrain={"growth": 0.2})
    changed = feature("temp", 0.5, threshold=0.6, importance=0.8)
    same = feature("distance", 0.0, importance=0.2)
    for new, outcome in ((1199, "ignore"), (1200, "retrain")):
        verdict = judge(spec, report(changed, same, learned_rows=10_000, new_rows=new))
        assert verdict.outcome == outcome
    assert verdict.reasons[0] == (
        "1,200 new labelled rows are 20% of those among the 10,000 of the last retrain that "
        "resemble today's (60%) (retrain.growth 20%)"
    )


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=6))
def test_overlap_is_a_share_and_all_of_it_without_drift(columns):
    found = [feature(f"f{i}", d, importance=w, expected=e) for i, (d, w, e) in enumerate(columns)]
    assert -1e-9 <= overlap(found) <= 1 + 1e-9
    still = [f.model_copy(update={"distance": 0.0}) for f in found]
    assert overlap(still) == 1.0


def test_missing_values_count_like_any_other_drift():
    gone = feature("temp", 0.01, missing_change=0.5, missing_threshold=0.1, drifted=True)
    verdict = judge(SPEC, report(gone.model_copy(update={"importance": 0.9}), CALM))
    assert (verdict.outcome, verdict.worst_feature) == ("retrain", "temp")
    assert "temp (5.0x its threshold)" in verdict.reasons[0]


def weeks_of(*values: float) -> list[DriftReport]:
    return dated([report(CALM, performance=performance(value)) for value in values])


def test_a_hard_week_like_others_before_is_no_harm():
    now = report(CALM, performance=performance(0.66), promise=performance(0.75))
    steady = weeks_of(0.75, 0.75, 0.75, 0.75, 0.75, 0.75)
    assert judge(SPEC, now, earlier=steady).outcome == "watch"  # one window may be an odd one
    twice = weeks_of(0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.66)
    assert judge(SPEC, now, earlier=twice).outcome == "retrain"
    unsteady = weeks_of(0.75, 0.66, 0.74, 0.65, 0.76, 0.66)
    assert judge(SPEC, now, earlier=unsteady).outcome == "ignore"


def test_what_windows_of_the_champion_before_differed_by_says_what_a_fall_is():
    now = report(CALM, performance=performance(0.62), promise=performance(0.70))
    steady, unsteady = (
        [one.model_copy(update={"champion_version": 2}) for one in weeks_of(*values)]
        for values in ((0.8, 0.81, 0.8, 0.79, 0.8, 0.8), (0.8, 0.7, 0.79, 0.72, 0.82, 0.73))
    )
    times = [judge(SPEC, now, earlier=earlier).harm.times for earlier in ([], steady, unsteady)]
    assert times[1] > 2 > times[0] > times[2]


def test_a_fall_for_good_is_harm_although_weeks_differ():
    now = report(CALM, performance=performance(0.60), promise=performance(0.80))
    earlier = weeks_of(0.80, 0.78, 0.79, 0.81, 0.79, 0.62, 0.60)
    verdict = judge(SPEC, now, earlier=earlier)
    assert verdict.outcome == "retrain"
    assert verdict.harm.since == earlier[5].batch.partition
    assert verdict.reasons[0].startswith(
        f"roc_auc has fallen since {verdict.harm.since}: 0.607, before that 0.795; "
    )


def test_report_without_features_is_judged_too():
    verdict = judge(SPEC, report(features=()))
    assert (verdict.outcome, verdict.worst_feature) == ("ignore", None)


drifts = st.builds(
    feature,
    st.sampled_from(["temp", "dewp", "humid", "distance"]),
    st.floats(0, 1),
    threshold=st.floats(0.01, 1),
    importance=st.none() | st.floats(0, 1),
)


@given(st.lists(drifts, max_size=5), st.floats(0, 1), st.floats(0, 1))
def test_stricter_importance_share_never_retrains_more(features, one, other):
    low, high = sorted((one, other))
    found = report(features=tuple(features))
    outcomes = [
        judge(configured(drift={"max_drifted_importance": share}), found).outcome
        for share in (low, high)
    ]
    assert outcomes != ["watch", "retrain"]
    assert outcomes[0] == outcomes[1] or set(outcomes) == {"watch", "retrain"}


def moving(*shifts: float, **changes: object) -> list[DriftReport]:
    """Weeks in which one column moved by so much, none of it beyond a threshold."""
    return [
        report(
            feature(
                **{
                    "shift": shift,
                    "shift_threshold": 0.1,
                    "shift_errors": (0.01, 0.002),
                    "trend_limit": 4.0,
                    **changes,
                }
            )
        )
        for shift in shifts
    ]


def test_a_column_that_keeps_moving_is_watched_before_it_matters():
    *before, now = moving(0.02, 0.04, 0.06)
    verdict = judge(SPEC, now, earlier=dated(before))
    assert verdict.outcome == "watch"
    (reason,) = verdict.reasons
    assert reason == (
        "temp keeps moving: its values got larger over 3 windows (shift +0.060 now, +0.020 a "
        "window); if that goes on, it matters in 2 windows"
    )


def test_a_column_that_moved_once_is_ignored():
    *before, now = moving(0.05, 0.05, 0.05)
    assert judge(SPEC, now, earlier=dated(before)).outcome == "ignore"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"expected": True}, id="expected"),
        pytest.param({"shift_errors": None}, id="no history says what is ordinary"),
    ],
)
def test_some_columns_may_move(changes: dict[str, object]):
    *before, now = moving(0.02, 0.04, 0.06, **changes)
    assert judge(SPEC, now, earlier=dated(before)).outcome == "ignore"


def test_a_trend_against_another_champion_says_nothing():
    *before, now = moving(0.02, 0.04, 0.06)
    other = [r.model_copy(update={"champion_version": 2}) for r in dated(before)]
    assert judge(SPEC, now, earlier=other).outcome == "ignore"


def test_a_trend_alone_retrains_nothing():
    *before, now = moving(0.02, 0.04, 0.06, importance=1.0)
    spec = configured(drift={"max_drifted_importance": 0.0, "persistence_windows": 1})
    assert judge(spec, now, earlier=dated(before)).outcome == "watch"


def test_windows_without_a_verdict_are_no_part_of_a_trend():
    """Sixty rows say nothing, however far they lie."""
    *before, now = moving(0.0, 0.0, 0.0, 0.0, 0.3, 0.0)
    before[4] = moving(0.3, shift_threshold=None, shift_errors=None, state="insufficient")[0]
    assert judge(SPEC, now, earlier=dated(before)).outcome == "ignore"


def test_a_trend_that_has_come_far_says_so():
    *before, now = moving(0.09, 0.11, 0.13, 0.15, shift_threshold=0.3)
    (reason,) = judge(SPEC, now, earlier=dated(before)).reasons
    assert reason.endswith("it has come as far as matters")


def test_what_got_no_verdict_is_not_at_twice_its_threshold():
    """The missing share drifted a little; the values are too few to say anything about."""
    few = feature(
        "temp", 0.4, threshold=None, shift=0.6, missing_change=0.13, missing_threshold=0.1,
        drifted=True, importance=1.0,
    )  # fmt: skip
    assert few.furthest.name == "missing share"
    verdict = judge(SPEC, report(few))
    assert verdict.outcome == "watch"
    assert "for the first time: temp (1.3x its threshold)" in verdict.reasons[0]


@pytest.mark.parametrize("missing", [True, False])
def test_no_retrain_is_asked_for_while_outcomes_are_missing_that_were_due(missing):
    until = BATCH.start if missing else BATCH.end
    found = report(champion_version=None, trainable_rows=99_999, outcomes_until=until)
    verdict = judge(SPEC, found)
    assert verdict.outcome == ("blocked" if missing else "retrain")
    assert verdict.awaits_outcomes == missing
