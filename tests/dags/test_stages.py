"""Real runs of every stage, one per branch: real Airflow tasks, flights, MLflow, Feast, GX."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from pathlib import Path

import pytest

from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.data.publication import rows_in_force
from include.retraining.records import ValidationReport, Verdict
from include.retraining.registry import ledger, server, versions
from include.retraining.retrain import claims
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, load_spec
from include.retraining.storage import Storage
from tests.airflow_home import BUNDLE, ROOT
from tests.dags.test_structure import EDGES

pytestmark = pytest.mark.slow
SPEC = load_spec(MODELS_DIR / "flights.yaml")
WEEKS = ["2013-01-07", "2013-01-14", "2013-01-21", "2013-01-28", "2013-02-04"]


@pytest.fixture(scope="module")
def bag():
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.utils.db import initdb

    initdb()
    found = BundleDagBag(ROOT / "dags", bundle_path=ROOT, bundle_name=BUNDLE)
    assert found.import_errors == {}
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(found, BUNDLE, None)
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory, bag):
    """State after four ingested and monitored weeks; the fourth led to the first model."""
    path = tmp_path_factory.mktemp("state")
    os.environ["RETRAINING_HOME"] = str(path)
    settings = Settings.from_env()
    for week in WEEKS[:4]:
        flights_feed.land(Storage.of(settings), SPEC.batch_ref(week))
        assert run(bag, "ingest", partition=week).state == "success"
        assert run(bag, "monitor", partition=week).state == "success"
    verdict = shelf.find(Storage.of(settings), Verdict, SPEC.model, WEEKS[3])
    assert verdict.outcome == "retrain"
    first = run(bag, "retrain", partition=WEEKS[3], reason="no model yet")
    assert first.state == "success", states(first)
    yield path
    del os.environ["RETRAINING_HOME"]


@pytest.fixture
def settings(home, tmp_path, monkeypatch):
    """A copy of that state, to go on from."""
    copy = tmp_path / "state"
    shutil.copytree(home, copy)
    for name in ("mlflow.db",):
        move_paths(copy / name, str(home), str(copy))
    monkeypatch.setenv("RETRAINING_HOME", str(copy))
    return Settings.from_env()


def move_paths(database: Path, old: str, new: str) -> None:
    """Point MLflow's artifact locations at the copy."""
    import sqlite3

    with sqlite3.connect(database) as connection:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
            ("logged_models", "artifact_location"),
        ):
            connection.execute(f"update {table} set {column} = replace({column}, ?, ?)", (old, new))
    connection.close()


def report_on(settings, partition: str) -> ValidationReport:
    return shelf.find(Storage.of(settings), ValidationReport, SPEC.model, partition)


def run(bag, stage, *, logical_date=None, **conf):
    """Run a DAG as by hand; parsed anew: a run leaves what it was given in the DAG's form."""
    from airflow.dag_processing.dagbag import BundleDagBag

    fresh = BundleDagBag(ROOT / "dags" / f"{stage}.py", bundle_path=ROOT, bundle_name=BUNDLE)
    dag = fresh.dags[f"flights__{stage}"]
    for task in dag.tasks:
        task.retries = 0
    return dag.test(run_conf=conf, logical_date=logical_date)


def states(dag_run) -> dict[str, str]:
    return {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances()}


def messages(settings) -> list[str]:
    folder = Storage(f"file://{settings.home / 'slack'}")
    return [folder.read_json(key)["text"] for key in folder.list("")]


def test_a_clean_week_is_published_and_materialized_without_an_alert(bag, settings):
    flights_feed.land(Storage.of(settings), SPEC.batch_ref(WEEKS[4]))
    before = len(messages(settings))
    done = states(run(bag, "ingest", partition=WEEKS[4]))
    assert done["materialize_features"] == done["check_skew"] == "success"
    assert done["alert_skew"] == "skipped"
    assert rows_in_force(SPEC, Storage.of(settings)).parts[WEEKS[4]].rows == 6099
    report = report_on(settings, WEEKS[4])
    assert report.rows_in == report.rows_good == 6099
    # the blizzard of February 8 left 15 % of the week without an arrival: a warning, not a fault
    assert [f.expectation for f in report.findings if f.severity == "warning"] == [
        "column_values_to_not_be_null"
    ]
    assert len(messages(settings)) == before + 2


def test_the_same_week_again_is_recognized_and_nothing_is_published_twice(bag, settings):
    done = states(run(bag, "ingest", partition=WEEKS[3]))
    assert done["validate_batch"] == "success"
    assert done["publish_batch"] == "skipped"
    assert done["materialize_features"] == "skipped"


def test_bad_rows_are_quarantined_and_told_once(bag, settings):
    flights = flights_feed.flights_of(SPEC.batch_ref(WEEKS[4]))
    flights.loc[:9, "distance"] = -1
    flights_feed.land(Storage.of(settings), SPEC.batch_ref(WEEKS[4]), flights)
    run(bag, "ingest", partition=WEEKS[4])
    told = messages(settings)
    run(bag, "ingest", partition=WEEKS[4])
    assert rows_in_force(SPEC, Storage.of(settings)).parts[WEEKS[4]].rows == 6089
    report = report_on(settings, WEEKS[4])
    assert (report.rows_good, report.rows_quarantined) == (6089, 10)
    assert any("10 of 6,099 rows quarantined" in text for text in told)
    assert messages(settings) == told


def test_a_broken_batch_fails_red_and_leaves_the_last_good_data_in_force(bag, settings):
    storage = Storage.of(settings)
    before = rows_in_force(SPEC, storage).parts[WEEKS[3]]
    broken = flights_feed.flights_of(SPEC.batch_ref(WEEKS[3])).drop(columns="distance")
    flights_feed.land(storage, SPEC.batch_ref(WEEKS[3]), broken)
    failed = run(bag, "ingest", partition=WEEKS[3])
    assert failed.state == "failed"
    assert states(failed)["publish_batch"] == "failed"
    assert states(failed)["alert_validation"] == "success"
    assert rows_in_force(SPEC, storage).parts[WEEKS[3]] == before
    report = report_on(settings, WEEKS[3])
    assert report.status == "refused"
    assert sum("column 'distance' is missing" in text for text in messages(settings)) == 1


def test_a_refused_batch_comes_back_with_a_mapping_and_stays(bag, settings):
    storage = Storage.of(settings)
    renamed = flights_feed.flights_of(SPEC.batch_ref(WEEKS[4])).rename(columns={"distance": "dist"})
    flights_feed.land(storage, SPEC.batch_ref(WEEKS[4]), renamed)
    assert run(bag, "ingest", partition=WEEKS[4]).state == "failed"

    asked = {"partition": WEEKS[4], "reason": "new exporter", "renames": {"dist": "distance"}}
    done = run(bag, "replay_quarantine", **asked)
    assert done.state == "success"
    assert states(done)["materialize_features"] == "success"
    assert rows_in_force(SPEC, storage).parts[WEEKS[4]].rows == 6099
    report = report_on(settings, WEEKS[4])
    assert (report.rows_good, report.mapping.reason) == (6099, "new exporter")

    assert states(run(bag, "replay_quarantine", **asked))["publish_batch"] == "skipped"
    assert states(run(bag, "ingest", partition=WEEKS[4]))["publish_batch"] == "skipped"


def test_a_partition_that_nobody_can_name_fails_with_what_to_do(bag, settings):
    failed = run(bag, "ingest", partition="2013-01-08")
    assert failed.state == "failed"
    assert any("has one every week from 2013-01-07 on" in text for text in messages(settings))


def test_the_monitor_holds_back_a_retrain_while_the_last_one_is_fresh(bag, settings):
    flights_feed.land(Storage.of(settings), SPEC.batch_ref(WEEKS[4]))
    run(bag, "ingest", partition=WEEKS[4])
    done = states(run(bag, "monitor", partition=WEEKS[4]))
    verdict = shelf.find(Storage.of(settings), Verdict, SPEC.model, WEEKS[4])
    assert verdict.outcome == "blocked"
    assert "new labelled rows" in verdict.reasons[0]
    assert "cooling down until 2013-02-18" in verdict.reasons[-1]
    assert verdict.champion_version == 1
    assert done["keep_watching"] == "success"
    assert done["request_retrain"] == "skipped"
    assert done["alert_verdict"] == "success"
    assert Storage.of(settings).exists(f"flights/reports/partition={WEEKS[4]}/drift.html")
    runs = server.client(settings).search_runs(
        [server.experiment_id(SPEC, settings)], f"tags.`retraining.partition` = '{WEEKS[4]}'"
    )
    assert "distance.temp" in runs[0].data.metrics
    assert "threshold.temp" in runs[0].data.metrics


def test_the_monitor_judges_the_same_content_once(bag, settings):
    before = shelf.find(Storage.of(settings), Verdict, SPEC.model, WEEKS[3])
    done = states(run(bag, "monitor", partition=WEEKS[3]))
    assert shelf.find(Storage.of(settings), Verdict, SPEC.model, WEEKS[3]) == before
    assert before.champion_version is None
    assert done["measure_drift"] == "success"


def test_the_first_model_is_in_production_with_ledger_stage_and_message(settings):
    champion = versions.champion(SPEC, settings)
    assert (champion.number, champion.stage) == (1, "Production")
    assert [entry.version for entry in ledger.read(Storage.of(settings), "flights")] == [1]
    assert any("Version 1 is in production, the first model" in text for text in messages(settings))


def test_a_retrain_by_hand_during_the_cool_down_is_skipped_and_with_force_is_not(bag, settings):
    held = run(bag, "retrain", partition=WEEKS[3], reason="curious")
    assert states(held)["claim_retrain"] == "skipped"
    assert server.aliases(SPEC, settings) == {"champion": 1}

    forced = run(bag, "retrain", partition=WEEKS[3], reason="curious", force=True)
    assert states(forced)["run_duel"] == "success"
    # trained on the same rows, it can only tie, and ties do not promote
    assert states(forced)["promote_candidate"] == "skipped"
    assert states(forced)["alert_gate"] == "success"
    assert versions.champion(SPEC, settings).number == 1
    assert versions.version(SPEC, settings, 2).stage == "Archived"


def test_an_alias_moved_by_hand_is_noticed_by_the_monitor_and_can_be_rolled_back(bag, settings):
    forced = run(bag, "retrain", partition=WEEKS[3], reason="curious", force=True)
    assert states(forced)["run_duel"] == "success"
    server.client(settings).set_registered_model_alias("flights", "champion", "2")
    assert run(bag, "monitor", partition=WEEKS[3]).state == "success"
    entries = ledger.read(Storage.of(settings), "flights")
    assert [(entry.action, entry.version) for entry in entries] == [
        ("promotion", 1),
        ("by_hand", 2),
    ]
    told = [text for text in messages(settings) if "made champion by hand" in text]
    assert any("Version 2 was made champion by hand, in place of version 1" in one for one in told)
    assert any("flights__rollback returns to version 1" in one for one in told)
    assert run(bag, "rollback", reason="not by hand").state == "success"
    assert versions.champion(SPEC, settings).number == 1
    assert any("Rolled back: version 1 is in production" in text for text in messages(settings))


@pytest.mark.parametrize("stage", ["ingest", "monitor", "retrain", "replay_quarantine"])
def test_a_run_from_the_form_long_after_the_last_partition_runs_its_tasks(bag, settings, stage):
    # the form sends the date of today; the flights ended in 2013
    now = dt.datetime.now(dt.UTC)
    done = run(bag, stage, logical_date=now, partition=WEEKS[3], reason="curious")
    assert done.logical_date == now > SPEC.partitions.last
    found = states(done)
    assert set(found) == set(EDGES[stage])
    assert set(found.values()) <= {"success", "skipped", "failed", "upstream_failed"}


def test_a_retrain_that_could_not_train_leaves_the_cool_down_to_others(bag, settings):
    before = claims.claimed(Storage.of(settings), SPEC.model)
    failed = run(bag, "retrain", partition=WEEKS[0], reason="curious", force=True)
    assert states(failed)["build_training_set"] == "failed"
    assert claims.claimed(Storage.of(settings), SPEC.model) == before


def test_a_run_by_hand_cannot_pass_for_the_monitors(bag, settings):
    held = run(bag, "retrain", partition=WEEKS[3], reason="curious", trigger="monitor")
    assert states(held)["claim_retrain"] == "skipped"


def test_a_retrain_by_hand_needs_a_reason(bag, settings):
    failed = run(bag, "retrain", partition=WEEKS[3])
    assert failed.state == "failed"
    assert any("needs a reason" in text for text in messages(settings))


def test_a_rollback_without_an_earlier_champion_fails_and_changes_nothing(bag, settings):
    failed = run(bag, "rollback", reason="just to see")
    assert failed.state == "failed"
    assert versions.champion(SPEC, settings).number == 1
    assert any("there is nothing to return to" in text for text in messages(settings))


def test_the_status_answers_the_three_questions(settings, capsys):
    from include.retraining.__main__ import main

    assert main(["status", "flights", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["version"] == 1
    assert status["well"] is None  # the newest verdict is about nobody: it asked for the first
    assert main(["status", "flights"]) == 0
    text = capsys.readouterr().out
    assert "What is in production?\n  version 1" in text
    assert "Is it well?\n  not judged yet" in text
