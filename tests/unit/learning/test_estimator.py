from __future__ import annotations

import datetime as dt
import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from include.retraining.errors import DataError, SpecError
from include.retraining.learning import estimator, metrics, scoring
from include.retraining.learning.rows import feature_frame
from include.retraining.spec import ModelSpec, Range, Search
from tests.unit.pipeline import small_spec

LOGISTIC = "sklearn.linear_model.LogisticRegression"
START = np.datetime64("2013-01-07", "us")
HOUR = np.timedelta64(1, "h")


def rows_of(count: int = 600, **columns: object) -> pa.Table:
    """Give rows an hour apart whose features are noise, but for `temp`, which is the signal."""
    generator = np.random.default_rng(5)
    spec = small_spec()
    table: dict[str, object] = {"sched_dep": START + HOUR * np.arange(count)}
    table |= {name: generator.normal(size=count) for name in spec.features.numeric}
    table |= {name: generator.choice(["a", "b"], count) for name in spec.features.categorical}
    return pa.table(table | columns)


def answers(rows: pa.Table) -> metrics.Floats:
    noise = np.random.default_rng(6).normal(size=rows.num_rows)
    return (rows.column("temp").to_numpy() + noise > 0.8).astype("float64")


ROWS = rows_of()
LABELS = answers(ROWS)


def spec_of(label: dict[str, object] | None = None, **training: object) -> ModelSpec:
    return small_spec(training={"params": {}} | training, **({"label": label} if label else {}))


# --- time-ordered folds ---------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 2000), min_size=1, max_size=200),
    st.integers(1, 6),
    st.integers(0, 100),
)
def test_folds_learn_only_from_labels_that_were_mature_and_judge_each_row_once(hours, count, gap):
    times = START + HOUR * np.array(hours)
    folds = estimator.time_folds(times, count, gap=dt.timedelta(hours=gap))
    assert len(folds) <= count
    judged = [position for _, later in folds for position in later]
    assert len(judged) == len(set(judged))
    for earlier, later in folds:
        assert times[earlier].max() + gap * HOUR < times[later].min()


def test_five_folds_of_even_rows_are_sixths():
    folds = estimator.time_folds(START + HOUR * np.arange(600), 5, gap=dt.timedelta(0))
    assert [(len(earlier), len(later)) for earlier, later in folds] == [
        (100, 100),
        (200, 100),
        (300, 100),
        (400, 100),
        (500, 100),
    ]
    gapped = estimator.time_folds(START + HOUR * np.arange(600), 5, gap=dt.timedelta(hours=10))
    assert [len(earlier) for earlier, _ in gapped] == [90, 190, 290, 390, 490]


def test_no_folds_are_asked_for_and_none_are_made():
    assert estimator.time_folds(START + HOUR * np.arange(9), 0, gap=dt.timedelta(0)) == []
    assert estimator.time_folds(np.array([], "datetime64[us]"), 5, gap=dt.timedelta(0)) == []


def test_metric_of_each_fold_is_kept_and_told(caplog):
    with caplog.at_level(logging.INFO):
        found = estimator.fit(spec_of(cv_folds=3), ROWS, LABELS)
    assert len(found.best.folds) == 3
    assert 0.55 < found.best.mean < 1
    assert found.best.mean == pytest.approx(np.mean(found.best.folds))
    assert "cross-validation: fold 3 of 3" in caplog.text
    assert "fitted in" in caplog.text


def test_rows_are_predicted_by_pipelines_that_had_not_seen_them():
    """A model knows the rows that it learned from: here it could not have."""
    spec = spec_of(
        cv_folds=3, estimator="sklearn.ensemble.RandomForestClassifier", params={"n_estimators": 20}
    )
    found = estimator.fit(spec, ROWS, LABELS)
    assert found.unseen is not None
    assert np.isnan(found.unseen[:150]).all()
    assert np.isfinite(found.unseen[150:]).all()
    folded = estimator.predict_unseen(spec, ROWS, LABELS)
    np.testing.assert_array_equal(folded, found.unseen)
    known = scoring.predict(spec, found.pipeline, ROWS)[150:]
    auc = [metrics.value("roc_auc", LABELS[150:], one) for one in (known, found.unseen[150:])]
    assert auc[0] > 0.99 > 0.9 > auc[1]
    assert estimator.fit(spec_of(cv_folds=0), ROWS, LABELS).unseen is None


def test_those_of_a_search_are_of_its_best_trial():
    spec = spec_of(
        estimator=FOREST, params={"n_estimators": 5, "min_samples_leaf": 300}, cv_folds=3,
        search=Search(n_iter=3, space={"min_samples_leaf": (2, 20)}),
    )  # fmt: skip
    found = estimator.fit(spec, ROWS, LABELS)
    best = spec_of(estimator=FOREST, params=found.best.params, cv_folds=3)
    np.testing.assert_array_equal(estimator.predict_unseen(best, ROWS, LABELS), found.unseen)


def test_fold_that_cannot_be_fitted_says_so_and_does_not_stop_the_training(caplog):
    labels = np.r_[np.zeros(300), LABELS[300:]]  # the early folds have one class
    found = estimator.fit(spec_of(estimator=LOGISTIC), ROWS, labels)
    assert np.isnan(found.best.folds[0])
    assert np.isfinite(found.best.folds[-1])
    assert "fold 1 of 5 says nothing" in caplog.text


# --- search ---------------------------------------------------------------------------------------

FOREST = "sklearn.ensemble.RandomForestClassifier"


def test_search_takes_the_best_on_the_folds_and_keeps_every_trial():
    search = Search(
        n_iter=6, space={"max_depth": (1, 2), "min_samples_leaf": Range(low=1, high=300)}
    )
    spec = spec_of(
        estimator=FOREST,
        params={"n_estimators": 5, "min_samples_leaf": 300},
        search=search,
        cv_folds=3,
    )
    found = estimator.fit(spec, ROWS, LABELS)
    assert len(found.trials) == 7
    assert found.trials[0].params == spec.training.params
    assert found.best.mean == max(trial.mean for trial in found.trials)
    assert found.best.mean > found.trials[0].mean  # leaves of 300 rows learn nothing
    model = found.pipeline.named_steps["model"]
    assert {name: getattr(model, name) for name in found.best.params} == found.best.params
    assert estimator.fit(spec, ROWS, LABELS).trials == found.trials


def test_search_that_no_fold_can_judge_is_an_error():
    spec = spec_of(search=Search(n_iter=1, space={"max_iter": (5,)}), estimator=LOGISTIC)
    labels = np.r_[np.zeros(599), 1.0]
    with pytest.raises(DataError, match="no time-ordered fold of 600 rows can judge"):
        estimator.fit(spec, ROWS, labels)


@given(st.integers(0, 10_000))
def test_drawn_values_are_in_range_and_of_the_kind_of_the_ends(seed):
    space = {
        "whole": Range(low=2, high=4),
        "log_whole": Range(low=1, high=64, log=True),
        "real": Range(low=0.5, high=2),
        "log_real": Range(low=1e-4, high=1.0, log=True),
        "choice": ("a", None),
    }
    (found,) = estimator.sample_params(Search(n_iter=1, space=space), {"fixed": 1}, seed)
    assert found["fixed"] == 1
    assert found["whole"] in {2, 3, 4}
    assert 1 <= found["log_whole"] <= 64
    assert isinstance(found["log_whole"], int)
    assert 0.5 <= found["real"] <= 2
    assert isinstance(found["real"], float)
    assert 1e-4 <= found["log_real"] <= 1
    assert found["choice"] in {"a", None}


def test_whole_range_reaches_both_ends():
    search = Search(
        n_iter=200, space={"n": Range(low=1, high=3), "m": Range(low=1, high=3, log=True)}
    )
    found = estimator.sample_params(search, {}, 0)
    assert {params["n"] for params in found} == {params["m"] for params in found} == {1, 2, 3}


def test_parameter_of_the_space_that_the_estimator_does_not_have_is_a_spec_error():
    spec = spec_of(search=Search(n_iter=1, space={"trees": (3,)}))
    with pytest.raises(SpecError, match="has no parameter 'trees'"):
        estimator.fit(spec, ROWS, LABELS)


# --- weights --------------------------------------------------------------------------------------


def test_balanced_weights_are_those_of_sklearn():
    found = estimator.sample_weights(spec_of(balance_classes=True), ROWS, LABELS)
    np.testing.assert_allclose(found, compute_sample_weight("balanced", LABELS))


def test_balanced_weights_on_top_of_weights_give_each_class_the_same_total():
    rows = rows_of(distance=np.arange(600.0))
    spec = spec_of(balance_classes=True, sample_weight="distance")
    found = estimator.sample_weights(spec, rows, LABELS)
    assert found is not None
    assert found[LABELS == 1].sum() == pytest.approx(found[LABELS == 0].sum())
    assert found.sum() == pytest.approx(np.arange(600).sum())
    assert found[0] == 0


def test_without_a_setting_there_are_no_weights():
    assert estimator.sample_weights(spec_of(), ROWS, LABELS) is None


def test_row_of_no_weight_teaches_nothing():
    wrong = np.where(np.arange(600) < 300, 1 - LABELS, LABELS)
    rows = rows_of(distance=(np.arange(600) >= 300).astype("float64"))
    spec = spec_of(estimator=LOGISTIC, sample_weight="distance", cv_folds=0)
    one, other = (estimator.fit(spec, rows, labels).pipeline for labels in (LABELS, wrong))
    frame = feature_frame(spec, rows)
    np.testing.assert_allclose(one.predict_proba(frame), other.predict_proba(frame), atol=1e-3)


@pytest.mark.parametrize(
    "bad", [[-1.0], [np.nan], [np.inf]], ids=["negative", "missing", "infinite"]
)
def test_weight_that_is_none_is_refused(bad):
    rows = rows_of(distance=np.r_[np.ones(599), bad])
    with pytest.raises(DataError, match="1 of 600 that are missing, negative or infinite"):
        estimator.fit(spec_of(sample_weight="distance"), rows, LABELS)


def test_weights_that_are_all_nothing_are_refused():
    with pytest.raises(DataError, match="not all 0"):
        estimator.fit(spec_of(sample_weight="distance"), rows_of(distance=np.zeros(600)), LABELS)


def test_estimator_that_takes_no_weights_is_refused():
    spec = spec_of(estimator="sklearn.neighbors.KNeighborsClassifier", balance_classes=True)
    with pytest.raises(SpecError, match="takes no sample_weight"):
        estimator.fit(spec, ROWS, LABELS)


# --- calibration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibration_mends_probabilities_that_are_too_sure(method):
    rows = rows_of(4000)
    labels = answers(rows)
    half = 2000
    likelihoods = []
    for calibration in (None, method):
        spec = spec_of(
            estimator=FOREST, params={"n_estimators": 10}, calibration=calibration, cv_folds=0
        )
        pipeline = estimator.fit(spec, rows.slice(0, half), labels[:half]).pipeline
        scores = scoring.predict(spec, pipeline, rows.slice(half))
        likelihoods.append(metrics.value("neg_log_loss", labels[half:], scores))
    assert likelihoods[1] > likelihoods[0] + 0.05


# --- other tasks ----------------------------------------------------------------------------------


def test_regression_predicts_numbers():
    spec = small_spec(
        label={"task": "regression", "at_least": None},
        gate={"metric": "r2", "floor": 0.0},
        training={"estimator": "sklearn.linear_model.Ridge", "params": {}},
    )
    temp = ROWS.column("temp").to_numpy()
    found = estimator.fit(spec, ROWS, 3 * temp + 1)
    np.testing.assert_allclose(scoring.predict(spec, found.pipeline, ROWS), 3 * temp + 1, atol=0.1)
    assert found.best.mean > 0.95


def test_class_that_did_not_occur_has_probability_0():
    spec = small_spec(
        label={"task": "multiclass", "at_least": None, "classes": ("a", "b", "c")},
        gate={"metric": "neg_log_loss", "floor": -2.0},
    )
    labels = np.where(LABELS == 1, 2.0, 0.0)
    scores = scoring.predict(spec, estimator.fit(spec, ROWS, labels).pipeline, ROWS)
    assert scores.shape == (600, 3)
    assert not scores[:, 1].any()
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert set(scoring.score_column(spec, scores).to_pylist()) == {"a", "c"}


@pytest.mark.parametrize(
    ("task", "path", "says"),
    [
        ("regression", LOGISTIC, "is a classifier, but label.task is regression"),
        ("binary", "sklearn.linear_model.Ridge", "gives no probabilities"),
    ],
)
def test_estimator_of_another_task_is_refused(task, path, says):
    with pytest.raises(SpecError, match=says):
        estimator.build_pipeline(spec_of({"task": task, "at_least": None}, estimator=path))


@pytest.mark.parametrize("path", [LOGISTIC, small_spec().training.estimator])
def test_feature_without_a_value_in_an_early_fold_is_no_trouble(path):
    temp = ROWS.column("temp").to_numpy().copy()
    temp[:200] = np.nan
    rows = rows_of(temp=temp)
    found = estimator.fit(spec_of(estimator=path), rows, LABELS)
    assert np.isfinite(found.best.folds).all()
    frame = pd.DataFrame(feature_frame(spec_of(), rows))
    assert np.isfinite(found.pipeline.predict_proba(frame)).all()
