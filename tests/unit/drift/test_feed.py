from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from include.retraining.drift.feed import UNITS, Numbers, level_break, numeric_break
from include.retraining.drift.measure import measure_columns
from include.retraining.drift.profile import ReferenceProfile
from include.retraining.records import Break
from include.retraining.spec import Drift

RNG = np.random.default_rng(5)
CELSIUS = np.round(RNG.normal(12, 6, 8000), 1)  # a tenth of a degree
MILES = RNG.choice(np.arange(80, 2600, 7), 8000)
AMOUNTS = RNG.lognormal(3, 1, 8000)  # no value twice


def found(before: np.ndarray, now: np.ndarray, *, drifted: bool = True, usual_top: float = 0.1):
    before, now = (np.sort(np.asarray(one, dtype=np.float64)) for one in (before, now))
    numbers = Numbers(before, is_complete=True, now=now, windows=8, usual_top=usual_top)
    return numeric_break(numbers, drifted=drifted)


@pytest.mark.parametrize(
    "unit", [one for one in UNITS if one.kinds < 1e9], ids=lambda unit: unit.name
)
def test_each_unit_is_named_by_the_values_it_gives(unit):
    before = np.round(RNG.normal(40, 9, 6000) * 1.7, 1) + 0.03
    now = RNG.choice(before, 2000) * unit.factor + unit.offset
    broken = found(before, now)
    assert broken is not None
    assert (broken.kind, broken.proven) == ("unit", True)
    same = [one.name for one in UNITS if (one.factor, one.offset) == (unit.factor, unit.offset)]
    assert any(broken.cause.split("; ")[0].endswith(name) for name in same)


@pytest.mark.parametrize("by", [1.07, 1.5, 2.0, 3.0, 0.5])
@pytest.mark.parametrize("before", [CELSIUS, MILES, np.round(MILES / 50)], ids=["C", "mi", "few"])
def test_growth_by_a_factor_is_no_proof_of_a_unit(before, by):
    broken = found(before, RNG.choice(before, 2000) * by)
    assert broken is None or not broken.proven


def test_without_repeated_values_a_unit_is_only_looked_like():
    broken = found(AMOUNTS, RNG.choice(AMOUNTS, 2000) * 100)
    assert broken == Break(
        kind="unit", cause="looks like x 100: shares to per cent", share=1.0, proven=False
    )
    assert found(AMOUNTS, RNG.lognormal(3, 1, 2000)) is None


WEIGHTS = np.clip(RNG.normal(6, 1.5, 6000), 0.5, None)  # no value twice, none near 0


@pytest.mark.parametrize("seed", range(40))
def test_a_far_unit_is_proven_where_nothing_of_before_comes_any_more(seed):
    now = np.random.default_rng(seed).choice(WEIGHTS, 120) * 1000
    broken = found(WEIGHTS, now)
    # x 1024 is as near in some samples: each batch is told the same
    assert broken.cause.startswith("about x 1000: thousands, kg or km to units, g or m; ")
    assert broken.cause.endswith("% of values lie outside of all that was ever there, and turned "
                                 "back they spread as before")  # fmt: skip
    assert (broken.kind, broken.proven) == ("unit", True)
    few = Numbers(np.sort(WEIGHTS), is_complete=True, now=np.sort(now), windows=3)
    told = numeric_break(few, drifted=True)
    assert told is None or not told.proven


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param(RNG.normal(-2.5, 4, 4000), RNG.normal(27, 7, 500), id="winter and summer"),
        pytest.param(WEIGHTS, RNG.choice(WEIGHTS, 500) * 10, id="ten times as many"),
        pytest.param(WEIGHTS, RNG.normal(6000, 4000, 500), id="another shape"),
        pytest.param(np.exp(RNG.normal(0, 2, 4000)), np.exp(RNG.normal(4, 2, 500)), id="overlap"),
        pytest.param(np.arange(4000.0), np.arange(90_000.0, 90_500.0), id="a counter"),
    ],
)
def test_the_world_may_leave_all_that_was_there_without_a_unit(before, now):
    broken = found(before, now)
    assert broken is None or not broken.proven


def test_a_fill_value_is_found_among_few_rows():
    now = RNG.choice(CELSIUS, 2000)
    now[:40] = -999.0
    broken = found(CELSIUS, now, drifted=False)
    assert broken is not None
    assert broken.cause == "-999 stands in 40 of 2,000 values and was never there before"
    assert (broken.kind, broken.share, broken.proven) == ("fill value", 0.02, True)
    now[:40] = CELSIUS.max() + 2.5  # a hot day is none
    assert found(CELSIUS, now) is None


def test_a_constant_is_broken_unless_it_is_what_most_rows_are_anyway():
    broken = found(MILES, np.full(500, 850.0))
    assert broken is not None
    assert (broken.kind, broken.proven) == ("constant", True)
    mostly = np.where(RNG.random(4000) < 0.7, 0.0, np.abs(CELSIUS[:4000]))
    broken = found(mostly, np.zeros(500))
    assert broken is None or not broken.proven
    flag = (RNG.random(4000) < 0.6).astype(float)
    assert found(flag, np.zeros(500)) is None  # nothing is on offer any more


def test_what_lay_beyond_a_value_and_lies_on_it_now_was_cut_off():
    broken = found(MILES, np.minimum(RNG.choice(MILES, 4000), 2200))
    assert broken is not None
    assert (broken.kind, broken.proven) == ("cut off", True)
    assert "lie above 2200" in broken.cause
    assert found(MILES, RNG.choice(MILES[MILES <= 2200], 4000)) is None  # those rows did not come


@pytest.mark.parametrize(
    ("spelt", "word"),
    [
        (str.lower, "capitals"),
        (lambda level: f" {level}", "blanks"),
        (lambda level: f"'{level}'", "quotes"),
        (lambda level: level.encode().decode("latin-1"), "encoding"),
    ],
)
def test_levels_spelt_otherwise_are_named(spelt, word):
    before = {"Zürich": 40, "GENÈVE": 30, "BERN": 9}
    broken = level_break(before, Counter({spelt(name): count for name, count in before.items()}))
    assert broken is not None
    assert broken.cause.startswith(f"{word}: ")
    assert broken.proven


def test_numbers_as_levels_and_leading_zeros():
    broken = level_break({"1": 5, "2": 5}, {"1.0": 5, "2.0": 5})
    assert broken is not None
    assert broken.cause == "numbers written otherwise: '1' comes as '1.0' now"
    assert level_break({"00501": 5}, {"501": 5}).cause.startswith("leading zeros")
    assert level_break({"00501A": 5}, {"501A": 5}).cause.startswith("leading zeros")


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"a": 5, "A": 5}, {"á": 9}),  # other levels
        ({"A": 5, "A ": 5}, {" A": 9}),  # of two, nobody knows which
        ({"a": 5}, {"a": 5}),
        ({"1700000000012": 5}, {"1700000000014": 5}),  # floats of 12 digits are the same
        ({"1000": 5}, {"1E3": 5}),
        ({"12": 5}, {"1_2": 5}),
        ({"0": 5}, {"": 5}),
        ({"b": 50, "c": 50}, {"b": 50, "c": 40, "B": 10}),  # both are there: two fare classes
        ({"a": 5}, {}),
    ],
)
def test_new_levels_are_no_spelling(before, now):
    assert level_break(before, now) is None


def test_a_column_that_is_lost_is_broken_and_one_that_was_seldom_there_is_not():
    often, seldom = pa.array(CELSIUS), pa.array(np.where(RNG.random(8000) < 0.3, CELSIUS, np.nan))
    names = pa.array(RNG.choice(["a", "b"], 8000))
    windows = [
        pa.table(
            {
                "often": often[i : i + 2000],
                "seldom": seldom[i : i + 2000],
                "name": names[i : i + 2000],
            }
        )
        for i in range(0, 8000, 2000)
    ]
    profile = ReferenceProfile.build(windows, numeric=["often", "seldom"], categorical=["name"])
    empty = pa.table({"seldom": pa.nulls(2000, pa.float64()), "name": pa.nulls(2000, pa.string())})
    measured = {one.name: one for one in measure_columns(profile, empty, settings=Drift())}
    assert measured["often"].broken == Break(
        kind="lost", cause="the column is absent; 100% of the reference have a value",
        share=1.0, proven=True,
    )  # fmt: skip
    assert measured["name"].broken.proven
    assert not measured["seldom"].broken.proven
    calm = measure_columns(profile, windows[0], settings=Drift())
    assert [one.broken for one in calm] == [None, None, None]


def test_infinite_and_few_values_are_no_trouble():
    assert found(CELSIUS, np.array([np.inf, np.inf])) is None
    assert found(np.array([np.inf, 1.0]), CELSIUS) is None
    assert found(CELSIUS, np.array([5.0])) is None
    assert found(np.array([1.0, 2.0]), np.full(20, 1e308)) is None


def halves(count: int) -> np.ndarray:
    return np.repeat([0.0, 1.0, 2.0], count)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param((RNG.random(4000) < 0.1) * 1.0, np.zeros(500), id="a promotion that ended"),
        pytest.param(halves(900), halves(900)[:1800], id="no flight with two stops"),
        pytest.param(RNG.integers(0, 31, 4000), np.r_[RNG.integers(0, 20, 950), [-1.0] * 36],
                     id="the first frost"),
        pytest.param(RNG.integers(0, 9, 4000), np.r_[RNG.integers(0, 9, 980), [9.0] * 20],
                     id="a ninth order"),
        pytest.param(RNG.choice([9.99, 14.99, 19.99], 4000), np.r_[[9.99] * 970, [49.99] * 30],
                     id="a new product"),
        pytest.param(np.where(RNG.random(4000) < 0.3, 0.0, RNG.integers(1, 25, 4000)),
                     np.zeros(800), id="no snow in summer"),
        pytest.param(RNG.integers(-25, 0, 4000), RNG.integers(1, 26, 1000), id="spring"),
        pytest.param(RNG.choice([1, 2, 5, 10, 20, 50], 4000), RNG.choice([100, 200, 500], 1000),
                     id="larger notes"),
        pytest.param(RNG.integers(0, 31, 4000), np.r_[RNG.integers(28, 31, 900), [-99.0] * 100],
                     id="a fill value among others that moved"),
    ],
)  # fmt: skip
def test_what_the_world_does_is_no_proof(before, now):
    broken = found(before, now)
    assert broken is None or not broken.proven


def test_windows_that_were_constant_before_make_another_one_ordinary():
    months = np.repeat(np.arange(1.0, 7.0), 700)
    for top, proven in ((1.0, False), (0.1, True)):
        broken = found(months, np.full(700, 7.0), usual_top=top)
        assert broken is not None
        assert broken.proven == proven


def test_a_reference_of_few_windows_or_of_quantiles_proves_no_constant_and_no_end():
    before, cut = np.sort(MILES.astype(float)), np.minimum(np.sort(MILES.astype(float)), 2200.0)
    for numbers in (
        Numbers(before, is_complete=True, now=cut, windows=3, usual_top=0.1),
        Numbers(before, is_complete=False, now=cut, windows=8, usual_top=0.1),
    ):
        for now in (cut, np.full(500, 850.0)):
            broken = numeric_break(numbers._replace(now=now), drifted=True)
            assert broken is None or not broken.proven
