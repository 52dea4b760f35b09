"""What a registered version is, what it was made of, and what it says of rows."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from functools import lru_cache
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from include.retraining import shelf
from include.retraining.errors import NotOurs, RegistryError, ScoringError, Unavailable
from include.retraining.learning import artifact
from include.retraining.learning.metrics import Floats
from include.retraining.learning.scoring import predict
from include.retraining.names import CHALLENGER, CHAMPION, INCIDENT_TAG, PREVIOUS_CHAMPION
from include.retraining.records import LearnedFeatures, Performance, TrainingSet
from include.retraining.registry import server
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

PROMISE_TAG = "retraining.promise"
TRAINED_UNTIL_TAG = "retraining.trained_until"
FEATURES_TAG = "retraining.features"
FORMAT_TAG = "retraining.model_format"
DIGEST_TAG = "retraining.digest"
SHA256_TAG = "retraining.model_sha256"
QUARANTINE_TAG = "retraining.quarantined"
SERVICE_TAG = "retraining.feature_service"
LEARNED_TAG = "retraining.learned_features"
ADOPTED_TAG = "retraining.adopted_from"


class Version(NamedTuple):
    """One registered version, with what its tags say about it."""

    number: int
    run_id: str
    stage: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    incident_id: str
    features: tuple[str, ...]
    trained_until: dt.datetime | None
    promise: Performance | None
    model_format: str
    model_sha256: str
    digest: str


class Registration(NamedTuple):
    """What a fitted pipeline is registered with."""

    run_name: str
    run_tags: dict[str, str]
    version_tags: dict[str, str]
    params: dict[str, Any]
    metrics: dict[str, float | None]
    series: dict[str, dict[int, float]]
    files: dict[str, bytes]
    data_source: str
    data_sha256: str


def champion(spec: ModelSpec, settings: Settings) -> Version | None:
    """Give the version in production, or None before the first promotion."""
    number = server.aliases(spec, settings).get(CHAMPION)
    return None if number is None else version(spec, settings, number)


def champion_before(spec: ModelSpec, settings: Settings) -> Version | None:
    """Give the version that was in production before the champion, or None; it may be gone."""
    number = server.aliases(spec, settings).get(PREVIOUS_CHAMPION)
    return None if number is None else find(spec, settings, number)


def version(spec: ModelSpec, settings: Settings, number: int) -> Version:
    """Give one version; raises RegistryError where the registry has none of that number."""
    found = find(spec, settings, number)
    if found is None:
        raise RegistryError(f"{spec.model} has no version {number}")
    return found


def find(spec: ModelSpec, settings: Settings, number: int) -> Version | None:
    """Give one version, or None where the registry has none of that number."""
    found = server.find_version(spec, settings, number)
    return None if found is None else _describe(found)


def version_of_incident(spec: ModelSpec, settings: Settings, incident_id: str) -> Version | None:
    """Give the version an incident made, or None; of two attempts at once, the first one's."""
    found = server.versions_with(spec, settings, {INCIDENT_TAG: incident_id})
    return _describe(found[-1]) if found else None


def all_versions(spec: ModelSpec, settings: Settings) -> list[Version]:
    """Give every version of the model, newest first."""
    return [_describe(found) for found in server.versions_with(spec, settings, {})]


def _describe(found: server.MLflowVersion) -> Version:
    tags = dict(found.tags)
    until, promise = tags.get(TRAINED_UNTIL_TAG), tags.get(PROMISE_TAG)
    return Version(
        number=int(found.version),
        run_id=found.run_id or "",
        stage=found.current_stage or "None",
        aliases=tuple(sorted(found.aliases)),
        tags=tags,
        incident_id=tags.get(INCIDENT_TAG, ""),
        features=tuple(json.loads(tags.get(FEATURES_TAG, "[]"))),
        trained_until=dt.datetime.fromisoformat(until) if until else None,
        promise=Performance.model_validate_json(promise) if promise else None,
        model_format=tags.get(FORMAT_TAG, ""),
        model_sha256=tags.get(SHA256_TAG, ""),
        digest=tags.get(DIGEST_TAG, ""),
    )


@server.writing("the candidate")
def register(
    spec: ModelSpec,
    settings: Settings,
    pipeline: Any,
    frame: pd.DataFrame,
    *,
    incident_id: str,
    training_set: TrainingSet,
    about: Registration,
) -> Version:
    """Log a fitted pipeline to a run of its incident, and register it as the challenger.

    A run that a killed attempt left is continued. Of two attempts at once the first version stays,
    and both give it.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    frame : DataFrame of shape (n_rows, n_features)
        What it learned from.
    """
    with server.run_of(
        spec,
        settings,
        name=about.run_name,
        tags={**about.run_tags, INCIDENT_TAG: incident_id},
        same=[INCIDENT_TAG],
        params=about.params,
    ) as run:
        run.metrics(about.metrics)
        for name, values in about.series.items():
            run.series(name, values)
        name, digest = f"{spec.model}-{about.data_sha256[:8]}", about.data_sha256[:32]
        example = frame.head(100)
        run.dataset(example, source=about.data_source, name=name, digest=digest)
        run.files(about.files)
        kind = spec.training.model_format
        logged = run.model(
            pipeline,
            example=example,
            method="predict" if spec.label.task == "regression" else "predict_proba",
            kind=kind,
            trusted=artifact.trusted_types(spec) if kind == "skops" else None,
            requirements=[f"{name}=={installed(name)}" for name in ("scikit-learn", "numpy", kind)],
        )
    content = server.read_artifact(settings, logged.uri, shelf.MODEL_ARTIFACTS[kind])
    server.create_model(spec, settings)
    number = server.create_version(
        spec,
        settings,
        logged,
        run_id=run.run_id,
        tags={
            **about.version_tags,
            INCIDENT_TAG: incident_id,
            TRAINED_UNTIL_TAG: (
                training_set.learned_until or training_set.training_end
            ).isoformat(),
            FEATURES_TAG: json.dumps(spec.features.names, ensure_ascii=False),
            FORMAT_TAG: kind,
            SHA256_TAG: hashlib.sha256(content).hexdigest(),
        },
    )
    found = keep_first(spec, settings, incident_id) or version(spec, settings, number)
    if found.stage == "None":  # the gate has not seen it
        server.set_alias(spec, settings, CHALLENGER, found.number)
    return found


def keep_first(spec: ModelSpec, settings: Settings, incident_id: str) -> Version | None:
    """Give the first version of an incident, or None; delete others that attempts at once made.

    Whoever registers a later one sees those before it, so all agree on which one stays.
    """
    *others, first = server.versions_with(spec, settings, {INCIDENT_TAG: incident_id}) or [None]
    for other in others:
        server.delete_version(spec, settings, int(other.version))
    return None if first is None else _describe(first)


def learned_features(spec: ModelSpec, settings: Settings, found: Version) -> LearnedFeatures | None:
    """Give the features that a version learned from; None if they are the model file's.

    MLflow is asked only of a version from before they were kept, whose names are others.

    Raises
    ------
    ScoringError
        They are others, and nothing says any more what they were.
    """
    if (kept := found.tags.get(LEARNED_TAG)) is not None:
        try:
            return LearnedFeatures.model_validate_json(kept)
        except ValueError as error:
            raise ScoringError(
                f"{spec.model} version {found.number}: its tag {LEARNED_TAG} cannot be read: "
                f"{error}. Remove the tag in MLflow: then {shelf.SPEC_ARTIFACT} of its run says it"
            ) from error
    service = found.tags.get(SERVICE_TAG, spec.features.service)
    same_names = set(found.features or spec.features.names) == set(spec.features.names)
    if same_names and service == spec.features.service:
        return None
    try:
        then = json.loads(run_artifact(settings, found, shelf.SPEC_ARTIFACT))
        return LearnedFeatures(
            **{name: then["features"][name] for name in ("service", "tables")},
            numeric=tuple(then["features"]["numeric"]),
            categorical=tuple(then["features"]["categorical"]),
            views=None if then["features"]["service"] else {},
            expected=tuple(then["drift"]["expected"]),
        )
    except (RegistryError, ValueError, KeyError, TypeError) as error:
        raise ScoringError(
            f"{spec.model} version {found.number} learned from other features than the model file "
            f"has ({', '.join(sorted(set(found.features) ^ set(spec.features.names)))}), and what "
            f"says which, {shelf.SPEC_ARTIFACT} of its run, cannot be read: {error}. Restore it, "
            "or the features in the model file"
        ) from error


def require_ours(spec: ModelSpec, found: Version) -> None:
    """Refuse a version that something else registered; raises NotOurs."""
    if found.model_format not in shelf.MODEL_ARTIFACTS:
        raise NotOurs(
            f"{spec.model} version {found.number} cannot be loaded: it has no tag {SHA256_TAG}, no "
            "retrain of ours registered it. Take it in with `adopt-champion "
            f"{spec.model} --version {found.number}`, roll back to another version with "
            f"{spec.model}__rollback, or run {spec.model}__retrain with force"
        )


def load_model(spec: ModelSpec, settings: Settings, found: Version) -> Any:
    """Load the fitted pipeline of a version.

    Raises
    ------
    NotOurs
        Something else registered it.
    ScoringError
        Its artifact is gone, damaged, or not trusted.
    Unavailable
        Nothing is known of its artifact: whoever keeps it does not answer.
    """
    number = found.number
    require_ours(spec, found)
    try:
        return _load(
            settings,
            spec.model,
            number,
            kind=found.model_format,
            sha256=found.model_sha256,
            allowed=spec.training.model_format,
            trusted=tuple(artifact.trusted_types(spec)),
        )
    except Unavailable as error:  # a duel must not be lost to a broken line
        raise Unavailable(
            f"{spec.model} version {number} cannot be fetched, its artifact store does not "
            f"answer: {error}. The champion stays; see to the store, then clear the task"
        ) from error
    except Exception as error:
        raise ScoringError(
            f"{spec.model} version {number} cannot be loaded: {error}. Restore its artifact, or "
            f"roll back to another version with {spec.model}__rollback. If it is the only one: "
            f"delete version {number} in MLflow, and run {spec.model}__retrain with force"
        ) from error


@lru_cache(maxsize=4)
def _load(settings: Settings, model: str, number: int, **rules: Any) -> Any:
    uri = server.version_uri(model, number)
    content = server.read_artifact(settings, uri, shelf.MODEL_ARTIFACTS[rules["kind"]])
    return artifact.load(content, **rules)


def score(spec: ModelSpec, settings: Settings, of: Version | int, rows: pa.Table) -> Floats:
    """Score rows with a registered version; raises ScoringError where that is not possible.

    Parameters
    ----------
    spec : ModelSpec
        With the features that the version learned from (`features.own_features` gives it).
    of : Version or int
        The version, or its number: then the registry is asked for it.
    """
    found = version(spec, settings, of) if isinstance(of, int) else of
    number = found.number
    if found.features and set(found.features) != set(spec.features.names):
        other = ", ".join(sorted(set(found.features) ^ set(spec.features.names)))
        raise ScoringError(
            f"{spec.model} version {number} learned from other features than these: {other}"
        )
    return predict(spec, load_model(spec, settings, found), rows)


def profile_bytes(spec: ModelSpec, settings: Settings, found: Version) -> bytes:
    """Give the drift profile that was stored with a version; raises RegistryError."""
    uri = server.run_uri(found.run_id, shelf.PROFILE_ARTIFACT)
    try:
        return server.read_artifact(settings, uri)
    except RegistryError as error:
        raise RegistryError(
            f"{spec.model} version {found.number} has no drift profile: {error}. Retrain the model "
            "by hand with force, or roll back"
        ) from error


def run_artifact(settings: Settings, found: Version, name: str) -> bytes:
    """Give an artifact of the run that made a version; raises RegistryError."""
    return server.read_artifact(settings, server.run_uri(found.run_id, name))


def run_data(settings: Settings, found: Version) -> server.RunData:
    """Give what was logged to the run that made a version."""
    return server.run_data(settings, found.run_id)
