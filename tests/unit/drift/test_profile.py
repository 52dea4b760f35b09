"""A profile keeps what a check needs, survives storage, and is refused when it is not whole."""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.retraining.drift.measure import measure_columns
from include.retraining.drift.profile import CategoricalProfile, NumericProfile, ReferenceProfile
from include.retraining.drift.statistics import ks_distance, total_variation_distance
from include.retraining.errors import DataError
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
        measure_columns(source, _window(9), policy=Drift())
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
        with pytest.raises(DataError, match=f"format version 5, got {got}"):
            ReferenceProfile.from_bytes(sink.getvalue().to_pybytes())


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
    assert {f.state for f in measure_columns(profile, _window(1), policy=Drift())} == {
        "uncalibrated"
    }
