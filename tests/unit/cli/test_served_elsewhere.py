"""A model that is trained and served elsewhere: watched, held against its past, never trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from include.retraining.cli import subject
from include.retraining.learning.recorded import RecordedPredictions
from include.retraining.registry import ledger, versions
from include.retraining.settings import Settings
from include.retraining.spec import load_spec, load_specs
from include.retraining.storage import Storage
from tests.unit.cli.conftest import Ask
from tests.unit.cli.test_new import own  # noqa: F401 - a fixture

BROKEN_ON = 70  # day


@pytest.fixture
def named(own: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The folder's model files are those that are found by name."""
    monkeypatch.setattr(subject, "load_specs", partial(load_specs, own / "models"))
    return own


def served(folder: Path, *, task: str = "binary", days: int = 98) -> Path:
    """Write rows, what a model said of them, and what became of them; the world changes once."""
    draws = np.random.default_rng(5)
    parts = []
    for day in range(days):
        income, age = draws.normal(0, 1, 100), draws.normal(50, 10, 100)
        said = 1.4 * income - 0.05 * (age - 50)
        true = said if day < BROKEN_ON else -said / 4
        at = pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(days=day)
        rows = pd.DataFrame({"income": income, "age": age, "at": at})
        if task == "binary":
            rows["risk"] = 1 / (1 + np.exp(-said))
            rows["late"] = (draws.uniform(size=100) < 1 / (1 + np.exp(-true))).astype(int)
        else:
            rows["risk"], rows["late"] = said, true + draws.normal(0, 0.5, 100)
        parts.append(rows)
    table = pd.concat(parts, ignore_index=True)
    table["order_id"] = 10**18 + 7 * np.arange(len(table))
    table["at"] = table["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    file = folder / "served.csv"
    table.to_csv(file, index=False)
    return file


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_fall_is_told_at_once_and_nothing_is_trained(
    named: Path, empty: Settings, ask: Ask, tmp_path: Path, task: str
):
    columns = ("--time", "at", "--label", "late", "--key", "order_id", "--predictions", "risk")
    said = ask("new", "mine", "--from", served(named, task=task), *columns, "--land", "--json")
    assert said.status == 0, said.err
    assert said.found["numeric"] == ["income", "age"]
    spec = load_spec(named / "models" / "mine.yaml")
    assert (spec.gate.mode, spec.retrain.autonomy, spec.guard_mode) == ("disabled", 3, "off")
    kept = tmp_path / "kept"
    said = ask("rehearse", "mine", "--json", "--home", kept)
    assert said.status == 0, said.err
    rows = said.found["partitions"]
    assert said.found["totals"]["retrains"] == said.found["totals"]["promotions"] == 1
    made = [row["verdict"] for row in rows].index("retrain")
    quiet = rows[made + 1 : BROKEN_ON // 7]
    assert {row["verdict"] for row in quiet} == {"ignore"}
    assert len(quiet) >= 6
    assert {row["verdict"] for row in rows[BROKEN_ON // 7 :]} == {"blocked"}
    assert "retrain it there" in rows[-1]["reasons"][-1]
    assert "has fallen since" in rows[-1]["reasons"][0]
    settings = Settings(home=kept)
    assert [one.action for one in ledger.read(Storage.of(settings), "mine")] == ["promotion"]
    champion = versions.champion(spec, settings)
    assert champion is not None
    assert isinstance(versions.load_model(spec, settings, champion), RecordedPredictions)
    told = ask("rehearse", "mine", "--messages").out
    assert told.count("The model is to be retrained where it is trained") == 1
    assert "is in production, the first model" not in told
    assert "references 1; the model is trained and served elsewhere" in told
    assert "regained" not in told


def test_status_says_who_has_to_retrain(
    named: Path, empty: Settings, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    columns = ("--time", "at", "--label", "late", "--key", "order_id", "--predictions", "risk")
    ask("new", "mine", "--from", served(named), *columns, "--land")
    kept = tmp_path / "kept"
    assert ask("rehearse", "mine", "--home", kept).status == 0
    monkeypatch.setenv("RETRAINING_HOME", str(kept))
    said = ask("status", "mine")
    assert "retrain it there" in said.out
    assert "with force" not in said.out
    assert "no: roc_auc has fallen since" in said.out
    said = ask("replay", "mine")
    assert (said.status, "it is trained elsewhere" in said.err) == (2, True)
    said = ask("reproduce", "mine", "--version", 1)
    assert said.status == 0, said.err


def test_rows_without_a_usable_prediction_go_to_quarantine(named: Path, empty: Settings, ask: Ask):
    file = served(named, days=21)
    rows = pd.read_csv(file)
    columns = ("--time", "at", "--label", "late", "--key", "order_id", "--predictions", "risk")
    rows.loc[3, "risk"] = np.nan
    rows.to_csv(file, index=False)
    said = ask("new", "mine", "--from", file, *columns, "--land", "--json")
    assert "1 of 2,100 rows have no risk" in said.found["notes"][0]
    first = empty.home / "storage" / said.found["landed"][0]
    pd.read_parquet(first).assign(
        risk=lambda table: table["risk"].where(table.index != 5, 1.5)
    ).to_parquet(first)
    said = ask("rehearse", "mine", "--json")
    assert said.found["partitions"][0]["rows_quarantined"] == 2
    assert said.found["totals"]["rows_in"] == 2100


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("rsk", "no column 'rsk'; did you mean 'risk'"),
        ("late", "is the label"),
        ("age", "from 0 to 1; 9,800 of 9,800 rows are outside"),
        ("name", "it must hold the number that the model said"),
    ],
)
def test_a_column_without_predictions_is_refused(
    named: Path, empty: Settings, ask: Ask, column: str, says: str
):
    file = served(named)
    pd.read_csv(file).assign(name="x").to_csv(file, index=False)
    columns = ("--time", "at", "--label", "late", "--key", "order_id", "--predictions", column)
    said = ask("new", "mine", "--from", file, *columns)
    assert said.status == 2
    assert says in said.err
    assert not (named / "models" / "mine.yaml").exists()
