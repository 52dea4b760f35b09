"""Retention removes what is old or superseded, and nothing that a model learned from."""

from __future__ import annotations

import datetime as dt

import pytest

from include.demo import flights_feed
from include.retraining.data import publication
from include.retraining.features import feature_sets, retention
from include.retraining.retrain import training_set
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from tests.unit.pipeline import WEEKS, ingest, small_spec, train

HOUR = dt.timedelta(hours=1)


def spec_of(days: float | None) -> ModelSpec:
    # a test has no time to wait for a day
    return small_spec(retention={"days": days, "superseded_days": 0.0})


def sweep(spec: ModelSpec, settings: Settings) -> list[str]:
    pinned = training_set.pinned_versions(spec, settings)
    batch = spec.batch_ref(WEEKS[-1])
    return list(retention.sweep(spec, Storage.of(settings), batch, pinned=pinned).partitions)


def test_nothing_in_force_is_removed_unless_it_is_asked_for(ingested: Settings):
    spec, storage = spec_of(None), Storage.of(ingested)
    before = feature_sets.joined_rows(spec, storage).read()
    assert sweep(spec, ingested) == []
    assert feature_sets.joined_rows(spec, storage).read().equals(before)


def test_old_batches_go_with_their_reports_and_the_rest_stays(ingested: Settings):
    spec, storage = spec_of(14), Storage.of(ingested)
    assert sweep(spec, ingested) == list(WEEKS[:2])
    found = publication.published_partitions(spec, storage)
    assert [one.partition for one in found] == list(WEEKS[2:])
    assert list(feature_sets.joined_rows(spec, storage).parts) == list(WEEKS[2:])
    assert not storage.list(f"flights/reports/partition={WEEKS[0]}")
    assert storage.list(f"flights/reports/partition={WEEKS[2]}")
    assert sweep(spec, ingested) == []
    ingest(spec, ingested, WEEKS[3], flights_feed.flights_of(spec.batch_ref(WEEKS[3])).iloc[:-5])


def test_what_a_registered_version_learned_from_stays_readable(ingested: Settings):
    spec, storage = spec_of(7), Storage.of(ingested)
    _, candidate = train(spec, ingested, WEEKS[2])
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
