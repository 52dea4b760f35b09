"""No value changes on its way: not through a float, not through pandas' missing values."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.retraining.data import publication, validation
from include.retraining.features import feature_tables, join
from include.retraining.records import ValidationReport
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

DAY = "2024-01-01"
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
LARGE = 4_611_686_018_427_387_905  # 2**62 + 1: a float of it is another number
COLUMNS = {
    "id": "integer", "at": "timestamp", "account": "integer", "amount": "number", "name": "string",
    "flag": "boolean", "y": "integer",
}  # fmt: skip


def spec_of() -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "model": "toy", "description": "d", "owner": "o",
            "partitions": {"every": "day", "first": DAY},
            "source": {
                "batch": "landing/{partition}.parquet", "key": ["id"], "event_time": "at",
                "columns": COLUMNS,
            },
            "label": {"column": "y", "maturity_days": 0},
            "features": {"service": "s", "tables": "m:f", "numeric": ["amount"]},
        }
    )  # fmt: skip


def rows(count: int = 40) -> dict[str, pa.Array]:
    numbers = list(range(count))
    return {
        "id": pa.array([LARGE + number for number in numbers]),
        "at": pa.array(
            [START + dt.timedelta(minutes=n) for n in numbers], pa.timestamp("us", "UTC")
        ),
        "account": pa.array([LARGE + number % 7 for number in numbers]),
        "amount": pa.array([float(number) for number in numbers]),
        "name": pa.array([f"n{number}" for number in numbers]),
        "flag": pa.array([number % 2 == 0 for number in numbers]),
        "y": pa.array([number % 2 for number in numbers]),
    }


def with_missing(values: pa.Array, place: int = 3) -> pa.Array:
    found = values.to_pylist()
    found[place] = None
    return pa.array(found, values.type)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path.as_uri())


def validate(
    storage: Storage, tmp_path: Path, columns: dict[str, pa.Array], rules: list[dict] = ()
) -> ValidationReport:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    storage.write(f"landing/{DAY}.parquet", sink.getvalue())
    suites = tmp_path / "suites"
    suites.mkdir(exist_ok=True)
    (suites / "toy.json").write_text(json.dumps({"name": "toy", "expectations": list(rules)}))
    spec = spec_of()
    return validation.validate_batch(spec, storage, spec.batch_ref(DAY), suites=suites)


def good(storage: Storage, report: ValidationReport) -> pa.Table:
    return storage.read_table(report.files["batch"])


def test_different_large_ids_stay_different_where_one_is_missing(storage, tmp_path):
    # all of them became one float, and the batch was refused as full of duplicates
    columns = rows() | {"id": with_missing(rows()["id"])}
    report = validate(storage, tmp_path, columns)
    assert (report.status, report.rows_good, report.rows_quarantined) == ("accepted", 39, 1)
    assert [f.expectation for f in report.findings] == ["column_values_to_not_be_null"]
    ids = [one for one in columns["id"].to_pylist() if one is not None]
    assert good(storage, report).column("id").to_pylist() == ids


@pytest.mark.parametrize(
    ("kind", "column", "kwargs"),
    [
        ("unique", "id", {}),
        ("be_between", "account", {"min_value": 2**62, "max_value": 2**62 + 1024}),
        ("be_in_set", "account", {"value_set": [LARGE + n for n in range(7)]}),
        ("be_in_set", "flag", {"value_set": [True, False]}),
        ("match_regex", "name", {"regex": r"^n\d+$"}),
        ("be_between", "amount", {"min_value": 0, "max_value": 99}),
        ("be_between", "at", {"min_value": "2024-01-01T00:00:00+00:00"}),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
@pytest.mark.parametrize("missing", [False, True], ids=["complete", "one-missing"])
def test_expectation_that_holds_is_met_beyond_what_a_float_can_tell(
    storage, tmp_path, kind, column, kwargs, missing
):
    columns = rows()
    if missing and column not in {"id", "at"}:
        columns[column] = with_missing(columns[column])
    if kind == "be_between" and column == "at":
        kwargs = {"min_value": {"$PARAMETER": "start"}}
    name = f"expect_column_values_to_{'be_unique' if kind == 'unique' else kind}"
    rule = {"type": name, "severity": "critical", "kwargs": {"column": column, **kwargs}}
    report = validate(storage, tmp_path, columns, [rule])
    assert (report.status, report.findings) == ("accepted", ())


def test_neighbour_of_a_large_number_is_not_in_a_set_of_it(storage, tmp_path):
    rule = {
        "type": "expect_column_values_to_be_in_set", "severity": "critical",
        "kwargs": {"column": "account", "value_set": [LARGE + n for n in range(6)]},
    }  # fmt: skip
    columns = rows() | {"account": with_missing(rows()["account"], 0)}
    report = validate(storage, tmp_path, columns, [rule])
    bad = storage.read_table(report.quarantined_files["batch"])
    assert bad.column("account").to_pylist() == [LARGE + 6] * 5


def test_whole_decimals_are_integers_and_others_refuse_the_column(storage, tmp_path):
    wide = pa.decimal128(38, 0)
    columns = rows() | {"account": pa.array([Decimal(LARGE + n) for n in range(40)], wide)}
    report = validate(storage, tmp_path, columns)
    assert report.status == "accepted"
    assert good(storage, report).column("account").to_pylist() == [LARGE + n for n in range(40)]
    columns["account"] = pa.array([Decimal(n) / 2 for n in range(40)], pa.decimal128(38, 1))
    report = validate(storage, tmp_path, columns)
    assert [f.expectation for f in report.findings] == ["column_to_have_type"]


def test_a_number_that_is_none_is_missing(storage, tmp_path):
    columns = rows() | {"amount": pa.array([float("nan"), *map(float, range(1, 40))])}
    report = validate(storage, tmp_path, columns)
    assert good(storage, report).column("amount").null_count == 1


def test_published_rows_are_what_landed(storage, tmp_path):
    columns = rows() | {"account": with_missing(rows()["account"])}
    report = validate(storage, tmp_path, columns)
    publication.publish_batch(spec_of(), storage, report)
    found = publication.rows_in_force(spec_of(), storage).read([DAY])
    assert found.equals(pa.table(columns).select(list(COLUMNS)))


def test_frames_for_feature_tables_have_exact_types():
    frame = feature_tables._frame(pa.table({"account": with_missing(rows()["account"])}))
    assert frame["account"].dropna().astype(int).tolist()[0] == LARGE
    means = frame.groupby("account").size()
    assert len(means) == 7


def test_a_value_that_its_declared_type_cannot_hold_is_refused():
    whole = join.cast_exactly(pa.chunked_array([[1.0, np.nan, 3.0]]), pa.int64(), "x")
    assert whole.to_pylist() == [1, None, 3]
    with pytest.raises(validation.DataError, match=r"x must be int64.*got double"):
        join.cast_exactly(pa.chunked_array([[1.5]]), pa.int64(), "x")
