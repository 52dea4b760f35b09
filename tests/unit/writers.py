"""What the processes of concurrency tests do; they import no more than this."""

from __future__ import annotations

import datetime as dt
import os

from include.retraining.registry import ledger
from include.retraining.storage import Storage
from include.retraining.telling.alerts import Alert, FolderChannel, deliver


def create_keys(url: str, environment: dict[str, str], number: int) -> list[bool]:
    """Try to be the one who creates each of ten keys."""
    os.environ |= environment
    storage = Storage(url)
    return [storage.create(f"race/{key}", str(number).encode()) for key in range(10)]


def draft(incident_id: str, version: int, **changes: object) -> ledger.Entry:
    """Give an entry as the registry hands it to the ledger."""
    fields: dict[str, object] = {
        "sequence": 0,
        "model": "flights",
        "action": "promotion",
        "version": version,
        "previous_version": None,
        "incident_id": incident_id,
        "partition": "2013-02-11",
        "reason": "better",
        "actor": "test",
        "at": dt.datetime(2013, 2, 18, tzinfo=dt.UTC),
        "previous_hash": ledger.GENESIS,
    }
    return ledger.Entry.model_validate(fields | changes)


def append_entries(url: str, environment: dict[str, str], number: int, count: int) -> list[int]:
    """Append entries; give their places."""
    os.environ |= environment
    storage = Storage(url)
    drafts = [draft(f"{number}-{index}", number * 1000 + index) for index in range(count)]
    return [ledger.append(storage, entry).sequence for entry in drafts]


def deliver_alerts(url: str, number: int, count: int) -> list[bool]:
    """Deliver alerts of one thread."""
    storage = Storage(f"{url}/state")
    channel = FolderChannel(Storage(f"{url}/channel"), "#test")
    told = []
    for index in range(count):
        alert = Alert(model="m", thread="2013-02-11", level="info", title=f"{number}-{index}")
        told.append(deliver(alert, storage, channel))
    return told


def replay_quarantine(home: str, partition: str, mapping: str) -> str:
    """Replay and publish a quarantined batch; give its report as JSON."""
    from pathlib import Path

    from include.retraining.data import publication, quarantine
    from include.retraining.records import DeliveryMapping
    from include.retraining.settings import Settings
    from tests.unit.pipeline import small_spec

    spec, storage = small_spec(), Storage.of(Settings(home=Path(home)))
    report = quarantine.revalidate_batch(
        spec,
        storage,
        spec.batch_ref(partition),
        mapping=DeliveryMapping.model_validate_json(mapping),
    )
    publication.publish_batch(spec, storage, report)
    return report.model_dump_json()


def publish(home: str, report: str) -> bool:
    """Publish a validated batch."""
    from pathlib import Path

    from include.retraining.data import publication
    from include.retraining.records import ValidationReport
    from include.retraining.settings import Settings
    from tests.unit.pipeline import small_spec

    storage = Storage.of(Settings(home=Path(home)))
    return publication.publish_batch(
        small_spec(), storage, ValidationReport.model_validate_json(report)
    )
