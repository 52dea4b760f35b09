"""Metrics of predictions with bootstrap confidence intervals, alone and as a paired difference.

Higher is better for all of them; what is a loss bears ``neg_``, as in scikit-learn. Each works on
weighted rows, so that a bootstrap draw is one row of weights and no copy of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from include.retraining.records import Performance
from include.retraining.spec import Metric

Floats = NDArray[np.float64]
Weighted = Callable[[Floats], Floats]

RESAMPLES = 1000
CHUNK = 50


def measure(
    metric: Metric, labels: Floats, scores: Floats, *, confidence: float = 0.95, seed: int = 0
) -> Performance:
    """Give a metric with its bootstrap percentile interval.

    Parameters
    ----------
    metric : str
        One of `spec.METRICS` for the task.
    labels : ndarray of shape (n_rows,)
        Binary: 0 or 1. Multiclass: the number of the class. Regression: the value.
    scores : ndarray of shape (n_rows,) or (n_rows, n_classes)
        Binary: probability of 1. Multiclass: probability of each class. Regression: predicted
        value.
    confidence : float
        Of the two-sided interval.
    seed : int
        Of the resampling.
    """
    weighted = _weighted_metric(metric, labels, scores)
    draws = _resample(len(labels), seed, weighted)[0]
    low, high = _interval(draws, confidence)
    whole = float(weighted(np.ones((1, len(labels))))[0])
    return Performance(metric=metric, rows=len(labels), value=whole, low=low, high=high)


def value(metric: Metric, labels: Floats, scores: Floats) -> float:
    """Give a metric of all rows, without an interval; NaN where they cannot carry it."""
    return float(_weighted_metric(metric, labels, scores)(np.ones((1, len(labels))))[0])


def paired_gain(
    metric: Metric,
    labels: Floats,
    candidate: Floats,
    champion: Floats,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Give candidate minus champion on the same rows, and the ends of its interval.

    Both are resampled with the same rows each time, so that what is common to them cancels out
    (paired percentile bootstrap; Efron and Tibshirani, 1993, ch. 13).
    """
    one = _weighted_metric(metric, labels, candidate)
    other = _weighted_metric(metric, labels, champion)
    first, second = _resample(len(labels), seed, one, other)
    low, high = _interval(first - second, confidence)
    everything = np.ones((1, len(labels)))
    return float(one(everything)[0] - other(everything)[0]), low, high


def delong_gain(
    labels: Floats, candidate: Floats, champion: Floats, *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Give the gain of the area under the ROC curve, and the ends of its normal interval.

    With V_1 the share of negatives that each positive outscores and V_0 the share of positives that
    outscore each negative, the variance of the gain is var(dV_1)/n_1 + var(dV_0)/n_0, d being
    candidate minus champion. An interval without ends where a class has fewer than two rows.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44(3); by midranks as in Sun and Xu (2014),
    IEEE Signal Processing Letters 21(11).
    """
    from scipy.stats import rankdata

    positive = labels == 1
    ones, zeros = int(positive.sum()), int((~positive).sum())

    def outscored(scores: Floats) -> tuple[Floats, Floats]:
        ranks = rankdata(scores)
        of_ones = (ranks[positive] - rankdata(scores[positive])) / zeros
        of_zeros = 1 - (ranks[~positive] - rankdata(scores[~positive])) / ones
        return of_ones, of_zeros

    (ours_1, ours_0), (theirs_1, theirs_0) = outscored(candidate), outscored(champion)
    gain = float((ours_1 - theirs_1).mean())
    if min(ones, zeros) < 2:
        return gain, float("-inf"), float("inf")
    variance = (ours_1 - theirs_1).var(ddof=1) / ones + (ours_0 - theirs_0).var(ddof=1) / zeros
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * float(np.sqrt(variance))
    return gain, gain - reach, gain + reach


def calibration_error(labels: Floats, scores: Floats, *, bins: int = 10) -> float:
    """Give the expected calibration error: how far predicted probabilities are off, on average.

    The rows, ordered by score, are cut into `bins` of equal size; the error is the mean of
    ``|share of ones - mean score|`` over them, weighted by rows.

    Parameters
    ----------
    labels : ndarray of shape (n_rows,)
        0 or 1.
    scores : ndarray of shape (n_rows,)
        Predicted probability of 1.

    References
    ----------
    Naeini, Cooper and Hauskrecht (2015), AAAI; equal-mass bins as in Nixon et al. (2019).
    """
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    off = [len(part) * abs(labels[part].mean() - scores[part].mean()) for part in parts]
    return float(sum(off) / len(labels))


def _resample(rows: int, seed: int, *metrics: Weighted) -> list[Floats]:
    generator = np.random.default_rng(seed)
    chunks: list[list[Floats]] = [[] for _ in metrics]
    offsets = np.arange(CHUNK)[:, None] * rows
    for _ in range(RESAMPLES // CHUNK):
        picked = generator.integers(rows, size=(CHUNK, rows)) + offsets  # ten times multinomial()
        counts = np.bincount(picked.ravel(), minlength=CHUNK * rows).astype(np.float64)
        weights = counts.reshape(CHUNK, rows)
        for chunk, metric in zip(chunks, metrics, strict=True):
            chunk.append(metric(weights))
    return [np.concatenate(chunk) for chunk in chunks]


def _interval(draws: Floats, confidence: float) -> tuple[float, float]:
    known = draws[np.isfinite(draws)]  # a resample can hold one class only
    if not len(known):
        return float("-inf"), float("inf")
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def _weighted_metric(metric: Metric, labels: Floats, scores: Floats) -> Weighted:
    """Prepare a metric once; the result maps row weights of shape (k, n_rows) to k values."""
    if metric in {"roc_auc", "average_precision"}:
        return _ranking(metric, labels, scores)
    if metric == "balanced_accuracy":
        return partial(
            _balanced_accuracy, labels=labels, right=_contributions(metric, labels, scores)
        )
    if metric == "r2":
        return partial(_r2, labels=labels, squared=(labels - scores) ** 2)
    rows = _contributions(metric, labels, scores)

    def mean(weights: Floats) -> Floats:
        found: Floats = (weights @ rows) / weights.sum(axis=1)
        return -np.sqrt(found) if metric == "neg_root_mean_squared_error" else found

    return mean


def _contributions(metric: Metric, labels: Floats, scores: Floats) -> Floats:
    """Give what each row adds to a metric that is a mean over rows."""
    found: Floats
    match metric:
        case "accuracy" | "balanced_accuracy":
            found = (scores.argmax(axis=1) == labels).astype(np.float64)
        case "neg_brier_score":
            found = -((labels - scores) ** 2)
        case "neg_mean_absolute_error":
            found = -np.abs(labels - scores)
        case "neg_root_mean_squared_error":
            found = (labels - scores) ** 2
        case _:  # neg_log_loss
            clipped = np.clip(scores, 1e-15, 1 - 1e-15)
            if scores.ndim == 1:
                found = labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped)
            else:
                found = np.log(clipped[np.arange(len(labels)), labels.astype(np.intp)])
    return found


def _ranking(metric: Metric, labels: Floats, scores: Floats) -> Weighted:
    if scores.ndim == 2:
        return _macro_auc(labels, scores)
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    ties = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    curve = _roc_auc if metric == "roc_auc" else _average_precision
    return partial(curve, positives=labels[order], order=order, ties=ties)


def _macro_auc(labels: Floats, scores: Floats) -> Weighted:
    """Mean over the classes of each against the rest; those that are all or none do not count."""
    curves = [
        _weighted_metric("roc_auc", (labels == number).astype(np.float64), scores[:, number])
        for number in range(scores.shape[1])
    ]

    def area(weights: Floats) -> Floats:
        areas = np.array([curve(weights) for curve in curves])
        counts = np.isfinite(areas).sum(axis=0)
        with np.errstate(invalid="ignore"):
            mean: Floats = np.nansum(areas, axis=0) / counts
        return mean

    return area


def _balanced_accuracy(weights: Floats, *, labels: Floats, right: Floats) -> Floats:
    """Mean of each class's recall; classes without rows do not count."""
    classes = labels == np.unique(labels)[:, None]
    totals = weights @ classes.T.astype(np.float64)
    hits = weights @ (classes * right).T
    with np.errstate(invalid="ignore"):
        recall = np.where(totals > 0, hits / totals, 0)
    mean: Floats = recall.sum(axis=1) / (totals > 0).sum(axis=1)
    return mean


def _r2(weights: Floats, *, labels: Floats, squared: Floats) -> Floats:
    """1 - squared errors / squares around the mean; NaN where all labels are equal."""
    total = weights.sum(axis=1)
    mean = (weights @ labels) / total
    around = weights @ (labels - labels.mean()) ** 2 - total * (mean - labels.mean()) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(around > 0, 1 - (weights @ squared) / around, np.nan)
    return found


def _roc_auc(
    weights: Floats, *, positives: Floats, order: NDArray[np.intp], ties: NDArray[np.intp]
) -> Floats:
    """Mann-Whitney form of the area under the ROC curve: ties count half."""
    ordered = weights[:, order]
    ones = _by_level(ordered * positives, ties)
    zeros = _by_level(ordered * (1 - positives), ties)
    below = np.cumsum(zeros, axis=1) - zeros / 2
    with np.errstate(invalid="ignore"):
        area: Floats = np.einsum("ij,ij->i", ones, below) / (ones.sum(axis=1) * zeros.sum(axis=1))
    return area


def _by_level(values: Floats, ties: NDArray[np.intp]) -> Floats:
    """Sum what has equal scores; nothing to do, and much time saved, where all scores differ."""
    if len(ties) == values.shape[1]:
        return values
    found: Floats = np.add.reduceat(values, ties, axis=1)
    return found


def _average_precision(
    weights: Floats, *, positives: Floats, order: NDArray[np.intp], ties: NDArray[np.intp]
) -> Floats:
    """Sum of precision over the steps of recall, from the highest score down."""
    ordered = weights[:, order]
    ones = _by_level(ordered * positives, ties)[:, ::-1]
    total = _by_level(ordered, ties)[:, ::-1]
    seen = np.cumsum(total, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(seen > 0, np.cumsum(ones, axis=1) / seen, 0)
        area: Floats = (precision * ones).sum(axis=1) / ones.sum(axis=1)
    return area
