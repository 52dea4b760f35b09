"""Asks a person whether a candidate may be promoted, or a champion be rolled back."""

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
        super().__init__(
            subject=f"Promote the candidate of {spec.model}?", **_of_person(spec), **kwargs
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
                _no_answer(self.spec),
            ]
        )
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on where the answer is yes; else archive the candidate and skip what follows."""
        from include.retraining.records import GateDecision
        from include.retraining.registry import succession

        if "error" not in event:
            answer = _answer(self, event)
            # before what follows is skipped: then the task that tells the answer can begin at once
            context["task_instance"].xcom_push(key=ANSWER_KEY, value=answer)
            if not answer["approved"]:
                decision = GateDecision.model_validate(self.record)
                settings = RetrainingHook().settings()
                succession.turn_down(self.spec, settings, decision, by=str(answer["by"]))
        return super().execute_complete(context, event)


class RollbackApprovalOperator(ApprovalOperator):
    """Say what is known of a champion that is worse, and wait for an answer; none means no.

    Only `retrain.approvers` may answer, where the model file names some.

    :param spec: the model; its ``retrain`` section says who may answer, and how long that may take.
    :param record: the `Verdict` as JSON, from XCom (templated).
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "record")

    def __init__(self, *, spec: ModelSpec, record: Any, **kwargs: Any) -> None:
        super().__init__(
            subject=f"Roll back the champion of {spec.model}?", **_of_person(spec), **kwargs
        )
        self.spec = spec
        self.record = record

    def execute(self, context: Context) -> Any:
        """Put the question, then park until it is answered."""
        from include.retraining.records import Verdict

        verdict = Verdict.model_validate(self.record)
        self.subject = (
            f"Roll back version {verdict.champion_version} of {self.spec.model} "
            f"({verdict.batch.partition})?"
        )
        self.body = "\n".join([*(f"* {one}" for one in verdict.reasons), "", _no_answer(self.spec)])
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on where the answer is yes; else keep that it is no, and skip what follows."""
        from include.retraining import shelf
        from include.retraining.records import GuardAnswer, Verdict
        from include.retraining.storage import Storage

        if "error" not in event:
            verdict, answer = Verdict.model_validate(self.record), _answer(self, event)
            storage = Storage.of(RetrainingHook().settings())
            shelf.keep(storage, GuardAnswer.to(verdict, **answer))
            # before what follows is skipped: then the task that tells the answer can begin at once
            context["task_instance"].xcom_push(key=ANSWER_KEY, value=answer)
        return super().execute_complete(context, event)


def _of_person(spec: ModelSpec) -> dict[str, Any]:
    """Give who may answer, how long that may take, and what no answer means."""
    rules = spec.retrain
    return {
        "defaults": ApprovalOperator.REJECT,
        "response_timeout": dt.timedelta(hours=rules.approval_timeout_hours),
        "assigned_users": [{"id": name, "name": name} for name in rules.approvers] or None,
    }


def _no_answer(spec: ModelSpec) -> str:
    return f"No answer within {spec.retrain.approval_timeout_hours:g} hours means no."


def _answer(operator: ApprovalOperator, event: dict[str, Any]) -> dict[str, Any]:
    user = event["responded_by_user"]
    return {
        "approved": event["chosen_options"] == [operator.APPROVE],
        "by": user["name"] if user else "nobody",
    }
