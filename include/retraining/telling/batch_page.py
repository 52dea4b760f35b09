"""Gives what the page "Models" shows of one batch: its whole story, in the order it happened.

A chapter whose record is not there says so: it has not come to that, or it was swept away.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

from pydantic import Field

from include.retraining import shelf
from include.retraining.errors import LedgerError
from include.retraining.names import dag_id
from include.retraining.records import (
    Candidate,
    DriftReport,
    FeatureDrift,
    FeatureSet,
    Finding,
    GateDecision,
    GuardAnswer,
    Performance,
    Record,
    TrainingSet,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import ledger
from include.retraining.retrain import claims
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.model_page import (
    Cell,
    DuelRow,
    Move,
    cell_of,
    data_docs,
    duels_of,
    move_of,
    told_finding,
)
from include.retraining.telling.page import Link, in_words, version_link

FINDINGS = 50
COLUMNS = 300

R = TypeVar("R", bound=Record)
Tone = Literal["good", "bad", "open", "plain"]


class Fact(Record):
    """One thing that is known, by name."""

    name: str
    value: str


class Chapter(Record):
    """One step of a batch's way."""

    key: Literal[
        "validation", "quarantine", "features", "drift", "verdict", "retrain", "gate", "production"
    ]
    title: str
    tone: Tone
    told: str = Field(description="what came of it, in one sentence")
    lines: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    links: tuple[Link, ...] = ()


class MeasuredColumn(Record):
    """One column of the batch, in full."""

    name: str
    kind: Literal["numeric", "categorical"]
    importance: float | None
    cell: Cell
    measurements: tuple[tuple[str, float | None, float | None], ...] = Field(
        description="name, value, threshold of each; None: not measured, or no verdict possible"
    )


class BatchPage(Record):
    """Everything the page of one batch has to show."""

    as_of: dt.datetime
    model: str
    partition: str
    start: dt.datetime
    end: dt.datetime
    chapters: tuple[Chapter, ...]
    columns: tuple[MeasuredColumn, ...] = Field(description="the furthest out first")
    duels: tuple[DuelRow, ...]
    moves: tuple[Move, ...]
    trouble: tuple[str, ...] = Field(description="what could not be read")


def batch_page(
    spec: ModelSpec, settings: Settings, partition: str, *, at: dt.datetime
) -> BatchPage:
    """Read what there is to show of one batch.

    Raises
    ------
    SpecError
        The model has no such partition.
    OSError, Unavailable
        The storage does not answer.
    """
    batch, storage = spec.batch_ref(partition), Storage.of(settings)
    trouble: list[str] = []

    def find(kind: type[R], of: str, what: str) -> R | None:
        (found,), damaged = shelf.find_readable(storage, kind, spec.model, [of])
        if damaged:
            trouble.append(f"the record of the {what} is damaged")
        return found

    report = find(ValidationReport, partition, "validation")
    features = find(FeatureSet, partition, "features")
    drift = find(DriftReport, partition, "drift")
    verdict = find(Verdict, partition, "verdict")
    answer = find(GuardAnswer, partition, "answer to the guard")
    known = _retrains_about(spec, storage, batch.end, trouble)
    duels = duels_of(spec, storage, known, trouble)
    moves = _moves(spec, storage, partition, {one.incident_id for one in duels}, trouble)
    chapters = [
        _validation(settings, report),
        *_quarantine(report),
        _features(features),
        _drift(drift),
        _verdict(verdict, answer),
    ]
    for duel in reversed(duels):
        training = find(TrainingSet, duel.incident_id, "training set")
        candidate = find(Candidate, duel.incident_id, "candidate")
        decision = find(GateDecision, duel.incident_id, "gate's decision")
        chapters += [
            _retrain(spec, settings, duel, training, candidate),
            _gate(duel, decision),
        ]
    if duels or moves:
        chapters.append(_production(settings, spec, moves))
    return BatchPage(
        as_of=at,
        model=spec.model,
        partition=partition,
        start=batch.start,
        end=batch.end,
        chapters=tuple(chapters),
        columns=_measured(drift),
        duels=duels,
        moves=moves,
        trouble=tuple(trouble),
    )


def _retrains_about(
    spec: ModelSpec, storage: Storage, end: dt.datetime, trouble: list[str]
) -> list[claims.Claimed]:
    try:
        return [one for one in claims.claimed(storage, spec.model) if one.end == end]
    except ValueError as error:
        trouble.append(f"the list of retrains: {in_words(error)}")
        return []


def _moves(
    spec: ModelSpec, storage: Storage, partition: str, incidents: set[str], trouble: list[str]
) -> tuple[Move, ...]:
    """Give the entries of the ledger that this batch has led to."""
    try:
        entries = ledger.read(storage, spec.model)
    except (LedgerError, ValueError) as error:
        trouble.append(f"the ledger: {in_words(error)}")
        return ()
    return tuple(
        move_of(one)
        for one in entries
        if one.partition == partition or one.incident_id in incidents
    )


# --- chapters -------------------------------------------------------------------------------------


def _validation(settings: Settings, report: ValidationReport | None) -> Chapter:
    if report is None:
        return Chapter(
            key="validation", title="Delivery", tone="open", told="No validation is known of it."
        )
    refused = report.status == "refused"
    told = (
        f"Refused: all {report.rows_in:,} rows were kept apart."
        if refused
        else f"Accepted: {report.rows_good:,} of {report.rows_in:,} rows."
    )
    facts = [Fact(name="delivery", value=f"number {report.delivery}" if report.delivery else "-")]
    if report.mapping is not None:
        by = report.mapping.actor or "somebody"
        facts.append(Fact(name="read differently", value=f"by {by}: {report.mapping.reason}"))
        facts += [
            Fact(name=f"renamed {old}", value=new) for old, new in report.mapping.renames.items()
        ]
    findings = sorted(report.findings, key=lambda one: one.severity != "critical")
    return Chapter(
        key="validation",
        title="Delivery",
        tone="bad" if refused else "good",
        told=told,
        lines=tuple(_finding(one) for one in findings[:FINDINGS]),
        facts=tuple(facts),
        links=data_docs(settings, report),
    )


def _finding(one: Finding) -> str:
    rows = f" ({one.failed_rows:,} rows)" if one.failed_rows else ""
    return f"{one.severity}: {told_finding(one.expectation, one.column, one.detail)}{rows}"


def _quarantine(report: ValidationReport | None) -> tuple[Chapter, ...]:
    if report is None or not report.rows_quarantined:
        return ()
    facts = (Fact(name="kept at", value=report.quarantine_key),) if report.quarantine_key else ()
    chapter = Chapter(
        key="quarantine",
        title="Quarantine",
        tone="open",
        told=f"{report.rows_quarantined:,} rows are kept apart; a replay can bring them back.",
        facts=facts,
    )
    return (chapter,)


def _features(found: FeatureSet | None) -> Chapter:
    if found is None:
        return Chapter(
            key="features", title="Features", tone="open", told="No features are known of it."
        )
    return Chapter(
        key="features",
        title="Features",
        tone="good",
        told=f"{found.rows:,} rows have their features, each as of its own time.",
        facts=(
            Fact(name="feature service", value=found.service),
            Fact(name="version of the joined table", value=str(found.table_version)),
        ),
    )


def _drift(found: DriftReport | None) -> Chapter:
    if found is None:
        return Chapter(
            key="drift", title="Measured", tone="open", told="No measurement is known of it."
        )
    drifted = [one for one in found.columns if one.drifted and not one.expected]
    judged = len(found.columns) - len(found.unjudged)
    if found.champion_version is None:
        told = "No model was in production: there was nothing to hold it against."
    elif not found.columns:
        told = "No column was measured."
    else:
        told = (
            f"{len(drifted):,} of {judged:,} judged columns drifted; "
            f"{len(found.unjudged):,} could not be judged."
        )
    known = {
        "rows": f"{found.rows:,}",
        "with labels that can no longer change": f"{found.labelled_rows:,}",
        "realised": performance(found.performance) if found.performance else None,
        "promised": performance(found.promise) if found.promise else None,
        "champion": f"version {found.champion_version}" if found.champion_version else None,
    }
    return Chapter(
        key="drift",
        title="Measured",
        tone="bad" if drifted else "plain",
        told=told,
        lines=tuple(_limits(found)),
        facts=tuple(Fact(name=name, value=value) for name, value in known.items() if value),
    )


def _limits(found: DriftReport) -> Iterator[str]:
    """Say what limits the meaning of what was measured."""
    if found.state == "uncalibrated":
        yield "Too few windows say what is ordinary: the thresholds are not calibrated yet."
    if found.in_sample:
        yield (
            "It began before the champion's training data ended: nothing is decided by its metric."
        )
    if found.awaits_outcomes:
        yield f"Outcomes are complete only until {found.outcomes_until:%Y-%m-%d %H:%M} UTC."
    if found.probation:
        yield found.probation.in_words


def _verdict(found: Verdict | None, answer: GuardAnswer | None) -> Chapter:
    if found is None:
        return Chapter(
            key="verdict", title="Verdict", tone="open", told="No verdict is known of it."
        )
    lines = list(found.reasons)
    if found.awaits_outcomes:
        lines.append("Outcomes are missing that were due: it is judged again when they are there.")
    if found.harm is not None and found.harm.in_words not in found.reasons:
        lines.append(f"Has it fallen? {found.harm.in_words}.")
    if answer is not None and answer.incident_id == found.incident_id:
        lines.append(f"Asked about the rollback: {answer.in_words}.")
    tones: dict[str, Tone] = {"ignore": "good", "watch": "open", "blocked": "open"}
    about = (
        f"about version {found.champion_version}"
        if found.champion_version is not None
        else "with no version in production"
    )
    return Chapter(
        key="verdict",
        title="Verdict",
        tone=tones.get(found.outcome, "bad"),
        told=f"{found.outcome}, {about}.",
        lines=tuple(lines),
    )


def _retrain(
    spec: ModelSpec,
    settings: Settings,
    duel: DuelRow,
    training: TrainingSet | None,
    candidate: Candidate | None,
) -> Chapter:
    is_adopted = training is not None and training.adopted_from
    told = (
        f"Version {candidate.version} was {'adopted' if is_adopted else 'trained'}."
        if candidate
        else "It was claimed; no version is known to have come of it."
    )
    facts = [Fact(name="incident", value=duel.incident_id)]
    if duel.run_id:
        facts.append(Fact(name=f"run of {dag_id(spec.model, 'retrain')}", value=duel.run_id))
    if training:
        facts += [
            Fact(
                name="held against" if is_adopted else "learned from",
                value=f"{training.training_rows:,} rows, {training.training_start:%Y-%m-%d} to "
                f"{training.training_end:%Y-%m-%d}",
            ),
            Fact(
                name="held out for the duel",
                value=f"{training.duel_rows:,} rows, {training.duel_start:%Y-%m-%d} to "
                f"{training.duel_end:%Y-%m-%d}",
            ),
        ]
    return Chapter(
        key="retrain",
        title="Retrain",
        tone="plain" if candidate else "open",
        told=told,
        facts=tuple(facts),
        links=version_link(settings, spec.model, candidate.version if candidate else None),
    )


def _gate(duel: DuelRow, decision: GateDecision | None) -> Chapter:
    if decision is None:
        return Chapter(key="gate", title="Gate", tone="open", told="No decision is known yet.")
    told = (
        f"Version {decision.candidate_version} "
        f"{'passed' if decision.passed else 'was rejected'}"
        + (f" (gate.mode was {decision.mode})" if decision.mode != "enabled" else "")
    )
    facts = []
    if decision.candidate:
        facts.append(Fact(name="candidate", value=performance(decision.candidate)))
    if decision.champion:
        facts.append(
            Fact(
                name=f"version {duel.champion_version} on the same rows",
                value=performance(decision.champion),
            )
        )
    if decision.gain:
        gain = decision.gain
        facts.append(
            Fact(name="gain", value=f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})")
        )
    checks = (
        f"{'passed' if one.passed else 'not passed'}: {one.name}: {one.detail}"
        for one in decision.checks
    )
    return Chapter(
        key="gate",
        title="Gate",
        tone="good" if decision.passed else "bad",
        told=f"{told}.",
        lines=(*decision.reasons, *checks),
        facts=tuple(facts),
    )


def _production(settings: Settings, spec: ModelSpec, moves: Sequence[Move]) -> Chapter:
    if not moves:
        return Chapter(
            key="production",
            title="Production",
            tone="plain",
            told="The champion was not changed because of it.",
        )
    words = {"promotion": "was promoted", "rollback": "came back by a rollback"}
    lines = [
        f"{one.at.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC: version {one.version} "
        f"{words.get(one.action, 'was moved in by hand')}, by {one.actor}: {one.reason}"
        for one in moves
    ]
    return Chapter(
        key="production",
        title="Production",
        tone="plain",
        told=f"The champion was changed {len(moves)} time{'s' if len(moves) > 1 else ''}.",
        lines=tuple(lines),
        links=version_link(settings, spec.model, moves[-1].version),
    )


def _measured(drift: DriftReport | None) -> tuple[MeasuredColumn, ...]:
    if drift is None:
        return ()
    ordered = sorted(drift.columns, key=_urgency)
    return tuple(
        MeasuredColumn(
            name=one.name,
            kind=one.kind,
            importance=one.importance,
            cell=cell_of(one),
            measurements=tuple((m.name, m.value, m.threshold) for m in one.measurements),
        )
        for one in ordered[:COLUMNS]
    )


def _urgency(column: FeatureDrift) -> tuple[bool, float, str]:
    return not column.drifted, -column.excess, column.name


def performance(found: Performance) -> str:
    """Say what a metric is, with its interval."""
    return (
        f"{found.metric} {found.value:.4g} ({found.low:.4g} to {found.high:.4g}, "
        f"{found.rows:,} rows)"
    )
