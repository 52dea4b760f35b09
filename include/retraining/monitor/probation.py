"""Makes a `Probation`: is the new champion worse than the one before it, on what came after both?

Nothing is rolled back here; the verdict says that it has to be, and the guard does it.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining.errors import RegistryError, ScoringError
from include.retraining.features.own_features import rows_for
from include.retraining.learning import metrics, sequential
from include.retraining.learning.metrics import Floats
from include.retraining.records import BatchRef, DriftReport, GuardWindow, Probation
from include.retraining.registry import ledger, versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

log = logging.getLogger(__name__)

MOST_TIMES = 1e9  # more is told as this


def begin(
    spec: ModelSpec, settings: Settings, champion: versions.Version, last: DriftReport | None
) -> Probation | None:
    """Give the probation of a champion as it is before a batch; None where there is none.

    One that came back by a rollback is on none: it has had its time, or a person wants it. The
    ledger is asked where a probation begins, and not with each batch.

    Parameters
    ----------
    last : DriftReport, optional
        Of the batch before. What it says of another champion, or by another metric, is left behind.
    """
    if spec.guard_mode == "off":
        return None
    before = last.probation if last else None
    is_same = before is not None and (before.version, before.incident_id) == (
        champion.number,
        champion.incident_id,
    )
    if before is not None and is_same and before.state != "running":
        return before
    other = versions.champion_before(spec, settings)
    if other is None or other.number == champion.number:
        return None
    if (
        before is not None
        and is_same
        and before.against_incident == other.incident_id
        and before.metric in {None, spec.gate.metric}
    ):
        return before.model_copy(update={"metric": spec.gate.metric})
    begun = Probation(
        version=champion.number,
        incident_id=champion.incident_id,
        against=other.number,
        against_incident=other.incident_id,
        state="running",
        metric=spec.gate.metric,
    )
    return _on_none(begun) if _came_back(spec, settings, begun) else begun


def _came_back(spec: ModelSpec, settings: Settings, found: Probation) -> bool:
    """Is it champion by a rollback? Its number does not say: a rollback may go to a later one."""
    last = ledger.last(Storage.of(settings), spec.model)
    return (
        last is not None
        and last.action == "rollback"
        and last.version == found.version
        and last.made_by in {None, found.incident_id}
    )


def _on_none(found: Probation) -> Probation:
    """Give the probation of a champion that is on none."""
    return Probation(
        version=found.version,
        incident_id=found.incident_id,
        against=found.against,
        against_incident=found.against_incident,
        state="kept",
        metric=found.metric,
    )


def go_on(
    spec: ModelSpec,
    settings: Settings,
    found: Probation,
    batch: BatchRef,
    *,
    rows: pa.Table,
    known: Floats,
    scores: Floats,
    since: dt.datetime,
) -> Probation:
    """Let the version before score the labelled rows of a window, and weigh all windows so far.

    Parameters
    ----------
    found : Probation
        As `begin` gives it, running.
    rows, known : Table, ndarray of shape (n_rows,)
        With features, and the label of each row, NaN where it is not known.
    scores : ndarray of shape (n_rows,) or (n_rows, n_classes)
        The champion's.
    since : datetime
        Only rows later than this count: those before had a say in the promotion.
    """
    try:
        window = _window(
            spec, settings, found, batch, rows=rows, known=known, scores=scores, since=since
        )
    except (RegistryError, ScoringError) as error:
        why = f"the version before it, {found.against}, could not be asked: {error}"
        log.warning("%s %s: %s", spec.model, batch.partition, why)
        return found.model_copy(update={"trouble": why})
    if window is None:
        return found.model_copy(update={"trouble": ""})
    windows = (*(one for one in found.windows if one.partition != batch.partition), window)
    weighed = weigh(spec, found.model_copy(update={"windows": windows, "trouble": ""}))
    if weighed.state == "worse" and _came_back(spec, settings, weighed):
        return _on_none(weighed)  # gone and brought back between two batches
    return weighed


def weigh(spec: ModelSpec, found: Probation) -> Probation:
    """Say what the windows so far come to: running, worse, or kept."""
    told = [one for one in found.windows if one.error > 0]  # equal models say the same of all rows
    found = found.model_copy(update={"looked_at": len(found.windows)})
    state = "running"
    if told:
        gains, errors = (np.array([getattr(one, of) for one in told]) for of in ("gain", "error"))
        margin = spec.guard.margin or float(errors[0])
        weighed = sequential.evidence(gains, errors, margin=margin)
        worse, not_worse = (min(math.exp(min(one, 100.0)), MOST_TIMES) for one in weighed)
        found = found.model_copy(
            update={
                "gain": float((gains / errors**2).sum() / (1 / errors**2).sum()),
                "times_worse": worse,
                "times_not_worse": not_worse,
                "margin": margin,
            }
        )
        if weighed.worse > -math.log(spec.guard.error):
            state = "worse"
        elif not_worse > Probation.CLEARLY:
            state = "kept"
    if state == "running" and len(found.windows) >= spec.guard.max_windows:
        state = "kept"
    if state == "running":
        return found
    ended_with = found.windows[-1].partition
    return found.model_copy(update={"state": state, "windows": (), "ended_with": ended_with})


def _window(
    spec: ModelSpec,
    settings: Settings,
    found: Probation,
    batch: BatchRef,
    *,
    rows: pa.Table,
    known: Floats,
    scores: Floats,
    since: dt.datetime,
) -> GuardWindow | None:
    """Give the champion's gain on the rows of a window; None where they cannot carry one."""
    times = rows.column(spec.source.event_time)
    is_later = pc.greater_equal(times, pa.scalar(since, times.type)).to_numpy()
    chosen = is_later & ~np.isnan(known)
    later, labels = rows.filter(pa.array(chosen)), known[chosen]
    if len(labels) < spec.gate.min_rows or len(np.unique(labels)) < 2:
        return None
    ours = scores[chosen]
    theirs = scores_of(spec, settings, versions.version(spec, settings, found.against), later)
    confidence = 0.95
    if spec.gate.metric == "roc_auc" and ours.ndim == 1:
        gain, low, high = metrics.delong_gain(labels, ours, theirs, confidence=confidence)
    else:
        gain, low, high = metrics.paired_gain(
            spec.gate.metric, labels, ours, theirs, confidence=confidence, seed=spec.training.seed
        )
    if not all(map(math.isfinite, (gain, low, high))):
        return None
    half = NormalDist().inv_cdf((1 + confidence) / 2)
    return GuardWindow(
        partition=batch.partition, rows=len(labels), gain=gain, error=(high - low) / 2 / half
    )


def scores_of(
    spec: ModelSpec, settings: Settings, version: versions.Version, rows: pa.Table
) -> Floats:
    """Let a version score rows with the features that it learned from."""
    if not rows.num_rows:
        return np.empty(0)
    learned = versions.learned_features(spec, settings, version)
    own, seen = rows_for(spec, settings, learned, rows, version=version.number)
    return versions.score(own, settings, version, seen)
