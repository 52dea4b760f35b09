"""Blocks say how many rows count as one, where they can say it."""

import numpy as np
import pytest

from include.retraining.drift.cells import CellCounts, Edges
from include.retraining.drift.dependence import (
    INDEPENDENT,
    PARTS,
    Dependence,
    apart,
    blocks_tell,
    find_dependence,
    read_dependence,
)
from include.retraining.drift.gap import gap_bounds, rank_shift


def _autocorrelated(rho: float, rows: int, windows: int, seed: int) -> np.ndarray:
    from scipy.signal import lfilter

    noise = np.random.default_rng(seed).standard_normal(rows * windows)
    series = lfilter([(1 - rho**2) ** 0.5], [1, -rho], noise)
    return np.asarray(series).reshape(windows, rows)


def _held(values: np.ndarray) -> np.ndarray:
    cells = Edges.at_quantiles(np.sort(values.ravel()), 300)
    parts = values.reshape(len(values), PARTS, -1)
    return np.array([[cells.count(np.sort(part)).held for part in window] for window in parts])


def _of_means(values: np.ndarray) -> Dependence | None:
    """Of the mean, for which theory says (1 + rho) / (1 - rho); None where blocks do not tell."""
    blocks = values.reshape(len(values), PARTS, -1)
    means, rows = blocks.mean(axis=2), np.full(blocks.shape[:2], blocks.shape[2])
    if not blocks_tell(means * rows**0.5):
        return None
    return find_dependence(np.abs(means), 1 / rows, rows, spread=2**0.5)


def test_the_design_effect_is_that_of_theory() -> None:
    found = [_of_means(_autocorrelated(0.9, 4000, 20, seed)) for seed in range(40)]
    used = [one.design_effect for one in found if one]
    assert len(used) >= 36  # blocks look dependent, or wild, by chance in 1 of 30
    assert np.mean(used) == pytest.approx(19, rel=0.1)


def test_independent_rows_pay_nothing_for_being_looked_at() -> None:
    found = [_of_means(_autocorrelated(0.0, 4000, 20, seed)) for seed in range(40)]
    assert sum(one == INDEPENDENT for one in found) >= 34


def test_blocks_that_tell_about_the_next_are_no_evidence() -> None:
    """What varies more slowly than a block is seen by whole windows only."""
    for seed in range(5):
        slow = _autocorrelated(0.9999, 4000, 20, seed)
        assert _of_means(slow) is None
        assert read_dependence(_held(slow)) == (INDEPENDENT, INDEPENDENT)


def test_a_few_blocks_far_off_are_no_evidence() -> None:
    """Fog for three days of five months: not what an ordinary week is like."""
    values = _autocorrelated(0.9, 4000, 20, 1)
    assert _of_means(values) is not None
    values[7, :1500] += 3
    assert _of_means(values) is None


@pytest.mark.parametrize("weekend", [0.1, 0.2, 0.5])
def test_windows_of_unequal_length_are_not_wild(weekend: float) -> None:
    """Blocks of short windows vary more; that is no heavy tail."""
    told = 0
    for seed in range(12):
        held = _held(_autocorrelated(0.9, 4000, 20, seed))
        rng = np.random.default_rng(seed)
        held[5::7] = rng.binomial(held[5::7], weekend)  # of rows in an order that no longer matters
        held[6::7] = rng.binomial(held[6::7], weekend)
        told += read_dependence(held)[1].blocks > 0
    assert told >= 11


def test_where_eighths_do_not_tell_quarters_may() -> None:
    found = [
        read_dependence(_held(_autocorrelated(0.9965, 8000, 20, seed)))[1] for seed in range(20)
    ]
    quarters = [one for one in found if one.blocks == 20 * 4]
    assert len(quarters) >= 4
    for one in quarters:
        assert one.design_effect == pytest.approx(570, rel=0.5)


def test_parts_are_read_in_distance_and_in_shift() -> None:
    distance, shift = read_dependence(_held(_autocorrelated(0.9, 4000, 20, 1)))
    assert distance.blocks == shift.blocks == 20 * PARTS
    assert (
        4 < distance.design_effect < shift.design_effect
    )  # whether a value is large lasts shorter
    assert shift.design_effect == pytest.approx(19, rel=0.3)


def test_distance_and_shift_of_many_samples_are_those_of_each() -> None:
    held = _held(_autocorrelated(0.5, 800, 6, 3))
    reference = held.sum(axis=(0, 1))
    distances, shifts = apart(reference, held)
    cells = Edges(np.arange(held.shape[2] // 2))
    whole = CellCounts.of(cells, reference)
    for position in np.ndindex(6, PARTS):
        part = CellCounts.of(cells, held[position])
        assert distances[position] == pytest.approx(gap_bounds(whole, part).low)
        assert shifts[position] == pytest.approx(rank_shift(whole, part))


def test_a_window_of_a_few_rows_does_not_hide_what_the_others_show() -> None:
    held = _held(_autocorrelated(0.9, 4000, 20, 1))
    short = np.zeros_like(held[3])
    short[:, -1] = 29  # of each part, and all of them far off
    held[3] = short
    shift = read_dependence(held)[1]
    assert shift.blocks == 19 * PARTS
    assert shift.design_effect == pytest.approx(19, rel=0.3)


@pytest.mark.parametrize("rows", [29, 30])
def test_blocks_of_a_few_rows_are_no_evidence(rows: int) -> None:
    """Each row many times over: as a quarter, or as an eighth, it is still one."""
    values = np.repeat(np.random.default_rng(0).standard_normal((20, PARTS)), rows, axis=1)
    assert read_dependence(_held(values))[1].blocks == 20 * (PARTS if rows == 30 else PARTS // 2)


@pytest.mark.parametrize("held", [np.ones((0, PARTS, 3), int), np.zeros((4, PARTS, 3), int)])
def test_nothing_says_nothing(held: np.ndarray) -> None:
    assert read_dependence(held) == (INDEPENDENT, INDEPENDENT)


def test_a_constant_depends_on_nothing() -> None:
    held = np.zeros((4, PARTS, 3), int)
    held[:, :, 1] = 100
    assert read_dependence(held) == (INDEPENDENT, INDEPENDENT)
