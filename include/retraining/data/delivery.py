"""Makes a `Delivery`: the files that landed for a partition, byte for byte, and how to read them.

What is quarantined or refused is kept as it landed, under a name made of its content. A mapping
kept beside it says how it is to be read; whoever validates that content again applies it, so that a
repaired batch stays repaired when its files come a second time.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from fnmatch import fnmatchcase

from include.retraining import shelf
from include.retraining.errors import DataError
from include.retraining.records import DeliveryMapping
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, sha256

COMPLETE = "_SUCCESS"


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
    for key in awaited_keys(spec, partition):
        if not storage.exists(key):
            raise DataError(
                f"no file at {storage.url_of(key)}; deliver it there, then clear this task"
            )
    files = {}
    for name, path in input_paths(spec, partition).items():
        keys = [path]
        if "*" in path:
            below = storage.list(posixpath.dirname(path))
            keys = [
                key
                for key in below
                if fnmatchcase(key, path) and posixpath.dirname(key) == posixpath.dirname(path)
            ]
            if not keys:
                raise DataError(
                    f"no file at {storage.url_of(path)}; deliver one, and clear this task"
                )
        files[name] = {posixpath.basename(key): storage.read(key) for key in keys}
    found = Delivery(partition, files)
    mapping = shelf.find_mapping(storage, spec.model, partition, found.sha256)
    return Delivery(partition, files, mapping)


def kept(spec: ModelSpec, storage: Storage, partition: str, content_sha256: str) -> Delivery:
    """Read a delivery that was quarantined or refused, as it landed.

    Raises
    ------
    DataError
        Nothing of that content is kept.
    """
    folder = shelf.delivery_folder(spec.model, partition, content_sha256)
    files: dict[str, dict[str, bytes]] = {}
    for name in input_paths(spec, partition):
        keys = storage.list(f"{folder}/{name}")
        files[name] = {posixpath.basename(key): storage.read(key) for key in keys}
    if not all(files.values()):
        raise DataError(f"{spec.model} {partition}: no delivery is kept in {folder}")
    found = Delivery(
        partition, files, shelf.find_mapping(storage, spec.model, partition, content_sha256)
    )
    if found.sha256 != content_sha256:
        raise DataError(
            f"{folder} is damaged: its content is {found.sha256[:12]}; deliver the files again"
        )
    return found


def keep(spec: ModelSpec, storage: Storage, delivery: Delivery) -> None:
    """Keep a delivery as it landed; keeping it again changes nothing."""
    folder = shelf.delivery_folder(spec.model, delivery.partition, delivery.sha256)
    for name, files in delivery.files.items():
        for file, content in files.items():
            storage.write(f"{folder}/{name}/{file}", content)
