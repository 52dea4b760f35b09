from __future__ import annotations

import datetime as dt

import pytest
import yaml

from include.retraining import plain_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((one, True) for one in ("true", "True", "TRUE")),
        *((one, False) for one in ("false", "False", "FALSE")),
        *((one, one) for one in ("yes", "no", "NO", "on", "Off", "y", "n")),
        ("1e-2", 0.01),
        ("1E5", 1e5),
        ("-2.5e3", -2500.0),
        (".5", 0.5),
        ("0.10", 0.1),
        (".inf", float("inf")),
        ("0", 0),
        ("-7", -7),
        ("15_000", 15000),
        ("0x1f", 31),
        *((one, one) for one in ("1:30", "1:30.5", "1e", "e5", "1.2.3", "007bond")),
        ("'010'", "010"),
        ("null", None),
        ("2013-01-07", dt.date(2013, 1, 7)),
    ],
)
def test_scalar_is_what_it_looks_like(text, value):
    found = plain_yaml.read(f"a: {text}")["a"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("text", ["010", "-010", "0o17", "00", "08", "0_8"])
def test_leading_zero_is_refused_with_both_ways_out(text):
    with pytest.raises(yaml.YAMLError, match=f"in quotes: '{text}'"):
        plain_yaml.read(f"a: {text}")


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "'a': 1\na: 2", "b: {a: 1, a: 2}", "b: [{a: 1, a: 2}]"]
)
def test_key_that_appears_twice_is_refused_wherever_it_is(text):
    with pytest.raises(yaml.YAMLError, match="'a' appears twice"):
        plain_yaml.read(text)


def test_values_are_counted_with_their_aliases():
    text = f"a: &a [{', '.join('x' * 999)}]\nb: ["
    assert len(plain_yaml.read(f"{text}{'*a, ' * 150}]")["b"]) == 150
    with pytest.raises(yaml.YAMLError, match="more than 200,000 values"):
        plain_yaml.read(f"{text}{'*a, ' * 250}]")


def test_nesting_is_bounded_and_not_by_the_stack():
    assert plain_yaml.read("[" * 50 + "]" * 50)
    with pytest.raises(yaml.YAMLError, match="nested more than 50 deep"):
        plain_yaml.read("[" * 51 + "]" * 51)
