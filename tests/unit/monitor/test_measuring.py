"""What the monitor keeps and shows, on real weeks with a real champion."""

from __future__ import annotations

import datetime as dt
from functools import partial

import pytest

from include.retraining import shelf
from include.retraining.monitor import measuring
from include.retraining.records import DriftReport, Verdict
from include.retraining.registry import server, versions
from include.retraining.retrain import incident
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from tests.unit import pipeline

THIRD, FOURTH = pipeline.WEEKS[2:]


@pytest.fixture
def settings(trained: Settings) -> Settings:
    """Version 1, trained on the first two weeks, is champion."""
    server.client(trained).set_registered_model_alias("flights", "champion", "1")
    return trained


def monitor(spec: ModelSpec, settings: Settings, partition: str) -> tuple[DriftReport, Verdict]:
    storage, batch = Storage.of(settings), spec.batch_ref(partition)
    learned = incident.last_training(spec, storage, batch)
    report = measuring.measure_drift(spec, settings, batch, learned=learned)
    hold = partial(incident.hold_reason, spec, storage, batch)
    verdict = measuring.judge_batch(spec, settings, report, hold=hold)
    return report, verdict


def test_a_window_that_was_not_measured_yet_is_measured_for_its_successor(settings):
    """Monitors may run in any order: whether drift persists does not depend on it."""
    spec, storage = pipeline.small_spec(), Storage.of(settings)
    assert shelf.find(storage, DriftReport, spec.model, THIRD) is None
    alone = monitor(spec, settings, FOURTH)[1]
    assert shelf.find(storage, DriftReport, spec.model, THIRD) is not None
    monitor(spec, settings, THIRD)
    batch = spec.batch_ref(FOURTH)
    report = measuring.measure_drift(spec, settings, batch)
    hold = partial(incident.hold_reason, spec, storage, batch)
    in_order = measuring.judge_batch(spec, settings, report, hold=hold, anew=True)
    assert in_order == alone


def test_growth_counts_rows_since_the_last_retrain(settings):
    spec = pipeline.small_spec(retrain={"growth": 0.2})
    report, verdict = monitor(spec, settings, FOURTH)
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


def test_a_batch_the_champion_learned_from_is_measured_and_not_judged(settings):
    report, verdict = monitor(pipeline.small_spec(), settings, pipeline.WEEKS[0])
    assert report.in_sample
    assert report.features
    assert report.labelled_rows > 1000
    assert report.performance is None
    assert verdict.outcome == "ignore"
    assert (
        "measured, not judged: version 1 learned from rows as late as these" in verdict.reasons[0]
    )


def test_of_a_batch_that_training_ended_in_only_later_rows_show_performance(settings, monkeypatch):
    spec, batch = pipeline.small_spec(), pipeline.small_spec().batch_ref(THIRD)
    whole = measuring.measure_drift(spec, settings, batch)
    champion = versions.champion(spec, settings)
    until = batch.start + dt.timedelta(days=3)
    monkeypatch.setattr(versions, "champion", lambda *_: champion._replace(trained_until=until))
    report, verdict = monitor(spec, settings, batch.partition)
    assert (whole.in_sample, report.in_sample) == (False, True)
    assert 0 < report.performance.rows < whole.performance.rows * 0.7
    assert verdict.outcome == "ignore"


def test_the_first_batch_after_training_is_judged(settings):
    assert not monitor(pipeline.small_spec(), settings, THIRD)[0].in_sample


def test_no_retrain_is_asked_for_that_would_have_too_few_rows_to_learn_from(settings):
    old = {"retrain": {"max_age_days": 1.0, "cool_down_days": 0, "max_per_30_days": 99}}
    spec = pipeline.small_spec(**old)
    verdict = monitor(spec, settings, FOURTH)[1]
    assert verdict.outcome == "retrain", verdict.reasons
    Storage.of(settings).delete(shelf.key_of(Verdict, spec.model, FOURTH))
    more = spec.training.model_copy(update={"min_rows": 10**6})
    verdict = monitor(spec.model_copy(update={"training": more}), settings, FOURTH)[1]
    assert verdict.outcome == "blocked"
    assert verdict.reasons[-1].startswith("nothing could be trained yet: ")
    assert verdict.reasons[-1].endswith("training.min_rows is 1,000,000")
