"""Makes a `PublishedReport`: what was measured of a batch, in MLflow and as a page for people."""

from __future__ import annotations

from include.retraining import shelf
from include.retraining.features import feature_sets
from include.retraining.monitor.measuring import reports_before
from include.retraining.records import DriftReport, PublishedReport, TrainingSet, Verdict
from include.retraining.registry import server, versions
from include.retraining.retrain.training_set import training_rows
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.drift_pages import evidently_html, picture

PICTURED_WINDOWS = 11
MEASURED = (  # of each column, logged to MLflow
    "distance", "p_value", "threshold", "shift", "shift_threshold", "missing_change",
    "missing_threshold",
)  # fmt: skip
SAME_TAGS = ("retraining.content_sha256", "retraining.verdict", "retraining.champion_version")


def publish_report(
    spec: ModelSpec, settings: Settings, report: DriftReport, verdict: Verdict
) -> PublishedReport:
    """Log the measurement to MLflow; unless all is well, with a picture and Evidently's page.

    One run per judged content, which a killed attempt leaves to be finished.
    """
    tags = {
        "retraining.kind": "monitor",
        "retraining.partition": report.batch.partition,
        "retraining.content_sha256": report.content_sha256,
        "retraining.verdict": verdict.outcome,
        "retraining.reasons": "; ".join(verdict.reasons)[:4000],
        "retraining.champion_version": str(report.champion_version),
    }
    done = server.finished_run(spec, settings, {name: tags[name] for name in SAME_TAGS})
    if done is not None:
        experiment, run_id = done
        return PublishedReport(
            batch=report.batch, experiment_id=experiment, run_id=run_id, pages=()
        )
    files = {shelf.DRIFT_REPORT_ARTIFACT: report.model_dump_json(indent=2).encode()}
    storage, pages = Storage.of(settings), []
    if verdict.outcome != "ignore" and report.champion_version is not None:
        before = reports_before(spec, storage, report.batch, PICTURED_WINDOWS)
        files[shelf.PICTURE_ARTIFACT] = picture([*filter(None, before.values()), report])
        page = _page(spec, settings, report)
        if page is not None:
            pages.append(shelf.drift_page_key(spec.model, report.batch.partition))
            storage.write(pages[0], page)
            tags["retraining.page"] = storage.url_of(pages[0])
    with server.run_of(
        spec, settings, name=f"monitor {report.batch.partition}", tags=tags, same=SAME_TAGS
    ) as run:
        run.metrics(
            {
                f"{field}.{feature.name}": getattr(feature, field)
                for feature in report.columns
                for field in MEASURED
            }
        )
        if report.performance:
            run.metrics({f"realised.{report.performance.metric}": report.performance.value})
        run.files(files)
    return PublishedReport(
        batch=report.batch,
        experiment_id=run.experiment_id,
        run_id=run.run_id,
        pages=tuple(pages),
    )


def _page(spec: ModelSpec, settings: Settings, report: DriftReport) -> bytes | None:
    storage = Storage.of(settings)
    assert report.champion_version is not None
    champion = versions.version(spec, settings, report.champion_version)
    training_set = shelf.find(storage, TrainingSet, spec.model, champion.incident_id)
    if training_set is None:
        return None
    names = spec.features.names
    reference = training_rows(spec, storage, training_set, names)
    found = feature_sets.feature_set(spec, storage, report.batch)
    current = feature_sets.rows_of(spec, storage, found, names)
    return evidently_html(reference.to_pandas(), current.to_pandas())
