"""Past decisions, held against the rows that came after them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from include.retraining.cli import subject
from include.retraining.registry import ledger, versions
from include.retraining.replay import scorecard
from include.retraining.settings import Settings
from include.retraining.spec import load_spec, load_specs
from include.retraining.storage import Storage
from tests.unit.cli.conftest import Ask
from tests.unit.cli.conftest import ask as ask  # noqa: PLC0414 - a fixture
from tests.unit.cli.test_new import own  # noqa: F401 - a fixture

TURN, DAYS, A_DAY = 63, 126, 60


@pytest.fixture
def named(own: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The folder's model files are those that are found by name."""
    monkeypatch.setattr(subject, "load_specs", partial(load_specs, own / "models"))
    return own


def rows_of(folder: Path) -> Path:
    """Write rows by a law that turns round once."""
    draws = np.random.default_rng(8)
    count = DAYS * A_DAY
    day = np.repeat(np.arange(DAYS), A_DAY)
    x, noise = draws.normal(size=count), draws.normal(size=count)
    sign = np.where(day < TURN, 1.0, -1.0)
    table = pd.DataFrame(
        {
            "order_id": np.arange(count) * 3,
            "at": (pd.Timestamp("2024-01-01") + pd.to_timedelta(day, unit="D")).strftime(
                "%Y-%m-%dT12:00:00Z"
            ),
            "x": x,
            "noise": noise,
            "late": (draws.uniform(size=count) < 1 / (1 + np.exp(-2 * sign * x))).astype(int),
        }
    )
    path = folder / "rows.csv"
    table.to_csv(path, index=False)
    return path


def test_each_decision_is_judged_by_the_rows_after_it(
    named: Path, empty: Settings, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = rows_of(named)
    asked = ("--time", "at", "--label", "late", "--key", "order_id", "--every", "week", "--land")
    assert ask("new", "mine", "--from", file, *asked).status == 0
    path = named / "models" / "mine.yaml"
    text = path.read_text().replace(
        "sklearn.ensemble.HistGradientBoostingClassifier", "sklearn.linear_model.LogisticRegression"
    )
    path.write_text(
        text.replace("  min_rows: 1000", "  window: rolling\n  max_days: 14\n  min_rows: 400")
    )
    spec, kept = load_spec(path), tmp_path / "kept"
    assert ask("rehearse", "mine", "--home", kept).status == 0
    settings = Settings(home=kept)
    entries = ledger.read(Storage.of(settings), "mine")
    moves = [one for one in entries if one.action == "promotion"]
    assert len(moves) >= 2
    found = [one for one in scorecard.scorecard(spec, settings) if one.decided == "promotion"]
    assert found[0].answer == "not known"
    assert "the first model" in found[0].said
    turned = next(one for one in found[1:] if one.partition > "2024-03-04")
    assert turned.answer == "right"
    # by hand: both versions on the rows from its batch's end to the next move
    later = pd.read_csv(file, parse_dates=["at"])
    later = later[(later["at"] >= turned.since) & (later["at"] < turned.until)]
    assert turned.rows == len(later)
    values = []
    for number in (turned.chosen, turned.other):
        assert number is not None
        model = versions.load_model(spec, settings, versions.version(spec, settings, number))
        frame = later[list(spec.features.names)]
        values.append(roc_auc_score(later["late"], model.predict_proba(frame)[:, 1]))
    assert turned.gain == pytest.approx(values[0] - values[1], abs=1e-12)
    assert turned.low is not None
    assert 0 < turned.low < turned.gain
    monkeypatch.setenv("RETRAINING_HOME", str(kept))
    said = ask("scorecard", "mine")
    assert said.status == 0, said.err
    assert f"{len(list(scorecard.scorecard(spec, settings)))} decisions" in said.out
    assert "right: what was chosen is better" in said.out
    (row, *_) = ask("scorecard", "mine", "--json").found
    assert row["chosen"] == 1


def test_nothing_decided_is_said(named: Path, empty: Settings, ask: Ask):
    rows = rows_of(named)
    asked = ("--time", "at", "--label", "late", "--key", "order_id", "--land")
    assert ask("new", "mine", "--from", rows, *asked).status == 0
    said = ask("scorecard", "mine")
    assert (said.status, "nothing was decided yet" in said.out) == (0, True)


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.01, 0.02, "right"),
        (-0.02, -0.01, "wrong"),
        (-0.01, 0.01, "no difference"),
        (0.0, 0.01, "no difference"),
        (None, None, "not known"),
    ],
)
def test_only_an_interval_without_zero_is_an_answer(low, high, answer):
    assert scorecard._answer(low, high) == answer
