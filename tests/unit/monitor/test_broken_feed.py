"""A batch that comes in another unit: named, left out of training, and what ends that."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import pytest
from retraining_provider.context import Run

from include.demo import flights_feed
from include.retraining import shelf
from include.retraining.cli.app import main
from include.retraining.data import broken_feeds
from include.retraining.errors import DataError
from include.retraining.monitor import measuring
from include.retraining.monitor.harm import find_harm
from include.retraining.monitor.verdict import broken_columns, judge
from include.retraining.registry import server
from include.retraining.retrain.training_set import build_training_set, digest_of, training_rows
from include.retraining.settings import Settings
from include.retraining.storage import Storage
from include.retraining.telling import alerts
from include.retraining.telling.model_page import model_page
from include.retraining.telling.status import status_of
from tests.unit import pipeline
from tests.unit.monitor.test_measuring import monitor

SPEC = pipeline.small_spec()
THIRD, FOURTH = pipeline.WEEKS[2:]
FIFTH = "2013-02-04"


@pytest.fixture
def broken(trained: Settings) -> Settings:
    """Version 1, of the first two weeks, is champion; the fourth week comes in kilometres."""
    server.client(trained).set_registered_model_alias("flights", "champion", "1")
    flights = flights_feed.flights_of(SPEC.batch_ref(FOURTH))
    flights["distance"] = flights["distance"] * 1.609344
    pipeline.ingest(SPEC, trained, FOURTH, flights)
    return trained


def test_it_is_named_and_nothing_is_learned_from_it(broken):
    report, verdict = monitor(SPEC, broken, FOURTH)
    assert report.left_out
    assert report.realised is None
    assert verdict.outcome == "broken_feed"
    assert verdict.reasons[0].startswith(
        "the feed of distance broke: x 1.60934: miles to km; turned back, "
    )
    storage = Storage.of(broken)
    assert broken_feeds.left_out(storage, "flights") == (FOURTH,)
    alert = alerts.of_verdict(verdict, None)
    assert alert is not None
    assert (alert.level, alert.title) == (
        "critical",
        "The feed broke: nothing is learned from this batch",
    )
    assert f"feed accept flights {FOURTH} --column NAME" in alert.lines[-1]


def test_a_later_retrain_learns_from_all_but_it(broken):
    monitor(SPEC, broken, FOURTH)
    pipeline.ingest(SPEC, broken, FIFTH)
    request = pipeline.request_retrain(SPEC, broken, FIFTH)
    found = build_training_set(SPEC, broken, request)
    assert found.left_out == (FOURTH,)
    storage = Storage.of(broken)
    batch = SPEC.batch_ref(FOURTH)
    times = training_rows(SPEC, storage, found).column(SPEC.source.event_time).to_pylist()
    assert times
    assert not any(batch.start <= at < batch.end for at in times)
    broken_feeds.take_back(storage, batch)  # what was learned from is repeated as it was
    assert digest_of(SPEC, storage, found) == found.sha256
    assert training_rows(SPEC, storage, found).column(SPEC.source.event_time).to_pylist() == times


def test_a_corrected_delivery_ends_it(broken):
    monitor(SPEC, broken, FOURTH)
    pipeline.ingest(SPEC, broken, FOURTH)
    report, verdict = monitor(SPEC, broken, FOURTH)
    assert verdict.outcome != "broken_feed"
    assert not report.left_out
    assert broken_feeds.left_out(Storage.of(broken), "flights") == ()


def test_a_persons_word_ends_it_from_that_batch_on(broken, monkeypatch, capsys):
    monkeypatch.setenv("RETRAINING_HOME", str(broken.home))
    monitor(SPEC, broken, FOURTH)
    assert main(["feed", "show", "flights"]) == 1
    assert f"{FOURTH}  distance: unit, x 1.60934: miles to km" in capsys.readouterr().out
    said = ["feed", "accept", "flights", FOURTH, "--column"]
    assert main([*said, "temp", "--reason", "cold"]) == 2
    assert "is not known as broken; known are: 2013-01-28: distance" in capsys.readouterr().err
    assert main([*said, "distance", "--reason", "[b]kilometres[/b] for good"]) == 0
    assert "[b]kilometres[/b] for good" in capsys.readouterr().out
    assert main(["feed", "show", "flights"]) == 0
    report = measuring.measure_drift(SPEC, broken, SPEC.batch_ref(FOURTH), anew=True)
    verdict = measuring.judge_batch(SPEC, broken, report, anew=True)
    assert verdict.outcome not in {"broken_feed", "ignore"}  # it is drift now
    assert any("says that this is right: [b]kilometres" in reason for reason in verdict.reasons)
    assert not report.left_out
    said = broken_feeds.accepted(SPEC, Storage.of(broken), SPEC.batch_ref(THIRD))
    assert said == []  # not before
    withdraw = ["feed", "withdraw", "flights", FOURTH, "--column"]
    assert main([*withdraw, "temp"]) == 2
    assert f"what was said: distance from {FOURTH} on" in capsys.readouterr().err
    assert main([*withdraw, "distance"]) == 0
    report = measuring.measure_drift(SPEC, broken, SPEC.batch_ref(FOURTH), anew=True)
    assert measuring.judge_batch(SPEC, broken, report, anew=True).outcome == "broken_feed"


def test_the_form_of_the_monitor_takes_a_persons_word(broken):
    batch = SPEC.batch_ref(FOURTH)
    monitor(SPEC, broken, FOURTH)

    def asked(**params):
        run = SimpleNamespace(run_id="by hand", triggering_user_name="ada", partition_key=FOURTH)
        found = Run(SPEC, {"dag_run": run, "params": params})
        found.settings, found.batch = broken, batch
        return found

    assert not asked(measure_anew=False, right_columns=None).is_asked_anew
    with pytest.raises(DataError, match="must say why"):
        asked(right_columns=["distance"]).accept_feed()
    with pytest.raises(DataError, match="column 'temp' is not known as broken"):
        asked(right_columns=["temp"], reason="cold").accept_feed()
    run = asked(right_columns=["distance", " "], reason="kilometres for good")
    for _ in range(2):  # a task may run twice
        run.accept_feed()
    assert run.is_asked_anew
    (said,) = broken_feeds.accepted(SPEC, Storage.of(broken), batch)
    assert (said.column, said.actor, said.reason) == ("distance", "ada", "kilometres for good")


def test_the_page_offers_to_say_that_it_is_right(broken):
    monitor(SPEC, broken, FOURTH)
    page = model_page(SPEC, broken, at=dt.datetime.now(dt.UTC))
    (offer,) = [one for one in page.actions if one.name == "accept_feed"]
    assert (offer.dag_id, offer.partition) == ("flights__monitor", FOURTH)
    assert offer.columns == ("distance",)
    assert "miles to km" in offer.meaning


def test_what_only_looks_like_a_unit_blocks_nothing(broken):
    report, _ = monitor(SPEC, broken, FOURTH)
    like = [
        one.model_copy(
            update={"broken": one.broken.model_copy(update={"proven": False})} if one.broken else {}
        )
        for one in report.features
    ]
    doubtful = report.model_copy(update={"features": tuple(like), "left_out": False})
    assert broken_columns(doubtful) == {}
    verdict = judge(SPEC, doubtful)
    assert verdict.outcome != "broken_feed"
    assert any(one.startswith("distance x 1.60934: miles to km") for one in verdict.reasons)


def test_what_was_realised_on_it_is_no_evidence_of_harm(broken):
    report, _ = monitor(SPEC, broken, FOURTH)
    assert report.performance is not None
    assert find_harm(SPEC, report, []) is None


def test_status_says_so_and_what_to_do(broken):
    monitor(SPEC, broken, FOURTH)
    found = status_of(SPEC, broken, registry=False)
    assert found.verdict is not None
    assert found.verdict.outcome == "broken_feed"


def test_a_reason_is_asked_for(broken):
    monitor(SPEC, broken, FOURTH)
    with pytest.raises(DataError, match="must say why"):
        broken_feeds.accept(
            SPEC, Storage.of(broken), partition=FOURTH, column="distance", reason=" ",
            actor="a", at=dt.datetime.now(dt.UTC),
        )  # fmt: skip


def test_what_is_swept_is_left_out_no_longer(broken):
    monitor(SPEC, broken, FOURTH)
    storage = Storage.of(broken)
    assert FOURTH in shelf.partitions_told_of(storage, "flights")
    for folder in shelf.partition_folders("flights", FOURTH):
        storage.delete_all(storage.list(folder))
    assert broken_feeds.left_out(storage, "flights") == ()


def test_who_dies_between_verdict_and_list_does_no_harm(broken, monkeypatch):
    storage = Storage.of(broken)
    with monkeypatch.context() as patched:

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(broken_feeds, "leave_out", die)
        with pytest.raises(KeyboardInterrupt):
            monitor(SPEC, broken, FOURTH)
    assert broken_feeds.left_out(storage, "flights") == ()
    monitor(SPEC, broken, FOURTH)  # the same task again
    assert broken_feeds.left_out(storage, "flights") == (FOURTH,)


def test_a_corrected_batch_is_free_whatever_its_verdict_was(broken):
    _, verdict = monitor(SPEC, broken, FOURTH)
    storage = Storage.of(broken)
    shelf.keep(storage, verdict.model_copy(update={"outcome": "rollback"}))
    pipeline.ingest(SPEC, broken, FOURTH)
    monitor(SPEC, broken, FOURTH)
    assert broken_feeds.left_out(storage, "flights") == ()


def test_a_batch_as_old_as_what_was_learned_stays_as_it_was(broken):
    report, _ = monitor(SPEC, broken, FOURTH)
    old = report.model_copy(update={"in_sample": True, "content_sha256": "another"})
    assert measuring.judge_batch(SPEC, broken, old).outcome == "ignore"
    assert broken_feeds.left_out(Storage.of(broken), "flights") == (FOURTH,)


def test_another_unit_is_another_break(broken):
    monitor(SPEC, broken, FOURTH)
    storage = Storage.of(broken)
    said, freed = broken_feeds.accept(
        SPEC, storage, partition=FOURTH, column="distance", reason="kilometres for good",
        actor="a", at=dt.datetime.now(dt.UTC),
    )  # fmt: skip
    assert (said.cause, freed) == ("x 1.60934: miles to km", [FOURTH])
    report, _ = monitor(SPEC, broken, FOURTH)
    same = next(one.broken for one in report.features if one.name == "distance")
    assert broken_feeds.is_accepted("distance", same, [said])
    other = same.model_copy(update={"cause": "x 0.621371: km to miles; turned back, 99 %"})
    assert not broken_feeds.is_accepted("distance", other, [said])


def test_outcomes_of_earlier_rows_are_evidence_still(broken):
    spec = pipeline.small_spec()
    late = spec.model_copy(update={"label": spec.label.model_copy(update={"maturity_days": 7.0})})
    report, _ = monitor(late, broken, FOURTH)
    assert report.left_out
    assert report.is_of_earlier_rows
    assert report.performance is None or report.realised is not None
