"""Joins rows with their features as of each row's own time, through Feast, one for one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from include.retraining.errors import DataError
from include.retraining.features.definitions import feature_store, service_types, sources_of
from include.retraining.features.feature_tables import cast_exactly
from include.retraining.names import OWN
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec

EVENT_TIME = "event_timestamp"  # Feast's own name for it
ROW = f"{OWN}row"
ROWS_PER_JOIN = 1_000_000  # Feast and the frame it wants hold several copies of them


def join(spec: ModelSpec, settings: Settings, rows: pa.Table) -> pa.Table:
    """Give rows with their features as of each row's own event time, one for one and in order.

    Feast is given what it joins by and nothing else, in Arrow's own types: no value of a row passes
    through it, and no key through a float.

    Raises
    ------
    DataError
        Feast gave back other rows than it was asked for, a feature of the model file is missing, or
        a value is not of the type that its view declares.
    """
    parts = [
        _join(spec, settings, rows.slice(start, ROWS_PER_JOIN))
        for start in range(0, max(rows.num_rows, 1), ROWS_PER_JOIN)
    ]
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts)


def _join(spec: ModelSpec, settings: Settings, rows: pa.Table) -> pa.Table:
    import pandas as pd

    sources, types = sources_of(spec), service_types(spec)
    needed = sorted({*sources.join_keys, *sources.request_columns} - {EVENT_TIME})
    asked = rows.select(needed)
    asked = asked.append_column(EVENT_TIME, rows.column(spec.source.event_time))
    asked = asked.append_column(ROW, pa.array(np.arange(rows.num_rows)))
    store = feature_store(settings)
    found = store.get_historical_features(
        entity_df=asked.to_pandas(types_mapper=pd.ArrowDtype),
        features=store.get_feature_service(spec.features.service),
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
    missing = [name for name in spec.features.names if name not in {*names, *rows.column_names}]
    if missing:
        raise DataError(
            f"feature service {spec.features.service!r} gives no {', '.join(missing)}; "
            "add it to the service in feature_repo/, or remove it from the model file"
        )
    for name in names:
        what = f"feature {name!r} of service {spec.features.service!r}"
        rows = rows.append_column(name, cast_exactly(found.column(name), types[name], what))
    return rows.replace_schema_metadata(None)
