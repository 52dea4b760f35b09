"""Makes a `SkewReport`: is what is served online what training saw, and was it there in time?

Of the keys of a batch, online values are compared with offline ones as of the end of the newest
materialized batch, never of the clock: that is the moment for which both stores claim to know
everything. Of its rows, the values they were joined with are compared with those that were there
online at each row's own time. When a value was there follows from data alone: of a view that is
pushed online, from its own time stamps on; of any other, from the end of the batch on whose table
brings it. Batches that landed late, or were corrected, count as if they had come in time.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from include.retraining import shelf
from include.retraining.data.delta_log import PARTITION
from include.retraining.data.publication import not_published, rows_in_force
from include.retraining.errors import DataError
from include.retraining.features.definitions import (
    feature_store,
    service_of,
    service_types,
    sources_of,
)
from include.retraining.features.feature_sets import feature_set_or_none, rows_of
from include.retraining.features.join import EVENT_TIME
from include.retraining.features.online import online_until
from include.retraining.records import BatchRef, FeatureSkew, SkewReport
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MAX_KEYS = 1000
MAX_ROWS = 1000  # spread over the batch
EQUAL_WITHIN = 1e-9  # relative, of floats: both stores keep 64 bits. Whole numbers are exact


def check_skew(
    spec: ModelSpec, settings: Settings, batch: BatchRef, *, at: dt.datetime | None = None
) -> SkewReport:
    """Compare offline with online values of every feature, for the keys of a batch.

    Parameters
    ----------
    batch : BatchRef
        Whose rows give the keys: each combination once, at most `MAX_KEYS` of them; and of whose
        rows at most `MAX_ROWS`, spread evenly, are held against what was there at their own time.
    at : datetime, optional
        The moment to compare keys at, and to measure ages from; by default the end of the newest
        batch with features. Only that report is kept.

    Notes
    -----
    A value differs if both stores have one and they are not equal, or if only one store has it. An
    online value is expired, not different, if its row is older than its view's time to live: Feast
    serves it all the same, where training saw nothing. Online rows newer than `at` are of a batch
    that is being materialized at this moment, or were pushed since, and are left out. Inline
    features come with the rows, in training and in use, and those of a service without stored views
    are computed on request: there is nothing to compare, the report says so, and none is kept.

    A row is ahead in a feature if it was joined with another value than was there online at its
    time. A value that a row of its own batch brought is not there, be it dated before the row: that
    table is loaded when the batch has ended. If it was there with the same value already, nothing
    is ahead.

    Raises
    ------
    NotPublished
        The batch is not in force.
    """
    storage = Storage.of(settings)
    asked = at is not None
    if spec.features.is_inline:
        why = (
            f"{spec.model} has no features.service: its features are columns of its rows, and "
            "nothing is served online that could differ"
        )
        return _nothing(batch, at or batch.end, why)
    at = at or online_until(storage, spec.model) or batch.end
    sources = sources_of(spec)
    service = service_of(spec)
    if not sources.ttl:
        why = (
            f"no view of {service.name} has rows: all of its features are computed on request, and "
            "nothing is stored online that could differ"
        )
        return _nothing(batch, at, why)
    needed = sorted({*sources.join_keys, *sources.request_columns})
    rows, joined = _rows(spec, storage, batch, needed)
    frame = rows.select(needed).to_pandas(types_mapper=pd.ArrowDtype).dropna()
    sample = frame.drop_duplicates(sources.join_keys).head(MAX_KEYS).reset_index(drop=True)
    store = feature_store(settings)
    online = store.get_online_features(
        features=store.get_feature_service(service.name), entity_rows=sample.to_dict("records")
    ).to_arrow(include_event_timestamps=True)
    spread = np.unique(np.linspace(0, rows.num_rows - 1, MAX_ROWS).astype(int))
    looked_at = rows.take(spread) if joined and rows.num_rows else rows.slice(0, 0)
    found = store.get_historical_features(  # both questions at once: the tables are read once
        entity_df=pd.concat(
            [
                sample.assign(**{EVENT_TIME: _moments([at] * len(sample)), PARTITION: None}),
                looked_at.select([name for name in needed if name != EVENT_TIME])
                .to_pandas(types_mapper=pd.ArrowDtype)
                .assign(
                    **{
                        EVENT_TIME: _moments(looked_at.column(spec.source.event_time)),
                        PARTITION: batch.partition,
                    }
                ),
            ],
            ignore_index=True,
        ).astype({PARTITION: pd.ArrowDtype(pa.string())}),
        features=store.get_feature_service(service.name),
    ).to_arrow()
    offline, there = found.slice(0, len(sample)), found.slice(len(sample))
    saw = looked_at.select(joined)
    report = SkewReport(
        batch=batch,
        at=at,
        keys=len(sample),
        rows=saw.num_rows if joined else 0,
        features=tuple(
            _compare(
                view.name, feature.name, online, offline, at=at, ttl=sources.ttl.get(view.name)
            ).model_copy(update=_ahead(feature.name, saw, there))
            for view in service.feature_view_projections
            for feature in view.features
        ),
    )
    if not asked:
        shelf.keep(storage, report)
    return report


def _nothing(batch: BatchRef, at: dt.datetime, why: str) -> SkewReport:
    log.info("%s %s: nothing was compared: %s", batch.model, batch.partition, why)
    return SkewReport(batch=batch, at=at, keys=0, features=(), nothing=why)


def _rows(
    spec: ModelSpec, storage: Storage, batch: BatchRef, needed: list[str]
) -> tuple[pa.Table, list[str]]:
    """Give the rows of a batch, and the features that they are joined with."""
    features = [name for name in service_types(spec) if name not in needed]
    columns = [*dict.fromkeys([*needed, spec.source.event_time])]
    found = feature_set_or_none(spec, storage, batch)
    if found is not None:
        try:
            return rows_of(spec, storage, found, [*columns, *features]), features
        except DataError:  # joined before a feature was added: nothing has learned from it
            return rows_of(spec, storage, found, columns), []
    published = rows_in_force(spec, storage)
    if batch.partition not in published.parts:
        raise not_published(spec, batch.partition)
    return published.read([batch.partition], columns), []


def _moments(values: Any) -> pd.Series[Any]:
    kind = pa.timestamp("us", "UTC")
    moments = pa.chunked_array([pa.array(values, kind)]) if isinstance(values, list) else values
    return pd.Series(moments.cast(kind, safe=False).to_pandas(types_mapper=pd.ArrowDtype))


def _ahead(name: str, saw: pa.Table, there: pa.Table) -> dict[str, Any]:
    """Count the rows that were joined with another value than was there at their time."""
    if name not in saw.column_names:
        return {}
    joined, was = _values(saw, name), _values(there, name)
    ahead = ~_equal(was, joined)
    if not ahead.any():
        return {}
    # from amid the batch: at its beginning, what the one before it brought is still young
    row = int(np.flatnonzero(ahead)[int(ahead.sum()) // 2])
    told = "none was there" if was[row] is None else f"{was[row]} was there"
    return {"ahead": int(ahead.sum()), "ahead_example": f"{joined[row]}; {told}"}


def _compare(
    view: str,
    name: str,
    online: pa.Table,
    offline: pa.Table,
    *,
    at: dt.datetime,
    ttl: dt.timedelta | None,
) -> FeatureSkew:
    served, expected = _values(online, name), _values(offline, name)
    known_since = online.column(f"{name}__ts").to_numpy()
    is_stored = known_since > 0  # 0: computed on request, or not there
    ages = at.timestamp() - known_since[is_stored]
    age_hours = float(np.min(ages)) / 3600 if len(ages) else None
    expired = np.zeros(len(served), dtype=bool)
    if ttl:
        expired = is_stored & (at.timestamp() - known_since > ttl.total_seconds())
    counted = ~expired & ~(known_since > at.timestamp())
    differs = counted & ~_equal(served, expected)
    example = ""
    if differs.any():
        row = int(np.flatnonzero(differs)[0])
        example = f"{served[row]} online, {expected[row]} offline"
    return FeatureSkew(
        view=view,
        name=name,
        compared=int(counted.sum()),
        differing=int(differs.sum()),
        expired=int(expired.sum()),
        age_hours=age_hours,
        ttl_hours=ttl / dt.timedelta(hours=1) if ttl else None,
        example=example,
    )


def _values(rows: pa.Table, name: str) -> list[Any]:
    """Give exact values, None where one is missing; moments without a zone are of UTC."""
    return [_plain(value) for value in rows.column(name).to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dt.datetime) and value.tzinfo is None:
        return value.replace(tzinfo=dt.UTC)
    return value


def _equal(one: list[Any], other: list[Any]) -> NDArray[np.bool_]:
    """Are values equal? Two missing ones are, and so are numbers of different types."""
    pairs = zip(one, other, strict=True)
    return np.fromiter((_is_equal(*pair) for pair in pairs), dtype=bool, count=len(one))


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=EQUAL_WITHIN, abs_tol=0)
    if isinstance(other, float) and isinstance(one, int):
        return math.isclose(one, other, rel_tol=EQUAL_WITHIN, abs_tol=0)
    return bool(one == other)
