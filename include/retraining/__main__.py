"""Drift-triggered retraining from a shell: check model files, and see how a model is doing.

Without settings it looks at the embedded state of `make demo` and `make up`; RETRAINING_* variables
point it elsewhere (docs/production.md).
"""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from include.retraining.cli.settings_table import settings_table
from include.retraining.errors import RetrainingError, SpecError, Unavailable, did_you_mean
from include.retraining.records import DeliveryMapping
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import MODELS_DIR, Drift, ModelSpec, load_spec, load_specs

DRIFT_SETTINGS = ("alpha", "min_distance", "min_rows", "tail_windows")  # of the drift command


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

    lint.set_defaults(run=lambda options: run_lint(options.files))

    status = commands.add_parser("status", help="what is in production, is it well, what do I do")
    status.add_argument("model")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument(
        "--registry", action="store_true", help="ask MLflow whether the alias was moved by hand"
    )

    status.set_defaults(
        run=lambda options: run_status(
            _spec(options.model), as_json=options.json, registry=options.registry
        )
    )

    _add_ledger(commands)
    _add_quarantine(commands)
    _add_skew(commands)

    drift = commands.add_parser(
        "drift", help="hold a Parquet file against earlier ones: has it drifted?"
    )
    drift.add_argument(
        "--windows", nargs="+", type=Path, required=True, metavar="FILE",
        help="the reference, oldest first; each about as long as the current one, its rows in the "
        "order of time if they have one",
    )  # fmt: skip
    drift.add_argument("--current", type=Path, required=True, metavar="FILE")
    drift.add_argument("--columns", nargs="+", default=[], metavar="NAME", help="default: all")
    drift.add_argument(
        "--expected", nargs="+", default=[], metavar="NAME", help="drift by construction"
    )
    for name in DRIFT_SETTINGS:
        about = Drift.model_fields[name]
        drift.add_argument(
            f"--{name.replace('_', '-')}", type=type(about.default), default=about.default,
            help=f"{about.description} (default: {about.default})",
        )  # fmt: skip
    drift.add_argument("--json", action="store_true", help="for programs")

    drift.set_defaults(run=run_drift)

    replay = commands.add_parser(
        "replay", help="run retraining policies over a model's past: retrains spent, metric gained"
    )
    replay.add_argument("model")
    replay.add_argument(
        "--first", metavar="PARTITION", help="train the first model after this one; default: the "
        "earliest that leaves training.min_rows",
    )  # fmt: skip
    replay.add_argument(
        "--try", dest="tried", action="append", default=[], metavar="SETTING=VALUE[,...]",
        help="one policy more: the model file with these changed, such as retrain.growth=0.3",
    )  # fmt: skip
    replay.add_argument(
        "--starts", type=int, default=1, metavar="N",
        help="begin at so many windows one after the other, and give means: evens out which of two "
        "neighbouring windows happened to be trained on",
    )  # fmt: skip
    replay.add_argument(
        "--ideal", action="store_true",
        help="train on the duel window as well and promote without a duel, as studies assume",
    )  # fmt: skip
    replay.add_argument(
        "--picture", type=Path, metavar="PNG", help="default: var/replay/<model>.png"
    )
    replay.add_argument("--json", action="store_true", help="for programs")

    replay.set_defaults(run=lambda options: run_replay(_spec(options.model), options))

    again = commands.add_parser(
        "reproduce", help="train a version again; 0: it comes out the same, 1: it does not"
    )
    again.add_argument("model")
    again.add_argument("--version", type=int, required=True, metavar="N")
    again.set_defaults(
        run=lambda options: run_reproduce(_spec(options.model), version=options.version)
    )

    schema = commands.add_parser(
        "schema", help="print the JSON schema of a model file, for editors"
    )
    schema.add_argument("--markdown", action="store_true", help="a table for people instead")
    schema.set_defaults(run=lambda options: run_schema(markdown=options.markdown))

    options = parser.parse_args(arguments)
    try:
        exit_status: int = options.run(options)
    except (RetrainingError, Unavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return exit_status


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


def run_status(spec: ModelSpec, *, as_json: bool, registry: bool) -> int:
    """Print the status of a model; give 1 if it is not well."""
    from include.retraining.telling.status import render, status_of

    settings = _existing(Settings.from_env())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third parties' deprecations are not what was asked for
        status = status_of(spec, settings, registry=registry)
    print(status.model_dump_json(indent=2) if as_json else render(status))
    return 1 if status.well is False else 0


def run_ledger(spec: ModelSpec, *, verify: bool, at: dt.datetime | None) -> int:
    """Print ledger entries, or what is wrong with them; give 1 if something is."""
    from include.retraining.registry import ledger
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


def run_reproduce(spec: ModelSpec, *, version: int) -> int:
    """Train a version again and compare; give 1 if it comes out another."""
    from include.retraining.retrain.reproduction import render, reproduce

    settings = _existing(Settings.from_env())
    logging.basicConfig(format="%(message)s")
    logging.getLogger("include.retraining.learning.estimator").setLevel(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = reproduce(
            spec, settings, version, tell=lambda line: print(line, file=sys.stderr, flush=True)
        )
    print(render(found))
    return 0 if found.equal else 1


def run_drift(options: argparse.Namespace) -> int:
    """Print what drifted between files; give 0 whatever the verdict."""
    from include.retraining.monitor.files import as_table, compare_files

    try:
        settings = {name: getattr(options, name) for name in DRIFT_SETTINGS}
        policy = Drift(expected=tuple(options.expected), **settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise SpecError(f"--{name}: {first['msg']}, got {first['input']!r}") from error
    found = compare_files(options.windows, options.current, policy=policy, columns=options.columns)
    print(found.model_dump_json(indent=2) if options.json else as_table(found))
    return 0


def run_replay(spec: ModelSpec, options: argparse.Namespace) -> int:
    """Print what each policy would have spent and gained; keep a picture of it."""
    from rich.console import Console
    from rich.progress import track

    from include.retraining.replay.outcomes import replay
    from include.retraining.replay.past import Past, published_windows
    from include.retraining.replay.picture import as_picture
    from include.retraining.replay.policies import standard_policies
    from include.retraining.replay.table import as_json, as_table
    from include.retraining.storage import Storage

    settings = _existing(Settings.from_env())
    console = Console(stderr=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        past = Past(
            spec,
            published_windows(spec, Storage.of(settings)),
            first=options.first,
            ideal=options.ideal,
        )
        outcomes = replay(
            past,
            standard_policies(spec, options.tried, windows=past.last - past.first),
            starts=options.starts,
            progress=lambda items, title, length: track(
                items, title, total=length, console=console
            ),
        )
        picture = options.picture or REPOSITORY / "var" / "replay" / f"{spec.model}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(as_picture(past, outcomes))
    show = as_json if options.json else as_table
    print(show(past, outcomes, starts=options.starts))
    print(f"picture: {picture}", file=sys.stderr)
    return 0


def run_schema(*, markdown: bool) -> int:
    """Print what a model file may say."""
    print(settings_table() if markdown else json.dumps(ModelSpec.model_json_schema(), indent=2))
    return 0


def _add_ledger(commands: Any) -> None:
    ledger = commands.add_parser("ledger", help="what was in production when, and why")
    actions = ledger.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="all entries, or what was in production at a time")
    show.add_argument("model")
    show.add_argument("--at", type=_moment, help="ISO 8601, UTC unless it says otherwise")
    show.set_defaults(
        run=lambda options: run_ledger(_spec(options.model), verify=False, at=options.at)
    )
    verify = actions.add_parser("verify", help="detect changed or missing entries")
    verify.add_argument("model")
    verify.set_defaults(run=lambda options: run_ledger(_spec(options.model), verify=True, at=None))

    pack = actions.add_parser("audit-pack", help="one zip with all evidence of one version")
    pack.add_argument("model")
    pack.add_argument("--version", type=int, required=True, metavar="N")
    pack.add_argument("-o", "--output", type=Path, required=True, metavar="ZIP")
    pack.set_defaults(run=lambda options: run_audit_pack(_spec(options.model), options))

    rollback = commands.add_parser("rollback", help="return to an earlier champion, at once")
    rollback.add_argument("model")
    rollback.add_argument("--reason", required=True, help="why, for the ledger")
    rollback.add_argument(
        "--to-version", type=int, metavar="N", help="default: the champion before the current one"
    )
    rollback.set_defaults(run=lambda options: run_rollback(_spec(options.model), options))


def _add_skew(commands: Any) -> None:
    skew = commands.add_parser(
        "skew", help="are online features those of training, and how old are they?"
    )
    skew.add_argument("model")
    skew.add_argument(
        "--at",
        type=_moment,
        help="ISO 8601, UTC unless it says otherwise; default: the end of the newest batch",
    )
    skew.set_defaults(run=lambda options: run_skew(_spec(options.model), at=options.at))


def run_skew(spec: ModelSpec, *, at: dt.datetime | None) -> int:
    """Compare online with offline features for the newest batch's keys; 1 if something is wrong."""
    from include.retraining.data.publication import published_partitions
    from include.retraining.features.skew import check_skew
    from include.retraining.storage import Storage

    settings = _existing(Settings.from_env())
    batches = published_partitions(spec, Storage.of(settings))
    if not batches:
        raise RetrainingError(f"{spec.model} has no published batch; run {spec.model}__ingest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third parties' deprecations
        report = check_skew(spec, settings, batches[-1], at=at)
    print(f"{spec.model}, {report.keys:,} keys of {report.batch.partition}, as of {report.at}")
    for one in report.features:
        age = "computed on request" if one.age_hours is None else f"{one.age_hours:,.1f} h old"
        limit = f", ttl {one.ttl_hours:,.1f} h" if one.ttl_hours is not None else ""
        print(
            f"  {one.name:24s} {one.compared:,} compared, {one.differing:,} differ, "
            f"{one.expired:,} expired; {age}{limit}"
        )
    print("\n".join(report.problems) or "online is as offline, and young enough")
    return 1 if report.problems else 0


def _add_quarantine(commands: Any) -> None:
    quarantine = commands.add_parser("quarantine", help="what was quarantined; bring it back")
    actions = quarantine.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="what of a batch is in quarantine, and why")
    show.set_defaults(run=lambda options: run_quarantine(options, replay=False))
    replay = actions.add_parser(
        "replay", help="validate it again, after a fix of the suite or with a mapping; publish it"
    )
    replay.add_argument("--reason", default="", help="why, for the report")
    replay.add_argument("--input", default="batch", help="which files the mapping is about")
    replay.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW",
        help="name in the files=declared name; may be given several times",
    )  # fmt: skip
    replay.add_argument(
        "--replace", action="append", default=[], metavar="COLUMN:OLD=NEW",
        help="value in the files=right one, empty for missing; may be given several times",
    )  # fmt: skip
    replay.set_defaults(run=lambda options: run_quarantine(options, replay=True))
    for action in (show, replay):
        action.add_argument("model")
        action.add_argument("partition")


def run_quarantine(options: argparse.Namespace, *, replay: bool) -> int:
    """Print what of a batch is in quarantine, after a replay if one is asked for; 1 if any is."""
    from include.retraining.data import quarantine
    from include.retraining.data.publication import publish_batch
    from include.retraining.features.feature_sets import materialize, refresh_later
    from include.retraining.storage import Storage

    spec, settings = _spec(options.model), _existing(Settings.from_env())
    storage, batch = Storage.of(settings), spec.batch_ref(options.partition)
    if replay:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # third parties' deprecations
            mapping = _mapping(options)
            report = quarantine.revalidate_batch(spec, storage, batch, mapping=mapping)
            if report.status == "accepted" and publish_batch(spec, storage, report):
                materialize(spec, settings, batch)
                refresh_later(spec, settings, batch)
                print(f"published; to have it judged, trigger {spec.model}__monitor for it")
    print(quarantine.describe(spec, storage, batch))
    return 1 if quarantine.newest_report(spec, storage, batch).quarantine_key else 0


def _mapping(options: argparse.Namespace) -> DeliveryMapping | None:
    """Give the mapping that was asked for; raises RetrainingError."""
    if not (options.rename or options.replace):
        return None
    replacements: dict[str, dict[str, str | None]] = {}
    for text in options.replace:
        column, _, values = text.partition(":")
        old, _, new = _halves(values, text, "COLUMN:OLD=NEW")
        replacements.setdefault(column, {})[old] = new or None
    renames = {old: new for old, _, new in (_halves(t, t, "OLD=NEW") for t in options.rename)}
    return DeliveryMapping(
        input=options.input,
        renames=renames,
        replacements=replacements,
        reason=options.reason,
        actor=f"{getpass.getuser()}, from a shell",
    )


def _halves(text: str, whole: str, form: str) -> tuple[str, str, str]:
    halves = text.partition("=")
    if not halves[0] or not halves[1]:
        raise RetrainingError(f"must look like {form}, got {whole!r}")
    return halves


def run_audit_pack(spec: ModelSpec, options: argparse.Namespace) -> int:
    """Write the zip; tell what could not be found; give 1 if the ledger is damaged."""
    from include.retraining.telling.audit import audit_pack

    settings = _existing(Settings.from_env())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content, manifest = audit_pack(spec, settings, options.version)
    try:
        options.output.write_bytes(content)
    except OSError as error:
        raise RetrainingError(f"-o {options.output}: cannot be written: {error}") from error
    print(f"{options.output}: {len(manifest.files)} files, {len(content):,} bytes")
    for name in manifest.missing:
        print(f"not found: {name}", file=sys.stderr)
    for problem in manifest.ledger_problems:
        print(f"ledger: {problem}", file=sys.stderr)
    return 1 if manifest.ledger_problems else 0


def run_rollback(spec: ModelSpec, options: argparse.Namespace) -> int:
    """Move the champion alias back; a second call goes one further back. Slack is not told."""
    from include.retraining.features.definitions import is_service
    from include.retraining.registry import succession
    from include.retraining.telling import alerts, model_card

    if len(options.reason.strip()) < 3:
        raise RetrainingError(f"--reason: must say why, got {options.reason!r}")
    settings = _existing(Settings.from_env())
    now = dt.datetime.now(dt.UTC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        promotion = succession.rollback(
            spec,
            settings,
            reason=options.reason,
            actor=f"{getpass.getuser()}, by the command line",
            request_id=f"command line {now.isoformat()}",
            at=now,
            to_version=options.to_version,
            is_service=lambda name: is_service(spec, name),
        )
        model_card.try_publish(spec, settings, promotion.version)
    print(f"{alerts.of_promotion(promotion).title} (ledger entry {promotion.ledger_sequence})")
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
