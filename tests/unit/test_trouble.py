"""MLflow down, slow or read-only, and models that cannot be used: the champion stays as it was."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event

from include.retraining import __main__ as cli
from include.retraining.errors import (
    DataError,
    RegistryError,
    RetrainingError,
    ScoringError,
    SpecError,
    Unavailable,
)
from include.retraining.monitor import measuring
from include.retraining.names import CHAMPION, INCIDENT_TAG
from include.retraining.records import Candidate, GateDecision, Performance, TrainingSet
from include.retraining.registry import ledger, server, succession, versions
from include.retraining.registry import server as mlflow_server
from include.retraining.retrain import candidate as candidates
from include.retraining.retrain import gate, incident, training_set
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from tests.airflow_home import ROOT
from tests.unit.pipeline import request_retrain, small_spec, train

SPEC = small_spec()
AT = dt.datetime(2013, 2, 4, tzinfo=dt.UTC)
PROMISE = Performance(metric="roc_auc", rows=5000, value=0.7, low=0.68, high=0.72)


def decision(version: int, champion: int | None) -> GateDecision:
    return GateDecision(
        incident_id=f"incident-{version}",
        model="flights",
        partition="2013-01-28",
        candidate_version=version,
        champion_version=champion,
        passed=True,
        reasons=("better",),
        candidate=PROMISE,
    )


@pytest.fixture
def champion(trained: Settings) -> Iterator[Settings]:
    """Version 1 is champion, and whatever a test does, it still is afterwards."""
    for number in (1, 2, 3):
        server.set_tags(SPEC, trained, number, {INCIDENT_TAG: f"incident-{number}"})
    succession.promote(SPEC, trained, decision(1, None), actor="test", at=AT)
    versions._load.cache_clear()

    def state() -> object:
        return server.aliases(SPEC, trained)[CHAMPION], ledger.read(Storage.of(trained), "flights")

    before = state()
    yield trained
    assert state() == before


def at(settings: Settings, uri: str) -> Settings:
    return settings.model_copy(update={"mlflow_tracking_uri": uri})


# --- down and slow --------------------------------------------------------------------------------


@pytest.fixture(params=["down", "slow"])
def silent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address where nothing listens, or where somebody does and never answers."""
    monkeypatch.setattr(mlflow_server, "ANSWER_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if request.param == "down":
            server.close()
        yield f"http://ada:secret@127.0.0.1:{port}"


def test_mlflow_that_does_not_answer_is_said_at_once_without_its_password(champion, silent):
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        versions.champion(SPEC, at(champion, silent))
    assert time.monotonic() - started < 60
    said = str(caught.value)
    assert "does not answer within 1 s" in said
    assert "the champion stays. Start the server" in said
    assert "secret" not in said


def test_every_step_stops_where_mlflow_does_not_answer_and_a_retry_may_help(champion, silent):
    request = request_retrain(SPEC, champion, "2013-01-28")
    rows = training_set.build_training_set(SPEC, champion, request)
    gone = at(champion, silent)
    batch = SPEC.batch_ref("2013-01-28")
    candidate = Candidate(
        incident_id=request.incident_id,
        model="flights",
        version=2,
        run_id="r",
        training_set=rows,
        digest="d",
    )
    steps = [
        lambda: measuring.measure_drift(SPEC, gone, batch),
        lambda: incident.open_incident(
            SPEC, gone, batch=batch, trigger="manual", reason="a test", run_id="new"
        ),
        lambda: candidates.train_candidate(SPEC, gone, request, rows),
        lambda: gate.decide(SPEC, gone, request, candidate),
        lambda: succession.promote(SPEC, gone, decision(2, 1), actor="test", at=AT),
    ]
    for step in steps:
        with pytest.raises(Unavailable, match="does not answer") as caught:
            step()
        assert not isinstance(caught.value, RetrainingError)  # those are not retried


def test_command_says_so_instead_of_a_traceback(champion, silent, monkeypatch, capsys):
    monkeypatch.setenv("RETRAINING_HOME", str(champion.home))
    monkeypatch.setenv("RETRAINING_MLFLOW_TRACKING_URI", silent)
    assert cli.main(["reproduce", "flights", "--version", "1"]) == 2
    assert "error: MLflow at http://127.0.0.1" in capsys.readouterr().err


def test_artifact_store_that_does_not_answer_loses_no_duel(champion, monkeypatch):
    """A real request to an address where nothing listens, in place of the store's own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def fetch(*_, **__):
        try:
            return requests.get(f"http://127.0.0.1:{port}/model.skops", timeout=5).content
        except requests.RequestException as error:
            raise MlflowException("The following failures occurred while downloading") from error

    storage = Storage.of(champion)
    kept = [one for one in storage.list("flights/retrain") if one.endswith("training_set.json")]
    found = TrainingSet.model_validate_json(storage.read(kept[0]))
    rows = training_set.duel_rows(SPEC, storage, found)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.artifacts, "download_artifacts", fetch)
        with pytest.raises(Unavailable, match="its artifact store does not answer"):
            versions.score(SPEC, champion, 1, rows)
    assert len(versions.score(SPEC, champion, 1, rows)) == rows.num_rows


# --- read-only ------------------------------------------------------------------------------------


@pytest.fixture
def read_only(champion: Settings, tmp_path, monkeypatch) -> Settings:
    """The same MLflow database, opened for reading."""
    monkeypatch.chdir(tmp_path)  # MLflow makes a folder of the address's name where it stands
    path = champion.home / "mlflow.db"
    return at(champion, f"sqlite:///file:{path}?mode=ro&uri=true")


def test_nothing_is_half_written_where_mlflow_takes_nothing(champion, read_only):
    request = request_retrain(SPEC, champion, "2013-01-28")
    rows = training_set.build_training_set(SPEC, champion, request)
    before = len(server.client(champion).search_model_versions("name = 'flights'"))
    with pytest.raises(Unavailable, match=r"did not take the candidate: .*readonly") as caught:
        candidates.train_candidate(SPEC, read_only, request, rows)
    assert "can be written to and are not full, then clear the task" in str(caught.value)
    assert len(server.client(champion).search_model_versions("name = 'flights'")) == before
    with pytest.raises(Unavailable, match=r"did not take the promotion: .*readonly"):
        succession.promote(SPEC, read_only, decision(2, 1), actor="test", at=AT)
    assert candidates.train_candidate(SPEC, champion, request, rows).version == before + 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param("TEMPORARILY_UNAVAILABLE", Unavailable, id="locked-database"),
        pytest.param("INTERNAL_ERROR", Unavailable, id="503-of-a-server"),
        pytest.param("REQUEST_LIMIT_EXCEEDED", Unavailable, id="too-many-requests"),
        pytest.param("INVALID_PARAMETER_VALUE", RegistryError, id="what-was-given"),
        pytest.param("RESOURCE_DOES_NOT_EXIST", RegistryError, id="deleted-meanwhile"),
        pytest.param("PERMISSION_DENIED", RegistryError, id="not-allowed"),
    ],
)
def test_trouble_of_mlflow_may_pass_and_a_refusal_does_not(code, kind):
    from mlflow.protos import databricks_pb2

    error = MlflowException("why", error_code=databricks_pb2.ErrorCode.Value(code))
    with pytest.raises(kind, match="why"), server.writing("the candidate"):
        raise error
    assert server.is_refusal(error) == (kind is RegistryError)


def test_a_value_that_mlflow_refuses_is_not_tried_again(champion):
    told = r"refuses the candidate: .*INVALID_PARAMETER_VALUE"
    with pytest.raises(RegistryError, match=told), server.writing("the candidate"):
        server.client(champion).create_registered_model("")


def test_a_database_that_is_locked_is_trouble(champion):
    with sqlite3.connect(champion.home / "mlflow.db", isolation_level=None) as holder:
        holder.execute("begin exclusive")
        api, told = server.client(champion), "database is locked"
        with pytest.raises(Unavailable, match=told), server.writing("the candidate"), in_a_hurry():
            api.create_registered_model("other")
        holder.execute("rollback")
    holder.close()


def test_a_database_that_is_locked_when_it_is_opened_is_trouble_in_one_sentence(
    champion, monkeypatch
):
    # another process opens it first of all; this one has it open already
    command = [sys.executable, "-W", "ignore", "-m", "include.retraining"]
    monkeypatch.setenv("RETRAINING_HOME", str(champion.home))
    with sqlite3.connect(champion.home / "mlflow.db", isolation_level=None) as holder:
        holder.execute("begin exclusive")
        said = subprocess.run(
            [*command, "rollback", "flights", "--reason", "late alerts"],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        holder.execute("rollback")
    holder.close()
    assert said.returncode == 2, said.stderr[-500:]
    assert "Traceback" not in said.stderr
    assert "database is locked" in said.stderr
    assert "try again" in said.stderr


@contextlib.contextmanager
def in_a_hurry() -> Iterator[None]:
    """MLflow waits 20 seconds for a lock; here it waits none."""

    def hurry(connection, cursor, statement, *_):
        if "busy_timeout" in statement:
            cursor.execute("PRAGMA busy_timeout = 1")

    event.listen(Engine, "after_cursor_execute", hurry)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", hurry)


@pytest.mark.parametrize(
    "said",
    [
        "one or more artifacts from s3://b/m: An error occurred (SlowDown) when calling GetObject",
        "503 Server Error: Service Unavailable for url: http://mlflow/api/2.0/mlflow-artifacts",
        "API request to http://mlflow failed with exception: too many 503 error responses",
        "API request to endpoint /get failed with error code 503 != 200. Response body: ''",
    ],
)
def test_an_artifact_that_a_busy_store_does_not_give_is_not_called_gone(
    champion, monkeypatch, said
):
    def fetch(*_, **__):
        raise MlflowException(said)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", fetch)
    with pytest.raises(Unavailable, match="cannot be fetched"):
        versions.profile_bytes(SPEC, champion, versions.version(SPEC, champion, 1))


# --- models ---------------------------------------------------------------------------------------


def test_champion_without_its_artifact_stops_the_monitor_with_what_to_do(champion):
    for folder in (champion.home / "mlflow-artifacts" / "flights" / "models").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(
        ScoringError, match=r"version 1 cannot be loaded: .*Restore its artifact, or"
    ):
        measuring.measure_drift(SPEC, champion, SPEC.batch_ref("2013-01-28"))


def test_champion_of_other_features_is_measured_by_its_own(champion):
    spec = small_spec(features={"numeric": SPEC.features.numeric[1:]})
    report = measuring.measure_drift(spec, champion, spec.batch_ref("2013-01-28"))
    assert {one.name for one in report.features} == set(SPEC.features.names)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        pytest.param(
            {"training": {"estimator": "tests.unit.estimators:impossible"}},
            SpecError,
            "does not take them",
            id="factory-that-raises",
        ),
        pytest.param(
            {"training": {"estimator": "tests.unit.estimators:Broken", "params": {}}},
            ScoringError,
            "predictions are not finite numbers",
            id="predictions-that-are-nan",
        ),
        pytest.param(
            {"label": {"at_least": 1e9}},
            DataError,
            "Check label.column 'arr_delay'",
            id="one-class",
        ),
        pytest.param(
            {"training": {"search": None, "sample_weight": "dep_delay"}},
            DataError,
            "missing, negative or infinite",
            id="weights-that-are-none",
        ),
    ],
)
def test_model_that_cannot_be_trained_is_never_registered(champion, changes, kind, says):
    api = server.client(champion)
    before = len(api.search_model_versions("name = 'flights'"))
    with pytest.raises(kind, match=says):
        train(small_spec(**changes), champion, "2013-01-28")
    assert len(api.search_model_versions("name = 'flights'")) == before
