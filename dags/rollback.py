"""
### Rollback: the champion before this one, in seconds

**Starts** by hand (form: reason, and a version if it is not to be the previous champion).

**Does**: moves the champion alias back, with stages and a ledger entry, and tells the channel.

**Emits** `<model>.champion`.

**When it fails**: the champion is what it was, or what was asked for; never neither.
Clear the task.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset
from retraining_provider import forms
from retraining_provider.context import Run
from retraining_provider.generation import generate, stage_dag
from retraining_provider.operators.record import step
from retraining_provider.promoting import tell_promotion

from include.retraining.names import asset_name
from include.retraining.records import Promotion
from include.retraining.spec import ModelSpec


def rollback_champion(run: Run) -> Promotion:
    """Return to the champion before, or to the version that the form names."""
    from include.retraining.features.own_features import why_not
    from include.retraining.registry.succession import rollback

    promotion = rollback(
        run.spec,
        run.settings,
        reason=run.params["reason"],
        to_version=run.params["to_version"],
        actor=run.actor,
        request_id=run.run_id,
        at=run.at,
        why_not=lambda learned: why_not(run.spec, learned),
    )
    run.emit("champion", version=promotion.version, incident_id=promotion.incident_id)
    return promotion


def rollback(spec: ModelSpec) -> DAG:
    """Give the rollback DAG of one model."""
    with stage_dag(
        spec,
        "rollback",
        description=f"Return {spec.model} to an earlier champion",
        doc_md=__doc__,
        schedule=None,
        max_active_runs=1,
        form=forms.of_rollback(),
    ) as dag:
        champion = Asset(asset_name(spec.model, "champion"))
        promotion = step(spec, rollback_champion, outlets=[champion])
        tell_promotion(spec, promotion, alert="alert_rollback", card="write_card")
    return dag


globals().update(generate(rollback))
