r"""A small drift that keeps growing: found from several windows before any of them is far enough.

Each window's shift against the same reference is a measurement; a trend is a straight line through
them. Three things have to hold: that there is a shift at all is certain, it grows, and if it goes
on like this it will matter soon. A small change that stays as it is, however certain, is no trend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WINDOWS = 8  # that a trend is looked for in, the current one included
LOOK_AHEAD = 8  # windows within which it has to matter
_LEAST = 3
_GROWS = 1.282  # one-sided 10 %: that there is a shift has been shown with far less


class Trend(NamedTuple):
    """A line through the shifts of some windows; `ahead` windows more, and it matters."""

    windows: int
    now: float
    slope: float
    ahead: float


def find_trend(
    times: Sequence[float],
    shifts: Sequence[float],
    errors: Sequence[float],
    *,
    reference_error: float,
    limit: float,
    floor: float,
) -> Trend | None:
    r"""Give the trend of one column, or None.

    With *s* the shifts at times *t*, of which the oldest is 1, and *V* their covariance, the error
    of each window on its diagonal and that of the reference everywhere, there is a shift if

    .. math:: \frac{|t^T V^{-1} s|}{\sqrt{t^T V^{-1} t}} > l,

    the most powerful test of a line that begins at the reference. It grows if the slope of the line
    fitted to the windows alone is more than 1.282 of its standard errors.

    Parameters
    ----------
    times : sequence of float
        In windows, ascending; the last one is now.
    shifts : sequence of float
        Cliff's delta of each window against the reference.
    errors : sequence of float
        Standard deviation of an ordinary shift of each window; above 0.
    reference_error : float
        That of the reference, which all windows share.
    limit : float
        The *l* from which it is certain, in standard errors.
    floor : float
        The shift that matters.

    Examples
    --------
    >>> settings = {"reference_error": 0.002, "limit": 3.3, "floor": 0.1}
    >>> round(find_trend([1, 2, 3], [0.02, 0.04, 0.06], [0.01] * 3, **settings).ahead, 6)
    2.0
    >>> find_trend([1, 2, 3], [0.04, 0.04, 0.04], [0.01] * 3, **settings)
    """
    if len(times) < _LEAST:
        return None
    t, s = np.asarray(times, float) - times[0] + 1, np.asarray(shifts, float)
    variances = np.asarray(errors, float) ** 2
    weighted = np.linalg.solve(np.diag(variances) + reference_error**2, t)
    evidence = float(weighted @ s)
    if abs(evidence) <= limit * float(weighted @ t) ** 0.5:
        return None
    weights = 1 / variances
    middle = float((weights * t).sum() / weights.sum())
    squares = float((weights * (t - middle) ** 2).sum())
    direction = 1 if evidence > 0 else -1
    slope = direction * float((weights * (t - middle) * s).sum()) / squares
    if slope <= _GROWS / squares**0.5:
        return None
    level = direction * float((weights * s).sum() / weights.sum())
    now = level + slope * float(t[-1] - middle)
    ahead = max(0.0, floor - now) / slope
    if ahead > LOOK_AHEAD:
        return None
    return Trend(len(t), direction * now, direction * slope, ahead)
