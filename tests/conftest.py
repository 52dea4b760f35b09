"""What all tests share: no library calls home, or takes more than its core."""

from __future__ import annotations

import os

import pytest

# before any of these libraries is imported
os.environ["DO_NOT_TRACK"] = "true"  # Evidently, Feast
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["GX_ANALYTICS_ENABLED"] = "false"
# the tests themselves run side by side: more threads than cores only wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    # MLflow's own agent and chat types, imported when a model is logged
    config.addinivalue_line(
        "filterwarnings", "ignore:.*Any type hint is inferred as AnyType:UserWarning"
    )
