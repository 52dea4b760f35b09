r"""What is out of the ordinary for this feature: the threshold a distance has to exceed.

The threshold is the largest of three:

* the practical floor: smaller changes never matter, however certain they are;
* chance: what two samples of one law exceed with probability `alpha`. Rows that follow one another
  are often alike, and then fewer rows' worth of chance averages out;
* history: what windows of the reference, each held against the rest of it, show as ordinary;
  those of the same time of year, where there are enough of them from earlier years.

How alike neighbouring rows are is the design effect *g*, read off *B* blocks of the windows
(dependence.py). With it,

.. math:: \text{chance}^2 = t_B(1 - \tfrac{\alpha}{2})^2\, g\, E_{chance}[d^2]

is the bound for a distance that moves as a whole, which is the widest law a distance can have.

Windows may differ by more than that, for reasons of their own (a season, a holiday). What history
shows beyond chance is a variance,

.. math:: \tau^2 = (r - 1)\, g\, E_{chance}[d^2], \quad
          r = \frac{d_0 r_0 + (W - 1)\, \hat r}{d_0 + W - 1}, \quad
          \hat r = \frac{\sum_i d_i^2}{W\, g\, E_{chance}[d^2]}, \quad
          \text{history}^2 = \text{chance}^2 + t_\nu(1 - \tfrac{\alpha}{2})^2\, \tau^2

with *t* the quantile of Student's law: the bound for one more window whose level varies like those
of the history did. Few windows sometimes differ by little, by chance; so what a column shows is
moderated by what all of them show, *r0* worth *d0* windows (moderation.py). Where no other columns
say so, what chance alone reaches in 95 % is taken for chance, so that rows of one law pay nothing.
Its degrees of freedom are the number of windows, but at most `tail_windows`: the levels of real
windows have heavier tails than a normal law, and some dozen of them do not show those. Some 4 are
customary where a tail cannot be estimated (Lange, Little and Taylor). The obvious rule, the largest
distance seen, is no such bound: with 8 windows, an ordinary next one beats it in 1 of 9 checks, for
every feature anew. It remains as a lower limit. Few windows make the bound wide: that is what few
windows know.

Windows of one time of year lie apart from the year as a whole, each by about as much: there the
bound is the one for one more distance like theirs,
:math:`\bar d + t_\nu(1 - \frac{\alpha}{2})\, s_d \sqrt{1 + 1/W}`. So it is, if that is more, for
the total variation of many levels, which by chance is about its mean: there *s_d* tells of
differences that the mean square hides.

References
----------
Lange, K. L., Little, R. J. A. and Taylor, J. M. G. (1989). Robust statistical modeling using the t
distribution. Journal of the American Statistical Association 84, 881-896.
"""

from __future__ import annotations

import datetime as dt
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from include.retraining.drift.dependence import INDEPENDENT, Dependence, upper_limit
from include.retraining.drift.moderation import Prior
from include.retraining.drift.statistics import NORMAL_SPREAD
from include.retraining.records import Calibration
from include.retraining.spec import Drift

# What a numeric column may cost in false alarms is shared by what is asked of it: is its law
# another, did its values move, do they keep moving, are more of them missing? Most drift moves
# values.
DISTANCE_SHARE, SHIFT_SHARE, TREND_SHARE, MISSING_SHARE = 0.15, 0.45, 0.3, 0.1
_YEAR, _SEASON = 365.2425, 45.0  # days
_CONCENTRATED = 0.5  # spread below which a distance is about its mean, as of many levels


class Chance(NamedTuple):
    """What two samples of one law show, were all rows independent.

    `critical` is the distance exceeded with the allowed probability, `mean_square` the mean squared
    distance, `spread` the standard deviation of the squared distance in units of its mean.
    """

    critical: float
    mean_square: float
    spread: float


class History(NamedTuple):
    """Leave-one-out distances: each window of the reference against all others, oldest first.

    `prior` says how many times what chance explains the windows of all columns show.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]
    starts: NDArray[np.datetime64] | None = None
    dependence: Dependence = INDEPENDENT
    prior: Prior = Prior()

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
        return self._replace(rows=self.rows[kept], distances=self.distances[kept], starts=starts)


Basis = Literal["floor", "chance", "history", "rows", "unbounded"]


class Threshold(NamedTuple):
    """What a distance has to exceed, and why it is this much.

    `basis` names the largest of the three; where the state is `insufficient`, it is ``rows`` (too
    few) or ``unbounded`` (no distance could exceed the threshold). `seasonal` says that only
    windows of the same time of year counted. `design_effect` is what chance was widened by for rows
    that are alike. `window_variance` is what windows differ by beyond chance, widened by what few
    of them leave uncertain about it. `unused` is the share of `alpha` that the floor leaves over:
    where it lies far beyond what is ordinary, next to no window exceeds it by chance.
    """

    value: float
    state: Calibration
    basis: Basis
    ordinary: float
    windows: int
    seasonal: bool = False
    design_effect: float = 1.0
    window_variance: float = 0.0
    unused: float = 0.0


def find_threshold(
    history: History,
    *,
    chance: Chance,
    sizes: tuple[int, int],
    alpha: float,
    floor: float,
    settings: Drift,
    at: dt.datetime | None = None,
) -> Threshold:
    """Give the threshold of one distance of one feature.

    Parameters
    ----------
    history : History
        Leave-one-out distances of the reference's windows.
    chance : Chance
        What independent rows of these sizes show.
    sizes : tuple of int
        Rows of the reference and of the current window that hold a value.
    alpha : float
        Probability that one more ordinary window is called out of the ordinary.
    floor : float
        Smaller distances never matter.
    settings : Drift
        The settings of the model file.
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
    measured = history.measured(settings.min_rows)
    history = measured.in_season(at, settings.min_history_windows)
    distances, windows = history.distances, len(history.distances)
    ordinary = float(np.max(distances, initial=0.0))
    candidates: dict[Basis, float] = {"floor": floor, "chance": chance.critical}
    state: Calibration = "uncalibrated"
    seasonal, effect, window_variance = False, 1.0, 0.0
    if windows >= settings.min_history_windows:
        state = "calibrated"
        seasonal = windows < len(measured.rows)
        if seasonal:  # all of them lie apart from the rest of the year, by about as much
            quantile = student_quantile(min(windows - 1, settings.tail_windows), alpha)
            beyond_chance = _next_like(distances, quantile)
        else:
            effect, beyond = _explain_history(history, all_rows, chance, sizes)
            if effect > 1:
                quantile = student_quantile(history.dependence.blocks, alpha)
                dependent = quantile * (effect * chance.mean_square) ** 0.5
                candidates["chance"] = max(chance.critical, dependent)
            quantile = student_quantile(min(windows, settings.tail_windows), alpha)
            beyond_chance = (candidates["chance"] ** 2 + quantile**2 * beyond) ** 0.5
            window_variance = beyond * (quantile / normal_quantile(alpha)) ** 2
            if chance.spread < _CONCENTRATED:
                beyond_chance = max(beyond_chance, _next_like(distances, quantile))
        candidates["history"] = max(ordinary, beyond_chance)
    basis = max(candidates, key=lambda name: candidates[name])
    value = min(1.0, candidates[basis])
    bound = max(part for name, part in candidates.items() if name != "floor")
    # The heaviest tail there is, Student's, falls with this power of the distance.
    tail = min(windows, settings.tail_windows)
    unused = 1 - (bound / floor) ** tail if basis == "floor" and floor else 0.0
    if min(sizes) < settings.min_rows:
        state, basis = "insufficient", "rows"
    elif value >= 1.0:
        state, basis = "insufficient", "unbounded"
    return Threshold(
        value, state, basis, ordinary, windows, seasonal, effect, window_variance, unused
    )


def _next_like(distances: NDArray[np.float64], quantile: float) -> float:
    """Bound one more distance like these."""
    spread = float(distances.std(ddof=1)) * (1 + 1 / len(distances)) ** 0.5
    return float(distances.mean() + quantile * spread)


def _explain_history(
    history: History, all_rows: int, chance: Chance, sizes: tuple[int, int]
) -> tuple[float, float]:
    """Give the design effect, and the variance that windows show beyond it."""
    effect, by_chance, seen = explain(history, all_rows, chance, sizes)
    windows = len(history.rows)
    if history.prior.freedom:
        seen, _ = history.prior.moderate(seen, windows - 1)
        beyond = max(0.0, (seen - 1) * effect * float(by_chance.mean()))
    else:
        limit = upper_limit(windows, chance.spread if effect == 1 else NORMAL_SPREAD)
        squares = history.distances**2
        beyond = max(0.0, float((squares - limit * effect * by_chance).mean()))
    # A window shorter than usual averages over less of what makes windows differ.
    return effect, beyond * max(1.0, float(np.median(history.rows)) / sizes[1])


def explain(
    history: History, all_rows: int, chance: Chance, sizes: tuple[int, int]
) -> tuple[float, NDArray[np.float64], float]:
    """Give the design effect, what independent rows explain, and what is seen in units of both.

    The design effect is no more than the windows themselves leave possible: rows sorted by
    something, or a day's cycle, make blocks differ where windows do not.
    """
    from scipy.special import chdtri

    rows, windows = history.rows.astype(np.float64), len(history.rows)
    others = np.maximum(all_rows - rows, 1.0)
    # Chance shrinks with the sizes: the windows had other ones than the current check.
    scale = (1 / rows + 1 / others) / (1 / sizes[0] + 1 / sizes[1])
    by_chance = chance.mean_square * scale
    squares = history.distances**2
    seen = float(squares.mean() / by_chance.mean()) if chance.mean_square else 0.0
    # Squares of a distance that moves as a whole follow chi-squared, of all laws the widest.
    most = seen * windows / float(chdtri(windows, 0.99))
    effect = max(1.0, min(history.dependence.design_effect, most))
    return effect, by_chance, seen / effect


def student_quantile(freedom: float, alpha: float) -> float:
    """Give what a variable of Student's law exceeds, on either side, with probability `alpha`."""
    from scipy.special import stdtrit

    return -float(stdtrit(freedom, alpha / 2))


def normal_quantile(alpha: float) -> float:
    """Give what a standard normal variable exceeds, on either side, with probability `alpha`."""
    return -NormalDist().inv_cdf(alpha / 2)
