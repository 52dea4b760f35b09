"""Begin with a model of one's own: a model file and a suite, written from the data."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from include.retraining.cli.answer import Json, for_people, for_programs, table
from include.retraining.cli.subject import storage_can_hold
from include.retraining.cli.work import work
from include.retraining.errors import DataError, RetrainingError
from include.retraining.settings import REPOSITORY, Settings
from include.retraining.spec import MODELS_DIR, Every, ModelSpec, load_spec, load_specs

if TYPE_CHECKING:
    from include.retraining.cli.new_model import Draft
    from include.retraining.storage import Storage

SCHEMA = REPOSITORY / "var" / "model.schema.json"
LENGTHS = get_args(Every)


def new(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="its name: lower case, _ between words", show_default=False
        ),
    ],
    *,
    files: Annotated[
        list[str],
        typer.Option(
            "--from", metavar="FILE...", show_default=False,
            help="CSV, JSON lines or Parquet; also a folder, or a glob in quotes",
        ),
    ],
    outcomes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", show_default=False, help="where the outcomes lie apart, with the key"
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", show_default=False,
            help="when a row's prediction is made; default: the only column of times",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", show_default=False,
            help="the outcome; default: the one column called label, target, outcome or y",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN...", show_default=False,
            help="what identifies a row; default: a column that no two rows share",
        ),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH", show_default=False,
            help=f"of a partition: {', '.join(LENGTHS)}; default: by the number of rows",
        ),
    ] = None,
    predictions: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="what the model said of each row, where it is trained and served elsewhere: it is "
            "only watched",
        ),
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE", show_default=False,
            help="of times that have none, such as UTC or Europe/Berlin; with --land",
        ),
    ] = None,
    land: Annotated[
        bool,
        typer.Option(
            "--land", help="cut the rows into partitions, and land them in the storage as Parquet"
        ),
    ] = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Write a first model file and suite for data of your own, and say why they are so.

    Types are inferred over all rows, and each choice has its reason beside it. Nothing is ever
    overwritten; where something is wrong, nothing is written.
    """
    if every is not None and every not in LENGTHS:
        raise RetrainingError(f"--every: must be {', '.join(LENGTHS)}, got {every!r}")
    if time_zone and not land:
        raise RetrainingError(
            "--time-zone: goes with --land, which writes the times with their zone; a batch with "
            "times without one is refused"
        )
    path, suite_path = _free_places(model)
    with work(f"looking at {', '.join(files)[:200]}"):
        from include.retraining.cli.new_model import Wish, draft, with_outcomes
        from include.retraining.data.first_look import files_of, look

        seen = look(files_of(files))
        if outcomes is not None:
            if not land:
                raise DataError(
                    "--outcomes: goes with --land, which lands rows together with their outcomes; "
                    "a batch has its label in a column of its own"
                )
            seen = with_outcomes(seen, look(files_of([outcomes])), key or ())
        wish = Wish(
            model=model,
            time=time,
            label=label,
            key=tuple(key or ()),
            every=cast("Every | None", every),  # one of LENGTHS, as held above
            time_zone=time_zone,
            lands=land,
            predictions=predictions,
        )
        made = draft(seen, wish)
        landed = write(made, path, suite_path, Settings.from_env() if land else None)
    _tell(made, path, suite_path, landed, as_json=as_json)
    return 0


def _free_places(model: str) -> tuple[Path, Path]:
    """Give where model file and suite go; raises RetrainingError where something is."""
    from include.retraining.data.validation import SUITES

    pattern = ModelSpec.model_json_schema()["properties"]["model"]["pattern"]
    if not re.fullmatch(pattern, model) or len(model) > 100:
        raise RetrainingError(
            f"MODEL: must be lower case letters and digits with _ between words, got {model!r}"
        )
    path, suite_path = MODELS_DIR / f"{model}.yaml", SUITES / f"{model}.json"
    for one in (path, suite_path):
        _refuse_taken(one)
    if model in {spec.model for spec in load_specs(MODELS_DIR).specs}:
        raise RetrainingError(f"MODEL: {model!r} is the name in another model file; choose another")
    return path, suite_path


def _refuse_taken(path: Path) -> None:
    if path.exists():
        raise RetrainingError(
            f"{path} is there already, and nothing is overwritten; choose another name, or remove "
            "it first"
        )


def write(made: Draft, path: Path, suite_path: Path, settings: Settings | None) -> list[str]:
    """Write model file and suite, and land the rows where settings are given; all or nothing.

    The model file comes last: until it is there, no DAG and no command sees the model.

    Returns
    -------
    list of str
        Storage keys of what landed, oldest first.

    Raises
    ------
    RetrainingError
        Something is there already, or what was written is not read back as it was meant.
    """
    header = f"# yaml-language-server: $schema={os.path.relpath(SCHEMA, path.parent)}\n"
    reasons = (
        "# Written by `python -m include.retraining new`, which looked at "
        f"{made.rows.num_rows:,} rows. Every setting:\n# docs/adopting-a-model.md. Check a change "
        f"with `python -m include.retraining lint {made.spec.model}`.\n"
    )
    suite = json.dumps(made.suite, indent=2, ensure_ascii=False).encode() + b"\n"
    with ExitStack() as undo:
        temporary = undo.enter_context(_temporary(path, (header + reasons + made.text).encode()))
        if load_spec(temporary) != made.spec:
            raise RetrainingError(
                "the model file would not be read as it was meant, because of an odd name or value "
                "in the data; nothing was written. Give columns plain names"
            )
        landed = []
        if settings is not None:
            landed = _land(made, settings, undo.callback)
        with _temporary(suite_path, suite) as temporary_suite:
            _link(temporary_suite, suite_path)
        undo.callback(suite_path.unlink, missing_ok=True)
        _link(temporary, path)
        undo.pop_all()
        temporary.unlink(missing_ok=True)
    _write_schema()
    return landed


@contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    found = Path(file.name)
    found.chmod(0o644)
    try:
        yield found
    finally:
        found.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        _refuse_taken(target)
        raise


def _write_schema() -> None:
    """Write what editors complete with; it follows from the code, and may be written anew."""
    content = json.dumps(ModelSpec.model_json_schema(), indent=2).encode()
    with _temporary(SCHEMA, content) as file:
        file.replace(SCHEMA)


def _land(made: Draft, settings: Settings, undo: Callable[..., object]) -> list[str]:
    """Cut the rows into partitions and let each land as one file."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from include.retraining.cli.new_model import start_of
    from include.retraining.storage import Storage

    storage_can_hold(settings)
    storage, spec = Storage.of(settings), made.spec
    rows = made.rows.filter(pc.is_valid(made.rows.column(spec.source.event_time)))
    rows = rows.sort_by(spec.source.event_time)
    starts = start_of(rows.column(spec.source.event_time), spec.partitions.every)
    codes = starts.combine_chunks().cast(pa.int64()).to_numpy()
    cuts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    landed = []
    for first, end in pairwise(cuts):
        key = spec.source.batch.format(partition=spec.partition_key(starts[first].as_py()))
        sink = pa.BufferOutputStream()
        pq.write_table(rows.slice(first, end - first), sink)
        if _land_one(storage, key, sink.getvalue().to_pybytes()):
            undo(storage.delete, key)
        landed.append(key)
    return landed


def _land_one(storage: Storage, key: str, content: bytes) -> bool:
    """Let a file land; False where the very same was there, which a killed `new` may have left."""
    if storage.create(key, content):
        return True
    if storage.read(key) != content:
        raise RetrainingError(
            f"{storage.url_of(key)} is there already with other content, and nothing is "
            "overwritten; choose another model name, or remove it first"
        )
    return False


def _tell(made: Draft, path: Path, suite: Path, landed: list[str], *, as_json: bool) -> None:
    spec = made.spec
    commands = [f"python -m include.retraining lint {spec.model}"]
    if landed:
        file = f"{Settings.from_env().storage_url.removeprefix('file://')}/{landed[-1]}"
        if Path(file).exists():
            commands = [f"{commands[0]} --landed {file}"]
        commands.append(f"python -m include.retraining rehearse {spec.model}")
    commands.append("make up")
    if as_json:
        for_programs(
            {
                "model": spec.model,
                "model_file": str(path),
                "suite": str(suite),
                "rows": made.rows.num_rows,
                "every": spec.partitions.every,
                "first": spec.partition_key(spec.partitions.first),
                "time": spec.source.event_time,
                "key": list(spec.source.key),
                "label": spec.label.column,
                "task": spec.label.task,
                "numeric": list(spec.features.numeric),
                "categorical": list(spec.features.categorical),
                "left_out": made.left_out,
                "notes": list(made.notes),
                "landed": landed,
                "next": commands,
            }
        )
        return
    found = table("", "column", "why", prose=("column", "why"))
    found.show_header = False
    source, features = spec.source, spec.features
    found.add_row("time", source.event_time, f"partitions by {spec.partitions.every}")
    found.add_row("key", ", ".join(source.key), "")
    found.add_row("label", spec.label.column, f"{spec.label.task}, judged by {spec.gate.metric}")
    for kind, names in (("numeric", features.numeric), ("categorical", features.categorical)):
        if names:
            more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
            found.add_row(kind, ", ".join(names[:6]) + more, f"{len(names):,} features")
    for name, why in list(made.left_out.items())[:20]:
        found.add_row("left out", name, why)
    if len(made.left_out) > 20:
        found.add_row("left out", f"{len(made.left_out) - 20:,} more", "as the model file says")
    for_people(f"{spec.model}: {made.rows.num_rows:,} rows looked at", found, "")
    for note in made.notes:
        for_people(f"note: {note}")
    for_people(f"wrote {path}", f"wrote {suite}")
    if landed:
        for_people(f"landed {len(landed):,} partitions, {landed[0]} to {landed[-1]}")
    for_people("", "next:", *(f"  {one}" for one in commands))
