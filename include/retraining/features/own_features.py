"""Gives rows the features that a version learned from, where the model file names others by now.

So a champion goes on being measured, and meets its challenger, with features of its own: by the
views that gave them when it learned, whatever the model file and its service say since.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from include.retraining.errors import DataError, FeaturesGone, ScoringError, SpecError
from include.retraining.features import definitions, feature_sets
from include.retraining.features.feature_tables import look, make_tables
from include.retraining.features.join import EVENT_TIME, join_views
from include.retraining.records import LearnedFeatures
from include.retraining.settings import Settings
from include.retraining.spec import Features, ModelSpec
from include.retraining.storage import Storage

NUMBERS = ("integer", "number", "boolean")  # types of source.columns that a numeric feature may be


def learned_features(spec: ModelSpec) -> LearnedFeatures:
    """Give what is to be known of the features that a model learns from now."""
    origins, views = definitions.origins_of(spec), defaultdict(list)
    for name in spec.features.names:
        if name in origins:
            views[origins[name]].append(name)
    return LearnedFeatures(
        service=spec.features.service,
        tables=spec.features.tables,
        numeric=spec.features.numeric,
        categorical=spec.features.categorical,
        views={view: tuple(names) for view, names in views.items()},
        expected=spec.drift.expected,
        definitions_sha256=definitions.file_digest(spec),
    )


def own_spec(spec: ModelSpec, learned: LearnedFeatures | None) -> ModelSpec:
    """Give the model file with the features that a version learned from; itself if it has them.

    Features that are no longer in the model file are expected to drift if they were then.
    """
    if learned is None or _is_alike(spec, learned):
        return spec
    gone = [
        name
        for name in learned.expected
        if name not in spec.features.names and name not in spec.drift.expected
    ]
    return spec.model_copy(
        update={
            "features": Features(
                service=learned.service,
                tables=learned.tables,
                numeric=learned.numeric,
                categorical=learned.categorical,
            ),
            "drift": spec.drift.model_copy(update={"expected": (*spec.drift.expected, *gone)}),
        }
    )


def difference(spec: ModelSpec, learned: LearnedFeatures | None) -> str:
    """Say how the features of a version differ from the model file's; empty if they do not."""
    if learned is None or _is_alike(spec, learned):
        return ""
    gone = sorted(set(learned.names) - set(spec.features.names))
    new = sorted(set(spec.features.names) - set(learned.names))
    found = [
        f"{what} {', '.join(names)}" for what, names in (("without", gone), ("with", new)) if names
    ]
    return " and ".join(found) or "the same names, from elsewhere or of another kind"


def why_not(spec: ModelSpec, learned: LearnedFeatures | None) -> str:
    """Say why rows cannot be given the features of a version any more; empty if they can.

    Parameters
    ----------
    spec : ModelSpec
        The model file as it is.
    learned : LearnedFeatures, optional
        Of the version; without, they are the model file's.
    """
    if learned is None or _is_alike(spec, learned):
        return ""
    try:
        return next(_gaps(spec, learned), "")
    except SpecError as error:
        return f"what defined its features cannot be read: {error}"


def _gaps(spec: ModelSpec, learned: LearnedFeatures) -> Iterator[str]:
    """Find what a version's features came from and is not there any more."""
    own, columns = own_spec(spec, learned), spec.source.columns
    views = _views(spec, learned)
    yield from _gaps_of_views(own, views, learned)
    for name in learned.names:
        if name in _origins(views):
            continue
        if name not in columns:
            yield f"{name} was a column of the rows, and is none in source.columns any more"
        elif name in learned.numeric and columns[name] not in NUMBERS:
            yield f"{name} was numeric, and is {columns[name]} in source.columns now"
    if wanted := _to_join(spec, views):
        sources = definitions.sources_of(own, wanted)
        needed = {*sources.join_keys, *sources.request_columns} - {EVENT_TIME}
        if gone := sorted(needed - {*columns}):
            yield f"{', '.join(wanted)} need {', '.join(gone)}, not in source.columns any more"
        if spec.features.is_inline:  # else the function of the model file makes all tables
            definitions.load_function(own.features.tables)


def _gaps_of_views(
    own: ModelSpec, views: Mapping[str, tuple[str, ...]], learned: LearnedFeatures
) -> Iterator[str]:
    where = f"feature_repo/{own.model}_views.py"
    defined = definitions.views_of(own) if views else {}
    for view, names in views.items():
        if view not in defined:
            yield f"{', '.join(names)} came from view {view!r}, which {where} no longer defines"
            continue
        types = definitions.types_of(defined[view])
        if gone := [name for name in names if name not in types]:
            yield f"view {view!r} in {where} no longer gives {', '.join(gone)}"
        for name in names:
            kind = "numeric" if name in learned.numeric else "categorical"
            if name in types and not definitions.is_usable(types[name], kind):
                yield f"{name} was {kind}, and view {view!r} in {where} gives {types[name]} now"


def rows_for(
    spec: ModelSpec,
    settings: Settings,
    learned: LearnedFeatures | None,
    rows: pa.Table,
    *,
    version: int,
) -> tuple[ModelSpec, pa.Table]:
    """Give the model file and rows with the features that a version learned from.

    Where both are as they were when it learned, nothing is read or joined.

    Parameters
    ----------
    learned : LearnedFeatures, optional
        Of the version; without, they are the model file's.
    rows : Table of shape (n_rows, n_columns)
        As they were joined for the model file.
    version : int
        Its number, for the messages.

    Returns
    -------
    ModelSpec, Table
        One row for each of `rows`, in their order.

    Raises
    ------
    FeaturesGone
        They are not defined any more: a view, a feature of it, or a column of the rows.
    ScoringError
        These very rows have none.
    """
    own = own_spec(spec, learned)
    if learned is None or own is spec:
        return spec, rows
    if why := why_not(spec, learned):
        raise FeaturesGone(
            f"{spec.model} version {version} learned from other features than the model file has, "
            f"and cannot be given them: {why}. Do one of these: put that back beside what is new; "
            f"{spec.model}__rollback to a version whose features are there; or "
            f"{spec.model}__retrain with force, whose candidate needs no opponent that nothing can "
            "score, and is held against gate.floor and policies"
        )
    wanted = _to_join(spec, _views(spec, learned))
    if wanted:
        taken = {name for names in wanted.values() for name in names}
        kept = rows.drop_columns([name for name in rows.column_names if name in taken])
        feature_spec = own if spec.features.is_inline else spec
        definitions.apply_definitions(feature_spec, settings)
        try:
            _make_tables(feature_spec, Storage.of(settings), kept)
            rows = join_views(own, settings, kept, wanted)
        except (DataError, SpecError) as error:
            raise ScoringError(
                f"{spec.model} version {version} learned from other features than the model file "
                f"has, and these rows could not be given them: {error}"
            ) from error
    if missing := [name for name in learned.names if name not in rows.column_names]:
        raise ScoringError(
            f"{spec.model} version {version} learned from {', '.join(missing)}, which these rows "
            "were published or joined without; ingest their batches again"
        )
    return own, rows


def _is_alike(spec: ModelSpec, learned: LearnedFeatures) -> bool:
    """Are a version's features those of the model file, by the same views?"""
    now = spec.features
    if set(learned.numeric) != set(now.numeric) or set(learned.categorical) != set(now.categorical):
        return False
    if learned.views is None or learned.definitions_sha256 == definitions.file_digest(spec):
        return learned.service == now.service
    try:
        return _origins(learned.views) == _origins(learned_features(spec).views or {})
    except SpecError:
        return False


def _origins(views: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {name: view for view, names in views.items() for name in names}


def _views(spec: ModelSpec, learned: LearnedFeatures) -> Mapping[str, tuple[str, ...]]:
    """Give the views that a version's features came from; found by name where none were kept."""
    if learned.views is not None or learned.service is None:
        return learned.views or {}
    own = own_spec(spec, learned)
    defined = definitions.views_of(own)
    origins: dict[str, str] = {}
    for name in learned.names:
        giving = [view.name for view in defined.values() if name in {f.name for f in view.features}]
        if len(giving) == 1:
            origins[name] = giving[0]
        elif giving:  # its own service, if it is still there, says which one
            origins |= {name: definitions.origins_of(own).get(name, giving[0])}
    found = defaultdict(list)
    for name, view in origins.items():
        found[view].append(name)
    return {view: tuple(names) for view, names in found.items()}


def _to_join(spec: ModelSpec, views: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Give the features, by view, that rows joined for the model file do not have already."""
    origins = definitions.origins_of(spec)
    wanted = {
        view: [name for name in names if origins.get(name) != view] for view, names in views.items()
    }
    return {view: names for view, names in wanted.items() if names}


def _make_tables(spec: ModelSpec, storage: Storage, rows: pa.Table) -> None:
    """Make the feature tables that some rows can see, those that are not there as they have to."""
    if not rows.num_rows:
        return
    first, last = pc.min_max(rows.column(spec.source.event_time)).as_py().values()
    there = look(spec, storage)
    batches = there.batches(
        since=first - spec.partitions.length, until=last + dt.timedelta(microseconds=1)
    )
    seen = [one for batch in batches for one in feature_sets.window(spec, there, batch)]
    make_tables(spec, storage, there, list(dict.fromkeys(seen)))
