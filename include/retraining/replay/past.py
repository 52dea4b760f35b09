"""A model's past: its windows, and the models that were or could have been trained on them."""

from __future__ import annotations

import copy
import datetime as dt
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from include.retraining.data.outcomes import outcomes_of, with_outcomes
from include.retraining.data.publication import batches_of
from include.retraining.errors import DataError
from include.retraining.features import feature_sets
from include.retraining.learning import estimator, metrics, scoring
from include.retraining.learning.rows import between, feature_frame, labels, oldest_row, split_times
from include.retraining.monitor.measuring import hold_against
from include.retraining.records import BatchRef, DriftReport, Performance
from include.retraining.retrain import candidate, gate, training_set
from include.retraining.retrain import duel as duels
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

if TYPE_CHECKING:
    from include.retraining.drift.profile import ReferenceProfile

MIN_WINDOWS = 3  # the first model's, one to judge, one to gain in


class Window(NamedTuple):
    """One batch of the past with its features, its labels and its event times."""

    batch: BatchRef
    rows: pa.Table


class _Trained(NamedTuple):
    pipeline: Any
    start: dt.datetime
    end: dt.datetime
    scores: list[metrics.Floats]


class _Duel(NamedTuple):
    pipeline: Any
    rows: pa.Table
    known: metrics.Floats
    scores: metrics.Floats
    performance: Performance | None


class _Reference(NamedTuple):
    profile: ReferenceProfile
    importances: dict[str, float]


class Past:
    """The windows of a model, and the models that were or could have been trained on them.

    Parameters
    ----------
    spec : ModelSpec
        With the training, the metric and the thresholds.
    windows : sequence of Window
        Oldest first.
    first : str, optional
        Partition after which the first model is trained; without, the earliest one that leaves
        `training.min_rows` rows to learn from.
    ideal : bool, default=False
        Models learn from all rows with mature labels and replace the champion without a duel, as
        studies of schedules assume. Otherwise the duel window is held out, and the gate decides.

    Raises
    ------
    DataError
        There are too few windows or rows.
    """

    def __init__(
        self,
        spec: ModelSpec,
        windows: Sequence[Window],
        *,
        first: str | None = None,
        ideal: bool = False,
    ) -> None:
        self.spec = spec
        self.ideal = ideal
        self.windows = list(windows)
        self._models: dict[int, _Trained] = {}
        self._metrics: dict[tuple[int, int], float] = {}
        self._reports: dict[tuple[int, int, str], DriftReport] = {}
        self._references: dict[int, _Reference] = {}
        self._duels: dict[int, _Duel] = {}
        self._promotes: dict[tuple[int, int], bool] = {}
        self._rules: dict[tuple[int, int], bool] = {}
        self.labels = [labels(spec, window.rows) for window in self.windows]
        self.first = self._first(first)

    @property
    def last(self) -> int:
        """Index of the last window."""
        return len(self.windows) - 1

    @property
    def choices(self) -> range:
        """The windows after which a policy can retrain, the first model's included."""
        return range(self.first, self.last)

    def model(self, at: int) -> _Trained:
        """Train on what a retrain after this window would learn from; once."""
        if at not in self._models:
            self._models[at] = self._train(at)
        return self._models[at]

    def metric(self, trained: int, window: int) -> float:
        """Give how a model does on a later window; NaN where the window cannot carry the metric."""
        key = (trained, window)
        if key not in self._metrics:
            known, scores = self.labels[window], self._scores(trained, window)
            labelled = ~np.isnan(known)
            found = float("nan")
            if len(np.unique(known[labelled])) > 1:
                found = metrics.value(self.spec.gate.metric, known[labelled], scores[labelled])
            self._metrics[key] = found
        return self._metrics[key]

    def report(self, trained: int, window: int, *, spec: ModelSpec | None = None) -> DriftReport:
        """Give the drift report of a window against a model, as the monitor would have made it.

        Performance is that on the window's own labels alone, so there is none where labels take
        longer to mature than a window is long.

        `spec` stands in for the model file, to try other thresholds.
        """
        spec = spec or self.spec
        key = (trained, window, spec.drift.model_dump_json())
        if key not in self._reports:
            model, batch = self.model(trained), self.windows[window].batch
            rows = self.windows[window].rows
            known = labels(self.spec, rows, known_at=batch.end)
            reference = self._reference(trained)
            empty = DriftReport(
                batch=batch,
                content_sha256=batch.partition,
                champion_version=trained,
                state="uncalibrated",
                rows=rows.num_rows,
                labelled_rows=int((~np.isnan(known)).sum()),
                promise=self._duel(trained).performance,
            )
            self._reports[key] = hold_against(
                spec,
                empty,
                rows,
                known=known,
                scores=self._scores(trained, window),
                profile=reference.profile,
                importances=reference.importances,
                trained_until=model.end,
            )
        return self._reports[key]

    def trainable(self, window: int) -> int:
        """Count the labelled rows that a retrain after this window could learn from."""
        return self._trainable[window]

    def evidently_says_drift(self, trained: int, window: int) -> bool:
        """Give the answer of Evidently's default rule."""
        key = (trained, window)
        if key not in self._rules:
            model = self.model(trained)
            learned = self._rows(trained, model.start, model.end)
            self._rules[key] = _evidently_default(self.spec, learned, self.windows[window].rows)
        return self._rules[key]

    @cached_property
    def _trainable(self) -> list[int]:
        counts = []
        for window in self.windows:
            duel_start, _ = split_times(self.spec, window.batch)
            end = window.batch.end if self.ideal else duel_start
            known = [
                labels(self.spec, earlier.rows, known_at=end)
                for earlier in self.windows
                if earlier.batch.start < end
            ]
            counts.append(int(sum((~np.isnan(found)).sum() for found in known)))
        return counts

    def _first(self, partition: str | None) -> int:
        names = [window.batch.partition for window in self.windows]
        if partition is not None and partition not in names:
            raise DataError(
                f"--first: {partition!r} is not published; there are {', '.join(names)}"
            )
        need = self.spec.training.min_rows
        enough = [index for index, count in enumerate(self._trainable) if count >= need]
        wanted = enough if partition is None else [names.index(partition)]
        trouble = ""
        for first in wanted:
            if first not in enough or len(names) - first < MIN_WINDOWS:
                break
            try:
                self.model(first)
            except DataError as error:  # the pipeline would fail here too, and try the next batch
                trouble = str(error)
            else:
                return first
        most = max(self._trainable, default=0)
        raise DataError(
            trouble
            or f"{self.spec.model}: {len(names)} windows are published, and the newest retrain "
            f"could learn from {most:,} labelled rows; a replay needs training.min_rows "
            f"{need:,} before its first model and {MIN_WINDOWS - 1} windows after it. Ingest more "
            "of the past"
        )

    def begun_at(self, first: int) -> Past:
        """Give the same past, begun after another window; all that was trained is shared."""
        later = copy.copy(self)
        later.first = first
        return later

    def _scores(self, trained: int, window: int) -> metrics.Floats:
        return self.model(trained).scores[window - trained - 1]

    def _train(self, at: int) -> _Trained:
        batch = self.windows[at].batch
        duel_start, _ = split_times(self.spec, batch)
        end = batch.end if self.ideal else duel_start
        pipeline, start = self._fit(at, end)
        later = [window.rows for window in self.windows[at + 1 :]]
        scores = scoring.predict(self.spec, pipeline, pa.concat_tables(later))
        ends = np.cumsum([table.num_rows for table in later])[:-1]
        return _Trained(pipeline, start, end, np.split(scores, ends))

    def _fit(self, at: int, end: dt.datetime) -> tuple[Any, dt.datetime]:
        """Fit on what was known at `end`; give the pipeline, and where its rows start."""
        spec = self.spec
        start = self.windows[0].batch.start
        start = max(start, oldest_row(spec, end) or start)
        learned = self._rows(at, start, end)
        known = labels(spec, learned, known_at=end)
        labelled = learned.filter(pa.array(~np.isnan(known)))
        known = known[~np.isnan(known)]
        training_set.check_learnable(
            spec, labelled.append_column(training_set.LABEL, pa.array(known))
        )
        return estimator.fit_once(spec, labelled, known), start

    def _reference(self, at: int) -> _Reference:
        """Give what a report holds a window against; once, and only where a policy asks for it."""
        if at not in self._references:
            spec, model = self.spec, self.model(at)
            learned = self._rows(at, model.start, model.end)
            known = labels(spec, learned, known_at=model.end)
            labelled = learned.filter(pa.array(~np.isnan(known)))
            unseen = estimator.predict_unseen(spec, labelled, known[~np.isnan(known)])
            profile = candidate.build_profile(
                spec, learned, scored=(labelled, unseen), start=model.start, end=model.end
            )
            duel = self._duel(at)
            labelled = duel.rows.append_column(training_set.LABEL, pa.array(duel.known))
            self._references[at] = _Reference(
                profile,
                candidate.permutation_importances(spec, duel.pipeline, labelled),
            )
        return self._references[at]

    def _duel(self, at: int) -> _Duel:
        """Give the rows a candidate of this window would meet the champion on, and its scores."""
        if at not in self._duels:
            spec, batch = self.spec, self.windows[at].batch
            start, end = split_times(spec, batch)
            rows, pipeline = self._rows(at, start, end), self.model(at).pipeline
            if self.ideal:  # it has seen these rows: one that has not makes the promise
                try:
                    pipeline = self._fit(at, start)[0]
                except DataError:  # too few rows without them: no promise
                    rows = rows.slice(0, 0)
            known = labels(spec, rows, known_at=batch.end)
            rows, known = rows.filter(pa.array(~np.isnan(known))), known[~np.isnan(known)]
            scores = scoring.predict(spec, pipeline, rows)
            own = scoring.performance(spec, known, scores)
            self._duels[at] = _Duel(pipeline, rows, known, scores, own)
        return self._duels[at]

    def promotes(self, champion: int, challenger: int) -> bool:
        """Say whether the gate lets a candidate replace a champion, without its rules."""
        if self.ideal:
            return True
        key = (champion, challenger)
        if key not in self._promotes:
            spec, duel = self.spec, self._duel(challenger)
            self._promotes[key] = False
            if duel.performance is not None:
                theirs = scoring.predict(spec, self.model(champion).pipeline, duel.rows)
                comparison = duels.compare_scores(
                    spec,
                    champion,
                    rows=duel.rows,
                    known=duel.known,
                    scores=duel.scores,
                    theirs=theirs,
                )
                held = duels.Duel(duel.performance, champion=comparison)
                self._promotes[key] = gate.passes(spec.gate, held)
        return self._promotes[key]

    def _rows(self, at: int, start: dt.datetime, end: dt.datetime) -> pa.Table:
        """Give the rows of the windows up to this one with event times in ``[start, end)``."""
        tables = [window.rows for window in self.windows[: at + 1]]
        rows = pa.concat_tables(tables)
        return between(self.spec, rows, start, end)


def published_windows(spec: ModelSpec, storage: Storage) -> list[Window]:
    """Give all published batches of a model with their features, oldest first."""
    joined, outcomes = feature_sets.joined_rows(spec, storage), outcomes_of(spec, storage)
    latest = outcomes.until if outcomes else spec.partitions.first
    return [
        Window(
            batch,
            with_outcomes(spec, outcomes, joined.read([batch.partition]), known_at=latest),
        )
        for batch in batches_of(spec, joined)
    ]


def _evidently_default(spec: ModelSpec, reference: pa.Table, current: pa.Table) -> bool:
    """Ask Evidently's own tests, chosen by its own default: do half of the columns drift?"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.legacy.calculations.stattests.registry import get_stattest

        sides = [feature_frame(spec, rows) for rows in (reference, current)]
        drifted = 0
        for name in spec.features.names:
            before, now = (side[name].replace([np.inf, -np.inf], np.nan).dropna() for side in sides)
            kind = "num" if name in spec.features.numeric else "cat"
            if len(before) and len(now):
                test = get_stattest(before, now, kind, None)
                drifted += bool(test(before, now, kind, None).drifted)
    return drifted >= len(spec.features.names) / 2
