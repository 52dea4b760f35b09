"""How well a model version really did: labels that can no longer change, joined with its scores."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining.errors import DataError, ScoringError
from include.retraining.learning import metrics
from include.retraining.records import Performance
from include.retraining.registry import succession as registry
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd


def labels(
    spec: ModelSpec, rows: pa.Table, *, known_at: dt.datetime | None = None
) -> metrics.Floats:
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
    if spec.label.task == "multiclass":
        values = _class_numbers(spec, column)
    else:
        values = column.to_numpy(zero_copy_only=False).astype("float64")
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


def _class_numbers(spec: ModelSpec, column: pa.ChunkedArray) -> metrics.Floats:
    numbers = {str(name): float(number) for number, name in enumerate(spec.label.classes)}
    # a column of integers with gaps has become one of floats on its way
    names = {
        value: f"{value:.0f}" if isinstance(value, float) else str(value)
        for value in column.to_pandas().dropna().unique().tolist()
    }
    if strange := sorted(set(names.values()) - set(numbers)):
        raise DataError(
            f"label.column {spec.label.column!r} holds {strange[:3]}, allowed are label.classes "
            f"{list(numbers)}; mend the source, or add the class and retrain"
        )
    found = column.to_pandas().map({value: numbers[name] for value, name in names.items()})
    values: metrics.Floats = found.to_numpy("float64", na_value=np.nan)
    return values


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
    """Give the model's input: its features in order, numbers as float64, categories as objects."""
    frame: pd.DataFrame = rows.select(list(spec.features.names)).to_pandas()
    for name in spec.features.numeric:
        frame[name] = frame[name].astype("float64")
    for name in spec.features.categorical:
        frame[name] = frame[name].astype("object").where(frame[name].notna(), None)
    return frame


def score(spec: ModelSpec, settings: Settings, number: int, rows: pa.Table) -> metrics.Floats:
    """Score rows with a registered version; raises ScoringError where that is not possible."""
    found = registry.version(spec, settings, number)
    if found.features and set(found.features) != set(spec.features.names):
        gone = sorted(set(found.features) - set(spec.features.names))
        new = sorted(set(spec.features.names) - set(found.features))
        raise ScoringError(
            f"{spec.model} version {number} was trained with other features (gone: {gone}, new: "
            f"{new}); restore them in the model file, or retrain with force"
        )
    return predict(spec, registry.load_model(spec, settings, number), rows)


def predict(spec: ModelSpec, model: Any, rows: pa.Table) -> metrics.Floats:
    """Give the model's prediction of each row; ScoringError on anything but finite numbers.

    Returns
    -------
    ndarray of shape (n_rows,) or (n_rows, n_classes)
        Binary: probability of 1. Multiclass: probability of each of `label.classes`. Regression:
        predicted value.
    """
    return predict_frame(spec, model, feature_frame(spec, rows))


def predict_frame(spec: ModelSpec, model: Any, frame: pd.DataFrame) -> metrics.Floats:
    """Give the prediction for rows of `feature_frame`, as `predict` does."""
    several = spec.label.task == "multiclass"
    if frame.empty:
        return np.empty((0, len(spec.label.classes)) if several else 0)
    try:
        if spec.label.task == "regression":
            scores = np.asarray(model.predict(frame), dtype=np.float64)
        elif several:  # a class that no training row had has no column
            scores = np.zeros((len(frame), len(spec.label.classes)))
            scores[:, np.asarray(model.classes_, dtype=np.intp)] = model.predict_proba(frame)
        else:
            scores = np.asarray(model.predict_proba(frame)[:, 1], dtype=np.float64)
    except Exception as error:  # whatever a model of another library raises
        raise ScoringError(f"the model cannot score these rows: {error}") from error
    finite = np.isfinite(scores).reshape(len(frame), -1).all(axis=1)
    if not finite.all():
        bad = int((~finite).sum())
        raise ScoringError(f"{bad} of {len(scores)} predictions are not finite numbers")
    return scores


def score_column(spec: ModelSpec, scores: metrics.Floats) -> pa.Array:
    """Give predictions as one column to watch for drift: numbers, or the most probable class."""
    if scores.ndim == 1:
        return pa.array(scores)
    names = np.array([str(name) for name in spec.label.classes])
    return pa.array(names[scores.argmax(axis=1)])


def performance(
    spec: ModelSpec, known: metrics.Floats, scores: metrics.Floats
) -> Performance | None:
    """Give the metric on labelled rows; None where they cannot carry it: too few, or one class."""
    labelled = ~np.isnan(known)
    known, scores = known[labelled], scores[labelled]
    if len(known) < spec.gate.min_rows or len(np.unique(known)) < 2:
        return None
    return metrics.measure(spec.gate.metric, known, scores, confidence=spec.gate.confidence)
