"""Gives what Airflow's page "Models" shows first: one row a model, what is due first.

Everything is read from the ledger and the newest records, as `status` reads them; MLflow is not
asked. What cannot be read is said in the row of its model, and hides no other.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationError

from include.retraining import shelf
from include.retraining.errors import RetrainingError
from include.retraining.records import DriftReport, Performance, Record
from include.retraining.registry import ledger
from include.retraining.retrain import claims, incident
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.escapes import one_line, visible
from include.retraining.telling.status import Status, status_of

State = Literal["unknown", "not well", "to be looked at", "nothing yet", "well"]

# what is due first
URGENCY: dict[State, int] = {
    "unknown": 0,
    "not well": 1,
    "to be looked at": 2,
    "nothing yet": 3,
    "well": 4,
}
TREND = 20  # windows of the small line in a row
ERROR_CHARACTERS = 300
TEXT_CHARACTERS = 2000  # of one text
NOT_READ_YET = "not read yet: the storage is still being asked"

R = TypeVar("R", bound=Record)


class Budget(Record):
    """How many retrains a model has had, and what holds the next one back."""

    retrains: int = Field(description="claimed within the days, up to the newest batch's end")
    allowed: int
    days: int
    hold: str | None = Field(description="why a retrain has to wait now; None: it need not")


class FleetRow(Record):
    """One model in the table of all of them; None where nothing is known."""

    model: str
    description: str
    owner: str
    state: State
    sentence: str = Field(description="the state in one sentence, as far as anybody knows")
    version: int | None = None
    since: dt.datetime | None = None
    why: str | None = None
    by: str | None = None
    now: Performance | None = Field(default=None, description="realised, on the newest batch")
    now_version: int | None = Field(
        default=None,
        description="which `now` and `promise` are of; it can have been replaced since",
    )
    promise: Performance | None = None
    trend: tuple[float, ...] = Field(
        default=(),
        description="realised values, oldest first, whoever was champion; the last is `now`",
    )
    newest_batch: str | None = None
    outcome: str | None = Field(default=None, description="of the verdict on the newest batch")
    reason: str | None = Field(default=None, description="the verdict's first one")
    unjudged: tuple[str, ...] = ()
    outcomes_due: tuple[str, ...] = ()
    budget: Budget | None = None
    next_step: str
    more_steps: int = Field(default=0, description="beside the next one")
    read_at: dt.datetime | None = Field(default=None, description="None: not read yet")


class Fleet(Record):
    """All models that may be seen, what is due first."""

    asked_at: dt.datetime
    as_of: dt.datetime = Field(description="when the row was read that was read first")
    rows: tuple[FleetRow, ...]
    problems: tuple[str, ...] = Field(default=(), description="model files that cannot be used")


class Link(Record):
    """An address of something that belongs to what is shown."""

    name: str
    url: str


def fleet(rows: Sequence[FleetRow], *, at: dt.datetime, problems: Sequence[str] = ()) -> Fleet:
    """Put the rows in order: what is due first, and by name where that is alike.

    `at` is now.
    """
    ordered = sorted(rows, key=lambda row: (URGENCY[row.state], row.model))
    as_of = min((row.read_at for row in ordered if row.read_at), default=at)
    return Fleet(asked_at=at, as_of=as_of, rows=tuple(ordered), problems=tuple(problems))


def fleet_row(spec: ModelSpec, settings: Settings, *, at: dt.datetime) -> FleetRow:
    """Give the row of one model, as it is now, which is `at`.

    Reads the newest records and the ledger: some 45 objects, side by side. What can be read of a
    model is never an error here: the row says what is wrong.
    """
    try:
        status = status_of(spec, settings)
        return row_of(spec, Storage.of(settings), status, at=at)
    except Exception as error:  # noqa: BLE001 - one broken model never hides the others
        return with_champion(unknown(spec, in_words(error), at=at), settings)


def unknown(spec: ModelSpec, why: str, *, at: dt.datetime) -> FleetRow:
    """Give the row of a model that nothing can be said about now."""
    return FleetRow(
        model=spec.model,
        description=spec.description,
        owner=spec.owner,
        state="unknown",
        sentence=f"its state cannot be read: {why}",
        next_step="Mend what cannot be read, or try again",
        read_at=at,
    )


def with_champion(row: FleetRow, settings: Settings) -> FleetRow:
    """Add what the ledger says is in production, if at least that can be read."""
    try:
        line = ledger.reign(ledger.read(Storage.of(settings), row.model))
    except Exception:  # noqa: BLE001 - the row says already that something cannot be read
        return row
    if not line:
        return row
    entry = line[-1]
    known = {
        "version": entry.version,
        "since": entry.at,
        "why": f"{entry.action}: {entry.reason}",
        "by": entry.actor,
    }
    return row.model_copy(update=known)


def not_read_yet(spec: ModelSpec) -> FleetRow:
    """Give the row of a model whose records are still being read."""
    return FleetRow(
        model=spec.model,
        description=spec.description,
        owner=spec.owner,
        state="unknown",
        sentence=NOT_READ_YET,
        next_step="Wait a moment; if this stays, the storage does not answer",
    )


def in_words(error: BaseException) -> str:
    """Say what went wrong in one line, with its kind where it is none of our own errors."""
    if isinstance(error, RetrainingError):
        return one_line(error, ERROR_CHARACTERS)
    if isinstance(error, ValidationError):
        return f"a stored {error.title} is damaged or of another release"
    return one_line(f"{type(error).__name__}: {error}", ERROR_CHARACTERS)


def row_of(spec: ModelSpec, storage: Storage, status: Status, *, at: dt.datetime) -> FleetRow:
    """Make a row of what `status_of` says."""
    report = None
    if status.newest_batch:
        names = [status.newest_batch]
        (report,), _ = shelf.find_readable(storage, DriftReport, spec.model, names)
    promise = _promise(status, report)
    # without a champion the first advice only says that there is none, as the state does
    steps = status.advice[1:] if status.version is None and status.advice[1:] else status.advice
    return FleetRow(
        model=spec.model,
        description=spec.description,
        owner=spec.owner,
        state=state_of(status),
        sentence=sentence_of(status),
        version=status.version,
        since=status.since,
        why=status.why,
        by=status.by,
        now=status.performance,
        now_version=report.champion_version if report and status.performance else None,
        promise=promise,
        trend=_trend(report),
        newest_batch=status.newest_batch,
        outcome=status.verdict.outcome if status.verdict else None,
        reason=status.verdict.reasons[0] if status.verdict and status.verdict.reasons else None,
        unjudged=status.unjudged,
        outcomes_due=status.outcomes_due,
        budget=_budget(spec, storage, status),
        next_step=steps[0],
        more_steps=len(steps) - 1,
        read_at=at,
    )


def _promise(status: Status, report: DriftReport | None) -> Performance | None:
    """Give what the champion promised, of the metric that is measured: only those compare."""
    if status.performance is None:
        return status.promise
    return report.promise if report and report.promise else None


def _trend(report: DriftReport | None) -> tuple[float, ...]:
    """Give the realised values of one metric up to a batch, oldest first."""
    if report is None or report.performance is None:
        return ()
    metric = report.performance.metric
    past = [one.value for one in report.history if one.metric == metric]
    return (*past, report.performance.value)[-TREND:]


def _budget(spec: ModelSpec, storage: Storage, status: Status) -> Budget | None:
    if status.newest_batch is None:
        return None
    newest = spec.batch_ref(status.newest_batch)
    ends = [one.end for one in claims.claimed(storage, spec.model)]
    since = newest.end - dt.timedelta(days=incident.BUDGET_DAYS)
    return Budget(
        retrains=sum(since < end <= newest.end for end in ends),
        allowed=spec.retrain.max_per_30_days,
        days=incident.BUDGET_DAYS,
        hold=incident.hold_after(spec, ends, newest),
    )


def state_of(status: Status) -> State:
    """Say in one word how a model is."""
    if status.well is False:
        return "not well"
    if status.version is None:
        return "nothing yet"
    return "well" if status.well else "to be looked at"


def sentence_of(status: Status) -> str:
    """Say how a model is in one sentence: what `status` answers to "is it well?", and why."""
    if status.version is None and status.well is None:
        return "no version is in production yet"
    if status.ledger_problems:
        return f"no: the ledger is damaged: {status.ledger_problems[0]}"
    if status.word == "no" and status.verdict and status.verdict.reasons:
        return f"no: {status.verdict.reasons[0]}"
    return status.word


def as_json(record: Record) -> bytes:
    """Give a page as JSON in which no text hides or turns around what stands beside it.

    React shows text as text, but a browser obeys characters that turn the direction of writing.
    """
    content = _shown(record.model_dump(mode="json"))
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        text = visible(value)
        return text if len(text) <= TEXT_CHARACTERS else f"{text[: TEXT_CHARACTERS - 1]}…"
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, dict):
        return {name: _shown(one) for name, one in value.items()}
    return value


def web_link(name: str, address: str) -> tuple[Link, ...]:
    """Give a link that a browser may follow; nothing where the address is none of the web.

    >>> web_link("page", "https://pages/x")
    (Link(name='page', url='https://pages/x'),)
    >>> web_link("page", "file:///x"), web_link("page", "javascript:alert(1)")
    ((), ())
    """
    return (Link(name=name, url=address),) if is_web(address) else ()


def is_web(address: str) -> bool:
    """Is this an address that a browser may follow from a page?"""
    parts = urlsplit(address)
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


def version_link(settings: Settings, model: str, version: int | None) -> tuple[Link, ...]:
    """Give the link to a version in MLflow's page."""
    if version is None:
        return ()
    where = f"{settings.mlflow_url.rstrip('/')}/#/models/{quote(model, safe='')}/versions/{version}"
    return web_link(f"version {version} in MLflow", where)
