"""Who is champion: moving that alias, never leaving it undefined.

The ledger says who is champion: its entries are in one order, and each is made after the very entry
its maker has seen. MLflow's aliases and stages follow it, and are moved again by whoever finds that
a killed run has left them behind.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable

from include.retraining.errors import RegistryError
from include.retraining.names import CHALLENGER, CHAMPION, PREVIOUS_CHAMPION
from include.retraining.records import GateDecision, Promotion
from include.retraining.registry import ledger, server, versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

log = logging.getLogger(__name__)

APPROVER_TAG = "retraining.approver"
MAX_ATTEMPTS = 20
STRAGGLERS = 10  # so many of the last entries may have a maker who is not done yet
STRAGGLER_TIME = dt.timedelta(hours=1)  # a maker that has been at it for longer is dead


@server.writing("the promotion")
def promote(
    spec: ModelSpec, settings: Settings, decision: GateDecision, *, actor: str, at: dt.datetime
) -> Promotion:
    """Make the candidate of a passed gate the champion; safe to run again wherever it was killed.

    Raises
    ------
    RegistryError
        The gate did not pass, the champion is no longer the one the candidate was measured against,
        or this very promotion was made before and the champion changed since.
    Unavailable
        MLflow does not answer, or takes nothing.
    """
    if not decision.passed:
        raise RegistryError(
            f"version {decision.candidate_version} did not pass the gate: not promoted"
        )
    storage = Storage.of(settings)
    incident_id, number = decision.incident_id, decision.candidate_version
    _refuse_if_superseded(spec, storage, incident_id, "promotion")
    notice_hand_move(spec, settings, at=at)
    entry = ledger.made(storage, spec.model, incident_id, "promotion")
    if entry is None:
        last = ledger.last(storage, spec.model)
        current = last.version if last else None
        if current not in {decision.champion_version, number}:
            raise RegistryError(
                f"{spec.model}: the duel was against version {decision.champion_version}, but "
                f"version {current} is champion now; nothing was changed, run a new retrain"
            )
        draft = _draft(
            spec,
            "promotion",
            number,
            previous=decision.champion_version,
            incident_id=incident_id,
            partition=decision.partition,
            reason="; ".join(decision.reasons),
            actor=actor,
            at=at,
        )
        if decision.candidate is not None:
            promise = {versions.PROMISE_TAG: decision.candidate.model_dump_json()}
            server.set_tags(spec, settings, number, promise)
        entry = _enter(spec, settings, draft, after=last)
    _follow(spec, settings, entry)
    ledger.mark(storage, entry, "done")
    return _told(entry)


@server.writing("the champion that was made by hand")
def notice_hand_move(
    spec: ModelSpec, settings: Settings, *, at: dt.datetime
) -> ledger.Entry | None:
    """Enter in the ledger that somebody moved the champion alias in MLflow, if so.

    A promotion or rollback that is under way, or died halfway, is none: the next run finishes it.

    Raises
    ------
    RegistryError
        The alias was removed: the model is without a champion, which nothing here may take for a
        model that never had one.
    """
    storage = Storage.of(settings)
    for _ in range(MAX_ATTEMPTS):
        entry = ledger.last(storage, spec.model)
        alias = server.aliases(spec, settings).get(CHAMPION)
        if entry is None and alias is None:
            return None
        if entry is not None:
            is_done = ledger.is_marked(storage, entry, "followed")
            if is_done and alias == entry.version:
                return None
            if not is_done or _is_a_straggler(spec, storage, alias, at):
                _follow(spec, settings, entry)
                return None
        if ledger.last(storage, spec.model) != entry:  # a move came in between the two looks
            continue
        if alias is None:
            assert entry is not None
            raise RegistryError(
                f"{spec.model}: somebody removed the alias {CHAMPION!r}; by the ledger version "
                f"{entry.version} is champion. Do: {spec.model}__rollback with that version"
            )
        after = entry.sequence if entry else 0
        draft = _draft(
            spec,
            "by_hand",
            alias,
            previous=entry.version if entry else None,
            incident_id=f"by-hand-v{alias}-after-{after}",
            partition=entry.partition if entry else "",
            reason="the champion alias was moved in MLflow, by nobody this pipeline knows",
            actor="unknown",
            at=at,
        )
        made = ledger.append(storage, draft, after=after)
        if made is not None:
            log.warning("%s: somebody made version %s champion by hand", spec.model, alias)
            ledger.mark(storage, made, "done")
            ledger.mark(storage, made, "followed")
            return made
    raise RegistryError(
        f"{spec.model}: the champion changed {MAX_ATTEMPTS} times while this step looked; run again"
    )


def _is_a_straggler(spec: ModelSpec, storage: Storage, alias: int | None, at: dt.datetime) -> bool:
    """Was the alias set by the maker of an earlier entry, who is slow, or died at it?"""
    return any(
        entry.version == alias
        and abs(at - entry.at) < STRAGGLER_TIME
        and not ledger.is_marked(storage, entry, "done")
        for entry in ledger.read(storage, spec.model)[-STRAGGLERS:]
    )


@server.writing("the rollback")
def rollback(
    spec: ModelSpec,
    settings: Settings,
    *,
    reason: str,
    actor: str,
    request_id: str,
    at: dt.datetime,
    to_version: int | None = None,
    is_service: Callable[[str], bool] = lambda _: True,
) -> Promotion:
    """Return to an earlier champion: the one before the current, or the version asked for.

    From a champion that the ledger does not know, it returns to the one the ledger knows.
    `request_id` makes it happen once: the same request again changes nothing. `is_service` says
    whether a feature service is still defined.

    Raises
    ------
    RegistryError
        There is no earlier champion, the version asked for never was one, is champion now or could
        not do its work (see `refuse_unusable`), or this very rollback was made or begun before and
        the champion changed since.
    Unavailable
        MLflow does not answer, or takes nothing.
    """
    storage = Storage.of(settings)
    _refuse_if_superseded(spec, storage, request_id, "rollback")
    alias = server.aliases(spec, settings).get(CHAMPION)
    if alias is not None:
        notice_hand_move(spec, settings, at=at)
    entry = ledger.made(storage, spec.model, request_id, "rollback")
    if entry is None:
        entries = ledger.read(storage, spec.model)
        line = ledger.reign(entries)
        current = line[-1].version if line and alias is not None else None
        target = _choose_target(spec, settings, entries, current=current, asked=to_version)
        refuse_unusable(spec, settings, target, is_service=is_service)
        draft = _draft(
            spec,
            "rollback",
            target,
            previous=current,
            incident_id=request_id,
            partition=line[-1].partition if line else "",
            reason=reason,
            actor=actor,
            at=at,
        )
        entry = _enter(spec, settings, draft, after=entries[-1] if entries else None)
    _follow(spec, settings, entry)
    ledger.mark(storage, entry, "done")
    return _told(entry)


def turn_down(spec: ModelSpec, settings: Settings, decision: GateDecision, *, by: str) -> None:
    """Archive a candidate that passed the gate but that a person, or their silence, turned down."""
    number = decision.candidate_version
    server.set_tags(spec, settings, number, {APPROVER_TAG: f"turned down by {by}"})
    if server.aliases(spec, settings).get(CHAMPION) != number:
        server.set_stage(spec, settings, number, "Archived")


def _choose_target(
    spec: ModelSpec,
    settings: Settings,
    entries: list[ledger.Entry],
    *,
    current: int | None,
    asked: int | None,
) -> int:
    """Give the version to return to: the one asked for, else the newest champion still standing."""
    line = ledger.reign(entries)
    crowned = sorted({entry.version for entry in entries})
    if not line:
        raise RegistryError(f"{spec.model} has no champion yet: there is nothing to roll back")
    if asked is not None:
        if asked not in crowned:
            raise RegistryError(f"version {asked} never was champion; allowed: {crowned}")
        if asked == current and server.aliases(spec, settings).get(CHAMPION) == asked:
            raise RegistryError(f"version {asked} is champion already: there is nothing to do")
        return asked
    standing = [entry.version for entry in line if entry.version != current]
    for number in reversed(standing):
        if not quarantine_reason(spec, settings, number):
            return number
    raise RegistryError(
        f"{spec.model} version {current} is the only champion so far that is not quarantined: "
        f"there is nothing to return to; name one of {crowned}, or retrain"
    )


def quarantine_reason(spec: ModelSpec, settings: Settings, number: int) -> str:
    """Give why a version must not come back: what its tag says; empty if it may."""
    found = server.find_version(spec, settings, number)
    if found is None:
        return "it was deleted from the registry"
    return str(found.tags.get(versions.QUARANTINE_TAG, ""))


def refuse_unusable(
    spec: ModelSpec,
    settings: Settings,
    number: int,
    *,
    is_service: Callable[[str], bool] = lambda _: True,
) -> None:
    """Refuse a version that could not do a champion's work now.

    Raises
    ------
    RegistryError
        It is quarantined, its features are not those of the model file, or the feature service it
        was trained with is gone.
    ScoringError
        Its artifact cannot be loaded.
    """
    if why := quarantine_reason(spec, settings, number):
        raise RegistryError(
            f"{spec.model} version {number} is quarantined: {why}. Name another version, or remove "
            f"its tag {versions.QUARANTINE_TAG} in MLflow"
        )
    found = versions.version(spec, settings, number)
    if found.features and set(found.features) != set(spec.features.names):
        raise RegistryError(
            f"{spec.model} version {number} was trained with other features than the model file "
            f"has: {', '.join(sorted(set(found.features) ^ set(spec.features.names)))}; restore "
            "that model file, or name another version"
        )
    service = versions.run_data(settings, found).tags.get(versions.SERVICE_TAG)
    if service and not is_service(service):
        raise RegistryError(
            f"{spec.model} version {number} was trained with feature service {service!r}, "
            f"which is gone from feature_repo/; restore it, or name another version"
        )
    versions.load_model(spec, settings, found)


def _refuse_if_superseded(
    spec: ModelSpec, storage: Storage, incident_id: str, action: ledger.Action
) -> None:
    """Refuse an old step that is run again, where it would undo what came after it."""
    last = ledger.last(storage, spec.model)
    if last is None or (last.incident_id, last.action) == (incident_id, action):
        return
    done = ledger.made(storage, spec.model, incident_id, action)
    if done is not None:
        raise RegistryError(
            f"{spec.model}: the {action} to version {done.version} is done (ledger entry "
            f"{done.sequence}), and entry {last.sequence} made version {last.version} champion "
            "since; nothing was changed"
        )
    started = ledger.intended(storage, spec.model, incident_id, action)
    if started is not None and last.sequence > started.after:
        raise RegistryError(
            f"{spec.model}: the {action} to version {started.version} was begun before ledger "
            f"entry {last.sequence} made version {last.version} champion; nothing was changed"
        )


def _draft(
    spec: ModelSpec,
    action: ledger.Action,
    version: int,
    *,
    previous: int | None,
    incident_id: str,
    partition: str,
    reason: str,
    actor: str,
    at: dt.datetime,
) -> ledger.Entry:
    return ledger.Entry(
        sequence=0,
        model=spec.model,
        action=action,
        version=version,
        previous_version=previous,
        incident_id=incident_id,
        partition=partition,
        reason=reason,
        actor=actor,
        at=at,
        previous_hash=ledger.GENESIS,
    )


def _enter(
    spec: ModelSpec, settings: Settings, draft: ledger.Entry, *, after: ledger.Entry | None
) -> ledger.Entry:
    """Make an entry right after the one that was last when it was decided."""
    storage = Storage.of(settings)
    # first of all: where MLflow takes nothing, nothing is entered
    server.set_tags(spec, settings, draft.version, {APPROVER_TAG: draft.actor})
    entry = ledger.append(storage, draft, after=after.sequence if after else 0)
    if entry is None:  # another one came in between: the intent that was kept says so from now on
        _refuse_if_superseded(spec, storage, draft.incident_id, draft.action)
        raise RegistryError(
            f"{spec.model}: another champion came while this step looked; nothing was changed, "
            "look and run it again"
        )
    return entry


def _follow(spec: ModelSpec, settings: Settings, entry: ledger.Entry) -> None:
    """Move aliases and stages to where the ledger has them, once an entry is in it."""
    storage = Storage.of(settings)
    ledger.append(storage, entry)  # whose maker may have died before it noted where it is
    while True:
        line = ledger.reign(ledger.read(storage, spec.model))
        champion, before = line[-1], _standing_before(spec, settings, line)
        _crown(
            spec,
            settings,
            version=champion.version,
            previous=before,
            retired=champion.previous_version,
        )
        if ledger.last(storage, spec.model) == champion:
            ledger.mark(storage, champion, "followed")
            return


def _standing_before(spec: ModelSpec, settings: Settings, line: list[ledger.Entry]) -> int | None:
    """Give the champion before the last one of a line that is still in the registry."""
    return next(
        (
            one.version
            for one in reversed(line[:-1])
            if one.version != line[-1].version
            and server.find_version(spec, settings, one.version) is not None
        ),
        None,
    )


def _crown(
    spec: ModelSpec, settings: Settings, *, version: int, previous: int | None, retired: int | None
) -> None:
    """Move aliases and stages; the champion alias points at a whole version at every instant."""
    server.set_alias(spec, settings, CHAMPION, version)
    server.set_alias(spec, settings, PREVIOUS_CHAMPION, previous)
    if server.aliases(spec, settings).get(CHALLENGER) == version:
        server.set_alias(spec, settings, CHALLENGER, None)
    server.set_stage(spec, settings, version, "Production")
    if (
        retired is not None
        and retired != version
        and server.find_version(spec, settings, retired) is not None
    ):
        server.set_stage(spec, settings, retired, "Archived")


def _told(entry: ledger.Entry) -> Promotion:
    log.info("%s: version %s is champion (%s)", entry.model, entry.version, entry.reason)
    return Promotion(
        incident_id=entry.incident_id,
        model=entry.model,
        partition=entry.partition,
        action=entry.action,
        version=entry.version,
        previous_version=entry.previous_version,
        reason=entry.reason,
        actor=entry.actor,
        at=entry.at,
        ledger_sequence=entry.sequence,
    )
