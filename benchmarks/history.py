"""What a batch costs after 20, 400 and 2,000 others: `make bench-history`.

An hourly model with a champion. Its past is laid by the same writers (tables and records), without
judging each batch; then some batches go through ingest, skew, monitor and verdict as the tasks do,
each with nothing kept from the one before it. Counts what is asked of the storage on files, and the
requests on S3 (moto), both of the whole batch; seconds are of the same batches on files.
Writes var/bench/history.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import json
import logging
import os
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.retraining import shelf
from include.retraining.data import publication, tables, validation
from include.retraining.features import feature_sets, feature_tables, skew
from include.retraining.monitor import measuring, turn
from include.retraining.records import BatchRef, DriftReport, FeatureSet, Verdict
from include.retraining.registry import succession
from include.retraining.retrain import candidate, gate, incident
from include.retraining.retrain.training_set import build_training_set
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

FIRST = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
ROWS = 200
TRAINED_AFTER = 12
MEASURED = 9
SUITE = {"name": "history", "expectations": []}


def spec_of(every: str = "hour") -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "model": "history",
            "description": "Does a sale come back?",
            "owner": "benchmarks",
            "partitions": {"every": every, "first": FIRST},
            "source": {
                "batch": "landing/{partition}.parquet",
                "key": ["id"],
                "event_time": "at",
                "columns": {
                    "id": "integer", "at": "timestamp", "shop": "integer",
                    "amount": "number", "kind": "string", "y": "integer",
                },
            },
            "label": {"column": "y", "maturity_days": 0},
            "features": {
                "service": "history_v1",
                "tables": "benchmarks.history_views:build",
                "numeric": ["amount", "mean_amount"],
                "categorical": ["kind"],
            },
            "drift": {"min_rows": 50},
            "training": {"min_rows": 500, "params": {"max_iter": 10}, "cv_folds": 0},
            "gate": {"duel_days": 0.125 if every == "hour" else 1, "min_rows": 50, "floor": 0.0},
            "retrain": {"growth": 1e6, "autonomy": 3},
        }
    )  # fmt: skip


def rows_of(batch: BatchRef, number: int) -> pa.Table:
    generator = np.random.default_rng(number)
    amount = generator.gamma(2.0, 20.0, ROWS)
    length = (batch.end - batch.start).total_seconds()
    seconds = np.sort(generator.uniform(0, length, ROWS))
    start = np.datetime64(batch.start.replace(tzinfo=None), "us")
    return pa.table(
        {
            "id": pa.array(number * ROWS + np.arange(ROWS)),
            "at": pa.array(start + (seconds * 1e6).astype("timedelta64[us]")).cast(
                pa.timestamp("us", "UTC")
            ),
            "shop": pa.array(generator.integers(0, 20, ROWS)),
            "amount": pa.array(amount),
            "kind": pa.array(generator.choice(["a", "b", "c"], ROWS)),
            "y": pa.array((generator.random(ROWS) < 1 / (1 + np.exp((amount - 40) / 20))) * 1),
        }
    )


def land(storage: Storage, batch: BatchRef, number: int) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(rows_of(batch, number), sink)
    storage.write(f"landing/{batch.partition}.parquet", sink.getvalue().to_pybytes())


class World:
    """One model in one storage."""

    def __init__(self, settings: Settings, suites: Path) -> None:
        self.spec, self.settings, self.suites = spec_of(), settings, suites
        self.storage = Storage.of(settings)
        self.done = 0
        self.template: tuple[DriftReport, Verdict] | None = None

    def batch(self, number: int) -> BatchRef:
        return self.spec.batch_ref(self.spec.partition_key(FIRST + dt.timedelta(hours=number)))

    def land(self, number: int) -> BatchRef:
        batch = self.batch(number)
        land(self.storage, batch, number)
        return batch

    def stages(self, batch: BatchRef) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Give the tasks of a batch, in order."""
        spec, settings, storage = self.spec, self.settings, self.storage
        found: dict[str, Any] = {}

        def keep(name: str, value: Any) -> None:
            found[name] = value

        yield (
            "validate",
            lambda: keep(
                "report", validation.validate_batch(spec, storage, batch, suites=self.suites)
            ),
        )
        yield "publish", lambda: publication.publish_batch(spec, storage, found["report"])
        yield (
            "features",
            lambda: (
                feature_sets.materialize(spec, settings, batch),
                feature_sets.refresh_later(spec, settings, batch),
            ),
        )
        yield "skew", lambda: skew.check_skew(spec, settings, batch)
        yield "measure", lambda: (
            turn.waits_for(
                spec, storage, batch, state_of=lambda *_: "done", is_ingesting=lambda: True
            ),
            succession.notice_hand_move(spec, settings, at=batch.end),
            keep(
                "drift",
                measuring.measure_drift(
                    spec, settings, batch,
                    learned=incident.last_training(spec, storage, batch),
                ),
            ),
        )  # fmt: skip
        yield (
            "judge",
            lambda: keep(
                "verdict",
                measuring.judge_batch(
                    spec,
                    settings,
                    found["drift"],
                    hold=lambda: incident.hold_reason(spec, storage, batch),
                ),
            ),
        )
        self.template = found["drift"], found["verdict"]

    def run(self, count: Callable[[str], Any] | None = None) -> None:
        """Take one batch through all tasks, each with nothing kept from the one before it."""
        batch = self.land(self.done)
        for name, stage in self.stages(batch):
            tables._forget()
            if count:
                count(name)
            stage()
        self.done += 1

    def train(self) -> None:
        spec, settings = self.spec, self.settings
        request = incident.open_incident(
            spec, settings, batch=self.batch(self.done - 1), trigger="manual", reason="benchmark",
            run_id="benchmark", force=True,
        )  # fmt: skip
        found = candidate.train_candidate(
            spec, settings, request, build_training_set(spec, settings, request)
        )
        decision = gate.decide(spec, settings, request, found)
        assert decision.passed, decision.reasons
        succession.promote(spec, settings, decision, actor="benchmark", at=FIRST)

    def lay(self, until: int) -> None:
        """Lay batches with tables and records, as they are after each was ingested and judged."""
        spec, storage = self.spec, self.storage
        assert self.template is not None
        drift, verdict = self.template
        joined = tables.Table(storage, shelf.joined_key(spec.model))
        rows = tables.Table(storage, shelf.table_key(spec.model, "rows", "batch"))
        while self.done < until:
            batch = self.land(self.done)
            good = rows_of(batch, self.done)
            rows.replace(batch.partition, good, content=f"{self.done:032x}", order=1)
            there = feature_tables.look(spec, storage)
            feature_tables.make_tables(spec, storage, there, [batch])
            digest = feature_sets._digest(spec, there, batch)
            means = pa.array(np.full(ROWS, 40.0))
            version = joined.replace(
                batch.partition, good.append_column("mean_amount", means),
                content=digest, order=there.order,
            ).version  # fmt: skip
            for record in (
                FeatureSet(
                    batch=batch, service=spec.features.service, rows=ROWS, table_version=version,
                    file="-",
                    seen_from=None, sha256=digest,
                ),
                drift.model_copy(update={"batch": batch, "content_sha256": digest}),
                verdict.model_copy(update={"batch": batch, "content_sha256": digest}),
            ):  # fmt: skip
                shelf.keep(storage, record)
            self.done += 1


class Operations:
    """Counts what is asked of the storage, by task: its own methods, and those of its tables."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.task = "landing"
        for owner, name in (
            (Storage, "exists"), (Storage, "read"), (Storage, "write"), (Storage, "create"),
            (Storage, "delete"), (Storage, "delete_all"), (Storage, "list_versions"),
            (Storage, "_open"),
            (tables.Table, "snapshot"), (tables.Table, "_commit"), (tables.Snapshot, "_read_part"),
        ):  # fmt: skip
            self._count(owner, name)

    def _count(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.counts[self.task] = self.counts.get(self.task, 0) + 1
            return real(*arguments, **named)

        setattr(owner, name, counted)

    def begin(self, task: str) -> None:
        self.task = task

    def take(self) -> dict[str, int]:
        counts, self.counts = self.counts, {}
        return counts


@contextmanager
def s3_server(operations: Operations) -> Iterator[dict[str, int]]:
    """Run an S3 server; give its requests by task."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    requests: dict[str, int] = {}
    lock, app = threading.Lock(), server._server.app

    def serve(environ: Any, start_response: Any) -> list[bytes]:
        with lock:
            requests[operations.task] = requests.get(operations.task, 0) + 1
            return list(app(environ, start_response))

    server._server.app = serve
    url = "http://{}:{}".format(*server.get_host_and_port())
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="history")
    yield requests
    server.stop()


def measure(
    world: World, operations: Operations, requests: dict[str, int] | None
) -> dict[str, Any]:
    """Take some batches through; give the medians of what one costs."""
    seconds, counts, asked = [], [], []
    for _ in range(MEASURED):
        operations.take()
        if requests is not None:
            requests.clear()
        started = time.perf_counter()
        world.run(operations.begin)
        seconds.append(time.perf_counter() - started)
        counts.append(operations.take())
        operations.begin("landing")
        counts[-1].pop("landing", None)  # what a producer does
        if requests is not None:
            asked.append(dict(requests))
            asked[-1].pop("landing", None)
    middle = sorted(range(MEASURED), key=lambda n: sum(counts[n].values()))[MEASURED // 2]
    found = {
        "seconds": statistics.median(seconds),
        "operations": statistics.median(sum(one.values()) for one in counts),
        "operations_by_task": counts[middle],
    }
    if requests is not None:
        found["requests"] = statistics.median(sum(one.values()) for one in asked)
        found["requests_most"] = max(sum(one.values()) for one in asked)
        found["requests_by_task"] = asked[middle]
    return found


def history(
    settings: Settings, suites: Path, sizes: list[int], operations: Operations,
    requests: dict[str, int] | None,
) -> list[dict[str, Any]]:  # fmt: skip
    world, found = World(settings, suites), []
    for _ in range(TRAINED_AFTER):
        world.run()
    world.train()
    world.run()
    for size in sizes:
        world.lay(max(size, world.done))
        world.run()  # whatever happens once happens now
        found.append({"batches": size, **measure(world, operations, requests)})
        print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 400, 2000])
    parser.add_argument("--only", choices=["files", "s3"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.modules["feature_repo.history_views"] = importlib.import_module("benchmarks.history_views")
    operations, result = Operations(), {"batches": options.sizes}
    with tempfile.TemporaryDirectory() as folder:
        suites = Path(folder, "suites")
        suites.mkdir()
        (suites / "history.json").write_text(json.dumps(SUITE))
        if options.only != "s3":
            found = history(
                Settings(home=Path(folder, "files")), suites, options.sizes, operations, None
            )
            result["operations"] = [one["operations"] for one in found]
            result["seconds"] = [round(one["seconds"], 3) for one in found]
            result["files"] = found
        if options.only != "files":
            with s3_server(operations) as requests:
                settings = Settings(home=Path(folder, "s3"), storage_url="s3://history/s")
                settings.home.mkdir()
                found = history(settings, suites, options.sizes, operations, requests)
            result["requests_s3"] = [one["requests"] for one in found]
            result["s3"] = found
    target = REPOSITORY / "var" / "bench" / "history.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2))
    print(
        {
            name: result[name]
            for name in ("batches", "operations", "requests_s3", "seconds")
            if name in result
        }
    )
    print(f"written to {target}")


if __name__ == "__main__":
    main()
