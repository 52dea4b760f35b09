"""Retention removes what is old or superseded, and nothing that a model learned from."""

from __future__ import annotations

import datetime as dt
import os
import time
from functools import partial
from pathlib import Path

import pytest

from benchmarks import history
from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.data import publication, retention, tables
from include.retraining.data.outcomes import missing_until, outcomes_of
from include.retraining.data.tables import Table
from include.retraining.errors import DataError
from include.retraining.features import definitions, feature_sets
from include.retraining.records import BatchRef, Sweep, TrainingSet
from include.retraining.registry import server, versions
from include.retraining.retrain import training_set
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from include.retraining.telling import drift_report
from tests.unit.data.test_outcomes import deliver, line, moment
from tests.unit.data.test_outcomes import spec_of as outcome_spec
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
        pinned=training_set.pinned(spec, settings),
        forget=partial(drift_report.remove_reports, spec, settings),
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
        reach=feature_sets.reach(spec), pinned=(), forget=lambda names: None,
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
        reach=None, pinned=(), forget=lambda names: None,
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


def test_of_many_versions_those_keep_their_rows_that_may_be_needed(ingested: Settings):
    spec = small_spec(retention={"versions": 1})
    first, second = (train(spec, ingested, week)[1].training_set for week in WEEKS[2:4])
    assert first.table_version == second.table_version  # nothing was published in between
    storage = Storage.of(ingested)
    # as if a batch had been published after the first
    moved = second.model_copy(update={"table_version": second.table_version + 1})
    shelf.keep(storage, moved)
    all_of_them = [first.table_version, moved.table_version]
    assert training_set.pinned_versions(spec_of(None), ingested) == all_of_them
    assert training_set.pinned_versions(spec, ingested) == [moved.table_version]
    server.set_alias(spec, ingested, "champion", 1)
    assert training_set.pinned_versions(spec, ingested) == all_of_them


def test_what_mlflow_holds_of_old_batches_goes_with_their_records(ingested: Settings):
    spec = spec_of(14)
    for week in WEEKS:
        tags = {"retraining.kind": "monitor", "retraining.partition": week}
        with server.run_of(spec, ingested, name=week, tags=tags, same=tuple(tags)):
            pass
    assert sweep(spec, ingested) == list(WEEKS[:2])
    runs = [server.finished_run(spec, ingested, {"retraining.partition": one}) for one in WEEKS]
    assert [run is None for run in runs] == [True, True, False, False]


def test_what_killed_writers_left_half_written_goes_once_it_is_a_day_old(ingested: Settings):
    storage, now = Storage.of(ingested), time.time()
    folder = Path(storage.url_of("flights/reports/partition=2013-01-07").removeprefix("file://"))
    for number, hours in enumerate((25, 23)):
        half = folder / f".drift.json.{number:032x}.tmp"
        half.write_bytes(b"{")
        os.utime(half, (now - hours * 3600,) * 2)
    for name in (".notes.tmp", "a.tmp"):
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (0, 0))
    before = set(folder.iterdir())
    sweep(spec_of(None), ingested)
    assert before - set(folder.iterdir()) == {folder / f".drift.json.{0:032x}.tmp"}


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


@pytest.mark.parametrize(("every", "due"), [("hour", 24), ("day", 7), ("week", 1)])
def test_a_sweep_is_due_once_in_a_while_and_hangs_on_no_hour_or_weekday(storage, every, due):
    # a feed of shop hours, or a Monday that was refused, meant no sweep ever
    spec = history.spec_of(every)
    first = spec.partitions.first + 9 * spec.partitions.length  # a Wednesday, nine o'clock

    def at(number: int) -> BatchRef:
        return spec.batch_ref(spec.partition_key(first + number * spec.partitions.length))

    def is_due(number: int) -> bool:
        return retention.is_due(spec, storage, at(number))

    assert is_due(0)
    done = retention.sweep(
        spec, storage, at(0), feature_tables=(), reach=None, pinned=(), forget=lambda names: None
    )
    assert shelf.find_sweep(storage, spec.model) == done
    assert not is_due(0)
    assert not is_due(-1)  # of a backfill
    assert [is_due(due - 1), is_due(due), is_due(due + 5)] == [False, True, True]


def outcome_files(storage: Storage) -> set[str]:
    return {key for key in storage.list("history/outcomes") if "_delta_log" not in key}


def sweep_of_outcomes(
    spec: ModelSpec, storage: Storage, day: int, *pinned: TrainingSet, days: float | None = None
) -> Sweep:
    kept = spec.retention.model_copy(update={"days": days, "superseded_days": 0.0})
    spec = spec.model_copy(update={"retention": kept})
    batch = spec.batch_ref(spec.partition_key(moment(day)))
    return retention.sweep(
        spec, storage, batch, feature_tables=(), reach=None, pinned=pinned, forget=lambda _: None
    )


def learned(version: int) -> TrainingSet:
    return TrainingSet.model_construct(table_version=0, outcomes_version=version)


def test_superseded_outcomes_are_removed_unless_a_training_set_read_them(storage):
    # the feed of outcomes was never swept, and nothing kept what a training set had read
    spec = outcome_spec()
    for y in (0, 1, 0, 1):
        deliver(spec, storage, 0, line(7, y, 0))
        deliver(spec, storage, 1, line(8, y, 1))
    table = Table(storage, "history/outcomes/tables/rows/batch")
    before = table.snapshot(2).read()
    sweep_of_outcomes(spec, storage, 3, learned(2))
    data = [key for key in outcome_files(storage) if key.endswith(".parquet")]
    assert len([key for key in data if "/rows/" in key]) == 4  # two in force, two in version 2
    tables._forget()
    assert table.snapshot(2).read().equals(before)
    assert outcomes_of(spec, storage, 2).table.read().equals(before)
    sweep_of_outcomes(spec, storage, 3)
    assert len([key for key in outcome_files(storage) if "/rows/" in key]) == 2


def test_outcomes_stay_as_long_as_a_kept_batch_can_need_them(storage):
    spec = outcome_spec()  # mature after 2 days
    for day in range(12):
        deliver(spec, storage, day, line(day, 1, day))
    assert outcomes_of(spec, storage).until == moment(12)
    assert sweep_of_outcomes(spec, storage, 11).outcomes == ()  # only where retention.days is set
    # batches of day 7 and later are kept; those of day 6 ended 5 days before the newest did
    done = sweep_of_outcomes(spec, storage, 11, days=5)
    # what was known by the end of day 6 says nothing of day 7; and two days more
    assert done.outcomes == tuple(f"2024-01-0{day}" for day in (1, 2, 3, 4))
    assert not any("2024-01-04" in key for key in outcome_files(storage))
    assert any("reports/partition=2024-01-05" in key for key in outcome_files(storage))
    # and nothing that was removed counts as missing
    assert outcomes_of(spec, storage).until == moment(12)
    assert missing_until(outcomes_of(spec, storage), moment(12)) == []
    tables._forget()
    assert outcomes_of(spec, storage).until == moment(12)
    # nor does one that is delivered once more
    deliver(spec, storage, 1, line(1, 0, 1))
    assert outcomes_of(spec, storage).until == moment(12)
    assert sweep_of_outcomes(spec, storage, 11, days=5).outcomes == ("2024-01-02",)
    deliver(spec, storage, 13, line(13, 1, 13))
    assert outcomes_of(spec, storage).until == moment(12)  # one is missing


def test_no_pin_is_dropped_where_a_record_is_gone(trained: Settings):
    spec, storage = spec_of(None), Storage.of(trained)
    before = training_set.pinned_versions(spec, trained)
    version = versions.all_versions(spec, trained)[0]
    key = shelf.key_of(TrainingSet, "flights", version.incident_id)
    content = storage.read(key)
    storage.delete(key)
    assert training_set.pinned_versions(spec, trained) == before  # beside the model, too
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shelf, "TRAINING_SET_ARTIFACT", "gone.json")
        with pytest.raises(DataError, match="nothing says any more"):
            training_set.pinned_versions(spec, trained)
        storage.write(key, content)
        assert training_set.pinned_versions(spec, trained) == before
