"""Makes a `RetrainRequest`: may a retrain happen now, and only one for the same cause.

Whether it may is asked under the claim, whatever asks for it: of two runs at once, the second sees
the first. A run that is cleared and run again finds its own claim and goes on with it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence

from include.retraining import names, shelf
from include.retraining.errors import RetrainingError
from include.retraining.learning.rows import split_times
from include.retraining.records import BatchRef, RetrainClaim, RetrainRequest, TrainingSet, Trigger
from include.retraining.registry import versions
from include.retraining.retrain import claims
from include.retraining.retrain.claims import Claimed
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, at_once, json_bytes

BUDGET_DAYS = 30


class NotDue(RetrainingError):
    """There is nothing to retrain now, and that is in order."""


class Storm(RetrainingError):
    """So many retrains at once that one cause, such as a broken feed, is likelier than drift."""


def open_incident(
    spec: ModelSpec,
    settings: Settings,
    *,
    batch: BatchRef,
    trigger: Trigger,
    reason: str,
    run_id: str,
    force: bool = False,
    at: dt.datetime | None = None,
) -> RetrainRequest:
    """Claim the retrain that a run is about.

    Parameters
    ----------
    spec, settings : ModelSpec, Settings
        The model, and where everything is.
    batch : BatchRef
        The newest batch the retrain may read.
    trigger, reason : str
        What asked for it, and why.
    run_id : str
        Of the DAG run; the same run gets the same request again. The monitor's runs are named after
        the incident.
    force : bool
        Neither cool-down nor budget nor an earlier retrain of the same cause holds it back, nor a
        storm.
    at : datetime, optional
        The moment, for the storm breaker; without, there is none.

    Raises
    ------
    NotDue
        The model is young enough, cooling down, over its budget, or the incident is another run's.
    Storm
        All models together were retrained too often within the last hour.
    """
    storage = Storage.of(settings)
    asked = _asked_before(spec, storage, run_id)
    if asked is not None:
        return asked
    request = _request(
        spec, settings, batch=batch, trigger=trigger, reason=reason, run_id=run_id, force=force
    )
    # before the claim: a run killed right after it finds the claim by this
    storage.write_json(shelf.run_key(spec.model, run_id), request)

    counted: list[str | None] = []

    def check(standing: Sequence[Claimed]) -> None:
        if not force and (hold := hold_after(spec, [one.end for one in standing], batch)):
            raise NotDue(hold)
        if at is not None and not counted:
            limit = None if force else settings.max_retrains_per_hour
            counted.append(_count(storage, request, at, limit=limit))

    claim = None
    try:
        claim = claims.take(storage, RetrainClaim(run_id=run_id, request=request), check=check)
        require_own(claim, run_id)
    finally:
        if claim is None:  # it was counted, and came to nothing
            for key in filter(None, counted):
                storage.delete(key)
    return claim.request


def require_own(claim: RetrainClaim, run_id: str) -> None:
    """Refuse an incident that another run has claimed; raises NotDue."""
    if claim.run_id != run_id:
        raise NotDue(
            f"incident {claim.request.incident_id} is handled by run {claim.run_id}; use force for "
            "one more"
        )


def _asked_before(spec: ModelSpec, storage: Storage, run_id: str) -> RetrainRequest | None:
    """Give what this very run asked for before it was cleared, if it did."""
    found = storage.read_record(shelf.run_key(spec.model, run_id), RetrainRequest)
    if found is None:
        return None
    claim = claims.find(storage, spec.model, found.incident_id)
    if claim is None or claim.run_id != run_id:
        return None
    claims.renew(storage, found, run_id=run_id)  # what a killed attempt has not come to
    return found


def _request(
    spec: ModelSpec,
    settings: Settings,
    *,
    batch: BatchRef,
    trigger: Trigger,
    reason: str,
    run_id: str,
    force: bool,
) -> RetrainRequest:
    """Say what a run asks for, unless there is nothing to ask for now."""
    champion = versions.champion(spec, settings)
    number = champion.number if champion else None
    if trigger == "schedule":
        _require_old(spec, champion, batch)
    if not force:
        _require_newer(spec, champion, batch)
    cause = f"{trigger}-{hashlib.sha256(run_id.encode()).hexdigest()[:6]}" if force else trigger
    incident_id = names.incident_id(spec.model, cause, batch.partition, number)
    if trigger == "monitor":
        # judged against the champion of that moment; it may have changed since
        incident_id = run_id
    return RetrainRequest(
        incident_id=incident_id,
        batch=batch,
        trigger=trigger,
        reason=reason,
        champion_version=number,
        force=force,
    )


def _count(
    storage: Storage, request: RetrainRequest, at: dt.datetime, *, limit: int | None
) -> str | None:
    """Enter a retrain in the list of all models, by the order they came in; give its key.

    Those that one model's monitor asks for count once an hour, and give None from the second on:
    in data time they have limits of their own, and a backfill of a year is no storm.

    Raises
    ------
    Storm
        `limit` others came since an hour before `at`.
    """
    hour, model = dt.timedelta(hours=1), request.batch.model
    mine = f"{model}--{request.incident_id}"
    monitored = f"{model}--by its monitor" if request.trigger == "monitor" else None
    for _ in range(claims.MAX_ATTEMPTS):
        today = keys = storage.list(shelf.day_folder(at))
        if shelf.day_folder(at - hour) != shelf.day_folder(at):
            keys = storage.list(shelf.day_folder(at - hour)) + today
        newest = keys[-(limit or 1) * 2 :]
        found = at_once(storage.read_json, newest)
        for key, one in zip(newest, found, strict=True):
            if one["retrain"] == mine:
                return key
        # those with a later moment, too: clocks differ, and it is the order that counts
        recent = [one for one in found if dt.datetime.fromisoformat(one["at"]) > at - hour]
        if monitored and any(one.get("counts_as") == monitored for one in recent):
            return None
        if limit is not None and len(recent) >= limit:
            raise Storm(
                f"{len(recent)} retrains of all models within an hour, "
                f"RETRAINING_MAX_RETRAINS_PER_HOUR is {limit}: one cause, such as a broken feed, "
                "is likelier than drift. Look at what the models share; then clear this task, or "
                "retrain by hand with force"
            )
        key = shelf.day_key(at, shelf.number_of(today[-1]) + 1 if today else 1)
        content = {"at": at.isoformat(), "retrain": mine, "counts_as": monitored or mine}
        if storage.create(key, json_bytes(content)):
            return key
    raise Storm("the list of retrains is written to by too many at once; clear this task")


def hold_reason(spec: ModelSpec, storage: Storage, batch: BatchRef) -> str | None:
    """Say why a retrain about this batch has to wait, in data time; None if it need not."""
    ends = [one.end for one in claims.claimed(storage, spec.model)]
    return hold_after(spec, ends, batch)


def hold_after(spec: ModelSpec, ends: Sequence[dt.datetime], batch: BatchRef) -> str | None:
    """Say why a retrain has to wait beside those about the batches with these ends.

    Later ones count as earlier ones do: what is held does not depend on which came first.
    """
    cool_down = dt.timedelta(days=spec.retrain.cool_down_days)
    near = [end for end in ends if abs(end - batch.end) < cool_down]
    if earlier := [end for end in near if end <= batch.end]:
        return (
            f"cooling down until {max(earlier) + cool_down:%Y-%m-%d}: the last retrain was about "
            f"the batch ending {max(earlier):%Y-%m-%d}"
        )
    if near:
        return (
            f"cooling down: a retrain was about the batch ending {min(near):%Y-%m-%d}, less than "
            f"{spec.retrain.cool_down_days:g} days later"
        )
    spent = _most_in_budget_days(ends, batch.end)
    if spent >= spec.retrain.max_per_30_days:
        return (
            f"budget spent: {spent} retrains in {BUDGET_DAYS} days, "
            f"allowed are {spec.retrain.max_per_30_days}"
        )
    return None


def _most_in_budget_days(ends: Sequence[dt.datetime], end: dt.datetime) -> int:
    """Give the most retrains that any 30 days with this moment in them have had."""
    span = dt.timedelta(days=BUDGET_DAYS)
    near = [one for one in ends if abs(one - end) < span]
    return max(
        (
            sum(last - span < one <= last for one in near)
            for last in {*near, end}
            if end <= last < end + span
        ),
        default=0,
    )


def last_training(spec: ModelSpec, storage: Storage, batch: BatchRef) -> TrainingSet | None:
    """Give what the newest retrain up to a batch learned from, promoted or not.

    One that has not come to a training set is passed over.
    """
    for end, _, incident_id in reversed(claims.claimed(storage, spec.model)):
        if end <= batch.end:
            found = shelf.find(storage, TrainingSet, spec.model, incident_id)
            if found is not None:
                return found
    return None


def _require_newer(spec: ModelSpec, champion: versions.Version | None, batch: BatchRef) -> None:
    """Refuse a batch that nothing could be learned from which the champion has not learned.

    `trained_until` is when its duel began; its labels were mature by then, as those of a retrain
    about the batch will be by the beginning of its own duel.
    """
    if champion is None or champion.trained_until is None:
        return
    until = split_times(spec, batch)[0]
    if until <= champion.trained_until:
        raise NotDue(
            f"version {champion.number} learned from all labels that were mature on "
            f"{champion.trained_until:%Y-%m-%d}; a retrain about {batch.partition} would learn "
            f"from those of {until:%Y-%m-%d} only. Retrain by hand with force if that is meant"
        )


def _require_old(spec: ModelSpec, champion: versions.Version | None, batch: BatchRef) -> None:
    limit = spec.retrain.max_age_days
    if limit is None:
        raise NotDue("retrain.max_age_days is not set: age alone asks for no retrain")
    if champion is None or champion.trained_until is None:
        raise NotDue("no model is in production yet: the monitor asks for the first one")
    age = (batch.end - champion.trained_until) / dt.timedelta(days=1)
    if age <= limit:
        raise NotDue(
            f"version {champion.number} is {age:.0f} days old, retrain.max_age_days is {limit:g}"
        )
