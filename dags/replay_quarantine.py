"""
### Replay quarantine: bring back what was quarantined, after a fix

**Starts** by hand (form: partition, reason, and what to read differently, if it is not the suite
that was mended).
**Does**: validates the batch's newest delivery again, as it landed, against the suite of today;
publishes the good rows, re-admitted ones included, and materializes the features.
**Emits** `<model>.validated_batch` and `<model>.features`, like the ingest.

**When it fails**: `publish_batch` is red if the batch is still refused; nothing changed, and the
alert says what is broken. Mend the suite or give another mapping, and trigger it again. Running it
twice publishes once.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, get_current_context, task
from retraining_provider.context import actor, current_batch
from retraining_provider.defaults import task_defaults
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.links import DataDocsLink
from retraining_provider.publishing import publish_validated

from include.retraining.names import dag_id
from include.retraining.spec import ModelSpec, load_specs


def replay_quarantine(spec: ModelSpec) -> DAG:
    """Give the DAG of one model that replays its quarantine."""
    with DAG(
        dag_id(spec.model, "replay_quarantine"),
        description=f"Bring quarantined rows of {spec.model} back after a fix",
        doc_md=__doc__,
        schedule=None,
        max_active_runs=1,
        default_args=task_defaults(spec),
        params={
            "partition": Param(
                type="string",
                title="Partition",
                description=f"For example {spec.partition_key(spec.partitions.first)}.",
            ),
            "reason": Param(
                type="string", minLength=3, title="Reason", description="Why, for the report."
            ),
            "input": Param(
                "batch",
                enum=["batch", *spec.source.companions],
                title="Input",
                description="Which files the mapping is about.",
            ),
            "renames": Param(
                {},
                type="object",
                title="Renamed columns",
                description='Name in the files to declared name: {"dist": "distance"}.',
            ),
            "replacements": Param(
                {},
                type="object",
                title="Replaced values",
                description='By declared name: {"origin": {"Newark": "EWR", "?": null}}.',
            ),
        },
        tags=["retraining", spec.model],
    ) as dag:

        @task
        def revalidate_batch() -> object:
            from include.retraining.data.quarantine import revalidate_batch
            from include.retraining.records import DeliveryMapping
            from include.retraining.storage import Storage

            context = get_current_context()
            params = context["params"]
            mapping = None
            if params["renames"] or params["replacements"]:
                mapping = DeliveryMapping(
                    input=params["input"],
                    renames=params["renames"],
                    replacements=params["replacements"],
                    reason=params["reason"],
                    actor=actor(context),
                )
            storage = Storage.of(RetrainingHook().settings())
            report = revalidate_batch(spec, storage, current_batch(spec), mapping=mapping)
            return report.model_dump(mode="json")

        report = revalidate_batch()
        report.operator.operator_extra_links = [DataDocsLink()]

        publish_validated(spec, report)
    return dag


for spec in load_specs().specs:
    replay_quarantine(spec)
