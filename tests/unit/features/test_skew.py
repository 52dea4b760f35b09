from __future__ import annotations

import datetime as dt
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureService, FeatureView, FileSource, PushSource
from feast.data_format import ParquetFormat

from include.demo import churn_feed, flights_feed
from include.retraining.__main__ import main
from include.retraining.data import publication, validation
from include.retraining.errors import NotPublished
from include.retraining.features import definitions, feature_sets, skew
from include.retraining.features.feature_tables import look, make_tables
from include.retraining.records import SkewReport
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec
from include.retraining.storage import Storage
from include.retraining.telling import alerts
from tests.unit.features import flights_ahead
from tests.unit.features.redefined import redefine
from tests.unit.pipeline import WEEKS, ingest, small_spec, validate

SPEC = small_spec()
LAST = SPEC.batch_ref(WEEKS[-1])
RATES = {"carrier_delay_rate", "origin_delay_rate"}
WEATHER = {"temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"}


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
    assert found["temp"].age_hours == 0.0  # that of 23:00 is there when its hour has ended
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
    ("hours", "stale"), [(3.0, False), (3.1, True)], ids=["at-its-ttl", "beyond-it"]
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


def ahead(report: SkewReport) -> dict[str, int]:
    return {one.name: one.ahead for one in report.features if one.ahead}


def ingest_without_feed(spec: ModelSpec, settings: Settings, week: str) -> None:
    publication.publish_batch(spec, Storage.of(settings), validate(spec, settings, week))
    feature_sets.materialize(spec, settings, spec.batch_ref(week))


def as_it_was(monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """Give the example with the weather that nobody could have had online."""
    monkeypatch.setitem(sys.modules, "feature_repo.flights_views", flights_ahead)
    return small_spec(features={"tables": "tests.unit.features.flights_ahead:build"})


def test_weather_that_comes_with_the_week_is_not_there_when_its_flights_are_predicted(
    empty: Settings, monkeypatch
):
    spec = as_it_was(monkeypatch)
    for week in WEEKS[:2]:
        ingest_without_feed(spec, empty, week)
    for week in WEEKS[:2]:
        report = skew.check_skew(spec, empty, spec.batch_ref(week))
        assert report.differences == ()  # at the end of the week all was well
        assert set(ahead(report)) == set(WEATHER)
        assert report.rows == 1000
        assert ahead(report)["temp"] > 950
        assert set(ahead(report)) & RATES == set()
    (line,) = [line for line in report.ahead if "flights_weather: temp" in line]
    assert "of 1,000 rows, " in line
    assert "not there yet when they were predicted (" in line
    assert "; none was there)" in line
    alert = alerts.of_skew(report)
    assert (alert.level, alert.title) == (
        "warning",
        "The model learns from values that are not there yet when it predicts",
    )
    assert "batch.end" in alert.text
    assert "clear materialize_features" not in alert.text


@pytest.mark.parametrize(("hours", "is_ahead"), [(0, False), (2, True)])
def test_what_is_pushed_is_there_from_its_creation_on(
    empty: Settings, monkeypatch, hours, is_ahead
):
    spec = as_it_was(monkeypatch)
    archive = FileSource(
        name="flights_weather",
        path="flights/tables/features/weather",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="pushed_at",
    )
    pushed = FeatureView(
        name="flights_weather",
        entities=[flights_ahead.origin],
        ttl=dt.timedelta(hours=3),
        source=PushSource(name="late_feed", batch_source=archive),
        schema=flights_ahead.weather.schema,
    )
    others = [
        flights_ahead.carrier_delays,
        flights_ahead.origin_delays,
        flights_ahead.flights_facts,
    ]
    service = FeatureService(name="flights_v1", features=[pushed, *others])
    monkeypatch.setattr(flights_ahead, "weather", pushed)
    monkeypatch.setattr(flights_ahead, "flights_v1", service)
    real = flights_ahead.build

    def build(inputs, previous, batch):
        made = real(inputs, previous, batch)
        late = made["weather"]["event_timestamp"] + pd.Timedelta(hours=hours)
        return made | {"weather": made["weather"].assign(pushed_at=late)}

    monkeypatch.setattr(flights_ahead, "build", build)
    ingest_without_feed(spec, empty, WEEKS[0])
    report = skew.check_skew(spec, empty, spec.batch_ref(WEEKS[0]))
    found = ahead(report)
    assert set(found) == (WEATHER if is_ahead else set())
    if is_ahead:  # the older hours that were there are younger than 3 hours, and other values
        temp = {one.name: one for one in report.features}["temp"]
        assert 500 < temp.ahead < 1000
        assert temp.ahead_example.endswith(" was there")


def test_value_that_was_there_already_is_not_ahead_though_its_batch_brings_it_again(
    empty: Settings, monkeypatch
):
    # a fact that stays the same is served online from the batch before
    spec = as_it_was(monkeypatch)
    real = flights_ahead.build

    def build(inputs, previous, batch):
        weather = real(inputs, previous, batch)["weather"].groupby("origin").head(1)
        same = weather.assign(event_timestamp=pd.Timestamp(batch.start), temp=50.0)
        again = same.assign(event_timestamp=pd.Timestamp(batch.end), humid=1.0)
        return real(inputs, previous, batch) | {"weather": pd.concat([same, again])}

    monkeypatch.setattr(flights_ahead.weather, "ttl", dt.timedelta(days=8))
    monkeypatch.setattr(flights_ahead, "build", build)
    for week in WEEKS[:2]:
        ingest_without_feed(spec, empty, week)
    first, second = (skew.check_skew(spec, empty, spec.batch_ref(week)) for week in WEEKS[:2])
    assert "temp" in ahead(first)  # nothing was there before the first
    assert "temp" not in ahead(second)
    humid = {one.name: one for one in second.features}["humid"]
    assert humid.ahead == 1000
    assert humid.ahead_example.endswith("; 1.0 was there")


def test_feed_that_is_not_running_is_told_and_no_batch_stands_in_for_it(empty: Settings):
    for week in WEEKS[:2]:
        ingest_without_feed(SPEC, empty, week)
    report = skew.check_skew(SPEC, empty, SPEC.batch_ref(WEEKS[1]))
    assert differing(report) == WEATHER
    assert report.ahead == ()
    assert "None online" in "".join(report.problems)
    assert "look after what pushes it" in alerts.of_skew(report).text
    # once it runs, what it brings is not set back by a batch that is done again
    ingest(SPEC, empty, WEEKS[2])
    assert skew.check_skew(SPEC, empty, SPEC.batch_ref(WEEKS[2])).problems == ()
    ingest_without_feed(SPEC, empty, WEEKS[1])
    assert skew.check_skew(SPEC, empty, SPEC.batch_ref(WEEKS[2])).problems == ()


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
        pytest.param(
            [9007199254740993, None], [9007199254740992, None], [False, True], id="large-ids"
        ),
        pytest.param(
            [np.datetime64("2024-01-01", "us")],
            [dt.datetime(2024, 1, 1, tzinfo=dt.UTC)],
            True,
            id="zones",
        ),
    ],
)
def test_equality(served, expected, equal):
    one, other = (pa.table({"x": pa.array(values)}) for values in (served, expected))
    found = skew._equal(skew._values(one, "x"), skew._values(other, "x")).tolist()
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
    assert "0.0 h old, ttl 3.0 h" in told
    assert "computed on request" in told
    assert "online is as offline, young enough, and was there in time" in told
    assert main(["skew", "flights", "--at", "2013-02-04T12:00"]) == 1
    assert "temp: the newest value is 12.0 h old, its ttl is 3.0 h" in capsys.readouterr().out
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


def test_a_service_without_stored_views_has_nothing_to_compare_and_says_so(
    ingested: Settings, monkeypatch, tmp_path
):
    only = '\nflights_v1 = FeatureService(name="flights_v1", features=[flights_facts])\n'
    redefine(monkeypatch, tmp_path, added=only)
    facts = {"numeric": ("minute_of_day", "weekday"), "categorical": ()}
    report = skew.check_skew(small_spec(features=facts), ingested, LAST)
    assert report.features == ()
    assert "no view of flights_v1 has rows: all of its features are computed" in report.nothing
    assert alerts.of_skew(report) is None
