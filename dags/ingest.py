"""
### Ingest: from a landed file to features

**Starts** once per partition, when its window has passed; by hand for one partition (form:
`partition`); as a backfill for many.
**Does**: lets the results of the model's queries land, if it has any; waits for the files, holds
them against the Great Expectations suites, quarantines bad rows, publishes the good ones with their
feature tables, and materializes the features in Feast's online store.
**Emits** `<model>.validated_batch` and `<model>.features`, both with the partition; the latter
starts the monitor.

**When it fails**: `publish_batch` is red if the batch was refused. Nothing was published and the
last good data is still in force. Deliver a corrected file and clear the run, or mend the suite, or
say how to read the file, in `<model>__replay_quarantine`. A batch that was published before is
recognized and skipped.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, CronPartitionTimetable, Param, task
from retraining_provider.context import current_batch
from retraining_provider.defaults import task_defaults
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.links import DataDocsLink
from retraining_provider.operators.snapshot import SnapshotOperator
from retraining_provider.publishing import publish_validated
from retraining_provider.sensors.landing import LandingSensor

from include.retraining.names import dag_id
from include.retraining.spec import ModelSpec, load_specs


def ingest(spec: ModelSpec) -> DAG:
    """Give the ingest DAG of one model."""
    parts = spec.partitions

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
            from include.retraining.data.validation import validate_batch
            from include.retraining.storage import Storage

            storage = Storage.of(RetrainingHook().settings())
            return validate_batch(spec, storage, current_batch(spec)).model_dump(mode="json")

        report = validate_batch()
        report.operator.operator_extra_links = [DataDocsLink()]

        if spec.source.queries:
            SnapshotOperator(task_id="snapshot_source", spec=spec) >> wait_for_landing
        wait_for_landing >> report
        publish_validated(spec, report)
    if parts.last:
        # set last: a task would inherit it, and a run by hand after that day would be without tasks
        dag.end_date = parts.last + parts.length
    return dag


for spec in load_specs().specs:
    ingest(spec)
