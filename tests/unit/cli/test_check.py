from __future__ import annotations

import json

import pytest

from include.retraining.cli import check
from include.retraining.cli.settings_table import settings_table
from include.retraining.registry import server, versions
from include.retraining.spec import MODELS_DIR, ModelSpec


def test_model_files_that_are_fine(ask):
    said = ask("lint")
    assert (said.status, said.out, said.err) == (0, "2 of 2 model files are fine\n", "")
    assert ask("lint", "--json").found == {"files": 2, "fine": 2, "findings": []}


def test_wrong_files_are_named_with_line_and_nearest_name(ask, tmp_path):
    wrong = tmp_path / "[red]x.yaml"
    wrong.write_text((MODELS_DIR / "flights.yaml").read_text().replace("owner:", "ownr:"))
    said = ask("lint", wrong, MODELS_DIR / "churn.yaml")
    assert (said.status, said.out) == (1, "1 of 2 model files are fine\n")
    assert str(wrong) in said.err
    said = ask("lint", "--json", wrong, tmp_path / "none.yaml")
    assert (said.status, said.err) == (1, "")
    assert (said.found["files"], said.found["fine"]) == (2, 0)
    first, second = said.found["findings"]
    assert first["path"] == str(wrong)
    assert first["line"] > 0
    assert "did you mean 'owner'?" in first["message"]
    assert second["line"] is None


def test_no_model_files_are_a_finding(ask, monkeypatch, tmp_path):
    monkeypatch.setattr(check, "MODELS_DIR", tmp_path)
    said = ask("lint")
    assert (said.status, said.out) == (1, "")
    assert "no model files in" in said.err
    assert ask("lint", "--json").found["files"] == 0


def test_schema_is_json_with_and_without_saying_so(ask):
    assert ask("schema").found == ask("schema", "--json").found == ModelSpec.model_json_schema()
    assert ask("schema", "--markdown").out == f"{settings_table()}\n"
    said = ask("schema", "--markdown", "--json")
    assert (said.status, said.out) == (2, "")
    assert "give one of them" in said.err


def test_online_features_are_compared(ask, ingested, monkeypatch):
    monkeypatch.setenv("RETRAINING_HOME", str(ingested.home))
    said = ask("skew", "flights")
    assert said.status == 0
    assert "feature             compared  differ  expired  age" in said.out
    assert "temp                      33       0        0  1.0 h old, ttl 3.0 h\n" in said.out
    said = ask("skew", "flights", "--at", "2013-02-04T12:00", "--json")
    assert said.status == 1
    assert said.found["keys"] == 33
    assert said.found["at"] == "2013-02-04T12:00:00Z"
    assert any("temp" in problem for problem in said.found["problems"])


@pytest.mark.parametrize(("number", "status"), [(1, 0), (2, 1)])
def test_version_is_trained_again_with_its_progress_on_stderr(ask, reigning, number, status):
    server.client(reigning).set_model_version_tag("flights", "2", versions.DIGEST_TAG, "beef")
    said = ask("reproduce", "flights", "--version", number, "--json")
    assert said.status == status
    assert said.found["equal"] is (status == 0)
    assert said.found["version"] == number
    assert "[1/4]" in said.err
    assert json.loads(said.out)["registered_digest"]
