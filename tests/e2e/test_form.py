"""What a person starts from Airflow's form is done, by the form's own request and in a browser."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.demo import flights_feed
from include.demo.stack import Stack
from include.retraining import shelf
from include.retraining.records import Candidate, RetrainRequest
from include.retraining.retrain import claims
from include.retraining.spec import MODELS_DIR, load_spec
from include.retraining.storage import Storage
from tests.e2e.runs import free_port
from tests.unit import pipeline

SPEC = load_spec(MODELS_DIR / "flights.yaml")
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
]
SECONDS = 300.0
NEW = "2013-02-04"

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def stack(tmp_path_factory, ingested_home: Path) -> Iterator[Stack]:
    """The embedded set-up with four weeks in force and one that has landed; no model yet."""
    settings = pipeline.copy_home(ingested_home, tmp_path_factory.mktemp("form") / "home")
    flights_feed.land(Storage.of(settings), SPEC.batch_ref(NEW))
    found = Stack(settings, port=free_port())
    try:
        found.prepare()
        found.start()
        until = time.monotonic() + SECONDS
        while "flights__retrain" not in {dag["dag_id"] for dag in found.get("dags")["dags"]}:
            assert time.monotonic() < until
            time.sleep(0.5)
        yield found
    finally:
        found.stop()


def ended(stack: Stack, dag: str, run_id: str) -> dict[str, str]:
    """Wait for a run to end; give the states of its tasks."""
    until = time.monotonic() + SECONDS
    while stack.get(f"dags/{dag}/dagRuns/{run_id}")["state"] not in {"success", "failed"}:
        assert time.monotonic() < until, stack.get(f"dags/{dag}/dagRuns/{run_id}/taskInstances")
        time.sleep(0.5)
    tasks = stack.get(f"dags/{dag}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return {task["task_id"]: task["state"] for task in tasks}


def candidate_of(stack: Stack, reason: str) -> Candidate | None:
    storage = Storage.of(stack.settings)
    for one in claims.claimed(storage, SPEC.model):
        claim = claims.find(storage, SPEC.model, one.incident_id)
        request: RetrainRequest | None = claim.request if claim else None
        if request is not None and request.reason == reason:
            return shelf.find(storage, Candidate, SPEC.model, one.incident_id)
    return None


@pytest.fixture
def page(stack: Stack) -> Iterator[Any]:
    """A browser that is logged in."""
    if CHROMIUM is None:
        pytest.skip("no chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        found = browser.new_page(viewport={"width": 1280, "height": 900})
        found.set_default_timeout(SECONDS * 1000)
        found.goto(f"{stack.url}/")
        found.get_by_label("Username").fill("admin")
        found.get_by_label("Password").fill(stack.password)
        found.get_by_role("button", name="Sign in").click()
        found.get_by_text("Dags").first.wait_for()
        yield found
        browser.close()


def pressed(stack: Stack, page: Any, dag: str, **entries: str) -> str:
    """Fill in the form of a DAG, press its button, and give the id of the run that it made."""
    page.goto(f"{stack.url}/dags/{dag}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    for name, value in entries.items():
        form.locator(f"#element_{name}").fill(value)
    with page.expect_response(lambda answer: answer.url.endswith(f"/dags/{dag}/dagRuns")) as answer:
        form.get_by_role("button", name="Trigger").click()
    made: str = answer.value.json()["dag_run_id"]
    return made


def test_a_partition_entered_in_the_browser_is_ingested(stack: Stack, page):
    run_id = pressed(stack, page, "flights__ingest", partition=NEW)
    done = ended(stack, "flights__ingest", run_id)
    names = ("validate_batch", "publish_batch", "materialize_features")
    assert {name: done[name] for name in names} == dict.fromkeys(names, "success")


def test_a_retrain_entered_in_the_browser_trains(stack: Stack, page):
    run_id = pressed(
        stack, page, "flights__retrain", partition="2013-01-28", reason="asked for in a browser"
    )
    done = ended(stack, "flights__retrain", run_id)
    assert done["train_candidate"] == "success"
    assert candidate_of(stack, "asked for in a browser") is not None


@pytest.mark.parametrize("date", ["now", None])
def test_a_retrain_asked_for_as_the_form_does_trains_though_its_date_is_after_all_data(
    stack: Stack, date: str | None
):
    stack.patch("dags/flights__retrain", {"is_paused": False})
    reason = f"a form with date {date}"
    run = stack.post(
        "dags/flights__retrain/dagRuns",
        {
            "logical_date": dt.datetime.now(dt.UTC).isoformat() if date else None,
            "data_interval_start": None,
            "data_interval_end": None,
            "conf": {"partition": "2013-01-28", "reason": reason, "force": True},
        },
    )
    done = ended(stack, "flights__retrain", run["dag_run_id"])
    names = ("claim_retrain", "build_training_set", "train_candidate", "run_duel")
    assert {name: done[name] for name in names} == dict.fromkeys(names, "success")
    assert candidate_of(stack, reason) is not None
