"""
### Retrain: from a reason to, perhaps, a new champion

**Starts** when the monitor asks for it; on the model file's `retrain.schedule`, if the model is too
old; by hand (form: partition, reason, force).

**Does**: claims the incident, builds the point-in-time training set, trains and registers the
candidate, lets it duel with the champion on later rows that neither was trained on, and promotes it
if the gate says so. With `autonomy: 2` a person approves in between (the message on Slack leads to
the question; also Browse > Required Actions); no answer means no.

**Emits** `<model>.champion` when the champion changes.

**When it fails**: the champion is untouched until `promote_candidate`. Clear the failed task: the
same run continues with the same incident, the same MLflow run and the same model version, never a
second one.
"""

from __future__ import annotations

from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException
from retraining_provider import forms
from retraining_provider.context import Run, retrain_cause
from retraining_provider.defaults import DATA, TRAINING
from retraining_provider.generation import generate, stage_dag
from retraining_provider.links import ModelVersionLink
from retraining_provider.operators.card import ModelCardOperator
from retraining_provider.operators.record import step
from retraining_provider.promoting import promote_if_passed
from retraining_provider.timetables import retrain_timetable

from include.retraining.records import Candidate, GateDecision, RetrainRequest, TrainingSet
from include.retraining.spec import ModelSpec


def claim_retrain(run: Run) -> RetrainRequest:
    """Open the incident for this run; skipped where a retrain is not due."""
    from include.retraining.retrain.incident import NotDue, open_incident

    run.notice_hand_move(replaces_lost=run.params["force"])
    try:
        cause = retrain_cause(run)
        return open_incident(run.spec, run.settings, run_id=run.run_id, at=run.at, **cause)
    except NotDue as reason:
        raise AirflowSkipException(str(reason)) from reason


def build_training_set(run: Run, request: RetrainRequest) -> TrainingSet:
    """Choose the rows to learn from, and the later ones of the duel."""
    from include.retraining.retrain.training_set import build_training_set

    with run.spends_nothing_if_it_fails(request):
        return build_training_set(run.spec, run.settings, request)


def train_candidate(run: Run, request: RetrainRequest, training_set: TrainingSet) -> Candidate:
    """Fit and register the candidate."""
    from include.retraining.retrain.candidate import train_candidate

    with run.spends_nothing_if_it_fails(request):
        return train_candidate(run.spec, run.settings, request, training_set)


def run_duel(run: Run, request: RetrainRequest, candidate: Candidate) -> GateDecision:
    """Hold candidate and champion against the same rows, and the gate against what was found."""
    from include.retraining.retrain.gate import decide

    return decide(run.spec, run.settings, request, candidate)


def retrain(spec: ModelSpec) -> DAG:
    """Give the retrain DAG of one model."""
    with stage_dag(
        spec,
        "retrain",
        description=f"Train a candidate for {spec.model}, let it duel, promote it if it wins",
        doc_md=__doc__,
        schedule=retrain_timetable(spec),
        catchup=False,
        max_active_runs=1,
        form=forms.of_retrain(),
    ) as dag:
        request = step(spec, claim_retrain)
        training_set = step(spec, build_training_set, request, execution_timeout=DATA)
        candidate = step(
            spec,
            train_candidate,
            request,
            training_set,
            links=[ModelVersionLink()],
            execution_timeout=TRAINING,
        )
        decision = step(spec, run_duel, request, candidate, execution_timeout=DATA)
        card = ModelCardOperator(task_id="write_candidate_card", spec=spec, record=candidate)

        decision >> card
        promote_if_passed(spec, decision)
    return dag


globals().update(generate(retrain))
