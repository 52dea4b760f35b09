"""The tasks after a validation, the same whether its files have just landed or were replayed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from airflow.sdk import Asset, XComArg
from airflow.sdk.exceptions import AirflowSkipException

from include.retraining.names import asset_name
from include.retraining.records import FeatureSet, SkewReport, Sweep, ValidationReport
from retraining_provider.context import Run
from retraining_provider.defaults import BACKGROUND, DATA, ROWS
from retraining_provider.operators.alert import AlertOperator
from retraining_provider.operators.record import step

if TYPE_CHECKING:
    from include.retraining.spec import ModelSpec


def publish_batch(run: Run, report: ValidationReport) -> None:
    """Put the batch into force, in one commit; red where it was refused."""
    from include.retraining.data.publication import publish_batch
    from include.retraining.features.feature_sets import is_current

    is_new = publish_batch(run.spec, run.storage, report)
    if not is_new and is_current(run.spec, run.storage, report.batch):
        raise AirflowSkipException("this very content is in force already: nothing to do")
    rows = {"rows": report.rows_good, "quarantined": report.rows_quarantined}
    run.emit("validated_batch", partitions=(report.batch.partition,), **rows)


def materialize_features(run: Run) -> FeatureSet:
    """Join the batch's features, and hand them to the online store."""
    from include.retraining.features.feature_sets import materialize, refresh_later

    found = materialize(run.spec, run.settings, run.batch)
    later = refresh_later(run.spec, run.settings, run.batch)
    partitions = (run.batch.partition, *(one.batch.partition for one in later))
    run.emit("features", partitions=partitions, rows=found.rows, sha256=found.sha256)
    return found


def publish_validation_page(run: Run, report: ValidationReport) -> str | None:
    """Make the page about the validated batch."""
    from include.retraining.telling.validation_page import publish_page

    return publish_page(run.spec, run.storage, report)


def check_skew(run: Run) -> SkewReport:
    """Hold what the online store serves against what training would have seen."""
    from include.retraining.features.skew import check_skew

    return check_skew(run.spec, run.settings, run.batch)


def sweep_tables(run: Run) -> Sweep:
    """Remove what retention no longer keeps; once a day of hourly batches, or a week of others."""
    from include.retraining.data import retention
    from include.retraining.features.definitions import table_names
    from include.retraining.features.feature_sets import reach
    from include.retraining.retrain.training_set import pinned
    from include.retraining.telling.drift_report import remove_reports

    if not retention.is_due(run.spec, run.storage, run.batch):
        raise AirflowSkipException("not due with this batch")
    return retention.sweep(
        run.spec,
        run.storage,
        run.batch,
        feature_tables=table_names(run.spec),
        reach=reach(run.spec),
        pinned=pinned(run.spec, run.settings),
        forget=partial(remove_reports, run.spec, run.settings),
    )


def publish_validated(spec: ModelSpec, report: XComArg) -> None:
    """Add to the DAG at hand: publish the batch of a report, materialize its features, tell.

    :param spec: the model.
    :param report: the ValidationReport as JSON, from XCom.
    """
    validated_batch = Asset(asset_name(spec.model, "validated_batch"))
    features = Asset(asset_name(spec.model, "features"))

    published = step(spec, publish_batch, report, outlets=[validated_batch], **ROWS)
    joined = step(spec, materialize_features, outlets=[features], **ROWS)
    skew = step(spec, check_skew, **BACKGROUND)
    sweep = step(spec, sweep_tables, execution_timeout=DATA, **BACKGROUND)
    published >> joined >> [skew, sweep]
    # told at once: the page that the message links to is made last, in a backfill hours later
    AlertOperator(task_id="alert_validation", spec=spec, subject="validation", record=report)
    step(spec, publish_validation_page, report, **BACKGROUND)
    AlertOperator(task_id="alert_skew", spec=spec, subject="skew", record=skew)
