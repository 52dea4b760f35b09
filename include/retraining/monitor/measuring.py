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
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining import shelf
from include.retraining.data.publication import batches_of, names_of, rows_in_force
from include.retraining.drift.measure import measure_columns, overall_state
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.errors import NotPublished
from include.retraining.features import feature_sets
from include.retraining.learning import scoring
from include.retraining.learning.rows import between, labels, oldest_row, split_times
from include.retraining.monitor import verdict as verdicts
from include.retraining.names import SCORE
from include.retraining.records import BatchRef, DriftReport, Performance, TrainingSet, Verdict
from include.retraining.registry import versions
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

log = logging.getLogger(__name__)


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
    done = shelf.find(storage, DriftReport, spec.model, batch.partition)
    if (
        not anew
        and done
        and done.content_sha256 == found.sha256
        and shelf.find(storage, Verdict, spec.model, batch.partition)
    ):
        log.info(
            "%s %s: this content was judged before; its report stands", spec.model, batch.partition
        )
        return done
    rows = feature_sets.rows_of(spec, storage, found)
    known = labels(spec, rows, known_at=batch.end)
    report = DriftReport(
        batch=batch,
        content_sha256=found.sha256,
        champion_version=None,
        state="uncalibrated",
        rows=rows.num_rows,
        labelled_rows=int((~np.isnan(known)).sum()),
        trainable_rows=None,
        history=_history(spec, storage, batch),
    )
    champion = versions.champion(spec, settings)
    if champion is None:
        report = report.model_copy(update={"trainable_rows": trainable_rows(spec, storage, batch)})
    else:
        scores = versions.score(spec, settings, champion, rows)
        profile = ReferenceProfile.from_bytes(versions.profile_bytes(spec, settings, champion))
        report = hold_against(
            spec,
            report,
            rows,
            known=known,
            scores=scores,
            profile=profile,
            importances=_importances(settings, champion),
            trained_until=champion.trained_until,
        ).model_copy(
            update={
                "champion_version": champion.number,
                "promise": champion.promise,
                **_growth(spec, storage, batch, learned),
            }
        )
        if dt.timedelta(days=spec.label.maturity_days) >= spec.partitions.length:
            matured = _matured_performance(spec, settings, batch, champion)
            report = report.model_copy(update={"performance": matured})
    shelf.keep(storage, report)
    return report


def _matured_performance(
    spec: ModelSpec, settings: Settings, batch: BatchRef, champion: versions.Version
) -> Performance | None:
    """Measure the champion on earlier rows whose labels have matured within this batch's window.

    Where labels take longer than a batch, its own rows have none yet. Rows that the champion could
    have learned from are left out.
    """
    storage = Storage.of(settings)
    maturity = dt.timedelta(days=spec.label.maturity_days)
    start, end = batch.start - maturity, batch.end - maturity
    start = max(start, champion.trained_until or start)
    joined = feature_sets.joined_rows(spec, storage)
    inside = [
        one.partition
        for one in batches_of(spec, joined, since=start - spec.partitions.length, until=end)
        if one.end > start
    ]
    rows = between(spec, joined.read(inside), start, end)
    if not rows.num_rows:
        return None
    known = labels(spec, rows, known_at=batch.end)
    scores = versions.score(spec, settings, champion, rows)
    return scoring.performance(spec, known, scores)


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
    done = shelf.find(storage, Verdict, spec.model, batch.partition)
    if not anew and done is not None and done.content_sha256 == report.content_sha256:
        return done
    earlier = _earlier(spec, settings, report)
    verdict = verdicts.judge(spec, report, earlier=earlier, realised=_realised(earlier, report))
    if verdict.outcome == "retrain" and (why := hold()):
        verdict = verdicts.blocked(verdict, why)
    shelf.keep(storage, verdict)
    log.info(
        "%s %s: %s (%s)", spec.model, batch.partition, verdict.outcome, "; ".join(verdict.reasons)
    )
    return verdict


def reports_before(
    spec: ModelSpec, storage: Storage, batch: BatchRef, windows: int
) -> dict[str, DriftReport | None]:
    """Give the stored reports of the windows right before a batch, by partition, oldest first."""
    starts = [batch.start - back * spec.partitions.length for back in range(windows, 0, -1)]
    names = [spec.partition_key(start) for start in starts if start >= spec.partitions.first]
    if not names:
        return {}
    with ThreadPoolExecutor(len(names)) as threads:  # on S3 every record is a round trip
        found = threads.map(lambda name: shelf.find(storage, DriftReport, spec.model, name), names)
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


def _history(spec: ModelSpec, storage: Storage, batch: BatchRef) -> tuple[Performance, ...]:
    """Give what was realised in the windows before a batch, as the nearest report has it.

    So a batch reads one report, however long its history is.
    """
    start = batch.start
    for _ in range(verdicts.REPORTS_BEFORE):
        start -= spec.partitions.length
        if start < spec.partitions.first:
            break
        found = shelf.find(storage, DriftReport, spec.model, spec.partition_key(start))
        if found is not None:
            own = filter(None, [found.performance])
            return (*found.history, *own)[-spec.drift.max_history_windows :]
    return ()


def _realised(earlier: Sequence[DriftReport], report: DriftReport) -> list[Performance]:
    """Give what was realised before a batch, as it is known now."""
    if not earlier:
        return list(report.history)
    return [*earlier[0].history, *(one.performance for one in earlier if one.performance)]


def trainable_rows(
    spec: ModelSpec, storage: Storage, batch: BatchRef, *, since: dt.datetime | None = None
) -> int:
    """Count the rows a retrain about this batch could learn from.

    With `since`, only those whose labels were not yet mature then. Whole partitions are counted
    from what their table says of them; only those at the two ends are read.
    """
    maturity = dt.timedelta(days=spec.label.maturity_days)
    duel_start, _ = split_times(spec, batch)
    end = duel_start - maturity
    start = oldest_row(spec, duel_start)
    if since is not None:
        start = max(since - maturity, start) if start else since - maturity
    rows, label = rows_in_force(spec, storage), spec.label.column
    length = spec.partitions.length
    whole: list[str] = []
    ends: list[str] = []
    for name, opens in names_of(
        spec, rows, since=start and start - length, until=min(end, batch.end)
    ):
        closes = opens + length
        if start and closes <= start:
            continue
        is_whole = closes <= end and (start is None or opens >= start)
        (whole if is_whole else ends).append(name)
    edge = between(spec, rows.read(ends, [spec.source.event_time, label]), start, end)
    count = rows.values_of(label, whole)
    return int(count + edge.num_rows - edge.column(label).null_count)


def _growth(
    spec: ModelSpec, storage: Storage, batch: BatchRef, learned: TrainingSet | None
) -> dict[str, int]:
    """Give how many rows the last retrain learned from, and how many there are beside them now."""
    if spec.retrain.growth is None or learned is None:
        return {}
    new = trainable_rows(spec, storage, batch, since=learned.training_end)
    return {"learned_rows": learned.training_rows, "new_rows": new}


def _importances(settings: Settings, champion: versions.Version) -> dict[str, float]:
    content = versions.run_artifact(settings, champion, shelf.IMPORTANCES_ARTIFACT)
    found: dict[str, float] = json.loads(content)
    return found
