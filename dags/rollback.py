"""
### Rollback: the champion before this one, in seconds

**Starts** by hand (form: reason, and a version if it is not to be the previous champion).
**Does**: moves the champion alias back, with stages and a ledger entry, and tells the channel.
**Emits** `<model>.champion`.

**When it fails**: the champion is what it was, or what was asked for; never neither.
Clear the task.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, Asset, Metadata, Param, get_current_context, task
from retraining_provider.context import actor
from retraining_provider.defaults import task_defaults
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.operators.alert import AlertOperator
from retraining_provider.operators.card import ModelCardOperator

from include.retraining.names import asset_name, dag_id
from include.retraining.spec import ModelSpec, load_specs


def rollback(spec: ModelSpec) -> DAG:
    """Give the rollback DAG of one model."""
    champion = Asset(asset_name(spec.model, "champion"))

    with DAG(
        dag_id(spec.model, "rollback"),
        description=f"Return {spec.model} to an earlier champion",
        doc_md=__doc__,
        schedule=None,
        max_active_runs=1,
        default_args=task_defaults(spec),
        params={
            "reason": Param(
                type="string", minLength=3, title="Reason", description="Why, for the ledger."
            ),
            "to_version": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                title="Version",
                description="Empty: the champion before the current one.",
            ),
        },
        tags=["retraining", spec.model],
    ) as dag:

        @task(outlets=[champion])
        def rollback_champion():
            from include.retraining.features.definitions import is_service
            from include.retraining.registry.succession import rollback

            context = get_current_context()
            promotion = rollback(
                spec,
                RetrainingHook().settings(),
                reason=context["params"]["reason"],
                to_version=context["params"]["to_version"],
                actor=actor(context),
                request_id=context["dag_run"].run_id,
                at=dt.datetime.now(dt.UTC),
                is_service=lambda name: is_service(spec, name),
            )
            yield Metadata(
                champion, {"version": promotion.version, "incident_id": promotion.incident_id}
            )
            return promotion.model_dump(mode="json")

        promotion = rollback_champion()

        promotion >> [
            AlertOperator(
                task_id="alert_rollback", spec=spec, subject="promotion", record=promotion
            ),
            ModelCardOperator(task_id="write_card", spec=spec, record=promotion),
        ]
    return dag


for spec in load_specs().specs:
    rollback(spec)
