from __future__ import annotations

import numpy as np
import pytest

from include.retraining.learning.sequential import evidence


def alternately(*gains: float, error: float = 0.005, margin: float = 0.005):
    return evidence(np.array(gains), np.full(len(gains), error), margin=margin)


def test_more_windows_that_say_the_same_weigh_more():
    worse = [alternately(*[-0.02] * count).worse for count in range(1, 6)]
    assert worse == sorted(worse)
    assert worse[0] < np.log(100) < worse[3]
    assert alternately(*[0.0] * 20).worse < 0
    assert alternately(*[0.0] * 20).not_worse > np.log(20)
    assert alternately(*[-0.005] * 20).not_worse < 0


def test_what_is_better_is_never_called_worse():
    found = [alternately(*[0.01] * count) for count in range(1, 20)]
    assert max(one.worse for one in found) < 0
    assert found[-1].not_worse > np.log(20)


def test_windows_that_differ_by_much_more_than_their_rows_explain_weigh_less():
    steady = alternately(-0.01, -0.01, -0.01, -0.01)
    wild = alternately(-0.05, 0.03, -0.05, 0.03)
    assert wild.worse < steady.worse


def test_the_unit_of_the_metric_does_not_matter():
    small, large = alternately(-0.01, -0.02), alternately(-10, -20, error=5, margin=5)
    assert small == pytest.approx(large)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_equal_models_are_called_worse_in_less_than_one_of_a_hundred_years(spread):
    """The bound that `benchmarks.guard` measures in full; here 300 years, with their seed."""
    generator = np.random.default_rng(1)
    gains = 0.005 * generator.normal(size=(300, 52)) * np.hypot(1, spread)
    errors = np.full(52, 0.005)
    false = sum(
        any(
            evidence(year[:count], errors[:count], margin=0.005).worse > np.log(100)
            for count in range(1, 53, 3)
        )
        for year in gains
    )
    assert false <= 3


@pytest.mark.parametrize(
    ("gains", "errors", "margin"),
    [
        pytest.param([], [], 0.1, id="no-window"),
        pytest.param([0.1], [0.0], 0.1, id="no-error"),
        pytest.param([0.1], [0.1], 0.0, id="no-margin"),
    ],
)
def test_what_cannot_be_weighed_is_refused(gains, errors, margin):
    with pytest.raises(ValueError, match="must be"):
        evidence(np.array(gains), np.array(errors), margin=margin)
