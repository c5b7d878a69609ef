"""Requests in progress and ended, from the counters that a feature level and a kind of forwarding have."""

from __future__ import annotations

import numpy as np
import pytest
from penstock_agent.observation import Observation
from penstock_agent.policies.requests import watch


def observation(time, generation=(0, 0), **counters):
    return Observation(
        time=time,
        eligible=np.ones(2, dtype=np.bool_),
        configured=np.ones(2),
        generation=np.array(generation, dtype=np.uint8),
        counters={name: np.array(values, dtype=np.int64) for name, values in counters.items()},
        channels={},
    )


def of_step(first, second):
    """Return the work of the second of two observations, two seconds after the first."""
    _, before = watch(observation(10.0, **first), None)
    work, _ = watch(observation(12.0, **second), before)
    return work


FLOWS = {"n_flow": (9, 9), "n_fct": (0, 0), "n_flow_on": (9, 9)}
FULL = FLOWS | {"n_active": (1, 1), "n_answer": (0, 0), "n_turn": (0, 0), "open_us": (0, 0), "active_us": (0, 0)}


def test_answers_and_flow_microseconds_are_exact_at_level_full():
    later = FULL | {"n_fct": (1, 0), "n_answer": (50, 10), "n_turn": (7, 5), "active_us": (3_000_000, 1_000_000)}
    work = of_step(FULL, later | {"open_us": (18_000_000, 18_000_000)})
    assert work.ended.tolist() == [7, 5]
    assert work.between.tolist() == [1.5, 0.5]
    assert work.load.tolist() == [1, 1]


def test_open_flows_are_integrated_where_none_waits_for_an_answer():
    before = FULL | {"n_active": (0, 0)}
    work = of_step(before, before | {"n_answer": (8, 4), "n_turn": (4, 4), "open_us": (16_000_000, 1_000_000)})
    assert work.ended.tolist() == [4, 4]
    assert work.between.tolist() == [8.0, 0.5]


def test_packets_of_answers_are_shared_among_completed_flows_at_level_basic():
    before = FLOWS | {"n_answer": (0, 0), "open_us": (0, 0)}
    work = of_step(before, before | {"n_fct": (4, 0), "n_answer": (10, 10), "open_us": (2_000_000, 0)})
    assert work.ended.tolist() == [2.0, 2.0]
    assert work.between.tolist() == [1.0, 0.0]


def test_completed_flows_are_counted_where_answers_take_another_way():
    work = of_step(FULL, FULL | {"n_fct": (3, 2), "n_turn": (30, 1), "active_us": (2_000_000, 2_000_000)})
    assert work.ended.tolist() == [3, 2]


def test_the_mean_of_both_ends_stands_in_for_flow_microseconds():
    work = of_step(FLOWS | {"n_flow_on": (2, 0)}, FLOWS | {"n_flow_on": (4, 0)})
    assert work.between.tolist() == [3.0, 0.0]


@pytest.mark.parametrize("fallen", ["n_turn", "active_us", "open_us"])
def test_a_total_that_fell_begins_anew(fallen):
    before = FULL | dict.fromkeys(("n_answer", "n_turn", "active_us", "open_us"), (5000000, 5000000))
    work = of_step(before, before | {fallen: (0, 6_000_000)})
    assert work.same.tolist() == [False, True]
    assert work.between[0] == work.ended[0] == 0
