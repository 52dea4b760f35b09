"""Makes a `Rehearsed` of each landed batch: the whole pipeline in one process, without Airflow.

The functions are those of the DAGs, in their order, in a home of its own: nothing is written where
models live. Batches are taken one after the other, in the order of their ends, as a backfill gives
them too. A person who would be asked says yes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-not-found,import-untyped,unused-ignore]

from include.retraining.data import publication, validation
from include.retraining.data.delivery import awaited_keys, input_paths
from include.retraining.data.outcomes import outcomes_of, with_outcomes
from include.retraining.errors import RetrainingError
from include.retraining.features import feature_sets, own_features, skew
from include.retraining.learning import metrics
from include.retraining.learning.rows import labels
from include.retraining.monitor import measuring
from include.retraining.records import (
    BatchRef,
    DriftReport,
    GateDecision,
    Promotion,
    SkewReport,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import guard, succession, versions
from include.retraining.retrain import candidate, gate, incident
from include.retraining.retrain.training_set import build_training_set
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

ACTOR = "rehearsal"
_PLACE = "PARTITION"


class Rehearsed(NamedTuple):
    """What came of one batch; None where it did not come so far."""

    batch: BatchRef
    seconds: float
    validation: ValidationReport
    skew: SkewReport | None = None
    report: DriftReport | None = None
    verdict: Verdict | None = None
    decision: GateDecision | None = None
    promotion: Promotion | None = None
    trouble: str = ""


class _Landed(NamedTuple):
    source: ModelSpec  # the model itself, or its outcomes
    batch: BatchRef


def landed_batches(spec: ModelSpec, storage: Storage) -> list[BatchRef]:
    """Give all batches whose files are there, oldest first.

    Raises
    ------
    RetrainingError
        The batches are the results of queries, which do not land by themselves.
    """
    if spec.source.queries:
        raise RetrainingError(
            f"{spec.model}: its batches are results of queries, which only a run of "
            f"{spec.model}__ingest makes; a rehearsal needs files that have landed"
        )
    complete: set[str] | None = None
    for key in awaited_keys(spec, _PLACE):
        pattern = re.compile(re.escape(key).replace(_PLACE, "([^/]+)"))
        folder = key.split(_PLACE)[0].rpartition("/")[0]
        found = {match[1] for name in storage.list(folder) if (match := pattern.fullmatch(name))}
        complete = found if complete is None else complete & found
    batches = []
    for name in sorted(complete or ()):
        try:
            batches.append(spec.batch_ref(name))
        except RetrainingError:  # a file beside them
            continue
    first, last = spec.partitions.first, spec.partitions.last
    inside = [one for one in batches if one.start >= first and (last is None or one.start <= last)]
    return sorted(inside, key=lambda one: one.start)


def rehearse(
    spec: ModelSpec, landing: Storage, settings: Settings, batches: Iterable[BatchRef]
) -> Iterator[Rehearsed]:
    """Take landed batches through the pipeline, one after the other; give what came of each.

    A batch comes twice where it was judged again, because its outcomes have come; what was given
    last is what holds.

    Parameters
    ----------
    landing : Storage
        Where the files are; only read.
    settings : Settings
        Of the empty home in which all of it happens.
    batches : iterable of BatchRef
        As `landed_batches` gives them. Outcomes that come apart from the rows are taken in between,
        by the end of their window.
    """
    storage = Storage.of(settings)
    done: dict[str, Rehearsed] = {}
    for source, batch in _in_order(spec, landing, batches):
        _land(source, landing, storage, batch)
        if source is spec:
            done[batch.partition] = _timed(spec, settings, _validated(spec, storage, batch))
            yield done[batch.partition]
            continue
        outcomes = _validated(source, storage, batch)
        if outcomes.validation.status == "refused":
            yield outcomes
            continue
        publication.publish_batch(source, storage, outcomes.validation)
        for waiting in measuring.waiting_batches(spec, storage, since=batch.start):
            before = done[waiting.partition]
            done[waiting.partition] = _timed(spec, settings, before)
            yield done[waiting.partition]


def _in_order(spec: ModelSpec, landing: Storage, batches: Iterable[BatchRef]) -> Iterator[_Landed]:
    found = [_Landed(spec, one) for one in batches]
    until = max((one.batch.end for one in found), default=None)
    if spec.outcomes and until:
        feed = spec.outcomes
        since = found[0].batch.start
        found += [
            _Landed(feed, one)
            for one in landed_batches(feed, landing)
            if since < one.end and one.start < until
        ]
    # rows before the outcomes that end with them: first a row is there, then what became of it
    return iter(sorted(found, key=lambda one: (one.batch.end, one.source is not spec)))


def _land(source: ModelSpec, landing: Storage, storage: Storage, batch: BatchRef) -> None:
    """Copy a batch's files into the home of the rehearsal."""
    keys = set(awaited_keys(source, batch.partition))
    for path in input_paths(source, batch.partition).values():
        folder = path.rpartition("/")[0]
        keys |= set(landing.list(folder)) if "*" in path else {path}
    for key in keys:
        storage.write(key, landing.read(key))


def _validated(spec: ModelSpec, storage: Storage, batch: BatchRef) -> Rehearsed:
    started = time.monotonic()
    report = validation.validate_batch(spec, storage, batch)
    return Rehearsed(batch, time.monotonic() - started, report)


def _timed(spec: ModelSpec, settings: Settings, found: Rehearsed) -> Rehearsed:
    """Take a validated batch on, as far as it comes."""
    if found.validation.status == "refused":
        return found
    started = time.monotonic()
    found = found._replace(trouble="")
    for step in (_join, _verdict, _follow):
        try:
            with threadpool_limits(1):  # as a task has: sums in another order are another model
                found = step(spec, settings, found)
        except RetrainingError as error:
            found = found._replace(trouble=str(error))
            break
    return found._replace(seconds=found.seconds + time.monotonic() - started)


def _join(spec: ModelSpec, settings: Settings, found: Rehearsed) -> Rehearsed:
    if found.skew is not None:
        return found
    publication.publish_batch(spec, Storage.of(settings), found.validation)
    feature_sets.materialize(spec, settings, found.batch)
    feature_sets.refresh_later(spec, settings, found.batch)
    return found._replace(skew=skew.check_skew(spec, settings, found.batch))


def _verdict(spec: ModelSpec, settings: Settings, found: Rehearsed) -> Rehearsed:
    drift, verdict = judge(spec, settings, found.batch)
    return found._replace(report=drift, verdict=verdict)


def _follow(spec: ModelSpec, settings: Settings, found: Rehearsed) -> Rehearsed:
    """Do what the verdict asks for."""
    verdict = found.verdict
    if verdict is not None and verdict.outcome == "retrain":
        decision, promotion = retrain(spec, settings, verdict, actor=ACTOR)
        return found._replace(decision=decision, promotion=promotion)
    if verdict is None or verdict.outcome != "rollback":
        return found
    if spec.guard_mode not in {"rollback", "ask"}:
        return found
    back = guard.roll_back(spec, settings, verdict, actor=ACTOR, at=found.batch.end)
    return found._replace(promotion=back)


def judge(spec: ModelSpec, settings: Settings, batch: BatchRef) -> tuple[DriftReport, Verdict]:
    """Measure and judge a batch, as the monitor does."""
    storage = Storage.of(settings)
    learned = incident.last_training(spec, storage, batch)
    drift = measuring.measure_drift(spec, settings, batch, learned=learned)
    hold = partial(incident.hold_reason, spec, storage, batch)
    return drift, measuring.judge_batch(spec, settings, drift, hold=hold)


def retrain(
    spec: ModelSpec, settings: Settings, verdict: Verdict, *, actor: str
) -> tuple[GateDecision, Promotion | None]:
    """Train, duel, and promote what wins, as the retrain does where a person says yes."""
    batch = verdict.batch
    request = incident.open_incident(
        spec, settings, batch=batch, trigger="monitor", reason="; ".join(verdict.reasons),
        run_id=verdict.incident_id,
    )  # fmt: skip
    training_set = build_training_set(spec, settings, request)
    trained = candidate.train_candidate(spec, settings, request, training_set)
    decision = gate.decide(spec, settings, request, trained)
    if not decision.passed or spec.retrain.autonomy == 1:
        return decision, None
    return decision, succession.promote(spec, settings, decision, actor=actor, at=batch.end)


def value_of(
    spec: ModelSpec, settings: Settings, batch: BatchRef, version: int | None
) -> float | None:
    """Give the metric of a version on a batch, with all labels that are there by now.

    None without a version, or where the labels cannot carry the metric.
    """
    if version is None:
        return None
    storage = Storage.of(settings)
    rows = feature_sets.rows_of(spec, storage, feature_sets.feature_set(spec, storage, batch))
    outcomes = outcomes_of(spec, storage)
    until = outcomes.until if outcomes else batch.end
    rows = with_outcomes(spec, outcomes, rows, known_at=max(until, batch.end))
    known = labels(spec, rows)
    labelled = ~np.isnan(known)
    if not labelled.any():
        return None
    made = versions.version(spec, settings, version)
    learned = versions.learned_features(spec, settings, made)
    own, rows = own_features.rows_for(spec, settings, learned, rows, version=version)
    scores = versions.score(own, settings, made, rows)
    found = metrics.value(spec.gate.metric, known[labelled], scores[labelled])
    return found if np.isfinite(found) else None
