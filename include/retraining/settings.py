"""Where everything is: storage, MLflow, Feast. One prefix, and defaults that need nothing.

Without settings, all state is below ``var/demo`` of the checkout: what ``make demo`` and
``make up`` use.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from include.retraining.errors import SpecError, did_you_mean

REPOSITORY = Path(__file__).resolve().parents[2]
PREFIX = "RETRAINING_"


SERVICE_LINK = re.compile(rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\w+)?)")

log = logging.getLogger(__name__)


class Settings(BaseModel):
    """Addresses of the systems a run works on; read from the environment when a task starts.

    Each field is the environment variable ``RETRAINING_<FIELD>``. Credentials are not among them:
    on ``s3://`` every library in use reads the standard ``AWS_*`` variables, which a task sets from
    Airflow's connection.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = REPOSITORY / "var" / "demo"
    storage_url: str = ""
    storage_page_url: str = ""
    mlflow_tracking_uri: str = ""
    mlflow_artifact_uri: str = ""
    mlflow_url: str = "http://127.0.0.1:5000"
    feast_registry: str = ""
    feast_online_store: str = ""
    commit: str = ""
    max_retrains_per_hour: int = Field(default=20, ge=1)
    preload: bool = True
    plugins: Path = REPOSITORY / "plugins"

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("storage_url")
    @classmethod
    def _known(cls, value: str) -> str:
        scheme, _, place = value.partition("://")
        if value and not (place and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme)):
            raise ValueError("must be a URL, such as file:///folder or s3://bucket/prefix")
        if value and scheme not in {"file", "s3"}:
            from fsspec import available_protocols

            if scheme not in available_protocols():
                raise ValueError(
                    f"no storage is known by {scheme}://; use file:///folder or s3://bucket/prefix"
                )
        return value

    def model_post_init(self, context: Any, /) -> None:  # noqa: ARG002 - pydantic's signature
        """Fill what was left empty with the embedded defaults below `home`."""
        defaults = {
            # no as_uri(): fsspec and Feast take %20 literally, and a home may hold a space
            "storage_url": f"file://{self.home / 'storage'}",
            "mlflow_tracking_uri": f"sqlite:///{self.home / 'mlflow.db'}",
            "mlflow_artifact_uri": (self.home / "mlflow-artifacts").as_uri(),
            "feast_registry": f"sqlite:///{self.home / 'feast-registry.db'}",
            "feast_online_store": json.dumps(
                {"type": "sqlite", "path": str(self.home / "feast-online.db")}
            ),
        }
        defaults["storage_page_url"] = self.storage_url or defaults["storage_url"]
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Read the settings from the environment; `overrides` win.

        Raises
        ------
        SpecError
            A variable with the prefix names no setting, or its value is none.
        """
        environ = os.environ if environ is None else environ
        given: dict[str, Any] = {}
        for variable, value in environ.items():
            if not variable.startswith(PREFIX) or not value:  # Compose passes unset ones as ""
                continue
            if SERVICE_LINK.fullmatch(variable):
                log.warning("%s: left out, Kubernetes says by it where a service is", variable)
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in cls.model_fields:
                known = [PREFIX + field.upper() for field in cls.model_fields]
                raise SpecError(f"{variable}: unknown setting{did_you_mean(variable, known)}")
            given[name] = value
        try:
            return cls.model_validate(given | overrides)
        except ValidationError as error:
            first = error.errors()[0]
            name = "_".join(str(part) for part in first["loc"]).upper()
            raise SpecError(f"{PREFIX}{name}: {first['msg']}, got {first['input']!r}") from error
