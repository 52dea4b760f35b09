"""Makes the model card of a version: what it is, how it did, what it learned from, who let it in.

Written again whenever more is known: after the duel, after a promotion or rollback.
Everything in it comes from records that are kept anyway, so writing it twice gives the same card.

References
----------
Mitchell et al. (2019), "Model Cards for Model Reporting", FAT* '19.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from include.retraining import shelf
from include.retraining.monitor.verdict import unjudged_share
from include.retraining.records import (
    DriftReport,
    FeatureDrift,
    GateDecision,
    RetrainClaim,
    TrainingSet,
)
from include.retraining.registry import ledger, server, versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling import duel_table
from include.retraining.telling.escapes import code, markdown, one_line

log = logging.getLogger(__name__)

DESCRIPTION_CHARACTERS = 5000  # what MLflow's registry can keep on PostgreSQL
DRIFTED_SHOWN = 10
UNJUDGED_SHOWN = 5
REASON_CHARACTERS = 300


class Evidence(NamedTuple):
    """What is known of a version; None where it has not come to that, or is not kept."""

    version: versions.Version
    claim: RetrainClaim | None
    training: TrainingSet | None
    duel: GateDecision | None
    drift: DriftReport | None
    entries: tuple[ledger.Entry, ...]
    removal: ledger.Entry | None
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]


def publish(spec: ModelSpec, settings: Settings, number: int) -> str:
    """Write the card of a version to its MLflow run and its description; give the card."""
    evidence = gather(spec, settings, number)
    if evidence.duel is not None:
        duel_table.publish(spec, settings, evidence.duel, run_id=evidence.version.run_id)
    card = render(spec, evidence)
    server.log_to_run(settings, evidence.version.run_id, texts={shelf.CARD_ARTIFACT: card})
    description = card
    if len(card) > DESCRIPTION_CHARACTERS:
        more = f"\n\n... the rest is in {shelf.CARD_ARTIFACT} of the run"
        description = card[: DESCRIPTION_CHARACTERS - len(more)].rsplit("\n", 1)[0] + more
    server.describe_version(spec, settings, number, description)
    return card


def publish_move(spec: ModelSpec, settings: Settings, number: int) -> None:
    """Write the cards of all versions that a move of the champion to a version is about."""
    entries = ledger.read(Storage.of(settings), spec.model)
    moves = [place for place, entry in enumerate(entries) if entry.version == number]
    left = _left(entries, moves[-1]) if moves else set()
    for one in (number, *sorted(left)):
        if one == number or server.find_version(spec, settings, one) is not None:
            publish(spec, settings, one)


def try_publish_move(spec: ModelSpec, settings: Settings, number: int) -> None:
    """Publish the cards; one that cannot be made is only logged: what it is about stands."""
    try:
        publish_move(spec, settings, number)
    except Exception:  # of MLflow, storage or rendering: none is worth a failure
        log.warning("%s version %s: no model card", spec.model, number, exc_info=True)


def gather(spec: ModelSpec, settings: Settings, number: int) -> Evidence:
    """Read what is known of a version; raises RegistryError where there is none of that number."""
    storage = Storage.of(settings)
    version = versions.version(spec, settings, number)
    incident = version.incident_id
    claim = shelf.find(storage, RetrainClaim, spec.model, incident)
    partition = claim.request.batch.partition if claim else None
    run = versions.run_data(settings, version)
    entries = ledger.read(storage, spec.model)
    return Evidence(
        version=version,
        claim=claim,
        training=shelf.find(storage, TrainingSet, spec.model, incident),
        duel=shelf.find(storage, GateDecision, spec.model, incident),
        drift=shelf.find(storage, DriftReport, spec.model, partition) if partition else None,
        entries=tuple(e for e in entries if number in {e.version, e.previous_version}),
        removal=removal(entries, number),
        tags=run.tags,
        params=run.params,
        metrics=run.metrics,
    )


def removal(entries: list[ledger.Entry], number: int) -> ledger.Entry | None:
    """Give the rollback that took a version out of the line of champions, if it is out of it."""
    found = None
    for place, entry in enumerate(entries):
        if entry.version == number:
            found = None
        elif entry.action == "rollback" and found is None and number in _left(entries, place):
            found = entry
    return found


def _left(entries: list[ledger.Entry], place: int) -> set[int]:
    """Give the versions that the entry at a place took the reign from, or the way back to it."""
    before, after = (
        {entry.version for entry in ledger.reign(entries[:until])} for until in (place, place + 1)
    )
    retired = entries[place].previous_version
    return (before - after) | (set() if retired is None else {retired})


def render(spec: ModelSpec, known: Evidence) -> str:
    """Give the card as Markdown."""
    sections = {
        "": _heading(spec, known),
        "In production": _reigns(known),
        "How it did": _duel(known),
        "What it learned from": _training(spec, known),
        "Why it was trained": _cause(known),
        "Limits": _limits(spec, known),
        "Where it comes from": _lineage(spec, known),
    }
    parts = []
    for title, lines in sections.items():
        parts += [f"## {title}", ""] if title else []
        parts += [*lines, ""]
    return "\n".join(parts)


def _heading(spec: ModelSpec, known: Evidence) -> list[str]:
    return [
        f"# {markdown(spec.model)}, version {known.version.number}",
        "",
        *_standing(known),
        f"For {spec.label.task}: {markdown(spec.description)}. Owner: {markdown(spec.owner)}.",
    ]


def _standing(known: Evidence) -> list[str]:
    """Say above all else that a version was taken out of production, or must not come back."""
    lines = []
    if known.removal is not None:
        entry = known.removal
        lines.append(
            f"**Rolled back** on {entry.at:%Y-%m-%d %H:%M} UTC by {markdown(entry.actor)}, version "
            f"{entry.version} took over: {markdown(entry.reason)}"
        )
    if why := known.version.tags.get(versions.QUARANTINE_TAG):
        lines.append(f"**Quarantined**, it must not come back: {markdown(why)}")
    return [one for line in lines for one in (f"> {line}", "")]


def _reigns(known: Evidence) -> list[str]:
    if not known.entries:
        return ["Never so far."]
    return [_reign(entry, known.version.number) for entry in known.entries]


def _reign(entry: ledger.Entry, number: int) -> str:
    what = entry.action
    told = what if entry.version == number else f"version {entry.version} took over ({what})"
    return (
        f"* {entry.at:%Y-%m-%d %H:%M} UTC: {told}, by **{markdown(entry.actor)}**. "
        f"{markdown(one_line(entry.reason, REASON_CHARACTERS))}"
    )


def _duel(known: Evidence) -> list[str]:
    if known.duel is None:
        return ["Not judged yet."]
    window = ""
    if known.training is not None:
        window = (
            f"On rows later than any it learned from: {known.training.duel_start:%Y-%m-%d} to "
            f"{known.training.duel_end:%Y-%m-%d}. In brackets: the confidence interval."
        )
    return [window, "", *duel_table.as_markdown(known.duel).splitlines()]


def _training(spec: ModelSpec, known: Evidence) -> list[str]:
    if known.training is None:
        return ["Its training set is not kept."]
    rows = known.training
    window = markdown(known.params.get("window", "unknown"))
    lines = []
    if rows.adopted_from and rows.learned_until:
        lines.append(
            f"* Others trained it; it was adopted from {markdown(rows.adopted_from)}. By who "
            f"adopted it, it learned from no row from {rows.learned_until:%Y-%m-%d} on. What "
            "follows is what it is held against:"
        )
    lines += [
        (
            f"* {rows.training_rows:,} rows from {rows.training_start:%Y-%m-%d} to "
            f"{rows.training_end:%Y-%m-%d} (window: {window})"
        ),
        f"* {rows.unlabelled_rows:,} rows left out: their label was unknown or could still change",
        (
            f"* {markdown(known.params.get('estimator', 'unknown'))}, seed "
            f"{known.params.get('seed', 'unknown')}"
        ),
        f"* features: {', '.join(map(markdown, known.version.features))}",
    ]
    metric = f"cv_mean.{spec.gate.metric}"
    if metric in known.metrics:
        lines.append(f"* {spec.gate.metric} {known.metrics[metric]:.4f} on time-ordered folds")
    importances = {
        name.removeprefix("importance."): value
        for name, value in known.metrics.items()
        if name.startswith("importance.") and value > 0
    }
    if importances:
        first = sorted(importances.items(), key=lambda item: -item[1])[:5]
        most = ", ".join(f"{markdown(name)} ({value:.4f})" for name, value in first)
        lines.append(f"* most important: {most}")
    return lines


def _cause(known: Evidence) -> list[str]:
    if known.claim is None:
        return ["The request is not kept."]
    request = known.claim.request
    lines = [f"{request.trigger}, about {request.batch.partition}: {markdown(request.reason)}"]
    report = known.drift
    if report is None or report.champion_version is None:
        return lines
    lines += ["", f"That batch against version {report.champion_version} ({report.state}):", ""]
    if report.performance and report.promise:
        lines.append(
            f"* {report.performance.metric} {report.performance.value:.4f} "
            f"({report.performance.low:.4f} to {report.performance.high:.4f}), promised were "
            f"{report.promise.value:.4f}"
        )
    drifted = [f for f in report.columns if f.drifted]
    drifted.sort(key=lambda f: -f.excess)
    lines += [_drift(feature) for feature in drifted[:DRIFTED_SHOWN]]
    if len(drifted) > DRIFTED_SHOWN:
        lines.append(f"* and {len(drifted) - DRIFTED_SHOWN} more")
    lines += (
        _unjudged(report) if drifted else [*_unjudged(report), "* nothing that was judged drifted"]
    )
    return lines


def _unjudged(report: DriftReport) -> list[str]:
    """Say what could not be judged, the most important first: silence about it is no all-clear."""
    left = report.unjudged
    if not left:
        return []
    names = ", ".join(markdown(feature.name) for feature in left[:UNJUDGED_SHOWN])
    more = f" and {len(left) - UNJUDGED_SHOWN:,} more" if len(left) > UNJUDGED_SHOWN else ""
    share = unjudged_share(report.columns)
    worth = "" if share is None else f", with {share:.0%} of the model's importance"
    told = f"{len(left):,} of {len(report.columns):,} columns could not be judged"
    return [f"* {told}{worth}: {names}{more}"]


def _drift(feature: FeatureDrift) -> str:
    what, *numbers = feature.furthest
    value, threshold = ("unknown" if one is None else f"{one:.3f}" for one in numbers)
    expected = ", expected" if feature.expected else ""
    return f"* {markdown(feature.name)}: {what} {value}, threshold {threshold}{expected}"


def _limits(spec: ModelSpec, known: Evidence) -> list[str]:
    lines = [f"* {markdown(limit)}" for limit in spec.limitations]
    if known.training is not None and not known.training.adopted_from:
        lines.append(
            f"* It knows nothing from before {known.training.training_start:%Y-%m-%d} or after "
            f"{known.training.training_end:%Y-%m-%d}."
        )
    lines.append(
        f"* A label counts as final {spec.label.maturity_days:g} day(s) after its row; what "
        "changes later is not seen."
    )
    if spec.drift.expected:
        lines.append(f"* Drift of {', '.join(map(markdown, spec.drift.expected))} raises no alarm.")
    if spec.training.balance_classes:
        lines.append("* Its probabilities are those of classes of equal shares.")
    return lines


def _lineage(spec: ModelSpec, known: Evidence) -> list[str]:
    names = ("data_sha256", "spec_sha256", "git_commit", "feature_service")
    lines = [f"* {name}: {code(known.tags.get(f'retraining.{name}', 'unknown'))}" for name in names]
    again = f"python -m include.retraining reproduce {spec.model} --version {known.version.number}"
    return [
        *lines,
        f"* incident {code(known.version.incident_id)}, MLflow run {code(known.version.run_id)}",
        f"* again: {code(again)}",
    ]
