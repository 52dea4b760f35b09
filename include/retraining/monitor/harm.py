"""Makes a `Harm`: has the champion fallen below what it did and promised, by all its windows?

No single window says so, and a promise is worth no more than one window: both may have been lucky.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import NormalDist

import numpy as np

from include.retraining.learning.fall import Fall, Series, find_fall
from include.retraining.records import DriftReport, Harm, Performance, RealisedWindow
from include.retraining.spec import ModelSpec

UNLIKELY = 0.9  # times: what nothing is known of is 1, and each window that is as before lowers it
# value and standard error of what was measured of one window, or promised; None: neither is known
_Point = Callable[[Performance], tuple[float, float] | None]


def find_harm(
    spec: ModelSpec, report: DriftReport, earlier: Sequence[RealisedWindow]
) -> Harm | None:
    """Weigh whether the champion of a report has fallen for good; None where nothing was realised.

    The metric and a proper score of the same rows are weighed apart, and the mean of the two ratios
    counts, which may be looked at as often as either. The metric itself must have fallen: a proper
    score also falls where the world gets harder to tell, and no other model would do better.

    Parameters
    ----------
    spec, report : ModelSpec, DriftReport
        The settings, and what was measured.
    earlier : sequence of RealisedWindow
        Of the batches before it, oldest first, whoever was champion.
    """
    now = report.realised
    if now is None:
        return None
    windows = [one for one in (*earlier, now) if one.metric == now.metric]
    half_width = NormalDist().inv_cdf((1 + spec.gate.confidence) / 2)

    def metric(one: Performance) -> tuple[float, float] | None:
        error = (one.high - one.low) / 2 / half_width
        return (one.value, error) if math.isfinite(error) and math.isfinite(one.value) else None

    def proper(one: Performance) -> tuple[float, float] | None:
        known = one.proper
        is_same = known and now.proper and known.metric == now.proper.metric
        return (known.value, known.error) if known and is_same else None

    weighed = _weigh(report, windows, metric, best=0.0 if now.metric.startswith("neg_") else 1.0)
    harm = Harm(
        state="not known",
        metric=now.metric,
        windows=sum(one.champion == report.champion for one in windows),
        needed=1 / spec.retrain.harm_error,
    )
    if weighed is None:
        return harm
    found, since = weighed
    beside = _weigh(report, windows, proper, best=0.0)
    times = found.times if beside is None else (found.times + beside[0].times) / 2
    is_below = times > harm.needed and found.size > spec.retrain.min_performance_drop
    return harm.model_copy(
        update={
            "state": "below" if is_below else "within" if times < UNLIKELY else "not known",
            "times": times,
            "since": since.partition,
            "rows_since": since.rows_from,
            "before": found.before,
            "after": found.after,
            "proper": now.proper.metric if beside and now.proper else "",
        }
    )


def _weigh(
    report: DriftReport, windows: Sequence[RealisedWindow], point: _Point, *, best: float
) -> tuple[Fall, RealisedWindow] | None:
    """Give the fall of one thing that was measured, and the window that it began with."""
    own = [one for one in windows if one.champion == report.champion and point(one)]
    others = groupby((one for one in windows if one.champion != report.champion), _champion)
    promise = point(report.promise) if report.promise else None
    series = _series(own, point)
    if not own:
        return None
    room = abs(best - (promise[0] if promise else series.values[0])) or np.finfo(float).eps
    found = find_fall(
        series,
        promise=promise,
        room=room,
        others=[_series(list(group), point) for _, group in others],
    )
    return (found, own[found.since]) if found else None


def _champion(window: RealisedWindow) -> str | None:
    return window.champion


def _series(windows: Sequence[RealisedWindow], point: _Point) -> Series:
    points = np.array([known for one in windows if (known := point(one))], dtype=float)
    values, errors = points.reshape(-1, 2).T
    return Series(values, errors)
