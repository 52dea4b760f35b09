"""
### Watch landing: ingest a batch when its files land

Only for models with `source.landing_queue`.

**Starts** when the bucket tells of new files on that SQS queue; the schedule of the ingest goes on
beside it, and finds what an event has missed.

**Does**: reads from the events which partitions are complete, and starts the ingest of each, once
for each delivery.

**Emits** nothing.

**When it fails**: nothing is lost: the scheduled ingest waits for the files as well. Clear the run,
or trigger the ingest for the partition.
"""

from __future__ import annotations

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, AssetWatcher
from retraining_provider.context import Run
from retraining_provider.generation import generate, stage_dag
from retraining_provider.operators.record import step

from include.retraining.names import asset_name, dag_id
from include.retraining.spec import ModelSpec


def find_landed(run: Run) -> list[dict[str, object]]:
    """Give one run of the ingest for each partition that has landed whole."""
    from include.retraining.data.landing_events import landed_partitions

    events = [one for found in run.context["triggering_asset_events"].values() for one in found]
    payloads = [event.extra.get("payload") or {} for event in events]
    messages = [one for payload in payloads for one in payload.get("message_batch", ())]
    return [
        {
            "trigger_run_id": f"landed__{landed.partition}__{landed.event}",
            "conf": {"partition": landed.partition},
        }
        for landed in landed_partitions(run.spec, run.storage, messages)
    ]


def watch_landing(spec: ModelSpec) -> DAG | None:
    """Give the DAG of one model that reads its bucket's events; None if it names no queue."""
    if not spec.source.landing_queue:
        return None
    from retraining_provider.triggers.landing import LandingTrigger

    watcher = AssetWatcher(
        name=asset_name(spec.model, "landing_queue"),
        trigger=LandingTrigger(queue_url=spec.source.landing_queue),
    )
    with stage_dag(
        spec,
        "watch_landing",
        description=f"Ingest batches of {spec.model} when they land",
        doc_md=__doc__,
        schedule=[Asset(asset_name(spec.model, "landing"), watchers=[watcher])],
    ) as dag:
        TriggerDagRunOperator.partial(
            task_id="start_ingest",
            trigger_dag_id=dag_id(spec.model, "ingest"),
            logical_date=None,
            skip_when_already_exists=True,
        ).expand_kwargs(step(spec, find_landed))
    return dag


globals().update(generate(watch_landing))
