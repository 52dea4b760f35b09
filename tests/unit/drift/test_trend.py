"""A drift too small to matter is found when it grows, and left alone when it does not."""

import numpy as np
import pytest

from include.retraining.drift.calibration import normal_quantile
from include.retraining.drift.trend import LOOK_AHEAD, Trend, find_trend

_ERRORS = (0.01, 0.002)
_LIMIT = 3.3


def _find(shifts: list[float], **changes: object) -> Trend | None:
    settings: dict[str, object] = {"errors": _ERRORS, "limit": _LIMIT, "floor": 0.1}
    settings |= changes
    of_window, of_reference = settings.pop("errors")  # type: ignore[misc]
    errors = [of_window] * len(shifts)
    settings["reference_error"] = of_reference
    return find_trend(range(len(shifts)), shifts, errors, **settings)  # type: ignore[arg-type]


def test_a_steady_rise_is_told_with_its_pace_and_when_it_matters() -> None:
    found = _find([0.02, 0.04, 0.06])
    assert found == pytest.approx(Trend(windows=3, now=0.06, slope=0.02, ahead=2.0))


def test_a_steady_fall_is_told_with_its_sign() -> None:
    found = _find([-0.02, -0.04, -0.06])
    assert found == pytest.approx(Trend(windows=3, now=-0.06, slope=-0.02, ahead=2.0))


def test_two_windows_are_no_trend() -> None:
    assert _find([0.05, 0.09]) is None


def test_a_small_change_that_stays_is_no_trend() -> None:
    assert _find([0.04] * 8, errors=(1e-4, 1e-5)) is None


def test_a_change_that_goes_back_is_no_trend() -> None:
    assert _find([0.09, 0.07, 0.05]) is None


def test_a_rise_too_slow_to_matter_soon_is_left_alone() -> None:
    errors = (1e-5, 1e-6)
    slow = 0.1 / (3 + LOOK_AHEAD)
    assert _find([slow * i for i in (1, 2, 3)], errors=errors) is not None
    assert _find([0.99 * slow * i for i in (1, 2, 3)], errors=errors) is None


def test_certain_means_beyond_what_windows_and_the_reference_leave_to_chance() -> None:
    # Of windows that rise by b each, t V^-1 s is b t V^-1 t; by Sherman and Morrison
    # t V^-1 t = (sum t^2 - r (sum t)^2 / (1 + 8 r)) / s_w^2 with r = (s_r / s_w)^2.
    errors = (0.01, 0.004)
    r = (errors[1] / errors[0]) ** 2
    information = (204 - r * 36**2 / (1 + 8 * r)) / errors[0] ** 2
    edge = _LIMIT / information**0.5
    for factor, is_trend in ((1.001, True), (0.999, False)):
        rise = [factor * edge * i for i in range(1, 9)]
        assert (_find(rise, errors=errors, floor=0.01) is not None) == is_trend


def test_a_shift_beyond_what_matters_needs_no_look_ahead() -> None:
    found = _find([0.1, 0.15, 0.2])
    assert found is not None
    assert found.ahead == 0.0


def test_a_missing_window_is_a_gap_in_time() -> None:
    found = find_trend(
        [3, 4, 6], [0.02, 0.04, 0.08], [0.01] * 3, reference_error=0.002, limit=_LIMIT, floor=0.1
    )
    assert found == pytest.approx(Trend(windows=3, now=0.08, slope=0.02, ahead=1.0))


def test_nothing_moves_and_nothing_is_found() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(5000):
        shifts = rng.normal(0, 0.01, 8) + rng.normal(0, 0.002)
        found += _find(list(shifts), limit=normal_quantile(0.01), floor=0.0) is not None
    assert found / 5000 <= 0.01


def test_a_window_of_a_few_rows_weighs_little() -> None:
    """One of five windows is far off, by chance of its few rows; now nothing is."""
    shifts, errors = [0.0, 0.0, 0.0, 0.0, 0.3, 0.0], [0.01] * 4 + [0.1, 0.01]
    settings = {"reference_error": 0.002, "limit": _LIMIT, "floor": 0.1}
    assert find_trend(range(6), shifts, errors, **settings) is None
