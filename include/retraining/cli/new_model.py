"""Makes a `Draft`: a first model file and suite for data that nobody has described yet.

Each choice is made by a rule that its comment states, so that a person can overrule it.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import ValidationError

from include.retraining.data.first_look import FirstLook, localized
from include.retraining.errors import DataError, did_you_mean
from include.retraining.names import SCORE
from include.retraining.spec import HOURS, ColumnType, Every, ModelSpec, Partitions, Task

ROWS_OF_A_PARTITION: dict[Every, int] = {"hour": 5000, "day": 500, "week": 1}
LONGER: tuple[Every, ...] = ("day", "week", "month")
REFERENCE_PARTITIONS = 12  # of a model that is served elsewhere
LEAST_PARTITIONS = 8  # before a longer length is chosen for its rows
MAX_CLASSES = 20
MAX_LEVELS = 200  # of a categorical feature; more are taken for ids
SUITE_COLUMNS = 50  # Great Expectations takes milliseconds for each check
LEAK_ROWS = 5000
LEAK_SCORE = 0.99  # of a column alone, on rows that it was not learned from
LABEL_NAMES = ("label", "target", "outcome", "y")
# a number with a comma, with groups of three, or with a sign of per cent or money
_SPELT = r"^\s*[€$£]?\s*[+-]?\d[\d.,'  ]*\s*(%|€|\$|£|[A-Z]{3})?\s*$"
FEW_LEVELS = 20  # so many may be codes
_ID = re.compile(r"(^|_)(id|key|uuid|guid)$", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Wish:
    """What a user says of the data; None and () leave it to the data."""

    model: str
    time: str | None = None
    label: str | None = None
    key: tuple[str, ...] = ()
    every: Every | None = None
    time_zone: str | None = None
    lands: bool = False
    predictions: str | None = None


@dataclass(frozen=True)
class Draft:
    """A model file and its suite, and why they are as they are.

    Attributes
    ----------
    rows : pa.Table
        All rows, in the types that the model file declares.
    left_out : dict of str to str
        Columns that are no feature, and why.
    notes : tuple of str
        What a person should look at.
    """

    spec: ModelSpec
    text: str
    suite: dict[str, Any]
    rows: pa.Table
    left_out: dict[str, str]
    notes: tuple[str, ...]


@dataclass
class _Choices:
    rows: pa.Table
    kinds: dict[str, ColumnType]
    time: str
    label: str
    predictions: str | None = None
    key: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def draft(look: FirstLook, wish: Wish) -> Draft:
    """Decide what a model file has to say of data.

    Raises
    ------
    DataError
        The data cannot be used as it is, or does not say what was left open; the candidates are
        named, with examples.
    """
    if look.rows.num_rows < 2:
        raise DataError(
            f"--from: {look.rows.num_rows} row, nothing can be learned from it; give some hundreds"
        )
    time = _time(look, wish)
    rows = look.rows
    for name in look.naive:
        if name == time or wish.time_zone:
            zone = _zone_of(look, wish, name)
            at = rows.column_names.index(name)
            rows = rows.set_column(at, name, localized(rows.column(name), zone, name))
    left_out = dict(look.left_out)
    kinds = dict(look.kinds)
    for name in look.naive:
        if name != time and not wish.time_zone:
            left_out[name] = "times without a zone, which a batch is refused for"
            del kinds[name]
    rows = rows.select(list(kinds))
    label = _label(rows, kinds, wish, time)
    choices = _Choices(rows, kinds, time, label, wish.predictions, left_out=left_out)
    choices.key = _key(choices, wish)
    _check_times(choices)
    task, settings = _task(choices)
    if wish.predictions is not None:
        _check_predictions(choices, wish.predictions, task)
    partitions, starts, count = _partitions(choices, wish)
    maturity, why_maturity = _maturity(choices, partitions["every"])
    numeric, categorical = _features(choices, task)
    counts = np.asarray(list(count.values()))
    labelled = len(rows) - rows.column(label).null_count
    is_elsewhere = wish.predictions is not None
    length = _days(partitions["every"])
    ending = ".parquet" if wish.lands else look.ending
    content = {
        "model": wish.model,
        "description": f"Predicts {label}.",
        "owner": "data-team",
        "partitions": partitions,
        "source": {
            "batch": f"landing/{wish.model}/{{partition}}{ending}",
            "key": list(choices.key),
            "event_time": time,
            "columns": kinds,
        },
        "label": {"column": label, **settings["label"], "maturity_days": maturity},
        "features": {"numeric": numeric, "categorical": categorical},
        **({"predictions": {"column": wish.predictions}} if is_elsewhere else {}),
        "training": {
            **(
                {"window": "rolling", "max_days": REFERENCE_PARTITIONS * length}
                if is_elsewhere
                else {"estimator": settings["estimator"]}
            ),
            "min_rows": max(50, min(1000, labelled // 3)),
        },
        "gate": {
            "metric": settings["metric"],
            "floor": settings["floor"],
            "duel_days": _duel_days(counts, partitions["every"]),
            "min_rows": max(20, min(200, labelled // 6)),
        },
    }
    comments = {
        "partitions": f"{len(counts)} with rows, {int(np.median(counts)):,} rows in the middle one"
        + (
            f"; {len(starts) - len(counts)} in between are empty"
            if len(starts) > len(counts)
            else ""
        )
        + ("" if wish.every else f". {_why_every()}"),
        "key": "no two rows share it" if not wish.key else "as you said",
        "event_time": "when a prediction is made; rows belong to the partition it lies in"
        + (f". Was without a zone, read as {wish.time_zone}" if time in look.naive else ""),
        "label": settings["why"],
        "maturity": why_maturity,
        "last": sorted(count)[-1],
    }
    text = _text(content, choices, comments)
    try:
        spec = ModelSpec.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise DataError(f"no model file can be made of this: {first}") from error
    suite = _suite(spec, rows, counts)
    return Draft(spec, text, suite, rows, choices.left_out, tuple(choices.notes))


# --- what was left open ---------------------------------------------------------------------------


def _time(look: FirstLook, wish: Wish) -> str:
    times = [name for name, kind in look.kinds.items() if kind == "timestamp"]
    if wish.time is not None:
        if wish.time in times:
            return wish.time
        if wish.time not in look.rows.column_names:
            known = look.rows.column_names
            raise DataError(
                f"--time: no column {wish.time!r}{did_you_mean(wish.time, known)}; there are: "
                f"{_some(known)}"
            )
        raise DataError(
            f"--time: column {wish.time!r} is {look.kinds[wish.time]}, such as "
            f"{_examples(look.rows, wish.time)}; it must hold times such as 2013-01-07T05:15:00Z "
            "in every row, all written alike"
        )
    full = [one for one in times if not look.rows.column(one).null_count]
    if len(full) == 1:
        return full[0]
    if not times:
        raise DataError(
            "--time: no column holds times in all rows, such as 2013-01-07T05:15:00Z; the columns "
            f"are: {_shown_columns(look.rows)}"
        )
    raise DataError(
        "--time: say which column says when a prediction is made: "
        f"{_shown_columns(look.rows, times)}"
    )


def _zone_of(look: FirstLook, wish: Wish, name: str) -> str:
    if wish.time_zone and wish.lands:
        return wish.time_zone
    example = _examples(look.rows, name, 1)
    raise DataError(
        f"--time: column {name!r} has times without a zone, such as {example}, and a batch with "
        "such times is refused; write them with it at the source, such as 2013-01-07T05:15:00Z, or "
        "say which they are in with --time-zone UTC --land, which lands them in UTC"
    )


def _label(rows: pa.Table, kinds: dict[str, ColumnType], wish: Wish, time: str) -> str:
    if wish.label is not None:
        if wish.label not in kinds:
            raise DataError(
                f"--label: no column {wish.label!r}{did_you_mean(wish.label, kinds)}; there are: "
                f"{_some(list(kinds))}"
            )
        if wish.label == time or kinds[wish.label] == "timestamp":
            raise DataError(f"--label: column {wish.label!r} holds times; name the outcome")
        return wish.label
    named = [name for name in kinds if name.lower() in LABEL_NAMES]
    if len(named) == 1:
        return named[0]
    few = [
        name for name in kinds
        if name != time and 2 <= _distinct(rows.column(name)) <= MAX_CLASSES
    ]  # fmt: skip
    raise DataError(
        "--label: say which column is the outcome; those of few values are: "
        f"{_shown_columns(rows, named or few or list(kinds))}"
    )


def _key(choices: _Choices, wish: Wish) -> tuple[str, ...]:
    rows, kinds = choices.rows, choices.kinds
    for name in wish.key:
        if name not in kinds:
            raise DataError(
                f"--key: no column {name!r}{did_you_mean(name, kinds)}; there are: "
                f"{_some(list(kinds))}"
            )
    if wish.key:
        bad = _shared(rows, wish.key)
        share = bad / rows.num_rows
        if share > 0.2:
            raise DataError(
                f"--key: {bad:,} of {rows.num_rows:,} rows have no {', '.join(wish.key)} or share "
                "it with another row; such rows are quarantined, and more than 20% refuse a batch. "
                "Name further columns, such as the time"
            )
        if bad:
            choices.notes.append(
                f"{bad:,} rows have no key or share it with another row: where they are in one "
                "partition they go to quarantine"
            )
        return wish.key
    taken = {choices.time, choices.label, choices.predictions}
    able = [
        name for name, kind in kinds.items()
        if name not in taken and kind in {"integer", "string"}
    ]  # fmt: skip
    ids = [name for name in able if _ID.search(name) and _distinct(rows.column(name)) > 1]
    unique = [name for name in able if not _shared(rows, (name,))]
    if sure := [name for name in unique if name in ids] or unique[:2]:
        if len(sure) == 1:
            return (sure[0],)
        raise DataError(
            "--key: say which column identifies a row; no two rows share: "
            f"{_shown_columns(rows, sure if sure[0] in ids else unique)}"
        )
    for name in ids:
        if not _shared(rows, (name, choices.time)):
            return (name, choices.time)
    best = sorted(able, key=lambda name: -_distinct(rows.column(name)))[:5]
    raise DataError(
        "--key: no column tells rows apart, and each row needs a key. Say which columns do "
        "together, or add an id at the source"
        + (f"; the nearest are: {_shown_columns(rows, best)}" if best else "")
    )


def _shared(rows: pa.Table, key: Sequence[str]) -> int:
    """Count the rows without a key, and those that share theirs."""
    known = rows.select(list(dict.fromkeys(key)))
    for name in known.column_names:
        known = known.filter(pc.is_valid(known.column(name)))
    counts = known.group_by(known.column_names).aggregate([([], "count_all")])
    several = counts.filter(pc.greater(counts.column("count_all"), 1)).column("count_all")
    return int(rows.num_rows - known.num_rows + (pc.sum(several).as_py() or 0))


def _check_times(choices: _Choices) -> None:
    times = choices.rows.column(choices.time)
    if missing := times.null_count:
        if missing == len(times):
            raise DataError(f"--time: column {choices.time!r} has no value in any row")
        choices.notes.append(
            f"{missing:,} rows have no {choices.time}: they are of no partition and are not landed"
        )


# --- what the data say ----------------------------------------------------------------------------


def _task(choices: _Choices) -> tuple[Task, dict[str, Any]]:
    label, kind = choices.label, choices.kinds[choices.label]
    column = choices.rows.column(label)
    known = column.drop_null()
    if not len(known):
        raise DataError(f"--label: column {label!r} has no value in any row; name the outcome")
    if column.null_count:
        choices.notes.append(
            f"{column.null_count:,} of {len(column):,} rows have no {label}: they are measured, "
            "and train nothing"
        )
    values = pc.unique(known)
    if len(values) == 1:
        raise DataError(
            f"--label: column {label!r} is {values[0].as_py()!r} in all rows that have one; there "
            "is nothing to learn"
        )
    found = sorted(values.to_pylist()) if len(values) <= MAX_CLASSES else []
    missing = f"; empty in {column.null_count:,} of {len(column):,} rows" * bool(column.null_count)
    if kind == "boolean" or found in ([0, 1], [0.0, 1.0]):
        return "binary", _binary({}, f"binary, as it is 0 or 1{missing}")
    if len(found) == 2 and kind in {"integer", "number"}:
        text = f"binary: 1 where it is {found[1]}, 0 where it is {found[0]}{missing}"
        return "binary", _binary({"at_least": found[1]}, text)
    is_code = kind == "integer" and found and len(known) >= 20 * len(found)
    if kind == "string" or is_code:
        if like := kind == "string" and _like_numbers(known):
            raise DataError(
                f"--label: column {label!r} holds numbers written as text, such as {like!r}; write "
                "them as 1234.5 at the source"
            )
        if not found:
            raise DataError(
                f"--label: column {label!r} is text with {len(values):,} values, such as "
                f"{_examples(choices.rows, label)}; a multiclass model has at most {MAX_CLASSES} "
                "here, and a number is needed for others"
            )
        shares = [pc.sum(pc.equal(known, one)).as_py() / len(known) for one in found]
        floor = -float(-sum(s * math.log(s) for s in shares))
        return "multiclass", {
            "label": {"task": "multiclass", "classes": found},
            "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
            "metric": "neg_log_loss",
            "floor": math.floor(floor * 1000) / 1000,
            "why": f"multiclass, as it has {len(found)} values{missing}",
        }
    if not found or kind == "number" or len(found) > 2:
        return "regression", {
            "label": {"task": "regression"},
            "estimator": "sklearn.ensemble.HistGradientBoostingRegressor",
            "metric": "r2",
            "floor": 0.0,
            "why": f"regression, as it is a number with {len(values):,} values{missing}",
        }
    raise DataError(f"--label: column {label!r} is {kind}, which is no outcome")


def _check_predictions(choices: _Choices, name: str, task: Task) -> None:
    """Refuse a column that holds no predictions; raises DataError."""
    kinds = choices.kinds
    if name not in kinds:
        raise DataError(
            f"--predictions: no column {name!r}{did_you_mean(name, kinds)}; there are: "
            f"{_some(list(kinds))}"
        )
    if kinds[name] not in {"number", "integer"} or name == choices.label:
        what = "the label" if name == choices.label else kinds[name]
        raise DataError(
            f"--predictions: column {name!r} is {what}, such as {_examples(choices.rows, name)}; "
            "it must hold the number that the model said of each row"
        )
    column = choices.rows.column(name)
    if missing := column.null_count:
        choices.notes.append(
            f"{missing:,} of {len(column):,} rows have no {name}: they go to quarantine"
        )
    outside = pc.sum(pc.or_(pc.less(column, 0), pc.greater(column, 1))).as_py() or 0
    if task == "binary" and outside:
        raise DataError(
            f"--predictions: column {name!r} must hold the probability of 1, from 0 to 1; "
            f"{outside:,} of {len(column):,} rows are outside"
        )


def _binary(more: dict[str, Any], why: str) -> dict[str, Any]:
    return {
        "label": {"task": "binary", **more},
        "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
        "metric": "roc_auc",
        "floor": 0.5,
        "why": why,
    }


def start_of(moments: pa.ChunkedArray, every: Every) -> pa.ChunkedArray:
    """Give the starts of the partitions that moments lie in; weeks begin on Monday, UTC."""
    if every in HOURS:
        return pc.floor_temporal(moments, HOURS[every], unit="hour")
    return pc.floor_temporal(moments, unit=every, week_starts_monday=True)


def _partitions(
    choices: _Choices, wish: Wish
) -> tuple[dict[str, Any], list[dt.datetime], dict[dt.datetime, int]]:
    times = choices.rows.column(choices.time).drop_null()
    counted: dict[Every, dict[dt.datetime, int]] = {}
    lengths: tuple[Every, ...] = (wish.every,) if wish.every else tuple(ROWS_OF_A_PARTITION)
    for every in lengths if wish.every else dict.fromkeys((*lengths, *LONGER)):
        found = pc.value_counts(start_of(times, every))
        counted[every] = {one["values"].as_py(): one["counts"].as_py() for one in found}
    every = lengths[-1]
    for one in lengths:
        enough = np.median(list(counted[one].values())) >= ROWS_OF_A_PARTITION.get(one, 1)
        if enough and len(counted[one]) >= LEAST_PARTITIONS:
            every = one
            break
    if not wish.every and len(counted[every]) < LEAST_PARTITIONS:
        days = counted["day"]
        if len(days) > len(counted[every]) and np.median(list(days.values())) >= 100:
            every = "day"
    if not wish.every and len(counted[every]) >= LEAST_PARTITIONS:
        # one day in each month is a month's rhythm, not a day's
        every = next((e for e in LONGER[::-1] if len(counted[e]) == len(counted[every])), every)
    count = counted[every]
    first, last = min(count), max(count)
    if len(count) < LEAST_PARTITIONS:
        choices.notes.append(
            f"only {len(count)} partitions: drift is judged from the fifth batch after a champion "
            "on; give more history, or a shorter --every"
        )
    if np.median(list(count.values())) < 100:
        choices.notes.append(
            "half of the partitions have fewer than 100 rows (drift.min_rows): no verdict on them"
        )
    total = Partitions(every=every, first=first).count(first, last) + 1
    starts = [first] * total  # only its length is of use, and there may be many
    return {"every": every, "first": first}, starts, count


def _why_every() -> str:
    return (
        "The shortest length with about 5,000 rows an hour or 500 a day, and at least "
        f"{LEAST_PARTITIONS} partitions; else week. A longer one, if each of it has one such only"
    )


def _maturity(choices: _Choices, every: Every) -> tuple[float, str]:
    """Read off how old a row is before it has its label: rows at the end without any."""
    rows = choices.rows
    column, times = rows.column(choices.label), rows.column(choices.time)
    newest = pc.max(times).as_py()
    with_label = pc.max(times.filter(pc.is_valid(column))).as_py()
    if with_label is None:
        return 0.0, ""
    gap = (newest - with_label) / dt.timedelta(days=1)
    if gap >= _days(every):
        days = float(math.ceil(gap))
        return days, f"the rows of the last {days:g} days have no {choices.label} yet"
    choices.notes.append(
        f"label.maturity_days is 0: the newest rows have their {choices.label} already. If "
        "outcomes become known later in real life, say after how many days"
    )
    return 0.0, "the newest rows have it already; raise it if outcomes become known later"


def _days(every: Every) -> float:
    longest = Partitions(every=every, first=dt.datetime(2024, 1, 1)).length  # noqa: DTZ001
    return longest / dt.timedelta(days=1)


def _duel_days(counts: Any, every: Every) -> float:
    days = _days(every)
    needed = math.ceil(250 / max(float(np.median(counts)), 1.0)) * days
    most = max(1.0, len(counts) * days / 3)
    return float(math.ceil(min(max(7.0, needed), max(most, days))))


def _features(choices: _Choices, task: Task) -> tuple[list[str], list[str]]:
    rows, kinds = choices.rows, choices.kinds
    numeric, categorical = [], []
    labelled = pc.is_valid(rows.column(choices.label))
    for name, kind in kinds.items():
        if name == choices.label:
            continue
        if name in {choices.time, choices.predictions, *choices.key}:
            continue
        if why := _why_not(rows.column(name), name, kind, labelled):
            choices.left_out[name] = why
        elif kind == "string":
            categorical.append(name)
        else:
            numeric.append(name)
    for name, score in _leaks(choices, task, numeric, categorical):
        choices.left_out[name] = (
            f"knows {choices.label}: alone it reaches {score:.3f} on rows it was not learned from; "
            "is it known when a prediction is made?"
        )
    numeric = [name for name in numeric if name not in choices.left_out]
    categorical = [name for name in categorical if name not in choices.left_out]
    if not numeric and not categorical:
        raise DataError(
            "no column is left as a feature: "
            + ("; ".join(f"{name}: {why}" for name, why in choices.left_out.items())[:1000] or
               "there are only time, key and label")
        )  # fmt: skip
    return numeric, categorical


def _why_not(column: pa.ChunkedArray, name: str, kind: ColumnType, labelled: Any) -> str:
    """Say why a column is no feature; empty if it may be one."""
    distinct, rows = _distinct(column), len(column)
    why = ""
    if name == SCORE:
        why = "this name is for the model's own score"
    elif distinct == 0:
        why = "has no value in any row"
    elif distinct == 1 and not column.null_count:
        why = f"is {str(column[0].as_py())[:50]!r} in every row"
    elif kind == "timestamp":
        why = "a time; make a number of it at the source, such as days since"
    elif kind == "string":
        why = _why_no_category(column, distinct)
    elif kind == "integer" and _ID.search(name) and distinct > 50:
        why = f"an id, by its name and its {distinct:,} values"
    elif kind == "integer" and max(abs(pc.min(column).as_py()), pc.max(column).as_py()) > 2**53:
        why = "whole numbers of more than 15 digits: an id, and no model can tell them apart"
    elif kind == "integer" and distinct == rows >= 100 and _is_counter(column):
        why = "counts the rows"
    elif _is_known_after(column, labelled):
        why = "empty wherever the label is, and filled where it is known: known after the outcome"
    return why


def _why_no_category(column: pa.ChunkedArray, distinct: int) -> str:
    if like := _like_numbers(column):
        return f"numbers written as text, such as {like!r}: write them as 1234.5 at the source"
    return f"text with {distinct:,} values: an id, or free text" if distinct > MAX_LEVELS else ""


def _like_numbers(column: pa.ChunkedArray) -> str:
    """Give a value of text that is numbers spelt with a comma or unit; or nothing."""
    values = pc.unique(column.drop_null())
    if len(values) <= FEW_LEVELS or not pc.all(pc.match_substring_regex(values, _SPELT)).as_py():
        return ""
    telling = values.filter(pc.match_substring_regex(values, r"[,%€$£]"))  # else codes, addresses
    return str(telling[0].as_py()) if len(telling) else ""


def _is_counter(column: pa.ChunkedArray) -> bool:
    return bool(pc.max(column).as_py() - pc.min(column).as_py() + 1 == len(column))


def _is_known_after(column: pa.ChunkedArray, labelled: pa.ChunkedArray) -> bool:
    without = column.filter(pc.invert(labelled))
    with_label = column.filter(labelled)
    if len(without) < 20 or not len(with_label):
        return False
    is_empty = without.null_count > 0.9 * len(without)
    return bool(is_empty and with_label.null_count < 0.1 * len(with_label))


def _leaks(
    choices: _Choices, task: Task, numeric: Sequence[str], categorical: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """Give the columns that know the label: a small tree on each alone, judged on other rows."""
    from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    rows = choices.rows.filter(pc.is_valid(choices.rows.column(choices.label)))
    if rows.num_rows < 100:
        return
    step = max(1, rows.num_rows // LEAK_ROWS)
    rows = rows.take(np.arange(0, rows.num_rows, step))
    label = rows.column(choices.label)
    codes = pc.dictionary_encode(label).combine_chunks()
    if task == "regression":
        y = label.cast(pa.float64(), safe=False).to_numpy()
    else:
        y = codes.indices.to_numpy()
    learn = np.random.default_rng(0).random(len(y)) < 0.5
    if len(np.unique(y[learn])) < 2 or len(np.unique(y[~learn])) < 2:
        return
    for name in (*numeric, *categorical):
        column = rows.column(name)
        if name in categorical:
            column = pc.dictionary_encode(column).combine_chunks().indices
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        x = np.where(np.isfinite(values), values, np.nan).astype(float)[:, None]
        if task == "regression":
            tree = DecisionTreeRegressor(min_samples_leaf=5, random_state=0)
            score = r2_score(y[~learn], tree.fit(x[learn], y[learn]).predict(x[~learn]))
        else:
            tree = DecisionTreeClassifier(min_samples_leaf=20, random_state=0)
            tree.fit(x[learn], y[learn])
            if task == "binary":
                score = roc_auc_score(y[~learn], tree.predict_proba(x[~learn])[:, 1])
            else:
                score = accuracy_score(y[~learn], tree.predict(x[~learn]))
        if score >= LEAK_SCORE:
            yield name, float(score)


# --- what is written ------------------------------------------------------------------------------


def _text(content: dict[str, Any], choices: _Choices, comments: dict[str, Any]) -> str:
    """Give the model file, each choice with its reason."""
    parts, source, label = content["partitions"], content["source"], content["label"]
    classes = ", ".join(map(_word, label.get("classes", ())))
    last = comments["last"].strftime(
        "%Y-%m-%dT%H:00:00Z" if parts["every"] in HOURS else "%Y-%m-%d"
    )
    lines = [
        f"model: {content['model']}",
        f"description: {_word(content['description'])}   # say it in a sentence",
        f"owner: {content['owner']}",
        "",
        f"partitions:   # {comments['partitions']}",
        f"  every: {parts['every']}",
        f"  first: {_moment(parts['first'], parts['every'])}",
        f"  # last: {last}   # here. Without it, Airflow waits for each partition since `first`",
        "",
        "source:",
        f"  batch: {_word(source['batch'])}   # below the storage root",
        f"  key: [{', '.join(map(_word, source['key']))}]   # {comments['key']}",
        f"  event_time: {_word(source['event_time'])}   # {comments['event_time']}",
        "  columns:   # the narrowest type that holds every value of all rows",
        *(f"    {_word(name)}: {kind}" for name, kind in source["columns"].items()),
        "",
        "label:",
        f"  column: {_word(label['column'])}",
        f"  task: {label['task']}   # {_comment(comments['label'])}",
        *([f"  at_least: {label['at_least']}"] if "at_least" in label else []),
        *([f"  classes: [{classes}]"] if classes else []),
        f"  maturity_days: {label['maturity_days']:g}   # {comments['maturity']}",
        "",
        "features:   # columns of the batch; features.service would join others (Feast)",
        *(
            line
            for kind in ("numeric", "categorical") if content["features"][kind]
            for line in (
                f"  {kind}:",
                *(f"    - {_word(name)}" for name in content["features"][kind]),
            )
        ),
        *(["  # left out; a column that is known when a prediction is made may be put back above:"]
          if choices.left_out else []),
        *(f"  #   {_comment(f'{name}: {why}')}" for name, why in choices.left_out.items()),
        "",
        *(_elsewhere(content) if "predictions" in content else _ours(content)),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _ours(content: dict[str, Any]) -> list[str]:
    training, gate = content["training"], content["gate"]
    return [
        "training:",
        f"  estimator: {training['estimator']}",
        f"  min_rows: {training['min_rows']}   # with a label, before the first model",
        "",
        "gate:",
        f"  metric: {gate['metric']}   # higher is better",
        f"  floor: {gate['floor']:g}   # what knowing nothing reaches; raise it",
        f"  duel_days: {gate['duel_days']:g}   # the newest, never trained on",
        f"  min_rows: {gate['min_rows']}",
        "",
        "retrain:",
        "  autonomy: 2   # a person approves each promotion; 1: only look, 3: automatic",
    ]


def _elsewhere(content: dict[str, Any]) -> list[str]:
    training, gate = content["training"], content["gate"]
    return [
        "predictions:   # the model is trained and served elsewhere: it is only watched",
        f"  column: {_word(content['predictions']['column'])}   # what it said of each row",
        "",
        "training:   # nothing is trained; what came first is the reference",
        f"  min_rows: {training['min_rows']}   # with a label, before there is one",
        "  window: rolling   # so that a later one is of rows that the newer model was served for",
        f"  max_days: {training['max_days']:g}",
        "",
        "gate:",
        f"  metric: {gate['metric']}   # higher is better",
        f"  floor: {gate['floor']:g}",
        f"  duel_days: {gate['duel_days']:g}   # the newest of the reference say what is promised",
        f"  min_rows: {gate['min_rows']}   # of those, with a label",
    ]


def _moment(start: dt.datetime, every: Every) -> str:
    return start.strftime("%Y-%m-%dT%H:00:00Z" if every in HOURS else "%Y-%m-%d")


def _comment(text: str) -> str:
    return " ".join(json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"').split())


def _word(value: Any) -> str:
    """Give a value as YAML that is read as that very value."""
    is_plain = isinstance(value, str) and _PLAIN.fullmatch(value) and len(value) > 1
    if is_plain and yaml.safe_load(value) == value:
        return str(value)
    if not isinstance(value, str):
        return str(value)
    text = yaml.safe_dump(value, default_style='"', allow_unicode=False, width=10**9)
    return str(text).strip()


def _suite(spec: ModelSpec, rows: pa.Table, counts: Any) -> dict[str, Any]:
    """Give expectations that hold for all rows looked at, with room; the label's are critical."""
    found: list[dict[str, Any]] = []

    def expect(kind: str, severity: str, **kwargs: Any) -> None:
        found.append({"type": f"expect_{kind}", "severity": severity, "kwargs": kwargs})

    middle = float(np.median(counts))
    expect(
        "table_row_count_to_be_between", "warning",
        min_value=int(min(middle / 5, counts.min())), max_value=int(max(middle * 5, counts.max())),
    )  # fmt: skip
    label = spec.label
    if label.classes:
        expect("column_values_to_be_in_set", "critical", column=label.column,
               value_set=list(label.classes))  # fmt: skip
    elif (
        label.task == "binary"
        and label.at_least is None
        and spec.source.columns[label.column] != "boolean"
    ):
        expect("column_values_to_be_in_set", "critical", column=label.column, value_set=[0, 1])
    for name in spec.features.names[:SUITE_COLUMNS]:
        column = rows.column(name)
        if not column.null_count:
            expect("column_values_to_not_be_null", "warning", column=name)
        if spec.source.columns[name] in {"integer", "number"}:
            low, high = (_finite(one) for one in (pc.min(column).as_py(), pc.max(column).as_py()))
            room = (high - low) / 2
            bounds = {"min_value": _bound(low - room, low), "max_value": _bound(high + room, high)}
            expect("column_values_to_be_between", "warning", column=name, **bounds)
        elif name in spec.features.categorical and _distinct(column) <= MAX_CLASSES:
            values = sorted(pc.unique(column.drop_null()).to_pylist())
            expect("column_values_to_be_in_set", "warning", column=name, value_set=values)
    return {"name": spec.model, "expectations": found}


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.copysign(1e300, value)


def _bound(value: float, edge: float) -> float:
    """Give a limit of a few digits, on the outer side; where all are at least 0, so is it."""
    if edge >= 0 > value:
        return 0
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    step = 10.0**-digits
    rounded = math.floor(value / step) * step if value < edge else math.ceil(value / step) * step
    return float(f"{rounded:.3g}") if abs(rounded) < 1e15 else float(rounded)


# --- words ----------------------------------------------------------------------------------------


def _distinct(column: pa.ChunkedArray) -> int:
    return int(pc.count_distinct(column, mode="only_valid").as_py())


def _examples(rows: pa.Table, name: str, count: int = 3) -> str:
    values = pc.unique(rows.column(name).slice(0, 1000).drop_null())[:count]
    return ", ".join(repr(str(one.as_py())[:40]) for one in values) or "nothing"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def _shown_columns(rows: pa.Table, names: Sequence[str] | None = None) -> str:
    names = rows.column_names if names is None else names
    shown = [f"{name} ({_examples(rows, name)})" for name in names[:10]]
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return "; ".join(shown) + more


def with_outcomes(look: FirstLook, outcomes: FirstLook, key: Sequence[str]) -> FirstLook:
    """Give rows with the columns of a file of outcomes, joined by their key.

    Raises
    ------
    DataError
        The key is not in both, or not unique among the outcomes, or a column is in both.
    """
    shared = [name for name in look.kinds if name in outcomes.kinds]
    key = list(key) or shared
    if not key or [name for name in key if name not in shared]:
        raise DataError(
            "--outcomes: rows and outcomes must share the key; they share "
            f"{_some(shared) or 'no column'}"
        )
    twice = _shared(outcomes.rows, key)
    if twice:
        raise DataError(
            f"--outcomes: {twice:,} rows have no {', '.join(key)} or share it; give each row one"
        )
    if both := [name for name in shared if name not in key]:
        raise DataError(f"--outcomes: {_some(both)} is in both files; leave it out of one")
    for name in key:
        if look.kinds[name] != outcomes.kinds[name]:
            raise DataError(
                f"--outcomes: column {name!r} is {look.kinds[name]} in the rows and "
                f"{outcomes.kinds[name]} in the outcomes; write it alike"
            )
    order = look.rows.append_column("_rt_row", pa.array(np.arange(look.rows.num_rows)))
    joined = order.join(outcomes.rows, list(key), join_type="left outer").sort_by("_rt_row")
    return replace(
        look,
        rows=joined.drop_columns("_rt_row").combine_chunks(),
        kinds=look.kinds | outcomes.kinds,
        naive=tuple(dict.fromkeys((*look.naive, *outcomes.naive))),
        left_out=look.left_out | outcomes.left_out,
    )
