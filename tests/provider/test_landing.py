"""The landing sensor on files and, against moto's server, on S3."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import boto3
import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from moto.server import ThreadedMotoServer

from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, load_spec
from include.retraining.storage import Storage

SPEC = load_spec(MODELS_DIR / "flights.yaml")
FILES = ["landing/flights/2013-02-04.parquet", "landing/weather/2013-02-04.parquet"]
AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3")


def sensor():
    from retraining_provider.sensors.landing import LandingSensor

    return LandingSensor(task_id="wait", spec=SPEC)


def context() -> dict:
    dag_run = SimpleNamespace(dag_id="flights__ingest", run_id="r", partition_key="2013-02-04")
    return {"dag_run": dag_run, "params": {}}


async def first_event(trigger):
    async for event in trigger.run():
        return event
    return None


@pytest.fixture
def files(monkeypatch, tmp_path) -> Storage:
    monkeypatch.setenv("RETRAINING_HOME", str(tmp_path))
    return Storage.of(Settings.from_env())


@pytest.fixture
def s3(monkeypatch, tmp_path):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    connection = {
        "conn_type": "aws",
        "login": "key",
        "password": "secret",
        "extra": {"region_name": "us-east-1", "endpoint_url": endpoint},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("RETRAINING_HOME", str(tmp_path))
    monkeypatch.setenv("RETRAINING_STORAGE_URL", "s3://lake/models")
    for name in AWS:  # set by the hook: put back afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="lake")
    yield client
    server.stop()


def test_files_that_are_there_are_given_at_once(files):
    for key in FILES:
        files.write(key, b"x")
    assert sensor().execute(context()) == [files.url_of(key) for key in FILES]


def test_it_defers_until_every_file_is_there(files):
    files.write(FILES[0], b"x")
    with pytest.raises(TaskDeferred) as deferred:
        sensor().execute(context())
    assert type(deferred.value.trigger).__name__ == "FileTrigger"
    assert deferred.value.timeout.total_seconds() == 48 * 3600
    files.write(FILES[1], b"x")
    event = asyncio.run(asyncio.wait_for(first_event(deferred.value.trigger), 10))
    assert sensor().execute(context(), event=event.payload) == [files.url_of(key) for key in FILES]


def test_on_s3_it_defers_to_the_amazon_providers_trigger(s3):
    with pytest.raises(TaskDeferred) as deferred:
        sensor().execute(context())
    trigger = deferred.value.trigger
    assert type(trigger).__name__ == "S3KeyTrigger"
    for key in FILES:
        s3.put_object(Bucket="lake", Key=f"models/{key}", Body=b"x")
    event = asyncio.run(asyncio.wait_for(first_event(trigger), 20))
    assert event.payload == {"status": "success"}
    urls = sensor().execute(context(), event=event.payload)
    assert urls == [f"s3://lake/models/{key}" for key in FILES]


def test_the_connection_reaches_the_storage_library(s3):
    from retraining_provider.hooks.retraining import RetrainingHook

    storage = Storage.of(RetrainingHook().settings())
    storage.write("a/b.json", b"{}")
    assert s3.get_object(Bucket="lake", Key="models/a/b.json")["Body"].read() == b"{}"


def test_a_trigger_that_failed_fails_the_task_so_that_it_is_retried(files):
    with pytest.raises(RuntimeError, match="no route"):
        sensor().execute(context(), event={"status": "error", "message": "no route"})


def test_nothing_landed_in_time_says_what_to_do(files):
    from airflow.sdk.bases.operator import TriggerFailureReason

    with pytest.raises(AirflowFailException, match="deliver the files, then clear this task"):
        sensor().resume_execution(
            "__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, context()
        )


def test_the_mlflow_connection_gives_the_address_with_its_login(files, monkeypatch):
    from retraining_provider.hooks.retraining import RetrainingHook

    connection = {
        "conn_type": "http",
        "host": "https://mlflow.example",
        "port": 8443,
        "login": "me",
        "password": "p@ss",
    }
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
    settings = RetrainingHook().settings()
    assert settings.mlflow_tracking_uri == "https://me:p%40ss@mlflow.example:8443"
