"""Drift of bare Parquet files: no model, no Airflow, one verdict. Behind the ``drift`` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from include.retraining.drift.measure import measure_columns, overall_state
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.errors import DataError, did_you_mean
from include.retraining.monitor.verdict import AT_ONCE, importance_share, nothing_found
from include.retraining.records import Calibration, FeatureDrift, Record
from include.retraining.spec import Drift


class FilesDrift(Record):
    """What is to be said of one file against others; the columns in the order of the first one."""

    verdict: Literal["ignore", "watch", "retrain", "insufficient"]
    state: Calibration
    reason: str
    features: tuple[FeatureDrift, ...]


def compare_files(
    windows: Sequence[Path],
    current: Path,
    *,
    settings: Drift,
    columns: Sequence[str] = (),
) -> FilesDrift:
    """Hold a Parquet file against earlier ones, each of them a window of the reference.

    `retrain` takes columns beyond twice their threshold, at least ``max_drifted_importance`` of
    all; less is `watch`. `insufficient` says that no column could be judged.

    Parameters
    ----------
    windows : sequence of Path
        Oldest first; with ``min_history_windows`` of them or more, thresholds are calibrated on how
        they differ among themselves.
    current : Path
        What is judged.
    settings : Drift
        Thresholds, and the columns that are expected to drift.
    columns : sequence of str, optional
        Only these; without, all that any file has.

    Raises
    ------
    DataError
        A file is not readable Parquet, or a column is in none of them.
    """
    schemas = [_schema(path) for path in (*windows, current)]
    known = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    for name in (*columns, *settings.expected):
        if name not in known:
            near = did_you_mean(name, known)
            raise DataError(f"column {name!r} is in no file{near}; there are {', '.join(known)}")
    chosen = list(columns) or known
    numeric = [name for name in chosen if _is_numeric(name, schemas)]
    profile = ReferenceProfile.build(
        list(windows), numeric=numeric, categorical=[name for name in chosen if name not in numeric]
    )
    measured = {
        feature.name: feature for feature in measure_columns(profile, current, settings=settings)
    }
    features = tuple(measured[name] for name in chosen)
    verdict, reason = _judge(settings, features)
    return FilesDrift(
        verdict=verdict, state=overall_state(features), reason=reason, features=features
    )


def _judge(
    settings: Drift, features: Sequence[FeatureDrift]
) -> tuple[Literal["ignore", "watch", "retrain", "insufficient"], str]:
    counted = [feature for feature in features if not feature.expected]
    drifted = [feature for feature in counted if feature.drifted]
    far = [feature for feature in drifted if feature.excess >= AT_ONCE]
    share = importance_share(counted, far)
    said = f"{len(drifted)} of {len(counted)} columns drifted, {len(far)} to twice their threshold"
    if far and share >= settings.max_drifted_importance:
        return "retrain", f"{said} or more, which is {share:.0%} of them"
    if drifted:
        return "watch", f"{said} or more; one window alone does not say whether it lasts"
    if overall_state(features) == "insufficient":
        return "insufficient", "no column could be judged"
    return "ignore", nothing_found(features)


def _schema(path: Path) -> pa.Schema:
    try:
        schema = pq.read_schema(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: must be a readable Parquet file: {error}") from error
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: column {twice[0]!r} is there twice; rename one of them")
    return schema


def _is_numeric(name: str, schemas: Sequence[pa.Schema]) -> bool:
    """Take a column for numeric as the first file that knows its type has it."""
    kinds = [schema.field(name).type for schema in schemas if name in schema.names]
    known = [kind for kind in kinds if not pa.types.is_null(kind)]
    kind = known[0] if known else pa.null()
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
        or types.is_temporal(kind)
        or types.is_null(kind)
    )
