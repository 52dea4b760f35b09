"""Retention removes what is old or superseded, and nothing that a model learned from."""

from __future__ import annotations

import datetime as dt

import pytest

from include.demo import flights_feed
from include.retraining.data import publication, retention
from include.retraining.data.tables import Table
from include.retraining.features import definitions, feature_sets
from include.retraining.records import BatchRef, Sweep
from include.retraining.retrain import training_set
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from tests.unit.pipeline import WEEKS, ingest, request_retrain, small_spec, train, validate

WEEK = dt.timedelta(weeks=1)


def spec_of(days: float | None) -> ModelSpec:
    # a test has no time to wait for a day
    return small_spec(retention={"days": days, "superseded_days": 0.0})


def sweep(spec: ModelSpec, settings: Settings) -> list[str]:
    found = retention.sweep(
        spec,
        Storage.of(settings),
        spec.batch_ref(WEEKS[-1]),
        feature_tables=definitions.table_names(spec),
        reach=feature_sets.reach(spec),
        pinned=training_set.pinned_versions(spec, settings),
    )
    return list(found.partitions)


def in_force(spec: ModelSpec, settings: Settings) -> dict[str, list[str]]:
    """Give the partitions of each table, and those that have records."""
    storage = Storage.of(settings)
    names = ("rows/batch", "rows/weather", "quarantine/batch", "joined")
    keys = [*names, *(f"features/{one}" for one in definitions.table_names(spec))]
    found = {key: list(Table(storage, f"flights/tables/{key}").snapshot().parts) for key in keys}
    records = {key.split("partition=")[1][:10] for key in storage.list("flights/reports")}
    return found | {"reports": sorted(records)}


def test_nothing_in_force_is_removed_unless_it_is_asked_for(ingested: Settings):
    spec, storage = spec_of(None), Storage.of(ingested)
    before = feature_sets.joined_rows(spec, storage).read()
    assert sweep(spec, ingested) == []
    assert feature_sets.joined_rows(spec, storage).read().equals(before)


def test_old_batches_go_with_their_reports_and_what_others_see_stays(ingested: Settings):
    spec, storage = spec_of(14), Storage.of(ingested)
    assert sweep(spec, ingested) == list(WEEKS[:2])
    found = in_force(spec, ingested)
    assert found["joined"] == found["reports"] == list(WEEKS[2:])
    assert found["rows/batch"] == found["rows/weather"] == list(WEEKS)  # of 8 days, and a week more
    assert found["features/carrier_delays"] == list(WEEKS)
    assert not storage.list(f"flights/reports/partition={WEEKS[0]}")
    ingest(spec, ingested, WEEKS[3], flights_feed.flights_of(spec.batch_ref(WEEKS[3])).iloc[:-5])


def far_on(weeks: int) -> BatchRef:
    """Give a batch so long after the last one that what it sees of these is no more than one."""
    spec = spec_of(None)
    return spec.batch_ref(spec.partition_key(spec.batch_ref(WEEKS[-1]).start + weeks * WEEK))


def sweep_at(spec: ModelSpec, settings: Settings, batch: BatchRef) -> Sweep:
    return retention.sweep(
        spec, Storage.of(settings), batch, feature_tables=definitions.table_names(spec),
        reach=feature_sets.reach(spec), pinned=(),
    )  # fmt: skip


def test_what_no_kept_batch_sees_goes_too(ingested: Settings):
    # kept are 14 days, and seen 8 more by features, and two weeks by what these were made of
    sweep_at(spec_of(14), ingested, far_on(weeks=3))
    found = in_force(spec_of(14), ingested)
    assert found["joined"] == found["reports"] == []
    assert found["rows/batch"] == found["features/weather"] == list(WEEKS[1:])


def test_a_sweep_leaves_nothing_stale_and_nothing_to_join_again(ingested: Settings):
    # what was kept was joined again with emptier features, and a model learned from those
    spec, storage = spec_of(7), Storage.of(ingested)
    before = feature_sets.joined_rows(spec, storage).read(WEEKS[3:])
    sweep(spec, ingested)
    assert feature_sets.stale_batches(spec, storage, since=spec.partitions.first) == []
    request = request_retrain(spec, ingested, WEEKS[3])
    short = spec.model_copy(
        update={
            "training": spec.training.model_copy(update={"min_rows": 100}),
            "gate": spec.gate.model_copy(update={"duel_days": 3}),
        }
    )
    made = training_set.build_training_set(short, ingested, request)
    assert made.training_start >= spec.batch_ref(WEEKS[3]).start
    assert feature_sets.joined_rows(spec, storage).read().equals(before)


def test_a_view_without_a_time_to_live_keeps_rows_for_ever(ingested: Settings):
    spec = spec_of(7)
    retention.sweep(
        spec, Storage.of(ingested), far_on(weeks=40), feature_tables=definitions.table_names(spec),
        reach=None, pinned=(),
    )  # fmt: skip
    found = in_force(spec, ingested)
    assert found["joined"] == []
    assert found["rows/batch"] == found["features/weather"] == list(WEEKS)


def test_a_batch_that_was_refused_goes_with_all_that_was_kept_of_it(ingested: Settings):
    spec, storage = spec_of(14), Storage.of(ingested)
    broken = flights_feed.flights_of(spec.batch_ref(WEEKS[0])).drop(columns="carrier")
    assert validate(spec, ingested, WEEKS[0], broken).status == "refused"
    assert storage.list(f"flights/quarantine/partition={WEEKS[0]}")
    Table(storage, "flights/tables/rows/batch").drop([WEEKS[0]])  # as if it had never been good
    sweep(spec, ingested)
    assert not storage.list(f"flights/quarantine/partition={WEEKS[0]}")
    assert not storage.list(f"flights/reports/partition={WEEKS[0]}")


@pytest.mark.parametrize("step", range(12))
def test_a_sweep_that_was_killed_is_finished_by_the_next(ingested, monkeypatch, step: int):
    # what is old was asked of the table that went first, so a second sweep found nothing to do
    spec, batch, done = spec_of(7), far_on(weeks=6), []

    def dying(real):
        def method(*arguments, **named):
            if len(done) == step:
                raise KeyboardInterrupt
            done.append(1)
            return real(*arguments, **named)

        return method

    with monkeypatch.context() as patch:
        patch.setattr(Table, "drop", dying(Table.drop))
        patch.setattr(Storage, "delete", dying(Storage.delete))
        with pytest.raises(KeyboardInterrupt):
            sweep_at(spec, ingested, batch)
    sweep_at(spec, ingested, batch)
    assert set(map(tuple, in_force(spec, ingested).values())) == {()}


def test_superseded_files_stay_as_long_as_the_model_file_says(ingested: Settings):
    spec, storage = spec_of(None), Storage.of(ingested)
    sweep(spec, ingested)
    flights = flights_feed.flights_of(spec.batch_ref(WEEKS[3])).iloc[:-5]
    ingest(spec, ingested, WEEKS[3], flights)
    kept = small_spec(retention={"superseded_days": 7.0})
    before = storage.list("flights/tables")
    sweep(kept, ingested)
    data = [key for key in storage.list("flights/tables") if "_delta_log" not in key]
    assert data == [key for key in before if "_delta_log" not in key]


def test_what_a_registered_version_learned_from_stays_readable(ingested: Settings):
    spec, storage = spec_of(7), Storage.of(ingested)
    _, candidate = train(spec_of(None), ingested, WEEKS[2])
    names = list(spec.source.columns)
    before = training_set.training_rows(spec, storage, candidate.training_set, names)
    digest = training_set.digest_of(spec, storage, candidate.training_set)
    ingest(spec, ingested, WEEKS[1], flights_feed.flights_of(spec.batch_ref(WEEKS[1])).iloc[:-50])
    assert sweep(spec, ingested) == list(WEEKS[:3])
    found = training_set.training_rows(spec, storage, candidate.training_set, names)
    assert found.equals(before)
    assert training_set.digest_of(spec, storage, candidate.training_set) == digest


def test_superseded_files_are_removed(ingested: Settings):
    spec, storage = spec_of(None), Storage.of(ingested)
    sweep(spec, ingested)

    def size() -> int:
        return len([key for key in storage.list("flights/tables") if key.endswith(".parquet")])

    before = size()
    for rows in (5, 10, 15):
        flights = flights_feed.flights_of(spec.batch_ref(WEEKS[3])).iloc[:-rows]
        ingest(spec, ingested, WEEKS[3], flights)
    assert size() > before
    sweep(spec, ingested)
    data = [key for key in storage.list("flights/tables") if "_rt_partition" in key]
    in_force = [
        part.files[0]
        for kind in ("rows/batch", "joined")
        for part in publication.Table(storage, f"flights/tables/{kind}").snapshot().parts.values()
    ]
    assert len([key for key in data if "/rows/batch/" in key or "/joined/" in key]) == len(in_force)


@pytest.mark.parametrize(
    ("every", "start", "due"),
    [
        ("hour", "2024-01-02T00", True),
        ("hour", "2024-01-02T01", False),
        ("day", "2024-01-01", True),
        ("day", "2024-01-02", False),
        ("week", "2024-01-02", True),
    ],
)
def test_a_sweep_is_due_once_in_a_while(every, start, due):
    parts = small_spec().partitions.model_copy(
        update={"every": every, "first": dt.datetime(2024, 1, 2, tzinfo=dt.UTC), "last": None}
    )
    if start == "2024-01-01":
        parts = parts.model_copy(update={"first": dt.datetime(2024, 1, 1, tzinfo=dt.UTC)})
    spec = small_spec().model_copy(update={"partitions": parts})
    assert retention.is_due(spec, spec.batch_ref(start)) == due
