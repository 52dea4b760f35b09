r"""Where a window lies and how wide it is: a scale without a ceiling, so that no column is blind.

A distance of two laws cannot exceed 1. Where windows of the history differ by much among themselves
no distance would be out of the ordinary, and a column whose unit has changed would go unseen. So a
numeric column is also held against the *outlines* of the windows of its history:

* location, the mean of the middle half of its values, and spread, the logarithm of the distance
  between its upper and lower values; both in units of the usual spread of a window. Where one value
  holds more than half of the rows, as zero does of many counts, quantiles jump: there the spread is
  the mean distance from that value;
* the share of rows at the lowest or highest value: a feed that is cut off piles up there;
* the share of rows outside of everything that any window has shown, and, where values repeat, of
  rows whose value none has shown: more than half of them now, and 2.5 times as many as any window
  of the history had beyond all others.

Location and spread of one more window are out of the ordinary if

.. math:: |y - \bar y| > t_{d_0 + W - 1}\, \tilde s \sqrt{(1 + 1/W)\, \max(1, n / m)}, \quad
          \tilde s^2 = \frac{d_0 s_0^2 + (W - 1) s^2}{d_0 + W - 1}

and more than a quarter of the usual spread. With few windows a variance is sometimes small by
chance; so each is moderated by those of all columns, :math:`s_0^2` with :math:`d_0` degrees of
freedom (Smyth 2004). A window of *m* rows where *n* are usual averages over less.

References
----------
Smyth, G. K. (2004). Linear models and empirical Bayes methods for assessing differential expression
in microarray experiments. Statistical Applications in Genetics and Molecular Biology 3, article 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from include.retraining.drift.calibration import student_quantile
from include.retraining.drift.cells import CellCounts, Grid, Values, Wanted
from include.retraining.drift.moderation import SMALLEST, Prior, find_prior
from include.retraining.records import Measured, Measurement
from include.retraining.spec import Drift

Floats = NDArray[np.float64]

_PARTS = 40  # quantiles an outline is made of: means of some do not jump where values repeat
_AT = (np.arange(_PARTS) + 0.5) / _PARTS
_MIDDLE, _LOWER, _UPPER = slice(10, 30), slice(4, 8), slice(32, 36)
_UNIT = 2.08  # of a normal law, between its upper and its lower values
_MATTERS = 0.25  # of the usual spread: a smaller change of location or spread never counts
_LEAST_AWAY = 1e-3  # in units of `far`: the logarithm has no ceiling, but a ground
_FAR_OFF = 1e6  # in units of the usual spread; what is beyond, infinity too, is told as this
_TIED = 0.5  # share of rows with one value from which quantiles jump
_PILE = 0.02  # more of the rows at an end than any window has had
_PILE_VARIANCE = 0.1  # of the log odds of an end's share, at least
_NEXT_TO_NOTHING = 0.01  # share of rows in an outermost cell that need not be looked at
_UNSEEN, _TIMES_USUAL, _ALMOST_ALL = 0.5, 2.5, 0.9  # shares of rows; what is usual, times so much
_REPEATED = 0.5  # different values of all windows, in units of their rows: below it they repeat
_OWN_TAIL = 3  # degrees of freedom that moderated variances are worth beyond `tail_windows`


class Ruler(NamedTuple):
    """What outlines of one column are measured with, from its history.

    `usual` is its middle, `unit` the usual spread, 0 where there is none. `far` is above 0 where
    one value holds most rows: the 99.5 % quantile of the distance from it. `low` and `high` are the
    ends of everything the history shows.
    """

    usual: float
    unit: float
    far: float
    low: float
    high: float


class Outline(NamedTuple):
    """Of one window: location and spread in units of the ruler, and shares of its rows."""

    location: float
    spread: float
    at_an_end: float
    outside: float
    unseen: float  # NaN where values do not repeat


class Sorted(NamedTuple):
    """A sample, sorted, of which only some values are known: how many rows hold each, of how many.

    `ranks` says how many rows come before each; rows that are not known lie in between.
    """

    values: Floats
    rows: NDArray[np.int64]
    ranks: NDArray[np.int64]
    size: int

    @classmethod
    def of(cls, values: Floats) -> Sorted:
        """All of a sorted sample."""
        ones = np.ones(len(values), np.int64)
        return cls(values, ones, np.arange(len(values)), len(values))

    def at(self, ranks: NDArray[np.int64]) -> Floats:
        """Give the values of some ranks, all of them known."""
        return self.values[np.searchsorted(self.ranks, ranks, side="right") - 1]

    def share(self, wanted: NDArray[np.bool_]) -> float:
        """Give the share of all rows that some of the known values hold."""
        return float(self.rows[wanted].sum() / self.size)


@dataclass(frozen=True)
class Outlines:
    """Of a column's history, oldest first; `outside` and `unseen` against all other windows."""

    ruler: Ruler
    rows: NDArray[np.int64]
    windows: Floats  # of shape (n_windows, 5), in the order of `Outline`
    priors: tuple[Prior, Prior] = field(default=(Prior(), Prior()))  # of location, of spread

    def measured(self, min_rows: int) -> Outlines:
        """Give the windows with enough rows to tell something."""
        kept = (self.rows >= min_rows) & np.isfinite(self.windows[:, :4]).all(axis=1)
        return Outlines(self.ruler, self.rows[kept], self.windows[kept], self.priors)


def draw(windows: Sequence[Values]) -> Outlines:
    """Draw the outlines of a column's windows.

    Parameters
    ----------
    windows : sequence of ndarray
        Values of each, sorted, without NaN; none of a window that has no value.
    """
    filled = [np.asarray(one, dtype=np.float64) for one in windows]
    rows = np.array([len(one) for one in filled], dtype=np.int64)
    drawn = np.full((len(filled), 5), np.nan)
    ruler = _ruler([one for one in filled if len(one)])
    lows = np.array([one[0] if len(one) else np.inf for one in filled])
    highs = np.array([one[-1] if len(one) else -np.inf for one in filled])
    unseen = _unseen_of_each(filled)
    for at, values in enumerate(filled):
        if not len(values):
            continue
        others = np.arange(len(filled)) != at
        inside = ruler._replace(
            low=np.min(lows[others], initial=np.inf), high=np.max(highs[others], initial=-np.inf)
        )
        drawn[at] = _outline(inside, Sorted.of(values))
        drawn[at, 4] = unseen[at]
    return Outlines(ruler, rows, drawn)


def outline_now(
    outlines: Outlines,
    reference: Values | None,
    counts: CellCounts,
    inside: Callable[[Wanted], Values],
) -> Outline:
    """Draw the outline of the current window, from the values in as few cells as possible.

    Parameters
    ----------
    outlines : Outlines
        Of the history.
    reference : ndarray or None
        All values of the history, sorted, where they are kept: to look up those that repeat.
    counts, inside
        Of the current window, as of `NumericColumn`; not empty.
    """
    ruler, before = outlines.ruler, outlines.windows[:, 4]
    repeated = reference is not None and not np.isnan(before).all()
    sample = _looked_at(counts, inside, every=bool(ruler.far) or repeated)
    found = _outline(ruler, sample)
    if reference is None or not repeated:
        return found
    return found._replace(unseen=_share_unseen(sample, reference))


def judge_outline(
    outlines: Outlines, now: Outline, rows: int, *, alpha: float, settings: Drift
) -> tuple[Measurement, ...]:
    """Hold an outline against those of the history.

    Parameters
    ----------
    outlines : Outlines
        Of the history.
    now : Outline
        Of the current window.
    rows : int
        Of the current window, that hold a value.
    alpha : float
        What location, spread and ends may cost in false alarms, together. What lies outside of
        everything costs next to nothing.

    Returns
    -------
    tuple of Measurement
        What could be judged: nothing with fewer than ``min_history_windows`` measured windows or
        ``min_rows`` rows now.
    """
    outlines = outlines.measured(settings.min_rows)
    count = len(outlines.rows)
    if count < settings.min_history_windows or rows < settings.min_rows:
        return ()
    found: list[Measurement] = []
    fewer = max(1.0, float(np.median(outlines.rows)) / rows)
    tail = settings.tail_windows + _OWN_TAIL
    scales: tuple[tuple[Measured, int], ...] = (("location", 0), ("spread", 1))
    for name, at in scales if outlines.ruler.unit else ():
        before = outlines.windows[:, at]
        variance, freedom = outlines.priors[at].moderate(float(before.var(ddof=1)), count - 1)
        usual = (max(variance, SMALLEST) * (1 + 1 / count) * fewer) ** 0.5
        threshold = student_quantile(min(freedom, tail), alpha / 4) * usual
        value = min(abs(now[at] - float(before.mean())), _FAR_OFF)
        found.append(Measurement(name, value, max(_MATTERS, threshold)))
    odds = _log_odds(outlines.windows[:, 2], outlines.rows)
    variance = max(float(odds.var(ddof=1)), _PILE_VARIANCE)
    reach = student_quantile(min(count - 1, tail), alpha) * (variance * (1 + 1 / count)) ** 0.5
    most = 1 / (1 + np.exp(-(float(odds.mean()) + reach)))
    most = max(float(most), float(outlines.windows[:, 2].max()) + _PILE)
    if most < 1:
        found.append(Measurement("pile-up", now.at_an_end, most))
    shares: tuple[tuple[Measured, float, Floats], ...] = (
        ("outside", now.outside, outlines.windows[:, 3]),
        ("never seen", now.unseen, outlines.windows[:, 4]),
    )
    for name, share, before in shares:
        threshold = max(_UNSEEN, _TIMES_USUAL * float(before.max()))
        if threshold <= _ALMOST_ALL and not np.isnan([share, *before]).any():
            found.append(Measurement(name, share, threshold))
    return tuple(found)


def priors_of(columns: Sequence[Outlines], min_rows: int) -> tuple[Prior, Prior]:
    """Give what the variances of all columns say about that of one: of location, of spread."""
    told = [one.measured(min_rows) for one in columns if one.ruler.unit]
    told = [one for one in told if len(one.rows) > 1]
    if not told:
        return Prior(), Prior()
    freedom = float(np.median([len(one.rows) for one in told])) - 1
    variances = np.array([one.windows[:, :2].var(axis=0, ddof=1) for one in told])
    location, spread = (find_prior(variances[:, at], freedom) for at in (0, 1))
    return location, spread


def _ranks(size: int) -> NDArray[np.int64]:
    return np.minimum((_AT * size).astype(np.int64), size - 1)


def _ruler(filled: Sequence[Floats]) -> Ruler:
    if not filled:
        return Ruler(0.0, 0.0, 0.0, 0.0, 0.0)
    parts = np.array([one[_ranks(len(one))] for one in filled])
    usual = float(np.median([one[len(one) // 2] for one in filled]))
    rows = sum(map(len, filled))
    tied = sum(int((one == usual).sum()) for one in filled) > _TIED * rows
    far = 0.0
    with np.errstate(all="ignore"):
        unit = float(np.median(parts[:, _UPPER].mean(1) - parts[:, _LOWER].mean(1))) / _UNIT
        if tied:
            away = np.abs(np.concatenate(filled) - usual)
            away = away[np.isfinite(away)]
            if len(away):
                far = float(np.quantile(away, 0.995)) or float(away.max())
        if not unit > 0:
            every = np.concatenate(filled)
            unit = float(every[np.isfinite(every)].std()) if np.isfinite(every).any() else 0.0
    unit = unit if np.isfinite(unit) else 0.0
    return Ruler(
        usual if np.isfinite(usual) else 0.0,
        unit,
        far,
        float(min(one[0] for one in filled)),
        float(max(one[-1] for one in filled)),
    )


def _looked_at(counts: CellCounts, inside: Callable[[Wanted], Values], *, every: bool) -> Sorted:
    """Look at the values that an outline asks for, in as few cells as possible.

    An edge of the reference is known without looking, and so, nearly, is what lies in one of the
    narrow cells of a grid; its outermost ones hold next to nothing, unless there is drift.
    """
    cells, held, size = counts.cells, counts.held, counts.size
    at = np.searchsorted(counts.before, np.append(_ranks(size), [0, size - 1]), side="right") - 1
    wanted = np.full(len(cells), every)
    wanted[at] = wanted[0] = wanted[-1] = True
    wanted &= held > 0
    known = np.full(len(cells), np.nan)
    if isinstance(cells, Grid):
        among = np.flatnonzero(wanted)
        known[among] = cells.low + (among + 0.5) / cells.scale
        known[[0, -1]] = np.where(held[[0, -1]] > _NEXT_TO_NOTHING * size, np.nan, known[[0, -1]])
    else:
        known[1::2] = cells.at
    unknown = wanted & np.isnan(known)
    fetched = np.asarray(inside(unknown), dtype=np.float64) if unknown.any() else np.empty(0)
    opened, closed = np.flatnonzero(unknown), np.flatnonzero(wanted & ~unknown)
    starts = np.repeat(counts.before[opened] - np.cumsum(held[opened]) + held[opened], held[opened])
    values = np.concatenate([known[closed], fetched])
    ranks = np.concatenate([counts.before[closed], starts + np.arange(len(fetched))])
    rows = np.concatenate([held[closed], np.ones(len(fetched), np.int64)])
    order = np.argsort(ranks, kind="stable")
    return Sorted(values[order], rows[order], ranks[order], size)


def _outline(ruler: Ruler, sample: Sorted) -> Outline:
    location = spread = 0.0
    values = sample.values
    if ruler.unit:
        parts = sample.at(_ranks(sample.size))
        with np.errstate(all="ignore"):
            location = float((parts[_MIDDLE].mean() - ruler.usual) / ruler.unit)
            if ruler.far:
                away = np.minimum(np.abs(values - ruler.usual), 1000 * ruler.far)
                mean = float(np.average(away, weights=sample.rows))
                spread = float(np.log(mean / ruler.far + _LEAST_AWAY))
            else:
                apart = abs(float(parts[_UPPER].mean() - parts[_LOWER].mean()))
                spread = float(np.log((apart + 0.05 * ruler.unit) / ruler.unit))
        location, spread = _bounded(location), _bounded(spread)
    ends = sample.share(values == values[0]), sample.share(values == values[-1])
    outside = sample.share((values < ruler.low) | (values > ruler.high))
    return Outline(location, spread, max(ends), outside, np.nan)


def _bounded(value: float) -> float:
    return _FAR_OFF if np.isnan(value) else max(-_FAR_OFF, min(_FAR_OFF, value))


def _different(ordered: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Give the different values of a sorted sample, and how often each occurs."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[starts], np.diff(np.concatenate([starts, [len(ordered)]]))


def _unseen_of_each(windows: Sequence[Floats]) -> Floats:
    """Give the share of each window's rows whose value no other has; NaN where none repeat."""
    shares = np.full(len(windows), np.nan)
    different = [_different(one) if len(one) else None for one in windows]
    kinds = [one[0] for one in different if one]
    if len(kinds) < 2 or sum(map(len, kinds)) > _REPEATED * sum(map(len, windows)):
        return shares
    values, occurs = np.unique(np.concatenate(kinds), return_counts=True)
    alone = values[occurs == 1]
    for at, one in enumerate(different):
        if one:
            only = np.isin(one[0], alone, assume_unique=True)
            shares[at] = one[1][only].sum() / len(windows[at])
    return shares


def _share_unseen(sample: Sorted, reference: Values) -> float:
    """Give the share of rows whose value is not among those of the reference."""
    known = np.asarray(reference, dtype=np.float64)
    at = np.minimum(np.searchsorted(known, sample.values), len(known) - 1)
    return sample.share(known[at] != sample.values)


def _log_odds(shares: Floats, rows: NDArray[np.int64]) -> Floats:
    return np.asarray(np.log((shares * rows + 0.5) / ((1 - shares) * rows + 0.5)))
