"""Reads from a bucket's events which partitions have landed."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from include.retraining.data.delivery import awaited_keys
from include.retraining.errors import SpecError
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, sha256

PLACE = "PARTITION"


class Landed(NamedTuple):
    """A partition all of whose files are there. `event` names the writes that completed it."""

    partition: str
    event: str


def landed_partitions(
    spec: ModelSpec, storage: Storage, messages: Iterable[Mapping[str, Any]]
) -> list[Landed]:
    """Give the partitions that these messages are about and that are complete.

    Parameters
    ----------
    messages : iterable of mapping
        SQS messages whose ``Body`` is an S3 event notification. Anything else (the test message of
        a new notification, keys of other files, partitions the model does not have) is left out.

    Notes
    -----
    The same write told twice gives the same `event`; a new write of the same bytes gives another.
    """
    bucket, _, prefix = storage.url.removeprefix("s3://").partition("/")
    patterns = [
        re.compile(re.escape(f"{prefix}/{key}".lstrip("/")).replace(PLACE, "([^/]+)"))
        for key in awaited_keys(spec, PLACE)
    ]
    writes: dict[str, set[str]] = defaultdict(set)
    for record in _records(messages):
        if record["s3"]["bucket"]["name"] != bucket:
            continue
        written = record["s3"]["object"]
        key = unquote_plus(written["key"])
        for pattern in patterns:
            if found := pattern.fullmatch(key):
                told = (key, written.get("eTag", ""), written.get("sequencer", ""))
                writes[found[1]].add("|".join(told))
    return [
        Landed(partition, sha256(*(one.encode() for one in sorted(found)))[:12])
        for partition, found in sorted(writes.items())
        if _is_complete(spec, storage, partition)
    ]


def _records(messages: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the object writes that messages tell of."""
    for message in messages:
        try:
            body = json.loads(message["Body"])
        except (KeyError, TypeError, ValueError):
            continue
        for record in body.get("Records", ()) if isinstance(body, dict) else ():
            if str(record.get("eventName", "")).startswith("ObjectCreated:"):
                yield record


def _is_complete(spec: ModelSpec, storage: Storage, partition: str) -> bool:
    try:
        spec.batch_ref(partition)
    except SpecError:
        return False
    return all(storage.exists(key) for key in awaited_keys(spec, partition))
