"""Real runs of every stage, one per branch: real Airflow tasks, flights, MLflow, Feast, GX."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from pathlib import Path

import pytest
from retraining_provider import generation
from retraining_provider.context import Run

from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.data import broken_feeds
from include.retraining.data.publication import rows_in_force
from include.retraining.names import CHAMPION
from include.retraining.records import DriftReport, GateDecision, ValidationReport, Verdict
from include.retraining.registry import ledger, server, versions
from include.retraining.retrain import claims
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, load_spec, load_specs
from include.retraining.storage import Storage
from tests.airflow_home import BUNDLE, ROOT
from tests.dags.test_structure import EDGES
from tests.unit import pipeline
from tests.unit.features.redefined import redefine

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
        flights_feed.push_weather(SPEC, settings, SPEC.batch_ref(week))
        flights_feed.land(Storage.of(settings), SPEC.batch_ref(week))
        assert run(bag, "ingest", partition=week).state == "success"
        assert run(bag, "monitor", partition=week).state == "success"
    verdict = shelf.find(Storage.of(settings), Verdict, SPEC.model, WEEKS[3])
    assert verdict.outcome == "retrain"
    nobody_will_run("flights__retrain", verdict.incident_id)
    # with a date: of the runs without one, `dag.test` keeps the newest only
    first = run(
        bag,
        "retrain",
        logical_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        partition=WEEKS[3],
        reason="no model yet",
    )
    assert first.state == "success", states(first)
    yield path
    del os.environ["RETRAINING_HOME"]


def nobody_will_run(dag: str, run_id: str) -> None:
    """End a run that was triggered: there is no scheduler, and later batches wait for it."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        asked = select(DagRun).where(DagRun.dag_id == dag, DagRun.run_id == run_id)
        session.scalars(asked).one().set_state("failed")


def newest_event(asset: str) -> dict[str, object]:
    """Give what the newest event of an asset carries."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        of_asset = select(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        newest = of_asset.where(AssetModel.name == asset).order_by(AssetEvent.id.desc())
        return dict(session.scalars(newest).first().extra)


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


def test_a_person_says_in_the_form_that_a_broken_feed_is_right(bag, settings):
    storage, batch = Storage.of(settings), SPEC.batch_ref(WEEKS[4])
    flights = flights_feed.flights_of(batch)
    flights["distance"] = flights["distance"] * 1.609344
    flights_feed.push_weather(SPEC, settings, batch)
    flights_feed.land(storage, batch, flights)
    assert run(bag, "ingest", partition=WEEKS[4]).state == "success"
    assert run(bag, "monitor", partition=WEEKS[4]).state == "success"
    assert broken_feeds.left_out(storage, SPEC.model) == (WEEKS[4],)
    right = {"right_columns": ["distance"], "reason": "kilometres for good"}
    assert run(bag, "monitor", partition=WEEKS[4], **right).state == "success"
    verdict = shelf.find(storage, Verdict, SPEC.model, WEEKS[4])
    assert verdict.outcome != "broken_feed"
    assert any("says that this is right: kilometres" in reason for reason in verdict.reasons)
    assert broken_feeds.left_out(storage, SPEC.model) == ()


def test_a_clean_week_is_published_and_materialized_without_an_alert(bag, settings):
    flights_feed.push_weather(SPEC, settings, SPEC.batch_ref(WEEKS[4]))
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
    flights_feed.push_weather(SPEC, settings, SPEC.batch_ref(WEEKS[4]))
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


def test_a_model_whose_registry_was_deleted_gets_a_champion_by_a_forced_retrain(bag, settings):
    server.client(settings).delete_registered_model("flights")
    assert states(run(bag, "monitor", partition=WEEKS[3]))["measure_drift"] == "failed"
    told = [text for text in messages(settings) if "MLflow has no version 1 of flights" in text]
    assert any("with force trains a new one" in one for one in told)
    assert run(bag, "rollback", reason="as it was").state == "failed"
    assert (
        states(run(bag, "retrain", partition=WEEKS[3], reason="new"))["claim_retrain"] == "failed"
    )
    assert versions.champion(SPEC, settings) is None

    forced = run(bag, "retrain", partition=WEEKS[3], reason="the registry is gone", force=True)
    assert states(forced)["promote_candidate"] == "success"
    champion = versions.champion(SPEC, settings)
    assert champion.number == 1
    entries = ledger.read(Storage.of(settings), "flights")
    assert [entry.version for entry in entries] == [1, 1]
    assert entries[-1].made_by == champion.incident_id != entries[0].made_by
    assert ledger.verify(Storage.of(settings), "flights") == []
    assert states(run(bag, "monitor", partition=WEEKS[3]))["measure_drift"] == "success"


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


# --- which features a model has changed ----------------------------------------------------------

V1 = "features=[weather, carrier_delays, origin_delays, flights_facts]"
LATE_START = '''

departure = RequestSource(name="flights_departure", schema=[Field(name="dep_delay", dtype=Float64)])


@on_demand_feature_view(
    sources=[departure], schema=[Field(name="late_start", dtype=Float64)], mode="pandas"
)
def flights_late_start(departure: pd.DataFrame) -> pd.DataFrame:
    """Give by how many minutes a flight left late, as if it were predicted once in the air."""
    return pd.DataFrame({"late_start": departure["dep_delay"]})


flights_v2 = FeatureService(
    name="flights_v2",
    features=[weather, carrier_delays, origin_delays, flights_facts, flights_late_start],
)
'''
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")


def change_model_file(monkeypatch, folder, *edits: tuple[str, str]) -> None:
    """Edit the model file, as a person does; each text is there exactly once."""
    text = (MODELS_DIR / "flights.yaml").read_text()
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    # runs of the scheduler are waited for, and there is no scheduler here
    monkeypatch.setattr(Run, "wait_for_turn", lambda self: None)
    folder.mkdir()
    (folder / "flights.yaml").write_text(text)
    specs = load_specs(folder)
    assert not specs.errors
    monkeypatch.setattr(generation, "load_specs", lambda: specs)


def decision_on(settings, version: int) -> GateDecision:
    made_by = versions.version(SPEC, settings, version).incident_id
    return shelf.find(Storage.of(settings), GateDecision, SPEC.model, made_by)


def test_a_forced_retrain_with_a_feature_more_wins_by_the_gate(
    bag, settings, monkeypatch, tmp_path
):
    redefine(monkeypatch, tmp_path, added=LATE_START)
    change_model_file(
        monkeypatch, tmp_path / "models",
        ("service: flights_v1", "service: flights_v2"),
        ("    - minute_of_day\n", "    - minute_of_day\n    - late_start\n"),
    )  # fmt: skip
    flights_feed.push_weather(SPEC, settings, SPEC.batch_ref(WEEKS[4]))
    flights_feed.land(Storage.of(settings), SPEC.batch_ref(WEEKS[4]))
    assert run(bag, "ingest", partition=WEEKS[4]).state == "success"
    # until then the champion is judged by its own
    assert run(bag, "monitor", partition=WEEKS[4]).state == "success"
    report = shelf.find(Storage.of(settings), DriftReport, SPEC.model, WEEKS[4])
    assert report.champion_version == 1
    assert {one.name for one in report.features} == {*SPEC.features.names}
    assert report.performance is not None

    forced = run(bag, "retrain", partition=WEEKS[4], reason="a new feature", force=True)
    assert states(forced)["promote_candidate"] == "success", decision_on(settings, 2).reasons
    decision = decision_on(settings, 2)
    assert decision.champion.rows == decision.candidate.rows
    assert decision.gain.low > 0
    assert [one.version for one in ledger.read(Storage.of(settings), SPEC.model)] == [1, 2]

    # and back, to a version of other features than the model file has
    assert run(bag, "rollback", reason="known too late").state == "success"
    assert versions.champion(SPEC, settings).number == 1
    done = run(bag, "monitor", partition=WEEKS[4], measure_anew=True)
    assert done.state == "success"
    assert (
        shelf.find(Storage.of(settings), DriftReport, SPEC.model, WEEKS[4]).performance
        == report.performance
    )


def test_a_champion_of_a_feature_that_is_gone_gets_a_successor_by_a_forced_retrain(
    bag, settings, monkeypatch, tmp_path
):
    text = (MODELS_DIR.parents[1] / "feature_repo/flights_views.py").read_text()
    view = text[text.index("weather_feed = ") : text.index("carrier_delays = ")]
    redefine(
        monkeypatch, tmp_path,
        (view, ""), (V1, "features=[carrier_delays, origin_delays, flights_facts]"),
    )  # fmt: skip
    change_model_file(
        monkeypatch, tmp_path / "models", *((f"    - {name}\n", "") for name in WEATHER)
    )
    flights_feed.land(Storage.of(settings), SPEC.batch_ref(WEEKS[4]))
    assert states(run(bag, "ingest", partition=WEEKS[4]))["materialize_features"] == "success"
    assert states(run(bag, "monitor", partition=WEEKS[4]))["measure_drift"] == "failed"
    (told,) = {one for one in messages(settings) if "cannot be given them" in one}
    assert "temp, dewp, humid, wind_speed, precip, pressure, visib came from view" in told
    assert "flights__retrain with force" in told

    forced = run(bag, "retrain", partition=WEEKS[4], reason="no weather any more", force=True)
    assert states(forced)["promote_candidate"] == "success"
    decision = decision_on(settings, 2)
    assert "no duel: nothing here can score the champion, version 1" in decision.reasons[0]
    assert states(run(bag, "monitor", partition=WEEKS[4]))["measure_drift"] == "success"
    assert run(bag, "rollback", reason="as it was").state == "failed"
    assert versions.champion(SPEC, settings).number == 2
    assert any("rows cannot be given them" in one for one in messages(settings))


def test_a_champion_that_is_worse_is_rolled_back_by_itself(bag, settings):
    """A version that has learned next to nothing came into production; the next week shows it."""
    storage, client = Storage.of(settings), server.client(settings)
    before = versions.champion(SPEC, settings)
    # `dag.test` of another test may have deleted the run that this verdict asked for
    asked = shelf.find(storage, Verdict, SPEC.model, WEEKS[3])
    shelf.keep(storage, asked.model_copy(update={"outcome": "watch"}))
    bad = pipeline.small_spec(training={"estimator": "sklearn.dummy.DummyClassifier", "params": {}})
    _, made = pipeline.train(bad, settings, WEEKS[3])
    client.set_registered_model_alias(SPEC.model, CHAMPION, str(made.version))
    flights_feed.push_weather(SPEC, settings, SPEC.batch_ref(WEEKS[4]))
    flights_feed.land(storage, SPEC.batch_ref(WEEKS[4]))
    assert run(bag, "ingest", partition=WEEKS[4]).state == "success"
    watched = run(bag, "monitor", partition=WEEKS[4])
    assert watched.state == "success", states(watched)
    report = shelf.find(storage, DriftReport, SPEC.model, WEEKS[4])
    assert states(watched)["request_rollback"] == "success", report.probation
    verdict = shelf.find(storage, Verdict, SPEC.model, WEEKS[4])
    said = newest_event("flights.verdict")
    assert (said["outcome"], said["batch"]["partition"]) == ("rollback", WEEKS[4])
    assert said["reasons"] == list(verdict.reasons)
    nobody_will_run("flights__guard", verdict.incident_id)
    rolled_back = run(bag, "guard", partition=WEEKS[4])
    assert rolled_back.state == "success", states(rolled_back)
    assert versions.champion(SPEC, settings).number == before.number
    last = ledger.last(storage, SPEC.model)
    assert (last.action, last.actor, last.partition) == ("rollback", "the guard", WEEKS[4])
    assert ledger.verify(storage, SPEC.model) == []
    assert f"version {made.version} against version {before.number}" in last.reason
    told = "\n".join(messages(settings))
    assert f"Version {made.version} is worse than the version before it" in told
    assert f"Rolled back: version {before.number} is in production" in told
    # once: another run of the same verdict changes nothing
    again = run(bag, "guard", partition=WEEKS[4])
    assert again.state == "success", states(again)
    assert ledger.last(storage, SPEC.model).sequence == last.sequence
