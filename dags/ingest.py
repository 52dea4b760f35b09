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
last good data is still in force. Then do one of these:

- deliver a corrected file and clear the run;
- mend the suite, or say how to read the file, in `<model>__replay_quarantine`.

A batch that was published before is recognized and skipped.
"""

from __future__ import annotations

from airflow.sdk import DAG
from retraining_provider import forms
from retraining_provider.context import Run
from retraining_provider.defaults import ROWS, open_runs
from retraining_provider.generation import generate, stage_dag
from retraining_provider.links import DataDocsLink
from retraining_provider.operators.record import step
from retraining_provider.publishing import publish_validated
from retraining_provider.sensors.landing import wait_for_landing
from retraining_provider.timetables import LONG_AGO, partition_timetable

from include.retraining.records import ValidationReport
from include.retraining.spec import ModelSpec


def validate_batch(run: Run) -> ValidationReport:
    """Hold the batch against its suites; say where every row went."""
    from include.retraining.data.validation import validate_batch

    return validate_batch(run.spec, run.storage, run.batch)


def ingest(spec: ModelSpec) -> DAG:
    """Give the ingest DAG of one model."""
    with stage_dag(
        spec,
        "ingest",
        description=f"Validate, quarantine, publish and materialize the batches of {spec.model}",
        doc_md=__doc__,
        schedule=partition_timetable(spec),
        start_date=LONG_AGO,
        catchup=spec.partitions.catch_up,
        max_active_runs=open_runs(spec),
        form=forms.of_partition(spec),
    ) as dag:
        report = step(spec, validate_batch, links=[DataDocsLink()], **ROWS)

        wait_for_landing(spec) >> report
        publish_validated(spec, report)
    return dag


globals().update(generate(ingest))
