"""Makes a `TrainingSet`: point-in-time rows to learn from, and later ones for the duel."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining import shelf
from include.retraining.data import broken_feeds
from include.retraining.data.outcomes import (
    complete_by,
    needed_for_labels,
    outcomes_of,
    partitions_of,
    with_outcomes,
)
from include.retraining.data.publication import batches_of
from include.retraining.data.tables import Snapshot
from include.retraining.errors import DataError, RegistryError
from include.retraining.features import definitions, feature_sets
from include.retraining.learning.metrics import Floats
from include.retraining.learning.rows import (
    between,
    feature_frame,
    labels,
    oldest_row,
    split_times,
)
from include.retraining.names import OWN
from include.retraining.records import BatchRef, DriftReport, RetrainRequest, TrainingSet
from include.retraining.registry import ledger, server, versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, sha256

log = logging.getLogger(__name__)

LABEL = f"{OWN}label"


def drift_start(spec: ModelSpec, storage: Storage, request: RetrainRequest) -> dt.datetime | None:
    """Give the start of the first batch of the drift that has lasted until the request's batch.

    A batch drifted if a feature that is not declared as `drift.expected`, or the champion's
    predictions, went beyond their threshold. None where the request's own batch did not.
    """
    found = None
    start = request.batch.start
    while start >= spec.partitions.first:
        report = shelf.find(storage, DriftReport, spec.model, spec.partition_key(start))
        if report is None or report.champion_version != request.champion_version:
            break
        columns = report.columns
        if not any(column.drifted and not column.expected for column in columns):
            break
        found = start
        start = spec.partitions.step(start, -1)
    return found


def _window_start(
    spec: ModelSpec,
    storage: Storage,
    request: RetrainRequest,
    rows: pa.Table,
    known: Floats,
) -> dt.datetime | None:
    """Give the moment from which on rows train, as `training.window` says; None: all history.

    Since-drift windows reach further back where they would hold less than `training.min_rows`.
    """
    if spec.training.window != "since_drift":
        return oldest_row(spec, split_times(spec, request.batch)[0])
    since = drift_start(spec, storage, request)
    if since is None:
        log.info("%s has not drifted: all history trains", request.batch.partition)
        return None
    is_known = pa.array(~np.isnan(known))
    times = np.sort(rows.column(spec.source.event_time).filter(is_known).to_numpy())
    if len(times) < spec.training.min_rows:
        return None
    enough: dt.datetime = times[-spec.training.min_rows].astype("datetime64[us]").item()
    return min(since, enough.replace(tzinfo=dt.UTC))


def build_training_set(spec: ModelSpec, settings: Settings, request: RetrainRequest) -> TrainingSet:
    """Name the published rows up to the request's batch, each with its features as of its own time.

    A row trains only if its label was mature when the duel window began, and duels only if it is
    mature at the batch's end. The rows stay where they are: the set names the version of their
    table, which is kept as long as a version that learned from it is registered.

    Raises
    ------
    DataError
        Too few labelled rows, only one label among them, or a feature without any value.
    """
    storage = Storage.of(settings)
    batch = request.batch
    duel_start, duel_end = split_times(spec, batch)
    earliest = oldest_row(spec, duel_start) or spec.partitions.first
    stale = feature_sets.stale_batches(
        spec, storage, since=earliest - spec.partitions.length, until=batch.end, with_missing=True
    )
    if stale:  # no batch may have been ingested since the model file named another service
        definitions.apply_definitions(spec, settings)
    for one in stale:
        if one.end > earliest:  # what is before it may have been removed
            feature_sets.join_anew(spec, settings, one)
    snapshot = feature_sets.joined_rows(spec, storage)
    outcomes = outcomes_of(spec, storage)
    parts = _parts(spec, snapshot, batch, earliest)
    broken = set(broken_feeds.left_out(storage, spec.model))
    left_out = tuple(name for name in parts if name in broken)
    parts = [name for name in parts if name not in broken]
    if not parts:
        why = f" whose feed did not break ({', '.join(left_out)} did)" if left_out else ""
        raise DataError(
            f"{spec.model}: no published batch up to {batch.partition}{why}; ingest one first"
        )
    every = snapshot.read(parts, needed_for_labels(spec, outcomes, snapshot))
    before = with_outcomes(spec, outcomes, every, known_at=duel_start, delivered_by=batch.end)
    first = spec.batch_ref(parts[0]).start
    known_before = labels(spec, before, known_at=complete_by(outcomes, duel_start))
    start = max(first, _window_start(spec, storage, request, before, known_before) or first)
    training = between(spec, before, start, duel_start)
    duel = with_outcomes(
        spec, outcomes, between(spec, every, max(start, duel_start), duel_end), known_at=batch.end
    )
    known = int(
        (~np.isnan(labels(spec, training, known_at=complete_by(outcomes, duel_start)))).sum()
    )
    duelling = int((~np.isnan(labels(spec, duel, known_at=complete_by(outcomes, batch.end)))).sum())
    training_set = TrainingSet(
        incident_id=request.incident_id,
        model=spec.model,
        partition=batch.partition,
        table_version=snapshot.version,
        training_rows=known,
        training_start=start,
        training_end=duel_start,
        duel_rows=duelling,
        duel_start=duel_start,
        duel_end=duel_end,
        unlabelled_rows=between(spec, every, start).num_rows - known - duelling,
        left_out=left_out,
        outcomes_version=outcomes.table.version if outcomes else None,
        sha256="",
    )
    digest = digest_of(spec, storage, training_set)
    training_set = training_set.model_copy(update={"sha256": digest})
    check_learnable(spec, training_rows(spec, storage, training_set))
    shelf.keep(storage, training_set)
    return training_set


def digest_of(spec: ModelSpec, storage: Storage, training_set: TrainingSet) -> str:
    """Give the digest of a training set: of its data files as they are now, and of the cuts."""
    found = training_set
    snapshot = feature_sets.joined_rows(spec, storage, found.table_version)
    batch = spec.batch_ref(found.partition)
    times = (found.training_start, found.training_end, found.duel_start, found.duel_end)
    return sha256(
        spec.label.model_dump_json().encode(),
        *(time.isoformat().encode() for time in times),
        snapshot.digest(
            _parts(spec, snapshot, batch, found.training_start, found.left_out)
        ).encode(),
        *_digest_of_outcomes(spec, storage, found),
    )


def _digest_of_outcomes(
    spec: ModelSpec, storage: Storage, training_set: TrainingSet
) -> Iterator[bytes]:
    found = training_set
    outcomes = outcomes_of(spec, storage, found.outcomes_version)
    if outcomes is not None:
        until = spec.batch_ref(found.partition).end
        names = partitions_of(outcomes, since=found.training_start, until=until)
        yield outcomes.table.digest(names).encode()


def _parts(
    spec: ModelSpec,
    snapshot: Snapshot,
    batch: BatchRef,
    start: dt.datetime,
    left_out: Collection[str] = (),
) -> list[str]:
    """Give the partitions up to a batch that may hold rows from a moment on, oldest first."""
    return [
        one.partition
        for one in batches_of(spec, snapshot, since=start - spec.partitions.length, until=batch.end)
        if one.end > start and one.partition not in left_out
    ]


def check_learnable(spec: ModelSpec, training: pa.Table) -> None:
    """Refuse rows that nothing can be learned from, with what to do; raises DataError."""
    labelled = training.filter(pc.invert(pc.is_nan(training.column(LABEL))))
    if labelled.num_rows < spec.training.min_rows:
        raise DataError(
            f"{spec.model}: {labelled.num_rows} rows with mature labels, training.min_rows is "
            f"{spec.training.min_rows}; wait for more batches, or lower it"
        )
    found = pc.unique(labelled.column(LABEL)).to_pylist()
    if len(found) < 2:
        one = spec.label.classes[int(found[0])] if spec.label.classes else f"{found[0]:g}"
        need = "values that differ" if spec.label.task == "regression" else "two classes or more"
        raise DataError(
            f"{spec.model}: all {labelled.num_rows} labels are {one}; {spec.label.task} needs "
            f"{need}. Check label.column {spec.label.column!r} at the source"
        )
    missing = [name for number, name in enumerate(spec.label.classes) if number not in found]
    if missing:
        log.warning("no training row is of class %s: it will never be predicted", missing)
    frame = feature_frame(spec, labelled)
    if empty := [name for name in spec.features.names if frame[name].isna().all()]:
        where = "the source" if spec.features.is_inline else "features.tables or the source"
        raise DataError(
            f"{spec.model}: no value in any of {labelled.num_rows} training rows: "
            f"{', '.join(empty)}. Mend {where}, or take the feature out of "
            "the model file"
        )


def pinned_versions(spec: ModelSpec, settings: Settings) -> list[int]:
    """Give the versions of the table of joined rows that `pinned` names."""
    return sorted({one.table_version for one in pinned(spec, settings)})


def pinned(spec: ModelSpec, settings: Settings) -> list[TrainingSet]:
    """Give what registered models learned from.

    Where the model file has `retention.versions`: that so many of the newest did, those that have
    an alias, and the last two that were put into production.

    Raises
    ------
    DataError
        What one of ours learned from is not known any more.
    """
    storage = Storage.of(settings)
    registered = versions.all_versions(spec, settings)
    if (newest := spec.retention.versions) is not None:
        entries = ledger.read(storage, spec.model)[-2:]
        crowned = {one.version for one in entries} | {one.previous_version for one in entries}
        crowned |= set(server.aliases(spec, settings).values())
        registered = registered[:newest] + [
            one for one in registered[newest:] if one.number in crowned
        ]
    return [_learned_from(spec, settings, one) for one in registered if one.incident_id]


def _learned_from(spec: ModelSpec, settings: Settings, version: versions.Version) -> TrainingSet:
    """Give what a version of ours learned from: as kept, else as it is kept beside the model."""
    found = shelf.find(Storage.of(settings), TrainingSet, spec.model, version.incident_id)
    if found is not None:
        return found
    try:
        content = versions.run_artifact(settings, version, shelf.TRAINING_SET_ARTIFACT)
        return TrainingSet.model_validate_json(content)
    except (RegistryError, ValueError) as error:
        key = shelf.key_of(TrainingSet, spec.model, version.incident_id)
        raise DataError(
            f"{spec.model} version {version.number}: nothing says any more which rows it learned "
            f"from ({key} and {shelf.TRAINING_SET_ARTIFACT} of its run are not there), so nothing "
            "is removed. Restore one of them, or delete the version in MLflow, then clear the task"
        ) from error


def training_rows(
    spec: ModelSpec,
    storage: Storage,
    training_set: TrainingSet,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Give the rows to learn from, with their label as `LABEL`: NaN where it was not mature.

    Parameters
    ----------
    columns : sequence of str, optional
        All, unless named; then without the label.
    """
    start, end = training_set.training_start, training_set.training_end
    return _cut(spec, storage, training_set, start, end, columns=columns, known_at=end)


def duel_rows(spec: ModelSpec, storage: Storage, training_set: TrainingSet) -> pa.Table:
    """Give the rows of the duel, those with a mature label, with it as `LABEL`."""
    start, end = training_set.duel_start, training_set.duel_end
    known_at = spec.batch_ref(training_set.partition).end
    rows = _cut(spec, storage, training_set, start, end, columns=None, known_at=known_at)
    return rows.filter(pc.invert(pc.is_nan(rows.column(LABEL))))


def _cut(
    spec: ModelSpec,
    storage: Storage,
    training_set: TrainingSet,
    start: dt.datetime,
    end: dt.datetime,
    *,
    columns: Sequence[str] | None,
    known_at: dt.datetime,
) -> pa.Table:
    snapshot = feature_sets.joined_rows(spec, storage, training_set.table_version)
    batch = spec.batch_ref(training_set.partition)
    parts = _parts(spec, snapshot, batch, start, training_set.left_out)
    parts = [name for name in parts if spec.batch_ref(name).start < end]
    time = spec.source.event_time
    asked = None if columns is None else list(dict.fromkeys([*columns, time]))
    rows = between(spec, snapshot.read(parts, asked), start, end)
    if columns is not None:
        return rows.select(list(columns))
    outcomes = outcomes_of(spec, storage, training_set.outcomes_version)
    until = spec.batch_ref(training_set.partition).end
    rows = with_outcomes(spec, outcomes, rows, known_at=known_at, delivered_by=until)
    known = labels(spec, rows, known_at=complete_by(outcomes, known_at))
    return rows.append_column(LABEL, pa.array(known))
