from __future__ import annotations

import zipfile

from include.retraining.registry import ledger
from include.retraining.storage import Storage


def test_entries_are_shown_in_a_table_and_as_records(ask, reigning):
    said = ask("ledger", "show", "flights")
    assert said.status == 0
    head, *rows = said.out.splitlines()
    assert head.split() == [
        "entry", "at", "(UTC)", "action", "version", "partition", "by", "reason",
    ]  # fmt: skip
    assert len(rows) == 2
    assert rows[1].split()[:5] == ["2", "2013-02-04", "00:00:00", "promotion", "2"]
    entries = ledger.read(Storage.of(reigning), "flights")
    found = ask("ledger", "show", "flights", "--json").found
    assert found == [entry.model_dump(mode="json") for entry in entries]


def test_what_was_in_production_at_a_time(ask, reigning):
    said = ask("ledger", "show", "flights", "--at", "2013-02-05", "--json")
    assert [entry["version"] for entry in said.found] == [2]
    before = ("ledger", "show", "flights", "--at", "2013-02-04T00:30+01:00")
    assert ask(*before).out == "nothing was in production\n"
    assert ask(*before, "--json").found == []


def test_reasons_that_look_like_markup_are_shown_as_they_are(ask, reigning):
    assert ask("rollback", "flights", "--reason", "[red]x[/red] [/]").status == 0
    assert "[red]x[/red] [/]" in ask("ledger", "show", "flights").out


def test_ledger_is_verified(ask, reigning):
    assert ask("ledger", "verify", "flights").out == "2 entries, all intact\n"
    intact = {"model": "flights", "entries": 2, "problems": [], "notes": []}
    assert ask("ledger", "verify", "flights", "--json").found == intact
    storage, key = Storage.of(reigning), "flights/ledger/000001.json"
    storage.write_json(key, storage.read_json(key) | {"version": 3})
    said = ask("ledger", "verify", "flights")
    assert said.status == 1
    assert "entry 1 was changed after it was written" in said.out
    said = ask("ledger", "verify", "flights", "--json")
    assert (said.status, len(said.found["problems"])) == (1, 1)


def test_pack_is_written_and_its_manifest_printed(ask, reigning, tmp_path):
    target = tmp_path / "v1.zip"
    said = ask("ledger", "audit-pack", "flights", "--version", 1, "-o", target)
    assert said.status == 0
    assert said.out.startswith(f"{target}: ")
    assert "not found: " in said.err
    target.unlink()
    said = ask("ledger", "audit-pack", "flights", "--version", 1, "--output", target, "--json")
    assert said.err == ""
    assert said.found["output"] == str(target)
    assert said.found["bytes"] == target.stat().st_size
    with zipfile.ZipFile(target) as archive:
        assert set(said.found["files"]) == set(archive.namelist()) - {"manifest.json"}
    assert said.found["missing"]


def test_rollback_says_what_is_in_production_now(ask, reigning):
    said = ask("rollback", "flights", "--reason", "late alerts", "--json")
    assert said.status == 0
    assert (said.found["action"], said.found["version"]) == ("rollback", 1)
    said = ask("rollback", "flights", "--reason", "worse", "--to-version", 2)
    assert "version 2 is in production" in said.out
    assert "(ledger entry 4)" in said.out


def test_rollback_needs_a_reason(ask, reigning):
    said = ask("rollback", "flights", "--reason", " ")
    assert (said.status, said.err) == (2, "error: --reason: must say why, got ' '\n")
    assert "Missing option '--reason'" in ask("rollback", "flights").err
