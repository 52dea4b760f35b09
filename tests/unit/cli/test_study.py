from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from include.retraining.cli import study
from tests.unit import pipeline


@pytest.fixture
def files(tmp_path):
    """Six windows and one that has drifted in one column, whose name looks like markup."""
    paths = []
    for seed in range(7):
        random = np.random.default_rng(seed)
        frame = {"[red]x[/red]": random.normal(5 * (seed == 6), 1, 500), "y": random.random(500)}
        paths.append(tmp_path / f"week{seed}.parquet")
        pd.DataFrame(frame).to_parquet(paths[-1])
    return paths


def test_many_windows_after_one_option_or_one_each(ask, files):
    *windows, current = files
    together = ask("drift", "--windows", *windows, "--current", current, "--json")
    assert together.found["verdict"] == "retrain"
    each = [text for path in windows for text in ("--windows", path)]
    assert ask("drift", "--current", current, *each, "--json").out == together.out
    last = ask("drift", "--json", "--current", current, "--windows", *windows)
    assert last.out == together.out


def test_columns_and_expected_take_several_names(ask, files):
    *windows, current = files
    names = ["y", "[red]x[/red]"]
    said = ask(
        "drift", "--columns", *names, "--expected", *names, "--current", current,
        "--alpha", "0.05", "--min-distance=0.1", "--min-rows", "50", "--tail-windows", "3",
        "--windows", *windows, "--json",
    )  # fmt: skip
    assert [feature["name"] for feature in said.found["features"]] == names
    assert all(feature["expected"] for feature in said.found["features"])
    assert said.found["verdict"] == "ignore"


def test_people_see_what_drifted_first_and_names_as_they_are(ask, files):
    *windows, current = files
    said = ask("drift", "--windows", *windows, "--current", current)
    assert said.status == 0
    verdict, empty, first, second = said.out.splitlines()
    assert verdict.startswith("retrain (calibrated): 1 of 2 columns drifted")
    assert empty == ""
    assert first.startswith("DRIFT  [red]x[/red]  ")
    assert second.startswith("ok     y             ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--windows", "--current", "x"], "--windows: needs at least one value"),
        (["--windows", "x", "--current", "x"], "error: x: there is no such file"),
        (["--windows", "x", "--current", "x", "--alpha", "2"], "error: --alpha: "),
        (
            ["--windows", "x", "--current", "x", "--alpha", "a"],
            "'--alpha': Input should be a valid number",
        ),
    ],
)
def test_wrong_options_are_said(ask, options, says):
    said = ask("drift", *options)
    assert (said.status, said.out) == (2, "")
    assert says in said.err


def test_policies_are_replayed(ask, looking, tmp_path, monkeypatch):
    features = {"numeric": ("minute_of_day", "distance", "temp")}
    spec = pipeline.small_spec(features=features, drift={"expected": ()})
    monkeypatch.setattr(study, "model_named", lambda _: spec)
    picture = tmp_path / "replay.png"
    tried = "retrain.growth=0.3,drift.min_distance=0.1234"
    command = ("replay", "flights", "--picture", picture, "--ideal", "--try", tried)
    said = ask(*command)
    assert said.status == 0
    assert "flights: 3 windows after the first model (2013-01-07)" in said.out
    assert tried in said.out  # however long
    assert f"picture: {picture}" in said.err
    said = ask(*command, "--json")
    assert said.found["picture"] == str(picture)
    assert any(tried in policy["policy"] for policy in said.found["policies"])
    assert picture.read_bytes().startswith(b"\x89PNG")
