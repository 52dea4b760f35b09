"""A batch's numbers in CloudWatch, against moto's server."""

from __future__ import annotations

import datetime as dt

import boto3
import pytest
from moto.server import ThreadedMotoServer

from include.retraining import shelf
from include.retraining.records import DriftReport
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, Export, load_spec
from include.retraining.storage import Storage
from tests.made_state import Made, summer

SPEC = load_spec(MODELS_DIR / "flights.yaml").model_copy(
    update={"export": Export(cloudwatch="Models/Production")}
)


@pytest.fixture
def cloudwatch(monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_CLOUDWATCH": endpoint,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://")
    yield boto3.client("cloudwatch", endpoint_url=endpoint, region_name="us-east-1")
    server.stop()


def test_numbers_of_the_newest_batch_are_put_under_the_models_name(
    cloudwatch, tmp_path, monkeypatch
):
    from retraining_provider.operators.cloudwatch import CloudWatchOperator

    monkeypatch.setenv("RETRAINING_HOME", str(tmp_path))
    settings = Settings.from_env()
    summer(Made(SPEC, settings))
    key = SPEC.partition_key(SPEC.partitions.step(SPEC.partitions.first, 11))
    report = shelf.find(Storage.of(settings), DriftReport, SPEC.model, key)
    drifted = any(one.drifted and not one.expected for one in report.columns)
    assert CloudWatchOperator(task_id="put_metrics", spec=SPEC).execute({}) >= 6
    found = cloudwatch.list_metrics(Namespace="Models/Production")["Metrics"]
    names = {one["MetricName"] for one in found}
    assert {
        "DataDriftDetected", "DriftedFeatureShare", "RealisedMetric", "PromisedMetric",
        "OutcomesDue",
    } <= names  # fmt: skip
    assert {dim["Value"] for one in found for dim in one["Dimensions"]} == {"flights", "roc_auc"}
    now = dt.datetime.now(dt.UTC)
    asked = {
        "Namespace": "Models/Production", "StartTime": now - dt.timedelta(hours=1),
        "EndTime": now + dt.timedelta(minutes=5), "Period": 60, "Statistics": ["Maximum"],
    }  # fmt: skip
    model = {"Name": "Model", "Value": "flights"}
    said = cloudwatch.get_metric_statistics(
        MetricName="RealisedMetric", Dimensions=[model, {"Name": "Metric", "Value": "roc_auc"}],
        **asked,
    )  # fmt: skip
    assert said["Datapoints"][0]["Maximum"] == pytest.approx(report.performance.value)
    said = cloudwatch.get_metric_statistics(
        MetricName="DataDriftDetected", Dimensions=[model], **asked
    )
    assert said["Datapoints"][0]["Maximum"] == float(drifted)
