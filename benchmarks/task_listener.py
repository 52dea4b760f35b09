"""Airflow plugin for `benchmarks.pipeline`: notes each task's cost and what imports are of it."""

from __future__ import annotations

import importlib._bootstrap as bootstrap
import json
import os
import time
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

_depth = 0
_import_seconds = 0.0


def _watch_imports() -> None:
    """Count CPU time in outermost imports; what an import imports in turn is part of it."""
    original = bootstrap._find_and_load

    def timed(name: str, import_: Any) -> Any:
        global _depth, _import_seconds
        _depth += 1
        started = time.process_time()
        try:
            return original(name, import_)
        finally:
            _depth -= 1
            if _depth == 0:
                _import_seconds += time.process_time() - started

    bootstrap._find_and_load = timed


class Listener:
    @hookimpl
    def on_task_instance_running(self, previous_state, task_instance):
        _watch_imports()

    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        note = {
            "dag": task_instance.dag_id,
            "task": task_instance.task_id,
            "cpu_s": time.process_time(),
            "import_s": _import_seconds,
        }
        with Path(os.environ["BENCHMARK_TASKS"]).open("a") as file:
            file.write(json.dumps(note) + "\n")


class BenchmarkPlugin(AirflowPlugin):
    name = "benchmark"
    listeners = [Listener()]  # noqa: RUF012 - declared so by Airflow's base class
