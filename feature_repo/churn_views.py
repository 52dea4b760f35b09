"""Feast's view of `churn`: one entity, one table, two facts on request, one service.

Paths are below the storage root; the table is made by `churn_tables.build`.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.data_format import ParquetFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)

recent = FeatureView(
    name="churn_recent",
    entities=[customer],
    ttl=dt.timedelta(0),  # for ever: a customer who falls silent gets a row that says so
    source=FileSource(
        name="churn_recent",
        path="churn/tables/features/recent",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
    ),
    schema=[
        Field(name="customer_id", dtype=Int64),
        Field(name="recent_orders", dtype=Int64),
        Field(name="recent_value", dtype=Float64),
    ],
)

order = RequestSource(
    name="churn_order",
    schema=[
        Field(name="orders_before", dtype=Int64),
        Field(name="spent_before", dtype=Float64),
        Field(name="tenure_days", dtype=Int64),
    ],
)


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[order],
    schema=[
        Field(name="mean_value_before", dtype=Float64),
        Field(name="days_per_order", dtype=Float64),
    ],
    mode="pandas",
)
def churn_facts(order: pd.DataFrame) -> pd.DataFrame:
    """Give mean value and pace of the orders before this one; NaN where it is the first."""
    before = order["orders_before"].astype("float64").replace(0, np.nan)
    return pd.DataFrame(
        {
            "mean_value_before": order["spent_before"] / before,
            "days_per_order": order["tenure_days"] / before,
        }
    )


churn_v1 = FeatureService(name="churn_v1", features=[recent, churn_facts])
