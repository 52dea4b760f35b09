from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    r2_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)

from include.retraining.learning import metrics
from include.retraining.spec import METRICS as METRICS_OF

METRICS = ["roc_auc", "average_precision", "neg_log_loss", "neg_brier_score"]
SKLEARN = {
    "roc_auc": roc_auc_score,
    "average_precision": average_precision_score,
    "neg_log_loss": lambda *args, **kwargs: -log_loss(*args, **kwargs),
    "neg_brier_score": lambda *args, **kwargs: -brier_score_loss(*args, **kwargs),
}


def floats(*values: float) -> metrics.Floats:
    return np.array(values, dtype=np.float64)


@st.composite
def scored_rows(draw: st.DrawFn) -> tuple[metrics.Floats, metrics.Floats, metrics.Floats]:
    """Labels of both classes, scores with ties, and whole weights as a resample has them."""
    rows = draw(st.integers(2, 40))
    labels = draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))
    scores = draw(st.lists(st.integers(1, 9).map(lambda n: n / 10), min_size=rows, max_size=rows))
    weights = draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
    assume({label for label, weight in zip(labels, weights, strict=True) if weight} == {0, 1})
    return floats(*labels), floats(*scores), floats(*weights)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # pairs (late, on time): (0.8, 0.6) won, (0.8, 0.4) won, (0.6, 0.6) tied, (0.6, 0.4) won
        pytest.param("roc_auc", 3.5 / 4, id="roc_auc"),
        # from above: 0.8 finds 1 of 1, 0.6 finds 2 of 3 in all
        pytest.param("average_precision", 0.5 * 1 + 0.5 * 2 / 3, id="average_precision"),
        pytest.param(
            "neg_log_loss", sum(map(math.log, (0.8, 0.6, 0.4, 0.6))) / 4, id="neg_log_loss"
        ),
    ],
)
def test_metric_is_what_a_hand_computes(metric, expected):
    labels, scores = floats(1, 1, 0, 0), floats(0.8, 0.6, 0.6, 0.4)
    assert metrics.value(metric, labels, scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@given(scored_rows())
def test_metric_is_that_of_sklearn_with_ties_and_weights(metric, rows):
    labels, scores, weights = rows
    ours = metrics._weighted_metric(metric, labels, scores)(weights[None, :])[0]
    theirs = SKLEARN[metric](labels, scores, sample_weight=weights)
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
@given(scored_rows())
def test_ranking_metric_sees_only_the_order(metric, rows):
    labels, scores, _ = rows
    assume(len(set(labels)) == 2)
    whole = metrics.value(metric, labels, scores)
    assert 0 <= whole <= 1
    assert metrics.value(metric, labels, scores**3 / 7) == pytest.approx(whole, abs=1e-12)


@given(scored_rows())
def test_auc_of_turned_scores_is_what_is_left(rows):
    labels, scores, _ = rows
    assume(len(set(labels)) == 2)
    auc = metrics.value("roc_auc", labels, scores)
    assert metrics.value("roc_auc", labels, -scores) == pytest.approx(1 - auc, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_metric_does_not_depend_on_the_order_of_the_rows(metric):
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 200).astype(float)
    scores = generator.integers(1, 20, 200) / 20
    mixed = generator.permutation(200)
    assert metrics.value(metric, labels[mixed], scores[mixed]) == pytest.approx(
        metrics.value(metric, labels, scores), abs=1e-12
    )


@pytest.mark.parametrize("metric", METRICS)
def test_interval_holds_the_value_and_narrows_with_rows(metric):
    generator = np.random.default_rng(2)
    widths = []
    for rows in (200, 3200):
        labels = generator.integers(0, 2, rows).astype(float)
        scores = np.clip(0.3 * labels + generator.random(rows) * 0.7, 0.01, 0.99)
        found = metrics.measure(metric, labels, scores)
        assert found.low < found.value < found.high
        assert found.rows == rows
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2.5  # a quarter, but for chance


def test_same_seed_gives_the_same_interval_of_a_gain_and_another_seed_another():
    generator = np.random.default_rng(4)
    labels, scores = generator.integers(0, 2, 100).astype(float), generator.random(100)
    one, same, other = (
        metrics.paired_gain("roc_auc", labels, scores, scores[::-1], seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one[0] == other[0]
    assert one[1:] != other[1:]


def test_higher_confidence_is_a_wider_interval():
    generator = np.random.default_rng(5)
    labels, scores = generator.integers(0, 2, 100).astype(float), generator.random(100)
    wide = metrics.measure("roc_auc", labels, scores, confidence=0.99)
    narrow = metrics.measure("roc_auc", labels, scores, confidence=0.6)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("metric", METRICS)
def test_gain_of_a_model_over_itself_is_exactly_nothing(metric):
    generator = np.random.default_rng(6)
    labels, scores = generator.integers(0, 2, 100).astype(float), generator.random(100)
    assert metrics.paired_gain(metric, labels, scores, scores) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", METRICS)
def test_gain_is_the_difference_and_turns_with_the_sides(metric):
    generator = np.random.default_rng(7)
    labels = generator.integers(0, 2, 400).astype(float)
    good = np.clip(0.4 * labels + generator.random(400) * 0.6, 0.01, 0.99)
    poor = np.clip(0.1 * labels + generator.random(400) * 0.9, 0.01, 0.99)
    gain, low, high = metrics.paired_gain(metric, labels, good, poor)
    assert gain == pytest.approx(
        metrics.value(metric, labels, good) - metrics.value(metric, labels, poor)
    )
    assert 0 < low < gain < high
    turned = metrics.paired_gain(metric, labels, poor, good)
    assert turned == pytest.approx((-gain, -high, -low))


def test_paired_interval_is_narrower_than_two_of_its_own():
    generator = np.random.default_rng(8)
    labels = generator.integers(0, 2, 400).astype(float)
    one = np.clip(0.4 * labels + generator.random(400) * 0.6, 0, 1)
    other = one + generator.normal(0, 0.02, 400)
    _, low, high = metrics.paired_gain("roc_auc", labels, one, other)
    alone = metrics.measure("roc_auc", labels, one)
    assert high - low < (alone.high - alone.low) / 2


def test_certain_and_wrong_costs_much_but_not_everything():
    assert math.isfinite(metrics.value("neg_log_loss", floats(0, 1), floats(1, 0)))


def test_one_row_of_a_class_still_gives_an_interval():
    found = metrics.measure("roc_auc", floats(1, 0, 0, 0), floats(0.9, 0.1, 0.2, 0.95))
    assert 0 <= found.low <= found.value <= found.high <= 1


# --- several classes, and numbers -----------------------------------------------------------------


@st.composite
def classified_rows(draw: st.DrawFn) -> tuple[metrics.Floats, metrics.Floats, metrics.Floats]:
    """Labels of three classes, all there with weight; probabilities with ties; whole weights."""
    rows = draw(st.integers(3, 30))
    labels = draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    weights = draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    assume({label for label, weight in zip(labels, weights, strict=True) if weight} == {0, 1, 2})
    odds = draw(
        st.lists(st.tuples(*[st.integers(1, 5)] * 3), min_size=rows, max_size=rows).map(np.array)
    )
    return floats(*labels), odds / odds.sum(axis=1, keepdims=True), floats(*weights)


def macro_auc(labels, scores, sample_weight):
    return np.mean(
        [
            roc_auc_score(labels == number, scores[:, number], sample_weight=sample_weight)
            for number in range(3)
        ]
    )


OF_CLASSES = {
    "roc_auc": macro_auc,
    "neg_log_loss": lambda labels, scores, **kw: -log_loss(labels, scores, **kw),
    "accuracy": lambda labels, scores, **kw: accuracy_score(labels, scores.argmax(axis=1), **kw),
    "balanced_accuracy": lambda labels, scores, **kw: recall_score(
        labels, scores.argmax(axis=1), average="macro", zero_division=0, **kw
    ),
}


@pytest.mark.parametrize("metric", METRICS_OF["multiclass"])
@given(classified_rows())
def test_metric_of_classes_is_that_of_sklearn(metric, rows):
    labels, scores, weights = rows
    ours = metrics._weighted_metric(metric, labels, scores)(weights[None, :])[0]
    theirs = OF_CLASSES[metric](labels, scores, sample_weight=weights)
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_balanced_accuracy_is_that_of_sklearn():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 50).astype(float)
    scores = generator.random((50, 3))
    expected = balanced_accuracy_score(labels, scores.argmax(axis=1))
    assert metrics.value("balanced_accuracy", labels, scores) == pytest.approx(expected)


def test_class_that_no_row_has_does_not_count():
    labels = floats(0, 0, 1, 1)
    scores = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1], [0.1, 0.6, 0.3]])
    # one of two recalled, two of two
    assert metrics.value("balanced_accuracy", labels, scores) == 0.75
    assert metrics.value("roc_auc", labels, scores) == 1.0


def test_one_class_carries_no_ranking():
    assert math.isnan(metrics.value("roc_auc", floats(1, 1), np.full((2, 2), 0.5)))
    assert math.isnan(metrics.value("roc_auc", floats(1, 1), floats(0.5, 0.4)))


OF_NUMBERS = {
    "neg_mean_absolute_error": lambda *args, **kw: -mean_absolute_error(*args, **kw),
    "neg_root_mean_squared_error": lambda *args, **kw: -root_mean_squared_error(*args, **kw),
    "r2": r2_score,
}


@pytest.mark.parametrize("metric", METRICS_OF["regression"])
@given(
    st.lists(
        st.tuples(st.integers(-50, 50), st.integers(-50, 50), st.integers(0, 4)),
        min_size=2,
        max_size=30,
    )
)
def test_metric_of_numbers_is_that_of_sklearn(metric, rows):
    labels, scores, weights = (floats(*column) for column in zip(*rows, strict=True))
    assume(len(set(labels[weights > 0])) > 1)
    ours = metrics._weighted_metric(metric, labels, scores)(weights[None, :])[0]
    assert ours == pytest.approx(OF_NUMBERS[metric](labels, scores, sample_weight=weights))


def test_r2_of_equal_labels_is_undefined():
    assert math.isnan(metrics.value("r2", floats(3, 3), floats(3, 4)))


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_better_predictions_gain_by_every_metric_of_the_task(task):
    generator = np.random.default_rng(9)
    labels = generator.integers(0, 3, 600).astype(float)
    if task == "multiclass":
        labels = labels.astype(float)
        noise = generator.random((600, 3))
        good, poor = (
            (share * np.eye(3)[labels.astype(int)] + noise) / (share + noise.sum(1, keepdims=True))
            for share in (0.5, 0.1)
        )
    else:
        labels = generator.normal(size=600)
        noise = generator.normal(size=600)
        good, poor = labels + 0.3 * noise, labels + 0.9 * noise
    for metric in METRICS_OF[task]:
        gain, low, high = metrics.paired_gain(metric, labels, good, poor)
        assert 0 < low < gain < high, metric
        found = metrics.measure(metric, labels, good)
        assert found.low < found.value < found.high


def delong_by_definition(labels, candidate, champion):
    """The gain and its variance, pair by pair."""
    ones, zeros = labels == 1, labels == 0

    def wins(scores):
        above = scores[ones][:, None] - scores[zeros][None, :]
        return (above > 0) + 0.5 * (above == 0)

    change = wins(candidate) - wins(champion)
    of_ones, of_zeros = change.mean(axis=1), change.mean(axis=0)
    variance = of_ones.var(ddof=1) / len(of_ones) + of_zeros.var(ddof=1) / len(of_zeros)
    return change.mean(), variance


@pytest.mark.parametrize("levels", [1000, 4], ids=["few-ties", "many-ties"])
def test_delong_is_its_definition(levels):
    generator = np.random.default_rng(0)
    labels = (generator.random(300) < 0.3).astype(float)
    candidate = np.round(generator.random(300) + 0.5 * labels, 3) * levels // 1
    champion = np.round(generator.random(300) + 0.3 * labels, 3) * levels // 1
    gain, low, high = metrics.delong_gain(labels, candidate, champion)
    expected, variance = delong_by_definition(labels, candidate, champion)
    assert gain == pytest.approx(expected)
    assert gain == pytest.approx(
        metrics.value("roc_auc", labels, candidate) - metrics.value("roc_auc", labels, champion)
    )
    assert high - gain == pytest.approx(gain - low) == pytest.approx(1.959964 * variance**0.5)


def test_delong_by_hand():
    # the candidate orders all four pairs, the champion loses one: gain 1/4; the changes of the
    # positives are 0 and 1/2, of the negatives the same: variance 2 * (1/8) / 2 = 1/8
    labels = np.array([1.0, 1.0, 0.0, 0.0])
    candidate, champion = np.array([4.0, 3.0, 2.0, 1.0]), np.array([4.0, 2.0, 3.0, 1.0])
    gain, low, _ = metrics.delong_gain(labels, candidate, champion)
    assert gain == 0.25
    assert low == pytest.approx(0.25 - 1.959964 * 0.125**0.5)


def test_delong_of_equal_scores_is_a_tie_without_doubt():
    labels = np.array([1.0, 1.0, 0.0, 0.0])
    assert metrics.delong_gain(labels, labels * 0.3, labels * 0.9) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("labels", [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
def test_delong_of_a_class_with_one_row_knows_no_interval(labels):
    scores = np.array([0.1, 0.2, 0.3])
    _, low, high = metrics.delong_gain(np.array(labels), scores, scores[::-1])
    assert (low, high) == (float("-inf"), float("inf"))


def test_calibration_error_by_hand():
    labels = np.array([0.0, 1.0, 1.0, 1.0])
    scores = np.array([0.1, 0.3, 0.8, 1.0])  # halves: |0.5 - 0.2| and |1.0 - 0.9|
    assert metrics.calibration_error(labels, scores, bins=2) == pytest.approx(0.2)
    assert metrics.calibration_error(labels, labels) == 0.0
    assert metrics.calibration_error(labels, 1 - labels) == 1.0


def test_calibration_error_of_fewer_rows_than_bins():
    assert metrics.calibration_error(np.array([1.0]), np.array([0.4])) == pytest.approx(0.6)


def test_calibrated_scores_have_a_small_error_and_bent_ones_a_large():
    generator = np.random.default_rng(0)
    scores = generator.random(20_000)
    labels = (generator.random(20_000) < scores).astype(float)
    assert metrics.calibration_error(labels, scores) < 0.02
    assert metrics.calibration_error(labels, scores**3) > 0.1


# --- intervals ------------------------------------------------------------------------------------

ALL = [(task, metric) for task, names in METRICS_OF.items() for metric in names]


def drawn(
    task: str, rows: int, seed: int, *, noise: float = 1.0, share: float = 0.25
) -> tuple[metrics.Floats, metrics.Floats, metrics.Floats]:
    """Labels, and the scores of a model and of a poorer one that errs alike; no two the same."""
    generator = np.random.default_rng(seed)
    own, other = generator.normal(size=(2, rows, 3))
    mixed = 0.8 * own + 0.6 * other
    if task == "regression":
        labels = generator.normal(size=rows)
        return labels, labels + noise * own[:, 0], labels + 1.1 * noise * mixed[:, 0]
    if task == "binary":
        labels = (generator.random(rows) < share).astype(float)
        return labels, *(
            1 / (1 + np.exp(1.5 - (far * labels + noise * part[:, 0])))
            for far, part in ((1.5, own), (1.3, mixed))
        )
    labels = generator.choice(3, rows, p=[0.5, 0.3, 0.2]).astype(float)
    odds = [
        np.exp(far * np.eye(3)[labels.astype(int)] + noise * part)
        for far, part in ((1.5, own), (1.3, mixed))
    ]
    return labels, *(found / found.sum(axis=1, keepdims=True) for found in odds)


@pytest.mark.parametrize(("task", "metric"), ALL)
@pytest.mark.parametrize("ties", [False, True], ids=["no-ties", "ties"])
def test_influence_is_what_a_little_more_weight_of_the_row_does(task, metric, ties):
    labels, scores, _ = drawn(task, 60, seed=1)
    scores = np.round(scores, 1) + (0.05 if task == "binary" else 0) if ties else scores
    step = 1e-5
    weights = np.ones((60, 60)) + step * np.eye(60)
    less = np.ones((60, 60)) - step * np.eye(60)
    weighted = metrics._weighted_metric(metric, labels, scores)
    expected = (weighted(weights) - weighted(less)) / (2 * step)
    found = metrics._influences(metric, labels, scores)
    if metric not in {"roc_auc", "balanced_accuracy"}:
        correction = 1 if metric == "average_precision" else math.sqrt(60 / 59)
        assert found == pytest.approx(expected * correction, abs=1e-7)
        return
    # a class at a time is corrected for its own rows; of several against the rest, it is a mix
    for number in np.unique(labels):
        of_class = labels == number
        rows = of_class.sum()
        rough = 0.15 if task == "multiclass" and metric == "roc_auc" else 1e-6
        correction = math.sqrt(rows / (rows - 1))
        assert found[of_class] == pytest.approx(expected[of_class] * correction, rel=rough)


def test_interval_of_a_mean_is_its_standard_error_in_the_logarithm():
    # errors 1 and 3: mean 2, standard error sqrt(2) / sqrt(2) = 1; both rows scatter alike, so that
    # the variance is as certain as a normal one
    found = metrics.measure("neg_mean_absolute_error", floats(0, 0), floats(1, 3))
    assert found.value == -2
    assert found.low == pytest.approx(-2 * math.exp(1.959964 * 1 / 2), rel=1e-4)
    assert found.high == pytest.approx(-2 / math.exp(1.959964 * 1 / 2), rel=1e-4)


def test_interval_of_a_share_is_that_of_wilson():
    labels, right = np.zeros(100), np.arange(100) < 50
    found = metrics.measure("accuracy", labels, np.column_stack([right, ~right]).astype(float))
    # 50 of 100: the 95 % Wilson interval of the textbooks
    assert (found.low, found.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_interval_of_an_auc_has_the_variance_of_delong():
    labels, one, other = drawn("binary", 400, seed=3)
    spread = metrics._influences("roc_auc", labels, one) - metrics._influences(
        "roc_auc", labels, other
    )
    _, variance = delong_by_definition(labels, one, other)
    assert spread @ spread == pytest.approx(variance)


@pytest.mark.parametrize("rows", [300, 2000])
@pytest.mark.parametrize(("task", "metric"), ALL)
def test_interval_covers_the_truth_about_as_often_as_it_promises(task, metric, rows):
    truth = metrics.value(metric, *drawn(task, 400_000, seed=0)[:2])
    trials = 250
    covered = 0
    for trial in range(1, trials + 1):
        found = metrics.measure(metric, *drawn(task, rows, seed=trial)[:2])
        covered += found.low <= truth <= found.high
    # three standard deviations of the share of so many trials around 93 to 97 %
    assert 0.93 - 0.05 <= covered / trials <= 0.97 + 0.03


def test_interval_of_rare_positives_covers_where_normal_quantiles_do_not():
    truth = metrics.value("roc_auc", *drawn("binary", 400_000, seed=0, noise=0.6)[:2])
    covered = normal = 0
    for trial in range(1, 401):
        labels, scores, _ = drawn("binary", 300, seed=trial, noise=0.6, share=0.05)
        found = metrics.measure("roc_auc", labels, scores)
        covered += found.low <= truth <= found.high
        error = metrics._scatter(metrics._influences("roc_auc", labels, scores), 0.95)[0]
        normal += abs(found.value - truth) <= 1.96 * error
    assert normal / 400 < 0.88
    assert covered / 400 > 0.88


@pytest.mark.parametrize(("task", "metric"), ALL)
def test_interval_is_about_that_of_the_bootstrap(task, metric):
    labels, scores, _ = drawn(task, 3000, seed=5)
    draws = metrics._resample(3000, 1, metrics._weighted_metric(metric, labels, scores))[0]
    low, high = metrics._interval(draws, 0.95)
    found = metrics.measure(metric, labels, scores)
    width = high - low
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.12 * width)


@pytest.mark.parametrize(("task", "metric"), ALL)
def test_interval_of_many_rows_gains_as_the_bootstrap_does(task, metric, monkeypatch):
    labels, candidate, champion = drawn(task, 4000, seed=6)
    gain, low, high = metrics.paired_gain(metric, labels, candidate, champion)
    monkeypatch.setattr(metrics, "MAX_RESAMPLED_ROWS", 3999)
    found = metrics.paired_gain(metric, labels, candidate, champion, seed=1)
    assert found[0] == gain
    assert found[1:] == pytest.approx((low, high), abs=0.12 * (high - low))
    assert metrics.paired_gain(metric, labels, champion, champion) == (0.0, 0.0, 0.0)


def test_gain_of_auc_of_many_rows_is_that_of_delong():
    labels, candidate, champion = drawn("binary", metrics.MAX_RESAMPLED_ROWS + 1, seed=7)
    found = metrics.paired_gain("roc_auc", labels, candidate, champion)
    exact = metrics.delong_gain(labels, candidate, champion)
    assert found == pytest.approx(exact, rel=1e-3)


def test_chunks_of_a_bootstrap_do_not_change_what_is_drawn(monkeypatch):
    labels, candidate, champion = drawn("binary", 500, seed=8)
    whole = metrics.paired_gain("roc_auc", labels, candidate, champion)
    monkeypatch.setattr(metrics, "_CHUNK_WEIGHTS", 7 * 500)  # 1,000 is no multiple of 7
    assert metrics.paired_gain("roc_auc", labels, candidate, champion) == whole


@pytest.mark.parametrize("rows", [50_000, 100_000, 300_000])
def test_memory_of_a_gain_is_bounded(rows, monkeypatch):
    labels, candidate, champion = drawn("binary", rows, seed=9)
    monkeypatch.setattr(metrics, "RESAMPLES", 60)
    tracemalloc.start()
    metrics.paired_gain("roc_auc", labels, candidate, champion)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


@pytest.mark.parametrize(("task", "metric"), ALL)
def test_interval_stays_inside_the_range_of_the_metric(task, metric):
    labels, scores, _ = drawn(task, 12, seed=10, noise=0.5)
    found = metrics.measure(metric, labels, scores, confidence=0.999)
    best = 1.0 if metric in {"r2", *metrics._SHARES} else 0.0
    assert found.low <= found.value <= found.high <= best
    assert metric not in metrics._SHARES or found.low >= 0


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
def test_perfect_order_of_few_positives_is_not_certain(metric):
    labels = np.repeat([0.0, 1.0], [290, 10])
    found = metrics.measure(metric, labels, np.arange(300.0) / 300)
    # 10 of 10 is all that was seen: Wilson's lower end is 10 / (10 + z^2)
    assert (found.low, found.value, found.high) == pytest.approx((0.72247, 1, 1), abs=1e-5)


@pytest.mark.parametrize(
    ("metric", "ones"), [("roc_auc", 1), ("roc_auc", 3), ("average_precision", 1)]
)
def test_one_row_of_a_class_says_little(metric, ones):
    labels = floats(*[1] * ones, *[0] * (4 - ones))
    found = metrics.measure(metric, labels, floats(0.9, 0.1, 0.97, 0.5))
    assert 0 <= found.low < found.value < found.high <= 1
    assert found.high - found.low > 0.5


def test_gain_of_many_rows_with_one_of_a_class_is_not_certain(monkeypatch):
    labels, better, poorer = np.zeros(500), np.linspace(0, 1, 500), np.linspace(0, 1, 500)
    labels[-1] = 1
    poorer = np.r_[poorer[:-1], 0.5]
    monkeypatch.setattr(metrics, "MAX_RESAMPLED_ROWS", 100)
    gain, low, high = metrics.paired_gain("roc_auc", labels, better, poorer)
    assert gain == pytest.approx(0.5, abs=0.01)
    assert low < 0 < high


def test_constant_scores_order_nothing():
    labels = np.repeat([0.0, 1.0], [60, 40])
    auc = metrics.measure("roc_auc", labels, np.full(100, 0.3))
    assert auc.low == auc.value == auc.high == 0.5  # whatever the rows
    precision = metrics.measure("average_precision", labels, np.full(100, 0.3))
    # every row is found at once: the share of positives, with the interval of a share
    assert precision.value == 0.4
    assert (precision.low, precision.high) == pytest.approx((0.309, 0.498), abs=0.005)


def test_rows_that_cannot_carry_a_metric_have_no_interval(monkeypatch):
    found = metrics.measure("roc_auc", np.ones(5), np.linspace(0, 1, 5))
    assert math.isnan(found.value)
    assert (found.low, found.high) == (float("-inf"), float("inf"))
    monkeypatch.setattr(metrics, "MAX_RESAMPLED_ROWS", 4)
    scores = np.linspace(0, 1, 5)
    assert metrics.paired_gain("roc_auc", np.ones(5), scores, scores)[1:] == (-math.inf, math.inf)


@pytest.mark.parametrize("metric", ["neg_mean_absolute_error", "neg_root_mean_squared_error"])
def test_one_row_alone_does_not_tell_how_rows_scatter(metric):
    found = metrics.measure(metric, floats(3), floats(5))
    assert (found.low, found.value, found.high) == (-math.inf, -2, math.inf)


def test_predictions_without_error_lose_nothing():
    labels = floats(1, 2, 3)
    for metric in METRICS_OF["regression"]:
        found = metrics.measure(metric, labels, labels)
        assert found.low == found.value == found.high == (1 if metric == "r2" else 0)
