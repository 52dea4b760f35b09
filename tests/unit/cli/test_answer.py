from __future__ import annotations

import json

import pytest

from include.retraining.cli import answer
from include.retraining.records import Performance

MARKUP = "[red]x[/red] [link=https://e.x]y[/link] :smile: [bold"


def test_data_that_looks_like_markup_is_shown_as_it_is(capsys):
    rows = answer.table("name", "reason")
    rows.add_row(MARKUP, MARKUP)
    answer.for_people(MARKUP, rows)
    assert capsys.readouterr().out.count(MARKUP) == 3


def test_nothing_is_cut_wrapped_or_coloured_in_a_pipe(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    long = " ".join(f"word{number}" for number in range(200))
    rows = answer.table("a", "b", "n", numbers=("n",))
    rows.add_row(long, long, "1")
    answer.for_people(long, rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line.count(long) for line in lines] == [1, 0, 2]
    assert not any(sign in line for line in lines for sign in ("…", "\x1b"))


def test_columns_are_aligned_and_lines_end_where_their_text_does(capsys):
    rows = answer.table("name", "n", "why", numbers=("n",))
    rows.add_row("a", "1", "x")
    rows.add_row("longer", "1,000", "because")
    answer.for_people(rows)
    assert capsys.readouterr().out.splitlines() == [
        "name        n  why",
        "a           1  x",
        "longer  1,000  because",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_is_valid_whatever_the_numbers(capsys, value):
    record = Performance(metric="é", rows=1, value=value, low=0.0, high=1.0)
    answer.for_programs([record, {"inner": record, "plain": value}])
    out = capsys.readouterr().out
    found = json.loads(out, parse_constant=pytest.fail)
    assert found[0]["value"] is found[1]["inner"]["value"] is found[1]["plain"] is None
    assert "é" in out


@pytest.mark.parametrize("width", [1, 20, 40, 80])
def test_terminal_however_narrow_loses_nothing(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    rows = answer.table("name", "since", "why", "what", prose=("why", "what"))
    rows.add_row("a" * 30, "2013-02-04", "p " * 20, "q" * 30)
    answer.for_people(rows)
    out = capsys.readouterr().out
    assert [out.count(letter) for letter in "pq"] == [20, 30]
    assert "a" * 30 + "  2013-02-04  " in out
