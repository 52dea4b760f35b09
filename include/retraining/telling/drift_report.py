"""Makes a `PublishedReport`: what was measured of a batch, in MLflow and as a page for people."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from include.retraining import shelf
from include.retraining.features import feature_sets, own_features
from include.retraining.monitor.measuring import reports_before
from include.retraining.records import (
    BatchRef,
    DriftReport,
    PublishedReport,
    TrainingSet,
    ValidationReport,
    Verdict,
)
from include.retraining.registry import server, versions
from include.retraining.retrain.training_set import training_rows
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling.drift_pages import (
    evidently_page,
    page_columns,
    picture,
    shared_script,
)

log = logging.getLogger(__name__)

PICTURED_WINDOWS = 11
MEASURED = ("distance", "threshold", "shift")  # of each column, logged to MLflow
SAME_TAGS = ("retraining.content_sha256", "retraining.verdict", "retraining.champion_version")
_ALARMING = ("retrain", "blocked", "broken_feed")


def publish_report(
    spec: ModelSpec, settings: Settings, report: DriftReport, verdict: Verdict
) -> PublishedReport:
    """Log the measurement to MLflow; if there is news, with a picture, and a page in storage.

    One run per judged content, which a killed attempt leaves to be finished. A page or a picture
    that cannot be made is logged; the report is published without.

    Notes
    -----
    There is something to look at where the verdict is not ``ignore`` and `is_news` of it, or where
    it comes to be ``retrain`` or ``blocked``. A drift that just goes on was shown before.
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
        experiment, run_id, told = done
        key = shelf.drift_page_key(spec.model, report.batch.partition)
        return PublishedReport(
            batch=report.batch,
            experiment_id=experiment,
            run_id=run_id,
            pages=(key,) if "retraining.page" in told else (),
        )
    files = {shelf.DRIFT_REPORT_ARTIFACT: report.model_dump_json(indent=2).encode()}
    storage, pages = Storage.of(settings), []
    if verdict.outcome != "ignore" and report.champion_version is not None:
        found = reports_before(spec, storage, report.batch, PICTURED_WINDOWS)
        before = [earlier for earlier in found.values() if earlier is not None]
        if _is_worth_a_look(storage, report, verdict, before[-1] if before else None):
            refused = _refused(storage, spec.model, [*found, report.batch.partition])
            drawn = _picture([*before, report], refused)
            if drawn is not None:
                files[shelf.PICTURE_ARTIFACT] = drawn
            page = _page(spec, settings, report, verdict)
            if page is not None:
                pages.append(page)
                tags["retraining.page"] = storage.url_of(page)
    with server.run_of(
        spec, settings, name=f"monitor {report.batch.partition}", tags=tags, same=SAME_TAGS
    ) as run:
        run.metrics(_metrics(report))
        run.files(files)
    return PublishedReport(
        batch=report.batch,
        experiment_id=run.experiment_id,
        run_id=run.run_id,
        pages=tuple(pages),
    )


def remove_reports(spec: ModelSpec, settings: Settings, partitions: Iterable[str]) -> None:
    """Delete what was logged to MLflow of the measurements of partitions."""
    for name in partitions:
        tags = {"retraining.kind": "monitor", "retraining.partition": name}
        server.remove_runs(spec, settings, tags)


# --- whether there is something to look at --------------------------------------------------------


def is_news(report: DriftReport, before: DriftReport | None) -> bool:
    """Give whether a report says what the one before it did not.

    Parameters
    ----------
    before : DriftReport or None
        Of the last batch that was measured before.

    Returns
    -------
    bool
        True where there is no report before, where the champion is another, or where a column
        drifted that had not. Drift that the model file declares as expected is no news.
    """
    if before is None or before.champion_version != report.champion_version:
        return True
    return bool(_drifted(report) - _drifted(before))


def _drifted(report: DriftReport) -> set[str]:
    return {column.name for column in report.columns if column.drifted and not column.expected}


def _is_worth_a_look(
    storage: Storage, report: DriftReport, verdict: Verdict, before: DriftReport | None
) -> bool:
    if before is None or is_news(report, before):
        return True
    if verdict.outcome not in _ALARMING:
        return False
    last = shelf.find(storage, Verdict, before.batch.model, before.batch.partition)
    return last is None or last.outcome not in _ALARMING


# --- picture and page -----------------------------------------------------------------------------


def _refused(storage: Storage, model: str, partitions: Iterable[str]) -> list[BatchRef]:
    """Give the batches whose last delivery was refused."""
    told = shelf.find_all(storage, ValidationReport, model, partitions)
    return [one.batch for one in told if one and one.status == "refused"]


def _picture(reports: list[DriftReport], refused: list[BatchRef]) -> bytes | None:
    try:
        return picture(reports, refused)
    except Exception:  # nobody should be without a report for want of its picture
        batch = reports[-1].batch
        log.exception("%s %s: no picture could be drawn", batch.model, batch.partition)
        return None


def _page(spec: ModelSpec, settings: Settings, report: DriftReport, verdict: Verdict) -> str | None:
    """Write the page of a batch; give its key, or None where there is none."""
    try:
        return _write_page(spec, settings, report, verdict)
    except Exception:  # nobody should be without a report for want of its page
        log.exception("%s %s: no page could be made", spec.model, report.batch.partition)
        return None


def _write_page(
    spec: ModelSpec, settings: Settings, report: DriftReport, verdict: Verdict
) -> str | None:
    storage = Storage.of(settings)
    assert report.champion_version is not None
    champion = versions.version(spec, settings, report.champion_version)
    training_set = shelf.find(storage, TrainingSet, spec.model, champion.incident_id)
    if training_set is None:
        log.info(
            "%s %s: no page, what version %s learned from is not known here",
            spec.model, report.batch.partition, champion.number,
        )  # fmt: skip
        return None
    learned = versions.learned_features(spec, settings, champion)
    own = own_features.own_spec(spec, learned)
    names = [name for name in page_columns(report) if name in own.features.names]
    found = feature_sets.feature_set(spec, storage, report.batch)
    if own is spec:
        rows = feature_sets.rows_of(spec, storage, found, names)
    else:
        rows = feature_sets.rows_of(spec, storage, found)
        own, rows = own_features.rows_for(spec, settings, learned, rows, version=champion.number)
        rows = rows.select(names)
    script, content = shared_script()
    page = evidently_page(
        report,
        verdict,
        training_rows(spec, storage, training_set, names),
        rows,
        script_url=shelf.shared_script_url(script),
    )
    if page is None:
        log.info(
            "%s %s: no page, Evidently can draw none of %s",
            spec.model, report.batch.partition, ", ".join(names),
        )  # fmt: skip
        return None
    if not storage.exists(shelf.shared_script_key(script)):  # do not send megabytes in vain
        storage.create(shelf.shared_script_key(script), content)
    key = shelf.drift_page_key(spec.model, report.batch.partition)
    storage.write(key, page)
    return key


# --- metrics --------------------------------------------------------------------------------------


def _metrics(report: DriftReport) -> dict[str, float | None]:
    values: dict[str, float | None] = {
        f"{field}.{column.name}": getattr(column, field)
        for column in report.columns
        for field in MEASURED
    }
    if report.performance:
        values[f"realised.{report.performance.metric}"] = report.performance.value
    return values
