"""How models are: one at length, or all of them in a table, what is due first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from include.retraining.cli.answer import Json, aside, for_people, for_programs, table
from include.retraining.cli.subject import model_named, state_there_is
from include.retraining.cli.work import work
from include.retraining.errors import RetrainingError, Unavailable
from include.retraining.records import Performance, Record
from include.retraining.spec import MODELS_DIR, ModelSpec, load_specs
from include.retraining.telling.escapes import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from include.retraining.settings import Settings
    from include.retraining.telling.status import Status

STYLE = {True: "green", False: "bold red", None: "yellow"}


class Unreadable(Record):
    """Takes the place of a status that cannot be read."""

    model: str
    error: str


def status(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="default: all", show_default=False)
    ] = None,
    as_json: Json = False,
    registry: Annotated[
        bool,
        typer.Option("--registry", help="ask MLflow whether the alias was moved by hand"),
    ] = False,
) -> int:
    """What is in production, is it well, what do I do?

    Without MODEL: all of them, what is due first.

    The exit status is 1 if a model is not well, or its status cannot be read.
    """
    if model is None:
        return _status_of_all(as_json=as_json, registry=registry)
    spec, settings = model_named(model), state_there_is()
    with work():
        from include.retraining.telling.status import render, status_of

        found = status_of(spec, settings, registry=registry)
    if as_json:
        for_programs(found)
    else:
        for_people(render(found))
    return 1 if found.well is False else 0


def _status_of_all(*, as_json: bool, registry: bool) -> int:
    specs, errors = load_specs()
    aside(*errors)
    settings = state_there_is()
    if not specs:
        raise RetrainingError(f"no model files in {MODELS_DIR}; add one (docs/adopting-a-model.md)")
    with work(f"looking at {len(specs)} models"):
        found = sorted((_look(spec, settings, registry=registry) for spec in specs), key=_urgency)
    if as_json:
        for_programs(found)
    else:
        for_people(_as_table(found))
    return 1 if any(isinstance(one, Unreadable) or one.well is False for one in found) else 0


def _look(spec: ModelSpec, settings: Settings, *, registry: bool) -> Status | Unreadable:
    from include.retraining.telling.status import status_of

    try:
        return status_of(spec, settings, registry=registry)
    except (RetrainingError, Unavailable) as error:
        return Unreadable(model=spec.model, error=str(error))
    except Exception as error:  # noqa: BLE001 - one broken model never hides the others
        return Unreadable(model=spec.model, error=f"{type(error).__name__}: {error}")


def _urgency(found: Status | Unreadable) -> tuple[int, str]:
    if isinstance(found, Unreadable):
        return 0, found.model
    return {False: 1, None: 2, True: 3}[found.well], found.model


def _as_table(found: Sequence[Status | Unreadable]) -> Table:
    from rich.text import Text

    rows = table(
        "model", "version", "since", "well", "now / promised", "batch", "verdict",
        "next step", numbers=("version",), prose=("well", "now / promised", "next step"),
    )  # fmt: skip
    for one in found:
        if isinstance(one, Unreadable):
            error = Text(one_line(one.error), "red")
            rows.add_row(one.model, "-", "-", Text("error", "bold red"), "-", "-", "-", error)
            continue
        rows.add_row(
            one.model,
            "-" if one.version is None else str(one.version),
            f"{one.since.astimezone(dt.UTC):%Y-%m-%d}" if one.since else "-",
            Text(one_line(one.word), STYLE[one.well]),
            _performance(one.performance, one.promise),
            one.newest_batch or "-",
            one.verdict.outcome if one.verdict else "-",
            one.advice[0],
        )
    return rows


def _performance(now: Performance | None, promised: Performance | None) -> str:
    known = now or promised
    if known is None:
        return "-"
    values = [f"{one.value:.3f}" if one else "-" for one in (now, promised)]
    return f"{known.metric} {' / '.join(values)}"
