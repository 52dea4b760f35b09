"""The ``drift`` command on bare Parquet files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.retraining.__main__ import main

ROWS = 600


def frame(seed: int, shift: float = 0.0, rows: int = ROWS) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "price": random.normal(shift, 1.0, rows),
            "items": random.poisson(3, rows),
            "shop": random.choice(["north", "south", "east"], rows),
        }
    )


@pytest.fixture
def windows(tmp_path: Path) -> list[str]:
    paths = []
    for seed in range(6):
        path = tmp_path / f"w{seed}.parquet"
        frame(seed).to_parquet(path)
        paths.append(str(path))
    return paths


def check(
    capsys: pytest.CaptureFixture[str], windows: list[str], current: Any, *options: str
) -> dict[str, Any]:
    path = Path(windows[0]).parent / "current.parquet"
    if isinstance(current, pd.DataFrame):
        current.to_parquet(path)
    else:
        pq.write_table(current, path)
    assert main(["drift", "--windows", *windows, "--current", str(path), "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {feature["name"]: feature for feature in found["features"]}


def test_windows_alike_are_ignored(capsys, windows):
    found = check(capsys, windows, frame(99))
    assert (found["verdict"], found["state"]) == ("ignore", "calibrated")
    assert [feature["name"] for feature in found["features"]] == ["price", "items", "shop"]
    assert {feature["kind"] for feature in found["features"]} == {"numeric", "categorical"}
    for feature in found["features"]:
        assert 0 <= feature["distance"] <= feature["threshold"]
        assert 0 <= feature["p_value"] <= 1
        assert feature["drifted"] is False
        assert feature["reason"]


def test_drift_is_named_with_its_reason(capsys, windows):
    found = check(capsys, windows, frame(99, shift=3.0))
    assert found["verdict"] == "retrain"
    assert by_name(found)["price"]["drifted"] is True
    assert "1 of 3 columns drifted" in found["reason"]


def test_expected_drift_does_not_count(capsys, windows):
    found = check(capsys, windows, frame(99, shift=3.0), "--expected", "price")
    assert found["verdict"] == "ignore"
    assert by_name(found)["price"]["drifted"] is True


def test_one_window_is_uncalibrated_and_a_tiny_one_insufficient(capsys, windows):
    assert check(capsys, windows[:1], frame(99))["state"] == "uncalibrated"
    found = check(capsys, windows, frame(99, rows=1))
    assert (found["verdict"], found["state"]) == ("insufficient", "insufficient")
    assert check(capsys, windows, frame(99, rows=0))["verdict"] == "insufficient"


def test_columns_can_be_chosen(capsys, windows):
    found = check(capsys, windows, frame(99), "--columns", "shop", "price")
    assert [feature["name"] for feature in found["features"]] == ["shop", "price"]


def test_absent_and_new_columns_get_a_verdict_each(capsys, windows):
    now = frame(99).drop(columns="items").assign(colour="red")
    found = by_name(check(capsys, windows, now))
    assert found["items"]["drifted"]
    assert "the column is absent" in found["items"]["reason"]
    assert "colour" in found
    assert found["colour"]["drifted"]


def odd_columns() -> dict[str, tuple[Any, Any]]:
    """Give what a column was in the windows and what it is now."""
    n = ROWS
    random = np.random.default_rng(5)
    big = 2**60 + np.arange(n)
    days = pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC")
    return {
        "constant": (np.full(n, 7.0), np.full(n, 7.0)),
        "all-missing": (np.full(n, np.nan), np.full(n, np.nan)),
        "became-missing": (random.normal(size=n), np.full(n, np.nan)),
        "outlier": (random.normal(size=n), np.r_[random.normal(size=n - 1), 1e9]),
        "infinite": (random.normal(size=n), np.r_[random.normal(size=n - 2), np.inf, -np.inf]),
        "beyond-float53": (big, big + 10**9),
        "moment": (days, days),
        "flag": (random.random(n) < 0.5, random.random(n) < 0.5),
        "identifier": (lambda w: [f"{w}-{i}" for i in range(n)], [f"now-{i}" for i in range(n)]),
        "turned-text": (random.normal(size=n), ["many"] * n),
        "nested": ([[1, 2]] * n, [[3]] * n),
    }


@pytest.mark.parametrize("name", list(odd_columns()))
def test_odd_columns_get_a_stated_verdict(capsys, tmp_path, name):
    before, now = odd_columns()[name]
    windows = []
    for number in range(5):
        path = tmp_path / f"odd{number}.parquet"
        odd = pa.array(before(number) if callable(before) else before)
        pq.write_table(pa.table({"odd": odd, "ok": pa.array(range(ROWS))}), path)
        windows.append(str(path))
    current = pa.table({"odd": pa.array(now), "ok": pa.array(range(ROWS))})
    found = by_name(check(capsys, windows, current))["odd"]
    assert found["reason"]
    drifts = {"became-missing", "beyond-float53", "turned-text"}
    assert found["drifted"] is (name in drifts), found["reason"]
    if name in {"all-missing", "identifier", "nested"}:
        assert found["state"] == "insufficient", found["reason"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("gone", "there is no such file"),
        ("text", "must be a readable Parquet file"),
        ("cut", "must be a readable Parquet file"),
        ("zero", "must be a readable Parquet file"),
    ],
)
def test_bad_files_end_with_status_2_and_no_traceback(capsys, windows, spoil, said):
    path = Path(windows[2])
    whole = path.read_bytes()
    match spoil:
        case "gone":
            path.unlink()
        case "text":
            path.write_text("a,b\n1,2\n")
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "zero":
            path.write_bytes(b"")
    assert main(["drift", "--windows", *windows, "--current", windows[0]]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}")
    assert said in error


def test_same_column_twice_is_refused(capsys, tmp_path, windows):
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), path)
    assert main(["drift", "--windows", *windows, "--current", str(path)]) == 2
    assert "column 'a' is there twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--columns", "prise"], "column 'prise' is in no file; did you mean 'price'?"),
        (["--alpha", "0"], "--alpha"),
        (["--min-distance", "2"], "--min-distance"),
    ],
)
def test_wrong_options_end_with_status_2(capsys, windows, options, said):
    assert main(["drift", "--windows", *windows, "--current", windows[0], *options]) == 2
    assert said in capsys.readouterr().err


def test_people_get_a_table_with_what_drifted_first(capsys, tmp_path, windows):
    path = tmp_path / "current.parquet"
    frame(99, shift=3.0).to_parquet(path)
    assert main(["drift", "--windows", *windows, "--current", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("retrain (calibrated)")
    assert lines[2].startswith("DRIFT  price")
