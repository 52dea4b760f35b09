"""
### Ingest: from a landed file to features

**Starts** once per partition, when its window has passed; by hand for one partition (form:
`partition`); as a backfill for many.
**Does**: waits for the files, holds them against the Great Expectations suites, quarantines bad
rows, publishes the good ones with their feature tables, and materializes the features in Feast's
online store.
**Emits** `<model>.validated_batch` and `<model>.features`, both with the partition; the latter
starts the monitor.

**When it fails**: `publish_batch` is red if the batch was refused. Nothing was published and the
last good data is still in force. Deliver a corrected file and clear the run. A batch that was
published before is recognized and skipped.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, Asset, CronPartitionTimetable, Metadata, Param, task
from airflow.sdk.exceptions import AirflowSkipException
from retraining_provider.context import current_batch
from retraining_provider.defaults import task_defaults
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.operators.alert import AlertOperator
from retraining_provider.sensors.landing import LandingSensor

from include.retraining.names import asset_name, dag_id
from include.retraining.spec import ModelSpec, load_specs


def ingest(spec: ModelSpec) -> DAG:
    """Give the ingest DAG of one model."""
    parts = spec.partitions
    validated_batch = Asset(asset_name(spec.model, "validated_batch"))
    features = Asset(asset_name(spec.model, "features"))

    with DAG(
        dag_id(spec.model, "ingest"),
        description=f"Validate, quarantine, publish and materialize the batches of {spec.model}",
        doc_md=__doc__,
        schedule=CronPartitionTimetable(
            parts.cron, timezone="UTC", run_offset=-1, key_format=parts.key_format
        ),
        start_date=parts.first + parts.length,
        catchup=parts.catch_up,
        max_active_runs=4,
        default_args=task_defaults(spec),
        params={
            "partition": Param(
                None,
                type=["null", "string"],
                title="Partition",
                description="Only for a run by hand, for example "
                f"{spec.partition_key(parts.first)}.",
            )
        },
        tags=["retraining", spec.model],
    ) as dag:
        wait_for_landing = LandingSensor(
            task_id="wait_for_landing",
            spec=spec,
            # a file that lands within moments can resume the task before the executor has reported
            # that it was deferred; Airflow takes that for a failure, and one more look mends it
            retries=10,
            retry_delay=dt.timedelta(seconds=1),
            retry_exponential_backoff=0,
        )

        @task
        def validate_batch() -> object:
            from include.retraining.storage import Storage
            from include.retraining.validation import validate_batch

            storage = Storage.of(RetrainingHook().settings())
            return validate_batch(spec, storage, current_batch(spec)).model_dump(mode="json")

        @task(outlets=[validated_batch])
        def publish_batch(report: object, *, outlet_events=None):
            from include.retraining.features import publish_batch
            from include.retraining.records import ValidationReport
            from include.retraining.storage import Storage

            found = ValidationReport.model_validate(report)
            if not publish_batch(spec, Storage.of(RetrainingHook().settings()), found):
                raise AirflowSkipException("this very content is in force already: nothing to do")
            outlet_events[validated_batch].add_partitions(found.batch.partition)
            yield Metadata(
                validated_batch, {"rows": found.rows_good, "quarantined": found.rows_quarantined}
            )

        @task(outlets=[features])
        def materialize_features(*, outlet_events=None) -> object:
            from include.retraining.features import materialize, refresh_later

            settings, batch = RetrainingHook().settings(), current_batch(spec)
            found = materialize(spec, settings, batch)
            later = [one.batch.partition for one in refresh_later(spec, settings, batch)]
            outlet_events[features].add_partitions([batch.partition, *later])
            outlet_events[features].extra = {"rows": found.rows, "sha256": found.sha256}
            return found.model_dump(mode="json")

        report = validate_batch()
        publish = publish_batch(report)
        alert_validation = AlertOperator(
            task_id="alert_validation", spec=spec, subject="validation", record=report
        )

        wait_for_landing >> report >> [publish, alert_validation]
        publish >> materialize_features()
    if parts.last:
        # set last: a task would inherit it, and a run by hand after that day would be without tasks
        dag.end_date = parts.last + parts.length
    return dag


for spec in load_specs().specs:
    ingest(spec)
