"""The current window against the profile of the reference: one `FeatureDrift` per column.

A column always gets a stated verdict. What cannot be compared (absent, all missing, text where
numbers were) shows as a change of the missing share, which is drift of its own; what is too small
to judge is `insufficient`, never "no drift".
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from include.retraining.drift.calibration import (
    DISTANCE_SHARE,
    MISSING_SHARE,
    SHIFT_SHARE,
    TREND_SHARE,
    Chance,
    History,
    Threshold,
    find_threshold,
    normal_quantile,
    student_quantile,
)
from include.retraining.drift.columns import Columns, NumericColumn, Source
from include.retraining.drift.engine import CountingWindow
from include.retraining.drift.gap import Bounds, exact_gap, gap_bounds, rank_shift
from include.retraining.drift.levels import compare_levels
from include.retraining.drift.number_types import same_type
from include.retraining.drift.profile import CategoricalProfile, NumericProfile, ReferenceProfile
from include.retraining.drift.statistics import (
    KS_CHANCE_SPREAD,
    KS_CHANCE_SQUARE,
    NORMAL_SPREAD,
    ks_critical_distance,
    ks_p_value,
    psi,
    shift_chance_square,
    tv_critical_distance,
    wasserstein_distance,
)
from include.retraining.records import Calibration, FeatureDrift
from include.retraining.spec import Drift

_IDENTIFIER_SHARE = 0.9  # of rows with levels too rare to compare: the column names rows, not kinds


class _Finding(NamedTuple):
    """One distance against its threshold."""

    distance: float
    threshold: Threshold
    symbol: str

    @property
    def limit(self) -> float | None:
        """The threshold; None where no verdict can be given."""
        return None if self.threshold.state == "insufficient" else self.threshold.value

    @property
    def is_drift(self) -> bool:
        return self.limit is not None and self.distance > self.limit


class _Terms(NamedTuple):
    """What all columns of a check share."""

    comparisons: int
    settings: Drift
    at: dt.datetime | None


class _Extras(NamedTuple):
    psi: float | None = None
    wasserstein: float | None = None


def measure_columns(
    profile: ReferenceProfile,
    current: Source | CountingWindow,
    *,
    settings: Drift,
    importances: Mapping[str, float] | None = None,
    at: dt.datetime | None = None,
) -> tuple[FeatureDrift, ...]:
    """Measure how far each profiled column moved.

    Parameters
    ----------
    profile : ReferenceProfile
        Of the champion's reference.
    current : pyarrow Table, Parquet path, file or buffer, or CountingWindow
        The current window; from Parquet, one column at a time is in memory, of more than 16 million
        rows a part of it. Columns that are not in the profile are not looked at.
    settings : Drift
        The settings of the model file.
    importances : mapping of str to float, optional
        Permutation importance per column, passed on to the result.
    at : datetime, optional
        Start of the current window, for calibration by the time of year.

    Returns
    -------
    tuple of FeatureDrift
        One per column of the profile, in its order, with a reason each. `drifted` says what was
        measured even where the column is declared `expected`.

    Raises
    ------
    DataError
        The current window cannot be read.
    """
    window: CountingWindow
    if isinstance(current, CountingWindow):
        window = current
    else:
        window = Columns(current, categorical=profile.categorical)
    terms = _Terms(len(profile), settings, at)
    features = []
    for column in profile:
        if isinstance(column, NumericProfile):
            drift = _measure_numeric(column, window, terms)
        else:
            drift = _measure_categorical(column, window, terms)
        extras: dict[str, object] = {"importance": (importances or {}).get(column.name)}
        if column.name in settings.expected:
            extras |= {
                "expected": True,
                "reason": f"{drift.reason}; declared to drift by construction, does not count",
            }
        features.append(drift.model_copy(update=extras))
    return tuple(features)


def overall_state(features: Sequence[FeatureDrift]) -> Calibration:
    """Say how far the findings of a window can be trusted as a whole.

    `insufficient` where no feature could be judged, `calibrated` where any could be held against
    the model's own history, `uncalibrated` in between.
    """
    states = {feature.state for feature in features}
    if "calibrated" in states:
        return "calibrated"
    return "uncalibrated" if "uncalibrated" in states else "insufficient"


def _measure_numeric(
    reference: NumericProfile, window: CountingWindow, terms: _Terms
) -> FeatureDrift:
    comparisons, settings, at = terms
    current = window.counted(reference.name, reference.counts.cells)
    n, m = reference.present, current.present
    bounds = p_value = shift = errors = trend_limit = None
    findings = []
    if n and m:
        shift = rank_shift(reference.counts, current.counts)
        thresholds = numeric_thresholds(
            reference.history,
            reference.shift_history,
            sizes=(n, m),
            shift_square=shift_chance_square(reference.counts, current.counts),
            alpha=settings.alpha / comparisons,
            settings=settings,
            at=at,
        )
        errors, trend_limit = thresholds.shift_errors, thresholds.trend_limit
        if not current.at_hand or not reference.is_complete:
            bounds = gap_bounds(reference.counts, current.counts)
        # Without the reference's values nothing narrows the interval: drift is what is certain.
        if bounds is None or (
            reference.is_complete and bounds.low <= thresholds.distance.value < bounds.high
        ):
            exact = exact_gap(reference.values, reference.counts, current.counts, current.inside)
            bounds = Bounds(exact, exact)
        p_value = ks_p_value(bounds.low, n, m)
        findings.append(_Finding(bounds.low, thresholds.distance, "D"))
        findings.append(_Finding(abs(shift), thresholds.shift, "shift"))
    missing = _missing_finding(reference, current, terms)
    if missing:
        findings.append(missing)
    drifted = any(finding.is_drift for finding in findings)
    extras = _extras(reference, current) if drifted else _Extras()
    limits = {finding.symbol: finding.limit for finding in findings}
    return FeatureDrift(
        name=reference.name,
        kind="numeric",
        distance=bounds.low if bounds else None,
        distance_high=bounds.high if bounds and bounds.high > bounds.low else None,
        p_value=p_value,
        threshold=limits.get("D"),
        shift=shift,
        shift_threshold=limits.get("shift"),
        shift_errors=errors,
        trend_limit=trend_limit,
        missing_change=missing.distance if missing else None,
        missing_threshold=limits.get("missing"),
        state=_state(findings),
        drifted=drifted,
        reason=_numeric_reason(
            reference,
            current,
            findings,
            direction="larger" if shift and shift > 0 else "smaller",
            settings=settings,
        ),
        psi=extras.psi,
        wasserstein=extras.wasserstein,
    )


def _extras(reference: NumericProfile, current: NumericColumn) -> _Extras:
    """Give what others report about a drifted column; nothing where it would have to be read again.

    Both look at every value on both sides once more, so an ordinary column goes without. Where the
    reference is kept as quantiles, they stand for it.
    """
    if not current.at_hand:
        return _Extras()
    every = np.ones(len(current.counts.cells), bool)
    before, now = (
        values[np.isfinite(values)] for values in same_type(reference.values, current.inside(every))
    )
    if not len(before) or not len(now):
        return _Extras()
    edges = np.unique(before[np.arange(1, 10) * len(before) // 10])
    counts = [
        np.diff([0, *np.searchsorted(side, edges, side="right"), len(side)])
        for side in (before, now)
    ]
    return _Extras(psi(*counts), wasserstein_distance(before, now))


class NumericThresholds(NamedTuple):
    """What distance and shift of a numeric column have to exceed.

    `shift_errors` and `trend_limit` as in `FeatureDrift`.
    """

    distance: Threshold
    shift: Threshold
    shift_errors: tuple[float, float] | None
    trend_limit: float | None


def numeric_thresholds(
    history: History,
    shift_history: History,
    *,
    sizes: tuple[int, int],
    shift_square: float,
    alpha: float,
    settings: Drift,
    at: dt.datetime | None = None,
) -> NumericThresholds:
    """Give the thresholds of one numeric column; parameters as of `find_threshold`.

    `alpha` is what the column may cost in all, `shift_square` the mean squared shift by chance.
    """
    n, m = sizes
    share = alpha * DISTANCE_SHARE
    distance = find_threshold(
        history,
        chance=Chance(
            ks_critical_distance(share, n, m),
            KS_CHANCE_SQUARE * (1 / n + 1 / m),
            KS_CHANCE_SPREAD,
        ),
        sizes=sizes,
        alpha=share,
        floor=settings.min_distance,
        settings=settings,
        at=at,
    )
    share = alpha * SHIFT_SHARE
    shift = find_threshold(
        shift_history,
        chance=Chance(normal_quantile(share) * shift_square**0.5, shift_square, NORMAL_SPREAD),
        sizes=sizes,
        alpha=share,
        floor=settings.min_shift,
        settings=settings,
        at=at,
    )
    errors = limit = None
    if shift.state == "calibrated" and not shift.seasonal and shift_square:
        by_chance = shift.design_effect * shift_square / (n + m)
        of_window = by_chance * n + shift.window_variance
        of_reference = by_chance * m + shift.window_variance / shift.windows
        errors = of_window**0.5, of_reference**0.5
        unused = DISTANCE_SHARE * distance.unused + SHIFT_SHARE * shift.unused
        # Student's, because few windows seldom show that they differ, and how much.
        limit = student_quantile(shift.windows, alpha * (TREND_SHARE + unused))
    return NumericThresholds(distance, shift, errors, limit)


def _missing_finding(
    reference: NumericProfile,
    current: NumericColumn,
    terms: _Terms,
) -> _Finding | None:
    comparisons, settings, at = terms
    if not reference.rows or not current.rows:
        return None
    n, m = reference.present, current.present
    before, now = 1 - n / reference.rows, 1 - m / current.rows
    share = (n + m) / (reference.rows + current.rows)
    alpha = settings.alpha / comparisons * MISSING_SHARE
    threshold = find_threshold(
        reference.missing_history,
        chance=Chance(
            tv_critical_distance(alpha, [n, reference.rows - n], [m, current.rows - m]),
            share * (1 - share) * (1 / reference.rows + 1 / current.rows),
            NORMAL_SPREAD,
        ),
        sizes=(reference.rows, current.rows),
        alpha=alpha,
        floor=settings.min_distance,
        settings=settings,
        at=at,
    )
    return _Finding(abs(now - before), threshold, "missing")


def _measure_categorical(
    reference: CategoricalProfile, window: CountingWindow, terms: _Terms
) -> FeatureDrift:
    comparisons, settings, at = terms
    current = window.levels(reference.name)
    if not reference.rows or not current.rows:
        return FeatureDrift(
            name=reference.name,
            kind="categorical",
            distance=None,
            p_value=None,
            threshold=None,
            state="insufficient",
            drifted=False,
            reason=f"no rows {'in the reference' if not reference.rows else 'now'}: no verdict",
        )
    compared = compare_levels(reference.levels, current)
    alpha = settings.alpha / comparisons
    threshold = find_threshold(
        reference.history,
        chance=compared.chance(alpha),
        sizes=(reference.rows, current.rows),
        alpha=alpha,
        floor=settings.min_distance,
        settings=settings,
        at=at,
    )
    finding = _Finding(compared.distance, threshold, "TV")
    reason = _explain(finding, settings)
    if current.problem:
        reason = f"{current.problem}: counted as missing; {reason}"
    elif not reference.levels.counts or not current.counts:
        sides = _sides(not reference.levels.counts, not current.counts)
        reason = f"all values are missing {sides}; {reason}"
    if compared.new_share > 0:
        reason += f"; {compared.new_share:.1%} of rows have a level the reference has never seen"
    if not reference.levels.counts and not current.counts:
        threshold = threshold._replace(state="insufficient")
        reason += "; nothing to compare, no verdict"
    elif (
        compared.rare_share > _IDENTIFIER_SHARE
        and threshold.basis != "rows"
        and not finding.is_drift
    ):
        threshold = threshold._replace(state="insufficient")
        reason += (
            f"; {compared.rare_share:.0%} of the reference has levels too rare to compare:"
            " the column looks like an identifier"
        )
    return FeatureDrift(
        name=reference.name,
        kind="categorical",
        distance=compared.distance,
        p_value=compared.p_value,
        psi=compared.psi,
        threshold=None if threshold.state == "insufficient" else threshold.value,
        state=threshold.state,
        drifted=finding.is_drift,
        reason=reason,
    )


def _state(findings: Sequence[_Finding]) -> Calibration:
    """Give the state of what drifted, else of the values; without values nothing was judged."""
    drifted = [finding for finding in findings if finding.is_drift]
    values = [finding for finding in findings if finding.symbol in {"D", "shift"}]
    for finding in drifted or values:
        if finding.threshold.state != "insufficient":
            return finding.threshold.state
    return "insufficient"


def _numeric_reason(
    reference: NumericProfile,
    current: NumericColumn,
    findings: Sequence[_Finding],
    *,
    direction: str,
    settings: Drift,
) -> str:
    by_symbol = {finding.symbol: finding for finding in findings}
    values, shift = by_symbol.get("D"), by_symbol.get("shift")
    missing = by_symbol.get("missing")
    parts = [current.problem] if current.problem else []
    if not reference.rows or not current.rows:
        parts.append(f"no rows {_sides(not reference.rows, not current.rows)}: no verdict")
    elif not values:
        parts.append(f"all values are missing {_sides(not reference.present, not current.present)}")
        parts += [] if missing and missing.is_drift else ["nothing to compare, no verdict"]
    if values:
        if _is_constant(reference.values) and not values.distance:
            parts.append(f"constant {reference.values[0]:g} in the reference and now")
        parts.append(_explain(values, settings))
    if values and shift and shift.is_drift:
        short = f"shift {shift.distance:.2g} is {_times(shift)} {shift.threshold.value:.2g}"
        told = short if values.is_drift else _explain(shift, settings)
        parts.append(f"values are {direction} now: {told}")
    elif values and shift and values.limit is None and shift.limit is not None:
        parts.append(_explain(shift, settings))  # D could not be judged, it could
    if missing and missing.is_drift:
        before = 1 - reference.present / reference.rows
        now = 1 - current.present / current.rows
        parts.append(
            f"the share of missing values went from {before:.1%} to {now:.1%}, {_times(missing)}"
        )
    return "; ".join(parts)


def _is_constant(ordered: NDArray[Any]) -> bool:
    return len(ordered) > 0 and bool(ordered[0] == ordered[-1])


def _sides(reference: bool, current: bool) -> str:
    if reference and current:
        return "in the reference and now"
    return "in the reference" if reference else "now"


def _explain(finding: _Finding, settings: Drift) -> str:
    threshold = finding.threshold
    season = " at this time of year" if threshold.seasonal else ""
    history = f"windows of the reference{season} differ by up to {threshold.ordinary:.2g}"
    history += " among themselves"
    alike = ""
    if threshold.design_effect > 1:
        alike = f", {threshold.design_effect:.2g} of which count as one: neighbours are alike"
    kind = "shift" if finding.symbol == "shift" else "distance"
    because = {
        "floor": f", the smallest {kind} that matters",
        "chance": f", what chance alone can reach with this many rows{alike}",
        "history": f": {history}",
        "rows": f": no verdict, because a side has fewer than {settings.min_rows} values",
        "unbounded": f": no verdict, because no distance would be out of the ordinary: {history}",
    }[threshold.basis]
    text = f"{finding.symbol} {finding.distance:.2g}"
    if threshold.state == "insufficient":
        return text + because
    if finding.is_drift:
        text += f" is {_times(finding)} {threshold.value:.2g}{because}"
    else:
        text += f" is within its threshold {threshold.value:.2g}{because}"
    if threshold.state == "uncalibrated":
        text += (
            f"; uncalibrated: {threshold.windows} windows of history,"
            f" {settings.min_history_windows} are needed"
        )
    return text


def _times(finding: _Finding) -> str:
    if not finding.threshold.value:
        return "above its threshold"
    return f"{finding.distance / finding.threshold.value:.1f}x its threshold"
