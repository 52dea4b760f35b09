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

from functools import partial

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator
from airflow.sdk import DAG, Asset, PartitionedAssetTimetable
from retraining_provider import forms
from retraining_provider.context import Run
from retraining_provider.defaults import BACKGROUND, DATA
from retraining_provider.generation import generate, stage_dag
from retraining_provider.links import DriftReportLink
from retraining_provider.operators.alert import AlertOperator
from retraining_provider.operators.record import step
from retraining_provider.operators.retrain import request_retrain

from include.retraining.names import asset_name
from include.retraining.records import DriftReport, PublishedReport, Verdict
from include.retraining.spec import ModelSpec

BRANCHES = {
    "ignore": "ignore_batch",
    "watch": "keep_watching",
    "blocked": "keep_watching",
    "retrain": "request_retrain",
}


def measure_drift(run: Run) -> DriftReport:
    """Measure the batch against the champion."""
    from include.retraining.monitor.measuring import measure_drift
    from include.retraining.retrain.incident import last_training

    run.notice_hand_move()
    learned = last_training(run.spec, run.storage, run.batch)
    anew = run.params["measure_anew"]
    return measure_drift(run.spec, run.settings, run.batch, learned=learned, anew=anew)


def judge_batch(run: Run, report: DriftReport) -> Verdict:
    """Come to one verdict about what was measured."""
    from include.retraining.monitor.measuring import judge_batch
    from include.retraining.retrain.incident import hold_reason

    hold = partial(hold_reason, run.spec, run.storage, report.batch)
    return judge_batch(run.spec, run.settings, report, hold=hold, anew=run.params["measure_anew"])


def publish_report(run: Run, report: DriftReport, verdict: Verdict) -> PublishedReport:
    """Make the pages that show what was measured."""
    from include.retraining.telling.drift_report import publish_report

    return publish_report(run.spec, run.settings, report, verdict)


def monitor(spec: ModelSpec) -> DAG:
    """Give the monitor DAG of one model."""
    with stage_dag(
        spec,
        "monitor",
        description=f"Judge each batch of {spec.model} against its champion",
        doc_md=__doc__,
        schedule=PartitionedAssetTimetable(assets=Asset(asset_name(spec.model, "features"))),
        form=forms.of_monitor(spec),
    ) as dag:
        report = step(spec, measure_drift, execution_timeout=DATA)
        verdict = step(spec, judge_batch, report)
        decide = BranchPythonOperator(
            task_id="decide",
            python_callable=lambda verdict: BRANCHES[verdict["outcome"]],
            op_args=[verdict],
        )
        watch, ignore = (
            EmptyOperator(task_id="keep_watching"),
            EmptyOperator(task_id="ignore_batch"),
        )

        decide >> [request_retrain(spec), watch, ignore]
        AlertOperator(task_id="alert_verdict", spec=spec, subject="verdict", record=verdict)
        step(spec, publish_report, report, verdict, links=[DriftReportLink()], **BACKGROUND)
    return dag


globals().update(generate(monitor))
