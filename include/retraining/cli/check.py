"""Is all as it should be: model files, online features, a version trained again."""

from __future__ import annotations

import datetime as dt
import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from include.retraining.cli import model_file, rehearsal
from include.retraining.cli.answer import Json, aside, for_people, for_programs, table
from include.retraining.cli.settings_table import settings_table
from include.retraining.cli.subject import (
    Model,
    Version,
    model_named,
    moment,
    state_there_is,
    storage_can_hold,
)
from include.retraining.cli.work import work
from include.retraining.errors import RetrainingError
from include.retraining.settings import Settings
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec


def lint(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES", help="or models; default: include/models/*.yaml", show_default=False
        ),
    ] = None,
    *,
    landed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[INPUT=]FILE", show_default=False,
            help="also tell what would happen to this file if it landed; of a companion: its "
            "name=file; may be given several times",
        ),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            metavar="PARTITION", show_default=False,
            help="whose file it is; default: as its name says",
        ),
    ] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Find what would fail at run time, in all model files or those given.

    Settings, features, feature tables, estimator and its parameters, schedule, and suites. A store
    that is no folder is asked whether of two writers one wins. The exit status is 1 if a file is
    wrong. With --landed, which takes one model, rows of a real file are held against it too;
    nothing is published.
    """
    paths = [model_file.file_of(one) for one in files or ()]
    paths = paths or sorted(MODELS_DIR.glob("*.y*ml"))
    if landed and len(paths) != 1:
        raise RetrainingError(f"--landed: name the one model that it is for, got {len(paths)}")
    with work(f"checking {len(paths)} model files"):
        found = model_file.findings(paths)
        _ask_storage()
    if landed and not any(found.values()):
        return _rehearse(load_spec(paths[0]), landed, partition, as_json=as_json)
    errors = [error for some in found.values() for error in some]
    count, fine = len(paths), sum(not some for some in found.values())
    if as_json:
        for_programs(
            {
                "files": count,
                "fine": fine,
                "findings": [
                    {"path": error.path, "line": error.line or None, "message": str(error)}
                    for error in errors
                ],
            }
        )
    else:
        aside(*errors)
    if count == 0:
        aside(f"no model files in {MODELS_DIR}")
        return 1
    if not as_json:
        for_people(f"{fine} of {count} model files are fine")
    return 1 if errors else 0


def _ask_storage() -> None:
    """Refuse a store that lets two writers create one object; one that is out of reach is told."""
    settings = Settings.from_env()
    try:
        storage_can_hold(settings)
    except RetrainingError:
        raise
    except Exception as error:  # noqa: BLE001 - of boto, aiohttp or the system, by what went wrong
        aside(
            f"{settings.storage_url} was not asked whether one of two writers wins: "
            f"{type(error).__name__}: {error}"
        )


def _rehearse(spec: ModelSpec, landed: list[str], partition: str | None, *, as_json: bool) -> int:
    files = {}
    for one in landed:
        name, _, path = one.rpartition("=") if not Path(one).exists() else ("", "", one)
        files[name or "batch"] = Path(path)
    with work(f"rehearsing {', '.join(landed)}"):
        found = rehearsal.rehearse(spec, files, partition)
    if as_json:
        for_programs(found.model_dump(mode="json") | {"fine": found.is_fine})
    else:
        for_people(*rehearsal.render(found))
    return 0 if found.is_fine else 1


def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="a table for people instead")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="as it is without")] = False,
) -> int:
    """Print the JSON schema of a model file, for editors."""
    if markdown and as_json:
        raise RetrainingError("--markdown and --json: give one of them, got both")
    typer.echo(
        settings_table() if markdown else json.dumps(ModelSpec.model_json_schema(), indent=2)
    )
    return 0


def skew(
    model: Model,
    *,
    at: Annotated[
        dt.datetime | None,
        typer.Option(
            parser=moment, metavar="TIME", show_default=False,
            help="ISO 8601, UTC unless it says otherwise; default: the end of the newest batch",
        ),
    ] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Are online features those of training, how old are they, and were they there in time?

    They are compared for keys and rows of the newest batch; the exit status is 1 if something is
    wrong.
    """
    spec, settings = model_named(model), state_there_is()
    with work(f"asking the online store of {spec.model}"):
        from include.retraining.data.publication import newest_published, rows_in_force
        from include.retraining.features.skew import check_skew
        from include.retraining.storage import Storage

        newest = newest_published(spec, rows_in_force(spec, Storage.of(settings)))
        if newest is None:
            raise RetrainingError(f"{spec.model} has no published batch; run {spec.model}__ingest")
        report = check_skew(spec, settings, newest, at=at)
    if as_json:
        problems = {"problems": report.problems}
        for_programs({"model": spec.model} | report.model_dump(mode="json") | problems)
        return 1 if report.problems else 0
    if report.nothing:
        for_people(report.nothing)
        return 0
    rows = table(
        "feature", "compared", "differ", "expired", "ahead", "age",
        numbers=("compared", "differ", "expired", "ahead"), prose=("age",),
    )  # fmt: skip
    for one in report.features:
        age = "computed on request" if one.age_hours is None else f"{one.age_hours:,.1f} h old"
        limit = f", ttl {one.ttl_hours:,.1f} h" if one.ttl_hours is not None else ""
        counts = (f"{count:,}" for count in (one.compared, one.differing, one.expired, one.ahead))
        rows.add_row(one.name, *counts, f"{age}{limit}")
    for_people(
        f"{spec.model}, {report.keys:,} keys of {report.batch.partition}, as of {report.at}; "
        f"ahead of time, of {report.rows:,} rows",
        rows,
        "\n".join(report.problems) or "online is as offline, young enough, and was there in time",
    )
    return 1 if report.problems else 0


def reproduce(model: Model, *, version: Version, as_json: Json = False) -> int:
    """Train a version again; 0: it comes out the same, 1: it does not."""
    spec, settings = model_named(model), state_there_is()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("include.retraining.learning.estimator").setLevel(logging.INFO)
    with work():
        from include.retraining.retrain import reproduction

        found = reproduction.reproduce(spec, settings, version, tell=aside)
    if as_json:
        for_programs(found.model_dump(mode="json") | {"equal": found.equal})
    else:
        for_people(reproduction.render(found))
    return 0 if found.equal else 1
