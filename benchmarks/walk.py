"""One model's batches taken through the pipeline in one process, in the order of its tasks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from include.retraining.data import publication, retention, validation
from include.retraining.features import feature_sets, skew
from include.retraining.features.definitions import table_names
from include.retraining.records import BatchRef, GateDecision, Verdict
from include.retraining.registry import guard
from include.retraining.replay import rehearse
from include.retraining.retrain.training_set import pinned
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling import drift_report, model_card, validation_page

ACTOR = "benchmark"


class Step(NamedTuple):
    """What came of one batch."""

    verdict: Verdict
    decision: GateDecision | None


def take(spec: ModelSpec, settings: Settings, batch: BatchRef, suites: Path) -> Step:
    """Take a landed batch from validation to its verdict, and do what that asks for."""
    storage = Storage.of(settings)
    report = validation.validate_batch(spec, storage, batch, suites=suites)
    validation_page.publish_page(spec, storage, report)
    publication.publish_batch(spec, storage, report)
    feature_sets.materialize(spec, settings, batch)
    feature_sets.refresh_later(spec, settings, batch)
    skew.check_skew(spec, settings, batch)
    drift, verdict = rehearse.judge(spec, settings, batch)
    drift_report.publish_report(spec, settings, drift, verdict)
    decision = retrain(spec, settings, verdict) if verdict.outcome == "retrain" else None
    if verdict.outcome == "rollback" and spec.guard_mode == "rollback":
        guard.roll_back(spec, settings, verdict, actor=ACTOR, at=batch.end)
    return Step(verdict, decision)


def sweep(spec: ModelSpec, settings: Settings, batch: BatchRef) -> None:
    """Remove what retention no longer keeps, where a sweep is due."""
    storage = Storage.of(settings)
    if retention.is_due(spec, storage, batch):
        retention.sweep(
            spec,
            storage,
            batch,
            feature_tables=table_names(spec),
            reach=feature_sets.reach(spec),
            pinned=pinned(spec, settings),
            forget=partial(drift_report.remove_reports, spec, settings),
        )


def retrain(spec: ModelSpec, settings: Settings, verdict: Verdict) -> GateDecision:
    """Train, duel, promote what wins, and write its card."""
    decision, _ = rehearse.retrain(spec, settings, verdict, actor=ACTOR)
    model_card.publish(spec, settings, decision.candidate_version)
    return decision
