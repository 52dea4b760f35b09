"""Loads feature tables into the online store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from include.retraining import shelf
from include.retraining.storage import Storage

if TYPE_CHECKING:
    from feast import FeatureStore


def write_online(
    store: FeatureStore, views: Sequence[Any], start: dt.datetime, end: dt.datetime
) -> None:
    """Do what `FeatureStore.materialize` does, but for its notes in the registry.

    It writes the whole view back to say what it did: batches materialized at once would lose each
    other's notes, and one of an old version would undo the definitions of a new one. A view with a
    stream source (Feast's `PushSource`) is left alone: who pushes it is ahead of any batch, and
    would be set back; and a feed that is not there would go unnoticed.
    """
    from tqdm import tqdm

    provider = store._get_provider()  # noqa: SLF001 - Feast has no public name for it
    for view in views:
        if view.stream_source is not None:
            continue
        provider.materialize_single_feature_view(
            config=store.config,
            feature_view=store.get_feature_view(view.name),
            start_date=start,
            end_date=end,
            registry=store.registry,
            project=store.project,
            tqdm_builder=lambda length: tqdm(total=length, disable=True),
        )


def note_online(storage: Storage, model: str, end: dt.datetime) -> None:
    """Remember up to when the online store knows a model's features."""
    storage.write_json(shelf.online_key(model), {"until": end.isoformat()})


def online_until(storage: Storage, model: str) -> dt.datetime | None:
    """Give up to when the online store knows a model's features; None: nothing was loaded yet."""
    try:
        return dt.datetime.fromisoformat(storage.read_json(shelf.online_key(model))["until"])
    except FileNotFoundError:
        return None
