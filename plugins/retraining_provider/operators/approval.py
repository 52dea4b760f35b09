"""Asks a person whether a candidate may be promoted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.operators.alert import ANSWER_KEY, run_url

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.retraining.spec import ModelSpec


class PromotionApprovalOperator(ApprovalOperator):
    """Show the duel and wait for an answer; no answer in time is a no.

    Only `retrain.approvers` may answer, where the model file names some. A candidate that is turned
    down is archived.

    :param spec: the model; its ``retrain`` section says who may answer, and how long that may take.
    :param record: the `GateDecision` as JSON, from XCom (templated).
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "record")

    def __init__(self, *, spec: ModelSpec, record: Any, **kwargs: Any) -> None:
        rules = spec.retrain
        super().__init__(
            subject=f"Promote the candidate of {spec.model}?",
            defaults=self.REJECT,
            response_timeout=dt.timedelta(hours=rules.approval_timeout_hours),
            assigned_users=[{"id": name, "name": name} for name in rules.approvers] or None,
            **kwargs,
        )
        self.spec = spec
        self.record = record

    def execute(self, context: Context) -> Any:
        """Put the question, then park until it is answered."""
        from include.retraining.records import GateDecision
        from include.retraining.telling import duel_table

        decision = GateDecision.model_validate(self.record)
        mlflow = RetrainingHook().settings().mlflow_url
        version = decision.candidate_version
        page = f"{mlflow}/#/models/{self.spec.model}/versions/{version}"
        self.subject = (
            f"Promote version {version} of {self.spec.model} to production ({decision.partition})?"
        )
        self.body = "\n".join(
            [
                duel_table.as_markdown(decision),
                f"[Version {version} in MLflow]({page}) | [This run]({run_url(context)})",
                "",
                f"No answer within {self.spec.retrain.approval_timeout_hours:g} hours means no.",
            ]
        )
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on where the answer is yes; else archive the candidate and skip what follows."""
        from include.retraining.records import GateDecision
        from include.retraining.registry import succession

        if "error" not in event:
            user = event["responded_by_user"]
            answer = {
                "approved": event["chosen_options"] == [self.APPROVE],
                "by": user["name"] if user else "nobody",
            }
            # before what follows is skipped: then the task that tells the answer can begin at once
            context["task_instance"].xcom_push(key=ANSWER_KEY, value=answer)
            if not answer["approved"]:
                decision = GateDecision.model_validate(self.record)
                settings = RetrainingHook().settings()
                succession.turn_down(self.spec, settings, decision, by=str(answer["by"]))
        return super().execute_complete(context, event)
