"""Makes a `Score` of each past decision: was it right, by the outcomes that came after it?

The version that was put into production and the one that it replaced predict the same later rows,
which neither had learned from when it was decided. So do a candidate that was rejected, and the
champion that stayed. Nothing is decided by it.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from include.retraining import shelf
from include.retraining.data import broken_feeds
from include.retraining.data.outcomes import complete_by, outcomes_of, with_outcomes
from include.retraining.data.publication import batches_of
from include.retraining.errors import RetrainingError
from include.retraining.features import feature_sets, own_features
from include.retraining.learning import metrics
from include.retraining.learning.rows import between, labels
from include.retraining.records import GateDecision, Record
from include.retraining.registry import ledger, versions
from include.retraining.retrain import claims
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

Decided = Literal["promotion", "rollback", "by_hand", "rejection"]
Answer = Literal["right", "wrong", "no difference", "not known"]
WORDS: dict[Answer, str] = {
    "right": "right: what was chosen is better on what came after",
    "wrong": "wrong: what was not chosen is better on what came after",
    "no difference": "no difference is shown on what came after",
    "not known": "not known yet: too few labelled rows since",
}


class Score(Record):
    """One decision, held against what came after it.

    `gain` is that of the version which was chosen on the one which was not, on the same rows, with
    its confidence interval (`gate.confidence`); None where it is not known.
    """

    decided: Decided
    partition: str
    chosen: int | None
    other: int | None
    since: dt.datetime
    until: dt.datetime
    rows: int
    metric: str
    gain: float | None
    low: float | None
    high: float | None
    answer: Answer
    said: str


class _Decision(NamedTuple):
    decided: Decided
    partition: str
    chosen: int | None
    other: int | None
    since: dt.datetime
    sequence: float  # of the ledger's entry; a rejection lies between two


def scorecard(spec: ModelSpec, settings: Settings) -> Iterator[Score]:
    """Judge what was decided about a model, oldest first.

    The rows of a decision are those from the end of its batch to that of the next move of the
    champion whose labels are mature, of `drift.max_history_windows` batches at most. Rows of broken
    feeds are left out.

    Raises
    ------
    LedgerError
        The ledger cannot be read.
    """
    storage = Storage.of(settings)
    entries = ledger.read(storage, spec.model)
    found = [*_moves(spec, entries), *_rejections(spec, storage)]
    found.sort(key=lambda one: (one.since, one.sequence))
    for number, one in enumerate(found):
        ends = [two.since for two in found[number + 1 :] if two.decided != "rejection"]
        yield _score(spec, settings, one, until=ends[0] if ends else None)


def _moves(spec: ModelSpec, entries: Sequence[ledger.Entry]) -> Iterator[_Decision]:
    since = spec.partitions.first
    for one in entries:
        if one.partition:  # a rollback by hand may be about no batch
            since = max(since, spec.batch_ref(one.partition).end)
        yield _Decision(
            one.action, one.partition, one.version, one.previous_version, since, one.sequence
        )


def _rejections(spec: ModelSpec, storage: Storage) -> Iterator[_Decision]:
    incidents = [one.incident_id for one in claims.claimed(storage, spec.model)]
    for found in shelf.find_all(storage, GateDecision, spec.model, incidents):
        if found is not None and not found.passed:
            since = spec.batch_ref(found.partition).end
            yield _Decision(
                "rejection", found.partition, found.champion_version, found.candidate_version,
                since, math.inf,
            )  # fmt: skip


def _score(
    spec: ModelSpec, settings: Settings, one: _Decision, *, until: dt.datetime | None
) -> Score:
    known: metrics.Floats = np.empty(0)
    gain = low = high = None
    trouble, end = "", one.since
    if one.chosen is not None and one.other is not None:
        try:
            known, (chosen, other), end = _predicted(
                spec, settings, (one.chosen, one.other), one.since, until
            )
            if len(known) >= spec.gate.min_rows and len(np.unique(known)) > 1:
                gain, low, high = _gain(spec, known, chosen, other)
        except RetrainingError as error:
            trouble = str(error)
    return Score(
        decided=one.decided,
        partition=one.partition,
        chosen=one.chosen,
        other=one.other,
        since=one.since,
        until=end,
        rows=len(known),
        metric=spec.gate.metric,
        gain=gain,
        low=low,
        high=high,
        answer=_answer(low, high),
        said=_in_words(one, _answer(low, high), trouble),
    )


def _gain(
    spec: ModelSpec, known: metrics.Floats, chosen: metrics.Floats, other: metrics.Floats
) -> tuple[float | None, float | None, float | None]:
    confidence = spec.gate.confidence
    if spec.gate.metric == "roc_auc" and chosen.ndim == 1:
        found = metrics.delong_gain(known, chosen, other, confidence=confidence)
    else:
        found = metrics.paired_gain(
            spec.gate.metric, known, chosen, other, confidence=confidence, seed=spec.training.seed
        )
    value, low, high = found
    return (value, low, high) if all(map(math.isfinite, found)) else (None, None, None)


def _predicted(
    spec: ModelSpec,
    settings: Settings,
    numbers: tuple[int, int],
    since: dt.datetime,
    until: dt.datetime | None,
) -> tuple[metrics.Floats, tuple[metrics.Floats, metrics.Floats], dt.datetime]:
    """Give labels, what two versions predict, and the end of the rows, batch by batch."""
    storage = Storage.of(settings)
    joined, outcomes = feature_sets.joined_rows(spec, storage), outcomes_of(spec, storage)
    broken = set(broken_feeds.left_out(storage, spec.model))
    newest = batches_of(spec, joined)[-1:]
    as_of = outcomes.until if outcomes else newest[0].end if newest else since
    inside = [
        one
        for one in batches_of(spec, joined, since=since - spec.partitions.length, until=until)
        if one.end > since and one.partition not in broken
    ][: spec.drift.max_history_windows]
    made = [versions.version(spec, settings, number) for number in numbers]
    learned = [versions.learned_features(spec, settings, one) for one in made]
    known: list[metrics.Floats] = []
    scores: tuple[list[metrics.Floats], list[metrics.Floats]] = ([], [])
    end = since
    for batch in inside:
        rows = between(spec, joined.read([batch.partition]), since, until)
        told = with_outcomes(spec, outcomes, rows, known_at=as_of)
        label = labels(spec, told, known_at=complete_by(outcomes, as_of))
        is_known = ~np.isnan(label)
        if not is_known.any():
            continue
        end = batch.end
        known.append(label[is_known])
        for one, of, into in zip(made, learned, scores, strict=True):
            own, seen = own_features.rows_for(spec, settings, of, rows, version=one.number)
            into.append(versions.score(own, settings, one, seen)[is_known])
    if not known:
        return np.empty(0), (np.empty(0), np.empty(0)), end
    return np.concatenate(known), (np.concatenate(scores[0]), np.concatenate(scores[1])), end


def _answer(low: float | None, high: float | None) -> Answer:
    if low is None or high is None:
        return "not known"
    if low > 0:
        return "right"
    return "wrong" if high < 0 else "no difference"


def _in_words(one: _Decision, answer: Answer, trouble: str) -> str:
    if one.chosen is None:
        return "no model was in production to hold it against"
    if one.other is None:
        return "the first model: there is nothing to hold it against"
    if trouble:
        return f"cannot be said: {trouble}"
    return WORDS[answer]
