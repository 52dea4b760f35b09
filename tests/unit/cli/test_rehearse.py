"""`rehearse`: the whole pipeline over landed files, and nothing of it where models live."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from include.retraining.cli import subject
from include.retraining.settings import Settings
from include.retraining.spec import load_specs
from include.retraining.storage import Storage
from tests.unit.cli.conftest import Ask
from tests.unit.cli.test_new import cancer, own  # noqa: F401 - a fixture


@pytest.fixture
def named(own: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The folder's model files are those that are found by name."""
    monkeypatch.setattr(subject, "load_specs", partial(load_specs, own / "models"))
    return own


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_from_a_file_to_decisions_in_two_commands(
    named: Path, empty: Settings, ask: Ask, tmp_path: Path
):
    said = ask("new", "mine", "--from", *cancer(named), "--land", "--json")
    assert said.status == 0, said.err
    assert "python -m include.retraining rehearse mine" in said.found["next"]
    landed = [Path(one).stem for one in said.found["landed"]]
    before = files_below(empty.home)
    kept = tmp_path / "kept"
    said = ask("rehearse", "mine", "--json", "--home", kept)
    assert said.status == 0, said.err
    assert files_below(empty.home) == before
    board = said.found
    assert [row["partition"] for row in board["partitions"]] == landed
    totals = board["totals"]
    assert totals["rows_in"] == totals["rows_good"] + totals["rows_quarantined"] == 6 * 569
    assert totals["promotions"] >= 1
    first = next(row for row in board["partitions"] if row["gate"] == "passed")
    after = board["partitions"][board["partitions"].index(first) + 1]
    assert (first["verdict"], first["champion_version"]) == ("retrain", None)
    assert after["champion_version"] == 1
    assert after["auc_champion"] == after["auc_frozen"] > 0.9
    assert ask("rehearse", "mine", "--home", kept).status == 2  # it is not empty
    said = ask("rehearse", "mine", "--to", landed[1], "--messages")
    assert said.status == 0
    assert "no model has reached production" in said.out
    assert f"{landed[1]}  " in said.out
    assert "100%" not in said.out  # progress is told beside the answer


def test_a_refused_batch_is_told_and_stops_nothing(named: Path, empty: Settings, ask: Ask):
    said = ask("new", "mine", "--from", *cancer(named), "--land", "--json")
    landed = said.found["landed"]
    Storage.of(empty).write(landed[1], b"patient_id\nno table")
    said = ask("rehearse", "mine", "--to", Path(landed[2]).stem, "--json")
    assert said.status == 1
    rows = said.found["partitions"]
    assert [row["verdict"] for row in rows][1] == "refused"
    assert rows[1]["reasons"]
    assert rows[2]["rows_good"] > 0


def test_without_files_it_says_where_it_looked(named: Path, ask: Ask):
    ask("new", "mine", "--from", *cancer(named), "--land")
    said = ask("rehearse", "mine", "--from", "2031-1-6")
    assert (said.status, "partition: must look like" in said.err) == (2, True)
    said = ask("rehearse", "mine", "--from", "2031-01-06")
    assert said.status == 2
    assert "mine: no batch has landed at file://" in said.err
    assert "between these" in said.err
