"""Lands real orders of 1997-98 as weekly files, and beside them who ordered again.

The file `CDNOW_master.txt` of the installed package `lifetimes` holds 69,659 orders of 23,570
customers whose first order was in the first quarter of 1997 (Fader and Hardie, 2001).
"""

from __future__ import annotations

import importlib.metadata
import io
from functools import cache

import pandas as pd

from include.retraining.records import BatchRef
from include.retraining.storage import Storage

BATCH_KEY = "landing/orders/{partition}.parquet"
REORDERS_KEY = "landing/reorders/{partition}.parquet"
REORDER_DAYS = 30


def land(storage: Storage, batch: BatchRef, orders: pd.DataFrame | None = None) -> None:
    """Write both files of a partition; `orders` stands in for the real ones where given."""
    rows = orders_of(batch) if orders is None else orders
    _write(storage, BATCH_KEY.format(partition=batch.partition), rows)
    _write(storage, REORDERS_KEY.format(partition=batch.partition), reorders_of(batch))


def _write(storage: Storage, key: str, rows: pd.DataFrame) -> None:
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    storage.write(key, buffer.getvalue())


def orders_of(batch: BatchRef) -> pd.DataFrame:
    """Give the orders of a window, one row per customer and day, with what was known of them."""
    orders = _orders()
    inside = (orders["ordered_at"] >= batch.start) & (orders["ordered_at"] < batch.end)
    return orders[inside].drop(columns=["reordered", "reordered_at"]).reset_index(drop=True)


def reorders_of(batch: BatchRef) -> pd.DataFrame:
    """Give the orders, of any window, that were followed by another within 30 days in this one."""
    orders = _orders()
    at = orders["reordered_at"]
    inside = (orders["reordered"] == 1) & (at >= batch.start) & (at < batch.end)
    names = ["customer_id", "ordered_at", "reordered", "reordered_at"]
    return orders.loc[inside, names].reset_index(drop=True)


@cache
def _orders() -> pd.DataFrame:
    # by its files: the package itself is from before NumPy 2 and need not be imported
    files = importlib.metadata.files("lifetimes") or []
    file = next(file for file in files if file.name == "CDNOW_master.txt")
    raw = pd.read_csv(file.locate(), sep=r"\s+")
    raw["ordered_at"] = pd.to_datetime(raw.pop("date").astype(str), format="%Y%m%d", utc=True)
    orders = raw.groupby(["customer_id", "ordered_at"], as_index=False).agg(
        cds=("number_of_cds", "sum"), value=("dollar_value", "sum")
    )
    by_customer = orders.groupby("customer_id")
    times = orders["ordered_at"]
    orders["orders_before"] = by_customer.cumcount()
    orders["spent_before"] = (by_customer["value"].cumsum() - orders["value"]).round(2)
    orders["tenure_days"] = (times - by_customer["ordered_at"].transform("min")).dt.days
    orders["days_since_previous"] = (times - by_customer["ordered_at"].shift()).dt.days.astype(
        "Int64"
    )
    following = by_customer["ordered_at"].shift(-1)
    soon = following < times + pd.Timedelta(days=REORDER_DAYS)
    is_known = soon | (times + pd.Timedelta(days=REORDER_DAYS) <= times.max())
    orders["reordered"] = soon.astype("Int64").where(is_known)
    orders["reordered_at"] = following
    return orders.sort_values(["ordered_at", "customer_id"], ignore_index=True)
