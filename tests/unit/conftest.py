"""Real storage, Feast, Great Expectations and MLflow in temporary folders, prepared once."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from include.retraining.registry import server
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec
from include.retraining.storage import Storage
from tests.unit import pipeline

FOREIGN = ("RETRAINING_", "AWS_", "MLFLOW_TRACKING", "MLFLOW_S3", "MLFLOW_EXPERIMENT")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own settings is seen."""
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def flights() -> ModelSpec:
    """The model file of the example, as users see it."""
    return load_spec(MODELS_DIR / "flights.yaml")


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
    """An S3 server with one bucket; its requests are served one by one, as if each were atomic."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    one_by_one, app = threading.Lock(), server._server.app

    def serve(environ: Any, start_response: Any) -> list[bytes]:
        with one_by_one:
            return list(app(environ, start_response))

    server._server.app = serve
    url = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="retraining")
    yield url
    server.stop()


@pytest.fixture
def s3_environment(_s3_server: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a task sets from Airflow's connection."""
    variables = {
        "AWS_ENDPOINT_URL_S3": _s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Empty storage of each kind."""
    if request.param == "file":
        return Storage((tmp_path / "storage").as_uri())
    request.getfixturevalue("s3_environment")
    return Storage(f"s3://retraining/{tmp_path.name}-{uuid.uuid4().hex[:6]}")


@pytest.fixture(scope="session")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Eight processes that share nothing with this one but what they are told."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["s3fs", "tests.unit.writers"])  # imported once, not eight times
    with ProcessPoolExecutor(8, mp_context=context) as pool:
        yield pool


@pytest.fixture(scope="session")
def _make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a folder once for all test workers; who comes second waits and takes what is there."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        path, done = root / name, root / f"{name}.done"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
                fill(path)
                done.touch()
        return path

    return make


@pytest.fixture(scope="session")
def _empty_home(_make_once: Callable[..., Path]) -> Path:
    """A home whose MLflow database is made: that alone takes seconds."""

    def fill(home: Path) -> None:
        server.aliases(pipeline.small_spec(), Settings(home=home))

    return _make_once("empty", fill)


@pytest.fixture(scope="session")
def ingested_home(_empty_home: Path, _make_once: Callable[..., Path]) -> Path:
    """A home with four real weeks in force."""

    def fill(home: Path) -> None:
        settings = pipeline.copy_home(_empty_home, home)
        for partition in pipeline.WEEKS:
            pipeline.ingest(pipeline.small_spec(), settings, partition)

    return _make_once("ingested", fill)


@pytest.fixture(scope="session")
def _trained_home(ingested_home: Path, _make_once: Callable[..., Path]) -> Path:
    """A home with three registered versions, trained on weeks 1-3; none is champion yet."""

    def fill(home: Path) -> None:
        settings = pipeline.copy_home(ingested_home, home)
        for seed in (1, 2, 3):
            pipeline.train(pipeline.small_spec(training={"seed": seed}), settings, "2013-01-21")

    return _make_once("trained", fill)


@pytest.fixture
def empty(_empty_home: Path, tmp_path: Path) -> Settings:
    """Nothing has landed yet."""
    return pipeline.copy_home(_empty_home, tmp_path / "home")


@pytest.fixture(scope="session")
def shared(ingested_home: Path) -> Settings:
    """Four real weeks in force, for tests that change nothing."""
    return Settings(home=ingested_home)


@pytest.fixture
def ingested(ingested_home: Path, tmp_path: Path) -> Settings:
    """Four real weeks in force."""
    return pipeline.copy_home(ingested_home, tmp_path / "home")


@pytest.fixture
def trained(_trained_home: Path, tmp_path: Path) -> Settings:
    """Four real weeks in force and the versions 1, 2, 3, none of them champion."""
    return pipeline.copy_home(_trained_home, tmp_path / "home")
