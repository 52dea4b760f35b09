"""Loads the heavy libraries once, in the process from which the executor's workers are forked.

For the LocalExecutor and Celery's workers; copied to ``$AIRFLOW_HOME/config/``. It imports
nothing of the bundle, so that a change of the bundle needs no restart.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from typing import Any

LIBRARIES = (
    "pandas",
    "pyarrow.parquet",
    "pyarrow.dataset",
    "pyarrow.csv",
    "pyarrow.json",
    "duckdb",
    "deltalake",  # importing it is safe before a fork; opening a table with it is not
    "scipy.stats",
    "scipy.special",
    "sklearn.ensemble",
    "sklearn.compose",
    "sklearn.pipeline",
    "sklearn.impute",
    "skops.io",
    "great_expectations",
    "great_expectations.expectations.core",
    "feast",
    "feast.infra.online_stores.sqlite",
    "feast.infra.registry.sql",
    "feast.infra.offline_stores.file_source",
    "feast.on_demand_feature_view",
    "mlflow",
    "mlflow.sklearn",
    "mlflow.data",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "evidently",
    "evidently.presets",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "slack_sdk",
    "s3fs",
)

# where the option sql_alchemy_connect_args names it: the seconds that SQLite waits for locks; no
# other database knows the word
_database = os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:")
_sqlite = _database.startswith("sqlite")
connect_args = {"timeout": 120} if _sqlite else {}

if _sqlite and "scheduler" in sys.argv:
    from sqlalchemy.ext.compiler import compiles
    from sqlalchemy.sql.functions import now

    @compiles(now, "sqlite")
    def _with_fractions(*_: object, **__: object) -> str:
        """SQLite's own knows whole seconds: what is to run now would begin with the next one."""
        return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


if _sqlite and "api-server" in sys.argv:
    import asyncio
    import functools

    from airflow.api_fastapi.logging import decorators

    _action_logging = decorators.action_logging

    @functools.wraps(_action_logging)
    def _in_a_thread(event: str | None = None) -> Any:
        log_action = _action_logging(event)

        @functools.wraps(log_action)
        async def in_a_thread(request: Any, **others: Any) -> None:
            """Airflow's commits on the loop: it waits there for the lock of another request.

            That one needs the loop to end, so nothing is answered until the lock is given up.
            """
            await request.body()  # kept: what follows waits for nothing but the database
            await asyncio.to_thread(asyncio.run, log_action(request=request, **others))

        return in_a_thread

    decorators.action_logging = _in_a_thread


# the LocalExecutor forks its workers from the scheduler, Celery's from the process `celery worker`
FORKS = {"scheduler", "worker"}

if FORKS & set(sys.argv) and os.environ.get("RETRAINING_PRELOAD", "1") == "1":
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    with contextlib.suppress(Exception):  # which package a module is of: half a second a model
        requirements = importlib.import_module("mlflow.utils.requirements_utils")
        requirements._init_modules_to_packages_map()  # noqa: SLF001
    gc.freeze()  # what is loaded now is never collected: the workers go on sharing its memory
