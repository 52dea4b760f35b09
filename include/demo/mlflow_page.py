"""MLflow's own server behind a login, for the embedded set-up: ``mlflow_page HOME PORT``.

MLflow listens on loopback without a login, where every user of the machine reaches it, and lets
them register models. Here it asks for the login of Airflow's ``admin``, and takes requests for its
own address alone. Behind it all is as ``mlflow server`` has it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from include.retraining.settings import Settings

Application = Callable[[Any, Any, Any], Awaitable[None]]


class Login:
    """An ASGI application behind HTTP's basic login, for its own pages. Its health is told to all.

    :param application: what is behind it.
    :param origins: of its own pages. MLflow itself would take those of any port of this machine.
    :param passwords: a JSON file of user: password, read at each request: Airflow makes it when it
        first starts.
    """

    def __init__(
        self, application: Application, passwords: Path, *, origins: frozenset[str]
    ) -> None:
        self.application = application
        self.origins = origins
        self.passwords = passwords

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "websocket":  # the page has none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "lifespan" or scope["path"] == "/health":
            await self.application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not self._is_known(headers.get(b"authorization", b"")):
            ask = (b"www-authenticate", b'Basic realm="MLflow"')
            await _refuse(send, 401, ask)
        elif b"origin" in headers and headers[b"origin"].decode("latin-1") not in self.origins:
            await _refuse(send, 403)
        else:
            await self.application(scope, receive, send)

    def _is_known(self, authorization: bytes) -> bool:
        kind, _, given = authorization.partition(b" ")
        try:
            user, _, password = base64.b64decode(given).decode().partition(":")
            known = json.loads(self.passwords.read_text())
        except (binascii.Error, UnicodeDecodeError, FileNotFoundError):
            return False
        expected = known.get(user)
        return (
            kind.lower() == b"basic"
            and bool(expected)
            and hmac.compare_digest(password.encode(), str(expected).encode())
        )


async def _refuse(send: Any, status: int, *headers: tuple[bytes, bytes]) -> None:
    start = {"type": "http.response.start", "status": status}
    await send(start | {"headers": [*headers, (b"content-length", b"0")]})
    await send({"type": "http.response.body"})


def main(home: str, port: str) -> None:
    """Serve until it is ended."""
    settings = Settings(home=Path(home))
    address = f"127.0.0.1:{port}"
    os.environ["MLFLOW_SERVER_ALLOWED_HOSTS"] = f"{address},localhost:{port}"
    origins = frozenset({f"http://{address}", f"http://localhost:{port}"})
    os.environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(sorted(origins))
    import uvicorn
    from mlflow import server

    os.environ[server.BACKEND_STORE_URI_ENV_VAR] = settings.mlflow_tracking_uri
    os.environ[server.ARTIFACT_ROOT_ENV_VAR] = settings.mlflow_artifact_uri
    from mlflow.server.fastapi_app import app

    passwords = settings.home / "airflow" / "passwords.json"
    page = Login(app, passwords, origins=origins)
    uvicorn.run(page, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
