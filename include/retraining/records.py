"""The pipeline as records, in the order a batch meets them. Read from top to bottom.

    BatchRef -> ValidationReport -> FeatureSet -> DriftReport -> Verdict
    RetrainRequest -> TrainingSet -> Candidate -> GateDecision -> Promotion

Data stays in object storage; only these records travel between tasks, as plain JSON
(``record.model_dump(mode="json")``), and each is also kept beside the data it describes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
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
    """One feature: what the online store serves, against what training would have seen."""

    view: str
    name: str
    compared: Count = Field(description="keys")
    differing: Count
    expired: Count = Field(description="keys whose online row is older than the view's ttl")
    age_hours: float | None = Field(description="of the youngest online row; None: not stored")
    ttl_hours: float | None = Field(description="None: for ever")
    example: str = ""

    @property
    def is_stale(self) -> bool:
        """Has every row of the view outlived its ttl?"""
        limits = self.age_hours, self.ttl_hours
        return limits[0] is not None and limits[1] is not None and limits[0] > limits[1]


class SkewReport(Record):
    """Offline against online values of every feature, for the keys of one batch."""

    batch: BatchRef
    at: AwareDatetime = Field(description="the moment that both stores were asked about")
    keys: Count
    features: tuple[FeatureSkew, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, one line a feature; empty if online is as offline, and young enough."""
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


class Sweep(Record):
    """What retention removed: whole batches, and data files that nothing in force needed."""

    batch: BatchRef = Field(description="the one whose end says what is old")
    partitions: tuple[str, ...]
    files: Count


# --- monitor --------------------------------------------------------------------------------------

Calibration = Literal["calibrated", "uncalibrated", "insufficient"]


class Measurement(NamedTuple):
    """One thing measured of a column, and what it has to exceed to be drift."""

    name: Literal["distance", "shift", "missing share"]
    value: float | None
    threshold: float | None

    @property
    def times(self) -> float:
        """The value as a multiple of its threshold; 0 where there is no verdict about it."""
        if self.value is None or self.threshold is None:
            return 0.0
        return self.value / (self.threshold or 1.0)


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


class Performance(Record):
    """A metric of one model version on rows whose labels can no longer change."""

    metric: str
    rows: Count
    value: float
    low: float = Field(description="lower end of the confidence interval")
    high: float = Field(description="upper end of the confidence interval")


class DriftReport(Record):
    """One batch against the champion: inputs, predictions, and realised performance."""

    batch: BatchRef
    content_sha256: str = Field(description="of the feature set that was measured")
    champion_version: int | None = Field(description="None: no model is in production yet")
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
    history: tuple[Performance, ...] = Field(
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
    learned_rows: Count | None = Field(
        default=None,
        description="labelled rows that the last retrain learned from, promoted or not",
    )
    new_rows: Count | None = Field(
        default=None, description="labelled rows that a retrain now could learn from beside those"
    )

    @property
    def columns(self) -> tuple[FeatureDrift, ...]:
        """All that was measured: the features, and the champion's predictions."""
        return (*self.features, *filter(None, [self.score]))

    @property
    def unjudged(self) -> tuple[FeatureDrift, ...]:
        """The columns that could not be judged, the most important first."""
        left = (column for column in self.columns if not column.is_judged)
        return tuple(sorted(left, key=lambda column: -(column.importance or 0.0)))

    @property
    def worst(self) -> FeatureDrift | None:
        """The feature furthest beyond its threshold; if none was judged, the furthest away."""
        measured = [f for f in self.features if f.distance is not None and not f.expected]
        judged = [f for f in measured if f.state != "insufficient"]
        return max(judged or measured, key=lambda f: (f.excess, f.distance or 0.0), default=None)


Outcome = Literal["ignore", "watch", "retrain", "blocked"]


class Verdict(Record):
    """What to do about a batch, and every reason for it."""

    batch: BatchRef
    outcome: Outcome
    reasons: tuple[str, ...]
    content_sha256: str
    champion_version: int | None
    incident_id: str
    worst_feature: str | None = None
    ks_distance: Share | None = Field(
        default=None, description="of the worst feature if it is numeric"
    )


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
    sha256: str = Field(description="of all that makes these rows what they are")


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
    partition: PartitionKey
    action: Literal["promotion", "rollback", "by_hand"]
    version: int
    previous_version: int | None
    reason: str
    actor: str
    at: dt.datetime
    ledger_sequence: Count
