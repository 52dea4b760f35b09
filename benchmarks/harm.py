"""How often is harm told of a champion that has not fallen, and how soon of one that has?

``python -m benchmarks.harm`` simulates half years of 26 windows: AUC 0.75, a quarter positive.
*False*: half years in which any of 26 looks says that it has fallen; a duel of 200 to 5,000 rows,
windows of 500 to 5,000, that differ by 0 to 0.02 beyond their rows, and a promise that is a
candidate's own or the best of three. *Found*: how many windows after a fall for good by 3 or 2 of
all that a window differs by, 12 windows after the promotion, harm is told. *Alike*: false harm
where what windows differ by lasts (told, no target). *Rows*: falls of real scores, by the AUC alone
and with the Brier score beside it. ``--loans FOLDER``, where the data sets of NannyML's wheel are
(``pip download --no-deps nannyml``, unzipped), takes the car loans week by week instead: their
world changes on 30 March 2019. Prints shares with 95 % Wilson intervals, writes
``var/bench/harm.json``; exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import NormalDist, median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.gate import distance, wilson
from include.retraining.learning import metrics
from include.retraining.learning.fall import Series, find_fall

RESULT = Path("var/bench/harm.json")
WINDOWS, AUC, POSITIVE, BEFORE = 26, 0.75, 0.25, 12
NEEDED = 20.0
MOST_FALSE, MOST_WINDOWS = 0.05, {3: 3, 2: 6}
DUELS, ROWS, SPREADS, CHOSEN = (
    (200, 1000, 5000),
    (500, 2000, 5000),
    (0.0, 0.005, 0.01, 0.02),
    (1, 3),
)


class World(NamedTuple):
    """Rows of the duel and of a window, what windows differ by, and of how many the best was."""

    duel: int
    rows: int
    spread: float
    chosen: int
    likeness: float = 0.0


def error_of(rows: int) -> float:
    """Standard error of an AUC (Hanley and McNeil 1982)."""
    positive, negative = rows * POSITIVE, rows * (1 - POSITIVE)
    first, second = AUC / (2 - AUC), 2 * AUC**2 / (1 + AUC)
    scatter = (positive - 1) * (first - AUC**2) + (negative - 1) * (second - AUC**2)
    return float(((AUC * (1 - AUC) + scatter) / positive / negative) ** 0.5)


def realised(world: World, seed: int, *, windows: int) -> tuple[tuple[float, float], Series]:
    """Give a promise and what was realised after it, nothing having changed."""
    generator = np.random.default_rng([seed, *(round(1000 * float(one)) for one in world)])
    promised, error = error_of(world.duel), error_of(world.rows)
    duels = promised * generator.normal(size=world.chosen)
    effects = generator.normal(size=world.chosen + windows)
    for at in range(1, len(effects)):
        fresh = (1 - world.likeness**2) ** 0.5
        effects[at] = world.likeness * effects[at - 1] + fresh * effects[at]
    effects = world.spread * effects
    promise = AUC + float((duels + effects[: world.chosen]).max())
    values = AUC + effects[world.chosen :] + error * generator.normal(size=windows)
    return (promise, promised), Series(values, np.full(windows, error))


def is_false(world: World, seed: int) -> bool:
    """Does any look at half a year tell harm?"""
    promise, series = realised(world, seed, windows=WINDOWS)
    return told_at(promise, series, range(1, WINDOWS + 1)) is not None


def found_after(world: World, fall: int, seed: int) -> int:
    """After how many windows is a fall for good told? Beyond all: never."""
    promise, series = realised(world, seed, windows=BEFORE + WINDOWS)
    values, errors = series[0].copy(), series.errors
    values[BEFORE:] -= fall * float(np.hypot(world.spread, errors[0]))
    looks = range(BEFORE + 1, BEFORE + WINDOWS + 1)
    found = told_at(promise, Series(values, errors), looks)
    return (BEFORE + WINDOWS + 1 if found is None else found) - BEFORE


def told_at(promise: tuple[float, float], series: Series, looks: Sequence[int]) -> int | None:
    """Give the first look that tells harm; None: none does."""
    for look in looks:
        seen = Series(*(part[:look] for part in series))
        found = find_fall(seen, promise=promise, room=1 - promise[0])
        if found is not None and found.times > NEEDED and found.size > 0:
            return look
    return None


def scored(fall: float, seed: int) -> tuple[int, int]:
    """After how many windows of real scores is a fall told: by the AUC, and with a proper score?"""
    generator = np.random.default_rng([7, seed])
    half_width = NormalDist().inv_cdf(0.975)
    by_auc, by_brier = [], []
    for window in range(1 + BEFORE + WINDOWS):
        known = (generator.random(2000) < POSITIVE).astype(np.float64)
        apart = distance(AUC)
        signal = distance(AUC - fall) if window > BEFORE else apart
        raw = signal * known + generator.normal(size=len(known))
        odds = apart * raw - apart**2 / 2 + np.log(POSITIVE / (1 - POSITIVE))
        scores = 1 / (1 + np.exp(-odds))
        auc = metrics.measure("roc_auc", known, scores)
        by_auc.append((auc.value, (auc.high - auc.low) / 2 / half_width))
        brier = metrics.proper_score("binary", known, scores)
        by_brier.append((brier.value, brier.error))
    alone = together = None
    for look in range(BEFORE + 1, BEFORE + WINDOWS + 1):
        auc_fall, brier_fall = (
            find_fall(
                Series(*np.array(points[1 : look + 1]).T),
                promise=points[0],
                room=abs(best - points[0][0]),
            )
            for points, best in ((by_auc, 1.0), (by_brier, 0.0))
        )
        assert auc_fall is not None
        assert brier_fall is not None
        if alone is None and auc_fall.times > NEEDED:
            alone = look - BEFORE
        if together is None and (auc_fall.times + brier_fall.times) / 2 > NEEDED:
            together = look - BEFORE
    return alone or WINDOWS + 1, together or WINDOWS + 1


def loans(folder: Path) -> int:
    """When is harm told of the model that came with the car loans, promised its first week?"""
    parts = [
        pd.read_csv(folder / f"synthetic_car_loan_{part}.csv") for part in ("reference", "analysis")
    ]
    known = pd.read_csv(folder / "synthetic_car_loan_analysis_target.csv")
    rows = pd.concat([parts[0], parts[1].merge(known, on="id")])
    weeks = pd.to_datetime(rows["timestamp"]).dt.to_period("W").dt.start_time
    half_width, points = NormalDist().inv_cdf(0.975), []
    names = []
    for week, some in rows.groupby(weeks):
        if len(some) < 300:
            continue
        labels, scores = (some[name].to_numpy(np.float64) for name in ("repaid", "y_pred_proba"))
        auc = metrics.measure("roc_auc", labels, scores)
        brier = metrics.proper_score("binary", labels, scores)
        names.append(f"{week:%Y-%m-%d}")
        points.append((auc.value, (auc.high - auc.low) / 2 / half_width, brier.value, brier.error))
    told: dict[str, list[str]] = {"by the AUC": [], "by the Brier score": [], "by both": []}
    measured = np.array(points)
    for look in range(2, len(names) + 1):
        first = max(1, look - WINDOWS)
        falls = [
            find_fall(
                Series(measured[first:look, at], measured[first:look, at + 1]),
                promise=(measured[0, at], measured[0, at + 1]),
                room=abs(best - measured[0, at]),
            )
            for at, best in ((0, 1.0), (2, 0.0))
        ]
        assert falls[0] is not None
        assert falls[1] is not None
        times = falls[0].times, falls[1].times, (falls[0].times + falls[1].times) / 2
        for name, one in zip(told, times, strict=True):
            told[name] += [names[look - 1]] if one > NEEDED and falls[0].size > 0 else []
    for name, found in told.items():
        print(
            f"car loans, {len(names)} weeks, {name}: first told of {found[0] if found else 'none'}"
        )
    return int(not "2019-03-25" < told["by both"][0] <= "2019-04-15")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harm", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="simulated for each world")
    parser.add_argument("--loans", type=Path, metavar="FOLDER", help="the car loans instead")
    options = parser.parse_args()
    if options.loans:
        return loans(options.loans)
    runs = range(options.runs)
    result: dict[str, list[dict[str, Any]]] = {"false": [], "found": [], "alike": [], "rows": []}
    missed = False
    grid = [World(*one) for one in itertools.product(DUELS, ROWS, SPREADS, CHOSEN)]
    alike = [World(1000, 2000, 0.01, 1, likeness) for likeness in (0.5, 0.8)]
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as processes:
        for world in (*grid, *alike):
            false = sum(processes.map(partial(is_false, world), runs, chunksize=20))
            low, high = wilson(false, len(runs))
            is_missed = not world.likeness and low > MOST_FALSE
            missed |= is_missed
            print(
                f"false, {world}: {false / len(runs):.1%} ({low:.1%} to {high:.1%}) "
                f"{'MISSED' if is_missed else ''}",
                flush=True,
            )
            result["alike" if world.likeness else "false"].append(
                {**world._asdict(), "share": false / len(runs), "interval": [low, high]}
            )
        worst = max(result["false"], key=lambda one: one["share"])
        mean = sum(one["share"] for one in result["false"]) / len(grid)
        print(f"false: mean {mean:.1%}, worst {worst['share']:.1%} of {len(grid)} worlds")
        for fall, most in MOST_WINDOWS.items():
            few = runs[: max(20, len(runs) // 4)]
            medians = [
                median(processes.map(partial(found_after, world, fall), few, chunksize=5))
                for world in grid
            ]
            middle, worst_one = median(medians), max(medians)
            missed |= middle > most
            word = "MISSED" if middle > most else ""
            print(
                f"found, a fall by {fall} of what windows differ by: after {middle:g} windows "
                f"(median; {worst_one:g} in the worst world) {word}",
                flush=True,
            )
            result["found"].append({"fall": fall, "median": middle, "worst": worst_one})
        for fall in (0.02, 0.03):
            both = list(processes.map(partial(scored, fall), runs[:60], chunksize=5))
            alone, together = (median(one) for one in zip(*both, strict=True))
            print(
                f"rows, AUC lower by {fall}, 2,000 a window: after {alone:g} windows by the AUC, "
                f"{together:g} with the Brier score",
                flush=True,
            )
            result["rows"].append({"fall": fall, "auc": alone, "with_brier": together})
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2))
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
