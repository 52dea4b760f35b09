"""Makes a `Duel`: what the candidate and its opponents do on the same later rows.

Measures only; whether it is enough is the gate's business. What cannot be measured is said in
words, never left out.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from include.retraining import shelf
from include.retraining.errors import (
    DataError,
    FeaturesGone,
    NotOurs,
    RegistryError,
    ScoringError,
)
from include.retraining.features import own_features
from include.retraining.learning import metrics
from include.retraining.learning.scoring import performance, predict
from include.retraining.records import (
    Candidate,
    Gain,
    Performance,
    RetrainRequest,
    TrainingSet,
    Traits,
)
from include.retraining.registry import identity, ledger, server, versions
from include.retraining.retrain.training_set import LABEL, duel_rows, training_rows
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

TIMED_ROWS = 1000
TIMED_RUNS = 5


class Comparison(NamedTuple):
    """The candidate against one other version; `trouble` says why there is none."""

    version: int
    performance: Performance | None = None
    gain: Gain | None = None
    delong: Gain | None = None
    slices: dict[str, Gain] = {}  # noqa: RUF012 - never changed
    traits: Traits = Traits()
    leaked_rows: int | None = 0
    trouble: str = ""
    is_waived: bool = False  # nothing can score it any more, and who forces a retrain knows
    incident_id: str | None = None  # that made the other version; None: it could not be looked at


class Duel(NamedTuple):
    """Everything the gate decides on; what could not be measured has its reason in words."""

    candidate: Performance | None
    traits: Traits = Traits()
    leaked_rows: int | None = 0
    unscorable: str = ""
    window_trouble: str = ""
    champion: Comparison | None = None
    rolled_back: Comparison | None = None
    gated: Comparison | None = None


def compare(
    spec: ModelSpec, settings: Settings, request: RetrainRequest, candidate: Candidate
) -> Duel:
    """Let all versions that matter score the duel's rows.

    The opponents are the champion and, while it stands by a rollback, the version that was rolled
    back: a candidate no better than that one would only bring it back. While it stands by a hand in
    MLflow, the last champion that passed a gate is one as well: a hand does not lower the bar.
    Each scores the rows with the features that it learned from, whatever the model file says now.
    Where the gate is disabled the candidate scores the rows alone.
    """
    storage = Storage.of(settings)
    last = ledger.last(storage, spec.model)
    rows = duel_rows(spec, storage, candidate.training_set)
    known: metrics.Floats = rows.column(LABEL).to_numpy()
    trouble = _window_trouble(spec, candidate.training_set, known)
    try:
        made = versions.version(spec, settings, candidate.version)
        scores, traits = _scored(spec, settings, made, rows=rows, known=known)
    except ScoringError as error:
        return Duel(
            candidate=None,
            unscorable=f"the candidate, version {candidate.version}, cannot score: {error}",
        )
    own = None if trouble else performance(spec, known, scores)

    def against(number: int | None) -> Comparison | None:
        if number is None or own is None or spec.gate.mode == "disabled":
            return None
        if last and last.version == number and (why := identity.loss(spec, settings, last)):
            return Comparison(number, trouble=why)
        found = _compare(spec, settings, candidate, number, rows=rows, known=known, scores=scores)
        return found._replace(is_waived=found.is_waived and request.force)

    return Duel(
        candidate=own,
        traits=traits,
        leaked_rows=_leaked_rows(spec, storage, rows, candidate.training_set)
        if candidate.training_set.learned_until is None
        else 0,  # the duel begins later: adopting asks for that
        window_trouble=trouble,
        champion=against(request.champion_version),
        rolled_back=against(_rolled_back_from(spec, settings, last)),
        gated=against(_gated_before(spec, settings, last)),
    )


def _window_trouble(spec: ModelSpec, training_set: TrainingSet, known: metrics.Floats) -> str:
    count, classes = len(known), len(np.unique(known))
    if count >= spec.gate.min_rows and classes > 1:
        return ""
    return (
        f"the duel window [{training_set.duel_start:%Y-%m-%d}, {training_set.duel_end:%Y-%m-%d}) "
        f"has {count} labelled rows of {classes} different labels; it needs {spec.gate.min_rows} "
        "of at least 2. Retrain once more has landed, or lengthen gate.duel_days"
    )


def _rolled_back_from(spec: ModelSpec, settings: Settings, last: ledger.Entry | None) -> int | None:
    """Give the version that the current champion was rolled back from, if that is why it stands.

    None where that version was deleted: it bars no retrain for ever.
    """
    if last is None or last.action != "rollback" or last.previous_version is None:
        return None
    before = ledger.read(Storage.of(settings), spec.model)[: last.sequence - 1]
    left = [one for one in before if one.version == last.previous_version]
    if left and (why := identity.loss(spec, settings, left[-1])):
        log.warning("the version that was rolled back from is no opponent: %s", why)
        return None
    return last.previous_version


def _gated_before(spec: ModelSpec, settings: Settings, last: ledger.Entry | None) -> int | None:
    """Give the champion before one made by hand that passed a gate, unless it was deleted."""
    if last is None or last.action != "by_hand":
        return None
    line = ledger.reign(ledger.read(Storage.of(settings), spec.model))
    gated = next((one for one in reversed(line) if one.action != "by_hand"), None)
    if gated is None or gated.version == last.version or identity.loss(spec, settings, gated):
        return None
    return gated.version


def _compare(
    spec: ModelSpec,
    settings: Settings,
    candidate: Candidate,
    number: int,
    *,
    rows: pa.Table,
    known: metrics.Floats,
    scores: metrics.Floats,
) -> Comparison:
    storage, opponent = Storage.of(settings), None
    try:
        opponent = versions.version(spec, settings, number)
        versions.require_ours(spec, opponent)
        leaked = _leaked_into(spec, storage, candidate, opponent, rows)
        theirs, traits = _scored(spec, settings, opponent, rows=rows, known=known)
    except (RegistryError, ScoringError) as error:
        return Comparison(
            number,
            trouble=str(error),
            is_waived=isinstance(error, FeaturesGone | NotOurs),
            incident_id=opponent.incident_id if opponent else None,
        )
    found = compare_scores(spec, number, rows=rows, known=known, scores=scores, theirs=theirs)
    return found._replace(traits=traits, leaked_rows=leaked, incident_id=opponent.incident_id)


def _scored(
    spec: ModelSpec,
    settings: Settings,
    version: versions.Version,
    *,
    rows: pa.Table,
    known: metrics.Floats,
) -> tuple[metrics.Floats, Traits]:
    """Let a version score rows with the features it learned from; ScoringError if it cannot."""
    learned = versions.learned_features(spec, settings, version)
    own, seen = own_features.rows_for(spec, settings, learned, rows, version=version.number)
    scores = versions.score(own, settings, version, seen)
    traits = _traits(own, settings, version.number, rows=seen, known=known, scores=scores)
    return scores, traits


def compare_scores(
    spec: ModelSpec,
    number: int,
    *,
    rows: pa.Table,
    known: metrics.Floats,
    scores: metrics.Floats,
    theirs: metrics.Floats,
) -> Comparison:
    """Give the gain on another version from both versions' scores of the same labelled rows.

    Parameters
    ----------
    spec : ModelSpec
        Says by which metric, with what confidence, in which slices.
    number : int
        The other version.
    rows : Table
        With the slice columns.
    known : ndarray of shape (n_rows,)
        Labels.
    scores, theirs : ndarray of shape (n_rows,) or (n_rows, n_classes)
        Of the candidate and of the other version.
    """
    delong = None
    if spec.gate.metric == "roc_auc" and scores.ndim == 1:
        confidence = spec.gate.confidence
        exact = metrics.delong_gain(known, scores, theirs, confidence=confidence)
        delong = _gain(len(known), exact)
        if delong is None:  # the bootstrap would give an interval, of one class alone
            return Comparison(number, trouble="a class has one row in the window: gain unknown")
    return Comparison(
        number,
        performance=performance(spec, known, theirs),
        gain=_paired(spec, known, scores, theirs),
        delong=delong,
        slices=_slice_gains(spec, rows, known, scores, theirs),
    )


def _leaked_into(
    spec: ModelSpec,
    storage: Storage,
    candidate: Candidate,
    opponent: versions.Version,
    rows: pa.Table,
) -> int | None:
    """Give how many of the duel's rows an opponent was trained on; ScoringError if nobody knows."""
    start = candidate.training_set.duel_start
    if opponent.trained_until and opponent.trained_until > start:
        raise ScoringError(
            f"it was trained on rows up to {opponent.trained_until:%Y-%m-%d}, inside the duel "
            "window; retrain on a later batch"
        )
    found = None
    if opponent.incident_id:
        found = shelf.find(storage, TrainingSet, spec.model, opponent.incident_id)
    leaked = _leaked_rows(spec, storage, rows, found) if found else None
    if leaked is None and opponent.trained_until is None:
        raise ScoringError(
            f"nobody knows what it was trained on: its version has neither the tag "
            f"{versions.TRAINED_UNTIL_TAG} nor a kept training set; set the tag, "
            "or restore the training set"
        )
    return leaked


def _leaked_rows(
    spec: ModelSpec, storage: Storage, rows: pa.Table, learned: TrainingSet
) -> int | None:
    """Give how many rows occur in a training set, by their entity-time key; None if it is gone."""
    columns = list(dict.fromkeys((*spec.source.key, spec.source.event_time)))
    try:
        trained = training_rows(spec, storage, learned, columns)
    except DataError as error:
        log.warning("the training set of %s is gone: %s", learned.incident_id, error)
        return None
    keys = rows.select(columns)
    trained = trained.cast(keys.schema).group_by(columns).aggregate([])
    found: int = keys.join(trained, keys=columns, join_type="left semi").num_rows
    return found


def _paired(
    spec: ModelSpec, known: metrics.Floats, candidate: metrics.Floats, other: metrics.Floats
) -> Gain | None:
    found = metrics.paired_gain(
        spec.gate.metric,
        known,
        candidate,
        other,
        confidence=spec.gate.confidence,
        seed=spec.training.seed,
    )
    return _gain(len(known), found)


def _gain(rows: int, found: tuple[float, float, float]) -> Gain | None:
    value, low, high = found
    if not all(map(math.isfinite, found)):
        return None
    return Gain(rows=rows, value=value, low=low, high=high)


def _slice_gains(
    spec: ModelSpec,
    rows: pa.Table,
    known: metrics.Floats,
    candidate: metrics.Floats,
    other: metrics.Floats,
) -> dict[str, Gain]:
    """Give the gain within each level of the slice columns that is large enough to be judged."""
    gains = {}
    for column in spec.gate.slices:
        for level, inside in _levels(rows.column(column)):
            if inside.sum() < spec.gate.min_slice_rows or len(np.unique(known[inside])) < 2:
                continue
            gain = _paired(spec, known[inside], candidate[inside], other[inside])
            if gain is not None:
                gains[f"{column}={level}"] = gain
    return gains


def _levels(column: pa.ChunkedArray) -> Iterator[tuple[Any, NDArray[np.bool_]]]:
    """Give each value of a column, exactly as it is there, and which rows have it."""
    found = column.combine_chunks()
    if not pa.types.is_dictionary(found.type):
        found = found.dictionary_encode()
    numbers = found.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    values = enumerate(found.dictionary.to_pylist())
    levels = {
        value: n for n, value in values if not (isinstance(value, float) and math.isnan(value))
    }
    for level in sorted(levels):
        yield level, numbers == levels[level]


def _traits(
    spec: ModelSpec,
    settings: Settings,
    number: int,
    *,
    rows: pa.Table,
    known: metrics.Floats,
    scores: metrics.Floats,
) -> Traits:
    is_probability = scores.ndim == 1 and set(np.unique(known)) <= {0.0, 1.0}
    return Traits(
        calibration_error=metrics.calibration_error(known, scores)
        if is_probability and len(known)
        else None,
        scoring_ms_per_1000_rows=_scoring_time(spec, settings, number, rows),
        size_bytes=server.model_size(settings, spec.model, number),
    )


def _scoring_time(spec: ModelSpec, settings: Settings, number: int, rows: pa.Table) -> float | None:
    """Give the median milliseconds that scoring takes, per 1,000 rows, with a warm model."""
    some = rows.slice(0, TIMED_ROWS)
    if not some.num_rows:
        return None
    model = versions.load_model(spec, settings, versions.version(spec, settings, number))
    taken = []
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        predict(spec, model, some)
        taken.append(time.perf_counter() - started)
    milliseconds = 1000 * float(np.median(taken))
    return milliseconds * 1000 / int(some.num_rows)
