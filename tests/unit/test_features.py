from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from feature_repo import flights_tables
from include.demo import flights_feed
from include.retraining import features, validation
from include.retraining.errors import BatchRefused, DataError, NotPublished, SpecError
from include.retraining.records import BatchRef, FeatureSet
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from tests.unit.pipeline import WEEKS, ingest, small_spec, validate

SPEC = small_spec()
DAY = pd.Timedelta(days=1)
RATES = {"carrier": "carrier_delay_rate", "origin": "origin_delay_rate"}
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
TABLES = ("weather", "carrier_delays", "origin_delays")


def joined(settings: Settings, partition: str) -> pd.DataFrame:
    storage = Storage.of(settings)
    found = features.feature_set(SPEC, storage, SPEC.batch_ref(partition))
    return storage.read_table(found.key).to_pandas()


def table_key(table: str, partition: str) -> str:
    return f"flights/features/{table}/partition={partition}/part.parquet"


def table_rows(settings: Settings, table: str, partition: str) -> pd.DataFrame:
    return Storage.of(settings).read_table(table_key(table, partition)).to_pandas()


def state(settings: Settings) -> dict[str, bytes]:
    """Give everything in force: the publications, their files, the features."""
    storage = Storage.of(settings)
    keys = [*storage.list("flights/validated"), *storage.list("flights/features")]
    return {key: storage.read(key) for key in keys}


def raw_flights() -> pd.DataFrame:
    return pd.concat([flights_feed.flights_of(SPEC.batch_ref(week)) for week in WEEKS])


# --- no feature is younger than its flight --------------------------------------------------------


def test_feature_set_has_one_row_per_flight_in_order(shared: Settings):
    for week in WEEKS:
        batch = SPEC.batch_ref(week)
        found = features.feature_set(SPEC, Storage.of(shared), batch)
        frame, flights = joined(shared, week), flights_feed.flights_of(batch)
        assert found.rows == len(frame) == len(flights)
        assert frame["flight"].tolist() == flights["flight"].tolist()
        assert set(SPEC.features.names) <= set(frame.columns)


def test_every_joined_feature_was_known_at_the_scheduled_departure(
    ingested: Settings, tmp_path: Path
):
    """Put each stored row's own time in place of its values: what is joined is its age."""
    storage = Storage.of(ingested)
    for week in WEEKS:
        for table in TABLES:
            rows = table_rows(ingested, table, week)
            known_since = (rows["event_timestamp"] - pd.Timestamp(0, tz="UTC")) / pd.Timedelta("1s")
            values = {name: known_since for name in (*WEATHER, *RATES.values()) if name in rows}
            storage.write_table(table_key(table, week), pa.Table.from_pandas(rows.assign(**values)))
    for week in WEEKS:
        report = features.require_published(SPEC, storage, week)
        table = features.join(SPEC, ingested, storage.read_table(report.files["batch"]))
        frame = table.to_pandas()
        departure = (frame["sched_dep"] - pd.Timestamp(0, tz="UTC")) / pd.Timedelta("1s")
        for name in (*WEATHER, *RATES.values()):
            age = departure - frame[name]
            seen = age.notna()
            assert (age[seen] >= 0).all(), name
            assert age[seen].max() <= (3 * 3600 if name in WEATHER else 8 * 86400)
            if week != WEEKS[0]:
                assert seen.mean() > 0.97, name


def test_delay_rates_are_those_of_settled_flights_only(shared: Settings):
    """Recompute them the slow way, flight by flight, from the source of the data."""
    history = raw_flights()
    history = history[history["arr_delay"].notna()]
    generator = np.random.default_rng(1)
    compared = 0
    for week in WEEKS:
        frame = joined(shared, week)
        for row in frame.iloc[generator.choice(len(frame), 60, replace=False)].itertuples():
            for key, feature in RATES.items():
                expected, moment = np.nan, row.sched_dep.floor("D")
                for back in range(9):  # the newest row there is, at most 8 days old
                    known = moment - back * DAY
                    if row.sched_dep - known > 8 * DAY:
                        break
                    settled = history[history["sched_dep"] < known - DAY]
                    window = settled[
                        (settled["sched_dep"] >= known - 8 * DAY)
                        & (settled[key] == getattr(row, key))
                    ]
                    if len(window):
                        expected = (window["arr_delay"] >= 15).mean()
                        break
                found = getattr(row, feature)
                if np.isnan(expected):
                    assert np.isnan(found)
                else:
                    assert found == pytest.approx(expected, abs=1e-12)
                    compared += 1
    assert compared > 400


def test_weather_is_the_newest_observation_before_the_departure(shared: Settings):
    weather = pd.concat([flights_feed.weather_of(SPEC.batch_ref(week)) for week in WEEKS])
    generator = np.random.default_rng(2)
    for week in WEEKS:
        frame = joined(shared, week)
        for row in frame.iloc[generator.choice(len(frame), 60, replace=False)].itertuples():
            seen = weather[
                (weather["origin"] == row.origin)
                & (weather["observed_at"] <= row.sched_dep)
                & (weather["observed_at"] >= row.sched_dep - pd.Timedelta(hours=3))
            ].sort_values("observed_at")
            for name in WEATHER:
                expected = seen[name].iloc[-1] if len(seen) else np.nan
                np.testing.assert_equal(float(getattr(row, name)), float(expected))


@pytest.mark.parametrize("hours", [0, 30, 100])
def test_what_happens_later_changes_no_feature_of_an_earlier_flight(ingested: Settings, hours):
    """Turn upside down what was not known at a moment: flights before it see no difference."""
    week = "2013-01-21"
    batch = SPEC.batch_ref(week)
    moment = pd.Timestamp(batch.start) + pd.Timedelta(hours=hours)
    before = joined(ingested, week)
    flights = flights_feed.flights_of(batch).copy()
    unsettled = flights["sched_dep"] >= moment - DAY
    flights.loc[unsettled, "arr_delay"] = np.where(
        flights.loc[unsettled, "arr_delay"] >= 15, -10.0, 100.0
    )
    ingest(SPEC, ingested, week, flights)
    after = joined(ingested, week)
    names = list(SPEC.features.names)
    earlier = before["sched_dep"] < moment
    pd.testing.assert_frame_equal(before.loc[earlier, names], after.loc[earlier, names])
    later = before["sched_dep"] >= moment + 2 * DAY
    assert (before.loc[later, "origin_delay_rate"] != after.loc[later, "origin_delay_rate"]).any()


def test_facts_of_the_timetable_are_in_local_time(shared: Settings):
    frame = joined(shared, WEEKS[1])
    local = frame["sched_dep"].dt.tz_convert("America/New_York")
    assert (frame["minute_of_day"] == local.dt.hour * 60 + local.dt.minute).all()
    assert (frame["weekday"] == local.dt.weekday).all()


def test_nothing_of_after_the_departure_is_served(shared: Settings):
    service = features.feature_store(shared).get_feature_service(SPEC.features.service)
    served = {f.name for view in service.feature_view_projections for f in view.features}
    known_later = {"dep_delay", "arr_delay", "air_time", "dep_time", "arr_time", "tailnum"}
    assert not known_later & served
    assert {"carrier", "origin", "dest", "distance"} | served >= set(SPEC.features.names)


def test_online_values_are_the_offline_values_after_the_last_batch(shared: Settings):
    batch = SPEC.batch_ref(WEEKS[-1])
    frame = joined(shared, WEEKS[-1]).drop_duplicates(["carrier", "origin"])
    store = features.feature_store(shared)
    names = [
        f"flights_{table}:{feature}"
        for table, feature in (
            *(("weather", name) for name in WEATHER),
            ("carrier_delays", "carrier_delay_rate"),
            ("origin_delays", "origin_delay_rate"),
        )
    ]
    keys = frame[["carrier", "origin"]].to_dict("records")
    online = store.get_online_features(features=names, entity_rows=keys).to_df()
    known_at = batch.end + dt.timedelta(days=SPEC.label.maturity_days)
    for moment, columns in ((batch.end, list(WEATHER)), (known_at, list(RATES.values()))):
        entities = frame[["carrier", "origin"]].assign(event_timestamp=pd.Timestamp(moment))
        offline = store.get_historical_features(
            entity_df=entities.reset_index(drop=True), features=names
        ).to_df()
        assert offline[columns].notna().all().all()
        pd.testing.assert_frame_equal(
            online.sort_values(["carrier", "origin"])[columns].reset_index(drop=True),
            offline.sort_values(["carrier", "origin"])[columns].reset_index(drop=True),
            check_dtype=False,
        )


# --- publishing -----------------------------------------------------------------------------------


def test_batch_is_in_force_once_published(empty: Settings):
    storage = Storage.of(empty)
    report = validate(SPEC, empty, WEEKS[0])
    assert features.published(SPEC, storage, WEEKS[0]) is None
    with pytest.raises(NotPublished, match="run flights__ingest"):
        features.require_published(SPEC, storage, WEEKS[0])
    with pytest.raises(NotPublished, match="no data is in force"):
        features.materialize(SPEC, empty, report.batch)
    assert features.publish_batch(SPEC, storage, report)
    assert features.published(SPEC, storage, WEEKS[0]) == report
    with pytest.raises(NotPublished, match="no features"):
        features.feature_set(SPEC, storage, report.batch)


def test_publishing_the_same_content_again_has_nothing_to_do(ingested: Settings):
    before = state(ingested)
    report = validate(SPEC, ingested, WEEKS[1])
    assert not features.publish_batch(SPEC, Storage.of(ingested), report)
    assert state(ingested) == before


def test_publication_without_its_features_is_done_again(ingested: Settings):
    report = validate(SPEC, ingested, WEEKS[1])
    Storage.of(ingested).delete(f"flights/reports/partition={WEEKS[1]}/features.json")
    assert features.publish_batch(SPEC, Storage.of(ingested), report)


def test_materializing_twice_gives_the_same_feature_set(ingested: Settings):
    batch = SPEC.batch_ref(WEEKS[-1])
    before = features.feature_set(SPEC, Storage.of(ingested), batch)
    content = Storage.of(ingested).read(before.key)
    assert features.materialize(SPEC, ingested, batch) == before
    assert Storage.of(ingested).read(before.key) == content


def test_refused_batch_leaves_the_last_good_data_in_force(ingested: Settings):
    before = state(ingested)
    broken = flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).drop(columns="distance")
    report = validate(SPEC, ingested, WEEKS[1], broken)
    with pytest.raises(
        BatchRefused, match=r"column_to_exist.*'distance' is missing.*stays in force"
    ):
        features.publish_batch(SPEC, Storage.of(ingested), report)
    assert state(ingested) == before
    assert len(joined(ingested, WEEKS[1])) == 6053


def test_corrected_delivery_replaces_the_batch_and_its_features(ingested: Settings):
    storage = Storage.of(ingested)
    before = features.feature_set(SPEC, storage, SPEC.batch_ref(WEEKS[1]))
    flights = flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).iloc[:-50]
    after = ingest(SPEC, ingested, WEEKS[1], flights)
    assert (after.rows, before.rows) == (len(flights), len(flights) + 50)
    assert after.sha256 != before.sha256
    assert features.feature_set(SPEC, storage, SPEC.batch_ref(WEEKS[1])) == after
    report = features.require_published(SPEC, storage, WEEKS[1])
    assert storage.read_table(report.files["batch"]).num_rows == len(flights)


def test_publication_killed_before_its_last_step_keeps_the_old_batch_and_is_finished_later(
    ingested: Settings, monkeypatch: pytest.MonkeyPatch
):
    storage = Storage.of(ingested)
    before = features.require_published(SPEC, storage, WEEKS[1])
    flights = flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).iloc[:-50]
    report = validate(SPEC, ingested, WEEKS[1], flights)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            features.publish_batch(SPEC, storage, report)
    assert features.require_published(SPEC, storage, WEEKS[1]) == before
    assert storage.read_table(before.files["batch"]).num_rows == len(flights) + 50
    assert features.publish_batch(SPEC, storage, report)
    assert features.require_published(SPEC, storage, WEEKS[1]) == report


def test_tables_that_cannot_be_made_publish_nothing(empty: Settings, monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(flights_tables, "_trailing_delay_rate", fail)
    report = validate(SPEC, empty, WEEKS[0])
    with pytest.raises(ZeroDivisionError):
        features.publish_batch(SPEC, Storage.of(empty), report)
    assert not Storage.of(empty).list("flights/features")
    assert features.published(SPEC, Storage.of(empty), WEEKS[0]) is None


def test_older_batch_delivered_again_does_not_set_online_values_back(ingested: Settings):
    def online() -> pd.DataFrame:
        names = ["flights_weather:temp", "flights_origin_delays:origin_delay_rate"]
        keys = [{"origin": origin} for origin in ("EWR", "JFK", "LGA")]
        store = features.feature_store(ingested)
        return store.get_online_features(features=names, entity_rows=keys).to_df()

    before = online()
    ingest(SPEC, ingested, WEEKS[1], flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).iloc[:-5])
    pd.testing.assert_frame_equal(online(), before)


def test_batch_that_comes_late_ends_in_the_same_tables_and_online_values(
    shared: Settings, empty: Settings
):
    # the batch after it used to keep rates that knew nothing of it
    for week in (WEEKS[1], WEEKS[0], WEEKS[3], WEEKS[2]):
        ingest(SPEC, empty, week)
    for week in WEEKS:
        for table in TABLES:
            pd.testing.assert_frame_equal(
                table_rows(empty, table, week), table_rows(shared, table, week)
            )
    keys = [{"origin": origin} for origin in ("EWR", "JFK", "LGA")]
    names = ["flights_origin_delays:origin_delay_rate"]
    one, other = (
        features.feature_store(settings).get_online_features(features=names, entity_rows=keys)
        for settings in (shared, empty)
    )
    pd.testing.assert_frame_equal(one.to_df(), other.to_df())


def test_partitions_in_force_are_listed_oldest_first(ingested: Settings, empty: Settings):
    found = features.published_partitions(SPEC, Storage.of(ingested))
    assert [batch.partition for batch in found] == list(WEEKS)
    assert all(isinstance(batch, BatchRef) for batch in found)


def test_validated_files_alone_are_not_in_force(empty: Settings):
    validate(SPEC, empty, WEEKS[0])
    assert features.published_partitions(SPEC, Storage.of(empty)) == []


# --- what a row may look like and still be joined -------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [
        pytest.param("hour", None, id="no-hour"),
        pytest.param("minute", None, id="no-minute"),
        pytest.param("year", None, id="no-year"),
        pytest.param("year", 999_999, id="absurd-year"),
        pytest.param("day", 31, id="maybe-no-such-day"),
        pytest.param("dest", "???", id="unseen-destination"),
        pytest.param("carrier", "??", id="unseen-carrier"),
        pytest.param("arr_delay", None, id="no-label"),
        pytest.param("dep_delay", None, id="no-delay"),
    ],
)
def test_row_that_validation_lets_pass_can_be_joined(ingested: Settings, column, value):
    flights = flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).copy()
    flights[column] = flights[column].astype("object")
    flights.iloc[[3, 4], flights.columns.get_loc(column)] = value
    if column not in {"dest", "carrier"}:
        flights[column] = pd.to_numeric(flights[column])
    assert ingest(SPEC, ingested, WEEKS[1], flights).rows == len(flights)


def test_join_tells_which_feature_the_service_does_not_give(shared: Settings):
    spec = SPEC.model_copy(
        update={"features": SPEC.features.model_copy(update={"numeric": ("temp", "moon_phase")})}
    )
    report = features.require_published(SPEC, Storage.of(shared), WEEKS[0])
    rows = Storage.of(shared).read_table(report.files["batch"]).slice(0, 5)
    with pytest.raises(DataError, match="gives no moon_phase; add it to the service"):
        features.join(spec, shared, rows)


def test_home_with_a_space_works_throughout(tmp_path: Path):
    # a percent sign in the address made Feast read an empty folder, and every feature was missing
    settings = Settings(home=tmp_path / "a home")
    ingest(SPEC, settings, WEEKS[0])
    assert joined(settings, WEEKS[0])["temp"].notna().mean() > 0.97


@pytest.mark.parametrize("path", ["nowhere:build", "feature_repo.flights_tables:nope", "x", ":"])
def test_function_that_is_not_there_is_a_spec_error(path):
    with pytest.raises(SpecError, match="must be module:function"):
        features.load_function(path)


def test_service_that_is_not_defined_is_a_spec_error():
    spec = SPEC.model_copy(
        update={"features": SPEC.features.model_copy(update={"service": "flights_v9"})}
    )
    with pytest.raises(SpecError, match="defines no 'flights_v9'"):
        features._service(spec)


def test_first_batch_has_rates_of_its_own_settled_flights_only():
    batch = SPEC.batch_ref(WEEKS[0])
    inputs = {"batch": flights_feed.flights_of(batch), "weather": flights_feed.weather_of(batch)}
    nothing = {name: frame.iloc[:0] for name, frame in inputs.items()}
    made = flights_tables.build(inputs, nothing, batch)
    assert set(made) == set(TABLES)
    first = made["origin_delays"]["event_timestamp"].min()
    assert first == pd.Timestamp(batch.start) + 2 * DAY
    assert made["origin_delays"]["event_timestamp"].max() == pd.Timestamp(batch.end) + DAY


def test_feature_set_record_survives_its_storage(shared: Settings):
    storage = Storage.of(shared)
    found = features.feature_set(SPEC, storage, SPEC.batch_ref(WEEKS[0]))
    key = f"flights/reports/partition={WEEKS[0]}/features.json"
    assert storage.read_record(key, FeatureSet) == found


def test_suite_that_changed_puts_the_batch_in_force_anew(ingested: Settings, tmp_path: Path):
    suites = tmp_path / "suites"
    suites.mkdir()
    for path in validation.SUITES.glob("flights*.json"):
        (suites / path.name).write_text(path.read_text() + "\n")
    batch, storage = SPEC.batch_ref(WEEKS[1]), Storage.of(ingested)
    report = validation.validate_batch(SPEC, storage, batch, suites=suites)
    assert features.publish_batch(SPEC, storage, report)
