"""One retrain, whatever happens to it: a real Airflow with two schedulers on PostgreSQL.

A person answers through the REST API: yes, no, and not at all.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.demo import stack as demo
from include.retraining.records import Candidate
from include.retraining.registry import ledger, server, versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec, load_spec
from include.retraining.storage import Storage
from tests.e2e.copied import CopiedStack
from tests.e2e.runs import (
    RETRAIN,
    RUNS,
    answer,
    dags,
    eventually,
    finished,
    question,
    spec_of,
    states,
)
from tests.unit import pipeline

SERVER = os.environ.get("TEST_POSTGRES_URL", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not SERVER, reason="TEST_POSTGRES_URL names no server"),
]


class TwoSchedulers(CopiedStack):
    """The embedded stack with a second scheduler, on PostgreSQL, on a copy of the bundle."""

    def __init__(self, settings: Settings, root: Path, database: str) -> None:
        super().__init__(settings, root)
        self.database = database

    @property
    def environment(self) -> dict[str, str]:
        url = SERVER.rpartition("/")[0].replace("postgresql://", "postgresql+psycopg2://")
        return super().environment | {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"{url}/{self.database}",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,bob:op",
            "PYTHONWARNINGS": "ignore",
        }


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, ingested_home: Path) -> Iterator[TwoSchedulers]:
    import psycopg

    base = tmp_path_factory.mktemp("e2e")
    settings = pipeline.copy_home(ingested_home, base / "home")
    database = f"exactly_once_{os.getpid()}"
    stack = TwoSchedulers(settings, base / "bundle", database)
    spec_of(stack.root)
    with psycopg.connect(SERVER, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    second = ("scheduler", "--skip-serve-logs")
    before = demo.COMPONENTS
    try:
        demo.COMPONENTS = before | {"scheduler-2": second}
        demo.START_SECONDS = 400.0
        stack.prepare()
        stack.start()
        assert eventually(lambda: "flights__retrain" in dags(stack))
        stack.patch(RETRAIN, {"is_paused": False})
        yield stack
    finally:
        demo.COMPONENTS = before
        stack.stop()
        with psycopg.connect(SERVER, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


@pytest.fixture(scope="module")
def spec(airflow: TwoSchedulers) -> ModelSpec:
    return load_spec(airflow.root / "include" / "models" / "flights.yaml")


def trigger(stack: demo.Stack, run_id: str, **conf: object) -> None:
    asked = {"partition": "2013-01-21", "reason": "a test", **conf}
    stack.post(RUNS, {"dag_run_id": run_id, "logical_date": None, "conf": asked})


def messages(stack: demo.Stack) -> str:
    folder = Storage(f"file://{stack.home / 'slack'}")
    return "\n".join(folder.read_json(key)["text"] for key in folder.list(""))


def made(stack: demo.Stack, spec: ModelSpec) -> tuple[int, int, int, list[str]]:
    """Give how many runs, versions and ledger entries there are, and the candidates' digests."""
    settings, storage = stack.settings, Storage.of(stack.settings)
    api = server.client(settings)
    runs = api.search_runs(
        [server.experiment_id(spec, settings)], "tags.`retraining.kind` = 'retrain'"
    )
    versions = api.search_model_versions("name = 'flights'")
    keys = [key for key in storage.list("flights/retrain") if key.endswith("/candidate.json")]
    digests = [storage.read_record(key, Candidate).digest for key in keys]
    return len(runs), len(versions), len(ledger.read(storage, "flights")), digests


class Watch(threading.Thread):
    """Asks for the champion all the time, as a client that serves it would."""

    def __init__(self, spec: ModelSpec, settings: Settings) -> None:
        super().__init__(daemon=True)
        self.spec, self.settings = spec, settings
        self.seen: list[int | None] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            self.seen.append(server.aliases(self.spec, self.settings).get("champion"))


def test_event_delivered_twice_to_two_schedulers_is_one_retrain(airflow, spec):
    senders = [
        threading.Thread(target=trigger, args=(airflow, run_id)) for run_id in ("one", "other")
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    asking = eventually(
        lambda: [
            run_id
            for run_id in ("one", "other")
            if states(airflow, run_id).get("approve_promotion") == "awaiting_input"
        ]
    )
    assert asking, (states(airflow, "one"), states(airflow, "other"))
    (first,) = asking
    asked = question(airflow, first)
    assert asked["subject"] == "Promote version 1 of flights to production (2013-01-21)?"
    assert "| floor | ok |" in asked["body"]
    assert "/#/models/flights/versions/1" in asked["body"]
    assert f"/dags/flights__retrain/runs/{first}" in asked["body"]
    assert [user["id"] for user in asked["assigned_users"]] == ["admin"]
    assert asked["defaults"] == ["Reject"]
    link = f"/runs/{first}/tasks/approve_promotion/required_actions?map_index=-1"
    assert eventually(lambda: link in messages(airflow), 60)
    answer(airflow, first, "Approve")
    done = finished(airflow, first)
    assert done["promote_candidate"] == done["alert_promotion"] == "success", done
    (second,) = {"one", "other"} - {first}
    assert finished(airflow, second)["claim_retrain"] == "skipped"
    runs, versions, entries, digests = made(airflow, spec)
    assert (runs, versions, entries, len(digests)) == (1, 1, 1, 1)
    assert len(pipeline.claims(spec, Storage.of(airflow.settings))) == 1
    (entry,) = ledger.read(Storage.of(airflow.settings), "flights")
    assert entry.actor == "admin, who approved"
    both = airflow.get("jobs", job_type="SchedulerJob", is_alive=True)["jobs"]
    assert len(both) == 2


def test_every_task_of_a_finished_retrain_run_again_changes_nothing(airflow, spec):
    before = made(airflow, spec)
    (entry,) = ledger.read(Storage.of(airflow.settings), "flights")
    (claim,) = pipeline.claims(spec, Storage.of(airflow.settings))
    watch = Watch(spec, airflow.settings)
    watch.start()
    airflow.post(
        f"{RETRAIN}/clearTaskInstances",
        {"dry_run": False, "dag_run_id": claim.run_id, "only_failed": False},
    )
    eventually(lambda: airflow.get(f"{RUNS}/{claim.run_id}")["state"] != "success", 60)
    question(airflow, claim.run_id)
    answer(airflow, claim.run_id, "Approve")
    done = finished(airflow, claim.run_id)
    watch.ended.set()
    assert done["promote_candidate"] == "success", done
    assert made(airflow, spec) == before
    assert ledger.read(Storage.of(airflow.settings), "flights") == [entry]
    assert set(watch.seen) == {1}


def test_no_archives_the_candidate_and_is_told(airflow, spec):
    trigger(airflow, "refused", force=True)
    question(airflow, "refused")
    answer(airflow, "refused", "Reject")
    done = finished(airflow, "refused")
    assert (done["approve_promotion"], done["promote_candidate"]) == ("success", "skipped")
    assert done["alert_answer"] == "success"
    assert server.aliases(spec, airflow.settings)["champion"] == 1
    assert versions.version(spec, airflow.settings, 2).stage == "Archived"
    assert "Candidate version 2 is not promoted: admin said no" in messages(airflow)


def test_silence_is_a_no(airflow, spec):
    trigger(airflow, "unanswered", force=True)
    question(airflow, "unanswered")
    done = finished(airflow, "unanswered")
    assert (done["approve_promotion"], done["promote_candidate"]) == ("success", "skipped")
    assert server.aliases(spec, airflow.settings)["champion"] == 1
    assert versions.version(spec, airflow.settings, 3).stage == "Archived"
    assert "Candidate version 3 is not promoted: nobody answered in time" in messages(airflow)
    assert len(ledger.read(Storage.of(airflow.settings), "flights")) == 1
