"""Object storage behind one URL: ``file://`` and ``s3://`` through fsspec, for callers the same.

Keys are relative to the URL, and one that would leave it is refused, whatever made it. A write is
whole or not there: on files through a temporary name and a rename, on S3 because a put is atomic.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import hashlib
import io
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from include.retraining.errors import DamagedRecord, DataError, RetrainingError, Unavailable
from include.retraining.records import Record
from include.retraining.settings import Settings

R = TypeVar("R", bound=Record)
T = TypeVar("T")
A = TypeVar("A")

READERS = 16  # of objects that are asked for side by side

ROWS_PER_RECORD_BATCH = 128 * 1024
CONFLICTS = 5  # with other writers of one key, before one gives up
PROBE_WRITERS = 16
PROBED_KEY = "_store/one-winner.json"
_HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
# what a full, quota-bound or read-only disk answers; whoever writes next may have more luck
_TAKES_NOTHING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
WHOLE_BYTES = 8 * 2**20  # a smaller object is fetched in one request


def at_once(look: Callable[[T], A], items: Iterable[T]) -> list[A]:
    """Give what `look` gives of each item, in their order; asked side by side.

    For objects that do not depend on one another: on S3 each is a round trip.
    """
    wanted = list(items)
    if len(wanted) < 2:
        return [look(one) for one in wanted]
    with ThreadPoolExecutor(min(READERS, len(wanted))) as threads:
        return list(threads.map(look, wanted))


_CURE = "Restore it; or delete it, and clear the run that made it"


class Storage:
    """Files below one URL.

    Parameters
    ----------
    url : str
        ``file:///folder`` or ``s3://bucket/prefix``; any fsspec URL works. On S3, endpoint and
        credentials are what ``AWS_ENDPOINT_URL_S3``, ``AWS_ACCESS_KEY_ID`` and so on say.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @classmethod
    def of(cls, settings: Settings) -> Storage:
        """Give the storage that the settings name."""
        return cls(settings.storage_url)

    @cached_property
    def filesystem(self) -> Any:
        """The fsspec filesystem, connected on first use; its listings are never cached."""
        options = (
            {} if self.is_local else {"use_listings_cache": False, "skip_instance_cache": True}
        )
        return fsspec.url_to_fs(self.url, **options)[0]

    @property
    def is_local(self) -> bool:
        """Is this a folder of this machine?"""
        return self.url.startswith(("file://", "/"))

    def url_of(self, key: str) -> str:
        """Give the whole URL of a key; raises DataError for one that does not stay below it."""
        if ".." in re.split(r"[/\\]", key) or "\0" in key:
            raise DataError(
                f"key: must stay below {self.url}, got {key!r}; mend the partition, path or name "
                "that it was made of"
            )
        return f"{self.url}/{key}"

    def _path(self, key: str) -> str:
        # fsspec has no public name for it
        return str(self.filesystem._strip_protocol(self.url_of(key)))  # noqa: SLF001 - see above

    def exists(self, key: str) -> bool:
        """Is there an object at this key?"""
        return bool(self.filesystem.exists(self._path(key)))

    def read(self, key: str) -> bytes:
        """Give the bytes of an object; raises FileNotFoundError."""
        return self._whole(self._path(key))

    def write(self, key: str, content: bytes) -> None:
        """Write an object whole, replacing one that is there."""
        path = self._path(key)
        if not self.is_local:
            self.filesystem.pipe_file(path, content)
            return
        temporary = self._write_temporary(path, content)
        os.replace(temporary, path)

    def create(self, key: str, content: bytes) -> bool:
        """Write an object only if the key is free; give False if another writer was first."""
        path = self._path(key)
        if not self.is_local:
            return self._put_if_absent(path, content)
        try:
            temporary = self._write_temporary(path, content)
            try:
                os.link(temporary, path)  # unlike a rename, a link fails where a file is
            finally:
                os.unlink(temporary)
        except FileExistsError:
            return False
        return True

    def _put_if_absent(self, path: str, content: bytes) -> bool:
        """Put an object with ``If-None-Match: *``; stores tell a taken key in different words."""
        for attempt in range(CONFLICTS):
            try:
                self.filesystem.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                status = _http_status(error)
                if status == 412:  # precondition failed: the key is taken
                    return False
                # another writer is at it right now, and may yet fail
                if status != 409 or attempt == CONFLICTS - 1:
                    raise
                time.sleep(0.05 * 2**attempt)
            else:
                return True
        raise AssertionError  # the last conflict is raised

    def require_one_winner(self) -> None:
        """Refuse a store on which two writers can both create one object.

        Whatever must not happen twice, from a promotion to an alert, relies on that. A store that
        passed is not asked again.

        Raises
        ------
        RetrainingError
            It ignores ``If-None-Match``.
        """
        if self.is_local or self.exists(PROBED_KEY):
            return
        key = f"_store/probe-{uuid.uuid4().hex}"
        with ThreadPoolExecutor(PROBE_WRITERS) as threads:
            won = sum(threads.map(lambda n: self.create(key, b"%d" % n), range(PROBE_WRITERS)))
        self.delete(key)
        if won != 1:
            raise RetrainingError(
                f"{self.url}: of {PROBE_WRITERS} writers that created one object at once {won} "
                "were told that they did, allowed is 1. This store does not honour If-None-Match, "
                "so two runs could promote two models at once. Do: use a store that does, such as "
                "Amazon S3, Ceph or a current MinIO, or a folder (file://)"
            )
        self.create(PROBED_KEY, b"{}\n")

    def _write_temporary(self, path: str, content: bytes) -> str:
        folder, name = os.path.split(path)
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
        try:
            os.makedirs(folder, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            if isinstance(error, OSError) and error.errno in _TAKES_NOTHING:
                raise Unavailable(
                    f"{self.url} takes nothing: {error.strerror} ({path}). What was being written "
                    "is not there. Make room, or mend the rights; then run this again"
                ) from error
            raise
        return temporary

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm_file(self._path(key))

    def delete_all(self, keys: Collection[str]) -> None:
        """Remove objects, on S3 1,000 in one request; those that are not there are no error."""
        paths = [self._path(key) for key in keys]
        if paths and "s3" in self.filesystem.protocol:
            self.filesystem.rm(paths)
            return
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self.filesystem.rm_file(path)

    def remove_leftovers(self, prefix: str, *, older_than: dt.timedelta) -> int:
        """Remove what writers that were killed left half-written below a folder; give how many.

        On S3 there is nothing of that kind.

        Parameters
        ----------
        older_than : timedelta
            By the clock of whoever keeps the files; longer than a write can take.
        """
        if not self.is_local:
            return 0
        removed = 0
        for path, _, names in os.walk(self._path(prefix)):
            for name in filter(_HALF_WRITTEN.fullmatch, names):
                with contextlib.suppress(FileNotFoundError):
                    file = f"{path}/{name}"
                    if time.time() - os.stat(file).st_mtime > older_than.total_seconds():  # noqa: PTH116
                        os.unlink(file)
                        removed += 1
        return removed

    def list(self, prefix: str) -> list[str]:
        """Give all keys below a folder, sorted, temporary files left out."""
        return sorted(self.list_versions(prefix))

    def has_any(self, prefix: str) -> bool:
        """Is there an object below a folder? On S3 one request, however many there are."""
        path = self._path(prefix)
        if self.is_local:
            return Path(path).is_dir() and bool(self.list(prefix))
        if "s3" not in self.filesystem.protocol:
            return bool(self.list(prefix))
        bucket, key, _ = self.filesystem.split_path(path)
        found = self.filesystem.call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=f"{key}/", MaxKeys=1
        )
        return bool(found.get("KeyCount"))

    def list_versions(self, prefix: str) -> dict[str, str]:
        """Give all keys below a folder, each with what changes whenever its object is rewritten."""
        root = self._path("")
        if self.is_local:
            return self._list_folder(root, self._path(prefix))
        found = self.filesystem.find(self._path(prefix), withdirs=False, detail=True)
        versions = {}
        for path, about in found.items():
            key = path[len(root) :].lstrip("/")
            if not os.path.basename(key).startswith("."):
                told = (about.get(name) for name in ("ETag", "LastModified", "size"))
                versions[key] = "|".join(map(str, told))
        return versions

    def _list_folder(self, root: str, folder: str) -> dict[str, str]:
        """List files; one that cannot be listed is an error, where fsspec gives an empty folder."""
        versions = {}

        def fail(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise error

        for path, _, names in os.walk(folder, onerror=fail):
            for name in names:
                if name.startswith("."):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    about = os.stat(f"{path}/{name}")  # noqa: PTH116 - of thousands
                    key = f"{path}/{name}"[len(root) :].lstrip("/")
                    versions[key] = f"{about.st_mtime_ns}|{about.st_ino}|{about.st_size}"
        return versions

    def read_json(self, key: str) -> Any:
        """Give the content of a JSON object; raises FileNotFoundError or DamagedRecord."""
        content = self.read(key)
        try:
            return json.loads(content)
        except ValueError as error:
            raise DamagedRecord(f"{self.url_of(key)} holds no JSON: {error}. {_CURE}") from error

    def write_json(self, key: str, content: Any) -> None:
        """Write a JSON object."""
        self.write(key, json_bytes(content))

    def read_record(self, key: str, kind: type[R]) -> R | None:
        """Give a stored record, or None where none is; raises DamagedRecord."""
        try:
            content = self.read(key)
        except FileNotFoundError:
            return None
        try:
            return kind.model_validate_json(content)
        except ValueError as error:  # pydantic's ValidationError, and bytes that are no text
            raise DamagedRecord(
                f"{self.url_of(key)} is damaged or of another release: it holds no "
                f"{kind.__name__}. {_CURE}"
            ) from error

    def read_table(self, key: str, columns: Iterable[str] | None = None) -> pa.Table:
        """Read a Parquet object; of a large one, only what its columns need."""
        with self._open(key) as source:
            return pq.ParquetFile(source).read(None if columns is None else list(columns))

    @contextlib.contextmanager
    def read_batches(self, key: str) -> Iterator[pa.RecordBatchReader]:
        """Read a Parquet object as a stream; raises FileNotFoundError."""
        with self._open(key) as source:
            file = pq.ParquetFile(source)
            yield pa.RecordBatchReader.from_batches(
                file.schema_arrow, file.iter_batches(ROWS_PER_RECORD_BATCH)
            )

    def _open(self, key: str) -> Any:
        return self.open_path(self._path(key))

    def open_path(self, path: str, size: int | None = None) -> Any:
        """Open a file by its absolute path, or its URL; raises FileNotFoundError.

        Parameters
        ----------
        size : int, optional
            In bytes, where it is known; asking for it would be another request.
        """
        if self.is_local:
            return pa.OSFile(path)
        if size is None:
            start = self.filesystem.cat_file(path, start=0, end=WHOLE_BYTES)
            if len(start) < WHOLE_BYTES:
                return pa.BufferReader(start)
        elif size < WHOLE_BYTES:
            return pa.BufferReader(self._whole(path))
        known = {} if size is None else {"size": size}
        return self.filesystem.open(path, "rb", cache_type="none", **known)

    def _whole(self, path: str) -> bytes:
        # one request: s3fs would ask for the size first, to fetch parts side by side
        options = {} if self.is_local else {"max_concurrency": 1}
        return bytes(self.filesystem.cat_file(path, **options))

    def write_table(self, key: str, table: pa.Table) -> str:
        """Write a Parquet object with microsecond timestamps; give its SHA-256."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, coerce_timestamps="us", allow_truncated_timestamps=True)
        self.write(key, buffer.getvalue())
        return sha256(buffer.getvalue())


def _http_status(error: BaseException | None) -> int | None:
    """Give the status of the answer behind an error of s3fs, if there was an answer."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status
        error = error.__cause__ or error.__context__
    return None


def json_bytes(content: Any) -> bytes:
    """Give a record or plain value as readable, reproducible JSON."""
    if isinstance(content, BaseModel):
        content = content.model_dump(mode="json")
    try:
        return json.dumps(content, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"
    except ValueError as error:
        raise DataError(
            f"cannot be kept as JSON: {error}; give None where a number is unknown"
        ) from error


def sha256(*contents: bytes) -> str:
    """Give one digest of several contents in order."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
