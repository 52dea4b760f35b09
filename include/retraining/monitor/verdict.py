"""Makes a `Verdict` out of a `DriftReport`: is this worth a retrain?

In this order: no champion yet; a batch as old as what the champion learned from; measured harm; an
old model; enough new rows to learn from; persistent drift in features that matter. What asks for a
retrain during a cool-down is `blocked`. A batch that is too small is watched, never passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from statistics import NormalDist, median

from include.retraining.drift import trend
from include.retraining.names import incident_id
from include.retraining.records import DriftReport, FeatureDrift, Outcome, Performance, Verdict
from include.retraining.spec import ModelSpec

LOOK_BACK = 3
REPORTS_BEFORE = max(LOOK_BACK, trend.WINDOWS) - 1  # that a verdict asks for
AT_ONCE = 2.0


def judge(
    spec: ModelSpec,
    report: DriftReport,
    *,
    earlier: Sequence[DriftReport] = (),
    realised: Sequence[Performance] | None = None,
    hold: str | None = None,
) -> Verdict:
    """Decide what to do about a batch.

    Parameters
    ----------
    spec : ModelSpec
        With the thresholds.
    report : DriftReport
        What was measured.
    earlier : sequence of DriftReport
        Of the batches before it, oldest first. Those against the same champion say whether drift
        persists.
    realised : sequence of Performance, optional
        Of the batches before it, oldest first: how much batches differ. Those of `earlier`, unless
        given.
    hold : str, optional
        Why a retrain has to wait now.
    """
    if report.champion_version is None:
        wanted, reasons = _without_champion(spec, report)
    elif report.in_sample:
        wanted, reasons = "ignore", _in_sample(report)
    else:
        if realised is None:
            realised = [r.performance for r in earlier if r.performance]
        wanted, reasons = _with_champion(spec, report, earlier, realised)
    worst = report.worst
    numeric = [f for f in report.features if f.kind == "numeric" and f.distance is not None]
    same_kind = worst if worst in numeric else None
    verdict = Verdict(
        batch=report.batch,
        outcome=wanted,
        reasons=tuple(reasons),
        content_sha256=report.content_sha256,
        champion_version=report.champion_version,
        incident_id=incident_id(
            spec.model, "monitor", report.batch.partition, report.champion_version
        ),
        worst_feature=worst.name if worst else None,
        ks_distance=same_kind.distance if same_kind else None,
    )
    return blocked(verdict, hold) if wanted == "retrain" and hold else verdict


def blocked(verdict: Verdict, why: str) -> Verdict:
    """Give the verdict on a retrain that is wanted, and has to wait."""
    return verdict.model_copy(update={"outcome": "blocked", "reasons": (*verdict.reasons, why)})


def _without_champion(spec: ModelSpec, report: DriftReport) -> tuple[Outcome, list[str]]:
    have, need = report.trainable_rows or 0, spec.training.min_rows
    if have >= need:
        return "retrain", [
            f"no model is in production yet, and {have:,} labelled rows are there to train on"
        ]
    return "ignore", [
        f"no model is in production yet; collecting: {have:,} of {need:,} labelled rows"
    ]


def _in_sample(report: DriftReport) -> list[str]:
    version = report.champion_version
    reasons = [f"measured, not judged: version {version} learned from rows as late as these are"]
    if drifted := [one for one in report.columns if one.drifted and not one.expected]:
        reasons.append(f"unlike what it learned from: {_furthest(drifted)}")
    return reasons


def _with_champion(  # noqa: PLR0911 - one return per rule, in the order of the rules
    spec: ModelSpec,
    report: DriftReport,
    earlier: Sequence[DriftReport],
    realised: Sequence[Performance],
) -> tuple[Outcome, list[str]]:
    recent = _recent(spec, report, earlier, LOOK_BACK)
    harm = _harm(spec, report, realised)
    due = [*_age(spec, report), *_growth(spec, report)]
    drifted = [f for f in report.columns if f.drifted and not f.expected]
    persistent = [f for f in drifted if _persists(spec, f, recent)]
    share = importance_share(report.features, persistent)
    reasons = [*harm, *due]
    if persistent:
        names = _furthest(persistent)
        reasons.append(
            f"drifted for {spec.drift.persistence_windows} of {LOOK_BACK} windows or at twice its "
            f"threshold: {names}; {share:.0%} of the model's importance"
        )
    elif drifted:
        reasons.append(f"drifted for the first time: {_furthest(drifted)}")
    moving = _moving(spec, report, earlier)
    reasons += moving
    if harm or due:
        return "retrain", reasons
    if persistent and share >= spec.drift.max_drifted_importance:
        if report.performance is None:
            return "retrain", [*reasons, "no labels yet to say whether it does harm"]
        if spec.drift.retrain_on_stable_performance:
            return "retrain", reasons
        return "watch", [*reasons, "performance holds its promise: watched, not retrained"]
    if drifted or moving:
        return "watch", reasons
    if report.state == "insufficient":
        return "watch", [
            f"{report.rows} rows are too few to say anything (drift.min_rows {spec.drift.min_rows})"
        ]
    return "ignore", ["nothing is out of the ordinary"]


def _moving(spec: ModelSpec, report: DriftReport, earlier: Sequence[DriftReport]) -> list[str]:
    """Name the columns that have not drifted, but will soon if they go on like this."""
    reports = [*_recent(spec, report, earlier, trend.WINDOWS), report]
    found = []
    for feature in report.columns:
        errors, limit = feature.shift_errors, feature.trend_limit
        if errors is None or limit is None or feature.drifted or feature.expected:
            continue
        measured = [
            ((r.batch.start - reports[0].batch.start) / spec.partitions.length, one)
            for r in reports
            for one in r.columns
            if one.name == feature.name and one.shift_errors is not None
        ]
        line = trend.find_trend(
            [at for at, _ in measured],
            [one.shift or 0.0 for _, one in measured],
            [one.shift_errors[0] for _, one in measured if one.shift_errors],
            reference_error=errors[1],
            limit=limit,
            floor=spec.drift.min_shift,
        )
        if line:
            found.append(_told(feature, line))
    return found


def _told(feature: FeatureDrift, line: trend.Trend) -> str:
    ahead = ceil(line.ahead - 1e-6)
    soon = f"it matters in {ahead} window{'s' if ahead > 1 else ''}"
    return (
        f"{feature.name} keeps moving: its values got {'larger' if line.slope > 0 else 'smaller'} "
        f"over {line.windows} windows (shift {line.now:+.3f} now, {line.slope:+.3f} a window); "
        + (f"if that goes on, {soon}" if ahead else "it has come as far as matters")
    )


def _recent(
    spec: ModelSpec, report: DriftReport, earlier: Sequence[DriftReport], windows: int
) -> list[DriftReport]:
    """Give the reports against the same champion from so many windows, the current one included."""
    oldest = report.batch.start - (windows - 1) * spec.partitions.length
    return [
        r
        for r in earlier
        if r.champion_version == report.champion_version and r.batch.start >= oldest
    ]


def _harm(spec: ModelSpec, report: DriftReport, realised: Sequence[Performance]) -> list[str]:
    now, promise = report.performance, report.promise
    if now is None or promise is None:
        return []
    ordinary = ordinary_drop(spec, realised)
    if now.high >= promise.value - max(spec.retrain.min_performance_drop, ordinary):
        return []
    text = (
        f"{now.metric} {now.value:.3f} "
        f"(interval {now.low:.3f} to {now.high:.3f}, {now.rows:,} rows) is below "
        f"the {promise.value:.3f} that version {report.champion_version} promised"
    )
    return [text + (f" by more than the {ordinary:.3f} that batches differ" if ordinary else "")]


def ordinary_drop(spec: ModelSpec, history: Sequence[Performance]) -> float:
    r"""Give how far a batch's metric may ordinarily fall below a promise that one window made.

    Some batches are harder than others, for any model. The variance between them is taken from the
    median of the squared successive differences, which neither a slow decline nor one fall for good
    inflates, less what the sampling of rows explains:

    .. math:: \tau^2 = \frac{median_i (p_{i+1} - p_i)^2}{2 \cdot 0.455} - \overline{s^2}

    where 0.455 is the median of a squared standard normal variable.

    The batch and the promise each have their share of it, so the bound is
    :math:`t_{W-1}(1-\alpha) \sqrt{2} \tau`. 0 with fewer than ``drift.min_history_windows``
    batches: then only the sampling of rows is allowed for.

    Parameters
    ----------
    spec : ModelSpec
        With the settings.
    history : sequence of Performance
        Realised, of earlier batches, oldest first; the champions may have changed.
    """
    if len(history) < spec.drift.min_history_windows:
        return 0.0
    from scipy.special import stdtrit

    successive = median((after.value - before.value) ** 2 for before, after in pairwise(history))
    half_width = NormalDist().inv_cdf((1 + spec.gate.confidence) / 2)
    sampling = sum(((p.high - p.low) / 2 / half_width) ** 2 for p in history) / len(history)
    between = max(0.0, successive / 2 / 0.455 - sampling)
    quantile = float(stdtrit(len(history) - 1, 1 - spec.drift.alpha))
    return float(quantile * (2 * between) ** 0.5)


def _growth(spec: ModelSpec, report: DriftReport) -> list[str]:
    limit, known, new = spec.retrain.growth, report.learned_rows, report.new_rows
    if limit is None or not known or new is None:
        return []
    alike = overlap(report.features)
    if new < limit * known * alike:
        return []
    of = f"of the {known:,} that the last retrain learned from"
    if alike < 0.995:
        of = f"of those among the {known:,} of the last retrain that resemble today's ({alike:.0%})"
    share = new / (known * alike) if alike else float("inf")
    return [f"{new:,} new labelled rows are {share:.0%} {of} (retrain.growth {limit:.0%})"]


def overlap(features: Sequence[FeatureDrift]) -> float:
    r"""Give the share of the reference's rows that could as well be rows of the current window.

    Of two laws a share of ``1 - TV`` is common, with TV their total-variation distance (of numeric
    columns D stands in for it, which is never larger). Columns count by importance, those that are
    expected to drift not at all:

    .. math:: 1 - \sum_j w_j d_j, \quad w_j = imp_j / \sum_k imp_k

    Where it is small, most of what the model learned is about other rows than those of today, and
    fewer new ones are worth a retrain.
    """
    judged = [f for f in features if f.distance is not None and not f.expected]
    return 1.0 - sum((f.distance or 0.0) * importance_share(judged, [f]) for f in judged)


def _age(spec: ModelSpec, report: DriftReport) -> list[str]:
    limit, age = spec.retrain.max_age_days, report.champion_age_days
    if limit is None or age is None or age <= limit:
        return []
    return [
        f"version {report.champion_version} is {age:.0f} days old (retrain.max_age_days {limit:g})"
    ]


def _persists(spec: ModelSpec, feature: FeatureDrift, earlier: Sequence[DriftReport]) -> bool:
    if feature.excess >= AT_ONCE:
        return True
    before = sum(any(f.name == feature.name and f.drifted for f in r.columns) for r in earlier)
    return before + 1 >= spec.drift.persistence_windows


def importance_share(features: Sequence[FeatureDrift], drifted: Sequence[FeatureDrift]) -> float:
    """Share of the importance the drifted features carry; if none is known, all count alike."""
    weights = {f.name: f.importance or 0.0 for f in features if not f.expected}
    if not sum(weights.values()):
        weights = dict.fromkeys(weights, 1.0)
    total = sum(weights.values())
    return sum(weights.get(f.name, 0.0) for f in drifted) / total if total else 0.0


def _furthest(features: Sequence[FeatureDrift]) -> str:
    first = sorted(features, key=lambda f: f.excess, reverse=True)[:5]
    return ", ".join(
        f"{f.name} ({f'{f.excess:.1f}x its threshold' if f.excess else f.reason})" for f in first
    )
