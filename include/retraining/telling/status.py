"""Answers the three questions about a model: what is in production, is it well, what do I do?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

from include.retraining import shelf
from include.retraining.data import broken_feeds
from include.retraining.data.outcomes import missing_until, outcomes_of, without_label
from include.retraining.data.publication import newest_published, rows_in_force
from include.retraining.names import Stage, dag_id
from include.retraining.records import (
    BatchRef,
    Candidate,
    DriftReport,
    GateDecision,
    GuardAnswer,
    Performance,
    Record,
    RetrainClaim,
    TrainingSet,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import anchor, identity, ledger, versions
from include.retraining.registry.succession import no_champion
from include.retraining.retrain.claims import claimed
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.escapes import one_line

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
    adopted_from: str
    learned_until: dt.datetime | None
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
    measured: tuple[dt.datetime, dt.datetime] | None = None  # earlier rows of `performance`
    outcomes_until: dt.datetime | None = None
    outcomes_due: tuple[str, ...] = ()
    probation: str | None = None
    fallen: str | None = None  # what all windows say of the metric, where nothing else says it
    ledger_problems: tuple[str, ...] = ()
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
    found = _Learned.of(spec, storage, entries, entry)
    rows = rows_in_force(spec, storage)
    newest = newest_published(spec, rows)
    report = verdict = None
    landed, damaged = _landed(spec, storage, newest)
    if newest is not None:
        names = [newest.partition]
        (report,), bad = shelf.find_readable(storage, DriftReport, spec.model, names)
        (verdict,), worse = shelf.find_readable(storage, Verdict, spec.model, names)
        damaged += [(name, "monitor") for name in dict.fromkeys((*bad, *worse))]
    outcomes = outcomes_of(spec, storage)
    due = missing_until(outcomes, newest.end) if outcomes and newest else []
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
        trouble=_trouble(spec, settings, entry, alias) if registry else "",
        made_by=entry.made_by if entry else None,
        problems=(
            anchor.verify(spec, settings, entries).problems
            if registry
            else tuple(ledger.verify(storage, spec.model, entries))
        ),
        outcomes_due=tuple(due),
        answer=_answer(storage, verdict),
        without_label=tuple(without_label(spec, storage, rows)),
        damaged=tuple(damaged),
    )
    well, word = look.judged()
    if look.moved_to is not None:  # what the ledger knows is of another version
        entry, found = None, _Learned(None, None, None)
    return Status(
        model=spec.model,
        description=spec.description,
        owner=spec.owner,
        version=number if not registry else alias.number if alias else None,
        since=entry.at if entry else None,
        why=f"{entry.action}: {entry.reason}" if entry else None,
        by=entry.actor if entry else None,
        trained_from=found.training.training_start if found.training else None,
        trained_until=found.training.training_end if found.training else None,
        training_rows=found.training.training_rows if found.training else None,
        adopted_from=found.training.adopted_from if found.training else "",
        learned_until=found.training.learned_until if found.training else None,
        run_id=found.run_id,
        previous_version=next(
            (one.version for one in reversed(line) if one.version != number), None
        ),
        promise=found.promise,
        newest_batch=newest.partition if newest else None,
        verdict=verdict,
        performance=report.performance if report else None,
        unjudged=tuple(one.name for one in report.unjudged) if report else (),
        measured=(report.measured_from, report.measured_until)
        if report and report.measured_from and report.measured_until
        else None,
        retrain=look.retrain,
        refused=tuple(one.partition for one in look.refused),
        unpublished=tuple(one.partition for one in look.unpublished),
        outcomes_until=outcomes.until if outcomes else None,
        outcomes_due=look.outcomes_due,
        probation=look.probation(),
        fallen=look.fallen(),
        ledger_problems=look.problems,
        registry_asked=registry,
        well=well,
        word=word,
        advice=look.advice(),
    )


def _trouble(
    spec: ModelSpec,
    settings: Settings,
    entry: ledger.Entry | None,
    alias: versions.Version | None,
) -> str:
    """Say why MLflow does not have the champion of the ledger; empty if it does."""
    if entry is None:
        return ""
    if alias is None:
        return no_champion(spec, settings, entry)
    why = identity.loss(spec, settings, entry)
    if not why:
        return ""
    return (
        f"The champion alias is at version {alias.number}, and {why}. The next run of "
        f"{spec.model}__monitor enters it as made by hand. If it is not meant, restore MLflow from "
        f"a backup, or run {spec.model}__rollback"
    )


class _Learned(NamedTuple):
    """What the records say of a version."""

    training: TrainingSet | None
    run_id: str | None
    promise: Performance | None

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        storage: Storage,
        entries: Sequence[ledger.Entry],
        champion: ledger.Entry | None,
    ) -> _Learned:
        """Read the records of the incident that made a version: its own promotion names it."""
        made = [
            one
            for one in entries
            if champion and one.action == "promotion" and one.is_about_same(champion)
        ]
        if not made:
            return cls(None, None, None)
        incident = made[-1].incident_id
        candidate = shelf.find(storage, Candidate, spec.model, incident)
        decision = shelf.find(storage, GateDecision, spec.model, incident)
        return cls(
            shelf.find(storage, TrainingSet, spec.model, incident),
            candidate.run_id if candidate else None,
            decision.candidate if decision else None,
        )


def _answer(storage: Storage, verdict: Verdict | None) -> GuardAnswer | None:
    """Give what a person said to the rollback that a verdict asks for; None: nothing yet."""
    if verdict is None or verdict.outcome != "rollback":
        return None
    found = shelf.find(storage, GuardAnswer, verdict.batch.model, verdict.batch.partition)
    return found if found and found.incident_id == verdict.incident_id else None


def _landed(
    spec: ModelSpec, storage: Storage, newest: BatchRef | None
) -> tuple[list[ValidationReport], list[tuple[str, Stage]]]:
    """Give the reports of the partitions around the newest published one, and damaged ones."""
    start = newest.start if newest else spec.partitions.first
    first = max(spec.partitions.first, spec.partitions.step(start, -LOOK_BACK))
    count = LOOK_BACK + LOOK_AHEAD
    names = [spec.partition_key(spec.partitions.step(first, n)) for n in range(count)]
    found, bad = shelf.find_readable(storage, ValidationReport, spec.model, names)
    return list(filter(None, found)), [(name, "ingest") for name in bad]


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
        since = spec.partitions.step(newest.end, -LOOK_BACK)
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
    trouble: str
    made_by: str | None
    problems: tuple[str, ...]
    outcomes_due: tuple[str, ...]
    answer: GuardAnswer | None
    without_label: tuple[str, ...]
    damaged: tuple[tuple[str, Stage], ...] = ()  # partitions, and the stage whose record it is

    def _judged_to_retrain(self) -> tuple[bool | None, str]:
        """Say whether a model that is to be retrained is worse, or only could be better."""
        report = self.report
        harm = self.verdict.harm if self.verdict else None
        if harm is not None and harm.state == "below":
            return False, f"no: {harm.in_words}"
        worst = report.worst if report else None
        if worst is not None and worst.drifted:
            told = f"{worst.name} has drifted, {worst.excess:.1f}x its threshold"
            if harm is not None and harm.state == "within":
                return None, f"cannot be said for certain: {told}; {harm.in_words}"
            return False, f"no: {told}"
        if harm is None:
            return None, "cannot be said, no outcome is known yet; a retrain was asked for"
        well = True if harm.state == "within" else None
        return well, f"{harm.in_words}; a retrain was asked for all the same"

    def judged(self) -> tuple[bool | None, str]:  # noqa: C901, PLR0911, PLR0912 - one per state
        """Say whether the model is well, as far as anybody knows, and in words."""
        if self.number is None and self.moved_to is None:
            return None, "there is nothing to judge"
        if self.moved_to is not None:
            by_hand = f"version {self.moved_to} was made champion by hand"
            return False, f"no: {by_hand}, and nothing was judged since"
        if self.trouble or self.problems:
            return False, "no"
        starving = [one for one in self.refused if self._is_newest(one)]
        if starving:
            return False, f"no: the newest batch, {starving[-1].partition}, was refused"
        if self._is_newest_damaged():
            return None, "cannot be said: the newest verdict is damaged"
        if not self._is_about_champion() or self.verdict is None:
            return None, "not judged yet"
        if self.verdict.outcome == "rollback":
            return False, "no: it is worse than the version before it"
        if self.verdict.outcome == "broken_feed":
            return False, f"no: {self.verdict.reasons[0]}"
        if self.verdict.outcome in {"retrain", "blocked"}:
            return self._judged_to_retrain()
        if self.verdict.outcome == "watch":
            worst = self.report.worst if self.report else None
            if worst is None or not worst.drifted:
                return None, "cannot be said for certain: see the reasons"
            return None, f"drift is watched: {worst.name} at {worst.excess:.1f}x its threshold"
        if self.verdict.awaits_outcomes:
            return None, "cannot be said, outcomes are missing; what comes in is as it was"
        if self.report is not None and self.report.in_sample:
            return None, "not judged: the newest batch is as old as what the champion learned from"
        harm = self.verdict.harm
        if harm is None:
            return None, "what comes in is as it was; no outcome says yet how well it does"
        if harm.state == "not known":
            return None, f"what comes in is as it was; {harm.in_words}"
        if self.report is not None and self.report.unjudged:
            left, all_of_them = len(self.report.unjudged), len(self.report.columns)
            return True, f"yes, as far as {all_of_them - left:,} of {all_of_them:,} columns say"
        return True, "yes"

    def fallen(self) -> str | None:
        """Say what all windows of the champion say of its metric, where nothing else says it."""
        harm = self.verdict.harm if self.verdict else None
        if harm is None or not self._is_about_champion():
            return None
        said = " ".join((self.judged()[1], *self.verdict.reasons)) if self.verdict else ""
        return None if harm.in_words in said else harm.in_words

    def probation(self) -> str | None:
        """Say how the champion does against the version before it; None where nobody asks."""
        found = self.report.probation if self.report else None
        return found.in_words if found is not None and self._is_about_champion() else None

    def _is_newest(self, batch: BatchRef) -> bool:
        return self.newest is None or batch.start >= self.newest.start

    def _is_newest_damaged(self) -> bool:
        return self.newest is not None and (self.newest.partition, "monitor") in self.damaged

    def _is_about_champion(self) -> bool:
        """Is the verdict about the champion? A version's number comes back."""
        known = {self.made_by, self.report.champion_incident if self.report else None} - {None}
        is_same = self.verdict is not None and self.verdict.champion_version == self.number
        return is_same and len(known) < 2

    def advice(self) -> tuple[str, ...]:
        """Say what is to be done, the most urgent first."""
        model = self.spec.model
        told: list[str] = []
        if self.number is None and self.moved_to is None:
            reasons = f": {self.verdict.reasons[0]}" if self.verdict else ""
            told.append(f"Nothing is in production yet{reasons}")
            first = "the reference" if self.spec.is_served_elsewhere else "the first model"
            told.append(
                f"A retrain was asked for: {self.retrain}"
                if self.retrain
                else f"Let batches land; the monitor asks for {first} "
                f"({model}__ingest is to be unpaused)"
            )
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
        told += [
            f"What was kept about {name} is damaged: clear its run of {dag_id(model, stage)}"
            for name, stage in self.damaged
        ]
        told += self._of_the_outcomes()
        if self.trouble:
            told.insert(0, self.trouble)
        elif self.moved_to is not None:
            known = f"version {self.number}" if self.number is not None else "none"
            told.append(
                f"The champion alias was moved by hand: the ledger knows {known}. Restore it with "
                f"{model}__rollback"
            )
        if self.problems:
            told.append(f"The ledger is damaged: {self.problems[0]}")
        return tuple(told) or ("Nothing to do",)

    def _of_the_outcomes(self) -> list[str]:
        if self.without_label:
            model, label = self.spec.model, self.spec.label.column
            first, count = self.without_label[0], len(self.without_label)
            batches = f"{count:,} batches" if count > 1 else "1 batch"
            told = f"{batches}, {first} first, brought no {label}, and label.source is no more"
            todo = f"Put it back, or deliver them to {model}__ingest again, with {label}"
            return [f"{told} in the model file: no row of them counts. {todo}"]
        if not self.outcomes_due:
            return []
        first, count = self.outcomes_due[0], len(self.outcomes_due)
        more = f" and {count - 1:,} more" if count > 1 else ""
        told = f"Outcomes of {first}{more} are due: look at {self.spec.model}__outcomes. "
        until = "Until they are there (an empty file if there were none), no retrain is asked for"
        return [told + until]

    def _of_the_verdict(self) -> list[str]:  # noqa: C901, PLR0911 - one return per state
        model, verdict = self.spec.model, self.verdict
        if self.newest is None:
            return ["No batch is in force; let one land"]
        if self._is_newest_damaged():
            return []  # told among what is damaged
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
            if self.spec.is_served_elsewhere:
                return [f"A retrain is wanted: {why}"]
            return [f"A retrain has to wait ({why}); {model}__retrain with force waits for nothing"]
        if verdict.outcome == "broken_feed":
            told = broken_feeds.what_to_do(model, self.newest.partition)
            return [f"The feed of {self.newest.partition} broke. {told}"]
        if verdict.outcome == "rollback":
            return [self._of_the_rollback()]
        if verdict.outcome == "watch":
            run = f"the run of {model}__monitor for {self.newest.partition}"
            return [f"No retrain is asked for; look at the drift report of {run}"]
        return []

    def _of_the_rollback(self) -> str:
        """Say how far the rollback has come that a verdict asked for."""
        model, mode, answer = self.spec.model, self.spec.guard_mode, self.answer
        by_hand = f"If it is to go after all, run {model}__rollback"
        if answer is not None and not answer.approved:
            return f"Version {self.number} is not rolled back, {answer.in_words}. {by_hand}"
        if mode not in {"rollback", "ask"}:
            return f"A rollback was asked for, and guard.mode is {mode} now. {by_hand}"
        if mode == "ask" and answer is None:
            return f"A rollback was asked for: a person decides in {model}__guard"
        return f"A rollback was asked for: look at {model}__guard"


def render(status: Status) -> str:
    """Give the status as text: three questions, three answers."""
    lines = [f"{status.model}: {one_line(status.description)} (owner {one_line(status.owner)})", ""]
    lines.append("What is in production?")
    if status.version is None:
        lines.append("  nothing yet")
    else:
        if status.since is None:
            lines.append(f"  version {status.version}, which the ledger does not know as champion")
        else:
            by = one_line(status.by)
            lines.append(f"  version {status.version}, since {_moment(status.since)}, by {by}")
            lines.append(f"  {one_line(status.why)}")
        if status.trained_from and status.trained_until and status.training_rows is not None:
            rows = (
                f"{status.training_rows:,} rows from {status.trained_from:%Y-%m-%d} to "
                f"{status.trained_until:%Y-%m-%d}, MLflow run {status.run_id}"
            )
            if status.adopted_from and status.learned_until:
                lines.append(
                    f"  adopted from {one_line(status.adopted_from)}; others trained it, on rows "
                    f"before {status.learned_until:%Y-%m-%d}"
                )
                lines.append(f"  held against {rows}")
            else:
                lines.append(f"  trained on {rows}")
        if status.previous_version is not None:
            lines.append(
                f"  by the ledger, a rollback would return to version {status.previous_version}"
            )
    lines += ["", "Is it well?", *_wellness(status)]
    lines += ["", "What do I do?", *(f"  {one_line(advice)}" for advice in status.advice)]
    if not status.registry_asked:
        lines += ["", "As the ledger has it; MLflow was not asked (--registry does)."]
    return "\n".join(lines)


def _measured_on(status: Status) -> str:
    if status.measured is None:
        return str(status.newest_batch)
    begin, end = (one.astimezone(dt.UTC) for one in status.measured)
    return (
        f"rows from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}, whose labels came by "
        f"{status.newest_batch}"
    )


def _wellness(status: Status) -> list[str]:
    lines = [f"  {one_line(status.word)}"]
    if status.promise:
        lines.append(f"  promised  {_performance(status.promise)}")
    if status.performance and status.verdict:
        lines.append(
            f"  realised  {_performance(status.performance)}, by version "
            f"{status.verdict.champion_version} on {_measured_on(status)}"
        )
    if status.fallen:
        lines.append(f"  has it fallen? {one_line(status.fallen)}")
    if status.verdict:
        lines.append(f"  verdict on {status.newest_batch}: {status.verdict.outcome}")
        lines += [f"    {one_line(reason)}" for reason in status.verdict.reasons]
    if status.probation and not (status.verdict and status.probation in status.verdict.reasons):
        lines.append(f"  probation: {one_line(status.probation)}")
    if status.outcomes_until:
        lines.append(f"  outcomes are complete until {_moment(status.outcomes_until)}")
    if status.unjudged:
        names = one_line(", ".join(status.unjudged[:UNJUDGED_SHOWN]))
        more = len(status.unjudged) - UNJUDGED_SHOWN
        lines.append(f"  not judged: {names}{f' and {more} more' if more > 0 else ''}")
    if status.retrain:
        lines.append(f"  last retrain: {one_line(status.retrain)}")
    return lines


def _performance(found: Performance) -> str:
    return (
        f"{found.metric} {found.value:.3f} "
        f"({found.low:.3f} to {found.high:.3f}, {found.rows:,} rows)"
    )


def _moment(at: dt.datetime | None) -> str:
    return at.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else "unknown"
