"""Memory, CPU and disk of large and of many batches: `make bench-volume`.

Each figure is taken in a process of its own: the peak of its memory above what its imports take,
and its CPU seconds. `state` walks a year of batches and holds what is on disk
against what has landed. Writes var/bench/volume.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from include.retraining.settings import REPOSITORY

WEEK = "2013-04-15"
POINTS = 4  # at which it is told what there is, so that growth can be read off


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "case", nargs="*", default=["1m", "5m", "wide", "daily", "retained", "hours", "weekly"]
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(CASES[options.case[0]]()))
        return
    target = REPOSITORY / "var" / "bench" / "volume.json"
    result = json.loads(target.read_text()) if target.exists() else {}
    for case in options.case:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.volume", "--inside", case]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            print(answer.stderr[-3000:], file=sys.stderr)
            raise SystemExit(1)
        result[case] = json.loads(answer.stdout.strip().splitlines()[-1])
        print(case, json.dumps(result[case], indent=1), flush=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result, indent=2))


class Meter:
    """CPU seconds by step, and the peak of memory above what there was when it began."""

    def __init__(self) -> None:
        self.base = _resident()
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}

    def step(self, name: str, work: Any) -> Any:
        started = time.process_time()
        found = work()
        self.seconds[name] = round(time.process_time() - started, 2)
        self.peaks[name] = round(_peak() - self.base)
        return found

    def result(self) -> dict[str, Any]:
        return {
            "cpu_s": round(sum(self.seconds.values()), 2),
            "cpu_by_step": self.seconds,
            "peak_mb_above_imports": round(_peak() - self.base),
            "peak_mb_up_to_step": self.peaks,
            "imports_mb": round(self.base),
        }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _import_everything() -> None:
    for name in ("great_expectations", "great_expectations.expectations.core", "feast", "mlflow",
                 "mlflow.sklearn", "sklearn.ensemble", "scipy.stats", "duckdb", "deltalake",
                 "feature_repo.flights_views", "benchmarks.walk"):  # fmt: skip
        importlib.import_module(name)


def _flights(rows: int) -> tuple[bytes, bytes]:
    """Give one week of flights, repeated under other flight numbers, and its weather."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from include.demo import flights_feed
    from include.retraining.spec import MODELS_DIR, load_spec

    batch = load_spec(MODELS_DIR / "flights.yaml").batch_ref(WEEK)
    week = pa.Table.from_pandas(flights_feed.flights_of(batch), preserve_index=False)
    place = week.column_names.index("flight")
    parts, number = [], 0
    while sum(part.num_rows for part in parts) < rows:
        flight = pc.add(week.column("flight").cast(pa.int64()), number * 10_000)
        parts.append(week.set_column(place, "flight", flight))
        number += 1
    contents = []
    frame = flights_feed.weather_of(batch)
    for table in (pa.concat_tables(parts).slice(0, rows), pa.Table.from_pandas(frame)):
        sink = io.BytesIO()
        pq.write_table(table, sink)
        contents.append(sink.getvalue())
    return contents[0], contents[1]


def _land(storage: Any, rows: int) -> None:
    """Land it from another process: making it takes memory of its own."""
    script = (
        "import sys; from benchmarks.volume import _flights; "
        "from include.retraining.storage import Storage\n"
        "for key, content in zip(sys.argv[3:], _flights(int(sys.argv[2]))): "
        "Storage(sys.argv[1]).write(key, content)"
    )
    keys = [f"landing/{name}/{WEEK}.parquet" for name in ("flights", "weather")]
    command = [sys.executable, "-W", "ignore", "-c", script, storage.url, str(rows), *keys]
    subprocess.run(command, check=True)


def rows_of(count: int, *, champion: bool) -> dict[str, Any]:
    """Validate, publish and join so many rows; with a champion, measure them as well."""
    from benchmarks import walk
    from include.retraining.monitor import measuring
    from include.retraining.settings import Settings
    from include.retraining.spec import MODELS_DIR, load_spec
    from include.retraining.storage import Storage

    warnings.simplefilter("ignore")
    _import_everything()
    spec = load_spec(MODELS_DIR / "flights.yaml")
    small = {"min_rows": 3000, "params": {"max_iter": 10, "early_stopping": False}}
    spec = spec.model_copy(update={"training": spec.training.model_copy(update=small)})
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        storage, batch = Storage.of(settings), spec.batch_ref(WEEK)
        _land(storage, count)
        if champion:  # made elsewhere: its memory is not what is measured
            script = (
                "import sys, warnings; warnings.simplefilter('ignore'); "
                "from benchmarks.volume import _champion; _champion(sys.argv[1])"
            )
            command = [sys.executable, "-W", "ignore", "-c", script, folder]
            subprocess.run(command, check=True, capture_output=True)
        meter = Meter()
        report = meter.step(
            "validate",
            lambda: walk.validation.validate_batch(spec, storage, batch, suites=_suites(folder)),
        )
        assert report.rows_good > count * 0.9, report.findings
        meter.step("publish", lambda: walk.publication.publish_batch(spec, storage, report))
        meter.step("features", lambda: walk.feature_sets.materialize(spec, settings, batch))
        if champion:
            drift = meter.step("measure", lambda: measuring.measure_drift(spec, settings, batch))
            assert drift.performance is not None
        return {"rows": count, **meter.result()}


@contextlib.contextmanager
def _history_place() -> Iterator[tuple[Path, Path]]:
    """Give a home and the folder of the suite of `benchmarks.history`, whose views can be found."""
    from benchmarks import history

    warnings.simplefilter("ignore")
    sys.modules["feature_repo.history_views"] = importlib.import_module("benchmarks.history_views")
    with tempfile.TemporaryDirectory() as folder:
        home, suites = Path(folder, "home"), Path(folder, "suites")
        suites.mkdir()
        (suites / "history.json").write_text(json.dumps(history.SUITE))
        yield home, suites


def _suites(folder: str) -> Path:
    """Copy the suites of the flights, with room for more rows than a week has."""
    from include.retraining.data.validation import SUITES

    copies = Path(folder, "suites")
    copies.mkdir()
    for path in SUITES.glob("flights*.json"):
        content = json.loads(path.read_text())
        for one in content["expectations"]:
            if one["type"] == "expect_table_row_count_to_be_between":
                one["kwargs"]["max_value"] = 10**9
        (copies / path.name).write_text(json.dumps(content))
    return copies


def _champion(home: str) -> None:
    """Make a champion from the weeks before."""
    from benchmarks import walk
    from include.demo import flights_feed
    from include.retraining.data.validation import SUITES
    from include.retraining.settings import Settings
    from include.retraining.spec import MODELS_DIR, load_spec
    from include.retraining.storage import Storage

    settings, spec = Settings(home=Path(home)), load_spec(MODELS_DIR / "flights.yaml")
    small = {"min_rows": 9000, "params": {"max_iter": 10, "early_stopping": False}}
    spec = spec.model_copy(update={"training": spec.training.model_copy(update=small)})
    for back in (5, 4, 3, 2, 1):
        start = spec.batch_ref(WEEK).start - back * spec.partitions.length
        batch = spec.batch_ref(spec.partition_key(start))
        flights_feed.land(Storage.of(settings), batch)
        step = walk.take(spec, settings, batch, SUITES)
        if step.decision is not None and step.decision.passed:
            return
    raise SystemExit("no champion")


def wide() -> dict[str, Any]:
    """350 columns of 20,000 rows: validation, and the report of a batch whose columns all moved."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchmarks import walk
    from include.retraining.monitor import measuring
    from include.retraining.settings import Settings
    from include.retraining.storage import Storage

    warnings.simplefilter("ignore")
    sys.modules["feature_repo.wide_views"] = importlib.import_module("benchmarks.wide_views")
    _import_everything()
    spec, names = wide_spec(), [f"x{number}" for number in range(350)]
    rules = [
        {"type": kind, "severity": "critical", "kwargs": {"column": name, **limits}}
        for name in names
        for kind, limits in (
            ("expect_column_values_to_not_be_null", {}),
            ("expect_column_values_to_be_between", {"min_value": -99, "max_value": 99}),
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        suites = Path(folder, "suites")
        suites.mkdir()
        (suites / "wide.json").write_text(json.dumps({"name": "wide", "expectations": rules}))
        settings = Settings(home=Path(folder, "home"))
        storage, meter, step = Storage.of(settings), None, None
        for day in range(7):
            generator = np.random.default_rng(day)
            batch = spec.batch_ref(f"2024-01-{day + 1:02d}")
            start = np.datetime64(batch.start.replace(tzinfo=None), "us")
            seconds = np.sort(generator.uniform(0, 86400, 20_000))
            values = generator.normal(0.0 if day < 6 else 1.0, 1.0, (350, 20_000))
            chance = 1 / (1 + np.exp(-values[0]))
            table = pa.table(
                {
                    "id": np.arange(20_000) + day * 20_000,
                    "at": pa.array(start + (seconds * 1e6).astype("timedelta64[us]")).cast(
                        pa.timestamp("us", "UTC")
                    ),
                    "y": (generator.random(20_000) < chance).astype("int64"),
                    **dict(zip(names, values, strict=True)),
                }
            )
            sink = io.BytesIO()
            pq.write_table(table, sink)
            storage.write(f"landing/{batch.partition}.parquet", sink.getvalue())
            if day < 6:
                step = walk.take(spec, settings, batch, suites)
        assert step is not None
        meter = Meter()
        report = meter.step(
            "validate", lambda: walk.validation.validate_batch(spec, storage, batch, suites=suites)
        )
        meter.step("page", lambda: walk.validation_page.publish_page(spec, storage, report))
        walk.publication.publish_batch(spec, storage, report)
        walk.feature_sets.materialize(spec, settings, batch)
        drift = meter.step("measure", lambda: measuring.measure_drift(spec, settings, batch))
        verdict = meter.step("judge", lambda: measuring.judge_batch(spec, settings, drift))
        assert verdict.outcome != "ignore", verdict
        assert drift.champion_version is not None
        published = meter.step(
            "publish_report",
            lambda: walk.drift_report.publish_report(spec, settings, drift, verdict),
        )
        return {**meter.result(), "pages_bytes": sum(len(storage.read(k)) for k in published.pages)}


def wide_spec() -> Any:
    from include.retraining.spec import ModelSpec

    names = [f"x{number}" for number in range(350)]
    return ModelSpec.model_validate(
        {
            "model": "wide", "description": "d", "owner": "o",
            "partitions": {"every": "day", "first": "2024-01-01"},
            "source": {
                "batch": "landing/{partition}.parquet", "key": ["id"], "event_time": "at",
                "columns": {"id": "integer", "at": "timestamp", "y": "integer"}
                | dict.fromkeys(names, "number"),
            },
            "label": {"column": "y", "maturity_days": 0},
            "features": {
                "service": "wide_v1", "tables": "benchmarks.wide_views:build", "numeric": names,
            },
            "training": {"min_rows": 30_000, "params": {"max_iter": 5}, "cv_folds": 0},
            "gate": {"duel_days": 1, "floor": 0.0},
            "retrain": {"autonomy": 3, "cool_down_days": 30},
        }
    )  # fmt: skip


def state(kind: str, days: int = 365) -> dict[str, Any]:
    """Walk a year; give what is on disk for each byte that landed.

    ``retained`` keeps 60 days of daily batches and the rows of three versions, lets ``mlflow gc``
    free what was deleted, and gives what there is after each quarter: batches and tables, and apart
    from them MLflow, which keeps its runs.
    """
    from benchmarks import history, walk
    from include.demo import flights_feed
    from include.retraining.data.validation import SUITES
    from include.retraining.settings import Settings
    from include.retraining.spec import MODELS_DIR, load_spec
    from include.retraining.storage import Storage

    with _history_place() as (home, own):
        settings = Settings(home=home)
        storage, started, retrains = Storage.of(settings), time.process_time(), 0
        if kind == "weekly":
            spec, count, suites = load_spec(MODELS_DIR / "flights.yaml"), 51, SUITES
        else:
            spec, count, suites = history.spec_of(every="day"), days, own
        clock = _Clock(home, days=count) if kind == "retained" else None
        outcomes: dict[str, int] = {}
        quarters: list[dict[str, int]] = []
        for number in range(count):
            start = spec.partitions.first + number * spec.partitions.length
            batch = spec.batch_ref(spec.partition_key(start))
            if kind == "weekly":
                flights_feed.land(storage, batch)
            else:
                history.land(storage, batch, number)
            step = walk.take(spec, settings, batch, suites)
            retrains += step.decision is not None
            outcomes[step.verdict.outcome] = outcomes.get(step.verdict.outcome, 0) + 1
            if clock is not None:
                clock.pass_(dt.timedelta(days=1))
                walk.sweep(_kept(spec, clock, days=60.0, versions=3), settings, batch)
                if (number + 1) % (count // POINTS) == 0:
                    _collect_garbage(settings)
                    quarters.append(_without_landed(_sizes(home)))
        sizes = _sizes(home)
        landed = sum(size for place, size in sizes.items() if place.startswith("storage/landing"))
        kept = sum(sizes.values()) - landed
        return {
            "batches": count, "retrains": retrains, "outcomes": outcomes, "landed_bytes": landed,
            "state_bytes": kept, "times_landed": round(kept / landed, 1),
            "by_place": dict(sorted(sizes.items(), key=lambda one: -one[1])[:15]),
            "cpu_s": round(time.process_time() - started),
            "quarters": quarters,
        }  # fmt: skip


def hours(count: int = 480) -> dict[str, Any]:
    """Lay 20 days of hourly batches, keep one day of them, and superseded files for another one.

    Tables and records are laid by the writers that tasks use, without judging each batch. A tenth
    of the batches is delivered a second time a day later. Gives what there is after each five
    days.
    """
    from benchmarks import history, walk
    from include.retraining import shelf
    from include.retraining.data import tables
    from include.retraining.settings import Settings

    with _history_place() as (home, suites):
        settings, started = Settings(home=home), time.process_time()
        clock = _Clock(home, days=count / 24 + 1)
        world = history.World(settings, suites)
        for _ in range(history.TRAINED_AFTER):
            world.run()
        world.train()
        world.run()  # what it comes to is what is laid
        rows = tables.Table(world.storage, shelf.table_key("history", "rows", "batch"))
        points = []
        while world.done < count:
            number = world.done
            world.lay(number + 1)
            if number % 10 == 0 and number >= 24:
                before = world.batch(number - 24)
                again = history.rows_of(before, number).slice(5)
                rows.replace(before.partition, again, content=f"{number:032x}", order=2)
            clock.pass_(dt.timedelta(hours=1))
            kept = _kept(world.spec, clock, days=1.0, versions=3, superseded_days=1.0)
            walk.sweep(kept, settings, world.batch(number))
            if (number + 1) % (count // POINTS) == 0:
                sizes = _without_landed(_sizes(home))
                log = home.glob("storage/history/tables/**/_delta_log/*")
                points.append(sizes | {"logs": sum(path.stat().st_size for path in log)})
        return {
            "batches": count, "points": points,
            "cpu_s": round(time.process_time() - started),
        }  # fmt: skip


class _Clock:
    """A clock that has gone back so many days and is set forward batch by batch.

    It stands for `time` where tables are written, and files are made as old as it says. So what a
    sweep finds is as old as it would be, at the settings that everybody has.
    """

    def __init__(self, home: Path, *, days: float) -> None:
        from include.retraining.data import delta_log, tables

        self.home = home
        self.now = self.aged = time.time() - days * 86_400
        for module in (tables, delta_log):
            module.time = self  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    @property
    def days_ahead(self) -> float:
        """Give by how many days the clock of everybody else is ahead."""
        return (time.time() - self.now) / 86_400

    def pass_(self, span: dt.timedelta) -> None:
        """Set it forward; once a day make all files that came since as old as it says."""
        self.now += span.total_seconds()
        if self.now < self.aged + 86_400:
            return
        self.aged = self.now
        for path in self.home.glob("storage/*/tables/**/*"):
            if path.is_file() and path.stat().st_mtime > self.now:
                os.utime(path, (self.now, self.now))


def _kept(
    spec: Any, clock: _Clock, *, days: float, versions: int, superseded_days: float = 7.0
) -> Any:
    """Give a model that keeps so much.

    A sweep goes by the clock of whoever keeps the files, which is ahead of ours.
    """
    age = superseded_days + clock.days_ahead
    kept = {"days": days, "versions": versions, "superseded_days": age}
    retention = type(spec.retention).model_validate(spec.retention.model_dump() | kept)
    return spec.model_copy(update={"retention": retention})


def _collect_garbage(settings: Any) -> None:
    uri = settings.mlflow_tracking_uri
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "gc", "--backend-store-uri", uri]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    subprocess.run(command, check=True, capture_output=True, env=environment)


def _sizes(home: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path in home.rglob("*"):
        if path.is_file():
            parts = path.relative_to(home).parts
            place = "/".join(parts[:3]) if parts[0] == "storage" else parts[0]
            sizes[place] = sizes.get(place, 0) + path.stat().st_size
    return sizes


def _without_landed(sizes: dict[str, int]) -> dict[str, int]:
    storage = {place: size for place, size in sizes.items() if place.startswith("storage/")}
    batches = sum(size for place, size in storage.items() if "/landing" not in place)
    return {"storage": batches, "mlflow": sizes["mlflow.db"] + sizes.get("mlflow-artifacts", 0)}


CASES = {
    "1m": lambda: rows_of(1_000_000, champion=False),
    "5m": lambda: rows_of(5_000_000, champion=True),
    "wide": wide,
    "daily": lambda: state("daily"),
    "retained": lambda: state("retained"),
    "hours": hours,
    "weekly": lambda: state("weekly"),
}

if __name__ == "__main__":
    main()
