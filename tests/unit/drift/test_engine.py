"""Every way to count a window gives the verdict that sorting it gives."""

import datetime as dt
import pathlib
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.retraining.drift import cells, columns
from include.retraining.drift.cells import Edges, Grid
from include.retraining.drift.engine import CountingWindow, DuckDBWindow
from include.retraining.drift.measure import measure_columns
from include.retraining.drift.profile import NumericProfile, ReferenceProfile
from include.retraining.drift.statistics import ks_distance
from include.retraining.records import FeatureDrift
from include.retraining.spec import Drift

_SETTINGS = Drift()
_NUMERIC = [
    "same", "moved", "ties", "inf", "big", "flag", "when", "text", "words", "gone", "none",
    "small", "forever", "padded", "big_then_half", "half_then_big", "price",
]  # fmt: skip
_CATEGORICAL = ["level", "code", "float_code", "gone_level"]


def _table(rows: int, seed: int, shift: float = 0.0) -> pa.Table:
    rng = np.random.default_rng(seed)
    missing = rng.random(rows) < 0.05
    infinite = np.where(rng.random(rows) < 0.1, np.inf, rng.normal(size=rows))
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    return pa.table(
        {
            "same": pa.array(rng.normal(size=rows), mask=missing),
            "moved": rng.normal(shift, 1, rows),
            "ties": rng.integers(0, 4, rows).astype(float),
            "inf": np.where(missing, np.nan, infinite),
            "big": rng.integers(2**60, 2**60 + 9, rows) + int(8 * shift),
            "flag": rng.random(rows) < 0.3 + shift / 4,
            "when": pa.array(
                [start + dt.timedelta(seconds=int(s)) for s in rng.integers(0, 9999, rows)],
                pa.timestamp("us", "UTC"),
            ),
            "text": [f"{value:.3f}" for value in rng.normal(size=rows)],
            "words": rng.normal(size=rows) if not shift else ["n/a"] * rows,
            "none": pa.nulls(rows, pa.float64()),
            "small": pa.array(rng.integers(0, 99, rows), pa.uint32()),
            "forever": np.where(
                rng.random(rows) < 0.3,
                np.datetime64("9999-12-31", "us"),
                np.datetime64("2024-01-01", "us") + rng.integers(0, 10**9, rows),
            ),
            "padded": [f" {value:.3f}" for value in rng.normal(size=rows)],
            "big_then_half": _mixed(rng, rows, whole=not shift),
            "half_then_big": _mixed(rng, rows, whole=bool(shift)),
            "price": pa.array(
                map(Decimal, rng.integers(0, 999, rows).tolist()), pa.decimal128(20, 2)
            ),
            "level": pa.array(rng.choice(["a", "b", "c"], rows, p=[0.5, 0.3, 0.2]), mask=missing),
            "code": rng.integers(0, 4, rows),
            "float_code": rng.integers(0, 4, rows).astype(float),
        }
        | ({} if shift else {"gone": rng.normal(size=rows), "gone_level": ["a"] * rows})
    )


def _mixed(rng: np.random.Generator, rows: int, *, whole: bool) -> np.ndarray:
    """Whole numbers of which some lie beyond 2**53; or fractions, some of them infinite."""
    values = rng.integers(1, 6, rows)
    if whole:
        return np.where(rng.random(rows) < 0.02, 2**62 + 1, values)
    halves = values + 0.5 * (values == 3)
    return np.where(rng.random(rows) < 0.04, rng.choice([-np.inf, np.inf], rows), halves)


@pytest.fixture(scope="module", params=[Edges, Grid])
def profile(request: pytest.FixtureRequest) -> ReferenceProfile:
    """Give a profile whose columns are cut at quantiles, and one with a grid where it can be."""
    windows = [_table(2000, seed) for seed in range(6)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_GRID_ROWS", 1000 if request.param is Grid else 10**9)
        built = ReferenceProfile.build(windows, numeric=_NUMERIC, categorical=_CATEGORICAL)
    same = next(iter(built))
    assert isinstance(same, NumericProfile)
    assert isinstance(same.counts.cells, request.param)
    return ReferenceProfile.from_bytes(built.to_bytes())


def _assert_same_verdict(
    counted: tuple[FeatureDrift, ...], exact: tuple[FeatureDrift, ...]
) -> None:
    for one, other in zip(counted, exact, strict=True):
        assert (one.name, one.drifted, one.state) == (other.name, other.drifted, other.state)
        assert one.threshold == other.threshold
        assert one.missing_change == other.missing_change
        assert (one.shift, one.shift_threshold) == (other.shift, other.shift_threshold)
        assert (one.shift_errors, one.trend_limit) == (other.shift_errors, other.trend_limit)
        if other.distance is None:
            assert one.distance is None
            continue
        assert one.distance is not None
        high = one.distance_high or one.distance
        assert one.excess == pytest.approx(other.excess, abs=0.2)
        assert one.distance - 1e-12 <= other.distance <= high + 1e-12
        assert high - one.distance < 0.01


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_duckdb_gives_the_verdict_of_the_sorted_window(
    profile: ReferenceProfile, shift: float, tmp_path: pathlib.Path
) -> None:
    current = _table(2000, 99, shift)
    exact = measure_columns(profile, current, settings=_SETTINGS)
    path = tmp_path / "now.parquet"
    pq.write_table(current, path)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("batch", current)
        for relation in ("batch", f"read_parquet('{path}')"):
            window = DuckDBWindow(connection, relation)
            assert isinstance(window, CountingWindow)
            _assert_same_verdict(measure_columns(profile, window, settings=_SETTINGS), exact)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_window_too_large_to_sort_gets_the_same_verdict(
    profile: ReferenceProfile,
    shift: float,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = _table(2000, 99, shift)
    exact = measure_columns(profile, current, settings=_SETTINGS)
    path = tmp_path / "now.parquet"
    pq.write_table(current, path, row_group_size=300)
    monkeypatch.setattr(columns, "_WHOLE_ROWS", 100)
    monkeypatch.setattr(columns, "_PIECE_ROWS", 100)
    monkeypatch.setattr(columns, "_PART_ROWS", 500)
    for source in (path, current):
        _assert_same_verdict(measure_columns(profile, source, settings=_SETTINGS), exact)


@pytest.mark.parametrize("grid_rows", [1000, 10**9])
def test_a_threshold_inside_the_interval_is_settled_by_the_values(
    grid_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "_GRID_ROWS", grid_rows)
    rng = np.random.default_rng(0)
    windows = [pa.table({"x": rng.normal(size=3000)}) for _ in range(6)]
    profile = ReferenceProfile.build(windows, numeric=["x"])
    current = pa.table({"x": rng.normal(0.2, 1, 3000)})
    (exact,) = measure_columns(profile, current, settings=_SETTINGS)
    assert exact.distance is not None
    column = next(iter(profile))
    assert isinstance(column, NumericProfile)
    for source in ("parts", "duckdb"):
        for nudge in (-1e-9, 1e-9):  # the threshold just below, and just above the exact distance
            settings = Drift(min_distance=exact.distance + nudge, alpha=0.9)
            with duckdb.connect() as connection, monkeypatch.context() as patch:
                patch.setattr(columns, "_WHOLE_ROWS", 0)
                connection.register("batch", current)
                window = DuckDBWindow(connection, "batch") if source == "duckdb" else current
                (found,) = measure_columns(profile, window, settings=settings)
            assert found.distance_high is None
            assert found.distance == pytest.approx(exact.distance, abs=1e-12)
            assert found.drifted == (nudge < 0)


def test_a_column_name_is_quoted() -> None:
    table = pa.table({'odd "name"': np.arange(500.0)})
    profile = ReferenceProfile.build([table] * 4, numeric=['odd "name"'])
    with duckdb.connect() as connection:
        connection.register("batch", table)
        (found,) = measure_columns(profile, DuckDBWindow(connection, "batch"), settings=_SETTINGS)
    assert (found.distance, found.drifted) == (0.0, False)


@pytest.mark.parametrize("kind", ["UBIGINT", "HUGEINT", "UHUGEINT"])
def test_whole_numbers_beyond_64_bits_overflow_nothing(kind: str) -> None:
    ids = pa.array(range(2**62, 2**62 + 500), pa.uint64())
    profile = ReferenceProfile.build([pa.table({"id": ids})] * 4, numeric=["id"])
    beyond = np.full(500, 2**63 + 9, np.uint64)
    (exact,) = measure_columns(profile, pa.table({"id": beyond}), settings=_SETTINGS)
    with duckdb.connect() as connection:
        connection.register("batch", pa.table({"id": beyond}))
        window = DuckDBWindow(connection, f"(SELECT id::{kind} AS id FROM batch)")
        (found,) = measure_columns(profile, window, settings=_SETTINGS)
    assert (found.distance, found.shift, found.drifted) == (1.0, 1.0, True)
    assert (exact.distance, exact.shift, exact.drifted) == (1.0, 1.0, True)


@pytest.mark.parametrize("name", ["big_then_half", "half_then_big", "forever", "when", "big"])
def test_the_distance_is_exact_whatever_the_types(name: str, profile: ReferenceProfile) -> None:
    now = _table(2000, 99, 1.0)
    drift = next(f for f in measure_columns(profile, now, settings=_SETTINGS) if f.name == name)
    before = np.concatenate([_table(2000, seed)[name].to_numpy() for seed in range(6)])
    assert drift.distance == pytest.approx(ks_distance(before, now[name].to_numpy()), abs=1e-12)
