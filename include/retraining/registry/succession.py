"""The model registry: which version is champion, and moving that alias, never undefined.

MLflow keeps versions, aliases and stages; the ledger keeps why they moved. Every step looks before
it leaps, so that running it again finishes what a killed run left half-done.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from include.retraining.errors import RegistryError, ScoringError, SpecError, Unavailable
from include.retraining.learning import artifact as model_file
from include.retraining.names import (
    CHALLENGER,
    CHAMPION,
    INCIDENT_TAG,
    PREVIOUS_CHAMPION,
    experiment_name,
)
from include.retraining.records import GateDecision, Performance, Promotion
from include.retraining.registry import ledger
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.storage import Storage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

PROMISE_TAG = "retraining.promise"
TRAINED_UNTIL_TAG = "retraining.trained_until"
FEATURES_TAG = "retraining.features"
FORMAT_TAG = "retraining.model_format"
APPROVER_TAG = "retraining.approver"
ANSWER_SECONDS = 10
ANSWER_HOLDS_SECONDS = 10
DIGEST_TAG = "retraining.digest"
SHA256_TAG = "retraining.model_sha256"
QUARANTINE_TAG = "retraining.quarantined"
SERVICE_TAG = "retraining.feature_service"
PROFILE_ARTIFACT = "drift_profile.bin"


class Version(NamedTuple):
    """One registered version, with what its tags say about it."""

    number: int
    run_id: str
    stage: str
    incident_id: str
    features: tuple[str, ...]
    trained_until: dt.datetime | None
    promise: Performance | None
    model_format: str
    model_sha256: str
    digest: str


def client(settings: Settings) -> MlflowClient:
    """Give a client of the tracking server and registry that the settings name.

    Raises
    ------
    Unavailable
        It is a server, and does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow's own: 7 retries of up to 120 s each. The task is retried anyway
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    import mlflow

    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    _require_answer(settings.mlflow_tracking_uri)
    return mlflow.MlflowClient(settings.mlflow_tracking_uri)


_answered: dict[str, float] = {}


def _require_answer(uri: str) -> None:
    """Ask a server whether it is there, every `ANSWER_HOLDS_SECONDS`; any answer will do."""
    if not uri.startswith(("http://", "https://")):
        return
    if time.monotonic() - _answered.get(uri, float("-inf")) < ANSWER_HOLDS_SECONDS:
        return
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        http_request(
            get_default_host_creds(uri),
            "/health",
            "GET",
            max_retries=0,
            timeout=ANSWER_SECONDS,
            raise_on_status=False,
        )
    except Exception as error:  # of MLflow, requests or urllib3, by what went wrong
        where = re.sub(r"//.*@", "//", uri)  # no password in a message
        raise Unavailable(
            f"MLflow at {where} does not answer within {ANSWER_SECONDS} s. Nothing was changed "
            "there and the champion stays. Start the server, or mend its address in the connection "
            "mlflow_default or RETRAINING_MLFLOW_TRACKING_URI; then clear the task"
        ) from error
    _answered[uri] = time.monotonic()


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn MLflow's refusal to take something into `Unavailable`, with what to do."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        why = " ".join(error.message.split())[:300]
        raise Unavailable(
            f"MLflow did not take {what}: {why}. See that its database "
            "and artifact store can be written to and are not full, then clear the task: it goes "
            "on where it stopped"
        ) from error


def experiment_id(spec: ModelSpec, settings: Settings) -> str:
    """Give the id of the model's experiment, creating it at first."""
    from mlflow.exceptions import MlflowException

    api = client(settings)
    name = experiment_name(spec.model)
    found = api.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = (
        f"{settings.mlflow_artifact_uri}/{spec.model}" if settings.mlflow_artifact_uri else None
    )
    try:
        return str(api.create_experiment(name, artifact_location=location))
    except MlflowException:  # another process was first
        found = api.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def champion(spec: ModelSpec, settings: Settings) -> Version | None:
    """Give the version in production, or None before the first promotion."""
    number = aliases(spec, settings).get(CHAMPION)
    return None if number is None else version(spec, settings, number)


def aliases(spec: ModelSpec, settings: Settings) -> dict[str, int]:
    """Give all aliases of the model; empty before its first version."""
    from mlflow.exceptions import MlflowException

    try:
        found = client(settings).get_registered_model(spec.model).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {name: int(number) for name, number in found.items()}


def version(spec: ModelSpec, settings: Settings, number: int) -> Version:
    """Give one version; raises RegistryError where the registry has none of that number."""
    from mlflow.exceptions import MlflowException

    try:
        found = client(settings).get_model_version(spec.model, str(number))
    except MlflowException as error:
        raise RegistryError(f"{spec.model} has no version {number}: {error.message}") from error
    return _describe(found)


def version_of_incident(spec: ModelSpec, settings: Settings, incident_id: str) -> Version | None:
    """Give the version an incident made, or None."""
    where = f"name = '{spec.model}' and tags.`{INCIDENT_TAG}` = '{incident_id}'"
    found = client(settings).search_model_versions(where)
    return _describe(found[0]) if found else None


def _describe(found: ModelVersion) -> Version:
    tags = found.tags
    until, promise = tags.get(TRAINED_UNTIL_TAG), tags.get(PROMISE_TAG)
    return Version(
        number=int(found.version),
        run_id=found.run_id or "",
        stage=found.current_stage or "None",
        incident_id=tags.get(INCIDENT_TAG, ""),
        features=tuple(filter(None, tags.get(FEATURES_TAG, "").split(","))),
        trained_until=dt.datetime.fromisoformat(until) if until else None,
        promise=Performance.model_validate_json(promise) if promise else None,
        model_format=tags.get(FORMAT_TAG, ""),
        model_sha256=tags.get(SHA256_TAG, ""),
        digest=tags.get(DIGEST_TAG, ""),
    )


def load_model(spec: ModelSpec, settings: Settings, number: int) -> Any:
    """Load the fitted pipeline of a version.

    Raises
    ------
    ScoringError
        Its artifact is gone, damaged, or not trusted.
    Unavailable
        Nothing is known of its artifact: whoever keeps it does not answer.
    """
    found = version(spec, settings, number)
    try:
        if found.model_format not in model_file.FILE_NAMES:
            raise ScoringError(  # noqa: TRY301 - told like any other model that cannot be loaded
                f"it has no tag {SHA256_TAG}: no retrain of ours registered it"
            )
        return _load(
            settings.mlflow_tracking_uri,
            spec.model,
            number,
            kind=found.model_format,
            sha256=found.model_sha256,
            allowed=spec.training.model_format,
            trusted=tuple(model_file.trusted_types(spec)),
        )
    except Exception as error:
        if _is_silence(error):  # a duel must not be lost to a broken line
            raise Unavailable(
                f"{spec.model} version {number} cannot be fetched, its artifact store does not "
                f"answer: {error}. The champion stays; see to the store, then clear the task"
            ) from error
        raise ScoringError(
            f"{spec.model} version {number} cannot be loaded: {error}. Restore its artifact, or "
            f"roll back to another version with {spec.model}__rollback"
        ) from error


def _is_silence(error: BaseException | None) -> bool:
    """Is a connection that failed the cause of an error? Requests, boto and urllib3 name it so."""
    while error is not None:
        if {"ConnectionError", "TimeoutError", "HTTPClientError"} & {
            kind.__name__ for kind in type(error).__mro__
        }:
            return True
        error = error.__cause__ or error.__context__
    return False


@lru_cache(maxsize=4)
def _load(tracking_uri: str, model: str, number: int, **rules: Any) -> Any:
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    content = model_file.read(f"models:/{model}/{number}", rules["kind"])
    return model_file.load(content, **rules)


def profile_bytes(spec: ModelSpec, settings: Settings, found: Version) -> bytes:
    """Give the drift profile that was stored with a version; raises RegistryError."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client(settings)
    try:
        path = mlflow.artifacts.download_artifacts(
            run_id=found.run_id, artifact_path=PROFILE_ARTIFACT
        )
        with open(path, "rb") as file:
            return file.read()
    except (MlflowException, OSError) as error:
        raise RegistryError(
            f"{spec.model} version {found.number} has no drift profile: {error}. Retrain the model "
            "by hand"
        ) from error


@writing("the promotion")
def promote(
    spec: ModelSpec, settings: Settings, decision: GateDecision, *, actor: str, at: dt.datetime
) -> Promotion:
    """Make the candidate of a passed gate the champion; safe to run again wherever it was killed.

    Raises
    ------
    RegistryError
        The gate did not pass, the champion is no longer the one the candidate was measured against,
        or this very promotion was made before and the champion changed since.
    Unavailable
        MLflow does not answer, or takes nothing.
    """
    if not decision.passed:
        raise RegistryError(
            f"version {decision.candidate_version} did not pass the gate: not promoted"
        )
    storage = Storage.of(settings)
    _refuse_if_superseded(spec, storage, decision.incident_id, "promotion")
    notice_hand_move(spec, settings, at=at)
    current = aliases(spec, settings).get(CHAMPION)
    if current not in {decision.champion_version, decision.candidate_version}:
        raise RegistryError(
            f"{spec.model}: the duel was against version {decision.champion_version}, but version "
            f"{current} is champion now; nothing was changed, run a new retrain"
        )
    previous = decision.champion_version
    draft = ledger.Entry(
        sequence=0,
        model=spec.model,
        action="promotion",
        version=decision.candidate_version,
        previous_version=previous,
        incident_id=decision.incident_id,
        partition=decision.partition,
        reason="; ".join(decision.reasons),
        actor=actor,
        at=at,
        previous_hash=ledger.GENESIS,
    )
    ledger.claim(storage, draft)
    if decision.candidate is not None:
        client(settings).set_model_version_tag(
            spec.model,
            str(decision.candidate_version),
            PROMISE_TAG,
            decision.candidate.model_dump_json(),
        )
    _crown(spec, settings, version=decision.candidate_version, previous=previous, retired=previous)
    return _enter(spec, settings, draft)


def notice_hand_move(
    spec: ModelSpec, settings: Settings, *, at: dt.datetime
) -> ledger.Entry | None:
    """Enter in the ledger that somebody moved the champion alias in MLflow, if so.

    A promotion or rollback that is under way, or died halfway, is none: the next run finishes it.

    Raises
    ------
    RegistryError
        The alias was removed: the model is without a champion, which nothing here may take for a
        model that never had one.
    """
    storage = Storage.of(settings)
    entry = ledger.last(storage, spec.model)
    alias = aliases(spec, settings).get(CHAMPION)
    if entry is None or alias == entry.version:
        return None
    if alias is None:
        raise RegistryError(
            f"{spec.model}: somebody removed the alias {CHAMPION!r}; by the ledger version "
            f"{entry.version} is champion. Do: {spec.model}__rollback with that version"
        )
    under_way = ledger.intent(storage, spec.model)
    if under_way is not None and under_way.version == alias:
        return None
    log.warning("%s: somebody made version %s champion by hand", spec.model, alias)
    return ledger.append(
        storage,
        ledger.Entry(
            sequence=0,
            model=spec.model,
            action="by_hand",
            version=alias,
            previous_version=entry.version,
            incident_id=f"by-hand-v{alias}-after-{entry.sequence}",
            partition=entry.partition,
            reason="the champion alias was moved in MLflow, by nobody this pipeline knows",
            actor="unknown",
            at=at,
            previous_hash=ledger.GENESIS,
        ),
    )


@writing("the rollback")
def rollback(
    spec: ModelSpec,
    settings: Settings,
    *,
    reason: str,
    actor: str,
    request_id: str,
    at: dt.datetime,
    to_version: int | None = None,
) -> Promotion:
    """Return to an earlier champion: the one before the current, or the version asked for.

    From a champion that the ledger does not know, it returns to the one the ledger knows.
    `request_id` makes it happen once: the same request again changes nothing.

    Raises
    ------
    RegistryError
        There is no earlier champion, the version asked for never was one, is champion now or could
        not do its work (see `refuse_unusable`), or this very rollback was made or begun before and
        the champion changed since.
    Unavailable
        MLflow does not answer, or takes nothing.
    """
    storage = Storage.of(settings)
    _refuse_if_superseded(spec, storage, request_id, "rollback")
    started = ledger.claimed(storage, spec.model, request_id, "rollback")
    if started is None and aliases(spec, settings).get(CHAMPION) is not None:
        notice_hand_move(spec, settings, at=at)
    entries = ledger.read(storage, spec.model)
    done = ledger.made(storage, spec.model, request_id, "rollback")
    line = ledger.reign(entries)
    if done is not None:
        target, current = done.version, done.previous_version
    else:
        alias = aliases(spec, settings).get(CHAMPION)
        crowned = {entry.version for entry in entries}
        # a champion that the ledger does not know yet: its promotion was killed halfway
        current = alias if alias not in crowned or not line else line[-1].version
        target = (
            started.version
            if started is not None
            else _choose_target(spec, settings, entries, current=current, asked=to_version)
        )
        refuse_unusable(spec, settings, target)
    draft = ledger.Entry(
        sequence=0,
        model=spec.model,
        action="rollback",
        version=target,
        previous_version=current,
        incident_id=request_id,
        partition=line[-1].partition if line else "",
        reason=reason,
        actor=actor,
        at=at,
        previous_hash=ledger.GENESIS,
    )
    ledger.claim(storage, draft)
    after = ledger.reign([*entries, draft] if done is None else entries)
    before = after[-2].version if len(after) > 1 else None
    _crown(spec, settings, version=target, previous=before, retired=current)
    return _enter(spec, settings, draft)


def turn_down(spec: ModelSpec, settings: Settings, decision: GateDecision, *, by: str) -> None:
    """Archive a candidate that passed the gate but that a person, or their silence, turned down."""
    number = str(decision.candidate_version)
    api = client(settings)
    api.set_model_version_tag(spec.model, number, APPROVER_TAG, f"turned down by {by}")
    if aliases(spec, settings).get(CHAMPION) != decision.candidate_version:
        set_stage(spec, settings, decision.candidate_version, "Archived")


def _choose_target(
    spec: ModelSpec,
    settings: Settings,
    entries: list[ledger.Entry],
    *,
    current: int | None,
    asked: int | None,
) -> int:
    """Give the version to return to: the one asked for, else the newest champion still standing."""
    line = ledger.reign(entries)
    crowned = sorted({entry.version for entry in entries})
    if not line:
        raise RegistryError(f"{spec.model} has no champion yet: there is nothing to roll back")
    if asked is not None:
        if asked not in crowned:
            raise RegistryError(f"version {asked} never was champion; allowed: {crowned}")
        if asked == current and aliases(spec, settings).get(CHAMPION) == asked:
            raise RegistryError(f"version {asked} is champion already: there is nothing to do")
        return asked
    standing = [entry.version for entry in line if entry.version != current]
    for number in reversed(standing):
        if not quarantine_reason(spec, settings, number):
            return number
    raise RegistryError(
        f"{spec.model} version {current} is the only champion so far that is not quarantined: "
        f"there is nothing to return to; name one of {crowned}, or retrain"
    )


def quarantine_reason(spec: ModelSpec, settings: Settings, number: int) -> str:
    """Give why a version must not come back: what its tag says; empty if it may."""
    from mlflow.exceptions import MlflowException

    try:
        tags = client(settings).get_model_version(spec.model, str(number)).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return "it was deleted from the registry"
        raise
    return str(tags.get(QUARANTINE_TAG, ""))


def refuse_unusable(spec: ModelSpec, settings: Settings, number: int) -> None:
    """Refuse a version that could not do a champion's work now.

    Raises
    ------
    RegistryError
        It is quarantined, its features are not those of the model file, or the feature service it
        was trained with is gone.
    ScoringError
        Its artifact cannot be loaded.
    """
    from include.retraining.features import feature_sets as features

    if why := quarantine_reason(spec, settings, number):
        raise RegistryError(
            f"{spec.model} version {number} is quarantined: {why}. Name another version, or remove "
            f"its tag {QUARANTINE_TAG} in MLflow"
        )
    found = version(spec, settings, number)
    if found.features and set(found.features) != set(spec.features.names):
        raise RegistryError(
            f"{spec.model} version {number} was trained with other features than the model file "
            f"has: {', '.join(sorted(set(found.features) ^ set(spec.features.names)))}; restore "
            "that model file, or name another version"
        )
    service = client(settings).get_run(found.run_id).data.tags.get(SERVICE_TAG)
    if service:
        try:
            features.load_function(f"feature_repo.{spec.model}_views:{service}")
        except SpecError as error:
            raise RegistryError(
                f"{spec.model} version {number} was trained with feature service {service!r}, "
                f"which is gone from feature_repo/; restore it, or name another version"
            ) from error
    load_model(spec, settings, number)


def _refuse_if_superseded(
    spec: ModelSpec, storage: Storage, incident_id: str, action: ledger.Action
) -> None:
    """Refuse an old step that is run again, where it would undo what came after it."""
    last = ledger.last(storage, spec.model)
    if last is None or (last.incident_id, last.action) == (incident_id, action):
        return
    done = ledger.made(storage, spec.model, incident_id, action)
    if done is not None:
        raise RegistryError(
            f"{spec.model}: the {action} to version {done.version} is done (ledger entry "
            f"{done.sequence}), and entry {last.sequence} made version {last.version} champion "
            "since; nothing was changed"
        )
    started = ledger.claimed(storage, spec.model, incident_id, action)
    if started is not None and last.sequence > started.after:
        raise RegistryError(
            f"{spec.model}: the {action} to version {started.version} was begun before ledger "
            f"entry {last.sequence} made version {last.version} champion; nothing was changed"
        )


def _crown(
    spec: ModelSpec, settings: Settings, *, version: int, previous: int | None, retired: int | None
) -> None:
    """Move aliases and stages; the champion alias points at a whole version at every instant."""
    api = client(settings)
    api.set_registered_model_alias(spec.model, CHAMPION, str(version))
    if previous is None:
        api.delete_registered_model_alias(spec.model, PREVIOUS_CHAMPION)
    else:
        api.set_registered_model_alias(spec.model, PREVIOUS_CHAMPION, str(previous))
    if aliases(spec, settings).get(CHALLENGER) == version:
        api.delete_registered_model_alias(spec.model, CHALLENGER)
    set_stage(spec, settings, version, "Production")
    if retired is not None and retired != version:
        set_stage(spec, settings, retired, "Archived")


def set_stage(spec: ModelSpec, settings: Settings, number: int, stage: str) -> None:
    """Make the stage of a version follow its alias."""
    with _deprecated_stages():
        client(settings).transition_model_version_stage(spec.model, str(number), stage)


@contextlib.contextmanager
def _deprecated_stages() -> Iterator[None]:
    # stages are deprecated in MLflow, but they are what its UI and many readers still show
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ss]tage", category=FutureWarning)
        yield


def _enter(spec: ModelSpec, settings: Settings, draft: ledger.Entry) -> Promotion:
    entry = ledger.append(Storage.of(settings), draft)
    log.info("%s: version %s is champion (%s)", spec.model, entry.version, entry.reason)
    from include.retraining.telling import model_card

    client(settings).set_model_version_tag(
        spec.model, str(entry.version), APPROVER_TAG, entry.actor
    )
    model_card.publish(spec, settings, entry.version)
    return Promotion(
        incident_id=entry.incident_id,
        model=entry.model,
        partition=entry.partition,
        action=entry.action,
        version=entry.version,
        previous_version=entry.previous_version,
        reason=entry.reason,
        actor=entry.actor,
        at=entry.at,
        ledger_sequence=entry.sequence,
    )
