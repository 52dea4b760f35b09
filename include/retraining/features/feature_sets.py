"""Makes a `FeatureSet`: publishes a batch, its feature tables and the join of both, through Feast.

A published partition is one small file, ``published.json``, written last. Which rows and which
feature tables are in force follows from these files alone, so that a reader sees a whole partition
or none.
"""

from __future__ import annotations

import datetime as dt
import importlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from string import Template
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import yaml

from include.retraining.errors import BatchRefused, DataError, NotPublished, SpecError
from include.retraining.names import storage_key
from include.retraining.records import BatchRef, FeatureSet, ValidationReport
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, json_bytes, sha256

if TYPE_CHECKING:
    from feast import FeatureStore

FEATURE_REPO = REPOSITORY / "feature_repo"
APPLY_SECONDS = 60.0
READERS = 16  # threads; on S3 every record is a round trip

log = logging.getLogger(__name__)
_reports: dict[tuple[str, str], tuple[str, ValidationReport]] = {}


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
    before = published(spec, storage, batch.partition)
    if (
        before is not None
        and before.identity == report.identity
        and feature_set_or_none(spec, storage, batch) is not None
        and not _stale(spec, storage, batch)
    ):
        return False
    # the tables of a batch look back into the one before it: both neighbours' are made first, so
    # that one write puts all of them in force
    others = [
        one for one in in_force(storage, spec.model) if one.batch.partition != batch.partition
    ]
    _make_tables(spec, storage, [*others, report])
    storage.write_json(_published_key(spec, batch.partition), report)
    return True


def in_force(storage: Storage, model: str) -> list[ValidationReport]:
    """Give the reports of all published batches, oldest first."""
    versions = storage.list_versions(storage_key(model, "validated"))
    keys = [key for key in versions if key.endswith("/published.json")]

    def read(key: str) -> ValidationReport:
        known = _reports.get((storage.url, key))  # a run asks for all of them several times
        if known is None or known[0] != versions[key]:
            known = versions[key], ValidationReport.model_validate_json(storage.read(key))
            _reports[storage.url, key] = known
        return known[1]

    with ThreadPoolExecutor(READERS) as threads:
        return sorted(threads.map(read, keys), key=lambda report: report.batch.start)


def files_in_force(storage_url: str, folder: str) -> list[str]:
    """Give the feature files that are in force below ``<model>/features/<table>``.

    Which these are follows from the published reports alone, so that publishing a batch switches
    its tables, and those of the batch after it, with one write.

    Raises
    ------
    FileNotFoundError
        Two neighbours are being published at this moment; worth a retry.
    """
    storage = Storage(storage_url)
    model, _, table = folder.strip("/").split("/")
    features = storage_key(model, "features")
    there = set(storage.list(features))
    found = []
    for key in _tables_keys(in_force(storage, model)):
        if f"{features}/made/{key}.json" not in there:
            raise FileNotFoundError(f"{features}/made/{key}.json: being made; try again")
        if f"{features}/{table}/{key}.parquet" in there:
            found.append(f"{key}.parquet")
    return found


def _tables_keys(reports: list[ValidationReport]) -> dict[str, list[ValidationReport]]:
    """Give, for each batch, where its tables are and what they are made of: it, and its forerunner.

    The tables of a batch are a function of these two, and so is their name.
    """
    by_end = {report.batch.end: report for report in reports}
    found = {}
    for report in reports:
        made_of = [report, *filter(None, [by_end.get(report.batch.start)])]
        name = sha256(*(one.identity.encode() for one in made_of))[:12]
        found[f"partition={report.batch.partition}/{name}"] = made_of
    return found


def _make_tables(spec: ModelSpec, storage: Storage, reports: list[ValidationReport]) -> None:
    """Make the feature tables that these batches need and that are not there yet."""
    features = storage_key(spec.model, "features")
    there = set(storage.list(f"{features}/made"))
    build = load_function(spec.features.tables)
    for key, (report, *previous) in _tables_keys(reports).items():
        if f"{features}/made/{key}.json" in there:
            continue
        inputs = {name: storage.read_table(file).to_pandas() for name, file in report.files.items()}
        earlier = {
            name: storage.read_table(previous[0].files[name]).to_pandas()
            if previous
            else frame.iloc[:0]
            for name, frame in inputs.items()
        }
        tables = build(inputs, earlier, report.batch)
        for name, frame in tables.items():
            table = pa.Table.from_pandas(frame, preserve_index=False)
            storage.write_table(f"{features}/{name}/{key}.parquet", table)
        storage.write_json(f"{features}/made/{key}.json", {"tables": sorted(tables)})


def materialize(spec: ModelSpec, settings: Settings, batch: BatchRef) -> FeatureSet:
    """Load a published batch's features into the online store; keep their join with its rows.

    Safe to run twice: values are overwritten with the same values. If other batches come in force
    meanwhile whose feature rows this one sees, it is joined again.
    """
    storage = Storage.of(settings)
    require_published(spec, storage, batch.partition)
    apply_definitions(spec, settings)
    reports = in_force(storage, spec.model)
    _make_tables(spec, storage, reports)
    store = feature_store(settings)
    # an older batch that is delivered again must not set the online values back, so what came after
    # it is written once more
    newest = max(report.batch.end for report in reports)
    _write_online(store, _stored_views(spec), batch.start, newest)
    while True:
        found = _join_batch(spec, settings, batch)
        if not _is_stale(spec, found, in_force(storage, spec.model)):
            return found


def refresh_later(spec: ModelSpec, settings: Settings, batch: BatchRef) -> list[FeatureSet]:
    """Join those later batches again whose rows see features that this batch has changed.

    A batch may come late, or be corrected, after later ones have been joined.
    """
    storage = Storage.of(settings)
    later = [one for one in _stale(spec, storage, batch) if one.start > batch.start]
    return [materialize(spec, settings, one) for one in later]


def _join_batch(spec: ModelSpec, settings: Settings, batch: BatchRef) -> FeatureSet:
    storage = Storage.of(settings)
    reports = in_force(storage, spec.model)
    report = require_published(spec, storage, batch.partition)
    lives = [view.ttl for view in _stored_views(spec)]
    forever = any(not ttl for ttl in lives)
    seen_from = None if forever else batch.start - max(lives, default=dt.timedelta(0))
    sha = _feature_set_sha(spec, batch, reports, seen_from)
    joined = join(spec, settings, storage.read_table(report.files["batch"]))
    key = f"{storage_key(spec.model, 'joined', batch.partition)}/features-{sha[:12]}.parquet"
    storage.write_table(key, joined)
    found = FeatureSet(
        batch=batch,
        service=spec.features.service,
        rows=joined.num_rows,
        key=key,
        seen_from=seen_from,
        sha256=sha,
    )
    storage.write_json(_feature_set_key(spec, batch), found)
    return found


def _feature_set_sha(
    spec: ModelSpec,
    batch: BatchRef,
    reports: list[ValidationReport],
    seen_from: dt.datetime | None,
) -> str:
    """Give one digest of a batch's rows and of all feature tables that they can see."""
    seen = [
        key
        for key, (report, *_) in _tables_keys(reports).items()
        if report.batch.start <= batch.start
        and (seen_from is None or report.batch.end >= seen_from)
    ]
    return sha256(*(part.encode() for part in (spec.features.service, batch.partition, *seen)))


def _is_stale(spec: ModelSpec, found: FeatureSet, reports: list[ValidationReport]) -> bool:
    """Have other rows or feature tables come in force since these were joined?"""
    return found.sha256 != _feature_set_sha(spec, found.batch, reports, found.seen_from)


def _stale(spec: ModelSpec, storage: Storage, since: BatchRef) -> list[BatchRef]:
    """Give the batches from one on whose feature sets are not those of the data in force."""
    reports = in_force(storage, spec.model)
    sets = (
        feature_set_or_none(spec, storage, report.batch)
        for report in reports
        if report.batch.start >= since.start
    )
    return [one.batch for one in sets if one is not None and _is_stale(spec, one, reports)]


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
    _make_tables(spec, Storage.of(settings), in_force(Storage.of(settings), spec.model))
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
    found = feature_set_or_none(spec, storage, batch)
    if found is None:
        raise NotPublished(
            f"{spec.model} {batch.partition}: no features; run {spec.model}__ingest for it"
        )
    return found


def feature_set_or_none(spec: ModelSpec, storage: Storage, batch: BatchRef) -> FeatureSet | None:
    """Give the feature set of a partition, or None while it has none."""
    return storage.read_record(_feature_set_key(spec, batch), FeatureSet)


def published_partitions(spec: ModelSpec, storage: Storage) -> list[BatchRef]:
    """Give the partitions in force that the model file still has, oldest first.

    Batches from before a `partitions.first` that moved later are left out.
    """
    keys = storage.list(storage_key(spec.model, "validated"))
    names = {
        key.split("partition=")[1].split("/")[0] for key in keys if key.endswith("/published.json")
    }
    found = []
    for name in sorted(names):
        try:
            found.append(spec.batch_ref(name))
        except SpecError as error:
            log.info("left out: %s", error)
    return found


def apply_definitions(spec: ModelSpec, settings: Settings) -> None:
    """Register the feature definitions of a model, once for each version of them.

    Nothing else writes to the registry. Tasks that find another version there wait for the one that
    is about to register theirs, and take over if it does not finish.
    """
    storage, store = Storage.of(settings), feature_store(settings)
    folder = storage_key(spec.model, "features")
    wanted = {
        "registry": sha256(settings.feast_registry.encode())[:12],
        "version": sha256(*(path.read_bytes() for path in sorted(FEATURE_REPO.glob("*.py")))),
    }
    until = time.monotonic() + APPLY_SECONDS
    while not _is_applied(spec, store, storage, f"{folder}/.applied.json", wanted):
        if (
            storage.create(f"{folder}/.applying.json", json_bytes(wanted))
            or time.monotonic() > until
        ):
            store.apply(_feast_objects(_definitions(spec)))
            storage.write_json(f"{folder}/.applied.json", wanted)
            storage.delete(f"{folder}/.applying.json")
            return
        time.sleep(0.2)


def _is_applied(
    spec: ModelSpec, store: FeatureStore, storage: Storage, marker: str, wanted: dict[str, str]
) -> bool:
    """Is this version the last one applied, and still in the registry?"""
    if not storage.exists(marker) or storage.read_json(marker) != wanted:
        return False
    return any(service.name == spec.features.service for service in store.list_feature_services())


def _write_online(
    store: FeatureStore, views: list[Any], start: dt.datetime, end: dt.datetime
) -> None:
    """Do what `FeatureStore.materialize` does, but for its notes in the registry.

    It writes the whole view back to say what it did: batches materialized at once would lose each
    other's notes, and one of an old version would undo the definitions of a new one.
    """
    from tqdm import tqdm

    provider = store._get_provider()  # noqa: SLF001 - Feast has no public name for it
    for view in views:
        provider.materialize_single_feature_view(
            config=store.config,
            feature_view=store.get_feature_view(view.name),
            start_date=start,
            end_date=end,
            registry=store.registry,
            project=store.project,
            tqdm_builder=lambda length: tqdm(total=length, disable=True),
        )


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


def service_of(spec: ModelSpec) -> Any:
    """Give the feature service of a model as it is defined; raises SpecError."""
    service = getattr(_definitions(spec), spec.features.service, None)
    if service is None:
        raise SpecError(
            f"features.service: feature_repo/{spec.model}_views.py defines no "
            f"{spec.features.service!r}"
        )
    return service


def is_service(spec: ModelSpec, name: str) -> bool:
    """Is a feature service of that name still defined?"""
    return hasattr(_definitions(spec), name)


def _stored_views(spec: ModelSpec) -> list[Any]:
    """Give the views of the model's service that have rows; those computed on request have none."""
    from feast import FeatureView

    values = vars(_definitions(spec)).values()
    stored = {value.name: value for value in values if isinstance(value, FeatureView)}
    names = [view.name for view in service_of(spec).feature_view_projections]
    return [stored[name] for name in names if name in stored]


class Sources(NamedTuple):
    """Where the features of a model come from: `ttl` is that of each view with rows."""

    join_keys: list[str]
    request_columns: list[str]
    ttl: dict[str, dt.timedelta | None]


def sources_of(spec: ModelSpec) -> Sources:
    """Give the keys and request columns that a model's features need, and how long they live."""
    from feast.on_demand_feature_view import OnDemandFeatureView

    views = _stored_views(spec)
    used = {view.name for view in service_of(spec).feature_view_projections}
    requests = [
        request
        for value in vars(_definitions(spec)).values()
        if isinstance(value, OnDemandFeatureView) and value.name in used
        for request in value.source_request_sources.values()
    ]
    return Sources(
        join_keys=sorted({field.name for view in views for field in view.entity_columns}),
        request_columns=sorted({field.name for one in requests for field in one.schema}),
        ttl={view.name: view.ttl or None for view in views},
    )


def _feast_objects(module: ModuleType) -> list[Any]:
    from feast import Entity, FeatureService, FeatureView
    from feast.on_demand_feature_view import OnDemandFeatureView

    kinds = (Entity, FeatureView, FeatureService, OnDemandFeatureView)
    return [value for value in vars(module).values() if isinstance(value, kinds)]


def _published_key(spec: ModelSpec, partition: str) -> str:
    return f"{storage_key(spec.model, 'validated', partition)}/published.json"


def _feature_set_key(spec: ModelSpec, batch: BatchRef) -> str:
    return f"{storage_key(spec.model, 'reports', batch.partition)}/features.json"
