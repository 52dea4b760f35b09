"""Feast's view of the benchmark's model `history`: what a shop sold in the hour before."""

from __future__ import annotations

import datetime as dt

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64, Int64

shop = Entity(name="history_shop", join_keys=["shop"], value_type=ValueType.INT64)
sales = FeatureView(
    name="history_sales",
    entities=[shop],
    ttl=dt.timedelta(hours=2),
    source=FileSource(
        name="history_sales",
        path="history/tables/features/sales",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
    ),
    schema=[Field(name="shop", dtype=Int64), Field(name="mean_amount", dtype=Float64)],
)
history_v1 = FeatureService(name="history_v1", features=[sales])


def build(inputs, _previous, batch):
    """Mean amount of each shop in the hour, known when it has ended."""
    import pandas as pd

    means = inputs["batch"].groupby("shop")["amount"].mean()
    return {
        "sales": pd.DataFrame(
            {
                "shop": means.index.astype("int64"),
                "event_timestamp": pd.Timestamp(batch.end),
                "mean_amount": means.to_numpy("float64"),
            }
        )
    }
