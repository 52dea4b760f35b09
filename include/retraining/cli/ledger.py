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

LONGEST_REASON = 2000  # as the forms have it


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


def verify(
    model: Model,
    *,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="N:HASH", help="what a message said that the last entry was",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Detect changed or missing entries.

    The chain is held against itself, and its head against what MLflow remembers. The exit status
    is 1 if anything is wrong.
    """
    from include.retraining.registry import anchor, ledger
    from include.retraining.storage import Storage

    spec, settings = model_named(model), state_there_is()
    told = None
    if head is not None and (told := anchor.head_of(head)) is None:
        raise RetrainingError(
            f"--head: must be the number of an entry, a colon, and 8 to 64 digits of its hash, as "
            f"a message shows it (7:3fa9c1d2e4b0), got {head!r}"
        )
    found = anchor.verify(spec, settings, told=told)
    count = ledger.count(Storage.of(settings), spec.model)
    if as_json:
        for_programs({"model": spec.model, "entries": count, **found._asdict()})
    else:
        for_people("\n".join(found.problems) or f"{count} entries, all intact")
        aside(*found.notes)
    return 1 if found.problems else 0


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


def reason_given(reason: str) -> None:
    """Refuse a reason that says nothing, or a book."""
    if len(reason.strip()) < 3:
        raise RetrainingError(f"--reason: must say why, got {reason!r}")
    if len(reason) > LONGEST_REASON:
        raise RetrainingError(
            f"--reason: at most {LONGEST_REASON:,} characters, got {len(reason):,}; say it shorter"
        )


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

    The same call once more makes sure that it is done, and does not go further back: for that, name
    the version, or another reason. Slack is not told.
    """
    reason_given(reason)
    spec, settings = model_named(model), state_there_is()
    now, actor = dt.datetime.now(dt.UTC), f"{getpass.getuser()}, by the command line"
    with work(f"moving the champion of {spec.model}"):
        from include.retraining.features.own_features import why_not
        from include.retraining.registry import ledger, succession
        from include.retraining.storage import Storage
        from include.retraining.telling import alerts, model_card

        request_id = f"command line {now.isoformat()}"
        last = ledger.last(Storage.of(settings), spec.model)
        is_same = (
            last is not None
            and (last.action, last.reason, last.actor) == ("rollback", reason, actor)
            and to_version in {None, last.version}
        )
        if last and is_same:  # it may have been killed half way: nobody can know
            request_id = last.incident_id
        promotion = succession.rollback(
            spec,
            settings,
            reason=reason,
            actor=actor,
            request_id=request_id,
            at=now,
            to_version=to_version,
            why_not=lambda learned: why_not(spec, learned),
        )
        model_card.try_publish_move(spec, settings, promotion.version)
    if as_json:
        for_programs(promotion)
    else:
        title = alerts.of_promotion(promotion).title
        for_people(f"{title} (ledger entry {promotion.ledger_sequence})")
        if last and is_same:
            for_people(
                f"entered at {last.at:%Y-%m-%d %H:%M:%S} UTC already; to go further back, name "
                "--to-version"
            )
    return 0


def scorecard(model: Model, *, as_json: Json = False) -> int:
    """Was each promotion, rollback and rejection right, by the outcomes since?

    The version that was chosen and the one that was not predict the same later rows. It takes as
    long as predicting them.
    """
    from include.retraining.telling.escapes import one_line

    spec, settings = model_named(model), state_there_is()
    with work(f"asking the versions of {spec.model}"):
        from include.retraining.replay.scorecard import scorecard as scores

        found = list(scores(spec, settings))
    if as_json:
        for_programs(found)
        return 0
    if not found:
        for_people(f"{spec.model}: nothing was decided yet")
        return 0
    rows = table(
        "batch", "decided", "chosen", "not", "rows", f"gain in {spec.gate.metric}", "",
        numbers=("chosen", "not", "rows"), prose=("",),
    )  # fmt: skip
    for one in found:
        gain = "-"
        if one.gain is not None:
            gain = f"{one.gain:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
        rows.add_row(
            one.partition or "-", one.decided, _version(one.chosen), _version(one.other),
            f"{one.rows:,}", gain, one_line(one.said),
        )  # fmt: skip
    for_people(rows)
    right, wrong = (sum(one.answer == word for one in found) for word in ("right", "wrong"))
    for_people("", f"{len(found):,} decisions: {right:,} shown to be right, {wrong:,} wrong")
    return 0


def _version(number: int | None) -> str:
    return "-" if number is None else f"v{number}"
