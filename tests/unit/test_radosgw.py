"""Storage, tables, the ledger and one life of a model on radosgw, a store that many use for real.

Unlike moto it serves many requests at once, and it tells a taken key without naming the condition.
"""

from __future__ import annotations

import datetime as dt
import inspect
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from mlflow.store.artifact import s3_artifact_repo
from s3fs import S3FileSystem

from include.retraining.data import publication
from include.retraining.features import skew
from include.retraining.names import CHAMPION
from include.retraining.registry import ledger, server, succession, versions
from include.retraining.retrain import gate
from include.retraining.settings import Settings
from include.retraining.storage import PROBED_KEY, Storage, at_once
from tests import radosgw
from tests.unit import pipeline, test_storage
from tests.unit.data import test_tables
from tests.unit.data.test_tables import table  # noqa: F401 - a fixture
from tests.unit.registry import test_ledger
from tests.unit.writers import draft

pytestmark = pytest.mark.slow

WRITERS = 16
BUCKET = "retraining"


def _again(module: ModuleType, *fixtures: str) -> dict[str, Callable[..., Any]]:
    """Give the tests of a module that ask for one of these fixtures, which are on radosgw here.

    Those of tables in many processes are left out: they load delta-rs in each.
    """
    found = {}
    for name, test in vars(module).items():
        if name.startswith("test_") and callable(test):
            asked = set(inspect.signature(test).parameters)
            if asked & set(fixtures) and "environment" not in asked:
                found[name] = test
    return found


globals().update(_again(test_storage, "storage"))
globals().update(_again(test_tables, "storage", "table"))
globals().update(_again(test_ledger, "storage", "chain"))


@pytest.fixture(scope="session")
def store() -> Iterator[radosgw.Store]:
    """One server with one bucket for all tests here."""
    why = radosgw.missing()
    if why:
        pytest.skip(why)
    with radosgw.running() as found:
        client_of(found).create_bucket(Bucket=BUCKET)
        yield found


def client_of(store: radosgw.Store) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.url,
        region_name="us-east-1",
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
    )


@pytest.fixture
def s3_environment(
    store: radosgw.Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    _forget_connections()
    yield store.environment
    _forget_connections()


def _forget_connections() -> None:
    """Connections that libraries keep by URL: the same URL means another server in other tests."""
    S3FileSystem.clear_instance_cache()
    s3_artifact_repo._cached_get_s3_client.cache_clear()
    boto3.DEFAULT_SESSION = None


@pytest.fixture
def storage(s3_environment: dict[str, str]) -> Storage:
    return Storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture
def chain(storage: Storage) -> Storage:
    """A ledger of five entries."""
    for number in range(1, 6):
        ledger.append(storage, draft(f"i{number}", number))
    return storage


def test_a_taken_key_is_told_in_other_words_than_amazons(store: radosgw.Store):
    client, key = client_of(store), uuid.uuid4().hex
    client.put_object(Bucket=BUCKET, Key=key, Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"2", IfNoneMatch="*")
    answer = refused.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert "Condition" not in answer["Error"]
    assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"1"


def test_of_sixteen_that_create_one_key_at_once_one_wins(storage: Storage):
    with ThreadPoolExecutor(WRITERS) as threads:
        for round_ in range(10):
            key = f"race/{round_}"

            def create(number: int, key: str = key) -> bool:
                return storage.create(key, b"%d" % number)

            won = list(threads.map(create, range(WRITERS)))
            assert sum(won) == 1
            assert storage.read(key) == b"%d" % won.index(True)


def test_the_store_passes_the_look_for_one_winner(storage: Storage):
    storage.require_one_winner()
    assert storage.list("_store") == [PROBED_KEY]


def test_racing_entries_of_the_ledger_are_all_kept_in_one_chain(storage: Storage):
    with ThreadPoolExecutor(8) as threads:
        made = list(
            threads.map(lambda n: ledger.append(storage, draft(f"i{n}", n)), range(WRITERS))
        )
    assert sorted(entry.sequence for entry in made) == list(range(1, WRITERS + 1))
    assert ledger.verify(storage, "flights") == []


def test_a_model_is_fed_trained_and_promoted(ingested: Settings, storage: Storage):
    spec, week = pipeline.small_spec(), "2013-02-04"
    before = Storage.of(ingested)
    at_once(lambda key: storage.write(key, before.read(key)), before.list(""))
    settings = Settings(
        home=ingested.home, storage_url=storage.url, mlflow_artifact_uri=f"{storage.url}-mlflow"
    )
    assert pipeline.ingest(spec, settings, week).rows > 0
    assert set(publication.rows_in_force(spec, storage).parts) == {*pipeline.WEEKS, week}
    assert skew.check_skew(spec, settings, spec.batch_ref(week)).problems == ()
    request, candidate = pipeline.train(spec, settings, week)
    decision = gate.decide(spec, settings, request, candidate)
    assert decision.passed
    at = dt.datetime(2013, 2, 11, tzinfo=dt.UTC)
    for _ in range(2):  # the second time it was made already
        made = succession.promote(spec, settings, decision, actor="test", at=at)
        assert made.ledger_sequence == 1
    assert server.aliases(spec, settings)[CHAMPION] == candidate.version
    assert versions.version(spec, settings, candidate.version).stage == "Production"
    assert [entry.action for entry in ledger.read(storage, spec.model)] == ["promotion"]
    assert ledger.verify(storage, spec.model) == []
    assert Storage(settings.mlflow_artifact_uri).has_any(spec.model)
