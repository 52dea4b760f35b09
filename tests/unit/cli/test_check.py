from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from include.demo import flights_feed
from include.retraining.cli import check
from include.retraining.cli.settings_table import settings_table
from include.retraining.registry import server, versions
from include.retraining.spec import MODELS_DIR, ModelSpec


def test_model_files_that_are_fine(ask):
    count = len(list(MODELS_DIR.glob("*.y*ml")))  # those of a user's own are there, too
    said = ask("lint")
    told = f"{count} of {count} model files are fine\n"
    assert (said.status, said.out, said.err) == (0, told, "")
    assert ask("lint", "--json").found == {"files": count, "fine": count, "findings": []}


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


def broken(old: str, new: str) -> str:
    text = (MODELS_DIR / "flights.yaml").read_text()
    assert text.count(old) == 1, f"the model file changed: {old!r}"
    return text.replace(old, new)


SEARCH = "  seed: 2013\n  search: {n_iter: 2, space: {%s}}"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        pytest.param(
            "service: flights_v1", "service: flight_v1",
            "defines no feature service 'flight_v1'; did you mean 'flights_v1'?", id="service",
        ),
        pytest.param(
            "tables: feature_repo.flights_tables", "tables: feature_repo.flight_tables",
            "no module 'feature_repo.flight_tables'; did you mean 'flights_tables'?", id="module",
        ),
        pytest.param(
            "flights_tables:build", "flights_tables:bild", "did you mean 'build'?", id="function"
        ),
        pytest.param(
            "    - wind_speed\n", "    - wind_sped\n",
            "'wind_sped' is neither given by service 'flights_v1' nor in source.columns; did you "
            "mean 'wind_speed'?", id="feature",
        ),
        pytest.param(
            "    distance: number", "    distance: number\n    pressure: number",
            "gives 'pressure', which is a column of the rows as well", id="feature-and-column",
        ),
        pytest.param(
            "    minute: integer", "    minutes: integer",
            "joins by column 'minute', which is not in source.columns; did you mean 'minutes'?",
            id="column-that-features-need",
        ),
        pytest.param(
            "HistGradientBoostingClassifier", "HistGradientBostingClassifier",
            "did you mean 'HistGradientBoostingClassifier'?", id="estimator",
        ),
        pytest.param(
            "estimator: sklearn.ensemble", "estimator: sklearn.ensembel",
            "no module 'sklearn.ensembel'; did you mean 'ensemble'?", id="estimator-module",
        ),
        pytest.param(
            "max_leaf_nodes: 15", "max_leaf_node: 15",
            "has no parameter 'max_leaf_node'; did you mean 'max_leaf_nodes'?", id="parameter",
        ),
        pytest.param(
            "max_leaf_nodes: 15", "max_leaf_nodes: many",
            "'max_leaf_nodes' parameter of HistGradientBoostingClassifier must be an int",
            id="type-of-a-parameter",
        ),
        pytest.param(
            "early_stopping: false", "early_stopping: no", "Got 'no' instead", id="no-is-no-boolean"
        ),
        pytest.param(
            "  seed: 2013", SEARCH % "max_itr: [1, 2]", "did you mean 'max_iter'?", id="search"
        ),
        pytest.param(
            "  seed: 2013", SEARCH % "learning_rate: [0.1, fast]",
            "training.search.space.learning_rate: The 'learning_rate' parameter", id="search-value",
        ),
        pytest.param(
            "  seed: 2013", SEARCH % "l2_regularization: {low: -1, high: 1}",
            "training.search.space.l2_regularization", id="search-range",
        ),
        pytest.param(
            'schedule: "0 12 * * 1"', "schedule: every monday", "is no cron", id="cron"
        ),
        pytest.param(
            'schedule: "0 12 * * 1"', 'schedule: "0 12 * * 8"', "out of range", id="weekday"
        ),
        pytest.param(
            'schedule: "0 12 * * 1"', 'schedule: "* 0 12 * * 1"', "must have 5 fields", id="seconds"
        ),
        pytest.param(
            'schedule: "0 12 * * 1"', 'schedule: "0 0 30 2 *"', "is never due", id="no-such-day"
        ),
        pytest.param(
            'schedule: "0 12 * * 1"', 'schedule: "0 0 29 2 *"',
            "is never due: first at 2016-02-29 00:00, after the last partition, 2013-12-23",
            id="after-the-last-partition",
        ),
    ],
)  # fmt: skip
def test_what_would_fail_at_run_time_is_found_with_its_line(ask, tmp_path, old, new, says):
    wrong = tmp_path / "flights.yaml"
    wrong.write_text(broken(old, new))
    said = ask("lint", "--json", wrong)
    assert (said.status, said.found["fine"]) == (1, 0)
    found = {one["message"]: one["line"] for one in said.found["findings"]}
    message = next((one for one in found if says in one), None)
    assert message, found
    line = wrong.read_text().splitlines()[found[message] - 1].strip()
    setting = message.split(f"flights.yaml:{found[message]}: ")[1].split(":")[0].split(".")[-1]
    names = {setting, *new.replace("-", " ").replace(":", " ").split()}
    assert names & set(line.replace("-", " ").replace(":", " ").split()), (line, message)


def test_several_things_are_told_at_once_and_the_file_counts_once(ask, tmp_path):
    wrong = tmp_path / "flights.yaml"
    text = broken("flights_tables:build", "flights_tables:bild")
    wrong.write_text(text.replace("max_iter: 100", "max_itr: 100"))
    said = ask("lint", wrong, MODELS_DIR / "churn.yaml")
    assert (said.status, said.out) == (1, "1 of 2 model files are fine\n")
    assert len(said.err.splitlines()) == 2


def test_two_files_of_one_model_are_found(ask, tmp_path):
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text((MODELS_DIR / "flights.yaml").read_text())
    said = ask("lint", tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert "b.yaml:3: model: 'flights' is also the name in a.yaml" in said.err


def test_model_may_be_named_instead_of_its_file(ask):
    assert ask("lint", "flights").out == "1 of 1 model files are fine\n"
    said = ask("lint", "flihgts")
    assert said.status == 2
    assert "did you mean 'flights'?" in said.err


# --- what would happen to a file ------------------------------------------------------------------

WEEK = "2013-01-07"


@pytest.fixture
def flown(tmp_path: Path, flights: ModelSpec) -> Path:
    """A folder with the real files of a week, landed nowhere."""
    batch = flights.batch_ref(WEEK)
    flights_feed.flights_of(batch).to_parquet(tmp_path / f"{WEEK}.parquet", index=False)
    flights_feed.weather_of(batch).to_parquet(tmp_path / "weather.parquet", index=False)
    return tmp_path


def test_file_is_rehearsed_with_its_features_and_nothing_is_kept(ask, flown, monkeypatch):
    monkeypatch.setenv("RETRAINING_HOME", str(flown / "home"))
    file, weather = flown / f"{WEEK}.parquet", f"weather={flown / 'weather.parquet'}"
    said = ask("lint", "flights", "--landed", file, "--landed", weather)
    assert (said.status, said.err) == (0, "")
    assert "flights, 2013-01-07: would be accepted; 6,114 rows in, 6,114 good, 0 quar" in said.out
    assert "pressure              12.4%\n" in said.out
    assert "what looks back into an earlier batch is missing" in said.out
    assert not (flown / "home").exists()


def test_bad_rows_are_counted_by_what_they_broke(ask, flown):
    frame = pd.read_parquet(flown / f"{WEEK}.parquet")
    frame.loc[:4, "distance"] = -1.0
    frame.loc[9, "sched_dep"] = pd.Timestamp("2013-03-01", tz="UTC")
    frame.to_parquet(flown / "mine.parquet", index=False)
    said = ask("lint", "flights", "--landed", flown / "mine.parquet", "--partition", WEEK, "--json")
    assert said.status == 1
    assert said.found["report"]["rows_quarantined"] == 6
    assert said.found["quarantined"]["distance: column_values_to_be_between"] == 5
    assert said.found["quarantined"]["sched_dep: column_values_to_be_between"] == 1
    assert said.found["missing"]["distance"] == 0
    assert "not made without a file of weather" in said.found["trouble"]


def test_refused_file_says_why(ask, flown):
    frame = pd.read_parquet(flown / f"{WEEK}.parquet").drop(columns="carrier")
    frame.to_parquet(flown / f"{WEEK}.parquet", index=False)
    said = ask("lint", "flights", "--landed", flown / f"{WEEK}.parquet")
    assert said.status == 1
    assert "would be refused; 6,114 rows in, 0 good" in said.out
    assert "column 'carrier' is missing" in said.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["flights", "--landed", "nowhere/2013-01-07.parquet"], "cannot be read: No such file"),
        (["flights", "--landed", "flights.parquet"], "--partition: nothing in flights.parquet"),
        (["flights", "--landed", "wether=x.parquet"], "did you mean 'weather'?"),
        (["flights", "--landed", "weather=x.parquet"], "give the file of the batch itself"),
        (["--landed", "2013-01-07.parquet"], "name the one model that it is for, got "),
    ],
)
def test_what_cannot_be_rehearsed_is_wrong_use(ask, arguments, says):
    said = ask("lint", *arguments)
    assert (said.status, said.out) == (2, "")
    assert says in said.err


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
    assert "feature             compared  differ  expired  ahead  age" in said.out
    assert (
        "temp                      33       0        0      0  0.0 h old, ttl 3.0 h\n" in said.out
    )
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


SLIPS = """model: loans
description: Will a car loan be repaid?
owner: credit-risk
partitions: {every: week, first: 2018-01-01}
source:
  batch: landing/loans/{partition}.csv
  key: [id]
  event_time: timestamp
  columns: {id: integer, timestamp: timestamp, car_value: number, repaid: integer}
label: {column: repaid, maturity_days: 0}
features:
  service: no_such_service
  tables: feature_repo.no_module:nothing
  numeric:
    - car_valeu
training:
  estimator: sklearn.ensemble.NoSuchThing
  params:
    n_estimatorz: 3
"""


def test_slips_are_told_in_one_pass_also_where_what_they_are_about_cannot_be_asked(ask, tmp_path):
    file = tmp_path / "loans.yaml"
    file.write_text(SLIPS)
    said = ask("lint", file)
    assert said.status == 1
    for line, words in (
        (13, "no module 'feature_repo.no_module'"),
        (12, "no module 'feature_repo.loans_views'"),
        (15, "'car_valeu' is not in source.columns; did you mean 'car_value'?"),
        (17, "sklearn.ensemble has no 'NoSuchThing'"),
        (19, "has a parameter 'n_estimatorz'; did you mean 'n_estimators'?"),
    ):
        (found,) = [one for one in said.err.splitlines() if words in one]
        assert f"loans.yaml:{line}: " in found
