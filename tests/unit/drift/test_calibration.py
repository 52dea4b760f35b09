"""The threshold is the largest of floor, chance and history, and says which."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.retraining.drift.calibration import (
    Chance,
    History,
    find_threshold,
    normal_quantile,
    student_quantile,
)
from include.retraining.drift.dependence import Dependence
from include.retraining.drift.measure import measure_columns
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.errors import DataError
from include.retraining.records import FeatureDrift
from include.retraining.spec import Drift

_SETTINGS = Drift(min_distance=0.05, alpha=0.01, min_rows=100, min_history_windows=4)


def _history(distances: list[float], rows: int = 10_000) -> History:
    return History(np.full(len(distances), rows), np.array(distances))


def _threshold(history: History, **changes: object):  # type: ignore[no-untyped-def]
    settings_: dict[str, object] = {
        "chance": Chance(0.02, 1e-4, 0.65),
        "sizes": (80_000, 10_000),
        "alpha": 0.002,
        "floor": 0.05,
        "settings": _SETTINGS,
    }
    return find_threshold(history, **(settings_ | changes))  # type: ignore[arg-type]


def test_floor_holds_where_chance_and_history_are_small() -> None:
    threshold = _threshold(_history([0.01] * 8))
    assert (threshold.value, threshold.basis, threshold.state) == (0.05, "floor", "calibrated")


def test_a_floor_far_beyond_what_is_ordinary_leaves_alpha_over() -> None:
    left = _threshold(_history([0.01] * 8)).unused  # the bound is chance's 0.02, two fifths of it
    assert left == pytest.approx(1 - 0.4**_SETTINGS.tail_windows)
    assert _threshold(_history([0.01] * 8), floor=0.0).unused == 0.0
    assert _threshold(_history([0.01] * 8), chance=Chance(0.2, 0.01, 0.65)).unused == 0.0


def test_chance_holds_where_rows_are_few() -> None:
    threshold = _threshold(_history([0.01] * 8), chance=Chance(0.2, 0.01, 0.65))
    assert (threshold.value, threshold.basis) == (0.2, "chance")


def test_history_holds_where_windows_differ_among_themselves() -> None:
    threshold = _threshold(_history([0.05, 0.1, 0.12, 0.08, 0.06, 0.11, 0.09, 0.1]))
    assert threshold.basis == "history"
    assert threshold.value > 0.2
    assert threshold.ordinary == 0.12


def _limit(windows: int) -> float:
    """What the mean of so many squares of spread 0.65 stays below in 95 %."""
    from scipy.stats import chi2

    freedom = 2 * windows / 0.65**2
    return float(chi2.ppf(0.95, freedom) / freedom)


def test_the_bound_of_a_hand_computed_history() -> None:
    # Windows of one size, all 0.1 apart: tau^2 = 0.01 - limit * chance_square * scale;
    # scale = (1/10000 + 1/30000) / (1/40000 + 1/10000) = 16/15; four degrees of freedom.
    from scipy.stats import t

    tau = 0.01 - _limit(4) * 1e-4 * 16 / 15
    expected = (0.02**2 + t.ppf(1 - 0.002 / 2, 4) ** 2 * tau) ** 0.5
    threshold = _threshold(_history([0.1] * 4), sizes=(40_000, 10_000))
    assert threshold.value == pytest.approx(expected, rel=1e-9)


def test_too_few_windows_are_uncalibrated_and_set_nothing() -> None:
    threshold = _threshold(_history([0.3, 0.4, 0.3]))
    assert (threshold.state, threshold.basis, threshold.windows) == ("uncalibrated", "floor", 3)
    assert _threshold(_history([0.06, 0.07, 0.06, 0.07])).state == "calibrated"


def test_windows_that_could_not_be_measured_do_not_count() -> None:
    threshold = _threshold(_history([0.3, np.nan, 0.3, 0.2]))
    assert (threshold.state, threshold.windows) == ("uncalibrated", 3)


def test_windows_of_a_few_rows_do_not_widen_what_is_ordinary() -> None:
    history = _history([0.01] * 8)
    rows, distances = np.append(history.rows, 99), np.append(history.distances, 0.8)
    assert _threshold(History(rows, distances)).value == _threshold(history).value


@pytest.mark.parametrize(
    ("sizes", "state"),
    [((100, 100), "calibrated"), ((99, 100), "insufficient"), ((100, 99), "insufficient")],
)
def test_too_few_rows_on_a_side_are_insufficient(sizes: tuple[int, int], state: str) -> None:
    threshold = _threshold(_history([0.01] * 8), sizes=sizes)
    assert threshold.state == state
    assert (threshold.basis == "rows") == (state == "insufficient")


def test_a_threshold_no_distance_could_exceed_is_insufficient() -> None:
    threshold = _threshold(_history([0.9, 1.0, 0.8, 0.95]))
    assert (threshold.value, threshold.state, threshold.basis) == (1.0, "insufficient", "unbounded")


def test_more_windows_than_tail_windows_make_the_bound_no_sharper() -> None:
    history = _history([0.1] * 20)
    four, twenty = (
        _threshold(history, settings=_SETTINGS.model_copy(update={"tail_windows": windows})).value
        for windows in (4, 20)
    )
    # tau^2 = 0.01 - limit * 1e-4 * scale of the sizes
    scale = (1 / 10_000 + 1 / 190_000) / (1 / 80_000 + 1 / 10_000)
    tau = (0.01 - _limit(20) * 1e-4 * scale) ** 0.5
    expected = (0.02**2 + (student_quantile(4, 0.002) * tau) ** 2) ** 0.5
    assert four == pytest.approx(expected, rel=1e-9)
    assert twenty < 0.6 * four


def test_neighbours_that_are_alike_widen_chance() -> None:
    """Rows that count as a tenth of their number: chance is that of a tenth of the rows."""
    dependent = _history([10**0.5 * 0.0103] * 20)._replace(dependence=Dependence(10.0, 160))
    found = _threshold(dependent)
    assert (found.basis, found.design_effect) == ("chance", 10.0)
    assert found.value == pytest.approx(student_quantile(160, 0.002) * 10**0.5 * 0.01)


def test_blocks_may_say_no_more_than_windows_leave_possible() -> None:
    """A day's cycle makes the parts of a week differ, but no two weeks."""
    history = _history([0.0103] * 20)._replace(dependence=Dependence(100.0, 160))
    found = _threshold(history)
    # The 1 % point of chi-squared over 20 is 0.413: the mean square may be 2.42 times what it is.
    scale = (1 / 10_000 + 1 / 190_000) / (1 / 80_000 + 1 / 10_000)
    assert found.design_effect == pytest.approx(0.0103**2 / (1e-4 * scale) * 2.42, rel=0.01)


def test_a_normal_quantile_is_the_limit_of_students() -> None:
    assert student_quantile(1e9, 0.001) == pytest.approx(normal_quantile(0.001), rel=1e-6)


def test_a_shorter_current_window_gets_a_wider_bound() -> None:
    history = _history([0.1] * 8)
    same = _threshold(history)
    shorter = _threshold(history, sizes=(80_000, 2_500))
    assert shorter.value > 1.5 * same.value


@given(
    st.lists(st.floats(0, 1), min_size=4, max_size=26),
    st.floats(0.001, 0.3),
    st.integers(1, 50),
)
@settings(deadline=None)
def test_the_threshold_is_never_below_floor_chance_or_largest_distance(
    distances: list[float], critical: float, comparisons: int
) -> None:
    chance = Chance(critical, 1e-4, 0.65)
    found = _threshold(_history(distances), chance=chance, alpha=0.01 / comparisons)
    assert found.value >= min(1.0, max(0.05, critical, *distances))
    more = _threshold(_history(distances), chance=chance, alpha=0.01 / (comparisons + 1))
    assert more.value >= found.value


def test_an_ordinary_next_window_is_rarely_out_of_the_ordinary() -> None:
    # Window means differ by chance of their own (sd 0.3); 10 features share alpha = 1 %.
    rng = np.random.default_rng(0)
    alarms, windows, features = 0, 12, 400
    for _ in range(features):
        means = rng.normal(0, 0.3, windows + 1)
        # Distance of two normals whose means lie delta apart, times sampling noise: about 0.4
        # delta.
        distances = 0.4 * np.abs(means[:-1] - means[:-1].mean()) * windows / (windows - 1)
        current = 0.4 * abs(means[-1] - means[:-1].mean())
        alarms += current > _threshold(_history(list(distances)), alpha=0.001).value
    assert alarms / features <= 0.01


def years_of_weeks(years: int) -> tuple[list[dt.datetime], list[pa.Table]]:
    """Warm summers and cold winters, alike every year."""
    random = np.random.default_rng(11)
    starts, windows = [], []
    for week in range(52 * years):
        start = dt.datetime(2020, 1, 6, tzinfo=dt.UTC) + dt.timedelta(weeks=week)
        warm = -np.cos(2 * np.pi * start.timetuple().tm_yday / 365.25) * 2
        starts.append(start)
        windows.append(pa.table({"temp": random.normal(warm, 1.0, 300)}))
    return starts, windows


def measured(years: int, at: dt.datetime | None, mean: float) -> FeatureDrift:
    starts, windows = years_of_weeks(years)
    built = ReferenceProfile.build(windows, numeric=["temp"], starts=starts)
    profile = ReferenceProfile.from_bytes(built.to_bytes())
    now = pa.table({"temp": np.random.default_rng(12).normal(mean, 1.0, 300)})
    return measure_columns(profile, now, settings=Drift(), at=at)[0]


def test_what_is_ordinary_in_july_says_little_about_spring():
    """A frost in April is within what a year shows, and out of what Aprils show."""
    april = dt.datetime(2023, 4, 10, tzinfo=dt.UTC)
    by_year = measured(3, None, -4.0)
    by_season = measured(3, april, -4.0)
    assert not by_year.drifted
    assert by_season.drifted
    assert "at this time of year" in by_season.reason
    assert by_season.threshold is not None
    assert by_year.threshold is None  # no distance would be: the outline was judged
    assert by_year.state == "calibrated"
    july = dt.datetime(2023, 7, 10, tzinfo=dt.UTC)
    assert not measured(3, july, 2.0).drifted


def test_without_earlier_years_all_windows_count():
    at = dt.datetime(2020, 7, 6, tzinfo=dt.UTC)
    assert measured(1, at, 0.0) == measured(1, None, 0.0)


def test_one_start_per_window():
    starts, windows = years_of_weeks(1)
    with pytest.raises(DataError, match="must be one per window, got 51 of 52"):
        ReferenceProfile.build(windows, numeric=["temp"], starts=starts[1:])
