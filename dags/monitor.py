"""
### Monitor: one verdict per batch

**Starts** when `<model>.features` has a new partition; by hand for one partition (form:
`partition`).
**Does**: compares the batch with what the champion was trained on (inputs, predictions, realised
performance), and comes to one verdict: `ignore`, `watch`, `retrain` or `blocked`, with reasons.
**Emits** at most one run of the retrain DAG, named after the incident, so that no event can start
it twice.

**When it fails**: the report and the verdict are kept per partition in object storage; clear the
failed task. The same content keeps the verdict it got; `measure anew` in the form judges it again.
"""

from __future__ import annotations

import datetime as dt

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, Param, PartitionedAssetTimetable, get_current_context, task
from retraining_provider.context import current_batch
from retraining_provider.defaults import task_defaults
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.links import DriftReportLink
from retraining_provider.operators.alert import AlertOperator

from include.retraining.names import asset_name, dag_id
from include.retraining.spec import ModelSpec, load_specs

BRANCHES = {
    "ignore": "ignore_batch",
    "watch": "keep_watching",
    "blocked": "keep_watching",
    "retrain": "request_retrain",
}


def monitor(spec: ModelSpec) -> DAG:
    """Give the monitor DAG of one model."""
    with DAG(
        dag_id(spec.model, "monitor"),
        description=f"Judge each batch of {spec.model} against its champion",
        doc_md=__doc__,
        schedule=PartitionedAssetTimetable(assets=Asset(asset_name(spec.model, "features"))),
        default_args=task_defaults(spec),
        params={
            "partition": Param(
                None,
                type=["null", "string"],
                title="Partition",
                description="Only for a run by hand.",
            ),
            "measure_anew": Param(
                False,
                type="boolean",
                title="Measure anew",
                description="Judge the batch again, although it has its verdict.",
            ),
        },
        tags=["retraining", spec.model],
    ) as dag:

        @task
        def measure_drift() -> object:
            from include.retraining.monitor.measuring import measure_drift
            from include.retraining.registry.succession import notice_hand_move
            from include.retraining.retrain.incident import last_training
            from include.retraining.storage import Storage

            anew = get_current_context()["params"]["measure_anew"]
            settings, batch = RetrainingHook().settings(), current_batch(spec)
            notice_hand_move(spec, settings, at=dt.datetime.now(dt.UTC))
            learned = last_training(spec, Storage.of(settings), batch)
            found = measure_drift(spec, settings, batch, learned=learned, anew=anew)
            return found.model_dump(mode="json")

        @task
        def judge_batch(report: object) -> object:
            from include.retraining.monitor.measuring import judge_batch
            from include.retraining.records import DriftReport
            from include.retraining.retrain.incident import hold_reason
            from include.retraining.storage import Storage

            anew = get_current_context()["params"]["measure_anew"]
            settings, found = RetrainingHook().settings(), DriftReport.model_validate(report)
            hold = hold_reason(spec, Storage.of(settings), found.batch)
            verdict = judge_batch(spec, settings, found, hold=hold, anew=anew)
            return verdict.model_dump(mode="json")

        @task
        def publish_report(report: object, verdict: object) -> object:
            import os

            from include.retraining.records import DriftReport, Verdict
            from include.retraining.telling.drift_report import publish_report

            os.nice(10)  # nobody waits for a page; the retrain that runs beside it goes first

            return publish_report(
                spec,
                RetrainingHook().settings(),
                DriftReport.model_validate(report),
                Verdict.model_validate(verdict),
            ).model_dump(mode="json")

        report = measure_drift()
        verdict = judge_batch(report)
        decide = BranchPythonOperator(
            task_id="decide",
            python_callable=lambda verdict: BRANCHES[verdict["outcome"]],
            op_args=[verdict],
        )
        request_retrain = TriggerDagRunOperator(
            task_id="request_retrain",
            trigger_dag_id=dag_id(spec.model, "retrain"),
            trigger_run_id="{{ ti.xcom_pull(task_ids='judge_batch')['incident_id'] }}",
            conf={
                "partition": "{{ ti.xcom_pull(task_ids='judge_batch')['batch']['partition'] }}",
                "reason": "{{ ti.xcom_pull(task_ids='judge_batch')['reasons'] | join('; ') }}",
                "trigger": "monitor",
            },
            logical_date=None,
            skip_when_already_exists=True,
        )
        keep_watching = EmptyOperator(task_id="keep_watching")
        ignore_batch = EmptyOperator(task_id="ignore_batch")
        alert_verdict = AlertOperator(
            task_id="alert_verdict", spec=spec, subject="verdict", record=verdict
        )

        decide >> [request_retrain, keep_watching, ignore_batch]
        published = publish_report(report, verdict)
        published.operator.operator_extra_links = [DriftReportLink()]
        verdict >> [alert_verdict, published]
    return dag


for spec in load_specs().specs:
    monitor(spec)
