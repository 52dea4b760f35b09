"""One YAML file per model becomes one frozen `ModelSpec`; all a user can decide is a field here.

Reading is strict: an unknown key, a wrong type or a value out of range is a `SpecError` with the
file, the line and the nearest valid name, before any DAG exists. Needs nothing but pydantic and
yaml, so that DAG files can import it.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from include.retraining import plain_yaml
from include.retraining.errors import SpecError, did_you_mean
from include.retraining.names import OWN, SCORE
from include.retraining.records import BatchRef, GateMode

MODELS_DIR = Path(__file__).resolve().parents[1] / "models"
MAX_BYTES = 1_000_000  # of a model file; one with 10,000 columns has half of it
SHOWN = 200  # characters of a value that is refused
MAX_DAYS = 36_500.0

FORMATS = (".parquet", ".csv", ".json", ".jsonl")

Share = Annotated[float, Field(ge=0.0, le=1.0)]
ColumnType = Literal["string", "integer", "number", "boolean", "timestamp"]
ModelFormat = Literal["skops", "cloudpickle"]
Task = Literal["binary", "multiclass", "regression"]
Metric = Literal[
    "roc_auc",
    "average_precision",
    "neg_log_loss",
    "neg_brier_score",
    "accuracy",
    "balanced_accuracy",
    "neg_mean_absolute_error",
    "neg_root_mean_squared_error",
    "r2",
]
METRICS: dict[Task, tuple[Metric, ...]] = {
    "binary": ("roc_auc", "average_precision", "neg_log_loss", "neg_brier_score"),
    "multiclass": ("roc_auc", "neg_log_loss", "accuracy", "balanced_accuracy"),
    "regression": ("neg_mean_absolute_error", "neg_root_mean_squared_error", "r2"),
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Partitions(_Section):
    """How the past is cut into batches. `first` and `last` are the starts of partitions, in UTC."""

    every: Literal["hour", "day", "week"] = Field(default="day", description="hour, day or week")
    first: dt.datetime = Field(description="start of the first partition")
    last: dt.datetime | None = Field(
        default=None, description="no batch is expected after this one"
    )
    catch_up: bool = Field(
        default=True, description="when first switched on, schedule all partitions since `first`"
    )
    landing_timeout_hours: float = Field(
        default=24.0, gt=0, le=8760, description="give up waiting after this"
    )
    landing_poll_seconds: float = Field(
        default=30.0, gt=0, le=86400, description="between two looks for the file"
    )

    @field_validator("first", "last")
    @classmethod
    def _utc(cls, value: dt.datetime | None) -> dt.datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        for name, moment in (("first", self.first), ("last", self.last)):
            if moment and moment != moment.replace(minute=0, second=0, microsecond=0):
                raise ValueError(f"{name} must be a full hour, got {moment.isoformat()}")
            if moment and self.every != "hour" and moment.hour:
                raise ValueError(f"{name} must be midnight UTC, got {moment.isoformat()}")
        if self.last and (self.last - self.first) % self.length:
            raise ValueError(f"last must be a whole number of {self.every}s after first")
        if self.last and self.last < self.first:
            raise ValueError(f"last must not be before first, got {self.last:%Y-%m-%d}")
        return self

    @property
    def length(self) -> dt.timedelta:
        """The length of one window."""
        return dt.timedelta(hours={"hour": 1, "day": 24, "week": 168}[self.every])

    @property
    def key_format(self) -> str:
        """The strftime format of a partition key."""
        return "%Y-%m-%dT%H" if self.every == "hour" else "%Y-%m-%d"

    @property
    def cron(self) -> str:
        """The schedule whose ticks are the starts of partitions."""
        if self.every == "week":
            return f"0 0 * * {self.first.isoweekday() % 7}"
        return "0 * * * *" if self.every == "hour" else "0 0 * * *"


def file_format(path: str) -> tuple[str, str]:
    """Give the format of a file and how it is compressed, by the end of its name in any case.

    Raises
    ------
    ValueError
        The name ends in nothing that can be read.

    >>> file_format("landing/2013-01-07.CSV.gz")
    ('.csv', '.gz')
    """
    found = re.search(r"(\.\w+?)(\.gz|\.zst)?$", path.lower())
    kind, packing = (found[1], found[2] or "") if found else ("", "")
    if kind not in FORMATS or (packing and kind == ".parquet"):
        raise ValueError(
            "a file must end in .parquet, .csv, .json or .jsonl, the last three with .gz or .zst "
            f"behind it if compressed, got {path!r}; deliver it as one of these"
        )
    return kind, packing


class Source(_Section):
    """Where a batch lands, and what it must look like.

    Paths are below the storage root; ``{partition}`` stands for the partition key. A path that ends
    in ``/*.parquet`` (or another format) means all such files of a folder; they are complete once a
    file ``_SUCCESS`` is beside them.
    """

    batch: str = Field(
        description="path of the file, .parquet, .csv, .json or .jsonl, text also .csv.gz or "
        ".csv.zst; `/*.csv`: of all in a folder, complete once `_SUCCESS` is there"
    )
    companions: dict[str, str] = Field(
        default={}, description="further files of the same partition"
    )
    connection: str | None = Field(
        default=None, description="Airflow connection of the database that `queries` read"
    )
    queries: dict[str, str] = Field(
        default={},
        description="`batch` or a companion: SQL whose result lands at its path; :start and :end "
        "are the window",
    )
    landing_queue: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="URL of the SQS queue that the bucket tells of new files: they are ingested "
        "when they land, besides the schedule",
    )
    key: tuple[str, ...] = Field(min_length=1, description="columns that identify a row")
    event_time: str = Field(description="column: when the row's prediction is made, in UTC")
    columns: dict[str, ColumnType] = Field(
        min_length=1, description="name: string, integer, number, boolean or timestamp"
    )
    companion_columns: dict[str, dict[str, ColumnType]] = Field(
        default={}, description="the same, for each companion"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, path in {"batch": self.batch, **self.companions}.items():
            if set(re.findall(r"{.*?}|[{}]", path)) != {"{partition}"}:
                raise ValueError(
                    f"{name}: path must contain {{partition}} and no other braces, got {path!r}"
                )
            if ".." in path.split("/"):
                raise ValueError(f"{name}: path must stay below the storage root, got {path!r}")
        if "batch" in self.companions:
            raise ValueError("companions: 'batch' is the name of the batch itself; choose another")
        for column in (*self.key, self.event_time):
            if column not in self.columns:
                near = did_you_mean(column, self.columns)
                raise ValueError(f"column {column!r} is not in source.columns{near}")
        if self.columns[self.event_time] != "timestamp":
            raise ValueError(f"event_time column {self.event_time!r} must be a timestamp")
        if self.event_time == SCORE:
            raise ValueError(
                f"event_time: {SCORE!r} is what the model's own score is called; give the column "
                "another name at the source"
            )
        if set(self.companion_columns) != set(self.companions):
            raise ValueError("companion_columns must describe exactly the companions")
        return self

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        declared = {"columns": self.columns} | {
            f"companion_columns.{name}": columns for name, columns in self.companion_columns.items()
        }
        for where, columns in declared.items():
            for column in columns:
                if column.startswith(OWN) or not column.strip():
                    raise ValueError(
                        f"{where}.{column}: no name for a column: those that begin with {OWN} are "
                        "the bundle's own, and an empty one names nothing; give it another name at "
                        "the source"
                    )
        return self

    @model_validator(mode="after")
    def _files_can_be_read(self) -> Self:
        for name, path in {"batch": self.batch, **self.companions}.items():
            folder, _, file = path.rpartition("/")
            if "*" in path and (
                "{partition}" not in folder or not re.fullmatch(r"\*(\.\w+)+", file)
            ):
                raise ValueError(
                    f"{name}: several files must be all of one format in a folder of the "
                    f"partition, such as landing/{{partition}}/*.parquet, got {path!r}"
                )
            try:
                file_format(path)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return self

    @model_validator(mode="after")
    def _queries_land(self) -> Self:
        if bool(self.queries) != bool(self.connection):
            raise ValueError("connection and queries go together; give both, or none")
        for name, query in self.queries.items():
            path = {"batch": self.batch, **self.companions}.get(name, "")
            if not path:
                raise ValueError(f"queries: {name!r} is neither batch nor a companion")
            if "*" in path or not path.endswith(".parquet"):
                raise ValueError(
                    f"{name}: the result of a query lands as one .parquet, got {path!r}"
                )
            if name == "batch" and not {":start", ":end"} <= set(re.findall(r":\w+", query)):
                raise ValueError("queries: that of batch must use :start and :end, its window")
        return self


class Label(_Section):
    """What is predicted: 0 or 1, one of several classes, or a number.

    Binary with `at_least`: the label is 1 where the column reaches it, else 0.
    """

    column: str = Field(description="holds the outcome; empty while it is unknown")
    task: Task = Field(default="binary", description="binary, multiclass or regression")
    at_least: float | None = Field(
        default=None, description="binary: the label is 1 from this value on"
    )
    classes: tuple[StrictInt | StrictStr, ...] = Field(
        default=(), description="multiclass: all there can be"
    )
    maturity_days: float = Field(
        ge=0, le=MAX_DAYS, description="after this the label can no longer change"
    )

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        if self.at_least is not None and self.task != "binary":
            raise ValueError(f"at_least makes a label of 0 and 1; leave it out for {self.task}")
        if self.task == "multiclass" and len(set(map(str, self.classes))) < 2:
            raise ValueError(f"classes must name two or more, got {list(self.classes)}")
        if len(set(map(str, self.classes))) < len(self.classes):
            raise ValueError(f"classes must differ, got {list(self.classes)}")
        if self.classes and self.task != "multiclass":
            raise ValueError(f"classes are for multiclass; leave them out for {self.task}")
        return self


class Features(_Section):
    """Which features the model sees, and where they come from."""

    service: str = Field(description="Feast feature service in feature_repo/")
    tables: str = Field(description="module:function that makes the feature tables of a batch")
    numeric: tuple[str, ...] = Field(default=(), description="numeric features")
    categorical: tuple[str, ...] = Field(default=(), description="categorical features")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.names:
            raise ValueError("needs at least one numeric or categorical feature")
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"named twice: {sorted(twice)}")
        for name in self.names:
            if name == SCORE or name.startswith(OWN):
                where = "numeric" if name in self.numeric else "categorical"
                raise ValueError(
                    f"{where}: {name!r} cannot be a feature's name: {SCORE!r} is what the model's "
                    f"own score is called, and {OWN} begins the bundle's own names; give it another"
                )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All features, in the order the model sees them."""
        return (*self.numeric, *self.categorical)


class Validation(_Section):
    """When a batch as a whole is refused. The expectations live in ``great_expectations/``."""

    max_quarantined_share: Share = Field(default=0.2, description="above it the batch is refused")
    max_rows: int = Field(
        default=50_000_000, ge=1, description="a file that says it has more is not read"
    )


class Drift(_Section):
    """When a batch counts as drifted. docs/thresholds.md says how to choose."""

    min_distance: Share = Field(default=0.05, description="smaller distances never matter")
    alpha: float = Field(default=0.01, gt=0, lt=1, description="false-alarm rate over all features")
    tail_windows: int = Field(
        default=5,
        ge=1,
        description="so many windows of history, at most, say how far an extreme one may lie; "
        "more: smaller changes are seen, and windows unlike all others are called drift",
    )
    min_rows: int = Field(default=100, ge=1, description="below it the verdict is `insufficient`")
    min_history_windows: int = Field(default=4, ge=2, description="below it: `uncalibrated`")
    max_history_windows: int = Field(
        default=26, ge=2, description="newest windows of the reference"
    )
    max_drifted_importance: Share = Field(
        default=0.3,
        description="importance-weighted share of drifted features that asks for a retrain",
    )
    persistence_windows: int = Field(
        default=2,
        ge=1,
        le=3,
        description="of the last 3; a distance of twice its threshold counts at once",
    )
    expected: tuple[str, ...] = Field(default=(), description="features that drift by construction")
    retrain_on_stable_performance: bool = Field(
        default=False, description="false: drift without measured harm is only watched"
    )

    @property
    def min_shift(self) -> float:
        """The smallest shift that matters: a shift is at most twice the distance."""
        return min(1.0, 2 * self.min_distance)


class Range(_Section):
    """Values between two ends, both included; whole numbers if both ends are."""

    low: int | float
    high: int | float
    log: bool = Field(default=False, description="uniform in the logarithm")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be greater than 0 where log is true, got {self.low}")
        return self


class Search(_Section):
    """Parameter sets to try; the best on time-ordered folds is taken, `params` among them."""

    n_iter: int = Field(ge=1, description="random parameter sets to try beside training.params")
    space: dict[str, Range | tuple[Any, ...]] = Field(
        min_length=1, description="parameter: list of values, or low, high and log"
    )

    @model_validator(mode="after")
    def _choices(self) -> Self:
        for name, values in self.space.items():
            if isinstance(values, tuple) and not values:
                raise ValueError(f"space: {name} has no values")
        return self


class Training(_Section):
    """How a candidate is fitted."""

    estimator: str = Field(
        default="sklearn.ensemble.HistGradientBoostingClassifier",
        description="a scikit-learn estimator, or module:function that returns one",
    )
    params: dict[str, Any] = Field(default={}, description="its arguments")
    search: Search | None = None
    calibration: Literal["sigmoid", "isotonic"] | None = Field(
        default=None,
        description="of the probabilities, on five held-out parts: sigmoid or isotonic",
    )
    sample_weight: str | None = Field(
        default=None, description="column: how much a row counts in training"
    )
    balance_classes: bool = Field(
        default=False,
        description="classes count alike in training; probabilities are then those of equal shares",
    )
    cv_folds: int = Field(
        default=5, ge=0, description="time-ordered folds that the metric is measured on; 0: none"
    )
    seed: int = Field(default=0, description="of everything random")
    min_rows: int = Field(default=1000, ge=1, description="with mature labels; fewer train nothing")
    window: Literal["expanding", "rolling", "since_drift"] = Field(
        default="expanding",
        description="all history; the last `max_days`; or what came since the drift began",
    )
    max_days: float | None = Field(
        default=None, gt=0, le=MAX_DAYS, description="length of a rolling window"
    )
    model_format: ModelFormat = Field(
        default="skops",
        description="skops; or cloudpickle, which runs arbitrary code when a model is loaded",
    )
    trusted_types: tuple[str, ...] = Field(
        default=(), description="further types a skops file may contain, reviewed by you"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.window == "rolling" and self.max_days is None:
            raise ValueError("window: rolling needs its length; set max_days")
        if self.window != "rolling" and self.max_days is not None:
            raise ValueError(f"max_days is the length of a rolling window, got {self.window}")
        if self.search and not self.cv_folds:
            raise ValueError("cv_folds must be 1 or more for a search, got 0")
        return self


class Gate(_Section):
    """What a candidate has to show before it may replace the champion."""

    mode: GateMode = Field(
        default="enabled",
        description="enabled; dry_run: the duel is held and told, but stops nothing; disabled: no "
        "duel",
    )
    metric: Metric = Field(
        default="roc_auc",
        description="higher is better for all. "
        + "; ".join(f"{task}: {', '.join(names)}" for task, names in METRICS.items()),
    )
    floor: float = Field(default=0.5, description="of the metric, for the first model as well")
    min_gain: float = Field(default=0.0, ge=0, description="the gain must be larger than this")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of all intervals, two-sided")
    duel_days: float = Field(
        default=7.0, gt=0, le=MAX_DAYS, description="newest label-mature days, never trained on"
    )
    min_rows: int = Field(default=200, ge=2, description="labelled rows a metric needs")
    slices: tuple[str, ...] = Field(default=(), description="columns: no slice may get worse")
    max_slice_loss: float = Field(
        default=0.05, ge=0, description="no slice's interval may reach below minus this"
    )
    min_slice_rows: int = Field(default=500, ge=2, description="smaller slices are not judged")


class GateRules(_Section):
    """What holds whatever the metrics say; a broken one blocks in every `gate.mode`.

    The section is called ``policies``, as those who ask for such rules call them.
    """

    forbidden_features: tuple[str, ...] = Field(
        default=(), description="no model with one of these is promoted"
    )
    max_data_age_days: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DAYS,
        description="from the end of the training data to the batch's end",
    )
    min_training_rows: int | None = Field(default=None, ge=1, description="with mature labels")
    max_duel_distance: Share | None = Field(
        default=None, description="of any feature, between training data and duel window"
    )
    required_slices: tuple[str, ...] = Field(
        default=(), description="column=level: has to be judged, not only where it is large enough"
    )


class Retrain(_Section):
    """When a retrain may happen, and who decides."""

    schedule: str | None = Field(
        default=None, description="cron: look whether the model is too old"
    )
    max_age_days: float | None = Field(
        default=None, gt=0, le=MAX_DAYS, description="since its training data ended"
    )
    growth: float | None = Field(
        default=None,
        gt=0,
        description="new labelled rows that ask for a retrain, as a share of those the last one "
        "learned from; drift lowers the bar",
    )
    min_performance_drop: float = Field(
        default=0.0, ge=0, description="realised metric below the promise by more than this is harm"
    )
    cool_down_days: float = Field(
        default=0.0, ge=0, le=MAX_DAYS, description="between two retrains, in data time"
    )
    max_per_30_days: int = Field(default=4, ge=1, description="budget of retrains, in data time")
    autonomy: Literal[1, 2, 3] = Field(
        default=2, description="1 evaluate only, 2 a person approves, 3 automatic with guardrails"
    )
    approval_timeout_hours: float = Field(
        default=72.0, gt=0, le=8760, description="then the answer is no"
    )
    approvers: tuple[str, ...] = Field(
        default=(), description="Airflow users who may answer; empty: all who may edit the DAG"
    )


class Retention(_Section):
    """How long data is kept. What a registered version learned from stays, whatever its age."""

    days: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DAYS,
        description="batches that ended so long before the newest one are removed, with their "
        "reports, and train no more; their rows stay as long as features of kept batches see them",
    )
    superseded_days: float = Field(
        default=7.0,
        ge=1,
        le=MAX_DAYS,
        description="data files of replaced deliveries are removed after this; older versions of "
        "the tables cannot be read then",
    )


class ModelSpec(_Section):
    """Everything the bundle has to know about one model."""

    model: str = Field(
        pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$",
        max_length=100,
        description="name of the model; lower case, _ between words",
    )
    description: str = Field(description="one sentence: what is predicted")
    owner: str = Field(description="team or person, shown in Airflow")
    slack_channel: str = Field(default="#ml-alerts", description="where its alerts go")
    limitations: tuple[str, ...] = Field(
        default=(), description="what it must not be used for; for the model card"
    )
    partitions: Partitions
    source: Source
    label: Label
    features: Features
    validation: Validation = Validation()
    drift: Drift = Drift()
    training: Training = Training()
    gate: Gate = Gate()
    policies: GateRules = GateRules()
    retrain: Retrain = Retrain()
    retention: Retention = Retention()

    @model_validator(mode="after")
    def _references(self) -> Self:
        if self.label.column not in self.source.columns:
            near = did_you_mean(self.label.column, self.source.columns)
            raise ValueError(f"label.column {self.label.column!r} is not in source.columns{near}")
        if self.label.column in self.features.names:
            raise ValueError(
                f"label.column {self.label.column!r} must not be a feature: it is the answer"
            )
        self._check_task()
        self._check_kinds()
        for place, names in (
            ("drift.expected", self.drift.expected),
            ("gate.slices", self.gate.slices),
        ):
            for name in names:
                if name not in self.features.names:
                    near = did_you_mean(name, self.features.names)
                    raise ValueError(f"{place}: {name!r} is not a feature{near}")
        for name in self.policies.required_slices:
            column, is_named, _ = name.partition("=")
            if not is_named or column not in self.gate.slices:
                near = did_you_mean(column, self.gate.slices) if is_named else ""
                raise ValueError(
                    f"policies.required_slices: must be column=level with a column of gate.slices "
                    f"({', '.join(self.gate.slices) or 'none'}), got {name!r}{near}"
                )
        return self

    def _check_task(self) -> None:
        task, metric, kind = (
            self.label.task,
            self.gate.metric,
            self.source.columns[self.label.column],
        )
        if metric not in METRICS[task]:
            raise ValueError(
                f"gate.metric: {metric} is not for {task}; allowed: {', '.join(METRICS[task])}"
            )
        if metric.startswith("neg_") and self.gate.floor > 0:
            raise ValueError(
                f"gate.floor: {metric} is never above 0, got {self.gate.floor:g}; state the least "
                "a model has to reach"
            )
        if task == "multiclass" and kind not in {"string", "integer"}:
            raise ValueError(f"label.column must be string or integer for multiclass, is {kind}")
        if task != "multiclass" and kind in {"string", "timestamp"}:
            raise ValueError(f"label.column must be a number for {task}, is {kind}")
        if task == "regression" and (self.training.calibration or self.training.balance_classes):
            raise ValueError("training: calibration and balance_classes are not for regression")
        for value in self.label.classes if kind == "integer" else ():
            if not re.fullmatch(r"0|-?[1-9][0-9]*", str(value)):
                raise ValueError(
                    f"label.classes: {value!r} is no whole number, and label.column "
                    f"{self.label.column!r} is integer"
                )
        weight = self.training.sample_weight
        if weight and weight not in {*self.source.columns, *self.features.numeric}:
            near = did_you_mean(weight, (*self.source.columns, *self.features.numeric))
            raise ValueError(
                f"training.sample_weight: {weight!r} is not in source.columns nor a numeric "
                f"feature{near}"
            )

    def _check_kinds(self) -> None:
        """Hold the columns that a model computes with against what they are declared to be."""
        columns, numbers = self.source.columns, ("number", "integer", "boolean")
        weight = self.training.sample_weight
        uses: list[tuple[str, str, tuple[str, ...]]] = [
            *(("features.numeric", name, numbers) for name in self.features.numeric),
            *(
                ("features.categorical", name, ("string", *numbers))
                for name in self.features.categorical
            ),
            *(("training.sample_weight", name, numbers) for name in [weight] if name),
        ]
        for where, name, allowed in uses:
            kind = columns.get(name)
            if kind is not None and kind not in allowed:
                raise ValueError(
                    f"{where}: column {name!r} is {kind} in source.columns; allowed: "
                    f"{', '.join(allowed)}"
                )

    def batch_ref(self, partition: str) -> BatchRef:
        """Give the window of a partition key.

        Raises
        ------
        SpecError
            The key is malformed, or names a moment where no partition starts.
        """
        parts = self.partitions
        try:
            start = dt.datetime.strptime(partition, parts.key_format).replace(tzinfo=dt.UTC)
            if start.strftime(parts.key_format) != partition:  # one batch has one key
                raise ValueError("not the canonical form")  # noqa: TRY301 - the same answer for both
        except ValueError as error:
            raise SpecError(
                f"partition: must look like {parts.first.strftime(parts.key_format)!r}, got "
                f"{partition!r}"
            ) from error
        if (start - parts.first) % parts.length or start < parts.first:
            raise SpecError(
                f"partition: {self.model} has one every {parts.every} from "
                f"{parts.first.strftime(parts.key_format)} on, got {partition!r}"
            )
        if parts.last and start > parts.last:
            raise SpecError(
                f"partition: the last one of {self.model} is "
                f"{parts.last.strftime(parts.key_format)}, got {partition!r}"
            )
        return BatchRef(
            model=self.model, partition=partition, start=start, end=start + parts.length
        )

    def partition_key(self, start: dt.datetime) -> str:
        """Give the partition key of a window's start."""
        return start.strftime(self.partitions.key_format)


class SpecFiles(NamedTuple):
    """All model files: the usable ones, and what is wrong with the others."""

    specs: tuple[ModelSpec, ...]
    errors: tuple[SpecError, ...]


def load_specs(directory: Path = MODELS_DIR) -> SpecFiles:
    """Read every model file of a folder; one that is wrong does not stop the others."""
    specs: dict[str, ModelSpec] = {}
    errors: list[SpecError] = []
    for path in sorted(directory.glob("*.y*ml")):
        try:
            spec = load_spec(path)
            if spec.model in specs:
                raise SpecError(  # noqa: TRY301 - collected like any other wrong file
                    f"model: {spec.model!r} is also the name in another file", path=str(path)
                )
            specs[spec.model] = spec
        except SpecError as error:
            errors.append(error)
    return SpecFiles(tuple(specs.values()), tuple(errors))


def load_spec(path: Path) -> ModelSpec:
    """Read one model file.

    Raises
    ------
    SpecError
        With the file, the line, what was found, what is allowed, and the nearest valid name.
    """
    try:
        text = _text_of(path)
        content = plain_yaml.read(text)
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", path=str(path)) from error
    except UnicodeDecodeError as error:
        raise SpecError("must be UTF-8 text", path=str(path)) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SpecError(f"not valid YAML: {error.problem}", path=str(path), line=line) from error
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise SpecError(f"not valid YAML: {reason}", path=str(path)) from error
    if not isinstance(content, dict):
        raise SpecError(
            "must be a mapping of settings, starting with `model: <name>`", path=str(path)
        )
    try:
        return ModelSpec.model_validate(content)
    except ValidationError as error:
        # a misspelt key is also a missing one; what was written explains more than what was not
        errors = error.errors()
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        where = tuple(part for part in first["loc"] if isinstance(part, (str, int)))
        place = where
        if first["type"] == "value_error":  # its message starts with the setting it is about
            message = str(first["msg"]).removeprefix("Value error, ")
            place += tuple(re.split(r"[^\w.]", message)[0].split("."))
        line = plain_yaml.line_of(text, place)
        raise SpecError(_explain(dict(first), where), path=str(path), line=line) from error


def located(error: SpecError, path: Path) -> SpecError:
    """Give an error about a model file with the file, and the line of the setting it is about."""
    if error.path:
        return error
    line = plain_yaml.line_of(_text_of(path), error.place)
    return SpecError(str(error), path=str(path), line=line)


def _text_of(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise SpecError(
            f"holds {size:,} bytes, a model file has at most {MAX_BYTES:,}", path=str(path)
        )
    return path.read_text(encoding="utf-8")


def _explain(error: dict[str, Any], where: tuple[str | int, ...]) -> str:
    name = ".".join(map(str, where)) or "model file"
    if error["type"] == "extra_forbidden":
        allowed = _fields_at(where[:-1])
        hint = did_you_mean(str(where[-1]), allowed)
        return f"{name}: unknown setting{hint}; allowed: {', '.join(sorted(allowed))}"
    if error["type"] == "missing":
        return f"{name}: required and missing; add it"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{name}: {message}" if where else message
    got = repr(error["input"])
    got = got if len(got) <= SHOWN else f"{got[:SHOWN]}..."
    return f"{name}: {message[0].lower()}{message[1:]}, got {got}"


def _fields_at(where: tuple[str | int, ...]) -> list[str]:
    section: Any = ModelSpec
    for part in where:
        section = section.model_fields[str(part)].annotation
    return list(section.model_fields)
