"""The soak test's schedule and how it attributes failed requests to faults."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.load import Failure
from e2e.soak.changes import endpoint_slice
from e2e.soak.faults import FAULTS
from e2e.soak.results import Injected, around, attribute
from e2e.soak.schedule import COOL_DOWN_SECONDS, SHORTEST_GAP_SECONDS, WARM_UP_SECONDS, schedule

DURATIONS = {name: fault.seconds for name, fault in FAULTS.items()}
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TIMEOUT = timedelta(seconds=15)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def failure(intended: float, seconds: float = 0.0) -> Failure:
    return Failure(intended=at(intended), time=at(intended + seconds), kind="reset")


def injected(began: float, ended: float, loss_seconds: float | None = None, name: str = "fault") -> Injected:
    return Injected(name, at(began), at(ended), loss_seconds)


@given(seed=st.integers(0, 2**32), minutes=st.floats(1, 60))
def test_a_schedule_fits_into_the_load_and_faults_do_not_overlap(seed, minutes):
    planned = schedule(DURATIONS, minutes * 60, seed)
    assert planned == schedule(DURATIONS, minutes * 60, seed)
    ends = WARM_UP_SECONDS - SHORTEST_GAP_SECONDS
    for item in planned:
        assert item.at >= ends + SHORTEST_GAP_SECONDS - 0.1
        ends = item.at + DURATIONS[item.fault]
        assert ends + COOL_DOWN_SECONDS <= minutes * 60 + 0.1


def test_half_an_hour_has_every_fault_several_times():
    names = [item.fault for item in schedule(DURATIONS, 1800, 1)]
    assert {name: names.count(name) >= 4 for name in FAULTS} == dict.fromkeys(FAULTS, True)
    assert names[: len(FAULTS)] != names[len(FAULTS) : 2 * len(FAULTS)]


def test_another_seed_gives_another_schedule():
    assert schedule(DURATIONS, 1800, 1) != schedule(DURATIONS, 1800, 2)


@pytest.mark.parametrize(
    ("failed", "documented"),
    [
        (failure(5), 0),  # before the fault
        (failure(12), 1),
        (failure(24), 1),  # within 5 s after its end
        (failure(26), 0),
        (failure(9, 2), 1),  # under way when the fault began
        (failure(24, 15), 1),  # waited as long as a request may
    ],
)
def test_a_failure_counts_where_a_fault_with_a_documented_loss_can_have_caused_it(failed, documented):
    result = attribute([injected(10, 20, loss_seconds=5)], [failed], TIMEOUT)
    assert (result.rows[0].documented, len(result.undocumented)) == (documented, 1 - documented)
    assert result.passed == bool(documented)


def test_a_failure_during_a_fault_without_a_documented_loss_fails_the_run():
    faults = [injected(10, 20, loss_seconds=5, name="a"), injected(30, 40, name="b")]
    result = attribute(faults, [failure(33)], TIMEOUT)
    assert not result.passed
    assert around(result.undocumented[0], faults) == "3.0 s after b began"
    assert around(failure(1), faults) == "before the first fault"


def test_a_component_that_does_not_recover_fails_the_run():
    fault = Injected("a", at(1), at(2), None, "not all pods are Ready")
    assert attribute([fault], [], TIMEOUT).problems == ("a at 00:00:01: not all pods are Ready",)


@given(seed=st.integers(0, 2**32))
def test_an_endpoint_slice_always_has_a_ready_server(seed):
    document = endpoint_slice(["10.0.0.1", "10.0.0.2", "10.0.0.3"], random.Random(seed))
    assert any(endpoint["conditions"]["ready"] for endpoint in document["endpoints"])
