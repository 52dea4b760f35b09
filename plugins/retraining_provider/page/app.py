"""The endpoints behind the page "Models": what the records say, as JSON, to who may read it.

Every route asks for a login, the script's own among them. A user sees the models whose monitor he
may read; of any other the answer is the same as of one that does not exist. All are GET and change
nothing: what the page starts, it starts at Airflow's own REST API, as the user.

``include`` is imported when the first one asks, in the API server alone: a plugin is loaded by
every part of Airflow, and a task has the ``include`` of its bundle's version.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import sys
from collections.abc import Callable, Hashable
from functools import cache, lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from fastapi import Depends, FastAPI, HTTPException, Request, Response

from retraining_provider.page.answers import Answers

if TYPE_CHECKING:
    from include.retraining.settings import Settings
    from include.retraining.spec import ModelSpec, SpecFiles

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("page.js")
ROOT = Path(__file__).resolve().parents[3]  # of the checkout that the plugins are from
SECONDS = 2.0  # that a browser waits for an answer

_rows: Answers[Any] = Answers(threads=8, fresh_seconds=10, stale_seconds=3600)
_numbers: Answers[Any] = Answers(threads=4, fresh_seconds=10, stale_seconds=60)
_pages: Answers[Any] = Answers(threads=4, fresh_seconds=3, stale_seconds=3)

# no documentation of the endpoints: its pages would ask for no login
app = FastAPI(
    title="Models",
    dependencies=[Depends(get_user)],
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
)


def readable_dags(user: GetUserDep) -> set[str]:
    """Give the ids of the DAGs that the user may read."""
    return set(get_auth_manager().get_authorized_dag_ids(user=user, method="GET"))


ReadableDags = Annotated[set[str], Depends(readable_dags)]


@app.get("/page.js")
def script(request: Request) -> Response:
    """Give the script that draws the page; a browser that has it is told so."""
    content, tag = _script(SCRIPT)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, media_type="text/javascript", headers=headers)


@app.get("/fleet")
def fleet(readable: ReadableDags) -> Response:
    """Give one row a model, what is due first.

    Rows of before are given at once, with their time, while new ones are made. A model that was
    never read, nor is within two seconds, has a row that says so.
    """
    files = _spec_files()
    from include.retraining.telling import page

    specs = [spec for spec in files.specs if _monitor(spec) in readable]
    found = _rows.ask({spec.model: _row_of(spec) for spec in specs}, seconds=SECONDS)
    rows = [found[spec.model] if spec.model in found else page.not_read_yet(spec) for spec in specs]
    # a wrong file can be of a model that this user may not see
    problems = [str(one) for one in files.errors] if len(specs) == len(files.specs) else []
    return _json(page.fleet(rows, at=dt.datetime.now(dt.UTC), problems=problems))


@app.get("/metrics")
def metrics(readable: ReadableDags) -> Response:
    """Give the numbers of the models that the user may see, as a Prometheus reads them."""
    specs = [spec for spec in _spec_files().specs if _monitor(spec) in readable]
    from include.retraining.telling import gauges

    found = _numbers.ask({spec.model: _numbers_of(spec) for spec in specs}, seconds=SECONDS)
    content = gauges.as_openmetrics((spec.model, found.get(spec.model)) for spec in specs)
    return Response(content, headers={"Cache-Control": "no-store"}, media_type=gauges.CONTENT_TYPE)


@app.get("/models/{model}")
def model(model: str, readable: ReadableDags) -> Response:
    """Give what there is to show of one model."""
    spec = _spec_of(model, readable)

    def make() -> Any:
        from include.retraining.telling.model_page import model_page

        return model_page(spec, _settings(), at=dt.datetime.now(dt.UTC))

    return _answer(("model", model), make)


@app.get("/models/{model}/batches/{partition}")
def batch(model: str, partition: str, readable: ReadableDags) -> Response:
    """Give the story of one batch."""
    spec = _spec_of(model, readable)
    from include.retraining.errors import SpecError

    try:
        spec.batch_ref(partition)
    except SpecError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from error

    def make() -> Any:
        from include.retraining.telling.batch_page import batch_page

        return batch_page(spec, _settings(), partition, at=dt.datetime.now(dt.UTC))

    return _answer(("batch", model, partition), make)


@app.get("/{path:path}")
def nothing(path: str) -> Response:  # noqa: ARG001 - FastAPI's signature
    """Answer for every other address: behind the same login as all that is there."""
    raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such page")


def _answer(key: Hashable, make: Callable[[], Any]) -> Response:
    """Give an answer that is made within two seconds; else say that it is not there yet."""
    try:
        found = _pages.ask({key: make}, seconds=SECONDS)
    except Exception as error:
        from include.retraining.telling.page import in_words

        told = f"the records cannot be read: {in_words(error)}"
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, told) from error
    if key not in found:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"the storage has not answered within {SECONDS:.0f} seconds; it is still being asked",
            headers={"Retry-After": "1"},
        )
    return _json(found[key])


def _row_of(spec: ModelSpec) -> Callable[[], Any]:
    def make() -> Any:
        from include.retraining.telling.page import fleet_row, in_words, unknown

        at = dt.datetime.now(dt.UTC)
        try:
            settings = _settings()
        except Exception as error:  # noqa: BLE001 - a connection that is wrong is told in the row
            return unknown(spec, in_words(error), at=at)
        return fleet_row(spec, settings, at=at)

    return make


def _numbers_of(spec: ModelSpec) -> Callable[[], Any]:
    def make() -> Any:
        from include.retraining.telling.gauges import of_model

        try:
            return of_model(spec, _settings())
        except Exception:
            log.warning("%s: its numbers cannot be read", spec.model, exc_info=True)
            return None  # a number of its own says so

    return make


def _spec_of(model: str, readable: set[str]) -> ModelSpec:
    """Give a model that the user may read; 404 for any other."""
    for spec in _spec_files().specs:
        if spec.model == model and _monitor(spec) in readable:
            return spec
    raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such model, or you may not read its DAG")


def _monitor(spec: ModelSpec) -> str:
    from include.retraining.names import dag_id

    return dag_id(spec.model, "monitor")


def _spec_files() -> SpecFiles:
    """Read the model files of the checkout that the plugins are from, where one has changed."""
    _import_from_checkout()
    from include.retraining.spec import MODELS_DIR

    found = ((path, path.stat()) for path in sorted(MODELS_DIR.glob("*.y*ml")))
    return _read_specs(tuple((str(path), at.st_mtime_ns, at.st_size) for path, at in found))


@lru_cache(maxsize=1)
def _read_specs(files: tuple[tuple[str, int, int], ...]) -> SpecFiles:  # noqa: ARG001 - the key
    from include.retraining.spec import load_specs

    return load_specs()


@cache
def _import_from_checkout() -> None:
    """Let this process import ``include``: behind whatever path it has already."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))


def _settings() -> Settings:
    from retraining_provider.hooks.retraining import RetrainingHook

    return RetrainingHook().settings()


@cache
def _script(path: Path) -> tuple[bytes, str]:
    content = path.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def _json(record: Any) -> Response:
    from include.retraining.telling.page import as_json

    return Response(
        as_json(record),
        media_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )
