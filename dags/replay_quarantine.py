"""
### Replay quarantine: bring back what was quarantined, after a fix

**Starts** by hand (form: partition, reason, and what to read differently, if it is not the suite
that was mended).

**Does**: validates the batch's newest delivery again, as it landed, against the suite of today;
publishes the good rows, re-admitted ones included, and materializes the features.

**Emits** `<model>.validated_batch` and `<model>.features`, like the ingest.

**When it fails**: `publish_batch` is red if the batch is still refused; nothing changed, and the
alert says what is broken. Mend the suite or give another mapping, and trigger it again. Running it
twice publishes once.
"""

from __future__ import annotations

from airflow.sdk import DAG
from retraining_provider import forms
from retraining_provider.context import Run
from retraining_provider.defaults import DATA
from retraining_provider.generation import generate, stage_dag
from retraining_provider.links import DataDocsLink
from retraining_provider.operators.record import step
from retraining_provider.publishing import publish_validated

from include.retraining.records import DeliveryMapping, ValidationReport
from include.retraining.spec import ModelSpec


def revalidate_batch(run: Run) -> ValidationReport:
    """Hold the newest delivery against the suites of today, read as the form says."""
    from include.retraining.data.quarantine import revalidate_batch

    asked = {name: run.params[name] for name in ("input", "renames", "replacements", "reason")}
    is_mapped = asked["renames"] or asked["replacements"]
    mapping = DeliveryMapping(**asked, actor=run.actor) if is_mapped else None
    return revalidate_batch(run.spec, run.storage, run.batch, mapping=mapping)


def replay_quarantine(spec: ModelSpec) -> DAG:
    """Give the DAG of one model that replays its quarantine."""
    with stage_dag(
        spec,
        "replay_quarantine",
        description=f"Bring quarantined rows of {spec.model} back after a fix",
        doc_md=__doc__,
        schedule=None,
        max_active_runs=1,
        form=forms.of_replay(spec),
    ) as dag:
        report = step(spec, revalidate_batch, links=[DataDocsLink()], execution_timeout=DATA)
        publish_validated(spec, report)
    return dag


globals().update(generate(replay_quarantine))
