from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from include.retraining.errors import DataError, ScoringError
from include.retraining.learning import scoring
from include.retraining.learning.rows import feature_frame, labels
from tests.unit.pipeline import small_spec

SPEC = small_spec()
END = dt.datetime(2013, 2, 11, tzinfo=dt.UTC)
NAN = float("nan")


def rows(values: list[float | None], times: list[dt.datetime | None] | None = None) -> pa.Table:
    times = times or [END] * len(values)
    return pa.table(
        {
            "arr_delay": pa.array(values, pa.float64()),
            "sched_dep": pa.array(times, pa.timestamp("us", "UTC")),
        }
    )


def test_label_is_one_from_the_limit_on():
    found = labels(SPEC, rows([14.999, 15.0, 15.001, -60.0, 0.0]))
    np.testing.assert_array_equal(found, [0, 1, 1, 0, 0])


def test_unknown_value_is_an_unknown_label():
    found = labels(SPEC, rows([None, NAN, 20.0]))
    np.testing.assert_array_equal(found, [NAN, NAN, 1])


def test_label_counts_only_once_it_is_mature():
    day, second = dt.timedelta(days=1), dt.timedelta(seconds=1)
    times = [END - day - second, END - day, END - day + second, END, None]
    found = labels(SPEC, rows([20.0] * 5, times), known_at=END)
    np.testing.assert_array_equal(found, [1, NAN, NAN, NAN, NAN])


def test_moment_in_another_zone_is_the_same_moment():
    times = [END - dt.timedelta(days=1, seconds=1), END - dt.timedelta(hours=23)]
    elsewhere = END.astimezone(dt.timezone(dt.timedelta(hours=-5)))
    found = labels(SPEC, rows([20.0, 20.0], times), known_at=elsewhere)
    np.testing.assert_array_equal(found, [1, NAN])


def test_no_rows_have_no_labels():
    assert len(labels(SPEC, rows([]), known_at=END)) == 0


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(pa.array([0, 1, None], pa.int64()), id="integer"),
        pytest.param(pa.array([False, True, None], pa.bool_()), id="boolean"),
        pytest.param(pa.array([0.0, 1.0, NAN], pa.float64()), id="number"),
    ],
)
def test_column_of_labels_is_taken_as_it_is_where_no_limit_is_set(values):
    spec = small_spec(label={"at_least": None})
    table = rows([0.0, 0.0, 0.0]).set_column(0, "arr_delay", values)
    np.testing.assert_array_equal(labels(spec, table), [0, 1, NAN])


def test_column_that_holds_no_labels_is_an_error_and_not_a_third_class():
    spec = small_spec(label={"at_least": None})
    with pytest.raises(DataError, match=r"must hold 0 and 1, got \[2.0, 30.0\]"):
        labels(spec, rows([0.0, 1.0, 30.0, 2.0, None]))


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        pytest.param(pa.array(["low", None, "high"]), ("low", "mid", "high"), id="names"),
        pytest.param(pa.array([1, None, 3], pa.int64()), (1, 2, 3), id="integers"),
        pytest.param(pa.array([1.0, NAN, 3.0]), (1, 2, 3), id="integers-with-gaps-as-floats"),
    ],
)
def test_label_of_several_classes_is_the_place_of_the_class(values, classes):
    spec = small_spec(label={"task": "multiclass", "at_least": None, "classes": classes})
    table = rows([0.0, 0.0, 0.0]).set_column(0, "arr_delay", values)
    np.testing.assert_array_equal(labels(spec, table), [0, NAN, 2])


def test_class_that_is_not_declared_is_an_error():
    spec = small_spec(label={"task": "multiclass", "at_least": None, "classes": ("a", "b")})
    table = rows([0.0, 0.0]).set_column(0, "arr_delay", pa.array(["a", "c"]))
    with pytest.raises(DataError, match=r"holds \['c'\], allowed are label.classes \['a', 'b'\]"):
        labels(spec, table)


def test_label_of_a_regression_is_the_value_and_finite():
    spec = small_spec(label={"task": "regression", "at_least": None})
    np.testing.assert_array_equal(labels(spec, rows([-3.5, None, 40])), [-3.5, NAN, 40])
    with pytest.raises(DataError, match="finite numbers, got 1 infinite"):
        labels(spec, rows([1.0, float("inf")]))


def features(**changes: list[object]) -> pa.Table:
    columns: dict[str, list[object]] = {name: [1.0, 2.0] for name in SPEC.features.numeric}
    columns |= {name: ["a", None] for name in SPEC.features.categorical}
    return pa.table(columns | changes)


def test_feature_frame_has_the_features_in_order_and_nothing_else():
    table = features(arr_delay=[1.0, 2.0], weekday=[1, None]).select(
        ["arr_delay", *reversed(SPEC.features.names)]
    )
    frame = feature_frame(SPEC, table)
    assert tuple(frame.columns) == SPEC.features.names
    assert all(frame[name].dtype == np.float64 for name in SPEC.features.numeric)
    assert all(frame[name].dtype == object for name in SPEC.features.categorical)
    assert frame["carrier"].tolist() == ["a", None]
    assert np.isnan(frame["weekday"][1])


class Model:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def predict_proba(self, frame: object) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_scores_are_the_probabilities_of_one():
    model = Model(np.array([[0.9, 0.1], [0.3, 0.7]]))
    np.testing.assert_array_equal(scoring.predict(SPEC, model, features()), [0.1, 0.7])


def test_no_rows_are_scored_without_asking_the_model():
    assert len(scoring.predict(SPEC, Model(RuntimeError()), features().slice(0, 0))) == 0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(np.array([[0, NAN], [0, 0.5]]), "1 of 2 predictions are not finite", id="nan"),
        pytest.param(np.array([[0, np.inf], [0, np.inf]]), "2 of 2", id="infinite"),
        pytest.param(np.array([[1.0], [1.0]]), "cannot score", id="one-class-only"),
        pytest.param(ValueError("unseen"), "cannot score these rows: unseen", id="raises"),
        pytest.param(AttributeError("old version"), "cannot score", id="of-another-library"),
    ],
)
def test_model_that_gives_no_usable_score_is_a_scoring_error(answer, says):
    with pytest.raises(ScoringError, match=says):
        scoring.predict(SPEC, Model(answer), features())


@pytest.mark.parametrize(
    ("known", "is_defined"),
    [
        pytest.param([0.0] * 100 + [1.0] * 100, True, id="just-enough"),
        pytest.param([0.0] * 100 + [1.0] * 99 + [NAN], False, id="one-label-short"),
        pytest.param([0.0] * 500, False, id="one-class"),
        pytest.param([NAN] * 500, False, id="no-labels"),
        pytest.param([], False, id="no-rows"),
    ],
)
def test_performance_needs_rows_and_both_classes(known, is_defined):
    scores = np.linspace(0, 1, len(known))
    found = scoring.performance(SPEC, np.array(known), scores)
    assert (found is not None) is is_defined


def test_performance_is_that_of_the_labelled_rows():
    known = np.array([0.0, 1.0] * 150 + [NAN] * 50)
    scores = np.r_[np.tile([0.2, 0.8], 150), np.full(50, 0.9)]
    found = scoring.performance(SPEC, known, scores)
    assert found is not None
    assert (found.value, found.rows) == (1.0, 300)
