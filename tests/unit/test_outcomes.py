"""Outcomes that come in a feed of their own, days to months after their rows."""

from __future__ import annotations

import datetime as dt
import io
import random
from functools import partial
from typing import NamedTuple

import pandas as pd
import pyarrow.compute as pc
import pytest

from include.demo import churn_feed
from include.retraining import shelf
from include.retraining.data import publication, validation
from include.retraining.data.outcomes import outcomes_of
from include.retraining.features import feature_sets
from include.retraining.learning.rows import split_times
from include.retraining.monitor import measuring
from include.retraining.records import BatchRef, DriftReport, RetrainRequest, Verdict
from include.retraining.registry import ledger, succession, versions
from include.retraining.registry.ledger import Entry as LedgerEntry
from include.retraining.retrain import candidate as candidates
from include.retraining.retrain import gate, incident, training_set
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec
from include.retraining.storage import Storage
from include.retraining.telling.status import render, status_of

WEEKS = 17
WEEK = dt.timedelta(weeks=1)


def churn(*, in_the_batch: bool = False, **label: object) -> ModelSpec:
    content = load_spec(MODELS_DIR / "churn.yaml").model_dump(mode="json")
    content["training"] |= {"min_rows": 1500, "cv_folds": 2, "params": {"max_iter": 15}}
    if in_the_batch:
        content["label"] |= {"source": None, "never": None}
        content["source"]["columns"]["reordered"] = "integer"
    content["label"] |= label
    return ModelSpec.model_validate(content)


def week(spec: ModelSpec, number: int) -> BatchRef:
    return spec.batch_ref(spec.partition_key(spec.partitions.first + number * WEEK))


def land(spec: ModelSpec, storage: Storage, batch: BatchRef, frame: pd.DataFrame) -> None:
    content = io.BytesIO()
    frame.to_parquet(content, index=False)
    storage.write(spec.source.batch.format(partition=batch.partition), content.getvalue())
    report = validation.validate_batch(spec, storage, batch)
    publication.publish_batch(spec, storage, report)


def land_rows(spec: ModelSpec, settings: Settings, number: int) -> None:
    batch, orders = week(spec, number), churn_feed._orders()
    inside = (orders["ordered_at"] >= batch.start) & (orders["ordered_at"] < batch.end)
    land(spec, Storage.of(settings), batch, orders.loc[inside, list(spec.source.columns)])
    feature_sets.materialize(spec, settings, batch)


def land_outcomes(spec: ModelSpec, settings: Settings, number: int) -> None:
    batch = week(spec.outcomes, number)
    land(spec.outcomes, Storage.of(settings), batch, churn_feed.reorders_of(batch))


def judge(spec: ModelSpec, settings: Settings, batch: BatchRef) -> Verdict:
    storage = Storage.of(settings)
    learned = incident.last_training(spec, storage, batch)
    report = measuring.measure_drift(spec, settings, batch, learned=learned)
    hold = partial(incident.hold_reason, spec, storage, batch)
    verdict = measuring.judge_batch(spec, settings, report, hold=hold)
    if verdict.outcome == "retrain":
        request = incident.open_incident(
            spec, settings, batch=batch, trigger="monitor", reason="; ".join(verdict.reasons),
            run_id=verdict.incident_id,
        )  # fmt: skip
        rows = training_set.build_training_set(spec, settings, request)
        candidate = candidates.train_candidate(spec, settings, request, rows)
        decision = gate.decide(spec, settings, request, candidate)
        if decision.passed:
            succession.promote(spec, settings, decision, actor="test", at=batch.end)
    return verdict


class Life(NamedTuple):
    verdicts: list[str]
    performances: list[float | None]
    digests: list[str]
    retrains: list[str]


def told(spec: ModelSpec, settings: Settings) -> Life:
    storage = Storage.of(settings)
    names = [week(spec, number).partition for number in range(WEEKS)]
    verdicts = [shelf.find(storage, Verdict, spec.model, name) for name in names]
    reports = [shelf.find(storage, DriftReport, spec.model, name) for name in names]
    performances = [one.performance for one in reports]
    return Life(
        [one.outcome for one in verdicts],
        [None if one is None else round(one.value, 12) for one in performances],
        [one.digest for one in versions.all_versions(spec, settings)],
        [one.batch.partition for one in verdicts if one.outcome == "retrain"],
    )


@pytest.fixture(scope="module")
def in_the_batch(tmp_path_factory) -> Life:
    spec, settings = churn(in_the_batch=True), Settings(home=tmp_path_factory.mktemp("batch"))
    for number in range(WEEKS):
        land_rows(spec, settings, number)
        judge(spec, settings, week(spec, number))
    return told(spec, settings)


def test_a_feed_of_outcomes_gives_what_labels_in_the_batch_gave(in_the_batch, tmp_path):
    spec, settings = churn(), Settings(home=tmp_path)
    for number in range(WEEKS):
        land_rows(spec, settings, number)
        land_outcomes(spec, settings, number)
        judge(spec, settings, week(spec, number))
    assert told(spec, settings) == in_the_batch
    assert in_the_batch.retrains  # something was trained at all


@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_landing_changes_nothing(in_the_batch, tmp_path, seed):
    spec, settings = churn(), Settings(home=tmp_path)
    events = [(land_outcomes, number) for number in range(WEEKS)]
    random.Random(seed).shuffle(events)
    for number in range(WEEKS):  # rows in their order, outcomes whenever they come
        place = random.Random(f"{seed} {number}").randrange(len(events) + 1)
        earlier = [at for at, (kind, one) in enumerate(events) if kind is land_rows]
        events.insert(max([place, *(at + 1 for at in earlier)]), (land_rows, number))
    storage = Storage.of(settings)
    for kind, number in events:
        kind(spec, settings, number)
        if kind is land_rows and not measuring.waiting_batches(spec, storage):
            judge(spec, settings, week(spec, number))
        while waiting := measuring.waiting_batches(spec, storage):
            judge(spec, settings, waiting[0])
    assert told(spec, settings) == in_the_batch


def test_batches_that_nobody_has_judged_are_not_all_looked_at(tmp_path, monkeypatch):
    spec, settings = churn(), Settings(home=tmp_path)
    storage = Storage.of(settings)
    for number in range(8):
        land_rows(spec, settings, number)
    for number in range(7):
        land_outcomes(spec, settings, number)
    shelf.keep(storage, judge(spec, settings, week(spec, 1)).model_copy(
        update={"awaits_outcomes": True}
    ))  # fmt: skip
    monkeypatch.setattr(measuring, "LOOKED_BACK", 2)
    newest = week(spec, 6).start
    assert measuring.waiting_batches(spec, storage) == [week(spec, 1)]
    assert measuring.waiting_batches(spec, storage, since=week(spec, 2).start)
    assert not measuring.waiting_batches(spec, storage, since=newest)


def test_what_is_missing_is_told_and_nothing_is_called_well_without_it(tmp_path):
    spec, settings = churn(), Settings(home=tmp_path)
    storage = Storage.of(settings)
    for number in range(4):
        land_rows(spec, settings, number)
    land_outcomes(spec, settings, 0)
    verdict = judge(spec, settings, week(spec, 3))
    assert verdict.awaits_outcomes
    assert "complete until 1997-04-14 00:00, 21 days before" in verdict.reasons[-1]
    champion = LedgerEntry(
        sequence=1, model="churn", action="by_hand", version=1, previous_version=None,
        incident_id="x", partition="", reason="a test", actor="test", at=week(spec, 2).end,
        previous_hash="",
    )  # fmt: skip
    ledger.append(storage, champion)
    shelf.keep(storage, verdict.model_copy(update={"champion_version": 1, "outcome": "ignore"}))
    found = status_of(spec, settings)
    assert (found.well, found.outcomes_due) == (None, ("1997-04-14", "1997-04-21", "1997-04-28"))
    assert found.word == "cannot be said, outcomes are missing; what comes in is as it was"
    assert any("Outcomes of 1997-04-14 and 2 more are due" in one for one in found.advice)
    assert "outcomes are complete until 1997-04-14" in render(found)


WITH_LABELS = 9  # weeks whose rows bring their labels; those after them have a feed


@pytest.fixture(scope="module")
def switched(tmp_path_factory) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("switched"))
    before, after = churn(in_the_batch=True), churn()
    for number in range(13):
        land_rows(before if number < WITH_LABELS else after, settings, number)
    return settings


def rows_counted(spec: ModelSpec, settings: Settings, number: int) -> tuple[int, int]:
    storage, batch = Storage.of(settings), week(spec, number)
    request = RetrainRequest(
        incident_id=f"switched-{number}", batch=batch, trigger="manual", reason="a test",
        champion_version=None,
    )  # fmt: skip
    learned = training_set.build_training_set(spec, settings, request)
    counted = measuring.trainable_rows(spec, storage, batch, outcomes_of(spec, storage))
    assert counted == learned.training_rows
    rows = training_set.training_rows(spec, storage, learned)
    assert int(pc.sum(pc.is_finite(rows.column(training_set.LABEL))).as_py()) == counted
    return learned.training_rows, learned.duel_rows


def test_labels_that_came_with_their_rows_count_beside_a_feed_that_was_added_later(
    switched, monkeypatch
):
    spec, storage = churn(), Storage.of(switched)
    for number in range(13):
        land_outcomes(spec, switched, number)
    times = churn_feed._orders()["ordered_at"]
    start, end = split_times(spec, week(spec, 12))
    mature = start - dt.timedelta(days=30)
    known = ((times >= spec.partitions.first) & (times < mature)).sum()
    duel = ((times >= start) & (times < end)).sum()
    monkeypatch.setattr(training_set, "check_learnable", lambda *_: None)  # it is too early for it
    assert rows_counted(spec, switched, 12) == (known, duel)
    report = measuring.measure_drift(spec, switched, week(spec, 12))
    assert (report.rows > 0, report.trainable_rows) == (True, known)
    assert measuring.too_few_for_a_duel(spec, storage, week(spec, 12)) is None
    assert not status_of(spec, switched).outcomes_due


def test_batches_whose_labels_are_out_of_reach_without_their_feed_are_told(switched):
    spec = churn(in_the_batch=True)
    for number in range(13):
        land_outcomes(churn(), switched, number)
    told = [one for one in status_of(spec, switched).advice if "label.source" in one]
    assert not told  # of the mature ones each brought its label
    for number in (3, 4):
        land_rows(churn(), switched, number)
    (told,) = [one for one in status_of(spec, switched).advice if "label.source" in one]
    assert told.startswith("2 batches, 1997-04-28 first, brought no reordered, and label.source")
