"""A stream of car loans whose outcomes come up to five weeks later, and a scheduler for its runs.

Rows come in weeks, outcomes in weeks of their own: as folders of one to five files. `World` has the
runs of the model as Airflow has them, each stopping between its tasks, while deliveries land.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import random
from collections.abc import Generator, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from include.retraining import shelf
from include.retraining.data import publication, validation
from include.retraining.data.delivery import COMPLETE
from include.retraining.features import feature_sets
from include.retraining.monitor import measuring
from include.retraining.monitor.turn import RunState, waits_for
from include.retraining.names import Stage, dag_id
from include.retraining.records import (
    BatchRef,
    DriftReport,
    GateDecision,
    Performance,
    PipelineRun,
    RealisedWindow,
    TrainingSet,
    Verdict,
)
from include.retraining.registry import guard, ledger, succession, versions
from include.retraining.retrain import candidate, claims, gate, incident
from include.retraining.retrain.training_set import build_training_set
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec, OutcomeFeed
from include.retraining.storage import Storage

WEEKS = 22
ROWS = 400  # a week
FALL = 8  # the first week in which another column decides
THIN = 6  # of its loans only TOLD are ever told of
TOLD = 40
MODEL = "late_loans"
FIRST = dt.datetime(2019, 1, 7, tzinfo=dt.UTC)
WEEK = dt.timedelta(weeks=1)
SPEC = ModelSpec.model_validate(
    {
        "model": MODEL,
        "description": "Will a car loan be repaid?",
        "owner": "tests",
        "partitions": {"every": "week", "first": FIRST},
        "source": {
            "batch": "landing/loans/{partition}.csv",
            "key": ["id"],
            "event_time": "at",
            "columns": {
                "id": "integer", "at": "timestamp", "debt": "number", "value": "number",
                "age": "number",
            },
        },
        "label": {
            "column": "repaid",
            "maturity_days": 35,
            "source": {
                "path": "landing/repaid/{partition}/*.csv",
                "columns": {"id": "integer", "repaid": "integer", "told_at": "timestamp"},
                "known_at": "told_at",
            },
        },
        "features": {"numeric": ["debt", "value", "age"]},
        "training": {
            "min_rows": 300,
            "params": {"max_iter": 10, "early_stopping": False},
            "cv_folds": 0,
            "window": "rolling",
            "max_days": 49,
        },
        "gate": {"duel_days": 7, "min_rows": 200, "floor": 0.5},
        "retrain": {"growth": 1e6, "autonomy": 3, "cool_down_days": 14, "max_per_30_days": 2},
    }
)  # fmt: skip


def feed() -> OutcomeFeed:
    """Give the outcomes as a source of their own."""
    assert SPEC.outcomes is not None
    return SPEC.outcomes


def week(number: int, spec: ModelSpec = SPEC) -> BatchRef:
    """Give one of the weeks, of rows or of outcomes."""
    return spec.batch_ref(spec.partition_key(FIRST + number * WEEK))


@cache
def loans() -> pd.DataFrame:
    """Give all loans with their outcome, and when it is told: two to five weeks later."""
    chance, count = np.random.default_rng(2019), WEEKS * ROWS
    number = np.repeat(np.arange(WEEKS), ROWS)
    seconds = np.sort(chance.integers(0, 7 * 86_400, (WEEKS, ROWS)), axis=1).ravel()
    at = pd.Timestamp(FIRST) + pd.to_timedelta(number * 7 * 86_400 + seconds, unit="s")
    debt, value, age = chance.normal(size=(3, count))
    score = np.where(number < FALL, 2 * debt, -debt) + value
    told = at + pd.to_timedelta(chance.integers(14 * 86_400, 35 * 86_400, count), unit="s")
    return pd.DataFrame(
        {
            "id": number * 1000 + np.tile(np.arange(ROWS), WEEKS), "at": at, "debt": debt,
            "value": value, "age": age, "week": number,
            "repaid": (chance.random(count) < 1 / (1 + np.exp(-score))) * 1, "told_at": told,
        }
    )  # fmt: skip


@cache
def rows_of(number: int) -> bytes:
    """Give the file of a week of loans."""
    found = loans()
    chosen = found.loc[found["week"] == number, list(SPEC.source.columns)]
    return chosen.to_csv(index=False).encode()


@cache
def outcomes_of(number: int) -> pd.DataFrame:
    """Give what was told in a week; of each tenth loan it was first told wrong, a week before."""
    found = loans()
    is_told = (found["week"] != THIN) | (found["id"] % 1000 < TOLD)
    found = found[is_told]
    wrong = found[found["id"] % 10 == 0].copy()
    wrong["repaid"], wrong["told_at"] = 1 - wrong["repaid"], wrong["told_at"] - WEEK
    found = pd.concat([found, wrong])
    batch = week(number, feed())
    inside = (found["told_at"] >= batch.start) & (found["told_at"] < batch.end)
    chosen: pd.DataFrame = found.loc[inside, ["id", "repaid", "told_at"]]
    return chosen


class Delivery(NamedTuple):
    """A file that lands: rows, a piece of a week's outcomes, or the word that all are there."""

    of: Literal["rows", "piece", "outcomes"]
    number: int
    key: str
    content: bytes


def deliveries_of_rows(number: int) -> list[Delivery]:
    """Give the one file of a week of loans."""
    key = SPEC.source.batch.format(partition=week(number).partition)
    return [Delivery("rows", number, key, rows_of(number))]


def deliveries_of_outcomes(number: int, pieces: int, chance: random.Random) -> list[Delivery]:
    """Give the files of a week of outcomes, cut anywhere, in any order; what completes it last."""
    found = outcomes_of(number)
    found = found.iloc[chance.sample(range(len(found)), len(found))]
    cuts = sorted(chance.randint(0, len(found)) for _ in range(pieces - 1))
    folder = feed().source.batch.format(partition=week(number).partition).rpartition("/")[0]
    files = []
    for at, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(found)], strict=True)):
        content = io.BytesIO()
        found.iloc[start:end].to_csv(content, index=False)
        files.append(Delivery("piece", number, f"{folder}/part-{at}.csv", content.getvalue()))
    chance.shuffle(files)
    return [*files, Delivery("outcomes", number, f"{folder}/{COMPLETE}", b"")]


class Life(NamedTuple):
    """What was decided, and what was realised; a model is known by its digest."""

    verdicts: list[tuple[str, str, tuple[str, ...], str | None, str, bool]]
    performances: list[Performance | None]
    realised: list[RealisedWindow | None]
    retrains: list[tuple[str, int | None, int, int]]
    gates: list[tuple[str, bool, tuple[str, ...], Performance | None, Performance | None]]
    ledger: list[tuple[str, str, str, str]]


class World:
    """The runs of one model as a scheduler has them, and what has landed."""

    def __init__(self, settings: Settings, suites: Path) -> None:
        self.settings = settings
        self.storage = Storage.of(settings)
        self.suites = suites
        suite = suites / f"{MODEL}.json"
        suite.write_text(json.dumps({"name": MODEL, "expectations": []}))
        self.active: dict[tuple[str, str], Iterator[None]] = {}
        self.started: set[tuple[str, str]] = set()
        self.landed: set[int] = set()
        self.complete: set[int] = set()
        self.parked: set[tuple[str, str]] = set()  # look again once anything has moved on
        self.waited = 0
        self.judged_again = 0

    # --- what lands -------------------------------------------------------------------------------

    def land(self, one: Delivery) -> None:
        """Let a file land, and what waits for it start."""
        self.storage.write(one.key, one.content)
        partition = week(one.number).partition
        if one.of == "rows":
            self.landed.add(one.number)
            self._start("ingest", partition, self._ingest(one.number))
        if one.of == "outcomes":
            self.complete.add(one.number)
            self._start("outcomes", partition, self._outcomes(one.number))

    def may_land(self, one: Delivery) -> bool:
        """Say whether no batch would be judged for good while an earlier one has not landed.

        That is the one thing that no order can be free of: who waits for a file that may never come
        never judges.
        """
        if one.of == "piece":
            return True
        landed, complete = set(self.landed), set(self.complete)
        (landed if one.of == "rows" else complete).add(one.number)
        until = next(n for n in range(WEEKS + 1) if n not in complete)
        gap = next(n for n in range(WEEKS + 1) if n not in landed)
        return not any(gap < n < until for n in landed)

    # --- the runs ---------------------------------------------------------------------------------

    def _start(self, stage: Stage, run_id: str, steps: Iterator[None]) -> None:
        name = (dag_id(MODEL, stage), run_id)
        if name not in self.started:  # else Airflow has it already
            self.started.add(name)
            self.active[name] = steps

    def _published(self, spec: ModelSpec, number: int) -> Iterator[None]:
        yield
        batch = week(number, spec)
        report = validation.validate_batch(spec, self.storage, batch, suites=self.suites)
        yield
        publication.publish_batch(spec, self.storage, report)
        yield

    def _ingest(self, number: int) -> Iterator[None]:
        yield from self._published(SPEC, number)
        batch = week(number)
        feature_sets.materialize(SPEC, self.settings, batch)
        feature_sets.refresh_later(SPEC, self.settings, batch)
        self._start("monitor", batch.partition, self._monitor(batch, batch.partition))

    def _outcomes(self, number: int) -> Iterator[None]:
        yield from self._published(feed(), number)
        told = week(number)
        for batch in measuring.waiting_batches(SPEC, self.storage, since=told.start):
            run_id = f"outcomes__{batch.partition}__{told.partition}"
            self.judged_again += 1
            self._start("monitor", run_id, self._monitor(batch, run_id))

    def _state_of(self, dag: str, run_id: str) -> RunState:
        if (dag, run_id) in self.active:
            return "active"
        return "done" if (dag, run_id) in self.started else None

    def _is_ingesting(self) -> bool:
        return any(dag == dag_id(MODEL, "ingest") for dag, _ in self.active)

    def _measure(self, batch: BatchRef, run_id: str) -> Generator[None, None, DriftReport]:
        while waits_for(
            SPEC, self.storage, batch, state_of=self._state_of, is_ingesting=self._is_ingesting
        ):
            self.waited += 1
            run = PipelineRun(batch=batch, stage="monitor", run_id=run_id)
            if run != shelf.find_run(self.storage, MODEL, batch.partition, "monitor"):
                shelf.keep_run(self.storage, run)
            self.parked.add((dag_id(MODEL, "monitor"), run_id))
            yield
        learned = incident.last_training(SPEC, self.storage, batch)
        return measuring.measure_drift(SPEC, self.settings, batch, learned=learned)

    def _monitor(self, batch: BatchRef, run_id: str) -> Iterator[None]:
        yield
        report = yield from self._measure(batch, run_id)
        if measuring.came_meanwhile(SPEC, self.storage, report):
            report = yield from self._measure(batch, run_id)
        yield
        hold = partial(incident.hold_reason, SPEC, self.storage, batch)
        verdict = measuring.judge_batch(SPEC, self.settings, report, hold=hold)
        yield  # the request is a task of its own
        if verdict.outcome == "retrain":
            self._start("retrain", verdict.incident_id, self._retrain(verdict))
        if verdict.outcome == "rollback":
            self._start("guard", verdict.incident_id, self._roll_back(verdict))

    def _retrain(self, verdict: Verdict) -> Iterator[None]:
        yield
        request = incident.open_incident(
            SPEC, self.settings, batch=verdict.batch, trigger="monitor",
            reason="; ".join(verdict.reasons), run_id=verdict.incident_id,
        )  # fmt: skip
        yield
        rows = build_training_set(SPEC, self.settings, request)
        found = candidate.train_candidate(SPEC, self.settings, request, rows)
        yield
        decision = gate.decide(SPEC, self.settings, request, found)
        yield
        if decision.passed:
            at = verdict.batch.end
            succession.promote(SPEC, self.settings, decision, actor="test", at=at)

    def _roll_back(self, verdict: Verdict) -> Iterator[None]:
        yield
        at = verdict.batch.end
        guard.roll_back(SPEC, self.settings, verdict, actor="test", at=at)

    def step(self, name: tuple[str, str]) -> None:
        """Let a run come to its next task."""
        try:
            next(self.active[name])
        except StopIteration:
            del self.active[name]
        if name not in self.parked:  # it came on, and others may
            self.parked.clear()

    def rest(self) -> None:
        """Let all runs end."""
        while self.active:
            for name in list(self.active):
                self.step(name)

    # --- what came of it --------------------------------------------------------------------------

    def training_sets(self) -> list[TrainingSet]:
        """Give what every retrain learned from, oldest first."""
        standing = claims.claimed(self.storage, MODEL)
        found = [shelf.find(self.storage, TrainingSet, MODEL, one.incident_id) for one in standing]
        return [one for one in found if one is not None]

    def life(self, until: int = WEEKS) -> Life:
        """Give what was decided about the first weeks."""
        digests = {one.number: one.digest for one in versions.all_versions(SPEC, self.settings)}
        names = [week(number).partition for number in range(until)]
        verdicts = [shelf.find(self.storage, Verdict, MODEL, name) for name in names]
        reports = [shelf.find(self.storage, DriftReport, MODEL, name) for name in names]
        sets = [one for one in self.training_sets() if one.partition in names]
        decisions = [shelf.find(self.storage, GateDecision, MODEL, one.incident_id) for one in sets]
        champions = [one.champion_version if one else None for one in decisions]
        return Life(
            [
                (
                    one.batch.partition, one.outcome, one.reasons,
                    digests[one.champion_version] if one.champion_version else None,
                    one.incident_id, one.awaits_outcomes,
                )
                for one in verdicts if one
            ],
            [one.performance if one else None for one in reports],
            [one.realised if one else None for one in reports],
            [
                (one.partition, champion, one.training_rows, one.duel_rows)
                for one, champion in zip(sets, champions, strict=True)
            ],
            [
                (one.partition, one.passed, one.reasons, one.candidate, one.champion)
                for one in decisions if one
            ],
            [
                (one.action, one.partition, digests[one.version], one.incident_id)
                for one in ledger.read(self.storage, MODEL) if one.partition in names
            ],
        )  # fmt: skip


def live_in_order(world: World) -> None:
    """Take one week after the other, rows and then outcomes in one file, each wholly."""
    chance = random.Random(0)
    for number in range(WEEKS):
        for one in (*deliveries_of_rows(number), *deliveries_of_outcomes(number, 1, chance)):
            world.land(one)
            world.rest()


def live_shuffled(world: World, seed: int) -> None:
    """Let the same deliveries land in another order, while the runs are at it side by side."""
    chance = random.Random(seed)
    left = [deliveries_of_rows(number) for number in range(WEEKS)]
    left += [
        deliveries_of_outcomes(number, chance.randint(1, 5), chance) for number in range(WEEKS)
    ]
    pace = chance.choice([0.05, 0.1, 0.2, 0.5])  # few runs beside each other, or nearly all
    while left or world.active:
        is_idle = world.parked >= set(world.active)
        if left and (is_idle or chance.random() < pace):
            open_ = [one for one in left if world.may_land(one[0])]
            queue = chance.choice(open_)
            world.land(queue.pop(0))
            left = [one for one in left if one]
        else:
            awake = [name for name in world.active if name not in world.parked]
            assert awake, "every run waits for another"
            world.step(chance.choice(awake))
