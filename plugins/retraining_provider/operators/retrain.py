"""Asks for a retrain, or for a rollback, from a DAG that found a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator

from include.retraining.names import Stage, dag_id

if TYPE_CHECKING:
    from include.retraining.spec import ModelSpec

_VERDICT = "ti.xcom_pull(task_ids='judge_batch')"


def request_retrain(spec: ModelSpec) -> TriggerDagRunOperator:
    """Add to the DAG at hand: one run of the retrain DAG, named after the verdict's incident."""
    return _request(spec, "request_retrain", "retrain")


def request_rollback(spec: ModelSpec) -> TriggerDagRunOperator:
    """Add to the DAG at hand: one run of the guard's DAG, named after the verdict's incident."""
    return _request(spec, "request_rollback", "guard")


def _request(spec: ModelSpec, task_id: str, stage: Stage) -> TriggerDagRunOperator:
    return TriggerDagRunOperator(
        task_id=task_id,
        trigger_dag_id=dag_id(spec.model, stage),
        trigger_run_id=f"{{{{ {_VERDICT}['incident_id'] }}}}",
        conf={
            # ids alone: the verdict says the rest
            "partition": f"{{{{ {_VERDICT}['batch']['partition'] }}}}",
        },
        logical_date=None,
        skip_when_already_exists=True,
    )
