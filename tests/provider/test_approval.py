"""What is kept of a person's answer, and when."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import pytest
from airflow.providers.standard.operators.hitl import ApprovalOperator
from retraining_provider.hooks.retraining import RetrainingHook
from retraining_provider.operators import approval

from include.retraining import shelf
from include.retraining.records import GuardAnswer, Verdict
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, load_spec
from include.retraining.storage import Storage

SPEC = load_spec(MODELS_DIR / "flights.yaml")
VERDICT = Verdict(
    batch=SPEC.batch_ref("2013-02-04"),
    outcome="rollback",
    reasons=("worse",),
    content_sha256="c",
    champion_version=2,
    incident_id="2013-02-04-guard-v2-abcdef",
)


@pytest.mark.parametrize(
    ("option", "user", "words"),
    [
        ("Reject", {"id": "1", "name": "ada"}, "ada said no"),
        ("Reject", None, "nobody answered in time"),
        ("Approve", {"id": "1", "name": "ada"}, "ada said yes"),
    ],
)
def test_the_answer_to_the_guards_question_is_kept_before_what_follows_is_skipped(
    tmp_path, monkeypatch, option, user, words
):
    settings = Settings(home=tmp_path)
    monkeypatch.setattr(RetrainingHook, "settings", lambda self: settings)
    question = approval.RollbackApprovalOperator(
        task_id="approve_rollback", spec=SPEC, record=VERDICT.model_dump(mode="json")
    )
    pushed, seen = {}, []

    def found() -> GuardAnswer | None:
        return shelf.find(Storage.of(settings), GuardAnswer, SPEC.model, VERDICT.batch.partition)

    monkeypatch.setattr(
        ApprovalOperator, "execute_complete", lambda self, context, event: seen.append(found())
    )
    instance = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    event = {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": dt.datetime.now(dt.UTC),
        "responded_by_user": user,
    }
    question.execute_complete({"task_instance": instance}, event)
    (kept,) = seen
    assert (kept.in_words, kept.approved) == (words, option == "Approve")
    assert kept.incident_id == VERDICT.incident_id
    assert pushed == {"answer": {"approved": kept.approved, "by": kept.by}}
