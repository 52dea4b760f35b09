"""What Feast knows of a model's features: its views and service, registered once per version."""

from __future__ import annotations

import datetime as dt
import difflib
import inspect
import time
from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from string import Template
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import yaml

from include.retraining import named_object, shelf
from include.retraining.errors import SpecError, did_you_mean
from include.retraining.names import OWN
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage, json_bytes, sha256

if TYPE_CHECKING:
    from feast import FeatureStore

FEATURE_REPO = REPOSITORY / "feature_repo"
APPLY_SECONDS = 60.0
_USABLE = {"numeric": "numbers and booleans", "categorical": "text, numbers and booleans"}


def apply_definitions(spec: ModelSpec, settings: Settings) -> None:
    """Register the feature definitions of a model, once for each version of them.

    Nothing else writes to the registry. Tasks that find another version there wait for the one that
    is about to register theirs, and take over if it does not finish. Inline features have none.
    """
    if spec.features.is_inline:
        return
    storage, store = Storage.of(settings), feature_store(settings)
    marker, lock = shelf.definitions_key(spec.model), shelf.definitions_lock_key(spec.model)
    wanted = {
        "registry": sha256(settings.feast_registry.encode())[:12],
        "version": sha256(*(path.read_bytes() for path in sorted(FEATURE_REPO.glob("*.py")))),
    }
    until = time.monotonic() + APPLY_SECONDS
    while not _is_applied(spec, store, storage, marker, wanted):
        if storage.create(lock, json_bytes(wanted)) or time.monotonic() > until:
            store.apply(_feast_objects(definitions_of(spec)))
            storage.write_json(marker, wanted)
            storage.delete(lock)
            return
        time.sleep(0.2)


def _is_applied(
    spec: ModelSpec, store: FeatureStore, storage: Storage, marker: str, wanted: dict[str, str]
) -> bool:
    """Is this version the last one applied, and still in the registry?"""
    try:
        if storage.read_json(marker) != wanted:
            return False
    except FileNotFoundError:
        return False
    return any(service.name == spec.features.service for service in store.list_feature_services())


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


def load_function(path: str | None) -> Any:
    """Give the function named by ``module:function``; raises SpecError."""
    assert path is not None, "asked for where features are inline"
    found = named_object.load(path, setting="features.tables")
    if not callable(found):
        raise SpecError(
            f"features.tables: {path!r} must be a function, got {type(found).__name__}",
            place=("features", "tables"),
        )
    return found


def definitions_of(spec: ModelSpec) -> ModuleType:
    """Give the module of ``feature_repo/`` that defines a model's features; raises SpecError."""
    found: ModuleType = named_object.load_module(
        f"feature_repo.{spec.model}_views", setting="features.service"
    )
    return found


def service_of(spec: ModelSpec) -> Any:
    """Give the feature service of a model as it is defined; raises SpecError."""
    from feast import FeatureService

    defined = vars(definitions_of(spec))
    service = defined.get(spec.features.service or "")
    if not isinstance(service, FeatureService):
        known = [name for name, one in defined.items() if isinstance(one, FeatureService)]
        raise SpecError(
            f"features.service: feature_repo/{spec.model}_views.py defines no feature service "
            f"{spec.features.service!r}{did_you_mean(spec.features.service or '', known)}; it "
            "defines "
            f"{', '.join(known) or 'none'}",
            place=("features", "service"),
        )
    return service


def stored_views(spec: ModelSpec) -> list[Any]:
    """Give the defined views that have rows; those computed on request have none.

    Whether the service gives them or not: a champion may need what the model file no longer names.
    """
    if spec.features.is_inline:
        return []
    from feast import FeatureView

    return [view for view in views_of(spec).values() if isinstance(view, FeatureView)]


def views_of(spec: ModelSpec) -> dict[str, Any]:
    """Give every view that is defined for a model, by its name; raises SpecError."""
    from feast import FeatureView
    from feast.on_demand_feature_view import OnDemandFeatureView

    kinds = (FeatureView, OnDemandFeatureView)
    values = vars(definitions_of(spec)).values()
    return {value.name: value for value in values if isinstance(value, kinds)}


def origins_of(spec: ModelSpec) -> dict[str, str]:
    """Give the view of each feature that the model's service gives; none where it has none."""
    if spec.features.is_inline:
        return {}
    return {
        field.name: view.name
        for view in service_of(spec).feature_view_projections
        for field in view.features
    }


class Sources(NamedTuple):
    """Where features come from: `ttl` is that of each view with rows."""

    join_keys: list[str]
    request_columns: list[str]
    ttl: dict[str, dt.timedelta | None]


def sources_of(spec: ModelSpec, views: Collection[str] | None = None) -> Sources:
    """Give the keys and request columns that features need, and how long they live.

    Parameters
    ----------
    views : collection of str, optional
        Names of defined views; without, those of the model's service.
    """
    from feast.on_demand_feature_view import OnDemandFeatureView

    if views is None:
        views = {view.name for view in service_of(spec).feature_view_projections}
    defined = views_of(spec)
    on_request = [
        defined[name]
        for name in views
        if name in defined and isinstance(defined[name], OnDemandFeatureView)
    ]
    requests = [one for view in on_request for one in view.source_request_sources.values()]
    # a view on request may itself be computed from one with rows
    used = {*views, *(name for view in on_request for name in _read_by(view))}
    stored = [view for view in stored_views(spec) if view.name in used]
    return Sources(
        join_keys=sorted({field.name for view in stored for field in view.entity_columns}),
        request_columns=sorted({field.name for one in requests for field in one.schema}),
        ttl={view.name: view.ttl or None for view in stored},
    )


def _read_by(view: Any) -> list[str]:
    return [one.name for one in view.source_feature_view_projections.values()]


def _feast_objects(module: ModuleType) -> list[Any]:
    from feast import Entity, FeatureService, FeatureView
    from feast.on_demand_feature_view import OnDemandFeatureView

    kinds = (Entity, FeatureView, FeatureService, OnDemandFeatureView)
    return [value for value in vars(module).values() if isinstance(value, kinds)]


def table_names(spec: ModelSpec) -> list[str]:
    """Give the feature tables that the model's views read."""
    return sorted({_table_of(view) for view in stored_views(spec)})


def feature_types(spec: ModelSpec, table: str) -> dict[str, pa.DataType]:
    """Give the declared types of a feature table's columns: features and join keys."""
    from feast.types import from_feast_to_pyarrow_type

    views = [view for view in stored_views(spec) if _table_of(view) == table]
    found = {}
    for view in views:
        renamed = {new: old for old, new in view.batch_source.field_mapping.items()}
        for field in (*view.features, *view.entity_columns):
            name = renamed.get(field.name, field.name)
            found[name] = from_feast_to_pyarrow_type(field.dtype)
    return found


def event_times(spec: ModelSpec, table: str) -> list[str]:
    """Give the columns of a feature table that say since when a row was known."""
    views = [view for view in stored_views(spec) if _table_of(view) == table]
    return sorted({str(view.batch_source.timestamp_field) for view in views})


def service_types(spec: ModelSpec) -> dict[str, pa.DataType]:
    """Give the declared type of each feature of the model's service."""
    views = service_of(spec).feature_view_projections
    return {name: kind for view in views for name, kind in types_of(view).items()}


def types_of(view: Any) -> dict[str, pa.DataType]:
    """Give the declared type of each feature of a view."""
    from feast.types import from_feast_to_pyarrow_type

    return {field.name: from_feast_to_pyarrow_type(field.dtype) for field in view.features}


@lru_cache(maxsize=64)
def tables_digest(function: str | None) -> str:
    """Give a digest of the file of a model's `features.tables`: other code, other feature rows.

    What that file imports is not looked at. Inline features have no function.
    """
    if function is None:
        return ""
    file = inspect.getsourcefile(inspect.unwrap(load_function(function)))
    return sha256(Path(file).read_bytes() if file else b"")


def file_digest(spec: ModelSpec) -> str:
    """Give the digest of the file that defines a model's views, unopened; empty if it has none."""
    path = FEATURE_REPO / f"{spec.model}_views.py"
    return sha256(path.read_bytes()) if not spec.features.is_inline and path.exists() else ""


def digest(spec: ModelSpec) -> str:
    """Give one digest of what defines a model's features; of inline ones the rows say it all."""
    if spec.features.service is None:
        return ""
    module = definitions_of(spec)
    source = Path(module.__file__).read_bytes() if module.__file__ else b""
    return sha256(spec.features.service.encode(), source)


def check(spec: ModelSpec) -> Iterator[SpecError]:
    """Find what a model file asks of its feature definitions and they do not give."""
    if spec.features.is_inline:  # which reading the model file has checked
        return
    try:
        load_function(spec.features.tables)
    except SpecError as error:
        yield error
    try:
        types, sources = service_types(spec), sources_of(spec)
    except SpecError as error:
        yield error
        yield from _check_slips(spec)
        return
    yield from _check_joins(spec, [*sources.join_keys, *sources.request_columns])
    yield from _check_given(spec)
    service, columns = f"service {spec.features.service!r}", spec.source.columns
    for kind in ("numeric", "categorical"):
        for name in getattr(spec.features, kind):
            what = ""
            if name not in types and name not in columns:
                near = did_you_mean(name, [*types, *columns])
                what = f"{name!r} is neither given by {service} nor in source.columns{near}"
            elif name in types and not is_usable(types[name], kind):
                what = f"{name!r} is {types[name]} in {service}; allowed: {_USABLE[kind]}"
            if what:
                yield SpecError(f"features.{kind}: {what}", place=("features", kind, name))


def _check_slips(spec: ModelSpec) -> Iterator[SpecError]:
    """Find features that look like columns misspelt, where the service cannot be asked."""
    for kind in ("numeric", "categorical"):
        for name in getattr(spec.features, kind):
            near = difflib.get_close_matches(name, spec.source.columns, n=1, cutoff=0.85)
            if near and name not in spec.source.columns:
                yield SpecError(
                    f"features.{kind}: {name!r} is not in source.columns; did you mean "
                    f"{near[0]!r}? The service, which could give it, cannot be read",
                    place=("features", kind, name),
                )


def _check_joins(spec: ModelSpec, needed: list[str]) -> Iterator[SpecError]:
    for name in dict.fromkeys(needed):
        if name not in spec.source.columns:
            yield SpecError(
                f"features.service: {spec.features.service!r} joins by column {name!r}, which is "
                f"not in source.columns{did_you_mean(name, spec.source.columns)}",
                place=("features", "service"),
            )


def _check_given(spec: ModelSpec) -> Iterator[SpecError]:
    views = service_of(spec).feature_view_projections
    for name, count in Counter(field.name for view in views for field in view.features).items():
        if count > 1:
            what = f"gives {name!r} {count} times"
        elif name in spec.source.columns:
            what = f"gives {name!r}, which is a column of the rows as well"
        elif name.startswith(OWN):
            what = f"gives {name!r}, and {OWN} begins the bundle's own names"
        else:
            continue
        yield SpecError(
            f"features.service: {spec.features.service!r} {what}; rename the feature",
            place=("features", "service"),
        )


def is_usable(kind: pa.DataType, use: str) -> bool:
    """Can a value of a type be a numeric, or a categorical, feature?"""
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return bool(is_number or (use == "categorical" and pa.types.is_string(kind)))


def _table_of(view: Any) -> str:
    return str(view.batch_source.path).rstrip("/").rpartition("/")[2]
