"""Airflow plugin for `benchmarks.chaos`: kills each task once, in the middle of it.

How long a task takes is what its run before took. The moment is a share of that which the seed
decides; a task that ends before it is killed in a later run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

_started = 0.0
_timer: threading.Timer | None = None


def _note(kind: str, task_instance: Any) -> Path:
    folder = Path(os.environ["BENCHMARK_KILLS"], kind)
    return folder / f"{task_instance.dag_id}.{task_instance.task_id}"


def _kill(note: Path, about: dict[str, Any]) -> None:
    try:
        with note.open("x") as file:  # of runs at once one dies
            file.write(json.dumps(about))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class Listener:
    @hookimpl
    def on_task_instance_running(self, previous_state, task_instance):
        global _started, _timer
        _started = time.monotonic()
        known, killed = _note("seconds", task_instance), _note("killed", task_instance)
        if killed.exists() or not known.exists():
            return
        usual = float(known.read_text())
        share = random.Random(f"{os.environ['BENCHMARK_SEED']} {known.name}").uniform(0.1, 0.8)
        about = {"run_id": task_instance.run_id, "usual_s": usual, "share": round(share, 2)}
        _timer = threading.Timer(usual * share, _kill, (killed, about))
        _timer.daemon = True
        _timer.start()

    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        if _timer is not None:
            _timer.cancel()
        known = _note("seconds", task_instance)
        known.write_text(f"{time.monotonic() - _started:.3f}")


class KillPlugin(AirflowPlugin):
    name = "kill"
    listeners = [Listener()]  # noqa: RUF012 - declared so by Airflow's base class
