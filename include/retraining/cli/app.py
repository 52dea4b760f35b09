"""The commands, and what becomes of their errors."""

from __future__ import annotations

import inspect

import typer
from pydantic import ValidationError

from include.retraining.cli import adopting, check, feed, ledger, new, quarantine, study
from include.retraining.cli import rehearse as rehearsing
from include.retraining.cli.answer import aside
from include.retraining.cli.several_values import SeveralValues
from include.retraining.cli.status import status
from include.retraining.errors import RetrainingError, Unavailable

NAME = "python -m include.retraining"
BEGIN, LOOK, DECIDE, CHECK, STUDY = "Begin", "Look", "Decide", "Check", "Study"

app = typer.Typer(
    name=NAME,
    help="Drift-triggered retraining from a shell: check model files, and see how models are "
    "doing.\n\n"
    "Without settings it looks at the embedded state of `make demo` and `make up`; RETRAINING_* "
    "variables point it elsewhere (docs/production.md).\n\n"
    "Exit status: 0 fine, 1 a finding, 2 wrong use or settings.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
ledgers = typer.Typer(help="What was in production when, and why.")
quarantines = typer.Typer(help="What was quarantined; bring it back.")
feeds = typer.Typer(help="Batches whose feed broke; say that one is right.")


def _example(*lines: str) -> str:
    return "\n\n".join(f"{NAME} {line}" for line in lines)


app.command(
    cls=SeveralValues, rich_help_panel=BEGIN,
    epilog=_example(
        "new churn --from orders.csv --time ordered_at --label reordered --land",
        "new loans --from 'loans/*.parquet' --every week --key loan_id",
        "new rides --from rides/ --time start --time-zone Europe/Berlin --label minutes --land",
    ),
)(new.new)  # fmt: skip
app.command(
    rich_help_panel=BEGIN,
    epilog=_example("rehearse loans", "rehearse flights --to 2013-03-04 --messages"),
)(rehearsing.rehearse)
app.command(rich_help_panel=LOOK, epilog=_example("status", "status flights --json"))(status)
app.add_typer(ledgers, name="ledger", rich_help_panel=LOOK)
ledgers.command(epilog=_example("ledger show flights --at 2013-02-04T12:00"))(ledger.show)
ledgers.command()(ledger.verify)
ledgers.command("audit-pack", epilog=_example("ledger audit-pack flights --version 2 -o v2.zip"))(
    ledger.audit_pack
)
app.command(rich_help_panel=LOOK, epilog=_example("scorecard flights"))(ledger.scorecard)
app.add_typer(quarantines, name="quarantine", rich_help_panel=LOOK)
quarantines.command(epilog=_example("quarantine show flights 2013-01-14"))(quarantine.show)
quarantines.command(
    epilog=_example(
        'quarantine replay flights 2013-01-14 --reason "the suite knew no BOS"',
        "quarantine replay flights 2013-01-14 --rename dist=distance --replace origin:Newark=EWR",
    )
)(quarantine.replay)
app.add_typer(feeds, name="feed", rich_help_panel=DECIDE)
feeds.command(epilog=_example("feed show flights"))(feed.show)
feeds.command(
    epilog=_example(
        'feed accept flights 2013-06-10 --column temp --reason "degrees Celsius for good"'
    )
)(feed.accept)
feeds.command(epilog=_example("feed withdraw flights 2013-06-10 --column temp"))(feed.withdraw)
app.command(
    "adopt-champion", rich_help_panel=DECIDE,
    epilog=_example(
        "adopt-champion churn --from models:/churn-prod/7 --learned-until 2026-03-01 "
        '--reason "in production since spring"',
    ),
)(adopting.adopt_champion)  # fmt: skip
app.command(
    rich_help_panel=DECIDE, epilog=_example('rollback flights --reason "late alerts"')
)(ledger.rollback)  # fmt: skip
app.command(
    rich_help_panel=CHECK,
    epilog=_example("lint", "lint flights --landed 2013-01-07.parquet --landed weather=w.parquet"),
)(check.lint)
app.command(rich_help_panel=CHECK, epilog=_example("schema > model.schema.json"))(check.schema)
app.command(rich_help_panel=CHECK)(check.skew)
app.command(rich_help_panel=CHECK, epilog=_example("reproduce flights --version 1"))(
    check.reproduce
)
app.command(
    cls=SeveralValues, rich_help_panel=STUDY,
    epilog=_example("drift --windows week1.parquet week2.parquet --current week9.parquet"),
)(study.drift)  # fmt: skip
app.command(
    rich_help_panel=STUDY,
    epilog=_example("replay flights --try retrain.growth=0.3 --try drift.min_distance=0.1"),
)(study.replay)


def _as_paragraphs() -> None:
    """Let paragraphs of a help be as wide as the terminal: a docstring is wrapped for a file."""
    inner = [group.typer_instance for group in app.registered_groups]
    for one in (one for each in (app, *inner) if each for one in each.registered_commands):
        told = inspect.cleandoc((one.callback and one.callback.__doc__) or "").split("\n\n")
        one.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in told)


_as_paragraphs()


def main(arguments: list[str] | None = None) -> int:
    """Run one command; give its exit status: 0 fine, 1 a finding, 2 wrong use or settings."""
    command = typer.main.get_command(app)
    try:
        return int(command.main(arguments, prog_name=NAME, standalone_mode=False) or 0)
    except typer.TyperException as error:
        cause = error.__cause__
        got = f", got {cause.errors()[0]['input']!r}" if isinstance(cause, ValidationError) else ""
        aside(f"error: {error.format_message()}{got}")
        if context := getattr(error, "ctx", None):
            aside(f"see: {context.command_path} --help")
        return 2
    except (RetrainingError, Unavailable) as error:
        aside(f"error: {error}")
        return 2
