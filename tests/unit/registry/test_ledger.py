from __future__ import annotations

import datetime as dt
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.retraining.errors import LedgerError
from include.retraining.registry import ledger
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


def test_last_entry_that_is_gone_is_detected_and_its_number_is_not_used_again(chain: Storage):
    # it used to be: the next entry took its number, and nothing was ever missing
    chain.delete("flights/ledger/000005.json")
    assert ledger.verify(chain, "flights") == ["entry 5 was the last one and is missing"]
    with pytest.raises(LedgerError, match="ledger entry 5 was there and is gone; restore"):
        ledger.append(chain, draft("new", 6))


def test_ledger_with_a_gap_takes_entries_and_keeps_telling_of_it(chain: Storage):
    chain.delete("flights/ledger/000002.json")
    assert ledger.append(chain, draft("new", 6)).sequence == 6
    assert "entry 2 is missing: found number 3 in its place" in ledger.verify(chain, "flights")


class Counted(Storage):
    """Counts its requests."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.requests: list[str] = []

    def read(self, key: str) -> bytes:
        self.requests.append(f"read {key}")
        return super().read(key)

    def create(self, key: str, content: bytes) -> bool:
        self.requests.append(f"create {key}")
        return super().create(key, content)

    def write(self, key: str, content: bytes) -> None:
        self.requests.append(f"write {key}")
        super().write(key, content)

    def list(self, prefix: str) -> list[str]:
        self.requests.append(f"list {prefix}")
        return super().list(prefix)


def test_append_takes_as_many_requests_in_a_long_ledger_as_in_a_short_one(tmp_path):
    counted = Counted(tmp_path.as_uri())
    taken = []
    for number in range(1, 61):
        counted.requests.clear()
        ledger.append(counted, draft(f"i{number}", number))
        taken.append(len(counted.requests))
    assert taken[-1] == taken[1] <= 12
    counted.requests.clear()
    ledger.append(counted, draft("i7", 7))
    assert len(counted.requests) <= 6


class Killed(BaseException):
    """A kill -9."""


@pytest.mark.parametrize("number", range(1, 5))
def test_append_killed_anywhere_makes_one_entry_whatever_came_between(tmp_path, number):
    storage = Storage(tmp_path.as_uri())
    ledger.append(storage, draft("i1", 1))
    dying = Counted(tmp_path.as_uri())
    changes = 0

    def die(kind):
        real = getattr(dying, kind)

        def call(*arguments):
            nonlocal changes
            changes += 1
            if changes == number:
                raise Killed
            return real(*arguments)

        return call

    dying.create, dying.write = die("create"), die("write")
    with pytest.raises(Killed):  # intent, entry, intent settled, head
        ledger.append(dying, draft("i2", 2))
    for other in (3, 4, 5):
        ledger.append(storage, draft(f"i{other}", other))
    entry = ledger.append(storage, draft("i2", 2))
    assert ledger.append(storage, draft("i2", 2)) == entry
    entries = ledger.read(storage, "flights")
    assert sorted(one.incident_id for one in entries) == ["i1", "i2", "i3", "i4", "i5"]
    assert ledger.verify(storage, "flights") == []
    assert ledger.last(storage, "flights") == entries[-1]
    assert ledger.made(storage, "flights", "i2", "promotion") == entry


def test_an_entry_that_has_to_follow_another_one_loses_to_whoever_came_between(tmp_path):
    storage = Storage(tmp_path.as_uri())
    assert ledger.append(storage, draft("i1", 1), after=0).sequence == 1
    assert ledger.append(storage, draft("i2", 2), after=0) is None
    assert ledger.append(storage, draft("i3", 3), after=1).sequence == 2
    assert ledger.append(storage, draft("i2", 2), after=1) is None
    # the same again is the one there is
    assert ledger.append(storage, draft("i1", 1), after=0).sequence == 1
    assert [entry.incident_id for entry in ledger.read(storage, "flights")] == ["i1", "i3"]


def test_the_marks_of_an_entry_are_its_own_and_stay(tmp_path):
    storage = Storage(tmp_path.as_uri())
    first, second = (ledger.append(storage, draft(f"i{number}", number)) for number in (1, 2))
    ledger.mark(storage, second, "followed")
    assert [ledger.is_marked(storage, one, "followed") for one in (first, second)] == [False, True]
    ledger.mark(storage, first, "followed")
    assert ledger.is_marked(storage, second, "followed")
    assert not ledger.is_marked(storage, second, "done")
    assert ledger.read(storage, "flights") == [first, second]


def test_damaged_entry_is_named_and_not_raw(tmp_path):
    storage = Storage(tmp_path.as_uri())
    for number in (1, 2):
        ledger.append(storage, draft(f"i{number}", number))
    storage.write("flights/ledger/000001.json", b'{"sequence": 1')
    assert "ledger entry 1 is damaged" in ledger.verify(storage, "flights")[0]
    assert ledger.count(storage, "flights") == 2
    with pytest.raises(LedgerError, match=r"restore flights/ledger/000001\.json"):
        ledger.read(storage, "flights")


def test_same_entry_by_eight_processes_is_one(storage: Storage, request, processes):
    environment = {} if storage.is_local else request.getfixturevalue("s3_environment")
    answers = [
        processes.submit(append_entries, storage.url, environment, 1, 3 if storage.is_local else 1)
        for _ in range(8)
    ]
    places = {tuple(answer.result(timeout=120)) for answer in answers}
    assert len(places) == 1
    assert len(ledger.read(storage, "flights")) == len(places.pop())


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
    assert ledger.last(storage, "flights") == entries[-1]


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
