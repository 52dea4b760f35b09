"""Makes a `ValidationReport`: holds the landed files against their expectations, parts the rows.

A file that cannot be read, or whose columns are not those of the model file, refuses the batch. So
does a critical expectation about the batch as a whole, and too large a share of bad rows. A
critical expectation about rows moves those rows to quarantine, with every expectation they broke.
Warnings are noted.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from include.retraining import shelf
from include.retraining.data.delivery import Delivery, keep, landed, number_delivery
from include.retraining.errors import DataError, did_you_mean
from include.retraining.names import storage_key
from include.retraining.records import (
    BatchRef,
    DeliveryMapping,
    Finding,
    Severity,
    ValidationReport,
)
from include.retraining.settings import REPOSITORY
from include.retraining.spec import ColumnType, ModelSpec
from include.retraining.storage import Storage, sha256
from include.retraining.telling.validation_page import validation_page

if TYPE_CHECKING:
    import pandas as pd

SUITES = REPOSITORY / "great_expectations" / "expectations"
CONTRACT = {"key", "event_time", "columns", "companion_columns", "queries"}
ROW = "_rt_row"
BROKEN = "_rt_broken"


@dataclass
class _Input:
    """The files of one input on their way through validation."""

    name: str
    table: pa.Table | None = None
    unusable_rows: int = 0
    result: Any = None
    findings: list[Finding] = field(default_factory=list)
    broken_rows: dict[int, list[str]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return self.unusable_rows if self.table is None else int(self.table.num_rows)

    @property
    def is_refused(self) -> bool:
        """Did the input as a whole break something critical?"""
        return any(f.severity == "critical" and f.failed_rows is None for f in self.findings)

    def refuse(self, expectation: str, detail: str, column: str | None = None) -> None:
        self.findings.append(
            Finding(expectation=expectation, column=column, severity="critical", detail=detail)
        )

    def break_rows(self, rows: list[int], label: str) -> None:
        for row in rows:
            broken = self.broken_rows.setdefault(row, [])
            if label not in broken:
                broken.append(label)


def validate_batch(
    spec: ModelSpec, storage: Storage, batch: BatchRef, *, suites: Path = SUITES
) -> ValidationReport:
    """Hold the landed batch against its expectations and put every row where it belongs.

    Nothing is published: good rows are written under a name made of their content, where nobody
    reads until `publish` says so.

    Raises
    ------
    DataError
        No file has landed for the partition.
    """
    return validate_delivery(spec, storage, batch, landed(spec, storage, batch.partition), suites)


def validate_delivery(
    spec: ModelSpec, storage: Storage, batch: BatchRef, delivery: Delivery, suites: Path = SUITES
) -> ValidationReport:
    """Hold a delivery against the expectations of today, read as its mapping says."""
    declared = {"batch": spec.source.columns, **spec.source.companion_columns}
    suite_files = [_suite_path(suites, spec, name) for name in delivery.files]
    inputs = []
    for (name, files), suite in zip(delivery.files.items(), suite_files, strict=True):
        mapping = delivery.mapping
        if mapping is not None and mapping.input != name:
            mapping = None
        item = _read(name, files, declared[name], mapping)
        inputs.append(item)
        if not item.is_refused and mapping is not None:
            _map_values(item, mapping)
        if not item.is_refused:
            _check_finite(item)
            _check_expectations(item, _read_suite(suite, _contract(spec, name)), batch)
            _check_quarantined_share(item, spec.validation.max_quarantined_share)
    primary = inputs[0]
    refused = any(item.is_refused for item in inputs)
    quarantined = primary.rows if refused else len(primary.broken_rows)
    is_quarantined = refused or any(item.broken_rows for item in inputs)
    quarantine = storage_key(spec.model, "quarantine", batch.partition)
    report = ValidationReport(
        batch=batch,
        status="refused" if refused else "accepted",
        rows_in=primary.rows,
        rows_good=primary.rows - quarantined,
        rows_quarantined=quarantined,
        findings=tuple(
            f if i.name == "batch" else f.model_copy(update={"detail": f"{i.name}: {f.detail}"})
            for i in inputs
            for f in i.findings
        ),
        content_sha256=delivery.sha256,
        suite_sha256=sha256(*(path.read_bytes() for path in suite_files)),
        source_sha256=sha256(spec.source.model_dump_json(include=CONTRACT).encode()),
        mapping=delivery.mapping,
        quarantine_key=quarantine if is_quarantined else None,
    )
    report = report.model_copy(update={"delivery": number_delivery(storage, report)})
    if is_quarantined:
        keep(spec, storage, delivery, copy=refused)
    if not refused:
        report = _write_rows(spec, storage, report, inputs)
    folder = storage_key(spec.model, "reports", batch.partition)
    report = report.model_copy(update={"page_key": f"{folder}/validation.html"})
    results = {item.name: item.result for item in inputs if item.result is not None}
    storage.write(f"{folder}/validation.html", validation_page(report, results))
    storage.write_json(f"{folder}/validation.json", report)
    return report


def quarantined_key(report: ValidationReport, name: str = "batch") -> str:
    """Give the storage key of the rows of one input that an accepted batch left behind."""
    return shelf.staged_key(
        report.batch.model, report.batch.partition, f"{name}-bad", _short(report)
    )


def _write_rows(
    spec: ModelSpec, storage: Storage, report: ValidationReport, inputs: list[_Input]
) -> ValidationReport:
    """Keep good and bad rows until they are published, under names made of their content."""
    files, quarantined = {}, {}
    for item in inputs:
        batch = report.batch
        files[item.name] = shelf.staged_key(spec.model, batch.partition, item.name, _short(report))
        storage.write_table(files[item.name], _good_rows(item))
        if item.broken_rows:
            quarantined[item.name] = quarantined_key(report, item.name)
            storage.write_table(quarantined[item.name], _quarantined_rows(item))
    return report.model_copy(update={"files": files, "quarantined_files": quarantined})


def _short(report: ValidationReport) -> str:
    return f"{report.content_sha256[:12]}-{report.identity[:12]}"


def _suite_path(suites: Path, spec: ModelSpec, name: str) -> Path:
    path = suites / (f"{spec.model}.json" if name == "batch" else f"{spec.model}.{name}.json")
    if not path.exists():
        raise DataError(f"{spec.model}: no expectation suite {path.name} in {suites}; add one")
    return path


def _read(
    name: str,
    files: dict[str, bytes],
    columns: dict[str, ColumnType],
    mapping: DeliveryMapping | None,
) -> _Input:
    """Read the files of an input as one table of the declared columns, or say why not."""
    parts = [_read_file(name, file, content, columns, mapping) for file, content in files.items()]
    item = _Input(name, findings=[finding for part in parts for finding in part.findings])
    if len(parts) > 1:
        item.findings = [
            finding.model_copy(update={"detail": f"{file}: {finding.detail}"})
            for file, part in zip(files, parts, strict=True)
            for finding in part.findings
        ]
        for twice in _equal_files(files):
            item.refuse("files_to_differ", f"{twice} hold the same bytes; deliver each file once")
    if item.is_refused:
        item.unusable_rows = sum(part.rows for part in parts)
        return item
    item.table = pa.concat_tables([part.table for part in parts])
    if item.rows == 0:
        item.refuse("rows_to_exist", "readable, but without any row; deliver it again")
    return item


def _equal_files(files: dict[str, bytes]) -> list[str]:
    names: dict[str, list[str]] = {}
    for file, content in files.items():
        names.setdefault(sha256(content), []).append(file)
    return [" and ".join(equal) for equal in names.values() if len(equal) > 1]


def _read_file(
    name: str,
    file: str,
    content: bytes,
    columns: dict[str, ColumnType],
    mapping: DeliveryMapping | None,
) -> _Input:
    part = _Input(name)
    renamed = mapping.renames if mapping else {}
    as_landed = columns | {old: columns[new] for old, new in renamed.items()}
    try:
        table = _parse(content, PurePosixPath(file).suffix, as_landed)
        table.validate(full=True)  # text that is not UTF-8 shows here, or in mid-task
        part.table = table.rename_columns([renamed.get(one, one) for one in table.column_names])
    except (pa.ArrowException, OSError, ValueError) as error:
        text = str(error).strip()
        first_line = text.splitlines()[0][:200] if text else "no detail"
        part.refuse("file_to_be_readable", f"{file} ({len(content)} bytes): {first_line}")
        return part
    _check_columns(part, columns)
    return part


def _parse(content: bytes, suffix: str, columns: dict[str, ColumnType]) -> pa.Table:
    if not content:
        raise ValueError("the file is empty")
    if suffix == ".parquet":
        return pq.ParquetFile(BytesIO(content)).read()
    # text formats have no types of their own, and a guess takes the code 007 for a number
    text = [name for name, kind in columns.items() if kind in {"string", "timestamp"}]
    if suffix == ".csv":
        options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(text, pa.string()))
        table = pyarrow.csv.read_csv(BytesIO(content), convert_options=options)
    elif suffix in {".json", ".jsonl"}:
        there = set(pyarrow.json.read_json(BytesIO(content)).column_names)
        schema = pa.schema([(name, pa.string()) for name in text if name in there])
        options = pyarrow.json.ParseOptions(explicit_schema=schema)
        table = pyarrow.json.read_json(BytesIO(content), parse_options=options)
    else:
        raise ValueError(f"unknown format {suffix!r}; allowed: .parquet, .csv, .json, .jsonl")
    return _read_text(table, columns)


def _read_text(table: pa.Table, columns: dict[str, ColumnType]) -> pa.Table:
    """Empty text is a missing value; a timestamp is ISO 8601 with a time zone, or stays text."""
    for position, name in enumerate(table.column_names):
        kind, column = columns.get(name), table.column(position)
        if kind not in {"string", "timestamp"} or not pa.types.is_string(column.type):
            continue
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        if kind == "timestamp":
            with contextlib.suppress(pa.ArrowInvalid):  # the check of the types says it better
                column = column.cast(pa.timestamp("us", tz="UTC"))
        table = table.set_column(position, name, column)
    return table


def _check_columns(item: _Input, columns: dict[str, ColumnType]) -> None:
    """Compare the columns with the model file; cast what can be cast without loss."""
    if item.table is None:
        return
    names = item.table.column_names
    for twice in sorted({name for name in names if names.count(name) > 1}):
        item.refuse("column_to_appear_once", f"column {twice!r} appears more than once", twice)
    missing = [name for name in columns if name not in names]
    extra = [name for name in names if name not in columns]
    for name in missing:
        hint = f"; new columns: {_some(extra)}" if extra else ""
        item.refuse("column_to_exist", f"column {name!r} is missing{hint}", name)
    if item.findings:
        return
    arrays = {}
    for name, kind in columns.items():
        try:
            arrays[name] = _cast(item.table.column(name), kind)
        except (pa.ArrowException, ValueError) as error:
            got = item.table.schema.field(name).type
            detail = (
                f"column {name!r} must be {kind}, got {got}: {str(error).splitlines()[0][:150]}"
            )
            item.refuse("column_to_have_type", detail, name)
    if extra and not missing:
        item.findings.append(
            Finding(
                expectation="no_new_columns",
                severity="info",
                failed_rows=0,
                detail=f"new columns, left out: {_some(extra)}",
            )
        )
    if not item.is_refused:
        item.table = pa.table(arrays)


def _some(names: list[str]) -> str:
    """Give the first names, and how many more there are."""
    rest = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return ", ".join(name[:100] for name in names[:10]) + rest


_ACCEPTED = {
    "string": lambda t: (
        pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)
    ),
    "integer": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t),
    "number": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t),
    "boolean": pa.types.is_boolean,
    "timestamp": pa.types.is_timestamp,
}
_TARGET = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def _cast(column: pa.ChunkedArray, kind: ColumnType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return column.cast(_TARGET[kind])
    if kind == "timestamp" and pa.types.is_string(column.type):
        raise ValueError("must be ISO 8601 with a time zone, such as 2013-01-07T05:15:00Z")
    if not _ACCEPTED[kind](column.type):
        raise ValueError("give it the declared type at the source, or declare the new one")
    if kind == "timestamp" and column.type.tz is None:
        raise ValueError("timestamps need a time zone")
    if kind == "integer" and pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    if kind == "timestamp":
        # drops nanoseconds on purpose; nothing else may be lost
        return column.cast(_TARGET[kind], safe=column.type.unit != "ns")
    return column.cast(_TARGET[kind])


def check_mapping(spec: ModelSpec, mapping: DeliveryMapping) -> None:
    """Raise DataError if a mapping names what the model file does not have."""
    declared = {"batch": spec.source.columns, **spec.source.companion_columns}
    if mapping.input not in declared:
        raise DataError(f"no input {mapping.input!r}; allowed: {', '.join(declared)}")
    columns = declared[mapping.input]
    for name in (*mapping.renames.values(), *mapping.replacements):
        if name not in columns:
            raise DataError(
                f"{name!r} is no column of {mapping.input}{did_you_mean(name, columns)}; "
                f"allowed: {', '.join(columns)}"
            )
    for name, values in mapping.replacements.items():
        for value in (*values, *values.values()):
            try:
                pa.array([value], pa.string()).cast(_TARGET[columns[name]])
            except pa.ArrowInvalid as error:
                raise DataError(f"{name!r} must be {columns[name]}, got {value!r}") from error


def _map_values(item: _Input, mapping: DeliveryMapping) -> None:
    """Put the right values in place of the wrong ones that a mapping names."""
    assert item.table is not None
    for name, values in mapping.replacements.items():
        position, column = item.table.column_names.index(name), item.table.column(name)
        wrong = pa.array(list(values), pa.string()).cast(column.type)
        right = pa.array(list(values.values()), pa.string()).cast(column.type)
        found = pc.index_in(column, value_set=wrong)
        column = pc.if_else(pc.is_null(found), column, right.take(found.combine_chunks()))
        item.table = item.table.set_column(position, name, column)


def _check_finite(item: _Input) -> None:
    """Infinite numbers are bad rows, whatever the suite says: no model, no statistic takes them."""
    assert item.table is not None
    for name in item.table.column_names:
        column = item.table.column(name)
        if not pa.types.is_floating(column.type):
            continue
        rows = np.flatnonzero(np.isinf(column.to_numpy(zero_copy_only=False))).tolist()
        item.break_rows(rows, f"{name}: column_values_to_be_finite")
        if rows:
            item.findings.append(
                Finding(
                    expectation="column_values_to_be_finite",
                    column=name,
                    severity="critical",
                    failed_rows=len(rows),
                    detail=f"{len(rows)} of {item.rows} rows are infinite",
                )
            )


def _contract(spec: ModelSpec, name: str) -> list[dict[str, Any]]:
    """Give what a model file promises of every batch, as expectations, whatever its suite says."""
    if name != "batch":
        return []
    key, time = list(spec.source.key), spec.source.event_time
    window = {
        "min_value": {"$PARAMETER": "start"},
        "max_value": {"$PARAMETER": "end"},
        "strict_max": True,
    }
    unique = (
        ("expect_compound_columns_to_be_unique", {"column_list": key})
        if len(key) > 1
        else ("expect_column_values_to_be_unique", {"column": key[0]})
    )
    rules: list[tuple[str, dict[str, Any]]] = [
        *(
            ("expect_column_values_to_not_be_null", {"column": column})
            for column in dict.fromkeys([*key, time])
        ),
        unique,
        ("expect_column_values_to_be_between", {"column": time, **window}),
    ]
    return [{"type": kind, "severity": "critical", "kwargs": kwargs} for kind, kwargs in rules]


def _check_expectations(item: _Input, suite: Any, batch: BatchRef) -> None:
    """Run the Great Expectations suite of one input and sort its failures."""
    assert item.table is not None
    item.result = _run_suite(item.table.to_pandas(), suite, batch)
    for result in item.result.results:
        if result.success:
            continue
        config = result.expectation_config
        severity: Severity = config.severity.value if config.severity else "critical"
        name, kwargs = config.type.removeprefix("expect_"), config.kwargs
        column = kwargs.get("column") or ", ".join(kwargs.get("column_list", ())) or None
        if trouble := _exception_of(result):
            item.refuse(name, f"could not be evaluated: {trouble[:200]}; mend the suite", column)
            continue
        indexes = result.result.get("unexpected_index_list")
        if indexes is None:
            observed = result.result.get("observed_value")
            limits = {k: v for k, v in kwargs.items() if k.startswith(("min", "max", "value"))}
            detail = f"observed {observed}, expected {limits}"
            item.findings.append(
                Finding(expectation=name, column=column, severity=severity, detail=detail)
            )
            continue
        rows = [int(index) for index in indexes]
        if severity == "critical":
            item.break_rows(rows, f"{column}: {name}" if column else name)
        examples = list(dict.fromkeys(map(str, result.result.get("partial_unexpected_list", ()))))[
            :3
        ]
        item.findings.append(
            Finding(
                expectation=name,
                column=column,
                severity=severity,
                failed_rows=len(rows),
                detail=f"{len(rows)} of {item.rows} rows"
                + (f", such as {', '.join(examples)}" if examples else ""),
            )
        )


def _check_quarantined_share(item: _Input, allowed: float) -> None:
    if item.rows and len(item.broken_rows) / item.rows > allowed:
        share = len(item.broken_rows) / item.rows
        item.refuse(
            "share_of_good_rows", f"{share:.1%} of the rows are bad, at most {allowed:.0%} may be"
        )


def _exception_of(result: Any) -> str:
    """Say why an expectation could not be evaluated: one exception, or one per metric."""
    info = result.exception_info or {}
    found = [info, *(value for value in info.values() if isinstance(value, dict))]
    return next((str(one["exception_message"]) for one in found if one.get("raised_exception")), "")


def _read_suite(path: Path, contract: list[dict[str, Any]]) -> Any:
    """Read a suite, and add what the model file promises and the suite does not say itself."""
    import great_expectations as gx
    from great_expectations.exceptions import GreatExpectationsError

    try:
        content = json.loads(path.read_text())
        said = [
            (one["type"], one.get("kwargs"), one["severity"])
            for one in content["expectations"]
            if "severity" in one
        ]
        content["expectations"] += [
            one for one in contract if (one["type"], one["kwargs"], one["severity"]) not in said
        ]
        suite = gx.ExpectationSuite(**content)
        types = [one["type"] for one in content["expectations"]]
    except (ValueError, TypeError, KeyError, GreatExpectationsError) as error:
        raise DataError(f"{path.name} is no expectation suite: {error}") from error
    known = [one.expectation_type for one in suite.expectations]
    lost = [kind for kind in types if kind not in known]
    if lost or len(known) != len(types):
        # Great Expectations logs and leaves out what it does not know: a misspelt check would be
        # no check
        raise DataError(
            f"{path.name}: Great Expectations cannot use {', '.join(lost) or 'all of it'}"
        )
    return suite


def _run_suite(frame: pd.DataFrame, suite: Any, batch: BatchRef) -> Any:
    return (
        _batch_definition()
        .get_batch({"dataframe": frame})
        .validate(
            suite,
            result_format="COMPLETE",
            expectation_parameters={"start": batch.start, "end": batch.end},
        )
    )


@cache
def _batch_definition() -> Any:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("landing")
    return source.add_dataframe_asset("batch").add_batch_definition_whole_dataframe("whole")


def _good_rows(item: _Input) -> pa.Table:
    assert item.table is not None
    keep = [row not in item.broken_rows for row in range(item.rows)]
    return item.table.filter(pa.array(keep, pa.bool_()))


def _quarantined_rows(item: _Input) -> pa.Table:
    assert item.table is not None
    rows = sorted(item.broken_rows)
    broken = pa.array([item.broken_rows[row] for row in rows], pa.list_(pa.string()))
    taken = item.table.take(pa.array(rows, pa.int64()))
    return taken.append_column(ROW, pa.array(rows, pa.int64())).append_column(BROKEN, broken)
