from __future__ import annotations

import datetime as dt

import pandas as pd
import pytest

from include.demo import churn_feed, flights_feed
from include.retraining.__main__ import main
from include.retraining.data import publication, validation
from include.retraining.errors import NotPublished
from include.retraining.features import definitions, feature_sets, skew
from include.retraining.features.feature_tables import look, make_tables
from include.retraining.records import SkewReport
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, load_spec
from include.retraining.storage import Storage
from include.retraining.telling import alerts
from tests.unit.pipeline import WEEKS, small_spec, validate

SPEC = small_spec()
LAST = SPEC.batch_ref(WEEKS[-1])
RATES = {"carrier_delay_rate", "origin_delay_rate"}


def differing(report: SkewReport) -> set[str]:
    return {one.name for one in report.features if one.differing}


@pytest.mark.parametrize("week", [WEEKS[0], WEEKS[-1]])
def test_every_feature_is_served_online_as_it_is_offline(ingested: Settings, week):
    report = skew.check_skew(SPEC, ingested, SPEC.batch_ref(week))
    service = definitions.feature_store(ingested).get_feature_service(SPEC.features.service)
    names = {one.name for view in service.feature_view_projections for one in view.features}
    assert {one.name for one in report.features} == names >= RATES | {"minute_of_day", "temp"}
    assert report.at == LAST.end  # whatever batch the keys are of
    assert report.problems == ()
    assert report.keys > 30  # carriers and airports that occur together
    assert all(one.compared + one.expired == report.keys for one in report.features)
    assert all(one.compared >= 30 for one in report.features)
    assert alerts.of_skew(report).level == "good"
    key = f"flights/reports/partition={week}/skew.json"
    assert Storage.of(ingested).read_record(key, SkewReport) == report


def test_ages_are_those_of_the_youngest_row(ingested: Settings):
    found = {one.name: one for one in skew.check_skew(SPEC, ingested, LAST).features}
    assert found["origin_delay_rate"].age_hours == 0.0
    assert found["origin_delay_rate"].ttl_hours == 8 * 24
    assert found["temp"].age_hours == 1.0  # the last observation of a week is that of 23:00
    assert found["temp"].ttl_hours == 3
    assert (found["weekday"].age_hours, found["weekday"].ttl_hours) == (None, None)


def test_tables_that_were_not_loaded_online_are_told(ingested: Settings):
    flights = flights_feed.flights_of(LAST).assign(arr_delay=100.0)
    storage = Storage.of(ingested)
    publication.publish_batch(SPEC, storage, validate(SPEC, ingested, WEEKS[-1], flights))
    make_tables(SPEC, storage, look(SPEC, storage), [LAST])
    report = skew.check_skew(SPEC, ingested, LAST)
    assert differing(report) == RATES
    alert = alerts.of_skew(report)
    assert alert is not None
    assert "origin_delay_rate" in alert.text
    assert "online, " in alert.text
    assert "clear materialize_features" in alert.text
    feature_sets.materialize(SPEC, ingested, LAST)
    assert skew.check_skew(SPEC, ingested, LAST).problems == ()


@pytest.mark.parametrize(
    ("hours", "stale"), [(2.0, False), (2.1, True)], ids=["at-its-ttl", "beyond-it"]
)
def test_values_older_than_their_ttl_are_told_and_not_called_different(
    ingested: Settings, hours, stale
):
    at = LAST.end + dt.timedelta(hours=hours)
    report = skew.check_skew(SPEC, ingested, LAST, at=at)
    assert differing(report) == set()
    weather = [one for one in report.features if one.view == "flights_weather"]
    assert {one.is_stale for one in weather} == {stale}
    assert len(report.problems) == (len(weather) if stale else 0)
    if stale:
        assert {one.expired for one in weather} == {report.keys}
        assert "temp: the newest value is 3.1 h old, its ttl is 3.0 h" in "".join(report.problems)


def test_rows_of_a_batch_that_is_being_materialized_are_left_out(ingested: Settings):
    report = skew.check_skew(SPEC, ingested, LAST, at=LAST.end - dt.timedelta(days=1))
    found = {one.name: one for one in report.features}
    assert found["origin_delay_rate"].compared == 0
    assert report.problems == ()


def test_key_that_is_not_online_at_all_is_told(ingested: Settings, monkeypatch):
    get = definitions.feature_store(ingested).get_online_features

    def without(features, entity_rows):
        return get(features=features, entity_rows=[row | {"origin": "XXX"} for row in entity_rows])

    monkeypatch.setattr(definitions.feature_store(ingested), "get_online_features", without)
    report = skew.check_skew(SPEC, ingested, LAST)
    assert {"temp", "origin_delay_rate"} <= differing(report)
    assert "None online" in "".join(report.problems)


@pytest.mark.parametrize(
    ("served", "expected", "equal"),
    [
        pytest.param([1.0], [1.0 + 1e-12], True, id="rounding"),
        pytest.param([1.0], [1.0001], False, id="numbers"),
        pytest.param([1], [1.0], True, id="types"),
        pytest.param([None], [float("nan")], True, id="both-missing"),
        pytest.param([None], [0.0], False, id="missing-online"),
        pytest.param([0.0], [None], False, id="missing-offline"),
        pytest.param(["a"], ["a"], True, id="equal-text"),
        pytest.param(["a"], ["b"], False, id="text"),
        pytest.param([True], [False], False, id="booleans"),
        pytest.param(["a", "b"], ["a", None], [True, False], id="text-missing"),
    ],
)
def test_equality(served, expected, equal):
    found = skew._equal(pd.Series(served), pd.Series(expected)).tolist()
    assert found == (equal if isinstance(equal, list) else [equal])


def test_batch_that_is_not_in_force_is_said(empty: Settings):
    with pytest.raises(NotPublished):
        skew.check_skew(SPEC, empty, LAST)


def test_every_feature_of_the_second_example_is_served_as_it_is_offline(empty: Settings):
    spec, storage = load_spec(MODELS_DIR / "churn.yaml"), Storage.of(empty)
    for number in range(3):
        batch = spec.batch_ref(
            spec.partition_key(spec.partitions.first + number * spec.partitions.length)
        )
        churn_feed.land(storage, batch)
        publication.publish_batch(spec, storage, validation.validate_batch(spec, storage, batch))
        feature_sets.materialize(spec, empty, batch)
    report = skew.check_skew(spec, empty, batch)
    assert {one.name for one in report.features} == {
        "recent_orders",
        "recent_value",
        "mean_value_before",
        "days_per_order",
    }
    assert (report.problems, report.keys > 500) == ((), True)
    assert all(one.compared == report.keys for one in report.features)


def test_shell_tells_values_and_ages(ingested: Settings, monkeypatch, capsys):
    monkeypatch.setenv("RETRAINING_HOME", str(ingested.home))
    assert main(["skew", "flights"]) == 0
    told = capsys.readouterr().out
    assert "33 keys of 2013-01-28, as of 2013-02-04 00:00:00+00:00" in told
    assert "1.0 h old, ttl 3.0 h" in told
    assert "computed on request" in told
    assert "online is as offline, and young enough" in told
    assert main(["skew", "flights", "--at", "2013-02-04T12:00"]) == 1
    assert "temp: the newest value is 13.0 h old, its ttl is 3.0 h" in capsys.readouterr().out
    kept = Storage.of(ingested).read_record(
        "flights/reports/partition=2013-01-28/skew.json", SkewReport
    )
    assert kept is not None
    assert kept.at == LAST.end  # what was asked for another moment is not kept


def test_shell_without_a_batch_says_so(empty: Settings, monkeypatch, capsys):
    monkeypatch.setenv("RETRAINING_HOME", str(empty.home))
    Storage.of(empty).write("x", b"")
    assert main(["skew", "flights"]) == 2
    assert "no published batch; run flights__ingest" in capsys.readouterr().err
