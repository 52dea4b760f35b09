"""Makes a `Table`: a Delta table of a model, cut into partitions that are replaced one by one.

A partition is one Parquet file. Which delivery is in force follows from the table's log alone: the
file's partition columns and its name carry order and content. A partition of no rows is a file of
no rows, and so differs from one that was never written.

We write the file ourselves and commit it with `create_write_transaction`, for three reasons: a
commit that lost a race is tried again without the rows, which may be a stream that is gone;
statistics are those that the readers ask for; a partition may be empty. Each commit carries an
application transaction named by its partition. Without it, delta-rs lets two first writers of a
partition both succeed, because neither has removed a file that the other one needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, create_table_with_add_actions

from include.retraining.data.column_types import cast, kept_schema
from include.retraining.errors import (
    DataError,
    NotPublished,
    Superseded,
    Unavailable,
    did_you_mean,
)
from include.retraining.storage import Storage

PARTITION = "_rt_partition"
DELIVERY = "_rt_delivery"
INTERNAL = (PARTITION, DELIVERY)
CHECKPOINT_EVERY = 10  # commits; opening reads one checkpoint and at most so many commits
ROW_GROUP = 128 * 1024  # rows; what a writer and a reader of 13 columns hold at a time is 15 MB
READERS = 16  # threads; on S3 every file is a round trip
WHOLE_FILE = 8 * 2**20  # bytes; a smaller file is fetched in one request
UPLOAD = 16 * 2**20  # bytes of one part of a multipart upload
PATIENCE = timedelta(minutes=10)  # how long a commit that keeps losing races is tried
ORPHAN_AGE = timedelta(days=1)  # a younger file without a commit may be about to get one

log = logging.getLogger(__name__)

_PARTITION_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")
_CONTENT = re.compile(r"[0-9a-f]{12,128}")
_FILE = re.compile(
    rf"{PARTITION}=(?P<partition>{_PARTITION_NAME.pattern})/{DELIVERY}=(?P<delivery>[^/]+)/"
    r"(?P<order>\d{6,9})-(?P<content>[0-9a-f]{12,128})-(?P<parts>\d+)-[0-9a-f]{8}\.parquet"
)
_LOG_FILE = re.compile(r"(?P<version>\d{20})\.(?P<kind>json|checkpoint\..*parquet)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999 in microseconds
_PROPERTIES = {
    "delta.checkpointInterval": str(CHECKPOINT_EVERY),
    # which old versions somebody needs is known to `vacuum` alone
    "delta.enableExpiredLogCleanup": "false",
    # by default the statistics of all but the first 32 columns are left out
    "delta.dataSkippingNumIndexedCols": "-1",
}


@dataclass(frozen=True)
class Part:
    """What is in force for one partition.

    Parameters
    ----------
    content : str
        The hex digest that says what the rows are.
    order : int
        The number of the delivery.
    rows : int
    bytes : int
        Size of the Parquet files.
    files : tuple of str
        Absolute paths, or URLs on S3.
    """

    content: str
    order: int
    rows: int
    bytes: int
    files: tuple[str, ...]
    _count_nulls: Callable[[], dict[str, int]] = field(repr=False, compare=False)

    @cached_property
    def nulls(self) -> Mapping[str, int]:
        """How many rows have no value, for each column that is not a struct."""
        return self._count_nulls()


class Published(NamedTuple):
    """What a call of `replace` came to.

    `changed` is False if this very delivery was in force already; `before` is what it took the
    place of.
    """

    version: int
    part: Part
    changed: bool
    before: Part | None


class Snapshot:
    """One version of a table. It never changes, and only `read` asks the storage for anything.

    Parameters
    ----------
    version : int
        -1 if the table does not exist yet.
    schema : pa.Schema
        Without internal columns.
    parts : mapping
        From partition to `Part`, in order.
    """

    def __init__(
        self,
        table: Table,
        version: int,
        schema: pa.Schema,
        parts: Mapping[str, Part],
        ranges: Mapping[str, Mapping[str, tuple[Any, Any]]],
    ) -> None:
        self.table = table
        self.version = version
        self.schema = schema
        self.parts = parts
        self._ranges = ranges

    def read(
        self, partitions: Iterable[str] | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Give the rows, in order of partition, and in each in the order they were written.

        Parameters
        ----------
        partitions : iterable of str, optional
            All, unless named.
        columns : sequence of str, optional
            All but the internal ones, unless named. What a batch did not have is null.

        Raises
        ------
        NotPublished
            A partition that is named is not in this version.
        DataError
            A column is unknown, or a data file is gone or is not what the log says.
        """
        names = list(columns) if columns is not None else self.schema.names
        self._require(names)
        wanted = sorted(set(self.parts if partitions is None else partitions))
        for partition in wanted:
            if partition not in self.parts:
                raise NotPublished(
                    f"{self.table.url} has no partition {partition!r} in version {self.version}; "
                    "publish it, or read a newer version"
                )
        schema = pa.schema([(name, self._type(name)) for name in names])
        if not wanted:
            return schema.empty_table()

        def read(partition: str) -> pa.Table:
            return self._read_part(partition, schema)

        if len(wanted) == 1:
            return read(wanted[0])
        with ThreadPoolExecutor(min(READERS, len(wanted))) as threads:
            return pa.concat_tables(threads.map(read, wanted))

    def between(
        self, column: str, first: datetime | None = None, last: datetime | None = None
    ) -> list[str]:
        """Give the partitions that may hold values of a timestamp column in ``[first, last]``.

        Parameters
        ----------
        column : str
        first, last : datetime, optional
            Both ends are included; a naive one is UTC; None is no bound.

        Returns
        -------
        list of str
            In order.

        Raises
        ------
        DataError
            The column is unknown or has no timestamps.
        """
        if not self.parts:
            return []
        self._require([column])
        if not pa.types.is_timestamp(self._type(column)):
            raise DataError(
                f"{self.table.url}: column {column!r} is {self._type(column)}, not a timestamp; "
                "name a column of timestamps"
            )
        start, end = (_microseconds(moment) if moment else None for moment in (first, last))
        ranges = self._ranges.get(column, {})
        found: list[str] = []
        for partition, part in self.parts.items():
            if part.nulls.get(column, part.rows) == part.rows:
                continue
            low, high = ranges.get(partition, (None, None))
            if (end is not None and low is not None and low > end) or (
                start is not None and high is not None and high < start
            ):
                continue
            found.append(partition)
        return found

    def files(
        self, *, column: str, first: datetime | None = None, last: datetime | None = None
    ) -> list[str]:
        """Give the data files of these partitions: absolute paths, or ``s3://`` URLs."""
        names = self.between(column, first, last)
        return [file for name in names for file in self.parts[name].files]

    def has(self, partition: str, file: _DataFile) -> bool:
        """Is this file in force?"""
        part = self.parts.get(partition)
        return part is not None and part.files == (self.table.data_path(file.path),)

    def digest(self, partitions: Iterable[str]) -> str:
        """Give one SHA-256 of the data files of some partitions, as they are now."""

        def read(part: Part) -> bytes:
            (path,) = part.files
            with self.table.open_data(path, part.bytes) as source:
                return hashlib.sha256(source.read()).digest()

        with ThreadPoolExecutor(READERS) as threads:
            found = threads.map(read, [self.parts[name] for name in sorted(set(partitions))])
            return hashlib.sha256(b"".join(found)).hexdigest()

    def _type(self, name: str) -> pa.DataType:
        return pa.string() if name in INTERNAL else self.schema.field(name).type

    def _require(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.schema.names and name not in INTERNAL:
                raise DataError(
                    f"{self.table.url} has no column {name!r} in version {self.version}"
                    f"{did_you_mean(name, self.schema.names)}; it has "
                    f"{', '.join(self.schema.names) or 'none'}"
                )

    def _read_part(self, partition: str, schema: pa.Schema) -> pa.Table:
        part = self.parts[partition]
        (path,) = part.files
        try:
            with self.table.open_data(path, part.bytes) as source:
                file = pq.ParquetFile(source, pre_buffer=True)
                there = set(file.schema_arrow.names)
                table = file.read([name for name in schema.names if name in there])
        except FileNotFoundError as error:
            raise DataError(
                f"{path} is gone, but version {self.version} of {self.table.url} needs it: it was "
                "removed by hand, or by a vacuum that did not keep this version; restore the file, "
                f"or publish partition {partition!r} again"
            ) from error
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{path} cannot be read as Parquet ({error}): it is not what version "
                f"{self.version} of {self.table.url} was written with; restore the file, or "
                f"publish partition {partition!r} again"
            ) from error
        if table.num_rows != part.rows:
            raise DataError(
                f"{path} has {table.num_rows} rows, but version {self.version} of {self.table.url} "
                f"was written with {part.rows}; restore the file, or publish partition "
                f"{partition!r} again"
            )
        constant = {PARTITION: partition, DELIVERY: _delivery(_name(part.order, part.content))}
        columns = []
        for name, kind in zip(schema.names, schema.types, strict=True):
            if name in constant:
                columns.append(pa.repeat(constant[name], part.rows))
            elif name in there:
                columns.append(table.column(name).cast(kind))
            else:
                columns.append(pa.nulls(part.rows, kind))
        return pa.table(columns, schema=schema)


class Table:
    """A Delta table below a storage. Nothing is opened until it is asked for.

    Parameters
    ----------
    storage : Storage
    key : str
        Folder below the storage root, such as ``flights/tables/rows/batch``.
    """

    def __init__(self, storage: Storage, key: str) -> None:
        self.storage = storage
        self.key = key.strip("/")
        self.url = storage.url_of(self.key)
        self._path = self.url.removeprefix("file://") if storage.is_local else self.url
        if unquote(self._path) != self._path:
            raise DataError(
                f"{self.url}: delta-rs reads %20 and its like as the character they stand for, "
                "even in a folder's name; use a storage URL without a percent sign"
            )

    def snapshot(self, version: int | None = None) -> Snapshot:
        """Give the newest version, or the one of a number; version -1 if there is no table yet.

        Raises
        ------
        DataError
            There is no such version (any more), the log is damaged, or somebody else has written.
        Unavailable
            The storage does not answer.
        """
        if version == -1:
            return self._empty()
        if version is not None:
            known = _opened.get(self._cache_key())
            if known is not None and known.snapshot.version == version:
                return known.snapshot
            with self._explained():
                return self._snapshot_of(DeltaTable(self._path, version, self._options()))
        with self._lock_of():
            opened = self._open()
            return opened.snapshot if opened else self._empty()

    def replace(
        self,
        partition: str,
        rows: pa.Table | pa.RecordBatchReader,
        *,
        content: str,
        order: int = 0,
        about: Mapping[str, str] | None = None,
    ) -> Published:
        """Put rows in force as the whole of a partition, in one commit.

        Parameters
        ----------
        partition : str
            Letters, digits, ``_``, ``.`` and ``-``.
        rows : pa.Table or pa.RecordBatchReader
            A reader is written as it comes; no more than one row group is held.
        content : str
            Hex digest that says what the rows are.
        order : int
            Number of the delivery. An older one never takes the place of a newer one.
        about : mapping of str to str, optional
            What the commit says of itself, for people and other tools.

        Returns
        -------
        Published
            `changed` is False if this content and order were in force already.

        Raises
        ------
        Superseded
            A newer delivery is in force; or another writer has put other rows of the same order in
            force since this call began.
        DataError
            A column has a type that cannot be kept, or values that the table's type of it cannot
            hold.
        Unavailable
            The storage does not answer, or other writers were faster all the time.
        """
        self._check(partition, content, order)
        until = time.monotonic() + PATIENCE.total_seconds()
        first_seen: Part | None = None
        written: _DataFile | None = None
        attempt = 0
        try:
            while time.monotonic() < until:
                base = self.snapshot()
                now = base.parts.get(partition)
                if now is not None and (now.order, now.content) == (order, content):
                    return Published(base.version, now, changed=False, before=now)
                if not attempt:
                    first_seen = now
                self._refuse_if_superseded(partition, now, first_seen, order, content)
                if written is None:
                    written = _write(self, rows, base, partition, _name(order, content))
                elif not written.fits(base.schema):
                    # the rows themselves may be a stream that is gone
                    written = written.again(base, partition)
                after = self._commit(written, base, partition, order, about or {})
                if after is not None:
                    written = None
                    self._keep_commits(base.version, after.version)
                    return Published(
                        after.version, after.parts[partition], changed=True, before=now
                    )
                attempt += 1
                time.sleep(random.uniform(0, min(1.0, 0.01 * 2**attempt)))  # noqa: S311 - no secret
        finally:
            if written is not None:
                written.remove()
        raise Unavailable(
            f"{self.url}: partition {partition!r} was not committed within {PATIENCE}, because "
            "other writers were faster each time; try again"
        )

    def vacuum(
        self, *, keep_versions: Collection[int], older_than: timedelta, dry_run: bool = False
    ) -> list[str]:
        """Remove data files that no kept version and no recent version needs.

        Parameters
        ----------
        keep_versions : collection of int
            Versions that stay readable, whatever their age.
        older_than : timedelta
            A version younger than this stays readable, too.
        dry_run : bool
            Only say what would be removed.

        Returns
        -------
        list of str
            Paths below the table.
        """
        with self._lock_of():
            opened = self._open()
            if opened is None:
                return []
            newest = opened.snapshot.version
            unknown = [version for version in keep_versions if not 0 <= version <= newest]
            if unknown:
                raise DataError(
                    f"{self.url}: versions to keep must be 0 to {newest}, got {unknown}; nothing "
                    "was removed"
                )
            removed: list[str] = []
            with self._explained():
                # the second run looks for files that no version knows, too
                for full, age in ((False, older_than), (True, max(older_than, ORPHAN_AGE))):
                    removed += opened.table.vacuum(
                        retention_hours=math.ceil(age / timedelta(hours=1)),
                        dry_run=dry_run,
                        enforce_retention_duration=False,
                        full=full,
                        keep_versions=sorted(set(keep_versions)),
                    )
            self._open()
            return sorted({*removed, *self._clean_log(keep_versions, newest, older_than, dry_run)})

    def _clean_log(
        self, keep: Collection[int], newest: int, older_than: timedelta, dry_run: bool
    ) -> list[str]:
        """Remove what of the log no version needs that is kept or recent.

        A version needs the last checkpoint at or before it, and all commits from there on. Commits
        stay from the first one that is needed, without a gap, because readers refuse a log with a
        gap; checkpoints in between go, since they are what makes a log large.
        """
        commits: dict[int, tuple[str, datetime]] = {}
        checkpoints: dict[int, list[str]] = {}
        filesystem = self.storage.filesystem
        for path, about in filesystem.find(f"{self._path}/_delta_log", detail=True).items():
            found = _LOG_FILE.fullmatch(os.path.basename(path))
            if found and found["kind"] == "json":
                modified = about.get("LastModified") or datetime.fromtimestamp(about["mtime"], UTC)
                commits[int(found["version"])] = path, modified
            elif found:
                checkpoints.setdefault(int(found["version"]), []).append(path)
        limit = datetime.now(UTC) - older_than
        recent = [version for version, (_, modified) in commits.items() if modified > limit]
        # one was in force when the recent ones began
        first_recent = max(min([*recent, newest]) - 1, 0)
        bases = {
            max((one for one in checkpoints if one <= version), default=0)
            for version in {*keep, *range(first_recent, newest + 1)}
        }
        gone = [path for version, (path, _) in sorted(commits.items()) if version < min(bases)]
        for version, paths in sorted(checkpoints.items()):
            if version < newest and version not in bases:
                gone += paths
        if not dry_run:
            for path in gone:
                filesystem.rm_file(path)
        return [f"_delta_log/{os.path.basename(path)}" for path in gone]

    def open_data(self, path: str, size: int) -> Any:
        """Open a data file for reading; raises FileNotFoundError."""
        if self.storage.is_local:
            return pa.OSFile(path)
        if size < WHOLE_FILE:
            # more than one at a time, and s3fs would ask for the size first
            return pa.BufferReader(self.storage.filesystem.cat_file(path, max_concurrency=1))
        return self.storage.filesystem.open(path, "rb", size=size, cache_type="none")

    def data_path(self, path: str) -> str:
        """Give the absolute path, or the URL, of a path below the table."""
        return f"{self._path}/{path}"

    def _check(self, partition: str, content: str, order: int) -> None:
        if not _PARTITION_NAME.fullmatch(partition):
            raise DataError(
                f"{self.url}: partition {partition!r} cannot name a folder; use letters, digits, "
                "'_', '.' and '-'"
            )
        if not _CONTENT.fullmatch(content):
            raise DataError(
                f"{self.url}: content must be 12 to 128 lower-case hex digits, got {content!r}"
            )
        if not 0 <= order < 10**9:
            raise DataError(f"{self.url}: order must be 0 to 999,999,999, got {order}")

    def _refuse_if_superseded(
        self, partition: str, now: Part | None, first_seen: Part | None, order: int, content: str
    ) -> None:
        if now is None:
            return
        tried = f"{self.url}: partition {partition!r} has delivery {now.order} in force"
        if now.order > order:
            raise Superseded(
                f"{tried} (content {now.content[:12]}), and delivery {order} (content "
                f"{content[:12]}) is older; nothing was changed. Leave it, or deliver it again"
            )
        if now.order == order and now != first_seen:
            raise Superseded(
                f"{tried} with content {now.content[:12]}, which another writer has put there "
                f"while content {content[:12]} of the same delivery was being written; nothing was "
                "changed. Find out why one delivery has two contents, then publish the right one"
            )

    def _commit(
        self,
        file: _DataFile,
        base: Snapshot,
        partition: str,
        order: int,
        about: Mapping[str, str],
    ) -> Snapshot | None:
        """Commit one file as the whole of a partition; None if another writer was first."""
        action = file.action(partition)
        properties = CommitProperties(
            custom_metadata=dict(about),
            # delta-rs would create a table that is there by now a second time, beside what it holds
            max_commit_retries=0 if base.version < 0 else 200,
            app_transactions=[Transaction(partition, order)],
        )
        schema = Schema.from_arrow(
            pa.schema([*file.merged(base.schema), *((name, pa.string()) for name in INTERNAL)])
        )
        with self._lock_of(), self._explained():
            opened = _opened.get(self._cache_key())
            if opened is None:
                if base.version >= 0:
                    return None
                return self._create(action, schema, properties)
            # another thread of this process may have moved it on
            newest = opened.snapshot
            if newest.parts.get(partition) != base.parts.get(partition) or not file.fits(
                newest.schema
            ):
                return None
            try:
                opened.table.create_write_transaction(
                    [action],
                    "overwrite",
                    schema,
                    list(INTERNAL),
                    [(PARTITION, "=", partition)],
                    commit_properties=properties,
                )
            except CommitFailedError as error:
                log.info("%s %s: another writer was first: %s", self.url, partition, error)
                return None
            return self._with(file, partition, after=base.version)

    def _with(self, file: _DataFile, partition: str, *, after: int) -> Snapshot:
        """Give a version that has a file in force which was committed after a version."""
        newest = self.snapshot()
        if newest.has(partition, file):
            return newest
        # somebody with a newer delivery was upon us at once; ours was in force before
        for version in range(newest.version - 1, after, -1):
            snapshot = self.snapshot(version)
            if snapshot.has(partition, file):
                return snapshot
        raise AssertionError(f"{self.url}: {file.path} was committed, but is in no version")

    def _create(
        self, action: AddAction, schema: Schema, properties: CommitProperties
    ) -> Snapshot | None:
        if self.storage.is_local:
            os.makedirs(self._path, exist_ok=True)
        try:
            create_table_with_add_actions(
                self._path,
                schema,
                [action],
                mode="error",
                partition_by=list(INTERNAL),
                configuration=_PROPERTIES,
                storage_options=self._options(),
                commit_properties=properties,
            )
        except CommitFailedError:
            return None
        except DeltaError as error:
            if "already exists" not in str(error):
                raise
            return None
        return self._snapshot_of(DeltaTable(self._path, 0, self._options()))

    def _empty(self) -> Snapshot:
        return Snapshot(self, -1, pa.schema([]), {}, {})

    def _options(self) -> dict[str, str]:
        return {} if self.storage.is_local else s3_options(os.environ)

    def _cache_key(self) -> tuple[str, ...]:
        return (self.url, *(f"{name}={value}" for name, value in sorted(self._options().items())))

    def _lock_of(self) -> threading.RLock:
        with _all_locks:
            return _locks.setdefault(self._cache_key(), threading.RLock())

    def _open(self) -> _Opened | None:
        """Bring what this process has opened up to date; the caller holds the lock."""
        key = self._cache_key()
        opened = _opened.get(key)
        with self._explained():
            if opened is not None:
                opened.table.update_incremental()
                version = opened.table.version()
                # what is updated bit by bit gets slower with every bit
                if version - opened.version <= CHECKPOINT_EVERY:
                    if version != opened.snapshot.version:
                        self._check_log(version)
                        opened.snapshot = self._snapshot_of(opened.table)
                    return opened
            try:
                table = DeltaTable(self._path, storage_options=self._options())
            except TableNotFoundError:
                _opened.pop(key, None)
                return None
            self._check_log(table.version())
            opened = _opened[key] = _Opened(table, table.version(), self._snapshot_of(table))
            return opened

    def _check_log(self, version: int) -> None:
        """Refuse commits of no bytes, which delta-rs passes over as if they were not there.

        A machine that loses power can leave them on a disk; a put on S3 is whole.
        """
        if not self.storage.is_local:
            return
        for number in range(version, max(-1, version - 2 * CHECKPOINT_EVERY), -1):
            path = f"{self._path}/_delta_log/{number:020}.json"
            with contextlib.suppress(FileNotFoundError):  # older than the log
                if not Path(path).stat().st_size:
                    raise DataError(
                        f"{path} is empty, so what was committed there is lost; restore it from a "
                        "backup, or remove it and all later entries and publish again"
                    )

    def _keep_commits(self, after: int, last: int) -> None:
        """Have commits on the disk, as their data files are: delta-rs leaves it to chance."""
        if not self.storage.is_local:
            return
        folder = f"{self._path}/_delta_log"
        for path in [
            *(f"{folder}/{number:020}.json" for number in range(after + 1, last + 1)),
            folder,
        ]:
            with contextlib.suppress(FileNotFoundError):
                file = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(file)
                finally:
                    os.close(file)

    def _snapshot_of(self, table: DeltaTable) -> Snapshot:
        actions = pa.table(table.get_add_actions()).combine_chunks()
        version, names = table.version(), actions.column_names
        found_schema = pa.schema(table.schema().to_arrow())
        schema = kept_schema(
            pa.schema([item for item in found_schema if item.name not in INTERNAL]),
            pa.schema([]),
            self.url,
        )
        counts = actions.column("null_count").chunk(0) if "null_count" in names else None
        told = (actions.column(name).to_pylist() for name in ("path", "size_bytes", "num_records"))
        parts: dict[str, Part] = {}
        index, most = {}, 0
        for row, (path, size, rows) in sorted(
            enumerate(zip(*told, strict=True)), key=lambda r: r[1][0]
        ):
            found = _FILE.fullmatch(path)
            if found is None or rows is None or found["partition"] in parts:
                raise DataError(
                    f"{self.url}: version {version} has a data file that is not ours, {path}: "
                    "another program has written to the table; restore the version before with "
                    "DeltaTable.restore(), and let only this package write to it"
                )
            partition = found["partition"]
            index[partition] = row
            most = max(most, int(found["parts"]))
            parts[partition] = Part(
                content=found["content"],
                order=int(found["order"]),
                rows=rows,
                bytes=size,
                files=(self.data_path(path),),
                _count_nulls=partial(_nulls_of, counts, row, rows, schema),
            )
        if most > len(parts):
            raise DataError(
                f"{self.url}: version {version} has {len(parts)} partitions, but its files say "
                f"that there were {most}: another program has removed some, or an entry of the log "
                "is lost; restore an older version with DeltaTable.restore(), or publish them again"
            )
        return Snapshot(self, version, schema, parts, _ranges_of(actions, index))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what an error of delta-rs means; an outage is none of the data's."""
        try:
            yield
        except OSError as error:
            raise Unavailable(f"{self.url}: the storage does not answer: {error}") from error
        except DeltaError as error:
            raise DataError(
                f"{self.url}: the log of the table cannot be used: {_first_line(error)}; restore "
                "the missing or broken files of _delta_log/ from a backup"
            ) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException" or "Forked process" not in str(error):
                raise
            raise RuntimeError(
                f"{self.url}: this process was forked from one that had opened a table, and "
                "delta-rs does not survive a fork; import it before a fork, but open tables only "
                "after it, or start processes with spawn or forkserver"
            ) from error


class _Opened:
    """A table that this process has opened: `version` is where it was read whole."""

    def __init__(self, table: DeltaTable, version: int, snapshot: Snapshot) -> None:
        self.table = table
        self.version = version
        self.snapshot = snapshot


_opened: dict[tuple[str, ...], _Opened] = {}
_locks: dict[tuple[str, ...], threading.RLock] = {}
_all_locks = threading.Lock()


@dataclass(frozen=True)
class _DataFile:
    """A Parquet file that is written, and not yet committed."""

    table: Table
    path: str  # below the table
    name: str
    size: int
    rows: int
    schema: pa.Schema
    nulls: Mapping[str, int]
    ranges: Mapping[str, tuple[int, int]]

    def fits(self, schema: pa.Schema) -> bool:
        """Has the table these types for the columns that both have?"""
        known = dict(zip(schema.names, schema.types, strict=True))
        return all(known.get(item.name, item.type) == item.type for item in self.schema)

    def merged(self, schema: pa.Schema) -> pa.Schema:
        """Give the table's schema with the columns that are new."""
        return pa.schema(
            [*schema, *(item for item in self.schema if item.name not in schema.names)]
        )

    def again(self, base: Snapshot, partition: str) -> _DataFile:
        """Write the same rows with the types that the table has by now."""
        with self.table.open_data(self.table.data_path(self.path), self.size) as source:
            file = pq.ParquetFile(source)
            rows = pa.RecordBatchReader.from_batches(self.schema, file.iter_batches(ROW_GROUP))
            written = _write(self.table, rows, base, partition, self.name)
        self.remove()
        return written

    def remove(self) -> None:
        """Remove the file, since nothing refers to it."""
        with contextlib.suppress(OSError):  # vacuum finds it
            path = self.table.data_path(self.path)
            if self.table.storage.is_local:
                os.unlink(path)
            else:
                self.table.storage.filesystem.rm_file(path)

    def action(self, partition: str) -> AddAction:
        """Give what the log says of the file."""
        moments = {
            name: (_iso(low, aware), _iso(high, aware))
            for name, (low, high) in self.ranges.items()
            for aware in [self.schema.field(name).type.tz is not None]
            if _YEARS[0] <= low and high <= _YEARS[1]
        }
        return AddAction(
            self.path,
            self.size,
            {PARTITION: partition, DELIVERY: _delivery(self.name)},
            time.time_ns() // 1_000_000,
            True,
            json.dumps(
                {
                    "numRecords": self.rows,
                    "nullCount": self.nulls,
                    "minValues": {name: low for name, (low, _) in moments.items()},
                    "maxValues": {name: high for name, (_, high) in moments.items()},
                },
                ensure_ascii=False,  # delta-rs does not find a name that is written in escapes
            ),
        )


def _write(
    table: Table,
    rows: pa.Table | pa.RecordBatchReader,
    base: Snapshot,
    partition: str,
    name: str,
) -> _DataFile:
    """Write rows to a file of their own, with the types that the table has."""
    reader = rows.to_reader(ROW_GROUP) if isinstance(rows, pa.Table) else rows
    repeated = {item for item in reader.schema.names if reader.schema.names.count(item) > 1}
    if repeated or set(INTERNAL) & set(reader.schema.names):
        raise DataError(
            f"{table.url}: column names must differ, and not be {' or '.join(INTERNAL)}; got "
            f"{', '.join(reader.schema.names)}"
        )
    schema = kept_schema(reader.schema, base.schema, table.url)
    count = len(base.parts) + (partition not in base.parts)
    path = (
        f"{PARTITION}={partition}/{DELIVERY}={_delivery(name)}/"
        f"{name}-{count}-{uuid.uuid4().hex[:8]}.parquet"
    )
    written, nulls = 0, dict.fromkeys(_counted(schema), 0)
    ranges: dict[str, tuple[int, int]] = {}
    with _new_file(table, path) as sink:
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            for batch in _row_groups(reader):
                kept = pa.table(
                    [
                        cast(batch.column(item.name), item.type, name=item.name, where=table.url)
                        for item in schema
                    ],
                    schema=schema,
                )
                writer.write_table(kept)
                written += batch.num_rows
                for item in nulls:
                    nulls[item] += kept.column(item).null_count
                for item in schema:
                    if pa.types.is_timestamp(item.type):
                        _widen(ranges, item.name, kept.column(item.name))
        size = sink.tell()
    return _DataFile(table, path, name, size, written, schema, nulls, ranges)


@contextlib.contextmanager
def _new_file(table: Table, path: str) -> Iterator[Any]:
    """Open a new data file; if writing it fails, nothing of it stays."""
    full = table.data_path(path)
    if table.storage.is_local:
        os.makedirs(os.path.dirname(full), exist_ok=True)
        try:
            with open(full, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # the log must not tell of a file that a crash can lose
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(full)
            raise
        return
    sink = table.storage.filesystem.open(full, "wb", block_size=UPLOAD)
    try:
        yield sink
    except BaseException:
        sink.discard()
        sink.closed = True  # closing it would upload what there is
        raise
    sink.close()


def _row_groups(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Cut a stream into row groups of one size, whatever the size of its batches."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in reader:
        rest = batch
        while rest.num_rows:
            piece = rest.slice(0, ROW_GROUP - count)
            rest = rest.slice(piece.num_rows)
            waiting.append(piece)
            count += piece.num_rows
            if count == ROW_GROUP:
                yield pa.Table.from_batches(waiting)
                waiting, count = [], 0
    if count:
        yield pa.Table.from_batches(waiting)


def _name(order: int, content: str) -> str:
    return f"{order:06d}-{content}"


def _delivery(name: str) -> str:
    order, _, content = name.partition("-")
    return f"{order}-{content[:12]}"


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _counted(schema: pa.Schema) -> list[str]:
    return [item.name for item in schema if not pa.types.is_struct(item.type)]


def _nulls_of(counts: Any, row: int, rows: int, schema: pa.Schema) -> dict[str, int]:
    found = {}
    for name in _counted(schema):
        there = counts is not None and counts.type.get_field_index(name) >= 0
        count = counts.field(name)[row].as_py() if there else None
        found[name] = rows if count is None else count  # a column that came later
    return found


def _widen(ranges: dict[str, tuple[int, int]], name: str, column: pa.ChunkedArray) -> None:
    found = pc.min_max(column.cast(pa.int64()))
    low, high = found["min"].as_py(), found["max"].as_py()
    if low is not None:
        before = ranges.get(name, (low, high))
        ranges[name] = min(low, before[0]), max(high, before[1])


def _iso(moment: int, aware: bool) -> str:
    return str(np.datetime64(moment, "us")) + ("Z" if aware else "")


def _microseconds(moment: datetime) -> int:
    return (_aware(moment) - _EPOCH) // timedelta(microseconds=1)


def _ranges_of(
    actions: pa.Table, index: Mapping[str, int]
) -> dict[str, dict[str, tuple[int | None, int | None]]]:
    """Give the first and last moment of each timestamp column and partition, in microseconds."""
    if "min" not in actions.column_names or not index:
        return {}
    low, high = actions.column("min").chunk(0), actions.column("max").chunk(0)
    found = {}
    for item in low.type:
        if pa.types.is_timestamp(item.type):
            ends = [
                side.field(item.name)
                .cast(pa.timestamp("us", item.type.tz))
                .cast(pa.int64())
                .to_pylist()
                for side in (low, high)
            ]
            found[item.name] = {
                partition: (ends[0][row], ends[1][row]) for partition, row in index.items()
            }
    return found


def s3_options(environ: Mapping[str, str]) -> dict[str, str]:
    """Give delta-rs the endpoint that s3fs would take, and what makes its commits safe.

    Credentials and region it reads from the same ``AWS_*`` variables by itself.

    >>> s3_options({"AWS_ENDPOINT_URL_S3": "http://minio:9000"})["AWS_ENDPOINT_URL"]
    'http://minio:9000'
    """
    options = {name: value for name, value in environ.items() if name.startswith("AWS_")}
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
    options.pop("AWS_ENDPOINT_URL_S3", None)
    if endpoint:
        options["AWS_ENDPOINT_URL"] = endpoint
        options["allow_http"] = str(endpoint.startswith("http://")).lower()
    return options | {"conditional_put": "etag", "max_retries": "5", "connect_timeout": "5s"}


def _forget() -> None:
    """Give a forked child nothing of what its parent has opened, and no lock that is held."""
    global _all_locks  # noqa: PLW0603 - a lock that a thread of the parent holds never opens
    _all_locks = threading.Lock()
    _locks.clear()
    _opened.clear()


os.register_at_fork(after_in_child=_forget)
