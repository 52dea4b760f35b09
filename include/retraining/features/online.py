"""Writes the online store, and never sets it back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from include.retraining import shelf
from include.retraining.storage import Storage

if TYPE_CHECKING:
    from feast import FeatureStore


def write_online(
    store: FeatureStore,
    views: Sequence[Any],
    start: dt.datetime,
    newest: Callable[[], dt.datetime],
) -> dt.datetime:
    """Load what is known from `start` on; give up to when.

    An online store keeps the value that was written last. A task that is slower than its neighbour
    would set that one's newer values back, so it looks again after it has written, and writes up to
    the newest batch until none has come since.

    Parameters
    ----------
    newest : callable
        Gives the end of the newest batch whose feature tables are made.
    """
    end = newest()
    while True:
        _write(store, views, start, end)
        now = newest()
        if now <= end:
            return end
        end = now


def _write(store: FeatureStore, views: Sequence[Any], start: dt.datetime, end: dt.datetime) -> None:
    """Do what `FeatureStore.materialize` does, but for its notes in the registry.

    It writes the whole view back to say what it did: batches materialized at once would lose each
    other's notes, and one of an old version would undo the definitions of a new one.
    """
    from tqdm import tqdm

    provider = store._get_provider()  # noqa: SLF001 - Feast has no public name for it
    for view in views:
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
    """Remember up to when the online store knows a model's features, unless it is further."""
    known = online_until(storage, model)
    if known is None or known < end:
        storage.write_json(shelf.online_key(model), {"until": end.isoformat()})


def online_until(storage: Storage, model: str) -> dt.datetime | None:
    """Give up to when the online store knows a model's features; None: nothing was loaded yet."""
    try:
        return dt.datetime.fromisoformat(storage.read_json(shelf.online_key(model))["until"])
    except FileNotFoundError:
        return None
