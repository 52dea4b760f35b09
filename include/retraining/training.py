"""Makes a `TrainingSet`, then a `Candidate`: point-in-time rows, a seeded pipeline, one MLflow run.

The incident id finds what an earlier, killed attempt left: its run is continued, its version is
reused.
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import logging
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining import features, feedback, metrics, registry
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.errors import DataError, SpecError
from include.retraining.names import CHALLENGER, INCIDENT_TAG, incident_key
from include.retraining.records import BatchRef, Candidate, RetrainRequest, TrainingSet
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, json_bytes, sha256

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

log = logging.getLogger(__name__)

LABEL = "_label"
SCORE = "prediction"
IMPORTANCES_ARTIFACT = "importances.json"
IMPORTANCE_ROWS = 2000

# What a model artifact may contain beside numpy, scipy and scikit-learn's plain types. Reviewed one
# by one: each only holds arrays. Anything else is refused when the model is loaded.
TRUSTED_TYPES = [
    "numpy.dtype",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn._loss._loss.CyHalfBinomialLoss",
]


def split_times(spec: ModelSpec, batch: BatchRef) -> tuple[dt.datetime, dt.datetime]:
    """Give start and end of the duel window, the newest label-mature days; training ends before."""
    duel_end = batch.end - dt.timedelta(days=spec.label.maturity_days)
    return duel_end - dt.timedelta(days=spec.gate.duel_days), duel_end


def oldest_row(spec: ModelSpec, duel_start: dt.datetime) -> dt.datetime | None:
    """Give the moment from which on rows train; None: all history."""
    if spec.training.max_days is None:
        return None
    return duel_start - dt.timedelta(days=spec.training.max_days)


def build_training_set(spec: ModelSpec, settings: Settings, request: RetrainRequest) -> TrainingSet:
    """Join every published row up to the request's batch with its features as of its own time.

    A row trains only if its label was mature when the duel window began, and duels only if it is
    mature at the batch's end.

    Raises
    ------
    DataError
        Too few labelled rows, or only one class among them.
    """
    storage = Storage.of(settings)
    duel_start, duel_end = split_times(spec, request.batch)
    batches = [
        batch
        for batch in features.published_partitions(spec, storage)
        if batch.start <= request.batch.start
    ]
    oldest = oldest_row(spec, duel_start)
    if oldest is not None:
        batches = [batch for batch in batches if batch.end > oldest]
    if not batches:
        raise DataError(
            f"{spec.model}: no published batch up to {request.batch.partition}; ingest one first"
        )
    reports = [features.require_published(spec, storage, batch.partition) for batch in batches]
    rows = pa.concat_tables([storage.read_table(report.files["batch"]) for report in reports])
    if oldest is not None:
        event_time = rows.column(spec.source.event_time)
        rows = rows.filter(pc.greater_equal(event_time, pa.scalar(oldest, event_time.type)))
    joined = features.join(spec, settings, rows)
    if joined.num_rows != rows.num_rows:
        raise DataError(
            f"the join gave {joined.num_rows} rows for {rows.num_rows}; none may be lost"
        )

    times = joined.column(spec.source.event_time)
    in_training = pc.less(times, pa.scalar(duel_start, times.type))
    in_duel = pc.and_(
        pc.greater_equal(times, pa.scalar(duel_start, times.type)),
        pc.less(times, pa.scalar(duel_end, times.type)),
    )
    training = joined.filter(in_training)
    training = training.append_column(
        LABEL, pa.array(feedback.labels(spec, training, known_at=duel_start))
    )
    duel = joined.filter(in_duel)
    duel = duel.append_column(
        LABEL, pa.array(feedback.labels(spec, duel, known_at=request.batch.end))
    )
    known = training.column(LABEL).to_numpy()
    known = known[~np.isnan(known)]
    duel = duel.filter(pc.invert(pc.is_nan(duel.column(LABEL))))
    _check_learnable(spec, training)

    folder = incident_key(spec.model, request.incident_id)
    training_set = TrainingSet(
        incident_id=request.incident_id,
        training_key=f"{folder}/training.parquet",
        training_rows=len(known),
        training_start=max(filter(None, (batches[0].start, oldest))),
        training_end=duel_start,
        duel_key=f"{folder}/duel.parquet",
        duel_rows=duel.num_rows,
        duel_start=duel_start,
        duel_end=duel_end,
        unlabelled_rows=joined.num_rows - len(known) - duel.num_rows,
        sha256=sha256(
            storage.write_table(f"{folder}/training.parquet", training).encode(),
            storage.write_table(f"{folder}/duel.parquet", duel).encode(),
        ),
    )
    storage.write_json(f"{folder}/training_set.json", training_set)
    return training_set


def _check_learnable(spec: ModelSpec, training: pa.Table) -> None:
    labelled = training.filter(pc.invert(pc.is_nan(training.column(LABEL))))
    if labelled.num_rows < spec.training.min_rows:
        raise DataError(
            f"{spec.model}: {labelled.num_rows} rows with mature labels, training.min_rows is "
            f"{spec.training.min_rows}; wait for more batches, or lower it"
        )
    classes = pc.unique(labelled.column(LABEL)).to_pylist()
    if len(classes) < 2:
        raise DataError(
            f"{spec.model}: all {labelled.num_rows} labels are {classes[0]:g}; a classifier needs "
            f"both classes. Check label.column {spec.label.column!r} at the source"
        )
    frame = feedback.feature_frame(spec, labelled)
    if empty := [name for name in spec.features.names if frame[name].isna().all()]:
        raise DataError(
            f"{spec.model}: no value in any of {labelled.num_rows} training rows: "
            f"{', '.join(empty)}. Mend features.tables or the source, or take the feature out of "
            "the model file"
        )


def train_candidate(
    spec: ModelSpec, settings: Settings, request: RetrainRequest, training_set: TrainingSet
) -> Candidate:
    """Fit, log and register the candidate of an incident; one incident gives one version."""
    done = registry.version_of_incident(spec, settings, request.incident_id)
    if done is not None:
        log.info("version %s of this incident is registered already: reused", done.number)
        if done.stage == "None":  # the gate has not seen it: an attempt may have died before this
            registry.client(settings).set_registered_model_alias(
                spec.model, CHALLENGER, str(done.number)
            )
        return _candidate(spec, settings, request, training_set, done)
    storage = Storage.of(settings)
    started = time.monotonic()
    training = storage.read_table(training_set.training_key)
    known = training.column(LABEL).to_numpy()
    labelled = training.filter(pa.array(~np.isnan(known)))
    pipeline = build_pipeline(spec)
    log.info("fitting %s on %s rows", spec.training.estimator, labelled.num_rows)
    frame = feedback.feature_frame(spec, labelled)
    try:
        pipeline.fit(frame, known[~np.isnan(known)].astype("int64"))
    except (TypeError, ValueError) as error:  # what scikit-learn makes of parameters and data
        raise DataError(
            f"{spec.model}: {spec.training.estimator} cannot be fitted: {error}; check "
            "training.params and the features"
        ) from error
    log.info("fitted in %.1f s", time.monotonic() - started)
    duel = storage.read_table(training_set.duel_key)
    importances = permutation_importances(spec, pipeline, duel)
    profile = build_profile(
        spec,
        training,
        feedback.predict(spec, pipeline, training),
        start=training_set.training_start,
        end=training_set.training_end,
    )
    found = _log_and_register(
        spec,
        settings,
        request,
        training_set,
        pipeline=pipeline,
        importances=importances,
        profile=profile,
        labelled=labelled,
    )
    return _candidate(spec, settings, request, training_set, found)


def build_pipeline(spec: ModelSpec) -> Pipeline:
    """Give the unfitted pipeline of the model file: columns by kind, then the estimator, seeded."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder
    from sklearn.utils import get_tags

    estimator = _make_estimator(spec)
    takes_missing = get_tags(estimator).input_tags.allow_nan
    columns = ColumnTransformer(
        [
            (
                "numeric",
                "passthrough" if takes_missing else SimpleImputer(strategy="median"),
                list(spec.features.numeric),
            ),
            (
                "categorical",
                OrdinalEncoder(
                    handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
                ),
                list(spec.features.categorical),
            ),
        ]
    )
    return Pipeline([("columns", columns), ("model", estimator)])


def _make_estimator(spec: ModelSpec) -> Any:
    path = spec.training.estimator
    module_name, _, name = path.replace(":", ".").rpartition(".")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"training.estimator: cannot import {path!r}: {error}") from error
    try:
        estimator = factory(**spec.training.params)
    except Exception as error:  # whatever a factory of the user's raises
        raise SpecError(f"training.params: {path} does not take them: {error}") from error
    if not hasattr(estimator, "predict_proba") or not hasattr(estimator, "set_params"):
        raise SpecError(
            f"training.estimator: {path} gives no probabilities; choose a classifier with "
            "predict_proba"
        )
    seeded = [name for name in estimator.get_params() if name.split("__")[-1] == "random_state"]
    return estimator.set_params(**dict.fromkeys(seeded, spec.training.seed))


def permutation_importances(spec: ModelSpec, pipeline: Any, duel: pa.Table) -> dict[str, float]:
    """Give what the metric loses when one feature is shuffled, on unseen rows; at least 0.

    Empty where the rows cannot carry the metric.
    """
    generator = np.random.default_rng(spec.training.seed)
    rows = duel.take(generator.permutation(duel.num_rows)[:IMPORTANCE_ROWS])
    known = rows.column(LABEL).to_numpy()
    if len(np.unique(known)) < 2:
        return {}
    base = metrics.value(spec.gate.metric, known, feedback.predict(spec, pipeline, rows))
    frame = feedback.feature_frame(spec, rows)
    importances = {}
    for name in spec.features.names:
        shuffled = frame.copy()
        shuffled[name] = frame[name].to_numpy()[generator.permutation(len(frame))]
        value = metrics.value(spec.gate.metric, known, pipeline.predict_proba(shuffled)[:, 1])
        importances[name] = max(0.0, base - value)
    return importances


def build_profile(
    spec: ModelSpec, training: pa.Table, scores: Any, *, start: dt.datetime, end: dt.datetime
) -> ReferenceProfile:
    """Profile the reference in windows of a partition's length; predictions are a column more."""
    table = training.select([*spec.features.names, spec.source.event_time]).append_column(
        SCORE, pa.array(scores)
    )
    times = table.column(spec.source.event_time)
    windows: list[pa.Table] = []
    while end > start and len(windows) < spec.drift.max_history_windows:
        begin = end - spec.partitions.length
        inside = pc.and_(
            pc.greater_equal(times, pa.scalar(begin, times.type)),
            pc.less(times, pa.scalar(end, times.type)),
        )
        window = table.filter(inside)
        if window.num_rows and begin >= start:
            windows.insert(0, window)
        end = begin
    return ReferenceProfile.build(
        windows or [table],
        numeric=[*spec.features.numeric, SCORE],
        categorical=list(spec.features.categorical),
    )


def _log_and_register(
    spec: ModelSpec,
    settings: Settings,
    request: RetrainRequest,
    training_set: TrainingSet,
    *,
    pipeline: Any,
    importances: dict[str, float],
    profile: ReferenceProfile,
    labelled: pa.Table,
) -> registry.Version:
    import mlflow
    import sklearn
    from mlflow.exceptions import MlflowException
    from mlflow.models import infer_signature

    api = registry.client(settings)
    experiment = registry.experiment_id(spec, settings)
    found = api.search_runs(
        [experiment], f"tags.`{INCIDENT_TAG}` = '{request.incident_id}'", max_results=1
    )
    tags = {
        INCIDENT_TAG: request.incident_id,
        "retraining.kind": "retrain",
        "retraining.trigger": request.trigger,
        "retraining.reason": request.reason,
        "retraining.partition": request.batch.partition,
        "retraining.feature_service": spec.features.service,
        "retraining.data_sha256": training_set.sha256,
        "retraining.spec_sha256": sha256(json_bytes(spec)),
        "retraining.git_commit": _git_commit(settings),
    }
    run_name = f"retrain {request.batch.partition}"
    with mlflow.start_run(
        run_id=found[0].info.run_id if found else None,
        experiment_id=None if found else experiment,
        run_name=None if found else run_name,
        tags=tags,
    ) as run:
        mlflow.log_params(
            {
                "estimator": spec.training.estimator,
                "seed": spec.training.seed,
                "training_start": training_set.training_start.isoformat(),
                "training_end": training_set.training_end.isoformat(),
                **{f"model.{name}": value for name, value in spec.training.params.items()},
            }
        )
        mlflow.log_metrics(
            {
                "training_rows": training_set.training_rows,
                "duel_rows": training_set.duel_rows,
                **{f"importance.{name}": value for name, value in importances.items()},
            }
        )
        source = Storage.of(settings).url_of(training_set.training_key)
        frame = feedback.feature_frame(spec, labelled)
        dataset = mlflow.data.from_pandas(
            frame,
            source=source,
            name=f"{spec.model}-{training_set.sha256[:8]}",
            digest=training_set.sha256[:32],
        )
        mlflow.log_input(dataset, context="training")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, registry.PROFILE_ARTIFACT).write_bytes(profile.to_bytes())
            Path(folder, IMPORTANCES_ARTIFACT).write_text(json.dumps(importances, indent=2))
            mlflow.log_artifacts(folder)
        example = frame.head(100)
        logged = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            signature=infer_signature(example, pipeline.predict_proba(example)[:, 1]),
            pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"numpy=={np.__version__}"],
            pyfunc_predict_fn="predict_proba",
            skops_trusted_types=TRUSTED_TYPES,
        )
        run_id = run.info.run_id
    try:
        api.create_registered_model(spec.model, description=spec.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = api.create_model_version(
        spec.model,
        logged.model_uri,
        run_id=run_id,
        tags={
            INCIDENT_TAG: request.incident_id,
            registry.TRAINED_UNTIL_TAG: training_set.training_end.isoformat(),
            registry.FEATURES_TAG: ",".join(spec.features.names),
        },
        model_id=logged.model_id,
    )
    api.set_registered_model_alias(spec.model, CHALLENGER, created.version)
    log.info("registered %s version %s from run %s", spec.model, created.version, run_id)
    return registry.version(spec, settings, int(created.version))


def _candidate(
    spec: ModelSpec,
    settings: Settings,
    request: RetrainRequest,
    training_set: TrainingSet,
    found: registry.Version,
) -> Candidate:
    """Describe a registered version; its digest is that of its predictions on the duel's rows."""
    storage = Storage.of(settings)
    scores = feedback.score(spec, settings, found.number, storage.read_table(training_set.duel_key))
    candidate = Candidate(
        incident_id=request.incident_id,
        model=spec.model,
        version=found.number,
        run_id=found.run_id,
        training_set=training_set,
        digest=sha256(np.round(scores, 9).tobytes()),
    )
    storage.write_json(f"{incident_key(spec.model, request.incident_id)}/candidate.json", candidate)
    return candidate


def _git_commit(settings: Settings) -> str:
    """Give the commit of the bundle, as the settings or git say; ``unknown`` outside a checkout."""
    if settings.commit:
        return settings.commit
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - git of the machine
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
    except OSError:
        return "unknown"
    return answer.stdout.strip() or "unknown"
