"""A scale without a ceiling: what no distance can tell is told by where a window lies."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from include.retraining.drift.cells import cells_for, slices
from include.retraining.drift.measure import measure_columns
from include.retraining.drift.moderation import Prior, find_prior
from include.retraining.drift.outline import draw, outline_now
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.records import FeatureDrift
from include.retraining.spec import Drift


def check(windows: list[np.ndarray], now: np.ndarray) -> FeatureDrift:
    """Hold one column against its history, through the bytes of a profile."""
    built = ReferenceProfile.build([pa.table({"x": one}) for one in windows], numeric=["x"])
    profile = ReferenceProfile.from_bytes(built.to_bytes())
    (found,) = measure_columns(profile, pa.table({"x": now}), settings=Drift())
    return found


def windows_that_differ(by: float, count: int = 8, rows: int = 500) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.normal(rng.normal() * by, 1, rows) for _ in range(count)]


@pytest.mark.parametrize("by", [0.7, 1.0])
def test_a_column_of_which_no_distance_is_odd_is_judged_by_where_it_lies(by):
    windows = windows_that_differ(by)
    rng = np.random.default_rng(5)
    ordinary = check(windows, rng.normal(by, 1, 500))
    assert ordinary.threshold is None
    assert not ordinary.drifted
    assert ordinary.is_judged
    assert ordinary.state == "calibrated"
    assert "location and spread are ordinary" in ordinary.reason
    odd = check(windows, rng.normal(10, 1, 500))
    assert odd.drifted
    assert odd.excess > 1
    assert "times the usual spread away" in odd.reason


def test_a_unit_that_changed_is_seen_whatever_the_weeks_are_like():
    """Pressure in hectopascals, then in inches of mercury: each week has its own weather."""
    rng = np.random.default_rng(6)
    windows = [np.round(rng.normal(1013 + rng.normal() * 6, 4, 600), 1) for _ in range(20)]
    now = np.round(rng.normal(1015, 4, 600), 1)
    assert not check(windows, now).drifted
    inches = check(windows, now * 0.02953)
    assert inches.drifted
    assert "100% of rows lie outside of everything that any window has shown" in inches.reason


def test_values_that_repeat_and_none_has_shown_are_seen_within_the_range():
    """Degrees come in steps; a sensor that is off by half a step falls between them."""
    rng = np.random.default_rng(7)
    steps = lambda mean: np.round(rng.normal(mean, 5, 800)) * 1.8 + 32  # noqa: E731
    windows = [steps(15 + rng.normal() * 6) for _ in range(12)]
    between = steps(15) + 0.7
    found = check(windows, between)
    assert found.drifted
    assert found.furthest.name == "never seen"
    assert "of rows hold a value that no window has shown" in found.reason


def test_a_feed_that_is_cut_off_piles_up_at_its_end():
    windows = windows_that_differ(1.0)
    cut = np.minimum(np.random.default_rng(8).normal(0, 1, 500), 0.8)
    found = check(windows, cut)
    assert {one.name for one in found.outline if one.times > 1} == {"pile-up"}
    assert "of rows hold the lowest or highest value" in found.reason


def test_one_value_that_most_rows_hold_does_not_make_quantiles_jump():
    rng = np.random.default_rng(9)
    counts = lambda: np.where(rng.random(800) < 0.85, 0, rng.poisson(3, 800))  # noqa: E731
    windows = [counts() for _ in range(10)]
    assert not any(check(windows, counts()).drifted for _ in range(20))
    assert check(windows, counts() * 100).drifted


@pytest.mark.parametrize("rows", [40, 3000])
def test_what_is_drawn_from_a_few_cells_is_what_all_values_show(rows):
    rng = np.random.default_rng(10)
    windows = [np.sort(rng.gamma(2, 3, 2000)) for _ in range(6)]
    reference = np.sort(np.concatenate(windows))
    cells = cells_for(reference)
    now = np.sort(rng.gamma(2, 4, rows))
    outlines, counts = draw(windows), cells.count(now)
    inside = partial(slices, now, counts)
    drawn = outline_now(outlines, reference, counts, inside)
    again = draw([*windows, now]).windows[-1]
    ruler = draw([*windows, now]).ruler
    assert ruler.unit == pytest.approx(outlines.ruler.unit, rel=0.2)
    location = drawn.location * outlines.ruler.unit + outlines.ruler.usual
    assert location == pytest.approx(again[0] * ruler.unit + ruler.usual)
    assert drawn.at_an_end == again[2] == 1 / rows
    assert drawn.outside == again[3] == (now > reference[-1]).mean() + (now < reference[0]).mean()


def test_nothing_is_judged_before_there_is_a_history():
    windows = windows_that_differ(0.3, count=3)
    assert check(windows, windows[0] + 10).outline == ()
    assert check(windows_that_differ(0.3), np.arange(20.0)).outline == ()


@pytest.mark.parametrize("odd", [np.inf, -np.inf])
def test_infinite_values_are_told_as_very_far_and_break_nothing(odd):
    windows = windows_that_differ(0.3)
    now = np.full(500, odd)
    found = check(windows, now)
    assert found.drifted
    assert all(np.isfinite(one.value) for one in found.outline)
    assert FeatureDrift.model_validate_json(found.model_dump_json()) == found
    assert check([*windows[:-1], now], windows[-1]).state == "calibrated"


def test_what_was_constant_is_marked():
    windows = [np.full(300, 7.0) for _ in range(6)]
    assert check(windows, np.full(300, 8.0)).was_constant
    assert check(windows, np.full(300, 8.0)).drifted
    assert not check(windows_that_differ(0.1), np.zeros(300)).was_constant


def test_variances_of_one_law_are_worth_more_windows_and_those_of_many_laws_are_not():
    rng = np.random.default_rng(11)
    alike = rng.chisquare(4, 60) / 4
    found = find_prior(alike, 4)
    assert found.freedom > 20
    assert found.variance == pytest.approx(1, rel=0.2)
    apart = alike * np.exp(rng.normal(0, 3, 60))
    assert find_prior(apart, 4).freedom < 1.5
    variance, freedom = found.moderate(0.001, 4)
    assert variance == pytest.approx(found.variance, rel=0.2)
    assert freedom <= 60 * 4
    assert Prior().moderate(0.5, 4) == (0.5, 4)
    assert find_prior(alike[:2], 4) == Prior()


def test_few_windows_that_happen_to_be_alike_do_not_make_an_ordinary_one_odd():
    """Ten columns, four windows that differ a little: today's rows are as ordinary as they get."""
    names = [f"x{n}" for n in range(10)]
    alarms = 0
    for seed in range(12):
        rng = np.random.default_rng([12, seed])
        tables = [
            pa.table({name: rng.normal(rng.normal() * 0.1, 1, 1000) for name in names})
            for _ in range(5)
        ]
        profile = ReferenceProfile.build(tables[:4], numeric=names)
        found = measure_columns(profile, tables[4], settings=Drift())
        alarms += any(one.drifted for one in found)
    assert alarms <= 1  # without the other columns' word: 1 in 4
