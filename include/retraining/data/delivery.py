"""Makes a `Delivery`: the files that landed for a partition, byte for byte, and how to read them.

A delivery that was refused is kept as it landed, under a name made of its content. One that was
accepted is in the tables, good rows and bad ones; of its files only names and digests are kept, and
they are read where they landed. A mapping kept beside them says how they are to be read; whoever
validates that content again applies it, so that a repaired batch stays repaired when its files come
a second time.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from include.retraining import shelf
from include.retraining.errors import DataError, Superseded, Unavailable
from include.retraining.records import DeliveryMapping, Record, ValidationReport
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, json_bytes, sha256

COMPLETE = "_SUCCESS"


class KeptDelivery(Record):
    """The files of a delivery: input -> file name -> SHA-256, and whether they were copied."""

    files: dict[str, dict[str, str]]
    copied: bool


@dataclass(frozen=True)
class Delivery:
    """The files of one partition.

    Attributes
    ----------
    files : dict of str to dict of str to bytes
        Input name (``batch`` first) to file name to content.
    mapping : DeliveryMapping or None
        How this content is to be read, if not as it is.
    """

    partition: str
    files: dict[str, dict[str, bytes]]
    mapping: DeliveryMapping | None = None

    @property
    def sha256(self) -> str:
        """One digest of all contents, in the order of the model file."""
        return sha256(*(content for files in self.files.values() for content in files.values()))


def input_paths(spec: ModelSpec, partition: str) -> dict[str, str]:
    """Give the storage key of each input's file; ``batch`` is the first."""
    paths = {"batch": spec.source.batch, **spec.source.companions}
    return {name: path.format(partition=partition) for name, path in paths.items()}


def awaited_keys(spec: ModelSpec, partition: str) -> list[str]:
    """Give the storage keys that are all there once a partition has landed."""
    return [
        f"{posixpath.dirname(key)}/{COMPLETE}" if "*" in key else key
        for key in input_paths(spec, partition).values()
    ]


def landed(spec: ModelSpec, storage: Storage, partition: str) -> Delivery:
    """Read what has landed for a partition.

    Raises
    ------
    DataError
        An input has no file, or is not complete.
    """
    paths = input_paths(spec, partition)
    for key in set(awaited_keys(spec, partition)) - set(paths.values()):  # those are read anyway
        if not storage.exists(key):
            raise _not_there(storage, key)
    files = {}
    for name, path in paths.items():
        keys = [path]
        if "*" in path:
            keys = _parts(storage, path)
        try:
            files[name] = {posixpath.basename(key): storage.read(key) for key in keys}
        except (FileNotFoundError, IsADirectoryError) as error:
            raise _not_there(storage, path) from error
    found = Delivery(partition, files)
    mapping = shelf.find_mapping(storage, spec.model, partition, found.sha256)
    return Delivery(partition, files, mapping)


def _parts(storage: Storage, path: str) -> list[str]:
    """Give the keys of a folder's files, however their ending is spelt.

    Raises
    ------
    DataError
        There is none, or there are some in folders below, which would be left out.
    """
    folder, pattern = posixpath.split(path)
    found = [
        key
        for key in storage.list(folder)
        if fnmatchcase(posixpath.basename(key).lower(), pattern.lower())
    ]
    beside = [key for key in found if posixpath.dirname(key) == folder]
    deeper = [posixpath.relpath(key, folder) for key in found if key not in beside]
    below = [one for one in deeper if not re.match(r"[_.]|.*/[_.]", one)]  # _temporary, say
    if below:
        raise DataError(
            f"{len(below):,} files lie in folders below {storage.url_of(folder)}, such as "
            f"{below[0]}, and what the names of folders say is not read; deliver all files of the "
            "batch side by side in that folder, with those values as columns (in Spark: without "
            "partitionBy), or name the folder in the model file, then clear this task"
        )
    if not beside:
        raise _not_there(storage, path)
    return beside


def _not_there(storage: Storage, key: str) -> DataError:
    """Say that there is no file, and what there is in its place."""
    folder = posixpath.dirname(key) if "*" in key else key
    inside = [posixpath.relpath(one, folder) for one in storage.list(folder)]
    inside = [one for one in inside if posixpath.basename(one) not in {COMPLETE, "."}]
    if not inside:
        return DataError(
            f"no file at {storage.url_of(key)}; deliver it there, then clear this task"
        )
    return DataError(
        f"no file at {storage.url_of(key)}, but a folder with {inside[0]}"
        + (f" and {len(inside) - 1:,} more" if len(inside) > 1 else "")
        + "; deliver what the model file names, or mend its path (one that ends in /* and an "
        f"ending takes all such files of a folder with {COMPLETE} in it), then clear this task"
    )


def kept(spec: ModelSpec, storage: Storage, partition: str, content_sha256: str) -> Delivery:
    """Read a delivery that was quarantined or refused, as it landed.

    Raises
    ------
    DataError
        Nothing of that content is kept, or it is damaged, or it was replaced where it landed.
    """
    folder = shelf.delivery_folder(spec.model, partition, content_sha256)
    manifest = storage.read_record(shelf.delivery_manifest_key(folder), KeptDelivery)
    if manifest is None:
        raise DataError(f"{spec.model} {partition}: no delivery is kept in {folder}")
    files: dict[str, dict[str, bytes]] = {}
    for name, digests in manifest.files.items():
        files[name] = {}
        for file, digest in digests.items():
            key = shelf.delivery_copy_key(folder, name, file)
            if not manifest.copied:
                key = posixpath.join(posixpath.dirname(input_paths(spec, partition)[name]), file)
            content = _read_or_none(storage, key)
            if content is None or sha256(content) != digest:
                what = "is gone" if content is None else "has other content by now"
                where = "kept" if manifest.copied else "read where it landed"
                raise DataError(
                    f"{spec.model} {partition}: {storage.url_of(key)} {what}, and this delivery is "
                    f"{where}; deliver the files again"
                )
            files[name][file] = content
    mapping = shelf.find_mapping(storage, spec.model, partition, content_sha256)
    return Delivery(partition, files, mapping)


def _read_or_none(storage: Storage, key: str) -> bytes | None:
    try:
        return storage.read(key)
    except FileNotFoundError:
        return None


def keep(spec: ModelSpec, storage: Storage, delivery: Delivery, *, copy: bool) -> None:
    """Keep a delivery; keeping it again changes nothing.

    Parameters
    ----------
    copy : bool
        Keep its bytes, too: nothing else does. What is copied once stays so.
    """
    folder = shelf.delivery_folder(spec.model, delivery.partition, delivery.sha256)
    digests = {
        name: {file: sha256(content) for file, content in files.items()}
        for name, files in delivery.files.items()
    }
    if copy:
        for name, files in delivery.files.items():
            for file, content in files.items():
                storage.write(shelf.delivery_copy_key(folder, name, file), content)
    known = storage.read_record(shelf.delivery_manifest_key(folder), KeptDelivery)
    copied = copy or (known is not None and known.copied)
    manifest = KeptDelivery(files=digests, copied=copied)
    storage.write_json(shelf.delivery_manifest_key(folder), manifest)


def was_replaced(spec: ModelSpec, storage: Storage, delivery: Delivery) -> bool:
    """Has another delivery landed in the place of this one?"""
    try:
        return landed(spec, storage, delivery.partition).sha256 != delivery.sha256
    except DataError:  # they were taken away since
        return False


def is_newest(storage: Storage, report: ValidationReport) -> bool:
    """Is no delivery newer than the one that a report is about?"""
    return _last_number(_numbered(storage, report.batch.model, report.batch.partition)) <= (
        report.delivery
    )


def _numbered(storage: Storage, model: str, partition: str) -> list[str]:
    """Give the keys of a partition's deliveries, oldest first; what else lies there is none."""
    keys = storage.list(shelf.deliveries_folder(model, partition))
    return [key for key in keys if shelf.is_numbered(key)]


def _last_number(keys: list[str]) -> int:
    # not how many there are: one that a hand took away leaves a gap
    return shelf.number_of(keys[-1]) if keys else 0


def number_delivery(storage: Storage, report: ValidationReport, *, after: int | None = None) -> int:
    """Give the number of a delivery among those of its partition, from 1.

    With `after`, the delivery it is made of: raises Superseded if another one has come after that.

    The newest one, validated again, keeps its number; any other gets the next. So of two deliveries
    the one with the larger number landed later, however long a run that holds one is delayed.
    """
    model, partition = report.batch.model, report.batch.partition
    content = json_bytes({"content": report.identity})
    if storage.create(shelf.delivery_key(model, partition, 1), content):
        return 1
    while True:
        keys = _numbered(storage, model, partition)
        if not keys:
            raise Unavailable(
                f"{storage.url_of(shelf.deliveries_folder(model, partition))} has a first delivery "
                "and lists none; see to the storage, then clear the task"
            )
        last = _last_number(keys)
        if storage.read_json(keys[-1])["content"] == report.identity:
            return last
        if after is not None and last > after:
            raise Superseded(
                f"{model} {partition}: delivery {after} was to be replayed, and delivery "
                f"{last} came meanwhile; nothing was changed. Do: look at that one, and "
                f"replay it if need be; if its {model}__ingest has failed, clear that first"
            )
        if storage.create(shelf.delivery_key(model, partition, last + 1), content):
            return last + 1
