"""One YAML file per model becomes one frozen `ModelSpec`; all a user can decide is a field here.

Reading is strict: an unknown key, a wrong type or a value out of range is a `SpecError` with the
file, the line and the nearest valid name, before any DAG exists. Needs nothing but pydantic and
yaml, so that DAG files can import it.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Iterable
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
from include.retraining.names import OWN, SCORE, outcome_feed
from include.retraining.records import BatchRef, GateMode, GuardMode

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
Every = Literal["hour", "2h", "3h", "4h", "6h", "8h", "12h", "day", "week", "month", "quarter"]
HOURS = {"hour": 1, "2h": 2, "3h": 3, "4h": 4, "6h": 6, "8h": 8, "12h": 12}  # each divides a day
MONTHS = {"month": 1, "quarter": 3}
_PLURAL = {
    **{name: f"{number} hours" for name, number in HOURS.items()},
    "hour": "hours", "day": "days", "week": "weeks", "month": "months", "quarter": "quarters",
}  # fmt: skip
METRICS: dict[Task, tuple[Metric, ...]] = {
    "binary": ("roc_auc", "average_precision", "neg_log_loss", "neg_brier_score"),
    "multiclass": ("roc_auc", "neg_log_loss", "accuracy", "balanced_accuracy"),
    "regression": ("neg_mean_absolute_error", "neg_root_mean_squared_error", "r2"),
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Partitions(_Section):
    """How the past is cut into batches. `first` and `last` are the starts of partitions, in UTC."""

    every: Every = Field(
        default="day",
        description="hour, 2h, 3h, 4h, 6h, 8h, 12h, day, week, month or quarter",
    )
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
            if moment and self.every not in HOURS and moment.hour:
                raise ValueError(f"{name} must be midnight UTC, got {moment.isoformat()}")
            if moment and self.every in MONTHS and moment.day != 1:
                raise ValueError(
                    f"{name} must be the first of a month, got {moment:%Y-%m-%d}: that is when a "
                    f"{self.every} begins"
                )
        if self.last and not self.is_start(self.last):
            raise ValueError(f"last must be a whole number of {_PLURAL[self.every]} after first")
        if self.last and self.last < self.first:
            raise ValueError(f"last must not be before first, got {self.last:%Y-%m-%d}")
        return self

    @property
    def length(self) -> dt.timedelta:
        """The length of a window; of months and quarters, that of the longest."""
        days = {"month": 31, "quarter": 92, "day": 1, "week": 7}.get(self.every, 0)
        return dt.timedelta(days=days, hours=HOURS.get(self.every, 0))

    @property
    def shortest(self) -> dt.timedelta:
        """The length of the shortest window."""
        days = {"month": 28, "quarter": 89}.get(self.every)
        return self.length if days is None else dt.timedelta(days=days)

    def step(self, moment: dt.datetime, count: int = 1) -> dt.datetime:
        """Give the moment so many windows later, or earlier; of a start, a start.

        >>> months = Partitions(every="month", first=dt.datetime(2024, 1, 1))
        >>> months.step(dt.datetime(2024, 3, 31), -1)
        datetime.datetime(2024, 2, 29, 0, 0)
        """
        months = MONTHS.get(self.every)
        if months is None:
            return moment + count * self.length
        years, month = divmod(moment.month - 1 + count * months, 12)
        year = moment.year + years
        day = min(moment.day, calendar.monthrange(year, month + 1)[1])
        return moment.replace(year=year, month=month + 1, day=day)

    def count(self, since: dt.datetime, until: dt.datetime) -> int:
        """Give how many whole windows lie between two moments; below 0 if the second is earlier.

        As ``//`` does: of -0.5 windows there are -1.
        """
        months = MONTHS.get(self.every)
        if months is None:
            return (until - since) // self.length
        found = 12 * (until.year - since.year) + until.month - since.month
        within = (until.day, until.time()) < (since.day, since.time())
        return (found - within) // months

    def start_of(self, moment: dt.datetime) -> dt.datetime:
        """Give the start of the window that a moment lies in, also before the first one."""
        return self.step(self.first, self.count(self.first, moment))

    def is_start(self, moment: dt.datetime) -> bool:
        """Say whether a window starts at a moment."""
        return self.start_of(moment) == moment

    @property
    def key_format(self) -> str:
        """The strftime format of a partition key."""
        return "%Y-%m-%dT%H" if self.every in HOURS else "%Y-%m-%d"

    @property
    def cron(self) -> str:
        """The schedule whose ticks are the starts of partitions."""
        if self.every == "week":
            return f"0 0 * * {self.first.isoweekday() % 7}"
        if (months := MONTHS.get(self.every)) is not None:
            first = (self.first.month - 1) % months + 1
            each = "*" if months == 1 else ",".join(map(str, range(first, 13, months)))
            return f"0 0 1 {each} *"
        if (hours := HOURS.get(self.every, 24)) > 1:
            return f"0 {','.join(map(str, range(self.first.hour % hours, 24, hours)))} * * *"
        return "0 * * * *"


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
            _check_path(name, path)
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
        _check_free("columns", self.columns)
        for name, columns in self.companion_columns.items():
            _check_free(f"companion_columns.{name}", columns)
        return self

    @model_validator(mode="after")
    def _queries_land(self) -> Self:
        if bool(self.queries) != bool(self.connection):
            raise ValueError("connection and queries go together; give both, or none")
        for name, query in self.queries.items():
            path = {"batch": self.batch, **self.companions}.get(name, "")
            if not path:
                raise ValueError(f"queries: {name!r} is neither batch nor a companion")
            _check_query(name, path)
            if name == "batch" and not _has_window(query):
                raise ValueError("queries: that of batch must use :start and :end, its window")
        return self


def _check_path(name: str, path: str) -> None:
    if set(re.findall(r"{.*?}|[{}]", path)) != {"{partition}"}:
        raise ValueError(
            f"{name}: path must contain {{partition}} and no other braces, got {path!r}"
        )
    if ".." in path.split("/"):
        raise ValueError(f"{name}: path must stay below the storage root, got {path!r}")
    folder, _, file = path.rpartition("/")
    if "*" in path and ("{partition}" not in folder or not re.fullmatch(r"\*(\.\w+)+", file)):
        raise ValueError(
            f"{name}: several files must be all of one format in a folder of the partition, such "
            f"as landing/{{partition}}/*.parquet, got {path!r}"
        )
    try:
        file_format(path)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _meet(one: str, other: str) -> bool:
    """May one file be of both paths?"""
    (folder, _, file), (there, _, name) = one.rpartition("/"), other.rpartition("/")
    if folder != there:
        return False
    return file == name or any(
        mine.startswith("*") and yours.endswith(mine.removeprefix("*"))
        for mine, yours in ((file, name), (name, file))
    )


def _check_free(where: str, columns: Iterable[str]) -> None:
    for column in columns:
        if column.startswith(OWN) or not column.strip():
            raise ValueError(
                f"{where}.{column}: no name for a column: those that begin with {OWN} are the "
                "bundle's own, and an empty one names nothing; give it another name at the source"
            )


def _check_query(name: str, path: str) -> None:
    if "*" in path or not path.endswith(".parquet"):
        raise ValueError(f"{name}: the result of a query lands as one .parquet, got {path!r}")


def _has_window(query: str) -> bool:
    return {":start", ":end"} <= set(re.findall(r":\w+", query))


class OutcomeSource(_Section):
    """A feed of its own with what became of rows: days or months later, late, twice, corrected.

    What is delivered in a partition was known by its end. Of several outcomes of one row the one
    that was known last counts.
    """

    path: str = Field(
        description="path of the file of a partition of outcomes, as `source.batch` has it"
    )
    connection: str | None = Field(
        default=None, description="Airflow connection of the database that `query` reads"
    )
    query: str | None = Field(
        default=None, description="SQL whose result lands at `path`; :start and :end are the window"
    )
    columns: dict[str, ColumnType] = Field(
        min_length=1, description="name: type, as in `source.columns`; key and outcome among them"
    )
    key: tuple[str, ...] = Field(
        default=(), description="columns that say which row it is; empty: named as `source.key`"
    )
    known_at: str | None = Field(
        default=None,
        description="column: when the outcome was known, in UTC; without, by the partition's end",
    )
    partitions: Partitions | None = Field(
        default=None, description="when outcomes come; without, as the batches do"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_path("path", self.path)
        _check_free("columns", self.columns)
        for column in (*self.key, *filter(None, [self.known_at])):
            if column not in self.columns:
                near = did_you_mean(column, self.columns)
                raise ValueError(f"column {column!r} is not in label.source.columns{near}")
        if len(set(self.key)) < len(self.key):
            raise ValueError(f"key must name different columns, got {list(self.key)}")
        if self.known_at and self.columns[self.known_at] != "timestamp":
            raise ValueError(f"known_at column {self.known_at!r} must be a timestamp")
        if (self.query is None) != (self.connection is None):
            raise ValueError("query and connection go together; give both, or none")
        if self.query is not None:
            _check_query("path", self.path)
            if not _has_window(self.query):
                raise ValueError("query must use :start and :end, the window of the partition")
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
    never: float | str | None = Field(
        default=None,
        description="with `source`: the label of a row that has no outcome by then, `0` say; "
        "without, it has none",
    )
    source: OutcomeSource | None = Field(
        default=None, description="where outcomes come from if not with their rows"
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
        allowed: list[Any] = [str(one) for one in self.classes]
        if self.task == "binary" and self.at_least is None:
            allowed = [0.0, 1.0]
        if self.never is not None and self.source is None:
            raise ValueError("never is for outcomes from label.source; name it, or leave never out")
        never = self.never_as_told
        if never is not None and allowed and never not in allowed:
            told = ", ".join(f"{one:g}" if isinstance(one, float) else one for one in allowed)
            raise ValueError(f"never must be one of {told}, got {self.never!r}")
        if isinstance(never, str) and self.task != "multiclass":
            raise ValueError(f"never must be a number for {self.task}, got {self.never!r}")
        return self

    @property
    def never_as_told(self) -> float | str | None:
        """`never` as the column tells it: a class by its name, whatever YAML took it for."""
        if self.never is None or self.task != "multiclass":
            return self.never
        return f"{self.never:g}" if isinstance(self.never, float) else self.never


class Features(_Section):
    """Which features the model sees, and where they come from.

    Without `service` they are columns of the batch itself, as they are.
    """

    service: str | None = Field(
        default=None,
        description="Feast feature service in feature_repo/; none: the features are columns of "
        "the batch",
    )
    tables: str | None = Field(
        default=None,
        description="module:function that makes the feature tables of a batch; with `service`",
    )
    numeric: tuple[str, ...] = Field(default=(), description="numeric features")
    categorical: tuple[str, ...] = Field(default=(), description="categorical features")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if (self.service is None) != (self.tables is None):
            raise ValueError(
                "service and tables go together; give both, or none where all features are columns "
                "of the batch"
            )
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

    @property
    def is_inline(self) -> bool:
        """Are all features columns of the batch, with no Feast?"""
        return self.service is None


class Predictions(_Section):
    """What the model said of each row, where it is trained and served elsewhere: monitor only.

    Nothing is trained, no duel is held, and nobody is asked. What comes in, what the model says and
    how well it does are held against a reference: the rows of before, once `training.min_rows` of
    them have a label.
    """

    column: str = Field(
        description="column of the batch with the model's prediction: the probability of 1, or the "
        "value"
    )


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
        default=0.0, ge=0, description="a fall of the realised metric by no more is no harm"
    )
    harm_error: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="how likely a champion that has not fallen may be said to have, at any time",
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


class Guard(_Section):
    """What a new champion is held against after its promotion: the one before it, on later rows."""

    mode: GuardMode | None = Field(
        default=None,
        description="rollback: a champion that is clearly worse is rolled back at once; ask: a "
        "person decides; tell: only told; off. Without it, as retrain.autonomy says: 3 rollback, "
        "2 ask, 1 tell",
    )
    error: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="how likely a champion that is not worse may be called worse, at any time",
    )
    margin: float | None = Field(
        default=None,
        gt=0,
        description="of gate.metric: its probation ends when it is clearly not worse by more. "
        "Without it: what one window of rows can see, its standard error",
    )
    max_windows: int = Field(
        default=52, ge=1, le=520, description="with so many the probation ends, whatever is known"
    )


class Retention(_Section):
    """How long data is kept. What a registered version learned from stays, unless `versions`."""

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
    versions: int | None = Field(
        default=None,
        ge=1,
        description="the newest so many versions of the model keep the rows they learned from, and "
        "so do the champion and the one before it; without it every version that MLflow has does",
    )


# what is not ours to do where a model is served elsewhere; section: setting, its only value
_ELSEWHERE = {
    "gate": ("mode", "disabled"),
    "retrain": ("autonomy", 3),
    "guard": ("mode", "off"),
}


def _training_may_be_none(schema: dict[str, Any]) -> None:
    found = schema.get("properties", {}).get("training")
    if found is not None:
        about = {name: found.pop(name) for name in ("default", "description") if name in found}
        schema["properties"]["training"] = {"anyOf": [found, {"const": "none"}], **about}


class Export(_Section):
    """Where each batch's numbers go beside the records, for alarms and boards that are there."""

    cloudwatch: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern=r"\A[A-Za-z0-9._/#:-]+\z",
        description="namespace of Amazon CloudWatch, through the connection aws_default",
    )


class ModelSpec(_Section):
    """Everything the bundle has to know about one model."""

    model_config = ConfigDict(json_schema_extra=_training_may_be_none)

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
    predictions: Predictions | None = Field(
        default=None, description="where the model is served elsewhere: nothing is trained"
    )
    validation: Validation = Validation()
    drift: Drift = Drift()
    training: Training = Field(
        default=Training(),
        description="`none`: the model is trained and served elsewhere, see `predictions`",
    )
    gate: Gate = Gate()
    policies: GateRules = GateRules()
    retrain: Retrain = Retrain()
    guard: Guard = Guard()
    retention: Retention = Retention()
    export: Export = Export()

    @model_validator(mode="before")
    @classmethod
    def _served_elsewhere(cls, content: Any) -> Any:
        """Let nothing be trained, duelled for, asked or rolled back that happens elsewhere."""
        if not isinstance(content, dict):
            return content
        content = dict(content)
        if content.get("training") == "none":
            if content.get("predictions") is None:
                raise ValueError(
                    "training: none is for a model that is served elsewhere; name the column with "
                    "what it said of each row as predictions.column"
                )
            content["training"] = {}
        if content.get("predictions") is not None:
            for section, (name, value) in _ELSEWHERE.items():
                given = content.get(section, {})
                if isinstance(given, dict):
                    if given.get(name, value) not in {value, None}:
                        raise ValueError(
                            f"{section}.{name}: must be {value} or left out where the model is "
                            f"served elsewhere (predictions.column), got {given[name]!r}"
                        )
                    content[section] = {**given, name: value}
        return content

    @model_validator(mode="after")
    def _references(self) -> Self:
        where, columns = "source.columns", self.source.columns
        if self.label.source is not None:
            where, columns = "label.source.columns", self.label.source.columns
            self._check_outcomes(self.label.source)
        if self.label.column not in columns:
            near = did_you_mean(self.label.column, columns)
            raise ValueError(f"label.column {self.label.column!r} is not in {where}{near}")
        if self.label.column in self.features.names:
            raise ValueError(
                f"label.column {self.label.column!r} must not be a feature: it is the answer"
            )
        self._check_inline()
        self._check_predictions()
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

    @property
    def is_served_elsewhere(self) -> bool:
        """Is it trained and served by others, and only watched here?"""
        return self.predictions is not None

    @property
    def guard_mode(self) -> GuardMode:
        """What happens to a new champion that is worse than the one before it."""
        by_autonomy: dict[int, GuardMode] = {1: "tell", 2: "ask", 3: "rollback"}
        return self.guard.mode or by_autonomy[self.retrain.autonomy]

    @property
    def label_type(self) -> ColumnType:
        """The declared type of the label's column, in the batch or in the feed of outcomes."""
        source = self.label.source
        return (source.columns if source else self.source.columns)[self.label.column]

    @property
    def outcomes(self) -> OutcomeFeed | None:
        """The feed of outcomes, as a source of its own; None where labels come with the rows."""
        source = self.label.source
        if source is None:
            return None
        parts = {name: getattr(self, name) for name in type(self).model_fields}
        parts["model"] = outcome_feed(self.model)
        parts["partitions"] = source.partitions or self.partitions
        parts["source"] = Source.model_construct(
            batch=source.path,
            companions={},
            connection=source.connection,
            queries={"batch": source.query} if source.query else {},
            landing_queue=None,
            key=source.key or self.source.key,
            event_time=source.known_at or "",
            columns=source.columns,
            companion_columns={},
        )
        return OutcomeFeed.model_construct(**parts)

    def _check_outcomes(self, source: OutcomeSource) -> None:
        key = source.key or self.source.key
        if len(key) != len(self.source.key):
            raise ValueError(
                f"label.source.key must have {len(self.source.key)} columns as source.key has, got "
                f"{list(key)}"
            )
        if self.label.column in key:
            raise ValueError(
                f"label.source.key: {self.label.column!r} is label.column, what a file of outcomes "
                "tells; a key says which row it tells that of"
            )
        self._check_place(source)
        self._check_end(source)
        if self.label.column in self.source.columns and self.label.column in source.columns:
            raise ValueError(
                f"label.column {self.label.column!r} is in source.columns and in "
                "label.source.columns; leave it out of one: a label comes with its row or later"
            )
        for column in key:
            if column not in source.columns:
                near = did_you_mean(column, source.columns)
                raise ValueError(f"label.source.key: {column!r} is not in its columns{near}")
        for ours, theirs in zip(self.source.key, key, strict=True):
            if source.columns[theirs] != self.source.columns[ours]:
                raise ValueError(
                    f"label.source.columns.{theirs} is {source.columns[theirs]}, but "
                    f"source.columns.{ours} is {self.source.columns[ours]}: the types of a key "
                    "must be the same"
                )
        if source.known_at in key:
            raise ValueError(
                f"label.source.known_at: {source.known_at!r} is a column of the key, so it is "
                "known before the outcome; name the column that says when that was known, or leave "
                "known_at out"
            )

    def _check_place(self, source: OutcomeSource) -> None:
        for name, path in {"batch": self.source.batch, **self.source.companions}.items():
            if _meet(path, source.path):
                raise ValueError(
                    f"label.source.path: {source.path!r} would be read as the source's {name} "
                    f"({path!r}), too; let outcomes land elsewhere"
                )

    def _check_end(self, source: OutcomeSource) -> None:
        """Refuse a feed that ends before the batches do: what ended later would wait for ever."""
        theirs, ours = source.partitions, self.partitions
        if theirs is None or theirs.last is None:
            return
        end = theirs.step(theirs.last)
        if ours.last is None or end < ours.step(ours.last):
            until = f"{ours.step(ours.last):%Y-%m-%d %H:%M}" if ours.last else "no date"
            raise ValueError(
                f"label.source.partitions.last: outcomes end at {end:%Y-%m-%d %H:%M}, batches at "
                f"{until}: those after it would wait for outcomes for ever. Leave it out, or let "
                "partitions.last end the batches, too"
            )

    def _check_inline(self) -> None:
        for kind in ("numeric", "categorical") if self.features.is_inline else ():
            for name in getattr(self.features, kind):
                if name not in self.source.columns:
                    raise ValueError(
                        f"features.{kind}: {name!r} is not in source.columns, and there is no "
                        f"features.service that gives it{did_you_mean(name, self.source.columns)}"
                    )

    def _check_predictions(self) -> None:
        if self.predictions is None:
            return
        name, columns = self.predictions.column, self.source.columns
        if name not in columns:
            raise ValueError(
                f"predictions.column {name!r} is not in source.columns{did_you_mean(name, columns)}"
            )
        if columns[name] not in {"number", "integer"}:
            raise ValueError(
                f"predictions.column {name!r} must be a number, in source.columns it is "
                f"{columns[name]}"
            )
        if name in self.features.names or name == self.label.column:
            what = "label.column" if name == self.label.column else "a feature"
            raise ValueError(f"predictions.column {name!r} must not be {what}, too")
        if self.label.task == "multiclass":
            raise ValueError(
                "predictions.column: label.task must be binary or regression, got multiclass: one "
                "column holds no probability of each class"
            )

    def _check_task(self) -> None:
        task, metric, kind = (
            self.label.task,
            self.gate.metric,
            self.label_type,
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
        if not parts.is_start(start) or start < parts.first:
            raise SpecError(
                f"partition: {self.model} has one every {parts.every} from "
                f"{parts.first.strftime(parts.key_format)} on, got {partition!r}"
            )
        if parts.last and start > parts.last:
            raise SpecError(
                f"partition: the last one of {self.model} is "
                f"{parts.last.strftime(parts.key_format)}, got {partition!r}"
            )
        return BatchRef(model=self.model, partition=partition, start=start, end=parts.step(start))

    def is_before_first(self, partition: str) -> bool:
        """Say whether this key names a moment before the model's first partition."""
        parts = self.partitions
        try:
            start = dt.datetime.strptime(partition, parts.key_format).replace(tzinfo=dt.UTC)
        except ValueError:
            return False
        return start < parts.first and self.partition_key(start) == partition

    def partition_key(self, start: dt.datetime) -> str:
        """Give the partition key of a window's start."""
        return start.strftime(self.partitions.key_format)


class OutcomeFeed(ModelSpec):
    """The outcomes of a model as a source of its own: validated and published as batches are.

    It is made by `ModelSpec.outcomes` alone. Its `model` names the folder of its state.
    """


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
