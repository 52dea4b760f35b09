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
from airflow.sdk import DAG, Asset, AssetWatcher, task
from retraining_provider.defaults import task_defaults
from retraining_provider.hooks.retraining import RetrainingHook

from include.retraining.names import asset_name, dag_id
from include.retraining.spec import ModelSpec, load_specs


def watch_landing(spec: ModelSpec) -> DAG:
    """Give the DAG of one model that reads its bucket's events."""
    from retraining_provider.triggers.landing import LandingTrigger

    landing = Asset(
        asset_name(spec.model, "landing"),
        watchers=[
            AssetWatcher(
                name=asset_name(spec.model, "landing_queue"),
                trigger=LandingTrigger(queue_url=spec.source.landing_queue),
            )
        ],
    )
    with DAG(
        dag_id(spec.model, "watch_landing"),
        description=f"Ingest batches of {spec.model} when they land",
        doc_md=__doc__,
        schedule=[landing],
        default_args=task_defaults(spec),
        tags=["retraining", spec.model],
    ) as dag:

        @task
        def find_landed(*, triggering_asset_events=None) -> list[dict[str, object]]:
            from include.retraining.data.landing_events import landed_partitions
            from include.retraining.storage import Storage

            events = [event for found in triggering_asset_events.values() for event in found]
            messages = [
                message
                for event in events
                for message in (event.extra.get("payload") or {}).get("message_batch", ())
            ]
            storage = Storage.of(RetrainingHook().settings())
            return [
                {
                    "trigger_run_id": f"landed__{landed.partition}__{landed.event}",
                    "conf": {"partition": landed.partition},
                }
                for landed in landed_partitions(spec, storage, messages)
            ]

        TriggerDagRunOperator.partial(
            task_id="start_ingest",
            trigger_dag_id=dag_id(spec.model, "ingest"),
            logical_date=None,
            skip_when_already_exists=True,
        ).expand_kwargs(find_landed())
    return dag


for spec in load_specs().specs:
    if spec.source.landing_queue:
        watch_landing(spec)
