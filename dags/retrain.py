"""
### Retrain: from a reason to, perhaps, a new champion

**Starts** when the monitor asks for it; on the model file's `retrain.schedule`, if the model is too
old; by hand (form: partition, reason, force).
**Does**: claims the incident, builds the point-in-time training set, trains and registers the
candidate, lets it duel with the champion on later rows that neither was trained on, and promotes it
if the gate says so. With `autonomy: 2` a person approves in between (the message on Slack leads to
the question; also Browse > Required Actions); no answer means no.
**Emits** `<model>.champion` when the champion changes.

**When it fails**: the champion is untouched until `promote_candidate`. Clear the failed task: the
same run continues with the same incident, the same MLflow run and the same model version, never a
second one.
"""

from __future__ import annotations

import datetime as dt

from airflow.providers.standard.operators.python import BranchPythonOperator
from airflow.sdk import DAG, Asset, CronTriggerTimetable, Metadata, Param, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException
from retraining_provider.context import approver, retrain_cause
from retraining_provider.defaults import task_defaults
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.links import ModelVersionLink
from retraining_provider.operators.alert import QUESTION_TASK, AlertOperator
from retraining_provider.operators.approval import PromotionApprovalOperator
from retraining_provider.operators.card import ModelCardOperator

from include.retraining.names import asset_name, dag_id
from include.retraining.spec import ModelSpec, load_specs


def retrain(spec: ModelSpec) -> DAG:  # noqa: C901, PLR0915 - count the tasks
    """Give the retrain DAG of one model."""
    champion = Asset(asset_name(spec.model, "champion"))
    parts = spec.partitions
    is_asked = spec.retrain.autonomy == 2

    def next_step(decision: dict[str, bool]) -> str | list[str]:
        if not decision["passed"] or spec.retrain.autonomy == 1:
            return "alert_gate"
        return [QUESTION_TASK, "alert_question"] if is_asked else "promote_candidate"

    with DAG(
        dag_id(spec.model, "retrain"),
        description=f"Train a candidate for {spec.model}, let it duel, promote it if it wins",
        doc_md=__doc__,
        schedule=CronTriggerTimetable(spec.retrain.schedule, timezone="UTC")
        if spec.retrain.schedule
        else None,
        start_date=parts.first + parts.length,
        catchup=False,
        max_active_runs=1,
        default_args=task_defaults(spec),
        params={
            "partition": Param(
                None,
                type=["null", "string"],
                title="Partition",
                description="The newest batch the retrain may read; "
                "empty: the newest published one.",
            ),
            "reason": Param(
                None,
                type=["null", "string"],
                title="Reason",
                description="Why, for the ledger. A run by hand needs one.",
                maxLength=2000,
            ),
            "force": Param(
                False,
                type="boolean",
                title="Force",
                description="Retrain in spite of cool-down, budget, "
                "or an earlier retrain of the same cause.",
            ),
            "trigger": Param("manual", enum=["manual", "monitor"], description="Leave as it is."),
        },
        tags=["retraining", spec.model],
    ) as dag:

        @task
        def claim_retrain() -> object:
            from include.retraining.registry.succession import notice_hand_move
            from include.retraining.retrain.incident import NotDue, open_incident

            context = get_current_context()
            settings = RetrainingHook().settings()
            notice_hand_move(spec, settings, at=dt.datetime.now(dt.UTC))
            try:
                request = open_incident(
                    spec,
                    settings,
                    run_id=context["dag_run"].run_id,
                    at=dt.datetime.now(dt.UTC),
                    **retrain_cause(spec, settings, context),
                )
            except NotDue as reason:
                raise AirflowSkipException(str(reason)) from reason
            return request.model_dump(mode="json")

        @task
        def build_training_set(request: object) -> object:
            from include.retraining.records import RetrainRequest
            from include.retraining.retrain.training_set import build_training_set

            found = RetrainRequest.model_validate(request)
            return build_training_set(spec, RetrainingHook().settings(), found).model_dump(
                mode="json"
            )

        @task
        def train_candidate(request: object, training_set: object) -> object:
            from include.retraining.records import RetrainRequest, TrainingSet
            from include.retraining.retrain.candidate import train_candidate

            return train_candidate(
                spec,
                RetrainingHook().settings(),
                RetrainRequest.model_validate(request),
                TrainingSet.model_validate(training_set),
            ).model_dump(mode="json")

        @task
        def run_duel(request: object, candidate: object) -> object:
            from include.retraining.records import Candidate, RetrainRequest
            from include.retraining.retrain.gate import decide

            return decide(
                spec,
                RetrainingHook().settings(),
                RetrainRequest.model_validate(request),
                Candidate.model_validate(candidate),
            ).model_dump(mode="json")

        @task(outlets=[champion], trigger_rule="none_failed_min_one_success")
        def promote_candidate(decision: object):
            from include.retraining.records import GateDecision
            from include.retraining.registry.succession import promote

            promotion = promote(
                spec,
                RetrainingHook().settings(),
                GateDecision.model_validate(decision),
                actor=approver(get_current_context()),
                at=dt.datetime.now(dt.UTC),
            )
            yield Metadata(
                champion, {"version": promotion.version, "incident_id": promotion.incident_id}
            )
            return promotion.model_dump(mode="json")

        request = claim_retrain()
        candidate = train_candidate(request, build_training_set(request))
        candidate.operator.operator_extra_links = [ModelVersionLink()]
        decision = run_duel(request, candidate)
        decide_promotion = BranchPythonOperator(
            task_id="decide_promotion", python_callable=next_step, op_args=[decision]
        )
        promotion = promote_candidate(decision)
        alert_gate = AlertOperator(task_id="alert_gate", spec=spec, subject="gate", record=decision)
        alert_promotion = AlertOperator(
            task_id="alert_promotion", spec=spec, subject="promotion", record=promotion
        )

        decide_promotion >> [promotion, alert_gate]
        if is_asked:
            approve_promotion = PromotionApprovalOperator(
                task_id=QUESTION_TASK, spec=spec, record=decision
            )
            alert_question = AlertOperator(
                task_id="alert_question", spec=spec, subject="question", record=decision
            )
            # after the promotion: what follows the question directly is skipped by a no
            alert_answer = AlertOperator(
                task_id="alert_answer",
                spec=spec,
                subject="answer",
                record=decision,
                trigger_rule="none_failed",
            )
            decide_promotion >> [approve_promotion, alert_question]
            approve_promotion >> promotion >> alert_answer
        write_candidate_card = ModelCardOperator(
            task_id="write_candidate_card", spec=spec, record=candidate
        )
        write_champion_card = ModelCardOperator(
            task_id="write_champion_card", spec=spec, record=promotion
        )
        decision >> write_candidate_card
        promotion >> [alert_promotion, write_champion_card]
    if parts.last:
        # set last: a task would inherit it, and a run by hand after that day would be without tasks
        dag.end_date = parts.last + parts.length
    return dag


for spec in load_specs().specs:
    retrain(spec)
