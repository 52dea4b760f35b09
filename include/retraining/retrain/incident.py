"""Makes a `RetrainRequest`: may a retrain happen now, and only one for the same cause.

An incident is claimed by creating its request object, which only one run can do. A run that is
cleared and run again finds its own claim and goes on with it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from include.retraining import names
from include.retraining.errors import RetrainingError
from include.retraining.records import BatchRef, GateDecision, Record, RetrainRequest, Trigger
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, json_bytes

if TYPE_CHECKING:
    from include.retraining.registry.succession import Version

BUDGET_DAYS = 30


class NotDue(RetrainingError):
    """There is nothing to retrain now, and that is in order."""


class Storm(RetrainingError):
    """So many retrains at once that one cause, such as a broken feed, is likelier than drift."""


class Claim(Record):
    """Which run handles an incident."""

    run_id: str
    request: RetrainRequest


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
    from include.retraining.registry import succession as registry

    storage = Storage.of(settings)
    claimed = storage.read_record(_run_key(spec.model, run_id), RetrainRequest)
    if claimed is None:  # a run killed right after its claim finds it by its name
        own = (claim for claim in claims(spec, storage) if claim.run_id == run_id)
        claimed = next((claim.request for claim in own), None)
    if claimed is not None:
        return claimed
    champion = registry.champion(spec, settings)
    number = champion.number if champion else None
    if trigger == "schedule":
        _require_old(spec, champion, batch)
    cause = f"{trigger}-{hashlib.sha256(run_id.encode()).hexdigest()[:6]}" if force else trigger
    incident_id = names.incident_id(spec.model, cause, batch.partition, number)
    if trigger == "monitor":
        incident_id = (
            run_id  # judged against the champion of that moment; it may have changed since
        )
    elif not force and (hold := hold_reason(spec, storage, batch)):
        raise NotDue(hold)
    request = RetrainRequest(
        incident_id=incident_id,
        batch=batch,
        trigger=trigger,
        reason=reason,
        champion_version=number,
        force=force,
    )
    key = f"{names.incident_key(spec.model, incident_id)}/request.json"
    if at is not None:
        if not force:
            _refuse_storm(storage, settings.max_retrains_per_hour, at)
        storage.write_json(_hour_key(at, spec.model, incident_id), {"at": at.isoformat()})
    storage.create(key, json_bytes(Claim(run_id=run_id, request=request)))
    claim = Claim.model_validate_json(storage.read(key))
    if claim.run_id != run_id:
        raise NotDue(
            f"incident {incident_id} is handled by run {claim.run_id}; use force for one more"
        )
    storage.write_json(_run_key(spec.model, run_id), claim.request)
    return claim.request


def _refuse_storm(storage: Storage, limit: int, at: dt.datetime) -> None:
    """Stop where all models together were retrained `limit` times within the hour before `at`."""
    hour = dt.timedelta(hours=1)
    keys = [key for moment in (at - hour, at) for key in storage.list(_hour_folder(moment))]
    times = (dt.datetime.fromisoformat(storage.read_json(key)["at"]) for key in keys)
    recent = sum(at - hour < moment <= at for moment in times)
    if recent >= limit:
        raise Storm(
            f"{recent} retrains of all models within an hour, RETRAINING_MAX_RETRAINS_PER_HOUR is "
            f"{limit}: one cause, such as a broken feed, is likelier than drift. Look at "
            "what the models share; then clear this task, or retrain by hand with force"
        )


def _hour_folder(at: dt.datetime) -> str:
    return f"_retrains/hour={at.astimezone(dt.UTC):%Y-%m-%dT%H}"


def _hour_key(at: dt.datetime, model: str, incident_id: str) -> str:
    return f"{_hour_folder(at)}/{model}--{incident_id}.json"


def hold_reason(spec: ModelSpec, storage: Storage, batch: BatchRef) -> str | None:
    """Say why a retrain about this batch has to wait, in data time; None if it need not."""
    return hold_after(spec, [claim.request.batch.end for claim in claims(spec, storage)], batch)


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


def claims(spec: ModelSpec, storage: Storage) -> list[Claim]:
    """Give all retrains ever claimed, by batch."""
    keys = storage.list(names.storage_key(spec.model, "retrain"))
    found = [
        Claim.model_validate_json(storage.read(key))
        for key in keys
        if key.endswith("/request.json")
    ]
    return sorted(found, key=lambda claim: claim.request.batch.end)


def decision(spec: ModelSpec, storage: Storage, incident_id: str) -> GateDecision | None:
    """Give what the gate said of an incident, or None while it has not."""
    return storage.read_record(
        f"{names.incident_key(spec.model, incident_id)}/gate.json", GateDecision
    )


def _require_old(spec: ModelSpec, champion: Version | None, batch: BatchRef) -> None:
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


def _run_key(model: str, run_id: str) -> str:
    run = hashlib.sha256(run_id.encode()).hexdigest()[:16]
    return f"{names.storage_key(model, 'retrain')}/runs/{run}.json"
