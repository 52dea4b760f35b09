"""Makes a `Fitted` estimator: columns by kind, weights, search on time-ordered folds, calibration.

Everything random takes its seed from the model file.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import inspect
import logging
import re
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.retraining import named_object
from include.retraining.errors import DataError, ScoringError, SpecError, did_you_mean
from include.retraining.learning import metrics, scoring
from include.retraining.learning.recorded import RecordedPredictions
from include.retraining.learning.rows import feature_frame
from include.retraining.spec import ModelSpec, Range, Search

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

log = logging.getLogger(__name__)

Rows = NDArray[np.intp]
CALIBRATION_PARTS = 5


class Trial(NamedTuple):
    """One set of parameters, and its metric on each later fold; NaN where a fold cannot say."""

    params: dict[str, Any]
    folds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the folds that can say something; NaN if none can."""
        known = [value for value in self.folds if np.isfinite(value)]
        return float(np.mean(known)) if known else float("nan")


class Fitted(NamedTuple):
    """A fitted pipeline, the trial it came from, and all trials in the order they were made.

    `unseen` are predictions of rows by pipelines that had not learned from them: those of the time-
    ordered folds of the best trial; NaN where no fold was judged on a row, None without folds.
    """

    pipeline: Any  # a Pipeline, RecordedPredictions, or a model of others' that is asked alike
    best: Trial
    trials: tuple[Trial, ...]
    unseen: metrics.Floats | None


def fit(spec: ModelSpec, rows: pa.Table, labels: metrics.Floats) -> Fitted:
    """Choose parameters on time-ordered folds, then fit on all rows.

    Parameters
    ----------
    rows : Table
        With the features, the event time, and the column of sample weights if there is one.
    labels : ndarray of shape (n_rows,)
        As `rows.labels` gives them, none unknown.

    Raises
    ------
    DataError
        The estimator cannot be fitted on these rows, or no fold can judge a search.
    SpecError
        The estimator cannot be made as the model file says.
    """
    frame = feature_frame(spec, rows)
    if spec.predictions is not None:
        model, trial = fit_once(spec, rows, labels), Trial({}, ())
        return Fitted(model, trial, (trial,), scoring.predict_frame(spec, model, frame))
    weights = sample_weights(spec, rows, labels)
    folds = _folds(spec, rows)
    attempts = [spec.training.params]
    if spec.training.search:
        attempts += sample_params(spec.training.search, spec.training.params, spec.training.seed)
    trials: list[Trial] = []
    unseen = None
    for number, params in enumerate(attempts, 1):
        name = f"trial {number} of {len(attempts)}" if len(attempts) > 1 else "cross-validation"
        values, scores = _on_folds(
            spec, params, folds, frame=frame, labels=labels, weights=weights, name=name
        )
        trial = Trial(params, values)
        before = max((one.mean for one in trials if np.isfinite(one.mean)), default=-np.inf)
        if not trials or trial.mean > before:
            unseen = scores
        trials.append(trial)
    known = [trial for trial in trials if np.isfinite(trial.mean)]
    if spec.training.search and not known:
        raise DataError(
            f"{spec.model}: no time-ordered fold of {len(labels)} rows can judge a parameter set; "
            "wait for more batches, lower training.cv_folds, or leave out training.search"
        )
    best = max(known, key=lambda trial: trial.mean, default=trials[0])
    if spec.training.search:
        log.info("best of %s trials: %s (%s)", len(trials), best.params, _mean(spec, best))
    pipeline = fit_once(spec, rows, labels, params=best.params)
    return Fitted(pipeline, best, tuple(trials), unseen)


def predict_unseen(
    spec: ModelSpec, rows: pa.Table, labels: metrics.Floats
) -> metrics.Floats | None:
    """Predict rows by pipelines that have not learned from them, as `Fitted.unseen` is."""
    return _on_folds(
        spec,
        spec.training.params,
        _folds(spec, rows),
        frame=feature_frame(spec, rows),
        labels=labels,
        weights=sample_weights(spec, rows, labels),
        name="cross-validation",
    )[1]


def _folds(spec: ModelSpec, rows: pa.Table) -> list[tuple[Rows, Rows]]:
    times = rows.column(spec.source.event_time).to_numpy().astype("datetime64[us]")
    gap = dt.timedelta(days=spec.label.maturity_days)
    return time_folds(times, spec.training.cv_folds, gap=gap)


def fit_once(
    spec: ModelSpec,
    rows: pa.Table,
    labels: metrics.Floats,
    *,
    params: dict[str, Any] | None = None,
) -> Pipeline | RecordedPredictions:
    """Fit on all rows, without folds or search; parameters, rows and errors are those of `fit`."""
    if spec.predictions is not None:  # it was fitted elsewhere
        return RecordedPredictions(spec.predictions.column)
    started = time.monotonic()
    log.info("fitting %s on %s rows", spec.training.estimator, len(labels))
    params = spec.training.params if params is None else params
    frame, weights = feature_frame(spec, rows), sample_weights(spec, rows, labels)
    try:
        pipeline = _fitted(spec, params, frame, labels, weights)
    except (TypeError, ValueError) as error:  # what scikit-learn makes of parameters and data
        raise DataError(
            f"{spec.model}: {spec.training.estimator} cannot be fitted: {error}; check "
            "training.params and the features"
        ) from error
    log.info("fitted in %.1f s", time.monotonic() - started)
    return pipeline


def time_folds(
    times: NDArray[np.datetime64], count: int, *, gap: dt.timedelta
) -> list[tuple[Rows, Rows]]:
    """Cut rows into folds that learn from the past and are judged on what came next.

    The rows are cut by time into ``count + 1`` parts of about the same size. Fold i is judged on
    part i + 1, and learns from all before it whose labels were mature when that part began (a
    purged, expanding window: Lopez de Prado, 2018, ch. 7).

    Parameters
    ----------
    times : ndarray of shape (n_rows,)
        Event times, in any order.
    count : int
        Number of folds.
    gap : timedelta
        How long a label takes to mature.

    Returns
    -------
    list of (ndarray, ndarray)
        Positions to learn from and to judge on; folds without either are left out.
    """
    ordered = np.sort(times)
    edges = [part * len(times) // (count + 1) for part in range(1, count + 1)]
    folds = []
    for number, edge in enumerate(edges):
        if not len(times):
            break
        start = ordered[edge]
        earlier = np.flatnonzero(times < start - np.timedelta64(gap))
        is_later = times >= start
        if number + 1 < count:
            is_later &= times < ordered[edges[number + 1]]
        later = np.flatnonzero(is_later)
        if len(earlier) and len(later):
            folds.append((earlier, later))
    return folds


def sample_params(search: Search, params: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Draw parameter sets from the space of a search, on top of the fixed ones."""
    generator = np.random.default_rng(seed)
    return [
        params | {name: _draw(values, generator) for name, values in search.space.items()}
        for _ in range(search.n_iter)
    ]


def _draw(values: Range | tuple[Any, ...], generator: np.random.Generator) -> Any:
    if isinstance(values, tuple):
        return values[generator.integers(len(values))]
    low, high = values.low, values.high
    if isinstance(low, int) and isinstance(high, int):
        if not values.log:
            return int(generator.integers(low, high + 1))
        return min(high, int(np.exp(generator.uniform(np.log(low), np.log(high + 1)))))
    if values.log:
        return float(np.exp(generator.uniform(np.log(low), np.log(high))))
    return float(generator.uniform(low, high))


def sample_weights(
    spec: ModelSpec, rows: pa.Table, labels: metrics.Floats
) -> metrics.Floats | None:
    """Give how much each row counts; None where all count alike.

    Balanced classes: the rows of class c, of k classes with total weight W, get W / (k W_c) each
    (scikit-learn's ``balanced``).

    Raises
    ------
    DataError
        A weight is missing, negative or not finite, or all are 0.
    """
    weights = None
    if (name := spec.training.sample_weight) is not None:
        weights = rows.column(name).to_numpy(zero_copy_only=False).astype("float64")
        bad = int((~(np.isfinite(weights) & (weights >= 0))).sum())
        if bad or not weights.any():
            raise DataError(
                f"training.sample_weight: {name!r} must hold numbers of 0 or more, not all 0; got "
                f"{bad} of {len(weights)} that are missing, negative or infinite. Mend the source"
            )
    if spec.training.balance_classes:
        weights = np.ones(len(labels)) if weights is None else weights
        classes, numbers = np.unique(labels, return_inverse=True)
        totals = np.bincount(numbers, weights)
        weights = weights * (weights.sum() / (len(classes) * np.maximum(totals, 1e-300)))[numbers]
    return weights


def _on_folds(
    spec: ModelSpec,
    params: dict[str, Any],
    folds: list[tuple[Rows, Rows]],
    *,
    frame: pd.DataFrame,
    labels: metrics.Floats,
    weights: metrics.Floats | None,
    name: str,
) -> tuple[tuple[float, ...], metrics.Floats | None]:
    """Give the metric of each fold, and the predictions of all rows that one was judged on."""
    values = []
    unseen = None
    for number, (earlier, later) in enumerate(folds, 1):
        started = time.monotonic()
        # a feature that has no value yet cannot be learnt from: a constant for this fold
        known = frame.iloc[earlier].notna().any()
        usable = frame.assign(**dict.fromkeys(known.index[~known], 0.0))
        try:
            pipeline = _fitted(
                spec,
                params,
                usable.iloc[earlier],
                labels[earlier],
                None if weights is None else weights[earlier],
            )
            scores = scoring.predict_frame(spec, pipeline, usable.iloc[later])
        except (TypeError, ValueError, ScoringError) as error:
            log.warning("%s: fold %s of %s says nothing: %s", name, number, len(folds), error)
            values.append(float("nan"))
            continue
        values.append(metrics.value(spec.gate.metric, labels[later], scores))
        if unseen is None:
            unseen = np.full((len(labels), *scores.shape[1:]), np.nan)
        unseen[later] = scores
        log.info(
            "%s: fold %s of %s, %s rows to learn from: %s %.4f (%.1f s)",
            name,
            number,
            len(folds),
            len(earlier),
            spec.gate.metric,
            values[-1],
            time.monotonic() - started,
        )
    return tuple(values), unseen


def _mean(spec: ModelSpec, trial: Trial) -> str:
    return f"{spec.gate.metric} {trial.mean:.4f} on {len(trial.folds)} folds"


def _fitted(
    spec: ModelSpec,
    params: dict[str, Any],
    frame: pd.DataFrame,
    labels: metrics.Floats,
    weights: metrics.Floats | None,
) -> Pipeline:
    pipeline = build_pipeline(spec, params)
    answers = labels if spec.label.task == "regression" else labels.astype("int64")
    if weights is None:
        return pipeline.fit(frame, answers)
    return pipeline.fit(frame, answers, model__sample_weight=weights)


def build_pipeline(spec: ModelSpec, params: dict[str, Any] | None = None) -> Pipeline:
    """Give the unfitted pipeline of the model file: columns by kind, then the estimator, seeded.

    Parameters
    ----------
    params : dict, optional
        Arguments of the estimator; those of the model file by default.

    Raises
    ------
    SpecError
        The estimator cannot be imported or made, or cannot do what the model file asks of it.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder
    from sklearn.utils import get_tags

    estimator = _make_estimator(spec, spec.training.params if params is None else params)
    takes_missing = get_tags(estimator).input_tags.allow_nan
    if spec.training.calibration:
        estimator = CalibratedClassifierCV(
            estimator, method=spec.training.calibration, cv=CALIBRATION_PARTS, ensemble=False
        )
    columns = ColumnTransformer(
        [
            (
                "numeric",
                "passthrough"
                if takes_missing
                else SimpleImputer(strategy="median", keep_empty_features=True),
                list(spec.features.numeric),
            ),
            (
                "categorical",
                OrdinalEncoder(
                    handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
                ),
                list(spec.features.categorical),
            ),
        ]
    )
    return Pipeline([("columns", columns), ("model", estimator)])


def check(spec: ModelSpec) -> Iterator[SpecError]:
    """Find what is wrong with estimator and parameters, those of a search too, without a fit."""
    tried: list[tuple[tuple[str, ...], dict[str, Any]]] = [(("params",), {})]
    for name, values in spec.training.search.space.items() if spec.training.search else ():
        ends = (values.low, values.high) if isinstance(values, Range) else values
        tried += [(("search", "space", name), {name: value}) for value in ends]
    told = set()
    for place, changes in tried:
        try:
            _validate(build_pipeline(spec, spec.training.params | changes))
        except SpecError as error:
            message, inner = str(error), error.place
        except (TypeError, ValueError) as error:  # how scikit-learn refuses a parameter
            message, inner = " ".join(str(error).split()), ()
        else:
            continue
        where = f"training.{'.'.join(place)}"
        if inner[:2] != ("training", "estimator"):
            message = f"{where}: {message.removeprefix('training.params: ')}"
            named = re.search(r"'(\w+)'", message)
            inner = ("training", *place, *([named[1]] if named else ()))
        if where not in told:
            told.add(where)
            yield SpecError(message, place=inner)
        if inner[:2] == ("training", "estimator"):
            yield from _check_slips(spec)
        if not changes:
            return


def _check_slips(spec: ModelSpec) -> Iterator[SpecError]:
    """Find parameters that nothing in the estimator's module has, where itself is not there."""
    module = sys.modules.get(spec.training.estimator.replace(":", ".").rpartition(".")[0])
    known: set[str] = set()
    for one in vars(module).values() if module else ():
        if inspect.isclass(one):
            with contextlib.suppress(TypeError, ValueError):
                known |= set(inspect.signature(one).parameters)
    for name in spec.training.params if known else ():
        if name not in known:
            yield SpecError(
                f"training.params: nothing in {spec.training.estimator.rpartition('.')[0]} has a "
                f"parameter {name!r}{did_you_mean(name, known)}",
                place=("training", "params", name),
            )


def _validate(pipeline: Pipeline) -> None:
    """Let each part of scikit-learn say what its fit would say of its parameters."""
    for part in [*pipeline.get_params().values()]:
        if not isinstance(part, type) and hasattr(part, "_validate_params"):
            part._validate_params()  # noqa: SLF001 - what each fit of scikit-learn begins with


def _check_names(path: str, factory: Any, params: dict[str, Any]) -> None:
    try:
        known = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of a builtin
        return
    if any(one.kind is one.VAR_KEYWORD for one in known):
        return
    names = [one.name for one in known]
    for name in params:
        if name not in names:
            raise SpecError(
                f"training.params: {path} has no parameter {name!r}{did_you_mean(name, names)}; "
                f"allowed: {', '.join(sorted(names)) or 'none'}",
                place=("training", "params", name),
            )


def _make_estimator(spec: ModelSpec, params: dict[str, Any]) -> Any:
    from sklearn.base import is_classifier
    from sklearn.utils.validation import has_fit_parameter

    path = spec.training.estimator
    factory = named_object.load(path, setting="training.estimator")
    _check_names(path, factory, params)
    try:
        estimator = factory(**params)
    except Exception as error:  # whatever a factory of the user's raises
        raise SpecError(
            f"training.params: {path} does not take them: {error}", place=("training", "params")
        ) from error
    if not hasattr(estimator, "fit") or not hasattr(estimator, "set_params"):
        raise SpecError(
            f"training.estimator: {path} gives {type(estimator).__name__}, which is no estimator "
            "of scikit-learn's kind; it needs fit, get_params and set_params"
        )
    if spec.label.task != "regression" and not hasattr(estimator, "predict_proba"):
        raise SpecError(
            f"training.estimator: {path} gives no probabilities; choose a classifier with "
            "predict_proba"
        )
    if spec.label.task == "regression" and is_classifier(estimator):
        raise SpecError(
            f"training.estimator: {path} is a classifier, but label.task is regression; choose a "
            "regressor"
        )
    if (spec.training.sample_weight or spec.training.balance_classes) and not has_fit_parameter(
        estimator, "sample_weight"
    ):
        raise SpecError(
            f"training.estimator: {path} takes no sample_weight; choose another, or leave out "
            "training.sample_weight and training.balance_classes"
        )
    seeded = [name for name in estimator.get_params() if name.split("__")[-1] == "random_state"]
    return estimator.set_params(**dict.fromkeys(seeded, spec.training.seed))
