"""Steps that many tests need: a prepared home copied, batches ingested, versions trained."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pandas as pd

from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.data import publication, validation
from include.retraining.features import feature_sets
from include.retraining.records import (
    Candidate,
    FeatureSet,
    RetrainClaim,
    RetrainRequest,
    ValidationReport,
)
from include.retraining.retrain import candidate as candidates
from include.retraining.retrain import claims as all_claims
from include.retraining.retrain import incident
from include.retraining.retrain.training_set import build_training_set
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec
from include.retraining.storage import Storage

WEEKS = ("2013-01-07", "2013-01-14", "2013-01-21", "2013-01-28")


def small_spec(**sections: dict[str, object]) -> ModelSpec:
    """Give the example's model file with a model that is fitted in no time, and other changes."""
    spec = load_spec(MODELS_DIR / "flights.yaml")
    small = {"min_rows": 3000, "params": {"max_iter": 10, "early_stopping": False}}
    sections = {**sections, "training": small | dict(sections.get("training", {}))}
    update = {
        name: getattr(spec, name).model_copy(update=changes) for name, changes in sections.items()
    }
    return spec.model_copy(update=update)


def copy_home(source: Path, target: Path) -> Settings:
    """Copy a prepared home; what its databases say of artifacts moves along."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()  # by run id, and copies have the same runs
    shutil.copytree(source, target, dirs_exist_ok=True)
    with sqlite3.connect(target / "mlflow.db") as connection:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
        ):
            connection.execute(  # the names are those above
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)",
                (source.as_uri(), target.as_uri()),
            )
    connection.close()
    return Settings(home=target)


def validate(
    spec: ModelSpec, settings: Settings, partition: str, flights: pd.DataFrame | None = None
) -> ValidationReport:
    """Land and validate a batch."""
    batch, storage = spec.batch_ref(partition), Storage.of(settings)
    flights_feed.land(storage, batch, flights)
    return validation.validate_batch(spec, storage, batch)


def ingest(
    spec: ModelSpec, settings: Settings, partition: str, flights: pd.DataFrame | None = None
) -> FeatureSet:
    """Land, validate, publish and materialize a batch, as the ingest DAG does."""
    report = validate(spec, settings, partition, flights)
    publication.publish_batch(spec, Storage.of(settings), report)
    flights_feed.push_weather(spec, settings, report.batch)
    found = feature_sets.materialize(spec, settings, report.batch)
    feature_sets.refresh_later(spec, settings, report.batch)
    return found


def request_retrain(spec: ModelSpec, settings: Settings, partition: str) -> RetrainRequest:
    """Claim a retrain that nothing holds back."""
    return incident.open_incident(
        spec,
        settings,
        batch=spec.batch_ref(partition),
        trigger="manual",
        reason="a test",
        run_id=f"run {partition} {spec.training.seed}",
        force=True,
    )


def train(spec: ModelSpec, settings: Settings, partition: str) -> tuple[RetrainRequest, Candidate]:
    """Train and register a candidate."""
    request = request_retrain(spec, settings, partition)
    training_set = build_training_set(spec, settings, request)
    return request, candidates.train_candidate(spec, settings, request, training_set)


def claims(spec: ModelSpec, storage: Storage) -> list[RetrainClaim]:
    """Give every retrain that was claimed, by the end of its batch."""
    found = all_claims.claimed(storage, spec.model)
    return [shelf.find(storage, RetrainClaim, spec.model, one.incident_id) for one in found]
