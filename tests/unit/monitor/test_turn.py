"""What is decided follows the order of the data, whichever batch is ingested first."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks import history
from include.retraining import shelf
from include.retraining.data import publication, validation
from include.retraining.features import feature_sets
from include.retraining.monitor import measuring
from include.retraining.monitor.turn import waits_for
from include.retraining.names import dag_id
from include.retraining.records import PipelineRun, ValidationReport, Verdict
from include.retraining.registry import ledger, succession
from include.retraining.retrain import candidate, gate, incident
from include.retraining.retrain.training_set import build_training_set
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

DAYS = 20


class World:
    """The runs of one model as a scheduler has them: each stops between its tasks."""

    def __init__(self, home: Path, suites: Path) -> None:
        found = history.spec_of(every="day")
        often = found.retrain.model_copy(update={"growth": 0.3, "max_per_30_days": 30})
        self.spec: ModelSpec = found.model_copy(update={"retrain": often})
        self.settings = Settings(home=home)
        self.storage = Storage.of(self.settings)
        self.suites = suites
        self.batches = [
            self.spec.batch_ref(
                self.spec.partition_key(history.FIRST + n * found.partitions.length)
            )
            for n in range(DAYS)
        ]
        self.active: dict[tuple[str, str], Iterator[None]] = {}
        self.started: set[tuple[str, str]] = set()
        self.waited = 0

    def start(self, stage: str, run_id: str, steps: Iterator[None]) -> None:
        self.active[dag_id(self.spec.model, stage), run_id] = steps
        self.started.add((dag_id(self.spec.model, stage), run_id))

    def ingest(self, number: int) -> Iterator[None]:
        batch = self.batches[number]
        report = validation.validate_batch(self.spec, self.storage, batch, suites=self.suites)
        yield
        publication.publish_batch(self.spec, self.storage, report)
        yield
        feature_sets.materialize(self.spec, self.settings, batch)
        feature_sets.refresh_later(self.spec, self.settings, batch)
        self.start("monitor", batch.partition, self.monitor(number))

    def monitor(self, number: int) -> Iterator[None]:
        spec, storage, batch = self.spec, self.storage, self.batches[number]

        def state_of(dag: str, run_id: str):
            if (dag, run_id) in self.active:
                return "active"
            return "done" if (dag, run_id) in self.started else None

        def is_ingesting() -> bool:
            return any(dag == dag_id(spec.model, "ingest") for dag, _ in self.active)

        yield
        while waits_for(spec, storage, batch, state_of=state_of, is_ingesting=is_ingesting):
            self.waited += 1
            run = PipelineRun(batch=batch, stage="monitor", run_id=batch.partition)
            shelf.keep_run(storage, run)
            yield
        learned = incident.last_training(spec, storage, batch)
        report = measuring.measure_drift(spec, self.settings, batch, learned=learned)
        yield
        hold = partial(incident.hold_reason, spec, storage, batch)
        verdict = measuring.judge_batch(spec, self.settings, report, hold=hold)
        yield  # the request is a task of its own
        if verdict.outcome == "retrain":
            self.start("retrain", verdict.incident_id, self.retrain(verdict))

    def retrain(self, verdict: Verdict) -> Iterator[None]:
        spec, settings = self.spec, self.settings
        yield
        request = incident.open_incident(
            spec, settings, batch=verdict.batch, trigger="monitor",
            reason="; ".join(verdict.reasons), run_id=verdict.incident_id,
        )  # fmt: skip
        yield
        rows = build_training_set(spec, settings, request)
        found = candidate.train_candidate(spec, settings, request, rows)
        yield
        decision = gate.decide(spec, settings, request, found)
        yield
        if decision.passed:
            at = verdict.batch.end
            succession.promote(spec, settings, decision, actor="test", at=at)

    def run(self, at_once: int, seed: int) -> None:
        chance, left = random.Random(seed), list(range(DAYS))
        for number in left:
            history.land(self.storage, self.batches[number], number)
        while left or self.active:
            ingests = [one for one in self.active if one[0].endswith("__ingest")]
            # ingests end in any order: who is let in is not always the oldest either
            while left and len(ingests) < at_once:
                number = left.pop(chance.randrange(min(len(left), at_once)))
                self.start("ingest", self.batches[number].partition, self.ingest(number))
                ingests.append((dag_id(self.spec.model, "ingest"), self.batches[number].partition))
            chosen = chance.choice(list(self.active))
            try:
                next(self.active[chosen])
            except StopIteration:
                del self.active[chosen]


class Life(NamedTuple):
    verdicts: list[tuple[str, int | None, str]]
    ledger: list[tuple[str, int, str]]


def lived(world: World) -> Life:
    names = [one.partition for one in world.batches]
    verdicts = [shelf.find(world.storage, Verdict, "history", name) for name in names]
    entries = ledger.read(world.storage, "history")
    return Life(
        [(one.outcome, one.champion_version, one.incident_id) for one in verdicts],
        [(one.action, one.version, one.incident_id) for one in entries],
    )


@pytest.fixture(scope="module")
def suites(tmp_path_factory) -> Path:
    import json

    sys.modules["feature_repo.history_views"] = importlib.import_module("benchmarks.history_views")
    folder = tmp_path_factory.mktemp("suites")
    (folder / "history.json").write_text(json.dumps(history.SUITE))
    return folder


@pytest.fixture(scope="module")
def in_order(suites, tmp_path_factory) -> Life:
    world = World(tmp_path_factory.mktemp("order"), suites)
    for number in range(DAYS):
        history.land(world.storage, world.batches[number], number)
        world.start("ingest", "one", world.ingest(number))
        while world.active:
            for chosen, steps in list(world.active.items()):
                try:
                    next(steps)
                except StopIteration:
                    del world.active[chosen]
    assert world.waited == 0
    return lived(world)


@pytest.mark.parametrize(("at_once", "seed"), [(1, 0), (4, 1), (10, 2), (10, 3)])
def test_a_backfill_decides_what_the_days_one_by_one_decide(
    in_order, suites, tmp_path, at_once, seed
):
    world = World(tmp_path, suites)
    world.run(at_once, seed)
    assert lived(world) == in_order
    assert [one[0] for one in in_order.verdicts].count("retrain") >= 3
    assert at_once == 1 or world.waited  # else nothing was shown


@pytest.fixture
def world(suites, tmp_path) -> World:
    return World(tmp_path, suites)


def wait(world: World, number: int, *, states=None, ingesting=False):
    return waits_for(
        world.spec, world.storage, world.batches[number],
        state_of=lambda dag, run: (states or {}).get(run), is_ingesting=lambda: ingesting,
    )  # fmt: skip


def accepted(world: World, number: int, status="accepted") -> None:
    history.land(world.storage, world.batches[number], number)
    report = validation.validate_batch(
        world.spec, world.storage, world.batches[number], suites=world.suites
    )
    shelf.keep(world.storage, report.model_copy(update={"status": status}))
    assert shelf.find(world.storage, ValidationReport, "history", world.batches[number].partition)


def test_nothing_is_waited_for_that_will_not_come(world):
    assert wait(world, 3) is None  # nothing has landed
    history.land(world.storage, world.batches[2], 2)
    assert wait(world, 3) is None  # and nobody ingests it
    accepted(world, 1, status="refused")
    assert wait(world, 3) is None
    accepted(world, 0)
    run = PipelineRun(batch=world.batches[0], stage="ingest", run_id="broke")
    shelf.keep_run(world.storage, run)
    assert wait(world, 3, states={"broke": "failed"}) is None


def test_what_is_on_its_way_is_waited_for(world):
    history.land(world.storage, world.batches[2], 2)
    found = wait(world, 3, ingesting=True)
    assert (found.ahead, found.is_certain) == (1, False)
    assert world.batches[2].partition in found.why
    accepted(world, 1)
    found = wait(world, 3, ingesting=True)
    assert (found.ahead, found.is_certain) == (2, False)
    run = PipelineRun(batch=world.batches[1], stage="monitor", run_id="waits itself")
    shelf.keep_run(world.storage, run)
    found = wait(world, 3, ingesting=True, states={"waits itself": "active"})
    assert (found.ahead, found.is_certain) == (2, True)
    assert world.batches[1].partition in found.why
