"""How well a model version really did: labels that can no longer change, joined with its scores."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from include.retraining import metrics, registry
from include.retraining.errors import DataError, ScoringError
from include.retraining.records import Performance
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd


def labels(
    spec: ModelSpec, rows: pa.Table, *, known_at: dt.datetime | None = None
) -> metrics.Floats:
    """Give the label of each row: 0, 1, or NaN while it is unknown or could still change.

    Parameters
    ----------
    rows : Table
        With the label column and the event time.
    known_at : datetime, optional
        A label counts only if it is mature by then; without, all that are there count.

    Raises
    ------
    DataError
        Without `label.at_least`, the column holds something else than 0 and 1.
    """
    column = rows.column(spec.label.column)
    values: metrics.Floats = column.to_numpy(zero_copy_only=False).astype("float64")
    if spec.label.at_least is not None:
        values = np.where(
            np.isnan(values), np.nan, (values >= spec.label.at_least).astype("float64")
        )
    elif strange := set(values[~np.isnan(values)].tolist()) - {0.0, 1.0}:
        raise DataError(
            f"label.column {spec.label.column!r} must hold 0 and 1, got {sorted(strange)[:3]}; "
            "mend the source, or set label.at_least to the value from which on the label is 1"
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
    """Give each row's probability of label 1; ScoringError on anything but a finite number."""
    if rows.num_rows == 0:
        return np.empty(0)
    frame = feature_frame(spec, rows)
    try:
        scores = np.asarray(model.predict_proba(frame)[:, 1], dtype=np.float64)
    except Exception as error:  # whatever a model of another library raises
        raise ScoringError(f"the model cannot score these rows: {error}") from error
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise ScoringError(f"{bad} of {len(scores)} predictions are not finite numbers")
    return scores


def performance(
    spec: ModelSpec, known: metrics.Floats, scores: metrics.Floats
) -> Performance | None:
    """Give the metric on labelled rows; None where it is undefined: too few rows, or one class."""
    labelled = ~np.isnan(known)
    known, scores = known[labelled], scores[labelled]
    if len(known) < spec.gate.min_rows or len(np.unique(known)) < 2:
        return None
    return metrics.measure(
        spec.gate.metric, known, scores, confidence=spec.gate.confidence, seed=spec.training.seed
    )
