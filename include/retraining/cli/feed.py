"""Batches whose feed broke, and a person's word on them."""

from __future__ import annotations

import datetime as dt
import getpass
from typing import Annotated

import typer

from include.retraining.cli.answer import Json, for_people, for_programs
from include.retraining.cli.subject import Model, Partition, model_named, state_there_is
from include.retraining.names import dag_id


def show(model: Model, *, as_json: Json = False) -> int:
    """Which batches are left out of training because their feed broke, and how.

    The exit status is 1 if any is.
    """
    from include.retraining.data import broken_feeds
    from include.retraining.storage import Storage

    spec = model_named(model)
    found = broken_feeds.all_open(Storage.of(state_there_is()), spec.model)
    if as_json:
        for_programs([one.model_dump(mode="json") for one in found])
    elif not found:
        for_people(f"{spec.model}: no batch is left out of training")
    else:
        lines = [
            f"{one.batch.partition}  {name}: {broken.kind}, {broken.cause}"
            for one in found
            for name, broken in one.columns.items()
        ]
        for_people("\n".join(lines))
    return 1 if found else 0


def withdraw(
    model: Model,
    partition: Partition,
    *,
    column: Annotated[str, typer.Option(help="that is not right after all", show_default=False)],
    as_json: Json = False,
) -> int:
    """Take back that a column is right from a batch on: later batches are judged without it."""
    from include.retraining.data import broken_feeds
    from include.retraining.storage import Storage

    spec = model_named(model)
    broken_feeds.withdraw(spec, Storage.of(state_there_is()), partition=partition, column=column)
    monitor = dag_id(spec.model, "monitor")
    if as_json:
        for_programs({"model": spec.model, "since": partition, "withdrawn": column})
        return 0
    for_people(
        f"{spec.model}: nobody says any more that {column} is right from {partition} on",
        f"batches that were judged since keep their verdict; trigger {monitor} with `measure anew` "
        "for those that should not",
    )
    return 0


def accept(
    model: Model,
    partition: Partition,
    *,
    column: Annotated[str, typer.Option(help="that is right", show_default=False)],
    reason: Annotated[str, typer.Option(help="why, for the record", show_default=False)],
    as_json: Json = False,
) -> int:
    """Say that the values of a column are right, from this batch on: its rows train again.

    The same finding in later batches is drift like any other then.
    """
    from include.retraining.data import broken_feeds
    from include.retraining.storage import Storage

    spec = model_named(model)
    said, freed = broken_feeds.accept(
        spec,
        Storage.of(state_there_is()),
        partition=partition,
        column=column,
        reason=reason,
        actor=f"{getpass.getuser()}, from a shell",
        at=dt.datetime.now(dt.UTC),
    )
    if as_json:
        for_programs({"said": said.model_dump(mode="json"), "to_judge": freed})
        return 0
    lines = [f"{spec.model}: {column} is right from {partition} on ({said.kind}): {reason}"]
    if freed:
        monitor = dag_id(spec.model, "monitor")
        names = ", ".join(freed)
        lines.append(f"to have it judged anew, trigger {monitor} with `measure anew` for {names}")
    else:
        lines.append("other columns of these batches are still broken: see feed show")
    for_people("\n".join(lines))
    return 0
