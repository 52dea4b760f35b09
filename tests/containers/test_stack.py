"""The compose stack as plain processes: its entrypoint and environment, on PostgreSQL and S3.

Only the addresses differ from docker-compose.yaml. The PostgreSQL server that
TEST_POSTGRES_URL names is used: three databases are made there, and removed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.containers.stack import ROOT as REPOSITORY
from tests.containers.stack import (
    compose,
    copy_like_the_dockerfile,
    env_file,
    environment,
    image_environment,
)

SERVER = os.environ.get("TEST_POSTGRES_URL", "")
STARTED = ("mlflow", "api-server", "scheduler", "dag-processor", "triggerer")
SECONDS = 240

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("containers"),
    pytest.mark.skipif(not SERVER, reason="TEST_POSTGRES_URL names no server"),
]


class Containers:
    """The services of the compose file, as processes of this machine."""

    def __init__(self, home: Path, s3: str) -> None:
        self.home, self.root = home, home / "opt" / "retraining"
        self.secrets = env_file(REPOSITORY / ".env.example")
        self.services = compose(self.secrets)["services"]
        self.server = urlsplit(SERVER)
        self.prefix = f"compose_{os.getpid()}_"
        self.api, self.mlflow = free_port(), free_port()
        self.moved = {
            "/opt/retraining": str(self.root),
            "/opt/airflow": str(home / "airflow"),
            "/var/lib/retraining": str(home / "state"),
            f"retraining:{self.secrets['POSTGRES_PASSWORD']}@postgres/": (
                f"{self.server.netloc}/{self.prefix}"
            ),
            "http://s3:8333": s3,
            "http://api-server:8080": f"http://127.0.0.1:{self.api}",
            "http://127.0.0.1:8080": f"http://127.0.0.1:{self.api}",
            "http://mlflow:5000": f"http://127.0.0.1:{self.mlflow}",
            '"host": "mlflow", "port": 5000': f'"host": "127.0.0.1", "port": {self.mlflow}',
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        copy_like_the_dockerfile(self.root)
        config = home / "airflow" / "config"
        config.mkdir(parents=True)
        shutil.copy(self.root / "include" / "demo" / "airflow_local_settings.py", config)
        (home / "state").mkdir()

    def environment(self, service: str) -> dict[str, str]:
        found = image_environment() | environment(self.services[service])
        for here, there in self.moved.items():
            found = {name: value.replace(here, there) for name, value in found.items()}
        return found | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "PYTHONWARNINGS": "ignore",
            "AIRFLOW__API__PORT": str(self.api),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(self.mlflow),
        }

    def run(self, service: str, *command: str) -> str:
        """Run a command of the entrypoint to its end."""
        entrypoint = self.root / "scripts" / "entrypoint.sh"
        answer = subprocess.run(
            [entrypoint, *command],
            env=self.environment(service),
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
        return answer.stdout

    def start(self, service: str) -> None:
        log = (self.home / f"{service}.log").open("wb")
        self.processes[service] = subprocess.Popen(
            [self.root / "scripts" / "entrypoint.sh", *self.services[service]["command"]],
            env=self.environment(service),
            cwd=self.root,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_healthy(self, service: str) -> None:
        """Ask the service's own health check until it says so."""
        check = self.services[service]["healthcheck"]["test"][1:]
        check[0] = check[0].replace("/opt/retraining", str(self.root))
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            answer = subprocess.run(
                check, env=self.environment(service), capture_output=True, text=True, check=False
            )
            if answer.returncode == 0:
                return
            assert self.processes[service].poll() is None, self.log(service)
            time.sleep(1)
        raise AssertionError(
            f"{service} is not healthy: {answer.stderr[-500:]}\n{self.log(service)}"
        )

    def log(self, service: str) -> str:
        return (self.home / f"{service}.log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes.values():
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:
                    continue
            until = time.monotonic() + 5
            while time.monotonic() < until and None in [p.poll() for p in self.processes.values()]:
                time.sleep(0.2)

    def make_databases(self) -> None:
        names = " ".join(self.prefix + name for name in ("airflow", "mlflow", "feast"))
        self.databases(names)
        self.databases(names)  # again: it must be safe

    def databases(self, names: str) -> None:
        login = {
            "PGHOST": self.server.hostname or "",
            "PGPORT": str(self.server.port or 5432),
            "PGPASSWORD": self.server.password or "",
            "POSTGRES_USER": self.server.username or "postgres",
            "POSTGRES_DB": self.server.path.lstrip("/") or "postgres",
            "DATABASES": names,
        }
        script = self.root / "scripts" / "databases.sh"
        subprocess.run([script], env=os.environ | login, check=True)

    def drop_databases(self) -> None:
        import psycopg

        with psycopg.connect(SERVER, autocommit=True) as connection:
            for name in ("airflow", "mlflow", "feast"):
                connection.execute(f"DROP DATABASE IF EXISTS {self.prefix}{name} WITH (FORCE)")

    def call(self, method: str, path: str, content: Any = None, token: str = "") -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api}{path}",
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def containers(tmp_path_factory, s3: str) -> Iterator[Containers]:
    stack = Containers(tmp_path_factory.mktemp("containers"), s3)
    try:
        stack.make_databases()
        stack.run("init", "init")
        for service in ("mlflow", "api-server"):
            stack.start(service)
        stack.run("init", "land", "2")
        for service in ("mlflow", "api-server"):
            stack.wait_until_healthy(service)
        for service in ("scheduler", "dag-processor", "triggerer"):
            stack.start(service)
        for service in STARTED:
            stack.wait_until_healthy(service)
        yield stack
    finally:
        stack.stop()
        stack.drop_databases()


@pytest.fixture(scope="module")
def token(containers: Containers) -> str:
    login = {"username": "admin", "password": containers.secrets["AIRFLOW_ADMIN_PASSWORD"]}
    return str(containers.call("POST", "/auth/token", login)["access_token"])


def test_the_bucket_is_made_only_once(containers: Containers):
    assert "is there" in containers.run("init", "bucket")


def test_nobody_gets_in_without_the_password_of_the_env_file(containers: Containers):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        containers.call("POST", "/auth/token", {"username": "admin", "password": "guess"})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        containers.call("GET", "/api/v2/dags")


def test_a_landed_week_is_ingested_on_postgresql_and_s3(containers: Containers, token: str):
    dag, run = "/api/v2/dags/flights__ingest", "/api/v2/dags/flights__ingest/dagRuns/by-hand"

    def parsed() -> bool:
        found = containers.call("GET", "/api/v2/dags", token=token)["dags"]
        return "flights__ingest" in {each["dag_id"] for each in found}

    def ended() -> bool:
        return containers.call("GET", run, token=token)["state"] in {"success", "failed"}

    assert eventually(parsed), containers.log("dag-processor")
    containers.call("PATCH", dag, {"is_paused": False}, token)
    request = {
        "logical_date": None,
        "dag_run_id": "by-hand",
        "partition_key": first_partition(),
    }
    containers.call("POST", f"{dag}/dagRuns", request, token)
    assert eventually(ended), containers.log("scheduler")
    tasks = containers.call("GET", f"{run}/taskInstances", token=token)["task_instances"]
    states = {task["task_id"]: task["state"] for task in tasks}
    assert set(states.values()) <= {"success", "skipped"}, (states, containers.log("scheduler"))
    assert states["materialize_features"] == "success"


def eventually(question: Callable[[], bool]) -> bool:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if question():
            return True
        time.sleep(1)
    return False


def first_partition() -> str:
    from include.retraining.spec import load_specs

    (spec,) = (spec for spec in load_specs().specs if spec.model == "flights")
    return spec.partition_key(spec.partitions.first)


def test_the_command_line_sees_what_is_on_s3_and_the_server(containers: Containers):
    answer = containers.run("init", "retraining", "ledger", "show", "flights")
    assert answer == "nothing was in production\n"
