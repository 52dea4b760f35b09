"""A whole retrain in a process of its own, which kills itself (SIGKILL) at the stage it is told.

``python -m tests.unit.killed HOME STAGE``; prints the digest of the model if it lives.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from include.retraining.registry import ledger, succession
from include.retraining.registry import succession as registry
from include.retraining.retrain import candidate as candidates
from include.retraining.retrain import gate, incident
from include.retraining.retrain.training_set import build_training_set
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from tests.unit.pipeline import small_spec

AT = dt.datetime(2013, 2, 4, tzinfo=dt.UTC)


def spec() -> ModelSpec:
    """Give a model whose candidate passes, though it ties."""
    return small_spec(gate={"mode": "dry_run"}, training={"seed": 11, "cv_folds": 0})


def die_at(stage: str) -> None:  # noqa: C901 - one case per stage
    """Put a SIGKILL where the stage begins."""
    import mlflow
    from mlflow import MlflowClient
    from sklearn.pipeline import Pipeline

    def before(owner: Any, name: str, is_it: Callable[..., bool] = lambda *_: True) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if is_it(*arguments):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        setattr(owner, name, call)

    match stage:
        case "training":
            before(Pipeline, "fit")
        case "logging":
            before(mlflow, "log_params")
        case "model logged":
            before(MlflowClient, "create_model_version")
        case "registered":
            before(MlflowClient, "set_registered_model_alias")
        case "decided":
            before(registry, "promote")
        case "before the alias":
            before(MlflowClient, "set_registered_model_alias", lambda *a: a[2] == "champion")
        case "between alias and stage":
            before(MlflowClient, "transition_model_version_stage", lambda *a: a[3] == "Production")
        case "before the ledger":
            number = re.compile(r".*/ledger/\d{6}\.json")
            before(Storage, "create", lambda *a: bool(number.fullmatch(a[1])))
        case "after the ledger":
            before(ledger, "_settle")


STAGES = (
    "training",
    "logging",
    "model logged",
    "registered",
    "decided",
    "before the ledger",
    "after the ledger",
    "before the alias",
    "between alias and stage",
)


def main(home: str, stage: str) -> None:
    """Run every step of the retrain, as its tasks do."""
    settings, model = Settings(home=Path(home)), spec()
    die_at(stage)
    request = incident.open_incident(
        model,
        settings,
        batch=model.batch_ref("2013-01-21"),
        trigger="manual",
        reason="a test",
        run_id="the run",
        force=True,
    )
    training_set = build_training_set(model, settings, request)
    candidate = candidates.train_candidate(model, settings, request, training_set)
    decision = gate.decide(model, settings, request, candidate)
    succession.promote(model, settings, decision, actor="test", at=AT)
    sys.stdout.write(f"digest {candidate.digest}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
