"""Rolls back a champion that its probation has shown to be worse than the version before it."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable

from include.retraining import shelf
from include.retraining.errors import RegistryError, ScoringError
from include.retraining.names import dag_id
from include.retraining.records import (
    DriftReport,
    LearnedFeatures,
    Probation,
    Promotion,
    Verdict,
)
from include.retraining.registry import ledger, server, succession, versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

WORSE_TAG = "retraining.worse"


class NoLonger(RegistryError):
    """Nothing is to be rolled back: the champion, or the verdict, is another one by now."""


@server.writing("the guard's rollback")
def roll_back(
    spec: ModelSpec,
    settings: Settings,
    verdict: Verdict,
    *,
    actor: str,
    at: dt.datetime,
    why_not: Callable[[LearnedFeatures | None], str] = lambda _: "",
) -> Promotion:
    """Return to the version that a champion was held against; the same verdict again does nothing.

    The ledger's entry is made right after the one that has this champion. The version is marked
    first, with why: whoever is killed after that, it is marked and still champion, and the next try
    moves the alias.

    Raises
    ------
    NoLonger
        Another version is champion by now, a person brought this one back, or the verdict was
        replaced.
    RegistryError
        The version that it was held against cannot come back; no other was compared with it.
    """
    storage = Storage.of(settings)
    last = target = None
    if ledger.made(storage, spec.model, verdict.incident_id, "rollback") is None:
        now, last = _champion(spec, settings, verdict, at=at)
        found = _probation(storage, verdict)
        _refuse_other(verdict, now, found.incident_id)
        _refuse_unusable(spec, settings, found, why_not=why_not)
        target = found.against
        server.set_tags(spec, settings, now.number, {WORSE_TAG: verdict.reasons[0]})
    try:
        return succession.rollback(
            spec,
            settings,
            reason=verdict.reasons[0],
            actor=actor,
            request_id=verdict.incident_id,
            to_version=target,
            after=last,
            partition=verdict.batch.partition,
            at=at,
            why_not=why_not,
        )
    except succession.ChampionChanged as error:
        raise NoLonger(str(error)) from error


def _champion(
    spec: ModelSpec, settings: Settings, verdict: Verdict, *, at: dt.datetime
) -> tuple[versions.Version, ledger.Entry]:
    """Give the champion of a verdict, and the ledger's last entry, which has it."""
    with contextlib.suppress(succession.ChampionLost):
        succession.notice_hand_move(spec, settings, at=at)
    last = ledger.last(Storage.of(settings), spec.model)
    now = versions.champion(spec, settings)
    worse = f"not version {verdict.champion_version}, which was found to be worse"
    if now is None or last is None:
        raise NoLonger(f"there is no champion now, {worse}")
    for number in (now.number, last.version):
        if number != verdict.champion_version:
            raise NoLonger(f"version {number} is champion now, {worse}")
    _refuse_other(verdict, now, verdict.champion_incident)
    if last.action == "rollback":
        raise NoLonger(
            f"version {now.number} was brought back by {last.actor} (ledger entry "
            f"{last.sequence}): the verdict is about the time before"
        )
    return now, last


def _refuse_other(verdict: Verdict, now: versions.Version, incident_id: str | None) -> None:
    """Refuse a champion that has the number of the one that was found to be worse, and no more."""
    if incident_id not in {None, now.incident_id}:
        raise NoLonger(
            f"another model has the number {verdict.champion_version} now: it was made by "
            f"{now.incident_id or 'no incident of ours'}, and the one that was found to be worse "
            f"by {incident_id}"
        )


def _probation(storage: Storage, verdict: Verdict) -> Probation:
    """Give the probation that a verdict is about, if the verdict still stands."""
    model, partition = verdict.batch.model, verdict.batch.partition
    standing = shelf.find(storage, Verdict, model, partition)
    report = shelf.find(storage, DriftReport, model, partition)
    found = report.probation if report else None
    if standing is not None and standing.outcome != verdict.outcome:
        raise NoLonger(
            f"{partition} was judged again: the verdict is {standing.outcome}, and no rollback"
        )
    if (
        standing is None
        or report is None
        or found is None
        or _identity(standing) != _identity(verdict)
        or report.content_sha256 != verdict.content_sha256
        or (found.state, found.version) != ("worse", verdict.champion_version)
    ):
        raise NoLonger(
            f"{partition} was measured again, and the verdict is not the one that asked for this. "
            "Do: if it still asks for a rollback, clear all tasks of this run"
        )
    return found


def _identity(verdict: Verdict) -> tuple[str, str, str | None]:
    return verdict.incident_id, verdict.content_sha256, verdict.champion_incident


def _refuse_unusable(
    spec: ModelSpec,
    settings: Settings,
    found: Probation,
    *,
    why_not: Callable[[LearnedFeatures | None], str],
) -> None:
    """Refuse to roll back where the version that was compared cannot come back."""
    number = found.against
    there = versions.find(spec, settings, number)
    if there is None:
        why = f"MLflow has no version {number} any more"
    elif there.incident_id != found.against_incident:
        why = (
            f"version {number} in MLflow is another model now, made by "
            f"{there.incident_id or 'no incident of ours'}"
        )
    else:
        try:
            succession.refuse_unusable(spec, settings, number, why_not=why_not)
        except (RegistryError, ScoringError) as error:
            why = str(error)
        else:
            return
    raise RegistryError(
        f"{spec.model}: {found.in_words}. The guard returns to no other version than {number}, "
        f"since no other was compared, and that one cannot come back: {why}. Nothing was changed. "
        f"Do: mend that and clear this task; or {dag_id(spec.model, 'rollback')} with the version "
        f"that you choose; or leave version {found.version} in production"
    )
