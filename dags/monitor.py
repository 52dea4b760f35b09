"""
### Monitor: one verdict per batch

**Starts** when `<model>.features` has a new partition; by hand for one partition (form:
`partition`).

**Does**: compares the batch with what the champion was trained on (inputs, predictions, realised
performance), and a new champion with the one before it on later rows. Comes to one verdict:
`ignore`, `watch`, `retrain`, `blocked`, `broken_feed` or `rollback`, with reasons.

**Emits** `<model>.verdict`, whose extra has the outcome and its reasons, for DAGs of your own; and
at most one run of the retrain DAG, or of the guard's, named after the incident, so that no event
can start it twice.

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
from retraining_provider.defaults import BACKGROUND, DATA, GUARDED
from retraining_provider.generation import generate, stage_dag
from retraining_provider.links import DriftReportLink
from retraining_provider.operators.alert import AlertOperator
from retraining_provider.operators.record import step
from retraining_provider.operators.retrain import request_retrain, request_rollback

from include.retraining.names import asset_name
from include.retraining.records import DriftReport, PublishedReport, Verdict
from include.retraining.spec import ModelSpec

BRANCHES = {
    "ignore": "ignore_batch",
    "watch": "keep_watching",
    "blocked": "keep_watching",
    "broken_feed": "keep_watching",
    "retrain": "request_retrain",
    "rollback": "request_rollback",
}
TOLD = {"outcome", "reasons", "champion_version", "incident_id", "awaits_outcomes", "batch"}


def measure_drift(run: Run) -> DriftReport:
    """Measure the batch against the champion, when those before it are judged."""
    from include.retraining.monitor.measuring import came_meanwhile, measure_drift
    from include.retraining.retrain.incident import last_training

    run.wait_for_turn()
    run.notice_hand_move()
    run.accept_feed()
    learned = last_training(run.spec, run.storage, run.batch)
    anew = run.is_asked_anew
    report = measure_drift(run.spec, run.settings, run.batch, learned=learned, anew=anew)
    if came_meanwhile(run.spec, run.storage, report):
        run.wait_for_turn()  # those before it are judged with these outcomes first
        learned = last_training(run.spec, run.storage, run.batch)
        report = measure_drift(run.spec, run.settings, run.batch, learned=learned)
    return report


def judge_batch(run: Run, report: DriftReport) -> Verdict:
    """Come to one verdict about what was measured."""
    from include.retraining.monitor.measuring import judge_batch
    from include.retraining.retrain.incident import hold_reason

    hold = partial(hold_reason, run.spec, run.storage, report.batch)
    anew = run.is_asked_anew
    verdict = judge_batch(run.spec, run.settings, report, hold=hold, anew=anew)
    run.emit("verdict", **verdict.model_dump(mode="json", include=TOLD))
    return verdict


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
        # those that wait for earlier ones hold no slot
        max_active_runs=64,
        form=forms.of_monitor(spec),
    ) as dag:
        report = step(spec, measure_drift, execution_timeout=DATA)
        judged = Asset(asset_name(spec.model, "verdict"))
        verdict = step(spec, judge_batch, report, outlets=[judged])

        def next_step(verdict: dict[str, str]) -> str:
            # a verdict stands, and the model file may ask for less since
            is_told = verdict["outcome"] == "rollback" and spec.guard_mode not in GUARDED
            return BRANCHES["watch" if is_told else verdict["outcome"]]

        decide = BranchPythonOperator(
            task_id="decide", python_callable=next_step, op_args=[verdict]
        )
        watch, ignore = (
            EmptyOperator(task_id="keep_watching"),
            EmptyOperator(task_id="ignore_batch"),
        )

        decide >> [request_retrain(spec), watch, ignore]
        if spec.guard_mode in GUARDED:
            decide >> request_rollback(spec)
        AlertOperator(task_id="alert_verdict", spec=spec, subject="verdict", record=verdict)
        step(spec, publish_report, report, verdict, links=[DriftReportLink()], **BACKGROUND)
        if spec.export.cloudwatch:
            # here, since only models that ask for it need what it imports
            from retraining_provider.operators.cloudwatch import CloudWatchOperator

            verdict >> CloudWatchOperator(task_id="put_metrics", spec=spec)
    return dag


globals().update(generate(monitor))
