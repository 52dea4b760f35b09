"""Who is champion: moving that alias, never leaving it undefined.

The ledger says who is champion: its entries are in one order, and each is made after the very entry
its maker has seen. MLflow's aliases and stages follow it, and are moved again by whoever finds that
a killed run has left them behind.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import Callable, Sequence

from include.retraining.errors import RegistryError
from include.retraining.names import CHALLENGER, CHAMPION, PREVIOUS_CHAMPION
from include.retraining.records import GateDecision, LearnedFeatures, Promotion
from include.retraining.registry import anchor, identity, ledger, server, versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

log = logging.getLogger(__name__)

APPROVER_TAG = "retraining.approver"
MAX_ATTEMPTS = 20
STRAGGLERS = 10  # so many of the last entries may have a maker who is not done yet
STRAGGLER_TIME = dt.timedelta(hours=1)  # a maker that has been at it for longer is dead


class ChampionLost(RegistryError):
    """The champion of the ledger is not in the registry: only a person knows what to do."""


class ChampionChanged(RegistryError):
    """A move came after another champion than the one it was decided about; nothing was done."""


@server.writing("the promotion")
def promote(
    spec: ModelSpec, settings: Settings, decision: GateDecision, *, actor: str, at: dt.datetime
) -> Promotion:
    """Make the candidate of a passed gate the champion; safe to run again wherever it was killed.

    Raises
    ------
    RegistryError
        The gate did not pass, the champion is no longer the one the candidate was measured against,
        the candidate is not in the registry, or this very promotion was made before and the
        champion changed since.
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
    identity.require_made_by(spec, versions.version(spec, settings, number), incident_id)
    if decision.champion_version is None:  # with no champion left, a forced retrain is the way out
        with contextlib.suppress(ChampionLost):
            notice_hand_move(spec, settings, at=at)
    else:
        notice_hand_move(spec, settings, at=at)
    entry = ledger.made(storage, spec.model, incident_id, "promotion")
    if entry is None:
        last = ledger.last(storage, spec.model)
        _refuse_other_champion(spec, settings, decision, last)
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
    An alias at another model that has the champion's number now is one.

    Raises
    ------
    ChampionLost
        The alias was removed, or its version was deleted: the model is without a champion, which
        nothing here may take for a model that never had one.
    """
    storage = Storage.of(settings)
    for _ in range(MAX_ATTEMPTS):
        entry = ledger.last(storage, spec.model)
        # the mark before the alias: once it is there, so is the alias
        is_done = entry is not None and ledger.is_marked(storage, entry, "followed")
        alias = server.aliases(spec, settings).get(CHAMPION)
        if entry is None and alias is None:
            return None
        other = ""
        if entry is not None:
            if alias == entry.version:
                other = identity.loss(spec, settings, entry)
            if is_done and alias == entry.version and not other:
                return None
            if not other and (not is_done or _is_a_straggler(spec, settings, alias, at)):
                _follow(spec, settings, entry)
                return None
        if (  # a move came in between the looks, or a slow maker has put the alias right meanwhile
            ledger.last(storage, spec.model) != entry
            or server.aliases(spec, settings).get(CHAMPION) != alias
        ):
            continue
        if alias is None:
            assert entry is not None
            raise ChampionLost(no_champion(spec, settings, entry))
        after = entry.sequence if entry else 0
        draft = _draft(
            spec,
            "by_hand",
            alias,
            previous=entry.version if entry else None,
            incident_id=f"by-hand-v{alias}-after-{after}",
            partition=entry.partition if entry else "",
            reason="the champion alias was moved in MLflow, by nobody this pipeline knows"
            + (f"; {other}" if other else ""),
            actor="unknown",
            at=at,
        )
        made = ledger.append(storage, _identified(spec, settings, draft), after=after)
        if made is not None:
            _follow_hand(spec, settings, made)
            return made
    raise RegistryError(
        f"{spec.model}: the champion changed {MAX_ATTEMPTS} times while this step looked; run again"
    )


def _follow_hand(spec: ModelSpec, settings: Settings, made: ledger.Entry) -> None:
    """Do for a move by hand what a promotion does after its entry."""
    log.warning("%s: somebody made version %s champion by hand", spec.model, made.version)
    if made.previous_version not in {None, made.version}:
        server.set_alias(spec, settings, PREVIOUS_CHAMPION, made.previous_version)
    anchor.anchor(spec, settings, made)
    storage = Storage.of(settings)
    ledger.mark(storage, made, "done")
    ledger.mark(storage, made, "followed")


def no_champion(spec: ModelSpec, settings: Settings, entry: ledger.Entry) -> str:
    """Say why MLflow has no champion although the ledger, by its last entry, has; and the way out.

    Raises
    ------
    LedgerError
        The ledger is damaged.
    """
    why = identity.loss(spec, settings, entry)
    if not why:
        return (
            f"{spec.model}: somebody removed the alias {CHAMPION!r}; by the ledger version "
            f"{entry.version} is champion. Do: {spec.model}__rollback with that version"
        )
    line = ledger.reign(ledger.read(Storage.of(settings), spec.model))
    left = _newest_standing(spec, settings, line)
    back = (
        f"{spec.model}__rollback returns to version {left}, the newest champion still there; or "
        if left is not None
        else f"no earlier champion is in MLflow either, so {spec.model}__rollback has nothing to "
        "return to; "
    )
    return (
        f"{spec.model} has no champion: {why}. Nothing was changed. Do: restore MLflow's database "
        f"and artifacts from a backup; or {back}{spec.model}__retrain with force trains a new one, "
        "which has no opponent and is held against gate.floor alone"
    )


def _refuse_other_champion(
    spec: ModelSpec, settings: Settings, decision: GateDecision, last: ledger.Entry | None
) -> None:
    """Refuse a promotion whose duel was against another champion than the one of now."""
    lost = identity.loss(spec, settings, last) if last else ""
    current = last.version if last and not lost else None
    is_other = (
        decision.champion_incident is not None
        and last is not None
        and (last.made_by not in {None, decision.champion_incident})
    )
    against = decision.champion_version
    if current == decision.candidate_version or (current == against and not is_other):
        return
    now = f"version {current} is champion now" if current is not None else lost or "there is none"
    if current == against:
        now = f"another model with that number is champion now, made by {last and last.made_by}"
    raise RegistryError(
        f"{spec.model}: the duel was against {'none' if against is None else f'version {against}'},"
        f" but {now}; nothing was changed, run a new retrain"
    )


def _is_a_straggler(
    spec: ModelSpec, settings: Settings, alias: int | None, at: dt.datetime
) -> bool:
    """Was the alias set by the maker of an earlier entry, who is slow, or died at it?"""
    storage = Storage.of(settings)
    return any(
        entry.version == alias
        and abs(at - entry.at) < STRAGGLER_TIME
        and not ledger.is_marked(storage, entry, "done")
        and not identity.loss(spec, settings, entry)
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
    after: ledger.Entry | None = None,
    partition: str | None = None,
    why_not: Callable[[LearnedFeatures | None], str] = lambda _: "",
) -> Promotion:
    """Return to an earlier champion: the one before the current, or the version asked for.

    From a champion that the ledger does not know, it returns to the one the ledger knows.
    `request_id` makes it happen once: the same request again changes nothing. It is made right
    after the entry `after`; without, after whichever is last now. `partition` is the batch that it
    is about; without, that of the last move. `why_not` says why rows cannot be given the features
    that a version learned from.

    Raises
    ------
    RegistryError
        There is no earlier champion, the version asked for never was one, is another model than
        the one that was, is champion now or could not do its work (see `refuse_unusable`).
    ChampionChanged
        Another entry than `after` is the last one, or this very rollback was made or begun before
        and the champion changed since.
    Unavailable
        MLflow does not answer, or takes nothing.
    """
    storage = Storage.of(settings)
    alias = server.aliases(spec, settings).get(CHAMPION)
    if alias is not None:
        with contextlib.suppress(ChampionLost):  # this is the way out
            notice_hand_move(spec, settings, at=at)
    # now that a hand is in the ledger, too: what it did came after a rollback that is called again
    _refuse_if_superseded(spec, storage, request_id, "rollback")
    entry = ledger.made(storage, spec.model, request_id, "rollback")
    if entry is None:
        entries = ledger.read(storage, spec.model)
        if after is not None and entries[-1] != after:
            raise _another_came(spec, entries[-1])
        line = ledger.reign(entries)
        current = line[-1].version if line and alias is not None else None
        target = _choose_target(spec, settings, entries, current=current, asked=to_version)
        refuse_unusable(spec, settings, target, why_not=why_not)
        draft = _draft(
            spec,
            "rollback",
            target,
            previous=current,
            incident_id=request_id,
            partition=partition or (line[-1].partition if line else ""),
            reason=reason,
            actor=actor,
            at=at,
        )
        entry = _enter(spec, settings, draft, after=entries[-1] if entries else None)
    _follow(spec, settings, entry)
    ledger.mark(storage, entry, "done")
    return _told(entry)


def turn_down(spec: ModelSpec, settings: Settings, decision: GateDecision, *, by: str) -> None:
    """Archive a candidate that passed the gate but that a person, or their silence, turned down.

    Raises
    ------
    RegistryError
        The candidate is not in the registry.
    """
    number = decision.candidate_version
    found = versions.version(spec, settings, number)
    identity.require_made_by(spec, found, decision.incident_id)
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
        losses = [
            identity.loss(spec, settings, entry)
            for entry in reversed(entries)
            if entry.version == asked
        ]
        if all(losses):
            others = [n for n in crowned if _newest_standing(spec, settings, entries, only=n)]
            named = f"one of {others}" if others else "none of them is; retrain with force"
            raise RegistryError(
                f"{spec.model} cannot return to version {asked}: {losses[0]}. Nothing was changed. "
                f"Do: restore MLflow from a backup, or name a champion that is still there: {named}"
            )
        if asked == current and server.aliases(spec, settings).get(CHAMPION) == asked:
            raise RegistryError(f"version {asked} is champion already: there is nothing to do")
        return asked
    found = _newest_standing(spec, settings, line, without=current)
    if found is not None:
        return found
    left = [
        n for n in crowned if n != current and _newest_standing(spec, settings, entries, only=n)
    ]
    by_name = f"name one of {left} that was taken out of the line, " if left else ""
    who = "there is no champion, and none before it is"
    if current is not None:
        who = f"version {current} is the only champion so far that is"
    raise RegistryError(
        f"{spec.model}: {who} in MLflow and not quarantined: there is nothing to return to. Do: "
        f"{by_name}restore MLflow from a backup, or "
        f"{spec.model}__retrain with force"
    )


def _newest_standing(
    spec: ModelSpec,
    settings: Settings,
    line: Sequence[ledger.Entry],
    *,
    without: int | None = None,
    only: int | None = None,
) -> int | None:
    """Give the newest version of a line that is still in the registry, and may come back."""
    return next(
        (
            one.version
            for one in reversed(line)
            if one.version != without
            and only in {None, one.version}
            and not identity.loss(spec, settings, one)
            and not quarantine_reason(spec, settings, one.version)
        ),
        None,
    )


def quarantine_reason(spec: ModelSpec, settings: Settings, number: int) -> str:
    """Give why a version must not come back: what its tag says; empty if it may."""
    return versions.version(spec, settings, number).tags.get(versions.QUARANTINE_TAG, "")


def refuse_unusable(
    spec: ModelSpec,
    settings: Settings,
    number: int,
    *,
    why_not: Callable[[LearnedFeatures | None], str] = lambda _: "",
) -> None:
    """Refuse a version that could not do a champion's work now.

    Raises
    ------
    RegistryError
        It is quarantined, or rows cannot be given the features it learned from any more.
    ScoringError
        Its artifact cannot be loaded, or nothing says what it learned from.
    """
    if why := quarantine_reason(spec, settings, number):
        raise RegistryError(
            f"{spec.model} version {number} is quarantined: {why}. Name another version, or remove "
            f"its tag {versions.QUARANTINE_TAG} in MLflow"
        )
    found = versions.version(spec, settings, number)
    if gone := why_not(versions.learned_features(spec, settings, found)):
        raise RegistryError(
            f"{spec.model} version {number} learned from other features than the model file has, "
            f"and rows cannot be given them: {gone}. Put that back, or name another version"
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
        raise ChampionChanged(
            f"{spec.model}: the {action} to version {done.version} is done (ledger entry "
            f"{done.sequence}), and entry {last.sequence} made version {last.version} champion "
            "since; nothing was changed"
        )
    started = ledger.intended(storage, spec.model, incident_id, action)
    if started is not None and last.sequence > started.after:
        raise ChampionChanged(
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


def _identified(spec: ModelSpec, settings: Settings, draft: ledger.Entry) -> ledger.Entry:
    """Say in an entry which version its number means; RegistryError if there is none."""
    found = versions.version(spec, settings, draft.version)
    return draft.model_copy(
        update={"version_incident": found.incident_id, "version_sha256": found.model_sha256}
    )


def _enter(
    spec: ModelSpec, settings: Settings, draft: ledger.Entry, *, after: ledger.Entry | None
) -> ledger.Entry:
    """Make an entry right after the one that was last when it was decided."""
    storage = Storage.of(settings)
    # first of all: where MLflow takes nothing, nothing is entered
    server.set_tags(spec, settings, draft.version, {APPROVER_TAG: draft.actor})
    draft = _identified(spec, settings, draft)
    entry = ledger.append(storage, draft, after=after.sequence if after else 0)
    if entry is None:  # another one came in between: the intent that was kept says so from now on
        _refuse_if_superseded(spec, storage, draft.incident_id, draft.action)
        raise _another_came(spec, ledger.last(storage, spec.model))
    return entry


def _another_came(spec: ModelSpec, last: ledger.Entry | None) -> ChampionChanged:
    which = f" (ledger entry {last.sequence}, version {last.version})" if last else ""
    return ChampionChanged(
        f"{spec.model}: another champion came while this step looked{which}; nothing was changed, "
        "look and run it again"
    )


def _follow(spec: ModelSpec, settings: Settings, entry: ledger.Entry) -> None:
    """Move aliases and stages to where the ledger has them, once an entry is in it.

    Raises
    ------
    ChampionLost
        The champion is not in the registry, or its number is another model's: nothing was moved.
    """
    storage = Storage.of(settings)
    ledger.append(storage, entry)  # whose maker may have died before it noted where it is
    while True:
        entries = ledger.read(storage, spec.model)
        line = ledger.reign(entries)
        champion, before = line[-1], _standing_before(spec, settings, line)
        if identity.loss(spec, settings, champion):
            raise ChampionLost(no_champion(spec, settings, champion))
        replaced = [one for one in entries[:-1] if one.version == champion.previous_version]
        is_there = replaced and not identity.loss(spec, settings, replaced[-1])
        _crown(
            spec,
            settings,
            version=champion.version,
            previous=before,
            retired=champion.previous_version if is_there else None,
        )
        if ledger.last(storage, spec.model) == champion:
            anchor.anchor(spec, settings, champion)
            ledger.mark(storage, champion, "followed")
            return


def _standing_before(spec: ModelSpec, settings: Settings, line: list[ledger.Entry]) -> int | None:
    """Give the champion before the last one of a line that is still in the registry."""
    return next(
        (
            one.version
            for one in reversed(line[:-1])
            if one.version != line[-1].version and not identity.loss(spec, settings, one)
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
    if retired is not None and retired != version:
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
        ledger_hash=entry.hash,
    )
