"""The MLflow server: the only module that talks to it.

Runs, artifacts and aliases as the rest of the package needs them; what they mean is said in
`versions` and `succession`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from include.retraining.errors import RegistryError, Unavailable
from include.retraining.names import experiment_name
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as ModelVersion  # noqa: PLC0414 - for others, too
    from mlflow.entities.model_registry import RegisteredModel

MLflowVersion: TypeAlias = "ModelVersion"  # for who must not name the library

ANSWER_SECONDS = 10
ANSWER_HOLDS_SECONDS = 10
METRICS_AT_ONCE = 500  # MLflow takes 1,000 in a request
RUNS_AT_ONCE = 100
# its codes for what is at fault with a request; all others are its own trouble, or nothing is known
REFUSALS = {
    "BAD_REQUEST",
    "ENDPOINT_NOT_FOUND",
    "FEATURE_DISABLED",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
}
TROUBLE = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
TROUBLE_TOLD = re.compile(
    r"database is locked|SlowDown|\b(429|50[0234]) (Client|Server) Error|error code 50[0234]"
    r"|too many (429|50[0234]) error"
)
# of an answer that MLflow did not give, but a proxy or a login page before it
NO_ANSWER_TOLD = re.compile(
    r"failed with error code \d+ != \d+|response body was not in a valid JSON format"
)
ARTIFACT_REFUSED_TOLD = re.compile(r"\b4\d\d Client Error")
MODEL_DESCRIPTION = "MLmodel"
NAME_CHARACTERS = 240  # MLflow takes 250


class RunData(NamedTuple):
    """What was logged to a run."""

    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]


class LoggedModel(NamedTuple):
    """A fitted pipeline that a run has logged."""

    uri: str
    model_id: str


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
    try:
        return mlflow.MlflowClient(settings.mlflow_tracking_uri)
    except Exception as error:  # of SQLAlchemy, or of a database's own driver
        if not _is_locked(error):
            raise
        where = re.sub(r"//.*@", "//", settings.mlflow_tracking_uri)
        told = str(error).splitlines()[0][:200]
        raise Unavailable(
            f"MLflow's database {where} cannot be opened: {told}. Nothing was changed, and the "
            "champion stays. Somebody else holds it, or it is down; try again in a moment"
        ) from error


def _is_locked(error: BaseException) -> bool:
    """Did a database not let us in? MLflow opens it with the client, and wraps nothing then."""
    return any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)


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
    """Turn MLflow's refusal to take something into an error with what to do.

    Raises
    ------
    RegistryError
        What it was given, or what it has, is at fault: a retry gets the same answer.
    Unavailable
        Its server, database or store is.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        why = " ".join(error.message.split())[:300]
        if is_from_elsewhere(error):
            raise _unanswered(what, error) from error
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise RegistryError(
                f"{what} is about something that was deleted in MLflow meanwhile: {why}. Look what "
                "is there, then run it again"
            ) from error
        if is_refusal(error):
            raise RegistryError(
                f"MLflow refuses {what}: {why} ({error.error_code}). Mend what it names in the "
                "model file or in MLflow, then clear the task"
            ) from error
        raise Unavailable(
            f"MLflow did not take {what}: {why}. See that its database "
            "and artifact store can be written to and are not full, then clear the task: it goes "
            "on where it stopped"
        ) from error


def is_refusal(error: BaseException) -> bool:
    """Say whether this is an answer of MLflow's that it will give again; its trouble is none."""
    has_code = _is_mlflows(error) and getattr(error, "error_code", None) in REFUSALS
    return has_code and not is_from_elsewhere(error)


def is_from_elsewhere(error: BaseException) -> bool:
    """Say whether something between us and MLflow answered in its place: a proxy, a login page.

    MLflow's own answers are JSON with one of its codes; its client gives any other answer a code by
    the HTTP status, as if MLflow had refused.
    """
    if not _is_mlflows(error):
        return False
    content = getattr(error, "json", None)
    if not isinstance(content, dict):
        return NO_ANSWER_TOLD.search(str(error)) is not None
    from mlflow.protos.databricks_pb2 import ErrorCode

    return content.get("error_code") not in set(ErrorCode.keys())


def _is_mlflows(error: BaseException) -> bool:
    return any(kind.__name__ == "MlflowException" for kind in type(error).__mro__)


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn an answer that is not MLflow's into trouble with the way to it.

    Raises
    ------
    Unavailable
        A proxy answered in its place, say; a retry may help.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if is_from_elsewhere(error):
            raise _unanswered(what, error) from error
        raise


def _unanswered(what: str, told: object) -> Unavailable:
    why = " ".join(str(told).split())[:300]
    return Unavailable(
        f"MLflow was asked for {what}, and the answer is not MLflow's: {why}. See to what stands "
        "before it, a proxy, a gateway or a login, and to address and login in the connection "
        "mlflow_default or RETRAINING_MLFLOW_TRACKING_URI; then clear the task"
    )


def _require_same(what: str, asked: object, got: object) -> None:
    """Refuse an answer about something else: a proxy may give an empty one, or that of another."""
    if str(asked) != str(got):
        raise _unanswered(what, f"it is about {got!r}")


def is_trouble(error: BaseException) -> bool:
    """Say whether a store or server that failed is the cause, and a retry may help.

    MLflow tells of a download that failed in a text, whatever the cause.
    """
    if is_silence(error) or getattr(error, "error_code", None) in TROUBLE:
        return True
    if isinstance(error, Unavailable) or is_from_elsewhere(error):
        return True
    told = str(error)
    if ARTIFACT_REFUSED_TOLD.search(told) and '"error_code"' not in told:
        return True  # the server that artifacts come through would have said why
    return TROUBLE_TOLD.search(told) is not None


def is_silence(error: BaseException | None) -> bool:
    """Is a connection that failed the cause of an error? Requests, boto and urllib3 name it so."""
    while error is not None:
        if {"ConnectionError", "TimeoutError", "HTTPClientError"} & {
            kind.__name__ for kind in type(error).__mro__
        }:
            return True
        error = error.__cause__ or error.__context__
    return False


# --- names ---------------------------------------------------------------------------------------


def accepted_names(names: Iterable[str]) -> dict[str, str]:
    """Give each metric or parameter a name that MLflow takes, no two the same.

    A character that MLflow refuses becomes its code in hexadecimal: ``share%`` is ``share_25``. A
    name that would be another one's then, or is too long, ends with a digest of its own.

    Examples
    --------
    >>> accepted_names(["share%", "a,b", "plain"])
    {'share%': 'share_25', 'a,b': 'a_2cb', 'plain': 'plain'}
    """
    encoded = {name: _encoded(name) for name in dict.fromkeys(names)}
    often = Counter(encoded.values())
    return {
        name: found if found == name or often[found] == 1 else f"{found}_{_digest(name)}"
        for name, found in encoded.items()
    }


def _encoded(name: str) -> str:
    found = "".join(one if one.isalnum() or one in "_-. :/" else f"_{ord(one):02x}" for one in name)
    if posixpath.normpath(found) != found:  # MLflow keeps metrics as files, in places
        found = found.replace("/", "_2f")
    if len(found) > NAME_CHARACTERS:
        found = f"{found[: NAME_CHARACTERS - 9]}_{_digest(name)}"
    return found


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


# --- runs -----------------------------------------------------------------------------------------


def experiment_id(spec: ModelSpec, settings: Settings) -> str:
    """Give the id of the model's experiment, creating it at first.

    Raises
    ------
    RegistryError
        Somebody has deleted it in MLflow.
    """
    from mlflow.exceptions import MlflowException

    api = client(settings)
    name = experiment_name(spec.model)
    with reading(f"the experiment {name}"):
        found = api.get_experiment_by_name(name)
    if found is not None:
        _require_same(f"the experiment {name}", name, found.name)
    if found is not None and found.lifecycle_stage != "active":
        raise RegistryError(
            f"the experiment {name} was deleted in MLflow, which keeps its name taken. Restore it "
            f"there (mlflow experiments restore -x {found.experiment_id}), then clear the task"
        )
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


def run_data(settings: Settings, run_id: str) -> RunData:
    """Give what was logged to a run; raises RegistryError where it is gone for good."""
    from mlflow.exceptions import MlflowException

    try:
        with reading(f"the run {run_id}"):
            run = client(settings).get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(
            f"MLflow has no run {run_id!r} any more: it was deleted for good. Restore it from a "
            "backup, or retrain by hand with force"
        ) from error
    _require_same(f"the run {run_id}", run_id, run.info.run_id)
    data = run.data
    return RunData(dict(data.tags), dict(data.params), dict(data.metrics))


class Run:
    """A run that is being written. Logging the same again changes nothing."""

    def __init__(self, settings: Settings, run_id: str, experiment: str) -> None:
        self.run_id = run_id
        self.experiment_id = experiment
        self._api = client(settings)

    def metrics(self, values: Mapping[str, float | None]) -> None:
        """Log numbers under `accepted_names`; those that are None are left out."""
        import mlflow

        names = accepted_names(values)
        known = [(names[name], value) for name, value in values.items() if value is not None]
        for first in range(0, len(known), METRICS_AT_ONCE):
            mlflow.log_metrics(dict(known[first : first + METRICS_AT_ONCE]), run_id=self.run_id)

    def series(self, name: str, values: Mapping[int, float]) -> None:
        """Log one number by step."""
        for step, value in values.items():
            self._api.log_metric(self.run_id, name, value, step=step)

    def files(self, contents: Mapping[str, bytes]) -> None:
        """Log artifacts, by file name."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in contents.items():
                Path(folder, name).write_bytes(content)
            self._api.log_artifacts(self.run_id, folder)

    def dataset(self, example: pd.DataFrame, *, source: str, name: str, digest: str) -> None:
        """Log what was learned from: its place, digest and columns, not its rows."""
        import mlflow
        from mlflow.data.dataset_source_registry import resolve_dataset_source
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.models import infer_signature

        found = MetaDataset(
            resolve_dataset_source(source),
            name=name,
            digest=digest,
            schema=infer_signature(example).inputs,
        )
        mlflow.log_input(found, context="training")

    def model(
        self,
        pipeline: Any,
        *,
        example: pd.DataFrame,
        method: str,
        kind: str,
        trusted: list[str] | None,
        requirements: list[str],
    ) -> LoggedModel:
        """Log a fitted scikit-learn pipeline with its signature."""
        import mlflow
        from mlflow.models import infer_signature

        with _compressed_skops():
            logged = mlflow.sklearn.log_model(
                pipeline,
                name="model",
                signature=infer_signature(example, getattr(pipeline, method)(example)),
                pip_requirements=requirements,
                pyfunc_predict_fn=method,
                serialization_format=kind,
                skops_trusted_types=trusted,
            )
        return LoggedModel(logged.model_uri, logged.model_id)


@contextlib.contextmanager
def _compressed_skops() -> Iterator[None]:
    """Let skops compress what MLflow has it write, which MLflow has no setting for.

    A model of trees takes a fifth of the bytes then.
    """
    import skops.io

    plain = skops.io.dump
    skops.io.dump = partial(plain, compression=zipfile.ZIP_DEFLATED)
    try:
        yield
    finally:
        skops.io.dump = plain


@contextlib.contextmanager
def run_of(
    spec: ModelSpec,
    settings: Settings,
    *,
    name: str,
    tags: Mapping[str, str],
    same: Sequence[str],
    params: Mapping[str, Any] | None = None,
) -> Iterator[Run]:
    """Write a run of the model's experiment; one that a killed attempt left is continued.

    Parameters
    ----------
    name : str
        Of a new run.
    tags : mapping of str to str
        Of the run.
    same : sequence of str
        The tags that say whether it is the same run.
    params : mapping, optional
        Its parameters. MLflow keeps the first value of a parameter for good, so a run with other
        ones is left alone, and a new one begun.
    """
    import mlflow

    api, experiment = client(settings), experiment_id(spec, settings)
    where = " and ".join(f"tags.`{tag}` = '{tags[tag]}'" for tag in same)
    found = api.search_runs([experiment], where, max_results=1)
    names = accepted_names(params or {})
    wanted = {names[key]: str(value) for key, value in (params or {}).items()}
    if found and any(
        wanted.get(key, value) != value for key, value in found[0].data.params.items()
    ):
        found = []
    with mlflow.start_run(
        run_id=found[0].info.run_id if found else None,
        experiment_id=None if found else experiment,
        run_name=None if found else name,
        tags=dict(tags),
    ) as run:
        made = Run(settings, run.info.run_id, experiment)
        mlflow.log_params(wanted, run_id=made.run_id)
        yield made


def finished_run(
    spec: ModelSpec, settings: Settings, tags: Mapping[str, str]
) -> tuple[str, str, dict[str, str]] | None:
    """Give experiment, run id and tags of a finished run with these tags, or None."""
    experiment = experiment_id(spec, settings)
    where = " and ".join(f"tags.`{tag}` = '{tags[tag]}'" for tag in tags)
    where += " and attributes.status = 'FINISHED'"
    found = client(settings).search_runs([experiment], where, max_results=1)
    if not found:
        return None
    return experiment, str(found[0].info.run_id), dict(found[0].data.tags)


def remove_runs(spec: ModelSpec, settings: Settings, tags: Mapping[str, str]) -> None:
    """Delete the runs with these tags. MLflow hides them; ``mlflow gc`` frees what they hold."""
    api, experiment = client(settings), experiment_id(spec, settings)
    where = " and ".join(f"tags.`{tag}` = '{tags[tag]}'" for tag in tags)
    while found := api.search_runs([experiment], where, max_results=RUNS_AT_ONCE):
        for run in found:
            api.delete_run(run.info.run_id)


def log_to_run(
    settings: Settings,
    run_id: str,
    *,
    metrics: Mapping[str, float | None] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Add numbers and texts to a run that is finished."""
    api = client(settings)
    for name, value in (metrics or {}).items():
        if value is not None:
            api.log_metric(run_id, name, value)
    for name, text in (texts or {}).items():
        api.log_text(run_id, text, name)


# --- artifacts ------------------------------------------------------------------------------------


def run_uri(run_id: str, name: str) -> str:
    """Give the address of an artifact of a run."""
    return f"runs:/{run_id}/{name}"


def version_uri(model: str, number: int, name: str = "") -> str:
    """Give the address of a version's artifact, or of one file in it."""
    return f"models:/{model}/{number}/{name}".rstrip("/")


def read_artifact(settings: Settings, uri: str, file: str = "") -> bytes:
    """Give the bytes of an artifact, or of one file in the folder that it is.

    Raises
    ------
    RegistryError
        It is not there.
    Unavailable
        Whoever keeps it does not answer.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    client(settings)
    try:
        with tempfile.TemporaryDirectory() as folder:  # without one, MLflow leaves its copy behind
            path = mlflow.artifacts.download_artifacts(uri, dst_path=folder)
            return Path(path, file).read_bytes() if file else Path(path).read_bytes()
    except (MlflowException, OSError) as error:
        if is_trouble(error):
            raise Unavailable(
                f"{uri} cannot be fetched, its artifact store does not answer: {error}. See to the "
                "store, then clear the task"
            ) from error
        raise RegistryError(f"{uri} is not there: {error}") from error


def read_model(settings: Settings, uri: str) -> dict[str, bytes]:
    """Give the files of a model that MLflow keeps, whoever logged it, by their path in its folder.

    Raises
    ------
    RegistryError
        It is not there, or is no model of MLflow's.
    Unavailable
        Whoever keeps it does not answer.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    client(settings)
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
            paths = sorted(path for path in root.rglob("*") if path.is_file())
            found = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    except (MlflowException, OSError) as error:
        if is_trouble(error):
            raise Unavailable(
                f"{uri} cannot be fetched, its artifact store does not answer: {error}. See to the "
                "store, then run this again"
            ) from error
        raise RegistryError(
            f"{uri} is not there: {error}. Name a model as MLflow does: models:/NAME/VERSION, "
            "models:/NAME@ALIAS or runs:/RUN_ID/PATH"
        ) from error
    if MODEL_DESCRIPTION not in found:
        raise RegistryError(
            f"{uri} is no model of MLflow's: it has no file {MODEL_DESCRIPTION}; log it with the "
            "log_model of its library"
        )
    return found


class OpenModel(NamedTuple):
    """A model of MLflow's that can be asked."""

    model: Any
    flavor: str  # whose object it is; ``pyfunc``: MLflow's own, with `predict` alone
    inputs: tuple[tuple[str, str], ...] | None  # name and type of each column; None: it says none


def open_model(folder: Path) -> OpenModel:
    """Load a model from the folder that MLflow keeps it in, as the object of its own library.

    That object gives probabilities, where MLflow's own wrapper may give classes. Without one, or
    where it has no `predict_proba`, it is the wrapper. Loading runs code that the files hold.

    Raises
    ------
    Exception
        Whatever its library raises, for one that is not installed as well.
    """
    import mlflow
    from mlflow.models import Model

    about = Model.load(str(folder))
    schema = about.get_input_schema()
    inputs = None
    if schema is not None and schema.has_input_names():
        inputs = tuple((str(one.name), str(getattr(one, "type", ""))) for one in schema.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that are a little apart
        for flavor in about.flavors:
            loader = getattr(getattr(mlflow, flavor, None), "load_model", None)
            if flavor == "python_function" or loader is None:
                continue
            with contextlib.suppress(Exception):  # the wrapper says what it lacks
                found = loader(str(folder))
                if hasattr(found, "predict_proba") or hasattr(found, "n_features_in_"):
                    return OpenModel(found, flavor, inputs)
        return OpenModel(mlflow.pyfunc.load_model(str(folder)), "pyfunc", inputs)


def model_size(settings: Settings, model: str, number: int) -> int | None:
    """Give the size of a version's artifact in bytes, as MLflow recorded it; None: unknown."""
    import yaml

    try:
        found = yaml.safe_load(read_artifact(settings, f"{version_uri(model, number)}/MLmodel"))
        return int(found["model_size_bytes"])
    except (RegistryError, Unavailable, yaml.YAMLError, KeyError, TypeError, ValueError):
        return None


# --- registered models ----------------------------------------------------------------------------


def create_model(spec: ModelSpec, settings: Settings) -> None:
    """Create the registered model, if it is not there."""
    from mlflow.exceptions import MlflowException

    try:
        client(settings).create_registered_model(spec.model, description=spec.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def create_version(
    spec: ModelSpec, settings: Settings, logged: LoggedModel, *, run_id: str, tags: dict[str, str]
) -> int:
    """Register a logged model as the next version; give its number."""
    made = client(settings).create_model_version(
        spec.model, logged.uri, run_id=run_id, tags=tags, model_id=logged.model_id
    )
    return int(made.version)


def delete_version(spec: ModelSpec, settings: Settings, number: int) -> None:
    """Delete a version; one that is not there is no error."""
    from mlflow.exceptions import MlflowException

    try:
        client(settings).delete_model_version(spec.model, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def aliases(spec: ModelSpec, settings: Settings) -> dict[str, int]:
    """Give all aliases of the model; empty before its first version."""
    found = _registered(spec, settings)
    return {name: int(number) for name, number in found.aliases.items()} if found else {}


def model_tags(spec: ModelSpec, settings: Settings) -> dict[str, str]:
    """Give the tags of the registered model itself; empty where there is none."""
    found = _registered(spec, settings)
    return dict(found.tags) if found else {}


def _registered(spec: ModelSpec, settings: Settings) -> RegisteredModel | None:
    """Give the registered model; None where MLflow says that there is none.

    Raises
    ------
    Unavailable
        The answer is not MLflow's, or is about no model, or about another.
    """
    from mlflow.exceptions import MlflowException

    what = f"the registered model {spec.model}"
    try:
        with reading(what):
            found = client(settings).get_registered_model(spec.model)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    _require_same(what, spec.model, found.name)
    return found


def set_model_tag(spec: ModelSpec, settings: Settings, name: str, value: str) -> None:
    """Set a tag of the registered model itself."""
    client(settings).set_registered_model_tag(spec.model, name, value)


def find_version(spec: ModelSpec, settings: Settings, number: int) -> MLflowVersion | None:
    """Give a version as MLflow describes it; None where the registry has none of that number."""
    from mlflow.exceptions import MlflowException

    what = f"version {number} of {spec.model}"
    try:
        with reading(what):
            found = client(settings).get_model_version(spec.model, str(number))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    _require_same(what, (spec.model, str(number)), (found.name, str(found.version)))
    return found


def versions_with(spec: ModelSpec, settings: Settings, tags: Mapping[str, str]) -> list[Any]:
    """Give the versions of the model that have these tags, newest first."""
    where = [f"name = '{spec.model}'", *(f"tags.`{name}` = '{tags[name]}'" for name in tags)]
    what = f"versions of {spec.model}"
    with reading(what):
        found = client(settings).search_model_versions(" and ".join(where))
    for one in found:
        _require_same(what, spec.model, one.name)
    if not found:  # MLflow's answer is empty then, as a proxy's may be: it tells by the model
        _registered(spec, settings)
    return sorted(found, key=lambda version: -int(version.version))


def set_tags(spec: ModelSpec, settings: Settings, number: int, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    api = client(settings)
    for name, value in tags.items():
        api.set_model_version_tag(spec.model, str(number), name, value)


def set_alias(spec: ModelSpec, settings: Settings, alias: str, number: int | None) -> None:
    """Point an alias at a version, or at none."""
    api = client(settings)
    if number is None:
        api.delete_registered_model_alias(spec.model, alias)
    else:
        api.set_registered_model_alias(spec.model, alias, str(number))


def set_stage(spec: ModelSpec, settings: Settings, number: int, stage: str) -> None:
    """Make the stage of a version follow its alias."""
    with warnings.catch_warnings():
        # stages are deprecated in MLflow, but they are what its UI and many readers still show
        warnings.filterwarnings("ignore", message=".*[Ss]tage", category=FutureWarning)
        client(settings).transition_model_version_stage(spec.model, str(number), stage)


def describe_version(spec: ModelSpec, settings: Settings, number: int, text: str) -> None:
    """Write the description of a version."""
    client(settings).update_model_version(spec.model, str(number), description=text)
