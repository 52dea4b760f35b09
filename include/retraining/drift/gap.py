"""The largest gap between two empirical distribution functions, from as few values as possible.

Between two neighbouring reference values the difference ``F_reference - F_current`` can only fall,
at a reference value it jumps up. So its maximum sits at a reference value, its minimum just before
one, and between two chosen reference values (edges) it is bounded by the counts at the edges. Exact
means: count at some edges, then look again only inside the intervals whose bound exceeds the best
gap seen so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
Counts = NDArray[np.int64]

_SPLITS = 16
_PROBE_COST = 4  # of looking up one value, in values of a linear merge (measured)


@dataclass(frozen=True)
class EdgeCounts:
    """How many values of one sample lie below, and up to, each of some sorted distinct edges.

    Counts of several files, workers or SQL groups at the same edges add up: ``a + b``.
    """

    edges: Values
    below: Counts
    upto: Counts
    size: int

    @classmethod
    def of(cls, edges: Values, ordered: Values) -> EdgeCounts:
        """Count a sorted sample without NaN at given edges."""
        return cls(edges, *_count(ordered, edges), len(ordered))

    @classmethod
    def at_quantiles(cls, ordered: Values, edges: int | None = None) -> EdgeCounts:
        """Count a sorted sample without NaN at its own quantiles, both ends included.

        By default there are about ``2 * sqrt(size)`` edges: fewer leave too much to look at again,
        more cost more than they save.
        """
        size = len(ordered)
        if not size:
            return cls.of(ordered, ordered)
        wanted = edges or int(np.clip(2 * size**0.5, 64, 8192))
        picks = np.linspace(0, size - 1, min(max(wanted, 2), size)).astype(np.int64)
        return cls.of(np.unique(ordered[picks]), ordered)

    def __add__(self, other: EdgeCounts) -> EdgeCounts:
        if not np.array_equal(self.edges, other.edges):
            raise ValueError(
                "counts add up only at the same edges; count both samples at one profile's"
            )
        return EdgeCounts(
            self.edges, self.below + other.below, self.upto + other.upto, self.size + other.size
        )


class Bounds(NamedTuple):
    """A certified interval around the Kolmogorov-Smirnov distance: ``low <= D <= high``."""

    low: float
    high: float


class _Intervals(NamedTuple):
    """Open intervals between edges: how many values lie up to their start, and below their end."""

    reference_start: Counts
    reference_end: Counts
    current_start: Counts
    current_end: Counts


def gap_bounds(reference: EdgeCounts, current: EdgeCounts) -> Bounds:
    """Bound the largest gap by counts alone; both must be counted at the edges of the reference.

    The interval is never wider than the largest share of the reference strictly between two edges.
    """
    best = _largest_at_edges(reference, current)
    high = _highest_possible(_between_edges(reference, current), reference.size, current.size)
    return Bounds(best, float(np.max(high, initial=best)))


def rank_shift(reference: EdgeCounts, current: EdgeCounts) -> float:
    r"""Give Cliff's delta: how much likelier a current value is larger than smaller.

    .. math:: \delta = P(X < Y) - P(X > Y)

    for a reference value *X* and a current value *Y* drawn at random; in [-1, 1], and at most twice
    the largest gap on either side of 0. Counts alone tell it: between two edges, where they do not
    say which value is larger, the two are taken for equally likely. Values that are edges are
    exact, and so are samples whose values all are.

    References
    ----------
    Cliff, N. (1993). Dominance statistics: ordinal analyses to answer ordinal questions.
    Psychological Bulletin 114, 494-509.

    Examples
    --------
    >>> reference = EdgeCounts.at_quantiles(np.array([1.0, 2.0, 3.0, 4.0]))
    >>> rank_shift(reference, EdgeCounts.of(reference.edges, np.array([3.0, 4.0])))
    0.5
    """
    ranks, cells = _cumulative(reference), np.diff(_cumulative(current))
    smaller_minus_larger = ranks[:-1] + ranks[1:] - reference.size
    shift = float((cells * smaller_minus_larger).sum() / reference.size / current.size)
    return max(-1.0, min(1.0, shift))  # beyond 2**53 pairs, sums round


def _cumulative(counts: EdgeCounts) -> NDArray[np.float64]:
    """Give how many values lie before each edge and up to it, from none to all."""
    inner = np.column_stack([counts.below, counts.upto]).ravel()
    return np.concatenate([[0.0], inner, [counts.size]])


def largest_gap(
    reference: Values,
    current: Values,
    counts: EdgeCounts | None = None,
    at_edges: EdgeCounts | None = None,
) -> float:
    """Find the exact largest gap between the distribution functions of two sorted samples.

    Parameters
    ----------
    reference, current : ndarray
        Sorted, without NaN, not empty, of one type.
    counts : EdgeCounts, optional
        The reference at its own edges, where it was counted before.
    at_edges : EdgeCounts, optional
        The current sample at those edges, where it was counted before.
    """
    n, m = len(reference), len(current)
    counts = counts or EdgeCounts.at_quantiles(reference)
    at_edges = at_edges or EdgeCounts.of(counts.edges, current)
    best = _largest_at_edges(counts, at_edges)
    if not best and n == m and np.array_equal(reference, current):
        return 0.0  # the one case in which no interval could ever be ruled out
    intervals = _between_edges(counts, at_edges)
    while True:
        open_ = _highest_possible(intervals, n, m) > best
        if not open_.any():
            return best
        intervals = _Intervals(*(part[open_] for part in intervals))
        inside = intervals.reference_end - intervals.reference_start
        if len(inside) * _SPLITS * _PROBE_COST > inside.sum():
            picks = _all_between(intervals.reference_start, inside)
            below, upto = _count(current, reference[picks])
            return max(best, _largest_at(picks, n, below, upto, m))
        # Splitting at positions, not at values: where values tie, a position inside the tie only
        # understates the gap, and the tie's first and last position state it.
        steps = np.arange(1, _SPLITS) / _SPLITS
        picks = intervals.reference_start[:, None] + (inside[:, None] * steps).astype(np.int64)
        below, upto = (c.reshape(picks.shape) for c in _count(current, reference[picks.ravel()]))
        best = max(best, _largest_at(picks, n, below, upto, m))
        intervals = _Intervals(
            np.column_stack([intervals.reference_start, picks + 1]).ravel(),
            np.column_stack([picks, intervals.reference_end]).ravel(),
            np.column_stack([intervals.current_start, upto]).ravel(),
            np.column_stack([below, intervals.current_end]).ravel(),
        )


def refined_gap(
    reference: Values,
    counts: EdgeCounts,
    current: EdgeCounts,
    fetch: Callable[[Values, Values], Values],
) -> float:
    """Find the exact largest gap where only counts of the current sample are at hand.

    ``fetch(starts, ends)`` gives the current values strictly between the pairs of edges that could
    hide a larger gap than the edges show, sorted; seldom more than a few.
    """
    best = _largest_at_edges(counts, current)
    intervals = _between_edges(counts, current)
    open_ = np.flatnonzero(_highest_possible(intervals, counts.size, current.size) > best)
    if not len(open_):
        return best
    intervals = _Intervals(*(part[open_] for part in intervals))
    starts = counts.edges[open_]
    fetched = fetch(starts, counts.edges[open_ + 1])
    inside = intervals.reference_end - intervals.reference_start
    picks = _all_between(intervals.reference_start, inside)
    below, upto = _count(fetched, reference[picks])
    # Ranks among the fetched values become ranks among all: every interval starts where it was
    # counted.
    earlier = np.searchsorted(fetched, starts, side="right")
    offset = np.repeat(intervals.current_start - earlier, inside)
    return max(best, _largest_at(picks, counts.size, below + offset, upto + offset, current.size))


def _count(ordered: Values, at: Values) -> tuple[Counts, Counts]:
    below = np.searchsorted(ordered, at, side="left")
    upto = below.copy()
    # Only where an edge is itself a value do the two differ: mostly nowhere, so half is saved.
    there = (
        np.flatnonzero(np.take(ordered, below, mode="clip") == at) if len(ordered) else below[:0]
    )
    upto[there] = np.searchsorted(ordered, at[there], side="right")
    return below, upto


def _largest_at_edges(reference: EdgeCounts, current: EdgeCounts) -> float:
    n, m = reference.size, current.size
    at = np.abs(reference.upto / n - current.upto / m)
    before = np.abs(reference.below / n - current.below / m)
    return float(max(np.max(at, initial=0.0), np.max(before, initial=0.0)))


def _largest_at(picks: Counts, n: int, below: Counts, upto: Counts, m: int) -> float:
    rises = np.max((picks + 1) / n - upto / m, initial=0.0)
    falls = np.max(below / m - picks / n, initial=0.0)
    return float(max(rises, falls))


def _between_edges(reference: EdgeCounts, current: EdgeCounts) -> _Intervals:
    """Give the intervals between neighbouring edges.

    Outside the outermost edges there is no reference value, so the gap there is no larger than at
    them.
    """
    return _Intervals(
        reference.upto[:-1], reference.below[1:], current.upto[:-1], current.below[1:]
    )


def _highest_possible(intervals: _Intervals, n: int, m: int) -> NDArray[np.float64]:
    """Bound the gap inside each interval: one sample comes first, the other last."""
    rise = intervals.reference_end / n - intervals.current_start / m
    fall = intervals.current_end / m - intervals.reference_start / n
    return np.maximum(rise, fall)


def _all_between(starts: Counts, lengths: Counts) -> Counts:
    """Give every position of the intervals that start at `starts` and are `lengths` long."""
    total = int(lengths.sum())
    skipped = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.asarray(skipped + np.arange(total), dtype=np.int64)
