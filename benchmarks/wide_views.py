"""Feast's view of the benchmark's model `wide`: one feature, so that there is a service."""

from __future__ import annotations

import datetime as dt

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64, Int64

thing = Entity(name="wide_thing", join_keys=["id"], value_type=ValueType.INT64)
few = FeatureView(
    name="wide_few",
    entities=[thing],
    ttl=dt.timedelta(days=1),
    source=FileSource(
        name="wide_few",
        path="wide/tables/features/few",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
    ),
    schema=[Field(name="id", dtype=Int64), Field(name="few", dtype=Float64)],
)
wide_v1 = FeatureService(name="wide_v1", features=[few])


def build(inputs, _previous, batch):
    """Give a feature of some rows."""
    import pandas as pd

    some = inputs["batch"].head(10)
    return {
        "few": pd.DataFrame(
            {"id": some["id"], "event_timestamp": pd.Timestamp(batch.end), "few": 1.0}
        )
    }
