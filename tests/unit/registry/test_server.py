"""What answers in MLflow's place: a proxy, a gateway, a page to log in."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator

import pytest
from mlflow.exceptions import MlflowException, RestException
from retraining_provider import defaults

from include.retraining.errors import RegistryError, Unavailable
from include.retraining.registry import server, versions
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, load_spec

SPEC = load_spec(MODELS_DIR / "flights.yaml")
PAGE = "<html><body><h1>nginx</h1></body></html>"
GONE = '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "flights not found"}'
READERS = {
    "champion": lambda settings: versions.champion(SPEC, settings),
    "version": lambda settings: versions.find(SPEC, settings, 1),
    "versions": lambda settings: versions.all_versions(SPEC, settings),
    "tags": lambda settings: server.model_tags(SPEC, settings),
    "experiment": lambda settings: server.experiment_id(SPEC, settings),
    "run": lambda settings: server.run_data(settings, "r"),
}
Answering = Callable[[int, str], Settings]


@pytest.fixture
def answering(tmp_path, monkeypatch) -> Iterator[Answering]:
    """Give settings of an MLflow server that gives the same answer to whatever it is asked."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    given: dict[str, tuple[int, bytes]] = {}

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = given["answer"]
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - as http.server calls it

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()

        def answer(code: int, body: str) -> Settings:
            given["answer"] = code, body.encode()
            uri = f"http://127.0.0.1:{proxy.server_port}"
            return Settings(home=tmp_path, mlflow_tracking_uri=uri)

        yield answer
        proxy.shutdown()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("code", "body"),
    [
        (404, PAGE),
        (401, PAGE),
        (403, "Permission denied"),
        (302, PAGE),
        (404, '{"detail": "Not Found"}'),
        (404, '{"error_code": 404, "message": "no route"}'),
        (200, PAGE),
        (200, ""),
        (200, "{}"),
        (200, '{"registered_model": {"name": "other"}, "model_version": {"name": "other"}}'),
    ],
)
def test_an_answer_that_is_not_mlflows_is_trouble_on_the_way_and_no_answer(
    answering, reader, code, body
):
    with pytest.raises(Unavailable, match=r"the answer is not MLflow's: .* a proxy") as caught:
        READERS[reader](answering(code, body))
    assert server.is_trouble(caught.value)
    assert not server.is_refusal(caught.value)
    assert defaults._RETRIES.evaluate(caught.value, 1, 3).action.name != "FAIL"


def test_what_mlflow_says_itself_counts(answering):
    there_is_none = answering(404, GONE)
    assert READERS["champion"](there_is_none) is READERS["version"](there_is_none) is None
    assert READERS["tags"](there_is_none) == {}
    with pytest.raises(RegistryError, match="has no run 'r' any more"):
        READERS["run"](there_is_none)
    empty = answering(200, '{"registered_model": {"name": "flights"}}')
    assert READERS["versions"](empty) == []
    assert READERS["champion"](empty) is None
    refusing = answering(403, '{"error_code": "PERMISSION_DENIED", "message": "not yours"}')
    with pytest.raises(RestException) as caught:
        READERS["champion"](refusing)
    assert server.is_refusal(caught.value)


def test_what_is_written_through_a_proxy_that_refuses_may_be_tried_again(answering):
    with (
        pytest.raises(Unavailable, match="asked for the promotion, and the answer is not MLflow's"),
        server.writing("the promotion"),
    ):
        server.set_alias(SPEC, answering(404, PAGE), "champion", 1)


@pytest.mark.parametrize(
    ("told", "is_trouble"),
    [
        ("404 Client Error: Not Found for url: x. Response text: <html>", True),
        (f"404 Client Error: Not Found for url: x. Response text: {GONE}", False),
        ("too many 429 error responses", True),
    ],
)
def test_an_artifact_is_gone_only_where_mlflow_says_so(told, is_trouble):
    assert server.is_trouble(MlflowException(told)) is is_trouble
