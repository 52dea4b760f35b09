"""One model's batches taken through the pipeline in one process, in the order of its tasks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from include.retraining.data import publication, retention, validation
from include.retraining.features import feature_sets, skew
from include.retraining.features.definitions import table_names
from include.retraining.monitor import measuring
from include.retraining.records import BatchRef, GateDecision, Verdict
from include.retraining.registry import succession
from include.retraining.retrain import candidate, gate, incident
from include.retraining.retrain.training_set import build_training_set, pinned_versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling import drift_report, model_card, validation_page


class Step(NamedTuple):
    """What came of one batch."""

    verdict: Verdict
    decision: GateDecision | None


def take(spec: ModelSpec, settings: Settings, batch: BatchRef, suites: Path) -> Step:
    """Take a landed batch from validation to its verdict, and a retrain where it asks for one."""
    storage = Storage.of(settings)
    report = validation.validate_batch(spec, storage, batch, suites=suites)
    validation_page.publish_page(spec, storage, report)
    publication.publish_batch(spec, storage, report)
    feature_sets.materialize(spec, settings, batch)
    feature_sets.refresh_later(spec, settings, batch)
    skew.check_skew(spec, settings, batch)
    learned = incident.last_training(spec, storage, batch)
    drift = measuring.measure_drift(spec, settings, batch, learned=learned)
    hold = partial(incident.hold_reason, spec, storage, batch)
    verdict = measuring.judge_batch(spec, settings, drift, hold=hold)
    drift_report.publish_report(spec, settings, drift, verdict)
    decision = retrain(spec, settings, verdict) if verdict.outcome == "retrain" else None
    return Step(verdict, decision)


def sweep(spec: ModelSpec, settings: Settings, batch: BatchRef) -> None:
    """Remove what retention no longer keeps, where a sweep is due."""
    if retention.is_due(spec, batch):
        retention.sweep(
            spec,
            Storage.of(settings),
            batch,
            feature_tables=table_names(spec),
            reach=feature_sets.reach(spec),
            pinned=pinned_versions(spec, settings),
        )


def retrain(spec: ModelSpec, settings: Settings, verdict: Verdict) -> GateDecision:
    """Train, duel, and promote what wins."""
    batch = verdict.batch
    request = incident.open_incident(
        spec, settings, batch=batch, trigger="monitor", reason="; ".join(verdict.reasons),
        run_id=verdict.incident_id,
    )  # fmt: skip
    training_set = build_training_set(spec, settings, request)
    found = candidate.train_candidate(spec, settings, request, training_set)
    decision = gate.decide(spec, settings, request, found)
    if decision.passed:
        succession.promote(spec, settings, decision, actor="benchmark", at=batch.end)
    model_card.publish(spec, settings, found.version)
    return decision
