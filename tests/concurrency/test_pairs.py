"""Every two things that can happen at once, in orders that seeds decide.

`RACE_SEEDS` says how many orders of each pair; ``make test-races`` tries fifty.
"""

from __future__ import annotations

import itertools
import os

import pytest

from tests.concurrency.world import KINDS, World

SEEDS = int(os.environ.get("RACE_SEEDS", "3"))
ON_S3 = (
    ("promote", "rollback"),
    ("claim", "claim"),
    ("publish", "redelivery"),
    ("materialize", "replay_quarantine"),
)
# a process has one task; threads that have a warning ignored at once undo it for each other
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning"),
    pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning"),
]
PAIRS = list(itertools.combinations_with_replacement(KINDS, 2))


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_both_at_once_leave_everything_true(at_once: World, pair: tuple[str, str]):
    trouble = {seed: found for seed in range(SEEDS) if (found := at_once.trouble(seed, pair))}
    assert trouble == {}


@pytest.mark.parametrize("pair", ON_S3, ids=" and ".join)
def test_both_at_once_on_s3_leave_everything_true(at_once_on_s3: World, pair: tuple[str, str]):
    seeds = range(max(1, SEEDS // 5))
    trouble = {seed: found for seed in seeds if (found := at_once_on_s3.trouble(seed, pair))}
    assert trouble == {}


def test_attempts_at_once_of_one_incident_come_to_one_version(at_once: World):
    trouble = {
        seed: found
        for seed in range(SEEDS)
        if (found := at_once.trouble(seed, ("register", "register")))
    }
    assert trouble == {}


@pytest.mark.parametrize("seed", [2, 3])
def test_same_seed_is_the_same_order_again(at_once: World, seed: int):
    first, second = (at_once.order(seed, ("promote", "rollback")) for _ in range(2))
    assert first == second
    assert len({name for name, _ in first}) > 1
    assert any("killed" in name for name, _ in first) == bool(seed % 2)
    assert at_once.order(seed + 2, ("promote", "rollback")) != first
