"""Drift-triggered retraining from a shell: check model files, and see how a model is doing.

Without settings it looks at the embedded state of `make demo` and `make up`; RETRAINING_* variables
point it elsewhere (docs/production.md).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import warnings
from pathlib import Path

from include.retraining.errors import RetrainingError, SpecError, did_you_mean
from include.retraining.settings import Settings
from include.retraining.settings_table import settings_table
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec, load_specs


def main(arguments: list[str] | None = None) -> int:
    """Run one command; give its exit status: 0 fine, 1 a finding, 2 wrong use or settings."""
    parser = argparse.ArgumentParser(
        prog="python -m include.retraining",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    lint = commands.add_parser("lint", help="check all model files, or those given")
    lint.add_argument("files", nargs="*", type=Path, help="default: include/models/*.yaml")

    status = commands.add_parser("status", help="what is in production, is it well, what do I do")
    status.add_argument("model")
    status.add_argument("--json", action="store_true", help="for programs")

    ledger = commands.add_parser("ledger", help="what was in production when, and why")
    actions = ledger.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="all entries, or what was in production at a time")
    show.add_argument("model")
    show.add_argument("--at", type=_moment, help="ISO 8601, UTC unless it says otherwise")
    verify = actions.add_parser("verify", help="detect changed or missing entries")
    verify.add_argument("model")

    schema = commands.add_parser(
        "schema", help="print the JSON schema of a model file, for editors"
    )
    schema.add_argument("--markdown", action="store_true", help="a table for people instead")

    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "lint":
                return run_lint(options.files)
            case "status":
                return run_status(_spec(options.model), as_json=options.json)
            case "ledger":
                return run_ledger(
                    _spec(options.model),
                    verify=options.action == "verify",
                    at=getattr(options, "at", None),
                )
            case _:
                as_json = json.dumps(ModelSpec.model_json_schema(), indent=2)
                print(settings_table() if options.markdown else as_json)
                return 0
    except RetrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run_lint(files: list[Path]) -> int:
    """Check model files; print every finding; give 1 if there is one."""
    if files:
        errors = []
        for file in files:
            try:
                load_spec(file)
            except SpecError as error:
                errors.append(error)
        count = len(files)
    else:
        specs, found = load_specs()
        errors, count = list(found), len(specs) + len(found)
    for finding in errors:
        print(finding, file=sys.stderr)
    if count == 0:
        print(f"no model files in {MODELS_DIR}", file=sys.stderr)
        return 1
    print(f"{count - len(errors)} of {count} model files are fine")
    return 1 if errors else 0


def run_status(spec: ModelSpec, *, as_json: bool) -> int:
    """Print the status of a model; give 1 if it is not well."""
    from include.retraining.status import render, status_of

    settings = _existing(Settings.from_env())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third parties' deprecations are not what was asked for
        status = status_of(spec, settings)
    print(status.model_dump_json(indent=2) if as_json else render(status))
    return 1 if status.well is False else 0


def run_ledger(spec: ModelSpec, *, verify: bool, at: dt.datetime | None) -> int:
    """Print ledger entries, or what is wrong with them; give 1 if something is."""
    from include.retraining import ledger
    from include.retraining.storage import Storage

    storage = Storage.of(_existing(Settings.from_env()))
    entries = ledger.read(storage, spec.model)
    if verify:
        problems = ledger.verify(storage, spec.model)
        print("\n".join(problems) or f"{len(entries)} entries, all intact")
        return 1 if problems else 0
    if at is not None:
        entries = ledger.reign(entries, at)[-1:]
    for entry in entries:
        print(
            f"{entry.sequence:4d}  {entry.at:%Y-%m-%d %H:%M:%S}  {entry.action:9s}  version "
            f"{entry.version:<4d} {entry.partition}  {entry.reason}  (by {entry.actor})"
        )
    if not entries:
        print("nothing was in production")
    return 0


def _spec(model: str) -> ModelSpec:
    specs, errors = load_specs()
    for spec in specs:
        if spec.model == model:
            return spec
    for error in errors:
        print(error, file=sys.stderr)
    known = [spec.model for spec in specs]
    raise SpecError(
        f"no model {model!r}{did_you_mean(model, known)}; there are: {', '.join(known)}"
    )


def _existing(settings: Settings) -> Settings:
    """Say so when nothing has run here yet, instead of creating empty databases."""
    local = settings.storage_url.startswith("file://")
    if local and not Path(settings.storage_url.removeprefix("file://")).exists():
        raise RetrainingError(
            f"nothing at {settings.storage_url}; run `make demo` first, or set RETRAINING_HOME"
        )
    return settings


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not an ISO 8601 time: {text!r}") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


if __name__ == "__main__":
    raise SystemExit(main())
