"""Makes a `Table`: a Delta table of a model, cut into partitions that are replaced one by one.

A partition is one Parquet file. Which delivery is in force follows from the table's log alone: the
file's partition columns and its name carry order and content. A partition of no rows is a file of
no rows, and so differs from one that was never written.

We write the file ourselves, and the log too (`delta_log`): both take few requests, a commit that
lost a race is tried again without the rows, which may be a stream that is gone, and a partition may
be empty. Each commit carries an application transaction named by its partition, so that other
writers of the format find out that they are not alone. Vacuum is left to delta-rs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import random
import re
import threading
import time
import uuid
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from include.retraining.data.column_types import cast, kept_schema
from include.retraining.data.delta_log import (
    CHECKPOINT_EVERY,
    ENGINE,
    FOLDER,
    KEPT_EVERY,
    PARTITION,
    SETTLED,
    File,
    Log,
    State,
    first_left_by_writers,
    protocol_for,
    spacing_of,
    stays,
)
from include.retraining.data.parts import (
    DELIVERY,
    PARTITION_NAME,
    ForeignFile,
    Part,
    Parts,
    counted,
    refuse_foreign,
)
from include.retraining.errors import (
    DataError,
    NotPublished,
    Superseded,
    Unavailable,
    did_you_mean,
)
from include.retraining.names import OWN
from include.retraining.storage import Storage

INTERNAL = (PARTITION, DELIVERY)
DROPPED = f"{OWN}dropped"  # counts the partitions that were taken out of force on purpose
DROPPED_UNTIL = f"{OWN}dropped_until"  # up to where a caller has said that none is missed
LONGEST_NAME = 128  # characters of a partition
ROW_GROUP = 128 * 1024  # rows; what a writer and a reader of 13 columns hold at a time is 15 MB
READERS = 16  # threads; on S3 every file is a round trip
UPLOAD = 16 * 2**20  # bytes of one part of a multipart upload
PATIENCE = timedelta(minutes=10)  # how long a commit that keeps losing races is tried
ORPHAN_AGE = timedelta(days=1)  # a younger file without a commit may be about to get one

_CONTENT = re.compile(r"[0-9a-f]{12,128}")
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
    parts : Parts
    dropped : int
        How many partitions were taken out of force on purpose, ever.
    dropped_until : int
        The largest that `Table.drop` was told, or 0.
    """

    def __init__(
        self,
        table: Table,
        version: int,
        schema: pa.Schema,
        parts: Parts,
        *,
        dropped: int = 0,
        dropped_until: int = 0,
    ) -> None:
        self.table = table
        self.version = version
        self.schema = schema
        self.parts = parts
        self.dropped = dropped
        self.dropped_until = dropped_until

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
        return self.parts.between(column, start, end)

    def values_of(self, column: str, partitions: Iterable[str]) -> int:
        """Count the rows that have a value of a column; nothing is read for it."""
        return self.parts.values_of(column, partitions)

    def files(
        self, *, column: str, first: datetime | None = None, last: datetime | None = None
    ) -> list[str]:
        """Give the data files of these partitions: absolute paths, or ``s3://`` URLs."""
        names = self.between(column, first, last)
        return [file for name in names for file in self.parts[name].files]

    def digest(self, partitions: Iterable[str]) -> str:
        """Give one SHA-256 of the data files of some partitions, as they are now."""

        def read(part: Part) -> bytes:
            (path,) = part.files
            with self.table.storage.open_path(path, part.bytes) as source:
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
            with self.table.storage.open_path(path, part.bytes) as source:
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
        self._log = Log(storage, self.key)
        _storages.add(storage)
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
        if version is None and _as_known.get():
            return self._known()
        if version is not None:
            known = _opened.get(self._cache_key())
            if known is not None and known.snapshot.version == version:
                return known.snapshot
            with self._explained():
                return self._snapshot_of(self._log.at(version))
        with self._lock_of(), self._explained():
            known = _opened.get(self._cache_key())
            return self._keep(self._log.newest(known.state if known else None))

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
                # what this process knows may be old: then the commit is refused, and it looks again
                base = self._known() if not attempt else self.snapshot()
                now = base.parts.get(partition)
                is_same = now is not None and (now.order, now.content) == (order, content)
                if now is not None and is_same and self.holds(now):
                    if not attempt:  # as of now, not of then
                        base = self.snapshot()
                        attempt += base.parts.get(partition) != now
                        if attempt:
                            continue
                    return Published(base.version, now, changed=False, before=now)
                if not attempt:
                    first_seen = now
                self._refuse_if_superseded(partition, now, first_seen, order, content)
                if written is None:
                    written = _write(self, rows, base, partition, _name(order, content))
                elif not written.fits(base.schema):
                    # the rows themselves may be a stream that is gone
                    written = written.again(base, partition)
                # if the storage fails now, the commit may be there all the same
                tried, written = written, None
                after = self._commit(tried, base, partition, order, about or {})
                if after is not None:
                    return Published(
                        after.version, after.parts[partition], changed=True, before=now
                    )
                written = tried
                attempt += 1
                time.sleep(random.uniform(0, min(1.0, 0.01 * 2**attempt)))  # noqa: S311 - no secret
        finally:
            if written is not None:
                written.remove()
        raise Unavailable(
            f"{self.url}: partition {partition!r} was not committed within {PATIENCE}, because "
            "other writers were faster each time; try again"
        )

    def drop(self, partitions: Collection[str], *, until: int = 0) -> Snapshot:
        """Take partitions out of force, in one commit; those that are not there are no error.

        Their files stay until `vacuum`, and versions that had them stay readable until then.

        Parameters
        ----------
        partitions : collection of str
        until : int, optional
            A number that is kept with the table, unless there is a larger one, for whoever has to
            know up to where a partition that is not there is none that is missing.
        """
        while True:
            base = self.snapshot()
            gone = sorted(set(partitions) & set(base.parts))
            if not gone:
                return base
            with self._lock_of(), self._explained():
                known = _opened[self._cache_key()]
                now = time.time_ns() // 1_000_000
                removed = [
                    one for name in gone for one in known.state.files_below(_folder_of(name))
                ]
                about = {"dropped": f"{len(gone)} partitions, {gone[0]} to {gone[-1]}"}
                actions = [
                    _commit_info(known.state, about, now),
                    *({"remove": one.removal(now)} for one in removed),
                    {"txn": {"appId": DROPPED, "version": base.dropped + len(gone)}},
                ]
                if until > base.dropped_until:
                    actions.append({"txn": {"appId": DROPPED_UNTIL, "version": until}})
                after = self._log.commit(known.state, actions)
                if after is not None:
                    return self._keep(after, ours=True)

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
            newest = self.snapshot().version
            if newest < 0:
                return []
            unknown = [version for version in keep_versions if not 0 <= version <= newest]
            if unknown:
                raise DataError(
                    f"{self.url}: versions to keep must be 0 to {newest}, got {unknown}; nothing "
                    "was removed"
                )
            removed: list[str] = []
            with self._explained():
                table = DeltaTable(self._path, storage_options=self._options())
                # the second run looks for files that no version knows, too
                for full, age in ((False, older_than), (True, max(older_than, ORPHAN_AGE))):
                    removed += table.vacuum(
                        retention_hours=math.ceil(age / timedelta(hours=1)),
                        dry_run=dry_run,
                        enforce_retention_duration=False,
                        full=full,
                        keep_versions=sorted(set(keep_versions)),
                    )
            return sorted({*removed, *self._clean_log(keep_versions, newest, older_than, dry_run)})

    def _clean_log(
        self, keep: Collection[int], newest: int, older_than: timedelta, dry_run: bool
    ) -> list[str]:
        """Remove what of the log no version needs that is kept or recent.

        A version needs a checkpoint at or before it, and all commits from there on. Commits stay
        from the first one that is needed, without a gap, because readers refuse a log with a gap.
        Of the checkpoints in between, one stays where the commits since the one before outweigh
        it. Those that writers may yet remove are thinned as they do it, since a commit of delta-rs
        can be the one with which they would have, and nothing is made to depend on them.
        """
        commits: dict[int, tuple[str, datetime, int]] = {}
        checkpoints: dict[int, dict[str, int]] = {}
        filesystem = self.storage.filesystem
        for path, about in filesystem.find(self.data_path(FOLDER), detail=True).items():
            found = _LOG_FILE.fullmatch(os.path.basename(path))
            if found and found["kind"] == "json":
                modified = about.get("LastModified") or datetime.fromtimestamp(about["mtime"], UTC)
                commits[int(found["version"])] = path, modified, about["size"]
            elif found:
                checkpoints.setdefault(int(found["version"]), {})[path] = about["size"]
        limit = datetime.now(UTC) - older_than
        recent = [version for version, (_, modified, _) in commits.items() if modified > limit]
        # one was in force when the recent ones began
        oldest = min([max(min([*recent, newest]) - 1, 0), *keep])
        settled = newest - SETTLED
        base = max(
            (version for version in checkpoints if version <= min(oldest, settled)),
            default=0 if 0 in commits else min(checkpoints, default=0),
        )
        gone = [path for version, (path, *_) in sorted(commits.items()) if version < base]
        last = base
        first_left = first_left_by_writers(max([*commits, newest]))
        for version in sorted(one for one in checkpoints if one < first_left):
            told = sum(commits[one][2] for one in range(last, version) if one in commits)
            size = sum(checkpoints[version].values())
            is_needed = (
                version - last >= KEPT_EVERY and told >= size
                if version <= settled
                else stays(version, spacing_of(size))
            )
            if version == base or (version > base and is_needed):
                last = version
            else:
                gone += checkpoints[version]
        names = [f"{FOLDER}/{os.path.basename(path)}" for path in gone]
        if not dry_run:
            self.storage.delete_all([f"{self.key}/{name}" for name in names])
        return names

    def holds(self, part: Part) -> bool:
        """Are the data files of a part there, as large as they were written?"""
        try:
            return bool(part.bytes == sum(self.storage.filesystem.size(one) for one in part.files))
        except FileNotFoundError:
            return False

    def data_path(self, path: str) -> str:
        """Give the absolute path, or the URL, of a path below the table."""
        return f"{self._path}/{path}"

    def _check(self, partition: str, content: str, order: int) -> None:
        if len(partition) > LONGEST_NAME or not re.fullmatch(PARTITION_NAME, partition):
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
        with self._lock_of(), self._explained():
            known = _opened.get(self._cache_key())
            state = known.state if known else State()
            newest = known.snapshot if known else self._empty()
            # another thread of this process may have moved it on
            if newest.parts.get(partition) != base.parts.get(partition) or not file.fits(
                newest.schema
            ):
                return None
            now = time.time_ns() // 1_000_000
            removed = state.files_below(_folder_of(partition))
            actions = [
                _commit_info(state, about, now),
                *self._definition(state, file.merged(newest.schema), now),
                {"add": file.action(now).action()},
                *({"remove": one.removal(now)} for one in removed),
                {"txn": {"appId": partition, "version": order}},
            ]
            after = self._log.commit(state, actions)
            return None if after is None else self._keep(after, ours=True)

    def _definition(self, state: State, schema: pa.Schema, now: int) -> Iterator[dict[str, Any]]:
        """Give the actions that tell what the table is, where they are new."""
        schema = pa.schema([*schema, *((name, pa.string()) for name in INTERNAL)])
        protocol = protocol_for(state.protocol, has_naive_time=any(map(_has_naive_time, schema)))
        if protocol != state.protocol:
            yield {"protocol": protocol}
        told = Schema.from_arrow(schema).to_json()
        if not state.metadata:
            yield {
                "metaData": {
                    "id": str(uuid.uuid4()),
                    "name": None,
                    "description": None,
                    "format": {"provider": "parquet", "options": {}},
                    "schemaString": told,
                    "partitionColumns": list(INTERNAL),
                    "createdTime": now,
                    "configuration": _PROPERTIES,
                }
            }
        elif told != state.metadata["schemaString"]:
            yield {"metaData": {**state.metadata, "schemaString": told}}

    def _empty(self) -> Snapshot:
        return Snapshot(self, -1, pa.schema([]), Parts(State().files, pa.schema([]), self._path))

    def _options(self) -> dict[str, str]:
        return {} if self.storage.is_local else s3_options(os.environ)

    def _cache_key(self) -> tuple[str, ...]:
        return (self.url, *(f"{name}={value}" for name, value in sorted(self._options().items())))

    def _lock_of(self) -> threading.RLock:
        with _all_locks:
            return _locks.setdefault(self._cache_key(), threading.RLock())

    def _known(self) -> Snapshot:
        """Give what this process has opened, as it was then; else the newest version."""
        with self._lock_of(), self._explained():
            known = _opened.get(self._cache_key())
            return known.snapshot if known else self._keep(self._log.newest())

    def _keep(self, state: State, *, ours: bool = False) -> Snapshot:
        """Keep the newest state for what this process asks next; the caller holds the lock."""
        known = _opened.get(self._cache_key())
        if known is not None and known.state is state:
            return known.snapshot
        snapshot = self._snapshot_of(state, ours=ours)
        if state.version >= 0:
            _opened[self._cache_key()] = _Opened(state, snapshot)
        return snapshot

    def _snapshot_of(self, state: State, *, ours: bool = False) -> Snapshot:
        """Give what a state means; `ours` if all that is new in it was written here.

        Raises
        ------
        DataError
            There are files that are not ours, or some of ours are gone.
        """
        if state.version < 0:
            return self._empty()
        schema = _schema_of(state.metadata["schemaString"], self.url)
        if state.foreign:
            raise DataError(
                f"{self.url}: another program has written to the table ({state.foreign}), as of "
                f"version {state.version}; restore the version before with DeltaTable.restore(), "
                "and let only this package write to it"
            )
        try:
            if not ours:
                refuse_foreign(state.files)
            parts = Parts(state.files, schema, self._path)
        except ForeignFile as error:
            raise DataError(
                f"{self.url}: version {state.version} has a data file that is not ours, {error}: "
                "another program has written to the table; restore the version before with "
                "DeltaTable.restore(), and let only this package write to it"
            ) from error
        dropped = state.transactions.get(DROPPED, 0)
        if parts.most - dropped > len(parts):
            raise DataError(
                f"{self.url}: version {state.version} has {len(parts)} partitions, but its files "
                f"say that there were {parts.most}: another program has removed some, or an entry "
                "of the log is lost; restore an older version with DeltaTable.restore(), or "
                "publish them again"
            )
        until = state.transactions.get(DROPPED_UNTIL, 0)
        return Snapshot(self, state.version, schema, parts, dropped=dropped, dropped_until=until)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what an error of delta-rs means; an outage is none of the data's."""
        try:
            yield
        except OSError as error:
            raise Unavailable(f"{self.url}: the storage does not answer: {error}") from error
        except DeltaError as error:  # of a vacuum
            raise DataError(
                f"{self.url}: the log of the table cannot be used: {_first_line(error)}; restore "
                f"the missing or broken files of {FOLDER}/ from a backup"
            ) from error
        except Exception as error:
            if not type(error).__module__.startswith("botocore."):  # has no class of its own
                raise
            raise Unavailable(f"{self.url}: the storage does not answer: {error}") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException" or "Forked process" not in str(error):
                raise
            raise RuntimeError(
                f"{self.url}: this process was forked from one that had used delta-rs, and "
                "delta-rs does not survive a fork; vacuum in a process that was started with spawn "
                "or forkserver"
            ) from error


class _Opened(NamedTuple):
    """The newest that this process has seen of a table."""

    state: State
    snapshot: Snapshot


_opened: dict[tuple[str, ...], _Opened] = {}
_as_known: ContextVar[bool] = ContextVar("_as_known", default=False)
_storages: weakref.WeakSet[Storage] = weakref.WeakSet()
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
        with self.table.storage.open_path(self.table.data_path(self.path), self.size) as source:
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

    def action(self, now: int) -> File:
        """Give what the log says of the file; `now` is in milliseconds since 1970."""
        moments = {
            name: (_iso(low, aware), _iso(high, aware))
            for name, (low, high) in self.ranges.items()
            for aware in [self.schema.field(name).type.tz is not None]
            if _YEARS[0] <= low and high <= _YEARS[1]
        }
        stats = {
            "numRecords": self.rows,
            "nullCount": self.nulls,
            "minValues": {name: low for name, (low, _) in moments.items()},
            "maxValues": {name: high for name, (_, high) in moments.items()},
        }
        return File(
            self.path,
            self.size,
            now,
            # delta-rs does not find a name that is written in escapes
            json.dumps(stats, ensure_ascii=False),
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
    count = len(base.parts) + (partition not in base.parts) + base.dropped
    path = (
        f"{PARTITION}={partition}/{DELIVERY}={_delivery(name)}/"
        f"{name}-{count}-{uuid.uuid4().hex[:8]}.parquet"
    )
    written, nulls = 0, dict.fromkeys(counted(schema), 0)
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


def _folder_of(partition: str) -> str:
    return f"{PARTITION}={partition}/"


def _commit_info(state: State, about: Mapping[str, str], now: int) -> dict[str, Any]:
    """Give what a commit says of itself."""
    is_first = state.version < 0
    return {
        "commitInfo": {
            **about,
            "timestamp": now,
            "operation": "CREATE TABLE" if is_first else "WRITE",
            "operationParameters": {
                "mode": "ErrorIfExists" if is_first else "Overwrite",
                "partitionBy": json.dumps(INTERNAL),
            },
            "engineInfo": ENGINE,
        }
    }


def _has_naive_time(item: pa.Field) -> bool:
    kind = item.type
    if pa.types.is_timestamp(kind):
        return kind.tz is None
    return any(_has_naive_time(kind.field(number)) for number in range(kind.num_fields))


@lru_cache(maxsize=64)
def _schema_of(told: str, url: str) -> pa.Schema:
    """Give the columns of a table, without the internal ones, from what its log says."""
    found = pa.schema(Schema.from_json(told).to_arrow())
    return kept_schema(
        pa.schema([item for item in found if item.name not in INTERNAL]), pa.schema([]), url
    )


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


@contextlib.contextmanager
def as_known() -> Iterator[None]:
    """Within it a table is what this process has seen of it last: it is not asked for again."""
    before = _as_known.set(True)
    try:
        yield
    finally:
        _as_known.reset(before)


def _forget() -> None:
    """Give a forked child nothing of what its parent has opened, and no lock that is held."""
    global _all_locks  # noqa: PLW0603 - a lock that a thread of the parent holds never opens
    _all_locks = threading.Lock()
    _locks.clear()
    _opened.clear()
    for storage in list(_storages):  # s3fs refuses to work in another process
        storage.__dict__.pop("filesystem", None)


os.register_at_fork(after_in_child=_forget)
