"""Gives what the page "Models" shows of one model: three answers, then what they rest on.

What is looked at is bounded: the newest batches, and the whole ledger, which has an entry a change
of the champion. A record that is damaged is named, and leaves a gap instead of an error.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from include.retraining import shelf
from include.retraining.data import broken_feeds
from include.retraining.data.publication import newest_published, rows_in_force
from include.retraining.data.tables import Snapshot
from include.retraining.errors import DamagedRecord, LedgerError, SpecError
from include.retraining.names import Stage, dag_id
from include.retraining.records import (
    BatchRef,
    BrokenFeed,
    DriftReport,
    FeatureDrift,
    Gain,
    GateDecision,
    GuardMode,
    Outcome,
    Performance,
    Record,
    RetrainClaim,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import ledger
from include.retraining.retrain import claims
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.page import (
    FleetRow,
    Link,
    in_words,
    row_of,
    unknown,
    version_link,
    web_link,
    with_champion,
)
from include.retraining.telling.status import LOOK_AHEAD, Status, status_of

BATCHES = 60  # the newest ones
COLUMNS = 60  # of the map, the most important ones
DUELS = 20

AFTER_A_RETRAIN = {  # by retrain.autonomy
    1: "Nothing is promoted: the gate only says what it found.",
    2: "A candidate that the gate lets pass is promoted if a person approves.",
    3: "A candidate that the gate lets pass is promoted without asking.",
}

# the model is served elsewhere
AFTER_A_REFERENCE = "Nothing is trained: its newest rows become what later ones are held against."

GUARDS: dict[GuardMode, str] = {
    "rollback": "it is rolled back",
    "ask": "a person is asked about a rollback",
    "tell": "the channel is told",
    "off": "nobody looks",
}

CellState = Literal["drifted", "quiet", "not judged", "expected"]


class Cell(Record):
    """One column in one batch."""

    state: CellState
    times: float | None = Field(
        description="the furthest measurement as a multiple of its threshold; None: not judged"
    )
    measured: str = Field(description="which measurement that is")
    calibrated: bool = Field(description="history says what is ordinary; else a fixed threshold")
    distance: float | None
    reason: str


class ColumnRow(Record):
    """One column through the batches of the page."""

    name: str
    kind: Literal["numeric", "categorical"]
    importance: float | None = Field(description="at the training of the newest champion here")
    cells: tuple[Cell | None, ...] = Field(description="one a batch; None: it was not measured")


class BatchRow(Record):
    """One batch in the table, the chart and the map; None where there is no such record."""

    partition: str
    start: dt.datetime
    end: dt.datetime
    delivery: Literal["accepted", "refused"] | None
    in_force: bool | None = Field(
        description="rows of it are published; None: the table cannot be read"
    )
    rows: int | None
    quarantined: int | None
    mapped: bool = Field(default=False, description="a person has said how it is to be read")
    outcome: Outcome | None
    reasons: tuple[str, ...] = Field(description="of the verdict, or why the batch was refused")
    awaits_outcomes: bool
    champion_version: int | None
    performance: Performance | None
    promise: Performance | None
    in_sample: bool
    unjudged: int | None = Field(description="columns without a verdict; None: nothing measured")
    links: tuple[Link, ...]


class Move(Record):
    """One entry of the ledger."""

    sequence: int
    action: ledger.Action
    version: int
    previous_version: int | None
    partition: str
    reason: str
    actor: str
    at: dt.datetime
    hash: str


class DuelRow(Record):
    """What came of one retrain that was claimed."""

    incident_id: str
    end: dt.datetime = Field(description="of the batch it was about")
    run_id: str | None = Field(description="of the retrain DAG; None: not kept")
    partition: str | None
    candidate_version: int | None
    champion_version: int | None
    passed: bool | None = Field(description="None: no decision is there")
    mode: str | None
    reasons: tuple[str, ...]
    candidate: Performance | None
    champion: Performance | None
    gain: Gain | None


class Action(Record):
    """Something that a person can start here: a run of a DAG."""

    name: Literal["retrain", "rollback", "replay", "accept_feed"]
    dag_id: str
    title: str
    meaning: str
    partition: str | None = Field(default=None, description="that it is about")
    columns: tuple[str, ...] = Field(default=(), description="accept_feed: that are right")


class ModelPage(Record):
    """Everything the page of one model has to show."""

    as_of: dt.datetime
    row: FleetRow
    status: Status | None = Field(description="None: it cannot be read, and `row` says why")
    slack_channel: str
    limitations: tuple[str, ...]
    metric: str
    retrain_rules: tuple[str, ...] = Field(description="when a retrain may happen, from the file")
    batches: tuple[BatchRow, ...] = Field(description="oldest first")
    columns: tuple[ColumnRow, ...] = Field(description="the most important first")
    columns_left_out: int
    moves: tuple[Move, ...] = Field(description="oldest first")
    ledger_problems: tuple[str, ...] | None = Field(description="None: it could not be verified")
    duels: tuple[DuelRow, ...] = Field(description="the newest first")
    actions: tuple[Action, ...]
    links: tuple[Link, ...]
    trouble: tuple[str, ...] = Field(description="what could not be read")


def model_page(spec: ModelSpec, settings: Settings, *, at: dt.datetime) -> ModelPage:
    """Read what there is to show of one model.

    Parameters
    ----------
    at : datetime
        Now, for the page's foot.

    Raises
    ------
    OSError, Unavailable
        The storage does not answer.
    """
    storage = Storage.of(settings)
    trouble: list[str] = []
    status, row = _status(spec, settings, trouble, at=at)
    history = read_history(spec, settings, trouble)
    moves, problems = _ledger(spec, storage, trouble)
    columns = _columns(history.drifts)
    return ModelPage(
        as_of=at,
        row=row,
        status=status,
        slack_channel=spec.slack_channel,
        limitations=spec.limitations,
        metric=spec.gate.metric,
        retrain_rules=_rules(spec),
        batches=history.rows,
        columns=tuple(columns[:COLUMNS]),
        columns_left_out=max(len(columns) - COLUMNS, 0),
        moves=tuple(moves),
        ledger_problems=problems,
        duels=_duels(spec, storage, trouble),
        actions=_actions(spec, status, history.rows, _broken(spec, storage, trouble)),
        links=(*version_link(settings, spec.model, row.version),),
        trouble=tuple(trouble),
    )


def _status(
    spec: ModelSpec, settings: Settings, trouble: list[str], *, at: dt.datetime
) -> tuple[Status | None, FleetRow]:
    try:
        status = status_of(spec, settings)
        return status, row_of(spec, Storage.of(settings), status, at=at)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - what else there is, is shown all the same
        trouble.append(f"the state of the model: {in_words(error)}")
        return None, with_champion(unknown(spec, in_words(error), at=at), settings)


# --- batches --------------------------------------------------------------------------------------


class History(NamedTuple):
    """The newest batches, oldest first, and what was measured of each."""

    rows: tuple[BatchRow, ...]
    drifts: tuple[DriftReport | None, ...]


def read_history(spec: ModelSpec, settings: Settings, trouble: list[str]) -> History:
    """Read the records of the newest batches side by side; what is damaged is told in `trouble`."""
    storage = Storage.of(settings)
    try:
        published: Snapshot | None = rows_in_force(spec, storage)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - the records are there all the same
        trouble.append(f"which batches are in force: {in_words(error)}")
        published = None
    batches = _looked_at(spec, published)
    names = [one.partition for one in batches]
    landed, bad_landed = shelf.find_readable(storage, ValidationReport, spec.model, names)
    drifts, bad_drifts = shelf.find_readable(storage, DriftReport, spec.model, names)
    verdicts, bad_verdicts = shelf.find_readable(storage, Verdict, spec.model, names)
    for kind, bad in (
        ("validation", bad_landed),
        ("drift", bad_drifts),
        ("verdict", bad_verdicts),
    ):
        trouble += [f"the {kind} record of {name} is damaged" for name in bad]
    damaged = {*bad_landed, *bad_drifts, *bad_verdicts}
    in_force = frozenset(published.parts) if published is not None else None
    kept = [
        (batch, report, drift, verdict)
        for batch, report, drift, verdict in zip(batches, landed, drifts, verdicts, strict=True)
        if report or drift or verdict or batch.partition in damaged | (in_force or frozenset())
    ][-BATCHES:]
    rows = tuple(
        _batch_row(
            settings,
            batch,
            report,
            drift,
            verdict,
            in_force=None if in_force is None else batch.partition in in_force,
        )
        for batch, report, drift, verdict in kept
    )
    return History(rows, tuple(drift for _, _, drift, _ in kept))


def _looked_at(spec: ModelSpec, published: Snapshot | None) -> list[BatchRef]:
    """Give the batches that can be among the newest ones, oldest first.

    Those in force, and around them those that could have been refused.
    """
    newest = newest_published(spec, published) if published is not None else None
    parts, first = spec.partitions, spec.partitions.first
    last = parts.step(newest.start, LOOK_AHEAD) if newest else parts.step(first, BATCHES - 1)
    start = max(first, parts.step(last, 1 - BATCHES - LOOK_AHEAD))
    starts = (parts.step(start, number) for number in range(parts.count(start, last) + 1))
    names = {spec.partition_key(one) for one in starts}
    if published is not None:  # where many partitions never came
        names |= set(published.parts.names()[-BATCHES:])
    found = []
    for name in sorted(names):
        with contextlib.suppress(SpecError):  # after the last one, or before one that has moved
            found.append(spec.batch_ref(name))
    return found


def _batch_row(
    settings: Settings,
    batch: BatchRef,
    report: ValidationReport | None,
    drift: DriftReport | None,
    verdict: Verdict | None,
    *,
    in_force: bool | None,
) -> BatchRow:
    reasons: Sequence[str] = verdict.reasons if verdict else ()
    if report is not None and report.status == "refused":
        reasons = why_refused(report)
    return BatchRow(
        partition=batch.partition,
        start=batch.start,
        end=batch.end,
        delivery=report.status if report else None,
        in_force=in_force,
        rows=report.rows_in if report else None,
        quarantined=report.rows_quarantined if report else None,
        mapped=bool(report and report.mapping),
        outcome=verdict.outcome if verdict else None,
        reasons=tuple(reasons),
        awaits_outcomes=bool(verdict and verdict.awaits_outcomes),
        champion_version=verdict.champion_version if verdict else None,
        performance=drift.performance if drift else None,
        promise=drift.promise if drift else None,
        in_sample=bool(drift and drift.in_sample),
        unjudged=len(drift.unjudged) if drift and drift.columns else None,
        links=data_docs(settings, report),
    )


def data_docs(settings: Settings, report: ValidationReport | None) -> tuple[Link, ...]:
    """Give the link to the page about a validated batch, where a browser can open it."""
    if report is None or not report.page_key:
        return ()
    return web_link("Data Docs", f"{settings.storage_page_url}/{report.page_key}")


def why_refused(report: ValidationReport) -> tuple[str, ...]:
    """Give what a refused batch broke, the critical findings first."""
    findings = sorted(report.findings, key=lambda one: one.severity != "critical")
    return tuple(told_finding(one.expectation, one.column, one.detail) for one in findings)


def told_finding(expectation: str, column: str | None, detail: str) -> str:
    """Say what one expectation found."""
    about = f"{expectation} of {column}" if column else expectation
    return f"{about}: {detail}" if detail else about


# --- columns --------------------------------------------------------------------------------------


def _columns(drifts: Sequence[DriftReport | None]) -> list[ColumnRow]:
    """Give the columns that any batch measured, by their newest importance."""
    measured = [{one.name: one for one in drift.columns} if drift else {} for drift in drifts]
    newest: dict[str, FeatureDrift] = {}
    for found in reversed(measured):
        newest = found | newest
    rows = [
        ColumnRow(
            name=name,
            kind=one.kind,
            importance=one.importance,
            cells=tuple(cell_of(found[name]) if name in found else None for found in measured),
        )
        for name, one in newest.items()
    ]
    return sorted(rows, key=lambda row: (-(row.importance or 0.0), row.name))


def cell_of(column: FeatureDrift) -> Cell:
    """Make a cell of what was measured of a column in a batch."""
    if not column.is_judged:
        state: CellState = "not judged"
    elif column.drifted:
        state = "expected" if column.expected else "drifted"
    else:
        state = "quiet"
    return Cell(
        state=state,
        times=column.excess if column.is_judged else None,
        measured=column.furthest.name,
        calibrated=column.state == "calibrated",
        distance=column.distance,
        reason=column.reason,
    )


# --- ledger and retrains --------------------------------------------------------------------------


def _ledger(
    spec: ModelSpec, storage: Storage, trouble: list[str]
) -> tuple[list[Move], tuple[str, ...] | None]:
    """Give the entries that can be read, and what is wrong with the chain."""
    try:
        entries = ledger.read(storage, spec.model)
        problems = ledger.verify(storage, spec.model, entries)
    except LedgerError as error:
        trouble.append(f"the ledger: {in_words(error)}")
        entries = ledger.sound(storage, spec.model)
        problems = ledger.verify(storage, spec.model)
    except ValueError as error:
        trouble.append(f"the ledger: {in_words(error)}")
        return [], None
    return [move_of(one) for one in entries], tuple(problems)


def move_of(entry: ledger.Entry) -> Move:
    """Give what the page shows of an entry."""
    return Move(**{name: getattr(entry, name) for name in Move.model_fields})


def _duels(spec: ModelSpec, storage: Storage, trouble: list[str]) -> tuple[DuelRow, ...]:
    """Give what came of the newest retrains."""
    try:
        known = claims.claimed(storage, spec.model)[-DUELS:]
    except ValueError as error:
        trouble.append(f"the list of retrains: {in_words(error)}")
        return ()
    return duels_of(spec, storage, known, trouble)


def duels_of(
    spec: ModelSpec, storage: Storage, known: Iterable[claims.Claimed], trouble: list[str]
) -> tuple[DuelRow, ...]:
    """Give what came of some retrains, the newest first."""
    wanted = sorted(known, reverse=True)
    incidents = [one.incident_id for one in wanted]
    decisions, damaged = shelf.find_readable(storage, GateDecision, spec.model, incidents)
    runs, lost = shelf.find_readable(storage, RetrainClaim, spec.model, incidents)
    trouble += [f"the gate's decision about {one} is damaged" for one in damaged]
    trouble += [f"the claim of {one} is damaged" for one in lost]
    return tuple(
        DuelRow(
            incident_id=one.incident_id,
            end=one.end,
            run_id=run.run_id if run else None,
            partition=run.request.batch.partition if run else None,
            candidate_version=decision.candidate_version if decision else None,
            champion_version=decision.champion_version if decision else None,
            passed=decision.passed if decision else None,
            mode=decision.mode if decision else None,
            reasons=decision.reasons if decision else (),
            candidate=decision.candidate if decision else None,
            champion=decision.champion if decision else None,
            gain=decision.gain if decision else None,
        )
        for one, decision, run in zip(wanted, decisions, runs, strict=True)
    )


# --- what to do -----------------------------------------------------------------------------------


def _broken(spec: ModelSpec, storage: Storage, trouble: list[str]) -> list[BrokenFeed]:
    try:
        return broken_feeds.all_open(storage, spec.model)
    except DamagedRecord as error:
        trouble.append(f"the list of broken feeds: {in_words(error)}")
        return []


def _rules(spec: ModelSpec) -> tuple[str, ...]:
    rules = spec.retrain
    if spec.is_served_elsewhere:
        return ("The model is trained and served elsewhere; it is only watched.",)
    return (
        AFTER_A_RETRAIN[rules.autonomy],
        f"At most {rules.max_per_30_days} retrains in 30 days of data.",
        f"At least {rules.cool_down_days:g} days of data between two retrains.",
        f"Where a new champion turns out worse: {GUARDS[spec.guard_mode]}.",
    )


def _actions(
    spec: ModelSpec,
    status: Status | None,
    rows: Sequence[BatchRow],
    broken: Sequence[BrokenFeed],
) -> tuple[Action, ...]:
    """Give what can be started by hand; whether somebody may, Airflow says."""

    def action(
        name: Literal["retrain", "rollback", "replay", "accept_feed"],
        stage: Stage,
        title: str,
        meaning: str,
        partition: str | None = None,
        *,
        columns: tuple[str, ...] = (),
    ) -> Action:
        return Action(
            name=name,
            dag_id=dag_id(spec.model, stage),
            title=title,
            meaning=meaning,
            partition=partition,
            columns=columns,
        )

    title, meaning = "Make a new reference", AFTER_A_REFERENCE
    if not spec.is_served_elsewhere:
        title = "Retrain"
        meaning = (
            "Trains a candidate on the newest published batches and holds it against the "
            f"champion. {AFTER_A_RETRAIN[spec.retrain.autonomy]}"
        )
    found = [action("retrain", "retrain", title, meaning)]
    if status is not None and status.previous_version is not None:
        found.append(
            action(
                "rollback",
                "rollback",
                f"Roll back to version {status.previous_version}",
                f"Puts version {status.previous_version} back in production, by the ledger the "
                "champion before this one. The gate is not asked.",
            )
        )
    for one in broken[-3:]:
        for name, how in list(one.columns.items())[:3]:
            found.append(
                action(
                    "accept_feed",
                    "monitor",
                    f"{name} is right in {one.batch.partition}",
                    f"The feed of {name} broke in {one.batch.partition}: {how.cause}. If the "
                    "values are right as they are, say why: they count from this batch on, its "
                    "rows train again, and it is judged anew.",
                    one.batch.partition,
                    columns=(name,),
                )
            )
    held = [row for row in rows if row.delivery == "refused" or (row.quarantined and row.in_force)]
    for row in reversed(held[-3:]):
        what = "was refused" if row.delivery == "refused" else "left rows in quarantine"
        found.append(
            action(
                "replay",
                "replay_quarantine",
                f"Replay {row.partition}",
                f"{row.partition} {what}. Validates its kept delivery again, as the model file and "
                "the suites are now.",
                row.partition,
            )
        )
    return tuple(found)
