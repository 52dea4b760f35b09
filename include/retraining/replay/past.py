"""Replays policies over a model's past: how many retrains would each have spent, what regained?

Real models are trained, one for each window that a policy could have chosen, on what a retrain
after that window would learn from. Every policy starts with the same first model and then decides
after each window, with what was known by then; a retrain counts as spent even if the duel with the
champion of that policy is lost.
"""

from __future__ import annotations

import copy
import datetime as dt
import io
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from include.retraining.errors import DataError, SpecError
from include.retraining.features import feature_sets as features
from include.retraining.learning import estimator, metrics
from include.retraining.learning import rows as feedback
from include.retraining.monitor import verdict as verdicts
from include.retraining.monitor.measuring import hold_against
from include.retraining.records import BatchRef, DriftReport, Performance
from include.retraining.retrain import candidate as training
from include.retraining.retrain import duel as duels
from include.retraining.retrain import gate
from include.retraining.retrain.incident import hold_after
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from include.retraining.drift.profile import ReferenceProfile

Family = Literal["bound", "schedule", "growth", "rule", "ours"]
Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]

FIXED_SCHEDULES = (2, 3, 4, 5, 6, 8, 10, 13)
GROWTHS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
CLAIRVOYANT_RETRAINS = 16
NAMED = {"never", "after every window"}  # of the bounds, in the picture
MIN_WINDOWS = 3  # the first model's, one to judge, one to gain in


class Window(NamedTuple):
    """One batch of the past with its features, its labels and its event times."""

    batch: BatchRef
    rows: pa.Table


class Policy(NamedTuple):
    """When to retrain. `decide` sees the walk so far and says whether to retrain now."""

    name: str
    family: Family
    decide: Callable[[Walk], bool]


class Outcome(NamedTuple):
    """What a policy spent and gained; the mean of it, where the past was begun at several windows.

    `metric` is the mean over all windows after the first model's, each scored by the champion of
    that time; `regained` is the share of what promoting a new model after every window gains over
    never. `spread` is the standard deviation of that share over the beginnings. What was retrained
    and promoted is that of the first beginning.
    """

    policy: str
    family: Family
    retrains: float
    promotions: float
    metric: float
    regained: float
    spread: float
    regret: float
    retrained: tuple[str, ...]
    promoted: tuple[str, ...]


@dataclass
class Walk:
    """One policy on its way through the past."""

    past: Past
    champion: int
    now: int
    retrained: list[int] = field(default_factory=list)
    promoted: list[int] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The window after which was last retrained, promoted or not."""
        return self.retrained[-1] if self.retrained else self.past.first


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
        self.labels = [feedback.labels(spec, window.rows) for window in self.windows]
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
            known = feedback.labels(self.spec, rows, known_at=batch.end)
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
            duel_start, _ = training.split_times(self.spec, window.batch)
            end = window.batch.end if self.ideal else duel_start
            known = [
                feedback.labels(self.spec, earlier.rows, known_at=end)
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
        duel_start, _ = training.split_times(self.spec, batch)
        end = batch.end if self.ideal else duel_start
        pipeline, start = self._fit(at, end)
        later = [window.rows for window in self.windows[at + 1 :]]
        scores = feedback.predict(
            self.spec, pipeline, pa.concat_tables(later, promote_options="permissive")
        )
        ends = np.cumsum([table.num_rows for table in later])[:-1]
        return _Trained(pipeline, start, end, np.split(scores, ends))

    def _fit(self, at: int, end: dt.datetime) -> tuple[Any, dt.datetime]:
        """Fit on what was known at `end`; give the pipeline, and where its rows start."""
        spec = self.spec
        start = self.windows[0].batch.start
        start = max(start, training.oldest_row(spec, end) or start)
        learned = self._rows(at, start, end)
        known = feedback.labels(spec, learned, known_at=end)
        labelled = learned.filter(pa.array(~np.isnan(known)))
        known = known[~np.isnan(known)]
        training.check_learnable(spec, labelled.append_column(training.LABEL, pa.array(known)))
        return estimator.fit_once(spec, labelled, known), start

    def _reference(self, at: int) -> _Reference:
        """Give what a report holds a window against; once, and only where a policy asks for it."""
        if at not in self._references:
            spec, model = self.spec, self.model(at)
            learned = self._rows(at, model.start, model.end)
            profile = training.build_profile(
                spec,
                learned,
                feedback.predict(spec, model.pipeline, learned),
                start=model.start,
                end=model.end,
            )
            duel = self._duel(at)
            labelled = duel.rows.append_column(training.LABEL, pa.array(duel.known))
            self._references[at] = _Reference(
                profile,
                training.permutation_importances(spec, duel.pipeline, labelled),
            )
        return self._references[at]

    def _duel(self, at: int) -> _Duel:
        """Give the rows a candidate of this window would meet the champion on, and its scores."""
        if at not in self._duels:
            spec, batch = self.spec, self.windows[at].batch
            start, end = training.split_times(spec, batch)
            rows, pipeline = self._rows(at, start, end), self.model(at).pipeline
            if self.ideal:  # it has seen these rows: one that has not makes the promise
                try:
                    pipeline = self._fit(at, start)[0]
                except DataError:  # too few rows without them: no promise
                    rows = rows.slice(0, 0)
            known = feedback.labels(spec, rows, known_at=batch.end)
            rows, known = rows.filter(pa.array(~np.isnan(known))), known[~np.isnan(known)]
            scores = feedback.predict(spec, pipeline, rows)
            own = feedback.performance(spec, known, scores)
            self._duels[at] = _Duel(pipeline, rows, known, scores, own)
        return self._duels[at]

    def promotes(self, champion: int, candidate: int) -> bool:
        """Say whether the gate lets a candidate replace a champion, without policies."""
        if self.ideal:
            return True
        key = (champion, candidate)
        if key not in self._promotes:
            spec, duel = self.spec, self._duel(candidate)
            self._promotes[key] = False
            if duel.performance is not None:
                theirs = feedback.predict(spec, self.model(champion).pipeline, duel.rows)
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
        # a column of whole numbers is one of floats in a window where one is missing
        tables = [window.rows for window in self.windows[: at + 1]]
        rows = pa.concat_tables(tables, promote_options="permissive")
        return feedback.between(self.spec, rows, start, end)


def published_windows(spec: ModelSpec, storage: Storage) -> list[Window]:
    """Give all published batches of a model with their features, oldest first."""
    windows = []
    for batch in features.published_partitions(spec, storage):
        found = features.feature_set(spec, storage, batch)
        windows.append(Window(batch, storage.read_table(found.key)))
    return windows


def standard_policies(
    spec: ModelSpec, tried: Sequence[str] = (), *, windows: int = 99
) -> list[Policy]:
    """Give the policies that are worth a look for any model.

    Parameters
    ----------
    spec : ModelSpec
        What the model file says is one of them.
    tried : sequence of str
        Changes of the model file, each one policy more: ``"retrain.growth=0.3"``, several settings
        apart by commas.
    windows : int
        Of the past; schedules that are longer are left out.
    """
    policies = [
        Policy("never", "bound", lambda _: False),
        Policy("after every window", "bound", lambda _: True),
        *(
            Policy(f"every {n} windows", "schedule", _every(n))
            for n in FIXED_SCHEDULES
            if n < windows
        ),
        *(Policy(f"{g:.0%} more rows", "growth", _grown(g)) for g in GROWTHS),
        Policy("any feature p < 0.05", "rule", _any_significant),
        Policy(
            "Evidently's default", "rule", lambda w: w.past.evidently_says_drift(w.champion, w.now)
        ),
        Policy("ours: the model file", "ours", _verdict(spec)),
    ]
    if spec.retrain.growth is not None:
        alone = _changed(spec, {"retrain.growth": None})
        policies.append(Policy("ours: drift and harm alone", "ours", _verdict(alone)))
    for change in tried:
        pairs = (pair.partition("=") for pair in change.split(","))
        changes = {name.strip(): value.strip() for name, _, value in pairs}
        policies.append(Policy(f"ours: {change}", "ours", _verdict(_changed(spec, changes))))
    return policies


def replay(
    past: Past, policies: Sequence[Policy], *, starts: int = 1, progress: Progress | None = None
) -> list[Outcome]:
    """Run policies over the past, best first, with the clairvoyant choices as an upper bound.

    Parameters
    ----------
    past : Past
        The windows and models.
    policies : sequence of Policy
        With "never" and "after every window" among them.
    starts : int
        From so many beginnings, each one window later than the last: which of two neighbouring
        windows is trained on is worth several points of the regained share, and means over
        beginnings even that out.
    progress : callable, optional
        Wraps an iterable given with a title and a length, to show how far it is.

    Raises
    ------
    DataError
        The last beginning leaves too few windows.
    """
    shown = progress or _silent
    if starts < 1 or past.last - past.first - starts + 2 < MIN_WINDOWS:
        raise DataError(
            f"--starts: must be from 1 to {past.last - past.first + 2 - MIN_WINDOWS}, which leaves "
            f"{MIN_WINDOWS - 1} windows after the last beginning, got {starts}"
        )
    for at in shown(past.choices, "training models", len(past.choices)):
        past.model(at)
    pasts = [past.begun_at(past.first + later) for later in range(starts)]
    pairs = [(one, policy) for one in pasts for policy in policies]
    walks = [(policy, _walk(one, policy)) for one, policy in shown(pairs, "policies", len(pairs))]
    size = len(policies)
    runs = [_outcomes(one, walks[n * size : (n + 1) * size]) for n, one in enumerate(pasts)]
    found = [_averaged([run[name] for run in runs]) for name in runs[0] if name in runs[-1]]
    named = {policy.name for policy in policies}
    return [
        *sorted((o for o in found if o.policy in named), key=lambda o: -o.metric),
        *(o for o in found if o.policy not in named),
    ]


def _outcomes(past: Past, walked: Sequence[tuple[Policy, Walk]]) -> dict[str, Outcome]:
    """Give what each policy, and each number of clairvoyant choices, spent and gained."""
    never = _mean(past, [])
    every = _mean(past, list(past.choices)[1:])
    best = max(_mean(past, walk.promoted) for _, walk in walked)

    def outcome(name: str, family: Family, walk: Walk) -> Outcome:
        mean = _mean(past, walk.promoted)
        return Outcome(
            policy=name,
            family=family,
            retrains=len(walk.retrained),
            promotions=len(walk.promoted),
            metric=mean,
            regained=(mean - never) / (every - never) if every != never else 0.0,
            spread=0.0,
            regret=best - mean,
            retrained=tuple(past.windows[at].batch.partition for at in walk.retrained),
            promoted=tuple(past.windows[at].batch.partition for at in walk.promoted),
        )

    bounds = [Walk(past, past.first, 0, points, points) for points in _clairvoyant(past)]
    found = [outcome(policy.name, policy.family, walk) for policy, walk in walked]
    found += [outcome(f"clairvoyant, {len(w.promoted)} retrains", "bound", w) for w in bounds]
    return {one.policy: one for one in found}


def _averaged(outcomes: Sequence[Outcome]) -> Outcome:
    """Give the mean of what one policy spent and gained from several beginnings."""
    if len(outcomes) == 1:
        return outcomes[0]

    def mean(name: str) -> float:
        return float(np.mean([getattr(one, name) for one in outcomes]))

    return outcomes[0]._replace(
        retrains=mean("retrains"),
        promotions=mean("promotions"),
        metric=mean("metric"),
        regained=mean("regained"),
        spread=float(np.std([one.regained for one in outcomes], ddof=1)),
        regret=mean("regret"),
    )


def as_json(past: Past, outcomes: Sequence[Outcome], *, starts: int = 1) -> str:
    """Give the outcomes for programs."""
    return json.dumps(
        {
            "model": past.spec.model,
            "metric": past.spec.gate.metric,
            "first": past.windows[past.first].batch.partition,
            "starts": starts,
            "windows": past.last - past.first,
            "policies": [outcome._asdict() for outcome in outcomes],
        },
        indent=2,
    )


def as_table(past: Past, outcomes: Sequence[Outcome], *, starts: int = 1) -> str:
    """Give the outcomes for people: one line per policy, best first."""
    first, last = past.windows[past.first].batch, past.windows[past.last].batch
    title = (
        f"{past.spec.model}: {past.last - past.first} windows after the first model "
        f"({first.partition}), up to {last.partition}; mean {past.spec.gate.metric}"
    )
    averaged = starts > 1
    if averaged:
        title += f"; means of {starts} beginnings, each a window later than the last"
    regained = "regained ± sd" if averaged else "regained"
    head = ("policy", "retrains", "promoted", "mean", regained, "regret")
    lines = [
        title,
        "",
        "{:34s} {:>8s}  {:>8s}  {:>6s}  {:>8s}  {:>7s}".format(*head),
    ]
    for outcome in outcomes:
        if outcome.policy.startswith("clairvoyant") and outcome.retrains not in {5, 10}:
            continue
        lines.append(
            f"{outcome.policy:34.34s} {round(outcome.retrains, 1):8g}  "
            f"{round(outcome.promotions, 1):8g}  {outcome.metric:6.4f}  {outcome.regained:8.0%}"
            f"{f' ± {outcome.spread:3.0%}' if averaged else ''}  {outcome.regret:7.4f}"
        )
    lines += [
        "",
        "regained: share of what promoting a new model after every window gains over never",
        "regret:   what the best policy here has more" + (" each time" if averaged else ""),
    ]
    return "\n".join(lines)


def as_picture(past: Past, outcomes: Sequence[Outcome]) -> bytes:
    """Draw retrains spent against metric regained, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    styles: dict[str, tuple[str, str]] = {
        "schedule": ("#7b8794", "fixed schedules"),
        "growth": ("#2f6f9f", "training set grown by a share"),
    }
    for family, (color, title) in styles.items():
        curve = sorted((o.retrains, o.metric) for o in outcomes if o.family == family)
        axes.plot(*zip(*curve, strict=True), "o-", color=color, label=title, markersize=4)
    bound = [(o.retrains, o.metric) for o in outcomes if o.policy.startswith("clairvoyant")]
    if bound:
        axes.plot(
            *zip(*bound, strict=True), color="#c9d1d9", linestyle="--", label="clairvoyant choice"
        )
    axes.set_xlabel("retrains spent")
    axes.set_ylabel(f"mean {past.spec.gate.metric} over {past.last - past.first} windows")
    axes.set_title(f"{past.spec.model}: what each policy regains", loc="left", fontweight="bold")
    axes.set_xlim(-1, past.last - past.first)
    _name_points(axes, [o for o in outcomes if o.policy in NAMED or o.family in {"ours", "rule"}])
    axes.grid(axis="y", color="#e4e7eb")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def _silent(items: Iterable[Any], _title: str, _length: int) -> Iterable[Any]:
    return items


def _name_points(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Mark policies, each with its name where no other name is."""
    taken: list[tuple[float, float, float]] = []  # left, right and height of each name, in pixels
    for outcome in sorted(outcomes, key=lambda o: -o.metric):
        color = {"ours": "#c8372d", "rule": "#b07d2b"}.get(outcome.family, "#1f2933")
        point = (outcome.retrains, outcome.metric)
        axes.plot(*point, "D", color=color, markersize=7, zorder=5)
        x, y = axes.transData.transform(point)
        leftwards = outcome.retrains > axes.get_xlim()[1] * 0.6
        width = 7.5 * len(outcome.policy)
        left, right = (x - width, x) if leftwards else (x, x + width)
        height = y
        while any(
            start < right and left < end and abs(at - height) < 14 for start, end, at in taken
        ):
            height -= 3
        taken.append((left, right, height))
        axes.annotate(
            outcome.policy, point,
            xytext=(-9 if leftwards else 9, (height - y) * 0.65 - 3), textcoords="offset points",
            ha="right" if leftwards else "left", fontsize=8, color=color,
        )  # fmt: skip


def _walk(past: Past, policy: Policy) -> Walk:
    """Let a policy decide after every window but the first and the last."""
    walk = Walk(past, champion=past.first, now=past.first)
    for now in list(past.choices)[1:]:
        walk.now = now
        if policy.decide(walk):
            walk.retrained.append(now)
            if past.promotes(walk.champion, now):
                walk.promoted.append(now)
                walk.champion = now
    return walk


def _mean(past: Past, points: Sequence[int]) -> float:
    """Mean of the metric when models are trained after the first window and after `points`."""
    values, champion = [], past.first
    chosen = set(points)
    for window in range(past.first + 1, past.last + 1):
        values.append(past.metric(champion, window))
        if window in chosen:
            champion = window
    return float(np.nanmean(values))


def _clairvoyant(past: Past) -> list[list[int]]:
    """Give the best windows to retrain after, for each number of retrains, by dynamic programming.

    Known only afterwards; no policy can be better.
    """
    windows = range(past.first + 1, past.last + 1)
    gains = {
        (champion, window): np.nan_to_num(past.metric(champion, window))
        for champion in past.choices
        for window in windows
        if window > champion
    }
    # best[champion]: the largest sum so far that ends with this champion, and how it came about
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(past.first, 0): (0.0, ())}
    most = min(CLAIRVOYANT_RETRAINS, len(past.choices) - 1)
    for window in windows:
        reached: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
        for (champion, spent), (total, points) in best.items():
            grown = total + gains[champion, window]
            options = [((champion, spent), points)]
            if spent < most and window < past.last:
                options.append(((window, spent + 1), (*points, window)))
            for state, way in options:
                if state not in reached or grown > reached[state][0]:
                    reached[state] = (grown, way)
        best = reached
    found = []
    for count in range(1, most + 1):
        ends = [value for (_, spent), value in best.items() if spent == count]
        found.append(list(max(ends)[1]))
    return found


def _every(windows: int) -> Callable[[Walk], bool]:
    def decide(walk: Walk) -> bool:
        return walk.now - walk.last >= windows

    return decide


def _grown(share: float) -> Callable[[Walk], bool]:
    def decide(walk: Walk) -> bool:
        known = walk.past.trainable(walk.last)
        return walk.past.trainable(walk.now) >= (1 + share) * known

    return decide


def _any_significant(walk: Walk) -> bool:
    report = walk.past.report(walk.champion, walk.now)
    return any(f.p_value is not None and f.p_value < 0.05 for f in report.features)


def _evidently_default(spec: ModelSpec, reference: pa.Table, current: pa.Table) -> bool:
    """Ask Evidently's own tests, chosen by its own default: do half of the columns drift?"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.legacy.calculations.stattests.registry import get_stattest

        sides = [feedback.feature_frame(spec, rows) for rows in (reference, current)]
        drifted = 0
        for name in spec.features.names:
            before, now = (side[name].replace([np.inf, -np.inf], np.nan).dropna() for side in sides)
            kind = "num" if name in spec.features.numeric else "cat"
            if len(before) and len(now):
                test = get_stattest(before, now, kind, None)
                drifted += bool(test(before, now, kind, None).drifted)
    return drifted >= len(spec.features.names) / 2


def _verdict(spec: ModelSpec) -> Callable[[Walk], bool]:
    def decide(walk: Walk) -> bool:
        windows = walk.past.windows
        learned = walk.past.trainable(walk.last)
        report = walk.past.report(walk.champion, walk.now, spec=spec).model_copy(
            update={"learned_rows": learned, "new_rows": walk.past.trainable(walk.now) - learned}
        )
        start = max(walk.past.first + 1, walk.now - spec.drift.max_history_windows)
        champions = _champions(walk)
        earlier = [walk.past.report(champions[at], at, spec=spec) for at in range(start, walk.now)]
        ends = [windows[at].batch.end for at in (walk.past.first, *walk.retrained)]
        hold = hold_after(spec, ends, report.batch)
        return verdicts.judge(spec, report, earlier=earlier, hold=hold).outcome == "retrain"

    return decide


def _champions(walk: Walk) -> dict[int, int]:
    """Give who was champion when each window up to now was judged."""
    champion, found = walk.past.first, {}
    for window in range(walk.past.first + 1, walk.now + 1):
        found[window] = champion
        if window in walk.promoted:
            champion = window
    return found


def _changed(spec: ModelSpec, changes: dict[str, Any]) -> ModelSpec:
    import yaml

    content = spec.model_dump(mode="json")
    for name, value in changes.items():
        section, _, setting = name.partition(".")
        if setting not in content.get(section, {}):
            raise SpecError(f"--try: no setting {name!r}; for example retrain.growth=0.3")
        content[section][setting] = yaml.safe_load(value) if isinstance(value, str) else value
    return ModelSpec.model_validate(content)
