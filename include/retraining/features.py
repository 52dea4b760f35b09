"""Makes a `FeatureSet`: publishes a batch, its feature tables and the join of both, through Feast.

A published partition is one small file, ``published.json``, that names everything else; it is
written last, so that a reader sees a whole partition or none.
"""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Iterable
from functools import lru_cache
from string import Template
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml

from include.retraining.errors import BatchRefused, DataError, NotPublished, SpecError
from include.retraining.names import storage_key
from include.retraining.records import BatchRef, FeatureSet, ValidationReport
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, sha256

if TYPE_CHECKING:
    from feast import FeatureStore

FEATURE_REPO = REPOSITORY / "feature_repo"


def publish_batch(spec: ModelSpec, storage: Storage, report: ValidationReport) -> bool:
    """Put an accepted batch in force, and the feature rows it adds.

    Returns
    -------
    bool
        False if this very content is in force already with its features: there is nothing left to
        do.

    Raises
    ------
    BatchRefused
        The report refuses the batch. Nothing is published, the last good data stays in force.
    """
    batch = report.batch
    if report.status == "refused":
        causes = "; ".join(
            f"{f.expectation}: {f.detail}" for f in report.findings if f.severity == "critical"
        )
        raise BatchRefused(
            f"{spec.model} {batch.partition} refused: {causes}. Nothing was published and the last "
            f"good data stays in force; all {report.rows_in} rows are kept in "
            f"{report.quarantine_key}. Deliver a corrected file, then clear the run."
        )
    in_force = published(spec, storage, batch.partition)
    if in_force and _same_content(in_force, report):
        done = storage.read_record(_feature_set_key(spec, batch), FeatureSet)
        if done is not None and done.sha256 == _feature_set_sha(spec, report):
            return False
    before = spec.partition_key(batch.start - spec.partitions.length)
    _write_tables(spec, storage, report, published(spec, storage, before))
    storage.write_json(_published_key(spec, batch.partition), report)
    # the tables of a batch look back into the one before it, which may come late or be corrected
    following = published(spec, storage, spec.partition_key(batch.end))
    if following is not None:
        _write_tables(spec, storage, following, report)
    return True


def _write_tables(
    spec: ModelSpec, storage: Storage, report: ValidationReport, previous: ValidationReport | None
) -> None:
    inputs = {name: storage.read_table(key).to_pandas() for name, key in report.files.items()}
    previous_inputs = {
        name: storage.read_table(previous.files[name]).to_pandas() if previous else frame.iloc[:0]
        for name, frame in inputs.items()
    }
    build = load_function(spec.features.tables)
    for name, frame in build(inputs, previous_inputs, report.batch).items():
        table = pa.Table.from_pandas(frame, preserve_index=False)
        folder = f"{storage_key(spec.model, 'features')}/{name}"
        storage.write_table(f"{folder}/partition={report.batch.partition}/part.parquet", table)


def materialize(spec: ModelSpec, settings: Settings, batch: BatchRef) -> FeatureSet:
    """Load a published batch's features into the online store; keep their join with its rows.

    Safe to run twice: values are overwritten with the same values.
    """
    storage = Storage.of(settings)
    report = require_published(spec, storage, batch.partition)
    apply_definitions(spec, settings)
    store = feature_store(settings)
    views = _stored_views(spec)
    # feature rows may be known up to a label's maturity after their batch's end; and an older batch
    # that is delivered again must not set the online values back, so what came after it is written
    # once more
    newest = max(batch.end, *(other.end for other in published_partitions(spec, storage)))
    until = newest + dt.timedelta(days=spec.label.maturity_days)
    store.materialize(batch.start, until, feature_views=views)
    rows = storage.read_table(report.files["batch"])
    joined = join(spec, settings, rows)
    sha = _feature_set_sha(spec, report)
    key = f"{storage_key(spec.model, 'joined', batch.partition)}/features-{sha[:12]}.parquet"
    storage.write_table(key, joined)
    feature_set = FeatureSet(
        batch=batch, service=spec.features.service, rows=joined.num_rows, key=key, sha256=sha
    )
    storage.write_json(_feature_set_key(spec, batch), feature_set)
    return feature_set


def join(spec: ModelSpec, settings: Settings, rows: pa.Table) -> pa.Table:
    """Join rows with their features as of each row's own event time, one for one and in order.

    Raises
    ------
    DataError
        Feast gave back other rows than it was asked for, or a feature of the model file is missing.
    """
    frame = rows.to_pandas()
    frame["event_timestamp"] = frame[spec.source.event_time]
    frame["_row"] = range(len(frame))
    store = feature_store(settings)
    service = store.get_feature_service(spec.features.service)
    joined = store.get_historical_features(entity_df=frame, features=service).to_df()
    joined = joined.sort_values("_row", ignore_index=True)
    if joined["_row"].tolist() != frame["_row"].tolist():
        raise DataError(
            f"the point-in-time join gave {len(joined)} rows for {len(frame)}; none may be lost or "
            "doubled"
        )
    missing = [name for name in spec.features.names if name not in joined.columns]
    if missing:
        raise DataError(
            f"feature service {spec.features.service!r} gives no {', '.join(missing)}; "
            "add it to the service in feature_repo/, or remove it from the model file"
        )
    return pa.Table.from_pandas(
        joined.drop(columns=["_row", "event_timestamp"]), preserve_index=False
    )


def published(spec: ModelSpec, storage: Storage, partition: str) -> ValidationReport | None:
    """Give the report of the data in force for a partition, or None."""
    return storage.read_record(_published_key(spec, partition), ValidationReport)


def require_published(spec: ModelSpec, storage: Storage, partition: str) -> ValidationReport:
    """Give the report of the data in force for a partition; raises NotPublished."""
    report = published(spec, storage, partition)
    if report is None:
        raise NotPublished(
            f"{spec.model} {partition}: no data is in force; run {spec.model}__ingest for it"
        )
    return report


def feature_set(spec: ModelSpec, storage: Storage, batch: BatchRef) -> FeatureSet:
    """Give the feature set of a partition; raises NotPublished."""
    found = storage.read_record(_feature_set_key(spec, batch), FeatureSet)
    if found is None:
        raise NotPublished(
            f"{spec.model} {batch.partition}: no features; run {spec.model}__ingest for it"
        )
    return found


def published_partitions(spec: ModelSpec, storage: Storage) -> list[BatchRef]:
    """Give all partitions in force, oldest first."""
    keys = storage.list(storage_key(spec.model, "validated"))
    names = (
        key.split("partition=")[1].split("/")[0] for key in keys if key.endswith("/published.json")
    )
    return [spec.batch_ref(name) for name in sorted(set(names))]


def apply_definitions(spec: ModelSpec, settings: Settings) -> None:
    """Register the feature definitions of a model, once for each version of them."""
    storage = Storage.of(settings)
    module = _definitions(spec)
    version = sha256(*(path.read_bytes() for path in sorted(FEATURE_REPO.glob("*.py"))))
    marker = f"{storage_key(spec.model, 'features')}/.applied-{version[:12]}.json"
    registry = sha256(settings.feast_registry.encode())[:12]
    store = feature_store(settings)
    if (
        storage.exists(marker)
        and storage.read_json(marker).get("registry") == registry
        and any(service.name == spec.features.service for service in store.list_feature_services())
    ):
        return
    store.apply(_feast_objects(module))
    storage.write_json(marker, {"registry": registry, "version": version})


def feature_store(settings: Settings) -> FeatureStore:
    """Open the feature store that ``feature_repo/feature_store.yaml`` describes."""
    return _open_store(settings.feast_registry, settings.feast_online_store, settings.storage_url)


@lru_cache(maxsize=4)
def _open_store(registry: str, online_store: str, storage_url: str) -> FeatureStore:
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    text = Template((FEATURE_REPO / "feature_store.yaml").read_text()).safe_substitute(
        RETRAINING_FEAST_REGISTRY=registry,
        RETRAINING_FEAST_ONLINE_STORE=online_store,
        RETRAINING_STORAGE_URL=storage_url,
    )
    config = RepoConfig(**yaml.safe_load(text))
    config.repo_path = FEATURE_REPO
    return FeatureStore(config=config)


def load_function(path: str) -> Any:
    """Give the function named by ``module:function``; raises SpecError."""
    module_name, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"{path!r} must be module:function of this repository: {error}") from error


def _definitions(spec: ModelSpec) -> ModuleType:
    return importlib.import_module(f"feature_repo.{spec.model}_views")


def _service(spec: ModelSpec) -> Any:
    service = getattr(_definitions(spec), spec.features.service, None)
    if service is None:
        raise SpecError(
            f"features.service: feature_repo/{spec.model}_views.py defines no "
            f"{spec.features.service!r}"
        )
    return service


def _stored_views(spec: ModelSpec) -> list[str]:
    """Give the views of the model's service that have rows; those computed on request have none."""
    from feast import FeatureView

    stored = {
        value.name for value in vars(_definitions(spec)).values() if isinstance(value, FeatureView)
    }
    return [view.name for view in _service(spec).feature_view_projections if view.name in stored]


def _feast_objects(module: ModuleType) -> list[Any]:
    from feast import Entity, FeatureService, FeatureView
    from feast.on_demand_feature_view import OnDemandFeatureView

    kinds = (Entity, FeatureView, FeatureService, OnDemandFeatureView)
    return [value for value in vars(module).values() if isinstance(value, kinds)]


def _published_key(spec: ModelSpec, partition: str) -> str:
    return f"{storage_key(spec.model, 'validated', partition)}/published.json"


def _feature_set_key(spec: ModelSpec, batch: BatchRef) -> str:
    return f"{storage_key(spec.model, 'reports', batch.partition)}/features.json"


def _feature_set_sha(spec: ModelSpec, report: ValidationReport) -> str:
    parts: Iterable[str] = (report.content_sha256, report.suite_sha256, spec.features.service)
    return sha256(*(part.encode() for part in parts))


def _same_content(one: ValidationReport, other: ValidationReport) -> bool:
    return (one.content_sha256, one.suite_sha256) == (other.content_sha256, other.suite_sha256)
