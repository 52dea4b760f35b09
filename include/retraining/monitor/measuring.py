"""Makes a `DriftReport` of a batch against the champion, then its `Verdict`; keeps both for people.

A batch is judged once: the same content gives the verdict it got, whatever champion there is by
now.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from include.retraining.drift import trend
from include.retraining.drift.measure import measure_columns, overall_state
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.errors import NotPublished
from include.retraining.features import feature_sets as features
from include.retraining.learning import rows as feedback
from include.retraining.monitor import verdict as verdicts
from include.retraining.names import incident_key, storage_key
from include.retraining.records import (
    BatchRef,
    DriftReport,
    Performance,
    PublishedReport,
    TrainingSet,
    Verdict,
)
from include.retraining.registry import succession as registry
from include.retraining.retrain import incident
from include.retraining.retrain.candidate import (
    IMPORTANCES_ARTIFACT,
    SCORE,
    oldest_row,
    split_times,
)
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

log = logging.getLogger(__name__)

PICTURED_WINDOWS = 11
MEASURED = (  # of each column, logged to MLflow
    "distance", "p_value", "threshold", "shift", "shift_threshold", "missing_change",
    "missing_threshold",
)  # fmt: skip


def measure_drift(
    spec: ModelSpec, settings: Settings, batch: BatchRef, *, anew: bool = False
) -> DriftReport:
    """Measure one batch: its columns, the champion's predictions, performance on mature labels.

    Where labels take longer to mature than a batch is long, performance is that on the earlier rows
    whose labels have matured meanwhile.

    Parameters
    ----------
    spec, settings, batch : ModelSpec, Settings, BatchRef
        The model, where everything is, and the batch.
    anew : bool
        Measure again although this very content has its verdict.

    Raises
    ------
    NotPublished
        The batch has no features.
    ScoringError
        The champion cannot score the batch.
    """
    storage = Storage.of(settings)
    found = features.feature_set(spec, storage, batch)
    done = report_of(spec, storage, batch.partition)
    if (
        not anew
        and done
        and done.content_sha256 == found.sha256
        and verdict_of(spec, storage, batch.partition)
    ):
        log.info(
            "%s %s: this content was judged before; its report stands", spec.model, batch.partition
        )
        return done
    rows = storage.read_table(found.key)
    known = feedback.labels(spec, rows, known_at=batch.end)
    report = DriftReport(
        batch=batch,
        content_sha256=found.sha256,
        champion_version=None,
        state="uncalibrated",
        rows=rows.num_rows,
        labelled_rows=int((~np.isnan(known)).sum()),
        trainable_rows=None,
    )
    champion = registry.champion(spec, settings)
    if champion is None:
        report = report.model_copy(update={"trainable_rows": _trainable_rows(spec, storage, batch)})
    else:
        scores = feedback.score(spec, settings, champion.number, rows)
        profile = ReferenceProfile.from_bytes(registry.profile_bytes(spec, settings, champion))
        report = hold_against(
            spec,
            report,
            rows,
            known=known,
            scores=scores,
            profile=profile,
            importances=_importances(settings, champion),
            trained_until=champion.trained_until,
        ).model_copy(
            update={
                "champion_version": champion.number,
                "promise": champion.promise,
                **_growth(spec, storage, batch),
            }
        )
        if dt.timedelta(days=spec.label.maturity_days) >= spec.partitions.length:
            matured = _matured_performance(spec, settings, batch, champion)
            report = report.model_copy(update={"performance": matured})
    storage.write_json(_key(spec, batch.partition, "drift.json"), report)
    return report


def _matured_performance(
    spec: ModelSpec, settings: Settings, batch: BatchRef, champion: registry.Version
) -> Performance | None:
    """Measure the champion on earlier rows whose labels have matured within this batch's window.

    Where labels take longer than a batch, its own rows have none yet. Rows that the champion could
    have learned from are left out.
    """
    storage = Storage.of(settings)
    maturity = dt.timedelta(days=spec.label.maturity_days)
    start, end = batch.start - maturity, batch.end - maturity
    start = max(start, champion.trained_until or start)
    tables = []
    for earlier in features.published_partitions(spec, storage):
        if earlier.start >= end or earlier.end <= start:
            continue
        try:
            rows = storage.read_table(features.feature_set(spec, storage, earlier).key)
        except NotPublished:  # its features are still being made
            continue
        tables.append(feedback.between(spec, rows, start, end))
    if not tables:
        return None
    rows = pa.concat_tables(tables, promote_options="permissive")
    known = feedback.labels(spec, rows, known_at=batch.end)
    return feedback.performance(spec, known, feedback.score(spec, settings, champion.number, rows))


def hold_against(
    spec: ModelSpec,
    report: DriftReport,
    rows: pa.Table,
    *,
    known: np.ndarray[Any, Any],
    scores: np.ndarray[Any, Any],
    profile: ReferenceProfile,
    importances: Mapping[str, float],
    trained_until: dt.datetime | None,
) -> DriftReport:
    """Add to a report how rows and scores differ from a champion's reference, and how it did.

    Parameters
    ----------
    spec, report : ModelSpec, DriftReport
        The model, and the report of the batch so far.
    rows : Table
        The batch with its features.
    known, scores : ndarray of shape (n_rows,)
        Label, NaN where it is not known, and the champion's prediction, of each row.
    profile, importances, trained_until
        Of the champion.
    """
    measured = measure_columns(
        profile,
        rows.select(list(spec.features.names)).append_column(
            SCORE, feedback.score_column(spec, scores)
        ),
        policy=spec.drift,
        importances=importances,
        at=report.batch.start,
    )
    columns = tuple(feature for feature in measured if feature.name != SCORE)
    age = report.batch.end - trained_until if trained_until else None
    return report.model_copy(
        update={
            "state": overall_state(columns),
            "features": columns,
            "score": next((feature for feature in measured if feature.name == SCORE), None),
            "performance": feedback.performance(spec, known, scores),
            "champion_age_days": age / dt.timedelta(days=1) if age else None,
        }
    )


def judge_batch(
    spec: ModelSpec, settings: Settings, report: DriftReport, *, anew: bool = False
) -> Verdict:
    """Turn a report into the one verdict about its batch, and keep it."""
    storage = Storage.of(settings)
    batch = report.batch
    done = verdict_of(spec, storage, batch.partition)
    if not anew and done is not None and done.content_sha256 == report.content_sha256:
        return done
    _measure_unjudged(spec, settings, report)
    earlier = _before(spec, storage, report, spec.drift.max_history_windows)
    verdict = verdicts.judge(
        spec, report, earlier=earlier, hold=incident.hold_reason(spec, storage, batch)
    )
    storage.write_json(_key(spec, batch.partition, "verdict.json"), verdict)
    log.info(
        "%s %s: %s (%s)", spec.model, batch.partition, verdict.outcome, "; ".join(verdict.reasons)
    )
    return verdict


def publish_report(
    spec: ModelSpec, settings: Settings, report: DriftReport, verdict: Verdict
) -> PublishedReport:
    """Log the measurement to MLflow; unless all is well, with a picture and Evidently's page."""
    pages: dict[str, bytes] = {}
    if verdict.outcome != "ignore" and report.champion_version is not None:
        from include.retraining.telling.drift_pages import evidently_html, picture

        storage = Storage.of(settings)
        pages["drift.png"] = picture([*_before(spec, storage, report, PICTURED_WINDOWS), report])
        champion = registry.version(spec, settings, report.champion_version)
        training = storage.read_table(
            f"{incident_key(spec.model, champion.incident_id)}/training.parquet",
            columns=spec.features.names,
        )
        current = storage.read_table(
            features.feature_set(spec, storage, report.batch).key, columns=spec.features.names
        )
        pages["drift.html"] = evidently_html(training.to_pandas(), current.to_pandas())
        for name, content in pages.items():
            storage.write(_key(spec, report.batch.partition, name), content)
    experiment, run = _log_to_mlflow(spec, settings, report, verdict, pages)
    return PublishedReport(
        batch=report.batch,
        experiment_id=experiment,
        run_id=run,
        pages=tuple(_key(spec, report.batch.partition, name) for name in pages),
    )


def report_of(spec: ModelSpec, storage: Storage, partition: str) -> DriftReport | None:
    """Give the stored report of a partition, or None."""
    return storage.read_record(_key(spec, partition, "drift.json"), DriftReport)


def verdict_of(spec: ModelSpec, storage: Storage, partition: str) -> Verdict | None:
    """Give the stored verdict of a partition, or None."""
    return storage.read_record(_key(spec, partition, "verdict.json"), Verdict)


def _before(
    spec: ModelSpec, storage: Storage, report: DriftReport, windows: int
) -> list[DriftReport]:
    """Give the stored reports of the windows before a report's, oldest first."""
    starts = (report.batch.start - back * spec.partitions.length for back in range(windows, 0, -1))
    found = (report_of(spec, storage, spec.partition_key(start)) for start in starts)
    return [earlier for earlier in found if earlier is not None]


def _measure_unjudged(spec: ModelSpec, settings: Settings, report: DriftReport) -> None:
    """Measure the windows right before that have features but no report yet.

    Monitors of neighbouring batches may run at once and in any order; whether drift persists, or
    grows, must not depend on that.
    """
    storage = Storage.of(settings)
    if report.champion_version is None:
        return
    for back in range(1, max(verdicts.LOOK_BACK, trend.WINDOWS)):
        start = report.batch.start - back * spec.partitions.length
        if start < spec.partitions.first:
            return
        batch = spec.batch_ref(spec.partition_key(start))
        if report_of(spec, storage, batch.partition) is None:
            with contextlib.suppress(NotPublished):
                measure_drift(spec, settings, batch)


def _trainable_rows(
    spec: ModelSpec, storage: Storage, batch: BatchRef, *, since: dt.datetime | None = None
) -> int:
    """Count the rows a retrain about this batch could learn from.

    With `since`, only those whose labels were not yet mature then.
    """
    duel_start, _ = split_times(spec, batch)
    oldest = oldest_row(spec, duel_start)
    if since is not None:
        immature = since - dt.timedelta(days=spec.label.maturity_days)
        oldest = max(immature, oldest) if oldest else immature
    count = 0
    for earlier in features.published_partitions(spec, storage):
        if oldest is not None and earlier.end <= oldest:
            continue
        if earlier.start < duel_start and earlier.start <= batch.start:
            report = features.require_published(spec, storage, earlier.partition)
            rows = storage.read_table(
                report.files["batch"], columns=[spec.source.event_time, spec.label.column]
            )
            rows = feedback.between(spec, rows, oldest)
            known = feedback.labels(spec, rows, known_at=duel_start)
            count += int((~np.isnan(known)).sum())
    return count


def _growth(spec: ModelSpec, storage: Storage, batch: BatchRef) -> dict[str, int]:
    """Give how many rows the last retrain learned from, and how many there are beside them now."""
    if spec.retrain.growth is None:
        return {}
    for claim in reversed(incident.claims(spec, storage)):
        folder = incident_key(spec.model, claim.request.incident_id)
        last = storage.read_record(f"{folder}/training_set.json", TrainingSet)
        if last is not None and claim.request.batch.end <= batch.end:
            new = _trainable_rows(spec, storage, batch, since=last.training_end)
            return {"learned_rows": last.training_rows, "new_rows": new}
    return {}


def _importances(settings: Settings, champion: registry.Version) -> dict[str, float]:
    import mlflow

    registry.client(settings)
    path = mlflow.artifacts.download_artifacts(
        run_id=champion.run_id, artifact_path=IMPORTANCES_ARTIFACT
    )
    found: dict[str, float] = json.loads(Path(path).read_text())
    return found


def _log_to_mlflow(
    spec: ModelSpec,
    settings: Settings,
    report: DriftReport,
    verdict: Verdict,
    pages: Mapping[str, bytes],
) -> tuple[str, str]:
    """One run per judged content, which a killed attempt leaves to be finished; give its ids."""
    import mlflow

    api = registry.client(settings)
    experiment = registry.experiment_id(spec, settings)
    tags = {
        "retraining.kind": "monitor",
        "retraining.partition": report.batch.partition,
        "retraining.content_sha256": report.content_sha256,
        "retraining.verdict": verdict.outcome,
        "retraining.reasons": "; ".join(verdict.reasons)[:4000],
        "retraining.champion_version": str(report.champion_version),
    }
    where = " and ".join(
        f"tags.`{name}` = '{tags[name]}'"
        for name in (
            "retraining.content_sha256",
            "retraining.verdict",
            "retraining.champion_version",
        )
    )
    found = api.search_runs([experiment], where, max_results=1)
    if found and found[0].info.status == "FINISHED":
        return experiment, str(found[0].info.run_id)
    numbers = {
        f"{field}.{feature.name}": value
        for feature in report.columns
        for field in MEASURED
        if (value := getattr(feature, field)) is not None
    }
    if report.performance:
        numbers[f"realised.{report.performance.metric}"] = report.performance.value
    with mlflow.start_run(
        run_id=found[0].info.run_id if found else None,
        experiment_id=None if found else experiment,
        run_name=None if found else f"monitor {report.batch.partition}",
        tags=tags,
    ) as run:
        mlflow.log_metrics(numbers)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "drift_report.json").write_text(report.model_dump_json(indent=2))
            for name, content in pages.items():
                Path(folder, name).write_bytes(content)
            mlflow.log_artifacts(folder)
    return experiment, str(run.info.run_id)


def _key(spec: ModelSpec, partition: str, name: str) -> str:
    return f"{storage_key(spec.model, 'reports', partition)}/{name}"
