"""From a file that lands on S3 to the run that ingests it, against moto's S3 and SQS."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from include.retraining.data.landing_events import landed_partitions
from include.retraining.spec import MODELS_DIR, ModelSpec
from include.retraining.storage import Storage
from tests.airflow_home import ROOT

WEEK = "2013-02-04"
FLIGHTS, WEATHER = f"landing/flights/{WEEK}.parquet", f"landing/weather/{WEEK}.parquet"
AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3")


def spec_of(queue: str) -> ModelSpec:
    content = yaml.safe_load((MODELS_DIR / "flights.yaml").read_text())
    content["source"]["landing_queue"] = queue
    return ModelSpec.model_validate(content)


@pytest.fixture
def lake(monkeypatch, tmp_path):
    """A bucket that tells a queue of what lands in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_DEFAULT",
        json.dumps(
            {
                "conn_type": "aws",
                "login": "key",
                "password": "secret",
                "extra": {"region_name": "us-east-1", "endpoint_url": endpoint},
            }
        ),
    )
    for name, value in zip(AWS, ("key", "secret", "us-east-1", endpoint), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RETRAINING_HOME", str(tmp_path))
    monkeypatch.setenv("RETRAINING_STORAGE_URL", "s3://watched-lake/models")
    clients = {
        name: boto3.client(
            name,
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        for name in ("s3", "sqs")
    }
    queue = clients["sqs"].create_queue(QueueName="flights-landing")["QueueUrl"]
    arn = clients["sqs"].get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    clients["s3"].create_bucket(Bucket="watched-lake")
    clients["s3"].put_bucket_notification_configuration(
        Bucket="watched-lake",
        NotificationConfiguration={
            "QueueConfigurations": [
                {"QueueArn": arn["Attributes"]["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
            ]
        },
    )
    queue = f"{endpoint}/{queue.split('/', 3)[3]}"
    yield SimpleNamespace(**clients, queue=queue, storage=Storage("s3://watched-lake/models"))
    # what moto holds belongs to the process: the next test begins without it
    clients["sqs"].delete_queue(QueueUrl=queue)
    for item in clients["s3"].list_objects_v2(Bucket="watched-lake").get("Contents", ()):
        clients["s3"].delete_object(Bucket="watched-lake", Key=item["Key"])
    clients["s3"].delete_bucket(Bucket="watched-lake")
    server.stop()


def messages(lake) -> list[dict]:
    """What the trigger gives: all messages there are."""
    from retraining_provider.triggers.landing import LandingTrigger

    async def first() -> dict:
        async for event in LandingTrigger(queue_url=lake.queue).run():
            return event.payload
        return {}

    return asyncio.run(asyncio.wait_for(first(), 30))["message_batch"]


def body(key: str, **changes: object) -> dict:
    record = {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "watched-lake"}, "object": {"key": f"models/{key}", "eTag": "e"}},
    }
    return {"Body": json.dumps({"Records": [record | changes]})}


def test_partition_is_found_once_all_its_files_have_landed(lake):
    spec = spec_of(lake.queue)
    lake.storage.write(WEATHER, b"w")
    assert landed_partitions(spec, lake.storage, messages(lake)) == []
    lake.storage.write(FLIGHTS, b"f")
    (found,) = landed_partitions(spec, lake.storage, messages(lake))
    assert found.partition == WEEK


def test_event_told_twice_is_the_same_and_another_write_is_another(lake):
    spec = spec_of(lake.queue)
    lake.storage.write(WEATHER, b"w")
    lake.storage.write(FLIGHTS, b"f")
    told = messages(lake)
    found = landed_partitions(spec, lake.storage, told)
    assert landed_partitions(spec, lake.storage, told + told) == found
    lake.storage.write(FLIGHTS, b"corrected")
    (other,) = landed_partitions(spec, lake.storage, messages(lake))
    assert (other.partition, other.event != found[0].event) == (WEEK, True)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"Body": "not json"}, id="no-json"),
        pytest.param({"Body": '{"Event": "s3:TestEvent"}'}, id="test-event"),
        pytest.param({}, id="empty"),
        pytest.param(body("landing/flights/2013-02-05.parquet"), id="no-such-partition"),
        pytest.param(body("landing/flights/x/2013-02-04.parquet"), id="another-folder"),
        pytest.param(body("flights/ledger/000001.json"), id="our-own-files"),
        pytest.param(body(FLIGHTS, eventName="ObjectRemoved:Delete"), id="removed"),
        pytest.param(
            body(FLIGHTS, s3={"bucket": {"name": "sea"}, "object": {"key": f"models/{FLIGHTS}"}}),
            id="another-bucket",
        ),
    ],
)
def test_message_about_something_else_is_left_out(lake, message):
    for key in (FLIGHTS, WEATHER):
        lake.storage.write(key, b"x")
    assert landed_partitions(spec_of(lake.queue), lake.storage, [message]) == []


def test_keys_are_read_as_s3_writes_them(lake):
    for key in (FLIGHTS, WEATHER):
        lake.storage.write(key, b"x")
    encoded = body(FLIGHTS.replace("/", "%2F"))
    assert len(landed_partitions(spec_of(lake.queue), lake.storage, [encoded])) == 1


def dag_of(spec: ModelSpec):
    import importlib.util

    location = importlib.util.spec_from_file_location("watch", ROOT / "dags" / "watch_landing.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module.watch_landing(spec)


def test_watcher_survives_serialization_as_the_trigger_it_is(lake):
    from airflow.serialization.serialized_objects import DagSerialization

    content = json.dumps(DagSerialization.to_dict(dag_of(spec_of(lake.queue))))
    assert "retraining_provider.triggers.landing.LandingTrigger" in content
    assert lake.queue in content


def test_task_starts_one_ingest_for_each_delivery(lake):
    lake.storage.write(WEATHER, b"w")
    lake.storage.write(FLIGHTS, b"f")
    event = SimpleNamespace(
        extra={"from_trigger": True, "payload": {"message_batch": messages(lake)}}
    )
    dag = dag_of(spec_of(lake.queue))
    find = dag.get_task("find_landed")
    run = SimpleNamespace(dag_id="flights__watch_landing", run_id="r")

    def found(events: dict) -> list[dict]:
        return find.execute({"dag_run": run, "triggering_asset_events": events})

    (asked,) = found({"flights.landing": [event, event]})
    assert asked["conf"] == {"partition": WEEK}
    assert asked["trigger_run_id"].startswith(f"landed__{WEEK}__")
    assert found({}) == []
    assert dag.get_task("start_ingest").partial_kwargs["skip_when_already_exists"]


def test_a_model_without_a_queue_has_no_such_dag():
    content = yaml.safe_load((MODELS_DIR / "flights.yaml").read_text())
    assert dag_of(ModelSpec.model_validate(content)) is None
