"""Joins rows with their features as of each row's own time, through Feast, one for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from include.retraining.errors import DataError
from include.retraining.features.definitions import (
    Sources,
    feature_store,
    service_types,
    sources_of,
    types_of,
    views_of,
)
from include.retraining.features.feature_tables import cast_exactly
from include.retraining.names import OWN
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec

EVENT_TIME = "event_timestamp"  # Feast's own name for it
ROW = f"{OWN}row"
ROWS_PER_JOIN = 1_000_000  # Feast and the frame it wants hold several copies of them


def join(spec: ModelSpec, settings: Settings, rows: pa.Table) -> pa.Table:
    """Give rows with their features as of each row's own event time, one for one and in order.

    Inline features are columns of the rows: there is nothing to join.

    Feast is given what it joins by and nothing else, in Arrow's own types: no value of a row passes
    through it, and no key through a float.

    Raises
    ------
    DataError
        Feast gave back other rows than it was asked for, a feature of the model file is missing, or
        a value is not of the type that its view declares.
    """
    if spec.features.is_inline:
        if missing := [name for name in spec.features.names if name not in rows.column_names]:
            raise DataError(
                f"the rows in force have no {', '.join(missing)}: they were published before the "
                "model file named it; ingest the batch again, or take the feature out"
            )
        return rows.replace_schema_metadata(None)
    service = spec.features.service
    rows = _join(
        spec,
        settings,
        rows,
        _Wanted(
            feature_store(settings).get_feature_service(service),
            sources_of(spec),
            service_types(spec),
            f"service {service!r}",
        ),
    )
    if missing := [name for name in spec.features.names if name not in rows.column_names]:
        raise DataError(
            f"feature service {service!r} gives no {', '.join(missing)}; "
            "add it to the service in feature_repo/, or remove it from the model file"
        )
    return rows


def join_views(
    spec: ModelSpec, settings: Settings, rows: pa.Table, views: Mapping[str, Sequence[str]]
) -> pa.Table:
    """Give rows with features of some views, as `join` does, whatever service gives them.

    Parameters
    ----------
    spec : ModelSpec
        Whose views are defined, and registered.
    rows : Table of shape (n_rows, n_columns)
        With join keys and request columns, and without these features.
    views : mapping of str to sequence of str
        View to the names of its features.

    Raises
    ------
    DataError
        As `join`.
    """
    defined = views_of(spec)
    types = {
        name: kind
        for view, names in views.items()
        for name, kind in types_of(defined[view]).items()
        if name in names
    }
    wanted = _Wanted(
        [f"{view}:{name}" for view, names in views.items() for name in names],
        sources_of(spec, views),
        types,
        f"views {', '.join(views)}",
    )
    return _join(spec, settings, rows, wanted)


class _Wanted(NamedTuple):
    """What Feast is asked for, what that needs of a row, and what it is to give."""

    features: Any  # a service of its registry, or references
    sources: Sources
    types: Mapping[str, pa.DataType]
    what: str


def _join(spec: ModelSpec, settings: Settings, rows: pa.Table, wanted: _Wanted) -> pa.Table:
    parts = [
        _join_some(spec, settings, rows.slice(start, ROWS_PER_JOIN), wanted)
        for start in range(0, max(rows.num_rows, 1), ROWS_PER_JOIN)
    ]
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts)


def _join_some(spec: ModelSpec, settings: Settings, rows: pa.Table, wanted: _Wanted) -> pa.Table:
    import pandas as pd

    sources, types = wanted.sources, wanted.types
    needed = sorted({*sources.join_keys, *sources.request_columns} - {EVENT_TIME})
    asked = rows.select(needed)
    asked = asked.append_column(EVENT_TIME, rows.column(spec.source.event_time))
    asked = asked.append_column(ROW, pa.array(np.arange(rows.num_rows)))
    store = feature_store(settings)
    found = store.get_historical_features(
        entity_df=asked.to_pandas(types_mapper=pd.ArrowDtype),
        features=wanted.features,
    ).to_arrow()
    order = found.column(ROW).to_numpy()
    if not np.array_equal(np.sort(order), np.arange(rows.num_rows)):
        raise DataError(
            f"the point-in-time join gave {found.num_rows} rows for {rows.num_rows}; none may be "
            "lost or doubled"
        )
    if (order[1:] < order[:-1]).any():
        found = found.sort_by(ROW)
    names = [name for name in types if name in found.column_names and name not in needed]
    for name in names:
        what = f"feature {name!r} of {wanted.what}"
        rows = rows.append_column(name, cast_exactly(found.column(name), types[name], what))
    return rows.replace_schema_metadata(None)
