"""The second example: labels that mature late, and features that drift because customers age."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import log_loss

from include.demo import churn_feed
from include.demo.__main__ import main as demo
from include.retraining import shelf
from include.retraining.data import publication, validation
from include.retraining.features import feature_sets, skew
from include.retraining.learning.rows import feature_frame
from include.retraining.monitor import measuring
from include.retraining.monitor.verdict import judge
from include.retraining.records import DriftReport, TrainingSet, Verdict
from include.retraining.registry import succession, versions
from include.retraining.retrain import candidate as candidates
from include.retraining.retrain import gate, incident, training_set
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec
from include.retraining.storage import Storage

DAY = dt.timedelta(days=1)
WEEKS = 20
FIRST_MODEL = 14


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    found = load_spec(MODELS_DIR / "churn.yaml")
    small = {"min_rows": 1500, "cv_folds": 2}
    return found.model_copy(update={"training": found.training.model_copy(update=small)})


def week(spec: ModelSpec, number: int) -> str:
    return spec.partition_key(spec.partitions.first + number * spec.partitions.length)


def test_history_of_a_customer_ends_before_the_order(spec):
    orders = churn_feed._orders()
    assert len(orders) == 67_591  # 69,659 orders, those of one customer and day together
    assert orders["customer_id"].nunique() == 23_570
    busy = orders[orders["customer_id"] == orders["customer_id"].mode()[0]]
    assert busy["orders_before"].tolist() == list(range(len(busy)))
    np.testing.assert_allclose(
        busy["spent_before"], np.r_[0, busy["value"].cumsum()[:-1]], atol=0.01
    )
    gaps = busy["ordered_at"].diff().dt.days
    assert gaps.iloc[1:].tolist() == busy["days_since_previous"].iloc[1:].tolist()
    follows = gaps.shift(-1) < 30
    known = busy["reordered"].notna()
    assert (follows[known] == (busy["reordered"][known] == 1)).all()
    assert orders.loc[orders["orders_before"] == 0, "days_since_previous"].isna().all()


def test_outcome_is_unknown_where_the_file_ends(spec):
    orders = churn_feed._orders()
    end = orders["ordered_at"].max()
    late = orders[orders["ordered_at"] > end - 30 * DAY]
    assert set(late["reordered"].dropna()) == {1}
    assert orders.loc[orders["ordered_at"] <= end - 30 * DAY, "reordered"].notna().all()


@pytest.fixture(scope="module")
def lived(spec, tmp_path_factory) -> tuple[Settings, list[DriftReport], list[Verdict], list[str]]:
    """Half a year: each week is ingested and judged, a retrain that is asked for is made."""
    settings = Settings(home=tmp_path_factory.mktemp("churn"))
    storage = Storage.of(settings)
    reports, verdicts, trained = [], [], []
    for number in range(WEEKS):
        batch = spec.batch_ref(week(spec, number))
        churn_feed.land(storage, batch)
        for source in (spec, spec.outcomes):
            report = validation.validate_batch(source, storage, source.batch_ref(batch.partition))
            assert (report.status, report.rows_quarantined) == ("accepted", 0)
            publication.publish_batch(source, storage, report)
        feature_sets.materialize(spec, settings, batch)
        reports.append(measuring.measure_drift(spec, settings, batch))
        verdicts.append(measuring.judge_batch(spec, settings, reports[-1]))
        if verdicts[-1].outcome != "retrain":
            continue
        request = incident.open_incident(
            spec,
            settings,
            batch=batch,
            trigger="monitor",
            reason="; ".join(verdicts[-1].reasons),
            run_id=verdicts[-1].incident_id,
        )
        rows = training_set.build_training_set(spec, settings, request)
        candidate = candidates.train_candidate(spec, settings, request, rows)
        decision = gate.decide(spec, settings, request, candidate)
        trained.append(batch.partition)
        if decision.passed:
            succession.promote(spec, settings, decision, actor="test", at=dt.datetime.now(dt.UTC))
    return settings, reports, verdicts, trained


def test_first_model_waits_for_labels_that_can_no_longer_change(spec, lived):
    settings, reports, _, trained = lived
    assert trained[0] == week(spec, FIRST_MODEL)
    champion = versions.champion(spec, settings)
    assert champion is not None
    assert champion.promise is not None
    assert champion.promise.value > -0.62  # the share alone gives -0.66
    batch = spec.batch_ref(trained[0])
    storage = Storage.of(settings)
    found = shelf.find(storage, TrainingSet, "churn", champion.incident_id)
    learnt = training_set.training_rows(spec, storage, found).to_pandas()
    duel = training_set.duel_rows(spec, storage, found).to_pandas()
    labelled = learnt[learnt[training_set.LABEL].notna()]
    assert champion.trained_until == batch.end - 58 * DAY
    assert labelled["ordered_at"].max() < champion.trained_until - 30 * DAY
    assert duel["ordered_at"].max() < batch.end - 30 * DAY
    assert duel["ordered_at"].min() >= champion.trained_until
    assert reports[FIRST_MODEL - 1].trainable_rows < 1500 <= len(labelled)


def test_tenure_drifts_and_asks_for_nothing(spec, lived):
    _, reports, _, _ = lived
    last = {feature.name: feature for feature in reports[-1].features}
    tenure = last["tenure_days"]
    assert tenure.expected
    assert tenure.distance > 0.2
    by_drift_alone = spec.retrain.model_copy(update={"growth": None})
    verdict = judge(spec.model_copy(update={"retrain": by_drift_alone}), reports[-1])
    assert verdict.outcome in {"ignore", "watch"}
    assert verdict.reasons == ("nothing is out of the ordinary",)  # and every column was judged


def test_champion_is_judged_on_the_labels_that_have_matured_meanwhile(spec, lived):
    settings, reports, _, _ = lived
    report = reports[-1]
    assert (report.labelled_rows, report.champion_version) == (0, 1)
    start, end = (moment - 30 * DAY for moment in (report.batch.start, report.batch.end))
    orders = churn_feed._orders()
    matured = orders[(orders["ordered_at"] >= start) & (orders["ordered_at"] < end)]
    assert report.performance is not None
    assert report.performance.rows == len(matured)
    storage = Storage.of(settings)
    rows = feature_sets.joined_rows(spec, storage).read().to_pandas()
    rows = rows[(rows["ordered_at"] >= start) & (rows["ordered_at"] < end)]
    rows = rows.merge(orders[["customer_id", "ordered_at", "reordered"]], validate="1:1")
    frame = feature_frame(spec, pa.Table.from_pandas(rows))
    scores = versions.load_model(spec, settings, versions.version(spec, settings, 1)).predict_proba(
        frame
    )
    assert report.performance.value == pytest.approx(-log_loss(rows["reordered"], scores))
    assert [r.performance is None for r in reports[: FIRST_MODEL + 1]] == [True] * (FIRST_MODEL + 1)


def test_online_store_serves_what_training_saw_to_those_who_fell_silent_as_well(spec, lived):
    settings = lived[0]
    for number in (0, WEEKS // 2, WEEKS - 1):
        found = skew.check_skew(spec, settings, spec.batch_ref(week(spec, number)))
        assert found.keys > 300
        assert {feature.name for feature in found.features} >= {"recent_orders", "recent_value"}
        assert [feature.differing for feature in found.features] == [0] * len(found.features)
        assert [feature.expired for feature in found.features] == [0] * len(found.features)


def test_files_land_where_the_dags_look(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("RETRAINING_HOME", str(tmp_path))
    assert demo(["land", "churn", "2"]) == 0
    assert "2 weeks of churn landed" in capsys.readouterr().out
    storage = Storage.of(Settings(home=tmp_path))
    assert storage.list("landing") == [
        "landing/orders/1997-04-07.parquet",
        "landing/orders/1997-04-14.parquet",
        "landing/reorders/1997-04-07.parquet",
        "landing/reorders/1997-04-14.parquet",
    ]
