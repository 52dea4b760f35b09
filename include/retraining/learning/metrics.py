r"""Metrics of predictions with confidence intervals, alone and as a paired difference.

Higher is better for all of them; what is a loss bears ``neg_``, as in scikit-learn. Each works on
weighted rows, so that a bootstrap draw is one row of weights and no copy of the data.

The interval of one metric comes from its influence function: how far the metric moves per unit of
weight that one row gains. Over the number of rows, its squares add up to the metric's variance,

.. math:: \operatorname{var}(T) = \sum_i \psi_i^2, \quad \psi_i = \mathrm{IF}(x_i) / n

which is the squared standard error for a mean, DeLong's variance for the area under the ROC curve,
and the delta method for the others; time and memory grow with the rows, not with rows times draws.
The difference of two models has the differences of their influences, row by row.

References
----------
Hampel, F. R. (1974). The influence curve and its role in robust estimation. Journal of the American
Statistical Association 69, 383-393.
van der Vaart, A. W. (1998). Asymptotic Statistics. Cambridge University Press, ch. 3 and 20.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from include.retraining.records import Performance, ProperScore
from include.retraining.spec import Metric, Task

Floats = NDArray[np.float64]
Weighted = Callable[[Floats], Floats]

RESAMPLES = 1000
CHUNK = 50  # draws at once
_CHUNK_WEIGHTS = 2_500_000  # of all draws at once: 20 MB an array, of which some eight are alive
# More rows than these are not resampled: 1,000 draws of them take some 20 CPU seconds, and know the
# ends of an interval less well than the influences do.
MAX_RESAMPLED_ROWS = 100_000


def measure(
    metric: Metric, labels: Floats, scores: Floats, *, confidence: float = 0.95
) -> Performance:
    """Give a metric with its interval, from the influence of each row.

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

    Notes
    -----
    The ends stay inside the metric's range. A metric in [0, 1] has the score interval of a share of
    as many rows as would give it the same variance (Wilson, 1927); others are symmetric in the
    logarithm of the loss, or of ``1 - R2``, whose scatter grows with it. An interval without ends
    where the rows cannot carry the metric, or there is one alone.

    By simulation, 95 % intervals cover 93 to 97 % from 300 rows on, for an area under the ROC curve
    of up to 0.99. They cover less, 90 to 93 %, where a class has only 15 to 30 rows and most of
    them are told apart, and for the root mean squared error where the errors have heavy tails: a
    sample then seldom holds the rows that make up the metric.

    References
    ----------
    Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference.
    Journal of the American Statistical Association 22, 209-212.
    """
    whole = value(metric, labels, scores)
    low, high = float("-inf"), float("inf")
    if np.isfinite(whole) and len(labels) > 1:
        error, z = _scatter(_influences(metric, labels, scores), confidence)
        if metric in _SHARES:
            low, high = _share_interval(whole, error, z, _least_rows(metric, labels))
        else:
            low, high = _loss_interval(whole, error, z, best=1.0 if metric == "r2" else 0.0)
    return Performance(metric=metric, rows=len(labels), value=whole, low=low, high=high)


def value(metric: Metric, labels: Floats, scores: Floats) -> float:
    """Give a metric of all rows, without an interval; NaN where they cannot carry it."""
    return float(_weighted_metric(metric, labels, scores)(np.ones((1, len(labels))))[0])


def proper_score(task: Task, labels: Floats, scores: Floats) -> ProperScore:
    """Give minus the mean squared error: of the value, or of the probabilities (Brier 1950).

    Classes count alike, whatever their shares: so many more positives alone move nothing, as they
    do not move the area under the ROC curve.

    Parameters
    ----------
    task : str
        What the labels are.
    labels, scores : ndarray
        As `measure` takes them.
    """
    if task == "regression":
        groups = [(scores - labels) ** 2]
    else:
        held = np.eye(scores.shape[1])[labels.astype(np.intp)] if scores.ndim > 1 else labels
        losses = ((scores - held) ** 2).reshape(len(labels), -1).sum(axis=1)
        groups = [losses[labels == one] for one in np.unique(labels)]
    means = [float(one.mean()) for one in groups]
    variances = [float(one.var(ddof=1)) / len(one) if len(one) > 1 else 0.0 for one in groups]
    return ProperScore(
        metric="neg_mean_squared_error" if task == "regression" else "neg_balanced_brier_score",
        value=-sum(means) / len(groups),
        error=sum(variances) ** 0.5 / len(groups),
    )


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
    (paired percentile bootstrap; Efron and Tibshirani, 1993, ch. 13). Beyond `MAX_RESAMPLED_ROWS`
    the interval is the one that the bootstrap comes to with many rows and draws: around the
    gain, with the differences of the influences of each row.

    Parameters
    ----------
    metric, labels
        As of `measure`.
    candidate, champion : ndarray of shape (n_rows,) or (n_rows, n_classes)
        Scores of the same rows.
    confidence : float
        Of the two-sided interval.
    seed : int
        Of the resampling.
    """
    one = _weighted_metric(metric, labels, candidate)
    other = _weighted_metric(metric, labels, champion)
    everything = np.ones((1, len(labels)))
    gain = float(one(everything)[0] - other(everything)[0])
    if len(labels) > MAX_RESAMPLED_ROWS:
        return gain, *_paired_interval(metric, labels, (candidate, champion), gain, confidence)
    first, second = _resample(len(labels), seed, one, other)
    return gain, *_interval(first - second, confidence)


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
    positive = labels == 1
    ones, zeros = int(positive.sum()), int((~positive).sum())
    change = _outscored(positive, candidate) - _outscored(positive, champion)
    gain = float(change[positive].mean())
    if min(ones, zeros) < 2:
        return gain, float("-inf"), float("inf")
    variance = change[positive].var(ddof=1) / ones + change[~positive].var(ddof=1) / zeros
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
    most = max(1, min(CHUNK, _CHUNK_WEIGHTS // max(rows, 1)))
    for start in range(0, RESAMPLES, most):
        draws = min(most, RESAMPLES - start)
        offsets = np.arange(draws)[:, None] * rows
        picked = generator.integers(rows, size=(draws, rows)) + offsets  # ten times multinomial()
        counts = np.bincount(picked.ravel(), minlength=draws * rows).astype(np.float64)
        weights = counts.reshape(draws, rows)
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


# --- intervals from the influence of each row ----------------------------------------------------

_SHARES = frozenset({"roc_auc", "average_precision", "accuracy", "balanced_accuracy"})  # in [0, 1]


def _paired_interval(
    metric: Metric,
    labels: Floats,
    scores: tuple[Floats, Floats],
    gain: float,
    confidence: float,
) -> tuple[float, float]:
    if not np.isfinite(gain):
        return float("-inf"), float("inf")
    influences = _influences(metric, labels, scores[0])
    # What both lack must not cancel out: a single row of a class may differ by all there is.
    influences -= _influences(metric, labels, scores[1], alone=-0.5)
    error, quantile = _scatter(influences, confidence)
    return gain - quantile * error, gain + quantile * error


def _scatter(influences: Floats, confidence: float) -> tuple[float, float]:
    """Give the standard error, and how many of them the interval reaches to either side.

    The quantile is Student's, with the degrees of freedom of a variance that is a sum of squares
    (Satterthwaite, 1946, Biometrics Bulletin 2): twice its square over its own variance. Where a
    few rows make up most of the scatter, as the positives do where they are rare, it is estimated
    from those few.
    """
    from scipy.special import stdtrit

    squares = influences**2
    variance = float(squares.sum())
    if variance == 0:
        return 0.0, NormalDist().inv_cdf((1 + confidence) / 2)
    squares /= variance  # no fourth power may vanish
    uncertain = max(float(squares @ squares) - 1 / len(squares), 0.0)
    freedom = 2 / max(uncertain, 1e-10)  # no difference from a normal quantile beyond
    return variance**0.5, float(stdtrit(freedom, (1 + confidence) / 2))


def _share_interval(share: float, error: float, z: float, least: int) -> tuple[float, float]:
    """Give the score interval of a share of as many rows as its standard error tells of.

    There are never fewer than `least` of them, and just those where nothing went wrong yet, or
    everything did.
    """
    rows = float(least)
    if 0 < share < 1:
        if error == 0:  # all scores are equal: what follows from that is certain
            return share, share
        rows = max(rows, share * (1 - share) / error**2)
    shrunk = 1 + z**2 / rows
    middle = (share + z**2 / (2 * rows)) / shrunk
    reach = z / shrunk * np.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    # Rounding may not push the value out of its own interval.
    return max(0.0, min(share, float(middle - reach))), min(1.0, max(share, float(middle + reach)))


def _loss_interval(found: float, error: float, z: float, *, best: float) -> tuple[float, float]:
    """Give the interval that is normal in the logarithm of what is lost on the `best` value."""
    lost = best - found
    if lost <= 0:
        return found, found
    factor = float(np.exp(min(z * error / lost, 700.0)))  # beyond, the float overflows
    return best - lost * factor, best - lost / factor


def _least_rows(metric: Metric, labels: Floats) -> int:
    """Give of how many rows, at least, a metric in [0, 1] is the share.

    The variance of an area under the ROC curve A is at most A (1 - A) over the rows of the smaller
    class (Birnbaum and Klose, 1957, Annals of Mathematical Statistics 28); that of a mean of
    recalls at most that of a share of the smallest class.
    """
    if metric == "accuracy":
        return len(labels)
    if metric == "average_precision":
        return int((labels == 1).sum())
    held = np.unique(labels, return_counts=True)[1]
    return int(min(held.min(), len(labels) - held.max()) if metric == "roc_auc" else held.min())


def _influences(metric: Metric, labels: Floats, scores: Floats, *, alone: float = 0.5) -> Floats:
    """Give the influence of each row over the number of rows, of shape (n_rows,).

    Their squares add up to the variance; as in DeLong's and that of a mean, those of a class of n
    rows are larger by n / (n - 1). How a class scatters of which there is one row alone is unknown:
    it counts as `alone`, half of the range of values in [0, 1], which is the most there can be.
    """
    if metric == "roc_auc":
        if scores.ndim == 2:
            return _macro_auc_influences(labels, scores, alone)
        return _auc_influences(labels == 1, scores, alone)
    if metric == "average_precision":
        return _average_precision_influences(labels, scores, alone)
    if metric == "balanced_accuracy":
        right = _contributions(metric, labels, scores)
        numbers, row_class, held = np.unique(labels, return_inverse=True, return_counts=True)
        recall = np.bincount(row_class, right) / held
        found = _centred(right - recall[row_class], held[row_class], alone)
        return found / len(numbers)
    rows = len(labels)
    if metric == "r2":
        around = (labels - labels.mean()) ** 2
        squared = (labels - scores) ** 2
        spread = around.mean()
        return _centred((squared.mean() / spread * around - squared) / spread, rows, alone)
    found = _contributions(metric, labels, scores)
    mean = found.mean()
    found = _centred(found - mean, rows, alone)
    if metric == "neg_root_mean_squared_error":
        found = found / (-2 * np.sqrt(mean)) if mean > 0 else found
    return found


def _centred(away: Floats, held: NDArray[np.intp] | int, alone: float) -> Floats:
    """Scale distances from the mean of a class of `held` rows to what their mean scatters by."""
    held = np.asarray(held, dtype=np.float64)
    found: Floats = np.where(held > 1, away / np.sqrt(held * np.maximum(held - 1, 1)), alone)
    return found


def _outscored(positive: NDArray[np.bool_], scores: Floats) -> Floats:
    """Give the share of negatives below each positive, and of positives above each negative.

    Of shape (n_rows,); equal scores count half.
    """
    order, starts, held = _levels(scores)
    of_level = positive[order]
    ones = np.add.reduceat(of_level, starts, dtype=np.float64)
    zeros = held - ones
    ones_below = np.repeat(np.cumsum(ones) - ones / 2, held)
    zeros_below = np.repeat(np.cumsum(zeros) - zeros / 2, held)
    found = np.empty(len(scores))
    found[order] = np.where(of_level, zeros_below / zeros.sum(), 1 - ones_below / ones.sum())
    return found


def _levels(scores: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Give the order of the scores, where each different one starts in it, and its rows."""
    order = np.argsort(scores)
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return order, starts, np.diff(np.r_[starts, len(scores)])


def _auc_influences(positive: NDArray[np.bool_], scores: Floats, alone: float) -> Floats:
    """Give what DeLong's variance is the sum of squares of."""
    found = _outscored(positive, scores)
    for of_class in (positive, ~positive):
        shares = found[of_class]
        found[of_class] = _centred(shares - shares.mean(), len(shares), alone)
    return found


def _macro_auc_influences(labels: Floats, scores: Floats, alone: float) -> Floats:
    """Average the influences on each class against the rest; those all or none do not count."""
    found = np.zeros(len(labels))
    classes = 0
    for number in range(scores.shape[1]):
        positive = labels == number
        if 0 < positive.sum() < len(labels):
            found += _auc_influences(positive, scores[:, number], alone)
            classes += 1
    return found / classes


def _average_precision_influences(labels: Floats, scores: Floats, alone: float) -> Floats:
    r"""Give the influences on the average precision.

    With :math:`\pi(s)` the precision of all rows that score *s* or more, which are the share
    :math:`G(s)`, *p* the share of positives and :math:`F_1` their part of the law of the scores,
    AP is :math:`\int \pi\, dF_1 / p`. A row with label *y* and score *s* moves :math:`\pi(t)` by
    :math:`(y - \pi(t)) / G(t)` for all *t* up to *s*, so that by the chain rule

    .. math:: \mathrm{IF} = \frac1p \Big( y\,(\pi(s) - \mathrm{AP})
              + \int_{t \le s} \frac{y - \pi(t)}{G(t)}\, dF_1(t) \Big)
    """
    order, starts, held = _levels(scores)
    positives = labels[order]
    ones = np.add.reduceat(positives, starts)
    seen = len(labels) - starts  # rows that score as much or more
    precision = np.cumsum(ones[::-1])[::-1] / seen
    total = positives.sum()
    whole = precision @ ones / total
    gained = precision - whole + np.cumsum(ones / seen)  # by a positive
    lost = np.cumsum(precision * ones / seen)  # by any row
    found = np.empty(len(labels))
    found[order] = (positives * np.repeat(gained, held) - np.repeat(lost, held)) / total
    if total == 1:
        found[labels == 1] = alone
    return found


# --- metrics of weighted rows ---------------------------------------------------------------------


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
    totals, hits = [], []
    for number in np.unique(labels):  # not all at once: rows times classes are many
        held = labels == number
        of_class = weights[:, held]
        totals.append(of_class.sum(axis=1))
        hits.append(of_class @ right[held])
    all_rows = np.column_stack(totals)
    with np.errstate(invalid="ignore"):
        recall = np.where(all_rows > 0, np.column_stack(hits) / all_rows, 0)
    mean: Floats = recall.sum(axis=1) / (all_rows > 0).sum(axis=1)
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
