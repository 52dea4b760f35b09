"""The flights as they once were: their weather comes with the week, dated when it was observed.

Online, nobody has the weather of a Thursday before the week's file has landed; the join gave it to
Thursday's flights all the same. Kept because `check_skew` has to notice.
"""

from __future__ import annotations

import datetime as dt

from feast import FeatureService, FeatureView

from feature_repo import flights_tables, flights_views
from feature_repo.flights_views import (  # what the registry needs is what is named here
    carrier,
    carrier_delays,
    flights_facts,
    origin,
    origin_delays,
    schedule,
)

__all__ = ["carrier", "carrier_delays", "flights_facts", "origin", "origin_delays", "schedule"]

weather = FeatureView(
    name="flights_weather",
    entities=[origin],
    ttl=dt.timedelta(hours=3),
    source=flights_views._source("weather"),
    schema=flights_views.weather.schema,
)
flights_v1 = FeatureService(
    name="flights_v1", features=[weather, carrier_delays, origin_delays, flights_facts]
)


def build(inputs, previous, batch):
    """Make the feature rows of a batch, the weather's dated when it was observed."""
    observed = inputs["weather"].rename(columns={"observed_at": "event_timestamp"})
    return flights_tables.build(inputs, previous, batch) | {"weather": observed}
