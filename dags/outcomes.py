"""
### Outcomes: what became of rows that were predicted before

Only for models with `label.source`.

**Starts** once per partition of outcomes, when its window has passed; by hand for one partition
(form: `partition`); as a backfill for many.

**Does**: lets the result of the model's query land, if it has one; waits for the file, holds it
against the contract (and the suite `<model>.outcomes.json`, if there is one), quarantines bad rows
and publishes the good ones. Then it asks the monitor to judge those batches again that were judged
without outcomes which are there now.

**Emits** `<model>.outcomes`.

**When it fails**: `publish_outcomes` is red if the delivery was refused; deliver a corrected file
(an empty one, if there were no outcomes) and clear the run. Until then nothing is decided that
these outcomes have a say in.

**When they were wrong**: deliver the partition again. What is decided from then on counts the new
ones; a batch that was judged keeps its verdict, unless `<model>__monitor` runs for it with
`measure anew`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset
from retraining_provider import forms
from retraining_provider.context import Run
from retraining_provider.defaults import BACKGROUND, ROWS, open_runs
from retraining_provider.generation import generate, stage_dag
from retraining_provider.links import DataDocsLink
from retraining_provider.operators.alert import AlertOperator
from retraining_provider.operators.record import step
from retraining_provider.publishing import publish_validation_page
from retraining_provider.sensors.landing import wait_for_landing
from retraining_provider.timetables import LONG_AGO, partition_timetable

from include.retraining.names import asset_name, dag_id, model_of_feed
from include.retraining.records import BatchRef, ValidationReport
from include.retraining.spec import ModelSpec

log = logging.getLogger(__name__)

JUDGED_AT_ONCE = 500  # Airflow expands over core.max_map_length, 1,024, at most


def validate_outcomes(run: Run) -> ValidationReport:
    """Hold the outcomes against what is promised of them; say where every row went."""
    from include.retraining.data.validation import validate_batch

    return validate_batch(run.spec, run.storage, run.batch)


def publish_outcomes(run: Run, report: ValidationReport) -> None:
    """Put the outcomes into force, in one commit; red where they were refused."""
    from include.retraining.data.publication import publish_batch, rows_in_force

    partition = report.batch.partition
    known = partition in rows_in_force(run.spec, run.storage).parts
    if publish_batch(run.spec, run.storage, report) and known:
        log.warning(
            "these outcomes of %s replace others. What is decided from now on counts them; batches "
            "that were judged by the others keep their verdicts. To have one judged by these, run "
            "%s__monitor for it with 'measure anew'", partition, model_of_feed(run.spec.model),
        )  # fmt: skip


def runs_of_the_monitor(waiting: Sequence[BatchRef], partition: str) -> list[dict[str, object]]:
    """Give the runs of the monitor that a partition of outcomes asks for, the oldest batch first.

    Of very many batches only so many as Airflow takes at once.
    """
    if len(waiting) > JUDGED_AT_ONCE:
        log.warning(
            "%s batches wait for these outcomes, from %s to %s; the oldest %s are judged now. The "
            "others are when the next outcomes have come, or find_waiting is cleared once these "
            "are judged", f"{len(waiting):,}", waiting[0].partition, waiting[-1].partition,
            JUDGED_AT_ONCE,
        )  # fmt: skip
    return [
        {
            "trigger_run_id": f"outcomes__{batch.partition}__{partition}",
            "conf": {"partition": batch.partition},
        }
        for batch in waiting[:JUDGED_AT_ONCE]
    ]


def outcomes(spec: ModelSpec) -> DAG | None:
    """Give the DAG of one model's outcomes; None if they come with its rows."""
    feed = spec.outcomes
    if feed is None:
        return None

    def find_waiting(run: Run) -> list[dict[str, object]]:
        """Give a run of the monitor for each batch that these outcomes complete, oldest first."""
        from include.retraining.monitor.measuring import waiting_batches

        waiting = waiting_batches(spec, run.storage, since=run.batch.start)
        return runs_of_the_monitor(waiting, run.batch.partition)

    with stage_dag(
        spec,
        "outcomes",
        description=f"Validate and publish what became of the rows of {spec.model}",
        doc_md=__doc__,
        schedule=partition_timetable(feed),
        start_date=LONG_AGO,
        catchup=feed.partitions.catch_up,
        max_active_runs=open_runs(feed),
        form=forms.of_partition(feed),
    ) as dag:
        report = step(feed, validate_outcomes, links=[DataDocsLink()], **ROWS)
        published = step(
            feed,
            publish_outcomes,
            report,
            outlets=[Asset(asset_name(spec.model, "outcomes"))],
            **ROWS,
        )
        waiting = step(feed, find_waiting)
        judge = TriggerDagRunOperator.partial(
            task_id="judge_again",
            trigger_dag_id=dag_id(spec.model, "monitor"),
            logical_date=None,
            skip_when_already_exists=True,
        ).expand_kwargs(waiting)

        wait_for_landing(feed) >> report
        published >> waiting >> judge
        AlertOperator(task_id="alert_validation", spec=feed, subject="validation", record=report)
        step(feed, publish_validation_page, report, **BACKGROUND)
    return dag


globals().update(generate(outcomes))
