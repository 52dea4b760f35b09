"""What drift is in files, and which policy would have paid: nothing is changed by looking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from include.retraining.cli.answer import Json, aside, for_people, for_programs, table
from include.retraining.cli.subject import Model, model_named, state_there_is
from include.retraining.cli.work import work
from include.retraining.errors import RetrainingError, SpecError
from include.retraining.settings import REPOSITORY
from include.retraining.spec import Drift

if TYPE_CHECKING:
    from include.retraining.monitor.files import FilesDrift

USUAL = Drift()


def _setting(name: str) -> Any:
    return typer.Option(help=Drift.model_fields[name].description)


def drift(
    *,
    windows: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE...", show_default=False,
            help="the reference, oldest first; each about as long as the current one, its rows in "
            "the order of time if they have one",
        ),
    ],
    current: Annotated[
        Path, typer.Option(metavar="FILE", help="what is judged", show_default=False)
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME...", help="default: all", show_default=False),
    ] = None,
    expected: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME...", help="drift by construction", show_default=False),
    ] = None,
    alpha: Annotated[float, _setting("alpha")] = USUAL.alpha,
    min_distance: Annotated[float, _setting("min_distance")] = USUAL.min_distance,
    min_rows: Annotated[int, _setting("min_rows")] = USUAL.min_rows,
    tail_windows: Annotated[int, _setting("tail_windows")] = USUAL.tail_windows,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Hold a Parquet file against earlier ones: has it drifted?

    No model is needed. The exit status is 0 whatever the verdict.
    """
    from include.retraining.monitor.files import compare_files

    try:
        settings = Drift(
            expected=tuple(expected or ()),
            alpha=alpha,
            min_distance=min_distance,
            min_rows=min_rows,
            tail_windows=tail_windows,
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise SpecError(f"--{name}: {first['msg']}, got {first['input']!r}") from error
    found = compare_files(windows, current, settings=settings, columns=columns or ())
    if as_json:
        for_programs(found)
    else:
        _tell(found)
    return 0


def _tell(found: FilesDrift) -> None:
    """Print the columns, the one furthest beyond its threshold first."""
    from rich.text import Text

    rows = table("", "column", "reason", prose=("reason",))
    rows.show_header = False
    for feature in sorted(found.features, key=lambda f: (not f.drifted, -f.excess)):
        mark = "DRIFT" if feature.drifted else "-" if feature.state == "insufficient" else "ok"
        style = {"DRIFT": "bold red", "ok": "green"}.get(mark, "")
        rows.add_row(Text(mark, style), feature.name, feature.reason)
    for_people(f"{found.verdict} ({found.state}): {found.reason}", "", rows)


def replay(
    model: Model,
    *,
    first: Annotated[
        str | None,
        typer.Option(
            metavar="PARTITION", show_default=False,
            help="train the first model after this one; default: the earliest that leaves "
            "training.min_rows",
        ),
    ] = None,
    tried: Annotated[
        list[str] | None,
        typer.Option(
            "--try", metavar="SETTING=VALUE[,...]", show_default=False,
            help="one policy more: the model file with these settings of drift or retrain changed, "
            "such as retrain.growth=0.3",
        ),
    ] = None,
    starts: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="begin at so many windows one after the other, and give means: evens out which "
            "of two neighbouring windows happened to be trained on",
        ),
    ] = 1,
    ideal: Annotated[
        bool,
        typer.Option(
            "--ideal",
            help="train on the duel window as well and promote without a duel, as studies assume",
        ),
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG", help="default: var/replay/<model>.png", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Run retraining policies over a model's past: retrains spent, metric gained."""
    from rich.console import Console
    from rich.progress import track

    spec, settings = model_named(model), state_there_is()
    if spec.is_served_elsewhere:
        raise RetrainingError(
            f"{model}: it is trained elsewhere (predictions.column), and a replay trains models of "
            "its own; `rehearse` shows how it would have been watched"
        )
    console = Console(stderr=True)
    with work():
        from include.retraining.replay import outcomes, table
        from include.retraining.replay.past import Past, published_windows
        from include.retraining.replay.picture import as_picture
        from include.retraining.replay.policies import standard_policies
        from include.retraining.storage import Storage

        past = Past(spec, published_windows(spec, Storage.of(settings)), first=first, ideal=ideal)
        found = outcomes.replay(
            past,
            standard_policies(spec, tried or (), windows=past.last - past.first),
            starts=starts,
            progress=lambda items, title, length: track(
                items, title, total=length, console=console
            ),
        )
        path = picture or REPOSITORY / "var" / "replay" / f"{spec.model}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_picture(past, found))
    if as_json:
        content = json.loads(table.as_json(past, found, starts=starts))
        for_programs(content | {"picture": str(path)})
    else:
        for_people(table.as_table(past, found, starts=starts))
    aside(f"picture: {path}")
    return 0
