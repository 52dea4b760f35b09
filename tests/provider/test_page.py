"""The endpoints of the page "Models": who is let in, to what, and what they answer in trouble."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from airflow.api_fastapi.core_api import security
from fastapi.testclient import TestClient
from retraining_provider.page import app as endpoints
from retraining_provider.page.answers import Answers

from include.retraining import spec
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, SpecFiles, load_spec
from include.retraining.storage import Storage
from tests.made_state import Made, summer

FLIGHTS = load_spec(MODELS_DIR / "flights.yaml")
OTHER = FLIGHTS.model_copy(update={"model": "other"})
ADDRESSES = (
    "/fleet",
    "/metrics",
    "/models/flights",
    "/models/flights/batches/2013-01-07",
    "/models/nobody",
    "/page.js",
    "/docs",
    "/openapi.json",
    "/",
    "/anything/else",
)
ROOT = Path(__file__).resolve().parents[2]


class AuthManager:
    """Lets everybody read the DAGs of `flights` alone."""

    readable = frozenset({"flights__monitor", "other__ingest"})

    def get_authorized_dag_ids(self, *, user: object, method: str) -> set[str]:
        assert (user, method) == ("ann", "GET")
        return set(self.readable)


@pytest.fixture
def state(tmp_path, monkeypatch) -> Settings:
    settings = Settings(home=tmp_path)
    for one in (FLIGHTS, OTHER):
        summer(Made(one, settings))
    files = SpecFiles((FLIGHTS, OTHER), ())
    monkeypatch.setattr(endpoints, "_settings", lambda: settings)
    monkeypatch.setattr(endpoints, "_spec_files", lambda: files)
    monkeypatch.setattr(endpoints, "_rows", Answers(threads=2, fresh_seconds=0, stale_seconds=0))
    monkeypatch.setattr(endpoints, "_numbers", Answers(threads=2, fresh_seconds=0, stale_seconds=0))
    monkeypatch.setattr(endpoints, "_pages", Answers(threads=2, fresh_seconds=0, stale_seconds=0))
    monkeypatch.setattr(endpoints, "SECONDS", 20.0)
    monkeypatch.setattr(endpoints, "get_auth_manager", AuthManager)
    return settings


@pytest.fixture
def ann(state):
    """A client that is logged in."""
    endpoints.app.dependency_overrides[security.get_user] = lambda: "ann"
    yield TestClient(endpoints.app, raise_server_exceptions=False)
    endpoints.app.dependency_overrides.clear()


@pytest.mark.parametrize("address", ADDRESSES)
def test_who_is_not_logged_in_gets_401_everywhere(state, address):
    assert TestClient(endpoints.app).get(address).status_code == 401


def test_a_prometheus_gets_the_numbers_of_the_models_that_it_may_read(ann, monkeypatch):
    said = ann.get("/metrics")
    assert said.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    text = said.text
    assert 'retraining_realised_metric{metric="roc_auc",model="flights"}' in text
    assert "other" not in text
    assert text.endswith("# EOF\n")

    def fails() -> Settings:
        raise RuntimeError("no such connection")

    monkeypatch.setattr(endpoints, "_settings", fails)
    monkeypatch.setattr(endpoints, "_numbers", Answers(threads=1, fresh_seconds=0, stale_seconds=0))
    assert 'retraining_readable{model="flights"} 0.0' in ann.get("/metrics").text


def test_user_sees_only_models_whose_monitor_he_may_read(ann):
    assert [one["model"] for one in ann.get("/fleet").json()["rows"]] == ["flights"]
    assert ann.get("/models/flights").json()["row"]["model"] == "flights"


@pytest.mark.parametrize("below", ["", "/batches/2013-01-07"])
def test_model_that_may_not_be_read_answers_as_one_that_does_not_exist(ann, below):
    hidden, nobody = ann.get(f"/models/other{below}"), ann.get(f"/models/nobody{below}")
    assert (hidden.status_code, hidden.json()) == (404, nobody.json())


def test_wrong_model_files_are_told_only_to_who_sees_every_model(ann, monkeypatch):
    monkeypatch.setattr(
        endpoints, "_spec_files", lambda: SpecFiles((FLIGHTS, OTHER), (Exception("secret.yaml"),))
    )
    assert ann.get("/fleet").json()["problems"] == []
    monkeypatch.setattr(AuthManager, "readable", {"flights__monitor", "other__monitor"})
    assert ann.get("/fleet").json()["problems"] == ["secret.yaml"]


def test_batch_tells_its_story(ann):
    found = ann.get("/models/flights/batches/2013-02-04").json()
    assert [one["key"] for one in found["chapters"]][-1] == "production"
    assert ann.get("/models/flights/batches/2013-02-05").status_code == 404
    assert ann.get("/models/flights/batches/..%2F..%2Fx").status_code == 404


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nothing_can_be_changed_here(ann, method):
    assert getattr(ann, method)("/models/flights").status_code == 405


def test_asking_writes_nothing(ann, state):
    before = Storage.of(state).list_versions("")
    for address in ADDRESSES:
        ann.get(address)
    assert Storage.of(state).list_versions("") == before


def test_storage_that_is_down_is_a_503_with_its_reason(ann, monkeypatch):
    def down(*_: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(Storage, "read", down)
    answer = ann.get("/models/flights")
    assert answer.status_code == 503
    assert "ConnectionError: no route to host" in answer.json()["detail"]
    (row,) = ann.get("/fleet").json()["rows"]
    assert row["state"] == "unknown"


def test_storage_that_hangs_is_waited_for_two_seconds_at_most(ann, monkeypatch):
    monkeypatch.setattr(endpoints, "SECONDS", 0.2)
    going = threading.Event()
    monkeypatch.setattr(Storage, "read", lambda *_: going.wait(30))
    try:
        began = time.monotonic()
        (row,) = ann.get("/fleet").json()["rows"]
        page = ann.get("/models/flights")
        assert time.monotonic() - began < 25  # of 30 that it hangs
    finally:
        going.set()
    assert row["sentence"] == "not read yet: the storage is still being asked"
    assert (page.status_code, page.headers["retry-after"]) == (503, "1")


def test_wrong_connection_is_told_in_each_row(ann, monkeypatch):
    def wrong() -> Settings:
        raise ValueError("RETRAINING_STORAGE_URL: nonsense")

    monkeypatch.setattr(endpoints, "_settings", wrong)
    (row,) = ann.get("/fleet").json()["rows"]
    assert "RETRAINING_STORAGE_URL: nonsense" in row["sentence"]


def test_script_is_sent_once_to_a_browser_that_keeps_it(ann):
    first = ann.get("/page.js")
    assert first.headers["content-type"].startswith("text/javascript")
    assert b"Models" in first.content
    again = ann.get("/page.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_script_names_no_address_but_that_of_the_language_of_pictures():
    found = re.findall(r"https?://[^`'\"\s]+", endpoints.SCRIPT.read_text())
    assert set(found) <= {"http://www.w3.org/2000/svg"}


def test_script_is_built_from_the_sources_that_are_here():
    ui = ROOT / "ui"
    names = [f"src/{path.name}" for path in (ui / "src").iterdir()]
    digest = hashlib.sha256()
    for name in sorted([*names, "package-lock.json", "vite.config.js"]):
        digest.update((ui / name).read_bytes())
    first = endpoints.SCRIPT.read_text().splitlines()[0]
    assert digest.hexdigest() in first, "build it: cd ui && npm ci && npm run build"


def test_loading_the_plugin_imports_neither_the_page_nor_the_domain():
    """A task loads plugins, too, and has to find the `include` of its bundle's version."""
    code = (
        "import sys; sys.path.insert(0, 'plugins')\n"
        "import retraining_plugin\n"
        "assert retraining_plugin.RetrainingPlugin.fastapi_apps\n"
        "ours = ('include', 'retraining_provider.page')\n"
        "print(sorted(name for name in sys.modules if name.startswith(ours)))\n"
        "print([p for p in sys.path if p == sys.argv[1]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(ROOT)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]


# --- answers that take a while --------------------------------------------------------------------


def test_two_who_ask_at_once_have_it_made_once():
    answers: Answers[int] = Answers(threads=2, fresh_seconds=60, stale_seconds=60)
    made, going = [], threading.Event()

    def make() -> int:
        made.append(1)
        going.wait(20)
        return 7

    assert answers.ask({"a": make}, seconds=0.05) == {}
    assert answers.ask({"a": make}, seconds=0.05) == {}
    going.set()
    assert answers.ask({"a": make}, seconds=20) == {"a": 7}
    assert answers.ask({"a": make}, seconds=20) == {"a": 7}
    assert made == [1]


def test_old_answer_is_given_while_a_new_one_is_made():
    answers: Answers[int] = Answers(threads=1, fresh_seconds=0, stale_seconds=60)
    numbers = iter(range(10))
    assert answers.ask({"a": lambda: next(numbers)}, seconds=20) == {"a": 0}
    assert answers.ask({"a": lambda: next(numbers)}, seconds=20) == {"a": 0}
    until = time.monotonic() + 20
    while answers.ask({"a": lambda: next(numbers)}, seconds=20) == {"a": 0}:
        assert time.monotonic() < until


def test_asking_takes_a_tenth_of_a_core_at_most():
    answers: Answers[int] = Answers(threads=1, fresh_seconds=0, stale_seconds=0)
    made = []

    def make() -> int:
        made.append(1)
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass
        return len(made)

    until = time.monotonic() + 1.5  # less than the two seconds that the first answer is worth
    while time.monotonic() < until:
        assert answers.ask({"a": make}, seconds=20) == {"a": 1}
    assert made == [1]


def test_model_files_are_read_again_only_where_one_has_changed(tmp_path, monkeypatch):
    file = tmp_path / "flights.yaml"
    reads = []
    monkeypatch.setattr(spec, "MODELS_DIR", tmp_path)
    monkeypatch.setattr(spec, "load_specs", lambda: reads.append(file.read_text()))
    endpoints._read_specs.cache_clear()
    for text in ("one", "one, mended"):
        file.write_text(text)
        for _ in range(3):
            endpoints._spec_files()
    endpoints._read_specs.cache_clear()
    assert reads == ["one", "one, mended"]


def test_what_fails_is_raised_and_asked_again():
    answers: Answers[int] = Answers(threads=1, fresh_seconds=60, stale_seconds=60)

    def fail() -> int:
        raise ConnectionError("down")

    with pytest.raises(ConnectionError):
        answers.ask({"a": fail}, seconds=20)
    assert answers.ask({"a": lambda: 1}, seconds=20) == {"a": 1}
