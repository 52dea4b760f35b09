"""Answers the three questions about a model: what is in production, is it well, what do I do?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
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
    RetrainClaim,
    TrainingSet,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import ledger, versions
from include.retraining.retrain.claims import claimed
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.escapes import one_line

READERS = 16
LOOK_BACK, LOOK_AHEAD = 30, 3  # partitions around the newest published one
UNJUDGED_SHOWN = 5


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
    unjudged: tuple[str, ...]
    retrain: str | None
    refused: tuple[str, ...]
    unpublished: tuple[str, ...]
    registry_asked: bool
    well: bool | None
    word: str
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
    entries = ledger.read(storage, spec.model)
    line = ledger.reign(entries)
    entry = line[-1] if line else None
    alias = versions.champion(spec, settings) if registry else None
    number = entry.version if entry else None
    found = _Learned.of(spec, storage, entries, number)
    rows = rows_in_force(spec, storage)
    newest = newest_published(spec, rows)
    report = verdict = None
    if newest is not None:
        report = shelf.find(storage, DriftReport, spec.model, newest.partition)
        verdict = shelf.find(storage, Verdict, spec.model, newest.partition)
    landed = _landed(spec, storage, newest)
    look = _Look(
        spec=spec,
        number=number,
        newest=newest,
        report=report,
        verdict=verdict,
        retrain=_retrain(spec, storage, entries, newest, verdict),
        refused=tuple(one.batch for one in landed if one.status == "refused"),
        unpublished=tuple(
            one.batch
            for one in landed
            if one.status == "accepted" and one.batch.partition not in rows.parts
        ),
        moved_to=alias.number if alias and alias.number != number else None,
        problems=tuple(ledger.verify(storage, spec.model, entries)),
    )
    well, word = look.judged()
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
        unjudged=tuple(one.name for one in report.unjudged) if report else (),
        retrain=look.retrain,
        refused=tuple(one.partition for one in look.refused),
        unpublished=tuple(one.partition for one in look.unpublished),
        registry_asked=registry,
        well=well,
        word=word,
        advice=look.advice(),
    )


class _Learned(NamedTuple):
    """What the records say of a version."""

    training: TrainingSet | None
    run_id: str | None
    promise: Performance | None

    @classmethod
    def of(
        cls, spec: ModelSpec, storage: Storage, entries: Sequence[ledger.Entry], number: int | None
    ) -> _Learned:
        """Read the records of the incident that made a version: its own promotion names it."""
        made = [one for one in entries if one.version == number and one.action == "promotion"]
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


def _landed(
    spec: ModelSpec, storage: Storage, newest: BatchRef | None
) -> tuple[ValidationReport, ...]:
    """Give the reports about what landed last of the partitions around the newest published one."""
    start = newest.start if newest else spec.partitions.first
    first = max(spec.partitions.first, start - LOOK_BACK * spec.partitions.length)
    count = LOOK_BACK + LOOK_AHEAD
    names = [spec.partition_key(first + n * spec.partitions.length) for n in range(count)]
    with ThreadPoolExecutor(READERS) as threads:  # on S3 every record is a round trip
        reports = threads.map(
            lambda name: shelf.find(storage, ValidationReport, spec.model, name), names
        )
        return tuple(filter(None, reports))


def _retrain(  # noqa: PLR0911 - one return for each thing that can have come of it
    spec: ModelSpec,
    storage: Storage,
    entries: Sequence[ledger.Entry],
    newest: BatchRef | None,
    verdict: Verdict | None,
) -> str | None:
    """Say how far the last retrain has come: the one that the verdict asked for, else any."""
    if newest is None:
        return None
    if verdict is not None and verdict.outcome == "retrain":
        incident = verdict.incident_id
    else:
        since = newest.end - LOOK_BACK * spec.partitions.length
        known = [one for one in claimed(storage, spec.model) if since <= one.end <= newest.end]
        if not known:
            return None
        incident = known[-1].incident_id
    claim = shelf.find(storage, RetrainClaim, spec.model, incident)
    if claim is None:
        return f"{incident} has not begun: look at {spec.model}__retrain"
    where = f"run {claim.run_id} of {spec.model}__retrain"
    decision = shelf.find(storage, GateDecision, spec.model, incident)
    if decision is None:
        candidate = shelf.find(storage, Candidate, spec.model, incident)
        so_far = f"version {candidate.version} is trained" if candidate else "nothing is trained"
        return f"{incident} has begun and not ended, {so_far}: {where}"
    number = decision.candidate_version
    if not decision.passed:
        return f"{incident} has ended, version {number} was rejected: {_reasons(decision)}"
    places = [
        place
        for place, one in enumerate(entries)
        if (one.incident_id, one.action) == (incident, "promotion")
    ]
    if not places:
        return f"{incident}: version {number} passed the gate and is not promoted: {where}"
    later = next((one for one in entries[places[0] + 1 :] if one.version != number), None)
    if later is None or entries[-1].version == number:
        return f"{incident} has ended, version {number} is in production"
    if later.action == "rollback":
        return (
            f"{incident} has ended, version {number} was promoted and rolled back: {later.reason}"
        )
    return f"{incident} has ended, version {number} was promoted, and replaced since"


def _reasons(decision: GateDecision) -> str:
    return "; ".join(decision.reasons)


class _Look(NamedTuple):
    """What was found, before anybody says whether it is well."""

    spec: ModelSpec
    number: int | None
    newest: BatchRef | None
    report: DriftReport | None
    verdict: Verdict | None
    retrain: str | None
    refused: tuple[BatchRef, ...]
    unpublished: tuple[BatchRef, ...]
    moved_to: int | None
    problems: tuple[str, ...]

    def _judged_to_retrain(self) -> tuple[bool | None, str]:
        """Say whether a model that is to be retrained is worse, or only could be better."""
        report = self.report
        now, promise = (report.performance, report.promise) if report else (None, None)
        is_worse = bool(now and promise and now.high < promise.value)
        if is_worse or report is None or (report.worst is not None and report.worst.drifted):
            return False, "no"
        if now is None or promise is None:
            return None, "cannot be said, no outcome is known yet; a retrain was asked for"
        return True, "yes, it does as it promised; a retrain was asked for all the same"

    def judged(self) -> tuple[bool | None, str]:  # noqa: PLR0911 - one return per state
        """Say whether the model is well, as far as anybody knows, and in words."""
        if self.number is None and self.moved_to is None:
            return None, "there is nothing to judge"
        if self.moved_to is not None or self.problems:
            return False, "no"
        starving = [one for one in self.refused if self._is_newest(one)]
        if starving:
            return False, f"no: the newest batch, {starving[-1].partition}, was refused"
        if not self._is_about_champion() or self.verdict is None:
            return None, "not judged yet"
        if self.verdict.outcome in {"retrain", "blocked"}:
            return self._judged_to_retrain()
        if self.verdict.outcome == "watch":
            worst = self.report.worst if self.report else None
            if worst is None or not worst.drifted:
                return None, "cannot be said for certain: see the reasons"
            return None, f"drift is watched: {worst.name} at {worst.excess:.1f}x its threshold"
        if self.report is not None and self.report.unjudged:
            left, all_of_them = len(self.report.unjudged), len(self.report.columns)
            return True, f"yes, as far as {all_of_them - left:,} of {all_of_them:,} columns say"
        return True, "yes"

    def _is_newest(self, batch: BatchRef) -> bool:
        return self.newest is None or batch.start >= self.newest.start

    def _is_about_champion(self) -> bool:
        return self.verdict is not None and self.verdict.champion_version == self.number

    def advice(self) -> tuple[str, ...]:
        """Say what is to be done, the most urgent first."""
        model = self.spec.model
        told: list[str] = []
        if self.number is None and self.moved_to is None:
            reasons = f": {self.verdict.reasons[0]}" if self.verdict else ""
            told += [
                f"Nothing is in production yet{reasons}",
                "Let batches land; the monitor asks for the first model "  # noqa: ISC004
                f"({model}__ingest is to be unpaused)",
            ]
        else:
            told += self._of_the_verdict()
        told += [
            f"{one.partition} was refused: deliver a corrected file, then clear that run of "
            f"{model}__ingest"
            for one in self.refused
        ]
        told += [
            f"{one.partition} was validated and is not in force: look at its run of {model}__ingest"
            for one in self.unpublished
        ]
        if self.moved_to is not None:
            known = f"version {self.number}" if self.number is not None else "none"
            told.append(
                f"The champion alias was moved by hand: the ledger knows {known}. Restore it with "
                f"{model}__rollback"
            )
        if self.problems:
            told.append(f"The ledger is damaged: {self.problems[0]}")
        return tuple(told) or ("Nothing to do",)

    def _of_the_verdict(self) -> list[str]:  # noqa: PLR0911 - one return per state
        model, verdict = self.spec.model, self.verdict
        if self.newest is None:
            return ["No batch is in force; let one land"]
        if verdict is None:
            return [
                f"{self.newest.partition} is not judged yet: look at its run of {model}__monitor"
            ]
        if not self._is_about_champion():
            about = (
                "was made before any version was in production"
                if verdict.champion_version is None
                else f"is about version {verdict.champion_version}, before version {self.number} "
                "took over"
            )
            return [f"The newest verdict {about}; wait for the next batch"]
        if verdict.outcome == "retrain":
            return [f"A retrain was asked for: {self.retrain}"]
        if verdict.outcome == "blocked":
            why = verdict.reasons[-1]
            return [f"A retrain has to wait ({why}); {model}__retrain with force waits for nothing"]
        if verdict.outcome == "watch":
            run = f"the run of {model}__monitor for {self.newest.partition}"
            return [f"No retrain is asked for; look at the drift report of {run}"]
        return []


def render(status: Status) -> str:
    """Give the status as text: three questions, three answers."""
    lines = [f"{status.model}: {one_line(status.description)} (owner {one_line(status.owner)})", ""]
    lines.append("What is in production?")
    if status.version is None:
        lines.append("  nothing yet")
    else:
        by = one_line(status.by)
        lines.append(f"  version {status.version}, since {_moment(status.since)}, by {by}")
        lines.append(f"  {one_line(status.why)}")
        if status.trained_from and status.trained_until and status.training_rows is not None:
            lines.append(
                f"  trained on {status.training_rows:,} rows from {status.trained_from:%Y-%m-%d} "
                f"to {status.trained_until:%Y-%m-%d}, MLflow run {status.run_id}"
            )
        if status.previous_version is not None:
            lines.append(f"  a rollback would return to version {status.previous_version}")
    lines += ["", "Is it well?", f"  {one_line(status.word)}"]
    if status.promise:
        lines.append(f"  promised  {_performance(status.promise)}")
    if status.performance and status.verdict:
        lines.append(
            f"  realised  {_performance(status.performance)}, by version "
            f"{status.verdict.champion_version} on {status.newest_batch}"
        )
    if status.verdict:
        lines.append(f"  verdict on {status.newest_batch}: {status.verdict.outcome}")
        lines += [f"    {one_line(reason)}" for reason in status.verdict.reasons]
    if status.unjudged:
        names = one_line(", ".join(status.unjudged[:UNJUDGED_SHOWN]))
        more = len(status.unjudged) - UNJUDGED_SHOWN
        lines.append(f"  not judged: {names}{f' and {more} more' if more > 0 else ''}")
    if status.retrain:
        lines.append(f"  last retrain: {one_line(status.retrain)}")
    lines += ["", "What do I do?", *(f"  {one_line(advice)}" for advice in status.advice)]
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
