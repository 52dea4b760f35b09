"""Alerts when a task has failed for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.notifier import BaseNotifier

from retraining_provider.context import partition_key
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.operators.alert import run_url

if TYPE_CHECKING:
    from include.retraining.spec import ModelSpec


class FailureNotifier(BaseNotifier):
    """Tell the model's channel which task failed, why, and what to do.

    A refused batch is left out: its own alert says more.

    :param spec: the model.
    """

    def __init__(self, *, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    def notify(self, context: Any) -> None:
        """Deliver the alert of a failed task; what goes wrong here is only logged."""
        from include.retraining.errors import BatchRefused
        from include.retraining.storage import Storage
        from include.retraining.telling import alerts

        self._note_that_it_failed(context)
        error = context.get("exception")
        if isinstance(error, BatchRefused):
            return
        task, dag_run = context["task_instance"], context["dag_run"]
        told = f"{type(error).__name__}: {error}"[:1500]
        try:
            alert = alerts.of_failure(
                model=self.spec.model,
                thread=self._partition(context) or dag_run.run_id,
                task=f"{dag_run.dag_id}.{task.task_id}",
                run_id=dag_run.run_id,
                error=told,
                attempt=f"{getattr(task, 'map_index', -1)}|{getattr(task, 'try_number', '')}",
            ).model_copy(update={"url": run_url(context)})
            hook = RetrainingHook()
            storage = Storage.of(hook.settings())
            # kept first: Airflow gives a callback one try, and the next alert takes it along
            alerts.keep_for_later(alert, storage)
            alerts.deliver_waiting(self.spec.model, storage, hook.channel(self.spec))
        except Exception:
            # Airflow swallows what a callback raises; at least the task's log has the message
            self.log.exception("nobody was told of the failure: %s", told)

    def _note_that_it_failed(self, context: Any) -> None:
        """Say that this run failed, so that later batches do not wait for its verdict."""
        from include.retraining import shelf
        from include.retraining.records import PipelineRun
        from include.retraining.storage import Storage

        dag_run = context["dag_run"]
        stage = dag_run.dag_id.rpartition("__")[2]
        partition = self._partition(context)
        if stage not in {"ingest", "monitor"} or partition is None:
            return
        try:
            batch = self.spec.batch_ref(partition)
            storage = Storage.of(RetrainingHook().settings())
            run = PipelineRun(batch=batch, stage=stage, run_id=dag_run.run_id)
            shelf.keep_run(storage, run)
        except Exception:  # the wait for it has an end anyway
            self.log.exception("nobody knows that %s has failed", dag_run.run_id)

    def _partition(self, context: Any) -> str | None:
        """Give the partition that a run is about; None where it names none of this model."""
        from include.retraining.errors import SpecError

        try:
            return self.spec.batch_ref(str(partition_key(context))).partition
        except SpecError:
            return None
