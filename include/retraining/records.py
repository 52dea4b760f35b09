"""The pipeline as records, in the order a batch meets them. Read from top to bottom.

    BatchRef -> ValidationReport -> FeatureSet -> DriftReport -> Verdict
    RetrainRequest -> TrainingSet -> Candidate -> GateDecision -> Promotion

Data stays in object storage; only these records travel between tasks, as plain JSON
(``record.model_dump(mode="json")``), and each is also kept beside the data it describes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
GuardMode = Literal["rollback", "ask", "tell", "off"]
Severity = Literal["critical", "warning", "info"]
Trigger = Literal["monitor", "schedule", "manual"]
# it names folders, so nothing else may be in it
PartitionKey = Annotated[str, Field(pattern=r"\A\d{4}-\d\d-\d\d(T\d\d)?\z")]


class Record(BaseModel):
    """Base of all records: frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- ingest ---------------------------------------------------------------------------------------


class BatchRef(Record):
    """One batch of one model: its partition, and its half-open window ``[start, end)`` in UTC."""

    model: str
    partition: PartitionKey
    start: AwareDatetime
    end: AwareDatetime


class PipelineRun(Record):
    """Which run of Airflow a batch hangs on: one that waits its turn, or that has failed."""

    batch: BatchRef
    stage: Literal["ingest", "monitor"]
    run_id: str
    uncertain_since: AwareDatetime | None = Field(
        default=None, description="it waits for what no active run is known of, since then"
    )


class QueryResult(Record):
    """The result of one query over a batch's window, kept so that every run can be repeated."""

    batch: BatchRef
    input: str
    query_sha256: str
    rows: Count
    key: str = Field(description="storage key of the copy that nothing overwrites")
    sha256: str = Field(description="of the Parquet file")


class Finding(Record):
    """One expectation that a batch did not meet."""

    expectation: str
    column: str | None = None
    severity: Severity
    failed_rows: Count | None = Field(default=None, description="None: the whole batch broke it")
    detail: str


class DeliveryMapping(Record):
    """How a delivery is to be read that cannot be used as it landed, and who said so."""

    input: str = Field(default="batch", description="the input it is about")
    renames: dict[str, str] = Field(default={}, description="name in the files -> declared name")
    replacements: dict[str, dict[str, str | None]] = Field(
        default={}, description="declared name -> value in the files -> right one (None: missing)"
    )
    reason: str = ""
    actor: str = ""


class ValidationReport(Record):
    """What validation found, and where every single row of the batch went."""

    batch: BatchRef
    status: Literal["accepted", "refused"]
    rows_in: Count
    rows_good: Count
    rows_quarantined: Count
    findings: tuple[Finding, ...] = ()
    content_sha256: str = Field(description="of the landed files, in the order of the model file")
    suite_sha256: str = Field(description="of the expectation suites the batch was held against")
    source_sha256: str = Field(
        default="", description="of the source section of the model file it was held against"
    )
    mapping: DeliveryMapping | None = Field(
        default=None, description="applied before it was held against"
    )
    quarantine_key: str | None = Field(default=None, description="storage folder of the rows")
    files: dict[str, str] = Field(
        default={}, description="input name -> key of its good rows, until they are published"
    )
    quarantined_files: dict[str, str] = Field(
        default={}, description="input name -> key of its bad rows, until they are published"
    )
    delivery: Count = Field(
        default=0, description="number of the delivery among those of its partition, from 1"
    )
    page_key: str | None = Field(default=None, description="storage key of the page for people")

    @property
    def identity(self) -> str:
        """Digest of all that makes the good rows what they are; who said so is not among it."""
        mapping = self.mapping.model_dump_json(exclude={"reason", "actor"}) if self.mapping else ""
        parts = (self.content_sha256, self.suite_sha256, self.source_sha256, mapping)
        return hashlib.sha256("|".join(parts).encode()).hexdigest()

    @model_validator(mode="after")
    def _no_row_is_lost(self) -> Self:
        if self.rows_in != self.rows_good + self.rows_quarantined:
            raise ValueError(
                f"rows_in must be rows_good + rows_quarantined, got {self.rows_in} != "
                f"{self.rows_good} + {self.rows_quarantined}"
            )
        return self


class FeatureSet(Record):
    """The features of one batch, joined as of each row's own time, one row per validated row."""

    batch: BatchRef
    service: str
    rows: Count
    table_version: Count = Field(description="of the table of joined rows")
    file: str = Field(description="storage key of its data file in that table")
    seen_from: AwareDatetime | None = Field(
        default=None, description="feature rows older than this are seen by no row; None: all are"
    )
    sha256: str = Field(description="of all that makes the joined rows what they are")


class FeatureSkew(Record):
    """One feature: what is served online, against what training sees."""

    view: str
    name: str
    compared: Count = Field(description="keys")
    differing: Count
    expired: Count = Field(description="keys whose online row is older than the view's ttl")
    age_hours: float | None = Field(description="of the youngest online row; None: not stored")
    ttl_hours: float | None = Field(description="None: for ever")
    example: str = ""
    ahead: Count = Field(
        default=0,
        description="rows joined with a value that was not there online when they were predicted",
    )
    ahead_example: str = ""

    @property
    def is_stale(self) -> bool:
        """Has every row of the view outlived its ttl?"""
        limits = self.age_hours, self.ttl_hours
        return limits[0] is not None and limits[1] is not None and limits[0] > limits[1]


class SkewReport(Record):
    """Online against offline values of every feature, for the keys and rows of one batch.

    Asked twice: what does the online store serve `at` a moment, and what was there online when each
    row was predicted, of the values that it was joined with?
    """

    batch: BatchRef
    at: AwareDatetime = Field(description="the moment that both stores were asked about")
    keys: Count
    rows: Count = Field(default=0, description="whose prediction times were looked at")
    features: tuple[FeatureSkew, ...]
    nothing: str = Field(default="", description="why nothing was compared; empty: something was")

    @property
    def differences(self) -> tuple[str, ...]:
        """What the online store serves otherwise than it should, one line a feature."""
        return tuple(
            f"{one.view}: {one.name}: {one.differing} of {one.compared} keys differ ({one.example})"
            for one in self.features
            if one.differing
        ) + tuple(
            f"{one.view}: {one.name}: the newest value is {one.age_hours:.1f} h old, its ttl is "
            f"{one.ttl_hours:.1f} h"
            for one in self.features
            if one.is_stale
        )

    @property
    def ahead(self) -> tuple[str, ...]:
        """What rows were joined with before it was there online, one line a feature."""
        return tuple(
            f"{one.view}: {one.name}: of {self.rows:,} rows, {one.ahead:,} were joined with a "
            f"value that was not there yet when they were predicted ({one.ahead_example})"
            for one in self.features
            if one.ahead
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong; empty if online is as offline, young enough, and was there in time."""
        return self.differences + self.ahead


class Sweep(Record):
    """What retention removed: whole batches, and data files that nothing in force needed."""

    batch: BatchRef = Field(description="the one whose end says what is old")
    partitions: tuple[str, ...]
    outcomes: tuple[str, ...] = Field(default=(), description="partitions of outcomes")
    files: Count


# --- monitor --------------------------------------------------------------------------------------

Calibration = Literal["calibrated", "uncalibrated", "insufficient"]


Measured = Literal[
    "distance", "shift", "missing share", "location", "spread", "pile-up", "outside", "never seen"
]


class Measurement(NamedTuple):
    """One thing measured of a column, and what it has to exceed to be drift."""

    name: Measured
    value: float | None
    threshold: float | None

    @property
    def times(self) -> float:
        """The value as a multiple of its threshold; 0 where there is no verdict about it."""
        if self.value is None or self.threshold is None:
            return 0.0
        return self.value / (self.threshold or 1.0)


BreakKind = Literal["unit", "fill value", "constant", "cut off", "lost", "spelling"]


class Break(Record):
    """How the feed of a column broke: not the world has moved, but what is delivered.

    `proven` where values themselves say so; what only looks like it blocks nothing.
    """

    kind: BreakKind
    cause: str
    share: Share = Field(description="of the rows, concerned")
    proven: bool

    @property
    def identity(self) -> str:
        """Which unit it is: another one is another break. Empty of other kinds."""
        return self.cause.removeprefix("about ").split(";", 1)[0] if self.kind == "unit" else ""


class FeatureDrift(Record):
    """How far one column moved from the champion's reference, and whether that is unusual.

    `distance` is the two-sample Kolmogorov-Smirnov distance of a numeric column, the
    total-variation distance of a categorical one; both lie in [0, 1]. None where the column cannot
    be measured, with the reason said. A threshold is None where no verdict can be given.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    distance: Share | None
    p_value: Share | None
    threshold: Share | None
    importance: float | None = Field(default=None, description="permutation importance at training")
    distance_high: Share | None = Field(
        default=None, description="certified upper end, where `distance` is a lower one"
    )
    shift: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="of a numeric column: how much likelier a value of now is larger than smaller "
        "(Cliff's delta)",
    )
    shift_threshold: Share | None = Field(default=None, description="of its amount")
    shift_errors: tuple[float, float] | None = Field(
        default=None,
        description="standard deviations of an ordinary shift: of the window, and of the "
        "reference, which all windows against it share; what windows differ by is widened by what "
        "few of them leave uncertain; None: no history says what is ordinary",
    )
    trend_limit: float | None = Field(
        default=None, description="standard errors from which a trend of the shift is certain"
    )
    missing_change: Share | None = Field(
        default=None, description="of a numeric column: how far its share of missing values moved"
    )
    missing_threshold: Share | None = None
    outline: tuple[Measurement, ...] = Field(
        default=(),
        description="of a numeric column, against the windows of its history: location (in units "
        "of a window's usual spread) and spread (in logarithms), neither with a ceiling; shares of "
        "rows piled up at an end, outside of all windows, and with a value none has shown",
    )
    was_constant: bool = Field(
        default=False,
        description="one value all along the reference: what it is worth is not known",
    )
    broken: Break | None = Field(
        default=None, description="its feed broke, or looks like it, and how; None: nothing says so"
    )
    psi: float | None = Field(
        default=None,
        description="population stability index; of a numeric column over the tenths of its "
        "reference, where it drifted",
    )
    wasserstein: float | None = Field(
        default=None, description="in the unit of a numeric column, where it drifted"
    )
    state: Calibration
    drifted: bool
    expected: bool = Field(default=False, description="declared in the model file: never counts")
    reason: str

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """All that was held against a threshold; the first one is the distance."""
        shift = None if self.shift is None else abs(self.shift)
        return (
            Measurement("distance", self.distance, self.threshold),
            Measurement("shift", shift, self.shift_threshold),
            Measurement("missing share", self.missing_change, self.missing_threshold),
            *self.outline,
        )

    @property
    def furthest(self) -> Measurement:
        """The measurement furthest beyond its threshold."""
        return max(self.measurements, key=lambda one: one.times)

    @property
    def excess(self) -> float:
        """The furthest measurement over its threshold."""
        return self.furthest.times

    @property
    def is_judged(self) -> bool:
        """Could anything about it be held against a threshold?"""
        measured = any(m.value is not None and m.threshold is not None for m in self.measurements)
        return measured and self.state != "insufficient"


def unjudged(columns: Iterable[FeatureDrift]) -> tuple[FeatureDrift, ...]:
    """Give the columns that could not be judged, the most important first."""
    left = (column for column in columns if not column.is_judged)
    return tuple(sorted(left, key=lambda column: -(column.importance or 0.0)))


class ProperScore(Record):
    """Minus the mean loss by a proper scoring rule: the best forecast is the true probability.

    Each row tells on it, so it shows a loss sooner than a ranking of the rows does.
    """

    metric: str
    value: float
    error: float = Field(ge=0, description="standard error")


class Performance(Record):
    """A metric of one model version on rows whose labels can no longer change."""

    metric: str
    rows: Count
    value: float
    low: float = Field(description="lower end of the confidence interval")
    high: float = Field(description="upper end of the confidence interval")
    proper: ProperScore | None = Field(default=None, description="of the same rows; None: not kept")


class RealisedWindow(Performance):
    """What a champion realised in the window of one batch."""

    partition: PartitionKey | None = Field(
        default=None, description="of the batch that it was measured with; None: not kept"
    )
    champion: str | None = Field(
        default=None, description="incident that made the champion, or its version; None: not kept"
    )
    rows_from: AwareDatetime | None = Field(
        default=None, description="begin of its rows, where they are of before that batch"
    )


class Harm(Record):
    """Does a champion do worse than it did and promised? By all of its windows so far."""

    state: Literal["below", "within", "not known"]
    metric: str
    windows: Count = Field(description="with outcomes, since it is champion")
    times: float = Field(
        default=1.0, description="a fall for good is so many times likelier than no change"
    )
    needed: float = Field(description="times from which it is harm")
    since: PartitionKey | None = Field(
        default=None, description="the batch that a fall began with, if there was one"
    )
    rows_since: AwareDatetime | None = Field(
        default=None,
        description="begin of the rows that it began with, where their labels came with that batch",
    )
    before: float | None = Field(default=None, description="the metric before a fall")
    after: float | None = Field(default=None, description="and since")
    proper: str = Field(default="", description="the proper score that was weighed beside it")

    SAYS_NOTHING: ClassVar[float] = 1.05  # times; less is no hint of a fall

    @property
    def _since(self) -> str:
        """When it began: for the rows, not for who knew it."""
        if self.rows_since is None:
            return str(self.since)
        begin = self.rows_since.astimezone(dt.UTC)
        shown = f"{begin:%Y-%m-%d}" if begin.time() == dt.time() else f"{begin:%Y-%m-%d %H:%M}"
        return f"the rows of {shown} (known with {self.since})"

    @property
    def in_words(self) -> str:  # noqa: PLR0911 - one return per state
        """What is known, in one sentence."""
        times = f"{self.times:,.0f}" if self.times >= 10 else f"{self.times:.1f}"
        beside = f", {self.proper} weighed as well" if self.proper else ""
        windows = f"{self.windows} window{'' if self.windows == 1 else 's'}{beside}"
        if self.before is None or self.after is None:
            return f"not known yet whether {self.metric} has fallen: {windows}, and no promise"
        if self.state == "below":
            return (
                f"{self.metric} has fallen since {self._since}: {self.after:.3f}, before that "
                f"{self.before:.3f}; {times} times likelier than no change ({windows})"
            )
        if self.state == "within":
            return f"{self.metric} has not fallen, as far as {windows} can tell"
        if self.times > self.needed and self.before > self.after:
            return (
                f"{self.metric} has fallen by {self.before - self.after:.3f} since {self._since}, "
                f"no more than is allowed ({windows})"
            )
        if self.times > self.needed:
            return f"{self.metric} has not fallen, {self.proper} has ({windows})"
        if self.times < self.SAYS_NOTHING:
            return f"not known yet whether {self.metric} has fallen ({windows})"
        return (
            f"not known yet whether {self.metric} has fallen: {times} times likelier than no "
            f"change, {self.needed:.0f} are asked for ({windows})"
        )


class GuardWindow(Record):
    """A champion minus the version before it, on the rows of one window."""

    partition: PartitionKey = Field(description="of the batch that it was measured with")
    rows: Count = Field(description="with labels that can no longer change")
    gain: float
    error: float = Field(ge=0, description="standard error of the gain")


class Probation(Record):
    """What is known of a new champion against the version before it, since its promotion.

    Both are asked about the same rows, all of them later than those that decided the promotion.
    """

    version: int
    incident_id: str = Field(description="that made the version")
    against: int
    against_incident: str
    state: Literal["running", "worse", "kept"]
    metric: str | None = Field(
        default=None, description="of gain and margin; None: that of the model file, not kept"
    )
    windows: tuple[GuardWindow, ...] = Field(
        default=(), description="oldest first; none any more where it has ended"
    )
    looked_at: Count = Field(default=0, description="windows so far")
    ended_with: PartitionKey | None = Field(
        default=None, description="the batch whose window ended it; None while it runs"
    )
    gain: float | None = Field(default=None, description="mean of the windows, by precision")
    times_worse: float | None = Field(
        default=None, description="so many times likelier is what was seen if it is worse"
    )
    times_not_worse: float | None = Field(
        default=None, description="and if it is not worse, rather than worse by the margin"
    )
    margin: float | None = Field(default=None, description="of the metric")
    trouble: str = Field(default="", description="why the last window could not be looked at")

    CLEARLY: ClassVar[float] = 20.0  # so many times likelier that it is not worse, and it ends

    @property
    def in_words(self) -> str:  # noqa: PLR0911 - one return per state
        """What is known, in one sentence."""
        pair = f"version {self.version} against version {self.against}, the one before it"
        windows = f"{self.looked_at} window{'s' if self.looked_at > 1 else ''}"
        if self.gain is None:
            if self.state == "kept" and not self.looked_at:
                return f"version {self.version} came back by a rollback: it is on no probation"
            if self.state == "kept":
                return f"{pair}: {windows}, in all of which both said the same"
            why = self.trouble or "no window has told them apart since its promotion"
            return f"{pair}: not known yet, {why}"
        gain = f"{self.gain:+.4f} over {windows}"
        if self.state == "worse":
            return (
                f"{pair}: worse, {gain}; {self.times_worse:,.0f} times likelier than if it were not"
            )
        if self.state == "kept" and (self.times_not_worse or 0) > self.CLEARLY:
            return f"{pair}: not worse by more than {self.margin:.4f} ({gain})"
        if self.state == "kept":
            return f"{pair}: not shown to be worse, {gain}; nobody looks any more"
        return f"{pair}: not known yet, {gain}" + (f"; {self.trouble}" if self.trouble else "")


class DriftReport(Record):
    """One batch against the champion: inputs, predictions, and realised performance."""

    batch: BatchRef
    content_sha256: str = Field(description="of the feature set that was measured")
    champion_version: int | None = Field(description="None: no model is in production yet")
    champion_incident: str | None = Field(
        default=None, description="that made the champion: a number comes back; None: not kept"
    )
    state: Calibration
    rows: Count
    labelled_rows: Count = Field(description="of this batch, with labels that can no longer change")
    trainable_rows: Count | None = Field(
        default=None, description="without a champion: rows the first model could learn from"
    )
    features: tuple[FeatureDrift, ...] = ()
    score: FeatureDrift | None = Field(
        default=None, description="drift of the champion's predictions"
    )
    performance: Performance | None = Field(
        default=None, description="on rows whose labels have matured, of this batch or before it"
    )
    promise: Performance | None = Field(default=None, description="of the champion, from its duel")
    promised_before: Performance | None = Field(
        default=None,
        description="the promise, where it is of another metric than the one that is measured now",
    )
    history: tuple[RealisedWindow, ...] = Field(
        default=(),
        description="realised in the windows before it, oldest first, whoever was champion; at "
        "most drift.max_history_windows",
    )
    champion_age_days: float | None = Field(
        default=None, description="since its training data ended"
    )
    in_sample: bool = Field(
        default=False,
        description="the batch began before the champion's training data ended: performance is on "
        "later rows alone, and nothing is decided by it",
    )
    is_of_earlier_rows: bool = Field(
        default=False, description="performance is on rows before the batch, matured meanwhile"
    )
    measured_from: AwareDatetime | None = Field(
        default=None, description="begin of those earlier rows; None: of the batch, or not kept"
    )
    measured_until: AwareDatetime | None = Field(default=None, description="and their end")
    any_left_out: bool | None = Field(
        default=None,
        description="was a batch up to it left out because its feed broke? None: nobody looked",
    )
    drifting_since: AwareDatetime | None = Field(
        default=None,
        description="begin of the first of the batches that drifted without a break up to this one;"
        " None: it does not, or nobody saw it begin against this champion",
    )
    left_out: bool = Field(
        default=False,
        description="its feed broke, and nobody has said that it is right: what was realised on it "
        "says nothing of the champion",
    )
    outcomes_until: AwareDatetime | None = Field(
        default=None,
        description="where outcomes come apart from the rows: none that was due by then is missing",
    )
    probation: Probation | None = Field(
        default=None, description="of the champion; None: no version before it, or not asked for"
    )
    learned_rows: Count | None = Field(
        default=None,
        description="labelled rows that the last retrain learned from, promoted or not",
    )
    new_rows: Count | None = Field(
        default=None, description="labelled rows that a retrain now could learn from beside those"
    )

    @property
    def champion(self) -> str | None:
        """Who was measured: the incident that made it; where that was not kept, its version."""
        number = self.champion_version
        return self.champion_incident or (None if number is None else f"version {number}")

    @property
    def realised(self) -> RealisedWindow | None:
        """What the champion realised in this window."""
        if self.performance is None or (self.left_out and not self.is_of_earlier_rows):
            return None
        found = self.performance.model_dump()
        return RealisedWindow(
            **found,
            partition=self.batch.partition,
            champion=self.champion,
            rows_from=self.measured_from,
        )

    @property
    def awaits_outcomes(self) -> bool:
        """Are outcomes missing that were due by the batch's end?"""
        return self.outcomes_until is not None and self.outcomes_until < self.batch.end

    @property
    def columns(self) -> tuple[FeatureDrift, ...]:
        """All that was measured: the features, and the champion's predictions."""
        return (*self.features, *filter(None, [self.score]))

    @property
    def unjudged(self) -> tuple[FeatureDrift, ...]:
        """The columns that could not be judged, the most important first."""
        return unjudged(self.columns)

    @property
    def worst(self) -> FeatureDrift | None:
        """The feature furthest beyond its threshold; if none was judged, the furthest away."""
        measured = [f for f in self.features if f.distance is not None and not f.expected]
        judged = [f for f in measured if f.state != "insufficient"]
        return max(judged or measured, key=lambda f: (f.excess, f.distance or 0.0), default=None)


Outcome = Literal["ignore", "watch", "retrain", "blocked", "rollback", "broken_feed"]


class Verdict(Record):
    """What to do about a batch, and every reason for it."""

    batch: BatchRef
    outcome: Outcome
    reasons: tuple[str, ...]
    content_sha256: str
    champion_version: int | None
    champion_incident: str | None = Field(
        default=None, description="that made the champion: a number comes back; None: not kept"
    )
    incident_id: str
    harm: Harm | None = Field(default=None, description="None: no outcome says anything")
    worst_feature: str | None = None
    ks_distance: Share | None = Field(
        default=None, description="of the worst feature if it is numeric"
    )
    outcomes_are_older: bool = Field(
        default=False,
        description="it drifted, and all outcomes so far are of rows from before that",
    )
    awaits_outcomes: bool = Field(
        default=False,
        description="outcomes are missing that were due: it is judged again when they are there, "
        "and nothing that needs them is decided before",
    )


class BrokenFeed(Record):
    """A batch whose feed broke: its rows are in no training set and in no duel."""

    batch: BatchRef
    content_sha256: str = Field(description="of the feature set that was measured")
    columns: dict[str, Break]


class FeedAcceptance(Record):
    """A person says that what looks like a broken feed is right, from a partition on."""

    model: str
    column: str
    kind: BreakKind
    cause: str = Field(default="", description="of a unit: which one; any other is not accepted")
    since: PartitionKey
    reason: str
    actor: str
    at: AwareDatetime


class GuardAnswer(Record):
    """What a person said to a rollback that a verdict asked for; no answer in time is a no."""

    batch: BatchRef
    incident_id: str = Field(description="of the verdict")
    approved: bool
    by: str

    NOBODY: ClassVar[str] = "nobody"

    @classmethod
    def to(cls, verdict: Verdict, *, approved: bool, by: str) -> GuardAnswer:
        """Give the answer to what a verdict asks for."""
        return cls(batch=verdict.batch, incident_id=verdict.incident_id, approved=approved, by=by)

    @property
    def in_words(self) -> str:
        """Who said what."""
        if self.by == self.NOBODY:
            return "nobody answered in time"
        return f"{self.by} said {'yes' if self.approved else 'no'}"


class PublishedReport(Record):
    """Where people find what was measured: a run in MLflow, and pages in storage."""

    batch: BatchRef
    experiment_id: str
    run_id: str
    pages: tuple[str, ...] = Field(
        description="storage key of Evidently's page; empty where there is nothing new to look at, "
        "or none could be made. The picture is an artifact of the run"
    )


# --- retrain --------------------------------------------------------------------------------------


class RetrainRequest(Record):
    """Why a model is to be retrained; the same cause gives the same incident, so one model."""

    incident_id: str
    batch: BatchRef = Field(description="the newest batch the retrain may read")
    trigger: Trigger
    reason: str
    champion_version: int | None
    force: bool = False


class RetrainClaim(Record):
    """Which run handles an incident: only one can."""

    run_id: str
    request: RetrainRequest


class TrainingSet(Record):
    """Point-in-time correct rows: what the candidate learns from, and later ones for the duel."""

    incident_id: str
    model: str
    partition: PartitionKey = Field(description="the newest batch that was read")
    table_version: Count = Field(description="of the table of joined rows; pinned by its version")
    training_rows: Count
    training_start: AwareDatetime
    training_end: AwareDatetime
    duel_rows: Count
    duel_start: AwareDatetime
    duel_end: AwareDatetime
    unlabelled_rows: Count = Field(
        description="left out: the label is unknown or could still change"
    )
    left_out: tuple[PartitionKey, ...] = Field(
        default=(), description="batches whose feed broke: none of their rows is among these"
    )
    outcomes_version: Count | None = Field(
        default=None, description="of the table of outcomes, where they come apart from the rows"
    )
    adopted_from: str = Field(
        default="",
        description="where the model was taken from that others trained; the rows are then what it "
        "is held against, not what it learned from",
    )
    learned_until: AwareDatetime | None = Field(
        default=None, description="adopted: no row from then on was learned from, as a person says"
    )
    sha256: str = Field(description="of all that makes these rows what they are")


class LearnedFeatures(Record):
    """The features that a version learned from, and where each came from; kept with the version.

    A feature that no view gives is a column of the rows.
    """

    service: str | None = Field(description="of the model file then; None: all were columns")
    tables: str | None = Field(description="function of the model file then")
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    views: dict[str, tuple[str, ...]] | None = Field(
        description="feature view -> the features it gave; None: not kept"
    )
    expected: tuple[str, ...] = Field(default=(), description="`drift.expected` then")
    definitions_sha256: str = Field(
        default="", description="of the file that defined the views; empty: none, or not kept"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """All features, in the order the model saw them."""
        return (*self.numeric, *self.categorical)


class Candidate(Record):
    """A trained, registered model version that is not in production."""

    incident_id: str
    model: str
    version: int
    run_id: str
    training_set: TrainingSet
    digest: str = Field(description="of the fitted model; equal data and seed give an equal digest")


GateMode = Literal["enabled", "dry_run", "disabled"]


class Gain(Record):
    """Candidate minus another version on the same rows, with its confidence interval."""

    rows: Count
    value: float
    low: float
    high: float


class Traits(Record):
    """What a version is like beside its metric; None where it cannot be measured."""

    calibration_error: Share | None = Field(
        default=None, description="expected calibration error of the predicted probabilities"
    )
    scoring_ms_per_1000_rows: float | None = None
    size_bytes: Count | None = None


class GateCheck(Record):
    """One condition that was looked at, and what was found."""

    name: str
    passed: bool
    detail: str
    binding: bool = Field(default=False, description="counts where the gate is not enabled, too")


class GateDecision(Record):
    """The candidate against the champion on the same rows, and what follows."""

    incident_id: str
    model: str
    partition: PartitionKey
    candidate_version: int
    champion_version: int | None
    champion_incident: str | None = Field(
        default=None,
        description="that made the champion of the duel: a number comes back when a registered "
        "model is made anew; None: there was no duel, or nobody looked",
    )
    mode: GateMode = "enabled"
    passed: bool = Field(description="may be promoted")
    reasons: tuple[str, ...]
    checks: tuple[GateCheck, ...] = ()
    candidate: Performance | None = Field(description="None: the duel's rows cannot carry a metric")
    champion: Performance | None = None
    gain: Gain | None = None
    delong: Gain | None = Field(default=None, description="the gain of AUC by DeLong's method")
    slices: dict[str, Gain] = Field(default={}, description="slice -> gain")
    candidate_traits: Traits = Traits()
    champion_traits: Traits | None = None


class Promotion(Record):
    """The champion alias moved. `previous_version` is what a rollback returns to."""

    incident_id: str
    model: str
    partition: PartitionKey | Literal[""] = Field(
        description="empty: of no batch, where only hands have moved it so far"
    )
    action: Literal["promotion", "rollback", "by_hand"]
    version: int
    previous_version: int | None
    reason: str
    actor: str
    at: dt.datetime
    ledger_sequence: Count
    ledger_hash: str = Field(default="", description="of that entry; empty: not kept")
