"""Policies over a made past: the first half follows one rule, the second half the opposite one."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from include.retraining.errors import DataError, SpecError
from include.retraining.replay.outcomes import Outcome, replay
from include.retraining.replay.past import Past, Window, published_windows
from include.retraining.replay.picture import as_picture
from include.retraining.replay.policies import Policy, standard_policies
from include.retraining.replay.table import as_json, as_table
from include.retraining.spec import MODELS_DIR, ModelSpec, load_spec
from include.retraining.storage import Storage
from tests.unit import pipeline

ROWS, WINDOWS, TURN = 400, 12, 6


def small_spec() -> ModelSpec:
    content = load_spec(MODELS_DIR / "flights.yaml").model_dump(mode="json")
    content["source"] |= {
        "batch": "landing/{partition}.parquet",
        "companions": {},
        "companion_columns": {},
        "key": ["key"],
        "event_time": "at",
        "columns": {"key": "integer", "at": "timestamp", "late": "number"},
    }
    content["label"] = {"column": "late", "maturity_days": 1}
    content["features"] |= {"numeric": ["x", "noise"], "categorical": ["side"]}
    content["drift"] |= {"expected": []}
    content["training"] = {
        "estimator": "sklearn.tree.DecisionTreeClassifier",
        "params": {"max_depth": 3},
        "min_rows": 500,
        "window": "rolling",
        "max_days": 21,
    }
    content["gate"] |= {"slices": [], "min_rows": 50}
    content["retrain"] = {"cool_down_days": 0, "max_per_30_days": 9, "autonomy": 3}
    return ModelSpec.model_validate(content)


def made_windows(spec: ModelSpec, *, turn: int = TURN) -> list[Window]:
    generator = np.random.default_rng(7)
    windows = []
    for number in range(WINDOWS):
        start = spec.partitions.first + number * spec.partitions.length
        batch = spec.batch_ref(spec.partition_key(start))
        x = generator.normal(0.0 if number < turn else 1.0, 1.0, ROWS)
        up = x > np.median(x)
        late = np.where(generator.random(ROWS) < 0.1, ~up, up) ^ (number >= turn)
        seconds = np.sort(generator.integers(0, 7 * 86400, ROWS))
        times = np.datetime64(start.replace(tzinfo=None), "us") + seconds.astype("m8[s]")
        rows = pa.table(
            {
                "key": pa.array(range(ROWS)),
                "at": pa.array(times.astype("M8[us]")).cast(pa.timestamp("us", tz="UTC")),
                "late": pa.array(late.astype(float)),
                "x": pa.array(x),
                "noise": pa.array(generator.normal(size=ROWS)),
                "side": pa.array(np.where(up, "up", "down")),
            }
        )
        windows.append(Window(batch, rows))
    return windows


@pytest.fixture(scope="module")
def past() -> Past:
    spec = small_spec()
    return Past(spec, made_windows(spec))


@pytest.fixture(scope="module")
def outcomes(past: Past) -> dict[str, Outcome]:
    policies = standard_policies(past.spec, ["retrain.growth=0.5,drift.min_distance=0.2"])
    return {outcome.policy: outcome for outcome in replay(past, policies)}


def test_bounds_are_bounds(past, outcomes):
    never, every = outcomes["never"], outcomes["after every window"]
    assert (never.retrains, never.promotions, never.regained) == (0, 0, 0.0)
    assert every.retrains == len(past.choices) - 1
    clairvoyant = [o for name, o in outcomes.items() if name.startswith("clairvoyant")]
    for outcome in outcomes.values():
        as_many = [o.metric for o in clairvoyant if o.promotions == outcome.promotions]
        assert all(outcome.metric <= best + 1e-12 for best in as_many)


def test_drift_of_the_made_past_is_found_and_pays(past, outcomes):
    ours = outcomes["ours: the model file"]
    turn = past.windows[TURN].batch.partition
    assert ours.retrained, "the law turned round, and nothing was done about it"
    assert ours.retrained[0] >= turn, "retrained before anything had changed"
    assert ours.metric > outcomes["never"].metric + 0.04


def test_without_drift_ours_retrains_never():
    spec = small_spec()
    past = Past(spec, made_windows(spec, turn=WINDOWS))
    policies = [
        policy for policy in standard_policies(spec) if policy.name == "ours: the model file"
    ]
    assert replay(past, policies)[0].retrains == 0


def test_a_schedule_retrains_when_it_says(past, outcomes):
    weeks = [window.batch.partition for window in past.windows]
    expected = tuple(weeks[past.first + 3 : past.last : 3])
    assert outcomes["every 3 windows"].retrained == expected


def test_metric_of_a_policy_is_that_of_the_champion_of_each_window(past, outcomes):
    weeks = [window.batch.partition for window in past.windows]
    at = [weeks.index(partition) for partition in outcomes["every 4 windows"].promoted]
    champions = [
        max([past.first, *(point for point in at if point < window)])
        for window in range(past.first + 1, past.last + 1)
    ]
    values = [past.metric(c, past.first + 1 + i) for i, c in enumerate(champions)]
    assert outcomes["every 4 windows"].metric == pytest.approx(np.mean(values))


def test_replaying_again_gives_the_same(outcomes):
    spec = small_spec()
    again = replay(
        Past(spec, made_windows(spec)),
        standard_policies(spec, ["retrain.growth=0.5,drift.min_distance=0.2"]),
    )
    assert {outcome.policy: outcome for outcome in again} == outcomes


def test_ideal_models_know_the_newest_rows_and_need_no_duel(past):
    ideal = Past(past.spec, past.windows, ideal=True)
    at = past.first
    assert ideal.trainable(at) > past.trainable(at)
    assert ideal.model(at).end > past.model(at).end
    assert ideal.report(at, at + 1).promise is not None
    assert ideal.promotes(at, at + 1)


def test_a_candidate_that_learned_the_old_law_is_not_promoted(past):
    """Right at the turn the duel window already follows the new law, and nothing was learned."""
    outcomes = replay(past, [Policy("now", "rule", lambda walk: walk.now == TURN)])
    assert (outcomes[0].retrains, outcomes[0].promotions) == (1, 0)


def test_outcomes_can_be_read_by_people_and_programs(past, outcomes):
    found = list(outcomes.values())
    table = as_table(past, found)
    assert "after every window" in table
    assert max(map(len, table.splitlines())) <= 100
    content = json.loads(as_json(past, found))
    assert {policy["policy"] for policy in content["policies"]} == set(outcomes)
    assert as_picture(past, found).startswith(b"\x89PNG")


def test_progress_is_told(past):
    told = []

    def progress(items, title, length):
        told.append((title, length))
        return items

    replay(past, standard_policies(past.spec)[:3], progress=progress)
    assert told == [("training models", len(past.choices)), ("policies", 3)]


def test_too_short_a_past_is_refused():
    spec = small_spec()
    with pytest.raises(DataError, match=r"3 windows are published.*training.min_rows 500"):
        Past(spec, made_windows(spec)[:3])


def test_unknown_first_partition_is_refused(past):
    with pytest.raises(DataError, match="--first: '2001-01-01' is not published"):
        Past(past.spec, past.windows, first="2001-01-01")


@pytest.mark.parametrize("change", ["retrain.grwth=0.3", "nothing", "drift=1"])
def test_unknown_setting_to_try_is_refused(past, change):
    with pytest.raises(SpecError, match="--try: no setting"):
        standard_policies(past.spec, [change])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("training.window=rolling", "every policy here trains as the model file says"),
        ("label.column=foo", "allowed: drift.*, retrain.*"),
        ("retrain.growth=abc", "retrain.growth: Input should be a valid number.*got 'abc'"),
        ("retrain.growth=[1", "is no YAML value"),
    ],
)
def test_what_replay_cannot_try_is_refused_and_not_passed_over(past, change, says):
    with pytest.raises(SpecError, match=says):
        standard_policies(past.spec, [change])


def test_the_command_shows_a_table_and_keeps_a_picture(shared, tmp_path, monkeypatch, capsys):
    from include.retraining.__main__ import main
    from include.retraining.cli import study

    monkeypatch.setenv("RETRAINING_HOME", str(shared.home))
    features = {"numeric": ("minute_of_day", "distance", "temp")}
    spec = pipeline.small_spec(features=features, drift={"expected": ()})
    monkeypatch.setattr(study, "model_named", lambda _: spec)
    picture = tmp_path / "new" / "replay.png"
    assert main(["replay", "flights", "--picture", str(picture)]) == 0
    out = capsys.readouterr()
    assert "flights: 2 windows after the first model (2013-01-14)" in out.out
    assert "ours: the model file" in out.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in out.err


def test_the_command_says_what_is_missing(shared, monkeypatch, capsys):
    from include.retraining.__main__ import main

    monkeypatch.setenv("RETRAINING_HOME", str(shared.home))
    assert main(["replay", "flights"]) == 2
    assert "a replay needs training.min_rows 15,000" in capsys.readouterr().err


def test_a_first_model_that_cannot_be_learned_is_named(shared):
    """Delay rates of the week before are unknown in the first week."""
    spec = pipeline.small_spec()
    windows = published_windows(spec, Storage.of(shared))
    with pytest.raises(DataError, match=r"no value in any of .* training rows: carrier_delay_rate"):
        Past(spec, windows)


def test_means_over_several_beginnings(past: Past):
    policies = standard_policies(past.spec)
    once = [
        {o.policy: o for o in replay(past.begun_at(past.first + later), policies)}
        for later in range(3)
    ]
    averaged = {o.policy: o for o in replay(past, policies, starts=3)}
    for name in ("every 3 windows", "ours: the model file", "clairvoyant, 2 retrains"):
        expected = [run[name] for run in once]
        assert averaged[name].retrains == pytest.approx(np.mean([o.retrains for o in expected]))
        assert averaged[name].regained == pytest.approx(np.mean([o.regained for o in expected]))
        assert averaged[name].spread == pytest.approx(
            np.std([o.regained for o in expected], ddof=1)
        )
        assert averaged[name].retrained == expected[0].retrained
    table = as_table(past, list(averaged.values()), starts=3)
    assert " ± " in table
    assert "means of 3 beginnings" in table


@pytest.mark.parametrize("starts", [0, 99])
def test_beginnings_that_leave_no_windows_are_refused(past: Past, starts: int):
    with pytest.raises(DataError, match=r"--starts: must be from 1 to \d+, .* got " + str(starts)):
        replay(past, [], starts=starts)
