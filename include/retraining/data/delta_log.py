"""Reads and writes the log of a Delta table that only this package writes.

delta-rs can do it too, but on S3 it asks some twenty times for what four requests hold, and a
process that has used it cannot fork. What is here knows no more of the protocol than our tables
use: one Parquet file per partition, statistics as JSON, checkpoints of one file. Whatever else is
in a log is refused, because it comes from somebody who should not have written there.

Opening asks for ``_last_checkpoint``, then for the names from there on, then for that checkpoint
and the commits after it, all at once. The names are asked for, although the next commits could be
tried one by one, because only they show that one is missing in between.

A checkpoint tells of every partition, so all that were ever written would grow with the square of
the history. Who writes `_last_checkpoint` removes those before the last two, but for one in so many
versions that the commits since the one before outweigh it: from these any version is made again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.retraining.errors import DataError, Unavailable
from include.retraining.names import OWN
from include.retraining.storage import Storage

CHECKPOINT_EVERY = 3  # commits; opening reads one checkpoint and fewer commits than that
HINT_EVERY = 8  # checkpoints; the hint only says where a listing begins
KEPT_EVERY = 256  # versions, or more; one checkpoint of so many stays for older versions
COMMIT_BYTES = 1024  # about what a commit takes; of wide tables more
FOLDER = "_delta_log"
TOMBSTONE_DAYS = 7  # what Delta takes if a table does not say how long a removed file is told of
# versions after the newest; a checkpoint that is older than that is left alone by later writers
SETTLED = (HINT_EVERY + 1) * CHECKPOINT_EVERY
LOOK_BACK = 10  # versions; near the newest one there is a checkpoint within so many
WIDEN = 32  # times as far a listing looks back that has found no checkpoint
NAIVE_TIME = "timestampNtz"

PARTITION = f"{OWN}partition"  # the column whose values are the partitions
ENGINE = "retraining"  # what our commits say that they were made by
_WAY_OUT = (
    "restore it from a backup; or stop what works with the table, remove it and all later entries, "
    "and publish again what they told of"
)

log = logging.getLogger(__name__)

_NAME = re.compile(r"(?P<version>\d{20})\.(?P<kind>json|checkpoint\.parquet)")
_HINT = "_last_checkpoint"
_READERS = 8  # threads; on S3 every file is a round trip
_TRIES = 3
# by these a disk, or a bucket, says that it has taken nothing
_NOTHING_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
# what writers of version 2 may count on has a name in version 7
_LEGACY_FEATURES = ("appendOnly", "invariants")
_DAY = 86_400_000  # milliseconds

_TEXTS = pa.map_(pa.string(), pa.string())
# as delta-rs writes it, but for what is never told in our logs
_ACTIONS = {
    "add": pa.struct(
        [
            ("path", pa.string()),
            ("partitionValues", _TEXTS),
            ("size", pa.int64()),
            ("modificationTime", pa.int64()),
            ("dataChange", pa.bool_()),
            ("stats", pa.string()),
        ]
    ),
    "remove": pa.struct(
        [
            ("path", pa.string()),
            ("deletionTimestamp", pa.int64()),
            ("dataChange", pa.bool_()),
            ("extendedFileMetadata", pa.bool_()),
            ("partitionValues", _TEXTS),
            ("size", pa.int64()),
        ]
    ),
    "metaData": pa.struct(
        [
            ("id", pa.string()),
            ("name", pa.string()),
            ("description", pa.string()),
            ("format", pa.struct([("provider", pa.string()), ("options", _TEXTS)])),
            ("schemaString", pa.string()),
            ("partitionColumns", pa.list_(pa.string())),
            ("createdTime", pa.int64()),
            ("configuration", _TEXTS),
        ]
    ),
    "protocol": pa.struct(
        [
            ("minReaderVersion", pa.int32()),
            ("minWriterVersion", pa.int32()),
            ("readerFeatures", pa.list_(pa.string())),
            ("writerFeatures", pa.list_(pa.string())),
        ]
    ),
    "txn": pa.struct(
        [("appId", pa.string()), ("version", pa.int64()), ("lastUpdated", pa.int64())]
    ),
}


# what a state keeps of them; the values of its partition columns are in a file's path
_FILES = pa.schema(
    [_ACTIONS["add"].field(name) for name in ("path", "size", "modificationTime", "stats")]
)
_TOMBSTONES = pa.schema(
    [_ACTIONS["remove"].field(name) for name in ("path", "deletionTimestamp", "size")]
)


class File(NamedTuple):
    """A data file that is in force; moments are milliseconds since 1970."""

    path: str  # below the table
    size: int
    modified: int
    stats: str

    def action(self) -> dict[str, Any]:
        """Give what a commit says when it puts the file in force."""
        return {
            "path": self.path,
            "partitionValues": dict(_values_in(self.path)),
            "size": self.size,
            "modificationTime": self.modified,
            "dataChange": True,
            "stats": self.stats,
        }

    def removal(self, moment: int) -> dict[str, Any]:
        """Give what a commit says when it takes the file out of force."""
        return {
            "path": self.path,
            "deletionTimestamp": moment,
            "dataChange": True,
            "extendedFileMetadata": True,
            "partitionValues": dict(_values_in(self.path)),
            "size": self.size,
        }


@dataclass(frozen=True)
class State:
    """What a log says at one version; the version is -1 if there is no log.

    Parameters
    ----------
    version : int
    protocol, metadata : mapping
        As the actions ``protocol`` and ``metaData`` have them.
    files : Table
        What is in force: ``path``, ``size``, ``modificationTime``, ``stats``.
    tombstones : Table
        What is not in force any more: ``path``, ``deletionTimestamp``, ``size``.
    transactions : mapping of str to int
        The last version that each application has told.
    foreign : str
        What another program did to the files, unless it was taken back since; empty if nothing.
    """

    version: int = -1
    protocol: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: pa.Table = field(default_factory=_FILES.empty_table)
    tombstones: pa.Table = field(default_factory=_TOMBSTONES.empty_table)
    transactions: Mapping[str, int] = field(default_factory=dict)
    foreign: str = ""

    def files_below(self, folder: str) -> list[File]:
        """Give the files in force whose paths begin with a text."""
        found = self.files.filter(pc.starts_with(self.files["path"], folder))
        return [
            File(one["path"], one["size"], one["modificationTime"], one["stats"] or "")
            for one in found.to_pylist()
        ]


class Log:
    """The log of one table. It keeps nothing, so threads and forked processes may share it.

    Parameters
    ----------
    storage : Storage
    key : str
        Folder of the table.
    """

    def __init__(self, storage: Storage, key: str) -> None:
        self.storage = storage
        self.url = storage.url_of(key)
        self._key = f"{key}/{FOLDER}"
        self._path = storage.url_of(self._key)
        if storage.is_local:
            self._path = self._path.removeprefix("file://")

    def newest(self, known: State | None = None) -> State:
        """Give the newest version; of one that is known, only later commits are fetched.

        Raises
        ------
        DataError
            The log is damaged, or holds what this package does not write.
        """
        if known is None or known.version < 0:
            return self._open(None)
        state = known
        for _ in range(LOOK_BACK):
            try:
                content = self._read(_commit_name(state.version + 1))
            except FileNotFoundError:
                return state
            state = self._after(state, state.version + 1, content)
        return self._open(None)  # so many have come that a checkpoint is less to read

    def at(self, version: int) -> State:
        """Give a version by its number; raises DataError if it is not there (any more)."""
        return self._open(version)

    def commit(self, state: State, actions: Sequence[Mapping[str, Any]]) -> State | None:
        """Write the version after a state, and every so often a checkpoint of it.

        Parameters
        ----------
        state : State
            What the commit was made from.
        actions : sequence of mapping
            Each as the protocol has it, such as ``{"add": {...}}``.

        Returns
        -------
        State or None
            None if another writer has taken the number.

        Raises
        ------
        Unavailable
            The storage does not answer; whether the commit is there is unknown.
        """
        version = state.version + 1
        content = b"".join(
            # delta-rs does not find a name that is written in escapes
            json.dumps(action, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            for action in actions
        )
        if not self._create(_commit_name(version), content):
            return None
        after = self._after(state, version, content)
        if (version + 1) % CHECKPOINT_EVERY == 0:
            try:
                self.write_checkpoint(after)
            except Exception as error:  # noqa: BLE001 - the commit is in force without it
                log.warning("%s: no checkpoint of version %d: %s", self.url, version, error)
        return after

    def write_checkpoint(self, state: State) -> None:
        """Write the whole of a state, from which later versions are opened."""
        content = checkpoint_of(state, now=time.time_ns() // 1_000_000)
        self.storage.write(f"{self._key}/{_checkpoint_name(state.version)}", content)
        if (state.version + 1) // CHECKPOINT_EVERY % HINT_EVERY != 1:
            return
        hint = {
            "version": state.version,
            "size": pq.ParquetFile(pa.BufferReader(content)).metadata.num_rows,
            "sizeInBytes": len(content),
            "numOfAddFiles": state.files.num_rows,
        }
        # it may be older than one that another writer has just put there: it only is a hint
        self.storage.write(f"{self._key}/{_HINT}", json.dumps(hint).encode())
        spacing = spacing_of(len(content))
        first = state.version - SETTLED
        self.storage.delete_all(
            [
                f"{self._key}/{_checkpoint_name(version)}"
                # the last two stay: somebody may be about to read the one before this
                for version in range(first, state.version - CHECKPOINT_EVERY, CHECKPOINT_EVERY)
                if version >= 0 and not stays(version, spacing)
            ]
        )

    def _create(self, name: str, content: bytes) -> bool:
        """Write an entry; give False if there is another one."""
        key = f"{self._key}/{name}"
        failure: Exception | None = None
        for attempt in range(_TRIES):
            try:
                created = self.storage.create(key, content)
            except OSError as error:
                # after an answer that was lost, nobody knows
                if failure is None and error.errno in _NOTHING_WRITTEN:
                    raise Unavailable(
                        f"{self.url}: version {_version_of(name)} was not committed, because "
                        f"nothing can be written there: {error}; mend that, then try again"
                    ) from error
                created, failure = False, error
            try:
                if created:
                    self._keep_folder()
                    return True
                # a put that was repeated, since its answer was lost, finds itself
                return self._read(name) == content
            except FileNotFoundError:
                time.sleep(0.1 * 2**attempt)
            except OSError as error:
                failure = error
        raise Unavailable(
            f"{self.url}: whether version {_version_of(name)} was committed is unknown, because "
            f"the storage does not answer: {failure}; try again"
        ) from failure

    def _keep_folder(self) -> None:
        """Have the name of a new entry on the disk, as its content is."""
        if self.storage.is_local:
            folder = os.open(self._path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _open(self, version: int | None) -> State:  # noqa: C901 - one way, with its turnings
        """Read the newest version, or one by its number, from a checkpoint on."""
        first = self._hint() if version is None else max(0, version - LOOK_BACK)
        broken: set[int] = set()
        failure: DataError | None = None
        races = 0
        while races < _TRIES:
            commits, checkpoints = self._list(first, version)
            checkpoints -= broken
            if not checkpoints and first > 0:
                # the hint is wrong, or the checkpoints near this version are removed
                first = 0 if version is None else max(0, version - WIDEN * (version - first))
                continue
            base = max(checkpoints, default=-1)
            last = max([*commits, base]) if version is None else version
            if version is not None and version not in commits and version != base:
                raise DataError(
                    f"{self.url} has no version {version}; it is not written yet, or a vacuum has "
                    "removed it"
                )
            missing = sorted(set(range(base + 1, last + 1)) - commits)
            if missing and failure:
                raise failure
            if missing:
                raise self._damaged(f"version {missing[0]} is missing, but there is {last}")
            names = [_commit_name(one) for one in range(base + 1, last + 1)]
            if base >= 0:
                names.insert(0, _checkpoint_name(base))
            try:
                contents = self._read_all(names)
            except FileNotFoundError:
                races += 1  # a writer or a vacuum has removed one; there are newer ones, or older
                first = self._hint() if version is None else first
                continue
            state = State()
            if base >= 0:
                try:
                    state = self._check(self._state_of(base, contents.pop(0)))
                except _Broken as error:
                    # what it held can be read from the commits, or from an older one
                    log.warning("%s; opened without it", error)
                    broken.add(base)
                    first, failure = 0, error
                    continue
            for number, content in enumerate(contents, base + 1):
                state = self._after(state, number, content)
            return state
        raise self._damaged("its files are being removed while they are read")

    def _hint(self) -> int:
        """Give the version of a checkpoint that nobody is likely to have removed."""
        try:
            return int(json.loads(self._read(_HINT))["version"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0

    def _list(self, first: int, until: int | None) -> tuple[set[int], set[int]]:
        """Give the versions in a range that have a commit, and those that have a checkpoint."""
        commits: set[int] = set()
        checkpoints: set[int] = set()
        oldest = f"{first:020}"
        for name in self._names(first, until):
            # the names of a local folder come all at once
            found = _NAME.fullmatch(name) if name >= oldest else None
            if found is None:
                continue
            version = int(found["version"])
            if first <= version and (until is None or version <= until):
                (commits if found["kind"] == "json" else checkpoints).add(version)
        return commits, checkpoints

    def _names(self, first: int, until: int | None) -> Iterator[str]:
        filesystem = self.storage.filesystem
        if self.storage.is_local:
            try:
                yield from os.listdir(self._path)  # noqa: PTH208 - only names are needed
            except FileNotFoundError:
                return
        elif "s3" not in filesystem.protocol:
            try:
                yield from (path.rsplit("/", 1)[1] for path in filesystem.ls(self._path, False))
            except FileNotFoundError:
                return
        else:
            # fsspec has no listing that begins in the middle
            bucket, key, _ = filesystem.split_path(self._path)
            request = {"Bucket": bucket, "Prefix": f"{key}/", "StartAfter": f"{key}/{first:020}"}
            while True:
                page = filesystem.call_s3("list_objects_v2", **request)
                names = [one["Key"].rsplit("/", 1)[1] for one in page.get("Contents", ())]
                yield from names
                is_past = until is not None and names and names[-1] > _commit_name(until)
                if is_past or not page.get("IsTruncated"):
                    return
                request["ContinuationToken"] = page["NextContinuationToken"]

    def _read(self, name: str) -> bytes:
        path = f"{self._path}/{name}"
        if self.storage.is_local:
            with open(path, "rb") as file:
                return file.read()
        filesystem = self.storage.filesystem
        # more than one at a time, and s3fs would ask for the size first
        options = {"max_concurrency": 1} if "s3" in filesystem.protocol else {}
        return bytes(filesystem.cat_file(path, **options))

    def _read_all(self, names: Sequence[str]) -> list[bytes]:
        if self.storage.is_local or len(names) < 2:
            return [self._read(name) for name in names]
        with ThreadPoolExecutor(min(_READERS, len(names))) as threads:
            return list(threads.map(self._read, names))

    def _after(self, state: State, version: int, content: bytes) -> State:
        """Give the state after a commit."""
        if not content.strip():
            raise DataError(
                f"{self._path}/{_commit_name(version)} is empty, so what was committed there is "
                f"lost; {_WAY_OUT}"
            )
        try:
            # only at line feeds: a text may hold what else Python takes for the end of a line
            actions = [json.loads(line) for line in content.split(b"\n") if line.strip()]
            _refuse_cut_short(actions)
            found = _apply(replace(state, version=version), actions)
        except _Foreign as error:
            raise self._foreign(version, str(error)) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self._path}/{_commit_name(version)} cannot be read ({error!r}); {_WAY_OUT}"
            ) from error
        return self._check(found)

    def _state_of(self, version: int, content: bytes) -> State:
        """Give the state that a checkpoint holds."""
        try:
            # threads of Arrow would not survive a fork
            file = pq.ParquetFile(pa.BufferReader(content))
            # maps take as long to read as all the rest, and are not needed
            names = [
                f"{item.name}.{inner.name}"
                for item in file.schema_arrow
                if item.name in {"add", "remove"}
                for inner in item.type
                if inner.name != "partitionValues"
            ]
            names += [one for one in file.schema_arrow.names if one not in {"add", "remove"}]
            return _from_checkpoint(version, file.read(names, use_threads=False))
        except _Foreign as error:
            raise self._foreign(version, str(error)) from error
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise _Broken(
                f"{self.url}: the checkpoint of version {version} cannot be read ({error!r}), and "
                f"neither a checkpoint nor the commits before it are there any more; restore "
                f"{FOLDER}/{_checkpoint_name(version)} from a backup"
            ) from error

    def _check(self, state: State) -> State:
        """Refuse what this package cannot read rightly."""
        if not state.protocol or not state.metadata:
            raise self._damaged(f"version {state.version} has no schema, or no protocol")
        features = {
            *(state.protocol.get("readerFeatures") or ()),
            *(state.protocol.get("writerFeatures") or ()),
        } - {NAIVE_TIME, *_LEGACY_FEATURES}
        levels = state.protocol["minReaderVersion"], state.protocol["minWriterVersion"]
        if features or levels not in {(1, 1), (1, 2), (1, 7), (3, 7)}:
            raise self._foreign(
                state.version,
                f"the protocol {levels[0]}/{levels[1]} {sorted(features)}".rstrip(" []"),
            )
        return state

    def _foreign(self, version: int, what: str) -> DataError:
        return DataError(
            f"{self.url}: version {version} has {what}, which this package does not write: another "
            "program has written to the table; restore a copy of it from before, and let only this "
            "package write to it"
        )

    def _damaged(self, why: str) -> DataError:
        return DataError(
            f"{self.url}: the log of the table cannot be used: {why}; restore the missing or "
            f"broken files of {FOLDER}/ from a backup"
        )


class _Broken(DataError):
    """A checkpoint that cannot be read."""


class _Foreign(Exception):
    """An action that we do not write."""


def _refuse_cut_short(actions: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError if a commit of ours tells less than each of ours does."""
    by_us = any(one.get("commitInfo", {}).get("engineInfo") == ENGINE for one in actions)
    if by_us and not any("txn" in one for one in actions):
        raise ValueError("its end is missing")


def protocol_for(current: Mapping[str, Any], *, has_naive_time: bool) -> dict[str, Any]:
    """Give the protocol that a table needs, never less than it has.

    >>> protocol_for({}, has_naive_time=False)
    {'minReaderVersion': 1, 'minWriterVersion': 2}
    >>> protocol_for({"minReaderVersion": 1, "minWriterVersion": 2}, has_naive_time=True)[
    ...     "writerFeatures"
    ... ]
    ['appendOnly', 'invariants', 'timestampNtz']
    """
    if not has_naive_time:
        return dict(current) or {"minReaderVersion": 1, "minWriterVersion": 2}
    if NAIVE_TIME in (current.get("readerFeatures") or ()):
        return dict(current)
    known = current.get("writerFeatures")
    legacy = known if known is not None else _LEGACY_FEATURES if current else ()
    return {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": sorted({*(current.get("readerFeatures") or ()), NAIVE_TIME}),
        "writerFeatures": sorted({*legacy, NAIVE_TIME}),
    }


def checkpoint_of(state: State, *, now: int) -> bytes:
    """Give a checkpoint of one file, as the protocol has it since its first version.

    Parameters
    ----------
    state : State
    now : int
        Milliseconds since 1970; removed files that are older than a week are not told any more.
    """
    limit = now - TOMBSTONE_DAYS * _DAY
    kept = state.tombstones.filter(pc.field("deletionTimestamp") > limit)
    # what a partition told that is not in force any more is of no use
    in_force = {dict(_values_in(path)).get(PARTITION) for path in state.files["path"].to_pylist()}
    told = {
        name: version
        for name, version in state.transactions.items()
        if name in in_force or name.startswith(OWN)
    }
    names, versions = list(told), list(told.values())
    rows = {
        "protocol": pa.array([state.protocol], _ACTIONS["protocol"]),
        "metaData": pa.array([_with_pairs(state.metadata)], _ACTIONS["metaData"]),
        "txn": _structs("txn", pa.table({"appId": names, "version": versions})),
        "remove": _structs(
            "remove", _with_values(kept), dataChange=True, extendedFileMetadata=True
        ),
        "add": _structs("add", _with_values(state.files), dataChange=True),
    }
    count = sum(map(len, rows.values()))
    columns, before = {}, 0
    for name, some in rows.items():
        kind = _ACTIONS[name]
        after = count - before - len(some)
        columns[name] = pa.concat_arrays([pa.nulls(before, kind), some, pa.nulls(after, kind)])
        before += len(some)
    table = pa.table({name: columns[name] for name in _ACTIONS})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def spacing_of(size: int) -> int:
    """Give in how many versions one checkpoint stays, if it has so many bytes.

    The checkpoints that stay are then no larger than the commits.

    >>> spacing_of(50_000), spacing_of(700_000)
    (256, 1024)
    """
    spacing = KEPT_EVERY
    while spacing * COMMIT_BYTES < size:
        spacing *= 2
    return spacing


def first_left_by_writers(newest: int) -> int:
    """Give the version from which on writers have removed no checkpoint yet.

    >>> first_left_by_writers(49), first_left_by_writers(50)
    (23, 47)
    """
    written = (newest + 1) // CHECKPOINT_EVERY
    hinted = written - (written - 1) % HINT_EVERY
    return (hinted - 1) * CHECKPOINT_EVERY - 1


def stays(version: int, spacing: int) -> bool:
    """Is this the first checkpoint among so many versions?"""
    return version % spacing < CHECKPOINT_EVERY


def _structs(name: str, rows: pa.Table, **same: bool) -> pa.StructArray:
    """Give rows as the values of one action, with what all of them say alike."""
    columns = []
    for item in _ACTIONS[name]:
        if item.name in rows.column_names:
            columns.append(rows[item.name].cast(item.type).combine_chunks())
        else:
            columns.append(pa.repeat(pa.scalar(same.get(item.name), item.type), rows.num_rows))
    return pa.StructArray.from_arrays(columns, fields=list(_ACTIONS[name]))


def _with_values(files: pa.Table) -> pa.Table:
    return files.append_column("partitionValues", _partition_values(files["path"]))


def _partition_values(paths: pa.ChunkedArray) -> pa.Array:
    """Give the values of the partition columns of each file; of one column, as ours, at once."""
    if not pc.all(pc.match_substring_regex(paths, r"^[^/=]+=[^/]*/[^/]+$")).as_py():
        return pa.array([_values_in(path) for path in paths.to_pylist()], _TEXTS)
    folders = pc.list_element(pc.split_pattern(paths, "/", max_splits=1), 0)
    pairs = pc.split_pattern(folders, "=", max_splits=1).combine_chunks()
    names, values = (pc.list_element(pairs, at).cast(pa.string()) for at in (0, 1))
    offsets = pa.array(range(len(paths) + 1), pa.int32())
    return pa.MapArray.from_arrays(offsets, names, values)


def _values_in(path: str) -> list[tuple[str, str]]:
    """Give the values of the partition columns of a file.

    >>> _values_in("day=2024-01-01/shop=a/1.parquet")
    [('day', '2024-01-01'), ('shop', 'a')]
    """
    return [(name, value) for name, _, value in (s.partition("=") for s in path.split("/")[:-1])]


def _with_pairs(metadata: Mapping[str, Any]) -> dict[str, Any]:
    shape = metadata.get("format") or {}
    return {
        **metadata,
        "format": {
            "provider": shape.get("provider", "parquet"),
            "options": shape.get("options") or {},
        },
        "configuration": metadata.get("configuration") or {},
    }


def _from_checkpoint(version: int, table: pa.Table) -> State:
    for name in table.column_names:
        if name not in _ACTIONS and table[name].null_count < table.num_rows:
            raise _Foreign(f"an action {name!r}")
    told = {}
    for name in _ACTIONS:
        told[name] = _valid(table[name].combine_chunks())
    add, remove, txn = told["add"], told["remove"], told["txn"]
    if "deletionVector" in add.type.names:
        vectors = _column(add, "deletionVector")
        if vectors.null_count < len(vectors):
            raise _Foreign("a deletion vector")
    names, versions = _column(txn, "appId").to_pylist(), _column(txn, "version").to_pylist()
    (metadata,), (protocol,) = told["metaData"].to_pylist(), told["protocol"].to_pylist()
    metadata["configuration"] = dict(metadata["configuration"])
    metadata["format"]["options"] = dict(metadata["format"]["options"])
    return State(
        version=version,
        protocol={name: value for name, value in protocol.items() if value is not None},
        metadata=metadata,
        files=_table(add, _FILES),
        tombstones=_table(remove, _TOMBSTONES),
        transactions=dict(zip(names, versions, strict=True)),
    )


def _valid(column: pa.StructArray) -> pa.StructArray:
    """Give the rows that have a value; writers put those of one kind side by side."""
    count = len(column) - column.null_count
    first = pc.index(column.is_valid(), True).as_py()
    together = column.slice(first, count) if count else column.slice(0, 0)
    return column.filter(column.is_valid()) if together.null_count else together


def _column(some: pa.StructArray, name: str) -> pa.Array:
    return some.flatten()[some.type.get_field_index(name)]


def _table(some: pa.StructArray, schema: pa.Schema) -> pa.Table:
    """Give what an action says in each of its rows as columns."""
    return pa.table([_column(some, item.name).cast(item.type) for item in schema], schema=schema)


def _apply(state: State, actions: Iterable[Mapping[str, Any]]) -> State:  # noqa: C901 - by kind
    """Give the state after the actions of one commit."""
    protocol, metadata = state.protocol, state.metadata
    transactions = dict(state.transactions)
    foreign, about = state.foreign, {}
    added: list[Mapping[str, Any]] = []
    removed: list[Mapping[str, Any]] = []
    for action in actions:
        ((kind, value),) = action.items()
        if kind == "add":
            if value.get("deletionVector"):
                raise _Foreign("a deletion vector")
            added.append(value)
        elif kind == "remove":
            removed.append(value)
        elif kind == "metaData":
            metadata = value
        elif kind == "protocol":
            protocol = value
        elif kind == "txn":
            transactions[value["appId"]] = value["version"]
        elif kind == "commitInfo":
            about = value
        else:
            raise _Foreign(f"an action {kind!r}")
    if about.get("operation") == "RESTORE":
        foreign = ""
    elif (added or removed) and about.get("engineInfo") != ENGINE:
        foreign = str(about.get("operation") or "it does not say what")
    return replace(
        state,
        foreign=foreign,
        protocol=protocol,
        metadata=metadata,
        files=_with(_without(state.files, [*added, *removed]), added),
        tombstones=_with(
            _without(state.tombstones, [*added, *removed]),
            [{"deletionTimestamp": 0, **one} for one in removed],
        ),
        transactions=transactions,
    )


def _without(files: pa.Table, gone: Sequence[Mapping[str, Any]]) -> pa.Table:
    paths = pa.array([one["path"] for one in gone], pa.string())
    return files.filter(pc.invert(pc.is_in(files["path"], paths))) if gone else files


def _with(files: pa.Table, come: Sequence[Mapping[str, Any]]) -> pa.Table:
    if not come:
        return files
    columns = {name: [one.get(name) for one in come] for name in files.column_names}
    return pa.concat_tables([files, pa.table(columns, schema=files.schema)]).combine_chunks()


def _commit_name(version: int) -> str:
    return f"{version:020}.json"


def _checkpoint_name(version: int) -> str:
    return f"{version:020}.checkpoint.parquet"


def _version_of(name: str) -> int:
    return int(name.partition(".")[0])
