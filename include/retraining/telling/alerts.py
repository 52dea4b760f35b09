"""Makes the messages people read, and delivers each once, one thread per batch.

What is said is decided here, from records; how it travels is a `Channel`: Slack, or a folder where
no Slack connection is set up.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Literal, Protocol
from urllib.parse import quote

from pydantic import Field

from include.retraining import shelf
from include.retraining.data import broken_feeds
from include.retraining.names import dag_id, model_of_feed
from include.retraining.records import (
    GateDecision,
    GuardAnswer,
    GuardMode,
    Promotion,
    Record,
    SkewReport,
    ValidationReport,
    Verdict,
)
from include.retraining.registry.anchor import SHOWN
from include.retraining.registry.ledger import Entry
from include.retraining.storage import Storage, json_bytes, sha256
from include.retraining.telling import duel_table
from include.retraining.telling.escapes import one_line, slack

log = logging.getLogger(__name__)

Level = Literal["good", "info", "warning", "critical"]
SYMBOL: dict[Level, str] = {
    "good": ":white_check_mark:",
    "info": ":information_source:",
    "warning": ":warning:",
    "critical": ":rotating_light:",
}
MAX_LINES = 12
TITLE_CHARACTERS = 300
THREAD_CHARACTERS = 100
MAX_CHARACTERS = 2900  # Slack cuts a section at 3,000


NO_BATCH = "champion"  # the thread of what is about no batch


class Alert(Record):
    """One message of a thread. `thread` groups what belongs to one batch."""

    model: str
    thread: str
    level: Level
    title: str
    lines: tuple[str, ...] = ()
    subject: str = Field(default="", description="what it is about, such as the verdict")
    fact: str = Field(default="", description="which fact it tells; by default, what it says")
    run_id: str = Field(default="", description="the run that tells")
    is_all_clear: bool = Field(
        default=False, description="worth telling only where its thread told that all is not well"
    )
    url: str = ""
    page: str = Field(default="", description="address of the page about what it tells")

    @property
    def fact_id(self) -> str:
        """The same fact has the same id, whatever run tells it, and in whatever words."""
        content = [self.fact] if self.fact else [self.level, self.title, *self.lines]
        return _digest(self.model, self.thread, self.subject, *content)

    @property
    def alert_id(self) -> str:
        """The same fact, told by the same run."""
        return _digest(self.fact_id, self.run_id)

    @property
    def text(self) -> str:
        """The whole message as Slack's mrkdwn."""
        kept = [*self.lines[:MAX_LINES]]
        if len(self.lines) > MAX_LINES:
            kept.append(f"... and {len(self.lines) - MAX_LINES} more")
        head = f"{SYMBOL[self.level]} *{slack(one_line(self.title, TITLE_CHARACTERS))}*"
        quoted = (row for line in kept for row in slack(line).splitlines())
        body = "\n".join([head, *(f"> {row}" for row in quoted)])
        if len(body) > MAX_CHARACTERS:
            body = re.sub("&[a-z]*$", "", body[: MAX_CHARACTERS - 4]) + " ..."  # no half escape
        links = {"Open in Airflow": self.url, "Data Docs": self.page}
        shown = "  ".join(f"<{_address(url)}|{name}>" for name, url in links.items() if url)
        return f"{body}\n{shown}" if shown else body


class MessageGone(Exception):
    """A message is not there any more, or nobody can reply to it."""


class Channel(Protocol):
    """Where messages go."""

    @property
    def name(self) -> str:
        """Tell it from all other channels: the ids of its messages mean nothing to those."""

    def post(self, text: str, *, thread: str | None) -> str:
        """Post a message, in a thread if one is given; give the id others can reply to.

        Raises MessageGone if nobody can reply to the thread, and Busy if the channel asks to be
        left alone.
        """

    def update(self, message: str, text: str) -> None:
        """Replace the text of a message, if it can be; raises MessageGone, and Busy."""


class FolderChannel:
    """Keeps messages as JSON files, one each, named by their time: for machines without Slack."""

    def __init__(self, storage: Storage, channel: str) -> None:
        self.storage = storage
        self.channel = channel

    @property
    def name(self) -> str:
        """Tell it from all other channels."""
        return f"folder {self.storage.url} {self.channel}"

    def post(self, text: str, *, thread: str | None) -> str:
        """Write the message under the time, in microseconds, as Slack does."""
        micros = time.time_ns() // 1000
        while True:
            message = f"{micros // 1_000_000}.{micros % 1_000_000:06d}"
            content = {"channel": self.channel, "ts": message, "thread_ts": thread, "text": text}
            if self.storage.create(shelf.message_key(message), json_bytes(content)):
                return message
            micros += 1

    def update(self, message: str, text: str) -> None:
        """Rewrite the message's file."""
        key = shelf.message_key(message)
        try:
            known = self.storage.read_json(key)
        except FileNotFoundError as error:
            raise MessageGone(self.storage.url_of(key)) from error
        self.storage.write_json(key, known | {"text": text})


def deliver(alert: Alert, storage: Storage, channel: Channel) -> bool:
    """Send an alert unless its fact stands in its thread; the first of a thread opens the thread.

    A fact is told again once its thread has told another one about the same subject, and not twice
    by one run. The opening message always shows the newest state of the thread. Where it is gone,
    the thread is opened anew. Two alerts of one thread at the same moment wait for each other, so
    that there is one opening message.

    Returns
    -------
    bool
        False if there is nothing new to tell.
    """
    sent_key = shelf.thread_key(alert.model, alert.thread, alert.alert_id)
    standing_key = shelf.standing_key(alert.model, alert.thread, alert.subject)
    if storage.exists(sent_key) or not _is_new(alert, storage, standing_key):
        return False
    opening_key, opened = shelf.opening_keys(alert.model, alert.thread, channel.name)
    opening = opening_text(alert)

    def open_thread() -> str:
        message = channel.post(opening, thread=None)
        storage.write_json(opened, {"message": message})
        return message

    is_first = storage.create(opening_key, json_bytes({"alert": alert.alert_id}))
    mine = is_first or storage.read_json(opening_key)["alert"] == alert.alert_id
    if mine and not storage.exists(opened):
        message = open_thread()
    else:
        # whoever opened the thread may never have finished: take over
        message = _wait_for(storage, opened) or open_thread()
        try:
            channel.update(message, opening)
        except MessageGone:
            log.warning("%s %s: the thread's opening is gone", alert.model, alert.thread)
            message = open_thread()
    try:
        channel.post(alert.text, thread=message)
    except MessageGone:
        log.warning("%s %s: nobody can reply to the thread", alert.model, alert.thread)
        message = open_thread()
        channel.post(alert.text, thread=message)
    storage.write_json(standing_key, {"fact": alert.fact_id, "level": alert.level})
    storage.create(sent_key, json_bytes({"message": message}))
    return True


def keep_for_later(alert: Alert, storage: Storage) -> None:
    """Keep an alert that no channel takes now, and whose task will not come again."""
    storage.write_json(shelf.waiting_key(alert.model, alert.alert_id), alert)


def deliver_waiting(model: str, storage: Storage, channel: Channel) -> None:
    """Send what was kept for later; what still cannot be sent waits on."""
    for key in storage.list(shelf.waiting_folder(model)):
        try:
            alert = storage.read_record(key, Alert)
            if alert is not None:
                deliver(alert, storage, channel)
            storage.delete(key)
        except Exception:  # whatever the channel raises: this is not what the task was to tell
            log.warning("%s: an alert waits on", key, exc_info=True)
            return


def _is_new(alert: Alert, storage: Storage, standing_key: str) -> bool:
    try:
        standing = storage.read_json(standing_key)
    except FileNotFoundError:
        return not alert.is_all_clear
    if alert.is_all_clear and standing["level"] == "good":
        return False
    return bool(standing["fact"] != alert.fact_id)


def _address(url: str) -> str:
    """Give an address as Slack takes one in a link: nothing in it ends the link."""
    return quote(url, safe=":/?#[]@!$&'()*+,;=%~").replace("&", "&amp;")


def opening_text(alert: Alert) -> str:
    """Give the opening message of an alert's thread: the newest state in a line."""
    thread = slack(one_line(alert.thread, THREAD_CHARACTERS))
    title = slack(one_line(alert.title, TITLE_CHARACTERS))
    return f"{SYMBOL[alert.level]} *{slack(alert.model)} {thread}*: {title}"


def _wait_for(storage: Storage, key: str, *, seconds: float = 10.0) -> str | None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            return str(storage.read_json(key)["message"])
        except FileNotFoundError:
            time.sleep(0.1)
    return None


def _digest(*parts: str) -> str:
    return sha256(*(part.encode("utf-8", "surrogatepass") for part in parts))[:16]


def of_validation(report: ValidationReport, *, pages: str = "") -> Alert:
    """Tell about a refused batch or quarantined rows; of a clean batch, that it is clean now.

    `pages` is the address under which a browser sees the storage.
    """
    problems = [f for f in report.findings if f.severity != "info"]
    lines = tuple(
        f"{f.severity}: {f'{f.column}: ' if f.column else ''}{f.expectation}: {f.detail}"
        for f in problems
    )
    where: tuple[str, ...]
    model, partition = report.batch.model, report.batch.partition
    what, rows = ("Outcomes", "outcomes") if model_of_feed(model) else ("Batch", "rows")
    bad = f"{shelf.table_key(model, 'quarantine', 'batch')}, partition {partition}"
    where = (f"Quarantined rows: {bad}",) if report.quarantine_key else ()
    level: Level = "warning"
    if report.status == "refused":
        level, title = "critical", f"{what} refused, the last good data stays in force"
        where = (
            f"All {report.rows_in:,} rows are kept in {report.quarantine_key}",
            *_ways_out(model, partition),
        )
    elif not problems:
        level, title = "good", f"{what} accepted: all {report.rows_in:,} rows are good"
        where = ()
    elif report.rows_quarantined:
        title = f"{report.rows_quarantined:,} of {report.rows_in:,} {rows} quarantined"
    else:
        title = f"{what} accepted with warnings"
    return Alert(
        model=report.batch.model,
        thread=report.batch.partition,
        level=level,
        title=title,
        lines=(*lines, *where),
        subject="validation",
        fact=f"{report.delivery} {report.identity} {report.status}",
        is_all_clear=level == "good",
        page=f"{pages}/{report.page_key}" if pages and report.page_key else "",
    )


def _ways_out(name: str, partition: str) -> tuple[str, ...]:
    """Say what to do about a delivery that was refused."""
    model = model_of_feed(name)
    if model is None:
        reader = dag_id(name, "replay_quarantine")
        how = f"or say in {reader} how this one is to be read"
        return (f"Do: deliver a corrected file and clear the ingest run, {how}",)
    waits = f"retrains of {model} wait, and later batches are not judged by their performance"
    run = f"clear this run of {dag_id(model, 'outcomes')}"
    return (
        f"Until outcomes of {partition} are in force, {waits}",
        f"Do: deliver a corrected file (its heading alone if there were no outcomes), then {run}",
    )


def of_skew(report: SkewReport) -> Alert | None:
    """Tell that the online store serves other values than training saw, or does so no longer.

    Nothing where nothing was compared; the report says why.
    """
    if not report.features:
        return None
    if not report.problems:
        return Alert(
            model=report.batch.model,
            thread=report.batch.partition,
            level="good",
            title="Online features are those the model learns from",
            lines=(f"As of {report.at:%Y-%m-%d %H:%M} UTC, {report.keys:,} keys",),
            subject="skew",
            is_all_clear=True,
        )
    todo = []
    if report.differences:
        todo.append(
            "Do: clear materialize_features; if it stays, the feature view and its table disagree. "
            "Of a view with a PushSource, look after what pushes it"
        )
    if report.ahead:
        todo.append(
            "Do: in features.tables, date rows when they are there online, which is at batch.end "
            "where their table comes with the batch; a view that is pushed online sooner gets a "
            "PushSource. Until then, metrics here are not those that the model reaches online"
        )
    return Alert(
        model=report.batch.model,
        thread=report.batch.partition,
        level="warning",
        title="Online features are not those the model learns from"
        if report.differences
        else "The model learns from values that are not there yet when it predicts",
        lines=(
            *report.problems,
            f"As of {report.at:%Y-%m-%d %H:%M} UTC, {report.keys:,} keys and {report.rows:,} rows",
            *todo,
        ),
        subject="skew",
    )


def of_verdict(
    verdict: Verdict,
    before: Verdict | None,
    *,
    guard_mode: GuardMode | None = None,
    is_served_elsewhere: bool = False,
) -> Alert | None:
    """Tell what will happen about a batch; nothing when it is still as it was in the one before.

    That nothing will happen is told where the thread told something else.

    Parameters
    ----------
    guard_mode : str, optional
        Of the model file now: a verdict that asks for a rollback stands where the file asks for
        none any more, and nothing follows.
    is_served_elsewhere : bool
        Whoever trains it has to retrain it; what is made here is its reference.
    """
    if before is not None and _goes_on(before, verdict):
        if verdict.outcome == "watch" and before.worst_feature == verdict.worst_feature:
            return None
        if verdict.outcome == "blocked" and is_served_elsewhere:
            return None  # who trains it was told, and it takes as long as it takes
    titles: dict[str, tuple[Level, str]] = {
        "ignore": ("good", "Judged anew: nothing is to be done"),
        "watch": ("info", "Drift, watched: no retrain"),
        "retrain": ("warning", "Retraining"),
        "blocked": ("warning", "A retrain is wanted but has to wait"),
        "broken_feed": ("critical", "The feed broke: nothing is learned from this batch"),
        "rollback": (
            "critical",
            f"Version {verdict.champion_version} is worse than the version before it",
        ),
    }
    if is_served_elsewhere:
        titles["retrain"] = ("info", "There are rows enough: they become the reference")
        titles["blocked"] = ("warning", "The model is to be retrained where it is trained")
    if verdict.outcomes_are_older:
        titles["watch"] = ("warning", "Drift, and no outcomes yet that could tell whether it harms")
    level, title = titles[verdict.outcome]
    champion, lines = verdict.champion_version, verdict.reasons
    if verdict.outcome == "broken_feed":
        lines += (broken_feeds.what_to_do(verdict.batch.model, verdict.batch.partition),)
    if verdict.outcome == "rollback" and guard_mode in {"tell", "off"}:
        by_hand = dag_id(verdict.batch.model, "rollback")
        lines += (f"guard.mode is {guard_mode} now: nothing follows. A person may run {by_hand}",)
    return Alert(
        model=verdict.batch.model,
        thread=verdict.batch.partition,
        level=level,
        title=title,
        lines=lines,
        subject="verdict",
        fact="|".join([verdict.content_sha256, str(champion), verdict.outcome, *lines]),
        is_all_clear=verdict.outcome == "ignore",
    )


def _goes_on(before: Verdict, verdict: Verdict) -> bool:
    """Say whether a verdict says of the same champion what the one before it said."""
    harms = [one.harm.state if one.harm else None for one in (before, verdict)]
    of = [(one.champion_version, one.champion_incident) for one in (before, verdict)]
    is_same = of[0] == of[1]
    if verdict.outcome == "blocked":
        is_same = is_same and harms[0] == harms[1]
    return is_same and before.outcome == verdict.outcome


def of_gate(decision: GateDecision) -> Alert:
    """Tell how a duel ended that did not lead to a promotion."""
    champion = (
        "no champion"
        if decision.champion_version is None
        else f"version {decision.champion_version}"
    )
    kept = f"{champion} stays in production"
    title = "passed the gate but was not promoted" if decision.passed else "rejected"
    return Alert(
        model=decision.model,
        thread=decision.partition,
        level="info",
        title=f"Candidate version {decision.candidate_version} {title}: {kept}",
        lines=duel_table.as_lines(decision),
        subject="gate",
        fact=_fact(decision),
    )


def of_question(decision: GateDecision) -> Alert:
    """Ask for an answer: a candidate waits for a person."""
    return Alert(
        model=decision.model,
        thread=decision.partition,
        level="warning",
        title=f"Promote candidate version {decision.candidate_version}? A person has to answer",
        lines=duel_table.as_lines(decision),
        subject="question",
        fact=_fact(decision),
    )


def of_guard_question(verdict: Verdict) -> Alert:
    """Ask for an answer: a champion is worse than the version before it."""
    return Alert(
        model=verdict.batch.model,
        thread=verdict.batch.partition,
        level="critical",
        title=f"Roll back version {verdict.champion_version}? A person has to answer",
        lines=verdict.reasons,
        subject="question",
        fact=verdict.incident_id,
    )


def of_answer(decision: GateDecision, *, approved: bool, by: str) -> Alert | None:
    """Tell that a candidate was turned down; nothing where it was approved: its promotion tells."""
    if approved:
        return None
    who = "nobody answered in time" if by == "nobody" else f"{by} said no"
    return Alert(
        model=decision.model,
        thread=decision.partition,
        level="info",
        title=f"Candidate version {decision.candidate_version} is not promoted: {who}",
        lines=decision.reasons,
        subject="answer",
        fact=f"{_fact(decision)} {by}",
    )


def of_guard_answer(verdict: Verdict, answer: GuardAnswer, *, is_made: bool) -> Alert | None:
    """Tell that a champion is not rolled back though it was worse; if it is, that tells.

    `is_made`: somebody said yes, and the rollback was made; else champion or verdict had changed.
    """
    if answer.approved and is_made:
        return None
    model = verdict.batch.model
    said = answer.in_words
    what = "It stays in production, and nobody is asked again. If it is to go after all: "
    what += dag_id(model, "rollback")
    if answer.approved:
        said += ", and it was too late"
        what = "Champion or verdict changed before the answer: the log of the guard's task says how"
    return Alert(
        model=model,
        thread=verdict.batch.partition,
        level="warning",
        title=f"Version {verdict.champion_version} is not rolled back: {said}",
        lines=(
            verdict.reasons[0],
            what,
        ),
        subject="answer",
        fact=f"{verdict.incident_id} {verdict.content_sha256} {said}",
    )


def of_promotion(promotion: Promotion, *, is_served_elsewhere: bool = False) -> Alert:
    """Tell that the champion changed, or the reference of a model that is served elsewhere."""
    version, previous = promotion.version, promotion.previous_version
    entry = _head(promotion.ledger_sequence, promotion.ledger_hash)
    if promotion.action == "rollback":
        level: Level = "warning"
        not_now = "" if previous is None else f", version {previous} is not"
        title = f"Rolled back: version {version} is in production{not_now}"
    else:
        level = "good"
        instead = "the first model" if previous is None else f"in place of version {previous}"
        title = f"Version {version} is in production, {instead}"
    if is_served_elsewhere:
        title = f"Later rows are held against version {version} of the reference"
    return Alert(
        model=promotion.model,
        thread=promotion.partition or NO_BATCH,
        level=level,
        title=title,
        lines=(
            f"Reason: {promotion.reason}",
            f"Ledger entry {entry}, by {promotion.actor}",
        ),
        subject="promotion",
        fact=f"ledger entry {promotion.ledger_sequence}",
    )


def _head(sequence: int, digest: str) -> str:
    """Name an entry so that `ledger verify --head` can hold the ledger against the message."""
    return f"{sequence}:{digest[:SHOWN]}" if digest else str(sequence)


def of_hand_move(entry: Entry) -> Alert:
    """Tell that somebody moved the champion alias in MLflow."""
    before = "nothing" if entry.previous_version is None else f"version {entry.previous_version}"
    if entry.previous_version == entry.version:  # the number came back, the model did not
        before = "another model with that number, which MLflow has no more"
    back = (
        f"{dag_id(entry.model, 'rollback')} returns to {before}, unless that is deleted or "
        "quarantined"
        if entry.previous_version not in {None, entry.version}
        else f"move the alias champion of {entry.model} in MLflow again"
    )
    return Alert(
        model=entry.model,
        thread=entry.partition or NO_BATCH,
        level="warning",
        title=f"Version {entry.version} was made champion by hand, in place of {before}",
        lines=(
            "The alias was moved in MLflow; no gate was asked about that move",
            *([entry.reason] if entry.previous_version == entry.version else []),
            f"Ledger entry {_head(entry.sequence, entry.hash)}. If that was not meant: {back}",
        ),
        subject="promotion",
        fact=f"ledger entry {entry.sequence}",
    )


def of_failure(
    *, model: str, thread: str, task: str, run_id: str, error: str, attempt: str = ""
) -> Alert:
    """Tell that a task failed for good.

    `attempt` tells this failure from an earlier one of the same task, which was cleared since.
    """
    return Alert(
        model=model,
        thread=thread,
        level="critical",
        title=f"{task} failed",
        lines=(error, f"Run: {run_id}", "Do: read the task's log, mend the cause, clear the task"),
        subject="failure",
        fact=f"{task}|{run_id}|{attempt or error}",
        run_id=run_id,
    )


def _fact(decision: GateDecision) -> str:
    return f"{decision.incident_id} {decision.model_dump_json()}"
