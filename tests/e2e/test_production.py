"""Six weeks on the stack of production: PostgreSQL, Redis, S3, an MLflow server, two workers.

A person approves what the gate lets through, and rolls the last promotion back.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.names import Stage, dag_id
from include.retraining.records import BatchRef, Verdict
from include.retraining.registry import ledger, server
from include.retraining.settings import REPOSITORY
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from tests.e2e import runs
from tests.e2e.production import MAIN, WORKERS, Production, listing, missing

FIRST, WEEKS = 16, 6  # as the demo: spring turns into summer
STAGES: tuple[Stage, ...] = ("ingest", "monitor", "retrain", "rollback")
LACKING = missing()
# by Airflow and Matplotlib as they start; and messages, as no Slack is connected here
OF_A_WORKER = ("airflow/airflow.cfg", "home/.cache", "home/.config", "state/slack")
EXPECTED = {MAIN: ("airflow/passwords.json",), **dict.fromkeys(WORKERS, OF_A_WORKER)}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(bool(LACKING), reason=LACKING or "all is there"),
]


@dataclass
class Life:
    """What six weeks and a rollback came to."""

    spec: ModelSpec
    verdicts: list[Verdict] = field(default_factory=list)
    approved: list[str] = field(default_factory=list)
    champions: list[int | None] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    new: dict[str, set[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def production(tmp_path_factory, _s3_server: str) -> Iterator[Production]:
    keys = {
        "AWS_ENDPOINT_URL_S3": _s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    stack = Production(tmp_path_factory.mktemp("production"), _s3_server, keys)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        try:
            stack.prepare()
            for host in (MAIN, *WORKERS):
                # the first retrain has the delays of a week before to learn from
                runs.spec_of(stack.root(host) / "retraining", min_rows=12000)
            stack.start()
            yield stack
        finally:
            stack.stop()


@pytest.fixture(scope="module")
def lived(production: Production) -> Life:
    """Let six weeks land one by one, approve what is asked, and roll back in the end."""
    spec = runs.load_spec(production.home / "retraining" / "include" / "models" / "flights.yaml")
    batches = [
        spec.batch_ref(spec.partition_key(spec.partitions.first + week * spec.partitions.length))
        for week in range(FIRST, FIRST + WEEKS)
    ]
    wanted = {dag_id(spec.model, stage) for stage in STAGES}
    assert runs.eventually(lambda: wanted <= runs.dags(production))
    life = Life(spec)
    production.backfill(spec.model, STAGES, batches)
    for batch in batches:
        one_week(production, life, batch)
        life.champions.append(champion(production, life))
    rolled = production.post(
        "dags/flights__rollback/dagRuns", {"logical_date": None, "conf": {"reason": "a drill"}}
    )
    path = f"dags/flights__rollback/dagRuns/{rolled['dag_run_id']}"
    assert runs.eventually(lambda: production.get(path)["state"] in {"success", "failed"})
    life.champions.append(champion(production, life))
    assert runs.eventually(lambda: settled(production))
    time.sleep(3)  # a task's process ends a moment after its state
    life.tasks = tasks(production)
    life.new = {host: listing(production.root(host)) - was for host, was in production.laid.items()}
    return life


def one_week(stack: Production, life: Life, batch: BatchRef) -> None:
    storage = Storage.of(stack.settings)
    flights_feed.push_weather(life.spec, stack.settings, batch)
    flights_feed.land(storage, batch)
    verdict = runs.eventually(
        lambda: shelf.find(storage, Verdict, life.spec.model, batch.partition)
    )
    assert verdict, states(stack)
    life.verdicts.append(verdict)
    if verdict.outcome != "retrain":
        return
    run = f"{runs.RUNS}/{verdict.incident_id}"
    assert runs.eventually(
        lambda: verdict.incident_id in {one["dag_run_id"] for one in all_runs(stack)}
    )
    runs.question(stack, verdict.incident_id)
    runs.answer(stack, verdict.incident_id, "Approve")
    runs.finished(stack, verdict.incident_id)
    assert stack.get(run)["state"] == "success"
    life.approved.append(batch.partition)


def champion(stack: Production, life: Life) -> int | None:
    return server.aliases(life.spec, stack.settings).get("champion")


def all_runs(stack: Production) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.get("dags/~/dagRuns", limit=100)["dag_runs"]
    return found


def settled(stack: Production) -> bool:
    return all(run["state"] in {"success", "failed"} for run in all_runs(stack))


def tasks(stack: Production) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = stack.get("dags/~/dagRuns/~/taskInstances", limit=100, offset=len(found))
        found += page["task_instances"]
        if not page["task_instances"] or len(found) >= page["total_entries"]:
            return found


def states(stack: Production) -> Counter[tuple[str, str]]:
    return Counter((task["task_id"], task["state"]) for task in tasks(stack))


def test_each_of_six_weeks_is_judged(lived: Life):
    assert len(lived.verdicts) == WEEKS
    assert len(lived.approved) >= 2, [one.outcome for one in lived.verdicts]


def test_both_workers_ran_tasks_and_no_try_of_any_failed(lived: Life):
    ran = Counter(task["hostname"] for task in lived.tasks if task["hostname"])
    assert set(ran) >= set(WORKERS), ran
    assert {task["state"] for task in lived.tasks} <= {"success", "skipped"}, lived.tasks
    again = [(t["dag_id"], t["task_id"], t["try_number"]) for t in lived.tasks]
    assert [one for one in again if one[2] > 1] == []


def test_what_a_person_approved_is_promoted_and_the_ledger_is_sound(
    production: Production, lived: Life
):
    entries = ledger.read(Storage.of(production.settings), "flights")
    promoted = [one for one in entries if one.action == "promotion"]
    assert [one.partition for one in promoted] == lived.approved
    assert {one.actor for one in promoted} == {"admin, who approved"}
    done = subprocess.run(
        [sys.executable, "-m", "include.retraining", "ledger", "verify", "flights"],
        env=production.environment | production.shell | {"HOME": str(production.home)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rollback_moved_the_champion_back(production: Production, lived: Life):
    *_, before, after = lived.champions
    versions = list(dict.fromkeys(one for one in lived.champions[:-1] if one))
    assert (before, after) == (versions[-1], versions[-2])
    assert ledger.read(Storage.of(production.settings), "flights")[-1].action == "rollback"


def test_six_weeks_leave_nothing_outside_of_storage_and_logs(lived: Life):
    made = {
        host: sorted(one for one in new if not one.startswith(EXPECTED[host]))
        for host, new in lived.new.items()
    }
    # one of Feast's and one of multiprocessing's: the worker's process removes them as it ends
    its_own = {
        worker: [one for one in made[worker] if re.match(r"tmp/(feast_metrics_|pymp-)", one)]
        for worker in WORKERS
    }
    for worker, found in its_own.items():
        assert len({one.split("/")[1] for one in found}) <= 2, (worker, found)
        made[worker] = [one for one in made[worker] if one not in found]
    assert made == {host: [] for host in (MAIN, *WORKERS)}
