"""Queries over a batch's window, on a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from include.retraining.data import validation
from include.retraining.data.query import land_queries
from include.retraining.errors import DataError
from include.retraining.records import QueryResult
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

URL = os.environ.get("TEST_POSTGRES_URL", "")
pytestmark = pytest.mark.skipif(not URL, reason="needs PostgreSQL: set TEST_POSTGRES_URL")
DAY = "2020-01-02"

ORDERS = """
select order_id, customer_id, ordered_at, amount, items, gift,
       (select count(*) from orders later
        where later.customer_id = o.customer_id and later.ordered_at > o.ordered_at) > 0 as again
from orders o where ordered_at >= :start and ordered_at < :end
"""
CUSTOMERS = "select customer_id, joined_at, country from customers where joined_at < :end"


def spec_of(**queries: str) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "model": "churn",
            "description": "Will a customer order again?",
            "owner": "tests",
            "partitions": {"every": "day", "first": "2020-01-01"},
            "source": {
                "batch": "landing/churn/{partition}/orders.parquet",
                "companions": {"customers": "landing/churn/{partition}/customers.parquet"},
                "connection": "shop",
                "queries": {"batch": ORDERS, "customers": CUSTOMERS} | queries,
                "key": ["order_id"],
                "event_time": "ordered_at",
                "columns": {
                    "order_id": "integer",
                    "customer_id": "string",
                    "ordered_at": "timestamp",
                    "amount": "number",
                    "items": "integer",
                    "gift": "boolean",
                    "again": "boolean",
                },
                "companion_columns": {
                    "customers": {
                        "customer_id": "string",
                        "joined_at": "timestamp",
                        "country": "string",
                    }
                },
            },
            "label": {"column": "again", "maturity_days": 30},
            "features": {"service": "churn", "tables": "churn:build", "numeric": ["amount"]},
        }
    )


SPEC = spec_of() if URL else None


@pytest.fixture
def shop() -> Iterator[sa.Engine]:
    """A database of its own with customers and their orders; its clock is not in UTC."""
    name = f"shop_{uuid.uuid4().hex[:8]}"
    admin = sa.create_engine(URL, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
        connection.execute(sa.text(f"alter database {name} set timezone to 'Asia/Kolkata'"))
    engine = sa.create_engine(sa.make_url(URL).set(database=name))
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "create table customers "
                "(customer_id text primary key, joined_at timestamptz not null, country text)"
            )
        )
        connection.execute(
            sa.text(
                "create table orders "
                "(order_id bigint primary key, customer_id text references customers, "
                "ordered_at timestamptz, amount numeric(10, 2), items int, gift boolean, note uuid)"
            )
        )
        connection.execute(
            sa.text("insert into customers values (:id, :at, :country)"),
            [
                {
                    "id": f"c{n}",
                    "at": dt.datetime(2019, 1, n + 1, tzinfo=dt.UTC),
                    "country": "DE" if n else None,
                }
                for n in range(10)
            ],
        )
        add_orders(connection, range(300))
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(sa.text(f"drop database {name} with (force)"))
    admin.dispose()


def add_orders(connection: sa.Connection, numbers: range) -> None:
    """One order every 15 minutes from the first of January on."""
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    connection.execute(
        sa.text("insert into orders values (:id, :customer, :at, :amount, :items, :gift, :note)"),
        [
            {
                "id": n,
                "customer": f"c{n % 10}",
                "at": start + n * dt.timedelta(minutes=15),
                "amount": f"{n}.25" if n % 7 else None,
                "items": n % 5,
                "gift": n % 2 == 0,
                "note": str(uuid.UUID(int=n)),
            }
            for n in numbers
        ],
    )


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path.as_uri())


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    folder = tmp_path / "suites"
    folder.mkdir()
    for name in ("churn", "churn.customers"):
        (folder / f"{name}.json").write_text(json.dumps({"name": name, "expectations": []}))
    return folder


def test_rows_of_the_window_land_and_are_accepted(shop, storage, suites):
    batch = SPEC.batch_ref(DAY)
    orders, customers = land_queries(SPEC, storage, batch, shop)
    assert (orders.rows, customers.rows) == (96, 10)  # 24 hours of 4 orders; midnight is the next
    report = validation.validate_batch(SPEC, storage, batch, suites=suites)
    assert (report.status, report.rows_good, report.findings) == ("accepted", 96, ())
    good = storage.read_table(report.files["batch"]).to_pylist()
    assert [row["order_id"] for row in good] == list(range(96, 192))
    assert good[0] == {
        "order_id": 96,
        "customer_id": "c6",
        "ordered_at": dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
        "amount": 96.25,
        "items": 1,
        "gift": True,
        "again": True,
    }


def test_snapshot_is_kept_under_its_content_and_found_by_its_record(shop, storage):
    batch = SPEC.batch_ref(DAY)
    taken = land_queries(SPEC, storage, batch, shop)
    for found in taken:
        key = f"churn/snapshots/partition={DAY}/{found.input}.json"
        assert storage.read_record(key, QueryResult) == found
        assert found.sha256[:12] in found.key
    assert storage.read(taken[0].key) == storage.read(f"landing/churn/{DAY}/orders.parquet")


def test_equal_rows_are_an_equal_file_whatever_their_order(shop, storage):
    batch = SPEC.batch_ref(DAY)
    before = land_queries(SPEC, storage, batch, shop)
    with shop.begin() as connection:  # moves every row to another place in the table
        connection.execute(sa.text("update orders set items = items where order_id % 3 = 0"))
        connection.execute(sa.text("delete from orders where order_id < 96"))
    assert land_queries(SPEC, storage, batch, shop) == before


def test_rows_that_change_give_another_snapshot_and_the_first_stays(shop, storage, suites):
    batch = SPEC.batch_ref(DAY)
    before = land_queries(SPEC, storage, batch, shop)[0]
    content = storage.read(before.key)
    with shop.begin() as connection:
        connection.execute(sa.text("delete from orders where order_id = 100"))
    after = land_queries(SPEC, storage, batch, shop)[0]
    assert (before.rows, after.rows) == (96, 95)
    assert after.key != before.key
    assert storage.read(before.key) == content
    assert validation.validate_batch(SPEC, storage, batch, suites=suites).rows_in == 95


def test_all_queries_see_one_moment(shop, storage, monkeypatch):
    """Rows that come between two queries of a batch are in neither."""
    from include.retraining.data import query as queries

    spec = spec_of(customers="select order_id as customer_id from orders where ordered_at < :end")
    run = queries._run

    def interrupted(connection, name, query, batch):
        found = run(connection, name, query, batch)
        if name == "batch":
            with shop.begin() as other:
                other.execute(sa.text("delete from orders where order_id = 100"))
        return found

    monkeypatch.setattr(queries, "_run", interrupted)
    orders, others = land_queries(spec, storage, spec.batch_ref(DAY), shop)
    assert (orders.rows, others.rows) == (96, 192)


def test_window_without_rows_is_refused_and_not_a_traceback(shop, storage, suites):
    batch = SPEC.batch_ref("2021-01-02")
    assert land_queries(SPEC, storage, batch, shop)[0].rows == 0
    report = validation.validate_batch(SPEC, storage, batch, suites=suites)
    assert report.status == "refused"
    assert "rows_to_exist" in {f.expectation for f in report.findings}


def test_column_that_became_text_is_refused_with_the_difference(shop, storage, suites):
    with shop.begin() as connection:
        connection.execute(sa.text("alter table orders alter amount type text"))
    batch = SPEC.batch_ref(DAY)
    land_queries(SPEC, storage, batch, shop)
    report = validation.validate_batch(SPEC, storage, batch, suites=suites)
    assert report.status == "refused"
    assert "'amount' must be number, got string" in report.findings[0].detail


@pytest.mark.parametrize(
    ("query", "says"),
    [
        pytest.param("select * from nowhere where :start < :end", "nowhere", id="no-such-table"),
        pytest.param("selec order_id where :start < :end", "syntax error", id="no-sql"),
        pytest.param(
            "select int4range(1, 2) as note from orders "
            "where ordered_at >= :start and ordered_at < :end",
            "column 'note' gives Range, which no file can hold",
            id="type-without-a-column",
        ),
    ],
)
def test_query_that_is_wrong_is_a_data_error_and_lands_nothing(shop, storage, query, says):
    spec = spec_of(batch=query)
    with pytest.raises(DataError, match=says):
        land_queries(spec, storage, spec.batch_ref(DAY), shop)
    assert storage.list("") == []


def test_database_that_is_gone_is_worth_a_retry(storage):
    engine = sa.create_engine("postgresql+psycopg2://nobody@127.0.0.1:9/none")
    with pytest.raises(sa.exc.OperationalError):
        land_queries(SPEC, storage, SPEC.batch_ref(DAY), engine)


def test_a_session_in_another_zone_reads_the_same_window_and_writes_the_same_file(shop, storage):
    """Berlin's clock goes from +1 to +2 within; a plain `timestamp` is compared as UTC."""
    with shop.begin() as connection:
        connection.execute(sa.text("create table plain (n int, at timestamp, at_zone timestamptz)"))
        connection.execute(
            sa.text(
                "insert into plain select n, '2020-03-28'::timestamp + n * interval '1 hour',"
                " ('2020-03-28'::timestamp + n * interval '1 hour') at time zone 'UTC'"
                " from generate_series(0, 71) n"
            )
        )
    query = (
        "select n as order_id, 'c' as customer_id, at_zone as ordered_at, at as plain, 1.5 as"
        " amount, 1 as items, true as gift, true as again from plain"
        " where at >= :start and at < :end"
    )
    spec = spec_of(batch=query)
    batch = spec.batch_ref("2020-03-29")
    landed = set()
    for zone in ("UTC", "Europe/Berlin", "America/New_York"):
        with shop.begin() as connection:
            connection.execute(
                sa.text(f"alter database {shop.url.database} set timezone to '{zone}'")
            )
        shop.dispose()  # a new session gets it
        found = next(
            one for one in land_queries(spec, storage, batch, shop) if one.input == "batch"
        )
        landed.add(found.sha256)
        table = storage.read_table(found.key)
        assert table.column("order_id").to_pylist() == list(range(24, 48))
        assert {str(table.schema.field("ordered_at").type)} == {"timestamp[us, tz=UTC]"}
        assert table.column("ordered_at")[0].as_py() == batch.start
    assert len(landed) == 1
