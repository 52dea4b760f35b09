"""The head of the ledger stands outside of the storage: a chain that is sound and false is told."""

from __future__ import annotations

import datetime as dt

import pytest

from include.retraining import shelf
from include.retraining.names import CHAMPION
from include.retraining.records import GateDecision, Promotion
from include.retraining.registry import anchor, ledger, server, succession, versions
from include.retraining.settings import Settings
from include.retraining.storage import Storage, json_bytes
from include.retraining.telling import alerts
from tests.unit.pipeline import small_spec, train

SPEC = small_spec(gate={"mode": "enabled"})
FORCED = small_spec(training={"seed": 99})
AT = dt.datetime(2013, 2, 4, tzinfo=dt.UTC)


def promote(settings: Settings, number: int, champion: int | None) -> Promotion:
    decision = GateDecision(
        incident_id=versions.version(SPEC, settings, number).incident_id,
        model="flights",
        partition="2013-01-28",
        candidate_version=number,
        champion_version=champion,
        passed=True,
        reasons=("better",),
        candidate=None,
    )
    return succession.promote(SPEC, settings, decision, actor="test", at=AT)


@pytest.fixture
def moved(trained: Settings) -> Settings:
    """Two promotions and a rollback."""
    train(FORCED, trained, "2013-01-28")
    promote(trained, 1, None)
    promote(trained, 2, 1)
    succession.rollback(SPEC, trained, reason="bad", actor="me", request_id="one", at=AT)
    return trained


def entries(settings: Settings) -> list[ledger.Entry]:
    return ledger.read(Storage.of(settings), "flights")


def rewrite(settings: Settings, found: list[ledger.Entry]) -> None:
    """Write the whole chain, and its head, as somebody would who knows how."""
    storage, previous = Storage.of(settings), ledger.GENESIS
    for number in range(1, 10):
        storage.delete(shelf.ledger_entry_key("flights", number))
    for number, entry in enumerate(found, 1):
        made = entry.model_copy(update={"sequence": number, "previous_hash": previous})
        made = made.model_copy(update={"hash": made.digest()})
        storage.write(shelf.ledger_entry_key("flights", number), json_bytes(made))
        previous = made.hash
    storage.write_json(shelf.ledger_head_key("flights"), ledger.Head(sequence=len(found)))
    assert ledger.verify(storage, "flights") == []


def move(settings: Settings, request: str) -> None:
    """Return to the one of the two versions that is not champion."""
    other = 3 - server.aliases(SPEC, settings)[CHAMPION]
    succession.rollback(
        SPEC, settings, reason="bad", actor="me", request_id=request, at=AT, to_version=other
    )


def tag(settings: Settings) -> str:
    return server.model_tags(SPEC, settings)[anchor.HEAD_TAG]


def test_mlflow_remembers_the_last_entry_and_all_is_compared(moved):
    assert tag(moved) == f"3:{entries(moved)[-1].hash}"
    assert anchor.verify(SPEC, moved) == ((), ())


def test_a_move_by_hand_is_remembered_too(moved):
    server.set_alias(SPEC, moved, CHAMPION, 2)
    made = succession.notice_hand_move(SPEC, moved, at=AT)
    assert tag(moved) == f"4:{made.hash}"


def test_a_chain_that_was_written_anew_is_told(moved):
    found = entries(moved)
    rewrite(moved, [found[0].model_copy(update={"reason": "fine"}), *found[1:]])
    problems, notes = anchor.verify(SPEC, moved)
    assert len(problems) == 1
    assert "the ledger was written anew" in problems[0]
    assert notes == (anchor.WAY_OUT,)


def test_an_end_that_was_cut_off_is_told(moved):
    rewrite(moved, entries(moved)[:2])
    assert "MLflow remembers entry 3" in anchor.verify(SPEC, moved).problems[0]
    assert "the ledger ends with 2: entries were removed" in anchor.verify(SPEC, moved).problems[0]


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        pytest.param(3, "entry 3 has hash", id="as-long"),
        pytest.param(2, "entry 3 has hash", id="cut-and-grown-again"),
    ],
)
def test_the_next_move_does_not_cover_up_what_was_written_anew(moved, kept, told):
    before, found = tag(moved), entries(moved)
    rewrite(moved, [found[0].model_copy(update={"reason": "fine"}), *found[1:kept]])
    move(moved, "one more")
    move(moved, "and another")
    assert len(entries(moved)) > 3
    assert tag(moved) == before
    problems, notes = anchor.verify(SPEC, moved)
    assert told in problems[0]
    assert "delete the tag retraining.ledger_head" in notes[0]
    server.client(moved).delete_registered_model_tag("flights", anchor.HEAD_TAG)
    move(moved, "the last")
    assert anchor.verify(SPEC, moved) == ((), ())


def test_what_is_no_head_is_not_overwritten_either(moved):
    server.set_model_tag(SPEC, moved, anchor.HEAD_TAG, "gone")
    anchor.anchor(SPEC, moved, entries(moved)[-1])
    assert tag(moved) == "gone"
    assert "is no head of a ledger: 'gone'" in anchor.verify(SPEC, moved).problems[0]


def test_a_slow_maker_who_remembers_last_leaves_the_newest_entry(moved):
    server.set_model_tag(SPEC, moved, anchor.HEAD_TAG, f"1:{entries(moved)[0].hash}")
    anchor.anchor(SPEC, moved, entries(moved)[1])
    assert tag(moved).startswith("3:")


def test_one_who_died_before_mlflow_was_told_is_no_fault_and_the_next_run_mends_it(
    trained, monkeypatch
):
    train(FORCED, trained, "2013-01-28")
    promote(trained, 1, None)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(anchor, "anchor", dies)
        with pytest.raises(KeyboardInterrupt):
            promote(trained, 2, 1)
    problems, notes = anchor.verify(SPEC, trained)
    assert problems == ()
    assert "MLflow remembers entry 1, those after it could not be compared" in notes[0]
    assert succession.notice_hand_move(SPEC, trained, at=AT) is None
    assert anchor.verify(SPEC, trained) == ((), ())


def test_a_later_entry_is_never_forgotten_for_an_earlier_one(moved):
    anchor.anchor(SPEC, moved, entries(moved)[0])
    assert tag(moved).startswith("3:")


def test_a_registered_model_that_remembers_nothing_is_said_not_called_a_fault(moved):
    server.client(moved).delete_registered_model_tag("flights", anchor.HEAD_TAG)
    problems, notes = anchor.verify(SPEC, moved)
    assert problems == ()
    assert "MLflow, which remembers no head" in notes[0]


def test_mlflow_that_does_not_answer_is_said(moved, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    gone = moved.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    problems, notes = anchor.verify(SPEC, gone)
    assert problems == ()
    assert "MLflow, which does not answer: " in notes[0]


def test_the_head_of_a_message_is_compared_even_where_both_stores_were_written_anew(moved):
    promotion = succession.rollback(
        SPEC, moved, reason="worse", actor="me", request_id="two", at=AT, to_version=2
    )
    line = next(one for one in alerts.of_promotion(promotion).lines if "Ledger entry" in one)
    told = anchor.head_of(line.split()[2].rstrip(","))
    assert anchor.verify(SPEC, moved, told=told) == ((), ())
    found = entries(moved)
    rewrite(moved, [*found[:3], found[3].model_copy(update={"actor": "somebody else"})])
    server.set_model_tag(SPEC, moved, anchor.HEAD_TAG, f"4:{entries(moved)[-1].hash}")
    assert anchor.verify(SPEC, moved) == ((), ())
    assert "the message says" in anchor.verify(SPEC, moved, told=told).problems[0]


@pytest.mark.parametrize("text", ["", "3", "3:abc", "0:3fa9c1d2", "three:3fa9c1d2", "3:xyz9c1d2"])
def test_what_is_no_head(text):
    assert anchor.head_of(text) is None
