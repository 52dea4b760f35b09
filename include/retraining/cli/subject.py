"""What a command is about: a model, the state of a home, a moment."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from include.retraining.cli.answer import aside
from include.retraining.errors import RetrainingError, SpecError, did_you_mean
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec, load_specs

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="as its file calls it", show_default=False)
]
Partition = Annotated[
    str, typer.Argument(metavar="PARTITION", help="such as 2013-01-14", show_default=False)
]
Version = Annotated[
    int, typer.Option("--version", metavar="N", help="as MLflow counts them", show_default=False)
]


def model_named(name: str) -> ModelSpec:
    """Give the model of that name; raises SpecError, with the nearest name there is."""
    specs, errors = load_specs()
    for spec in specs:
        if spec.model == name:
            return spec
    aside(*errors)
    known = [spec.model for spec in specs]
    raise SpecError(f"no model {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")


def state_there_is() -> Settings:
    """Give the settings; says so where nothing has run yet, instead of making empty databases."""
    settings = Settings.from_env()
    local = settings.storage_url.startswith("file://")
    if local and not Path(settings.storage_url.removeprefix("file://")).exists():
        raise RetrainingError(
            f"nothing at {settings.storage_url}; run `make demo` first, or set RETRAINING_HOME"
        )
    storage_can_hold(settings)
    return settings


def storage_can_hold(settings: Settings) -> None:
    """Refuse a store on which nothing could be made sure to happen once."""
    if not settings.storage_url.startswith("file://"):
        from include.retraining.storage import Storage

        Storage.of(settings).require_one_winner()


def moment(text: str) -> dt.datetime:
    """Read a time; UTC unless it says otherwise.

    >>> moment("2013-02-04T12:00").isoformat()
    '2013-02-04T12:00:00+00:00'
    """
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"must be an ISO 8601 time such as 2013-02-04T12:00, got {text!r}"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
