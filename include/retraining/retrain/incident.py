"""Makes a `RetrainRequest`: may a retrain happen now, and only one for the same cause.

An incident is claimed by creating its request object, which only one run can do. A run that is
cleared and run again finds its own claim and goes on with it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence

from include.retraining import names, shelf
from include.retraining.errors import RetrainingError
from include.retraining.records import BatchRef, RetrainClaim, RetrainRequest, TrainingSet, Trigger
from include.retraining.registry import versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, json_bytes

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
    request = _asked_before(spec, storage, run_id) or _request(
        spec, settings, batch=batch, trigger=trigger, reason=reason, run_id=run_id, force=force
    )
    # before the claim: a run killed right after it finds the claim by this
    storage.write_json(shelf.run_key(spec.model, run_id), request)
    mine = RetrainClaim(run_id=run_id, request=request)
    claim = shelf.find(storage, RetrainClaim, spec.model, request.incident_id)
    if claim is None:
        if at is not None:
            if not force:
                _refuse_storm(storage, settings.max_retrains_per_hour, at)
            key = shelf.hour_key(at, spec.model, request.incident_id)
            storage.write_json(key, {"at": at.isoformat()})
        claim = shelf.keep_first(storage, mine)
    if claim.run_id != run_id:
        raise NotDue(
            f"incident {request.incident_id} is handled by run {claim.run_id}; use force for one "
            "more"
        )
    key = shelf.claimed_key(spec.model, claim.request.batch.end, request.incident_id)
    storage.create(key, json_bytes(claim))
    return claim.request


def _asked_before(spec: ModelSpec, storage: Storage, run_id: str) -> RetrainRequest | None:
    """Give what this very run asked for before it was cleared, if it did."""
    found = storage.read_record(shelf.run_key(spec.model, run_id), RetrainRequest)
    if found is None:
        return None
    claim = shelf.find(storage, RetrainClaim, spec.model, found.incident_id)
    return found if claim is not None and claim.run_id == run_id else None


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
    cause = f"{trigger}-{hashlib.sha256(run_id.encode()).hexdigest()[:6]}" if force else trigger
    incident_id = names.incident_id(spec.model, cause, batch.partition, number)
    if trigger == "monitor":
        # judged against the champion of that moment; it may have changed since
        incident_id = run_id
    elif not force and (hold := hold_reason(spec, Storage.of(settings), batch)):
        raise NotDue(hold)
    return RetrainRequest(
        incident_id=incident_id,
        batch=batch,
        trigger=trigger,
        reason=reason,
        champion_version=number,
        force=force,
    )


def _refuse_storm(storage: Storage, limit: int, at: dt.datetime) -> None:
    """Stop where all models together were retrained `limit` times within the hour before `at`."""
    hour = dt.timedelta(hours=1)
    keys = [key for moment in (at - hour, at) for key in storage.list(shelf.hour_folder(moment))]
    times = (dt.datetime.fromisoformat(storage.read_json(key)["at"]) for key in keys)
    recent = sum(at - hour < moment <= at for moment in times)
    if recent >= limit:
        raise Storm(
            f"{recent} retrains of all models within an hour, RETRAINING_MAX_RETRAINS_PER_HOUR is "
            f"{limit}: one cause, such as a broken feed, is likelier than drift. Look at "
            "what the models share; then clear this task, or retrain by hand with force"
        )


def hold_reason(spec: ModelSpec, storage: Storage, batch: BatchRef) -> str | None:
    """Say why a retrain about this batch has to wait, in data time; None if it need not."""
    reach = max(spec.retrain.cool_down_days, BUDGET_DAYS)
    since = batch.end - dt.timedelta(days=reach)
    return hold_after(spec, [end for end, _ in claimed(spec, storage, since, batch.end)], batch)


def hold_after(spec: ModelSpec, ends: Sequence[dt.datetime], batch: BatchRef) -> str | None:
    """Say why a retrain has to wait after those about the batches with these ends."""
    earlier = [end for end in ends if end <= batch.end]
    if not earlier:
        return None
    cool_down = dt.timedelta(days=spec.retrain.cool_down_days)
    if batch.end - max(earlier) < cool_down:
        until = max(earlier) + cool_down
        return (
            f"cooling down until {until:%Y-%m-%d}: the last retrain was about the batch ending "
            f"{max(earlier):%Y-%m-%d}"
        )
    recent = [end for end in earlier if batch.end - end < dt.timedelta(days=BUDGET_DAYS)]
    if len(recent) >= spec.retrain.max_per_30_days:
        return (
            f"budget spent: {len(recent)} retrains in 30 days, "
            f"allowed are {spec.retrain.max_per_30_days}"
        )
    return None


def claimed(
    spec: ModelSpec, storage: Storage, since: dt.datetime, until: dt.datetime
) -> list[tuple[dt.datetime, str]]:
    """Give the retrains about batches that ended in ``[since, until]``: end and incident, by end.

    Takes a request a year, however many retrains there were before.
    """
    folders = [
        shelf.claimed_folder(spec.model, year)
        for year in range(max(since.year, spec.partitions.first.year), until.year + 1)
    ]
    found = (shelf.claimed_at(key) for folder in folders for key in storage.list(folder))
    return sorted(one for one in found if since <= one[0] <= until)


def last_training(spec: ModelSpec, storage: Storage, batch: BatchRef) -> TrainingSet | None:
    """Give what the newest retrain up to a batch learned from, promoted or not.

    One that has not come to a training set is passed over.
    """
    for year in range(batch.end.year, spec.partitions.first.year - 1, -1):
        start = dt.datetime(year, 1, 1, tzinfo=dt.UTC)
        until = min(batch.end, start.replace(year=year + 1) - dt.timedelta(hours=1))
        for _, incident_id in reversed(claimed(spec, storage, start, until)):
            found = shelf.find(storage, TrainingSet, spec.model, incident_id)
            if found is not None:
                return found
    return None


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
