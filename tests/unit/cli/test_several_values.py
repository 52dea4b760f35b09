from __future__ import annotations

import pytest
import typer

from include.retraining.cli.several_values import repeated

NAMES = {"--windows", "--columns"}


@pytest.mark.parametrize(
    ("given", "spelt"),
    [
        ("", ""),
        ("--current c", "--current c"),
        ("--windows a", "--windows a"),
        ("--windows a b c --current d", "--windows a --windows b --windows c --current d"),
        ("--current d --windows a b", "--current d --windows a --windows b"),
        ("--windows a --windows b", "--windows a --windows b"),
        ("--windows a b --columns x y", "--windows a --windows b --columns x --columns y"),
        ("--windows a b --json", "--windows a --windows b --json"),
        ("--windows=a b", "--windows=a --windows b"),
        ("--columns -1 - --alpha 0.1", "--columns -1 --columns - --alpha 0.1"),
        ("--windows a -- --windows b", "--windows a -- --windows b"),
    ],
)
def test_each_value_gets_the_name_of_its_option(given, spelt):
    assert repeated(given.split(), NAMES) == spelt.split()


@pytest.mark.parametrize("given", ["--windows", "--windows --current c", "--columns --windows a"])
def test_option_without_a_value_is_said(given):
    with pytest.raises(typer.BadParameter, match="needs at least one value"):
        repeated(given.split(), NAMES)
