"""Has a model fallen for good? Asked anew with every window of outcomes, as often as one likes.

Numbers only. What a model realised, window by window, is held against "nothing has changed":
windows differ for reasons of their own, and what was promised is one more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Floats = NDArray[np.float64]

# what windows may differ by beyond the sampling of rows, of `room`, and how likely that is
SPREADS = (
    (0.0, 2.0), (0.01, 1.0), (0.02, 1.0), (0.04, 1.0), (0.08, 2.0), (0.16, 2.0),
    (0.32, 0.5), (0.64, 0.25),
)  # fmt: skip
FALLS = (1.0, 2.0, 4.0)  # of what one window may differ by in all
HAZARD = 1 / 26  # how likely it is that a model that has not fallen falls with the next window
# A promise is that of a candidate that won: the better of two. Mean and variance of the larger one
# of two standard normal values
WON_BY, WON_VARIANCE = 0.564, 0.682
_LEAST_ERROR = 1e-3  # of `room`: some rows are told apart without an error, and still are a sample


class Series(NamedTuple):
    """What one model realised, oldest window first; higher is better."""

    values: Floats
    errors: Floats  # standard errors, of the sampling of rows


class Fall(NamedTuple):
    """How likely a fall is, and what it would be."""

    times: float  # likelier than that nothing has changed
    since: int  # number of the window that it began with, if it did
    before: float  # mean of the promise and the windows before that
    after: float  # and of those since

    @property
    def size(self) -> float:
        """How far it fell."""
        return self.before - self.after


class _Law(NamedTuple):
    """One amount that windows may differ by, and the likelihoods under it."""

    unchanged: float
    fallen: Floats  # of shape (n_onsets,): at each window from the second value on
    weights: Floats


def find_fall(
    series: Series,
    *,
    promise: tuple[float, float] | None,
    room: float,
    others: Sequence[Series] = (),
) -> Fall | None:
    r"""Weigh a fall for good against no change, with all windows so far.

    A window's value is normal around the model's level with its sampling error and what windows
    differ by, :math:`v_i \sim N(\mu - g 1[i \ge j], s_i^2 + \tau^2)`. The level is not known and
    has a flat prior; what was promised is the first value. Averaged are the onset :math:`j`, the
    fall :math:`g`, and, on both sides alike, :math:`\tau`, which windows of earlier models help to
    learn. So neither the luck of the duel that made the promise nor one hard window is a fall. The
    ratio is a Bayes factor: where nothing changes it gets beyond :math:`1/\alpha` with a
    probability of at most :math:`\alpha`, however often one looks (Ville 1939; Shiryaev 1963 for
    the prior of the onset). `benchmarks.harm` says what holds for one :math:`\tau` each.

    Parameters
    ----------
    series : Series
        Of the model.
    promise : tuple of float, optional
        Value and standard error of what a duel promised of it.
    room : float
        Larger than 0, in the unit of the values: how far they are from perfect.
    others : sequence of Series
        Of models before it, which tell how much windows differ.

    Returns
    -------
    Fall or None
        None with fewer than two values, the promise among them.

    Raises
    ------
    ValueError
        `room` is not larger than 0, or a value or an error is not finite.
    """
    given = [series, *others]
    if promise is not None:
        given.append(Series(np.array(promise[:1]), np.array(promise[1:])))
    if not room > 0 or not all(np.isfinite(part).all() for one in given for part in one):
        raise ValueError(f"room must be above 0 and all values finite, got {room}, {given}")
    if len(series.values) + (promise is not None) < 2:
        return None
    shares = np.array([share for share, _ in SPREADS])
    prior = np.log([weight for _, weight in SPREADS])
    for other in others:
        if len(other.values) > 1:
            prior = prior + [_either(_law(other, None, share * room, room)) for share in shares]
    laws = [_law(series, promise, share * room, room) for share in shares]
    unchanged = np.array([law.unchanged for law in laws]) + prior
    fallen = np.array([logsumexp(law.fallen) for law in laws]) + prior
    not_yet = _not_yet(len(laws[0].fallen))
    log_times = np.logaddexp(logsumexp(fallen), not_yet + logsumexp(unchanged)) - logsumexp(
        unchanged
    )
    likeliest = laws[int(fallen.argmax())]
    return _told(series, promise, likeliest, float(np.exp(min(log_times, 50.0))))


def _not_yet(onsets: int) -> float:
    """Logarithm of how likely no fall has begun yet."""
    return onsets * float(np.log1p(-HAZARD))


def _either(law: _Law) -> float:
    """Log likelihood of windows of which it is not known whether their model fell."""
    not_yet = _not_yet(len(law.fallen)) + law.unchanged
    return float(np.logaddexp(logsumexp(law.fallen), not_yet))


def _law(series: Series, promise: tuple[float, float] | None, tau: float, room: float) -> _Law:
    """Give the likelihoods with windows that differ by `tau`, up to a factor they share."""
    values, weights, scale = _values(series, promise, tau, room)
    sums, total = np.cumsum(weights), weights.sum()
    moments, moment = np.cumsum(weights * values), (weights * values).sum()
    unchanged = 0.5 * (
        np.log(weights).sum() - np.log(total) - (weights * values**2).sum() + moment**2 / total
    )
    since, moved = total - sums[:-1], moment - moments[:-1]  # of the values from each onset on
    falls = np.array(FALLS)[:, None] * scale
    ratios = -falls * (moved - moment * since / total) - falls**2 / 2 * since * (1 - since / total)
    onsets = np.arange(len(since))
    prior = np.log(HAZARD) + onsets * np.log1p(-HAZARD) - np.log(len(FALLS))
    return _Law(unchanged, unchanged + prior + logsumexp(ratios, axis=0), weights)


def _values(
    series: Series, promise: tuple[float, float] | None, tau: float, room: float
) -> tuple[Floats, Floats, float]:
    """Give all values around the first window's, what each weighs, and what one differs by."""
    errors = np.maximum(series.errors, _LEAST_ERROR * room)
    values, variances = series.values, errors**2 + tau**2
    scale = float(np.sqrt(np.median(variances)))
    if promise is not None:
        value, error = promise
        variance = max(error, _LEAST_ERROR * room) ** 2 + tau**2
        values = np.append(value - WON_BY * variance**0.5, values)
        variances = np.append(WON_VARIANCE * variance, variances)
    return values - series.values[0], 1 / variances, scale


def _told(series: Series, promise: tuple[float, float] | None, law: _Law, times: float) -> Fall:
    onset = int(law.fallen.argmax()) + 1
    values = series.values if promise is None else np.append(promise[0], series.values)
    before, after = (
        float(np.average(values[part], weights=law.weights[part]))
        for part in (slice(onset), slice(onset, None))
    )
    since = onset if promise is None else onset - 1
    return Fall(times=times, since=since, before=before, after=after)
