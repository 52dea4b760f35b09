"""Reads from a running task which batch it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from include.retraining.records import BatchRef
    from include.retraining.spec import ModelSpec


def partition_key(context: Any) -> str | None:
    """Give the partition of a run: from its form or conf, else the key it was scheduled for."""
    asked = (context.get("params") or {}).get("partition")
    return asked or getattr(context["dag_run"], "partition_key", None)


def batch_of(spec: ModelSpec, context: Any) -> BatchRef:
    """Give the batch a run is about.

    :raises DataError: the run names none.
    """
    from include.retraining.errors import DataError

    key = partition_key(context)
    if key is None:
        first = spec.partition_key(spec.partitions.first)
        raise DataError(
            f"this run names no partition; trigger it with {{'partition': '{first}'}} in the form"
        )
    return spec.batch_ref(key)


def current_batch(spec: ModelSpec) -> BatchRef:
    """Give the batch of the task that is running."""
    from airflow.sdk import get_current_context

    return batch_of(spec, get_current_context())


def actor(context: Any) -> str:
    """Give who started a run, as far as Airflow knows."""
    dag_run = context["dag_run"]
    user = getattr(dag_run, "triggering_user_name", None)
    return user or f"Airflow, run {dag_run.run_id}"


def approver(context: Any) -> str:
    """Give who approved a promotion; who started the run where nobody was asked."""
    from retraining_provider.operators.alert import ANSWER_KEY, QUESTION_TASK

    answer = context["task_instance"].xcom_pull(task_ids=QUESTION_TASK, key=ANSWER_KEY)
    return f"{answer['by']}, who approved" if answer else actor(context)


def retrain_cause(spec: ModelSpec, settings: Any, context: Any) -> dict[str, Any]:
    """Give what a run of the retrain DAG is about, by how it was started.

    :raises DataError: a run by hand gives no reason, or no batch has been published yet.
    """
    from include.retraining.data.publication import published_partitions
    from include.retraining.errors import DataError
    from include.retraining.storage import Storage

    params, dag_run = context["params"], context["dag_run"]
    is_scheduled = str(dag_run.run_type).endswith("scheduled")
    if not is_scheduled and not params["reason"]:
        raise DataError(
            "a retrain by hand needs a reason, for the ledger; trigger again and say why"
        )
    if params["partition"]:
        batch = spec.batch_ref(params["partition"])
    else:
        batches = published_partitions(spec, Storage.of(settings))
        if is_scheduled:  # not what came later than this run was for
            batches = [batch for batch in batches if batch.end <= dag_run.logical_date]
        if not batches:
            raise DataError(
                f"{spec.model} has no published batch yet; run {spec.model}__ingest first"
            )
        batch = batches[-1]
    return {
        "batch": batch,
        "trigger": "schedule" if is_scheduled else params["trigger"],
        "reason": params["reason"] or "scheduled look at the model's age",
        "force": params["force"],
    }
