"""An answer: text and tables for people, JSON for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_json

from include.retraining.telling.escapes import one_line, visible

if TYPE_CHECKING:  # rich is a tenth of a second, and most answers are plain text
    from rich.console import Console
    from rich.table import Column, Table

Json = Annotated[bool, typer.Option("--json", help="for programs: JSON, and nothing else")]
NO_END = 1_000_000  # columns: in a pipe nothing is wrapped or cut
LEAST_PROSE, GAP = 8, 2  # columns of a terminal


def for_people(*parts: str | Table) -> None:
    """Print text and tables: in colours on a terminal, plain and uncut anywhere else.

    No text is taken for markup, or for a command to the terminal, whatever data it comes from.
    """
    for part in parts:
        if isinstance(part, str):
            typer.echo(visible(part))
        else:
            _print(part)


def _print(rows: Table) -> None:
    from rich.console import Console

    console = Console(
        markup=False,
        emoji=False,
        highlight=False,
        width=None if sys.stdout.isatty() else NO_END,
    )
    # on a narrower terminal, lines go on in the next one
    console.width = max(console.width, sum(_least(column, console) for column in rows.columns))
    with console.capture() as captured:
        console.print(rows)
    for line in captured.get().removesuffix("\n").split("\n"):
        typer.echo(line.rstrip(" "), color=True)


def _least(column: Column, console: Console) -> int:
    cells = [column.header, *column.cells]
    endless = console.options.update(width=NO_END)
    whole = max(console.measure(cell, options=endless).maximum for cell in cells)
    return GAP + (whole if column.no_wrap else min(whole, LEAST_PROSE))


def for_programs(found: Any) -> None:
    """Print records, or lists and mappings with records in them, as JSON; NaN is null."""
    typer.echo(to_json(found, indent=2, inf_nan_mode="null"))


def aside(*lines: object) -> None:
    """Tell on stderr what is not the answer."""
    for line in lines:
        typer.echo(visible(line), err=True)


def table(*headings: str, numbers: tuple[str, ...] = (), prose: tuple[str, ...] = ()) -> Table:
    """Give an empty table that is as wide as its content; none of it is ever cut.

    Texts in its cells are plain: no markup, and control characters shown as what they are.

    Parameters
    ----------
    headings : str
        One for each column; none for a table without a head.
    numbers : tuple of str
        The columns that hold numbers: they are aligned on the right.
    prose : tuple of str
        The columns that become narrow first, where a terminal is.
    """
    from rich.table import Table

    class PlainTable(Table):
        def add_row(self, *cells: Any, **options: Any) -> None:
            shown = (one_line(cell, NO_END) if isinstance(cell, str) else cell for cell in cells)
            super().add_row(*shown, **options)

    empty = PlainTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for heading in headings:
        empty.add_column(
            heading,
            overflow="fold",
            no_wrap=heading not in prose,
            justify="right" if heading in numbers else "left",
        )
    return empty
