"""Makes an `Adoption`: a model that others trained becomes a version, and meets the gate.

The rows that are published are what it is held against from now on. Without a champion it needs
the floor only; else it duels with the champion as a candidate of our own does.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from include.retraining import shelf
from include.retraining.data.publication import newest_published, rows_in_force
from include.retraining.errors import (
    DataError,
    RegistryError,
    RetrainingError,
    ScoringError,
)
from include.retraining.learning import estimator, scoring
from include.retraining.learning.metrics import Floats
from include.retraining.learning.rows import feature_frame, split_times
from include.retraining.records import BatchRef, GateDecision, Promotion
from include.retraining.registry import server, succession, versions
from include.retraining.registry.adopted import AdoptedModel
from include.retraining.retrain import candidate, claims, gate, incident
from include.retraining.retrain.training_set import build_training_set
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

log = logging.getLogger(__name__)


class Adoption(NamedTuple):
    """What came of it: the gate's word, and the promotion if there was one."""

    decision: GateDecision
    promotion: Promotion | None


def adopt(
    spec: ModelSpec,
    settings: Settings,
    *,
    source: str,
    learned_until: dt.datetime,
    reason: str,
    actor: str,
    at: dt.datetime,
    batch: BatchRef | None = None,
) -> Adoption:
    """Take a model of MLflow's in as a version, and make it champion if the gate lets it.

    The same model about the same batch is taken in once, however often this is called.

    Parameters
    ----------
    source : str
        Where MLflow has it: ``models:/NAME/VERSION``, say.
    learned_until : datetime
        No row from then on was learned from, as who trained it knows.
    batch : BatchRef, optional
        The newest batch that is looked at; the newest published one by default.

    Raises
    ------
    RegistryError
        The model is not there, or is one of ours.
    DataError
        The model file does not allow it, too few rows are there, or the model may have learned
        from those that would say how good it is.
    ScoringError
        The model does not say what the model file asks of it.
    """
    _require_allowed(spec)
    _require_foreign(spec, settings, source)
    if batch is None:
        batch = newest_published(spec, rows_in_force(spec, Storage.of(settings)))
    if batch is None:
        raise DataError(
            f"{spec.model} has no published batch yet: let {spec.model}__ingest run for those that "
            "the model is to be held against"
        )
    _require_later_rows(spec, batch, learned_until)
    model = AdoptedModel(
        server.read_model(settings, source),
        task=spec.label.task,
        classes=tuple(str(name) for name in spec.label.classes),
    )
    _ = model.opened  # before anything is claimed
    storage, run_id = Storage.of(settings), f"adopt-{model.sha256[:12]}-{batch.partition}"
    request = incident.open_incident(
        spec,
        settings,
        batch=batch,
        trigger="manual",
        reason=f"adopted from {source}: {reason}",
        run_id=run_id,
        force=True,
    )

    def learned(rows: pa.Table, _labels: Floats) -> estimator.Fitted:
        return _as_fitted(spec, model, rows, until=learned_until)

    try:
        training_set = build_training_set(spec, settings, request).model_copy(
            update={"adopted_from": source, "learned_until": learned_until}
        )
        shelf.keep(storage, training_set)
        made = candidate.make_candidate(spec, settings, request, training_set, learn=learned)
    except RetrainingError:
        if versions.version_of_incident(spec, settings, request.incident_id) is None:
            claims.release(storage, request, run_id=run_id)  # it spends no retrain
        raise
    decision = gate.decide(spec, settings, request, made)
    if not decision.passed:
        return Adoption(decision, None)
    told = decision.model_copy(update={"reasons": (f"adopted from {source}", *decision.reasons)})
    return Adoption(decision, succession.promote(spec, settings, told, actor=actor, at=at))


def _require_allowed(spec: ModelSpec) -> None:
    if spec.is_served_elsewhere:
        raise DataError(
            f"{spec.model}: its model file says that it is served elsewhere (predictions.column): "
            "there is nothing to score with. Leave predictions out to adopt the model itself"
        )
    if spec.training.model_format != "cloudpickle":
        raise DataError(
            f"{spec.model}: a model from elsewhere runs code of its own when it is loaded, and "
            f"training.model_format is {spec.training.model_format}. If you trust whoever made it, "
            "write training.model_format: cloudpickle, and run this again"
        )


def _require_foreign(spec: ModelSpec, settings: Settings, source: str) -> None:
    """Refuse a version of this model that a retrain of ours made."""
    name, _, number = source.removeprefix("models:/").partition("/")
    if not source.startswith("models:/") or name != spec.model or not number.isdecimal():
        return
    found = versions.version(spec, settings, int(number))
    if found.incident_id:
        raise RegistryError(
            f"{spec.model} version {number} was registered by this pipeline: there is nothing to "
            f"adopt. To put it into production: rollback {spec.model} --to-version {number}"
        )


def _require_later_rows(spec: ModelSpec, batch: BatchRef, learned_until: dt.datetime) -> None:
    start, end = split_times(spec, batch)
    if learned_until <= start:
        return
    raise DataError(
        f"{spec.model}: how good the model is would be read off the rows of {start:%Y-%m-%d} to "
        f"{end:%Y-%m-%d} (gate.duel_days), and it may have learned from those before "
        f"{learned_until:%Y-%m-%d}. Wait until later batches are published, or make gate.duel_days "
        "shorter"
    )


def _as_fitted(
    spec: ModelSpec, model: AdoptedModel, rows: pa.Table, *, until: dt.datetime
) -> estimator.Fitted:
    """Give the model as one that was fitted, with its predictions of what it had not seen."""
    scores = scoring.predict_frame(spec, model, feature_frame(spec, rows))
    if spec.label.task == "binary" and len(scores) and set(np.unique(scores)) <= {0.0, 1.0}:
        raise ScoringError(
            "the adopted model gives classes, 0 or 1, and no probabilities. Log it so that its "
            "predict gives them: mlflow.sklearn.log_model(..., pyfunc_predict_fn='predict_proba')"
        )
    times = rows.column(spec.source.event_time).to_numpy().astype("datetime64[us]")
    is_seen = times < np.datetime64(until.astimezone(dt.UTC).replace(tzinfo=None), "us")
    unseen = scores.copy()
    unseen[is_seen] = np.nan
    trial = estimator.Trial({}, ())
    log.info("%s rows of the reference were not learned from", f"{int((~is_seen).sum()):,}")
    return estimator.Fitted(model, trial, (trial,), None if is_seen.all() else unseen)
