"""The page "Models" in a real API server and a real browser: what it shows, who may do what."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from include.demo.stack import Stack
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, load_spec
from tests.e2e.runs import free_port
from tests.e2e.seen import CHROMIUM, Seen, chromium
from tests.made_state import Made, summer

SPEC = load_spec(MODELS_DIR / "flights.yaml")
SECONDS = 180.0
TIMES = "\N{MULTIPLICATION SIGN}"
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium"),
]


class Served(NamedTuple):
    """An API server over made-up state: no scheduler, so what is started waits for ever."""

    url: str
    passwords: dict[str, str]

    def client(self, user: str) -> httpx.Client:
        login = {"username": user, "password": self.passwords[user]}
        answer = httpx.post(f"{self.url}/auth/token", json=login, timeout=60)
        token = answer.raise_for_status().json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    settings = Settings(home=tmp_path_factory.mktemp("page") / "home")
    made = Made(SPEC, settings)
    summer(made, 12)
    made.lands(12, refused=(HOSTILE,))
    stack = Stack(settings, port=free_port())
    stack.prepare()
    environment = stack.environment | {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,ann:viewer"
    }
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run(
        [*airflow, "dags", "reserialize"],
        env=environment, cwd=settings.home, check=True, capture_output=True, timeout=SECONDS,
    )  # fmt: skip
    with (settings.home / "logs" / "api-server.log").open("wb") as log:
        server = subprocess.Popen(
            [*airflow, "api-server"],
            env=environment, cwd=settings.home, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + SECONDS
        while not is_healthy(stack.url):
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.3)
        passwords = json.loads((settings.home / "airflow" / "passwords.json").read_text())
        yield Served(stack.url, passwords)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/v2/monitor/health", timeout=30).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def see(served, browser) -> Iterator[Any]:
    """Open a browser as a user."""
    opened: list[Seen] = []

    def open_as(user: str = "admin", **options: Any) -> Seen:
        password = served.passwords[user]
        opened.append(Seen(browser, served.url, user=user, password=password, **options))
        return opened[-1]

    yield open_as
    for one in opened:
        one.context.close()


def test_fleet_leads_to_a_model_and_a_cell_of_its_map_to_the_batch(see):
    seen = see()
    page = seen.go("/plugin/models")
    flights = page.get_by_role("row").filter(has_text="flight-ops-ml")
    assert "version 1" in flights.inner_text()
    assert "rollback: rollback drill" in flights.inner_text()
    flights.get_by_role("link", name="flights", exact=True).click()
    page.get_by_role("heading", name="Is it well?").wait_for()
    text = page.inner_text()
    for told in (
        "since 2026-11-26 12:03 UTC, by admin",
        "trained on 29,990 rows",
        "was refused: deliver a corrected file",
        "3 entries; the chain was not compared with MLflow",
        "roc_auc gain +0.0035 on the champion could be chance",
    ):
        assert told in text
    pressure = page.get_by_role("row").filter(has_text="pressure").get_by_role("link")
    hot = pressure.filter(has_text=TIMES).nth(1)
    assert "its threshold, drifted" in hot.get_attribute("title")
    hot.click()
    page.get_by_role("heading", name="flights, 2013-02-04").wait_for()
    story = page.locator(".rt-story h2").all_inner_texts()
    assert [one.split(" ")[1] for one in story] == [
        "Delivery", "Features", "Measured", "Verdict", "Retrain", "Gate", "Production",
    ]  # fmt: skip
    seen.page.go_back()
    page.get_by_role("heading", name="Is it well?").wait_for()
    assert seen.complaints == []


def test_tab_of_each_dag_shows_its_model(see):
    seen = see()
    page = seen.go("/dags/flights__retrain/plugin/model")
    assert page.get_by_role("heading", name="flights", exact=True).is_visible()
    assert seen.complaints == []


def test_values_of_the_data_are_text(see):
    seen = see()
    page = seen.go("/plugin/models?model=flights")
    assert HOSTILE in page.inner_text()
    assert page.locator("img").count() == 0
    assert seen.page.title() != "owned"


def test_it_is_dark_where_airflow_is(see):
    grounds = {}
    for scheme in ("light", "dark"):
        seen = see(color_scheme=scheme)
        seen.page.evaluate("name => localStorage.setItem('theme', name)", scheme)
        seen.go("/plugin/models?model=flights")
        card = seen.page.locator(".rt-card").first
        grounds[scheme] = card.evaluate("one => getComputedStyle(one).backgroundColor")
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 27, 33)"}


@pytest.mark.parametrize("width", [360, 768, 3840])
def test_nothing_stands_out_at_the_side(see, width):
    seen = see(viewport={"width": width, "height": 900})
    for path in ("", "?model=flights", "?model=flights&batch=2013-02-04"):
        page = seen.go(f"/plugin/models{path}")
        assert page.evaluate("one => one.scrollWidth - one.clientWidth") <= 0, path


def test_retrain_is_started_with_its_reason_as_the_user(see, served):
    seen = see()
    page = seen.go("/plugin/models?model=flights")
    page.get_by_role("button", name="Retrain …").click()
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("button", name="Retrain", exact=True).is_disabled()
    dialog.get_by_text("is paused: the run waits").wait_for()
    dialog.get_by_role("textbox").fill("asked for on the page")
    dialog.get_by_role("button", name="Retrain", exact=True).click()
    made = dialog.get_by_role("status").get_by_role("link").inner_text()
    with served.client("admin") as client:
        run = client.get(f"/api/v2/dags/flights__retrain/dagRuns/{made}").raise_for_status().json()
    assert (run["conf"]["reason"], run["conf"]["force"]) == ("asked for on the page", False)
    assert (run["triggering_user_name"], run["logical_date"]) == ("admin", None)
    assert seen.complaints == []


def test_who_may_only_look_is_told_so_by_airflow(see, served):
    seen = see("ann")
    page = seen.go("/plugin/models?model=flights")
    page.get_by_role("button", name="Replay 2013-02-18 …").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("I would like to")
    dialog.get_by_role("button", name="Replay 2013-02-18", exact=True).click()
    assert dialog.get_by_role("alert").inner_text().startswith("Airflow refused: ")
    seen.page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    with served.client("admin") as client:
        runs = (
            client.get("/api/v2/dags/flights__replay_quarantine/dagRuns").raise_for_status().json()
        )
    assert runs["total_entries"] == 0


@pytest.mark.parametrize("path", ["fleet", "models/flights", "page.js", "docs", "x"])
def test_who_is_not_logged_in_gets_nothing(served, path):
    assert httpx.get(f"{served.url}/retraining/{path}", timeout=60).status_code == 401
