"""`new`: data nobody has described become a model that lints, validates, publishes and trains."""

from __future__ import annotations

import datetime as dt
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn import datasets

from include.retraining.cli import model_file, new
from include.retraining.data import publication, validation
from include.retraining.features import feature_sets
from include.retraining.features.skew import check_skew
from include.retraining.monitor import measuring
from include.retraining.registry import server, succession
from include.retraining.retrain import gate
from include.retraining.retrain.incident import hold_reason, last_training
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec, load_spec
from include.retraining.storage import Storage
from include.retraining.telling import alerts
from tests.unit import pipeline
from tests.unit.cli.conftest import Ask

FIRST = pd.Timestamp("2024-01-03T00:00:00Z")


@pytest.fixture
def own(tmp_path: Path, empty: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for model files and suites, in place of those of the repository."""
    models, suites = tmp_path / "models", tmp_path / "suites"
    models.mkdir()
    suites.mkdir()
    monkeypatch.setenv("RETRAINING_HOME", str(empty.home))
    monkeypatch.setattr(new, "MODELS_DIR", models)
    monkeypatch.setattr(new, "SCHEMA", tmp_path / "var" / "model.schema.json")
    monkeypatch.setattr(validation, "SUITES", suites)
    for function in (validation.check_suites, validation.validate_delivery):
        monkeypatch.setattr(function, "__defaults__", (suites,))
    monkeypatch.setattr(validation.validate_batch, "__kwdefaults__", {"suites": suites})
    return tmp_path


def in_time(frame: pd.DataFrame, *, copies: int, days: int, column: str) -> pd.DataFrame:
    """Give the rows of a bundled data set, each several times, at made-up moments."""
    generator = np.random.default_rng(0)
    rows = pd.concat([frame] * copies).sample(frac=1, random_state=0).reset_index(drop=True)
    moments = FIRST + pd.to_timedelta(np.sort(generator.random(len(rows))) * days, unit="D")
    return rows.assign(**{column: moments.floor("s")})


def cancer(folder: Path) -> tuple[str, ...]:
    """Binary, CSV, ids of 19 digits, a leak, a constant, names with blanks, NO as text."""
    rows = in_time(
        datasets.load_breast_cancer(as_frame=True).frame, copies=6, days=100, column="seen_at"
    )
    rows["seen_at"] = rows["seen_at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    rows["patient_id"] = np.arange(len(rows)) + 9007199254740993000
    rows["site"] = np.where(rows.index % 3 == 0, "NO", "SE")
    rows["leak"], rows["hospital"] = rows["target"] * 2 + 1, "north"
    rows.to_csv(folder / "cancer.csv", index=False)
    return (str(folder / "cancer.csv"),)


def diabetes(folder: Path) -> tuple[str, ...]:
    """Regression, Parquet, times without a zone."""
    rows = in_time(datasets.load_diabetes(as_frame=True).frame, copies=6, days=100, column="when")
    rows["when"] = rows["when"].dt.tz_localize(None)
    rows["row_id"] = [f"r{number}" for number in range(len(rows))]
    rows.to_parquet(folder / "diabetes.parquet", index=False)
    return (str(folder / "diabetes.parquet"), "--time-zone", "UTC")


def wine(folder: Path) -> tuple[str, ...]:
    """Three classes as text, JSON lines in two files, no rows in between."""
    found = datasets.load_wine(as_frame=True)
    frame = found.frame.assign(target=[found.target_names[one] for one in found.frame["target"]])
    rows = in_time(frame, copies=15, days=100, column="at")
    rows["at"], rows["bottle"] = rows["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"), np.arange(len(rows))
    (folder / "wine").mkdir()
    for part, some in enumerate(np.array_split(np.arange(len(rows)), 2)):
        path = folder / "wine" / f"{part}.jsonl"
        rows.iloc[some].to_json(path, orient="records", lines=True)
    return (str(folder / "wine"),)


def ingest(spec: ModelSpec, settings: Settings, partition: str) -> None:
    storage, batch = Storage.of(settings), spec.batch_ref(partition)
    report = validation.validate_batch(spec, storage, batch)
    assert report.status == "accepted"
    assert report.rows_quarantined == 0
    publication.publish_batch(spec, storage, report)
    feature_sets.materialize(spec, settings, batch)
    assert feature_sets.refresh_later(spec, settings, batch) == []
    assert feature_sets.is_current(spec, storage, batch)


@pytest.mark.parametrize(
    ("data", "task", "metric"),
    [
        pytest.param(cancer, "binary", "roc_auc", id="breast cancer, CSV"),
        pytest.param(diabetes, "regression", "r2", id="diabetes, Parquet"),
        pytest.param(wine, "multiclass", "neg_log_loss", id="wine, JSON lines"),
    ],
)
def test_from_files_to_a_champion_and_a_verdict_without_a_line_by_hand(
    own: Path, empty: Settings, ask: Ask, data: Any, task: str, metric: str
):
    said = ask("new", "mine", "--from", *data(own), "--land", "--json")
    assert said.status == 0, said.err
    path, found = own / "models" / "mine.yaml", said.found
    assert (found["task"], found["every"]) == (task, "week")

    assert model_file.findings([path]) == {path: []}
    landed = empty.home / "storage" / found["landed"][1]
    lint = ask("lint", path, "--landed", landed)
    assert lint.status == 0, lint.out + lint.err

    spec = load_spec(path)
    assert spec.gate.metric == metric
    keys = [Path(one).stem for one in found["landed"]]
    for partition in keys[:-1]:
        ingest(spec, empty, partition)
    request, candidate = pipeline.train(spec, empty, keys[-2])
    decision = gate.decide(spec, empty, request, candidate)
    assert decision.passed, decision.reasons
    succession.promote(
        spec, empty, decision, actor="test", at=dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
    )
    assert server.aliases(spec, empty)["champion"] == 1

    ingest(spec, empty, keys[-1])
    batch, storage = spec.batch_ref(keys[-1]), Storage.of(empty)
    learned = last_training(spec, storage, batch)
    report = measuring.measure_drift(spec, empty, batch, learned=learned)
    hold = partial(hold_reason, spec, storage, batch)
    verdict = measuring.judge_batch(spec, empty, report, hold=hold)
    assert verdict.outcome in {"ignore", "watch"}
    skew = check_skew(spec, empty, batch)
    assert (skew.keys, skew.features, alerts.of_skew(skew)) == (0, (), None)
    assert not Path(empty.feast_registry.removeprefix("sqlite:///")).exists(), "no Feast is asked"


def test_choices_are_explained_and_suspicious_columns_left_out(
    own: Path, empty: Settings, ask: Ask
):
    said = ask("new", "mine", "--from", *cancer(own), "--land", "--json")
    assert said.found["key"] == ["patient_id"]
    assert "knows target" in said.found["left_out"]["leak"]
    assert "in every row" in said.found["left_out"]["hospital"]
    text = (own / "models" / "mine.yaml").read_text()
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=../var/model.schema.json"
    assert (own / "var" / "model.schema.json").exists()
    assert "#   leak: knows target" in text
    spec = load_spec(own / "models" / "mine.yaml")
    assert spec.features.categorical == ("site",)
    assert spec.source.columns["patient_id"] == "integer"
    landed = pq.read_table(empty.home / "storage" / said.found["landed"][0])
    assert min(landed.column("patient_id").to_pylist()) >= 9007199254740993000
    rows = [pq.read_metadata(empty.home / "storage" / one).num_rows for one in said.found["landed"]]
    assert sum(rows) == said.found["rows"]


def write_rows(folder: Path, count: int = 300, **columns: Any) -> Path:
    generator = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "id": np.arange(count) * 7,
            "t": (FIRST + pd.to_timedelta(np.arange(count) * 6, unit="h")).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            ),
            "x": generator.random(count).round(4),
            "y": generator.integers(0, 2, count),
        }
    )
    path = folder / "rows.csv"
    frame.assign(**columns).to_csv(path, index=False)
    return path


def test_labels_that_are_missing_at_the_end_say_how_long_they_take(own: Path, ask: Ask):
    late = pd.Series(np.arange(300) % 2).astype("Int64").mask(np.arange(300) >= 260)
    after = pd.Series(np.arange(300) / 7).where(np.arange(300) < 260)
    said = ask("new", "mine", "--from", write_rows(own, y=late, paid_back=after), "--json")
    assert said.status == 0, said.err
    spec = load_spec(own / "models" / "mine.yaml")
    assert spec.label.maturity_days == 10  # 40 rows, four a day
    assert "known after the outcome" in said.found["left_out"]["paid_back"]
    assert spec.source.batch == "landing/mine/{partition}.csv"
    assert said.found["landed"] == []


@pytest.mark.parametrize(
    ("label", "task", "more"),
    [
        pytest.param([1, 2], "binary", {"at_least": 2}, id="two numbers"),
        pytest.param([False, True], "binary", {}, id="booleans"),
        pytest.param(["NO", "SE"], "multiclass", {"classes": ("NO", "SE")}, id="two texts"),
        pytest.param([1, 2, 3], "multiclass", {"classes": (1, 2, 3)}, id="few whole numbers"),
        pytest.param([0.5, 1.5, 2.5, 7.25], "regression", {}, id="numbers"),
    ],
)
def test_the_task_follows_from_the_label(
    own: Path, ask: Ask, label: list[Any], task: str, more: dict[str, Any]
):
    said = ask("new", "mine", "--from", write_rows(own, y=np.resize(label, 300)))
    assert said.status == 0, said.err
    spec = load_spec(own / "models" / "mine.yaml")
    assert spec.label.task == task
    for name, value in more.items():
        assert getattr(spec.label, name) == value
    assert model_file.findings([own / "models" / "mine.yaml"])[own / "models" / "mine.yaml"] == []


def test_every_overrules_the_length_of_a_partition(own: Path, empty: Settings, ask: Ask):
    said = ask("new", "mine", "--from", write_rows(own), "--every", "day", "--land", "--json")
    assert said.found["every"] == "day"
    assert said.found["landed"][0] == "landing/mine/2024-01-03.parquet"
    assert len(said.found["landed"]) == 75


def test_one_day_in_each_month_is_a_months_rhythm(own: Path, empty: Settings, ask: Ask):
    days = pd.date_range("2023-01-31", periods=12, freq="ME", tz="UTC")
    times = np.repeat(days.strftime("%Y-%m-%dT%H:%M:%SZ").to_numpy(), 25)
    said = ask("new", "mine", "--from", write_rows(own, t=times), "--land", "--json")
    assert said.status == 0, said.err
    assert said.found["every"] == "month"
    assert said.found["landed"][1] == "landing/mine/2023-02-01.parquet"
    assert len(said.found["landed"]) == 12


def test_outcomes_of_their_own_file_are_joined_by_the_key(own: Path, empty: Settings, ask: Ask):
    path = write_rows(own)
    rows = pd.read_csv(path)
    outcomes = own / "outcomes.csv"
    rows[["id", "y"]].iloc[::-1].iloc[20:].to_csv(outcomes, index=False)
    rows.drop(columns="y").to_csv(path, index=False)
    said = ask("new", "mine", "--from", path, "--outcomes", outcomes, "--land", "--json")
    assert said.status == 0, said.err
    landed = pd.concat(
        pq.read_table(empty.home / "storage" / one).to_pandas() for one in said.found["landed"]
    )
    known = landed.dropna(subset="y")
    assert len(known) == 280
    assert dict(zip(known["id"], known["y"], strict=True)) == dict(
        zip(rows["id"][:280], rows["y"][:280], strict=True)
    )


@pytest.mark.parametrize(
    ("columns", "arguments", "says"),
    [
        pytest.param({"t": "noon"}, (), "no column holds times", id="no time"),
        pytest.param({"t": "noon"}, ("--time", "t"), "column 't' is string", id="time is text"),
        pytest.param({}, ("--time", "tt"), "did you mean 't'", id="time misspelt"),
        pytest.param({"u": "2024-01-01T00:00:00Z"}, (), "say which column says", id="two times"),
        pytest.param({"t": "2024-01-01 00:00"}, (), "without a zone", id="no zone"),
        pytest.param({"y": ""}, (), "no value in any row", id="no label known"),
        pytest.param({"y": 1}, (), "is 1 in all rows", id="one class"),
        pytest.param({}, ("--label", "t"), "holds times", id="label is a time"),
        pytest.param({"id": 1}, (), "no column tells rows apart", id="no key"),
        pytest.param({"id": 1}, ("--key", "id"), "share it", id="key not unique"),
        pytest.param(
            {"user_id": np.arange(300) * 3, "order_id": np.arange(300)},
            (),
            "say which column identifies a row",
            id="several keys",
        ),
        pytest.param({"x": 1}, (), "no column is left as a feature", id="nothing to learn from"),
        pytest.param({}, ("--every", "fortnight"), "day, week, month", id="length"),
        pytest.param({}, ("--time-zone", "UTC"), "goes with --land", id="zone without landing"),
    ],
)
def test_bad_input_gets_clear_words_and_writes_nothing(
    own: Path, ask: Ask, columns: dict[str, Any], arguments: tuple[str, ...], says: str
):
    said = ask("new", "mine", "--from", write_rows(own, **columns), *arguments)
    assert said.status == 2
    assert says in said.err
    assert "Traceback" not in said.err
    assert not [*(own / "models").iterdir(), *(own / "suites").iterdir()]


def test_nothing_is_overwritten(own: Path, empty: Settings, ask: Ask):
    path = write_rows(own)
    assert ask("new", "mine", "--from", path, "--land").status == 0
    before = (own / "models" / "mine.yaml").read_bytes()
    said = ask("new", "mine", "--from", path, "--land")
    assert said.status == 2
    assert "nothing is overwritten" in said.err
    assert (own / "models" / "mine.yaml").read_bytes() == before


def test_a_landing_that_fails_leaves_nothing(own: Path, empty: Settings, ask: Ask):
    storage = Storage.of(empty)
    storage.write("landing/mine/2024-01-15.parquet", b"somebody else's")
    said = ask("new", "mine", "--from", write_rows(own), "--every", "week", "--land")
    assert said.status == 2
    assert "is there already with other content" in said.err
    assert storage.list("landing") == ["landing/mine/2024-01-15.parquet"]
    assert not [*(own / "models").iterdir(), *(own / "suites").iterdir()]


def test_what_a_killed_run_has_landed_does_not_stop_the_next(own: Path, empty: Settings, ask: Ask):
    path = write_rows(own)
    assert ask("new", "mine", "--from", path, "--land").status == 0
    (own / "models" / "mine.yaml").unlink()
    (own / "suites" / "mine.json").unlink()
    assert ask("new", "mine", "--from", path, "--land").status == 0


def test_odd_names_are_read_back_as_they_are(own: Path, ask: Ask):
    names = {"NO": 1.5, "a: b # c": 2.5, 'q"uote': 3.5, "ünï 😀": 4.5, "tab\tin": 5.5, "1e3": 6.5}
    varied = {name: np.arange(300) * value for name, value in names.items()}
    said = ask("new", "mine", "--from", write_rows(own, **varied))
    assert said.status == 0, said.err
    assert set(names) <= set(load_spec(own / "models" / "mine.yaml").features.numeric)


def test_semicolons_are_called_that(own: Path, ask: Ask):
    file = own / "rows.csv"
    file.write_text("at;price;late\n2024-01-01T00:00:00Z;1,5;0\n2024-01-02T00:00:00Z;2,5;1\n")
    said = ask("new", "mine", "--from", file, "--time", "at", "--label", "late")
    assert said.status == 2
    assert "between semicolons: write commas and a point in numbers" in said.err


def test_numbers_with_a_comma_are_called_that_and_no_free_text(own: Path, ask: Ask):
    rows = 400
    frame = pd.DataFrame(
        {
            "at": pd.date_range("2024-01-01", periods=rows, freq="6h", tz="UTC").astype(str),
            "price": [f"{number * 3.5:.2f}".replace(".", ",") for number in range(rows)],
            "share": [f"{number % 97} %" for number in range(rows)],
            "row": [f"{number:05d}" for number in range(rows)],
            "zip": [f"{number % 50:05d}" for number in range(rows)],
            "size": np.arange(rows) % 7 + 0.5,
            "late": np.arange(rows) % 2,
        }
    )
    file = own / "rows.csv"
    frame.to_csv(file, index=False)
    said = ask(
        "new", "mine", "--from", file, "--time", "at", "--label", "late", "--key", "row", "--json"
    )
    assert said.status == 0, said.err
    why = said.found["left_out"]
    assert why["price"].startswith("numbers written as text, such as '0,00': write them as 1234.5")
    assert why["share"].startswith("numbers written as text, such as '0 %'")
    assert "numbers written" not in why.get("zip", "")
    said = ask("new", "mine2", "--from", file, "--time", "at", "--label", "price", "--key", "row")
    assert (said.status, "holds numbers written as text, such as '0,00'" in said.err) == (2, True)
