from __future__ import annotations

import numpy as np
import pytest

from include.retraining.learning import metrics
from include.retraining.learning.fall import Series, find_fall

RNG = np.random.default_rng(8)


def looks(values: np.ndarray, error: float, *, promise: float, room: float) -> list[float]:
    """Likelihood ratios after each window."""
    errors = np.full(len(values), error)
    found = []
    for look in range(1, len(values) + 1):
        series = Series(values[:look], errors[:look])
        found.append(find_fall(series, promise=(promise, error), room=room).times)
    return found


def test_a_fall_for_good_is_found_and_dated():
    values = np.r_[np.full(8, 0.75), np.full(4, 0.71)]
    found = find_fall(Series(values, np.full(12, 0.01)), promise=(0.75, 0.01), room=0.25)
    assert found.times > 20
    assert found.since == 8
    assert (found.before, found.after) == pytest.approx((0.75, 0.71))


def test_what_rises_or_stays_is_no_fall():
    for values in (np.full(12, 0.75), np.linspace(0.75, 0.9, 12)):
        assert max(looks(values, 0.01, promise=0.75, room=0.25)) < 1


def test_the_unit_does_not_matter():
    values = RNG.normal(0.7, 0.02, 9)
    one = looks(values, 0.01, promise=0.72, room=0.3)
    other = looks(1000 * values, 10.0, promise=720, room=300)
    assert one == pytest.approx(other)


@pytest.mark.parametrize(
    ("level", "room", "spread", "error"),
    [
        pytest.param(0.75, 0.25, 0.02, 0.01, id="as the bench"),
        pytest.param(0.97, 0.03, 0.02, 0.003, id="nearly perfect"),
        pytest.param(-10.0, 10.0, 3.0, 0.3, id="an error that differs by a third"),
    ],
)
def test_where_nothing_changes_harm_is_told_in_one_of_twenty_half_years(level, room, spread, error):
    generator, false = np.random.default_rng(3), 0
    for _ in range(60):
        values = level + spread * generator.normal(size=27) + error * generator.normal(size=27)
        false += max(looks(values[1:], error, promise=values[0], room=room)) > 20
    assert false <= 3


def test_more_positives_alone_move_no_proper_score():
    """Else harm would be told of a champion that is as good as it was."""

    def scored(share: float) -> metrics.ProperScore:
        labels = (np.arange(4000) < 4000 * share).astype(float)
        scores = np.where(labels == 1, 0.6, 0.3)
        return metrics.proper_score("binary", labels, scores)

    assert scored(0.25).value == pytest.approx(scored(0.4).value) == pytest.approx(-0.125)
    exact = metrics.proper_score("regression", np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    assert (exact.metric, exact.value) == ("neg_mean_squared_error", -2.5)
    three = np.eye(3)[[0, 1, 2]] * 0.7 + 0.1
    assert metrics.proper_score("multiclass", np.array([0.0, 1, 2]), three).value == pytest.approx(
        -(0.2**2 + 2 * 0.1**2)
    )


@pytest.mark.parametrize("room", [0.0, -1.0])
def test_wrong_room_is_refused(room):
    with pytest.raises(ValueError, match="room"):
        find_fall(Series(np.ones(3), np.ones(3)), promise=None, room=room)


def test_one_value_says_nothing():
    assert find_fall(Series(np.ones(1), np.ones(1)), promise=None, room=1.0) is None
