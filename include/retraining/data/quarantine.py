"""Brings back what was quarantined, once the suite is mended or a mapping says how to read it.

The whole delivery is validated again, as it landed, so that every rule sees all of its rows and
every row is accounted for again. Running it twice, or clearing the ingest run later, comes to the
same result: the mapping belongs to the content.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pydantic import Field

from include.retraining import shelf
from include.retraining.data.delivery import kept
from include.retraining.data.publication import BROKEN, quarantined_rows
from include.retraining.data.reading import check_mapping
from include.retraining.data.validation import SUITES, validate_delivery
from include.retraining.errors import NotPublished
from include.retraining.records import BatchRef, DeliveryMapping, Record, ValidationReport
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
    Superseded
        A newer delivery came meanwhile.
    """
    before = newest_report(spec, storage, batch)
    delivery = kept(spec, storage, batch.partition, before.content_sha256)
    if mapping is None:
        return validate_delivery(spec, storage, batch, delivery, suites, after=before.delivery)
    check_mapping(spec, mapping)
    of = (storage, spec.model, batch.partition, delivery.sha256)
    shelf.keep_mapping(*of, mapping)
    mapped = kept(spec, storage, batch.partition, delivery.sha256)
    report = validate_delivery(spec, storage, batch, mapped, suites, after=before.delivery)
    if report.status == "refused":  # it does not say how to read them: they are read as before
        shelf.keep_mapping(*of, delivery.mapping)
    return report


def newest_report(spec: ModelSpec, storage: Storage, batch: BatchRef) -> ValidationReport:
    """Give the report of a batch's newest delivery; raises NotPublished."""
    report = shelf.find(storage, ValidationReport, spec.model, batch.partition)
    if report is None:
        raise NotPublished(
            f"{spec.model} {batch.partition} was never validated; run {spec.model}__ingest for it"
        )
    return report


class QuarantinedFile(Record):
    """The bad rows of one input: where they are, and how many broke what, most first."""

    name: str
    where: str
    rows: int
    broken: dict[str, int]


class Quarantined(Record):
    """What of a batch is in quarantine, beside the report that says why."""

    report: ValidationReport
    files: tuple[QuarantinedFile, ...]
    kept_in: str | None = Field(description="a refused delivery as it landed")


def look(spec: ModelSpec, storage: Storage, batch: BatchRef) -> Quarantined:
    """Find what of a batch is in quarantine, and why; raises NotPublished."""
    report = newest_report(spec, storage, batch)
    files = []
    for name in report.quarantined_files if report.quarantine_key is not None else ():
        where, broken = _broken(spec, storage, report, name)
        found = Counter(reason for reasons in broken for reason in reasons)
        files.append(
            QuarantinedFile(
                name=name, where=where, rows=len(broken), broken=dict(found.most_common())
            )
        )
    kept_in = None
    if report.quarantine_key is not None and report.status == "refused":
        kept_in = storage.url_of(report.quarantine_key)
    return Quarantined(report=report, files=tuple(files), kept_in=kept_in)


def render(found: Quarantined) -> str:
    """Say it in text."""
    report = found.report
    counts = f"{report.rows_good:,} good + {report.rows_quarantined:,} quarantined"
    name = f"{report.batch.model} {report.batch.partition}"
    lines = [f"{name}: {report.status}, {report.rows_in:,} rows = {counts}"]
    if report.mapping is not None:
        lines.append(f"read with a mapping by {report.mapping.actor}: {report.mapping.reason}")
    lines += [
        f"  {f.severity}: {f'{f.column}: ' if f.column else ''}{f.expectation}: {f.detail}"
        for f in report.findings
    ]
    if report.quarantine_key is None:
        return "\n".join([*lines, "nothing is in quarantine"])
    for file in found.files:
        lines.append(f"{file.rows:,} rows of {file.name}: {file.where}")
        lines += [f"  {count:,} broke {reason}" for reason, count in file.broken.items()]
    if found.kept_in is not None:
        lines.append(f"kept in {found.kept_in}")
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
