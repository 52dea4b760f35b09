"""The landing sensor on files and, against moto's server, on S3."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
from types import SimpleNamespace

import boto3
import pytest
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred
from moto.server import ThreadedMotoServer

from include.retraining.errors import SpecError
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
    return context_of("2013-02-04")


def context_of(partition: str, run_type: DagRunType = DagRunType.SCHEDULED) -> dict:
    dag_run = SimpleNamespace(
        dag_id="flights__ingest", run_id="r", partition_key=partition, run_type=run_type
    )
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


@pytest.mark.parametrize("run_type", [one for one in DagRunType if one != "manual"])
def test_a_run_before_the_first_partition_is_skipped_and_one_by_hand_is_told(files, run_type):
    with pytest.raises(AirflowSkipException, match="2012-12-31 is before the first partition"):
        sensor().execute(context_of("2012-12-31", run_type))
    with pytest.raises(SpecError, match="from 2013-01-07 on, got '2012-12-31'"):
        sensor().execute(context_of("2012-12-31", DagRunType.MANUAL))
    with pytest.raises(SpecError, match="must look like"):  # nothing else is passed over
        sensor().execute(context_of("2012-12-3", run_type))


def test_a_scheduled_retrain_is_known_as_one_by_what_airflow_gives_a_task(files):
    from retraining_provider.context import Run, retrain_cause

    asked = {"force": False, "reason": "", "partition": "2013-02-04"}
    when = dt.datetime(2013, 2, 11, tzinfo=dt.UTC)
    run = context_of("2013-02-04") | {"params": asked}
    run["dag_run"].logical_date = when
    cause = retrain_cause(Run(SPEC, run))
    assert (cause["trigger"], cause["reason"]) == ("schedule", "scheduled look at the model's age")


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


def test_a_region_alone_leaves_the_credentials_of_the_role_to_boto(s3, monkeypatch):
    """They end within hours, and only boto's own chain renews them."""
    from retraining_provider.hooks.retraining import RetrainingHook

    exported = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    for name in exported:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    region = {"conn_type": "aws", "extra": {"region_name": "eu-central-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(region))
    # what a role of the machine gives, here from a file; it would be frozen by reading it
    monkeypatch.setattr(
        "airflow.providers.amazon.aws.hooks.s3.S3Hook.get_credentials",
        lambda *_: pytest.fail("the role's credentials were frozen"),
    )
    RetrainingHook().settings()
    assert os.environ["AWS_DEFAULT_REGION"] == "eu-central-1"
    assert not any(name in os.environ for name in exported)


@pytest.mark.parametrize(
    ("version", "current", "commit"),
    [
        pytest.param("1a2b", "ffff", "1a2b", id="of-the-run"),
        pytest.param(None, "ffff", "ffff", id="not-versioned"),
        pytest.param(None, None, "of-the-image", id="a-folder"),
    ],
)
def test_the_commit_is_the_one_of_the_bundle(files, monkeypatch, version, current, commit):
    from retraining_provider.context import Run

    from include.retraining.retrain.candidate import git_commit

    monkeypatch.setenv("RETRAINING_COMMIT", "of-the-image")
    bundle = SimpleNamespace(version=version, get_current_version=lambda: current)
    run = context() | {"task_instance": SimpleNamespace(bundle_instance=bundle)}
    assert git_commit(Run(SPEC, run).settings) == commit


def test_what_mlflow_refuses_is_not_tried_again_and_its_trouble_is():
    from mlflow.exceptions import MlflowException
    from mlflow.protos import databricks_pb2 as codes
    from retraining_provider.defaults import task_defaults

    policy = task_defaults(SPEC, "retrain")["retry_policy"]
    refused = MlflowException("no", error_code=codes.INVALID_PARAMETER_VALUE)
    busy = MlflowException("later", error_code=codes.TEMPORARILY_UNAVAILABLE)
    assert policy.evaluate(refused, 1, 3).action.value == "fail"
    assert policy.evaluate(busy, 1, 3).action.value != "fail"
