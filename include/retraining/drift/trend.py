r"""A small drift that keeps growing: found from several windows before any of them is far enough.

Each window's shift against the same reference is a measurement; a trend is a straight line through
them. Three things have to hold: that there is a shift at all is certain, it grows, and if it goes
on like this it will matter soon. A small change that stays as it is, however certain, is no trend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from include.retraining.drift.calibration import normal_quantile

WINDOWS = 8  # that a trend is looked for in, the current one included
LOOK_AHEAD = 8  # windows within which it has to matter
_LEAST = 3
_GROWS = 1.645  # one-sided 5 %: that there is a shift has been shown with far less


class Trend(NamedTuple):
    """A line through the shifts of some windows; `ahead` windows more, and it matters."""

    windows: int
    now: float
    slope: float
    ahead: float


def find_trend(
    times: Sequence[float],
    shifts: Sequence[float],
    errors: tuple[float, float],
    *,
    alpha: float,
    floor: float,
) -> Trend | None:
    r"""Give the trend of one column, or None.

    With *s* the shifts at times *t*, of which the oldest is 1, and independent errors
    :math:`\sigma_w` of each window beside the :math:`\sigma_r` of the reference that they share,
    there is a shift if

    .. math:: \frac{|\sum t s|}{\sqrt{\sigma_w^2 \sum t^2 + \sigma_r^2 (\sum t)^2}}
              > z_{1 - \alpha/2},

    the most powerful test of a line that begins at the reference. It grows if the slope of the line
    fitted to the windows alone is more than 1.645 of its standard errors.

    Parameters
    ----------
    times : sequence of float
        In windows, ascending; the last one is now.
    shifts : sequence of float
        Cliff's delta of each window against the reference.
    errors : tuple of float
        Standard deviations of an ordinary shift, of a window and of the reference.
    alpha : float
        Probability of a trend where nothing moves, at most.
    floor : float
        The shift that matters.

    Examples
    --------
    >>> find_trend([1, 2, 3], [0.02, 0.04, 0.06], (0.01, 0.002), alpha=0.001, floor=0.1).ahead
    2.0
    >>> find_trend([1, 2, 3], [0.04, 0.04, 0.04], (0.01, 0.002), alpha=0.001, floor=0.1)
    """
    if len(times) < _LEAST:
        return None
    t, s = np.asarray(times, float) - times[0] + 1, np.asarray(shifts, float)
    noise = (errors[0] ** 2 * (t**2).sum() + errors[1] ** 2 * t.sum() ** 2) ** 0.5
    direction = float(np.sign((t * s).sum()))
    if abs((t * s).sum()) <= normal_quantile(alpha) * noise:
        return None
    centred = t - t.mean()
    squares = float((centred**2).sum())
    slope = direction * float((centred * s).sum()) / squares
    if slope <= _GROWS * errors[0] / squares**0.5:
        return None
    now = direction * float(s.mean()) + slope * float(centred[-1])
    ahead = max(0.0, floor - now) / slope
    if ahead > LOOK_AHEAD:
        return None
    return Trend(len(t), direction * now, direction * slope, round(ahead, 9))
