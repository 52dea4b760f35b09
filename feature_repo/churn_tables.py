"""The feature tables of `churn`: what a customer did lately, and since when that was known.

What is known of a customer at an order (orders before, tenure) comes with the order itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from include.retraining.records import BatchRef


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
        ``recent``: orders and spending of each customer in this batch, known when it has ended. Who
        ordered in the one before and not in this one gets a row of zeros: without it, the online
        store would serve that customer's last busy week for ever.
    """
    import pandas as pd

    week = inputs["batch"].groupby("customer_id")["value"].agg(["size", "sum"])
    quiet = pd.Index(previous["batch"]["customer_id"].unique()).difference(week.index)
    rows = pd.concat([week, pd.DataFrame({"size": 0, "sum": 0.0}, index=quiet)])
    return {
        "recent": pd.DataFrame(
            {
                "customer_id": rows.index.astype("int64"),
                "event_timestamp": pd.Timestamp(batch.end),
                "recent_orders": rows["size"].to_numpy("int64"),
                "recent_value": rows["sum"].to_numpy("float64"),
            }
        )
    }
