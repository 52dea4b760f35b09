"""The stack of production as processes of one machine: hosts that share nothing but services.

PostgreSQL and Redis are those of the machine, S3 is the one that is given. Three hosts, each in
namespaces of its own with its own copy of the bundle, home, AIRFLOW_HOME and temporary folders: one
for Airflow's parts and MLflow, and two of Celery's workers, which have a network of their own too.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from include.demo import stack as demo
from include.retraining.settings import REPOSITORY, Settings
from tests.containers.stack import copy_like_the_dockerfile
from tests.e2e.runs import free_port

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "")
REDIS = "127.0.0.1", 6379
MAIN, WORKERS = "main", ("worker-1", "worker-2")
BUCKET = "retraining"
# what a host sees, and the folder below its root that is there
PLACES = {
    "/srv/retraining": "retraining",
    "/srv/airflow": "airflow",
    "/srv/home": "home",
    "/srv/state": "state",
    "/tmp": "tmp",
    "/var/tmp": "var/tmp",
}
# $1: the host, $2: its root; what of Python lies in a temporary folder is still seen ($KEPT)
ENTER = """
set -e
hostname "$1"; root=$2; shift 2
mount --make-rprivate /
mount -t tmpfs none /srv
for place in retraining airflow home state; do
    mkdir "/srv/$place"
    mount --bind "$root/$place" "/srv/$place"
done
for path in $KEPT; do
    mkdir -p "$root$path"
    mount --rbind "$path" "$root$path"
done
mount --rbind "$root/var/tmp" /var/tmp
mount --rbind "$root/tmp" /tmp
cd /srv/home
exec "$@"
"""
FOREIGN = ("AWS_", "MLFLOW_", "PYTHON", "RETRAINING_", "TMP", "XDG_", "AIRFLOW_CONN_", "KEPT")


def missing() -> str:
    """Say what this machine lacks; nothing if all is there."""
    if not POSTGRES:
        return "TEST_POSTGRES_URL names no server"
    if urlsplit(POSTGRES).hostname not in {"127.0.0.1", "localhost"}:
        return "TEST_POSTGRES_URL names a server elsewhere"
    if os.getuid():
        return "only root makes namespaces"
    for tool in ("ip", "unshare", "socat"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    try:  # asked of the installation: importing Airflow would make a home for it
        importlib.metadata.version("apache-airflow-providers-celery")
    except importlib.metadata.PackageNotFoundError:
        return "apache-airflow-providers-celery is not installed"
    try:
        socket.create_connection(REDIS, timeout=1).close()
    except OSError:
        return "no Redis on {}:{}".format(*REDIS)
    tried = subprocess.run(
        ["unshare", "--mount", "--uts", "--pid", "--fork", "ip", "netns", "list"],
        capture_output=True,
        check=False,
    )
    return "" if tried.returncode == 0 else "no namespaces can be made here"


class Production(demo.Stack):
    """The stack on a Celery executor; the home's folders are those of the main host.

    Parameters
    ----------
    home : Path
        For the roots of all hosts, logs, and what runs.
    s3 : str
        Address of an S3 server of this machine that has the bucket.
    keys : mapping
        Variables with its credentials, as boto reads them.
    """

    def __init__(self, home: Path, s3: str, keys: Mapping[str, str]) -> None:
        self.mlflow_url = f"http://127.0.0.1:{free_port()}"
        self.server, self.s3, self.keys = urlsplit(POSTGRES), s3, dict(keys)
        self.prefix = f"production_{os.getpid()}_"
        self.broker_db, self.online_db = free_redis(2)
        settings = Settings(
            home=home,
            storage_url=f"s3://{BUCKET}/{self.prefix}",
            mlflow_tracking_uri=self.mlflow_url,
            mlflow_artifact_uri=f"s3://{BUCKET}/{self.prefix}mlflow",
            feast_registry=self.database("psycopg", "feast"),
            feast_online_store=json.dumps(
                {
                    "type": "redis",
                    "connection_string": "{}:{},db={}".format(*REDIS, self.online_db),
                }
            ),
        )
        super().__init__(settings, port=free_port(), mlflow_port=urlsplit(self.mlflow_url).port)
        self.relays: list[subprocess.Popen[bytes]] = []
        self.networks: list[str] = []
        self.laid: dict[str, set[str]] = {}  # what was there before the first process

    def database(self, driver: str, name: str) -> str:
        """Give the SQLAlchemy URL of one of the three databases."""
        return f"postgresql+{driver}://{self.server.netloc}/{self.prefix}{name}"

    def root(self, host: str) -> Path:
        """Give the folder that holds what a host sees as its own."""
        return self.home if host == MAIN else self.home / host

    @property
    def shell(self) -> dict[str, str]:
        """The variables of a shell that uses the command line."""
        names = ("storage_url", "mlflow_tracking_uri", "mlflow_artifact_uri")
        names += ("feast_registry", "feast_online_store")
        return self.keys | {
            f"RETRAINING_{name.upper()}": str(getattr(self.settings, name)) for name in names
        }

    @property
    def environment(self) -> dict[str, str]:
        """What all hosts have in common; no credentials of S3 but in the connection."""
        (bundle,) = json.loads(
            super().environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"]
        )
        bundle["kwargs"]["path"] = "/srv/retraining"
        metadata = self.database("psycopg2", "airflow")
        s3 = {
            "conn_type": "aws",
            "login": self.keys["AWS_ACCESS_KEY_ID"],
            "password": self.keys["AWS_SECRET_ACCESS_KEY"],
            "extra": {"region_name": "us-east-1", "endpoint_url": self.s3},
        }
        mlflow = {"conn_type": "http", "host": "127.0.0.1", "port": self.mlflow_port}
        shell = {name: value for name, value in self.shell.items() if not name.startswith("AWS_")}
        common = {n: v for n, v in super().environment.items() if not n.startswith(FOREIGN)}
        return (
            common
            | shell
            | {
                "HOME": "/srv/home",
                "PYTHONWARNINGS": "ignore",
                "RETRAINING_HOME": "/srv/state",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "AIRFLOW_HOME": "/srv/airflow",
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__CORE__PLUGINS_FOLDER": "/srv/retraining/plugins",
                "AIRFLOW__CORE__DAGS_FOLDER": "/srv/retraining/dags",
                "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
                "AIRFLOW__CORE__FERNET_KEY": "ZGV2ZWxvcG1lbnQtb25seS1ub3QtYS1zZWNyZXQtISE=",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": "/srv/airflow/passwords.json",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
                "AIRFLOW__CELERY__BROKER_URL": "redis://{}:{}/{}".format(*REDIS, self.broker_db),
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{metadata}",
                "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
                "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(s3),
                "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(mlflow),
            }
        )

    def start(self, *, mlflow_ui: bool = True) -> None:
        """Start all parts, the workers' networks before them, and wait until all are ready."""
        self.laid = {host: listing(self.root(host)) for host in (MAIN, *WORKERS)}
        for worker in WORKERS:
            self._connect(worker)
        super().start(mlflow_ui=mlflow_ui)
        until = time.monotonic() + demo.START_SECONDS
        while not all("ready." in self._tail(worker) for worker in WORKERS):
            if time.monotonic() > until:
                raise demo.StackError(f"no worker:\n{self._tail(WORKERS[0])}")
            time.sleep(0.5)

    def stop(self) -> bool:
        """End every process that was started; remove networks, databases and keys of Redis."""
        import psycopg

        ran = super().stop()
        for relay in self.relays:
            relay.kill()
            relay.wait()
        for network in self.networks:
            subprocess.run(["ip", "netns", "delete", network], check=False)
        self.relays, self.networks = [], []
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            for name in ("airflow", "mlflow", "feast"):
                connection.execute(f"DROP DATABASE IF EXISTS {self.prefix}{name} WITH (FORCE)")
        for number in (self.broker_db, self.online_db):
            with redis(number) as client:
                client.flushdb()
        return ran

    def _prepare(self) -> None:
        """Lay out the hosts; make the databases."""
        import psycopg

        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        for host in (MAIN, *WORKERS):
            for place in PLACES.values():
                (self.root(host) / place).mkdir(parents=True, exist_ok=True)
            for path in kept():
                (self.root(host) / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
            copy_like_the_dockerfile(self.root(host) / "retraining")
            config = self.root(host) / "airflow" / "config"
            config.mkdir()
            shutil.copy(REPOSITORY / "include" / "demo" / "airflow_local_settings.py", config)
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            for name in ("airflow", "mlflow", "feast"):
                connection.execute(f"CREATE DATABASE {self.prefix}{name}")
        migration = self._spawn("airflow-db", [sys.executable, "-m", "airflow", "db", "migrate"])
        if migration.wait(timeout=demo.START_SECONDS):
            raise demo.StackError(f"no database:\n{self._tail('airflow-db')}")

    def _commands(self) -> dict[str, Sequence[str]]:
        worker = [sys.executable, "-m", "airflow", "celery", "worker", "--skip-serve-logs"]
        workers = {name: [*worker, "--celery-hostname", name] for name in WORKERS}
        return super()._commands() | workers

    def _mlflow_command(self, port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
            *("--port", str(port), "--workers", "1"),
            *("--backend-store-uri", self.database("psycopg2", "mlflow")),
            *("--default-artifact-root", self.settings.mlflow_artifact_uri),
        ]

    def _spawn(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process on its host; whatever it forks ends with it."""
        host = name if name in WORKERS else MAIN
        own = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        network = ["ip", "netns", "exec", self._network(host)] if host in WORKERS else []
        environment = self.environment | {
            "KEPT": " ".join(kept()),
            "RETRAINING_PRELOAD": "1" if host in WORKERS else "0",
        }
        if name == "mlflow":
            environment |= self.keys
        with (self.home / "logs" / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [*network, *own, "bash", "-c", ENTER, "bash", host, self.root(host), *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _network(self, host: str) -> str:
        return f"retraining-{os.getpid()}-{host}"

    def _connect(self, host: str) -> None:
        """Give a host a network of its own, on whose loopback the services are, and no others."""
        network = self._network(host)
        subprocess.run(["ip", "netns", "add", network], check=True)
        self.networks.append(network)
        inside = ["ip", "netns", "exec", network]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        services = (self.server.port or 5432, REDIS[1], self.port, self.mlflow_port)
        for port in (*services, urlsplit(self.s3).port):
            way = self.home / "relays" / f"{host}-{port}"
            way.parent.mkdir(parents=True, exist_ok=True)
            tcp, unix = f"TCP-LISTEN:{port},bind=127.0.0.1", f"UNIX-LISTEN:{way}"
            for command in (
                ["socat", f"{unix},fork,backlog=128", f"TCP:127.0.0.1:{port}"],
                [*inside, "socat", f"{tcp},fork,reuseaddr,backlog=128", f"UNIX-CONNECT:{way}"],
            ):
                self.relays.append(subprocess.Popen(command, start_new_session=True))


def kept() -> list[str]:
    """Give what of this Python lies in a folder that a host has of its own."""
    prefixes = {Path(sys.prefix), Path(sys.base_prefix)}
    hidden = [Path(place) for place in PLACES]
    return [str(one) for one in prefixes if any(one.is_relative_to(place) for place in hidden)]


@contextmanager
def redis(number: int) -> Iterator[Any]:
    """Give a client of one of the server's databases."""
    from redis import Redis

    client = Redis(*REDIS, db=number)
    try:
        yield client
    finally:
        client.close()


def free_redis(count: int) -> list[int]:
    """Give databases of the server that hold nothing."""
    free = []
    for number in range(15, 0, -1):
        with redis(number) as client:
            if not client.dbsize():
                free.append(number)
        if len(free) == count:
            return free
    raise demo.StackError(f"Redis has no {count} empty databases between 1 and 15")


def listing(root: Path) -> set[str]:
    """Give all files and folders that a host's processes made outside of logs and storage."""
    found = set()
    for place in PLACES.values():
        for path, folders, files in os.walk(root / place):
            own = Path(path).relative_to(root)
            folders[:] = [
                name
                for name in folders
                if name != "__pycache__" and str(own / name) != "airflow/logs"
            ]
            found |= {str(own / name) for name in (*folders, *files)}
    return found
