"""The feature tables of `churn`: what a customer did lately, and since when that was known.

What is known of a customer at an order (orders before, tenure) comes with the order itself.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from include.retraining.records import BatchRef

TRAILING_DAYS = 14


def build(
    inputs: Mapping[str, pd.DataFrame], previous: Mapping[str, pd.DataFrame], batch: BatchRef
) -> dict[str, pd.DataFrame]:
    """Make the feature rows that this batch adds.

    Parameters
    ----------
    inputs, previous : mapping of str to DataFrame
        The good rows of this batch and of the one before it (empty before the first): ``batch``.
    batch : BatchRef
        The window.

    Returns
    -------
    dict of str to DataFrame
        ``recent``: one row per customer who ordered in ``[end - 14 days, end)``, known when the
        batch has ended.
    """
    import pandas as pd

    orders = pd.concat([previous["batch"], inputs["batch"]], ignore_index=True)
    since = batch.end - dt.timedelta(days=TRAILING_DAYS)
    recent = orders[(orders["ordered_at"] >= since) & (orders["ordered_at"] < batch.end)]
    sums = recent.groupby("customer_id")["value"].agg(["size", "sum"]).reset_index()
    sums.columns = pd.Index(["customer_id", "recent_orders", "recent_value"])
    return {"recent": sums.assign(event_timestamp=pd.Timestamp(batch.end))}
