"""Makes a `TrainingSet`: point-in-time rows to learn from, and later ones for the duel."""

from __future__ import annotations

import datetime as dt
import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining import shelf
from include.retraining.errors import DataError
from include.retraining.features import feature_sets as features
from include.retraining.learning.rows import (
    between,
    feature_frame,
    labels,
    oldest_row,
    split_times,
)
from include.retraining.records import DriftReport, RetrainRequest, TrainingSet
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, sha256

log = logging.getLogger(__name__)

LABEL = "_label"


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
        start -= spec.partitions.length
    return found


def _window_start(
    spec: ModelSpec,
    storage: Storage,
    request: RetrainRequest,
    rows: pa.Table,
    duel_start: dt.datetime,
) -> dt.datetime | None:
    """Give the moment from which on rows train, as `training.window` says; None: all history.

    Since-drift windows reach further back where they would hold less than `training.min_rows`.
    """
    if spec.training.window != "since_drift":
        return oldest_row(spec, duel_start)
    since = drift_start(spec, storage, request)
    if since is None:
        log.info("%s has not drifted: all history trains", request.batch.partition)
        return None
    known = ~np.isnan(labels(spec, rows, known_at=duel_start))
    times = np.sort(rows.column(spec.source.event_time).filter(pa.array(known)).to_numpy())
    if len(times) < spec.training.min_rows:
        return None
    enough: dt.datetime = times[-spec.training.min_rows].astype("datetime64[us]").item()
    return min(since, enough.replace(tzinfo=dt.UTC))


def build_training_set(spec: ModelSpec, settings: Settings, request: RetrainRequest) -> TrainingSet:
    """Join every published row up to the request's batch with its features as of its own time.

    A row trains only if its label was mature when the duel window began, and duels only if it is
    mature at the batch's end.

    Raises
    ------
    DataError
        Too few labelled rows, only one label among them, or a feature without any value.
    """
    storage = Storage.of(settings)
    duel_start, duel_end = split_times(spec, request.batch)
    earliest = oldest_row(spec, duel_start)
    batches = [
        batch
        for batch in features.published_partitions(spec, storage)
        if batch.start <= request.batch.start and (earliest is None or batch.end > earliest)
    ]
    if not batches:
        raise DataError(
            f"{spec.model}: no published batch up to {request.batch.partition}; ingest one first"
        )
    reports = [features.require_published(spec, storage, batch.partition) for batch in batches]
    rows = pa.concat_tables([storage.read_table(report.files["batch"]) for report in reports])
    oldest = _window_start(spec, storage, request, rows, duel_start)
    rows = between(spec, rows, oldest)
    joined = features.join(spec, settings, rows)
    if joined.num_rows != rows.num_rows:
        raise DataError(
            f"the join gave {joined.num_rows} rows for {rows.num_rows}; none may be lost"
        )

    training = between(spec, joined, None, duel_start)
    training = training.append_column(LABEL, pa.array(labels(spec, training, known_at=duel_start)))
    duel = between(spec, joined, duel_start, duel_end)
    duel = duel.append_column(LABEL, pa.array(labels(spec, duel, known_at=request.batch.end)))
    known = training.column(LABEL).to_numpy()
    known = known[~np.isnan(known)]
    duel = duel.filter(pc.invert(pc.is_nan(duel.column(LABEL))))
    check_learnable(spec, training)

    folder = shelf.incident_folder(spec.model, request.incident_id)
    training_set = TrainingSet(
        incident_id=request.incident_id,
        model=spec.model,
        training_key=f"{folder}/training.parquet",
        training_rows=len(known),
        training_start=max(filter(None, (batches[0].start, oldest))),
        training_end=duel_start,
        duel_key=f"{folder}/duel.parquet",
        duel_rows=duel.num_rows,
        duel_start=duel_start,
        duel_end=duel_end,
        unlabelled_rows=joined.num_rows - len(known) - duel.num_rows,
        sha256=sha256(
            storage.write_table(f"{folder}/training.parquet", training).encode(),
            storage.write_table(f"{folder}/duel.parquet", duel).encode(),
        ),
    )
    shelf.keep(storage, training_set)
    return training_set


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
        raise DataError(
            f"{spec.model}: no value in any of {labelled.num_rows} training rows: "
            f"{', '.join(empty)}. Mend features.tables or the source, or take the feature out of "
            "the model file"
        )


def training_rows(storage: Storage, training_set: TrainingSet) -> pa.Table:
    """Give the rows to learn from, with their label as `LABEL`."""
    return storage.read_table(training_set.training_key)


def duel_rows(storage: Storage, training_set: TrainingSet) -> pa.Table:
    """Give the rows of the duel, with their label as `LABEL`."""
    return storage.read_table(training_set.duel_key)
