"""Makes a `Rehearsal`: what would happen to a file if it landed, told without landing it.

Everything runs for real, in a home of its own that is gone afterwards. There is no earlier batch in
it, so features that look back into one are missing.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from include.retraining.cli.answer import table
from include.retraining.errors import DataError, RetrainingError, SpecError, did_you_mean
from include.retraining.records import BatchRef, Record, ValidationReport
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from include.retraining.storage import Storage


class Rehearsal(Record):
    """What would happen to landed files.

    Attributes
    ----------
    quarantined : dict of str to int
        What rows of the batch broke, and how many of them; a row may break several things.
    missing : dict of str to float
        Share of the good rows without a value, of each feature that could be made.
    trouble : str
        Why features could not be made; empty if all were.
    """

    report: ValidationReport
    quarantined: dict[str, int]
    missing: dict[str, float]
    trouble: str

    @property
    def is_fine(self) -> bool:
        """Would all rows be published with all their features?"""
        report = self.report
        return report.status == "accepted" and not (report.rows_quarantined or self.trouble)


def rehearse(spec: ModelSpec, files: Mapping[str, Path], partition: str | None) -> Rehearsal:
    """Hold files against model file and suites, and make their features.

    Parameters
    ----------
    files : mapping of str to Path
        By input: ``batch``, and companions if they are at hand.
    partition : str or None
        Whose files they are; None: as the name of the batch's file says.

    Raises
    ------
    RetrainingError
        A file is of no input or cannot be read, or nothing says which partition it is of.
    """
    from include.retraining.data.delivery import Delivery, input_paths
    from include.retraining.data.validation import validate_delivery
    from include.retraining.storage import Storage

    inputs = ("batch", *spec.source.companions)
    for name in files:
        if name not in inputs:
            raise RetrainingError(
                f"--landed: {spec.model} has no input {name!r}{did_you_mean(name, inputs)}; there "
                f"are: {', '.join(inputs)}"
            )
    if "batch" not in files:
        raise RetrainingError("--landed: give the file of the batch itself as well")
    batch = spec.batch_ref(partition) if partition else _batch_named(spec, files["batch"])
    contents = {}
    for name, path in input_paths(spec, batch.partition).items():
        if name in files:
            file = files[name].name if "*" in path else posixpath.basename(path)
            contents[name] = {file: _read(files[name])}
    with TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        storage = Storage.of(settings)
        report = validate_delivery(spec, storage, batch, Delivery(batch.partition, contents))
        rows, trouble = None, ""
        if report.status == "accepted":
            rows, trouble = _with_features(spec, settings, report)
        return Rehearsal(
            report=report,
            quarantined=_reasons(storage, report),
            missing=_missing(spec, rows) if rows is not None else {},
            trouble=trouble,
        )


def render(found: Rehearsal) -> Iterator[str | Table]:
    """Give what people read of it."""
    report = found.report
    counts = report.rows_in, report.rows_good, report.rows_quarantined
    yield (
        f"{report.batch.model}, {report.batch.partition}: would be {report.status}; "
        "{:,} rows in, {:,} good, {:,} quarantined".format(*counts)
    )
    if found.quarantined:
        reasons = table("quarantined for", "rows", numbers=("rows",), prose=("quarantined for",))
        for reason, count in found.quarantined.items():
            reasons.add_row(reason, f"{count:,}")
        yield reasons
    if report.findings:
        findings = table("severity", "expectation", "column", "detail", prose=("detail",))
        for one in report.findings:
            findings.add_row(one.severity, one.expectation, one.column or "", one.detail)
        yield findings
    if found.missing:
        features = table("feature", "missing", numbers=("missing",))
        for name, share in found.missing.items():
            features.add_row(name, f"{share:.1%}")
        yield features
    if 1.0 in found.missing.values():
        yield "what looks back into an earlier batch is missing: there is none here"
    if found.trouble:
        yield f"features: {found.trouble}"


def _with_features(
    spec: ModelSpec, settings: Settings, report: ValidationReport
) -> tuple[pa.Table, str]:
    """Give the good rows with their features, or without them and why."""
    from include.retraining.features.feature_sets import publish_and_join, rows_of
    from include.retraining.storage import Storage

    storage = Storage.of(settings)
    good = storage.read_table(report.files["batch"])
    if absent := [name for name in spec.source.companions if name not in report.files]:
        return (
            good,
            f"not made without a file of {', '.join(absent)}; give --landed {absent[0]}=FILE",
        )
    try:
        found, *_ = publish_and_join(spec, settings, report)
    except (DataError, SpecError) as error:
        return good, str(error)
    except Exception as error:  # noqa: BLE001 - the function that makes the tables is the user's
        return good, f"{spec.features.tables or 'features'} failed: {type(error).__name__}: {error}"
    return rows_of(spec, storage, found, list(spec.features.names)), ""


def _missing(spec: ModelSpec, rows: pa.Table) -> dict[str, float]:
    import pyarrow.compute as pc

    there = [name for name in spec.features.names if name in rows.column_names]
    nulls = {name: pc.sum(pc.is_null(rows.column(name), nan_is_null=True)) for name in there}
    return {name: (found.as_py() or 0) / max(rows.num_rows, 1) for name, found in nulls.items()}


def _reasons(storage: Storage, report: ValidationReport) -> dict[str, int]:
    from include.retraining.data.publication import BROKEN

    if "batch" not in report.quarantined_files:
        return {}
    rows = storage.read_table(report.quarantined_files["batch"])
    broken = rows.column(BROKEN).to_pylist()
    return dict(Counter(reason for reasons in broken for reason in reasons).most_common())


def _batch_named(spec: ModelSpec, path: Path) -> BatchRef:
    for key in re.findall(r"\d{4}-\d\d-\d\d(?:T\d\d)?", str(path))[::-1]:
        try:
            return spec.batch_ref(key)
        except SpecError:
            continue
    first = spec.partition_key(spec.partitions.first)
    raise RetrainingError(
        f"--partition: nothing in {path} says which partition of {spec.model} it is of; give one, "
        f"such as {first}"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RetrainingError(f"--landed: {path} cannot be read: {error.strerror}") from error
