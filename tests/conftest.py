"""What all tests share: no library of theirs calls home."""

from __future__ import annotations

import os

import pytest

# before any of these libraries is imported
os.environ["DO_NOT_TRACK"] = "true"  # Evidently, Feast
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["GX_ANALYTICS_ENABLED"] = "false"


def pytest_configure(config: pytest.Config) -> None:
    # MLflow's own agent and chat types, imported when a model is logged
    config.addinivalue_line(
        "filterwarnings", "ignore:.*Any type hint is inferred as AnyType:UserWarning"
    )
