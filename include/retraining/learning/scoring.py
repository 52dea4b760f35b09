"""What a fitted model says of rows, and how well it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from include.retraining.errors import ScoringError
from include.retraining.learning import metrics
from include.retraining.learning.rows import feature_frame
from include.retraining.records import Performance
from include.retraining.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

ROWS_PER_SCORING = 250_000  # a frame of floats, and what a model makes of it, are larger than rows


def predict(spec: ModelSpec, model: Any, rows: pa.Table) -> metrics.Floats:
    """Give the model's prediction of each row; ScoringError on anything but finite numbers.

    Returns
    -------
    ndarray of shape (n_rows,) or (n_rows, n_classes)
        Binary: probability of 1. Multiclass: probability of each of `label.classes`. Regression:
        predicted value.
    """
    parts = [
        predict_frame(spec, model, feature_frame(spec, rows.slice(start, ROWS_PER_SCORING)))
        for start in range(0, max(rows.num_rows, 1), ROWS_PER_SCORING)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


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
    found = metrics.measure(spec.gate.metric, known, scores, confidence=spec.gate.confidence)
    proper = metrics.proper_score(spec.label.task, known, scores)
    return found.model_copy(update={"proper": proper})
