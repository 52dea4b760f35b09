"""Months and quarters through the whole pipeline, with outcomes of a later month."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from include.retraining.cli import subject
from include.retraining.data.outcomes import complete_by, missing_until, outcomes_of
from include.retraining.data.publication import batches_of, names_of, rows_in_force
from include.retraining.records import DriftReport
from include.retraining.settings import Settings
from include.retraining.shelf import find
from include.retraining.spec import load_spec, load_specs
from include.retraining.storage import Storage
from tests.unit.cli.conftest import Ask
from tests.unit.cli.test_new import own  # noqa: F401 - a fixture

ROWS = 300  # a month
MODEL = """
model: credit
description: Is a loan paid back within two months?
owner: risk
partitions: {{every: {every}, first: 2022-11-01}}
source:
  batch: landing/credit/{{partition}}.parquet
  key: [loan_id]
  event_time: opened
  columns: {{loan_id: integer, opened: timestamp, income: number, region: string}}
label:
  column: repaid
  maturity_days: {maturity}
  source:
    path: landing/repaid/{{partition}}.parquet
    columns: {{loan_id: integer, repaid: integer}}
features: {{numeric: [income], categorical: [region]}}
training:
  estimator: sklearn.linear_model.LogisticRegression
  min_rows: 400
gate: {{duel_days: 31, min_rows: 50}}
retrain: {{autonomy: 3}}
"""


@pytest.fixture
def named(own: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The folder's model files are those that are found by name."""
    monkeypatch.setattr(subject, "load_specs", partial(load_specs, own / "models"))
    return own


def land(folder: Path, every: str, *, months: int, maturity: int) -> Path:
    """Write a model file, loans of some months, and how they ended, told so many days later."""
    path = folder / "models" / "credit.yaml"
    path.write_text(MODEL.format(every=every, maturity=maturity))
    (folder / "suites" / "credit.json").write_text('{"name": "credit", "expectations": []}')
    spec = load_spec(path)
    draws = np.random.default_rng(4)
    start, count = pd.Timestamp("2022-11-01", tz="UTC"), ROWS * months
    end = start + pd.DateOffset(months=months)
    seconds = np.sort(draws.uniform(0, (end - start).total_seconds(), count)).astype(int)
    opened = start + pd.to_timedelta(seconds, unit="s")
    income = draws.normal(size=count)
    rows = pd.DataFrame(
        {
            "loan_id": 10**18 + np.arange(count),
            "opened": opened,
            "income": income,
            "region": draws.choice(["north", "south"], count),
            "repaid": (draws.uniform(size=count) < 1 / (1 + np.exp(-2 * income))).astype(int),
        }
    )
    told = rows["opened"] + pd.Timedelta(days=maturity - 1)
    storage = folder / "home" / "storage" / "landing"
    for name, times, columns in (
        ("credit", rows["opened"], ["loan_id", "opened", "income", "region"]),
        ("repaid", told, ["loan_id", "repaid"]),
    ):
        (storage / name).mkdir(parents=True)
        starts = [spec.partitions.start_of(moment.to_pydatetime()) for moment in times]
        for first, some in rows.groupby(starts)[columns]:
            some.to_parquet(storage / name / f"{spec.partition_key(first)}.parquet", index=False)
    first = storage / "repaid" / "2022-11-01.parquet"
    if not first.exists():  # nothing was known yet
        rows.head(0)[["loan_id", "repaid"]].to_parquet(first, index=False)
    return path


@pytest.mark.parametrize(("every", "months", "batches"), [("month", 12, 12), ("quarter", 36, 12)])
def test_calendar_batches_are_judged_by_outcomes_of_later_ones(
    named: Path, empty: Settings, ask: Ask, tmp_path: Path, every: str, months: int, batches: int
):
    path = land(named, every, months=months, maturity=45)
    kept = tmp_path / "kept"
    assert ask("lint", path).status == 0
    said = ask("rehearse", "credit", "--json", "--home", kept)
    assert said.status == 0, said.err
    rows = said.found["partitions"]
    assert len(rows) == batches
    assert [row["partition"] for row in rows[:3]] == (
        ["2022-11-01", "2022-12-01", "2023-01-01"]
        if every == "month"
        else ["2022-11-01", "2023-02-01", "2023-05-01"]
    )
    assert said.found["totals"]["rows_good"] == months * ROWS
    assert said.found["totals"]["promotions"] >= 1
    spec, storage = load_spec(path), Storage.of(Settings(home=kept))
    published = rows_in_force(spec, storage)
    in_force = batches_of(spec, published)
    assert [one.partition for one in in_force] == [row["partition"] for row in rows]
    assert all(one.end == two.start for one, two in pairwise(in_force))
    third = in_force[2]
    some = names_of(spec, published, since=third.start, until=in_force[5].start)
    assert [name for name, _ in some] == [row["partition"] for row in rows[2:5]]
    assert [opens for _, opens in some] == [one.start for one in in_force[2:5]]
    outcomes = outcomes_of(spec, storage)
    assert outcomes is not None
    assert outcomes.until == in_force[-1].end
    assert complete_by(outcomes, third.start + (third.end - third.start) / 2) == third.start
    later = spec.partitions.step(outcomes.until, 2)
    assert missing_until(outcomes, later) == [
        spec.partition_key(spec.partitions.step(outcomes.until, n)) for n in range(2)
    ]
    last = find(storage, DriftReport, "credit", rows[-1]["partition"])
    assert last is not None
    assert last.performance is not None
    assert last.performance.value > 0.75
    assert last.is_of_earlier_rows == (every == "month")
    assert len(last.history) >= 2


def test_what_is_no_start_of_a_month_is_no_partition(named: Path, empty: Settings, ask: Ask):
    land(named, "month", months=3, maturity=1)
    said = ask("rehearse", "credit", "--from", "2022-11-15")
    assert said.status == 2
    assert "one every month from 2022-11-01 on" in said.err
