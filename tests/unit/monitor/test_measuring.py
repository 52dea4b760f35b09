"""What the monitor keeps and shows, on real weeks with a real champion."""

from __future__ import annotations

import pytest

from include.retraining import shelf
from include.retraining.monitor import measuring
from include.retraining.records import DriftReport, PublishedReport, Verdict
from include.retraining.registry import server
from include.retraining.retrain import incident
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling import drift_report
from tests.unit import pipeline

THIRD, FOURTH = pipeline.WEEKS[2:]


@pytest.fixture
def settings(trained: Settings) -> Settings:
    """Version 1, trained on the first two weeks, is champion."""
    server.client(trained).set_registered_model_alias("flights", "champion", "1")
    return trained


def monitor(
    spec: ModelSpec, settings: Settings, partition: str
) -> tuple[DriftReport, Verdict, PublishedReport]:
    storage, batch = Storage.of(settings), spec.batch_ref(partition)
    learned = incident.last_training(spec, storage, batch)
    report = measuring.measure_drift(spec, settings, batch, learned=learned)
    hold = incident.hold_reason(spec, storage, batch)
    verdict = measuring.judge_batch(spec, settings, report, hold=hold)
    return report, verdict, drift_report.publish_report(spec, settings, report, verdict)


def test_a_finding_is_published_with_picture_and_page_for_people(settings):
    spec = pipeline.small_spec(drift={"min_distance": 0.0, "min_history_windows": 9})
    _, verdict, published = monitor(spec, settings, FOURTH)
    assert verdict.outcome != "ignore"
    storage = Storage.of(settings)
    pages = {key.rsplit("/", 1)[1]: storage.read(key) for key in published.pages}
    assert pages["drift.png"].startswith(b"\x89PNG")
    assert b"<html" in pages["drift.html"].lower()
    logged = server.client(settings).list_artifacts(published.run_id)
    assert {file.path for file in logged} == {"drift.html", "drift.png", "drift_report.json"}


def test_publishing_twice_gives_one_run(settings):
    spec = pipeline.small_spec()
    report, verdict, published = monitor(spec, settings, FOURTH)
    assert drift_report.publish_report(spec, settings, report, verdict) == published
    tagged = "tags.`retraining.kind` = 'monitor'"
    runs = server.client(settings).search_runs([published.experiment_id], tagged)
    assert [run.info.run_id for run in runs] == [published.run_id]


def test_an_unfinished_run_is_finished(settings):
    spec = pipeline.small_spec()
    report, verdict, published = monitor(spec, settings, FOURTH)
    api = server.client(settings)
    api.set_terminated(published.run_id, "FAILED")
    again = drift_report.publish_report(spec, settings, report, verdict)
    assert again.run_id == published.run_id
    assert api.get_run(published.run_id).info.status == "FINISHED"


def test_a_window_that_was_not_measured_yet_is_measured_for_its_successor(settings):
    """Monitors may run in any order: whether drift persists does not depend on it."""
    spec, storage = pipeline.small_spec(), Storage.of(settings)
    assert shelf.find(storage, DriftReport, spec.model, THIRD) is None
    alone = monitor(spec, settings, FOURTH)[1]
    assert shelf.find(storage, DriftReport, spec.model, THIRD) is not None
    monitor(spec, settings, THIRD)
    batch = spec.batch_ref(FOURTH)
    report = measuring.measure_drift(spec, settings, batch)
    hold = incident.hold_reason(spec, storage, batch)
    in_order = measuring.judge_batch(spec, settings, report, hold=hold, anew=True)
    assert in_order == alone


def test_growth_counts_rows_since_the_last_retrain(settings):
    spec = pipeline.small_spec(retrain={"growth": 0.2})
    report, verdict, _ = monitor(spec, settings, FOURTH)
    first, later = (
        measuring.trainable_rows(spec, Storage.of(settings), spec.batch_ref(partition))
        for partition in (THIRD, FOURTH)
    )
    assert (report.learned_rows, report.new_rows) == (first, later - first)
    assert any("retrain.growth 20%" in reason for reason in verdict.reasons)
    assert verdict.outcome in {"retrain", "blocked"}


def test_without_growth_nothing_is_counted(settings):
    spec = pipeline.small_spec(retrain={"growth": None})
    assert monitor(spec, settings, FOURTH)[0].new_rows is None
