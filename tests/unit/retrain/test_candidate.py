from __future__ import annotations

import datetime as dt
import hashlib
import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io

from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.errors import DataError, ScoringError, SpecError
from include.retraining.features import feature_sets
from include.retraining.learning.estimator import build_pipeline
from include.retraining.learning.rows import feature_frame
from include.retraining.monitor import measuring
from include.retraining.names import CHALLENGER, INCIDENT_TAG, SCORE
from include.retraining.records import Candidate, DriftReport, FeatureDrift, TrainingSet
from include.retraining.registry import server, succession, versions
from include.retraining.retrain import gate, training_set
from include.retraining.retrain.candidate import train_candidate
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec, Range, Search
from include.retraining.storage import Storage
from tests.unit.estimators import Unfittable
from tests.unit.pipeline import WEEKS, copy_home, ingest, request_retrain, small_spec, train

SPEC = small_spec()
DAY = dt.timedelta(days=1)


def build(
    settings: Settings, partition: str, spec: ModelSpec = SPEC
) -> tuple[TrainingSet, pd.DataFrame, pd.DataFrame]:
    """Give a training set, its rows to learn from, and its rows to duel on."""
    request = request_retrain(spec, settings, partition)
    found = training_set.build_training_set(spec, settings, request)
    storage = Storage.of(settings)
    learnt = training_set.training_rows(spec, storage, found)
    duel = training_set.duel_rows(spec, storage, found)
    return found, learnt.to_pandas(), duel.to_pandas()


def feed(until: str) -> pd.DataFrame:
    """Give all flights of the weeks up to one, straight from their source."""
    weeks = [week for week in WEEKS if week <= until]
    return pd.concat([flights_feed.flights_of(SPEC.batch_ref(week)) for week in weeks])


# --- what may be learnt from ----------------------------------------------------------------------


@pytest.mark.parametrize("partition", ["2013-01-21", "2013-01-28"])
def test_training_ends_before_the_duel_and_no_immature_label_is_used(ingested, partition):
    batch = SPEC.batch_ref(partition)
    found, learnt, duel = build(ingested, partition)
    assert found.duel_end == batch.end - DAY
    assert found.duel_start == found.training_end == batch.end - 8 * DAY
    labelled = learnt[learnt[training_set.LABEL].notna()]
    assert learnt["sched_dep"].max() < found.duel_start
    # mature when the duel begins, not merely there by now
    assert labelled["sched_dep"].max() < found.duel_start - DAY
    assert duel["sched_dep"].between(found.duel_start, found.duel_end, inclusive="left").all()
    assert (duel["sched_dep"] + DAY < batch.end).all()
    assert duel[training_set.LABEL].isin([0.0, 1.0]).all()
    assert labelled["sched_dep"].max() < duel["sched_dep"].min()


@pytest.mark.parametrize("partition", ["2013-01-21", "2013-01-28"])
def test_no_row_is_lost_and_labels_are_those_of_the_feed(ingested, partition):
    found, learnt, duel = build(ingested, partition)
    rows = feed(partition)
    known = rows[rows["arr_delay"].notna()]
    to_learn = known[known["sched_dep"] < found.duel_start - DAY]
    to_duel = known[known["sched_dep"].between(found.duel_start, found.duel_end, inclusive="left")]
    assert found.training_rows == learnt[training_set.LABEL].notna().sum() == len(to_learn)
    assert found.duel_rows == len(duel) == len(to_duel)
    assert found.unlabelled_rows == len(rows) - len(to_learn) - len(to_duel)
    assert learnt[training_set.LABEL].sum() == (to_learn["arr_delay"] >= 15).sum()
    assert duel[training_set.LABEL].sum() == (to_duel["arr_delay"] >= 15).sum()


def test_request_reads_nothing_later_than_its_batch(ingested):
    early = build(ingested, "2013-01-21")[0]
    assert early.duel_end <= SPEC.batch_ref("2013-01-21").end
    assert early.training_rows + early.duel_rows + early.unlabelled_rows == len(feed("2013-01-21"))


def test_same_request_gives_the_same_rows_byte_for_byte(ingested):
    assert build(ingested, "2013-01-21")[0] == build(ingested, "2013-01-21")[0]


@pytest.mark.parametrize("days", [7.0, 10.5])
def test_rolling_window_leaves_older_rows_out_and_does_not_cut_whole_batches(ingested, days):
    spec = small_spec(training={"window": "rolling", "max_days": days, "min_rows": 100})
    found, learnt, _ = build(ingested, "2013-01-28", spec)
    oldest = dt.datetime(2013, 1, 27, tzinfo=dt.UTC) - days * DAY  # the duel begins on the 27th
    assert found.training_start == oldest
    rows = feed("2013-01-28")
    kept = rows["sched_dep"].between(oldest, found.duel_start, inclusive="left")
    assert len(learnt) == kept.sum()
    assert learnt["sched_dep"].min() >= oldest
    batch = spec.batch_ref("2013-01-28")
    assert measuring.trainable_rows(spec, Storage.of(ingested), batch) == found.training_rows


def test_rolling_window_longer_than_the_history_is_all_of_it(ingested):
    spec = small_spec(training={"window": "rolling", "max_days": 1000.0})
    found = build(ingested, "2013-01-28", spec)[0]
    assert found.training_start == SPEC.partitions.first
    assert found.sha256 == build(ingested, "2013-01-28")[0].sha256


def report_drift(
    settings: Settings,
    partition: str,
    *drifted: str,
    champion: int | None = 7,
    expected: bool = False,
) -> None:
    """Keep a drift report in which these columns drifted."""
    columns = tuple(
        FeatureDrift(
            name=name,
            kind="numeric",
            distance=0.5,
            p_value=0.0,
            threshold=0.1,
            state="calibrated",
            drifted=True,
            expected=expected,
            reason="a test",
        )
        for name in drifted
    )
    report = DriftReport(
        batch=SPEC.batch_ref(partition),
        content_sha256="x",
        champion_version=champion,
        state="calibrated",
        rows=1,
        labelled_rows=0,
        features=tuple(column for column in columns if column.name != SCORE),
        score=next((column for column in columns if column.name == SCORE), None),
    )
    key = f"flights/reports/partition={partition}/drift.json"
    Storage.of(settings).write_json(key, report)


def since(settings: Settings, partition: str = "2013-01-28") -> dt.datetime | None:
    request = request_retrain(SPEC, settings, partition).model_copy(update={"champion_version": 7})
    return training_set.drift_start(SPEC, Storage.of(settings), request)


def test_drift_began_with_the_first_of_an_unbroken_run_of_drifted_batches(ingested):
    assert since(ingested) is None
    report_drift(ingested, "2013-01-28", "temp")
    assert since(ingested) == SPEC.batch_ref("2013-01-28").start
    report_drift(ingested, "2013-01-21", SCORE)
    assert since(ingested) == SPEC.batch_ref("2013-01-21").start
    report_drift(ingested, "2013-01-14")
    report_drift(ingested, "2013-01-07", "temp")
    assert since(ingested) == SPEC.batch_ref("2013-01-21").start
    report_drift(ingested, "2013-01-14", "weekday", expected=True)
    assert since(ingested) == SPEC.batch_ref("2013-01-21").start
    report_drift(ingested, "2013-01-14", "temp", champion=6)
    assert since(ingested) == SPEC.batch_ref("2013-01-21").start
    report_drift(ingested, "2013-01-14", "temp")
    assert since(ingested) == SPEC.partitions.first


@pytest.mark.parametrize("min_rows", [2000, 8000])
def test_window_since_the_drift_holds_at_least_the_rows_a_training_needs(ingested, min_rows):
    spec = small_spec(training={"window": "since_drift", "min_rows": min_rows})
    for partition in ("2013-01-21", "2013-01-28"):
        report_drift(ingested, partition, "temp", champion=None)
    found, learnt, _ = build(ingested, "2013-01-28", spec)
    drift_began = SPEC.batch_ref("2013-01-21").start
    if min_rows == 2000:
        assert found.training_start == drift_began
        assert found.training_rows > min_rows
    else:
        assert found.training_start < drift_began
        assert found.training_rows >= min_rows
        newer = learnt[learnt["sched_dep"] > learnt["sched_dep"].min()]
        assert newer[training_set.LABEL].notna().sum() < min_rows


def test_window_since_a_drift_that_is_none_is_all_history(ingested):
    spec = small_spec(training={"window": "since_drift"})
    assert build(ingested, "2013-01-28", spec)[0].sha256 == build(ingested, "2013-01-28")[0].sha256


def test_nothing_published_is_said(empty):
    with pytest.raises(DataError, match="no published batch up to 2013-01-14; ingest one first"):
        build(empty, "2013-01-14")


def test_too_few_rows_have_an_edge(ingested):
    rows = build(ingested, "2013-01-21")[0].training_rows
    assert build(ingested, "2013-01-21", small_spec(training={"min_rows": rows}))
    with pytest.raises(DataError, match=f"{rows} rows with mature labels, training.min_rows is"):
        build(ingested, "2013-01-21", small_spec(training={"min_rows": rows + 1}))


@pytest.mark.parametrize(("limit", "label"), [(-1e9, 1), (1e9, 0)], ids=["all-late", "all-on-time"])
def test_labels_of_one_class_are_refused(ingested, limit, label):
    spec = small_spec(label={"at_least": limit})
    with pytest.raises(DataError, match=f"labels are {label}; binary needs two classes or more"):
        build(ingested, "2013-01-21", spec)


@pytest.mark.parametrize("name", ["temp", "dest"], ids=["numeric", "categorical"])
def test_feature_without_a_single_value_is_named(ingested, monkeypatch, name):
    real = training_set.training_rows

    def without(*arguments):
        table = real(*arguments)
        place = table.column_names.index(name)
        nothing = pa.nulls(table.num_rows, table.schema.field(name).type)
        return table.set_column(place, name, nothing)

    monkeypatch.setattr(training_set, "training_rows", without)
    with pytest.raises(DataError, match=f"no value in any of [0-9]+ training rows: {name}. Mend"):
        build(ingested, "2013-01-21")


# --- the candidate --------------------------------------------------------------------------------


def runs(settings: Settings) -> list[object]:
    api = server.client(settings)
    experiment = server.experiment_id(SPEC, settings)
    return list(api.search_runs([experiment], "tags.`retraining.kind` = 'retrain'"))


def numbers(settings: Settings) -> list[int]:
    found = server.client(settings).search_model_versions("name = 'flights'")
    return sorted(int(one.version) for one in found)


def test_candidate_is_registered_with_all_that_explains_it(ingested):
    request, candidate = train(SPEC, ingested, "2013-01-21")
    found = versions.version(SPEC, ingested, candidate.version)
    assert (candidate.version, numbers(ingested)) == (1, [1])
    assert found.run_id == candidate.run_id
    assert found.trained_until == candidate.training_set.training_end
    assert server.aliases(SPEC, ingested) == {CHALLENGER: 1}
    assert versions.champion(SPEC, ingested) is None
    run = server.client(ingested).get_run(candidate.run_id)
    assert run.data.tags[INCIDENT_TAG] == request.incident_id
    assert run.data.tags["retraining.data_sha256"] == candidate.training_set.sha256
    assert run.data.params["seed"] == str(SPEC.training.seed)
    assert run.data.metrics["training_rows"] == candidate.training_set.training_rows
    assert len(run.inputs.dataset_inputs) == 1
    key = f"flights/retrain/incident={request.incident_id}/candidate.json"
    assert Storage.of(ingested).read_record(key, Candidate) == candidate
    assert versions.profile_bytes(SPEC, ingested, found)


def test_second_call_reuses_run_and_version(ingested):
    first = train(SPEC, ingested, "2013-01-21")
    assert train(SPEC, ingested, "2013-01-21") == first
    assert (len(runs(ingested)), numbers(ingested)) == (1, [1])


class Killed(BaseException):
    """A kill -9."""


@pytest.mark.parametrize(
    "call",
    [
        "log_inputs",
        "log_artifacts",
        "create_registered_model",
        "create_model_version",
        "set_registered_model_alias",
    ],
)
def test_training_killed_anywhere_ends_in_one_run_and_one_version(ingested, monkeypatch, call):
    from mlflow import MlflowClient

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(SPEC, ingested, "2013-01-21")
    _, candidate = train(SPEC, ingested, "2013-01-21")
    assert (len(runs(ingested)), numbers(ingested)) == (1, [1])
    assert server.aliases(SPEC, ingested) == {CHALLENGER: 1}
    assert server.client(ingested).get_run(candidate.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("is_killed", [False, True])
def test_two_attempts_at_once_come_to_one_version(ingested, monkeypatch, is_killed):
    real = server.create_version
    request = request_retrain(SPEC, ingested, "2013-01-21")
    rows = training_set.build_training_set(SPEC, ingested, request)

    def after_another(*arguments, **named):
        with monkeypatch.context() as patch:  # an attempt that was given up goes on, and is first
            patch.setattr(server, "create_version", real)
            train_candidate(SPEC, ingested, request, rows)
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(server, "create_version", after_another)
        if is_killed:  # before it has looked for others
            patch.setattr(versions, "keep_first", lambda *_: None)
        found = train_candidate(SPEC, ingested, request, rows)
    assert found.version == (2 if is_killed else 1)
    assert train_candidate(SPEC, ingested, request, rows).version == 1
    assert [one.number for one in versions.all_versions(SPEC, ingested)] == [1]
    assert server.aliases(SPEC, ingested) == {CHALLENGER: 1}


def test_old_candidate_does_not_become_challenger_again(ingested):
    train(SPEC, ingested, "2013-01-28")
    server.set_stage(SPEC, ingested, 1, "Archived")
    train(SPEC, ingested, "2013-01-21")
    train(SPEC, ingested, "2013-01-28")
    assert server.aliases(SPEC, ingested) == {CHALLENGER: 2}


FOREST = "sklearn.ensemble.RandomForestClassifier"


def digest_of(settings: Settings, estimator: str, seed: int, **params: object) -> tuple[str, str]:
    spec = small_spec(training={"estimator": estimator, "params": params, "seed": seed})
    candidate = train(spec, settings, "2013-01-21")[1]
    return candidate.digest, candidate.training_set.sha256


def test_equal_data_and_seed_give_an_equal_model_and_another_seed_another(ingested_home, tmp_path):
    found = [
        digest_of(copy_home(ingested_home, tmp_path / name), FOREST, seed, n_estimators=5)
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    ]
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] == found[2][1]


@pytest.mark.parametrize(
    ("estimator", "params"),
    [
        pytest.param(FOREST, {"n_estimators": 3}, id="forest"),
        pytest.param("sklearn.linear_model.LogisticRegression", {"max_iter": 20}, id="linear"),
        pytest.param("tests.unit.estimators:calibrated_forest", {}, id="factory"),
    ],
)
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_other_estimators_are_trained_kept_and_loaded_again(ingested, estimator, params):
    spec = small_spec(training={"estimator": estimator, "params": params})
    _, candidate = train(spec, ingested, "2013-01-21")
    rows = training_set.duel_rows(spec, Storage.of(ingested), candidate.training_set)
    scores = versions.score(spec, ingested, candidate.version, rows)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_seed_reaches_an_estimator_inside_another():
    spec = small_spec(
        training={"estimator": "tests.unit.estimators:calibrated_forest", "params": {}, "seed": 42}
    )
    found = build_pipeline(spec).get_params()
    seeds = {name: value for name, value in found.items() if name.endswith("random_state")}
    assert seeds == {"model__estimator__random_state": 42}


@pytest.mark.parametrize(
    ("estimator", "params", "says"),
    [
        pytest.param("sklearn.Nothing", {}, "sklearn has no 'Nothing'", id="no-such-name"),
        pytest.param("nowhere.Nothing", {}, "no module 'nowhere'", id="no-such-module"),
        pytest.param("Nothing", {}, "must be module:function", id="no-module"),
        pytest.param(FOREST, {"trees": 3}, "has no parameter 'trees'", id="unknown-parameter"),
        pytest.param("tests.unit.estimators:impossible", {}, "nothing is there", id="raises"),
        pytest.param("sklearn.svm.LinearSVC", {}, "no probabilities", id="no-probabilities"),
        pytest.param("collections.OrderedDict", {}, "is no estimator", id="no-estimator"),
    ],
)
def test_estimator_that_cannot_be_made_is_a_spec_error(estimator, params, says):
    spec = small_spec(training={"estimator": estimator, "params": params})
    with pytest.raises(SpecError, match=says):
        build_pipeline(spec)


@pytest.mark.parametrize(
    ("estimator", "params"),
    [
        pytest.param(FOREST, {"n_estimators": -1}, id="parameter-out-of-range"),
        pytest.param("tests.unit.estimators:Unfittable", {}, id="fails-at-the-data"),
    ],
)
def test_estimator_that_cannot_be_fitted_is_a_data_error_and_leaves_nothing(
    ingested, estimator, params
):
    spec = small_spec(training={"estimator": estimator, "params": params})
    with pytest.raises(DataError, match="cannot be fitted"):
        train(spec, ingested, "2013-01-21")
    assert (runs(ingested), numbers(ingested)) == ([], [])


def test_pipeline_takes_missing_values_and_levels_it_never_saw(shared):
    storage = Storage.of(shared)
    joined = feature_sets.feature_set(SPEC, storage, SPEC.batch_ref(WEEKS[1]))
    rows = feature_sets.rows_of(SPEC, storage, joined)
    frame = feature_frame(SPEC, rows).tail(500)
    for estimator in (SPEC.training.estimator, FOREST):
        spec = small_spec(training={"estimator": estimator, "params": {}})
        pipeline = build_pipeline(spec).fit(frame, np.arange(500) % 2)
        strange = frame.head(2).copy()
        strange["temp"] = np.nan
        strange["dest"] = ["NEVER SEEN", None]
        assert np.isfinite(pipeline.predict_proba(strange)).all()


def test_every_feature_has_an_importance_of_at_least_nothing(ingested):
    _, candidate = train(SPEC, ingested, "2013-01-21")
    metrics = server.client(ingested).get_run(candidate.run_id).data.metrics
    found = {
        name.removeprefix("importance."): value
        for name, value in metrics.items()
        if name.startswith("importance.")
    }
    assert set(found) == set(SPEC.features.names)
    assert min(found.values()) >= 0
    assert max(found.values()) > 0


def test_corrected_batch_changes_the_data_hash(ingested):
    before = build(ingested, "2013-01-21")[0].sha256
    flights = flights_feed.flights_of(SPEC.batch_ref("2013-01-07")).iloc[10:]
    ingest(SPEC, ingested, "2013-01-07", flights)
    assert build(ingested, "2013-01-21")[0].sha256 != before


# --- other tasks, from training to the next batch -------------------------------------------------

HERE = "tests.unit.estimators:"
TASKS = [
    pytest.param(
        {"task": "regression", "at_least": None},
        {"metric": "neg_mean_absolute_error", "floor": -40.0, "slices": ("origin",)},
        {"estimator": "sklearn.ensemble.HistGradientBoostingRegressor"},
        {},
        id="regression",
    ),
    pytest.param(
        {
            "task": "multiclass",
            "column": "origin",
            "at_least": None,
            "classes": ("EWR", "JFK", "LGA"),
        },
        {"metric": "balanced_accuracy", "floor": 0.4, "slices": ("carrier",)},
        {
            "estimator": "sklearn.ensemble.RandomForestClassifier",
            "params": {"n_estimators": 5, "max_depth": 6},
            "calibration": "sigmoid",
            "balance_classes": True,
            "cv_folds": 2,
        },
        {"categorical": ("carrier", "dest")},
        id="multiclass",
    ),
]


@pytest.mark.parametrize(("label", "rules", "fitting", "inputs"), TASKS)
def test_other_task_is_trained_judged_promoted_and_watched(ingested, label, rules, fitting, inputs):
    spec = small_spec(
        label=label,
        gate=rules,
        training={"params": {"max_iter": 5, "early_stopping": False}} | fitting,
        features=inputs,
    )
    request, candidate = train(spec, ingested, "2013-01-21")
    run = server.client(ingested).get_run(candidate.run_id)
    assert f"cv_mean.{rules['metric']}" in run.data.metrics
    decision = gate.decide(spec, ingested, request, candidate)
    assert decision.passed, decision.reasons
    succession.promote(spec, ingested, decision, actor="test", at=dt.datetime.now(dt.UTC))
    batch = spec.batch_ref("2013-01-28")
    report = measuring.measure_drift(spec, ingested, batch)
    assert report.champion_version == 1
    assert report.score is not None
    assert report.score.kind == ("numeric" if label["task"] == "regression" else "categorical")
    assert report.score.distance is not None
    assert report.performance is not None
    assert report.promise == decision.candidate
    again, challenger = train(spec, ingested, "2013-01-28")
    second = gate.decide(spec, ingested, again, challenger)
    assert second.champion is not None
    assert second.gain is not None
    assert second.slices


def test_search_and_folds_are_in_the_run(ingested):
    search = Search(n_iter=2, space={"max_leaf_nodes": Range(low=4, high=8)})
    spec = small_spec(training={"search": search, "cv_folds": 3})
    _, candidate = train(spec, ingested, "2013-01-21")
    api = server.client(ingested)
    folds = api.get_metric_history(candidate.run_id, "cv.roc_auc")
    assert [fold.step for fold in folds] == [1, 2, 3]
    path = mlflow.artifacts.download_artifacts(
        run_id=candidate.run_id, artifact_path=shelf.SEARCH_ARTIFACT
    )
    trials = json.loads(Path(path).read_text())
    assert len(trials) == 3
    best = max(trials, key=lambda trial: trial["roc_auc"])
    run = api.get_run(candidate.run_id).data
    assert run.metrics["cv_mean.roc_auc"] == best["roc_auc"]
    assert {name: run.params[f"model.{name}"] for name in spec.training.params} == {
        name: str(best[name]) for name in spec.training.params
    }


def test_model_without_a_usable_prediction_is_never_registered(ingested):
    spec = small_spec(training={"estimator": f"{HERE}Broken", "params": {}})
    with pytest.raises(ScoringError, match="predictions are not finite numbers"):
        train(spec, ingested, "2013-01-21")
    assert (runs(ingested), numbers(ingested)) == ([], [])


# --- the model file -------------------------------------------------------------------------------


def model_path(settings: Settings, name: str = "model.skops") -> Path:
    (path,) = (settings.home / "mlflow-artifacts").rglob(name)
    return path


def scores_of(settings: Settings, spec: ModelSpec, candidate: Candidate) -> np.ndarray:
    versions._load.cache_clear()
    rows = training_set.duel_rows(spec, Storage.of(settings), candidate.training_set)
    return versions.score(spec, settings, candidate.version, rows)


def test_model_file_that_was_changed_is_refused(ingested):
    candidate = train(SPEC, ingested, "2013-01-21")[1]
    before = scores_of(ingested, SPEC, candidate)
    path = model_path(ingested)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ScoringError, match=r"model.skops has SHA-256 .* changed or damaged since"):
        scores_of(ingested, SPEC, candidate)
    path.write_bytes(content)
    np.testing.assert_array_equal(scores_of(ingested, SPEC, candidate), before)


def test_model_file_with_an_untrusted_type_is_refused_although_its_hash_is_right(ingested):
    candidate = train(SPEC, ingested, "2013-01-21")[1]
    content = skops.io.dumps(Unfittable())
    model_path(ingested).write_bytes(content)
    server.client(ingested).set_model_version_tag(
        "flights", "1", versions.SHA256_TAG, hashlib.sha256(content).hexdigest()
    )
    # MLflow takes its list from here; so does not everyone
    settings_file = model_path(ingested).parent / "MLmodel"
    listed = f"skops_trusted_types:\n    - {Unfittable.__module__}.Unfittable\n"
    settings_file.write_text(settings_file.read_text().replace("skops_trusted_types:\n", listed))
    with pytest.raises(ScoringError, match=r"types that are not trusted: .*Unfittable; it"):
        scores_of(ingested, SPEC, candidate)


def test_estimator_of_an_unreviewed_type_is_named_and_leaves_nothing(ingested):
    spec = small_spec(training={"estimator": f"{HERE}Constant", "params": {}})
    with pytest.raises(DataError, match=r"nobody has reviewed: tests.unit.estimators.Constant"):
        train(spec, ingested, "2013-01-21")
    assert (runs(ingested), numbers(ingested)) == ([], [])
    reviewed = ("tests.unit.estimators.Constant",)
    trusting = small_spec(
        training={"estimator": f"{HERE}Constant", "params": {}, "trusted_types": reviewed}
    )
    candidate = train(trusting, ingested, "2013-01-21")[1]
    assert set(scores_of(ingested, trusting, candidate)) == {0.25}
    with pytest.raises(ScoringError, match="types that are not trusted"):
        scores_of(ingested, SPEC, candidate)


def test_estimator_that_skops_cannot_keep_is_said(ingested):
    spec = small_spec(training={"estimator": f"{HERE}with_a_lambda", "params": {}})
    with pytest.raises(DataError, match=r"cannot be kept as skops: .* training.model_format"):
        train(spec, ingested, "2013-01-21")
    assert (runs(ingested), numbers(ingested)) == ([], [])


def test_cloudpickle_is_written_and_loaded_only_where_the_model_file_says_so(ingested):
    spec = small_spec(
        training={
            "estimator": f"{HERE}with_a_lambda",
            "params": {},
            "model_format": "cloudpickle",
        }
    )
    candidate = train(spec, ingested, "2013-01-21")[1]
    assert model_path(ingested, "model.pkl").exists()
    assert np.isfinite(scores_of(ingested, spec, candidate)).all()
    with pytest.raises(ScoringError, match="kept as cloudpickle, which runs arbitrary code"):
        scores_of(ingested, SPEC, candidate)
    path = model_path(ingested, "model.pkl")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ScoringError, match="changed or damaged since, and was not loaded"):
        scores_of(ingested, spec, candidate)


def test_version_that_no_retrain_registered_is_not_loaded(ingested):
    candidate = train(SPEC, ingested, "2013-01-21")[1]
    api = server.client(ingested)
    source = api.get_model_version("flights", "1").source
    api.create_model_version("flights", source, run_id=candidate.run_id)
    with pytest.raises(ScoringError, match="version 2 cannot be loaded: it has no tag"):
        versions.load_model(SPEC, ingested, versions.version(SPEC, ingested, 2))
