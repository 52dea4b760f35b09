from __future__ import annotations

import datetime as dt
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.retraining import ledger
from include.retraining.errors import LedgerError
from include.retraining.storage import Storage
from tests.unit.writers import append_entries, draft


@pytest.fixture
def chain(tmp_path) -> Storage:
    """A ledger of five entries."""
    storage = Storage(tmp_path.as_uri())
    for number in range(1, 6):
        ledger.append(storage, draft(f"i{number}", number))
    return storage


def rewrite(storage: Storage, sequence: int, **changes: object) -> None:
    key = f"flights/ledger/{sequence:06d}.json"
    storage.write_json(key, storage.read_json(key) | changes)


def test_empty_ledger_is_intact_and_has_no_champion(tmp_path):
    storage = Storage(tmp_path.as_uri())
    assert ledger.read(storage, "flights") == []
    assert ledger.verify(storage, "flights") == []
    assert ledger.reign([]) == []


def test_entries_are_numbered_and_chained(chain: Storage):
    entries = ledger.read(chain, "flights")
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5]
    assert entries[0].previous_hash == ledger.GENESIS
    assert all(b.previous_hash == a.hash for a, b in itertools.pairwise(entries))
    assert ledger.verify(chain, "flights") == []


def test_entry_made_twice_is_entered_once_whatever_came_between(chain: Storage):
    first = ledger.read(chain, "flights")[1]
    again = ledger.append(chain, draft("i2", 2, reason="told in other words"))
    assert again == first
    assert len(ledger.read(chain, "flights")) == 5


def test_other_action_of_the_same_incident_is_another_entry(chain: Storage):
    assert ledger.append(chain, draft("i2", 2, action="rollback")).sequence == 6


def test_ledgers_of_two_models_do_not_meet(chain: Storage):
    assert ledger.append(chain, draft("i1", 1, model="flights_2")).sequence == 1
    assert len(ledger.read(chain, "flights")) == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 9}, ["entry 3 was changed after it was written"]),
        ({"reason": "nicer"}, ["entry 3 was changed after it was written"]),
        ({"at": "2014-01-01T00:00:00Z"}, ["entry 3 was changed after it was written"]),
        ({"hash": "0" * 64}, ["entry 3 was changed", "entry 4 does not follow"]),
        ({"previous_hash": "1" * 64}, ["entry 3 does not follow", "entry 3 was changed"]),
    ],
)
def test_changed_entry_is_detected(chain: Storage, changes, says):
    rewrite(chain, 3, **changes)
    problems = ledger.verify(chain, "flights")
    assert len(problems) == len(says)
    assert all(part in problem for part, problem in zip(says, problems, strict=True))


def test_change_with_a_new_hash_breaks_the_chain_behind_it(chain: Storage):
    entry = ledger.read(chain, "flights")[2].model_copy(update={"version": 9})
    rewrite(chain, 3, version=9, hash=entry.digest())
    assert ledger.verify(chain, "flights") == ["entry 4 does not follow the one before it"]


def test_removed_entry_is_detected(chain: Storage):
    chain.delete("flights/ledger/000002.json")
    problems = ledger.verify(chain, "flights")
    assert "entry 2 is missing: found number 3 in its place" in problems
    assert "entry 3 does not follow the one before it" in problems


def test_swapped_entries_are_detected(chain: Storage):
    two, three = (chain.read(f"flights/ledger/{n:06d}.json") for n in (2, 3))
    chain.write("flights/ledger/000002.json", three)
    chain.write("flights/ledger/000003.json", two)
    assert len(ledger.verify(chain, "flights")) >= 2


def test_gap_in_the_ledger_stops_the_next_entry(chain: Storage, monkeypatch):
    monkeypatch.setattr(ledger.time, "sleep", lambda seconds: None)
    chain.delete("flights/ledger/000002.json")
    with pytest.raises(LedgerError, match="lost to other writers"):
        ledger.append(chain, draft("new", 6))


def test_eight_processes_lose_nothing_and_never_fork(storage: Storage, request, processes):
    environment = {} if storage.is_local else request.getfixturevalue("s3_environment")
    count = 20 if storage.is_local else 1  # a request to the S3 server takes its time
    answers = [
        processes.submit(append_entries, storage.url, environment, number, count)
        for number in range(8)
    ]
    sequences = [place for answer in answers for place in answer.result(timeout=120)]
    entries = ledger.read(storage, "flights")
    assert sorted(sequences) == list(range(1, 8 * count + 1))
    assert len({entry.incident_id for entry in entries}) == len(entries) == 8 * count
    assert ledger.verify(storage, "flights") == []
    assert len(storage.list("")) == 8 * count


def test_reign_is_the_line_of_champions_still_standing():
    def entry(sequence: int, version: int, action: str = "promotion") -> ledger.Entry:
        at = dt.datetime(2013, 1, sequence, tzinfo=dt.UTC)
        return draft(f"i{sequence}", version, action=action, sequence=sequence, at=at)

    story = [
        entry(1, 1),
        entry(2, 2),
        entry(3, 3),
        entry(4, 2, "rollback"),
        entry(5, 4),
        entry(6, 1, "rollback"),
        entry(7, 4, "rollback"),
    ]
    lines = [[one.version for one in ledger.reign(story[:n])] for n in range(8)]
    assert lines == [[], [1], [1, 2], [1, 2, 3], [1, 2], [1, 2, 4], [1], [1, 4]]
    for day in range(8):
        at = (
            dt.datetime(2013, 1, day, tzinfo=dt.UTC)
            if day
            else dt.datetime(2012, 1, 1, tzinfo=dt.UTC)
        )
        assert [one.version for one in ledger.reign(story, at)] == lines[day]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=12))
def test_current_champion_is_always_that_of_the_last_entry(moves):
    story = [
        draft(f"i{n}", version, action="rollback" if back else "promotion")
        for n, (back, version) in enumerate(moves)
    ]
    line = ledger.reign(story)
    assert [entry.version for entry in line[-1:]] == [version for _, version in moves[-1:]]


def test_entry_is_kept_as_readable_json(chain: Storage):
    content = json.loads(chain.read("flights/ledger/000001.json"))
    assert content["version"] == 1
    assert content["at"] == "2013-02-18T00:00:00Z"
