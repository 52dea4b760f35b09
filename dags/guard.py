"""
### Guard: a new champion that is worse than the one before it is rolled back

Only for models whose `guard.mode` is `rollback` or `ask` (without it, `retrain.autonomy` decides);
where the model file says something else by now, a run is skipped.

**Starts** when the monitor has shown, on rows later than the promotion, that the champion is worse
than the version before it.

**Does**: marks the champion, moves the alias back to the version that it was held against, with
stages and a ledger entry, and tells the channel. With `ask` a person answers first (Browse >
Required Actions); no answer means no, and a no is told. Skipped where champion or verdict have
changed.

**Emits** `<model>.champion`.

**When it fails**: the champion is what it was, or the version before it; never neither. Clear the
task, or use `<model>__rollback`: where that version cannot come back, a person chooses another.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowSkipException
from retraining_provider import forms
from retraining_provider.context import Run
from retraining_provider.defaults import GUARDED
from retraining_provider.generation import generate, stage_dag
from retraining_provider.operators.alert import ROLLBACK_QUESTION_TASK
from retraining_provider.operators.record import step
from retraining_provider.promoting import tell_promotion, tell_question

from include.retraining.names import asset_name
from include.retraining.records import Promotion, Verdict
from include.retraining.spec import ModelSpec


def read_verdict(run: Run) -> Verdict:
    """Read the verdict that asked for this run; skipped where it stands no more."""
    from include.retraining.shelf import find

    verdict = find(run.storage, Verdict, run.spec.model, run.batch.partition)
    if verdict is None or verdict.outcome != "rollback":
        raise AirflowSkipException(f"the verdict about {run.batch.partition} asks for no rollback")
    return verdict


def return_to_version_before(run: Run, verdict: Verdict) -> Promotion:
    """Make the version before it champion again; skipped where that is not asked for any more."""
    from include.retraining.features.own_features import why_not
    from include.retraining.registry.guard import NoLonger, roll_back

    if run.spec.guard_mode not in GUARDED:  # a person may have edited it since this run began
        raise AirflowSkipException(f"guard.mode is {run.spec.guard_mode}: it asks for no rollback")
    run.notice_hand_move(replaces_lost=True)
    try:
        promotion = roll_back(
            run.spec,
            run.settings,
            verdict,
            actor=run.approver if run.spec.guard_mode == "ask" else "the guard",
            at=run.at,
            why_not=lambda learned: why_not(run.spec, learned),
        )
    except NoLonger as reason:
        raise AirflowSkipException(str(reason)) from reason
    run.emit("champion", version=promotion.version, incident_id=promotion.incident_id)
    return promotion


def guard(spec: ModelSpec) -> DAG:
    """Give the DAG that rolls back one model's champion.

    Each model has it, also where the guard only tells: a run that waits for an answer while the
    mode is edited goes on and ends.
    """
    with stage_dag(
        spec,
        "guard",
        description=f"Roll back a new champion of {spec.model} that is worse",
        doc_md=__doc__,
        schedule=None,
        max_active_runs=1,
        form=forms.of_partition(spec),
    ) as dag:
        verdict = step(spec, read_verdict)
        champion = Asset(asset_name(spec.model, "champion"))
        promotion = step(spec, return_to_version_before, verdict, outlets=[champion])
        if spec.guard_mode == "ask":
            # here, since only models with a person in between need what it imports
            from retraining_provider.operators.approval import RollbackApprovalOperator

            question = RollbackApprovalOperator(
                task_id=ROLLBACK_QUESTION_TASK, spec=spec, record=verdict
            )
            verdict >> question
            tell_question(
                spec, verdict, "guard_question", "guard_answer", question=question, go=promotion
            )
        tell_promotion(spec, promotion, alert="alert_rollback", card="write_card")
    return dag


globals().update(generate(guard))
