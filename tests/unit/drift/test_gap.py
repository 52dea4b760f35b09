"""The certified interval holds, and the exact search finds what a full merge finds."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.retraining.drift.cells import Edges, slices
from include.retraining.drift.gap import exact_gap, gap_bounds, largest_gap

_values = st.lists(st.one_of(st.integers(-4, 4), st.floats(-9, 9)), min_size=1, max_size=200)


def _by_full_merge(reference: np.ndarray, current: np.ndarray) -> float:
    points = np.concatenate([reference, current])
    f = np.searchsorted(reference, points, side="right") / len(reference)
    g = np.searchsorted(current, points, side="right") / len(current)
    return float(np.abs(f - g).max())


@given(_values, _values, st.integers(1, 20))
@settings(max_examples=300, deadline=None)
def test_bounds_hold_the_exact_gap_whatever_the_edges(
    reference: list[float], current: list[float], edges: int
) -> None:
    left, right = np.sort(np.array(reference, float)), np.sort(np.array(current, float))
    cells = Edges.at_quantiles(left, edges)
    counts, counted = cells.count(left), cells.count(right)
    bounds = gap_bounds(counts, counted)
    exact = _by_full_merge(left, right)
    assert bounds.low - 1e-12 <= exact <= bounds.high + 1e-12
    inside = partial(slices, right, counted)
    assert exact_gap(left, counts, counted, inside) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("size", [50_000, 200_000])
@pytest.mark.parametrize("law", ["same", "shifted", "scaled", "nudged", "zero-inflated", "uniform"])
def test_large_samples_take_every_way_through_the_search(law: str, size: int) -> None:
    rng = np.random.default_rng(size)
    reference = np.sort(rng.normal(size=size))
    current = {
        "same": lambda: rng.normal(size=size - 7),
        "shifted": lambda: rng.normal(0.3, 1, size),
        "scaled": lambda: rng.normal(0, 1.3, size // 3),
        "nudged": lambda: reference + 1e-12,
        "zero-inflated": lambda: np.where(rng.random(size) < 0.6, 0, rng.normal(size=size)),
        "uniform": lambda: rng.uniform(-1, 1, size),
    }[law]()
    current = np.sort(current)
    assert largest_gap(reference, current) == pytest.approx(
        _by_full_merge(reference, current), abs=1e-12
    )
    assert largest_gap(current, reference) == pytest.approx(
        _by_full_merge(reference, current), abs=1e-12
    )


def test_bounds_close_where_every_reference_value_is_alone_in_its_cell() -> None:
    reference = np.array([1.0, 2.0, 2.0, 3.0])
    cells = Edges(np.unique(reference))
    bounds = gap_bounds(cells.count(reference), cells.count(np.array([0.0, 2.5])))
    assert bounds.low == bounds.high == 0.5
