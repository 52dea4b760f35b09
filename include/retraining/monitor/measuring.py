"""Makes a `DriftReport` of a batch against the champion, then its `Verdict`.

A batch is judged once: the same content gives the verdict it got, whatever champion there is by
now.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining import shelf
from include.retraining.data import broken_feeds
from include.retraining.data.outcomes import (
    Outcomes,
    complete_by,
    is_settled,
    needed_for_labels,
    outcomes_of,
    with_outcomes,
)
from include.retraining.data.publication import batches_of, names_of, rows_in_force
from include.retraining.drift.measure import measure_columns, overall_state
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.errors import NotPublished
from include.retraining.features import feature_sets
from include.retraining.features.own_features import difference, rows_for
from include.retraining.learning import scoring
from include.retraining.learning.metrics import Floats
from include.retraining.learning.rows import between, labels, oldest_row, split_times
from include.retraining.monitor import probation
from include.retraining.monitor import verdict as verdicts
from include.retraining.names import SCORE
from include.retraining.records import (
    BatchRef,
    DriftReport,
    FeedAcceptance,
    Performance,
    RealisedWindow,
    TrainingSet,
    Verdict,
)
from include.retraining.registry import versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

log = logging.getLogger(__name__)

LOOKED_BACK = 64  # verdicts that are read at once


def measure_drift(
    spec: ModelSpec,
    settings: Settings,
    batch: BatchRef,
    *,
    learned: TrainingSet | None = None,
    anew: bool = False,
) -> DriftReport:
    """Measure one batch: its columns, the champion's predictions, performance on mature labels.

    Where labels take longer to mature than a batch is long, performance is that on the earlier rows
    whose labels have matured meanwhile.

    Parameters
    ----------
    spec, settings, batch : ModelSpec, Settings, BatchRef
        The model, where everything is, and the batch.
    learned : TrainingSet, optional
        What the last retrain up to this batch learned from, promoted or not.
    anew : bool
        Measure again although this very content has its verdict.

    Raises
    ------
    NotPublished
        The batch has no features.
    ScoringError
        The champion cannot score the batch.
    """
    storage = Storage.of(settings)
    found = feature_sets.feature_set(spec, storage, batch)
    outcomes = outcomes_of(spec, storage)
    done = shelf.find(storage, DriftReport, spec.model, batch.partition)
    if (
        not anew
        and done
        and done.content_sha256 == found.sha256
        and not (done.awaits_outcomes and is_settled(outcomes, batch))
        and shelf.find(storage, Verdict, spec.model, batch.partition)
    ):
        log.info(
            "%s %s: this content was judged before; its report stands", spec.model, batch.partition
        )
        return done
    rows = feature_sets.rows_of(spec, storage, found)
    known = _labels(spec, outcomes, rows, batch.end)
    before = _report_before(spec, storage, batch)
    any_left_out = _any_left_out(spec, storage, before)
    report = DriftReport(
        batch=batch,
        content_sha256=found.sha256,
        champion_version=None,
        state="uncalibrated",
        rows=rows.num_rows,
        labelled_rows=int((~np.isnan(known)).sum()),
        trainable_rows=None,
        history=_history(spec, before),
        any_left_out=any_left_out,
        outcomes_until=outcomes.until if outcomes else None,
    )
    champion = versions.champion(spec, settings)
    if champion is None:
        report = report.model_copy(
            update={
                "trainable_rows": trainable_rows(
                    spec, storage, batch, outcomes, any_left_out=any_left_out
                )
            }
        )
    else:
        learned_from = versions.learned_features(spec, settings, champion)
        own, seen = rows_for(spec, settings, learned_from, rows, version=champion.number)
        if own is not spec:
            log.info(
                "version %s is measured by the features it learned from; the model file is %s",
                champion.number, difference(spec, learned_from),
            )  # fmt: skip
        scores = versions.score(own, settings, champion, seen)
        profile = ReferenceProfile.from_bytes(versions.profile_bytes(spec, settings, champion))
        report = hold_against(
            own,
            report,
            seen,
            known=known,
            scores=scores,
            profile=profile,
            importances=_importances(settings, champion),
            trained_until=champion.trained_until,
        ).model_copy(
            update={
                "champion_version": champion.number,
                "champion_incident": champion.incident_id,
                **_promise(spec, champion),
                **_growth(spec, storage, batch, learned, outcomes, any_left_out=any_left_out),
            }
        )
        report = report.model_copy(update={"drifting_since": _drifting_since(report, before)})
        left_out = bool(verdicts.broken_columns(report, _said(spec, storage, report)))
        if left_out:
            report = report.model_copy(update={"left_out": True, "any_left_out": True})
        if dt.timedelta(days=spec.label.maturity_days) >= spec.partitions.shortest:
            rows, known = _matured_rows(spec, storage, batch, champion, outcomes)
            scores = probation.scores_of(spec, settings, champion, rows)
            matured = scoring.performance(spec, known, scores)
            start, end = _matured_span(spec, batch, champion)
            report = report.model_copy(
                update={
                    "performance": matured,
                    "is_of_earlier_rows": True,
                    "measured_from": start,
                    "measured_until": end,
                }
            )
        on_probation = probation.begin(spec, settings, champion, before)
        # nobody may judge a model by the rows of a broken feed, nor by the first outcomes alone
        is_usable = report.is_of_earlier_rows or not left_out
        is_usable = is_usable and is_settled(outcomes, batch)
        if on_probation is not None and on_probation.state == "running" and is_usable:
            since = _decided_until(spec, storage, champion, learned)
            on_probation = probation.go_on(
                spec, settings, on_probation, batch,
                rows=rows, known=known, scores=scores, since=since,
            )  # fmt: skip
        report = report.model_copy(update={"probation": on_probation})
    shelf.keep(storage, report)
    return report


def _drifting_since(report: DriftReport, before: DriftReport | None) -> dt.datetime | None:
    """Give when a drift that goes on began; too few rows to say anything do not end it."""
    is_same = before is not None and before.champion == report.champion
    if before is None or not is_same:
        return None
    if report.state == "insufficient":
        return before.drifting_since
    if not any(one.drifted and not one.expected for one in report.columns):
        return None
    if any(one.drifted and not one.expected for one in before.columns):
        return before.drifting_since
    return before.drifting_since or report.batch.start


def _any_left_out(spec: ModelSpec, storage: Storage, before: DriftReport | None) -> bool:
    """May a batch be left out of training? Listed only until a report says that none was."""
    if before is not None and before.any_left_out is not None:
        return before.any_left_out
    return bool(broken_feeds.left_out(storage, spec.model))


def _promise(spec: ModelSpec, champion: versions.Version) -> dict[str, Performance | None]:
    """Give what the champion promised, if it was of the metric that is measured now."""
    promise = champion.promise
    is_same = promise is None or promise.metric == spec.gate.metric
    return {"promise": promise} if is_same else {"promised_before": promise}


def _decided_until(
    spec: ModelSpec, storage: Storage, champion: versions.Version, learned: TrainingSet | None
) -> dt.datetime:
    """Give the end of the rows that had a say in a champion's promotion: those of its duel."""
    if learned is None or learned.incident_id != champion.incident_id:
        learned = shelf.find(storage, TrainingSet, spec.model, champion.incident_id)
    if learned is not None:
        return learned.duel_end
    since = champion.trained_until or spec.partitions.first
    return since + dt.timedelta(days=spec.gate.duel_days)


def _matured_rows(
    spec: ModelSpec,
    storage: Storage,
    batch: BatchRef,
    champion: versions.Version,
    outcomes: Outcomes | None,
) -> tuple[pa.Table, Floats]:
    """Give the earlier rows whose labels have matured within this batch's window, and the labels.

    Where labels take longer than a batch, its own rows have none yet. Rows that the champion could
    have learned from are left out. None are given while outcomes are missing that were due by its
    end: those that are there may be another sort of rows than those that are not.
    """
    start, end = _matured_span(spec, batch, champion)
    joined = feature_sets.joined_rows(spec, storage)
    inside = [
        one.partition
        for one in batches_of(spec, joined, since=start - spec.partitions.length, until=end)
        if one.end > start
    ]
    inside = _trained_on(spec, storage, inside) if is_settled(outcomes, batch) else []
    rows = between(spec, joined.read(inside), start, end)
    return rows, _labels(spec, outcomes, rows, batch.end)


def _matured_span(
    spec: ModelSpec, batch: BatchRef, champion: versions.Version
) -> tuple[dt.datetime, dt.datetime]:
    maturity = dt.timedelta(days=spec.label.maturity_days)
    start, end = batch.start - maturity, batch.end - maturity
    return max(start, champion.trained_until or start), end


def _trained_on(spec: ModelSpec, storage: Storage, names: list[str]) -> list[str]:
    """Give the partitions that are not left out because their feed broke."""
    left_out = broken_feeds.left_out(storage, spec.model)
    return [name for name in names if name not in left_out]


def _labels(
    spec: ModelSpec,
    outcomes: Outcomes | None,
    rows: pa.Table,
    known_at: dt.datetime,
    *,
    delivered_by: dt.datetime | None = None,
) -> Floats:
    """Give the label of each row as `labels` does, wherever its outcome comes from."""
    rows = with_outcomes(spec, outcomes, rows, known_at=known_at, delivered_by=delivered_by)
    return labels(spec, rows, known_at=complete_by(outcomes, known_at))


def hold_against(
    spec: ModelSpec,
    report: DriftReport,
    rows: pa.Table,
    *,
    known: np.ndarray[Any, Any],
    scores: np.ndarray[Any, Any],
    profile: ReferenceProfile,
    importances: Mapping[str, float],
    trained_until: dt.datetime | None,
) -> DriftReport:
    """Add to a report how rows and scores differ from a champion's reference, and how it did.

    Parameters
    ----------
    spec, report : ModelSpec, DriftReport
        The model, and the report of the batch so far.
    rows : Table
        The batch with its features.
    known, scores : ndarray of shape (n_rows,)
        Label, NaN where it is not known, and the champion's prediction, of each row.
    profile, importances, trained_until
        Of the champion.
    """
    measured = measure_columns(
        profile,
        rows.select(list(spec.features.names)).append_column(
            SCORE, scoring.score_column(spec, scores)
        ),
        settings=spec.drift,
        importances=importances,
        at=report.batch.start,
    )
    columns = tuple(feature for feature in measured if feature.name != SCORE)
    age = report.batch.end - trained_until if trained_until else None
    in_sample = trained_until is not None and report.batch.start < trained_until
    if in_sample:  # a model does well on what it learned from
        times = rows.column(spec.source.event_time)
        is_later = pc.greater_equal(times, pa.scalar(trained_until, times.type))
        known = np.where(is_later.to_numpy(), known, np.nan)
    return report.model_copy(
        update={
            "state": overall_state(columns),
            "features": columns,
            "score": next((feature for feature in measured if feature.name == SCORE), None),
            "performance": scoring.performance(spec, known, scores),
            "in_sample": in_sample,
            "champion_age_days": age / dt.timedelta(days=1) if age else None,
        }
    )


def judge_batch(
    spec: ModelSpec,
    settings: Settings,
    report: DriftReport,
    *,
    hold: Callable[[], str | None] = lambda: None,
    anew: bool = False,
) -> Verdict:
    """Turn a report into the one verdict about its batch, and keep it.

    Parameters
    ----------
    hold : callable
        Says why a retrain has to wait now, or None; one that is wanted is `blocked` by it. Only
        then it is asked.
    anew : bool
        Judge again although this very content has its verdict.
    """
    storage = Storage.of(settings)
    batch = report.batch
    said = _said(spec, storage, report)
    done = shelf.find(storage, Verdict, spec.model, batch.partition)
    if (
        not anew
        and done is not None
        and done.content_sha256 == report.content_sha256
        and not (done.awaits_outcomes and not report.awaits_outcomes)
    ):
        _list_or_free(storage, report, said)  # whoever kept it may have died before this
        return done
    earlier = _earlier(spec, settings, report)
    verdict = verdicts.judge(
        spec, report, earlier=earlier, realised=_realised(earlier, report), accepted=said
    )
    if verdict.outcome == "retrain" and (
        why := too_few_for_a_duel(spec, storage, batch)
        or too_few_to_learn_from(spec, storage, report)
        or hold()
    ):
        verdict = verdicts.blocked(verdict, why)
    shelf.keep(storage, verdict)
    _list_or_free(storage, report, said, is_new=done is None)
    log.info(
        "%s %s: %s (%s)", spec.model, batch.partition, verdict.outcome, "; ".join(verdict.reasons)
    )
    return verdict


def _said(spec: ModelSpec, storage: Storage, report: DriftReport) -> list[FeedAcceptance]:
    """Give what people said of broken feeds; asked for only where one broke."""
    if not verdicts.broken_columns(report):
        return []
    return broken_feeds.accepted(spec, storage, report.batch)


def _list_or_free(
    storage: Storage,
    report: DriftReport,
    said: Sequence[FeedAcceptance],
    *,
    is_new: bool = False,
) -> None:
    """Leave a batch out of training if its feed broke; else let it train again.

    What is as old as what the champion learned from is not judged, and stays as it was. What was
    never judged before is not listed, unless a batch up to it is.
    """
    broken = verdicts.broken_columns(report, said)
    if broken:
        broken_feeds.leave_out(storage, report.batch, report.content_sha256, broken)
    elif not report.in_sample and (report.any_left_out or not is_new):
        broken_feeds.take_back(storage, report.batch)


def came_meanwhile(spec: ModelSpec, storage: Storage, report: DriftReport) -> bool:
    """Have the outcomes come that a batch was measured without?

    For right after `measure_drift`: who brought them may have looked before the report was kept,
    and nobody else would have the batch judged with them. Who comes later finds the report.
    """
    return report.awaits_outcomes and is_settled(outcomes_of(spec, storage), report.batch)


def waiting_batches(
    spec: ModelSpec, storage: Storage, *, since: dt.datetime | None = None
) -> list[BatchRef]:
    """Give the batches that were judged without outcomes that are there by now, oldest first.

    Outcomes are complete from the first on, so it is enough to look back to the newest batch that
    waits for none. A batch that was measured without them, and has no verdict yet, waits as well.
    One without a report is passed over: its monitor is still to come.

    Parameters
    ----------
    since : datetime, optional
        When the outcomes began that have just come: what ended before then was complete already, or
        waits because a run that should have asked for it failed. So from there on the search ends
        with `LOOKED_BACK` batches that have no verdict.
    """
    outcomes = outcomes_of(spec, storage)
    found: list[BatchRef] = []
    if outcomes is None:
        return found
    ended = [
        one
        for one in batches_of(spec, rows_in_force(spec, storage), until=outcomes.until)
        if one.end <= outcomes.until
    ]
    while ended:
        ended, looked_at = ended[:-LOOKED_BACK], ended[-LOOKED_BACK:]
        names = [one.partition for one in looked_at]
        told = _judged_or_measured(spec, storage, names)
        for batch, last in zip(reversed(looked_at), reversed(told), strict=True):
            if isinstance(last, Verdict) and not last.awaits_outcomes:
                return found[::-1]
            if last is not None and last.awaits_outcomes:
                found.append(batch)
        if not any(told) and since is not None and looked_at[0].end <= since:
            break
    return found[::-1]


def _judged_or_measured(
    spec: ModelSpec, storage: Storage, names: Sequence[str]
) -> list[Verdict | DriftReport | None]:
    """Give the verdict about each batch; of one that has none yet its report, if it has that."""
    told = shelf.find_all(storage, Verdict, spec.model, names)
    unjudged = [name for name, one in zip(names, told, strict=True) if one is None]
    reports = iter(shelf.find_all(storage, DriftReport, spec.model, unjudged))
    return [next(reports) if one is None else one for one in told]


def too_few_for_a_duel(spec: ModelSpec, storage: Storage, batch: BatchRef) -> str | None:
    """Say why a candidate could not be judged now: too few labelled rows are left for it."""
    if spec.gate.mode == "disabled" and not spec.is_served_elsewhere:
        return None  # served elsewhere, those rows say what is promised
    start, end = split_times(spec, batch)
    joined, outcomes = feature_sets.joined_rows(spec, storage), outcomes_of(spec, storage)
    names = [
        one.partition
        for one in batches_of(spec, joined, since=start - spec.partitions.length, until=end)
        if one.end > start
    ]
    names = _trained_on(spec, storage, names)
    rows = joined.read(names, needed_for_labels(spec, outcomes, joined))
    rows = between(spec, rows, start, end)
    known = _labels(spec, outcomes, rows, batch.end)
    count = int((~np.isnan(known)).sum())
    if count >= spec.gate.min_rows:
        return None
    return (
        f"a candidate could not be judged yet: {count:,} rows from {start:%Y-%m-%d} to "
        f"{end:%Y-%m-%d} have a mature label, gate.min_rows is {spec.gate.min_rows:,}"
    )


def too_few_to_learn_from(spec: ModelSpec, storage: Storage, report: DriftReport) -> str | None:
    """Say why nothing could be trained now: too few labelled rows lie before the duel window."""
    if report.champion_version is None:  # then a verdict has counted them
        return None
    count = trainable_rows(spec, storage, report.batch, outcomes_of(spec, storage))
    if count >= spec.training.min_rows:
        return None
    return (
        f"nothing could be trained yet: {count:,} labelled rows lie before the duel, "
        f"training.min_rows is {spec.training.min_rows:,}"
    )


def reports_before(
    spec: ModelSpec, storage: Storage, batch: BatchRef, windows: int
) -> dict[str, DriftReport | None]:
    """Give the stored reports of the windows right before a batch, by partition, oldest first."""
    starts = [spec.partitions.step(batch.start, -back) for back in range(windows, 0, -1)]
    names = [spec.partition_key(start) for start in starts if start >= spec.partitions.first]
    found = shelf.find_all(storage, DriftReport, spec.model, names)
    return dict(zip(names, found, strict=True))


def _earlier(spec: ModelSpec, settings: Settings, report: DriftReport) -> list[DriftReport]:
    """Give the reports that a verdict asks for; those that are not there yet are measured.

    Monitors of neighbouring batches may run at once and in any order; whether drift persists, or
    grows, must not depend on that.
    """
    storage = Storage.of(settings)
    reports = reports_before(spec, storage, report.batch, verdicts.REPORTS_BEFORE)
    found = []
    for partition, known in reports.items():
        earlier = known
        if earlier is None and report.champion_version is not None:
            with contextlib.suppress(NotPublished):
                earlier = measure_drift(spec, settings, spec.batch_ref(partition))
        if earlier is not None:
            found.append(earlier)
    return found


def _report_before(spec: ModelSpec, storage: Storage, batch: BatchRef) -> DriftReport | None:
    """Give the nearest report before a batch, which carries what is known of those before it.

    So a batch reads one report, however long its history is.
    """
    start = batch.start
    for _ in range(verdicts.REPORTS_BEFORE):
        start = spec.partitions.step(start, -1)
        if start < spec.partitions.first:
            break
        found = shelf.find(storage, DriftReport, spec.model, spec.partition_key(start))
        if found is not None:
            return found
    return None


def _history(spec: ModelSpec, before: DriftReport | None) -> tuple[RealisedWindow, ...]:
    """Give what was realised in the windows before a batch."""
    if before is None:
        return ()
    own = filter(None, [before.realised])
    return (*before.history, *own)[-spec.drift.max_history_windows :]


def _realised(earlier: Sequence[DriftReport], report: DriftReport) -> list[RealisedWindow]:
    """Give what was realised before a batch, as it is known now."""
    if not earlier:
        return list(report.history)
    return [*earlier[0].history, *(one.realised for one in earlier if one.realised)]


def trainable_rows(
    spec: ModelSpec,
    storage: Storage,
    batch: BatchRef,
    outcomes: Outcomes | None = None,
    *,
    since: dt.datetime | None = None,
    any_left_out: bool = True,
) -> int:
    """Count the rows a retrain about this batch could learn from.

    With `since`, only those whose labels were not yet mature then. Whole partitions are counted
    from what their table says of them; only those at the two ends are read. Those of batches that
    are left out because their feed broke do not count, if there may be `any_left_out`.
    """
    maturity = dt.timedelta(days=spec.label.maturity_days)
    duel_start, _ = split_times(spec, batch)
    end = duel_start - maturity
    start = oldest_row(spec, duel_start)
    if since is not None:
        start = max(since - maturity, start) if start else since - maturity
    if outcomes is not None:
        return _trainable_with(spec, storage, batch, outcomes, (start, end))
    rows, label = rows_in_force(spec, storage), spec.label.column
    length = spec.partitions.length
    whole: list[str] = []
    ends: list[str] = []
    left_out = broken_feeds.left_out(storage, spec.model) if any_left_out else ()
    for name, opens in names_of(
        spec, rows, since=start and start - length, until=min(end, batch.end)
    ):
        if name in left_out:
            continue
        closes = spec.partitions.step(opens)
        if start and closes <= start:
            continue
        is_whole = closes <= end and (start is None or opens >= start)
        (whole if is_whole else ends).append(name)
    edge = between(spec, rows.read(ends, [spec.source.event_time, label]), start, end)
    count = rows.values_of(label, whole)
    return int(count + edge.num_rows - edge.column(label).null_count)


def _trainable_with(
    spec: ModelSpec,
    storage: Storage,
    batch: BatchRef,
    outcomes: Outcomes,
    window: tuple[dt.datetime | None, dt.datetime],
) -> int:
    """Count the rows with events in a window whose outcomes were known before the duel."""
    start, end = window
    known_at, _ = split_times(spec, batch)
    rows, length = rows_in_force(spec, storage), spec.partitions.length
    names = [
        one.partition
        for one in batches_of(spec, rows, since=start and start - length, until=end)
        if start is None or one.end > start
    ]
    names = _trained_on(spec, storage, names)
    found = rows.read(names, needed_for_labels(spec, outcomes, rows))
    found = between(spec, found, start, end)
    known = _labels(spec, outcomes, found, known_at, delivered_by=batch.end)
    return int((~np.isnan(known)).sum())


def _growth(
    spec: ModelSpec,
    storage: Storage,
    batch: BatchRef,
    learned: TrainingSet | None,
    outcomes: Outcomes | None,
    *,
    any_left_out: bool,
) -> dict[str, int]:
    """Give how many rows the last retrain learned from, and how many there are beside them now."""
    if spec.retrain.growth is None or learned is None:
        return {}
    new = trainable_rows(
        spec, storage, batch, outcomes, since=learned.training_end, any_left_out=any_left_out
    )
    return {"learned_rows": learned.training_rows, "new_rows": new}


def _importances(settings: Settings, champion: versions.Version) -> dict[str, float]:
    content = versions.run_artifact(settings, champion, shelf.IMPORTANCES_ARTIFACT)
    found: dict[str, float] = json.loads(content)
    return found
