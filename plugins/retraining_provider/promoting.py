"""The tasks from a gate's decision to a new champion, with a person in between where asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.standard.operators.python import BranchPythonOperator
from airflow.sdk import Asset, BaseOperator, XComArg

from include.retraining.names import asset_name
from include.retraining.records import GateDecision, Promotion
from retraining_provider.context import Run
from retraining_provider.operators.alert import QUESTION_TASK, AlertOperator, Subject
from retraining_provider.operators.card import ModelCardOperator
from retraining_provider.operators.record import step

if TYPE_CHECKING:
    from include.retraining.spec import ModelSpec


def promote_candidate(run: Run, decision: GateDecision) -> Promotion:
    """Move the champion's alias, with stages and a ledger entry."""
    from include.retraining.registry.succession import promote

    promotion = promote(run.spec, run.settings, decision, actor=run.approver, at=run.at)
    run.emit("champion", version=promotion.version, incident_id=promotion.incident_id)
    return promotion


def promote_if_passed(spec: ModelSpec, decision: XComArg) -> None:
    """Add to the DAG at hand: what follows a gate's decision, by the model's autonomy.

    :param spec: the model.
    :param decision: the GateDecision as JSON, from XCom.
    """
    is_asked = spec.retrain.autonomy == 2

    def next_step(decision: dict[str, bool]) -> str | list[str]:
        if not decision["passed"] or spec.retrain.autonomy == 1:
            return "alert_gate"
        return [QUESTION_TASK, "alert_question"] if is_asked else "promote_candidate"

    decide_promotion = BranchPythonOperator(
        task_id="decide_promotion", python_callable=next_step, op_args=[decision]
    )
    promotion = step(
        spec,
        promote_candidate,
        decision,
        outlets=[Asset(asset_name(spec.model, "champion"))],
        trigger_rule="none_failed_min_one_success",
    )
    alert_gate = AlertOperator(task_id="alert_gate", spec=spec, subject="gate", record=decision)

    decide_promotion >> [promotion, alert_gate]
    if is_asked:
        _ask(spec, decision, decide_promotion, promotion)
    tell_promotion(spec, promotion, alert="alert_promotion", card="write_champion_card")


def tell_promotion(spec: ModelSpec, promotion: XComArg, *, alert: str, card: str) -> None:
    """Add to the DAG at hand: the alert and the card of a version that went into production.

    :param spec: the model.
    :param promotion: the Promotion as JSON, from XCom.
    :param alert: id of the task that tells.
    :param card: id of the task that writes the card.
    """
    AlertOperator(task_id=alert, spec=spec, subject="promotion", record=promotion)
    ModelCardOperator(task_id=card, spec=spec, record=promotion)


def tell_question(
    spec: ModelSpec,
    record: XComArg,
    asked: Subject,
    answered: Subject,
    *,
    question: BaseOperator,
    go: XComArg,
) -> AlertOperator:
    """Add to the DAG at hand: the alerts of a question before a step, and of its answer.

    :param spec: the model.
    :param record: what the question is about, as JSON, from XCom.
    :param asked: subject of the alert that asks; its task is given back.
    :param answered: subject of the alert that tells the answer.
    :param question: the task that waits for a person.
    :param go: the step that a yes lets through.
    """
    alert = AlertOperator(task_id="alert_question", spec=spec, subject=asked, record=record)
    # after the step: what follows the question directly is skipped by a no
    alert_answer = AlertOperator(
        task_id="alert_answer",
        spec=spec,
        subject=answered,
        record=record,
        trigger_rule="none_failed",
    )
    question >> go >> alert_answer
    return alert


def _ask(spec: ModelSpec, decision: XComArg, decide: BranchPythonOperator, go: XComArg) -> None:
    # here, since only models with a person in between need what it imports
    from retraining_provider.operators.approval import PromotionApprovalOperator

    question = PromotionApprovalOperator(task_id=QUESTION_TASK, spec=spec, record=decision)
    alert_question = tell_question(spec, decision, "question", "answer", question=question, go=go)
    decide >> [question, alert_question]
