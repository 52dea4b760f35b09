from __future__ import annotations

import shutil

import pytest

from include.retraining.cli import status as status_command
from include.retraining.errors import SpecError
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec, SpecFiles
from include.retraining.storage import Storage
from tests.unit.cli.conftest import judge
from tests.unit.registry.test_succession import SPEC


def named(name: str) -> ModelSpec:
    return SPEC.model_copy(update={"model": name})


@pytest.fixture
def several(reigning: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """One model of each kind: well, not well, new, and one whose ledger is no JSON."""
    folder = reigning.home / "storage"
    shutil.copytree(folder / "flights", folder / "sick")
    judge(reigning, "retrain", model="sick")
    Storage.of(reigning).write("broken/ledger/000001.json", b"[red]{[/red]")
    specs = tuple(named(name) for name in ("flights", "new", "broken", "sick"))
    wrong = SpecError("lable is no setting", path="include/models/wrong.yaml", line=3)
    monkeypatch.setattr(status_command, "load_specs", lambda: SpecFiles(specs, (wrong,)))
    return reigning


def test_one_model_answers_three_questions(ask, reigning):
    said = ask("status", "flights")
    assert said.status == 0
    assert "What is in production?\n  version 2, since 2013-02-04 00:00:00 UTC" in said.out
    assert "Is it well?\n  yes" in said.out
    assert "What do I do?\n  Nothing to do" in said.out
    found = ask("status", "flights", "--json").found
    assert (found["version"], found["well"], found["verdict"]["outcome"]) == (2, True, "ignore")


def test_model_that_is_not_well_gives_status_1(ask, reigning):
    judge(reigning, "retrain")
    assert ask("status", "flights").status == 1
    assert ask("status", "flights", "--json").found["well"] is False


def test_registry_is_asked_on_demand(ask, reigning):
    assert ask("status", "flights", "--registry", "--json").found["registry_asked"] is True


def test_without_a_name_all_models_are_shown(ask, reigning):
    said = ask("status")
    assert said.status == 0
    head, *rows = said.out.splitlines()
    assert head.split("  ")[0] == "model"
    assert [row.split()[0] for row in rows] == ["churn", "flights"]
    assert "Nothing is in production yet" in rows[0]
    assert "2013-02-04  yes" in rows[1]
    assert "ignore   Nothing to do" in rows[1]


def test_what_is_due_comes_first_and_one_that_fails_hides_no_other(ask, several):
    said = ask("status")
    assert said.status == 1
    rows = said.out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["broken", "sick", "new", "flights"]
    assert "error" in rows[0]
    assert "[red]{[/red]" in rows[0]  # what data says is no markup
    assert "A retrain was asked for: look at sick__retrain" in rows[1]
    assert "include/models/wrong.yaml:3: lable is no setting" in said.err
    assert "…" not in said.out
    assert "\x1b" not in said.out


def test_programs_get_the_same_as_a_list(ask, several):
    said = ask("status", "--json")
    assert said.status == 1
    assert [one["model"] for one in said.found] == ["broken", "sick", "new", "flights"]
    assert set(said.found[0]) == {"model", "error"}
    assert [one.get("well") for one in said.found[1:]] == [False, None, True]
    assert "wrong.yaml" in said.err


def test_wrong_model_file_is_told_and_not_fatal(ask, reigning, monkeypatch):
    wrong = SpecError("lable is no setting", path="wrong.yaml", line=3)
    monkeypatch.setattr(status_command, "load_specs", lambda: SpecFiles((SPEC,), (wrong,)))
    said = ask("status", "--json")
    assert (said.status, said.err) == (0, "wrong.yaml:3: lable is no setting\n")


def test_folder_without_model_files_is_wrong_use(ask, reigning, monkeypatch):
    monkeypatch.setattr(status_command, "load_specs", lambda: SpecFiles((), ()))
    said = ask("status")
    assert said.status == 2
    assert "error: no model files in" in said.err
