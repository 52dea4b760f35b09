"""Is a gross error seen whatever windows are like, and is the check quiet where nothing happened?

``python -m benchmarks.blind`` holds one more window against a history of simulated ones. *Seen*:
every value moved by 10 standard deviations, where windows differ among themselves by 0.1 to 1.0 of
one. *Quiet*: nothing happened, in worlds in which windows differ, rows depend on each other, tails
are heavy, sizes change; a check of ten columns, or 200, counts as an alarm if any of them drifts.
*Units*: the real weeks of the flights of 2013 in order of time, one column at a time delivered in
another unit, with 20 windows of history, and with 8; and how often it is *named* as a broken feed,
or a column is that nothing happened to, or that grew by half. Prints shares with 95 % Wilson
intervals, writes ``var/bench/blind.json``; exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.gate import wilson
from include.demo import flights_feed
from include.retraining.drift.measure import measure_columns
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.records import FeatureDrift
from include.retraining.spec import Drift

RESULT = Path("var/bench/blind.json")
SETTINGS = Drift()
MOVE, ROWS = 10.0, 1000

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]  # a generator and a number of rows


class World(NamedTuple):
    """How windows of one column come about; `most` of the checks may raise an alarm."""

    name: str
    draw: Draw
    columns: int = 10
    histories: tuple[int, ...] = (4, 8, 20)
    now: float = 1.0  # times the usual rows
    most: float = 0.02


def normal(generator: np.random.Generator, rows: int, effect: float = 0.0) -> Floats:
    return generator.normal(generator.normal() * effect, 1, rows)


def student(generator: np.random.Generator, rows: int) -> Floats:
    return generator.normal(0.3 * generator.standard_t(3) / 3**0.5, 1, rows)


def heavy(generator: np.random.Generator, rows: int) -> Floats:
    return generator.standard_t(2, rows)


def skewed(generator: np.random.Generator, rows: int) -> Floats:
    return generator.lognormal(generator.normal() * 0.1, 1, rows)


def mostly_zero(generator: np.random.Generator, rows: int) -> Floats:
    counts = 1 + generator.negative_binomial(1, 0.2, rows)
    return np.where(generator.random(rows) < 0.95, 0, counts).astype(float)


def dependent(generator: np.random.Generator, rows: int) -> Floats:
    from scipy.signal import lfilter

    steps = generator.normal(size=rows + 60)
    return np.asarray(lfilter([(1 - 0.81) ** 0.5], [1, -0.9], steps))[60:]


def clustered(generator: np.random.Generator, rows: int, *, shuffled: bool) -> Floats:
    of_cluster = np.repeat(generator.normal(size=rows // 20), 20)
    values = of_cluster * 0.5**0.5 + generator.normal(size=len(of_cluster)) * 0.5**0.5
    if shuffled:
        generator.shuffle(values)
    return values


WORLDS = (
    World("rows of one law", normal),
    World("windows differ by 0.1 sd", partial(normal, effect=0.1)),
    World("windows differ by 0.3 sd", partial(normal, effect=0.3)),
    World("windows differ by 0.3 sd, heavy tails", student, most=0.1),
    World("windows differ by 0.1 sd, ten times the rows", partial(normal, effect=0.1), now=10),
    World("windows differ by 0.1 sd, a tenth of the rows", partial(normal, effect=0.1), now=0.1),
    World("neighbours alike, AR(1) 0.9", dependent),
    World("clusters of 20, shuffled", partial(clustered, shuffled=True)),
    World("clusters of 20, in order", partial(clustered, shuffled=False)),
    World("Student's t with 2 degrees of freedom", heavy),
    World("lognormal, windows differ by 0.1", skewed),
    World("counts, 95 % of them zero", mostly_zero),
    World("200 columns, windows differ by 0.1 sd", partial(normal, effect=0.1), 200, (8,)),
)
UNITS: dict[str, tuple[str, Callable[[pd.Series], pd.Series]]] = {
    "minute_of_day": ("minutes to hours", lambda x: x / 60),
    "distance": ("miles to kilometres", lambda x: x * 1.609),
    "temp": ("Fahrenheit to Celsius", lambda x: (x - 32) / 1.8),
    "dewp": ("Fahrenheit to Celsius", lambda x: (x - 32) / 1.8),
    "humid": ("per cent to a share", lambda x: x / 100),
    "wind_speed": ("miles an hour to metres a second", lambda x: x * 0.447),
    "pressure": ("hectopascals to inches", lambda x: x * 0.02953),
    "visib": ("miles to kilometres", lambda x: x * 1.609),
    "dep_delay": ("minutes to seconds", lambda x: x * 60),
    "air_time": ("minutes to seconds", lambda x: x * 60),
    "precip": ("a constant", lambda x: x * 0 + 0.5),
}


def check(
    history: Iterable[Mapping[str, Floats]], now: Mapping[str, Floats]
) -> tuple[FeatureDrift, ...]:
    tables = [pa.table(dict(one)) for one in history]
    profile = ReferenceProfile.build(tables, numeric=list(now))
    return measure_columns(profile, pa.table(dict(now)), settings=SETTINGS)


def alarms(number: int, windows: int, seed: int) -> bool:
    """Does a check of windows of one of the worlds raise an alarm?"""
    world = WORLDS[number]
    generator = np.random.default_rng([seed, windows, number])
    sizes = [ROWS] * windows + [round(ROWS * world.now)]
    drawn = [{f"x{n}": world.draw(generator, rows) for n in range(world.columns)} for rows in sizes]
    return any(one.drifted for one in check(drawn[:-1], drawn[-1]))


def seen(effect: float, windows: int, columns: int, seed: int) -> int:
    """Of how many columns is a move by ten standard deviations seen?"""
    generator = np.random.default_rng([seed, windows, columns, round(10 * effect)])
    drawn = [
        {f"x{n}": normal(generator, ROWS // 2, effect) for n in range(columns)}
        for _ in range(windows + 1)
    ]
    moved = {name: values + MOVE for name, values in drawn[-1].items()}
    return sum(one.drifted for one in check(drawn[:-1], moved))


def weeks() -> list[dict[str, Floats]]:
    """Read the weeks of 2013, each with the weather of its hours."""
    flights, weather = flights_feed._read("flights.csv.zip"), flights_feed._read("weather.csv")
    weather = weather[["origin", "time_hour", *set(UNITS) & set(weather)]]
    joined = flights.merge(weather, on=["origin", "time_hour"], how="left")
    joined["time_hour"] = pd.to_datetime(joined["time_hour"], utc=True)
    joined = joined.sort_values("time_hour", kind="stable")
    planned = joined["sched_dep_time"]
    joined["minute_of_day"] = planned // 100 * 60 + planned % 100
    first = pd.Timestamp("2013-01-07", tz="UTC")
    number = (joined["time_hour"] - first).dt.days // 7
    return [
        {name: part[name].to_numpy(np.float64) for name in UNITS}
        for at, part in joined.groupby(number)
        if 0 <= at < 51
    ]


class Week(NamedTuple):
    """What is said of a week: does it raise an alarm, in which unit is what seen and named?"""

    alarm: bool
    seen: dict[str, bool]
    named: dict[str, bool]
    falsely: int  # columns called broken of the week as it was, and of it grown by half


def units(week: list[dict[str, Floats]], history: int, at: int) -> Week:
    """Check a week as it is, in other units, and grown by half."""
    before, now = week[at - history : at], week[at]
    clean = check(before, now)
    wrong = {name: turn(pd.Series(now[name])).to_numpy() for name, (_, turn) in UNITS.items()}
    turned = check(before, wrong)
    grown = check(before, {name: 1.5 * values for name, values in now.items()})
    return Week(
        any(one.drifted for one in clean),
        {one.name: one.drifted for one in turned},
        {one.name: is_named(one) for one in turned},
        sum(is_named(one) for one in (*clean, *grown)),
    )


def is_named(column: FeatureDrift) -> bool:
    """Is the feed of a column said to have broken?"""
    return column.broken is not None and column.broken.proven


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blind", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="checks in each world")
    parser.add_argument("--moves", type=int, default=20, help="checks of moved values")
    parser.add_argument("--only", choices=("moves", "worlds", "units"), help="a part of it")
    options = parser.parse_args()
    parts = [options.only] if options.only else ["moves", "worlds", "units"]
    told: list[dict[str, object]] = []

    def tell(name: str, hits: int, runs: int, *, least: float = 0.0, most: float = 1.0) -> None:
        low, high = wilson(hits, runs)
        missed = not least <= hits / runs <= most
        word = "MISSED" if missed else ""
        share = f"{hits / runs:.1%} ({low:.1%} to {high:.1%}; {hits}/{runs})"
        print(f"{name}: {share} {word}", flush=True)
        told.append({"name": name, "hits": hits, "runs": runs, "missed": missed})

    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as processes:
        for columns in (10, 50) if "moves" in parts else ():
            for windows in (4, 8, 20):
                for effect in (0.1, 0.3, 1.0):
                    runs = max(2, options.moves * 10 // columns)
                    found = sum(processes.map(partial(seen, effect, windows, columns), range(runs)))
                    name = f"seen, windows differ by {effect} sd, {columns} columns, {windows}"
                    least = 0.95 if windows == 4 else 0.99
                    tell(f"{name} windows", found, runs * columns, least=least)
        for number, world in enumerate(WORLDS) if "worlds" in parts else ():
            runs = options.runs if world.columns == 10 else max(20, options.runs // 10)
            for windows in world.histories:
                found = sum(processes.map(partial(alarms, number, windows), range(runs)))
                tell(f"alarms, {world.name}, {windows} windows", found, runs, most=world.most)
        week = weeks()
        for history, most in ((20, 0.03), (8, 0.1)) if "units" in parts else ():
            held = list(processes.map(partial(units, week, history), range(history, len(week))))
            alarmed = sum(one.alarm for one in held)
            tell(f"alarms, real weeks, {history} windows", alarmed, len(held), most=most)
            for name, (what, _) in UNITS.items():
                hits = sum(one.seen[name] for one in held)
                least = 0.95 if history == 20 else 0.8
                tell(f"seen, {name}: {what}, {history} windows", hits, len(held), least=least)
                hits = sum(one.named[name] for one in held)
                tell(f"named, {name}: {what}, {history} windows", hits, len(held))
            checks = 2 * len(UNITS) * len(held)
            falsely = sum(one.falsely for one in held)
            tell(f"named though nothing broke, {history} windows", falsely, checks, most=0.01)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(told, indent=2))
    return int(any(one["missed"] for one in told))


if __name__ == "__main__":
    raise SystemExit(main())
