from __future__ import annotations

import pytest

from include.retraining.data.publication import rows_in_force
from include.retraining.features import feature_sets
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from tests.unit.data.test_quarantine import SPEC, WEEK, misspelt_week, refused_week
from tests.unit.pipeline import validate


@pytest.fixture
def home(empty: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RETRAINING_HOME", str(empty.home))
    return empty


def test_what_is_in_quarantine_is_shown_with_its_reasons(ask, home):
    validate(SPEC, home, WEEK, misspelt_week())
    said = ask("quarantine", "show", "flights", WEEK)
    assert said.status == 1
    assert "accepted, 6,053 rows = 6,048 good + 5 quarantined" in said.out
    said = ask("quarantine", "show", "flights", WEEK, "--json")
    assert said.status == 1
    assert said.found["report"]["rows_quarantined"] == 5
    (file,) = said.found["files"]
    assert (file["name"], file["rows"], said.found["kept_in"]) == ("batch", 5, None)
    assert sorted(file["broken"].values()) == [2, 3]


def test_refused_delivery_is_shown_with_its_place(ask, home):
    validate(SPEC, home, WEEK, refused_week())
    found = ask("quarantine", "show", "flights", WEEK, "--json").found
    assert f"kept in {found['kept_in']}" in ask("quarantine", "show", "flights", WEEK).out


def test_replay_with_options_before_and_after_the_batch(ask, home):
    validate(SPEC, home, WEEK, misspelt_week())
    said = ask(
        "quarantine", "replay", "--reason", "typo", "--replace", "origin:Newark=EWR",
        "flights", WEEK, "--input", "batch", "--replace", "distance:-1=200", "--json",
    )  # fmt: skip
    assert said.status == 0
    assert said.found["published"] is True
    assert said.found["report"]["mapping"]["reason"] == "typo"
    assert said.found["files"] == []
    said = ask("quarantine", "replay", "flights", WEEK, "--json")
    assert (said.status, said.found["published"]) == (0, False)  # it is in force already


def test_replay_that_was_killed_after_publishing_is_ended_by_the_next(ask, home, monkeypatch):
    validate(SPEC, home, WEEK, misspelt_week())
    command = ("quarantine", "replay", "flights", WEEK, "--replace", "origin:Newark=EWR", "--json")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(feature_sets, "materialize", killed)
        assert ask(*command).status not in {0, 1}
    storage, batch = Storage.of(home), SPEC.batch_ref(WEEK)
    assert WEEK in rows_in_force(SPEC, storage).parts
    assert feature_sets.feature_set_or_none(SPEC, storage, batch) is None
    assert ask(*command).found["to_judge"] == [WEEK]
    assert feature_sets.is_current(SPEC, storage, batch)


def test_batch_that_never_came_is_said(ask, home):
    validate(SPEC, home, WEEK, misspelt_week())
    said = ask("quarantine", "show", "flights", "2013-03-04", "--json")
    assert (said.status, said.out) == (2, "")
    assert "was never validated" in said.err
