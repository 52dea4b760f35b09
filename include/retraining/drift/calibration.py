r"""What is out of the ordinary for this feature: the threshold a distance has to exceed.

The threshold is the largest of three:

* the practical floor `min_distance`: smaller changes never matter, however certain they are;
* chance: what two samples of one law of these sizes exceed with probability `alpha` / comparisons;
* history: what windows of the reference, each held against the rest of it, show as ordinary;
  those of the same time of year, where there are enough of them from earlier years.

Rows of one window are seldom independent and windows differ by season, so chance alone calls
ordinary windows drifted. What history shows beyond chance is a variance of its own,

.. math:: \tau^2 = \tfrac1W \sum_i d_i^2 - c\, E_{chance}[d^2], \quad
          \text{history}^2 = \text{chance}^2 + t_W(1 - \tfrac{\alpha}{2k})^2\, \tau^2

with *c* the upper 95 % limit that chance alone stays below, so that independent rows pay nothing
for being checked, and *t* the quantile of Student's law with W degrees of freedom: the bound for
one more window whose level varies like those of the history did. The two obvious rules are no such
bound: with 8 windows, an ordinary next one beats the largest distance seen in 1 of 9 checks, for
every feature anew, and "mean + 3 sd" in 1 of 20 (distances are skewed, and their sd is an
estimate). Both remain as lower limits. Few windows make the bound wide: that is what few windows
know.

Windows of one time of year lie apart from the year as a whole, each by about as much: there the
bound is the one for one more distance like theirs,
:math:`\bar d + t_{W-1}(1 - \frac{\alpha}{2k})\, s_d \sqrt{1 + 1/W}`.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from include.retraining.records import Calibration
from include.retraining.spec import Drift


class History(NamedTuple):
    """Leave-one-out distances: each window of the reference against all others, oldest first."""

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]
    starts: NDArray[np.datetime64] | None = None

    def measured(self, min_rows: int) -> History:
        """Give the windows that could be measured; on a few rows any distance looks ordinary."""
        return self._only(~np.isnan(self.distances) & (self.rows >= min_rows))

    def in_season(self, at: dt.datetime | None, least: int) -> History:
        """Give the windows of the same time of year, within 45 days of it.

        All of them, unless at least `least` of those are from earlier years: what is ordinary in
        July says little about January, but a few windows say little about anything.
        """
        if at is None or self.starts is None:
            return self
        day = np.timedelta64(1, "D")
        age = (np.datetime64(at.astimezone(dt.UTC).replace(tzinfo=None)) - self.starts) / day
        alike = np.abs((age + _YEAR / 2) % _YEAR - _YEAR / 2) <= _SEASON
        earlier_years = alike & (age > _YEAR - 2 * _SEASON)
        return self._only(alike) if earlier_years.sum() >= least else self

    def _only(self, kept: NDArray[np.bool_]) -> History:
        starts = None if self.starts is None else self.starts[kept]
        return History(self.rows[kept], self.distances[kept], starts)


Basis = Literal["floor", "chance", "history", "rows", "unbounded"]


class Threshold(NamedTuple):
    """What a distance has to exceed, and why it is this much.

    `basis` names the largest of the three; where the state is `insufficient`, it is ``rows`` (too
    few) or ``unbounded`` (no distance could exceed the threshold). `seasonal` says that only
    windows of the same time of year counted.
    """

    value: float
    state: Calibration
    basis: Basis
    ordinary: float
    windows: int
    seasonal: bool = False


_YEAR, _SEASON = 365.2425, 45.0  # days

# Standard deviation of a squared Kolmogorov-Smirnov distance by chance, in units of its mean.
_CHANCE_SPREAD = 0.65


def find_threshold(
    history: History,
    *,
    chance: float,
    chance_square: float,
    sizes: tuple[int, int],
    comparisons: int,
    policy: Drift,
    chance_ruled_out: bool = False,
    at: dt.datetime | None = None,
) -> Threshold:
    """Give the threshold of one feature.

    Parameters
    ----------
    history : History
        Leave-one-out distances of the reference's windows.
    chance : float
        The critical distance of independent rows at ``policy.alpha / comparisons``.
    chance_square : float
        The mean squared distance of independent rows of these sizes.
    sizes : tuple of int
        Rows of the reference and of the current window that hold a value.
    comparisons : int
        How many features are judged together, at least 1.
    policy : Drift
        The settings of the model file.
    chance_ruled_out : bool, default=False
        A test of greater power than the distance's has excluded chance; counts only where the
        history shows that rows are as good as independent.
    at : datetime, optional
        Start of the current window: where the history reaches back far enough, only windows of its
        time of year count.

    Returns
    -------
    Threshold
        `uncalibrated` with fewer than ``min_history_windows`` measured windows: then floor and
        chance alone set it. `insufficient` with fewer than ``min_rows`` rows on a side, or where no
        distance could exceed the threshold.
    """
    all_rows = int(history.rows.sum())
    measured = history.measured(policy.min_rows)
    history = measured.in_season(at, policy.min_history_windows)
    distances = history.distances
    ordinary = float(np.max(distances, initial=0.0))
    candidates: dict[Basis, float] = {"floor": policy.min_distance, "chance": chance}
    state: Calibration = "uncalibrated"
    seasonal = False
    if len(distances) >= policy.min_history_windows:
        state = "calibrated"
        beyond_chance = _variance_beyond_chance(history, all_rows, chance_square, sizes)
        seasonal = len(history.rows) < len(measured.rows)
        lower = float(distances.mean() + policy.ordinary_sigmas * distances.std(ddof=1))
        candidates["history"] = max(ordinary, lower)
        if seasonal:  # all of them lie apart from the rest of the year, by about as much
            spread = float(distances.std(ddof=1)) * (1 + 1 / len(distances)) ** 0.5
            sigmas = _student_quantile(len(distances) - 1, policy.alpha / comparisons)
            bound = float(distances.mean()) + sigmas * spread
            candidates["history"] = max(candidates["history"], bound)
        elif beyond_chance > 0:
            sigmas = _student_quantile(len(distances), policy.alpha / comparisons)
            bound = (chance**2 + sigmas**2 * beyond_chance) ** 0.5
            candidates["history"] = max(candidates["history"], bound)
        elif chance_ruled_out:
            candidates["chance"] = 0.0
    basis = max(candidates, key=lambda name: candidates[name])
    value = min(1.0, candidates[basis])
    if min(sizes) < policy.min_rows:
        state, basis = "insufficient", "rows"
    elif value >= 1.0:
        state, basis = "insufficient", "unbounded"
    return Threshold(value, state, basis, ordinary, len(distances), seasonal)


def _variance_beyond_chance(
    history: History, all_rows: int, chance_square: float, sizes: tuple[int, int]
) -> float:
    """Give how much the mean squared distance of the history exceeds what chance explains."""
    rows = history.rows.astype(np.float64)
    others = np.maximum(all_rows - rows, 1.0)
    # Chance shrinks with the sizes: the windows had other ones than the current check.
    scale = (1 / rows + 1 / others) / (1 / sizes[0] + 1 / sizes[1])
    limit = 1 + 1.645 * _CHANCE_SPREAD / len(rows) ** 0.5
    beyond = float((history.distances**2 - limit * chance_square * scale).mean())
    # A window shorter than usual averages over less of what makes windows differ.
    return max(0.0, beyond) * max(1.0, float(np.median(rows)) / sizes[1])


def _student_quantile(windows: int, alpha: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(windows, 1 - alpha / 2))
