"""A Feast offline store that joins features to entity rows with a real as-of join.

Feast's stock local stores join every entity row with the whole history of its key and then throw
most of it away: the cost grows with rows x history. Here DuckDB answers one question, *which
feature row does each entity row see?*, with an ``ASOF JOIN`` over join keys and instants. The rest
is Arrow: reading only the columns and the time range that can matter, and picking the matched rows,
so values keep the types they have in the files, and entity rows come back one for one, in order.

An entity row at time ``t`` sees, of the feature rows with its join keys and
``t - ttl <= event timestamp <= t`` (both ends included; without a ttl there is no lower end), the
one with the latest event timestamp. Ties go to the latest created timestamp (a missing one loses),
then to the last row in path order. With ``filter_by_created_timestamp=True`` only rows whose
created timestamp is known and ``<= t`` take part. A null join key or entity timestamp sees nothing:
its features are null. Naive timestamps are UTC; instants count in whole microseconds.

Of Delta tables one can also ask what was *there online* by then: an entity row that names its batch
in a column ``_rt_partition`` sees, of a view that is pushed online (Feast's ``PushSource``), what
was known and created by its time; of any other, only rows of earlier partitions, because the table
of a batch is loaded online after the batch has ended.

Sources are ``FileSource`` over Parquet: a file, a glob, or a directory read recursively (names that
start with ``_`` or ``.`` are skipped; ``name=value`` directories are just directories), on a bare
path, ``file://`` or ``s3://``. A directory or glob without files is an empty feature table, because
a new model has no features yet; a missing ``.parquet`` file is an error.
"""

# ruff: noqa: ARG002, ARG004, PLR0917  the names, number and order of parameters are Feast's

from __future__ import annotations

import hashlib
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from feast import FeatureView, FileSource, OnDemandFeatureView, RepoConfig
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.saved_dataset import SavedDatasetStorage
from feast.types import from_feast_to_pyarrow_type
from fsspec.utils import glob_translate
from numpy.typing import NDArray
from pyarrow import fs as pafs
from pydantic import Field

from include.retraining.data.delta_log import PARTITION
from include.retraining.data.tables import Table
from include.retraining.errors import DataError
from include.retraining.storage import Storage

logger = logging.getLogger(__name__)

Instants = NDArray[np.int64]  # microseconds since 1970-01-01 UTC

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BEFORE_ALL, _AFTER_ALL = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_FOOTER_READERS = 16  # threads; on S3 every file's footer is a round trip


class AsofOfflineStoreConfig(FeastConfigBaseModel):
    """The ``offline_store`` section; Feast finds it by the store's name plus Config."""

    type: Literal["include.retraining.features.asof_store.AsofOfflineStore"] = (
        "include.retraining.features.asof_store.AsofOfflineStore"
    )

    storage_url: str = ""
    """URL or folder that relative paths are below; the feature repository if empty."""

    storage_endpoint: str = ""
    """``http://...`` of an S3-compatible store, for sources without their own; if empty, what
    ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` says. Credentials are those of ``AWS_*``."""

    table_format: Literal["parquet", "delta"] = "parquet"
    """``parquet``: all files of a directory count. ``delta``: it is a Delta table below
    `storage_url`, and what its newest version has counts."""

    duckdb_settings: dict[str, Any] = Field(default_factory=dict)
    """DuckDB settings of every join, for example ``threads`` or ``memory_limit``."""


class AsofRetrievalJob(RetrievalJob):
    """A retrieval that runs when its result is asked for; Feast adds on-demand features to it."""

    def __init__(
        self,
        evaluate: Callable[[], pa.Table],
        *,
        config: RepoConfig,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._evaluate = evaluate
        self._config = config
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Say whether feature columns are called ``<view>__<feature>``."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Transformations that Feast applies to the result."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What a saved dataset remembers of its retrieval."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._evaluate()

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,
    ) -> None:
        """Write the result to a ``.parquet`` file, or as the only Parquet file of a directory.

        Raises
        ------
        SavedDatasetLocationAlreadyExists
            Something is there already, and `allow_overwrite` is False.
        """
        filesystem, path = _locate(self._config, _file_source(storage.to_data_source()))
        if not allow_overwrite and filesystem.get_file_info(path).type != pafs.FileType.NotFound:
            raise SavedDatasetLocationAlreadyExists(location=path)
        if path.endswith(".parquet"):
            _write(self.to_arrow(), filesystem, path)
            return
        replaced = _list_files(filesystem, path)
        _write(self.to_arrow(), filesystem, f"{path}/{uuid.uuid4().hex}.parquet")
        for file in replaced:
            filesystem.delete_file(file.path)


class AsofOfflineStore(OfflineStore):
    """Feast's offline store interface over Parquet files; the module says what a row sees."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **date_range: datetime,
    ) -> RetrievalJob:
        """Join the features that each entity row could see at its event timestamp.

        Parameters
        ----------
        entity_df : DataFrame of shape (n_rows, n_columns)
            Join keys, the event timestamp (``event_timestamp``, else the only datetime column), and
            any other columns; ``_rt_partition`` asks for what was there online. Feast's
            `date_range` instead of a frame is not supported.

        Returns
        -------
        RetrievalJob
            Its table has shape (n_rows, n_columns + n_features): the given rows, columns and types
            in their order, then the features, null where none was visible.

        Raises
        ------
        DataError
            `entity_df` is no DataFrame, or lacks a join key, or has a column named like a feature.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise DataError(
                f"entity_df must be a pandas DataFrame, got {type(entity_df).__name__}; "
                "make one of the join keys and timestamps that you want features for"
            )
        time = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        if pd.api.types.is_string_dtype(entity_df[time]) or entity_df[time].dtype == object:
            entity_df = entity_df.assign(**{time: pd.to_datetime(entity_df[time], utc=True)})
        entities = pa.Table.from_pandas(entity_df, preserve_index=False)
        if any(isinstance(dtype, pd.ArrowDtype) for dtype in entity_df.dtypes):
            # a transformation gets the types that Feast's users expect, not those of Arrow
            entities = entities.replace_schema_metadata()
        instants = _instants(entities[time], null=_BEFORE_ALL)
        first, last = _window(instants)

        def evaluate() -> pa.Table:
            joined = entities
            with duckdb.connect(config=config.offline_store.duckdb_settings) as connection:
                for view in feature_views:
                    prefix = f"{view.projection.name_to_use()}:"
                    names = [r.removeprefix(prefix) for r in feature_refs if r.startswith(prefix)]
                    features = _visible_features(
                        connection,
                        config,
                        view,
                        names,
                        entities=entities,
                        instants=instants,
                        filter_by_created_timestamp=filter_by_created_timestamp,
                    )
                    if full_feature_names:
                        prefix = f"{view.projection.name_alias or view.name}__"
                        features = features.rename_columns([prefix + name for name in names])
                    taken = {*features.column_names} & {*joined.column_names}
                    if taken:
                        raise DataError(
                            f"view {view.name!r}: entity_df has a column {taken.pop()!r} already; "
                            "rename or drop it there, or ask for full_feature_names=True"
                        )
                    for name in features.column_names:
                        joined = joined.append_column(name, features[name])
            return joined

        return AsofRetrievalJob(
            evaluate,
            config=config,
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(
                feature_refs, project, registry
            ),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entities.column_names if name != time],
                min_event_timestamp=_EPOCH + first * _MICROSECOND,
                max_event_timestamp=_EPOCH + last * _MICROSECOND,
            ),
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Give every row within ``[start_date, end_date]``, in path order; None is no bound."""

        def evaluate() -> pa.Table:
            source, created = _file_source(data_source), created_timestamp_column or ""
            first, last = (
                None
                if at is None
                else (at.replace(tzinfo=at.tzinfo or UTC) - _EPOCH) // _MICROSECOND
                for at in (start_date, end_date)
            )
            names = [*join_key_columns, *feature_name_columns, timestamp_field, created]
            # Feast names no features when it wants all columns, to transform them.
            columns = {name: name for name in names if name} if feature_name_columns else None
            rows = _read(config, source, columns, time=timestamp_field, first=first, last=last)
            if rows is None:
                types = dict.fromkeys([timestamp_field, created], pa.timestamp("us", "UTC"))
                rows = pa.table({name: pa.nulls(0, types.get(name)) for name in names if name})
            if not join_key_columns:  # Feast's convention for a view without entities
                dummy = pa.array([DUMMY_ENTITY_VAL] * rows.num_rows, pa.string())
                rows = rows.append_column(DUMMY_ENTITY_ID, dummy)
            return rows

        return AsofRetrievalJob(evaluate, config=config)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Give the newest row of each join key within ``[start_date, end_date]``."""
        everything = AsofOfflineStore.pull_all_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )

        def evaluate() -> pa.Table:
            rows = _newest_last(everything.to_arrow(), timestamp_field, created_timestamp_column)
            keys = _numbered(rows, join_key_columns or [DUMMY_ENTITY_ID])
            numbered = pa.table({**keys, "row": np.arange(rows.num_rows)}).drop_null()
            newest = numbered.group_by(list(keys)).aggregate([("row", "max")])["row_max"]
            return rows.take(newest.combine_chunks().sort())

        return AsofRetrievalJob(evaluate, config=config)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Add rows to the source of a view: as a new file of its directory, or to its one file.

        In a directory the file is named by its content: a retry replaces it and adds nothing twice.

        Raises
        ------
        DataError
            The columns are not those of the source, or the source is a glob or a Delta table.
        """
        source = _file_source(feature_view.batch_source)
        filesystem, path = _locate(config, source)
        if config.offline_store.table_format == "delta":
            raise DataError(
                f"source {source.name!r}: a Delta table is written by publishing a batch; publish "
                "one instead"
            )
        if _is_glob(path):
            raise DataError(
                f"source {source.name!r}: cannot write to a glob, {path}; name its folder"
            )
        stored = {name: column for column, name in source.field_mapping.items()}
        table = table.rename_columns([stored.get(name, name) for name in table.column_names])
        present = _open(filesystem, path)
        if present is not None:
            if set(table.column_names) != set(present.schema.names):
                raise DataError(
                    f"source {source.name!r}: got columns {sorted(table.column_names)}, "
                    f"its files have {sorted(present.schema.names)}; write exactly these"
                )
            table = table.select(present.schema.names).cast(present.schema)
        if not path.endswith(".parquet"):
            content = pa.BufferOutputStream()
            pq.write_table(table, content)
            path += f"/{hashlib.sha256(content.getvalue()).hexdigest()[:32]}.parquet"
        elif present is not None:
            table = pa.concat_tables([present.to_table(), table])
        _write(table, filesystem, path)
        if progress:
            progress(table.num_rows)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Give the columns in the files of a source; raises DataError if there are no files."""
        dataset = _open(*_locate(config, _file_source(data_source)))
        if dataset is None:
            raise DataError(
                f"source {data_source.name!r} has no files to take columns from; declare all "
                "features and join keys in the view's schema, or write the first file"
            )
        return [(field.name, str(field.type)) for field in dataset.schema]


def _visible_features(
    connection: duckdb.DuckDBPyConnection,
    config: RepoConfig,
    view: FeatureView,
    names: list[str],
    *,
    entities: pa.Table,
    instants: Instants,
    filter_by_created_timestamp: bool,
) -> pa.Table:
    """Give the features `names` of one view, one row for each entity row."""
    source = _file_source(view.batch_source)
    time, created = source.timestamp_field, source.created_timestamp_column
    keys = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
    entity_keys = [view.projection.join_key_map.get(key, key) for key in keys]
    missing = [key for key in entity_keys if key not in entities.column_names]
    if missing:
        raise DataError(
            f"view {view.name!r}: entity_df has no join key {', '.join(missing)}; "
            f"it has {', '.join(entities.column_names)}"
        )
    stored = {name: column for column, name in source.field_mapping.items()}
    columns = {name: stored.get(name, name) for name in [*keys, *names, time, created] if name}
    if PARTITION in entities.column_names:
        columns[PARTITION] = PARTITION
    ttl = (view.ttl or timedelta(0)) // _MICROSECOND
    first, last = _window(instants)
    rows = _read(config, source, columns, time=time, first=first - ttl if ttl else None, last=last)
    if rows is None:
        declared = {field.name: from_feast_to_pyarrow_type(field.dtype) for field in view.features}
        return pa.table({name: pa.nulls(entities.num_rows, declared[name]) for name in names})
    rows = _newest_last(rows, time, created)
    event = since = _instants(rows[time], null=_AFTER_ALL)
    if created:
        since = np.maximum(event, _instants(rows[created], null=_AFTER_ALL))
    asking, offered = _numbered(entities, entity_keys), _numbered(rows, keys)
    seen = np.full(entities.num_rows, -1, dtype=np.int64)
    for batch, who in _by_batch(entities):
        there = np.ones(rows.num_rows, dtype=bool)
        if batch and view.stream_source is None:
            there = rows[PARTITION].to_numpy() < batch
        by_creation = filter_by_created_timestamp or (batch and view.stream_source is not None)
        visible_from = since if by_creation else event
        found = _newest_seen(
            connection,
            {**_taken(asking, who), "instant": instants[who]},
            {**_taken(offered, there), "instant": visible_from[there]},
        )
        seen[who] = np.append(np.flatnonzero(there), -1)[found]  # -1 stays -1
    if ttl and event.size:
        seen[event[seen] < instants - ttl] = -1  # where it is -1 already, -1 it stays
    return rows.select(names).take(pa.array(seen, mask=seen < 0))


def _by_batch(entities: pa.Table) -> Iterator[tuple[str | None, NDArray[np.bool_]]]:
    """Give each batch that entity rows name, and which rows name it; None: they name none."""
    if PARTITION not in entities.column_names:
        yield None, np.ones(entities.num_rows, dtype=bool)
        return
    named = entities[PARTITION].to_numpy(zero_copy_only=False)
    for batch in entities[PARTITION].unique().to_pylist():
        yield (
            batch,
            np.asarray([name is None for name in named] if batch is None else named == batch),
        )


def _taken(columns: dict[str, pa.ChunkedArray], which: NDArray[np.bool_]) -> dict[str, Any]:
    return {name: column.filter(pa.array(which)) for name, column in columns.items()}


def _newest_seen(
    connection: duckdb.DuckDBPyConnection, entity: dict[str, Any], feature: dict[str, Any]
) -> NDArray[np.int64]:
    """Give the number of the last feature row that each entity row sees, -1 if it sees none.

    Parameters
    ----------
    entity, feature : dict of str to array-like
        ``k0``, ``k1``, ...: the join keys; ``instant``: microseconds, when the entity row looks,
        and from when on the feature row is visible. Of two visible feature rows the later wins.

    Notes
    -----
    Each feature row first takes the number of the last row that is visible when it is. So it does
    not matter which row of an instant is matched, and a late correction hides no newer event.
    """
    keys = [name for name in feature if name != "instant"]
    per_key = f"PARTITION BY {', '.join(keys)}" if keys else ""
    same_key = "".join(f"entity.{key} = feature.{key} AND " for key in keys)
    for name, table in (("entities", pa.table(entity)), ("features", pa.table(feature))):
        connection.register(name, table.append_column("row", [np.arange(table.num_rows)]))
    matches = connection.sql(f"""
        SELECT entity.row AS entity_row, feature.last_row
        FROM entities AS entity
        ASOF JOIN (
            SELECT *, max(row) OVER ({per_key} ORDER BY instant) AS last_row FROM features
        ) AS feature
        ON {same_key} entity.instant >= feature.instant
    """).to_arrow_table()  # noqa: S608 - only numbers get into the text
    seen = np.full(len(entity["instant"]), -1, dtype=np.int64)
    seen[matches["entity_row"].to_numpy()] = matches["last_row"].to_numpy()
    return seen


def _numbered(table: pa.Table, columns: list[str]) -> dict[str, pa.ChunkedArray]:
    """Give columns under the names k0, k1, ...: safe in SQL, whatever they are called."""
    return {f"k{number}": table[column] for number, column in enumerate(columns)}


def _instants(column: pa.ChunkedArray, *, null: int) -> Instants:
    """Give timestamps of any unit and zone as microseconds since 1970 UTC; naive ones are UTC."""
    if not pa.types.is_timestamp(column.type):
        raise DataError(
            f"event and created times must be timestamps, got a column of {column.type}"
        )
    moments = column.cast(pa.timestamp("us", "UTC"), safe=False)  # unsafe: may drop nanoseconds
    instants: Instants = moments.cast(pa.int64()).fill_null(null).to_numpy()
    return instants


def _window(instants: Instants) -> tuple[int, int]:
    """Give the first and the last instant; of none at all, a window with nothing in it."""
    known = instants[instants != _BEFORE_ALL]
    return (int(known.min()), int(known.max())) if known.size else (0, -1)


def _newest_last(rows: pa.Table, time: str, created: str | None) -> pa.Table:
    """Sort rows by event timestamp, then created timestamp, then the order they are in."""
    columns = [name for name in (created, time) if name]
    return rows.take(np.lexsort([_instants(rows[name], null=_BEFORE_ALL) for name in columns]))


def _read(
    config: RepoConfig,
    source: FileSource,
    columns: dict[str, str] | None,
    *,
    time: str,
    first: int | None,
    last: int | None,
) -> pa.Table | None:
    """Read the rows with ``first <= time <= last``, in path order.

    Parameters
    ----------
    columns : dict of str to str
        Name to give: name in the files. None reads all columns.
    first, last : int
        Instants, or None for no bound.

    Returns
    -------
    pyarrow.Table or None
        None if there are no files. One chunk: Feast sends only the first to the online store.
    """
    if config.offline_store.table_format == "delta":
        return _read_table(config, source, columns, time=time, first=first, last=last)
    dataset = _open(*_locate(config, source))
    if dataset is None:
        if source.path.endswith(".parquet") and not _is_glob(source.path):
            raise DataError(
                f"source {source.name!r}: no file {source.path}; write it or mend the path"
            )
        logger.warning("source %s has no Parquet files yet: %s", source.name, source.path)
        return None
    names = dataset.schema.names
    columns = columns or {name: name for name in names}
    missing = [column for column in columns.values() if column not in names]
    if missing:
        raise DataError(
            f"source {source.name!r}: its files have no column {', '.join(missing)}, they have "
            f"{', '.join(names)}; mend the view's schema or the source's field_mapping"
        )
    kind = dataset.schema.field(columns[time]).type
    if not pa.types.is_timestamp(kind):
        raise DataError(f"source {source.name!r}: column {time} must be a timestamp, got {kind}")
    moment, in_range = pads.field(columns[time]), pads.scalar(True)
    if first is not None:
        in_range &= moment >= _bound(first, kind, round_up=True)
    if last is not None:
        in_range &= moment <= _bound(last, kind, round_up=False)
    wanted = {name: pads.field(column) for name, column in columns.items()}
    return dataset.to_table(columns=wanted, filter=in_range).combine_chunks()


def _bound(instant: int, kind: pa.TimestampType, *, round_up: bool) -> pa.Scalar:
    """Give an instant in a column's own type, so that Parquet's statistics can skip row groups.

    All nanoseconds of a microsecond count as that microsecond.
    """
    unit = _NANOSECONDS[kind.unit]
    value = -((999 - instant * 1000) // unit) if round_up else (instant * 1000 + 999) // unit
    return pa.scalar(min(max(value, _BEFORE_ALL), _AFTER_ALL), kind)


def _file_source(source: DataSource | None) -> FileSource:
    if isinstance(source, FileSource) and isinstance(source.file_format, ParquetFormat | None):
        return source
    raise DataError(f"source must be a FileSource of Parquet files, got {source!r}")


def _read_table(
    config: RepoConfig,
    source: FileSource,
    columns: dict[str, str] | None,
    *,
    time: str,
    first: int | None,
    last: int | None,
) -> pa.Table | None:
    """Do what `_read` does for a Delta table; partitions outside of the time range are not read."""
    snapshot = Table(Storage(config.offline_store.storage_url), source.path).snapshot()
    if snapshot.version < 0:
        logger.warning("source %s has no table yet: %s", source.name, source.path)
        return None
    columns = columns or {name: name for name in snapshot.schema.names}
    start, end = (None if at is None else _EPOCH + at * _MICROSECOND for at in (first, last))
    partitions = snapshot.between(columns[time], start, end)
    rows = snapshot.read(partitions, list(dict.fromkeys(columns.values())))
    instants = _instants(rows[columns[time]], null=_AFTER_ALL)
    inside = np.ones(len(instants), dtype=bool)
    if first is not None:
        inside &= instants >= first
    if last is not None:
        inside &= instants <= last
    found = pa.table({name: rows[column] for name, column in columns.items()})
    return found.filter(pa.array(inside)).combine_chunks()


def _open(filesystem: pafs.FileSystem, path: str) -> pads.FileSystemDataset | None:
    """Open Parquet files with the union of their schemas, or give None if there are none.

    A column that one file lacks, or has only nulls in, takes its type from the other files.
    """
    parquet = pads.ParquetFileFormat()
    fragments = [
        parquet.make_fragment(file.path, filesystem, file_size=file.size)
        for file in _list_files(filesystem, path)
    ]
    if not fragments:
        return None
    with ThreadPoolExecutor(_FOOTER_READERS) as threads:
        schemas = list(threads.map(lambda fragment: fragment.physical_schema, fragments))
    schema = pa.unify_schemas(schemas, promote_options="permissive").remove_metadata()
    return pads.FileSystemDataset(fragments, schema, parquet, filesystem)


def _locate(config: RepoConfig, source: FileSource) -> tuple[pafs.FileSystem, str]:
    """Give the filesystem of a source, and the path there: of a file, a glob or a directory."""
    store, url = config.offline_store, source.path.rstrip("/")
    if "://" not in url and not url.startswith("/"):
        url = f"{str(store.storage_url or config.repo_path or '.').rstrip('/')}/{url}"
    if not url.startswith("s3://"):
        return pafs.LocalFileSystem(), str(Path(url.removeprefix("file://")).absolute())
    endpoint = (
        source.s3_endpoint_override
        or store.storage_endpoint
        or os.environ.get("AWS_ENDPOINT_URL_S3")  # pyarrow itself ignores these two
        or os.environ.get("AWS_ENDPOINT_URL", "")
    )
    filesystem, path = FileSource.create_filesystem_and_path(
        url, endpoint, source.resolve_credentials()
    )
    return filesystem, path


def _is_glob(path: str) -> bool:
    return any(character in path for character in "*?[")


def _list_files(filesystem: pafs.FileSystem, path: str) -> list[pafs.FileInfo]:
    """Give the Parquet files that a path means, sorted by path."""
    found = filesystem.get_file_info(path)
    if found.type == pafs.FileType.File:
        return [found]
    root, wanted = path, ".*"
    if _is_glob(path):
        root, wanted = re.split(r"[*?\[]", path)[0].rpartition("/")[0], glob_translate(path)
    below = filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    files = [
        file
        for file in below
        if file.type == pafs.FileType.File
        and file.path.endswith(".parquet")
        and re.match(wanted, file.path)
        and not re.search(r"/[_.]", file.path.removeprefix(root))
    ]
    return sorted(files, key=lambda file: file.path)


def _write(table: pa.Table, filesystem: pafs.FileSystem, path: str) -> None:
    """Write a Parquet file whole or not at all: S3 does so by itself, a disk by a rename."""
    content = pa.BufferOutputStream()
    pq.write_table(table, content)
    folder, _, name = path.rpartition("/")
    on_disk = isinstance(filesystem, pafs.LocalFileSystem)
    staged = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp" if on_disk else path
    if on_disk:
        filesystem.create_dir(folder, recursive=True)
    with filesystem.open_output_stream(staged) as stream:
        stream.write(content.getvalue())
    if on_disk:
        filesystem.move(staged, path)
