"""What a database's driver gives becomes a column as it is, or a DataError that says what to do."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from include.retraining.data import query, validation
from include.retraining.data.query import land_queries
from include.retraining.errors import DataError
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage
from tests.data_corpus import PARTITION, spec_of

UTC = dt.UTC
SELECT = "select id, at, x, n, ok, label{} from rows where at >= :start and at < :end"


def column(*parts: list[Any]) -> list[Any]:
    tables = [query._table("batch", ["v"], [(one,) for one in part]) for part in parts]
    return query._joined("batch", "v", tables).to_pylist()


@pytest.mark.parametrize(
    ("parts", "values"),
    [
        pytest.param([[Decimal("1.5"), Decimal("NaN")]], [Decimal("1.5"), None], id="nan"),
        pytest.param([[None], ["x"]], [None, "x"], id="all-missing-first"),
        pytest.param([[1, 2**63]], [1, 2**63], id="unsigned-64-bit"),
        pytest.param([[-1], [2**64 - 1]], [-1, 2**64 - 1], id="unsigned-64-bit-later"),
        pytest.param([[2**53 + 1, Decimal("0.5")]], [2**53 + 1, Decimal("0.5")], id="mixed-exact"),
        pytest.param([[2**62 + 1], [Decimal("0.25")]], [2**62 + 1, Decimal("0.25")], id="parts"),
        pytest.param([[Decimal("1e20"), Decimal("1e-20")]], None, id="forty-digits"),
        pytest.param([[uuid.UUID(int=5)]], ["00000000-0000-0000-0000-000000000005"], id="uuid"),
        pytest.param([[1, 2], [0.5]], [1, 2, 0.5], id="integers-then-floats"),
    ],
)
def test_values_of_a_query_stay_what_they_are(parts, values):
    assert column(*parts) == ([one for part in parts for one in part] if values is None else values)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        pytest.param([[Decimal("1.5"), Decimal("-Infinity")]], "infinite", id="infinite-numeric"),
        pytest.param([[1, "x"]], "gives int, str, which no file", id="two-types"),
        pytest.param([[1], ["x"]], "gives int64, then string", id="two-types-in-parts"),
        pytest.param([[2**53 + 1], [0.5]], "gives int64, then double", id="would-be-rounded"),
        pytest.param(
            [[dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 5, tzinfo=UTC)]],
            "cut the times off",
            id="dates-and-times",
        ),
        pytest.param(
            [[dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=UTC)]],  # noqa: DTZ001 - the point
            "with and without a zone",
            id="zones",
        ),
        pytest.param([[{"a": 1}, [1]]], "gives dict, list", id="json"),
    ],
)
def test_values_that_no_file_holds_as_they_are_are_told(parts, says):
    with pytest.raises(
        DataError, match=rf"queries\.batch: column 'v'.*{says}.*cast it in the query"
    ):
        column(*parts)


def test_what_parquet_cannot_hold_is_told(tmp_path: Path):
    spec, storage = spec_with(SELECT.format("")), Storage(tmp_path.as_uri())
    table = pa.table({"v": pa.array([{}], pa.struct([]))})
    with pytest.raises(DataError, match=r"queries\.batch: its result cannot be kept as Parquet"):
        query._land(spec, storage, spec.batch_ref(PARTITION), "batch", table)


def spec_with(select: str) -> ModelSpec:
    content = spec_of(".parquet").model_dump()
    content["source"] |= {"connection": "db", "queries": {"batch": select}}
    return ModelSpec.model_validate(content)


@pytest.fixture
def engine() -> sa.Engine:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.begin() as connection:
        connection.execute(sa.text("create table rows (id, at, x, n, ok, label)"))
        connection.execute(
            sa.text("insert into rows values (:id, :at, 1.5, :n, 1, 0)"),
            [
                {"id": f"{n:03d}", "at": f"2020-01-02 {n:02d}:30:00.000000", "n": n}
                for n in range(20)
            ],
        )
    return engine


@pytest.mark.parametrize(
    ("select", "says"),
    [
        pytest.param(SELECT.format(", n as x"), "gives 'x' more than once", id="column-twice"),
        pytest.param(SELECT.format("") + " and x > :least", "least", id="unknown-parameter"),
    ],
)
def test_query_that_can_never_land_is_not_retried(tmp_path: Path, engine, select, says):
    spec = spec_with(select)
    with pytest.raises(DataError, match=says):
        land_queries(spec, Storage(tmp_path.as_uri()), spec.batch_ref(PARTITION), engine)
    assert not list(tmp_path.iterdir())


def test_columns_that_change_their_type_between_fetches_land_exactly(
    tmp_path: Path, engine, monkeypatch
):
    monkeypatch.setattr(query, "ROWS_PER_FETCH", 4)
    spec, storage = spec_with(SELECT.format("")), Storage(tmp_path.as_uri())
    with engine.begin() as connection:
        connection.execute(sa.text("update rows set n = null where n < 4"))
        connection.execute(sa.text("update rows set x = 2 where n > 15"))
    (found,) = land_queries(spec, storage, spec.batch_ref(PARTITION), engine)
    (tmp_path / "corpus.json").write_text(json.dumps({"name": "corpus", "expectations": []}))
    report = validation.validate_batch(spec, storage, spec.batch_ref(PARTITION), suites=tmp_path)
    # SQLite has no times: text, which a file with types must not have
    assert found.rows == 20
    assert [f.column for f in report.findings] == ["at"]
    assert "give it the declared type" in report.findings[0].detail


def test_times_of_a_session_whose_clock_changes_are_one_column():
    from include.retraining.data import query

    winter, summer = (dt.timezone(dt.timedelta(hours=hours)) for hours in (1, 2))
    times = [
        dt.datetime(2013, 3, 31, 1, tzinfo=winter),
        None,
        dt.datetime(2013, 3, 31, 4, tzinfo=summer),
    ]
    parts = [pa.table({"at": query._array(some)}) for some in (times[:1], times[1:2], times[2:])]
    found = query._joined("batch", "at", parts)
    assert found.type == pa.timestamp("us", tz="UTC")
    assert found.to_pylist() == times
