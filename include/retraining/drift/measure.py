"""The current window against the profile of the reference: one `FeatureDrift` per column.

A column always gets a stated verdict. What cannot be compared (absent, all missing, text where
numbers were) shows as a change of the missing share, which is drift of its own; what is too small
to judge is `insufficient`, never "no drift". Where no distance would be out of the ordinary, the
column's outline is judged all the same (outline.py).
"""

from __future__ import annotations

import datetime as dt
import math
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
from include.retraining.drift.columns import Columns, LevelColumn, NumericColumn, Source
from include.retraining.drift.engine import CountingWindow
from include.retraining.drift.feed import (
    LEAST_FILLED,
    Numbers,
    level_break,
    numeric_break,
)
from include.retraining.drift.gap import Bounds, exact_gap, gap_bounds, rank_shift
from include.retraining.drift.levels import compare_levels
from include.retraining.drift.number_types import same_type
from include.retraining.drift.outline import judge_outline, outline_now
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
from include.retraining.records import Break, Calibration, FeatureDrift, Measurement
from include.retraining.spec import Drift

_LARGEST_LOG = 700.0  # of a number that can be written down
_MOST = 0.5  # share of the reference that had a value: a column that comes without is lost
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
        reason = drift.reason
        if drift.broken and column.name not in settings.expected:
            reason += f"; {'its feed broke: ' if drift.broken.proven else ''}{drift.broken.cause}"
        if column.name in settings.expected:
            reason += "; declared to drift by construction, does not count"
        extras: dict[str, object] = {
            "importance": (importances or {}).get(column.name),
            "expected": column.name in settings.expected,
            "reason": reason,
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
    outline = _measure_outline(reference, current, terms)
    beyond = [one for one in outline if one.times > 1]
    drifted = bool(beyond) or any(finding.is_drift for finding in findings)
    extras = _extras(reference, current) if drifted else _Extras()
    broken = _find_break(reference, current, missing, drifted=drifted)
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
        outline=outline,
        was_constant=_is_constant(reference.values),
        state="calibrated" if outline else _state(findings),
        drifted=drifted,
        broken=broken,
        reason=_numeric_reason(
            reference,
            current,
            findings,
            outline,
            direction="larger" if shift and shift > 0 else "smaller",
            settings=settings,
        ),
        psi=extras.psi,
        wasserstein=extras.wasserstein,
    )


def _find_break(
    reference: NumericProfile,
    current: NumericColumn,
    missing: _Finding | None,
    *,
    drifted: bool,
) -> Break | None:
    """Say how the feed broke, if it did; nothing where its values would have to be read again."""
    if current.rows and not current.present and missing and missing.is_drift:
        gone = current.problem or "all values are missing"
        had = reference.present / max(reference.rows, 1)
        cause = f"{gone}; {had:.0%} of the reference have a value"
        return Break(kind="lost", cause=cause, share=1.0, proven=had > _MOST)
    if not current.at_hand or not current.present or not reference.present:
        return None
    if not drifted and not _has_strangers(current):
        return None
    every = np.ones(len(current.counts.cells), bool)
    # whole numbers beyond 2**53 are near enough to be compared
    before, now = (
        np.asarray(one, dtype=np.float64) for one in (reference.values, current.inside(every))
    )
    outlines = reference.outlines
    tops = outlines.windows[:, 2] if outlines is not None else np.empty(0)
    numbers = Numbers(
        before,
        reference.is_complete,
        now,
        windows=len(tops),
        usual_top=float(np.nanmax(tops, initial=0.0)) if len(tops) else 1.0,
    )
    return numeric_break(numbers, drifted=drifted)


def _has_strangers(current: NumericColumn) -> bool:
    """Lie enough rows beyond the reference that one value might fill them?"""
    held = current.counts.held
    return bool(max(held[0], held[-1]) >= LEAST_FILLED * current.present)


def _measure_outline(
    reference: NumericProfile, current: NumericColumn, terms: _Terms
) -> tuple[Measurement, ...]:
    """Hold the window's outline against those of the history; nothing where that cannot be done."""
    comparisons, settings, _ = terms
    if reference.outlines is None or not current.present:
        return ()
    now = outline_now(
        reference.outlines,
        reference.values if reference.is_complete else None,
        current.counts,
        current.inside,
    )
    alpha = settings.alpha / comparisons
    return judge_outline(reference.outlines, now, current.present, alpha=alpha, settings=settings)


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
        broken=_find_level_break(reference, current, finding),
        reason=reason,
    )


def _find_level_break(
    reference: CategoricalProfile, current: LevelColumn, finding: _Finding
) -> Break | None:
    if not finding.is_drift or not reference.levels.counts:
        return None
    if not current.counts:
        had = reference.levels.present / reference.rows
        cause = (
            f"{current.problem or 'all values are missing'}; {had:.0%} of the reference have one"
        )
        return Break(kind="lost", cause=cause, share=1.0, proven=had > _MOST)
    return level_break(reference.levels.counts, current.counts)


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
    outline: Sequence[Measurement],
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
    parts += _beyond_words(outline, is_blind=values is not None and values.limit is None)
    if missing and missing.is_drift:
        before = 1 - reference.present / reference.rows
        now = 1 - current.present / current.rows
        parts.append(
            f"the share of missing values went from {before:.1%} to {now:.1%}, {_times(missing)}"
        )
    return "; ".join(parts)


def _beyond_words(outline: Sequence[Measurement], *, is_blind: bool) -> list[str]:
    """Say what of the outline is out of the ordinary, or that it was judged where D was not."""
    words = {
        "location": "values lie {value:.3g} times the usual spread away, where {threshold:.3g} are "
        "ordinary",
        "spread": "values are spread {times:.3g} times as much or as little, where "
        "{ordinary:.3g} times is ordinary",
        "pile-up": "{value:.0%} of rows hold the lowest or highest value, where {threshold:.0%} "
        "are ordinary",
        "outside": "{value:.0%} of rows lie outside of everything that any window has shown, where "
        "up to {threshold:.0%} may",
        "never seen": "{value:.0%} of rows hold a value that no window has shown, where up to "
        "{threshold:.0%} may",
    }
    beyond = [one for one in outline if one.times > 1]
    told = [
        words[one.name].format(
            value=one.value,
            threshold=one.threshold,
            times=math.exp(min(one.value or 0.0, _LARGEST_LOG)),
            ordinary=math.exp(min(one.threshold or 0.0, _LARGEST_LOG)),
        )
        for one in beyond
    ]
    if is_blind and outline and not beyond:
        names = [one.name for one in outline if one.name in {"location", "spread"}]
        return [f"{' and '.join(names)} are ordinary"] if names else []
    return told


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
