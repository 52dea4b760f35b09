"""The snapshot operator through an Airflow connection, on a real PostgreSQL."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from include.retraining.settings import Settings
from include.retraining.storage import Storage
from tests.unit.data.test_query import DAY, URL, shop, spec_of  # noqa: F401 - shop is a fixture

pytestmark = pytest.mark.skipif(not URL, reason="needs PostgreSQL: set TEST_POSTGRES_URL")


def test_rows_of_the_runs_window_land_through_the_connection(shop, monkeypatch, tmp_path):  # noqa: F811
    from retraining_provider.operators.snapshot import SnapshotOperator

    address = shop.url
    connection = {
        "conn_type": "postgres",
        "host": address.host,
        "port": address.port,
        "login": address.username,
        "schema": address.database,
    }
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(connection))
    monkeypatch.setenv("RETRAINING_HOME", str(tmp_path))
    dag_run = SimpleNamespace(dag_id="churn__ingest", run_id="r", partition_key=DAY)
    operator = SnapshotOperator(task_id="snapshot_source", spec=spec_of())
    found = operator.execute({"dag_run": dag_run, "params": {}})
    assert [(one["input"], one["rows"]) for one in found] == [("batch", 96), ("customers", 10)]
    landed = Storage.of(Settings.from_env()).read_table(f"landing/churn/{DAY}/orders.parquet")
    assert landed.num_rows == 96
    json.dumps(found)  # plain, for XCom
