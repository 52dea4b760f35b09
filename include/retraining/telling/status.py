"""Answers the three questions about a model: what is in production, is it well, what do I do?"""

from __future__ import annotations

import datetime as dt

from include.retraining import shelf
from include.retraining.data.publication import published_partitions
from include.retraining.names import storage_key
from include.retraining.records import (
    DriftReport,
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
    well: bool | None
    advice: tuple[str, ...]


def status_of(spec: ModelSpec, settings: Settings) -> Status:
    """Put together the state of a model from the ledger, the registry and the newest records."""
    storage = Storage.of(settings)
    line = ledger.reign(ledger.read(storage, spec.model))
    entry = line[-1] if line else None
    champion = versions.champion(spec, settings)
    training = (
        shelf.find(storage, TrainingSet, spec.model, champion.incident_id) if champion else None
    )
    batches = published_partitions(spec, storage)
    newest = batches[-1].partition if batches else None
    report = shelf.find(storage, DriftReport, spec.model, newest) if newest else None
    verdict = shelf.find(storage, Verdict, spec.model, newest) if newest else None
    refused = _refused(spec, storage)
    well, advice = _advise(spec, champion, entry, verdict=verdict, refused=refused, storage=storage)
    return Status(
        model=spec.model,
        description=spec.description,
        owner=spec.owner,
        version=champion.number if champion else None,
        since=entry.at if entry else None,
        why=f"{entry.action}: {entry.reason}" if entry else None,
        by=entry.actor if entry else None,
        trained_from=training.training_start if training else None,
        trained_until=champion.trained_until if champion else None,
        training_rows=training.training_rows if training else None,
        run_id=champion.run_id if champion else None,
        previous_version=line[-2].version if len(line) > 1 else None,
        promise=champion.promise if champion else None,
        newest_batch=newest,
        verdict=verdict,
        performance=report.performance if report else None,
        refused=refused,
        well=well,
        advice=advice,
    )


def _refused(spec: ModelSpec, storage: Storage) -> tuple[str, ...]:
    """Give the partitions whose newest delivery was refused."""
    found = []
    for key in storage.list(storage_key(spec.model, "reports")):
        if key.endswith("/validation.json"):
            report = storage.read_record(key, ValidationReport)
            if report and report.status == "refused":
                found.append(report.batch.partition)
    return tuple(found)


def _advise(
    spec: ModelSpec,
    champion: versions.Version | None,
    entry: ledger.Entry | None,
    *,
    verdict: Verdict | None,
    refused: tuple[str, ...],
    storage: Storage,
) -> tuple[bool | None, tuple[str, ...]]:
    advice = []
    if champion is None:
        reasons = f": {verdict.reasons[0]}" if verdict else ""
        return None, (
            f"Nothing is in production yet{reasons}",
            (
                "Let batches land; the monitor asks for the first model "
                f"({spec.model}__ingest is to be unpaused)"
            ),
        )
    well = verdict is None or verdict.outcome in {"ignore", "watch"}
    judged_older = verdict is not None and verdict.champion_version != champion.number
    if judged_older and verdict is not None:
        well = True
        advice.append(
            f"The newest verdict is about version {verdict.champion_version}, before version "
            f"{champion.number} took over; wait for the next batch"
        )
    elif verdict is not None and verdict.outcome == "retrain":
        advice.append(
            f"A retrain was asked for: look at {spec.model}__retrain, run {verdict.incident_id}"
        )
    elif verdict is not None and verdict.outcome == "blocked":
        advice.append(
            f"A retrain has to wait ({verdict.reasons[-1]}); to retrain all the same, trigger "
            f"{spec.model}__retrain with force"
        )
    advice.extend(
        f"{partition} was refused: deliver a corrected file, then clear that run of "
        f"{spec.model}__ingest"
        for partition in refused
    )
    if entry is None or entry.version != champion.number:
        well = False
        known = f"version {entry.version}" if entry else "none"
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
    word = {True: "yes", False: "no", None: "there is nothing to judge"}[status.well]
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
    return "\n".join(lines)


def _performance(found: Performance) -> str:
    return (
        f"{found.metric} {found.value:.3f} "
        f"({found.low:.3f} to {found.high:.3f}, {found.rows:,} rows)"
    )


def _moment(at: dt.datetime | None) -> str:
    return at.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else "unknown"
