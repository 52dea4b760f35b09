"""How often does the gate decide right about candidates whose quality is known?

``python -m benchmarks.gate`` lets simulated candidates meet a champion of AUC 0.75 on 5,000 rows, a
quarter of them positive, in three slices. The scores of each class are normal (the binormal model:
AUC = Phi(distance / sqrt 2)); those of candidate and champion are correlated within a class, as two
models of one problem are. The gate is the real one, at a margin and without; the naive rule takes
whichever AUC is higher. Prints the share of candidates promoted with its 95 % Wilson interval, and
writes ``var/bench/gate.json``. Exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from include.retraining.learning import metrics
from include.retraining.records import Performance
from include.retraining.retrain import gate
from include.retraining.retrain.duel import Duel, compare_scores
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec

RESULT = Path("var/bench/gate.json")
ROWS, POSITIVE, AUC, CORRELATION = 5000, 0.25, 0.75, 0.9
MARGIN = 0.01
SLICES = ("EWR", "JFK", "LGA")
DIFFERENCES = (2 * MARGIN, MARGIN, 0.0, -MARGIN / 2, -MARGIN)
MAX_WORSE, MIN_BETTER = 0.025, 0.95
RULES = ("margin", "no margin", "naive")


def distance(auc: float) -> float:
    """The distance between the classes' means, in standard deviations, that gives an AUC."""
    return math.sqrt(2) * NormalDist().inv_cdf(auc)


def one_duel(spec: ModelSpec, difference: float, correlation: float, seed: int) -> dict[str, bool]:
    """Draw rows and both models' scores; say who would be promoted by each rule."""
    generator = np.random.default_rng([seed, round(1e6 * (difference + 1))])
    known = (generator.random(ROWS) < POSITIVE).astype(np.float64)
    own, other = generator.normal(size=(2, ROWS))
    theirs = distance(AUC) * known + own
    shared = correlation * own + math.sqrt(1 - correlation**2) * other
    scores = distance(AUC + difference) * known + shared
    rows = pa.table({"origin": generator.choice(SLICES, ROWS)})
    ours, champion = (1 / (1 + np.exp(-column)) for column in (scores, theirs))
    found = compare_scores(spec, 1, rows=rows, known=known, scores=ours, theirs=champion)
    value = metrics.value("roc_auc", known, ours)
    held = Duel(
        Performance(metric="roc_auc", rows=ROWS, value=value, low=value, high=value),
        champion=found,
    )
    strict = spec.gate.model_copy(update={"min_gain": MARGIN})
    lenient = spec.gate.model_copy(update={"min_gain": 0.0})
    return {
        "margin": gate.passes(strict, held),
        "no margin": gate.passes(lenient, held),
        "naive": found.gain is not None and found.gain.value > 0,
    }


def some_duels(arguments: tuple[float, float, range]) -> list[dict[str, bool]]:
    """Hold the duels of some seeds."""
    difference, correlation, seeds = arguments
    spec = load_spec(MODELS_DIR / "flights.yaml")
    return [one_duel(spec, difference, correlation, seed) for seed in seeds]


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    z = NormalDist().inv_cdf(0.975)
    share = hits / runs
    middle = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    reach = z / (1 + z * z / runs) * math.sqrt(share * (1 - share) / runs + (z / 2 / runs) ** 2)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def rates(difference: float, correlation: float, runs: int, workers: int) -> dict[str, Any]:
    """The share promoted by each rule, with its interval."""
    parts = [(difference, correlation, range(n, runs, workers)) for n in range(workers)]
    with ProcessPoolExecutor(workers) as pool:
        duels = [duel for part in pool.map(some_duels, parts) for duel in part]
    found: dict[str, Any] = {"difference": difference, "correlation": correlation, "runs": runs}
    for rule in RULES:
        hits = sum(duel[rule] for duel in duels)
        low, high = wilson(hits, runs)
        found[rule] = {"share": hits / runs, "low": round(low, 4), "high": round(high, 4)}
    return found


def told(found: dict[str, float]) -> str:
    """A share with its interval."""
    share, low, high = (100 * found[name] for name in ("share", "low", "high"))
    return f"{share:5.1f} % ({low:.1f} to {high:.1f})"


def main() -> int:
    """Run the benchmark; give its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="duels for each difference")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    started = time.monotonic()
    print(f"{ROWS:,} rows, champion AUC {AUC}, {options.runs:,} duels a line; promoted in")
    head = f"margin {MARGIN}"
    print(
        f"{'truly better by':>15}  {'correlation':>11}  {head:>22}  {'margin 0':>22}  "
        "higher AUC wins"
    )
    lines = []
    for correlation in (CORRELATION, 0.7):
        for difference in DIFFERENCES if correlation == CORRELATION else (2 * MARGIN,):
            found = rates(difference, correlation, options.runs, options.workers)
            lines.append(found)
            columns = "  ".join(f"{told(found[rule]):>22}" for rule in RULES)
            print(f"{difference:+15.3f}  {correlation:11.1f}  {columns}", flush=True)
    main_lines = [line for line in lines if line["correlation"] == CORRELATION]
    worse = max(
        line[rule]["share"]
        for line in main_lines
        for rule in ("margin", "no margin")
        if line["difference"] < 0
    )
    better = next(line for line in main_lines if line["difference"] == 2 * MARGIN)
    power = better["margin"]["share"]
    print(f"worse model promoted, at most     {worse:6.1%}  (target <= {MAX_WORSE:.1%})")
    print(f"better by twice the margin        {power:6.1%}  (target >= {MIN_BETTER:.0%})")
    result = {
        "rows": ROWS,
        "margin": MARGIN,
        "worse_promoted": worse,
        "better_promoted": power,
        "seconds": round(time.monotonic() - started, 1),
        "lines": lines,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return int(worse > MAX_WORSE or power < MIN_BETTER)


if __name__ == "__main__":
    raise SystemExit(main())
