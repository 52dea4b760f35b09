"""Makes a `Candidate`: a seeded pipeline, fitted, logged to one MLflow run, registered.

The incident id finds what an earlier, killed attempt left: its run is continued, its version is
reused.
"""

from __future__ import annotations

import datetime as dt
import logging
import platform
import subprocess
from collections.abc import Callable
from functools import partial
from importlib.metadata import distributions
from typing import Any

import numpy as np
import pyarrow as pa

from include.retraining import shelf
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.features import own_features
from include.retraining.learning import artifact, estimator, metrics, scoring
from include.retraining.learning.rows import between, feature_frame
from include.retraining.names import CHALLENGER, SCORE
from include.retraining.records import Candidate, DriftReport, RetrainRequest, TrainingSet
from include.retraining.registry import server, versions
from include.retraining.retrain.training_set import LABEL, duel_rows, training_rows
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, json_bytes, sha256

log = logging.getLogger(__name__)

IMPORTANCE_ROWS = 2000


def train_candidate(
    spec: ModelSpec, settings: Settings, request: RetrainRequest, training_set: TrainingSet
) -> Candidate:
    """Fit, log and register the candidate of an incident; one incident gives one version."""
    learn = partial(estimator.fit, spec)
    return make_candidate(spec, settings, request, training_set, learn=learn)


def make_candidate(
    spec: ModelSpec,
    settings: Settings,
    request: RetrainRequest,
    training_set: TrainingSet,
    *,
    learn: Callable[[pa.Table, metrics.Floats], estimator.Fitted],
) -> Candidate:
    """Log and register what `learn` makes of the labelled rows, once for an incident."""
    storage = Storage.of(settings)
    done = versions.keep_first(spec, settings, request.incident_id)
    if done is not None:
        log.info("version %s of this incident is registered already: reused", done.number)
        if done.stage == "None":  # the gate has not seen it: an attempt may have died before this
            server.set_alias(spec, settings, CHALLENGER, done.number)
        return _candidate(spec, settings, request, training_set, done)
    training = training_rows(spec, storage, training_set)
    known = training.column(LABEL).to_numpy()
    labelled = training.filter(pa.array(~np.isnan(known)))
    fitted = learn(labelled, known[~np.isnan(known)])
    duel = duel_rows(spec, storage, training_set)
    importances = permutation_importances(spec, fitted.pipeline, duel)
    profile = build_profile(
        spec,
        training,
        scored=(labelled, fitted.unseen),
        start=training_set.training_start,
        end=training_set.training_end,
    )
    artifact.require_keepable(spec, fitted.pipeline)
    found = versions.register(
        spec,
        settings,
        fitted.pipeline,
        feature_frame(spec, labelled),
        incident_id=request.incident_id,
        training_set=training_set,
        about=_registration(
            spec,
            settings,
            request,
            training_set,
            fitted=fitted,
            importances=importances,
            profile=profile,
        ),
    )
    log.info("registered %s version %s from run %s", spec.model, found.number, found.run_id)
    return _candidate(spec, settings, request, training_set, found)


def permutation_importances(spec: ModelSpec, pipeline: Any, duel: pa.Table) -> dict[str, float]:
    """Give what the metric loses when one feature is shuffled, on unseen rows; at least 0.

    Empty where the rows cannot carry the metric, and where the model is served elsewhere: nobody
    here can ask it what it would say of other rows.
    """
    if spec.predictions is not None:
        return {}
    generator = np.random.default_rng(spec.training.seed)
    some = duel.take(generator.permutation(duel.num_rows)[:IMPORTANCE_ROWS])
    known = some.column(LABEL).to_numpy()
    if len(np.unique(known)) < 2:
        return {}
    base = metrics.value(spec.gate.metric, known, scoring.predict(spec, pipeline, some))
    frame = feature_frame(spec, some)
    importances = {}
    for name in spec.features.names:
        shuffled = frame.copy()
        shuffled[name] = frame[name].to_numpy()[generator.permutation(len(frame))]
        value = metrics.value(
            spec.gate.metric, known, scoring.predict_frame(spec, pipeline, shuffled)
        )
        importances[name] = max(0.0, base - value)
    return importances


def build_profile(
    spec: ModelSpec,
    training: pa.Table,
    *,
    scored: tuple[pa.Table, metrics.Floats | None],
    start: dt.datetime,
    end: dt.datetime,
) -> ReferenceProfile:
    """Profile the reference in windows of a partition's length; predictions are a column more.

    Rows go in by their time: how alike neighbours are is read off them. A model is surer of rows
    that it learned from than of any to come, so the predictions are those of rows that the
    predicting pipeline had not seen. Where there are none, predictions are not profiled.

    Parameters
    ----------
    training : Table
        All rows to learn from.
    scored : (Table, ndarray of shape (n_rows,) or (n_rows, n_classes))
        Rows, and predictions as `estimator.Fitted.unseen` gives them.
    """
    time = spec.source.event_time
    table = training.select([*spec.features.names, time]).sort_by(time)
    numeric, categorical = list(spec.features.numeric), list(spec.features.categorical)
    predictions = _unseen_predictions(spec, *scored)
    if predictions is not None:
        (categorical if spec.label.task == "multiclass" else numeric).append(SCORE)
    else:
        log.warning("%s: no fold predicted a row: predictions are not watched", spec.model)
    windows: list[pa.Table] = []
    starts: list[dt.datetime] = []
    ends: list[dt.datetime] = []
    while end > start and len(windows) < spec.drift.max_history_windows:
        begin = spec.partitions.step(end, -1)
        window = between(spec, table, begin, end)
        if window.num_rows and begin >= start:
            windows.insert(0, window)
            starts.insert(0, begin)
            ends.insert(0, end)
        end = begin
    apart = {}
    if predictions is not None:
        cut = zip(starts, ends, strict=True)
        apart[SCORE] = [between(spec, predictions, *one) for one in cut] or [predictions]
    return ReferenceProfile.build(
        windows or [table], numeric=numeric, categorical=categorical, starts=starts, apart=apart
    )


def _unseen_predictions(
    spec: ModelSpec, rows: pa.Table, scores: metrics.Floats | None
) -> pa.Table | None:
    """Give event time and prediction of the rows that have one, by time; None without any."""
    if scores is None:
        return None
    is_known = np.isfinite(scores).reshape(len(scores), -1).all(axis=1)
    if not is_known.any():
        return None
    times = rows.select([spec.source.event_time]).filter(pa.array(is_known))
    column = scoring.score_column(spec, scores[is_known])
    return times.append_column(SCORE, column).sort_by(spec.source.event_time)


def _registration(
    spec: ModelSpec,
    settings: Settings,
    request: RetrainRequest,
    training_set: TrainingSet,
    *,
    fitted: estimator.Fitted,
    importances: dict[str, float],
    profile: ReferenceProfile,
) -> versions.Registration:
    """Say what a candidate is registered with: where it comes from, and what was found out."""
    lineage = {
        "retraining.data_sha256": training_set.sha256,
        "retraining.spec_sha256": sha256(json_bytes(spec)),
        "retraining.git_commit": git_commit(settings),
    }
    if spec.features.service:
        lineage[versions.SERVICE_TAG] = spec.features.service
    metric = spec.gate.metric
    files = {
        shelf.PROFILE_ARTIFACT: profile.to_bytes(),
        shelf.IMPORTANCES_ARTIFACT: json_bytes(importances),
        shelf.SPEC_ARTIFACT: json_bytes(spec),
        shelf.ENVIRONMENT_ARTIFACT: ("\n".join(environment()) + "\n").encode(),
        shelf.TRAINING_SET_ARTIFACT: json_bytes(training_set),
    }
    if spec.training.search:
        trials = [
            trial.params | {metric: trial.mean if np.isfinite(trial.mean) else None}
            for trial in fitted.trials
        ]
        files[shelf.SEARCH_ARTIFACT] = json_bytes(trials)
    drift_report = shelf.key_of(DriftReport, spec.model, request.batch.partition)
    return versions.Registration(
        run_name=f"retrain {request.batch.partition}",
        run_tags={
            **lineage,
            "retraining.kind": "retrain",
            "retraining.trigger": request.trigger,
            "retraining.reason": request.reason,
            "retraining.partition": request.batch.partition,
        },
        version_tags={
            **lineage,
            **(
                {versions.ADOPTED_TAG: training_set.adopted_from}
                if training_set.adopted_from
                else {}
            ),
            versions.LEARNED_TAG: own_features.learned_features(spec).model_dump_json(),
            "retraining.drift_report": drift_report,
        },
        params={
            "estimator": _origin(spec, training_set),
            "seed": spec.training.seed,
            "training_start": training_set.training_start.isoformat(),
            "training_end": training_set.training_end.isoformat(),
            "window": spec.training.window,
            **{f"model.{name}": value for name, value in fitted.best.params.items()},
        },
        metrics={
            "training_rows": training_set.training_rows,
            "duel_rows": training_set.duel_rows,
            f"cv_mean.{metric}": fitted.best.mean if np.isfinite(fitted.best.mean) else None,
            **{f"importance.{name}": value for name, value in importances.items()},
        },
        series={
            f"cv.{metric}": {
                number: value
                for number, value in enumerate(fitted.best.folds, 1)
                if np.isfinite(value)
            }
        },
        files=files,
        data_source=Storage.of(settings).url_of(shelf.joined_key(spec.model)),
        data_sha256=training_set.sha256,
    )


def _origin(spec: ModelSpec, training_set: TrainingSet) -> str:
    if training_set.adopted_from:
        return f"adopted from {training_set.adopted_from}"
    if spec.predictions is None:
        return spec.training.estimator
    return f"served elsewhere, predictions in the column {spec.predictions.column}"


def _candidate(
    spec: ModelSpec,
    settings: Settings,
    request: RetrainRequest,
    training_set: TrainingSet,
    found: versions.Version,
) -> Candidate:
    """Describe a registered version; its digest is that of its predictions on the duel's rows."""
    storage = Storage.of(settings)
    learned = versions.learned_features(spec, settings, found)  # others, if an old run is resumed
    rows = duel_rows(spec, storage, training_set)
    own, rows = own_features.rows_for(spec, settings, learned, rows, version=found.number)
    scores = versions.score(own, settings, found, rows)
    candidate = Candidate(
        incident_id=request.incident_id,
        model=spec.model,
        version=found.number,
        run_id=found.run_id,
        training_set=training_set,
        digest=digest(scores),
    )
    server.set_tags(spec, settings, found.number, {versions.DIGEST_TAG: candidate.digest})
    shelf.keep(storage, candidate)
    return candidate


def digest(scores: metrics.Floats) -> str:
    """Give the digest of a model: that of its predictions, rounded to 9 decimals."""
    return sha256((np.round(scores, 9) + 0.0).tobytes())  # -0.0 is 0.0


def environment() -> list[str]:
    """Give Python and every installed distribution as ``name==version``, sorted."""
    about = [found.metadata for found in distributions()]  # read anew at each access
    installed = {f"{found['Name'].lower()}=={found['Version']}" for found in about}
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
