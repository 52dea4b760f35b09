"""The numbers of models: what is known is right, what is not is not there."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from include.retraining import shelf
from include.retraining.records import DriftReport, Verdict
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, load_spec
from include.retraining.storage import Storage
from include.retraining.telling import gauges
from tests.made_state import Made, summer

SPEC = load_spec(MODELS_DIR / "flights.yaml")


def parsed(content: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(content.decode())
        for sample in family.samples
    }


@pytest.fixture
def newest(tmp_path) -> tuple[Settings, DriftReport, Verdict]:
    settings = Settings(home=tmp_path)
    summer(Made(SPEC, settings))
    storage = Storage.of(settings)
    key = SPEC.partition_key(SPEC.partitions.step(SPEC.partitions.first, 11))
    report = shelf.find(storage, DriftReport, SPEC.model, key)
    return settings, report, shelf.find(storage, Verdict, SPEC.model, key)


def test_numbers_are_those_of_the_newest_records(newest):
    settings, report, verdict = newest
    found = parsed(gauges.as_openmetrics([("flights", gauges.of_model(SPEC, settings))]))
    model = "model=flights"
    realised = found["retraining_realised_metric", "metric=roc_auc", model]
    assert realised == pytest.approx(report.performance.value)
    assert found["retraining_verdict", model, f"outcome={verdict.outcome}"] == 1
    assert found["retraining_newest_batch_end_seconds", model] == report.batch.end.timestamp()
    judged = len(report.columns) - len(report.unjudged)
    drifted = sum(one.drifted and not one.expected for one in report.columns)
    assert found["retraining_drifted_feature_share", model] == pytest.approx(drifted / judged)
    assert found["retraining_data_drift_detected", model] == (drifted > 0)
    share = found["retraining_unjudged_feature_share", model]
    assert share == pytest.approx(len(report.unjudged) / len(report.columns))
    assert found["retraining_outcomes_due", model] == 0
    assert found["retraining_readable", model] == 1


def test_what_is_not_known_has_no_number(newest):
    _, report, verdict = newest
    bare = report.model_copy(
        update={
            "features": (), "score": None, "performance": None, "promise": None,
            "champion_version": None, "champion_age_days": None,
        }
    )  # fmt: skip
    names = {one.name for one in gauges.of_batch(bare, verdict.model_copy(update={"harm": None}))}
    assert names == {"verdict", "newest_batch_end_seconds"}


def test_a_model_without_records_and_one_that_cannot_be_read(tmp_path):
    told = gauges.as_openmetrics(
        [("flights", gauges.of_model(SPEC, Settings(home=tmp_path))), ("other", None)]
    )
    assert parsed(told) == {
        ("retraining_readable", "model=flights"): 1,
        ("retraining_readable", "model=other"): 0,
        ("retraining_outcomes_due", "model=flights"): 0,
    }
    assert parsed(gauges.as_openmetrics([])) == {}


def test_a_hostile_level_stays_in_its_label(newest):
    _, report, verdict = newest
    odd = 'a"b\nc\\d'
    report = report.model_copy(
        update={"performance": report.performance.model_copy(update={"metric": odd})}
    )
    found = parsed(gauges.as_openmetrics([("flights", list(gauges.of_batch(report, verdict)))]))
    assert ("retraining_realised_metric", f"metric={odd}", "model=flights") in found


def test_cloudwatch_is_given_names_dimensions_and_only_numbers_that_it_can_use(newest):
    _, report, verdict = newest
    found = gauges.as_cloudwatch("flights", gauges.of_batch(report, verdict), at=report.batch.end)
    assert all(one["MetricName"] for one in found)
    assert {"Name": "Metric", "Value": "roc_auc"} in found[
        [one["MetricName"] for one in found].index("RealisedMetric")
    ]["Dimensions"]
