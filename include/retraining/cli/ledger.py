"""What was in production when, and why; and the way back."""

from __future__ import annotations

import datetime as dt
import getpass
from pathlib import Path
from typing import Annotated

import typer

from include.retraining.cli.answer import Json, aside, for_people, for_programs, table
from include.retraining.cli.subject import Model, Version, model_named, moment, state_there_is
from include.retraining.cli.work import work
from include.retraining.errors import RetrainingError


def show(
    model: Model,
    *,
    at: Annotated[
        dt.datetime | None,
        typer.Option(
            parser=moment, metavar="TIME", help="ISO 8601, UTC unless it says otherwise",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """All entries, or what was in production at a time."""
    from include.retraining.registry import ledger
    from include.retraining.storage import Storage

    spec = model_named(model)
    entries = ledger.read(Storage.of(state_there_is()), spec.model)
    if at is not None:
        entries = ledger.reign(entries, at)[-1:]
    if as_json:
        for_programs(entries)
        return 0
    if not entries:
        for_people("nothing was in production")
        return 0
    rows = table(
        "entry", "at (UTC)", "action", "version", "partition", "by", "reason",
        numbers=("entry", "version"), prose=("by", "reason"),
    )  # fmt: skip
    for entry in entries:
        rows.add_row(
            str(entry.sequence),
            f"{entry.at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}",
            entry.action,
            str(entry.version),
            entry.partition,
            entry.actor,
            entry.reason,
        )
    for_people(rows)
    return 0


def verify(model: Model, *, as_json: Json = False) -> int:
    """Detect changed or missing entries.

    The exit status is 1 if there are any.
    """
    from include.retraining.registry import ledger
    from include.retraining.storage import Storage

    spec, storage = model_named(model), Storage.of(state_there_is())
    problems = ledger.verify(storage, spec.model)
    count = ledger.count(storage, spec.model)
    if as_json:
        for_programs({"model": spec.model, "entries": count, "problems": problems})
    else:
        for_people("\n".join(problems) or f"{count} entries, all intact")
    return 1 if problems else 0


def audit_pack(
    model: Model,
    *,
    version: Version,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="ZIP", help="where to write it", show_default=False),
    ],
    as_json: Json = False,
) -> int:
    """One zip with all evidence of one version.

    The exit status is 1 if the ledger is damaged.
    """
    spec, settings = model_named(model), state_there_is()
    with work(f"collecting the evidence of {spec.model} version {version}"):
        from include.retraining.telling import audit

        content, manifest = audit.audit_pack(spec, settings, version)
    try:
        output.write_bytes(content)
    except OSError as error:
        raise RetrainingError(f"-o {output}: cannot be written: {error}") from error
    if as_json:
        written = {"output": str(output), "bytes": len(content)}
        for_programs(written | manifest.model_dump(mode="json"))
    else:
        for_people(f"{output}: {len(manifest.files)} files, {len(content):,} bytes")
        aside(*(f"not found: {name}" for name in manifest.missing))
        aside(*(f"ledger: {problem}" for problem in manifest.ledger_problems))
    return 1 if manifest.ledger_problems else 0


def rollback(
    model: Model,
    *,
    reason: Annotated[str, typer.Option(help="why, for the ledger", show_default=False)],
    to_version: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="default: the champion before the current one", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Return to an earlier champion, at once.

    A second call goes one further back. Slack is not told.
    """
    if len(reason.strip()) < 3:
        raise RetrainingError(f"--reason: must say why, got {reason!r}")
    spec, settings = model_named(model), state_there_is()
    now = dt.datetime.now(dt.UTC)
    with work(f"moving the champion of {spec.model}"):
        from include.retraining.features.definitions import is_service
        from include.retraining.registry import succession
        from include.retraining.telling import alerts, model_card

        promotion = succession.rollback(
            spec,
            settings,
            reason=reason,
            actor=f"{getpass.getuser()}, by the command line",
            request_id=f"command line {now.isoformat()}",
            at=now,
            to_version=to_version,
            is_service=lambda name: is_service(spec, name),
        )
        model_card.try_publish_move(spec, settings, promotion.version)
    if as_json:
        for_programs(promotion)
    else:
        title = alerts.of_promotion(promotion).title
        for_people(f"{title} (ledger entry {promotion.ledger_sequence})")
    return 0
