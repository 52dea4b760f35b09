"""The retrains of a model in the order they were claimed in: an append-only, numbered list.

A claim is one object, created only if its number is free. So whoever claims has seen every claim
before its own, and of many at once exactly those are let through that one after the other would be.
Beside each claim lies an empty object whose name says its batch and its incident: one listing
tells what there is. A claim whose retrain trained nothing is released, and counts no more.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from include.retraining import shelf
from include.retraining.errors import RetrainingError
from include.retraining.records import RetrainClaim, RetrainRequest
from include.retraining.storage import Storage, json_bytes

MAX_ATTEMPTS = 200


class Claimed(NamedTuple):
    """A retrain that was claimed: the end of its batch, its number, its incident."""

    end: dt.datetime
    number: int
    incident_id: str


def claimed(storage: Storage, model: str) -> list[Claimed]:
    """Give the retrains that were claimed and not released, by the end of their batches.

    Takes a request for a thousand retrains.
    """
    return _look(storage, model)[0]


def find(storage: Storage, model: str, incident_id: str) -> RetrainClaim | None:
    """Give the claim of an incident, unless it was released."""
    number = _number(_look(storage, model)[0], incident_id)
    return _read(storage, model, number) if number else None


def take(
    storage: Storage, claim: RetrainClaim, *, check: Callable[[Sequence[Claimed]], None]
) -> RetrainClaim:
    """Claim an incident, unless somebody has; give the claim that stands.

    Parameters
    ----------
    check : callable
        Raises if the retrain may not happen after those that were claimed. Called with all of
        them, and again if another claim came in between.

    Raises
    ------
    RetrainingError
        Other writers were always first, or the store lets two of them be.
    """
    storage.require_one_winner()
    model, incident_id = claim.request.batch.model, claim.request.incident_id
    for attempt in range(MAX_ATTEMPTS):
        standing, last = _look(storage, model)
        number = _number(standing, incident_id)
        if number is not None:  # somebody's, or our own from before we were killed
            claim = _read(storage, model, number)
        else:
            check(standing)
            number = last + 1
            if not storage.create(shelf.claim_key(model, number), json_bytes(claim)):
                time.sleep(0.01 * min(attempt, 20))
                continue
        name = shelf.claimed_key(model, number, claim.request.batch.end, incident_id)
        storage.create(name, json_bytes({}))
        shelf.keep(storage, claim)
        return claim
    raise RetrainingError(
        f"{model}: {MAX_ATTEMPTS} attempts to claim a retrain lost to other writers; run again"
    )


def release(storage: Storage, request: RetrainRequest, *, run_id: str) -> None:
    """Say that a run's claimed retrain trained nothing: it holds back no other."""
    model = request.batch.model
    number = _number(_look(storage, model)[0], request.incident_id)
    if number is not None and _read(storage, model, number).run_id == run_id:
        storage.create(shelf.released_key(model, number), json_bytes({}))


def renew(storage: Storage, request: RetrainRequest, *, run_id: str) -> RetrainClaim:
    """Claim an incident again that was released, whatever was claimed since: its run goes on.

    Gives the claim that stands; it is another run's if that one was first.
    """
    return take(storage, RetrainClaim(run_id=run_id, request=request), check=lambda _: None)


def _look(storage: Storage, model: str) -> tuple[list[Claimed], int]:
    """Give the claims that stand, by the end of their batches, and the number of the last one."""
    numbers, named, released = shelf.claims_in(storage, model)
    for number in numbers - named.keys():  # of a writer that was killed, or is not done yet
        request = _read(storage, model, number).request
        named[number] = (request.batch.end, request.incident_id)
    standing = [
        Claimed(end, number, incident_id)
        for number, (end, incident_id) in named.items()
        if number not in released
    ]
    return sorted(standing), max(numbers, default=0)


def _number(standing: Sequence[Claimed], incident_id: str) -> int | None:
    return next((one.number for one in standing if one.incident_id == incident_id), None)


def _read(storage: Storage, model: str, number: int) -> RetrainClaim:
    return RetrainClaim.model_validate_json(storage.read(shelf.claim_key(model, number)))
