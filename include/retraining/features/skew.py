"""Makes a `SkewReport`: does the online store serve what training would have seen, and how old?

Values are compared as of the end of the newest materialized batch, never of the clock: that is the
moment for which both stores claim to know everything.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from include.retraining import shelf
from include.retraining.data.publication import not_published, rows_in_force
from include.retraining.features.definitions import feature_store, service_of, sources_of
from include.retraining.features.feature_sets import feature_set_or_none, rows_of
from include.retraining.features.online import online_until
from include.retraining.records import BatchRef, FeatureSkew, SkewReport
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_KEYS = 1000
EQUAL_WITHIN = 1e-9  # relative: both stores keep 64-bit floats


def check_skew(
    spec: ModelSpec, settings: Settings, batch: BatchRef, *, at: dt.datetime | None = None
) -> SkewReport:
    """Compare offline with online values of every feature, for the keys of a batch.

    Parameters
    ----------
    batch : BatchRef
        Whose rows give the keys: each combination once, at most `MAX_KEYS` of them.
    at : datetime, optional
        The moment to compare at, and to measure ages from; by default the end of the newest batch
        with features. Only that report is kept.

    Notes
    -----
    A value differs if both stores have one and they are not equal, or if only one store has it. An
    online value is expired, not different, if its row is older than its view's time to live: Feast
    serves it all the same, where training saw nothing. Online rows newer than `at` are of a batch
    that is being materialized at this moment, and are left out.

    Raises
    ------
    NotPublished
        The batch is not in force.
    """
    storage = Storage.of(settings)
    asked = at is not None
    at = at or online_until(storage, spec.model) or batch.end
    sources = sources_of(spec)
    needed = sorted({*sources.join_keys, *sources.request_columns})
    found = feature_set_or_none(spec, storage, batch)
    if found is not None:
        rows = rows_of(spec, storage, found, needed)
    else:
        there = rows_in_force(spec, storage)
        if batch.partition not in there.parts:
            raise not_published(spec, batch.partition)
        rows = there.read([batch.partition], needed)
    frame = rows.to_pandas(types_mapper=pd.ArrowDtype).dropna()
    sample = frame.drop_duplicates(sources.join_keys).head(MAX_KEYS).reset_index(drop=True)
    store, service = feature_store(settings), service_of(spec)
    online = store.get_online_features(
        features=store.get_feature_service(service.name), entity_rows=sample.to_dict("records")
    ).to_df(include_event_timestamps=True)
    offline = store.get_historical_features(
        entity_df=sample.assign(event_timestamp=pd.Timestamp(at)),
        features=store.get_feature_service(service.name),
    ).to_df()
    report = SkewReport(
        batch=batch,
        at=at,
        keys=len(sample),
        features=tuple(
            _compare(
                view.name, feature.name, online, offline, at=at, ttl=sources.ttl.get(view.name)
            )
            for view in service.feature_view_projections
            for feature in view.features
        ),
    )
    if not asked:
        shelf.keep(storage, report)
    return report


def _compare(
    view: str,
    name: str,
    online: pd.DataFrame,
    offline: pd.DataFrame,
    *,
    at: dt.datetime,
    ttl: dt.timedelta | None,
) -> FeatureSkew:
    served, expected = online[name], offline[name]
    known_since = online[f"{name}__ts"].to_numpy()
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
        example = f"{served.iloc[row]} online, {expected.iloc[row]} offline"
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


def _equal(served: pd.Series[Any], expected: pd.Series[Any]) -> NDArray[np.bool_]:
    """Are values equal? Two missing ones are, and so are numbers of different types."""
    both_missing = (served.isna() & expected.isna()).to_numpy()
    one, other = (pd.to_numeric(values, errors="coerce") for values in (served, expected))
    if (one.isna() != served.isna()).any() or (other.isna() != expected.isna()).any():
        return np.asarray(both_missing | (served == expected).to_numpy())
    first = one.to_numpy("float64", na_value=np.nan)
    second = other.to_numpy("float64", na_value=np.nan)
    return np.asarray(both_missing | np.isclose(first, second, rtol=EQUAL_WITHIN, atol=0))
