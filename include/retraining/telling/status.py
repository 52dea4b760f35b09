"""Answers the three questions about a model: what is in production, is it well, what do I do?"""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from include.retraining import shelf
from include.retraining.data.publication import newest_published, rows_in_force
from include.retraining.records import (
    BatchRef,
    Candidate,
    DriftReport,
    GateDecision,
    Performance,
    Record,
    TrainingSet,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import ledger, versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

READERS = 16
LOOK_BACK, LOOK_AHEAD = 30, 3  # partitions around the newest published one


class Status(Record):
    """Everything one look has to show; None where nothing is known yet."""

    model: str
    description: str
    owner: str
    version: int | None
    since: dt.datetime | None
    why: str | None
    by: str | None
    trained_from: dt.datetime | None
    trained_until: dt.datetime | None
    training_rows: int | None
    run_id: str | None
    previous_version: int | None
    promise: Performance | None
    newest_batch: str | None
    verdict: Verdict | None
    performance: Performance | None
    refused: tuple[str, ...]
    registry_asked: bool
    well: bool | None
    advice: tuple[str, ...]


def status_of(spec: ModelSpec, settings: Settings, *, registry: bool = False) -> Status:
    """Put together the state of a model from the ledger and the newest records.

    Parameters
    ----------
    registry : bool
        Ask MLflow as well whether the champion alias is where the ledger says. Every monitor run,
        retrain and rollback does, and enters a move by hand in the ledger, so without it the answer
        is at most a batch old, and takes no import of MLflow.
    """
    storage = Storage.of(settings)
    line = ledger.reign(ledger.read(storage, spec.model))
    entry = line[-1] if line else None
    alias = versions.champion(spec, settings) if registry else None
    number = entry.version if entry else None
    found = _Learned.of(spec, storage, entry)
    newest = newest_published(spec, rows_in_force(spec, storage))
    report = verdict = None
    if newest is not None:
        report = shelf.find(storage, DriftReport, spec.model, newest.partition)
        verdict = shelf.find(storage, Verdict, spec.model, newest.partition)
    refused = _refused(spec, storage, newest)
    moved = registry and (alias.number if alias else None) != number
    well, advice = _advise(
        spec, number, moved_to=alias.number if moved and alias else None, verdict=verdict,
        refused=refused, storage=storage,
    )  # fmt: skip
    return Status(
        model=spec.model,
        description=spec.description,
        owner=spec.owner,
        version=alias.number if alias else number,
        since=entry.at if entry else None,
        why=f"{entry.action}: {entry.reason}" if entry else None,
        by=entry.actor if entry else None,
        trained_from=found.training.training_start if found.training else None,
        trained_until=found.training.training_end if found.training else None,
        training_rows=found.training.training_rows if found.training else None,
        run_id=found.run_id,
        previous_version=line[-2].version if len(line) > 1 else None,
        promise=found.promise,
        newest_batch=newest.partition if newest else None,
        verdict=verdict,
        performance=report.performance if report else None,
        refused=refused,
        registry_asked=registry,
        well=well,
        advice=advice,
    )


class _Learned(NamedTuple):
    """What the records say of a version."""

    training: TrainingSet | None
    run_id: str | None
    promise: Performance | None

    @classmethod
    def of(cls, spec: ModelSpec, storage: Storage, entry: ledger.Entry | None) -> _Learned:
        """Read the records of the incident that made a version: its own promotion names it."""
        entries = ledger.read(storage, spec.model) if entry else []
        made = [
            one
            for one in entries
            if entry and one.version == entry.version and one.action == "promotion"
        ]
        if not made:
            return cls(None, None, None)
        incident = made[0].incident_id
        candidate = shelf.find(storage, Candidate, spec.model, incident)
        decision = shelf.find(storage, GateDecision, spec.model, incident)
        return cls(
            shelf.find(storage, TrainingSet, spec.model, incident),
            candidate.run_id if candidate else None,
            decision.candidate if decision else None,
        )


def _refused(spec: ModelSpec, storage: Storage, newest: BatchRef | None) -> tuple[str, ...]:
    """Give the partitions around the newest published one whose last delivery was refused."""
    start = newest.start if newest else spec.partitions.first
    first = max(spec.partitions.first, start - LOOK_BACK * spec.partitions.length)
    count = LOOK_BACK + LOOK_AHEAD
    names = [spec.partition_key(first + n * spec.partitions.length) for n in range(count)]
    with ThreadPoolExecutor(READERS) as threads:  # on S3 every record is a round trip
        reports = threads.map(
            lambda name: shelf.find(storage, ValidationReport, spec.model, name), names
        )
        return tuple(
            report.batch.partition for report in reports if report and report.status == "refused"
        )


def _advise(
    spec: ModelSpec,
    number: int | None,
    *,
    moved_to: int | None,
    verdict: Verdict | None,
    refused: tuple[str, ...],
    storage: Storage,
) -> tuple[bool | None, tuple[str, ...]]:
    """Say whether a model is well, as far as anybody knows, and what to do."""
    advice = []
    if number is None and moved_to is None:
        reasons = f": {verdict.reasons[0]}" if verdict else ""
        return None, (
            f"Nothing is in production yet{reasons}",
            (
                "Let batches land; the monitor asks for the first model "
                f"({spec.model}__ingest is to be unpaused)"
            ),
        )
    well: bool | None = None if verdict is None else verdict.outcome in {"ignore", "watch"}
    if verdict is None:
        advice.append("No batch was judged yet; wait for the next one")
    elif verdict.champion_version != number:
        well = None
        advice.append(
            f"The newest verdict is about version {verdict.champion_version}, before version "
            f"{number} took over; wait for the next batch"
        )
    elif verdict.outcome == "retrain":
        advice.append(
            f"A retrain was asked for: look at {spec.model}__retrain, run {verdict.incident_id}"
        )
    elif verdict.outcome == "blocked":
        advice.append(
            f"A retrain has to wait ({verdict.reasons[-1]}); to retrain all the same, trigger "
            f"{spec.model}__retrain with force"
        )
    advice.extend(
        f"{partition} was refused: deliver a corrected file, then clear that run of "
        f"{spec.model}__ingest"
        for partition in refused
    )
    if moved_to is not None:
        well = False
        known = f"version {number}" if number is not None else "none"
        advice.append(
            f"The champion alias was moved by hand: the ledger knows {known}. Restore it with "
            f"{spec.model}__rollback"
        )
    if problems := ledger.verify(storage, spec.model):
        well = False
        advice.append(f"The ledger is damaged: {problems[0]}")
    if not advice:
        advice.append("Nothing to do")
    return well, tuple(advice)


def render(status: Status) -> str:
    """Give the status as text: three questions, three answers."""
    lines = [f"{status.model}: {status.description} (owner {status.owner})", ""]
    lines.append("What is in production?")
    if status.version is None:
        lines.append("  nothing yet")
    else:
        lines.append(f"  version {status.version}, since {_moment(status.since)}, by {status.by}")
        lines.append(f"  {status.why}")
        if status.trained_from and status.trained_until and status.training_rows is not None:
            lines.append(
                f"  trained on {status.training_rows:,} rows from {status.trained_from:%Y-%m-%d} "
                f"to {status.trained_until:%Y-%m-%d}, MLflow run {status.run_id}"
            )
        if status.previous_version is not None:
            lines.append(f"  a rollback would return to version {status.previous_version}")
    lines += ["", "Is it well?"]
    word = {True: "yes", False: "no", None: "not judged yet"}[status.well]
    if status.version is None:
        word = "there is nothing to judge"
    lines.append(f"  {word}")
    if status.promise:
        lines.append(f"  promised  {_performance(status.promise)}")
    if status.performance and status.verdict:
        lines.append(
            f"  realised  {_performance(status.performance)}, by version "
            f"{status.verdict.champion_version} on {status.newest_batch}"
        )
    if status.verdict:
        lines.append(f"  verdict on {status.newest_batch}: {status.verdict.outcome}")
        lines += [f"    {reason}" for reason in status.verdict.reasons]
    lines += ["", "What do I do?", *(f"  {advice}" for advice in status.advice)]
    if not status.registry_asked:
        lines += ["", "As the ledger has it; MLflow was not asked (--registry does)."]
    return "\n".join(lines)


def _performance(found: Performance) -> str:
    return (
        f"{found.metric} {found.value:.3f} "
        f"({found.low:.3f} to {found.high:.3f}, {found.rows:,} rows)"
    )


def _moment(at: dt.datetime | None) -> str:
    return at.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else "unknown"
