"""A profile keeps what a check needs, survives storage, and is refused when it is not whole."""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.retraining.drift import cells as cells_module
from include.retraining.drift import profile as profile_module
from include.retraining.drift.measure import measure_columns
from include.retraining.drift.profile import CategoricalProfile, NumericProfile, ReferenceProfile
from include.retraining.drift.statistics import ks_distance, total_variation_distance
from include.retraining.errors import DataError
from include.retraining.records import FeatureDrift
from include.retraining.spec import Drift


def _window(seed: int, rows: int = 400) -> pa.Table:
    rng = np.random.default_rng(seed)
    missing = rng.random(rows) < 0.05
    return pa.table(
        {
            "x": pa.array(rng.normal(seed * 0.1, 1, rows), mask=missing),
            "big": rng.integers(2**60, 2**60 + 50, rows),
            "c": pa.array(rng.choice(["a", "b", "c"], rows), mask=missing),
        }
    )


@pytest.fixture
def windows() -> list[pa.Table]:
    return [_window(seed) for seed in range(5)]


@pytest.fixture
def profile(windows: list[pa.Table]) -> ReferenceProfile:
    return ReferenceProfile.build(windows, numeric=["x", "big"], categorical=["c"])


def _numeric(profile: ReferenceProfile, name: str) -> NumericProfile:
    column = next(column for column in profile if column.name == name)
    assert isinstance(column, NumericProfile)
    return column


def test_reference_is_the_union_of_the_windows(
    profile: ReferenceProfile, windows: list[pa.Table]
) -> None:
    union = pa.concat_tables(windows)
    x = _numeric(profile, "x")
    assert x.rows == 2000
    assert x.values.tolist() == sorted(union["x"].drop_null().to_pylist())
    assert x.counts.size == len(x.values)


def test_whole_numbers_beyond_float64_stay_whole(
    profile: ReferenceProfile, windows: list[pa.Table]
) -> None:
    big = _numeric(profile, "big")
    assert big.values.dtype == np.int64
    assert set(big.values.tolist()) == set(pa.concat_tables(windows)["big"].to_pylist())


def test_history_is_each_window_against_all_others(
    profile: ReferenceProfile, windows: list[pa.Table]
) -> None:
    history = _numeric(profile, "x").history
    for position, window in enumerate(windows):
        others = pa.concat_tables(windows[:position] + windows[position + 1 :])
        expected = ks_distance(others["x"].to_numpy(), window["x"].to_numpy())
        assert history.distances[position] == pytest.approx(expected, abs=1e-12)
        assert history.rows[position] == len(window) - window["x"].null_count


def test_history_of_levels_is_each_window_against_all_others(
    profile: ReferenceProfile, windows: list[pa.Table]
) -> None:
    column = next(column for column in profile if column.name == "c")
    assert isinstance(column, CategoricalProfile)
    others = pa.concat_tables(windows[1:])["c"].to_pylist()
    first = windows[0]["c"].to_pylist()
    levels = ["a", "b", "c", None]
    expected = total_variation_distance(
        [others.count(level) for level in levels], [first.count(level) for level in levels]
    )
    assert column.history.distances[0] == pytest.approx(expected, abs=1e-12)


def test_history_of_missing_shares_is_kept(
    profile: ReferenceProfile, windows: list[pa.Table]
) -> None:
    others = pa.concat_tables(windows[1:])["x"]
    expected = abs(windows[0]["x"].null_count / 400 - others.null_count / 1600)
    assert _numeric(profile, "x").missing_history.distances[0] == pytest.approx(expected)


def test_bytes_file_and_memory_give_the_same_verdict(
    profile: ReferenceProfile, tmp_path: pathlib.Path
) -> None:
    content = profile.to_bytes()
    path = tmp_path / "profile.arrow"
    path.write_bytes(content)
    results = [
        measure_columns(source, _window(9), settings=Drift())
        for source in (
            profile, ReferenceProfile.from_bytes(content), ReferenceProfile.open(path),
        )
    ]  # fmt: skip
    assert results[0] == results[1] == results[2]
    assert ReferenceProfile.from_bytes(content).to_bytes() == content
    assert ReferenceProfile.open(path).names == ("x", "big", "c")


def test_windows_may_be_tables_paths_files_or_buffers(
    windows: list[pa.Table], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "window.parquet"
    pq.write_table(windows[1], path)
    sources = [windows[1], path, str(path), path.read_bytes(), pa.py_buffer(path.read_bytes())]
    built = [
        ReferenceProfile.build([windows[0], source], numeric=["x"], categorical=["c"]).to_bytes()
        for source in sources
    ]
    assert len(set(built)) == 1


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, 0.99, -1])
def test_a_profile_that_was_cut_short_is_refused(profile: ReferenceProfile, kept: float) -> None:
    content = profile.to_bytes()
    end = int(len(content) * kept) if isinstance(kept, float) else kept
    with pytest.raises(DataError, match="cut short, or not a profile"):
        ReferenceProfile.from_bytes(content[:end])


def test_a_profile_of_another_version_is_refused(profile: ReferenceProfile) -> None:
    reader = pa.ipc.open_file(pa.BufferReader(profile.to_bytes()))
    for metadata, got in (({"drift_profile_version": "99"}, "99"), (None, "none")):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, reader.schema.with_metadata(metadata)):
            pass
        with pytest.raises(DataError, match=f"format version 6, got {got}"):
            ReferenceProfile.from_bytes(sink.getvalue().to_pybytes())


def test_a_profile_of_before_there_were_outlines_still_judges(profile: ReferenceProfile) -> None:
    reader = pa.ipc.open_file(pa.BufferReader(profile.to_bytes()))
    about = dict(reader.schema.metadata)
    header = json.loads(about[b"drift_profile_header"])
    del header["priors"]
    about |= {
        b"drift_profile_version": b"5",
        b"drift_profile_header": json.dumps(header).encode(),
    }
    sink, older = pa.BufferOutputStream(), ("ruler", "outlines")
    kept = [name for name in reader.schema.names if name not in older]
    schema = pa.schema([reader.schema.field(name) for name in kept], metadata=about)
    with pa.ipc.new_file(sink, schema) as writer:
        for position in range(reader.num_record_batches):
            batch = reader.get_batch(position).select(kept)
            writer.write_batch(batch.replace_schema_metadata(about))
    found = ReferenceProfile.from_bytes(sink.getvalue().to_pybytes())
    assert found.names == profile.names
    assert all(one.outlines is None for one in found if one.kind == "numeric")


def test_a_reference_without_windows_is_refused() -> None:
    with pytest.raises(DataError, match="needs at least one"):
        ReferenceProfile.build([], numeric=["x"])


def test_a_window_that_is_no_parquet_file_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "window.parquet"
    path.write_text("not Parquet")
    with pytest.raises(DataError, match="readable Parquet"):
        ReferenceProfile.build([path], numeric=["x"])
    with pytest.raises(DataError, match="readable Parquet"):
        ReferenceProfile.build([tmp_path / "absent.parquet"], numeric=["x"])


def test_a_single_window_has_no_history_to_compare() -> None:
    profile = ReferenceProfile.build([_window(0)], numeric=["x"], categorical=["c"])
    for column in profile:
        assert len(column.history.measured(1).rows) == 0
    assert {f.state for f in measure_columns(profile, _window(1), settings=Drift())} == {
        "uncalibrated"
    }


# --- bounded size ---------------------------------------------------------------------------------

_numbers = st.lists(
    st.one_of(
        st.integers(-4, 4).map(float), st.floats(-9, 9), st.sampled_from([np.inf, -np.inf, np.nan])
    ),
    min_size=1,
    max_size=120,
)


def _measured(windows: list[pa.Table], now: pa.Table, **kept: int) -> tuple[FeatureDrift, ...]:
    """Profile with other bounds, send it through storage, measure."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in kept.items():
            owner = cells_module if name == "_GRID_ROWS" else profile_module
            patch.setattr(owner, name, value)
        numeric = [name for name in windows[0].column_names if name != "c"]
        built = ReferenceProfile.build(windows, numeric=numeric).to_bytes()
    return measure_columns(ReferenceProfile.from_bytes(built), now, settings=Drift())


@given(_numbers, _numbers, st.integers(2, 20), st.sampled_from([1, 10**9]))
@settings(max_examples=200, deadline=None)
def test_the_interval_without_values_holds_the_exact_distance(
    before: list[float], now: list[float], quantiles: int, grid_rows: int
) -> None:
    windows, current = [pa.table({"x": before})], pa.table({"x": now})
    (exact,) = _measured(windows, current, _GRID_ROWS=grid_rows)
    (found,) = _measured(windows, current, VALUE_BYTES=0, QUANTILES=quantiles, _GRID_ROWS=grid_rows)
    assert exact.distance_high is None
    if exact.distance is None:
        assert found.distance is None
        return
    assert found.distance is not None
    high = found.distance if found.distance_high is None else found.distance_high
    assert found.distance - 1e-12 <= exact.distance <= high + 1e-12
    assert (found.missing_change, found.missing_threshold) == (
        exact.missing_change,
        exact.missing_threshold,
    )


def test_few_different_values_are_exact_however_many_rows() -> None:
    rng = np.random.default_rng(0)
    windows = [pa.table({"x": rng.poisson(3, 500).astype(float)}) for _ in range(5)]
    now = pa.table({"x": rng.poisson(4, 500).astype(float) + 0.5 * (rng.random(500) < 0.1)})
    (exact,) = _measured(windows, now)
    (found,) = _measured(windows, now, VALUE_BYTES=0, QUANTILES=30)
    assert found.distance_high is None
    assert (found.distance, found.drifted) == (exact.distance, True)


@pytest.mark.parametrize("rows", [60_000, 300_000], ids=["edges", "grid"])
def test_the_interval_of_a_long_reference_is_narrow_and_the_verdict_the_same(rows: int) -> None:
    rng = np.random.default_rng(1)

    def table(moved: float) -> pa.Table:
        return pa.table(
            {
                "normal": rng.normal(size=rows // 5),
                "moved": rng.normal(moved, 1, rows // 5),
                "heavy": rng.standard_t(1.5, rows // 5),
                "zeros": np.where(rng.random(rows // 5) < 0.6, 0, rng.exponential(size=rows // 5)),
                "whole": rng.integers(2**60, 2**60 + 10**6, rows // 5),
            }
        )

    windows, now = [table(0) for _ in range(5)], table(0.4)
    exact = _measured(windows, now)
    for one, other in zip(_measured(windows, now, VALUE_BYTES=0), exact, strict=True):
        assert other.distance is not None
        assert one.distance is not None
        high = one.distance if one.distance_high is None else one.distance_high
        assert one.distance <= other.distance <= high
        assert high - one.distance <= 0.001
        assert one.drifted == other.drifted == (one.name == "moved")
        assert one.threshold == pytest.approx(other.threshold, rel=1e-3)
        assert one.shift == pytest.approx(other.shift, abs=1e-4)
        if one.drifted:
            assert (one.psi, one.wasserstein) == pytest.approx(
                (other.psi, other.wasserstein), rel=0.02
            )


@pytest.mark.parametrize("columns", [1, 4])
def test_values_are_kept_while_they_fit_into_the_column_s_part(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "VALUE_BYTES", 8 * 600 * columns)
    monkeypatch.setattr(profile_module, "QUANTILES", 50)
    values = {f"x{i}": np.random.default_rng(i).normal(size=601) for i in range(columns)}
    names = list(values)
    for rows, kept in ((600, 600), (601, 50)):
        table = pa.table({name: column[:rows] for name, column in values.items()})
        for column in ReferenceProfile.build([table], numeric=names):
            assert isinstance(column, NumericProfile)
            assert len(column.values) == kept
            assert column.present == rows
            assert column.is_complete == (rows == kept)
            assert column.values[0] == table[column.name].to_numpy().min()
            assert column.values[-1] == table[column.name].to_numpy().max()


def test_history_of_a_long_reference_is_as_exact_as_of_a_short_one(windows: list[pa.Table]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile_module, "VALUE_BYTES", 0)
        patch.setattr(profile_module, "QUANTILES", 50)
        cut = ReferenceProfile.build(windows, numeric=["x"])
    whole = ReferenceProfile.build(windows, numeric=["x"])
    assert not _numeric(cut, "x").is_complete
    assert _numeric(cut, "x").history.distances == pytest.approx(
        _numeric(whole, "x").history.distances
    )


def test_a_constant_column_is_called_constant_without_its_values() -> None:
    table = pa.table({"x": np.full(300, 7.0)})
    (found,) = _measured([table] * 5, table, VALUE_BYTES=0, QUANTILES=50)
    assert (found.distance, found.distance_high) == (0.0, None)
    assert "constant 7 in the reference and now" in found.reason


def test_a_threshold_inside_the_interval_is_not_exceeded_for_certain() -> None:
    rng = np.random.default_rng(2)
    windows = [pa.table({"x": rng.normal(size=3000)}) for _ in range(6)]
    # as wide, not shifted: only D may call it drift
    now = pa.table({"x": rng.uniform(-1.48, 1.48, 3000)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile_module, "VALUE_BYTES", 0)
        patch.setattr(profile_module, "QUANTILES", 50)
        profile = ReferenceProfile.build(windows, numeric=["x"])
    (found,) = measure_columns(profile, now, settings=Drift())
    assert found.distance is not None
    assert found.distance_high is not None
    middle = (found.distance + found.distance_high) / 2
    for floor, drifted in ((found.distance - 1e-9, True), (middle, False)):
        settings = Drift(min_distance=floor, alpha=0.9)
        (judged,) = measure_columns(profile, now, settings=settings)
        assert judged.threshold == floor
        assert judged.drifted == drifted


def test_a_profile_of_many_long_columns_is_small() -> None:
    rng = np.random.default_rng(3)
    rows, columns = 20_000, 300
    table = pa.table({f"x{i}": rng.normal(size=rows) for i in range(columns)})
    content = ReferenceProfile.build([table], numeric=table.column_names).to_bytes()
    assert len(content) < columns * 105_000 < 8 * rows * columns
