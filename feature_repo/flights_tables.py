"""The feature tables of `flights`: what is known before a flight leaves, and since when.

`build` is called once for each published batch. Every row says from which moment on it was there
online (`event_timestamp`), so that the point-in-time join can never look into the future. The
weather is pushed online every hour, by a feed that needs no batch: what comes with a batch is the
archive of that feed. Delay rates come with a batch, so they are there when it has ended.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from include.retraining.records import BatchRef

LATE_MINUTES = 15
TRAILING_DAYS = 7
OBSERVED_WITHIN = dt.timedelta(hours=1)  # an observation is of an hour, and there when it has ended
SETTLED_AFTER = dt.timedelta(days=1)  # by then every flight of a day is late or is not


def build(
    inputs: Mapping[str, pd.DataFrame], previous: Mapping[str, pd.DataFrame], batch: BatchRef
) -> dict[str, pd.DataFrame]:
    """Make the feature rows that this batch adds.

    Parameters
    ----------
    inputs, previous : mapping of str to DataFrame
        The good rows of this batch and of the one before it (empty frames before the first), by
        input name: ``batch``, ``weather``.
    batch : BatchRef
        The window.

    Returns
    -------
    dict of str to DataFrame
        Table name to rows, each with the table's join key and `event_timestamp`.
    """
    import pandas as pd

    flights = pd.concat([previous["batch"], inputs["batch"]], ignore_index=True)
    return {
        "weather": weather_rows(inputs["weather"]),
        "carrier_delays": _trailing_delay_rate(flights, "carrier", batch),
        "origin_delays": _trailing_delay_rate(flights, "origin", batch),
    }


def weather_rows(observed: pd.DataFrame) -> pd.DataFrame:
    """Give observations as feature rows, the same for the archive and for what is pushed online."""
    rows = observed.rename(columns={"observed_at": "event_timestamp"})
    return rows.assign(event_timestamp=rows["event_timestamp"] + OBSERVED_WITHIN)


def _trailing_delay_rate(flights: pd.DataFrame, key: str, batch: BatchRef) -> pd.DataFrame:
    """Share of late arrivals in the trailing week, one row per key, known when the batch has ended.

    It counts flights scheduled in ``[end - 8 days, end - 1 day)``: all settled by then. Rows for
    days within the batch would be fresher, but nobody can know them before its files land: online,
    a flight of the next week sees exactly this row, so that is what training must see too.
    """
    import pandas as pd

    until = batch.end - SETTLED_AFTER
    since = until - dt.timedelta(days=TRAILING_DAYS)
    known = flights[
        flights["arr_delay"].notna()
        & (flights["sched_dep"] >= since)
        & (flights["sched_dep"] < until)
    ]
    late = (known["arr_delay"] >= LATE_MINUTES).astype("float64")
    rate = late.groupby(known[key]).mean()
    return pd.DataFrame(
        {
            key: rate.index.astype("object"),
            "event_timestamp": pd.Timestamp(batch.end),
            f"{key}_delay_rate": rate.to_numpy(),
        }
    )
