"""Airflow plugin for `benchmarks.order`: holds up each task, by a time that the seed decides."""

from __future__ import annotations

import os
import random
import time

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


class Listener:
    @hookimpl
    def on_task_instance_running(self, previous_state, task_instance):
        name = (task_instance.dag_id, task_instance.run_id, task_instance.task_id)
        chance = random.Random(f"{os.environ['BENCHMARK_SEED']} {name}")
        time.sleep(min(chance.expovariate(1 / float(os.environ["BENCHMARK_DELAY"])), 20.0))


class DelayPlugin(AirflowPlugin):
    name = "delay"
    listeners = [Listener()]  # noqa: RUF012 - declared so by Airflow's base class
