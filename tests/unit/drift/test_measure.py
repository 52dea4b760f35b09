"""Every column gets a stated verdict: what drifted, what did not, and what cannot be said."""

import datetime as dt
import pathlib
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from include.retraining.drift.calibration import student_quantile
from include.retraining.drift.measure import measure_columns, overall_state
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.drift.statistics import ks_distance
from include.retraining.records import FeatureDrift
from include.retraining.spec import Drift

_SETTINGS = Drift()
_WINDOWS = 8
_ROWS = 1000


def _check(
    reference: pa.Array,
    current: pa.Array | None,
    *,
    categorical: bool = False,
    settings: Drift = _SETTINGS,
) -> FeatureDrift:
    """Profile one column in eight windows and check it against a current window."""
    table = pa.table({"f": reference})
    step = len(table) // _WINDOWS
    windows = [table.slice(i * step, step) for i in range(_WINDOWS)]
    names = {"categorical" if categorical else "numeric": ["f"]}
    profile = ReferenceProfile.build(windows, **names)
    now = pa.table({"other": pa.nulls(_ROWS)}) if current is None else pa.table({"f": current})
    (drift,) = measure_columns(profile, now, settings=settings)
    assert drift.reason
    return drift


def _normal(rows: int, shift: float = 0.0, seed: int = 0) -> pa.Array:
    return pa.array(np.random.default_rng(seed).normal(shift, 1, rows))


def test_no_drift_is_said_with_distance_threshold_and_reason() -> None:
    drift = _check(_normal(8000), _normal(1000, seed=1))
    assert (drift.drifted, drift.state) == (False, "calibrated")
    assert "is within its threshold" in drift.reason
    expected = ks_distance(_normal(8000).to_numpy(), _normal(1000, seed=1).to_numpy())
    assert drift.distance == pytest.approx(expected, abs=1e-12)
    assert drift.p_value is not None
    assert drift.p_value > 0.01


def test_drift_is_said_as_a_multiple_of_the_threshold() -> None:
    drift = _check(_normal(8000), _normal(1000, 0.8, seed=1))
    assert drift.drifted
    assert drift.threshold is not None
    assert drift.distance is not None
    assert f"{drift.distance / drift.threshold:.1f}x its threshold" in drift.reason


def test_a_move_of_the_values_is_found_before_their_distance_is_out_of_the_ordinary() -> None:
    even = stats.norm.ppf((np.arange(300) + 0.5) / 300)
    # no window repeats a value of another
    mixed = [np.random.default_rng(seed).permutation(even) + seed * 1e-9 for seed in range(27)]
    reference = pa.array(np.concatenate(mixed)[:8000])
    drift = _check(reference, pa.array(even + 0.25))
    assert drift.distance is not None
    assert drift.threshold is not None
    assert drift.distance < drift.threshold
    assert drift.shift == pytest.approx(0.25 / np.pi**0.5, abs=0.02)
    assert drift.drifted
    assert drift.furthest.name == "shift"
    assert "values are larger now: shift 0.1" in drift.reason
    down = _check(reference, pa.array(even - 0.25))
    assert down.shift is not None
    assert down.shift < 0
    assert "values are smaller now" in down.reason


def test_rows_that_are_alike_count_for_less_and_the_reason_says_so() -> None:
    """Each row ten times: ten times fewer rows, and chance reaches further."""
    alike = pa.array(np.repeat(_normal(800).to_numpy(), 10))
    drift = _check(alike, pa.array(np.repeat(_normal(100, 0.3, seed=1).to_numpy(), 10)))
    assert drift.p_value is not None
    assert drift.p_value < 1e-6
    assert not drift.drifted
    assert "of which count as one: neighbours are alike" in drift.reason
    assert drift.shift_errors is not None
    independent = _check(_normal(8000), _normal(1000)).shift_errors
    assert independent is not None
    assert drift.shift_errors[0] == pytest.approx(10**0.5 * independent[0], rel=0.3)


def test_what_the_floor_leaves_over_makes_a_trend_certain_sooner() -> None:
    few, many = _check(_normal(2000), _normal(250)), _check(_normal(80_000), _normal(10_000))
    assert few.trend_limit is not None
    assert many.trend_limit is not None
    # Of alpha, 0.3 is a trend's own; of 0.6 more the floor leaves nothing, and nearly everything.
    assert few.trend_limit == pytest.approx(student_quantile(_WINDOWS, 0.01 * 0.3), rel=0.01)
    assert many.trend_limit == pytest.approx(student_quantile(_WINDOWS, 0.01 * 0.9), rel=0.02)
    assert _check(_normal(700), _normal(300)).trend_limit is None  # windows too short to tell


def test_a_reason_names_how_far_ordinary_windows_lie_apart() -> None:
    rng = np.random.default_rng(0)
    reference = pa.array(np.concatenate([rng.normal(b, 1, 1000) for b in rng.normal(0, 0.3, 8)]))
    drift = _check(reference, _normal(1000, 4, seed=1))
    assert drift.drifted
    assert "windows of the reference differ by up to" in drift.reason


def test_ordinary_differences_between_windows_are_not_drift() -> None:
    rng = np.random.default_rng(0)
    reference = pa.array(np.concatenate([rng.normal(b, 1, 1000) for b in rng.normal(0, 0.3, 8)]))
    drift = _check(reference, _normal(1000, 0.4, seed=1))
    assert drift.p_value is not None
    assert drift.p_value < 1e-6  # chance is excluded, and still it is ordinary here
    assert not drift.drifted


@pytest.mark.parametrize("rows", [1, 99])
def test_too_few_rows_are_insufficient_and_not_no_drift(rows: int) -> None:
    drift = _check(_normal(8000), _normal(rows, 5))
    assert (drift.state, drift.drifted) == ("insufficient", False)
    assert "no verdict, because a side has fewer than 100 values" in drift.reason


def test_no_rows_at_all_are_insufficient() -> None:
    for categorical in (False, True):
        drift = _check(_normal(8000), pa.array([], pa.float64()), categorical=categorical)
        assert (drift.state, drift.distance) == ("insufficient", None)
        assert "no rows now" in drift.reason


def test_fewer_windows_than_needed_are_uncalibrated_and_say_so() -> None:
    drift = _check(_normal(8000), _normal(1000, 1.0), settings=Drift(min_history_windows=9))
    assert (drift.state, drift.drifted) == ("uncalibrated", True)
    assert "uncalibrated: 8 windows of history, 9 are needed" in drift.reason


def test_a_constant_column_stays_constant() -> None:
    drift = _check(pa.array([5.0] * 8000), pa.array([5.0] * 1000))
    assert (drift.drifted, drift.distance) == (False, 0.0)
    assert "constant 5 in the reference and now" in drift.reason


def test_a_constant_column_that_changes_its_value_has_drifted() -> None:
    drift = _check(pa.array([5.0] * 8000), pa.array([6.0] * 1000))
    assert (drift.drifted, drift.distance) == (True, 1.0)


def test_a_changed_share_of_missing_values_is_drift_of_its_own() -> None:
    mask = np.arange(1000) % 4 == 0
    current = pa.array(np.random.default_rng(1).normal(size=1000), mask=mask)
    drift = _check(_normal(8000), current)
    assert drift.drifted
    assert drift.distance is not None
    assert drift.threshold is not None
    assert drift.distance < drift.threshold  # the values themselves are the same
    assert drift.missing_change == pytest.approx(0.25)
    assert "missing values went from 0.0% to 25.0%" in drift.reason


def test_nan_and_null_are_both_missing() -> None:
    values = np.random.default_rng(1).normal(size=1000)
    values[:250] = np.nan
    assert _check(_normal(8000), pa.array(values)).missing_change == pytest.approx(0.25)


def test_all_missing_now_is_drift() -> None:
    drift = _check(_normal(8000), pa.nulls(1000, pa.float64()))
    assert (drift.drifted, drift.distance, drift.state) == (True, None, "calibrated")
    assert "all values are missing now" in drift.reason


def test_all_missing_on_both_sides_is_no_verdict() -> None:
    for categorical in (False, True):
        drift = _check(pa.nulls(8000), pa.nulls(1000), categorical=categorical)
        assert (drift.drifted, drift.state) == (False, "insufficient")
        assert "no verdict" in drift.reason


def test_values_where_the_reference_had_none_are_drift() -> None:
    drift = _check(pa.nulls(8000, pa.float64()), _normal(1000))
    assert drift.drifted
    assert "all values are missing in the reference" in drift.reason


@pytest.mark.parametrize("categorical", [False, True])
def test_a_column_absent_now_is_drift(categorical: bool) -> None:
    reference = pa.array(["a", "b"] * 4000) if categorical else _normal(8000)
    drift = _check(reference, None, categorical=categorical)
    assert drift.drifted
    assert "the column is absent" in drift.reason


@pytest.mark.parametrize("categorical", [False, True])
def test_a_column_absent_from_the_reference_is_drift(categorical: bool) -> None:
    windows = [pa.table({"other": [1] * 200})] * 8
    names = {"categorical" if categorical else "numeric": ["f"]}
    profile = ReferenceProfile.build(windows, **names)
    current = pa.array(["a"] * 200) if categorical else _normal(200)
    (drift,) = measure_columns(profile, pa.table({"f": current}), settings=_SETTINGS)
    assert drift.drifted
    assert "missing in the reference" in drift.reason


def test_text_where_numbers_were_is_drift() -> None:
    drift = _check(_normal(8000), pa.array(["n/a"] * 1000))
    assert drift.drifted
    assert "values are string, not numbers" in drift.reason


def test_numbers_written_as_text_are_compared_and_said() -> None:
    texts = pa.array([str(value) for value in _normal(1000, seed=1).to_pylist()])
    drift = _check(_normal(8000), texts)
    assert not drift.drifted
    assert "values arrive as string" in drift.reason


def test_lists_where_numbers_or_levels_were_are_drift() -> None:
    lists = pa.array([[1]] * 1000)
    assert _check(_normal(8000), lists).drifted
    assert _check(pa.array(["a", "b"] * 4000), lists, categorical=True).drifted


def test_an_outlier_hides_nothing() -> None:
    outliers = np.append(_normal(7999).to_numpy(), 1e9)
    drift = _check(pa.array(outliers), _normal(1000, 0.8, seed=1))
    assert drift.drifted


def test_infinities_are_values() -> None:
    current = _normal(1000, seed=1).to_numpy().copy()
    current[:300] = np.inf
    drift = _check(_normal(8000), pa.array(current))
    assert drift.drifted
    assert drift.missing_change == 0


def test_whole_numbers_beyond_float64_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    reference = pa.array(rng.integers(2**60, 2**60 + 4, 8000))
    assert not _check(reference, pa.array(rng.integers(2**60, 2**60 + 4, 1000))).drifted
    moved = pa.array(rng.integers(2**60 + 2, 2**60 + 6, 1000))
    drift = _check(reference, moved)
    assert drift.drifted
    assert drift.distance == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda x: pa.array(x > 0), id="boolean"),
        pytest.param(lambda x: pa.array((x * 20).astype(np.int8)), id="int8"),
        pytest.param(lambda x: pa.array((x * 100 + 900).astype(np.uint64)), id="uint64"),
        pytest.param(lambda x: pa.array(x.astype(np.float32)), id="float32"),
        pytest.param(lambda x: pa.array(x.astype(np.float16)), id="float16"),
        pytest.param(lambda x: pa.array([Decimal(f"{v:.4f}") for v in x]), id="decimal"),
        pytest.param(
            lambda x: pa.array((x * 1e15).astype(np.int64)).cast(pa.timestamp("ns", "UTC")), id="ns"
        ),
        pytest.param(lambda x: pa.array((x * 1e4).astype(np.int32)).cast(pa.date32()), id="date"),
        pytest.param(lambda x: pa.array(x).dictionary_encode(), id="dictionary"),
        pytest.param(
            lambda x: pa.array([dt.timedelta(seconds=float(v)) for v in x]), id="duration"
        ),
    ],
)
def test_every_numeric_type_is_measured(make) -> None:  # type: ignore[no-untyped-def]
    reference, same, moved = (
        make(_normal(rows, shift, seed).to_numpy())
        for rows, shift, seed in ((8000, 0, 0), (1000, 0, 1), (1000, 1, 2))
    )
    assert not _check(reference, same).drifted
    assert _check(reference, moved).drifted


def test_levels_that_shift_are_drift_and_levels_that_do_not_are_not() -> None:
    rng = np.random.default_rng(0)
    reference = pa.array(rng.choice(["a", "b", "c"], 8000, p=[0.6, 0.3, 0.1]))
    same = pa.array(rng.choice(["a", "b", "c"], 1000, p=[0.6, 0.3, 0.1]))
    moved = pa.array(rng.choice(["a", "b", "c"], 1000, p=[0.3, 0.6, 0.1]))
    assert not _check(reference, same, categorical=True).drifted
    drift = _check(reference, moved, categorical=True)
    assert drift.drifted
    assert drift.distance == pytest.approx(0.3, abs=0.05)


def test_a_new_level_is_named_and_drift() -> None:
    reference = pa.array(["a", "b"] * 4000)
    current = pa.array(["a", "b", "b", "z"] * 250)
    drift = _check(reference, current, categorical=True)
    assert drift.drifted
    assert "25.0% of rows have a level the reference has never seen" in drift.reason


def test_missing_levels_are_a_level() -> None:
    reference = pa.array(["a", "b"] * 4000)
    current = pa.array(["a", "b", None, None] * 250)
    drift = _check(reference, current, categorical=True)
    assert drift.drifted
    assert drift.distance == pytest.approx(0.5)


def test_integers_as_floats_or_text_are_the_same_levels() -> None:
    reference = pa.array([1, 2] * 4000)
    for current in (pa.array([1.0, 2.0] * 500), pa.array(["1", "2"] * 500)):
        assert _check(reference, current, categorical=True).distance == 0


def test_booleans_are_levels() -> None:
    reference = pa.array([True, False] * 4000)
    assert _check(reference, pa.array(["true", "false"] * 500), categorical=True).distance == 0


def test_a_hundred_thousand_levels_are_measured() -> None:
    rng = np.random.default_rng(0)

    def draw(rows: int, first: int) -> pa.Array:
        return pa.array([f"level {i}" for i in first + rng.zipf(1.5, rows) % 100_000])

    reference = draw(80_000, 0)
    assert not _check(reference, draw(10_000, 0), categorical=True).drifted
    assert _check(reference, draw(10_000, 3), categorical=True).drifted


def test_an_identifier_is_no_verdict_and_said() -> None:
    reference = pa.array([f"id {i}" for i in range(8000)])
    current = pa.array([f"id {i}" for i in range(8000, 9000)])
    drift = _check(reference, current, categorical=True)
    assert (drift.drifted, drift.state) == (False, "insufficient")
    assert "looks like an identifier" in drift.reason


def test_a_vocabulary_replaced_as_a_whole_is_drift_however_rare_its_levels() -> None:
    rng = np.random.default_rng(0)
    reference = pa.array([f"old {i}" for i in rng.integers(0, 500, 8000)])
    current = pa.array([f"new {i}" for i in rng.integers(0, 500, 1000)])
    assert _check(reference, current, categorical=True).drifted


def test_declared_drift_is_measured_and_marked() -> None:
    drift = _check(_normal(8000), _normal(1000, 2), settings=Drift(expected=("f",)))
    assert (drift.drifted, drift.expected) == (True, True)
    assert "declared to drift by construction" in drift.reason


def test_importances_are_passed_on() -> None:
    profile = ReferenceProfile.build([pa.table({"f": _normal(500)})], numeric=["f"])
    (drift,) = measure_columns(
        profile, pa.table({"f": _normal(500)}), settings=_SETTINGS, importances={"f": 0.7, "g": 0.1}
    )
    assert drift.importance == 0.7


def test_parquet_and_table_give_the_same_result(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    rows = 150_000  # more than one piece
    table = pa.table(
        {
            "x": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.01),
            "n": rng.integers(0, 9, rows),
            "c": pa.array(rng.choice(["a", "b"], rows), mask=rng.random(rows) < 0.01),
        }
    )
    path = tmp_path / "now.parquet"
    pq.write_table(table, path, row_group_size=40_000)
    profile = ReferenceProfile.build(
        [table.slice(i * 10_000, 10_000) for i in range(8)], numeric=["x", "n"], categorical=["c"]
    )
    in_memory = measure_columns(profile, table, settings=_SETTINGS)
    assert measure_columns(profile, path, settings=_SETTINGS) == in_memory
    assert measure_columns(profile, path.read_bytes(), settings=_SETTINGS) == in_memory
    with path.open("rb") as file:
        assert measure_columns(profile, file, settings=_SETTINGS) == in_memory


def test_a_level_column_absent_from_a_parquet_file_is_drift(tmp_path: pathlib.Path) -> None:
    # Parquet readers refuse to read a column as dictionary that is not there.
    path = tmp_path / "now.parquet"
    pq.write_table(pa.table({"other": [1] * 500}), path)
    profile = ReferenceProfile.build([pa.table({"f": ["a", "b"] * 250})] * 4, categorical=["f"])
    (drift,) = measure_columns(profile, path, settings=_SETTINGS)
    assert drift.drifted


def test_results_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(3)
    current = rng.normal(0.1, 1, 1000)
    one = _check(_normal(8000), pa.array(current))
    assert one == _check(_normal(8000), pa.array(rng.permutation(current)))


@pytest.mark.parametrize(
    ("states", "overall"),
    [
        ([], "insufficient"),
        (["insufficient", "insufficient"], "insufficient"),
        (["insufficient", "uncalibrated"], "uncalibrated"),
        (["insufficient", "uncalibrated", "calibrated"], "calibrated"),
    ],
)
def test_overall_state_is_the_best_of_what_could_be_judged(states: list[str], overall: str) -> None:
    features = [_feature(state) for state in states]
    assert overall_state(features) == overall


def _feature(state: str) -> FeatureDrift:
    return FeatureDrift.model_validate(
        {
            "name": "f", "kind": "numeric", "distance": 0.1, "p_value": 0.5, "threshold": 0.2,
            "state": state, "drifted": False, "reason": "-",
        }
    )  # fmt: skip


def test_what_others_report_comes_with_drift():
    random = np.random.default_rng(3)
    before, shop = random.normal(size=5000), random.choice(["a", "b"], 5000)
    windows = [pa.table({"x": before[i::5], "shop": shop[i::5]}) for i in range(5)]
    profile = ReferenceProfile.build(windows, numeric=["x"], categorical=["shop"])
    calm = measure_columns(profile, windows[0], settings=Drift())
    moved = pa.table({"x": np.r_[windows[0]["x"].to_numpy() + 2.0, np.inf], "shop": ["a"] * 1001})
    x, shops = measure_columns(profile, moved, settings=Drift())
    assert (calm[0].psi, calm[0].wasserstein) == (None, None)
    assert calm[1].psi == pytest.approx(0, abs=0.01)
    expected = stats.wasserstein_distance(before, windows[0]["x"].to_numpy() + 2.0)
    assert x.wasserstein == pytest.approx(expected)
    assert x.psi > 1
    assert shops.psi > 0.2


@pytest.mark.parametrize("scale", [0, 2])
def test_a_decimal_is_the_level_that_the_whole_number_was(scale):
    values = np.random.default_rng(3).integers(0, 60, 4000) * 10  # 10 is no 1E+1
    whole = pa.table({"a": pa.array(values)})
    exact = pa.table({"a": pa.array(values).cast(pa.decimal128(24, scale))})
    profile = ReferenceProfile.build([whole, whole], categorical=["a"])
    found = measure_columns(profile, exact, settings=Drift())[0]
    assert (found.distance, found.drifted) == (0.0, False)
