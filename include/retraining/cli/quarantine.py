"""What of a batch is in quarantine, and how it comes back."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from include.retraining.cli.answer import Json, for_people, for_programs
from include.retraining.cli.subject import Model, Partition, model_named, state_there_is
from include.retraining.cli.work import work
from include.retraining.errors import RetrainingError
from include.retraining.names import dag_id
from include.retraining.records import DeliveryMapping


def show(model: Model, partition: Partition, *, as_json: Json = False) -> int:
    """What of a batch is in quarantine, and why.

    The exit status is 1 if anything is.
    """
    from include.retraining.data import quarantine
    from include.retraining.storage import Storage

    spec = model_named(model)
    storage, batch = Storage.of(state_there_is()), spec.batch_ref(partition)
    found = quarantine.look(spec, storage, batch)
    if as_json:
        for_programs(found)
    else:
        for_people(quarantine.render(found))
    return 1 if found.report.quarantine_key else 0


def replay(
    model: Model,
    partition: Partition,
    *,
    reason: Annotated[str, typer.Option(help="why, for the report", show_default=False)] = "",
    delivered: Annotated[
        str, typer.Option("--input", metavar="NAME", help="which files the mapping is about")
    ] = "batch",
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW", show_default=False,
            help="name in the files=declared name; may be given several times",
        ),
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN:OLD=NEW", show_default=False,
            help="value in the files=right one, empty for missing; may be given several times",
        ),
    ] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Validate it again, after a fix of the suite or with a mapping; publish it.

    The exit status is 1 if anything is in quarantine afterwards.
    """
    spec, settings = model_named(model), state_there_is()
    mapping = _mapping(rename or [], replace or [], delivered=delivered, reason=reason)
    batch = spec.batch_ref(partition)
    with work(f"validating {spec.model} {partition} again"):
        from include.retraining.data import quarantine
        from include.retraining.features.feature_sets import publish_and_join
        from include.retraining.storage import Storage

        storage = Storage.of(settings)
        report = quarantine.revalidate_batch(spec, storage, batch, mapping=mapping)
        joined = publish_and_join(spec, settings, report) if report.status == "accepted" else []
        found = quarantine.look(spec, storage, batch)
    if as_json:
        names = [one.batch.partition for one in joined]
        for_programs({"published": bool(joined), "to_judge": names} | found.model_dump(mode="json"))
    else:
        if joined:
            each = ", ".join(one.batch.partition for one in joined)
            monitor = dag_id(spec.model, "monitor")
            for_people(f"published; to have it judged, trigger {monitor} for {each}")
        for_people(quarantine.render(found))
    return 1 if found.report.quarantine_key else 0


def _mapping(
    rename: list[str], replace: list[str], *, delivered: str, reason: str
) -> DeliveryMapping | None:
    """Give the mapping that was asked for; raises RetrainingError."""
    if not (rename or replace):
        return None
    replacements: dict[str, dict[str, str | None]] = {}
    for text in replace:
        column, _, values = text.partition(":")
        old, new = _halves(values, text, "COLUMN:OLD=NEW")
        replacements.setdefault(column, {})[old] = new or None
    return DeliveryMapping(
        input=delivered,
        renames=dict(_halves(text, text, "OLD=NEW") for text in rename),
        replacements=replacements,
        reason=reason,
        actor=f"{getpass.getuser()}, from a shell",
    )


def _halves(text: str, whole: str, form: str) -> tuple[str, str]:
    old, sign, new = text.partition("=")
    if not old or not sign:
        raise RetrainingError(f"must look like {form}, got {whole!r}")
    return old, new
