"""Makes a `ValidationReport`: holds the landed files against their expectations, parts the rows.

A file that cannot be read, or whose columns are not those of the model file, refuses the batch. So
does a critical expectation about the batch as a whole, and too large a share of bad rows. A
critical expectation about rows moves those rows to quarantine, with every expectation they broke.
Warnings are noted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.retraining import shelf
from include.retraining.data.delivery import (
    Delivery,
    is_newest,
    keep,
    landed,
    number_delivery,
    was_replaced,
)
from include.retraining.data.publication import BROKEN, ROW, refuse_old_layout
from include.retraining.data.reading import Input, fitted_mapping, map_values, read_input
from include.retraining.errors import DataError, SpecError, did_you_mean
from include.retraining.records import BatchRef, Finding, Severity, ValidationReport
from include.retraining.settings import REPOSITORY
from include.retraining.spec import ModelSpec, OutcomeFeed
from include.retraining.storage import Storage, sha256

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SUITES = REPOSITORY / "great_expectations" / "expectations"
CONTRACT = {"key", "event_time", "columns", "companion_columns", "queries"}
PLACE = "retraining_place"
MAX_MET = 50  # expectations that the page of a batch shows, beside those that failed
COLUMNS_AT_ONCE = 10  # that Great Expectations is given: it copies what it is given
CELLS_AT_ONCE = 10_000_000  # of very long columns fewer


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
    while True:
        delivery = landed(spec, storage, batch.partition)
        report = validate_delivery(spec, storage, batch, delivery, suites)
        # a newer one may have landed and been numbered while this one was being read
        if report.delivery == 1 or not was_replaced(spec, storage, delivery):
            return report
        log.warning("%s %s: another delivery landed meanwhile", spec.model, batch.partition)


def validate_delivery(
    spec: ModelSpec,
    storage: Storage,
    batch: BatchRef,
    delivery: Delivery,
    suites: Path = SUITES,
    *,
    after: int | None = None,
) -> ValidationReport:
    """Hold a delivery against the expectations of today, read as its mapping says.

    Parameters
    ----------
    after : int, optional
        The number of the delivery it was kept from; raises Superseded if a newer one has come.

    Raises
    ------
    DataError
        A folder has state of a release that kept it in another layout. Nothing is written. On S3
        it would be one more request for every batch, so there it is told by who publishes.
    """
    if storage.is_local and not isinstance(spec, OutcomeFeed):  # that release had none
        refuse_old_layout(spec, storage)
    declared = {"batch": spec.source.columns, **spec.source.companion_columns}
    suite_files = [suite_path(suites, spec, name) for name in delivery.files]
    inputs: list[Input] = []
    kept, left_out = delivery.mapping, list[str]()
    if kept is not None:
        kept, left_out = fitted_mapping(spec, kept)
    for (name, files), suite in zip(delivery.files.items(), suite_files, strict=True):
        mapping = kept if kept is not None and kept.input == name else None
        item = read_input(
            name, files, declared[name], mapping=mapping, max_rows=spec.validation.max_rows
        )
        inputs.append(item)
        if not item.is_refused and mapping is not None:
            map_values(item, mapping)
        _check_rows(spec, item, suite, batch)
    primary = inputs[0]
    if left_out:
        primary.findings.append(
            Finding(
                expectation="mapping_to_fit_the_model_file",
                severity="warning",
                detail="left out of the mapping, since the model file has changed: "
                f"{', '.join(dict.fromkeys(left_out))}",
            )
        )
    refused = any(item.is_refused for item in inputs)
    quarantined = primary.rows if refused else len(primary.broken_rows)
    is_quarantined = refused or any(item.broken_rows for item in inputs)
    quarantine = shelf.quarantine_folder(spec.model, batch.partition)
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
        suite_sha256=sha256(*(path.read_bytes() for path in suite_files if path)),
        source_sha256=sha256(spec.source.model_dump_json(include=CONTRACT).encode()),
        mapping=delivery.mapping,
        quarantine_key=quarantine if is_quarantined else None,
    )
    report = report.model_copy(update={"delivery": number_delivery(storage, report, after=after)})
    if is_quarantined:
        keep(spec, storage, delivery, copy=refused)
    if not refused:
        report = _write_rows(spec, storage, report, inputs)
    page = shelf.validation_page_key(spec.model, batch.partition)
    report = report.model_copy(update={"page_key": page})
    results = {item.name: _bounded(item.result) for item in inputs if item.result is not None}
    is_first = report.delivery == 1 and shelf.keep_first(storage, report) is report
    if is_first or is_newest(storage, report):  # what people see is of the newest one
        storage.write_json(shelf.expectations_key(spec.model, batch.partition), results)
        if not is_first:
            shelf.keep(storage, report)
    return report


def _check_rows(spec: ModelSpec, item: Input, suite: Path | None, batch: BatchRef) -> None:
    """Hold the rows of an input against contract and suite, unless it could not be read."""
    # that nothing became of any row is news; that there was none is not
    if not item.is_refused and not item.rows and not isinstance(spec, OutcomeFeed):
        item.refuse("rows_to_exist", "readable, but without any row; deliver it again")
    if item.is_refused:
        return
    _check_finite(item)
    if isinstance(spec, OutcomeFeed):
        _check_agreement(item, spec)
    _check_expectations(item, _read_suite(suite, _contract(spec, item.name)), batch)
    _check_quarantined_share(item, spec.validation.max_quarantined_share)


def _bounded(result: Any) -> dict[str, Any]:
    """Give a validation result as JSON, without the places of its bad rows: they are in a table.

    Of expectations that were met, only the first `MAX_MET` are kept.
    """
    content: dict[str, Any] = result.to_json_dict()
    failed = [one for one in content["results"] if not one["success"]]
    met = [one for one in content["results"] if one["success"]]
    for one in failed:
        for name in ("unexpected_index_list", "unexpected_list", "unexpected_index_query"):
            one["result"].pop(name, None)
    kept = content | {"results": [*failed, *met[:MAX_MET]], "met": len(met)}
    # JSON has no infinite numbers, and bad rows may
    plain: dict[str, Any] = json.loads(json.dumps(kept), parse_constant=str)
    return plain


def quarantined_key(report: ValidationReport, name: str = "batch") -> str:
    """Give the storage key of the rows of one input that an accepted batch left behind."""
    return shelf.staged_key(
        report.batch.model, report.batch.partition, f"{name}-bad", _short(report)
    )


def _write_rows(
    spec: ModelSpec, storage: Storage, report: ValidationReport, inputs: list[Input]
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
    return f"{report.content_sha256[:12]}-{report.identity[:12]}-{report.delivery}"


def suite_path(suites: Path, spec: ModelSpec, name: str) -> Path | None:
    """Give the suite of an input; None for outcomes that have none, which is allowed.

    Raises
    ------
    DataError
        There is none, and an input other than outcomes has to have one.
    """
    whose = spec.model.replace("/", ".")
    path = suites / (f"{whose}.json" if name == "batch" else f"{whose}.{name}.json")
    if not path.exists():
        if isinstance(spec, OutcomeFeed):
            return None
        raise DataError(f"{spec.model}: no expectation suite {path.name} in {suites}; add one")
    return path


def check_suites(spec: ModelSpec, suites: Path = SUITES) -> Iterator[SpecError]:
    """Find what is wrong with the suites of a model file, before any batch is held against them."""
    declared = {"batch": spec.source.columns, **spec.source.companion_columns}
    if spec.outcomes is not None and not isinstance(spec, OutcomeFeed):
        yield from check_suites(spec.outcomes, suites)
    for name, columns in declared.items():
        try:
            path = suite_path(suites, spec, name)
        except DataError as error:
            yield SpecError(str(error), place=("source", "columns"))
            continue
        if path is None:
            continue
        try:
            suite = _read_suite(path, _contract(spec, name))
        except DataError as error:
            cause = error.__cause__
            line = cause.lineno if isinstance(cause, json.JSONDecodeError) else 0
            yield SpecError(str(error), path=str(path), line=line)
            continue
        where = "source.columns" if name == "batch" else f"source.companion_columns.{name}"
        where = f"label.{where}" if isinstance(spec, OutcomeFeed) else where
        lines = path.read_text().splitlines()
        for one in suite.expectations:
            kwargs = one.configuration.kwargs
            named = [*_columns_of(kwargs), *(kwargs.get("column_set") or ())]
            for column in dict.fromkeys(named):
                if column not in columns:
                    text = json.dumps(column)
                    yield SpecError(
                        f"{one.expectation_type}: column {column!r} is not in {where}"
                        f"{did_you_mean(column, columns)}",
                        path=str(path),
                        line=next((n for n, at in enumerate(lines, 1) if text in at), 0),
                    )


def _check_finite(item: Input) -> None:
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
    if isinstance(spec, OutcomeFeed):
        return _contract_of_outcomes(key, time)
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
        *_contract_of_predictions(spec),
    ]
    return [{"type": kind, "severity": "critical", "kwargs": kwargs} for kind, kwargs in rules]


def _contract_of_predictions(spec: ModelSpec) -> list[tuple[str, dict[str, Any]]]:
    """Give what is promised of predictions made elsewhere: there, and probabilities if binary."""
    if spec.predictions is None:
        return []
    column = {"column": spec.predictions.column}
    rules: list[tuple[str, dict[str, Any]]] = [("expect_column_values_to_not_be_null", column)]
    if spec.label.task == "binary":
        ends = {"min_value": 0, "max_value": 1}
        rules.append(("expect_column_values_to_be_between", {**column, **ends}))
    return rules


def _contract_of_outcomes(key: list[str], known_at: str) -> list[dict[str, Any]]:
    """Give what is promised of outcomes: whose they are, and known by the partition's end."""
    needed = [*key, *filter(None, [known_at])]
    rules: list[dict[str, Any]] = [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": column}}
        for column in dict.fromkeys(needed)
    ]
    if known_at:
        kwargs = {"column": known_at, "max_value": {"$PARAMETER": "end"}}
        rules.append({"type": "expect_column_values_to_be_between", "kwargs": kwargs})
    return [{"severity": "critical", **rule} for rule in rules]


def _check_agreement(item: Input, spec: OutcomeFeed) -> None:
    """Outcomes of one row that were known at the same moment and differ are all bad rows."""
    assert item.table is not None
    column, known_at = spec.label.column, spec.source.event_time
    names = [*spec.source.key, *filter(None, [known_at])]
    rows = item.table.select([*names, column]).append_column(ROW, pa.array(np.arange(item.rows)))
    rows = rows.filter(pc.is_valid(rows.column(column)))
    told = rows.group_by(names).aggregate([(column, "count_distinct")])
    told = told.filter(pc.greater(told.column(f"{column}_count_distinct"), 1))
    if not told.num_rows:
        return
    places = rows.join(told.select(names), names, join_type="inner").column(ROW).to_pylist()
    rule = "one_outcome_of_a_row_at_a_time"
    item.break_rows(sorted(places), f"{column}: {rule}")
    example = ", ".join(f"{name} {told.column(name)[0].as_py()}" for name in names)
    item.findings.append(
        Finding(
            expectation=rule,
            column=column,
            severity="critical",
            failed_rows=len(places),
            detail=f"{len(places)} of {item.rows} rows say different things about one row at the "
            f"same moment, such as about {example}",
        )
    )


def _check_expectations(item: Input, suite: Any, batch: BatchRef) -> None:
    """Run the Great Expectations suite of one input and sort its failures."""
    assert item.table is not None
    item.result = _run_suite(item.table, suite, batch)
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


def _check_quarantined_share(item: Input, allowed: float) -> None:
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


def _read_suite(path: Path | None, contract: list[dict[str, Any]]) -> Any:
    """Read a suite, and add what the model file promises and the suite does not say itself."""
    import great_expectations as gx
    from great_expectations.exceptions import GreatExpectationsError

    if path is None:  # outcomes may have none
        return gx.ExpectationSuite(name="outcomes", expectations=contract)
    try:
        content = json.loads(path.read_text())
        _check_words(path, content["expectations"])
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
    for one in content["expectations"]:
        for name in ("min_value", "max_value"):
            bound = (one.get("kwargs") or {}).get(name)
            if isinstance(bound, int) and int(float(bound)) != bound:
                raise DataError(
                    f"{path.name}: {one['type']}: {name} {bound} has more digits than Great "
                    f"Expectations keeps of a bound, which is a 64-bit float; write "
                    f"{int(float(bound))}, or another check"
                )
    known = [one.expectation_type for one in suite.expectations]
    lost = [kind for kind in types if kind not in known]
    if lost or len(known) != len(types):
        # Great Expectations logs and leaves out what it does not know: a misspelt check would be
        # no check
        raise DataError(
            f"{path.name}: Great Expectations cannot use {', '.join(lost) or 'all of it'}"
        )
    return suite


def _check_words(path: Path, expectations: list[dict[str, Any]]) -> None:
    """Refuse what Great Expectations would log and leave out: a misspelt check is no check."""
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    known, severities = list_registered_expectation_implementations(), get_args(Severity)
    for one in expectations:
        kind, severity = one["type"], one.get("severity", "critical")
        if kind not in known:
            raise DataError(
                f"{path.name}: Great Expectations knows no {kind!r}{did_you_mean(kind, known)}"
            )
        if severity not in severities:
            raise DataError(
                f"{path.name}: {kind}: severity must be one of {', '.join(severities)}, got "
                f"{severity!r}{did_you_mean(str(severity), severities)}"
            )
        for value in (one.get("kwargs") or {}).values():
            parameter = value.get("$PARAMETER") if isinstance(value, dict) else None
            if parameter not in {None, "start", "end"}:
                raise DataError(
                    f"{path.name}: {kind}: $PARAMETER must be start or end, the window of the "
                    f"batch, got {parameter!r}"
                )


def _run_suite(table: pa.Table, suite: Any, batch: BatchRef) -> Any:
    """Run a suite, a few columns at a time; what failed is run once more to name its rows.

    Great Expectations copies the whole frame for each expectation, and asks for much more where the
    bad rows are wanted.
    """
    from great_expectations.core import ExpectationSuiteValidationResult

    found: dict[int, Any] = {}
    for names, places in _by_columns(table, suite.expectations):
        frame = exact_frame(table.select(names))
        found |= _run(frame, suite, places, batch, "BASIC")
        failed = [place for place in places if not found[place].success]
        found |= _run(frame, suite, failed, batch, "COMPLETE")
    results = [found[place] for place in sorted(found)]
    met = sum(bool(one.success) for one in results)
    return ExpectationSuiteValidationResult(
        suite_name=suite.name,
        success=met == len(results),
        results=results,
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": met,
            "unsuccessful_expectations": len(results) - met,
            "success_percent": 100 * met / len(results) if results else None,
        },
        meta={"active_batch_definition": {}, "run_id": {}, "great_expectations_version": ""},
    )


def _run(
    frame: pd.DataFrame, suite: Any, places: list[int], batch: BatchRef, form: str
) -> dict[int, Any]:
    import great_expectations as gx

    if not places:
        return {}
    # copies: an expectation belongs to one suite; results come in an order of their own
    some = [
        one.copy(update={"id": None, "meta": {**(one.meta or {}), PLACE: place}})
        for place in places
        for one in [suite.expectations[place]]
    ]
    result = (
        _batch_definition()
        .get_batch({"dataframe": frame})
        .validate(
            gx.ExpectationSuite(name=suite.name, expectations=some),
            result_format=form,
            expectation_parameters={"start": batch.start, "end": batch.end},
        )
    )
    return {one.expectation_config.meta.pop(PLACE): one for one in result.results}


def _by_columns(table: pa.Table, expectations: list[Any]) -> Iterator[tuple[list[str], list[int]]]:
    """Part expectations into groups that need only a few columns; those of the table need all."""
    narrow: list[tuple[list[str], int]] = []
    whole = []
    for place, one in enumerate(expectations):
        kwargs = one.configuration.kwargs
        names = _columns_of(kwargs)
        if names and not kwargs.get("row_condition") and set(names) <= set(table.column_names):
            narrow.append((names, place))
        else:
            whole.append(place)
    size = max(1, min(COLUMNS_AT_ONCE, CELLS_AT_ONCE // max(table.num_rows, 1)))
    group: list[str] = []
    places: list[int] = []
    for names, place in sorted(narrow):
        both = list(dict.fromkeys([*group, *names]))
        if len(both) > size and group:
            yield group, places
            both, places = list(dict.fromkeys(names)), []
        group, places = both, [*places, place]
    if places:
        yield group, places
    if whole:
        yield table.column_names, whole


def _columns_of(kwargs: dict[str, Any]) -> list[str]:
    names = [kwargs[key] for key in ("column", "column_A", "column_B") if kwargs.get(key)]
    return [*names, *(kwargs.get("column_list") or ())]


def exact_frame(table: pa.Table) -> pd.DataFrame:
    """Give a frame whose whole numbers and booleans stay what they are where some are missing."""
    import pandas as pd

    kinds = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        mapper = kinds.get if column.null_count else None
        columns[name] = pa.table({name: column}).to_pandas(types_mapper=mapper)[name]
    return pd.DataFrame(columns, copy=False)


@cache
def _batch_definition() -> Any:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    # 100 KB of what it does, in the log of each task
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("landing")
    return source.add_dataframe_asset("batch").add_batch_definition_whole_dataframe("whole")


def _good_rows(item: Input) -> pa.Table:
    assert item.table is not None
    if not item.broken_rows:
        return item.table
    keep = np.ones(item.rows, dtype=bool)
    keep[list(item.broken_rows)] = False
    return item.table.filter(pa.array(keep))


def _quarantined_rows(item: Input) -> pa.Table:
    assert item.table is not None
    rows = sorted(item.broken_rows)
    broken = pa.array([item.broken_rows[row] for row in rows], pa.list_(pa.string()))
    taken = item.table.take(pa.array(rows, pa.int64()))
    return taken.append_column(ROW, pa.array(rows, pa.int64())).append_column(BROKEN, broken)
