"""Starting and ending the embedded set-up: its own ports and processes, and no others."""

from __future__ import annotations

import datetime as dt
import json
import os
import runpy
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import httpx
import pytest

from include.demo import __main__ as demo
from include.demo import airflow_local_settings
from include.demo import stack as stack_module
from include.demo.stack import Stack, StackError
from include.retraining.settings import Settings

# answers as Airflow's API server does, to whoever knows the password
SERVER = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
time.sleep(float(sys.argv[3]))
healthy = {name: {"status": "healthy"} for name in ("scheduler", "dag_processor", "triggerer")}
class Handler(BaseHTTPRequestHandler):
    def answer(self, status, content):
        self.send_response(status); self.end_headers()
        self.wfile.write(json.dumps(content).encode())
    def do_GET(self):
        self.answer(200, healthy)
    def do_PATCH(self):
        self.answer(404, {})
    def do_POST(self):
        text = self.rfile.read(int(self.headers["content-length"]))
        known = json.loads(text)["password"] == sys.argv[2]
        self.answer(201 if known else 401, {"access_token": "t"})
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
SLEEPER = [sys.executable, "-c", "import time; open('made', 'w').close(); time.sleep(600)"]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Stacks whose parts are small programs; what is left of them in the end is ended."""
    made = []
    delay = {"seconds": 0.0}

    def commands(self):
        password = json.loads((self.home / "airflow" / "passwords.json").read_text())["admin"]
        port, seconds = str(self.port), str(delay["seconds"])
        return {
            "api-server": [sys.executable, "-c", SERVER, port, password, seconds],
            "scheduler": SLEEPER,
        }

    monkeypatch.setattr(Stack, "_commands", commands)

    def make_stack(home="home", *, seconds=0.0, **ports):
        delay["seconds"] = seconds
        found = Stack(Settings(home=tmp_path / home), **ports)
        (found.home / "airflow").mkdir(parents=True, exist_ok=True)
        (found.home / "logs").mkdir(exist_ok=True)
        (found.home / "airflow" / "passwords.json").write_text(json.dumps({"admin": home}))
        made.append(found)
        return found

    yield make_stack
    for found in made:
        found.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_down_ends_exactly_what_up_started(make):
    one, other = make("one"), make("other", port=free_port())
    one.start()
    other.start()
    pids = one.note()["pids"].values()
    assert one.stop()
    assert not any(stack_module._alive(pid) for pid in pids)
    assert one.note() is None
    assert not one.stop()
    assert len(other._running(other.note())) == 2


def test_a_number_that_another_process_has_by_now_is_not_ended(make):
    found = make()
    stranger = subprocess.Popen(SLEEPER, cwd=found.home, start_new_session=True)
    try:
        note = {"airflow": found.url, "pids": {"scheduler": stranger.pid}}
        found._note.write_text(json.dumps(note | {"started": {"scheduler": 1.0}}))
        assert found.note() is None
        assert not found.stop()
        assert stranger.poll() is None
        found._note.write_text(json.dumps(note))  # as it was written before
        assert found.stop()
        assert stranger.wait(10) == -signal.SIGTERM
    finally:
        stranger.kill()
        stranger.wait()


def test_of_two_that_start_at_once_one_does(make):
    first = make(seconds=2.0, port=free_port())
    second = Stack(first.settings, port=free_port())
    told = []

    def start(one):
        try:
            one.start()
        except StackError as error:
            told.append(str(error))

    threads = [threading.Thread(target=start, args=(one,)) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(told) == 1
    assert "it is being started by somebody else" in told[0]
    assert len(first._running(first.note())) == 2
    with pytest.raises(StackError, match="it runs already"):
        second.start()


def test_a_port_that_is_taken_is_told_before_anything_starts(make):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for name in ("port", "mlflow_port"):
            found = make(**{name: port})
            with pytest.raises(StackError, match=f"{port} is taken by another program"):
                found.start(mlflow_ui=True)
            assert found.note() is None


def test_the_default_port_is_a_free_one(make, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(stack_module, "AIRFLOW_PORT", other.getsockname()[1])
        assert make().port > other.getsockname()[1]


def test_another_airflow_that_answers_on_our_port_is_not_taken_for_ours(make):
    theirs = make("theirs", port=free_port())
    theirs.start()
    ours = make("ours", port=theirs.port)
    ours.asked_ports = {}  # it took the port just after we had looked
    ours._commands = lambda: {"api-server": SLEEPER}  # ours cannot bind, and has not ended yet
    with pytest.raises(StackError, match="is another program's"):
        ours.start()
    assert ours.note() is None
    assert len(theirs._running(theirs.note())) == 2


def test_a_slow_start_is_waited_for_and_one_that_ends_is_told(make, monkeypatch):
    found = make(seconds=3.0, port=free_port())
    found.start()
    assert found.stop()
    monkeypatch.setattr(
        Stack, "_commands", lambda _: {"api-server": [sys.executable, "-c", "raise SystemExit(3)"]}
    )
    with pytest.raises(StackError, match="api-server ended with status 3"):
        found.start()
    assert found.note() is None


def test_one_that_is_interrupted_while_it_starts_leaves_nothing_running(make, monkeypatch):
    found, pids = make(port=free_port()), []

    def interrupt(*_):
        pids.extend(found.note()["pids"].values())
        raise KeyboardInterrupt

    monkeypatch.setattr(Stack, "_wait_until_healthy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        found.start()
    assert len(pids) == 2
    assert not any(stack_module._alive(pid) for pid in pids)


def test_what_it_writes_is_its_owners_alone(make):
    found = make(port=free_port())
    found.start()
    until = time.monotonic() + 20
    while not (found.home / "made").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert stat.S_IMODE(found.home.stat().st_mode) == 0o700
    names = ("made", "stack.json", "stack.lock", "logs/scheduler.log")
    modes = {name: oct(stat.S_IMODE((found.home / name).stat().st_mode)) for name in names}
    # the note is written by ourselves, whose umask the command sets
    assert {name: mode for name, mode in modes.items() if name != "stack.json"} == dict.fromkeys(
        ("made", "stack.lock", "logs/scheduler.log"), "0o600"
    )
    environment = found.environment
    assert environment["AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS"] == "0o700"
    assert environment["AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS"] == "0o600"


def test_what_feast_sets_for_one_process_is_not_handed_to_others(make, monkeypatch):
    # both name a folder that goes with the process that imported Feast first
    for name in ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.setenv(name, "/tmp/feast_metrics_gone")
    assert "/tmp/feast_metrics_gone" not in make().environment.values()


@pytest.mark.parametrize("port", ["0", "80", "65536", "x", "-1"])
def test_a_port_that_is_none_is_told(port, capsys):
    with pytest.raises(SystemExit):
        demo.main(["up", f"--port={port}"])
    assert f"must be a number from 1024 to 65535, got '{port}'" in capsys.readouterr().err


def test_a_locked_database_is_waited_for_longer_than_sqlite_does_by_itself(make, tmp_path):
    # Airflow makes its engines with these arguments; ten models at once hold the lock by turns
    named = make().environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS"]
    assert named == "airflow_local_settings.connect_args"
    file = tmp_path / "airflow.db"
    holder = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
    holder.execute("create table t (n integer)")
    holder.execute("begin exclusive")
    release = threading.Timer(7.0, holder.rollback)
    release.start()
    with sqlite3.connect(file, **airflow_local_settings.connect_args) as waiting:
        waiting.execute("insert into t values (1)")
    release.join()
    holder.close()


def test_another_database_is_told_nothing_that_only_sqlite_knows(monkeypatch):
    url = "postgresql+psycopg2://airflow@127.0.0.1/airflow"
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", url)
    assert runpy.run_path(airflow_local_settings.__file__)["connect_args"] == {}


def test_a_run_of_this_very_second_may_begin(tmp_path):
    # Airflow starts a run whose time is not after the database's; SQLite's knows whole seconds
    said = subprocess.run(
        [sys.executable, "-c", _NOW, airflow_local_settings.__file__, "scheduler"],
        env={**os.environ, "RETRAINING_PRELOAD": "0"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    before, now, after = (dt.datetime.fromisoformat(line) for line in said.split("\n")[:3])
    a_millisecond = dt.timedelta(milliseconds=1)
    assert before - a_millisecond <= now <= after


_NOW = """
import datetime as dt, runpy, sys, time
import sqlalchemy as sa
runpy.run_path(sys.argv[1])
engine = sa.create_engine("sqlite://")
time.sleep(1.9 - time.time() % 1)  # far from a whole second
print(dt.datetime.now(dt.UTC).replace(tzinfo=None))
with engine.connect() as connection:
    print(connection.execute(sa.select(sa.func.now())).scalar())
print(dt.datetime.now(dt.UTC).replace(tzinfo=None))
"""


def test_who_waits_for_the_lock_does_not_hold_up_who_has_it(tmp_path):
    # two requests at once: what a person does is logged while a task's state is being written
    said = subprocess.run(
        [sys.executable, "-c", _LOOP, airflow_local_settings.__file__, "api-server"],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout.splitlines()
    assert said[-3:] == ["200", "pressed ann d", "off the loop"]


_LOOP = """
import runpy, sys, threading
runpy.run_path(sys.argv[1])
from types import SimpleNamespace
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from airflow.api_fastapi.common.db.common import _get_session
from airflow.api_fastapi.core_api.security import get_user
from airflow.api_fastapi.logging.decorators import action_logging

app, found, threads = FastAPI(), [], {}

@app.post("/{dag_id}", dependencies=[Depends(action_logging("pressed"))])
async def press(dag_id: str):
    threads["loop"] = threading.get_ident()

def commit():
    threads["commit"] = threading.get_ident()

app.dependency_overrides[_get_session] = lambda: SimpleNamespace(add=found.append, commit=commit)
app.dependency_overrides[get_user] = lambda: SimpleNamespace(get_name=lambda: "ann")
print(TestClient(app).post("/d", json={"reason": "why"}).status_code)
print(found[0].event, found[0].owner, found[0].dag_id)
print("on the loop" if threads["loop"] == threads["commit"] else "off the loop")
"""


def test_the_bundle_is_compiled_once_and_not_by_each_task(make, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in make().environment


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The real MLflow behind its login."""
    home = tmp_path_factory.mktemp("mlflow")
    (home / "airflow").mkdir()
    (home / "logs").mkdir()
    stack = Stack(Settings(home=home))
    port = free_port()
    process = stack._spawn("mlflow", stack._mlflow_command(port))
    address = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 240
    try:
        while time.monotonic() < until:
            assert process.poll() is None, stack._tail("mlflow")
            try:
                if httpx.get(f"{address}/health", timeout=30).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.3)
        yield address, home / "airflow" / "passwords.json"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_mlflow_refuses_other_users_and_foreign_pages(page):
    address, passwords = page
    api = f"{address}/api/2.0/mlflow/registered-models/create"
    me = ("admin", "s3cret")

    def create(name, *, auth=me, **headers):
        return httpx.post(
            api, json={"name": name}, auth=auth, headers=headers, timeout=120
        ).status_code

    assert create("early") == 401  # before there is a login, nobody has it
    passwords.write_text(json.dumps({"admin": "s3cret"}))
    assert create("mine") == 200
    assert create("mine2", Origin=address) == 200
    for other in (None, ("admin", "wrong"), ("root", "s3cret"), ("admin", ""), ("", "")):
        assert create("theirs", auth=other) == 401
    assert httpx.get(address, timeout=60).status_code == 401
    # a page elsewhere that knows the login, as the browser does, and a name that points here
    assert create("foreign", Origin="https://evil.example") == 403
    assert create("foreign", Origin="http://127.0.0.1:1") == 403
    assert create("foreign", Host="evil.example") == 403
    found = httpx.get(
        f"{address}/api/2.0/mlflow/registered-models/search", auth=me, timeout=60
    ).json()
    assert {one["name"] for one in found["registered_models"]} == {"mine", "mine2"}
