"""Makes a `Verdict` out of a `DriftReport`: is this worth a retrain?

A champion that is clearly worse than the one before it is rolled back, whatever else there is. A
batch whose feed broke is `broken_feed`: nothing is learned from it. Else in this order: no champion
yet; a batch as old as what the champion learned from; measured harm; an
old model; enough new rows to learn from; persistent drift in features that matter. What asks for a
retrain during a cool-down is `blocked`. A batch that is too small is watched, never passed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from math import ceil

from include.retraining.data.broken_feeds import is_accepted
from include.retraining.drift import trend
from include.retraining.monitor.harm import find_harm
from include.retraining.names import incident_id
from include.retraining.records import (
    Break,
    DriftReport,
    FeatureDrift,
    FeedAcceptance,
    Harm,
    Outcome,
    RealisedWindow,
    Verdict,
    unjudged,
)
from include.retraining.spec import ModelSpec

LOOK_BACK = 3
REPORTS_BEFORE = max(LOOK_BACK, trend.WINDOWS) - 1  # that a verdict asks for
AT_ONCE = 2.0
DOUBTED = 2.0  # times likelier a fall has to be, once some windows say how much they differ
NAMED = 5  # columns in a sentence


def judge(
    spec: ModelSpec,
    report: DriftReport,
    *,
    earlier: Sequence[DriftReport] = (),
    realised: Sequence[RealisedWindow] | None = None,
    hold: str | None = None,
    accepted: Sequence[FeedAcceptance] = (),
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
    realised : sequence of RealisedWindow, optional
        Of the batches before it, oldest first, whoever was champion. Those of `earlier`, unless
        given.
    hold : str, optional
        Why a retrain has to wait now.
    accepted : sequence of FeedAcceptance
        What people said of broken feeds that counts for this batch.
    """
    harm, is_older = None, False
    if report.champion_version is None:
        wanted, reasons = _without_champion(spec, report)
    elif report.in_sample:
        wanted, reasons = "ignore", _in_sample(report)
    else:
        if realised is None:
            realised = [one.realised for one in earlier if one.realised]
        harm = find_harm(spec, report, realised)
        is_older = _is_older(spec, report, earlier, harm)
        if harm is not None and is_older:  # they say nothing of what comes in now
            harm = harm.model_copy(update={"state": "not known"})
        wanted, reasons = _with_champion(spec, report, earlier, harm, is_older=is_older)
    broken = broken_columns(report, accepted)
    if broken:
        wanted, reasons = "broken_feed", [*_broken_words(broken), *reasons]
    reasons += _accepted_words(report, accepted)
    worse = _worse(spec, report)
    wanted, reasons = worse[0] or wanted, [*worse[1], *reasons]
    if worse[1] and wanted == "ignore":
        wanted = "watch"
    cause = "guard" if wanted == "rollback" else "monitor"
    worst = report.worst
    numeric = [f for f in report.features if f.kind == "numeric" and f.distance is not None]
    same_kind = worst if worst in numeric else None
    verdict = Verdict(
        batch=report.batch,
        outcome=wanted,
        reasons=tuple(reasons),
        content_sha256=report.content_sha256,
        champion_version=report.champion_version,
        champion_incident=report.champion_incident,
        incident_id=incident_id(spec.model, cause, report.batch.partition, report.champion_version),
        harm=harm,
        outcomes_are_older=is_older and wanted == "watch",
        worst_feature=worst.name if worst else None,
        ks_distance=same_kind.distance if same_kind else None,
    )
    if report.awaits_outcomes:
        verdict = _waiting(verdict, report)
    if spec.is_served_elsewhere and report.champion_version is not None:
        hold = _elsewhere(spec)
    return blocked(verdict, hold) if verdict.outcome == "retrain" and hold else verdict


def broken_columns(
    report: DriftReport, accepted: Sequence[FeedAcceptance] = ()
) -> dict[str, Break]:
    """Give the columns whose feed broke, as values prove, and that nobody has said are right.

    None of a batch that is as old as what the champion learned from: nothing is decided by it.
    """
    if report.in_sample:
        return {}
    return {
        one.name: one.broken
        for one in report.features
        if one.broken
        and one.broken.proven
        and not one.expected
        and not is_accepted(one.name, one.broken, accepted)
    }


def _broken_words(broken: Mapping[str, Break]) -> list[str]:
    told = [f"the feed of {name} broke: {one.cause}" for name, one in broken.items()]
    more = [f"and {len(told) - NAMED} more columns"] if len(told) > NAMED else []
    what_follows = (
        "these rows are in no training set and no duel until a corrected delivery is there, or a "
        "person says that they are right"
    )
    return [*told[:NAMED], *more, what_follows]


def _accepted_words(report: DriftReport, accepted: Sequence[FeedAcceptance]) -> list[str]:
    found = {one.name: one.broken for one in report.features if one.broken and one.broken.proven}
    return [
        f"{said.column}: {found[said.column].cause}; {said.actor} says that this is right: "
        f"{said.reason}"
        for said in accepted
        if said.column in found and found[said.column].kind == said.kind
    ]


def _worse(spec: ModelSpec, report: DriftReport) -> tuple[Outcome | None, list[str]]:
    """Say that the champion is worse than the one before it, if its probation ended so.

    Asked for once, with the batch that showed it: a person who said no is not asked with each.
    """
    found = report.probation
    if found is None or found.state != "worse" or found.version != report.champion_version:
        return None, []
    is_new = found.ended_with == report.batch.partition
    outcome: Outcome | None = "rollback" if is_new and spec.guard_mode != "tell" else None
    return outcome, [found.in_words]


def _waiting(verdict: Verdict, report: DriftReport) -> Verdict:
    """Give a verdict that decides nothing yet that outcomes have a say in."""
    assert report.outcomes_until is not None
    days = (report.batch.end - report.outcomes_until) / dt.timedelta(days=1)
    why = (
        f"not known yet how well it does: outcomes are complete until "
        f"{report.outcomes_until:%Y-%m-%d %H:%M}, {days:.3g} days before the batch's end; judged "
        "again when they are there"
    )
    verdict = verdict.model_copy(update={"awaits_outcomes": True})
    if verdict.outcome == "retrain":
        return blocked(verdict, why)
    return verdict.model_copy(update={"reasons": (*verdict.reasons, why)})


def blocked(verdict: Verdict, why: str) -> Verdict:
    """Give the verdict on a retrain that is wanted, and has to wait."""
    return verdict.model_copy(update={"outcome": "blocked", "reasons": (*verdict.reasons, why)})


def _elsewhere(spec: ModelSpec) -> str:
    return (
        "the model is trained and served elsewhere: retrain it there. When the new one has been "
        f"served for some time, {spec.model}__retrain by hand makes the newest rows the reference"
    )


def _without_champion(spec: ModelSpec, report: DriftReport) -> tuple[Outcome, list[str]]:
    have, need = report.trainable_rows or 0, spec.training.min_rows
    if spec.is_served_elsewhere:
        if have >= need:
            return "retrain", [
                f"there is no reference yet, and {have:,} labelled rows are there to make it of"
            ]
        return "ignore", [
            f"there is no reference yet; collecting: {have:,} of {need:,} labelled rows"
        ]
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
    harm: Harm | None,
    *,
    is_older: bool,
) -> tuple[Outcome, list[str]]:
    is_harm = harm is not None and harm.state == "below"
    due = [*_age(spec, report), *_growth(spec, report)]
    drifted = [f for f in report.columns if f.drifted and not f.expected]
    persistent = _persistent(spec, report, earlier)
    share = importance_share(report.features, persistent)
    reasons = [*([harm.in_words] if harm and is_harm else []), *due, *_another_promise(report)]
    reasons += _drift_words(spec, drifted, persistent, share)
    moving = _moving(spec, report, earlier)
    reasons += moving
    if (drifted or moving) and (blind := _blind(report.columns)):
        reasons.append(blind)
    if is_harm or due:
        return "retrain", reasons
    if persistent and share >= spec.drift.max_drifted_importance:
        if harm is None:
            return "retrain", [*reasons, "no labels yet to say whether it does harm"]
        if spec.drift.retrain_on_stable_performance:
            return "retrain", reasons
        if is_older:
            why = (
                f"the newest outcomes are of rows before {report.measured_until:%Y-%m-%d}, and it "
                f"drifts since {report.drifting_since:%Y-%m-%d}"
            )
            return "watch", [*reasons, f"not known yet whether it does harm: {why}: watched"]
        return "watch", [*reasons, f"{harm.in_words}: watched, not retrained"]
    doubt = _doubt(spec, report, harm)
    if drifted or moving or doubt:
        return "watch", [*doubt, *reasons]
    if report.state == "insufficient":
        return "watch", [
            f"{report.rows} rows are too few to say anything (drift.min_rows {spec.drift.min_rows})"
        ]
    return "ignore", [nothing_found(report.columns)]


def _persistent(
    spec: ModelSpec, report: DriftReport, earlier: Sequence[DriftReport]
) -> list[FeatureDrift]:
    """Give the columns whose drift is sure, unexpected, and lasts."""
    recent = _recent(spec, report, earlier, LOOK_BACK)
    drifted = [f for f in report.columns if f.drifted and not f.expected]
    return [f for f in drifted if _is_sure(f) and _persists(spec, f, recent)]


def _is_older(
    spec: ModelSpec, report: DriftReport, earlier: Sequence[DriftReport], harm: Harm | None
) -> bool:
    """Are all outcomes, which tell of no fall, of rows from before a drift that matters began?"""
    since, until = report.drifting_since, report.measured_until
    if since is None or until is None or until > since or (harm and harm.state == "below"):
        return False
    persistent = _persistent(spec, report, earlier)
    share = importance_share(report.features, persistent)
    return bool(persistent) and share >= spec.drift.max_drifted_importance


def _is_sure(feature: FeatureDrift) -> bool:
    """Say whether enough windows of history stand behind a finding to ask for a retrain."""
    return feature.state == "calibrated"


def _drift_words(
    spec: ModelSpec,
    drifted: Sequence[FeatureDrift],
    persistent: Sequence[FeatureDrift],
    share: float,
) -> list[str]:
    """Say what drifted: for some time, for the first time, or too early to be sure."""
    reasons = []
    sure = [f for f in drifted if _is_sure(f)]
    unsure = [f for f in drifted if not _is_sure(f)]
    if persistent:
        names = _furthest(persistent)
        reasons.append(
            f"drifted for {spec.drift.persistence_windows} of {LOOK_BACK} windows or at twice its "
            f"threshold: {names}; {share:.0%} of the model's importance"
        )
    elif sure:
        reasons.append(f"drifted for the first time: {_furthest(sure)}")
    if unsure:
        reasons.append(
            f"unlike the reference, but fewer than {spec.drift.min_history_windows} windows of "
            f"history say what is ordinary: {_furthest(unsure)}"
        )
    # nothing proves it, so it blocks nothing; but who reads of the drift should know
    like = [f"{f.name} {f.broken.cause}" for f in drifted if f.broken and not f.broken.proven]
    return [*reasons, *like[:NAMED]]


def nothing_found(columns: Sequence[FeatureDrift]) -> str:
    """Say that no column is out of the ordinary, and how many could not be judged.

    Parameters
    ----------
    columns : sequence of FeatureDrift
        All that was measured, none of it drifted.
    """
    blind = _blind(columns)
    if not blind:
        return "nothing is out of the ordinary"
    return f"nothing that could be judged is out of the ordinary; {blind}"


def _blind(columns: Sequence[FeatureDrift]) -> str:
    """Say which columns could not be judged, and what they are worth; nothing if all could."""
    left = unjudged(columns)
    if not left:
        return ""
    share = unjudged_share(columns)
    worth = "" if share is None else f" ({share:.0%} of the model's importance)"
    named = ", ".join(one.name for one in left[:NAMED])
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    return f"{len(left)} of {len(columns)} columns could not be judged{worth}: {named}{more}"


def _worth(feature: FeatureDrift) -> float:
    """Give what a feature is worth to the model; chance alone puts one below 0."""
    return max(feature.importance or 0.0, 0.0)


def unjudged_share(columns: Sequence[FeatureDrift]) -> float | None:
    """Give the share of the importance that could not be judged; None where none is known."""
    worth = {one.name: _worth(one) for one in columns}
    total = sum(worth.values())
    if not total:
        return None
    return sum(worth[one.name] for one in columns if not one.is_judged) / total


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
    oldest = spec.partitions.step(report.batch.start, 1 - windows)
    return [
        r
        for r in earlier
        if r.champion_version == report.champion_version and r.batch.start >= oldest
    ]


def _doubt(spec: ModelSpec, report: DriftReport, harm: Harm | None) -> list[str]:
    """Say that a window is below the promise while nobody can know yet whether that is chance."""
    now, promise = report.performance, report.promise
    if harm is None or harm.state != "not known" or now is None or promise is None:
        return []
    is_ordinary = harm.windows >= spec.drift.min_history_windows and harm.times < DOUBTED
    if now.high >= promise.value or is_ordinary:
        return []
    interval = f"{now.low:.3f} to {now.high:.3f}, {now.rows:,} rows"
    text = (
        f"{now.metric} {now.value:.3f} ({interval}) is below the {promise.value:.3f} that version "
        f"{report.champion_version} promised; {harm.in_words}"
    )
    return [text]


def _another_promise(report: DriftReport) -> list[str]:
    """Say that nothing was promised of the metric that is measured, if it was another then."""
    promised, now = report.promised_before, report.performance
    if promised is None or now is None:
        return []
    text = (
        f"version {report.champion_version} promised {promised.metric} {promised.value:.3f}, and "
        f"{now.metric} is measured now: nothing says yet whether {now.value:.3f} is well; the next "
        "promotion will promise it"
    )
    return [text]


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
    """Share of the importance the drifted features carry; if none is known, all count alike.

    What could not be judged counts on neither side. A feature that was constant in training could
    not show what it is worth: once it moves, it counts as much as the average one.
    """
    weights = {f.name: _worth(f) for f in features if not f.expected and f.is_judged}
    if not sum(weights.values()):
        weights = dict.fromkeys(weights, 1.0)
    average = sum(weights.values()) / max(len(weights), 1)
    for feature in features:
        if feature.was_constant and feature.drifted and feature.name in weights:
            weights[feature.name] = max(weights[feature.name], average)
    total = sum(weights.values())
    return sum(weights.get(f.name, 0.0) for f in drifted) / total if total else 0.0


def _furthest(features: Sequence[FeatureDrift]) -> str:
    first = sorted(features, key=lambda f: f.excess, reverse=True)[:5]
    return ", ".join(
        f"{f.name} ({f'{f.excess:.1f}x its threshold' if f.excess else f.reason})" for f in first
    )
