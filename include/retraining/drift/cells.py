"""The number line cut into cells: how many values each cell holds stands for the values themselves.

There are two ways to cut. `Edges` are quantiles of the reference, each alone in a cell, with a cell
between any two; to count, a sample has to be sorted. A `Grid` cuts the bulk of the values into
cells of one width; a value's cell follows from it by arithmetic, so that counting a million costs
less than half of sorting them (and where a processor is slow at sorting, a tenth). Where a grid
tells nine tenths of the values apart as well as quantiles do, `cells_for` takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from include.retraining.drift.number_types import ordered, same_type, settle

Values: TypeAlias = NDArray[Any]
Counts: TypeAlias = NDArray[np.int64]
Wanted: TypeAlias = NDArray[np.bool_]  # one per cell

GRID_CELLS = 65_536  # what 16 bits can number
_GRID_ROWS = 250_000  # of a reference; to count fewer values in so many cells saves nothing
_OUTSIDE = 2_000  # one in so many values lies beyond either end of the grid
# In steps between quantiles: there is no grid if more than a tenth of the values lie in cells that
# hold more than one, or any cell holds more than eight.
_COARSE, _COARSEST = 0.1, 8
_STEP, _TALLY = 16_384, 262_144  # values worked on at once: as many as the caches hold


@dataclass(frozen=True, eq=False)
class CellCounts:
    """How many values of one sample lie before each cell, and before the end: sorted, from 0.

    Counts of several files, workers or SQL groups in the same cells add up: ``a + b``.
    """

    cells: Cells
    before: Counts

    @classmethod
    def of(cls, cells: Cells, held: Counts) -> CellCounts:
        """From how many values each cell holds."""
        return cls(cells, np.concatenate([[0], np.cumsum(held)]))

    @property
    def size(self) -> int:
        """The number of values."""
        return int(self.before[-1])

    @property
    def held(self) -> Counts:
        """How many values each cell holds."""
        return np.diff(self.before)

    def __add__(self, other: CellCounts) -> CellCounts:
        if self.cells != other.cells:
            raise ValueError("counts add up only in the same cells; count both in one profile's")
        return CellCounts(self.cells, self.before + other.before)


class Sample(NamedTuple):
    """A sample in memory: its counts, and its values in some cells, sorted."""

    counts: CellCounts
    inside: Callable[[Wanted], Values]


@dataclass(frozen=True, eq=False)
class Edges:
    """A cell for each of some sorted distinct values, one between any two, and one at either end.

    Of the cells 0, 1, ..., 2k, the odd ones hold one value only.
    """

    at: Values

    @classmethod
    def at_quantiles(cls, ordered: Values, quantiles: int | None = None) -> Self:
        """Cut at quantiles of a sorted sample without NaN, both ends included.

        By default there are about ``2 * sqrt(size)``: fewer leave too much to look at again, more
        cost more than they save.
        """
        size = len(ordered)
        if not size:
            return cls(ordered)
        picks = np.linspace(0, size - 1, quantiles or _quantiles(size)).astype(np.int64)
        return cls(np.unique(ordered[picks]))

    def __len__(self) -> int:
        return 2 * len(self.at) + 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Edges) and np.array_equal(self.at, other.at)

    __hash__ = None  # type: ignore[assignment]  # holds an array

    @property
    def single(self) -> Wanted:
        """Which cells have room for one value only."""
        return np.asarray(np.arange(len(self)) % 2 == 1)

    def count(self, ordered: Values) -> CellCounts:
        """Count a sorted sample without NaN, of any type of number."""
        edges, values = same_type(self.at, ordered)
        ends = np.column_stack(ranks(values, edges)).ravel()
        return CellCounts(self, np.concatenate([[0], ends, [len(values)]]))

    def sample(self, values: Values) -> Sample:
        """Count numbers in any order, NaN left out; they are sorted in place."""
        values = ordered(settle(values))
        counts = self.count(values)
        return Sample(counts, lambda wanted: slices(values, counts, wanted))


@dataclass(frozen=True)
class Grid:
    """Cells of one width from `low` on, `scale` of them a unit; the outermost take what is beyond.

    The cell of *x* is ``(x - low) * scale``, cut to a whole number of 0 to `GRID_CELLS` - 1. Both
    steps round, but neither ever swaps two values, so counts are exact.
    """

    low: float
    scale: float

    @classmethod
    def over(cls, ordered: Values) -> Self | None:
        """Span the bulk of a sorted sample; None where that has no width, or no end."""
        low, high = ordered[len(ordered) // _OUTSIDE], ordered[-1 - len(ordered) // _OUTSIDE]
        with np.errstate(all="ignore"):
            scale = (GRID_CELLS - 2) / (high - low)
        return cls(float(low), float(scale)) if 0 < scale < np.inf else None

    def __len__(self) -> int:
        return GRID_CELLS

    @property
    def single(self) -> Wanted:
        """Which cells have room for one value only: none."""
        return np.zeros(GRID_CELLS, bool)

    def count(self, values: Values) -> CellCounts:
        """Count numbers in any order, NaN left out."""
        return self._counted(values, self._located(values))

    def sample(self, values: Values) -> Sample:
        """Count numbers in any order, NaN left out."""
        values = settle(values)
        located = self._located(values)

        def inside(wanted: Wanted) -> Values:
            parts = [values[part][wanted.take(located[part])] for part in _parts(values)]
            return ordered(np.concatenate(parts or [values]))

        return Sample(self._counted(values, located), inside)

    def _located(self, values: Values) -> NDArray[np.uint16]:
        """Give the cell of each value; of NaN the first."""
        located = np.empty(len(values), np.uint16)
        buffer = np.empty(_STEP)
        with np.errstate(over="ignore", invalid="ignore"):
            for part in _parts(values, _STEP):
                at = buffer[: len(values[part])]
                np.subtract(values[part], self.low, out=at)
                np.multiply(at, self.scale, out=at)
                np.fmax(at, 0, out=at)
                np.fmin(at, GRID_CELLS - 1, out=at)
                located[part] = at
        return located

    def _counted(self, values: Values, located: NDArray[np.uint16]) -> CellCounts:
        held = np.zeros(GRID_CELLS, np.int64)
        for part in _parts(values):
            held += np.bincount(located[part], minlength=GRID_CELLS)
            held[0] -= np.count_nonzero(np.isnan(values[part]))
        return CellCounts.of(self, held)


Cells: TypeAlias = Edges | Grid


def cells_for(ordered: Values, *, quantiles: int | None = None) -> Cells:
    """Choose the cells for a sorted reference without NaN.

    Parameters
    ----------
    ordered : ndarray of shape (n_reference,)
        The reference.
    quantiles : int, optional
        How many edges to cut at where there is no grid, if the cells are to stand for the values
        alone: then there are more than a search needs, and where the reference has no more
        different values than this, one for each of them, so that nothing is left open.
    """
    if len(ordered) >= _GRID_ROWS and ordered.dtype == np.float64:
        grid = Grid.over(ordered)
        if grid:
            held = grid.count(ordered).held
            step = len(ordered) / _quantiles(len(ordered))
            coarse = held[held > step].sum()
            if coarse <= _COARSE * len(ordered) and np.max(held) <= _COARSEST * step:
                return grid
    if quantiles and np.count_nonzero(ordered[1:] != ordered[:-1]) < quantiles:
        return Edges(np.unique(ordered))
    return Edges.at_quantiles(ordered, quantiles)


def ranks(ordered: Values, at: Values) -> tuple[Counts, Counts]:
    """Count how many values of a sorted sample lie below, and up to, each of some values."""
    below = np.searchsorted(ordered, at, side="left")
    upto = below.copy()
    # Only where one is there do the two differ: mostly nowhere, so half is saved.
    there = (
        np.flatnonzero(np.take(ordered, below, mode="clip") == at) if len(ordered) else below[:0]
    )
    upto[there] = np.searchsorted(ordered, at[there], side="right")
    return below, upto


def slices(ordered: Values, counts: CellCounts, wanted: Wanted) -> Values:
    """Give the values of a sorted sample that lie in some cells."""
    cells = np.flatnonzero(wanted)
    starts, ends = counts.before[cells], counts.before[cells + 1]
    return np.concatenate(
        [ordered[a:b] for a, b in zip(starts, ends, strict=True)] or [ordered[:0]]
    )


def _parts(values: Values, rows: int = _TALLY) -> list[slice]:
    return [slice(start, start + rows) for start in range(0, len(values), rows)]


def _quantiles(size: int) -> int:
    return min(int(np.clip(2 * size**0.5, 64, 8192)), size)
