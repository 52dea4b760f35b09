"""The largest gap between two empirical distribution functions, from as few values as possible.

Between two neighbouring reference values the difference ``F_reference - F_current`` can only fall,
at a reference value it jumps up. So its maximum sits at a reference value, its minimum just before
one, and inside a cell it is bounded by what lies before the cell and before its end. Exact means:
count in cells, then look again only inside those whose bound exceeds the best gap seen so far.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from include.retraining.drift.cells import CellCounts, Counts, Edges, Values, Wanted, ranks, slices
from include.retraining.drift.number_types import same_type

_SPLITS = 16
_PROBE_COST = 4  # of looking up one value, in values of a linear merge (measured)


class Bounds(NamedTuple):
    """A certified interval around the Kolmogorov-Smirnov distance: ``low <= D <= high``."""

    low: float
    high: float


class _Intervals(NamedTuple):
    """Stretches of the number line: how many values of each sample lie before start and end."""

    reference_start: Counts
    reference_end: Counts
    current_start: Counts
    current_end: Counts


def gap_bounds(reference: CellCounts, current: CellCounts) -> Bounds:
    """Bound the largest gap by counts alone; both must be counted in the cells of the reference.

    The interval is never wider than the largest share of the reference in a cell that has room for
    different values.
    """
    best = _largest_between_cells(reference, current)
    return Bounds(best, float(np.max(_possible(reference, current), initial=best)))


def exact_gap(
    values: Values,
    reference: CellCounts,
    current: CellCounts,
    inside: Callable[[Wanted], Values],
) -> float:
    """Find the exact largest gap.

    Parameters
    ----------
    values : ndarray
        The reference: sorted, without NaN, not empty.
    reference, current : CellCounts
        Of both samples in the cells of the reference; not empty.
    inside : callable
        Gives the current values in the cells that could hide a larger gap than their ends show,
        sorted; seldom more than a few.
    """
    n, m = reference.size, current.size
    best = _largest_between_cells(reference, current)
    open_ = _possible(reference, current) > best
    if not open_.any():
        return best
    values, fetched = same_type(values, inside(open_))
    if not best and n == m and np.array_equal(slices(values, reference, open_), fetched):
        return 0.0  # the one case in which no cell could ever be ruled out
    held = current.held[open_]
    # Ranks among the fetched values become ranks among all: so many more lie before each cell.
    offset = current.before[:-1][open_] - (np.cumsum(held) - held)
    intervals = _Intervals(*(part[open_] for part in _inside(reference, current)))
    while True:
        length = intervals.reference_end - intervals.reference_start
        if len(length) * _SPLITS * _PROBE_COST > length.sum():
            picks = _all_between(intervals.reference_start, length)
            more = np.repeat(offset, length)
            below, upto = (rank + more for rank in ranks(fetched, values[picks]))
            return max(best, _largest_at(picks, n, below, upto, m))
        # Splitting at positions, not at values: where values tie, a position inside the tie only
        # understates the gap, and the tie's first and last position state it.
        steps = np.arange(1, _SPLITS) / _SPLITS
        picks = intervals.reference_start[:, None] + (length[:, None] * steps).astype(np.int64)
        below, upto = (
            rank.reshape(picks.shape) + offset[:, None]
            for rank in ranks(fetched, values[picks.ravel()])
        )
        best = max(best, _largest_at(picks, n, below, upto, m))
        intervals = _Intervals(
            np.column_stack([intervals.reference_start, picks + 1]).ravel(),
            np.column_stack([picks, intervals.reference_end]).ravel(),
            np.column_stack([intervals.current_start, upto]).ravel(),
            np.column_stack([below, intervals.current_end]).ravel(),
        )
        open_ = _bound(intervals, n, m) > best
        if not open_.any():
            return best
        intervals = _Intervals(*(part[open_] for part in intervals))
        offset = np.repeat(offset, _SPLITS)[open_]


def largest_gap(reference: Values, current: Values) -> float:
    """Find the exact largest gap of two sorted samples without NaN, not empty, of one type."""
    cells = Edges.at_quantiles(reference)
    counted = cells.count(current)
    return exact_gap(reference, cells.count(reference), counted, partial(slices, current, counted))


def rank_shift(reference: CellCounts, current: CellCounts) -> float:
    r"""Give Cliff's delta: how much likelier a current value is larger than smaller.

    .. math:: \delta = P(X < Y) - P(X > Y)

    for a reference value *X* and a current value *Y* drawn at random; in [-1, 1], and at most twice
    the largest gap on either side of 0. Counts alone tell it: inside a cell, where they do not say
    which value is larger, the two count as equal.

    References
    ----------
    Cliff, N. (1993). Dominance statistics: ordinal analyses to answer ordinal questions.
    Psychological Bulletin 114, 494-509.

    Examples
    --------
    >>> values = np.array([1.0, 2.0, 3.0, 4.0])
    >>> reference = Edges(values).count(values)
    >>> rank_shift(reference, reference.cells.count(np.array([3.0, 4.0])))
    0.5
    """
    rank = reference.before.astype(np.float64)
    smaller_minus_larger = rank[:-1] + rank[1:] - reference.size
    pairs = float((current.held * smaller_minus_larger).sum())
    shift = pairs / reference.size / current.size
    return max(-1.0, min(1.0, shift))  # beyond 2**53 pairs, sums round


def _largest_between_cells(reference: CellCounts, current: CellCounts) -> float:
    apart = reference.before / reference.size - current.before / current.size
    return float(np.abs(apart).max())


def _largest_at(picks: Counts, n: int, below: Counts, upto: Counts, m: int) -> float:
    rises = np.max((picks + 1) / n - upto / m, initial=0.0)
    falls = np.max(below / m - picks / n, initial=0.0)
    return float(max(rises, falls))


def _inside(reference: CellCounts, current: CellCounts) -> _Intervals:
    return _Intervals(
        reference.before[:-1], reference.before[1:], current.before[:-1], current.before[1:]
    )


def _possible(reference: CellCounts, current: CellCounts) -> NDArray[np.float64]:
    """Bound the gap inside each cell; 0 where a single value leaves no inside."""
    bound = _bound(_inside(reference, current), reference.size, current.size)
    return np.where(reference.cells.single, 0.0, bound)


def _bound(intervals: _Intervals, n: int, m: int) -> NDArray[np.float64]:
    """Bound the gap inside stretches: one sample comes first, the other last."""
    rise = intervals.reference_end / n - intervals.current_start / m
    fall = intervals.current_end / m - intervals.reference_start / n
    return np.maximum(rise, fall)


def _all_between(starts: Counts, lengths: Counts) -> Counts:
    """Give every position of the intervals that start at `starts` and are `lengths` long."""
    total = int(lengths.sum())
    skipped = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.asarray(skipped + np.arange(total), dtype=np.int64)
