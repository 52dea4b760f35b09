"""The whole pipeline over what has landed, in one process and a home of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.retraining.cli.answer import Json, aside, for_people, for_programs, table
from include.retraining.cli.subject import Model, model_named, state_there_is
from include.retraining.cli.work import work
from include.retraining.errors import RetrainingError
from include.retraining.settings import Settings
from include.retraining.spec import ModelSpec
from include.retraining.temporary import temporary_folder

if TYPE_CHECKING:
    from rich.table import Table

    from include.retraining.replay.rehearse import Rehearsed
    from include.retraining.telling.alerts import Alert


def rehearse(
    model: Model,
    *,
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="PARTITION", help="begin with it", show_default=False),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--to", metavar="PARTITION", help="end with it", show_default=False),
    ] = None,
    messages: Annotated[
        bool, typer.Option("--messages", help="show what would have gone to Slack")
    ] = False,
    home: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", show_default=False,
            help="keep all that was made there, to look at with RETRAINING_HOME=FOLDER; default: "
            "nothing is kept",
        ),
    ] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Take all landed batches through the whole pipeline, without Airflow, and touch nothing.

    Batches are taken in order: validation, features, drift, verdict, retrain, duel, promotion,
    guard. Where a person would be asked, the answer is yes. Models in production are not touched.
    The exit status is 1 if a batch was refused or failed.
    """
    from rich.console import Console
    from rich.progress import Progress

    spec, settings = model_named(model), state_there_is()
    with work("loading libraries"):
        from include.retraining.replay.rehearse import landed_batches
        from include.retraining.replay.rehearse import rehearse as run
        from include.retraining.storage import Storage

    landing = Storage.of(settings)
    begin, end = (spec.batch_ref(one).start if one else None for one in (first, last))
    batches = [
        one
        for one in landed_batches(spec, landing)
        if (begin is None or one.start >= begin) and (end is None or one.start <= end)
    ]
    if not batches:
        raise RetrainingError(
            f"{spec.model}: no batch has landed at {landing.url_of(spec.source.batch)}"
            + (" between these" if first or last else "")
        )
    taken: dict[tuple[str, str], Rehearsed] = {}
    with _home(home) as folder, work(), _quiet():
        where = Settings(home=folder)
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task(f"rehearsing {spec.model}", total=len(batches))
            for one in run(spec, landing, where, batches):
                taken[one.batch.model, one.batch.partition] = one
                progress.update(task, completed=sum(of == spec.model for of, _ in taken))
        found = list(taken.values())
        board = _board(spec, where, found)
    if as_json:
        for_programs(board)
    else:
        for_people(_as_table(spec, board), *_totals(spec, board))
        alerts = list(_all_alerts(spec, found))
        if messages:
            for_people("", *(_as_text(one) for one in alerts))
        else:
            for_people(f"{len(alerts)} messages would have gone to Slack (--messages shows them)")
        if home:
            aside(f"kept: RETRAINING_HOME={home} python -m include.retraining status {spec.model}")
    return int(any(one.trouble or one.validation.status == "refused" for one in found))


@contextmanager
def _home(home: Path | None) -> Iterator[Path]:
    if home is None:
        with temporary_folder() as folder:  # what a killed one leaves, the next removes
            made = folder / "rehearsal"
            made.mkdir()
            yield made
        return
    if home.exists() and any(home.iterdir()):
        raise RetrainingError(f"--home: {home} is not empty; name a folder that is, or none yet")
    home.mkdir(parents=True, exist_ok=True)
    yield home.resolve()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log lines of the tasks back: what they come to is in the table."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _board(spec: ModelSpec, settings: Settings, found: list[Rehearsed]) -> dict[str, Any]:
    """Give one row a batch, and totals, with the keys of the demo's scoreboard."""
    from include.retraining.registry import ledger
    from include.retraining.storage import Storage

    entries = ledger.read(Storage.of(settings), spec.model)
    frozen = entries[0].version if entries else None
    rows = [_row(spec, settings, one, frozen) for one in found]
    gains = [
        row["auc_champion"] - row["auc_frozen"]
        for row in rows
        if row["auc_champion"] is not None and row["auc_frozen"] is not None
    ]
    totals = {
        "retrains": sum(row["retrained"] for row in rows),
        "promotions": sum(one.action == "promotion" for one in entries),
        "rollbacks": sum(one.action == "rollback" for one in entries),
        "mean_auc_gain": round(sum(gains) / len(gains), 4) if gains else None,
        "rows_in": sum(row["rows_in"] for row in rows),
        "rows_good": sum(row["rows_good"] for row in rows),
        "rows_quarantined": sum(row["rows_quarantined"] for row in rows),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
    }
    return {"metric": spec.gate.metric, "partitions": rows, "totals": totals}


def _row(spec: ModelSpec, settings: Settings, one: Rehearsed, frozen: int | None) -> dict[str, Any]:
    from include.retraining.replay.rehearse import value_of

    report, verdict, decision = one.validation, one.verdict, one.decision
    champion = verdict.champion_version if verdict else None

    def value(version: int | None) -> float | None:
        found = value_of(spec, settings, one.batch, version)
        return None if found is None else round(found, 4)

    return {
        "partition": one.batch.partition,
        "of": "rows" if one.batch.model == spec.model else "outcomes",
        "rows_in": report.rows_in,
        "rows_good": report.rows_good,
        "rows_quarantined": report.rows_quarantined,
        "verdict": verdict.outcome if verdict else report.status if one.trouble else "refused",
        "reasons": list(verdict.reasons) if verdict else [item.detail for item in report.findings],
        "worst_feature": verdict.worst_feature if verdict else None,
        "ks_distance": verdict.ks_distance if verdict else None,
        "retrained": decision is not None,
        "gate": None if decision is None else "passed" if decision.passed else "rejected",
        "champion_version": champion,
        "auc_champion": value(champion),
        "auc_frozen": value(frozen if champion else None),
        "trouble": one.trouble,
        "seconds": round(one.seconds, 2),
    }


def _as_table(spec: ModelSpec, board: dict[str, Any]) -> Table:
    numbers = ("rows in", "good", "quarant.", spec.gate.metric, "frozen", "s")
    shown = table(
        "batch", "rows in", "good", "quarant.", "verdict", "gate", "champion", spec.gate.metric,
        "frozen", "s", "why", numbers=numbers, prose=("why",),
    )  # fmt: skip
    for row in board["partitions"]:
        version = row["champion_version"]
        shown.add_row(
            row["partition"] + ("" if row["of"] == "rows" else " outcomes"),
            f"{row['rows_in']:,}",
            f"{row['rows_good']:,}",
            f"{row['rows_quarantined']:,}",
            row["verdict"],
            row["gate"] or "-",
            f"v{version}" if version else "-",
            _number(row["auc_champion"]),
            _number(row["auc_frozen"]),
            f"{row['seconds']:.1f}",
            row["trouble"] or _why(row),
        )
    return shown


def _totals(spec: ModelSpec, board: dict[str, Any]) -> list[str]:
    totals = board["totals"]
    gain = totals["mean_auc_gain"]
    regained = (
        "no model has reached production"
        if not totals["promotions"]
        else f"mean {spec.gate.metric} regained over the frozen first model "
        + ("not known" if gain is None else f"{gain:+.4f}")
    )
    decided = (
        f"retrains {totals['retrains']}, promotions {totals['promotions']}, rollbacks "
        f"{totals['rollbacks']}; {regained}"
    )
    if spec.is_served_elsewhere:  # a reference is no retrain, and there is nothing to regain
        decided = (
            f"references {totals['promotions']}; the model is trained and served elsewhere, so "
            "nothing was retrained"
        )
    rows = (
        f"rows in {totals['rows_in']:,} = good {totals['rows_good']:,} + quarantined "
        f"{totals['rows_quarantined']:,}; {totals['seconds']:.0f} s"
    )
    return ["", decided, rows]


def _why(row: dict[str, Any]) -> str:
    """Give the first reason; of what is blocked, also the last, which says what it waits for."""
    reasons = row["reasons"] or ["-"]
    last = reasons[1:][-1:] if row["verdict"] == "blocked" else []
    return "; ".join([reasons[0], *last])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _all_alerts(spec: ModelSpec, found: list[Rehearsed]) -> Iterator[Alert]:
    """Give what would have been told of each batch, in the order of the tasks."""
    from include.retraining.telling import alerts

    before = None
    for one in found:
        told = [alerts.of_validation(one.validation)]
        told = [alert for alert in told if not alert.is_all_clear]
        if one.skew:
            told += filter(None, [alerts.of_skew(one.skew)])
        if one.verdict:
            alert = alerts.of_verdict(
                one.verdict, before, is_served_elsewhere=spec.is_served_elsewhere
            )
            told += [alert] if alert and not alert.is_all_clear else []
            before = one.verdict
        if one.promotion:
            told.append(
                alerts.of_promotion(one.promotion, is_served_elsewhere=spec.is_served_elsewhere)
            )
        elif one.decision:
            told.append(alerts.of_gate(one.decision))
        yield from told


def _as_text(alert: Alert) -> str:
    lines = "".join(f"\n    {line}" for line in alert.lines)
    return f"{alert.thread}  {alert.level}: {alert.title}{lines}"
