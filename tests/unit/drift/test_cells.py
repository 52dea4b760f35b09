"""Cells hold what lies in them, whichever way the line is cut and in whatever order values come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.retraining.drift import cells as cells_module
from include.retraining.drift.cells import GRID_CELLS, Cells, Edges, Grid, cells_for
from include.retraining.drift.gap import exact_gap, gap_bounds, rank_shift
from include.retraining.drift.statistics import ks_distance

_number = st.one_of(
    st.integers(-4, 4).map(float), st.floats(-9, 9), st.floats(allow_nan=True, allow_infinity=True)
)
_values = st.lists(_number, min_size=1, max_size=100)


def _where(cells: Cells, value: float) -> int:
    """Give the cell that a value alone is counted in."""
    return int(np.flatnonzero(cells.sample(np.array([value])).counts.held)[0])


@pytest.mark.parametrize(
    "cells", [Grid(-3.0, 7.3), Grid(0.1, 1e300), Edges(np.array([-1.0, 0.0, 2.5, np.inf]))]
)
@given(values=_values)
@settings(max_examples=150, deadline=None)
def test_every_value_is_in_one_cell_and_cells_are_in_order(
    cells: Cells, values: list[float]
) -> None:
    counts, inside = cells.sample(np.array(values))
    present = sorted(value for value in values if not np.isnan(value))
    assert counts.size == len(present)
    positions = [_where(cells, value) for value in present]
    assert positions == sorted(positions)  # a larger value is never in an earlier cell
    assert counts.held.tolist() == np.bincount(positions, minlength=len(cells)).tolist()
    wanted = np.zeros(len(cells), bool)
    wanted[positions[::2]] = True
    expected = [v for v, at in zip(present, positions, strict=True) if wanted[at]]
    assert inside(wanted).tolist() == expected


def test_a_grid_needs_no_order_and_spares_the_sample() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    before = values.copy()
    counts = Grid(-3.0, 10_000.0).sample(values).counts
    assert (values == before).all()
    assert (Grid(-3.0, 10_000.0).count(np.sort(values)).before == counts.before).all()


def test_whole_numbers_beyond_float64_are_counted_by_a_grid_in_order() -> None:
    values = np.arange(2**60 - 500, 2**60 + 500)
    counts = Grid(float(2**60), 0.5).sample(values).counts
    assert counts.size == 1000
    assert counts.held[0] >= 500


def test_counts_of_two_files_in_the_same_cells_add_up() -> None:
    one, two = np.array([-1.0, 0.0]), np.array([0.0, 1.0, 5.0])
    for cells in (Edges(np.array([0.0, 1.0])), Grid(-1.0, 3.0)):
        both = cells.count(np.sort(np.concatenate([one, two])))
        total = cells.count(one) + cells.count(two)
        assert total.before.tolist() == both.before.tolist()


def test_counts_in_other_cells_do_not_add_up() -> None:
    one = Edges(np.array([0.0])).count(np.array([1.0]))
    for other in (Edges(np.array([1.0])), Grid(0.0, 1.0)):
        with pytest.raises(ValueError, match="same cells"):
            one + other.count(np.array([1.0]))


def test_edges_include_the_smallest_and_largest_value_each_alone() -> None:
    cells = Edges.at_quantiles(np.arange(1000.0), 3)
    assert cells.at.tolist() == [0.0, 499.0, 999.0]
    assert cells.single.tolist() == [False, True, False, True, False, True, False]
    assert cells.count(np.arange(1000.0)).held.tolist() == [0, 1, 498, 1, 499, 1, 0]
    assert len(Edges.at_quantiles(np.empty(0))) == 1


def test_whole_edges_and_fractions_are_told_apart_and_so_are_fractions_and_whole_numbers() -> None:
    whole, largest = np.array([5, 2**53 + 1]), np.iinfo(np.int64).max
    fractions = np.array([4.5, 5.0, 5.5, 2.0**53, 2.0**53 + 2, np.inf])
    assert Edges(whole).count(fractions).held.tolist() == [1, 1, 2, 0, 2]
    edges = Edges(np.array([0.5, 2.0**53]))
    assert edges.count(np.array([1, 2**53, 2**53 + 1])).held.tolist() == [0, 0, 1, 1, 1]
    assert Edges(np.array([largest])).count(np.array([largest - 1, largest])).held.tolist() == [
        1, 1, 0,
    ]  # fmt: skip


# --- which cells a reference gets -----------------------------------------------------------------


@pytest.fixture
def grids_from_a_thousand_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells_module, "_GRID_ROWS", 1000)


_LAWS = {
    "normal": lambda rng, size: rng.normal(size=size),
    "lognormal": lambda rng, size: rng.lognormal(size=size),
    "clock": lambda rng, size: 1.7e15 + 1e9 * rng.random(size),
    "wild": lambda rng, size: np.where(rng.random(size) < 1e-4, 1e300, rng.normal(size=size)),
    "infinite": lambda rng, size: np.where(rng.random(size) < 1e-4, np.inf, rng.normal(size=size)),
    "whole": lambda rng, size: rng.integers(0, 100_000, size).astype(float),
    "zero-inflated": lambda rng, size: np.where(rng.random(size) < 0.6, 0, rng.random(size)),
    "few": lambda rng, size: rng.integers(0, 20, size).astype(float),
    "two far apart": lambda rng, size: rng.choice([-1e9, 1e9], size) + rng.normal(size=size),
    "heavy-tailed": lambda rng, size: rng.pareto(0.3, size),
    "one value in twenty": lambda rng, size: np.where(
        rng.random(size) < 0.05, 0.5, rng.normal(size=size)
    ),
    "constant": lambda rng, size: np.full(size, 3.0),
    "mostly infinite": lambda rng, size: np.where(rng.random(size) < 0.3, np.inf, 1.0),
    "huge": lambda rng, size: rng.choice([-1.7e308, 1.7e308], size),
    "subnormal": lambda rng, size: rng.integers(0, 9, size) * 5e-324,
}
_WITH_GRID = {"normal", "lognormal", "clock", "wild", "infinite", "whole"}


@pytest.mark.usefixtures("grids_from_a_thousand_rows")
@pytest.mark.parametrize("law", _LAWS)
def test_a_grid_is_taken_where_it_tells_values_apart(law: str) -> None:
    """And either way the distance is exact, and its bounds and the shift are right."""
    rng = np.random.default_rng(1)
    reference = np.sort(_LAWS[law](rng, 20_000))
    cells = cells_for(reference)
    assert isinstance(cells, Grid) == (law in _WITH_GRID)
    counts = cells.count(reference)
    alone = Edges(np.unique(reference))
    for scale in (1.0, 1.02):
        current = _LAWS[law](rng, 5_000) * scale
        exact = ks_distance(reference, current)
        shift = rank_shift(alone.count(reference), alone.count(np.sort(current)))
        counted, inside = cells.sample(current.copy())
        assert exact_gap(reference, counts, counted, inside) == pytest.approx(exact, abs=1e-12)
        bounds = gap_bounds(counts, counted)
        assert bounds.low - 1e-12 <= exact <= bounds.high + 1e-12
        assert rank_shift(counts, counted) == pytest.approx(shift, abs=2e-3)


@pytest.mark.usefixtures("grids_from_a_thousand_rows")
def test_the_same_sample_again_has_no_distance() -> None:
    values = np.random.default_rng(2).normal(size=20_000)
    reference = np.sort(values)
    cells = cells_for(reference)
    counted, inside = cells.sample(values)
    assert isinstance(cells, Grid)
    assert exact_gap(reference, cells.count(reference), counted, inside) == 0.0


def test_small_references_and_whole_ones_beyond_float64_get_edges() -> None:
    small = np.sort(np.random.default_rng(3).normal(size=5000))
    assert isinstance(cells_for(small), Edges)
    assert isinstance(cells_for(np.arange(2**60, 2**60 + 300_000)), Edges)
    assert GRID_CELLS == len(Grid(0.0, 1.0)) == np.iinfo(np.uint16).max + 1


def test_cells_that_stand_for_the_values_leave_no_few_of_them_open() -> None:
    few, many = np.repeat([1.0, 2.0, 5.0], [50, 1, 49]), np.arange(100.0)
    assert cells_for(few, quantiles=3) == Edges(np.array([1.0, 2.0, 5.0]))
    assert cells_for(few, quantiles=2) == Edges(np.array([1.0, 5.0]))
    assert len(cells_for(many, quantiles=80)) == 161
    assert cells_for(many) == Edges.at_quantiles(many)
    assert len(cells_for(np.empty(0), quantiles=80)) == 1
