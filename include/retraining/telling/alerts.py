"""Makes the messages people read, and delivers each once, one thread per batch.

What is said is decided here, from records; how it travels is a `Channel`: Slack, or a folder where
no Slack connection is set up.
"""

from __future__ import annotations

import json
import re
import time
from typing import Literal, Protocol

from pydantic import Field

from include.retraining import shelf
from include.retraining.records import (
    GateDecision,
    Promotion,
    Record,
    SkewReport,
    ValidationReport,
    Verdict,
)
from include.retraining.storage import Storage, json_bytes, sha256
from include.retraining.telling import duel_table

Level = Literal["good", "info", "warning", "critical"]
SYMBOL: dict[Level, str] = {
    "good": ":white_check_mark:",
    "info": ":information_source:",
    "warning": ":warning:",
    "critical": ":rotating_light:",
}
MAX_LINES = 12
MAX_CHARACTERS = 2900  # Slack cuts a section at 3,000


class Alert(Record):
    """One message of a thread. `thread` groups what belongs to one batch."""

    model: str
    thread: str
    level: Level
    title: str
    lines: tuple[str, ...] = ()
    url: str = ""
    page: str = Field(default="", description="address of the page about what it tells")

    @property
    def alert_id(self) -> str:
        """The same thing said twice has the same id, whatever run says it."""
        content = [self.model, self.thread, self.level, self.title, *self.lines]
        return sha256(*(part.encode() for part in content))[:16]

    @property
    def text(self) -> str:
        """The whole message as Slack's mrkdwn."""
        kept = [*self.lines[:MAX_LINES]]
        if len(self.lines) > MAX_LINES:
            kept.append(f"... and {len(self.lines) - MAX_LINES} more")
        head = f"{SYMBOL[self.level]} *{_plain(self.title)}*"
        quoted = (row for line in kept for row in _plain(line).splitlines())
        body = "\n".join([head, *(f"> {row}" for row in quoted)])
        if len(body) > MAX_CHARACTERS:
            body = re.sub("&[a-z]*$", "", body[: MAX_CHARACTERS - 4]) + " ..."  # no half escape
        links = {"Open in Airflow": self.url, "Data Docs": self.page}
        shown = "  ".join(f"<{url}|{name}>" for name, url in links.items() if url)
        return f"{body}\n{shown}" if shown else body


class Channel(Protocol):
    """Where messages go."""

    def post(self, text: str, *, thread: str | None) -> str:
        """Post a message, in a thread if one is given; give the id others can reply to."""

    def update(self, message: str, text: str) -> None:
        """Replace the text of a message."""


class FolderChannel:
    """Keeps messages as JSON files, one each, in order: for machines without Slack."""

    def __init__(self, storage: Storage, channel: str) -> None:
        self.storage = storage
        self.channel = channel

    def post(self, text: str, *, thread: str | None) -> str:
        """Write the message to the next free number."""
        number = len(self.storage.list("")) + 1
        while True:
            message = f"{number:04d}"
            content = {"channel": self.channel, "ts": message, "thread_ts": thread, "text": text}
            if self.storage.create(shelf.message_key(message), json_bytes(content)):
                return message
            number += 1

    def update(self, message: str, text: str) -> None:
        """Rewrite the message's file."""
        key = shelf.message_key(message)
        self.storage.write_json(key, self.storage.read_json(key) | {"text": text})


def deliver(alert: Alert, storage: Storage, channel: Channel) -> bool:
    """Send an alert unless it was sent before; the first of its thread opens the thread.

    The opening message always shows the newest state of the thread. Two alerts of one thread at the
    same moment wait for each other, so that there is one opening message.

    Returns
    -------
    bool
        False if it had been sent.
    """
    sent_key, opening_key, opened = (
        shelf.thread_key(alert.model, alert.thread, name)
        for name in (alert.alert_id, "opening", "opened")
    )
    if storage.exists(sent_key):
        return False
    opening = _opening_text(alert)
    is_first = storage.create(opening_key, json_bytes({"alert": alert.alert_id}))
    mine = is_first or storage.read_json(opening_key)["alert"] == alert.alert_id
    if mine and not storage.exists(opened):
        storage.write_json(opened, {"message": channel.post(opening, thread=None)})
    message = _wait_for(storage, opened)
    if message is None:  # whoever opened the thread never finished: take over
        message = channel.post(opening, thread=None)
        storage.write_json(opened, {"message": message})
    elif not mine:
        channel.update(message, opening)
    channel.post(alert.text, thread=message)
    storage.create(sent_key, json.dumps({"message": message}).encode())
    return True


def _opening_text(alert: Alert) -> str:
    about = _plain(f"{alert.model} {alert.thread[:200]}")
    return f"{SYMBOL[alert.level]} *{about}*: {_plain(alert.title)}"


def _wait_for(storage: Storage, key: str, *, seconds: float = 10.0) -> str | None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            return str(storage.read_json(key)["message"])
        except FileNotFoundError:
            time.sleep(0.1)
    return None


def of_validation(report: ValidationReport, *, pages: str = "") -> Alert | None:
    """Tell about a refused batch or quarantined rows; nothing about a clean batch.

    `pages` is the address under which a browser sees the storage.
    """
    problems = [f for f in report.findings if f.severity != "info"]
    lines = tuple(
        f"{f.severity}: {f'{f.column}: ' if f.column else ''}{f.expectation}: {f.detail}"
        for f in problems
    )
    page = f"{pages}/{report.page_key}" if pages and report.page_key else ""
    if report.status == "refused":
        return Alert(
            model=report.batch.model,
            thread=report.batch.partition,
            level="critical",
            title="Batch refused, the last good data stays in force",
            lines=(
                *lines,
                f"All {report.rows_in:,} rows are kept in {report.quarantine_key}",
                "Do: deliver a corrected file and clear the ingest run, or say how to read this",
            ),
            page=page,
        )
    if not problems:
        return None
    where = (f"Quarantined rows: {report.quarantine_key}",) if report.quarantine_key else ()
    return Alert(
        model=report.batch.model,
        thread=report.batch.partition,
        level="warning",
        title=f"{report.rows_quarantined:,} of {report.rows_in:,} rows quarantined"
        if report.rows_quarantined
        else "Batch accepted with warnings",
        lines=(*lines, *where),
        page=page,
    )


def of_skew(report: SkewReport) -> Alert | None:
    """Tell that the online store serves other values than training saw; nothing if it does not."""
    if not report.problems:
        return None
    return Alert(
        model=report.batch.model,
        thread=report.batch.partition,
        level="warning",
        title="Online features are not those the model learns from",
        lines=(
            *report.problems,
            f"As of {report.at:%Y-%m-%d %H:%M} UTC, {report.keys:,} keys",
            "Do: clear materialize_features; if it stays, the feature view and its table disagree",
        ),
    )


def of_verdict(verdict: Verdict, before: Verdict | None) -> Alert | None:
    """Tell what will happen about a batch; nothing when all is well, or still as it was."""
    if verdict.outcome == "ignore":
        return None
    if before and verdict.outcome == "watch" and before.outcome == "watch":
        same_champion = before.champion_version == verdict.champion_version
        if same_champion and before.worst_feature == verdict.worst_feature:
            return None
    titles: dict[str, tuple[Level, str]] = {
        "watch": ("info", "Drift, watched: no retrain"),
        "retrain": ("warning", "Retraining"),
        "blocked": ("warning", "A retrain is wanted but has to wait"),
    }
    level, title = titles[verdict.outcome]
    return Alert(
        model=verdict.batch.model,
        thread=verdict.batch.partition,
        level=level,
        title=title,
        lines=verdict.reasons,
    )


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
    )


def of_question(decision: GateDecision) -> Alert:
    """Ask for an answer: a candidate waits for a person."""
    return Alert(
        model=decision.model,
        thread=decision.partition,
        level="warning",
        title=f"Promote candidate version {decision.candidate_version}? A person has to answer",
        lines=duel_table.as_lines(decision),
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
    )


def of_promotion(promotion: Promotion) -> Alert:
    """Tell that the champion changed."""
    previous = promotion.previous_version
    if promotion.action == "rollback":
        return Alert(
            model=promotion.model,
            thread=promotion.partition,
            level="warning",
            title=(
                f"Rolled back: version {promotion.version} is in production, "
                f"version {previous} is not"
            ),
            lines=(f"Reason: {promotion.reason}", f"By: {promotion.actor}"),
        )
    instead = "the first model" if previous is None else f"in place of version {previous}"
    return Alert(
        model=promotion.model,
        thread=promotion.partition,
        level="good",
        title=f"Version {promotion.version} is in production, {instead}",
        lines=(promotion.reason, f"Ledger entry {promotion.ledger_sequence}, by {promotion.actor}"),
    )


def of_failure(*, model: str, thread: str, task: str, run_id: str, error: str) -> Alert:
    """Tell that a task failed for good."""
    return Alert(
        model=model,
        thread=thread,
        level="critical",
        title=f"{task} failed",
        lines=(error, f"Run: {run_id}", "Do: read the task's log, mend the cause, clear the task"),
    )


def _plain(text: str) -> str:
    """Escape what Slack would take for its own markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
