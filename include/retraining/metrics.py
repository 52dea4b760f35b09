"""Metrics of scored rows with bootstrap confidence intervals, alone and as a paired difference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from include.retraining.records import Performance

Metric = Literal["roc_auc", "average_precision", "neg_log_loss"]
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
        Higher is better for all: ``roc_auc``, ``average_precision``, ``neg_log_loss``.
    labels : ndarray of shape (n_rows,)
        0 or 1, both present.
    scores : ndarray of shape (n_rows,)
        Predicted probability of 1.
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
    """Give a metric of all rows, without an interval."""
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


def _resample(rows: int, seed: int, *metrics: Weighted) -> list[Floats]:
    generator = np.random.default_rng(seed)
    chunks: list[list[Floats]] = [[] for _ in metrics]
    for _ in range(RESAMPLES // CHUNK):
        weights = generator.multinomial(rows, np.full(rows, 1 / rows), size=CHUNK).astype(
            np.float64
        )
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
    if metric == "neg_log_loss":
        clipped = np.clip(scores, 1e-15, 1 - 1e-15)
        gain = labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped)
        return lambda weights: (weights @ gain) / weights.sum(axis=1)
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    ties = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    curve = _roc_auc if metric == "roc_auc" else _average_precision
    return partial(curve, positives=labels[order], order=order, ties=ties)


def _roc_auc(
    weights: Floats, *, positives: Floats, order: NDArray[np.intp], ties: NDArray[np.intp]
) -> Floats:
    """Mann-Whitney form of the area under the ROC curve: ties count half."""
    ordered = weights[:, order]
    ones = np.add.reduceat(ordered * positives, ties, axis=1)
    zeros = np.add.reduceat(ordered * (1 - positives), ties, axis=1)
    below = np.cumsum(zeros, axis=1) - zeros
    with np.errstate(invalid="ignore"):
        area: Floats = (ones * (below + zeros / 2)).sum(axis=1) / (
            ones.sum(axis=1) * zeros.sum(axis=1)
        )
    return area


def _average_precision(
    weights: Floats, *, positives: Floats, order: NDArray[np.intp], ties: NDArray[np.intp]
) -> Floats:
    """Sum of precision over the steps of recall, from the highest score down."""
    ordered = weights[:, order]
    ones = np.add.reduceat(ordered * positives, ties, axis=1)[:, ::-1]
    total = np.add.reduceat(ordered, ties, axis=1)[:, ::-1]
    seen = np.cumsum(total, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(seen > 0, np.cumsum(ones, axis=1) / seen, 0)
        area: Floats = (precision * ones).sum(axis=1) / ones.sum(axis=1)
    return area
