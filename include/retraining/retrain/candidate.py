"""Makes a `TrainingSet`, then a `Candidate`: point-in-time rows, a seeded pipeline, one MLflow run.

The incident id finds what an earlier, killed attempt left: its run is continued, its version is
reused.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import platform
import subprocess
import tempfile
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining.drift.profile import ReferenceProfile
from include.retraining.errors import DataError
from include.retraining.features import feature_sets as features
from include.retraining.learning import artifact as model_file
from include.retraining.learning import estimator, metrics
from include.retraining.learning import rows as feedback
from include.retraining.names import CHALLENGER, INCIDENT_TAG, incident_key, storage_key
from include.retraining.records import BatchRef, Candidate, DriftReport, RetrainRequest, TrainingSet
from include.retraining.registry import succession as registry
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, json_bytes, sha256
from include.retraining.telling import model_card

log = logging.getLogger(__name__)

LABEL = "_label"
SCORE = "prediction"
IMPORTANCES_ARTIFACT = "importances.json"
SPEC_ARTIFACT = "model_spec.json"
ENVIRONMENT_ARTIFACT = "environment.txt"
SEARCH_ARTIFACT = "search.json"
# of the run, and of the version as well
LINEAGE_TAGS = (
    "retraining.data_sha256",
    "retraining.spec_sha256",
    "retraining.git_commit",
    "retraining.feature_service",
)
IMPORTANCE_ROWS = 2000


def split_times(spec: ModelSpec, batch: BatchRef) -> tuple[dt.datetime, dt.datetime]:
    """Give start and end of the duel window, the newest label-mature days; training ends before."""
    duel_end = batch.end - dt.timedelta(days=spec.label.maturity_days)
    return duel_end - dt.timedelta(days=spec.gate.duel_days), duel_end


def oldest_row(spec: ModelSpec, duel_start: dt.datetime) -> dt.datetime | None:
    """Give the moment from which on the rows of a rolling window train; None: all history."""
    if spec.training.max_days is None:
        return None
    return duel_start - dt.timedelta(days=spec.training.max_days)


def drift_start(spec: ModelSpec, storage: Storage, request: RetrainRequest) -> dt.datetime | None:
    """Give the start of the first batch of the drift that has lasted until the request's batch.

    A batch drifted if a feature that is not declared as `drift.expected`, or the champion's
    predictions, went beyond their threshold. None where the request's own batch did not.
    """
    found = None
    start = request.batch.start
    while start >= spec.partitions.first:
        key = f"{storage_key(spec.model, 'reports', spec.partition_key(start))}/drift.json"
        report = storage.read_record(key, DriftReport)
        if report is None or report.champion_version != request.champion_version:
            break
        columns = report.columns
        if not any(column.drifted and not column.expected for column in columns):
            break
        found = start
        start -= spec.partitions.length
    return found


def _window_start(
    spec: ModelSpec,
    storage: Storage,
    request: RetrainRequest,
    rows: pa.Table,
    duel_start: dt.datetime,
) -> dt.datetime | None:
    """Give the moment from which on rows train, as `training.window` says; None: all history.

    Since-drift windows reach further back where they would hold less than `training.min_rows`.
    """
    if spec.training.window != "since_drift":
        return oldest_row(spec, duel_start)
    since = drift_start(spec, storage, request)
    if since is None:
        log.info("%s has not drifted: all history trains", request.batch.partition)
        return None
    known = ~np.isnan(feedback.labels(spec, rows, known_at=duel_start))
    times = np.sort(rows.column(spec.source.event_time).filter(pa.array(known)).to_numpy())
    if len(times) < spec.training.min_rows:
        return None
    enough: dt.datetime = times[-spec.training.min_rows].astype("datetime64[us]").item()
    return min(since, enough.replace(tzinfo=dt.UTC))


def build_training_set(spec: ModelSpec, settings: Settings, request: RetrainRequest) -> TrainingSet:
    """Join every published row up to the request's batch with its features as of its own time.

    A row trains only if its label was mature when the duel window began, and duels only if it is
    mature at the batch's end.

    Raises
    ------
    DataError
        Too few labelled rows, only one label among them, or a feature without any value.
    """
    storage = Storage.of(settings)
    duel_start, duel_end = split_times(spec, request.batch)
    earliest = oldest_row(spec, duel_start)
    batches = [
        batch
        for batch in features.published_partitions(spec, storage)
        if batch.start <= request.batch.start and (earliest is None or batch.end > earliest)
    ]
    if not batches:
        raise DataError(
            f"{spec.model}: no published batch up to {request.batch.partition}; ingest one first"
        )
    reports = [features.require_published(spec, storage, batch.partition) for batch in batches]
    rows = pa.concat_tables([storage.read_table(report.files["batch"]) for report in reports])
    oldest = _window_start(spec, storage, request, rows, duel_start)
    rows = feedback.between(spec, rows, oldest)
    joined = features.join(spec, settings, rows)
    if joined.num_rows != rows.num_rows:
        raise DataError(
            f"the join gave {joined.num_rows} rows for {rows.num_rows}; none may be lost"
        )

    training = feedback.between(spec, joined, None, duel_start)
    training = training.append_column(
        LABEL, pa.array(feedback.labels(spec, training, known_at=duel_start))
    )
    duel = feedback.between(spec, joined, duel_start, duel_end)
    duel = duel.append_column(
        LABEL, pa.array(feedback.labels(spec, duel, known_at=request.batch.end))
    )
    known = training.column(LABEL).to_numpy()
    known = known[~np.isnan(known)]
    duel = duel.filter(pc.invert(pc.is_nan(duel.column(LABEL))))
    check_learnable(spec, training)

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


def check_learnable(spec: ModelSpec, training: pa.Table) -> None:
    """Refuse rows that nothing can be learned from, with what to do; raises DataError."""
    labelled = training.filter(pc.invert(pc.is_nan(training.column(LABEL))))
    if labelled.num_rows < spec.training.min_rows:
        raise DataError(
            f"{spec.model}: {labelled.num_rows} rows with mature labels, training.min_rows is "
            f"{spec.training.min_rows}; wait for more batches, or lower it"
        )
    found = pc.unique(labelled.column(LABEL)).to_pylist()
    if len(found) < 2:
        one = spec.label.classes[int(found[0])] if spec.label.classes else f"{found[0]:g}"
        need = "values that differ" if spec.label.task == "regression" else "two classes or more"
        raise DataError(
            f"{spec.model}: all {labelled.num_rows} labels are {one}; {spec.label.task} needs "
            f"{need}. Check label.column {spec.label.column!r} at the source"
        )
    missing = [name for number, name in enumerate(spec.label.classes) if number not in found]
    if missing:
        log.warning("no training row is of class %s: it will never be predicted", missing)
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
    training = storage.read_table(training_set.training_key)
    known = training.column(LABEL).to_numpy()
    labelled = training.filter(pa.array(~np.isnan(known)))
    fitted = estimator.fit(spec, labelled, known[~np.isnan(known)])
    duel = storage.read_table(training_set.duel_key)
    importances = permutation_importances(spec, fitted.pipeline, duel)
    profile = build_profile(
        spec,
        training,
        feedback.predict(spec, fitted.pipeline, training),
        start=training_set.training_start,
        end=training_set.training_end,
    )
    model_file.require_keepable(spec, fitted.pipeline)
    found = _log_and_register(
        spec,
        settings,
        request,
        training_set,
        fitted=fitted,
        importances=importances,
        profile=profile,
        labelled=labelled,
    )
    return _candidate(spec, settings, request, training_set, found)


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
        value = metrics.value(
            spec.gate.metric, known, feedback.predict_frame(spec, pipeline, shuffled)
        )
        importances[name] = max(0.0, base - value)
    return importances


def build_profile(
    spec: ModelSpec, training: pa.Table, scores: Any, *, start: dt.datetime, end: dt.datetime
) -> ReferenceProfile:
    """Profile the reference in windows of a partition's length; predictions are a column more.

    Rows go in by their time: how alike neighbours are is read off them.
    """
    table = training.select([*spec.features.names, spec.source.event_time]).append_column(
        SCORE, feedback.score_column(spec, scores)
    )
    table = table.sort_by(spec.source.event_time)
    numeric, categorical = list(spec.features.numeric), list(spec.features.categorical)
    (categorical if spec.label.task == "multiclass" else numeric).append(SCORE)
    windows: list[pa.Table] = []
    starts: list[dt.datetime] = []
    while end > start and len(windows) < spec.drift.max_history_windows:
        begin = end - spec.partitions.length
        window = feedback.between(spec, table, begin, end)
        if window.num_rows and begin >= start:
            windows.insert(0, window)
            starts.insert(0, begin)
        end = begin
    return ReferenceProfile.build(
        windows or [table], numeric=numeric, categorical=categorical, starts=starts
    )


@registry.writing("the candidate")
def _log_and_register(
    spec: ModelSpec,
    settings: Settings,
    request: RetrainRequest,
    training_set: TrainingSet,
    *,
    fitted: estimator.Fitted,
    importances: dict[str, float],
    profile: ReferenceProfile,
    labelled: pa.Table,
) -> registry.Version:
    import mlflow
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
        "retraining.git_commit": git_commit(settings),
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
                "window": spec.training.window,
                **{f"model.{name}": value for name, value in fitted.best.params.items()},
            }
        )
        mlflow.log_metrics(
            {
                "training_rows": training_set.training_rows,
                "duel_rows": training_set.duel_rows,
                **{f"importance.{name}": value for name, value in importances.items()},
            }
        )
        name = spec.gate.metric
        for number, value in enumerate(fitted.best.folds, 1):
            if np.isfinite(value):
                mlflow.log_metric(f"cv.{name}", value, step=number)
        if np.isfinite(fitted.best.mean):
            mlflow.log_metric(f"cv_mean.{name}", fitted.best.mean)
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
            Path(folder, SPEC_ARTIFACT).write_bytes(json_bytes(spec))
            Path(folder, ENVIRONMENT_ARTIFACT).write_text("\n".join(environment()) + "\n")
            Path(folder, "training_set.json").write_bytes(json_bytes(training_set))
            if spec.training.search:
                trials = [
                    trial.params | {name: trial.mean if np.isfinite(trial.mean) else None}
                    for trial in fitted.trials
                ]
                Path(folder, SEARCH_ARTIFACT).write_text(json.dumps(trials, indent=2))
            mlflow.log_artifacts(folder)
        example = frame.head(100)
        kind = spec.training.model_format
        method = "predict" if spec.label.task == "regression" else "predict_proba"
        logged = mlflow.sklearn.log_model(
            fitted.pipeline,
            name="model",
            signature=infer_signature(example, getattr(fitted.pipeline, method)(example)),
            pip_requirements=[
                f"{name}=={version(name)}" for name in ("scikit-learn", "numpy", kind)
            ],
            pyfunc_predict_fn=method,
            serialization_format=kind,
            skops_trusted_types=model_file.trusted_types(spec) if kind == "skops" else None,
        )
        run_id = run.info.run_id
    content = model_file.read(logged.model_uri, kind)
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
            registry.FORMAT_TAG: kind,
            **{name: tags[name] for name in LINEAGE_TAGS},
            "retraining.drift_report": model_card.drift_report_key(spec, request.batch.partition),
            registry.SHA256_TAG: hashlib.sha256(content).hexdigest(),
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
        digest=digest(scores),
    )
    registry.client(settings).set_model_version_tag(
        spec.model, str(found.number), registry.DIGEST_TAG, candidate.digest
    )
    storage.write_json(f"{incident_key(spec.model, request.incident_id)}/candidate.json", candidate)
    model_card.publish(spec, settings, found.number)
    return candidate


def digest(scores: metrics.Floats) -> str:
    """Give the digest of a model: that of its predictions, rounded to 9 decimals."""
    return sha256((np.round(scores, 9) + 0.0).tobytes())  # -0.0 is 0.0


def environment() -> list[str]:
    """Give Python and every installed distribution as ``name==version``, sorted."""
    installed = {f"{found.metadata['Name'].lower()}=={found.version}" for found in distributions()}
    return [f"python=={platform.python_version()}", *sorted(installed)]


def git_commit(settings: Settings) -> str:
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
