from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.retraining import names
from include.retraining.errors import did_you_mean


def test_names_have_their_documented_forms():
    assert names.dag_id("flights", "ingest") == "flights__ingest"
    assert names.asset_name("flights", "champion") == "flights.champion"
    assert names.experiment_name("flights") == "retraining/flights"


def test_incident_id_tells_its_cause():
    found = names.incident_id("flights", "monitor", "2013-02-11", None)
    assert found.startswith("2013-02-11-monitor-none-")


def test_same_cause_gives_the_same_incident():
    one, other = (names.incident_id("flights", "monitor", "2013-02-11", 3) for _ in range(2))
    assert one == other


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["flights", "churn"]),
            st.sampled_from(["monitor", "schedule", "manual"]),
            st.dates().map(str),
            st.none() | st.integers(1, 10_000),
        ),
        min_size=2,
        max_size=10,
        unique=True,
    )
)
def test_another_cause_gives_another_incident(causes):
    found = [(cause[0], names.incident_id(*cause)) for cause in causes]
    assert all(one != other for one, other in itertools.combinations(found, 2))


@pytest.mark.parametrize(
    ("written", "meant"),
    [("lable", "label"), ("sourc", "source"), ("zzz", None), ("", None)],
)
def test_did_you_mean_names_the_nearest_or_nothing(written, meant):
    hint = did_you_mean(written, ["label", "source"])
    assert hint == (f"; did you mean {meant!r}?" if meant else "")
