"""Every name that more than one place has to agree on, derived here and nowhere else."""

from __future__ import annotations

import hashlib
from typing import Literal

Stage = Literal["ingest", "monitor", "retrain", "guard", "rollback", "replay_quarantine"]
EventStage = Literal["watch_landing", "outcomes"]  # only of models that name a queue, or a feed

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS_CHAMPION = "previous_champion"
INCIDENT_TAG = "retraining.incident"
OWN = "_rt_"  # how the columns begin that the bundle adds to those of a user
SCORE = "prediction"  # a model's predictions, among the columns that are watched


def dag_id(model: str, stage: Stage | EventStage) -> str:
    """Give the id of one stage's DAG.

    >>> dag_id("flights", "monitor")
    'flights__monitor'
    """
    return f"{model}__{stage}"


def asset_name(model: str, noun: str) -> str:
    """Give the name of an asset.

    >>> asset_name("flights", "features")
    'flights.features'
    """
    return f"{model}.{noun}"


def outcome_feed(model: str) -> str:
    """Give the name of a model's feed of outcomes, below which its state lies.

    >>> outcome_feed("car_loans")
    'car_loans/outcomes'
    """
    return f"{model}/outcomes"


def model_of_feed(name: str) -> str | None:
    """Give the model whose outcomes a feed brings; None where the name is that of a model itself.

    >>> model_of_feed("car_loans/outcomes"), model_of_feed("car_loans")
    ('car_loans', None)
    """
    model, below, _ = name.partition("/")
    return model if below else None


def experiment_name(model: str) -> str:
    """Give the MLflow experiment of a model."""
    return f"retraining/{model}"


def incident_id(model: str, trigger: str, partition: str, champion_version: int | None) -> str:
    """Give the id that makes a retrain happen once: same cause, same id.

    Parameters
    ----------
    model, trigger, partition : str
        Which model, what asked for it (``monitor``, ``schedule``, ``manual``), and for which batch.
    champion_version : int or None
        The version in production when it was asked for; None before the first.

    >>> incident_id("flights", "monitor", "2013-02-11", 3)
    '2013-02-11-monitor-v3-de1cad'
    """
    cause = "|".join((model, trigger, partition, str(champion_version)))
    digest = hashlib.sha256(cause.encode()).hexdigest()[:6]
    champion = "none" if champion_version is None else f"v{champion_version}"
    return f"{partition}-{trigger}-{champion}-{digest}"
