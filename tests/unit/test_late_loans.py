"""What is decided about late loans follows from their data, in whatever order their files land.

What is equal, and why. A verdict for good is made of what was known by its batch's end: rows up to
it, and outcomes whose `known_at` is no later. It is made only when all outcomes up to that end are
published, and when all earlier batches that have landed have their verdicts for good, and what
these asked for has come to a decision. So, by induction over the batches, oldest first, it follows
from the data alone: verdicts, reasons, retrains, gates, ledger, digests and realised performance
are the same in every order, as long as no batch is judged for good while an earlier one has not
landed (`World.may_land`). How a partition of outcomes is cut into files changes nothing, as it
counts when it is complete.

What cannot be equal. When a batch is to be judged for good, a file that is late and one that will
never come look the same. Who waits for it never judges if it never comes; who does not wait has
judged without it if it is late. The bundle does not wait (ADR 11): then all before the gap is
equal, and what was judged stands. Still one first training, and no empty duel. The same goes for
outcomes in a partition that is delivered again, after a verdict has counted it as complete.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from threadpoolctl import threadpool_limits

from include.retraining import shelf
from include.retraining.data import validation
from include.retraining.monitor import measuring
from include.retraining.records import BatchRef, DriftReport, Verdict
from include.retraining.registry import versions
from include.retraining.settings import Settings
from tests.unit import late_loans, pipeline
from tests.unit.late_loans import MODEL, SPEC, WEEKS, Life, World, week

SHUFFLES = 10
FIRST_TRAINING = 12


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """One thread, as a task has; what a suite says of good rows is asked once, not 500 times."""
    read, run = validation._read_suite, validation._run_suite
    suites: dict[Path | None, Any] = {}
    results: dict[str, Any] = {}

    def read_once(path: Path | None, contract: list[dict[str, Any]]) -> Any:
        if path not in suites:
            suites[path] = read(path, contract)
        return suites[path]

    def run_once(table: pa.Table, suite: Any, batch: BatchRef) -> Any:
        if suite.name not in results:
            results[suite.name] = run(table, suite, batch)
            assert results[suite.name].success
        return results[suite.name]

    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setattr(validation, "_read_suite", read_once)
        patch.setattr(validation, "_run_suite", run_once)
        yield


@pytest.fixture(scope="module")
def make_world(_empty_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], World]:
    """Make worlds in which nothing has landed yet."""
    suites = tmp_path_factory.mktemp("suites")

    def make() -> World:
        home = tmp_path_factory.mktemp("world") / "home"
        return World(pipeline.copy_home(_empty_home, home), suites)

    return make


@pytest.fixture(scope="module")
def in_order(make_world: Callable[[], World]) -> World:
    world = make_world()
    late_loans.live_in_order(world)
    assert world.waited == 0
    return world


@pytest.fixture(scope="module")
def right(in_order: World) -> Life:
    return in_order.life()


def trained_for_the_first_time(world: World) -> int:
    return sum(champion is None for _, champion, _, _ in world.life().retrains)


def test_the_stream_has_a_life_worth_comparing(in_order, right):
    outcomes = [one[1] for one in right.verdicts]
    assert len(outcomes) == WEEKS
    assert not any(one[-1] for one in right.verdicts)  # none awaits outcomes
    assert outcomes.count("retrain") >= 3
    assert [passed for _, passed, *_ in right.gates].count(False) >= 1
    assert [action for action, *_ in right.ledger].count("promotion") == 2
    promised, after = right.gates[0][3], right.performances[WEEKS - 3]
    assert promised is not None
    assert after is not None
    assert after.value < promised.value - 0.2  # the fall is seen five weeks after it came
    assert trained_for_the_first_time(in_order) == 1


@pytest.mark.parametrize("seed", range(SHUFFLES))
def test_whatever_the_order_of_landing_the_same_is_decided(make_world, right, seed):
    world = make_world()
    late_loans.live_shuffled(world, seed)
    assert world.life() == right
    assert trained_for_the_first_time(world) == 1
    assert all(one.duel_rows >= SPEC.gate.min_rows for one in world.training_sets())
    assert world.waited
    assert world.judged_again  # else nothing was shown


def test_no_retrain_is_asked_for_while_the_duel_has_too_few_labelled_rows(in_order):
    """Of the loans of the first duel's week only a few outcomes are ever told."""
    storage = in_order.storage
    verdicts = [
        shelf.find(storage, Verdict, MODEL, week(number).partition) for number in range(WEEKS)
    ]
    wanted = [one for one in verdicts if one.outcome != "ignore"]
    assert [one.outcome for one in wanted[:2]] == ["blocked", "retrain"]
    assert wanted[1].batch == week(FIRST_TRAINING)
    assert f": {late_loans.TOLD} rows from 2019-02-18 to 2019-02-25 have" in wanted[0].reasons[-1]
    for one in verdicts:
        if one.outcome == "retrain":
            assert measuring.too_few_for_a_duel(SPEC, storage, one.batch) is None
    assert all(one.duel_rows >= SPEC.gate.min_rows for one in in_order.training_sets())


def test_a_week_that_lands_after_a_later_one_was_judged_changes_nothing_before_it(
    make_world, right
):
    """The one order that cannot be equal: nobody can know that the file will come at all."""
    late, world, chance = 9, make_world(), random.Random(0)
    for number in range(FIRST_TRAINING + 2):
        if number != late:
            world.land(late_loans.deliveries_of_rows(number)[0])
        for one in late_loans.deliveries_of_outcomes(number, 1, chance):
            world.land(one)
        world.rest()
    judged = world.life(FIRST_TRAINING + 2)
    world.land(late_loans.deliveries_of_rows(late)[0])
    world.rest()
    found = world.life(FIRST_TRAINING + 2)
    assert found.verdicts[:late] == right.verdicts[:late]
    stands = [one for one in found.verdicts if one[0] != week(late).partition]
    assert stands == judged.verdicts
    assert found.ledger == judged.ledger
    assert trained_for_the_first_time(world) == 1
    assert all(one.duel_rows >= SPEC.gate.min_rows for one in world.training_sets())


def settled(world: World, number: int) -> bool:
    found = shelf.find(world.storage, Verdict, MODEL, week(number).partition)
    return found is not None and not found.awaits_outcomes


def land_outcomes(world: World, number: int) -> None:
    """Let the outcomes of a week land, and their own run end before any other moves."""
    for one in late_loans.deliveries_of_outcomes(number, 2, random.Random(number)):
        world.land(one)
    run = next(name for name in world.active if name[0].endswith("__outcomes"))
    while run in world.active:
        world.step(run)


def measured(world: World, number: int) -> tuple[str, str]:
    """Let the rows of a week land, and their monitor come to just before it measures."""
    world.land(late_loans.deliveries_of_rows(number)[0])
    monitor = (f"{MODEL}__monitor", week(number).partition)
    while monitor not in world.active:
        world.step((f"{MODEL}__ingest", week(number).partition))
    world.step(monitor)
    return monitor


def test_outcomes_that_come_between_measuring_and_the_verdict_are_judged_by(make_world):
    world = make_world()
    monitor = measured(world, 0)
    world.step(monitor)
    assert shelf.find(world.storage, DriftReport, MODEL, week(0).partition).awaits_outcomes
    assert not shelf.find(world.storage, Verdict, MODEL, week(0).partition)
    land_outcomes(world, 0)
    world.rest()
    assert settled(world, 0)


def test_outcomes_that_come_while_a_batch_is_measured_are_judged_by(make_world, monkeypatch):
    world = make_world()
    monitor = measured(world, 0)
    real = versions.champion

    def champion(spec: Any, settings: Settings) -> Any:
        monkeypatch.setattr(versions, "champion", real)
        land_outcomes(world, 0)  # its run ends before the report is kept: it asks for nothing
        assert world.judged_again == 0
        return real(spec, settings)

    monkeypatch.setattr(versions, "champion", champion)
    world.step(monitor)
    world.rest()
    assert settled(world, 0)
