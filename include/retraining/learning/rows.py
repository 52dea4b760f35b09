"""Labels that can no longer change, cuts by event time, and the frame that a model is given."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining.errors import DataError
from include.retraining.learning.metrics import Floats
from include.retraining.records import BatchRef
from include.retraining.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd


def labels(spec: ModelSpec, rows: pa.Table, *, known_at: dt.datetime | None = None) -> Floats:
    """Give the label of each row, or NaN while it is unknown or could still change.

    Parameters
    ----------
    rows : Table
        With the label column and the event time.
    known_at : datetime, optional
        A label counts only if it is mature by then; without, all that are there count.

    Returns
    -------
    ndarray of shape (n_rows,)
        Binary: 0 or 1. Multiclass: the number of the class in `label.classes`. Regression: the
        value.

    Raises
    ------
    DataError
        The column holds what is no label: a class that is not declared, or, binary without
        `label.at_least`, something else than 0 and 1.
    """
    column = rows.column(spec.label.column)
    is_class = spec.label.task == "multiclass"
    values = _class_numbers(spec, column) if is_class else as_floats(column)
    if spec.label.at_least is not None:
        values = np.where(
            np.isnan(values), np.nan, (values >= spec.label.at_least).astype("float64")
        )
    elif spec.label.task == "binary" and (
        strange := set(values[~np.isnan(values)].tolist()) - {0.0, 1.0}
    ):
        raise DataError(
            f"label.column {spec.label.column!r} must hold 0 and 1, got {sorted(strange)[:3]}; "
            "mend the source, or set label.at_least to the value from which on the label is 1"
        )
    elif np.isinf(values).any():
        raise DataError(
            f"label.column {spec.label.column!r} must hold finite numbers, got "
            f"{int(np.isinf(values).sum())} infinite ones; mend the source"
        )
    if known_at is not None:
        maturity = dt.timedelta(days=spec.label.maturity_days)
        latest = np.datetime64((known_at - maturity).astimezone(dt.UTC).replace(tzinfo=None), "us")
        times = (
            rows.column(spec.source.event_time)
            .to_numpy(zero_copy_only=False)
            .astype("datetime64[us]")
        )
        values = np.where(times < latest, values, np.nan)
    return values


def _class_numbers(spec: ModelSpec, column: pa.ChunkedArray) -> Floats:
    numbers = {str(name): float(number) for number, name in enumerate(spec.label.classes)}
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    found = column.combine_chunks().dictionary_encode()
    names = [
        f"{value:.0f}" if isinstance(value, float) else str(value)
        for value in found.dictionary.to_pylist()
    ]
    if strange := sorted(set(names) - set(numbers)):
        raise DataError(
            f"label.column {spec.label.column!r} holds {strange[:3]}, allowed are label.classes "
            f"{list(numbers)}; mend the source, or add the class and retrain"
        )
    return as_floats(pa.array([numbers[name] for name in names], pa.float64()).take(found.indices))


def between(
    spec: ModelSpec, rows: pa.Table, start: dt.datetime | None, end: dt.datetime | None = None
) -> pa.Table:
    """Give the rows with event times in ``[start, end)``; None leaves a side open."""
    times = rows.column(spec.source.event_time)
    inside = pa.scalar(True)
    if start is not None:
        inside = pc.and_(inside, pc.greater_equal(times, pa.scalar(start, times.type)))
    if end is not None:
        inside = pc.and_(inside, pc.less(times, pa.scalar(end, times.type)))
    return rows.filter(inside) if start or end else rows


def feature_frame(spec: ModelSpec, rows: pa.Table) -> pd.DataFrame:
    """Give the model's input: its features in order, numbers as float64, categories as objects.

    A category keeps the value it has in the table: a whole number stays one where others are
    missing. A missing number is NaN, a missing category None. Where the model is served elsewhere,
    the column with its predictions is the last one.
    """
    import pandas as pd

    columns = {name: as_floats(rows.column(name)) for name in spec.features.numeric}
    columns |= {name: _as_objects(rows.column(name)) for name in spec.features.categorical}
    if spec.predictions is not None:
        name = spec.predictions.column
        columns[name] = as_floats(rows.column(name))
        return pd.DataFrame(columns, columns=[*spec.features.names, name])
    return pd.DataFrame(columns, columns=list(spec.features.names))


def as_floats(column: pa.ChunkedArray | pa.Array) -> Floats:
    """Give a column of numbers as float64, NaN where one is missing."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    # not safe: a model computes in floats, and takes the nearest one to a large whole number
    found: Floats = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found


def _as_objects(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Give values as Python objects, each different one once in memory."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.combine_chunks()
    values = np.empty(len(whole.dictionary) + 1, dtype=object)
    values[:-1] = whole.dictionary.to_pylist()
    values[-1] = None
    found: np.ndarray[Any, Any] = values[
        whole.indices.fill_null(len(whole.dictionary)).to_numpy(zero_copy_only=False)
    ]
    return found


def split_times(spec: ModelSpec, batch: BatchRef) -> tuple[dt.datetime, dt.datetime]:
    """Give start and end of the duel window, the newest label-mature days; training ends before."""
    duel_end = batch.end - dt.timedelta(days=spec.label.maturity_days)
    return duel_end - dt.timedelta(days=spec.gate.duel_days), duel_end


def oldest_row(spec: ModelSpec, duel_start: dt.datetime) -> dt.datetime | None:
    """Give the moment from which on rows train; None: all history.

    A rolling window begins there, and retention keeps what is after it.
    """
    found = []
    if spec.training.max_days is not None:
        found.append(duel_start - dt.timedelta(days=spec.training.max_days))
    if spec.retention.days is not None:
        after = spec.gate.duel_days + spec.label.maturity_days  # until the end of the batch
        found.append(duel_start + dt.timedelta(days=after - spec.retention.days))
    return max(found, default=None)
