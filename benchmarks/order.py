"""What is decided about landed weeks of flights, whatever order they are worked on in.

All weeks have landed; a real Airflow backfills them with 1, 4 and 10 runs at once, and every task
is held up by a random time (`--delay`, in seconds, its mean), by seeds. Verdicts, retrains,
champions and the ledger have to be those of the same weeks taken one after the other in one process
(`benchmarks.walk`). Writes var/bench/order.json; gives 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.walk import take
from include.demo import flights_feed
from include.demo.stack import Stack, StackError
from include.retraining import shelf
from include.retraining.data.validation import SUITES
from include.retraining.names import Stage, dag_id
from include.retraining.records import BatchRef, GateDecision, Verdict
from include.retraining.registry import ledger, versions
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec
from include.retraining.storage import Storage

STAGES: tuple[Stage, ...] = ("ingest", "monitor", "retrain", "guard")
DONE = {"success", "failed"}
HOURS = 3.0


def decided(spec: ModelSpec, settings: Settings, batches: list[BatchRef]) -> dict[str, list[Any]]:
    """Give what was decided, without times and without the hashes that depend on them.

    A model is known by its digest: the bytes of its artifact hold addresses of memory.
    """
    storage = Storage.of(settings)
    digests = {one.number: one.digest for one in versions.all_versions(spec, settings)}
    verdicts = [shelf.find(storage, Verdict, spec.model, batch.partition) for batch in batches]
    found: dict[str, list[Any]] = {
        "verdicts": [
            [one.batch.partition, one.outcome, one.champion_version, list(one.reasons)]
            for one in verdicts
            if one is not None
        ],
        "retrains": [],
        "ledger": [
            [one.action, one.partition, one.version, one.version_incident, digests[one.version]]
            for one in ledger.read(storage, spec.model)
        ],
    }
    for one in verdicts:
        decision = one and shelf.find(storage, GateDecision, spec.model, one.incident_id)
        if one and decision:
            found["retrains"].append(
                [one.batch.partition, decision.candidate_version, decision.passed]
            )
    return found


def in_order(
    spec: ModelSpec,
    home: Path,
    batches: list[BatchRef],
    deliveries: Mapping[str, pd.DataFrame] = {},
) -> dict[str, list[Any]]:
    """Take one week after the other, each wholly, before the next one lands."""
    settings = Settings(home=home)
    storage = Storage.of(settings)
    with threadpool_limits(1):  # as the stack's tasks: sums in another order are other models
        for batch in batches:
            flights_feed.land(storage, batch, deliveries.get(batch.partition))
            take(spec, settings, batch, SUITES)
            print(".", end="", flush=True)
    print()
    return decided(spec, settings, batches)


@contextmanager
def delayed(seed: int, mean: float) -> Iterator[Path]:
    """Give a folder of plugins that hold up every task by a time that the seed decides."""
    with tempfile.TemporaryDirectory() as folder:
        for source in (REPOSITORY / "plugins").iterdir():
            if source.name != "__pycache__":
                Path(folder, source.name).symlink_to(source)
        listener = REPOSITORY / "benchmarks" / "delay_listener.py"
        Path(folder, listener.name).symlink_to(listener)
        os.environ |= {"BENCHMARK_SEED": str(seed), "BENCHMARK_DELAY": str(mean)}
        yield Path(folder)


def backfilled(
    spec: ModelSpec, home: Path, batches: list[BatchRef], *, active: int, plugins: Path
) -> tuple[dict[str, list[Any]], int]:
    """Backfill all weeks at once through Airflow; give what was decided, and runs that failed."""
    settings = Settings(home=home, plugins=plugins)
    storage = Storage.of(settings)
    for batch in batches:
        flights_feed.land(storage, batch)
    stack = Stack(settings)
    try:
        stack.prepare()
        stack.start()
        names = {dag_id(spec.model, stage) for stage in STAGES}
        until = time.monotonic() + HOURS * 3600
        while not names <= {dag["dag_id"] for dag in stack.get("dags", tags=spec.model)["dags"]}:
            time.sleep(0.5)
        stack.backfill(spec.model, STAGES, batches, active=active)
        while time.monotonic() < until:
            time.sleep(5)
            judged = sum(
                shelf.find(storage, Verdict, spec.model, batch.partition) is not None
                for batch in batches
            )
            runs = stack.get("dags/~/dagRuns", limit=1000)["dag_runs"]
            if judged == len(batches) and all(run["state"] in DONE for run in runs):
                return decided(spec, settings, batches), sum(
                    run["state"] == "failed" for run in runs
                )
        raise StackError(f"not done after {HOURS} hours; look at {home}/logs")
    finally:
        stack.stop()


def differences(right: dict[str, list[Any]], found: dict[str, list[Any]]) -> list[str]:
    """Name every line that is not as it should be."""
    lines = []
    for kind, wanted in right.items():
        if found[kind] != wanted:
            lines.append(f"{kind}: {len(found[kind])} instead of {len(wanted)}")
            for is_, should in zip(found[kind], wanted, strict=False):
                if is_ != should:
                    lines.append(f"  {is_}\n  instead of {should}")
                    break
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.order", description=__doc__)
    parser.add_argument("--weeks", type=int, default=51)
    parser.add_argument("--first", type=int, default=0, help="the first week, counted from 0")
    parser.add_argument("--active", type=int, nargs="+", default=[1, 4, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--delay", type=float, default=0.5, help="mean, in seconds a task")
    options = parser.parse_args()
    spec = load_spec(MODELS_DIR / "flights.yaml")
    batches = [
        spec.batch_ref(spec.partition_key(spec.partitions.first + n * spec.partitions.length))
        for n in range(options.first, options.first + options.weeks)
    ]
    result: dict[str, Any] = {"weeks": options.weeks, "delay": options.delay, "backfills": []}
    target = REPOSITORY / "var" / "bench" / "order.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        right = in_order(spec, Path(folder, "in-order"), batches)
        counts = {kind: len(lines) for kind, lines in right.items()}
        print(f"in order: {counts}, {time.monotonic() - started:.0f} s", flush=True)
        result["in_order"] = {**right, "seconds": round(time.monotonic() - started)}
        for seed in options.seeds:
            for active in options.active:
                started = time.monotonic()
                with delayed(seed, options.delay) as plugins:
                    found, failed = backfilled(
                        spec, Path(folder, f"{seed}-{active}"), batches,
                        active=active, plugins=plugins,
                    )  # fmt: skip
                wrong = differences(right, found)
                seconds = round(time.monotonic() - started)
                word = "equal" if not wrong else "DIFFERENT"
                print(
                    f"seed {seed}, {active} at once: {word}, {failed} failed runs, {seconds} s",
                    *wrong, sep="\n", flush=True,
                )  # fmt: skip
                result["backfills"].append(
                    {"seed": seed, "active": active, "differences": wrong, "failed_runs": failed,
                     "seconds": seconds}
                )  # fmt: skip
                target.write_text(json.dumps(result, indent=2))
    return int(any(one["differences"] or one["failed_runs"] for one in result["backfills"]))


if __name__ == "__main__":
    sys.exit(main())
