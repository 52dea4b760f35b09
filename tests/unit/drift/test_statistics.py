"""Each statistic: one value by hand, scipy on random cases, one property."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from include.retraining.drift.cells import Edges
from include.retraining.drift.gap import rank_shift
from include.retraining.drift.statistics import (
    homogeneity_test,
    ks_critical_distance,
    ks_distance,
    ks_p_value,
    psi,
    shift_chance_square,
    total_variation_distance,
    tv_by_chance,
    tv_critical_distance,
    wasserstein_distance,
)

_numbers = st.lists(
    st.one_of(st.integers(-5, 5).map(float), st.floats(allow_nan=False, width=32)),
    min_size=1,
    max_size=60,
)
_counts = st.lists(st.integers(0, 200), min_size=2, max_size=12).filter(lambda c: sum(c) > 0)


def _random_sample(rng: np.random.Generator, size: int) -> np.ndarray:
    kind = rng.integers(6)
    if kind == 0:
        return rng.normal(rng.normal() * 0.3, 1, size)
    if kind == 1:
        return rng.integers(0, rng.integers(1, 30), size).astype(float)
    if kind == 2:
        return np.where(rng.random(size) < 0.7, 0, rng.exponential(size=size))
    if kind == 3:
        return rng.lognormal(size=size)
    if kind == 4:
        return np.where(
            rng.random(size) < 0.2, rng.choice([-np.inf, np.inf], size), rng.normal(size=size)
        )
    return rng.normal(size=size).round(1)


# --- ks_distance ----------------------------------------------------------------------------------


def test_ks_distance_of_a_hand_computed_case_with_ties() -> None:
    # F: 1/4 at 1, 3/4 at 2, 1 at 5; G: 1/3 at 2, 1 at 3. Largest gap just below 2 or at 2: |3/4 -
    # 1/3|.
    assert ks_distance([1, 2, 2, 5], [2, 3, 3]) == pytest.approx(5 / 12, abs=1e-15)


def test_ks_distance_agrees_with_scipy_on_random_samples_of_any_shape_and_size() -> None:
    rng = np.random.default_rng(20130101)
    for _ in range(1500):
        n, m = np.exp(rng.uniform(0, np.log(5000), 2)).astype(int)
        reference, current = _random_sample(rng, n), _random_sample(rng, m)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # scipy's own p-value for tiny samples
            expected = stats.ks_2samp(reference, current, method="asymp").statistic
        assert ks_distance(reference, current) == pytest.approx(expected, abs=1e-12)


@given(_numbers, _numbers)
@settings(max_examples=200, deadline=None)
def test_ks_distance_is_symmetric_and_within_0_and_1(left: list[float], right: list[float]) -> None:
    distance = ks_distance(left, right)
    assert 0 <= distance <= 1
    assert distance == pytest.approx(ks_distance(right, left), abs=1e-15)
    assert ks_distance(left, left) == 0


@pytest.mark.parametrize(
    ("reference", "current", "distance"),
    [
        pytest.param([1.0], [1.0], 0.0, id="one equal row"),
        pytest.param([1.0], [2.0], 1.0, id="one other row"),
        pytest.param([-np.inf, 0.0], [np.inf, 0.0], 0.5, id="infinities are values"),
        pytest.param([0.0, -0.0], [0.0], 0.0, id="signed zero is zero"),
        pytest.param([np.nan, 1.0, 2.0], [np.nan, np.nan, 1.0, 2.0], 0.0, id="NaN is left out"),
        pytest.param([None, 1.5], [1.5], 0.0, id="None is left out"),
        pytest.param([True, False], [True, True], 0.5, id="booleans"),
        pytest.param([0.0, 1.0, 1e9], [0.0, 1.0], 1 / 3, id="an outlier blinds nothing"),
        pytest.param([2**60, 2**60 + 1], [2**60 + 1, 2**60 + 1], 0.5, id="beyond float64"),
        pytest.param([2**60, 2**60 + 1], [float(2**60), 0.5], 0.5, id="beyond float64, mixed"),
    ],
)
def test_ks_distance_edge(reference: list[object], current: list[object], distance: float) -> None:
    assert ks_distance(reference, current) == pytest.approx(distance, abs=1e-15)  # type: ignore[arg-type]


def test_ks_distance_compares_datetimes_of_different_units() -> None:
    days = np.array(["2024-01-01", "2024-01-02", "NaT"], dtype="datetime64[D]")
    assert ks_distance(days, days.astype("datetime64[ns]")) == 0
    assert ks_distance(days, days + np.timedelta64(1, "D")) == 0.5


@pytest.mark.parametrize("missing", [[], [np.nan], [None]])
def test_ks_distance_refuses_a_side_without_a_value(missing: list[object]) -> None:
    with pytest.raises(ValueError, match="current: has no value"):
        ks_distance([1.0], missing)  # type: ignore[arg-type]


def test_ks_distance_refuses_text() -> None:
    with pytest.raises(ValueError, match="reference: must be numbers"):
        ks_distance(["a"], [1.0])
    with pytest.raises(ValueError, match="mixed objects"):
        ks_distance([1.0], np.array([{}, 1], dtype=object))


# --- ks_p_value, ks_critical_distance, rank sum ---------------------------------------------------


def test_ks_p_value_of_a_hand_computed_case() -> None:
    # 20 equally likely orders of 3 + 3 values; in 2 of them one sample lies wholly below the other.
    assert ks_p_value(1.0, 3, 3) == pytest.approx(0.1, abs=1e-12)


def test_ks_p_value_agrees_with_the_exact_law_of_scipy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(150):
        n, m = np.exp(rng.uniform(0, np.log(500), 2)).astype(int)
        expected = stats.ks_2samp(rng.normal(size=n), rng.normal(0.2, 1, m), method="exact")
        assert ks_p_value(expected.statistic, n, m) == pytest.approx(expected.pvalue, abs=1e-9)


@pytest.mark.parametrize("sizes", [(1000, 1001), (500, 5000), (3000, 3000)])
def test_ks_p_value_is_close_to_the_exact_law_beyond_the_switch(sizes: tuple[int, int]) -> None:
    n, m = sizes
    distance = ks_critical_distance(0.05, n, m)
    assert ks_p_value(distance, n, m) == pytest.approx(0.05, rel=0.1)


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_ks_p_value_falls_with_the_distance(n: int, m: int, one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert 0 <= ks_p_value(high, n, m) <= ks_p_value(low, n, m) + 1e-8 <= 1 + 1e-8


def test_ks_p_value_refuses_an_empty_sample() -> None:
    with pytest.raises(ValueError, match="need a value"):
        ks_p_value(0.5, 0, 3)


@pytest.mark.parametrize("alpha", [0.05, 0.01, 2e-4])
@pytest.mark.parametrize("sizes", [(100, 1000), (500, 500), (500, 2000)])
def test_ks_critical_distance_is_exceeded_about_as_often_as_it_says(
    alpha: float, sizes: tuple[int, int]
) -> None:
    distance = ks_critical_distance(alpha, *sizes)
    # A quarter: a hundred values a side leave visible steps between possible distances.
    assert ks_p_value(distance, *sizes) == pytest.approx(alpha, rel=0.25)


def test_ks_critical_distance_of_tiny_samples_is_one_and_alpha_is_checked() -> None:
    assert ks_critical_distance(0.01, 1, 1) == 1.0
    with pytest.raises(ValueError, match="alpha"):
        ks_critical_distance(0.0, 10, 10)


def test_shift_and_its_chance_agree_with_scipy_with_and_without_ties() -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        reference = np.sort(_random_sample(rng, 80))
        current = np.sort(_random_sample(rng, 60))
        if reference[0] == current[0] == reference[-1] == current[-1]:
            continue  # scipy warns, we say 0
        cells = Edges(np.unique(np.concatenate([reference, current])))
        counted = cells.count(reference), cells.count(current)
        expected = stats.mannwhitneyu(current, reference, use_continuity=False, method="asymptotic")
        shift, square = rank_shift(*counted), shift_chance_square(*counted)
        assert shift == pytest.approx(2 * expected.statistic / 80 / 60 - 1, abs=1e-12)
        assert 2 * stats.norm.sf(abs(shift) / square**0.5) == pytest.approx(expected.pvalue)


def test_a_few_edges_tell_the_shift_almost_exactly() -> None:
    rng = np.random.default_rng(3)
    reference, current = np.sort(rng.normal(size=20_000)), np.sort(rng.normal(0.2, 1, 1000))
    cells = Edges.at_quantiles(reference)
    assert len(cells) < 600
    exact = 2 * stats.mannwhitneyu(current, reference).statistic / 20_000 / 1000 - 1
    found = rank_shift(cells.count(reference), cells.count(current))
    assert found == pytest.approx(exact, abs=1e-3)


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_a_shift_is_at_most_twice_the_distance(one: list[int], other: list[int]) -> None:
    """So a shift beyond twice the smallest distance that matters is one that does."""
    left, right = np.sort(np.array(one, float)), np.sort(np.array(other, float))
    cells = Edges.at_quantiles(left)
    shift = rank_shift(cells.count(left), cells.count(right))
    assert abs(shift) <= 2 * ks_distance(left, right) + 1e-12


def test_a_constant_has_no_shift_and_no_chance() -> None:
    cells = Edges.at_quantiles(np.ones(30))
    counts, same = cells.count(np.ones(30)), cells.count(np.ones(20))
    assert (rank_shift(counts, same), shift_chance_square(counts, same)) == (0.0, 0.0)
    assert rank_shift(counts, cells.count(np.full(20, 2.0))) == 1.0


# --- levels ---------------------------------------------------------------------------------------


def test_total_variation_of_a_hand_computed_case() -> None:
    assert total_variation_distance([5, 5, 0], [2, 5, 3]) == pytest.approx(0.3)


@given(_counts)
@settings(deadline=None)
def test_total_variation_is_within_0_and_1_and_symmetric(counts: list[int]) -> None:
    other = counts[::-1]
    distance = total_variation_distance(counts, other)
    assert 0 <= distance <= 1 + 1e-12
    assert distance == pytest.approx(total_variation_distance(other, counts))
    assert total_variation_distance(counts, [3 * c for c in counts]) == pytest.approx(0)


def test_total_variation_refuses_an_empty_side_and_other_shapes() -> None:
    with pytest.raises(ValueError, match="counts nothing"):
        total_variation_distance([0, 0], [1, 2])
    with pytest.raises(ValueError, match="one order of levels"):
        total_variation_distance([1], [1, 2])


def test_homogeneity_of_a_hand_computed_table() -> None:
    # All expected counts are 50; four cells off by 10: 4 * 100 / 50 = 8.
    assert homogeneity_test([60, 40], [40, 60]).statistic == pytest.approx(8.0)


def test_homogeneity_agrees_with_scipy_where_no_level_is_rare() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        table = rng.integers(30, 300, (2, 6))
        expected = stats.chi2_contingency(table, correction=False)
        found = homogeneity_test(*table)
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
        assert found.degrees_of_freedom == expected.dof


def test_homogeneity_holds_its_level_with_many_rare_levels() -> None:
    # Five rows per level on average: the raw table would be far from its chi-squared law.
    rng = np.random.default_rng(4)
    shares = rng.dirichlet(np.full(500, 0.5))
    alarms = sum(
        homogeneity_test(rng.multinomial(20_000, shares), rng.multinomial(2_000, shares)).p_value
        < 0.05
        for _ in range(300)
    )
    assert alarms / 300 < 0.09


@given(_counts)
@settings(deadline=None)
def test_homogeneity_of_equal_shares_is_no_evidence(counts: list[int]) -> None:
    assert homogeneity_test(counts, [2 * c for c in counts]).p_value == pytest.approx(1.0)


@pytest.mark.parametrize("levels", [2, 5, 50])
def test_tv_critical_distance_is_exceeded_at_most_as_often_as_it_says(levels: int) -> None:
    rng = np.random.default_rng(5)
    shares = rng.dirichlet(np.ones(levels))
    over = 0
    for _ in range(1000):
        reference, current = rng.multinomial(4000, shares), rng.multinomial(1000, shares)
        distance = total_variation_distance(reference, current)
        over += distance > tv_critical_distance(0.05, reference, current)
    assert over / 1000 < 0.07


@pytest.mark.parametrize("levels", [2, 10, 200])
def test_total_variation_by_chance_is_close_to_what_is_simulated(levels: int) -> None:
    rng = np.random.default_rng(6)
    shares = rng.dirichlet(np.full(levels, 5.0))
    squares = []
    for _ in range(400):
        reference, current = rng.multinomial(4000, shares), rng.multinomial(1000, shares)
        squares.append(total_variation_distance(reference, current) ** 2)
    expected = tv_by_chance(reference, current)
    tolerance = 0.2 if levels == 2 else 0.4  # two levels are exact, but for 400 samples
    assert expected.mean_square == pytest.approx(np.mean(squares), rel=tolerance)
    assert expected.spread == pytest.approx(np.std(squares) / np.mean(squares), rel=tolerance)


def test_psi_of_a_hand_computed_case() -> None:
    # (0.25 - 0.5) ln(0.5) + (0.75 - 0.5) ln(1.5), a half row apart.
    assert psi([50_000, 50_000], [25_000, 75_000]) == pytest.approx(0.27465, abs=1e-4)


@given(_counts)
@settings(deadline=None)
def test_psi_is_never_negative_and_finite_with_empty_levels(counts: list[int]) -> None:
    value = psi(counts, counts[::-1])
    assert 0 <= value < np.inf


def test_wasserstein_of_a_hand_computed_case() -> None:
    assert wasserstein_distance([0, 1, 3], [5, 6, 8]) == pytest.approx(5.0)


def test_wasserstein_agrees_with_scipy() -> None:
    rng = np.random.default_rng(7)
    for _ in range(50):
        reference, current = rng.normal(size=70), rng.normal(1, 2, 110).round(1)
        expected = stats.wasserstein_distance(reference, current)
        assert wasserstein_distance(reference, current) == pytest.approx(expected)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(-1e3, 1e3))
@settings(deadline=None)
def test_wasserstein_of_a_shift_is_the_shift(values: list[float], shift: float) -> None:
    moved = [value + shift for value in values]
    assert wasserstein_distance(values, moved) == pytest.approx(abs(shift), abs=1e-6)


def test_wasserstein_with_an_infinity_on_one_side_is_infinite() -> None:
    assert wasserstein_distance([0.0, np.inf], [0.0, np.inf]) == 0
    assert wasserstein_distance([0.0, 1.0], [0.0, np.inf]) == np.inf
