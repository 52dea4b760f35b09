"""Brings back what was quarantined, once the suite is mended or a mapping says how to read it.

The whole delivery is validated again, as it landed, so that every rule sees all of its rows and
every row is accounted for again. Running it twice, or clearing the ingest run later, comes to the
same result: the mapping belongs to the content.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from include.retraining import shelf
from include.retraining.data.delivery import kept
from include.retraining.data.publication import quarantined_rows
from include.retraining.data.reading import check_mapping
from include.retraining.data.validation import BROKEN, SUITES, validate_delivery
from include.retraining.errors import NotPublished
from include.retraining.records import BatchRef, DeliveryMapping, ValidationReport
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage


def revalidate_batch(
    spec: ModelSpec,
    storage: Storage,
    batch: BatchRef,
    *,
    mapping: DeliveryMapping | None = None,
    suites: Path = SUITES,
) -> ValidationReport:
    """Validate the newest delivery of a batch again, from what quarantine keeps of it.

    Parameters
    ----------
    mapping : DeliveryMapping, optional
        How to read it from now on; without one, as before, against the suite of today.

    Raises
    ------
    NotPublished
        The batch was never validated.
    DataError
        Nothing of it is in quarantine, or the mapping names what the model file does not have.
    """
    delivery = kept(
        spec, storage, batch.partition, newest_report(spec, storage, batch).content_sha256
    )
    if mapping is not None:
        check_mapping(spec, mapping)
        shelf.keep_mapping(storage, spec.model, batch.partition, delivery.sha256, mapping)
        delivery = kept(spec, storage, batch.partition, delivery.sha256)
    return validate_delivery(spec, storage, batch, delivery, suites)


def newest_report(spec: ModelSpec, storage: Storage, batch: BatchRef) -> ValidationReport:
    """Give the report of a batch's newest delivery; raises NotPublished."""
    report = shelf.find(storage, ValidationReport, spec.model, batch.partition)
    if report is None:
        raise NotPublished(
            f"{spec.model} {batch.partition} was never validated; run {spec.model}__ingest for it"
        )
    return report


def describe(spec: ModelSpec, storage: Storage, batch: BatchRef) -> str:
    """Say in text what of a batch is in quarantine, and why."""
    report = newest_report(spec, storage, batch)
    counts = f"{report.rows_good:,} good + {report.rows_quarantined:,} quarantined"
    lines = [f"{spec.model} {batch.partition}: {report.status}, {report.rows_in:,} rows = {counts}"]
    if report.mapping is not None:
        lines.append(f"read with a mapping by {report.mapping.actor}: {report.mapping.reason}")
    lines += [
        f"  {f.severity}: {f'{f.column}: ' if f.column else ''}{f.expectation}: {f.detail}"
        for f in report.findings
    ]
    if report.quarantine_key is None:
        return "\n".join([*lines, "nothing is in quarantine"])
    for name in report.quarantined_files:
        where, broken = _broken(spec, storage, report, name)
        lines.append(f"{len(broken):,} rows of {name}: {where}")
        found = Counter(reason for reasons in broken for reason in reasons)
        lines += [f"  {count:,} broke {reason}" for reason, count in found.most_common()]
    if report.status == "refused":
        lines.append(f"kept in {storage.url_of(report.quarantine_key)}")
    return "\n".join(lines)


def _broken(
    spec: ModelSpec, storage: Storage, report: ValidationReport, name: str
) -> tuple[str, list[list[str]]]:
    """Give where the bad rows of an input are, and what each of them broke."""
    rows, partition = quarantined_rows(spec, storage, name), report.batch.partition
    part = rows.parts.get(partition)
    if part is not None and part.content == report.identity:
        table = rows.read([partition], [BROKEN])
        return f"table {rows.table.url}, partition {partition}", table.column(BROKEN).to_pylist()
    key = report.quarantined_files[name]
    try:
        table = storage.read_table(key, columns=[BROKEN])
    except FileNotFoundError:  # a newer delivery is in force
        return "replaced by a newer delivery", []
    return storage.url_of(key), table.column(BROKEN).to_pylist()
