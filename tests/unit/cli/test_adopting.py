"""A model that others trained is taken in: asked as they ask it, watched, and beaten in a duel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from include.retraining.data import publication, validation
from include.retraining.features import feature_sets
from include.retraining.names import CHAMPION
from include.retraining.records import BatchRef
from include.retraining.registry import ledger, server, succession, versions
from include.retraining.replay import rehearse
from include.retraining.retrain import claims
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec, load_spec
from include.retraining.storage import Storage
from include.retraining.telling import model_card
from tests.unit.cli.conftest import Ask
from tests.unit.cli.test_new import own  # noqa: F401 - a fixture
from tests.unit.cli.test_served_elsewhere import BROKEN_ON, named, served  # noqa: F401

LEARNED_UNTIL = "2024-01-29"  # the first four weeks
ADOPTED_AFTER = 8  # weeks


class Theirs(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """What another team wrote around a model: one probability for each row."""

    def predict(self, context: Any, model_input: pd.DataFrame) -> Any:
        return 1 / (1 + np.exp(-1.4 * model_input["income"] + 0.05 * (model_input["age"] - 50)))


class Classes(Theirs):
    def predict(self, context: Any, model_input: pd.DataFrame) -> Any:
        return (super().predict(context, model_input) > 0.5).astype(int)


class Coin(Theirs):
    def predict(self, context: Any, model_input: pd.DataFrame) -> Any:
        return np.modf(model_input["age"].to_numpy() * 1e4)[0].clip(0, 1)


class World:
    """A model file, weeks that have landed, and a registry that others write to as well."""

    def __init__(self, folder: Path, settings: Settings, ask: Ask) -> None:
        self.settings, self.ask = settings, ask
        self.rows = pd.read_csv(served(folder))
        file = folder / "rows.csv"
        self.rows.drop(columns="risk").to_csv(file, index=False)
        said = ask(
            "new", "mine", "--from", file, "--time", "at", "--label", "late", "--key", "order_id",
            "--land",
        )  # fmt: skip
        assert said.status == 0, said.err
        self.file = folder / "models" / "mine.yaml"
        self.write("training", "  model_format: cloudpickle")
        self.batches = rehearse.landed_batches(self.spec, self.storage)
        for batch in self.batches[:ADOPTED_AFTER]:
            self.ingest(batch)

    @property
    def spec(self) -> ModelSpec:
        return load_spec(self.file)

    @property
    def storage(self) -> Storage:
        return Storage.of(self.settings)

    def write(self, section: str, line: str) -> None:
        text = self.file.read_text()
        if f"\n{section}:\n" not in text:
            text += f"\n{section}:\n"
        self.file.write_text(text.replace(f"\n{section}:\n", f"\n{section}:\n{line}\n"))

    def ingest(self, batch: BatchRef) -> None:
        report = validation.validate_batch(self.spec, self.storage, batch)
        publication.publish_batch(self.spec, self.storage, report)
        feature_sets.materialize(self.spec, self.settings, batch)

    def log(self, model: Any, name: str = "theirs") -> str:
        """Let another team register a model, as MLflow's documentation says."""
        experiment = self.others_experiment()
        example = self.rows[["age", "income"]].head(5)
        with mlflow.start_run(experiment_id=experiment):
            if isinstance(model, LogisticRegression):
                mlflow.sklearn.log_model(
                    model, name="m", registered_model_name=name, input_example=example,
                    serialization_format="cloudpickle",
                )  # fmt: skip
            else:
                mlflow.pyfunc.log_model(
                    name="m", python_model=model, registered_model_name=name,
                    input_example=example,
                )  # fmt: skip
        found = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
        return f"models:/{name}/{max(int(one.version) for one in found)}"

    def others_experiment(self) -> str:
        """Give where the other team logs."""
        server.client(self.settings)
        found = mlflow.get_experiment_by_name("theirs")
        where = (self.settings.home / "theirs").as_uri()
        return found.experiment_id if found else mlflow.create_experiment("theirs", where)

    def logistic(self) -> LogisticRegression:
        then = self.rows[self.rows["at"] < LEARNED_UNTIL]
        # columns in another order than the model file's, and classes that are no numbers
        return LogisticRegression().fit(then[["age", "income"]], then["late"].astype(bool))

    def adopt(self, uri: str, *more: object) -> Any:
        return self.ask(
            "adopt-champion", "mine", "--from", uri, "--reason", "in production since spring",
            "--learned-until", LEARNED_UNTIL, *more,
        )  # fmt: skip


@pytest.fixture
def world(named: Path, empty: Settings, ask: Ask) -> World:  # noqa: F811
    return World(named, empty, ask)


def test_adopted_model_says_what_it_said_before_is_watched_and_its_fall_is_seen(world: World):
    theirs = world.logistic()
    uri = world.log(theirs)
    said = world.adopt(uri, "--json")
    assert (said.status, said.found["version"]) == (0, 1), said.err
    spec, settings = world.spec, world.settings
    # the original may go, and its run with it
    mlflow.MlflowClient().delete_registered_model("theirs")
    champion = versions.champion(spec, settings)
    assert champion.trained_until.date().isoformat() == LEARNED_UNTIL
    batch = world.batches[3]
    rows = feature_sets.rows_of(
        spec, world.storage, feature_sets.feature_set(spec, world.storage, batch)
    )
    frame = rows.select(["age", "income"]).to_pandas()
    np.testing.assert_array_equal(
        versions.score(spec, settings, champion, rows), theirs.predict_proba(frame)[:, 1]
    )
    verdicts = {}
    for one in world.batches[ADOPTED_AFTER:]:
        world.ingest(one)
        _, verdicts[one.start.date()] = rehearse.judge(spec, settings, one)
    broken = pd.Timestamp("2024-01-01") + pd.Timedelta(days=BROKEN_ON)
    before = {one.outcome for day, one in verdicts.items() if pd.Timestamp(day) < broken}
    assert before == {"ignore"}
    after = [one for day, one in verdicts.items() if pd.Timestamp(day) >= broken]
    fell = [one for one in after if one.outcome == "retrain"]
    assert fell
    assert "roc_auc" in fell[0].reasons[0]
    decision, _ = rehearse.retrain(spec, settings, after[-1], actor="test")
    assert decision.champion_version == 1
    assert decision.gain is not None, decision.reasons  # both scored the same rows
    succession.refuse_unusable(spec, settings, 1)  # a rollback could return to it


def test_who_asks_is_told_that_others_trained_it(world: World):
    uri = world.log(Theirs())
    assert world.adopt(uri).status == 0
    entry = ledger.read(world.storage, "mine")[0]
    assert entry.reason.startswith(f"adopted from {uri}; no champion to beat")
    said = world.ask("status", "mine").out
    assert f"adopted from {uri}; others trained it, on rows before {LEARNED_UNTIL}" in said
    assert "held against" in said
    assert "trained on" not in said
    card = model_card.publish(world.spec, world.settings, 1)
    assert "Others trained it" in card
    assert "It knows nothing from before" not in card
    said = world.ask("reproduce", "mine", "--version", 1)
    assert (said.status, "others trained it" in said.err) == (2, True)


def test_adopting_again_changes_nothing_and_a_worse_model_loses_the_duel(world: World):
    uri = world.log(Theirs())
    first, second = world.adopt(uri, "--json"), world.adopt(uri, "--json")
    assert first.found == second.found
    assert len(ledger.read(world.storage, "mine")) == 1
    assert len(versions.all_versions(world.spec, world.settings)) == 1
    said = world.adopt(world.log(Coin()), "--json")
    assert (said.status, said.found["passed"]) == (1, False)
    assert "roc_auc" in said.found["reasons"][0]
    assert versions.champion(world.spec, world.settings).number == 1


def test_a_champion_that_they_crowned_themselves_gives_way_to_the_one_adopted_of_it(world: World):
    world.log(Theirs(), "mine")
    mlflow.MlflowClient().set_registered_model_alias("mine", CHAMPION, "1")
    said = world.ask(
        "adopt-champion", "mine", "--version", 1, "--learned-until", LEARNED_UNTIL,
        "--reason", "it is ours now", "--json",
    )  # fmt: skip
    assert (said.status, said.found["version"]) == (0, 2), (said.out, said.err)
    assert server.aliases(world.spec, world.settings)[CHAMPION] == 2
    assert [one.action for one in ledger.read(world.storage, "mine")] == ["by_hand", "promotion"]
    said = world.ask(
        "adopt-champion", "mine", "--version", 2, "--learned-until", LEARNED_UNTIL,
        "--reason", "once more",
    )  # fmt: skip
    assert (said.status, "there is nothing to adopt" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Classes, "gives classes, 0 or 1, and no probabilities"),
        (None, "is not there"),
    ],
)
def test_a_model_that_cannot_do_it_is_refused_and_nothing_is_registered(world: World, model, says):
    said = world.adopt(world.log(model()) if model else "models:/theirs/9")
    assert (said.status, says in said.err) == (2, True), said.err
    assert versions.all_versions(world.spec, world.settings) == []
    assert ledger.read(world.storage, "mine") == []
    assert claims.claimed(world.storage, "mine") == []  # no retrain is spent
    if model:  # and the one that can do it is let in
        assert world.adopt(world.log(Theirs())).status == 0


def test_a_model_that_learned_from_another_column_is_refused(world: World):
    then = world.rows[world.rows["at"] < LEARNED_UNTIL]
    model = LogisticRegression().fit(then[["age", "risk"]], then["late"])
    with mlflow.start_run(experiment_id=world.others_experiment()):
        mlflow.sklearn.log_model(
            model, name="m", registered_model_name="theirs", serialization_format="cloudpickle"
        )
    said = world.adopt("models:/theirs/1")
    assert (said.status, "learned from risk: no feature of the model file" in said.err) == (2, True)


def test_nothing_of_it_runs_unless_the_model_file_trusts_it(world: World):
    uri = world.log(Theirs())
    world.file.write_text(world.file.read_text().replace("  model_format: cloudpickle\n", ""))
    said = world.adopt(uri)
    assert said.status == 2
    assert "write training.model_format: cloudpickle" in said.err


def test_rows_that_it_may_have_learned_from_do_not_say_how_good_it_is(world: World):
    said = world.ask(
        "adopt-champion", "mine", "--from", world.log(Theirs()), "--reason", "why not",
        "--learned-until", "2024-02-25",
    )  # fmt: skip
    assert said.status == 2
    assert "it may have learned from those before 2024-02-25" in said.err
    assert ledger.read(world.storage, "mine") == []
