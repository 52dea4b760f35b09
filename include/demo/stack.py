"""Airflow and MLflow on this machine alone: SQLite, LocalExecutor, loopback, nothing to set up.

`start` gives a running stack, `stop` ends all of it. What runs is noted in ``var/demo/stack.json``.
What it writes is its owner's alone, and so are its pages: both want the login of ``admin``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from include.retraining.names import Stage, dag_id
from include.retraining.records import BatchRef
from include.retraining.settings import REPOSITORY, Settings

AIRFLOW_PORT = 8080
MLFLOW_PORT = 5000
START_SECONDS = 300.0  # not byte-compiled, on a busy machine; one that ends is told at once
STOP_SECONDS = 15.0
COMPONENTS: dict[str, Sequence[str]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}


class StackError(RuntimeError):
    """A part of the stack did not start; the message says which, and shows its log."""


class Stack:
    """The processes of one embedded set-up, and a client of its REST API.

    Parameters
    ----------
    settings : Settings
        `home` is where all state lives.
    port : int, optional
        Of the Airflow UI; the first free one from 8080 on by default.
    mlflow_port : int, optional
        Of MLflow's page; the first free one from 5000 on by default.
    """

    def __init__(
        self, settings: Settings, *, port: int | None = None, mlflow_port: int | None = None
    ) -> None:
        self.settings = settings
        self.home = settings.home
        self.asked_ports = {"port": port, "mlflow-port": mlflow_port}
        self.port = port or _free_port(AIRFLOW_PORT)
        self.mlflow_port = mlflow_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._client: httpx.Client | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every Airflow process of this stack."""
        bundle = {
            "name": "retraining",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(REPOSITORY), "refresh_interval": 30},
        }
        secret = self._secret()
        # who imports Feast sets two variables that name a folder which goes with its process; and
        # where bytecode is not kept, each task compiles the bundle again
        left_out = ("PROMETHEUS_MULTIPROC", "PYTHONDONTWRITEBYTECODE")
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(left_out)}
        return {
            **inherited,
            # tasks run side by side, and threads that wait for one another must not spin: on busy
            # cores a fit of some seconds took a minute
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(self.home / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.settings.plugins),
            "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(
                self.home / "airflow" / "passwords.json"
            ),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secret,
            "AIRFLOW__API_AUTH__JWT_SECRET": secret,
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            # a task whose process has ended waits for one heartbeat more
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            # ten models that are switched on at once write one after the other: nobody gives up
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "airflow_local_settings.connect_args",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": (
                "airflow_local_settings.connect_args"
            ),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
            "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
            "RETRAINING_HOME": str(self.home),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes nothing here needs
            "SQLALCHEMY_SILENCE_UBER_WARNING": "1",
        }

    @property
    def password(self) -> str:
        """The password of the user ``admin``, made when the API server first started."""
        try:
            found: dict[str, str] = json.loads(
                (self.home / "airflow" / "passwords.json").read_text()
            )
        except FileNotFoundError as error:
            raise StackError("Airflow has not yet made its login; try again in a moment") from error
        return found["admin"]

    @property
    def _note(self) -> Path:
        return self.home / "stack.json"

    def prepare(self) -> None:
        """Create the databases; safe where they are there already."""
        with self._alone():
            self._prepare()

    def _prepare(self) -> None:
        airflow_home = self.home / "airflow"
        (airflow_home / "config").mkdir(parents=True, exist_ok=True)
        (self.home / "logs").mkdir(mode=0o700, exist_ok=True)
        local_settings = Path(__file__).with_name("airflow_local_settings.py")
        shutil.copyfile(local_settings, airflow_home / "config" / local_settings.name)
        uri = Settings(home=self.home).mlflow_tracking_uri
        initialize_mlflow = f"import mlflow; mlflow.MlflowClient({uri!r}).search_experiments()"
        jobs = {
            "airflow-db": [sys.executable, "-m", "airflow", "db", "migrate"],
            "mlflow-db": [sys.executable, "-c", initialize_mlflow],
        }
        running = {name: self._spawn(name, command) for name, command in jobs.items()}
        for name, process in running.items():
            if process.wait(timeout=300):
                raise StackError(f"{name} failed:\n{self._tail(name)}")

    def start(self, *, mlflow_ui: bool = False) -> None:
        """Start all parts and wait until they are healthy.

        Raises
        ------
        StackError
            It runs, or is being started; a port is taken; a part ends, or is not healthy in time.
            Then nothing of it is left running.
        """
        with self._alone():
            if self.note():
                raise StackError("it runs already; `make down` ends it")
            for name, port in self.asked_ports.items():
                if port and not _is_free(port):
                    raise StackError(
                        f"--{name}: {port} is taken by another program; give a free one, or none"
                    )
            self._start(mlflow_ui=mlflow_ui)

    def _start(self, *, mlflow_ui: bool) -> None:
        commands = self._commands()
        note: dict[str, Any] = {"airflow": self.url, "pids": {}, "started": {}}
        if mlflow_ui:
            port = self.mlflow_port or _free_port(MLFLOW_PORT)
            commands["mlflow"] = self._mlflow_command(port)
            note["mlflow"] = f"http://127.0.0.1:{port}"
        processes = {}
        try:
            for name, command in commands.items():
                processes[name] = self._spawn(name, command)
                pid = processes[name].pid
                note["pids"][name], note["started"][name] = pid, _started(pid)
                # noted one by one: whoever ends us here leaves nothing that `stop` does not know
                self._note.write_text(json.dumps(note, indent=2))
            self._wait_until_healthy(processes)
            if mlflow_ui:
                self._wait_for(f"{note['mlflow']}/health", processes)
        except BaseException:
            self.stop()
            raise

    def _commands(self) -> dict[str, Sequence[str]]:
        return {
            name: [sys.executable, "-m", "airflow", *arguments]
            for name, arguments in COMPONENTS.items()
        }

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let nobody else prepare or start a stack in this home meanwhile."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        lock = os.open(self.home / "stack.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StackError(
                    f"it is being started by somebody else, in {self.home}; wait until that is done"
                ) from error
            yield
        finally:
            os.close(lock)

    def note(self) -> dict[str, Any] | None:
        """Give what runs, or None."""
        try:
            found: dict[str, Any] = json.loads(self._note.read_text())
        except FileNotFoundError:
            return None
        return found if self._running(found) else None

    @staticmethod
    def _running(note: Mapping[str, Any]) -> list[int]:
        """Give the processes of a note that live; a number that another has by now is none."""
        started = note.get("started", {})  # notes of before have none
        return [
            pid
            for name, pid in note["pids"].items()
            if _alive(pid) and started.get(name, _started(pid)) == _started(pid)
        ]

    def stop(self) -> bool:
        """End every process group that this stack started, and no other; False: nothing ran."""
        found = self.note()
        self._client = None
        if found is None:
            self._note.unlink(missing_ok=True)
            return False
        pids = self._running(found)
        _signal_groups(pids, signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until and any(_alive(pid) for pid in pids):
            time.sleep(0.1)
        _signal_groups(pids, signal.SIGKILL)
        self._note.unlink(missing_ok=True)
        return True

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Ask Airflow's REST API."""
        return self._call("GET", path, params=params)

    def post(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Send to Airflow's REST API."""
        return self._call("POST", path, json=content)

    def patch(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Change through Airflow's REST API."""
        return self._call("PATCH", path, json=content)

    def backfill(
        self, model: str, stages: Iterable[Stage], batches: Sequence[BatchRef], *, active: int = 1
    ) -> None:
        """Unpause some stages of a model, and backfill its ingest over batches, some at once."""
        for name in sorted(dag_id(model, stage) for stage in stages):
            self.patch(f"dags/{name}", {"is_paused": False})
        self.post(
            "backfills",
            {
                "dag_id": dag_id(model, "ingest"),
                "from_date": batches[0].start.isoformat(),
                "to_date": batches[-1].start.isoformat(),
                "max_active_runs": active,
                "reprocess_behavior": "none",
            },
        )

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        if self._client is None:
            login = {"username": "admin", "password": self.password}
            answer = httpx.post(f"{self.url}/auth/token", json=login, timeout=30)
            token = answer.raise_for_status().json()["access_token"]
            self._client = httpx.Client(
                base_url=f"{self.url}/api/v2",
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
            )
        answer = self._client.request(method, path, **arguments)
        if answer.is_error:
            raise StackError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        found: dict[str, Any] = answer.json()
        return found

    def _secret(self) -> str:
        file = self.home / "airflow" / "secret"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(32))
        return file.read_text()

    def _mlflow_command(self, port: int) -> list[str]:
        return [sys.executable, "-m", "include.demo.mlflow_page", str(self.home), str(port)]

    def _spawn(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        log = open(self.home / "logs" / f"{name}.log", "wb", opener=_owners)  # noqa: SIM115
        # a session of its own: a signal to its group reaches whatever it forks, and Ctrl-C here
        # does not
        return subprocess.Popen(
            command,
            env=self.environment | ({"PYTHONPATH": str(REPOSITORY)} if name == "mlflow" else {}),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )

    def _wait_until_healthy(self, processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
        health = f"{self.url}/api/v2/monitor/health"
        self._wait_for(health, processes)
        # the first call to the execution API is slow; better now than in the first task
        with contextlib.suppress(httpx.HTTPError):
            nobody = "00000000-0000-7000-8000-000000000000"
            httpx.patch(f"{self.url}/execution/task-instances/{nobody}/run", timeout=60)
        until = time.monotonic() + START_SECONDS
        parts = ("scheduler", "dag_processor", "triggerer")
        while time.monotonic() < until:
            self._require_alive(processes)
            found = httpx.get(health, timeout=30).json()
            if all(found[part]["status"] == "healthy" for part in parts):
                self._require_own()
                return
            time.sleep(0.3)
        raise StackError(f"not healthy after {START_SECONDS:.0f} s:\n{self._tail('scheduler')}")

    def _wait_for(self, url: str, processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            self._require_alive(processes)
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url, timeout=30).is_success:
                    return
            time.sleep(0.3)
        raise StackError(
            f"{url} did not answer within {START_SECONDS:.0f} s; logs are in {self.home / 'logs'}"
        )

    def _require_own(self) -> None:
        """Refuse an Airflow that was on our port before us: it does not know our login."""
        try:
            self.get("dags", limit=1)
        except (httpx.HTTPError, OSError) as error:
            raise StackError(
                f"{self.url} is another program's; say which port to take: --port"
            ) from error

    def _require_alive(self, processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
        for name, process in processes.items():
            if process.poll() is not None:
                raise StackError(
                    f"{name} ended with status {process.returncode}:\n{self._tail(name)}"
                )

    def _tail(self, name: str) -> str:
        text = (self.home / "logs" / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-25:])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port(first: int) -> int:
    for port in range(first, first + 100):
        if _is_free(port):
            return port
    raise StackError(f"no free port between {first} and {first + 99}")


def _owners(path: str, flags: int) -> int:
    """Open a file that others cannot read."""
    return os.open(path, flags, 0o600)


def _started(pid: int) -> float | None:
    """Give when a process began, which tells it from a later one of the same number."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return False
    try:  # a child of ours that has ended stays a zombie until it is waited for
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def _signal_groups(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
