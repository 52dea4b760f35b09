"""Options with several values after them: ``--windows a b c``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import typer
from typer.core import TyperCommand


class SeveralValues(TyperCommand):
    """A command whose repeatable options take all that follows, up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat such an option before each of its values, and parse the rest as ever."""
        names = {
            name for option in self.params if getattr(option, "multiple", False)
            for name in option.opts
        }  # fmt: skip
        return super().parse_args(ctx, repeated(args, names))


def repeated(args: Sequence[str], names: Collection[str]) -> list[str]:
    """Spell ``--name a b`` as ``--name a --name b`` for these names.

    >>> repeated(["--windows", "a", "b", "--current", "c"], {"--windows"})
    ['--windows', 'a', '--windows', 'b', '--current', 'c']
    """
    spelt: list[str] = []
    name, waits = "", False  # for the first value of an option
    for number, arg in enumerate(args):
        is_option = arg.startswith("-") and not arg[1:2].isdigit() and arg != "-"
        if is_option and waits:
            break
        if arg == "--":
            return [*spelt, *args[number:]]
        if is_option:
            first, sign, _ = arg.partition("=")
            name, waits = (first, not sign) if first in names else ("", False)
            spelt += [] if waits else [arg]
        elif name:
            spelt, waits = [*spelt, name, arg], False
        else:
            spelt.append(arg)
    if waits:
        raise typer.BadParameter("needs at least one value", param_hint=name)
    return spelt
