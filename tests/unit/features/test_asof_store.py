"""What a row sees: the as-of offline store against a slow, plain definition, and inside Feast."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.data_format import DeltaFormat, ParquetFormat
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.on_demand_feature_view import on_demand_feature_view
from feast.repo_config import RepoConfig
from feast.types import Array, Float32, Float64, Int64, String
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from include.retraining.errors import DataError
from include.retraining.features.asof_store import AsofOfflineStore, AsofOfflineStoreConfig

T0 = pd.Timestamp("2013-01-07", tz="UTC")
HOUR = pd.Timedelta(hours=1)
pytestmark = pytest.mark.filterwarnings(
    "ignore:On demand feature view is an experimental feature:RuntimeWarning",
    "ignore:(Saving|Retrieving) dataset:RuntimeWarning",
)
STORE = "include.retraining.features.asof_store.AsofOfflineStore"


def config(root: Path, **offline_store: Any) -> RepoConfig:
    made = RepoConfig(
        project="tests",
        provider="local",
        registry=str(root / "registry.db"),
        online_store={"type": "sqlite", "path": str(root / "online.db")},
        offline_store={"type": STORE, **offline_store},
        entity_key_serialization_version=3,
    )
    made.repo_path = root
    return made


def view(
    path: Path | str,
    *,
    name: str = "weather",
    keys: Sequence[str] = ("origin",),
    features: dict[str, Any] | None = None,
    ttl: pd.Timedelta | None = None,
    created: str = "",
    field_mapping: dict[str, str] | None = None,
    endpoint: str = "",
) -> FeatureView:
    """A feature view as it comes out of the registry, with its entity columns known."""
    return FeatureView(
        name=name,
        entities=[Entity(name=k, join_keys=[k], value_type=ValueType.STRING) for k in keys],
        ttl=ttl.to_pytimedelta() if ttl is not None else None,
        source=FileSource(
            name=f"{name}_source",
            path=str(path),
            timestamp_field="event_timestamp",
            created_timestamp_column=created,
            field_mapping=field_mapping,
            s3_endpoint_override=endpoint,
        ),
        schema=[Field(name=k, dtype=String) for k in keys]
        + [Field(name=f, dtype=t) for f, t in (features or {"temp": Float64}).items()],
    )


class NoOnDemandViews:
    """A registry without on-demand feature views."""

    def list_on_demand_feature_views(self, project: str, **_: Any) -> list[Any]:
        return []


def job(
    root: Path, entity_df: Any, *views: FeatureView, offline_store: Any = None, **options: Any
) -> RetrievalJob:
    refs = [f"{v.projection.name_to_use()}:{f.name}" for v in views for f in v.features]
    return AsofOfflineStore.get_historical_features(
        config(root, **(offline_store or {})),
        list(views),
        refs,
        entity_df,
        NoOnDemandViews(),
        "tests",
        **options,
    )


def join(root: Path, entity_df: Any, *views: FeatureView, **options: Any) -> pd.DataFrame:
    joined: pd.DataFrame = job(root, entity_df, *views, **options).to_df()
    return joined


def weather(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Rows of (origin, hours after T0, temp)."""
    return pd.DataFrame(
        {
            "origin": [origin for origin, _, _ in rows],
            "event_timestamp": pd.Series([T0 + hours * HOUR for _, hours, _ in rows]).dt.as_unit(
                "us"
            ),
            "temp": pd.Series([temp for _, _, temp in rows], dtype="float64"),
        }
    )


def flights(*rows: tuple[Any, float]) -> pd.DataFrame:
    """Entity rows of (origin, hours after T0)."""
    return pd.DataFrame(
        {
            "origin": [origin for origin, _ in rows],
            "event_timestamp": [T0 + hours * HOUR for _, hours in rows],
        }
    )


def save(frame: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)
    return path


# --- what a row sees: a slow definition, and the store against it


def definition(
    entity_df: pd.DataFrame,
    feature_df: pd.DataFrame,
    *,
    keys: Sequence[str],
    ttl: pd.Timedelta | None,
    created: bool,
    filter_by_created: bool,
) -> list[float | None]:
    """The point-in-time join, row by row: the last visible by (event, created, position)."""
    values: list[float | None] = []
    for row in entity_df.to_dict("records"):
        now, best, best_order = row["event_timestamp"], None, None
        for position, feature in enumerate(feature_df.to_dict("records")):
            event = feature["event_timestamp"]
            known = feature["created"] if created else pd.NaT
            if any(row[key] is None or row[key] != feature[key] for key in keys):
                continue
            if pd.isna(now) or pd.isna(event) or event > now:
                continue
            if ttl and event < now - ttl:
                continue
            if created and filter_by_created and not known <= now:
                continue
            order = (
                event,
                pd.Timestamp.min.tz_localize("UTC") if pd.isna(known) else known,
                position,
            )
            if best_order is None or order >= best_order:
                best, best_order = feature["temp"], order
        values.append(best)
    return values


origins = st.sampled_from(["EWR", "JFK", None])
terminals = st.sampled_from(["A", "B"])
minutes = st.one_of(st.none(), st.integers(-6, 6))
moments = minutes.map(lambda m: pd.NaT if m is None else T0 + pd.Timedelta(minutes=m))
entity_rows = st.lists(st.tuples(origins, terminals, moments), min_size=0, max_size=12)
feature_rows = st.lists(st.tuples(origins, terminals, moments, moments), min_size=0, max_size=14)
ttls = st.sampled_from([None, pd.Timedelta(0), pd.Timedelta(minutes=1), pd.Timedelta(minutes=4)])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    entities=entity_rows,
    features=feature_rows,
    ttl=ttls,
    n_keys=st.sampled_from([0, 1, 2]),
    created=st.booleans(),
    filter_by_created=st.booleans(),
    unit=st.sampled_from(["ms", "us", "ns"]),
    zone=st.sampled_from(["UTC", "America/New_York", None]),
)
def test_every_row_sees_what_the_plain_definition_says(
    tmp_path: Path,
    entities: list[tuple[Any, ...]],
    features: list[tuple[Any, ...]],
    ttl: pd.Timedelta | None,
    n_keys: int,
    created: bool,
    filter_by_created: bool,
    unit: str,
    zone: str | None,
) -> None:
    keys = ["origin", "terminal"][:n_keys]
    entity_df = pd.DataFrame(entities, columns=["origin", "terminal", "event_timestamp"])
    entity_df["event_timestamp"] = pd.to_datetime(entity_df["event_timestamp"], utc=True)
    feature_df = pd.DataFrame(
        features, columns=["origin", "terminal", "event_timestamp", "created"]
    )
    feature_df["temp"] = np.arange(len(feature_df), dtype="float64")
    for column in ("event_timestamp", "created"):
        feature_df[column] = pd.to_datetime(feature_df[column], utc=True)
    expected = definition(
        entity_df,
        feature_df,
        keys=keys,
        ttl=ttl,
        created=created,
        filter_by_created=filter_by_created,
    )
    for column in ("event_timestamp", "created"):
        local = feature_df[column].dt.tz_convert(zone)  # None gives naive UTC
        feature_df[column] = local.dt.as_unit(unit)
    path = tmp_path / "weather.parquet"
    schema = pa.Schema.from_pandas(feature_df).set(0, pa.field("origin", pa.string()))
    schema = schema.set(1, pa.field("terminal", pa.string()))
    pq.write_table(pa.Table.from_pandas(feature_df, schema=schema), path)

    joined = join(
        tmp_path,
        entity_df,
        view(path, keys=keys, ttl=ttl, created="created" if created else ""),
        filter_by_created_timestamp=filter_by_created,
    )

    assert [None if pd.isna(v) else v for v in joined["temp"]] == expected
    pd.testing.assert_frame_equal(joined[list(entity_df)], entity_df)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        pytest.param(pd.Timedelta(hours=3), 1.0, id="exactly the ttl old"),
        pytest.param(pd.Timedelta(hours=3, microseconds=1), None, id="a microsecond older"),
        pytest.param(pd.Timedelta(0), 1.0, id="of the same moment"),
        pytest.param(pd.Timedelta(microseconds=-1), None, id="a microsecond in the future"),
    ],
)
def test_both_ends_of_the_ttl_are_included(
    tmp_path: Path, age: pd.Timedelta, expected: float | None
) -> None:
    path = save(weather(("JFK", 0, 1.0)), tmp_path / "w.parquet")
    entity_df = pd.DataFrame({"origin": ["JFK"], "event_timestamp": [T0 + age]})

    joined = join(tmp_path, entity_df, view(path, ttl=pd.Timedelta(hours=3)))

    assert joined["temp"].replace({np.nan: None}).tolist() == [expected]


def test_a_late_correction_of_an_old_event_hides_no_newer_event(tmp_path: Path) -> None:
    rows = weather(("JFK", 0, 1.0), ("JFK", 1, 2.0), ("JFK", 0, 1.5))
    rows["created"] = [T0, T0 + HOUR, T0 + 2 * HOUR]
    path = save(rows, tmp_path / "w.parquet")
    asked = flights(("JFK", 3))

    for filtered in (False, True):
        joined = join(
            tmp_path, asked, view(path, created="created"), filter_by_created_timestamp=filtered
        )
        assert joined["temp"].tolist() == [2.0]


def test_a_backfill_is_invisible_before_it_was_created_only_if_asked_for(tmp_path: Path) -> None:
    rows = weather(("JFK", 0, 1.0), ("JFK", 0, 1.5))
    rows["created"] = [T0, T0 + 9 * HOUR]
    path = save(rows, tmp_path / "w.parquet")
    asked, source = flights(("JFK", 1), ("JFK", 9)), view(path, created="created")

    assert join(tmp_path, asked, source)["temp"].tolist() == [1.5, 1.5]
    filtered = join(tmp_path, asked, source, filter_by_created_timestamp=True)
    assert filtered["temp"].tolist() == [1.0, 1.5]


def test_nanoseconds_count_as_their_microsecond(tmp_path: Path) -> None:
    rows = weather(("JFK", 0, 1.0))
    rows["event_timestamp"] = [T0 + pd.Timedelta(nanoseconds=500)]
    path = save(rows, tmp_path / "w.parquet")
    assert pq.read_schema(path).field("event_timestamp").type.unit == "ns"
    asked = pd.DataFrame(
        {"origin": ["JFK"], "event_timestamp": [T0 + pd.Timedelta(nanoseconds=400)]}
    )

    assert join(tmp_path, asked, view(path, ttl=HOUR))["temp"].tolist() == [1.0]


def test_naive_timestamps_are_utc_and_text_is_parsed(tmp_path: Path) -> None:
    path = save(weather(("JFK", 0, 1.0), ("JFK", 2, 2.0)), tmp_path / "w.parquet")
    naive = flights(("JFK", 1))
    naive["event_timestamp"] = naive["event_timestamp"].dt.tz_localize(None)
    text = naive.astype({"event_timestamp": str})

    assert join(tmp_path, naive, view(path))["temp"].tolist() == [1.0]
    joined = join(tmp_path, text, view(path))
    assert joined["temp"].tolist() == [1.0]
    assert joined["event_timestamp"].tolist() == [T0 + HOUR]


# --- the shape of the answer


def test_rows_that_share_key_and_time_all_come_back_in_order_with_their_types(
    tmp_path: Path,
) -> None:
    path = save(weather(("JFK", 0, 1.0), ("EWR", 0, 2.0)), tmp_path / "w.parquet")
    entity_df = flights(("JFK", 5), ("EWR", 1), ("JFK", 5), (None, 5), ("LGA", 0), ("JFK", 5))
    entity_df["label"] = pd.Series([1, 0, 1, 0, 1, 1], dtype="int8")
    entity_df["carrier"] = pd.Categorical(list("ABABAB"))
    entity_df["seen"] = entity_df["event_timestamp"].dt.tz_convert("America/New_York")
    entity_df.index = pd.Index([9, 9, 3, 2, 1, 0])

    joined = join(tmp_path, entity_df, view(path))

    pd.testing.assert_frame_equal(joined[list(entity_df)], entity_df.reset_index(drop=True))
    assert joined["temp"].replace({np.nan: None}).tolist() == [1.0, 2.0, 1.0, None, None, 1.0]


def test_no_entity_rows_give_no_rows_with_all_columns(tmp_path: Path) -> None:
    path = save(weather(("JFK", 0, 1.0)), tmp_path / "w.parquet")

    joined = join(tmp_path, flights(("JFK", 0)).iloc[:0], view(path))

    assert joined.shape == (0, 3)
    assert joined.dtypes.astype(str).to_dict()["temp"] == "float64"


@pytest.mark.parametrize("dtype", ["category", "string", "object"])
def test_join_keys_of_any_text_type_match(tmp_path: Path, dtype: str) -> None:
    path = save(weather(("JFK", 0, 1.0), ("EWR", 0, 2.0)), tmp_path / "w.parquet")
    entity_df = flights(("EWR", 0), (None, 0), ("JFK", 0)).astype({"origin": dtype})

    joined = join(tmp_path, entity_df, view(path))

    assert joined["temp"].replace({np.nan: None}).tolist() == [2.0, None, 1.0]
    assert joined["origin"].dtype == entity_df["origin"].dtype


def test_whole_numbers_match_the_floats_that_pandas_makes_of_them_next_to_a_null(
    tmp_path: Path,
) -> None:
    rows = weather((7, 0, 1.0), (8, 0, 2.0))
    assert rows["origin"].dtype == "int64"
    path = save(rows, tmp_path / "w.parquet")
    entity_df = flights((8, 0), (None, 0))
    assert entity_df["origin"].dtype == "float64"

    joined = join(tmp_path, entity_df, view(path))

    assert joined["temp"].replace({np.nan: None}).tolist() == [2.0, None]


def test_features_keep_the_types_they_have_in_the_files(tmp_path: Path) -> None:
    table = pa.table(
        {
            "origin": pa.array(["JFK"]).dictionary_encode(),
            "event_timestamp": pa.array([T0], pa.timestamp("us", "UTC")),
            "small": pa.array([1], pa.int16()),
            "vector": pa.array([[1.0, 2.0]], pa.list_(pa.float32())),
            "name": pa.array(["x"], pa.large_string()),
            "at": pa.array([T0], pa.timestamp("ns", "UTC")),
        }
    )
    path = tmp_path / "w.parquet"
    pq.write_table(table, path)
    features = {"small": Int64, "vector": Array(Float32), "name": String, "at": Int64}

    joined = job(
        tmp_path, flights(("JFK", 0), ("LGA", 0)), view(path, features=features)
    ).to_arrow()

    for name in features:
        assert joined[name].type == table[name].type
        assert joined[name].null_count == 1


def test_join_keys_and_columns_can_be_renamed(tmp_path: Path) -> None:
    rows = weather(("JFK", 0, 1.0), ("EWR", 0, 2.0)).rename(
        columns={"temp": "t", "origin": "airport", "event_timestamp": "observed"}
    )
    mapping = {"t": "temp", "airport": "origin", "observed": "event_timestamp"}
    path = save(rows, tmp_path / "w.parquet")
    base = view(path, field_mapping=mapping)
    origin = base.with_name("origin_weather").with_join_key_map({"origin": "from"})
    dest = base.with_name("dest_weather").with_join_key_map({"origin": "to"})
    asked = pd.DataFrame(
        {"from": ["JFK", "EWR"], "to": ["EWR", "JFK"], "event_timestamp": [T0, T0]}
    )

    joined = join(tmp_path, asked, origin, dest, full_feature_names=True)

    assert joined["origin_weather__temp"].tolist() == [1.0, 2.0]
    assert joined["dest_weather__temp"].tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("entity_df", "message"),
    [
        pytest.param("SELECT 1", "must be a pandas DataFrame, got str", id="SQL"),
        pytest.param(None, "must be a pandas DataFrame, got NoneType", id="a date range"),
        pytest.param(
            flights(("JFK", 0)).drop(columns="origin"),
            "no join key origin",
            id="a missing join key",
        ),
        pytest.param(
            flights(("JFK", 0)).assign(temp=1.0), "has a column 'temp' already", id="a taken name"
        ),
        pytest.param(
            flights(("JFK", 0)).assign(event_timestamp=0),
            "got a column of int64",
            id="no timestamps",
        ),
    ],
)
def test_an_unusable_entity_frame_is_refused_with_the_reason(
    tmp_path: Path, entity_df: Any, message: str
) -> None:
    path = save(weather(("JFK", 0, 1.0)), tmp_path / "w.parquet")

    with pytest.raises(DataError, match=message):
        join(tmp_path, entity_df, view(path))


# --- where features are read from


def partitions(root: Path) -> Path:
    for day, hours in (("2013-01-07", 0), ("2013-01-14", 1)):
        save(weather(("JFK", hours, float(hours))), root / f"partition={day}" / "part.parquet")
    (root / "partition=2013-01-14" / "part.json").write_text("{}")
    (root / "_temporary").mkdir()
    (root / "_temporary" / "half.parquet").write_text("not parquet")
    (root / "partition=2013-01-14" / ".part.parquet").write_text("not parquet")
    return root


@pytest.mark.parametrize(
    "form", ["{0}", "{0}/", "file://{0}", "{0}/*/part.parquet", "{0}/**/*.parquet"]
)
def test_a_directory_and_a_glob_mean_all_their_parquet_files(tmp_path: Path, form: str) -> None:
    path = form.format(partitions(tmp_path / "flights" / "weather"))

    joined = join(tmp_path, flights(("JFK", 0), ("JFK", 1)), view(path))

    assert joined["temp"].tolist() == [0.0, 1.0]
    assert "partition" not in joined


def test_a_relative_path_is_below_the_storage_url(tmp_path: Path) -> None:
    partitions(tmp_path / "storage" / "flights" / "weather")
    asked, source = flights(("JFK", 0)), view("flights/weather")

    for url in (tmp_path / "storage", (tmp_path / "storage").as_uri()):
        below = join(tmp_path, asked, source, offline_store={"storage_url": str(url)})
        assert below["temp"].tolist() == [0.0]
    assert join(tmp_path / "storage", asked, source)["temp"].tolist() == [0.0]


@pytest.mark.parametrize("form", ["missing", "empty", "missing/*.parquet"])
def test_a_source_without_files_gives_null_features_of_the_declared_types(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    source = view(tmp_path / form, features={"temp": Float64, "n": Int64, "v": Array(Float32)})

    joined = job(tmp_path, flights(("JFK", 0), ("JFK", 1)), source).to_arrow()

    assert joined.num_rows == 2
    assert [joined[n].type for n in ("temp", "n", "v")] == [
        pa.float64(),
        pa.int64(),
        pa.list_(pa.float32()),
    ]
    assert joined["temp"].null_count == 2
    assert "has no Parquet files yet" in caplog.text


def test_a_missing_file_or_column_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    asked = flights(("JFK", 0))
    with pytest.raises(DataError, match=r"no file .*gone.parquet"):
        join(tmp_path, asked, view(tmp_path / "gone.parquet"))
    path = save(weather(("JFK", 0, 1.0)), tmp_path / "w.parquet")
    with pytest.raises(DataError, match="no column dewp, they have origin, event_timestamp, temp"):
        join(tmp_path, asked, view(path, features={"dewp": Float64}))
    dates = weather(("JFK", 0, 1.0)).assign(event_timestamp=[T0.date()])
    path = save(dates, tmp_path / "dates.parquet")
    with pytest.raises(DataError, match="event_timestamp must be a timestamp, got date32"):
        join(tmp_path, asked, view(path))


def test_files_with_differing_columns_are_read_as_their_union(tmp_path: Path) -> None:
    save(weather(("JFK", 0, None)).astype({"temp": object}), tmp_path / "w" / "a.parquet")
    save(weather(("JFK", 1, 1.5)), tmp_path / "w" / "b.parquet")
    save(weather(("JFK", 2, None)).drop(columns="temp"), tmp_path / "w" / "c.parquet")
    save(weather(("JFK", 3, 2.0)).astype({"temp": "int32"}), tmp_path / "w" / "d.parquet")

    joined = join(tmp_path, flights(*(("JFK", hour) for hour in range(4))), view(tmp_path / "w"))

    assert joined["temp"].replace({np.nan: None}).tolist() == [None, 1.5, None, 2.0]


def test_only_parquet_file_sources_are_accepted(tmp_path: Path) -> None:
    source = view(tmp_path)
    source.batch_source.file_options.file_format = DeltaFormat()

    with pytest.raises(DataError, match="must be a FileSource of Parquet files"):
        join(tmp_path, flights(("JFK", 0)), source)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 server with an empty bucket named features."""
    for name, value in (
        ("ACCESS_KEY_ID", "k"),
        ("SECRET_ACCESS_KEY", "s"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="features")
    yield url
    # buckets outlive their server, and belong to the process: other tests have theirs in it too
    bucket = boto3.resource("s3", endpoint_url=url).Bucket("features")
    bucket.objects.delete()
    bucket.delete()
    server.stop()


@pytest.mark.parametrize("endpoint_from", ["source", "config", "environment"])
def test_s3_is_read_and_written_like_a_directory(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, endpoint_from: str
) -> None:
    if endpoint_from == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    source = view(
        "s3://features/flights/weather/" if endpoint_from == "source" else "flights/weather",
        endpoint=s3 if endpoint_from == "source" else "",
    )
    offline_store = {
        "storage_url": "s3://features/",
        "storage_endpoint": s3 if endpoint_from == "config" else "",
    }
    asked = flights(("JFK", 0), ("JFK", 1))
    assert join(tmp_path, asked, source, offline_store=offline_store)["temp"].isna().all()

    for hours in (0, 1):
        rows = pa.Table.from_pandas(weather(("JFK", hours, float(hours))))
        AsofOfflineStore.offline_write_batch(config(tmp_path, **offline_store), source, rows, None)

    assert join(tmp_path, asked, source, offline_store=offline_store)["temp"].tolist() == [0.0, 1.0]
    client = boto3.client("s3", endpoint_url=s3)
    assert client.list_objects_v2(Bucket="features")["KeyCount"] == 2


# --- what materialization and saved datasets pull


def pull(
    root: Path, path: Path | str, *, latest: bool, keys: Sequence[str] = ("origin",)
) -> pa.Table:
    kind = "pull_latest_from_table_or_query" if latest else "pull_all_from_table_or_query"
    made: pa.Table = getattr(AsofOfflineStore, kind)(
        config(root),
        view(path).batch_source,
        list(keys),
        ["temp"],
        "event_timestamp",
        None,
        T0.to_pydatetime(),
        (T0 + 2 * HOUR).to_pydatetime(),
    ).to_arrow()
    return made


def test_pulls_include_both_ends_and_give_one_chunk_in_path_order(tmp_path: Path) -> None:
    for number, hours in enumerate((-1, 2, 0, 1, 3)):
        save(weather(("JFK", hours, hours), (None, hours, 9)), tmp_path / "w" / f"{number}.parquet")

    everything = pull(tmp_path, tmp_path / "w", latest=False)
    latest = pull(tmp_path, tmp_path / "w", latest=True)

    assert everything["temp"].to_pylist() == [2.0, 9.0, 0.0, 9.0, 1.0, 9.0]
    assert everything["temp"].num_chunks == 1
    assert latest.to_pydict() == {
        "origin": ["JFK"],
        "temp": [2.0],
        "event_timestamp": [(T0 + 2 * HOUR).to_pydatetime()],
    }


def test_pulls_without_join_keys_carry_the_key_that_feast_expects(tmp_path: Path) -> None:
    path = save(weather(("JFK", 0, 1.0), ("EWR", 1, 2.0)), tmp_path / "w.parquet")

    latest = pull(tmp_path, path, latest=True, keys=())

    assert latest["temp"].to_pylist() == [2.0]
    assert latest["__dummy_id"].to_pylist() == [""]


@pytest.mark.parametrize("latest", [True, False])
@pytest.mark.parametrize("keys", [("origin",), ()])
def test_pulls_of_a_source_without_files_are_empty(
    tmp_path: Path, latest: bool, keys: tuple[str, ...]
) -> None:
    empty = pull(tmp_path, tmp_path / "missing", latest=latest, keys=keys)

    assert empty.num_rows == 0
    assert {*empty.column_names} == {"temp", "event_timestamp", *(keys or ["__dummy_id"])}


def test_pulls_take_naive_bounds_as_utc_and_without_features_give_all_columns(
    tmp_path: Path,
) -> None:
    path = save(weather(("JFK", 0, 1.0), ("JFK", 1, 2.0)).assign(dewp=3), tmp_path / "w.parquet")

    pulled = AsofOfflineStore.pull_all_from_table_or_query(
        config(tmp_path),
        FileSource(path=str(path)),
        ["origin"],
        [],
        "event_timestamp",
        start_date=(T0 + HOUR).to_pydatetime().replace(tzinfo=None),
    ).to_arrow()

    assert pulled.column_names == ["origin", "event_timestamp", "temp", "dewp"]
    assert pulled["temp"].to_pylist() == [2.0]


def test_a_retried_write_adds_its_rows_once_and_a_file_grows(tmp_path: Path) -> None:
    rows = pa.Table.from_pandas(weather(("JFK", 0, 1.0)), preserve_index=False)
    progress: list[int] = []
    for target in (tmp_path / "directory", tmp_path / "file.parquet"):
        for _ in range(2):
            AsofOfflineStore.offline_write_batch(
                config(tmp_path), view(target), rows, progress.append
            )

    assert len(list((tmp_path / "directory").iterdir())) == 1
    assert pq.read_table(tmp_path / "file.parquet").num_rows == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["directory", "file.parquet"]


def test_a_write_turns_mapped_names_back_into_those_of_the_files(tmp_path: Path) -> None:
    path = save(
        weather(("JFK", 0, 1.0)).rename(columns={"temp": "t"}), tmp_path / "w" / "a.parquet"
    )
    source = view(path.parent, field_mapping={"t": "temp"})
    rows = pa.Table.from_pandas(weather(("JFK", 1, 2.0)))  # Feast has mapped them by now

    AsofOfflineStore.offline_write_batch(config(tmp_path), source, rows, None)

    asked = flights(("JFK", 0), ("JFK", 1))
    assert join(tmp_path, asked, source)["temp"].tolist() == [1.0, 2.0]


def test_a_write_of_other_columns_or_to_a_glob_is_refused(tmp_path: Path) -> None:
    path = save(weather(("JFK", 0, 1.0)), tmp_path / "w.parquet")
    other = pa.table({"origin": ["JFK"], "dewp": [1.0]})

    with pytest.raises(DataError, match="write exactly these"):
        AsofOfflineStore.offline_write_batch(config(tmp_path), view(path), other, None)
    with pytest.raises(DataError, match="cannot write to a glob"):
        AsofOfflineStore.offline_write_batch(config(tmp_path), view(tmp_path / "*"), other, None)


# --- inside Feast


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """A store of two views of directories and an on-demand view, with nothing written yet."""
    origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
    carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)

    def source(name: str) -> FileSource:
        return FileSource(
            name=name,
            path=f"flights/features/{name}",
            file_format=ParquetFormat(),
            timestamp_field="event_timestamp",
        )

    weather_view = FeatureView(
        name="weather",
        entities=[origin],
        ttl=dt.timedelta(hours=3),
        source=source("weather"),
        schema=[Field(name="origin", dtype=String), Field(name="temp", dtype=Float64)],
    )
    delays_view = FeatureView(
        name="delays",
        entities=[carrier],
        ttl=dt.timedelta(0),
        source=source("delays"),
        schema=[Field(name="carrier", dtype=String), Field(name="rate", dtype=Float64)],
    )
    request = RequestSource(name="request", schema=[Field(name="distance", dtype=Float64)])

    @on_demand_feature_view(
        sources=[weather_view, request],
        schema=[Field(name="warm_miles", dtype=Float64)],
        mode="pandas",
    )
    def warm(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"warm_miles": inputs["temp"] * inputs["distance"]})

    made = FeatureStore(config=config(tmp_path))
    made.apply([origin, carrier, weather_view, delays_view, warm])
    return made


FEATURES = ["weather:temp", "delays:rate", "warm:warm_miles"]


def asked() -> pd.DataFrame:
    frame = flights(("JFK", 1.5), ("EWR", 0), ("JFK", 1.5), ("JFK", 9))
    return frame.assign(carrier=["UA", "AA", "UA", "UA"], distance=[10.0, 20.0, 10.0, 30.0])


def write_features(root: Path) -> None:
    base = root / "flights" / "features"
    for day, temps in (("2013-01-07", (1.0, 2.0)), ("2013-01-08", (3.0, 4.0))):
        hours = (pd.Timestamp(day, tz="UTC") - T0) / HOUR
        rows = weather(("JFK", hours, temps[0]), ("JFK", hours + 1, temps[1]), ("EWR", hours, 9.0))
        save(rows, base / "weather" / f"partition={day}" / "part.parquet")
    rates = pd.DataFrame(
        {"carrier": ["UA", "AA"], "event_timestamp": [T0, T0 - HOUR], "rate": [0.2, 0.1]}
    )
    save(rates, base / "delays" / "partition=2013-01-07" / "part.parquet")


def test_a_training_set_joins_two_views_and_an_on_demand_view(
    store: FeatureStore, tmp_path: Path
) -> None:
    write_features(tmp_path)

    joined = store.get_historical_features(entity_df=asked(), features=FEATURES).to_df()

    assert joined["distance"].tolist() == [10.0, 20.0, 10.0, 30.0]
    assert joined["temp"].replace({np.nan: None}).tolist() == [2.0, 9.0, 2.0, None]
    assert joined["rate"].tolist() == [0.2, 0.1, 0.2, 0.2]
    assert joined["warm_miles"].replace({np.nan: None}).tolist() == [20.0, 180.0, 20.0, None]


def test_before_the_first_partition_everything_is_null_and_nothing_fails(
    store: FeatureStore,
) -> None:
    joined = store.get_historical_features(entity_df=asked(), features=FEATURES).to_df()
    store.materialize(T0.to_pydatetime(), (T0 + 24 * HOUR).to_pydatetime())

    assert len(joined) == 4
    assert joined[["temp", "rate", "warm_miles"]].isna().all(axis=None)
    online = store.get_online_features(["weather:temp"], [{"origin": "JFK"}]).to_dict()
    assert online["temp"] == [None]


@pytest.mark.parametrize("pull_latest", [True, False])
def test_materialize_puts_the_newest_rows_of_the_interval_online(
    store: FeatureStore, tmp_path: Path, pull_latest: bool
) -> None:
    write_features(tmp_path)
    store.config.materialization_config.pull_latest_features = pull_latest

    for _ in range(2):  # again: the same values
        store.materialize(T0.to_pydatetime(), (T0 + 2 * HOUR).to_pydatetime())
        online = store.get_online_features(
            FEATURES,
            [{"origin": o, "carrier": "UA", "distance": 2.0} for o in ("JFK", "EWR", "LGA")],
        ).to_dict()
        assert online["temp"] == [2.0, 9.0, None]
        assert online["rate"] == [0.2, 0.2, 0.2]
        assert online["warm_miles"][0] == 4.0


def test_a_saved_dataset_can_be_read_back_and_replaced(store: FeatureStore, tmp_path: Path) -> None:
    write_features(tmp_path)
    training = store.get_historical_features(entity_df=asked(), features=FEATURES)
    for path in ("saved/training.parquet", "saved/directory"):
        storage = SavedDatasetFileStorage(path=path)
        store.create_saved_dataset(training, name="training", storage=storage)
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            store.create_saved_dataset(training, name="training", storage=storage)
        saved = store.create_saved_dataset(
            training, name="training", storage=storage, allow_overwrite=True
        )

        read = saved.to_df().sort_values(["event_timestamp", "origin"], kind="stable")

        assert read["temp"].replace({np.nan: None}).tolist() == [9.0, 2.0, 2.0, None]
        assert read["warm_miles"].replace({np.nan: None}).tolist() == [180.0, 20.0, 20.0, None]
    assert len(list((tmp_path / "saved" / "directory").iterdir())) == 1


def test_rows_written_through_feast_are_seen(store: FeatureStore, tmp_path: Path) -> None:
    write_features(tmp_path)

    store.write_to_offline_store("weather", weather(("LGA", 0, 7.0)))

    joined = store.get_historical_features(entity_df=flights(("LGA", 1)), features=["weather:temp"])
    assert joined.to_df()["temp"].tolist() == [7.0]


def test_columns_of_a_source_without_files_are_asked_for_in_vain(store: FeatureStore) -> None:
    with pytest.raises(DataError, match="has no files to take columns from"):
        store.write_to_offline_store("weather", weather(("LGA", 0, 7.0)))


def test_feast_finds_the_store_and_rejects_unknown_settings(tmp_path: Path) -> None:
    assert isinstance(config(tmp_path).offline_store, AsofOfflineStoreConfig)
    with pytest.raises(ValueError, match="threads"):
        config(tmp_path, threads=2)
