"""Replays weeks of real flights through a running Airflow, with mishaps, and shows what came of it.

The replay only does what the outside world does: it pushes the weather online, lets files land,
delivers one twice, and at the end presses the rollback button. Everything else is Airflow's own
doing.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import TypeVar

import pandas as pd

from include.demo import flights_feed
from include.demo.scoreboard import Timeline, build_scoreboard, render
from include.demo.stack import Stack, StackError
from include.retraining import shelf
from include.retraining.names import Stage, dag_id
from include.retraining.records import BatchRef, GateDecision, Record, ValidationReport, Verdict
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec
from include.retraining.storage import Storage, json_bytes

# weeks after the first one: where spring turns into summer and the frozen model falls behind
FIRST = 16
PARTITIONS = 10
BAD_ROWS, BROKEN, TWICE = 4, 6, 5  # which week gets which mishap, counted from 0
STEP_SECONDS = 120.0
R = TypeVar("R", bound=Record)
DONE = {"success", "failed"}


@dataclass
class Mishap:
    """What is wrong with one delivery, on purpose."""

    partition: str
    said: str
    flights: pd.DataFrame | None = None
    again: bool = False


@dataclass
class Replay:
    """One replay: what was done, and what has to be looked at in the end."""

    spec: ModelSpec
    settings: Settings
    stack: Stack
    batches: list[BatchRef]
    mishaps: dict[str, Mishap]
    landed_at: dict[str, float] = field(default_factory=dict)

    @property
    def storage(self) -> Storage:
        """The storage the files land in."""
        return Storage.of(self.settings)


def replay(settings: Settings, *, partitions: int | None = None) -> int:
    """Run the whole demo from nothing; give 0 only if everything went as it should."""
    started = time.monotonic()
    spec = load_spec(MODELS_DIR / "flights.yaml")
    count = partitions or PARTITIONS
    if not BROKEN + 2 <= count <= 34:
        raise StackError(f"--partitions must be between {BROKEN + 2} and 34, got {count}")
    batches = [
        spec.batch_ref(spec.partition_key(spec.partitions.first + number * spec.partitions.length))
        for number in range(FIRST, FIRST + count)
    ]
    stack = Stack(settings)
    stack.stop()
    shutil.rmtree(settings.home, ignore_errors=True)
    settings.home.mkdir(parents=True)
    _say(started, f"state goes to {settings.home}")
    stack = Stack(settings)
    try:
        stack.prepare()
        _say(started, "databases are ready")
        stack.start()
        _say(started, f"Airflow is healthy at {stack.url} (login: admin / {stack.password})")
        run = Replay(spec, settings, stack, batches, _mishaps(batches))
        _switch_on(run)
        _say(
            started, f"the scheduler waits for {count} weekly files from {batches[0].partition} on"
        )
        for batch in batches:
            _one_week(run, batch, started)
        rollback_s = _rollback_drill(run, started)
        problems = _settle(run)
        timeline = Timeline.read(stack, spec, run.landed_at)
        _say(started, "computing the scoreboard")
        board = build_scoreboard(spec, settings, batches, timeline, rollback_s=rollback_s)
    finally:
        stack.stop()
    Storage(f"file://{settings.home}").write("scoreboard.json", json_bytes(board))
    print(render(board, settings))
    print(
        f"The whole demo took {time.monotonic() - started:.0f} s. `make up` shows it in Airflow "
        "and MLflow."
    )
    for problem in problems:
        print(f"NOT AS IT SHOULD BE: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _mishaps(batches: list[BatchRef]) -> dict[str, Mishap]:
    bad = flights_feed.flights_of(batches[BAD_ROWS])
    bad.loc[10:49, "distance"] = -1
    bad.loc[50:59, "origin"] = None
    bad.loc[60:64, "sched_dep"] += pd.Timedelta(days=400)
    doubled = pd.concat([bad, bad.iloc[100:120]], ignore_index=True)
    broken = flights_feed.flights_of(batches[BROKEN]).drop(columns="distance")
    found = [
        Mishap(batches[BAD_ROWS].partition, "with bad rows in it", flights=doubled),
        Mishap(batches[BROKEN].partition, "without its column `distance`", flights=broken),
        Mishap(batches[TWICE].partition, "delivered twice", again=True),
    ]
    return {mishap.partition: mishap for mishap in found}


STAGES: tuple[Stage, ...] = ("ingest", "monitor", "retrain", "guard", "rollback")


def _switch_on(run: Replay) -> None:
    """Unpause the DAGs, once Airflow has read them, and start the backfill of the weeks."""
    model = run.spec.model
    wanted = {dag_id(model, stage) for stage in STAGES}
    until = time.monotonic() + STEP_SECONDS
    while True:
        there = {dag["dag_id"] for dag in run.stack.get("dags", tags=model)["dags"]}
        if wanted <= there:
            break
        errors = run.stack.get("importErrors")["import_errors"]
        if errors or time.monotonic() > until:
            raise StackError(f"DAGs missing: {sorted(wanted - there)}; import errors: {errors}")
        time.sleep(0.5)
    run.stack.backfill(model, STAGES, run.batches)


def _one_week(run: Replay, batch: BatchRef, started: float) -> None:
    """Let one week land, and wait until everything that follows from it is done."""
    mishap = run.mishaps.get(batch.partition)
    _say(started, f"{batch.partition}: the file lands" + (f", {mishap.said}" if mishap else ""))
    flights_feed.push_weather(run.spec, run.settings, batch)
    flights_feed.land(run.storage, batch, mishap.flights if mishap else None)
    run.landed_at[batch.partition] = time.time()
    report = _await_record(run, batch, ValidationReport)
    _say(
        started,
        f"{batch.partition}: {report.rows_in:,} rows, {report.rows_good:,} good, "
        f"{report.rows_quarantined:,} quarantined"
        + (", REFUSED" if report.status == "refused" else ""),
    )
    if report.status == "refused":
        return
    verdict = _await_record(run, batch, Verdict)
    _say(started, f"{batch.partition}: verdict {verdict.outcome}: {_short(verdict.reasons[0])}")
    if verdict.outcome == "retrain":
        _await_retrain(run, verdict, started)
    if mishap and mishap.again:
        _say(started, f"{batch.partition}: the same file lands once more")
        flights_feed.land(run.storage, batch)
        run.stack.post(
            f"dags/{dag_id(run.spec.model, 'ingest')}/dagRuns",
            {
                "logical_date": None,
                "conf": {"partition": batch.partition},
                "note": "delivered twice",
            },
        )


def _await_record(run: Replay, batch: BatchRef, kind: type[R]) -> R:
    until = time.monotonic() + STEP_SECONDS
    while time.monotonic() < until:
        found = shelf.find(run.storage, kind, run.spec.model, batch.partition)
        if found is not None:
            return found
        time.sleep(0.1)
    raise StackError(
        f"{batch.partition}: no {kind.__name__} after {STEP_SECONDS:.0f} s; look at "
        f"{run.settings.home}/logs"
    )


def _await_retrain(run: Replay, verdict: Verdict, started: float) -> None:
    path = f"dags/{dag_id(run.spec.model, 'retrain')}/dagRuns/{verdict.incident_id}"
    until = time.monotonic() + STEP_SECONDS
    told = False
    while time.monotonic() < until:
        outcome = shelf.find(run.storage, GateDecision, run.spec.model, verdict.incident_id)
        if outcome is not None and not told:
            word = "passed" if outcome.passed else "rejected"
            _say(started, f"{verdict.batch.partition}: gate {word}: {_short(outcome.reasons[0])}")
            told = True
        if told and run.stack.get(path)["state"] in DONE:
            return
        time.sleep(0.3)
    raise StackError(
        f"{path} did not end within {STEP_SECONDS:.0f} s; look at {run.settings.home}/logs"
    )


def _rollback_drill(run: Replay, started: float) -> float | None:
    """Press the rollback button once and measure until the previous champion is back."""
    champions = {
        verdict.champion_version
        for batch in run.batches
        if (verdict := shelf.find(run.storage, Verdict, run.spec.model, batch.partition))
    }
    if len(champions - {None}) < 2:
        return None
    name = dag_id(run.spec.model, "rollback")
    pressed = time.monotonic()
    dag_run = run.stack.post(
        f"dags/{name}/dagRuns",
        {"logical_date": None, "conf": {"reason": "rollback drill of the demo"}},
    )["dag_run_id"]
    until = pressed + STEP_SECONDS
    while time.monotonic() < until:
        task = run.stack.get(f"dags/{name}/dagRuns/{dag_run}/taskInstances/rollback_champion")
        if task["state"] in DONE:
            seconds = time.monotonic() - pressed
            _say(started, f"rollback drill: {task['state']} after {seconds:.1f} s")
            return seconds
        time.sleep(0.1)
    raise StackError(f"the rollback drill did not end within {STEP_SECONDS:.0f} s")


def _settle(run: Replay) -> list[str]:
    """Wait for every run to end; give what did not go as it should."""
    allowed = {
        (dag_id(run.spec.model, "ingest"), mishap.partition)
        for mishap in run.mishaps.values()
        if mishap.partition == run.batches[BROKEN].partition
    }
    until = time.monotonic() + STEP_SECONDS
    while True:
        runs = run.stack.get("dags/~/dagRuns", limit=500)["dag_runs"]
        open_runs = [found for found in runs if found["state"] not in DONE]
        if not open_runs or time.monotonic() > until:
            break
        time.sleep(0.5)
    problems = [
        f"{found['dag_id']} {found['dag_run_id']} is still {found['state']}" for found in open_runs
    ]
    for found in runs:
        expected_to_fail = (found["dag_id"], found.get("partition_key")) in allowed
        if found["state"] == "failed" and not expected_to_fail:
            problems.append(f"{found['dag_id']} {found['dag_run_id']} failed")
        if found["state"] == "success" and expected_to_fail:
            problems.append(
                f"{found['dag_id']} {found['dag_run_id']} should have failed: the batch is broken"
            )
    return problems


def _short(text: str) -> str:
    return text if len(text) < 110 else text[:107] + "..."


def _say(started: float, text: str) -> None:
    print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)
