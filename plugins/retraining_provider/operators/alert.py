"""Tells people about a record: once, in the thread of its batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, conf

from retraining_provider.hooks.retraining import RetrainingHook

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.retraining.spec import ModelSpec
    from include.retraining.telling.alerts import Alert

Subject = Literal[
    "validation",
    "skew",
    "verdict",
    "gate",
    "promotion",
    "question",
    "answer",
    "guard_question",
    "guard_answer",
]
QUESTION_TASK = "approve_promotion"
ROLLBACK_QUESTION_TASK = "approve_rollback"
ROLLBACK_TASK = "return_to_version_before"
_QUESTIONS = {"question": QUESTION_TASK, "guard_question": ROLLBACK_QUESTION_TASK}
ANSWER_KEY = "answer"


class AlertOperator(BaseOperator):
    """Deliver the alert that a record deserves; skipped where it deserves none.

    :param spec: the model.
    :param subject: which record it is about.
    :param record: the record as JSON, from XCom (templated).
    """

    template_fields: Sequence[str] = ("record",)
    ui_color = "#e8d4f0"

    def __init__(self, *, spec: ModelSpec, subject: Subject, record: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.subject = subject
        self.record = record

    def execute(self, context: Context) -> str:
        """Deliver the alert once; give its title."""
        from include.retraining.storage import Storage
        from include.retraining.telling import alerts

        hook = RetrainingHook()
        settings = hook.settings()
        storage = Storage.of(settings)
        alert = self._alert(storage, settings.storage_page_url, context)
        if alert is None:
            raise AirflowSkipException("nothing to tell")
        url = run_url(context)
        if url and self.subject in _QUESTIONS:  # to where it is answered
            url += f"/tasks/{_QUESTIONS[self.subject]}/required_actions?map_index=-1"
        alert = alert.model_copy(update={"url": url, "run_id": context["dag_run"].run_id})
        channel = hook.channel(self.spec)
        is_told = alerts.deliver(alert, storage, channel)
        alerts.deliver_waiting(self.spec.model, storage, channel)
        if not is_told:
            if alert.is_all_clear:
                raise AirflowSkipException("nothing to tell: all is well, as it was")
            self.log.info("told before: %s", alert.title)
        return alert.title

    def _alert(  # noqa: C901, PLR0911 - one return per subject
        self, storage: Any, pages: str, context: Context
    ) -> Alert | None:
        from include.retraining import records
        from include.retraining.telling import alerts

        match self.subject:
            case "validation":
                report = records.ValidationReport.model_validate(self.record)
                return alerts.of_validation(report, pages=pages)
            case "skew":
                return alerts.of_skew(records.SkewReport.model_validate(self.record))
            case "verdict":
                from include.retraining import shelf

                verdict = records.Verdict.model_validate(self.record)
                before = self.spec.partition_key(self.spec.partitions.step(verdict.batch.start, -1))
                earlier = shelf.find(storage, records.Verdict, self.spec.model, before)
                return alerts.of_verdict(
                    verdict,
                    earlier,
                    guard_mode=self.spec.guard_mode,
                    is_served_elsewhere=self.spec.is_served_elsewhere,
                )
            case "gate":
                return alerts.of_gate(records.GateDecision.model_validate(self.record))
            case "question":
                return alerts.of_question(records.GateDecision.model_validate(self.record))
            case "guard_question":
                return alerts.of_guard_question(records.Verdict.model_validate(self.record))
            case "answer":
                answer = context["task_instance"].xcom_pull(task_ids=QUESTION_TASK, key=ANSWER_KEY)
                if not answer:  # nobody was asked: the gate had said no
                    return None
                decision = records.GateDecision.model_validate(self.record)
                return alerts.of_answer(decision, approved=answer["approved"], by=answer["by"])
            case "guard_answer":
                instance = context["task_instance"]
                answer = instance.xcom_pull(task_ids=ROLLBACK_QUESTION_TASK, key=ANSWER_KEY)
                if not answer:  # nobody was asked: the verdict was replaced
                    return None
                verdict = records.Verdict.model_validate(self.record)
                return alerts.of_guard_answer(
                    verdict,
                    records.GuardAnswer.to(verdict, **answer),
                    is_made=bool(instance.xcom_pull(task_ids=ROLLBACK_TASK)),
                )
            case "promotion":
                promotion = records.Promotion.model_validate(self.record)
                return alerts.of_promotion(
                    promotion, is_served_elsewhere=self.spec.is_served_elsewhere
                )


def run_url(context: Any) -> str:
    """Give the address of a DAG run's page."""
    base = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
    dag_run = context["dag_run"]
    run_id = quote(dag_run.run_id, safe=":+~")  # a person may have named it
    return f"{base}/dags/{dag_run.dag_id}/runs/{run_id}" if base else ""
