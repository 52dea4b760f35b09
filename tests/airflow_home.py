"""An Airflow of the tests' own: a temporary home, this bundle, nothing running.

Imported by the conftest files of the tests that need Airflow, before anything imports it.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = "retraining"
_MARK = f"_AIRFLOW_OF_TESTS_{os.getpid()}"  # a forked test worker needs a home of its own


def configure() -> Path:
    """Point Airflow at a new, empty home; once per process."""
    if _MARK in os.environ:
        return Path(os.environ["AIRFLOW_HOME"])
    home = Path(tempfile.mkdtemp(prefix="airflow-"))
    bundle = {
        "name": BUNDLE,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(ROOT)},
    }
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        _MARK: str(os.getpid()),
    }
    return home
