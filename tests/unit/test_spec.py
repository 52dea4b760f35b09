from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from include.retraining.errors import SpecError
from include.retraining.spec import (
    MODELS_DIR,
    Every,
    ModelSpec,
    Partitions,
    load_spec,
    load_specs,
)

FLIGHTS = (MODELS_DIR / "flights.yaml").read_text()


def line_of(text: str, part: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), start=1) if part in line)


def write(folder: Path, text: str | bytes, name: str = "flights.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def changed(old: str, new: str) -> str:
    assert FLIGHTS.count(old) == 1, f"the model file changed: {old!r}"
    return FLIGHTS.replace(old, new)


def test_every_model_file_of_the_repository_loads():
    found = load_specs()
    assert not found.errors
    assert {spec.model for spec in found.specs} >= {"flights"}
    assert all(
        spec.model == path.stem
        for spec, path in zip(found.specs, sorted(MODELS_DIR.glob("*.yaml")), strict=True)
    )


def test_flights_is_predicted_from_what_is_known_before_departure(flights: ModelSpec):
    known_later = {"dep_delay", "arr_delay", "air_time", "dep_time", "arr_time", "tailnum"}
    assert not known_later & set(flights.features.names)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        pytest.param(
            "\nlabel:",
            "\nlabl:",
            "labl:",
            "labl: unknown setting; did you mean 'label'?",
            id="required-section-misspelt",
        ),
        pytest.param(
            "min_rows: 15000",
            "min_row: 15000",
            "min_row:",
            "training.min_row: unknown setting; did you mean 'min_rows'?",
            id="optional-key-misspelt",
        ),
        pytest.param(
            "min_rows: 15000", "colour: red", "colour:", "allowed: balance", id="key-unknown"
        ),
        pytest.param(
            "owner: flight-ops-ml\n",
            "",
            "model:",
            "owner: required and missing; add it",
            id="required-key-missing",
        ),
        pytest.param(
            "cool_down_days: 14",
            "cool_down_days: -1",
            "cool_down_days:",
            "retrain.cool_down_days: input should be greater than or equal to 0, got -1",
            id="out-of-range",
        ),
        pytest.param(
            "floor: 0.53", "floor: .nan", "floor:", "finite number, got nan", id="not-a-number"
        ),
        pytest.param("floor: 0.53", "floor: high", "floor:", "valid number", id="wrong-type"),
        pytest.param(
            "floor: 0.53",
            "floor: 0.53\n  floor: 0.6",
            "floor: 0.6",
            "'floor' appears twice",
            id="key-twice",
        ),
        pytest.param(
            "metric: roc_auc",
            "metric: precision",
            "metric:",
            "'roc_auc'",
            id="not-among-the-choices",
        ),
        pytest.param(
            "metric: roc_auc",
            "metric: accuracy",
            "metric:",
            "accuracy is not for binary; allowed: roc_auc",
            id="metric-of-another-task",
        ),
        pytest.param(
            "metric: roc_auc\n  floor: 0.53",
            "metric: neg_log_loss\n  floor: 0.53",
            "floor:",
            "neg_log_loss is never above 0, got 0.53",
            id="floor-out-of-reach",
        ),
        pytest.param(
            "  at_least: 15",
            "  at_least: 15\n  task: regression",
            "at_least:",
            "at_least makes a label of 0 and 1; leave it out for regression",
            id="limit-of-a-number",
        ),
        pytest.param(
            "  at_least: 15",
            "  task: multiclass\n  classes: [late]",
            "classes:",
            "classes must name two or more, got ['late']",
            id="one-class",
        ),
        pytest.param(
            "  at_least: 15",
            "  classes: [early, late]",
            "classes:",
            "classes are for multiclass",
            id="classes-of-another-task",
        ),
        pytest.param(
            "  seed: 2013",
            "  window: rolling",
            "window:",
            "window: rolling needs its length; set max_days",
            id="rolling-without-a-length",
        ),
        pytest.param(
            "  seed: 2013",
            "  max_days: 30",
            "max_days:",
            "max_days is the length of a rolling window, got expanding",
            id="length-without-rolling",
        ),
        pytest.param(
            "  seed: 2013",
            "  cv_folds: 0\n  search: {n_iter: 3, space: {max_iter: [1, 2]}}",
            "cv_folds:",
            "cv_folds must be 1 or more for a search",
            id="search-without-folds",
        ),
        pytest.param(
            "  seed: 2013",
            "  search: {n_iter: 3, space: {max_iter: {low: 5, high: 5}}}",
            "search:",
            "low must be less than high, got 5 and 5",
            id="range-without-width",
        ),
        pytest.param(
            "  seed: 2013",
            "  search: {n_iter: 3, space: {max_iter: []}}",
            "search:",
            "max_iter has no values",
            id="nothing-to-choose",
        ),
        pytest.param(
            "  seed: 2013",
            "  sample_weight: distanc",
            "sample_weight:",
            "did you mean 'distance'?",
            id="weight-misspelt",
        ),
        pytest.param(
            "first: 2013-01-07",
            "first: 2013-13-45",
            "first:",
            "month must be in 1..12",
            id="no-such-date",
        ),
        pytest.param(
            "retrain:\n",
            "policies:\n  required_slices: [orign=EWR]\nretrain:\n",
            "  required_slices:",
            "policies.required_slices: must be column=level with a column of gate.slices (origin), "
            "got 'orign=EWR'; did you mean 'origin'?",
            id="required-slice-of-another-column",
        ),
        pytest.param(
            "retrain:\n",
            "policies:\n  required_slices: [origin]\nretrain:\n",
            "  required_slices:",
            "got 'origin'",
            id="required-slice-without-a-level",
        ),
        pytest.param(
            "first: 2013-01-07", "first: [2013-01-07", "last:", "not valid YAML", id="broken-yaml"
        ),
        pytest.param(
            "owner: flight-ops-ml",
            "owner: x\n? [a, b]\n: 1",
            "? [a, b]",
            "a key must be one word",
            id="list-as-key",
        ),
        pytest.param(
            "owner: flight-ops-ml",
            "owner: x\n1: 2",
            "1: 2",
            "keys should be strings",
            id="number-as-key",
        ),
        pytest.param(
            "last: 2013-12-23",
            "last: 2013-12-24",
            "last:",
            "whole number of weeks",
            id="last-not-on-the-grid",
        ),
        pytest.param(
            "last: 2013-12-23",
            "last: 2012-12-31",
            "last:",
            "must not be before first",
            id="last-before-first",
        ),
        pytest.param(
            "first: 2013-01-07",
            "first: 2013-01-07T00:00:00+02:00",
            "first:",
            "first must be midnight UTC",
            id="midnight-elsewhere",
        ),
        pytest.param(
            "column: arr_delay",
            "column: arrdelay",
            "column: arrdelay",
            "label.column 'arrdelay' is not in source.columns; did you mean 'arr_delay'?",
            id="label-not-a-column",
        ),
        pytest.param(
            "categorical: [carrier, origin, dest]",
            "categorical: [carrier, origin, arr_delay]",
            "column: arr",
            "must not be a feature: it is the answer",
            id="label-as-feature",
        ),
        pytest.param(
            "categorical: [carrier, origin, dest]",
            "categorical: [carrier, origin, temp]",
            "features:",
            "named twice: ['temp']",
            id="feature-twice",
        ),
        pytest.param(
            "slices: [origin]",
            "slices: [orign]",
            "slices:",
            "did you mean 'origin'?",
            id="slice-not-a-feature",
        ),
        pytest.param(
            "expected: [weekday]",
            "expected: [tail]",
            "expected:",
            "drift.expected: 'tail' is not",
            id="expected-not-a-feature",
        ),
        pytest.param(
            "expected: [weekday]",
            "persistence_windows: 4",
            "persistence_windows:",
            "less than or equal to 3",
            id="persistence-beyond-the-look-back",
        ),
        pytest.param(
            "key: [sched_dep, carrier, flight]",
            "key: [sched_dep, carier, flight]",
            "source:",
            "did you mean 'carrier'?",
            id="key-not-a-column",
        ),
        pytest.param(
            "event_time: sched_dep",
            "event_time: carrier",
            "event_time:",
            "must be a timestamp",
            id="event-time-not-a-timestamp",
        ),
        pytest.param(
            "batch: landing/flights/{partition}.parquet",
            "batch: landing/flights.parquet",
            "batch:",
            "batch: path must contain {partition}",
            id="path-without-partition",
        ),
        pytest.param(
            "batch: landing/flights/{partition}.parquet",
            "batch: l/{model}/{partition}.parquet",
            "batch:",
            "no other braces",
            id="path-with-an-unknown-name",
        ),
        pytest.param(
            "    weather: landing",
            "    wether: landing",
            "companion_columns:",
            "exactly the companions",
            id="companion-undescribed",
        ),
        pytest.param("model: flights", "model: Flights-1", "model:", "pattern", id="model-name"),
        pytest.param(
            "model: flights", f"model: {'a' * 101}", "model:", "at most 100", id="model-name-long"
        ),
        pytest.param(
            "    dep_delay: number",
            "    _rt_row: number",
            "    _rt_row: number",
            "columns._rt_row: no name for a column",
            id="column-of-the-bundle",
        ),
        pytest.param(
            "      dewp: number",
            "      _rt_partition: number",
            "      _rt_partition: number",
            "companion_columns.weather._rt_partition: no name for a column",
            id="companion-column-of-the-bundle",
        ),
        pytest.param(
            "    - temp\n",
            "    - prediction\n",
            "  numeric:",
            "'prediction' is what the model's own score is called",
            id="feature-named-like-the-score",
        ),
        pytest.param(
            "    distance: number",
            "    distance: string",
            "  numeric:",
            "column 'distance' is string in source.columns; allowed: number, integer",
            id="text-as-number",
        ),
        pytest.param(
            "    - distance\n",
            "    - sched_dep\n",
            "  numeric:",
            "features.numeric: column 'sched_dep' is timestamp",
            id="time-as-number",
        ),
        pytest.param(
            "  seed: 2013",
            "  sample_weight: carrier",
            "  sample_weight:",
            "training.sample_weight: column 'carrier' is string in source.columns; allowed: number",
            id="text-as-weight",
        ),
        pytest.param(
            "  maturity_days: 1 ",
            "  maturity_days: 1e9 ",
            "  maturity_days:",
            "less than or equal to 36500, got 1000000000.0",
            id="longer-than-there-is-data",
        ),
        pytest.param(
            "  at_least: 15",
            "  task: multiclass\n  classes: [true, false]",
            "classes:",
            "got True",
            id="booleans-as-classes",
        ),
        pytest.param(
            "  at_least: 15",
            "  at_least: 015",
            "at_least:",
            "015 begins with a zero",
            id="leading-zero",
        ),
    ],
)
def test_wrong_model_file_names_file_line_and_remedy(tmp_path, old, new, line, says):
    text = changed(old, new)
    path = write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert says in str(caught.value)
    assert caught.value.path == str(path)
    assert caught.value.line == line_of(text, line)


ELSEWHERE = changed("label:\n", "predictions:\n  column: dep_delay\n\nlabel:\n")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("column: dep_delay", "column: dep_dely", "did you mean 'dep_delay'"),
        (
            "column: dep_delay",
            "column: carrier",
            "must be a number, in source.columns it is string",
        ),
        ("column: dep_delay", "column: arr_delay", "must not be label.column, too"),
        ("guard:\n", "guard:\n  mode: ask\n", "guard.mode: must be off or left out"),
    ],
)
def test_a_model_that_is_served_elsewhere_asks_for_nothing_that_is_not_ours(
    tmp_path, old, new, says
):
    text = ELSEWHERE if "guard:\n" in ELSEWHERE else f"{ELSEWHERE}\nguard:\n  error: 0.01\n"
    assert load_spec(write(tmp_path, text)).guard_mode == "off"
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, text.replace(old, new, 1)))
    assert says in str(caught.value)


def test_training_none_needs_the_predictions(tmp_path):
    text = FLIGHTS[: FLIGHTS.index("training:\n")] + "training: none\n"
    with pytest.raises(SpecError, match="name the column with what it said"):
        load_spec(write(tmp_path, text))
    text = text.replace("label:\n", "predictions:\n  column: dep_delay\n\nlabel:\n")
    spec = load_spec(write(tmp_path, text))
    assert spec.gate.mode == "disabled"
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    schema = type(spec).model_json_schema()["properties"]["training"]
    assert {"const": "none"} in schema["anyOf"]


BOMB = "\n".join(
    [f"a0: &a0 [{'x, ' * 10}]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]" for n in range(1, 9))]
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(BOMB, ":6: not valid YAML: holds more than", id="aliases-that-multiply"),
        pytest.param("a: &a [*a]", "stands for nothing before it", id="alias-of-itself"),
        pytest.param("a: " + "[" * 5000 + "]" * 5000, "nested more than 50 deep", id="brackets"),
        pytest.param("a: " + "{b: " * 5000, "nested more than 50 deep", id="braces"),
        pytest.param(f"{FLIGHTS}\n# {'x' * 10_000_000}", "holds 10,0", id="ten-megabytes"),
        pytest.param(
            changed("floor: 0.53", f"floor: [{'x, ' * 100_000}]"), "got ['x', 'x'", id="long-value"
        ),
    ],
)
def test_model_file_that_costs_too_much_is_one_short_error(tmp_path, text, says):
    with pytest.raises(SpecError) as caught:  # without bounds the first would not end in a day
        load_spec(write(tmp_path, text))
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_values_are_what_they_look_like(tmp_path):
    classes = changed("  at_least: 15", "  task: multiclass\n  classes: [yes, NO, on]")
    classes = classes.replace("    arr_delay: number", "    arr_delay: string")
    spec = load_spec(write(tmp_path, classes))
    assert spec.label.classes == ("yes", "NO", "on")
    params = changed("learning_rate: 0.1", "learning_rate: 1e-1")
    space = params.replace(
        "  seed: 2013", "  search: {n_iter: 2, space: {learning_rate: [1e-2, 1E-1, .5]}}"
    )
    training = load_spec(write(tmp_path, space)).training
    assert training.params["learning_rate"] == 0.1
    assert training.params["early_stopping"] is False
    assert training.search is not None
    assert training.search.space == {"learning_rate": (0.01, 0.1, 0.5)}


def test_column_may_be_called_no(tmp_path):
    text = changed("    dep_delay: number", "    no: number")
    assert "no" in load_spec(write(tmp_path, text)).source.columns


def test_aliases_may_be_used(tmp_path):
    text = changed("  seed: 2013\n  min_rows: 15000", "  seed: &year 2013\n  min_rows: *year")
    assert load_spec(write(tmp_path, text)).training.min_rows == 2013


def test_class_of_a_whole_number_column_is_a_whole_number(tmp_path):
    text = changed("  at_least: 15", "  task: multiclass\n  classes: [1, 2, low]").replace(
        "    arr_delay: number", "    arr_delay: integer"
    )
    with pytest.raises(SpecError, match="'low' is no whole number"):
        load_spec(write(tmp_path, text))


def test_companion_cannot_take_the_place_of_the_batch(tmp_path):
    text = FLIGHTS.replace("    weather:", "    batch:")
    with pytest.raises(SpecError, match="'batch' is the name of the batch itself"):
        load_spec(write(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "must be a mapping", id="empty"),
        pytest.param(b"- a\n- b\n", "must be a mapping", id="list"),
        pytest.param(b"model: \xff\n", "must be UTF-8", id="not-utf-8"),
        pytest.param(b"model: x\n# \x07\n", "not valid YAML", id="control-character"),
        pytest.param(b"a: 1\n---\nb: 2\n", "not valid YAML", id="two-documents"),
        pytest.param(b"a: !!python/object:os.system {}\n", "not valid YAML", id="python-object"),
    ],
)
def test_file_that_is_no_model_file_is_a_spec_error(tmp_path, content, says):
    with pytest.raises(SpecError, match=says):
        load_spec(write(tmp_path, content))


def test_file_that_is_not_there_is_a_spec_error(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(changed("\nlabel:", "\nlabl:"), id="misspelt"),
        pytest.param("a: [", id="broken-yaml"),
        pytest.param("model: x\n# \x07\n", id="control-character"),
        pytest.param("a: 2013-13-45", id="no-such-date"),
    ],
)
def test_one_wrong_model_file_does_not_stop_the_others(tmp_path, broken):
    write(tmp_path, broken, "a_broken.yaml")
    write(tmp_path, FLIGHTS, "flights.yaml")
    found = load_specs(tmp_path)
    assert [spec.model for spec in found.specs] == ["flights"]
    assert [Path(error.path).name for error in found.errors] == ["a_broken.yaml"]


def test_second_file_of_one_model_is_refused_and_the_first_stays(tmp_path):
    write(tmp_path, FLIGHTS, "a.yaml")
    write(tmp_path, FLIGHTS, "b.yaml")
    found = load_specs(tmp_path)
    assert len(found.specs) == 1
    assert "also the name in another file" in str(found.errors[0])
    assert found.errors[0].path.endswith("b.yaml")


@pytest.mark.parametrize(
    "first", ["2013-01-07", '"2013-01-07"', "2013-01-07T00:00:00Z", "2013-01-07 00:00:00"]
)
def test_every_spelling_of_a_moment_is_utc(tmp_path, first):
    spec = load_spec(write(tmp_path, changed("first: 2013-01-07", f"first: {first}")))
    assert spec.partitions.first == dt.datetime(2013, 1, 7, tzinfo=dt.UTC)
    assert spec.batch_ref("2013-01-14").start == dt.datetime(2013, 1, 14, tzinfo=dt.UTC)


def test_batch_ref_is_the_half_open_window_of_its_key(flights: ModelSpec):
    batch = flights.batch_ref("2013-02-11")
    assert batch.start == dt.datetime(2013, 2, 11, tzinfo=dt.UTC)
    assert batch.end == dt.datetime(2013, 2, 18, tzinfo=dt.UTC)
    assert flights.partition_key(batch.end) == "2013-02-18"


@pytest.mark.parametrize("key", ["2013-01-07", "2013-12-23"], ids=["first", "last"])
def test_batch_ref_takes_the_first_and_the_last_partition(flights: ModelSpec, key):
    assert flights.batch_ref(key).partition == key


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("2012-12-31", id="before-the-first"),
        pytest.param("2013-12-30", id="after-the-last"),
        pytest.param("2013-01-08", id="off-the-grid"),
        pytest.param("2013-1-7", id="second-spelling-of-a-batch"),
        pytest.param("2013-01-07T00", id="other-length"),
        pytest.param("20130107", id="no-dashes"),
        pytest.param("../2013-01-07", id="path"),
        pytest.param("", id="empty"),
    ],
)
def test_batch_ref_refuses_what_is_no_partition_key(flights: ModelSpec, key):
    with pytest.raises(SpecError, match="partition"):
        flights.batch_ref(key)


@pytest.mark.parametrize(
    ("every", "cron", "key"),
    [
        ("hour", "0 * * * *", "2013-01-06T00"),
        ("day", "0 0 * * *", "2013-01-06"),
        ("week", "0 0 * * 0", "2013-01-06"),  # a Sunday
        ("6h", "0 0,6,12,18 * * *", "2013-01-06T00"),
    ],
)
def test_schedule_ticks_where_partitions_start(every, cron, key):
    parts = Partitions(every=every, first=dt.datetime(2013, 1, 6, tzinfo=dt.UTC))
    assert parts.cron == cron
    assert parts.first.strftime(parts.key_format) == key


@pytest.mark.parametrize(
    ("every", "first", "cron"),
    [
        ("month", "2013-05-01", "0 0 1 * *"),
        ("quarter", "2013-01-01", "0 0 1 1,4,7,10 *"),
        ("quarter", "2013-11-01", "0 0 1 2,5,8,11 *"),
        ("8h", "2013-01-01T05:00:00", "0 5,13,21 * * *"),
    ],
)
def test_schedule_ticks_on_the_grid_of_the_first_partition(every, first, cron):
    assert Partitions(every=every, first=dt.datetime.fromisoformat(first)).cron == cron


@pytest.mark.parametrize(
    ("partitions", "says"),
    [
        ({"every": "month", "first": "2013-01-07"}, "must be the first of a month"),
        ({"every": "quarter", "first": "2013-01-01", "last": "2013-06-01"}, "number of quarters"),
        ({"every": "6h", "first": "2013-01-01", "last": "2013-01-01T05:00:00"}, "of 6 hours after"),
        ({"every": "month", "first": "2013-01-01T01:00:00"}, "must be midnight UTC"),
        ({"every": "5h", "first": "2013-01-01"}, "'8h', '12h', 'day'"),
    ],
)
def test_a_partition_begins_where_its_calendar_says(partitions, says):
    with pytest.raises(ValidationError, match=says):
        Partitions.model_validate(partitions)


EVERY = get_args(Every)
FIRST = dt.datetime(2012, 11, 1, tzinfo=dt.UTC)


@given(st.sampled_from(EVERY), st.integers(0, 5000))
def test_partition_keys_and_windows_are_inverse(every, number):
    spec = load_spec(MODELS_DIR / "flights.yaml")
    parts = Partitions(every=every, first=FIRST)
    spec = spec.model_copy(update={"partitions": parts})
    start = parts.step(parts.first, number)
    batch = spec.batch_ref(spec.partition_key(start))
    assert (batch.start, batch.end) == (start, parts.step(start))
    assert parts.shortest <= batch.end - batch.start <= parts.length


@given(
    st.sampled_from(EVERY),
    st.integers(-(10**9), 10**9),
    st.integers(-500, 500),
)
def test_windows_tile_the_line_of_time(every, seconds, count):
    moment = FIRST + dt.timedelta(seconds=seconds)
    parts = Partitions(every=every, first=FIRST)
    start = parts.start_of(moment)
    assert start <= moment < parts.step(start)
    assert parts.is_start(start)
    assert parts.is_start(moment) == (moment == start)
    later = parts.step(start, count)
    assert parts.count(start, later) == count
    assert parts.step(later, -count) == start
    assert parts.count(start, moment) == 0
    assert parts.count(moment, start) == (0 if moment == start else -1)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param({"batch": "{partition}-*.csv"}, "several files must be", id="no-folder"),
        pytest.param({"batch": "{partition}/a*.csv"}, "several files must be", id="not-all"),
        pytest.param({"batch": "{partition}/*"}, "several files must be", id="no-format"),
        pytest.param({"batch": "*/{partition}.csv"}, "several files must be", id="many-folders"),
        pytest.param({"connection": "shop"}, "go together", id="no-queries"),
        pytest.param({"queries": {"batch": "select 1"}}, "go together", id="no-connection"),
        pytest.param(
            {"connection": "c", "queries": {"bach": "select 1"}}, "neither batch", id="no-input"
        ),
        pytest.param(
            {"connection": "c", "queries": {"batch": "select 1 where :start < 1"}},
            "must use :start and :end",
            id="no-window",
        ),
        pytest.param({"batch": "{partition}.xlsx"}, r"must end in \.parquet, \.csv", id="excel"),
        pytest.param({"batch": "{partition}"}, r"must end in \.parquet, \.csv", id="no-ending"),
        pytest.param({"batch": "{partition}.parquet.gz"}, "the last three with", id="packed-twice"),
        pytest.param({"batch": "{partition}.gz"}, "must end in", id="packed-what"),
        pytest.param({"batch": "{partition}/*.csv.zip"}, "must end in", id="zip"),
        pytest.param({"batch": "a/../../{partition}.csv"}, "stay below", id="way-up"),
        pytest.param(
            {
                "batch": "{partition}.csv",
                "connection": "c",
                "queries": {"batch": "select :start, :end"},
            },
            "lands as one .parquet",
            id="not-parquet",
        ),
        pytest.param(
            {
                "batch": "{partition}/*.parquet",
                "connection": "c",
                "queries": {"batch": "select :start, :end"},
            },
            "lands as one .parquet",
            id="several-files",
        ),
    ],
)
def test_source_that_cannot_land_is_an_error(flights: ModelSpec, source, says):
    content = flights.model_dump()
    with pytest.raises(ValueError, match=says):
        ModelSpec.model_validate(content | {"source": content["source"] | source})


@pytest.mark.parametrize(
    "path",
    [
        "{partition}/*.parquet",
        "a/{partition}/b/*.jsonl",
        "{partition}/*.csv.gz",
        "{partition}.CSV",
        "a.b/{partition}.json.zst",
    ],
)
def test_source_may_be_a_file_or_a_folder_in_any_case_and_compressed(flights: ModelSpec, path):
    content = flights.model_dump()
    content["source"]["batch"] = path
    assert ModelSpec.model_validate(content).source.batch == path


def test_features_are_columns_of_the_batch_where_no_service_is_named(flights: ModelSpec):
    content = flights.model_dump(mode="json")
    content["features"] = {"numeric": ["distance"]}
    content["drift"]["expected"], content["gate"]["slices"] = [], []
    content["policies"]["required_slices"] = []
    spec = ModelSpec.model_validate(content)
    assert spec.features.is_inline
    content["features"]["numeric"] = ["distence"]
    with pytest.raises(ValueError, match=r"no features\.service that gives it; did you mean 'dist"):
        ModelSpec.model_validate(content)


@pytest.mark.parametrize("alone", ["service", "tables"])
def test_a_service_and_its_tables_go_together(flights: ModelSpec, alone: str):
    content = flights.model_dump(mode="json")
    del content["features"][alone]
    with pytest.raises(ValueError, match="service and tables go together"):
        ModelSpec.model_validate(content)
