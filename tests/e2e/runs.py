"""What tests of a running Airflow ask it: DAGs, runs and their tasks, a person's question."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from include.demo.stack import Stack
from include.retraining.spec import ModelSpec, load_spec

RETRAIN = "dags/flights__retrain"
RUNS = f"{RETRAIN}/dagRuns"
SECONDS = 420.0
SILENCE_HOURS = 0.03


def spec_of(root: Path, *, min_rows: int = 3000, autonomy: int = 2) -> ModelSpec:
    """Write the model file: small, with a gate that stops nothing; at 2 a person decides."""
    path = root / "include" / "models" / "flights.yaml"
    content = yaml.safe_load(path.read_text())
    content["training"] |= {
        "min_rows": min_rows,
        "params": {"max_iter": 10, "early_stopping": False},
    }
    content["gate"] |= {"mode": "dry_run"}  # equal models tie, and here each shall pass
    content["retrain"]["autonomy"] = autonomy
    if autonomy == 2:
        content["retrain"] |= {
            "approvers": ["admin"],
            "approval_timeout_hours": SILENCE_HOURS,
        }
    for other in path.parent.glob("*.yaml"):
        other.unlink()
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_spec(path)


def free_port() -> int:
    """Give a port that no other test's stack takes: they look from 8080 on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


def dags(stack: Stack) -> set[str]:
    return {dag["dag_id"] for dag in stack.get("dags")["dags"]}


def eventually(question: Callable[[], Any], seconds: float = SECONDS) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := question():
            return found
        time.sleep(1)
    return None


def states(stack: Stack, run_id: str) -> dict[str, str]:
    found = stack.get(f"{RUNS}/{run_id}/taskInstances")["task_instances"]
    return {task["task_id"]: task["state"] for task in found}


def finished(stack: Stack, run_id: str) -> dict[str, str]:
    """Wait for the end of a run; give its tasks' states."""
    done = eventually(lambda: stack.get(f"{RUNS}/{run_id}")["state"] in {"success", "failed"})
    assert done, states(stack, run_id)
    return states(stack, run_id)


def question(stack: Stack, run_id: str) -> dict[str, Any]:
    """Wait until a run asks; give the question."""
    task = f"{RUNS}/{run_id}/taskInstances/approve_promotion"
    asked = eventually(lambda: stack.get(task)["state"] == "awaiting_input")
    assert asked, states(stack, run_id)
    time.sleep(3)  # an answer that is sent at once can be lost
    return stack.get(f"{task}/-1/hitlDetails")


def answer(stack: Stack, run_id: str, choice: str) -> None:
    content = {"chosen_options": [choice], "params_input": {}}
    stack.patch(f"{RUNS}/{run_id}/taskInstances/approve_promotion/-1/hitlDetails", content)
