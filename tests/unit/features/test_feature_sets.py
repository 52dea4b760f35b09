from __future__ import annotations

import datetime as dt
import functools
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa
from feast import FeatureStore

from feature_repo import flights_tables
from include.demo import flights_feed
from include.retraining.data import publication, validation
from include.retraining.data.tables import Part, Table
from include.retraining.errors import (
    BatchRefused,
    DataError,
    NotPublished,
    SpecError,
    Unavailable,
)
from include.retraining.features import definitions, feature_sets, feature_tables, join, skew
from include.retraining.records import BatchRef, FeatureSet, ValidationReport
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
    found = feature_sets.feature_set(SPEC, storage, SPEC.batch_ref(partition))
    return feature_sets.rows_of(SPEC, storage, found).to_pandas()


def table_of(settings: Settings, table: str) -> Table:
    return Table(Storage.of(settings), f"flights/tables/features/{table}")


def table_rows(settings: Settings, table: str, partition: str) -> pd.DataFrame:
    return table_of(settings, table).snapshot().read([partition]).to_pandas()


def rows_in_force(settings: Settings, partition: str) -> pa.Table:
    return publication.rows_in_force(SPEC, Storage.of(settings)).read([partition])


def join_anew(settings: Settings, partition: str) -> pd.DataFrame:
    return join.join(SPEC, settings, rows_in_force(settings, partition)).to_pandas()


def state(settings: Settings) -> dict[str, dict[str, Part]]:
    """Give everything in force, by table and partition."""
    storage = Storage.of(settings)
    logs = [
        key for key in storage.list("flights/tables") if key.endswith("/00000000000000000000.json")
    ]
    tables = [key.split("/_delta_log/")[0] for key in logs]
    return {key: dict(Table(storage, key).snapshot().parts) for key in tables}


def kill_at(patch: pytest.MonkeyPatch, key: str) -> None:
    """Die where a table is to be replaced."""
    real = Table.replace

    def replace(self: Table, *arguments: object, **named: object) -> object:
        if self.key.endswith(key):
            raise KeyboardInterrupt
        return real(self, *arguments, **named)

    patch.setattr(Table, "replace", replace)


def is_done(settings: Settings, report: ValidationReport) -> bool:
    """Publish as the task does; is there nothing left to do?"""
    storage = Storage.of(settings)
    changed = publication.publish_batch(SPEC, storage, report)
    return not changed and feature_sets.is_current(SPEC, storage, report.batch)


def raw_flights() -> pd.DataFrame:
    return pd.concat([flights_feed.flights_of(SPEC.batch_ref(week)) for week in WEEKS])


# --- no feature is younger than its flight --------------------------------------------------------


def test_feature_set_has_one_row_per_flight_in_order(shared: Settings):
    for week in WEEKS:
        batch = SPEC.batch_ref(week)
        found = feature_sets.feature_set(SPEC, Storage.of(shared), batch)
        frame, flights = joined(shared, week), flights_feed.flights_of(batch)
        assert found.rows == len(frame) == len(flights)
        assert frame["flight"].tolist() == flights["flight"].tolist()
        assert set(SPEC.features.names) <= set(frame.columns)


def test_every_joined_feature_was_known_at_the_scheduled_departure(
    ingested: Settings, tmp_path: Path
):
    """Put each stored row's own time in place of its values: what is joined is its age."""
    for week in WEEKS:
        for table in TABLES:
            rows = table_rows(ingested, table, week)
            known_since = (rows["event_timestamp"] - pd.Timestamp(0, tz="UTC")) / pd.Timedelta("1s")
            values = {name: known_since for name in (*WEATHER, *RATES.values()) if name in rows}
            table_of(ingested, table).replace(
                week, pa.Table.from_pandas(rows.assign(**values)), content="0" * 64, order=10**6
            )
    for week in WEEKS:
        frame = join_anew(ingested, week)
        departure = (frame["sched_dep"] - pd.Timestamp(0, tz="UTC")) / pd.Timedelta("1s")
        for name in (*WEATHER, *RATES.values()):
            age = departure - frame[name]
            seen = age.notna()
            assert (age[seen] >= 0).all(), name
            assert (age[seen] <= (3 * 3600 if name in WEATHER else 8 * 86400)).all(), name
            if week != WEEKS[0]:
                assert seen.mean() > 0.97, name


def test_delay_rates_are_those_of_flights_settled_when_the_week_before_ended(shared: Settings):
    """Recompute them the slow way, flight by flight, from the source of the data."""
    history = raw_flights()
    history = history[history["arr_delay"].notna()]
    generator = np.random.default_rng(1)
    compared = 0
    for week in WEEKS[1:]:
        start = pd.Timestamp(SPEC.batch_ref(week).start)
        frame = joined(shared, week)
        for row in frame.iloc[generator.choice(len(frame), 60, replace=False)].itertuples():
            for key, feature in RATES.items():
                window = history[
                    history["sched_dep"].between(start - 8 * DAY, start - DAY, inclusive="left")
                    & (history[key] == getattr(row, key))
                ]
                expected = (window["arr_delay"] >= 15).mean() if len(window) else np.nan
                np.testing.assert_allclose(float(getattr(row, feature)), expected, rtol=1e-12)
                compared += len(window) > 0
    assert compared > 300


def test_weather_is_the_newest_hour_that_had_ended_at_the_departure(shared: Settings):
    weather = pd.concat([flights_feed.weather_of(SPEC.batch_ref(week)) for week in WEEKS])
    generator = np.random.default_rng(2)
    for week in WEEKS:
        frame = joined(shared, week)
        for row in frame.iloc[generator.choice(len(frame), 60, replace=False)].itertuples():
            seen = weather[
                (weather["origin"] == row.origin)
                & (weather["observed_at"] <= row.sched_dep - pd.Timedelta(hours=1))
                & (weather["observed_at"] >= row.sched_dep - pd.Timedelta(hours=4))
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


def test_correction_changes_the_features_of_later_weeks_and_of_no_other(ingested: Settings):
    # joined features of later weeks used to stay what they were before the correction
    before = {week: joined(ingested, week) for week in WEEKS}
    flights = flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).copy()
    flights["arr_delay"] = 100.0
    ingest(SPEC, ingested, WEEKS[1], flights)
    after = {week: joined(ingested, week) for week in WEEKS}
    names = list(SPEC.features.names)
    for week in WEEKS[:2]:
        pd.testing.assert_frame_equal(before[week][names], after[week][names])
    assert (after[WEEKS[2]]["origin_delay_rate"] > 0.8).all()  # six of the seven days are its
    assert (before[WEEKS[2]]["origin_delay_rate"] < 0.4).all()
    for week in WEEKS:
        pd.testing.assert_frame_equal(join_anew(ingested, week), after[week])


def test_facts_of_the_timetable_are_in_local_time(shared: Settings):
    frame = joined(shared, WEEKS[1])
    local = frame["sched_dep"].dt.tz_convert("America/New_York")
    assert (frame["minute_of_day"] == local.dt.hour * 60 + local.dt.minute).all()
    assert (frame["weekday"] == local.dt.weekday).all()


def test_nothing_of_after_the_departure_is_served(shared: Settings):
    service = definitions.feature_store(shared).get_feature_service(SPEC.features.service)
    served = {f.name for view in service.feature_view_projections for f in view.features}
    known_later = {"dep_delay", "arr_delay", "air_time", "dep_time", "arr_time", "tailnum"}
    assert not known_later & served
    assert {"carrier", "origin", "dest", "distance"} | served >= set(SPEC.features.names)


def test_online_values_are_the_offline_values_of_the_next_week(empty: Settings):
    # rates of each day were joined offline, that nobody could have had online before the week ended
    for week in WEEKS[:2]:
        ingest(SPEC, empty, week)
    store = definitions.feature_store(empty)
    names = ["flights_carrier_delays:carrier_delay_rate", "flights_origin_delays:origin_delay_rate"]
    ingest_after = flights_feed.flights_of(SPEC.batch_ref(WEEKS[2]))
    keys = ingest_after[["carrier", "origin"]].drop_duplicates().to_dict("records")
    served = store.get_online_features(features=names, entity_rows=keys).to_df()
    ingest(SPEC, empty, WEEKS[2])
    trained_on = joined(empty, WEEKS[2])[["carrier", "origin", *RATES.values()]].drop_duplicates()
    assert len(trained_on) == len(keys)  # one value for the whole week
    pd.testing.assert_frame_equal(
        served.sort_values(["carrier", "origin"], ignore_index=True)[list(trained_on)],
        trained_on.sort_values(["carrier", "origin"], ignore_index=True),
        check_dtype=False,
    )


# --- publishing -----------------------------------------------------------------------------------


def test_batch_is_in_force_once_published(empty: Settings):
    storage = Storage.of(empty)
    report = validate(SPEC, empty, WEEKS[0])
    assert publication.rows_in_force(SPEC, storage).parts.get(WEEKS[0]) is None
    with pytest.raises(NotPublished, match="no data is in force; run flights__ingest"):
        feature_sets.materialize(SPEC, empty, report.batch)
    assert publication.publish_batch(SPEC, storage, report)
    part = publication.rows_in_force(SPEC, storage).parts.get(WEEKS[0])
    assert (part.content, part.order, part.rows) == (report.identity, 1, report.rows_good)
    with pytest.raises(NotPublished, match="no features"):
        feature_sets.feature_set(SPEC, storage, report.batch)


def test_publishing_the_same_content_again_has_nothing_to_do(ingested: Settings):
    before = state(ingested)
    report = validate(SPEC, ingested, WEEKS[1])
    assert is_done(ingested, report)
    assert state(ingested) == before


def test_publication_without_its_features_is_done_again(ingested: Settings):
    report = validate(SPEC, ingested, WEEKS[1])
    Storage.of(ingested).delete(f"flights/reports/partition={WEEKS[1]}/features.json")
    assert not is_done(ingested, report)


def test_materializing_twice_gives_the_same_feature_set(ingested: Settings):
    batch = SPEC.batch_ref(WEEKS[-1])
    before = feature_sets.feature_set(SPEC, Storage.of(ingested), batch)
    content = state(ingested)
    assert feature_sets.materialize(SPEC, ingested, batch) == before
    assert state(ingested) == content


def test_refused_batch_leaves_the_last_good_data_in_force(ingested: Settings):
    before = state(ingested)
    broken = flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).drop(columns="distance")
    report = validate(SPEC, ingested, WEEKS[1], broken)
    with pytest.raises(
        BatchRefused, match=r"column_to_exist.*'distance' is missing.*stays in force"
    ):
        publication.publish_batch(SPEC, Storage.of(ingested), report)
    assert state(ingested) == before
    assert len(joined(ingested, WEEKS[1])) == 6053


def test_corrected_delivery_replaces_the_batch_and_its_features(ingested: Settings):
    storage = Storage.of(ingested)
    before = feature_sets.feature_set(SPEC, storage, SPEC.batch_ref(WEEKS[1]))
    flights = flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).iloc[:-50]
    after = ingest(SPEC, ingested, WEEKS[1], flights)
    assert (after.rows, before.rows) == (len(flights), len(flights) + 50)
    assert after.sha256 != before.sha256
    assert feature_sets.feature_set(SPEC, storage, SPEC.batch_ref(WEEKS[1])) == after
    assert rows_in_force(ingested, WEEKS[1]).num_rows == len(flights)


def test_publication_killed_before_its_last_step_keeps_the_old_batch_and_is_finished_later(
    ingested: Settings, monkeypatch: pytest.MonkeyPatch
):
    storage = Storage.of(ingested)
    before = publication.rows_in_force(SPEC, storage).parts.get(WEEKS[1])
    flights = flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).iloc[:-50]
    report = validate(SPEC, ingested, WEEKS[1], flights)
    with monkeypatch.context() as patch:
        kill_at(patch, "tables/rows/batch")
        with pytest.raises(KeyboardInterrupt):
            publication.publish_batch(SPEC, storage, report)
    assert publication.rows_in_force(SPEC, storage).parts.get(WEEKS[1]) == before
    assert rows_in_force(ingested, WEEKS[1]).num_rows == len(flights) + 50
    assert publication.publish_batch(SPEC, storage, report)
    assert publication.rows_in_force(SPEC, storage).parts.get(WEEKS[1]).content == report.identity


def test_tables_that_cannot_be_made_make_no_features(empty: Settings, monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(flights_tables, "_trailing_delay_rate", fail)
    report = validate(SPEC, empty, WEEKS[0])
    publication.publish_batch(SPEC, Storage.of(empty), report)
    with pytest.raises(ZeroDivisionError):
        feature_sets.materialize(SPEC, empty, report.batch)
    for table in TABLES:
        assert table_of(empty, table).snapshot().version == -1
    assert not is_done(empty, report)


def built(ingested: Settings, monkeypatch: pytest.MonkeyPatch, change: Callable) -> None:
    """Have the model's function give its weather otherwise, and make the features of a week."""
    real = flights_tables.build

    def build(inputs, previous, batch):
        made = real(inputs, previous, batch)
        return made | {"weather": change(made["weather"], batch)}

    functools.update_wrapper(build, real)
    monkeypatch.setattr(flights_tables, "build", build)
    # the file of the function is what it was, so the delivery has to be another
    flights = flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).assign(dep_delay=1.0)
    report = validate(SPEC, ingested, WEEKS[1], flights)
    publication.publish_batch(SPEC, Storage.of(ingested), report)
    feature_sets.materialize(SPEC, ingested, report.batch)


@pytest.mark.parametrize("side", ["early", "late"])
def test_feature_row_that_was_known_outside_of_its_batch_is_refused(ingested, monkeypatch, side):
    # the join saw it where it was dated, what is joined again was told by its batch
    def change(weather: pd.DataFrame, batch: BatchRef) -> pd.DataFrame:
        moment = {"early": batch.start, "late": batch.end}[side]
        moment += {"early": -1, "late": 1}[side] * dt.timedelta(microseconds=1)
        dated = weather.head(2).assign(event_timestamp=pd.Timestamp(moment))
        return pd.concat([weather.iloc[2:], dated])

    with pytest.raises(DataError, match=r"weather\.event_timestamp must be from .* and 1 others"):
        built(ingested, monkeypatch, change)


def test_feature_rows_at_both_ends_of_their_batch_are_taken(ingested, monkeypatch):
    def change(weather: pd.DataFrame, batch: BatchRef) -> pd.DataFrame:
        moments = [pd.Timestamp(batch.start), pd.Timestamp(batch.end)]
        return pd.concat([weather.iloc[2:], weather.head(2).assign(event_timestamp=moments)])

    built(ingested, monkeypatch, change)


def test_other_code_makes_other_feature_rows(ingested: Settings, monkeypatch: pytest.MonkeyPatch):
    # what was made by the old code stayed, and training mixed both
    storage = Storage.of(ingested)
    assert feature_sets.stale_batches(SPEC, storage, since=SPEC.partitions.first) == []
    monkeypatch.setattr(feature_tables, "tables_digest", lambda function: f"other {function}")
    stale = feature_sets.stale_batches(SPEC, storage, since=SPEC.partitions.first)
    assert [one.partition for one in stale] == list(WEEKS)


def test_join_that_never_comes_to_rest_ends_with_an_error(ingested, monkeypatch):
    # it went on until its task was killed, without a pause
    batch, tried = SPEC.batch_ref(WEEKS[1]), []
    monkeypatch.setattr(feature_sets, "_join_batch", lambda *_: tried.append(1))
    monkeypatch.setattr(feature_sets.time, "sleep", lambda _: None)
    for work in (feature_sets.materialize, feature_sets.join_anew):
        tried.clear()
        with pytest.raises(Unavailable, match="a table of rows was restored to an older version"):
            work(SPEC, ingested, batch)
        assert len(tried) == feature_sets.TRIES


def test_older_batch_delivered_again_does_not_set_online_values_back(ingested: Settings):
    def online() -> pd.DataFrame:
        names = ["flights_weather:temp", "flights_origin_delays:origin_delay_rate"]
        keys = [{"origin": origin} for origin in ("EWR", "JFK", "LGA")]
        store = definitions.feature_store(ingested)
        return store.get_online_features(features=names, entity_rows=keys).to_df()

    before = online()
    ingest(SPEC, ingested, WEEKS[1], flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).iloc[:-5])
    pd.testing.assert_frame_equal(online(), before)


@pytest.mark.parametrize(
    "order", [(1, 0, 3, 2), (3, 2, 1, 0), (0, 2, 1, 3)], ids=["swapped", "backwards", "one-late"]
)
def test_batches_in_any_order_end_in_the_same_tables_joins_and_online_values(
    shared: Settings, empty: Settings, order
):
    # the batch after it used to keep rates, and joined features, that knew nothing of it
    for number in order:
        ingest(SPEC, empty, WEEKS[number])
    one, other = Storage.of(shared), Storage.of(empty)
    for week in WEEKS:
        for table in TABLES:
            pd.testing.assert_frame_equal(
                table_rows(empty, table, week), table_rows(shared, table, week)
            )
        batch = SPEC.batch_ref(week)
        sets = [feature_sets.feature_set(SPEC, storage, batch) for storage in (one, other)]
        assert sets[0].sha256 == sets[1].sha256
        pd.testing.assert_frame_equal(joined(empty, week), joined(shared, week))
    keys = [{"origin": origin} for origin in ("EWR", "JFK", "LGA")]
    names = ["flights_origin_delays:origin_delay_rate", "flights_weather:temp"]
    online, expected = (
        definitions.feature_store(settings).get_online_features(features=names, entity_rows=keys)
        for settings in (empty, shared)
    )
    pd.testing.assert_frame_equal(online.to_df(), expected.to_df())


def test_batch_refreshes_only_later_ones_that_see_its_features(ingested: Settings):
    batch = SPEC.batch_ref(WEEKS[2])
    assert feature_sets.refresh_later(SPEC, ingested, batch) == []
    report = validate(SPEC, ingested, WEEKS[2], flights_feed.flights_of(batch).iloc[:-50])
    publication.publish_batch(SPEC, Storage.of(ingested), report)
    feature_sets.materialize(SPEC, ingested, batch)
    refreshed = feature_sets.refresh_later(SPEC, ingested, batch)
    assert [one.batch.partition for one in refreshed] == [WEEKS[3]]
    assert feature_sets.refresh_later(SPEC, ingested, batch) == []


def test_publication_is_not_done_while_later_joins_are_stale(ingested: Settings):
    storage = Storage.of(ingested)
    flights = flights_feed.flights_of(SPEC.batch_ref(WEEKS[0])).iloc[:-50]
    report = validate(SPEC, ingested, WEEKS[0], flights)
    assert publication.publish_batch(SPEC, storage, report)
    feature_sets.materialize(SPEC, ingested, report.batch)  # and killed before the later ones
    assert not is_done(ingested, report)
    feature_sets.refresh_later(SPEC, ingested, report.batch)
    assert is_done(ingested, report)


def test_neighbours_published_at_once_leave_no_stale_table(
    shared: Settings, empty: Settings, monkeypatch: pytest.MonkeyPatch
):
    """The first week comes in force while the second one, which looks back to it, is made."""
    storage, make = Storage.of(empty), feature_sets.make_tables
    first, second = (validate(SPEC, empty, week) for week in WEEKS[:2])
    publication.publish_batch(SPEC, storage, second)

    def interrupted(*arguments: object) -> None:
        monkeypatch.setattr(feature_sets, "make_tables", make)
        publication.publish_batch(SPEC, storage, first)
        feature_sets.materialize(SPEC, empty, first.batch)
        make(*arguments)  # of what it saw before

    monkeypatch.setattr(feature_sets, "make_tables", interrupted)
    feature_sets.materialize(SPEC, empty, second.batch)
    for week in WEEKS[:2]:
        for table in TABLES:
            pd.testing.assert_frame_equal(
                table_rows(empty, table, week), table_rows(shared, table, week)
            )
    feature_sets.refresh_later(SPEC, empty, first.batch)
    for week in WEEKS[:2]:
        pd.testing.assert_frame_equal(joined(empty, week), joined(shared, week))


def test_batch_is_joined_again_if_another_comes_in_force_meanwhile(
    shared: Settings, empty: Settings, monkeypatch: pytest.MonkeyPatch
):
    storage, real = Storage.of(empty), feature_sets.join
    first, second = (validate(SPEC, empty, week) for week in WEEKS[:2])
    publication.publish_batch(SPEC, storage, second)

    def late(*arguments: object) -> pa.Table:
        found = real(*arguments)
        monkeypatch.setattr(feature_sets, "join", real)
        publication.publish_batch(SPEC, storage, first)
        return found

    monkeypatch.setattr(feature_sets, "join", late)
    found = feature_sets.materialize(SPEC, empty, second.batch)
    expected = feature_sets.feature_set(SPEC, Storage.of(shared), second.batch)
    assert found.sha256 == expected.sha256
    pd.testing.assert_frame_equal(joined(empty, WEEKS[1]), joined(shared, WEEKS[1]))


def test_slow_neighbour_does_not_set_online_values_back(
    shared: Settings, empty: Settings, monkeypatch: pytest.MonkeyPatch
):
    # it wrote what was newest when it began, over what the next week had written meanwhile
    for week in WEEKS[:2]:
        ingest(SPEC, empty, week)
    report = validate(SPEC, empty, WEEKS[2])
    publication.publish_batch(SPEC, Storage.of(empty), report)
    real = feature_sets.write_online

    def late(*arguments: object) -> None:  # the next week is ingested whole before this one writes
        monkeypatch.setattr(feature_sets, "write_online", real)
        ingest(SPEC, empty, WEEKS[3])
        real(*arguments)

    monkeypatch.setattr(feature_sets, "write_online", late)
    feature_sets.materialize(SPEC, empty, report.batch)
    feature_sets.refresh_later(SPEC, empty, report.batch)
    assert skew.check_skew(SPEC, empty, SPEC.batch_ref(WEEKS[3])).problems == ()
    for week in WEEKS:
        pd.testing.assert_frame_equal(joined(empty, week), joined(shared, week))


def test_killed_publication_changes_no_feature(ingested: Settings, monkeypatch: pytest.MonkeyPatch):
    before = {week: joined(ingested, week) for week in WEEKS}
    flights = flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).assign(arr_delay=100.0)
    report = validate(SPEC, ingested, WEEKS[1], flights)
    with monkeypatch.context() as patch:
        kill_at(patch, "tables/rows/batch")
        with pytest.raises(KeyboardInterrupt):
            publication.publish_batch(SPEC, Storage.of(ingested), report)
    for week in WEEKS:
        pd.testing.assert_frame_equal(join_anew(ingested, week), before[week])


def test_batches_from_before_a_moved_start_are_left_out(ingested: Settings):
    # they used to raise, in training, in the monitor and in the status
    parts = SPEC.partitions.model_copy(update={"first": SPEC.batch_ref(WEEKS[2]).start})
    spec = SPEC.model_copy(update={"partitions": parts})
    found = publication.published_partitions(spec, Storage.of(ingested))
    assert [batch.partition for batch in found] == list(WEEKS[2:])


# --- the registry ---------------------------------------------------------------------------------


def registry_rows(settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    engine = sa.create_engine(settings.feast_registry)
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
        return {
            name: sorted(map(tuple, connection.execute(sa.text(f"select * from {name}"))), key=repr)
            for name in names
        }


def test_only_the_first_task_of_a_version_writes_to_the_registry(
    ingested: Settings, monkeypatch: pytest.MonkeyPatch
):
    # every materialize wrote the whole view back, of whatever version it was
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("applied again")

    definitions.apply_definitions(SPEC, ingested)  # the copy of a home is another registry
    before = registry_rows(ingested)
    assert len(before["feature_views"]) == 3
    monkeypatch.setattr(FeatureStore, "apply", fail)
    ingest(SPEC, ingested, WEEKS[1], flights_feed.flights_of(SPEC.batch_ref(WEEKS[1])).iloc[:-5])
    assert registry_rows(ingested) == before


def test_other_version_is_applied_once_and_so_is_a_return_to_the_first(
    ingested: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    applied: list[object] = []
    definitions.apply_definitions(SPEC, ingested)  # the copy of a home is another registry
    monkeypatch.setattr(FeatureStore, "apply", lambda _, objects: applied.append(objects))
    definitions.apply_definitions(SPEC, ingested)
    assert applied == []
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "views.py").write_text("changed")
    for repository, count in ((newer, 1), (definitions.FEATURE_REPO, 2)):
        monkeypatch.setattr(definitions, "FEATURE_REPO", repository)
        for _ in range(2):
            definitions.apply_definitions(SPEC, ingested)
        assert len(applied) == count


def test_tasks_that_start_at_once_apply_once(ingested: Settings, monkeypatch: pytest.MonkeyPatch):
    applied: list[float] = []

    def slow(*_: object) -> None:
        applied.append(time.monotonic())
        time.sleep(1)

    monkeypatch.setattr(FeatureStore, "apply", slow)
    Storage.of(ingested).delete("flights/definitions/applied.json")
    with ThreadPoolExecutor(4) as threads:
        for done in [
            threads.submit(definitions.apply_definitions, SPEC, ingested) for _ in range(4)
        ]:
            done.result(timeout=30)
    assert len(applied) == 1


def test_task_that_was_killed_while_applying_is_taken_over(
    ingested: Settings, monkeypatch: pytest.MonkeyPatch
):
    storage = Storage.of(ingested)
    storage.delete("flights/definitions/applied.json")
    storage.write_json("flights/definitions/applying.json", {})
    monkeypatch.setattr(definitions, "APPLY_SECONDS", 0.5)
    definitions.apply_definitions(SPEC, ingested)
    assert storage.exists("flights/definitions/applied.json")
    assert not storage.exists("flights/definitions/applying.json")


def test_partitions_in_force_are_listed_oldest_first(ingested: Settings, empty: Settings):
    found = publication.published_partitions(SPEC, Storage.of(ingested))
    assert [batch.partition for batch in found] == list(WEEKS)
    assert all(isinstance(batch, BatchRef) for batch in found)


def test_validated_files_alone_are_not_in_force(empty: Settings):
    validate(SPEC, empty, WEEKS[0])
    assert publication.published_partitions(SPEC, Storage.of(empty)) == []


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
    rows = rows_in_force(shared, WEEKS[0]).slice(0, 5)
    with pytest.raises(DataError, match="gives no moon_phase; add it to the service"):
        join.join(spec, shared, rows)


def test_home_with_a_space_works_throughout(tmp_path: Path):
    # a percent sign in the address made Feast read an empty folder, and every feature was missing
    settings = Settings(home=tmp_path / "a home")
    ingest(SPEC, settings, WEEKS[0])
    assert joined(settings, WEEKS[0])["temp"].notna().mean() > 0.97


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere:build", "no module 'nowhere'"),
        ("feature_repo.flight_tables:build", "did you mean 'flights_tables'?"),
        ("feature_repo.flights_tables:bild", "no 'bild'; did you mean 'build'?"),
        ("feature_repo.flights_tables:__name__", "must be a function, got str"),
        ("x", "must be module:function"),
        (":", "must be module:function"),
    ],
)
def test_function_that_is_not_there_is_a_spec_error(path, says):
    with pytest.raises(SpecError, match=re.escape(says)):
        definitions.load_function(path)


def test_service_that_is_not_defined_is_a_spec_error():
    spec = SPEC.model_copy(
        update={"features": SPEC.features.model_copy(update={"service": "flights_v9"})}
    )
    with pytest.raises(
        SpecError, match="no feature service 'flights_v9'; did you mean 'flights_v1'"
    ):
        definitions.service_of(spec)


def test_first_batch_has_rates_of_its_own_settled_flights_only():
    batch = SPEC.batch_ref(WEEKS[0])
    inputs = {"batch": flights_feed.flights_of(batch), "weather": flights_feed.weather_of(batch)}
    nothing = {name: frame.iloc[:0] for name, frame in inputs.items()}
    made = flights_tables.build(inputs, nothing, batch)
    assert set(made) == set(TABLES)
    rates = made["origin_delays"]
    assert set(rates["event_timestamp"]) == {pd.Timestamp(batch.end)}
    settled = inputs["batch"][inputs["batch"]["sched_dep"] < pd.Timestamp(batch.end) - DAY]
    known = settled[settled["arr_delay"].notna() & (settled["origin"] == "JFK")]
    rate = rates.set_index("origin").loc["JFK", "origin_delay_rate"]
    assert rate == pytest.approx((known["arr_delay"] >= 15).mean())


def test_feature_set_record_survives_its_storage(shared: Settings):
    storage = Storage.of(shared)
    found = feature_sets.feature_set(SPEC, storage, SPEC.batch_ref(WEEKS[0]))
    key = f"flights/reports/partition={WEEKS[0]}/features.json"
    assert storage.read_record(key, FeatureSet) == found


def test_suite_that_changed_puts_the_batch_in_force_anew(ingested: Settings, tmp_path: Path):
    suites = tmp_path / "suites"
    suites.mkdir()
    for path in validation.SUITES.glob("flights*.json"):
        (suites / path.name).write_text(path.read_text() + "\n")
    batch, storage = SPEC.batch_ref(WEEKS[1]), Storage.of(ingested)
    report = validation.validate_batch(SPEC, storage, batch, suites=suites)
    assert publication.publish_batch(SPEC, storage, report)


def test_batches_are_published_and_joined_on_s3_as_on_files(
    shared: Settings, s3_environment: dict[str, str], tmp_path: Path
):
    settings = Settings(home=tmp_path, storage_url=f"s3://retraining/{tmp_path.name}")
    for week in (WEEKS[1], WEEKS[0]):  # in the wrong order
        ingest(SPEC, settings, week)
    for week in WEEKS[:2]:
        pd.testing.assert_frame_equal(joined(settings, week), joined(shared, week))
    report = skew.check_skew(SPEC, settings, SPEC.batch_ref(WEEKS[1]))
    assert report.problems == ()
