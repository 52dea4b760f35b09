"""Feast's view of `flights`: two entities, three tables, two facts on request, one service.

Paths are below the storage root; the tables are made by `flights_tables.build`. The weather is
pushed online every hour; in the demo, by `include/demo/flights_feed.py`.
"""

from __future__ import annotations

import datetime as dt

import pandas as pd
from feast import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RequestSource,
    ValueType,
)
from feast.data_format import ParquetFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String

carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)
origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)


def _source(table: str) -> FileSource:
    return FileSource(
        name=f"flights_{table}",
        path=f"flights/tables/features/{table}",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
    )


weather_feed = PushSource(name="flights_weather_feed", batch_source=_source("weather"))
weather = FeatureView(
    name="flights_weather",
    entities=[origin],
    ttl=dt.timedelta(hours=3),  # observations are hourly; a gap longer than this is no weather
    source=weather_feed,  # hourly, in between of batches: no batch loads it online
    schema=[
        Field(name="origin", dtype=String),
        Field(name="temp", dtype=Float64),
        Field(name="dewp", dtype=Float64),
        Field(name="humid", dtype=Float64),
        Field(name="wind_speed", dtype=Float64),
        Field(name="precip", dtype=Float64),
        Field(name="pressure", dtype=Float64),
        Field(name="visib", dtype=Float64),
    ],
)
carrier_delays = FeatureView(
    name="flights_carrier_delays",
    entities=[carrier],
    ttl=dt.timedelta(days=8),
    source=_source("carrier_delays"),
    schema=[Field(name="carrier", dtype=String), Field(name="carrier_delay_rate", dtype=Float64)],
)
origin_delays = FeatureView(
    name="flights_origin_delays",
    entities=[origin],
    ttl=dt.timedelta(days=8),
    source=_source("origin_delays"),
    schema=[Field(name="origin", dtype=String), Field(name="origin_delay_rate", dtype=Float64)],
)

schedule = RequestSource(
    name="flights_schedule",
    schema=[
        Field(name="year", dtype=Int64),
        Field(name="month", dtype=Int64),
        Field(name="day", dtype=Int64),
        Field(name="hour", dtype=Int64),
        Field(name="minute", dtype=Int64),
    ],
)


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[schedule],
    schema=[Field(name="minute_of_day", dtype=Int64), Field(name="weekday", dtype=Float64)],
    mode="pandas",
)
def flights_facts(schedule: pd.DataFrame) -> pd.DataFrame:
    """Give minute of the day and weekday, local; Monday is 0, a date that never was is NaN."""
    date = pd.to_datetime(schedule[["year", "month", "day"]], errors="coerce")
    return pd.DataFrame(
        {
            "minute_of_day": schedule["hour"] * 60 + schedule["minute"],
            "weekday": date.dt.weekday.astype("float64"),
        }
    )


flights_v1 = FeatureService(
    name="flights_v1", features=[weather, carrier_delays, origin_delays, flights_facts]
)
