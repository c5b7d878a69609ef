"""What holds for every policy, whatever the counters, channels and clocks say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_agent.observation import REDUCTIONS, Observation
from penstock_agent.policies import EVALUATED

AT_FULL = ("n_active", "n_answer", "n_turn", "active_us")
COUNTERS = ("n_flow_on", "n_flow", "n_fct", "l_assign", "open_us", *AT_FULL)
GAUGES = ("n_flow_on", "n_active")
JUMPS = st.sampled_from([0.2, 0.2, 1.0, 0.0, -5.0, 3600.0])
names = pytest.mark.parametrize("name", sorted(EVALUATED))


@st.composite
def histories(draw, full, slots=4, steps=4):
    """Consecutive observations with any counters: also such that fall, and clocks that stand still or jump."""
    random, is_full = np.random.default_rng(draw(st.integers(0, 2**32))), draw(full)
    times = np.cumsum([0.0, *draw(st.lists(JUMPS, min_size=steps - 1, max_size=steps - 1))]) + 1e4
    balancers = draw(st.integers(1, 8))
    return [any_observation(random, slots, is_full, float(time), balancers) for time in times]


def any_observation(random, slots, full, time, balancers):
    highest = random.choice([1, 3, 100, 2**40])
    channel = 10.0 ** random.uniform(-9, 4, (slots, len(REDUCTIONS)))
    channel[random.random(slots) < 0.3] = np.nan
    return Observation(
        time=time,
        eligible=random.random(slots) < 0.7,
        configured=random.uniform(0.1, 8, slots),
        generation=random.integers(0, 5, slots).astype(np.uint8) // 4,
        counters={
            name: random.integers(-2 if name in GAUGES else 0, highest, slots)
            for name in COUNTERS
            if full or name not in AT_FULL
        },
        channels={"pt_gen" if full else "fct": channel},
        balancers=balancers,
    )


def rearranged(seen, change):
    """Apply a function to every array."""
    return replace(
        seen,
        eligible=change(seen.eligible),
        configured=change(seen.configured),
        generation=change(seen.generation),
        counters={name: change(values) for name, values in seen.counters.items()},
        channels={name: change(values) for name, values in seen.channels.items()},
    )


def decisions(name, history):
    state, made = None, []
    for seen in history:
        decision, state = EVALUATED[name].decide(seen, state)
        made.append(decision)
    return made


def columns(decision):
    return [decision.weights] + ([] if decision.base is None else [decision.base])


@names
@settings(deadline=None, max_examples=40)
@given(history=histories(st.booleans()))
def test_weights_are_finite_and_zero_exactly_where_no_flows_may_go(name, history):
    for seen, decision in zip(history, decisions(name, history), strict=True):
        assert np.isfinite(decision.weights).all()
        assert (decision.weights[~seen.eligible] == 0).all()
        assert (decision.weights[seen.eligible] > 0).all()
        if decision.base is not None:
            assert np.isfinite(decision.base).all()
            assert (decision.base > 0).all()


@names
@settings(deadline=None, max_examples=30)
@given(history=histories(st.booleans()), order=st.permutations(range(4)))
def test_the_order_of_slots_does_not_matter(name, history, order):
    other = decisions(name, [rearranged(seen, lambda values: values[list(order)]) for seen in history])
    for one, two in zip(decisions(name, history), other, strict=True):
        for a, b in zip(columns(one), columns(two), strict=True):
            assert a[list(order)] == pytest.approx(b, rel=1e-4, abs=1e-9)


@names
@settings(deadline=None, max_examples=30)
@given(full=st.booleans(), data=st.data())
def test_stacked_rows_do_not_affect_each_other(name, full, data):
    one = data.draw(histories(st.just(full)))
    two = [
        replace(seen, time=same.time, balancers=same.balancers)
        for seen, same in zip(data.draw(histories(st.just(full))), one, strict=True)
    ]
    both = [
        Observation(
            time=a.time,
            eligible=np.stack((a.eligible, b.eligible))[:, None],
            configured=np.stack((a.configured, b.configured))[:, None],
            generation=np.stack((a.generation, b.generation))[:, None],
            counters={each: np.stack((a.counters[each], b.counters[each]))[:, None] for each in a.counters},
            channels={each: np.stack((a.channels[each], b.channels[each]))[:, None] for each in a.channels},
            balancers=np.array(a.balancers).reshape(1, 1, 1),
        )
        for a, b in zip(one, two, strict=True)
    ]
    stacked = decisions(name, both)
    for row, history in enumerate((one, two)):
        for alone, together in zip(decisions(name, history), stacked, strict=True):
            for a, b in zip(columns(alone), columns(together), strict=True):
                assert b.shape == (2, 1, 4)
                assert a == pytest.approx(b[row, 0], rel=1e-4, abs=1e-9)


@names
@pytest.mark.parametrize("slots", [0, 1])
def test_a_vip_may_have_no_backend_or_one(name, slots):
    seen = Observation(
        time=1.0,
        eligible=np.ones(slots, dtype=np.bool_),
        configured=np.ones(slots),
        generation=np.zeros(slots, dtype=np.uint8),
        counters={each: np.zeros(slots, dtype=np.int64) for each in COUNTERS},
        channels={"fct": np.full((slots, len(REDUCTIONS)), np.nan)},
    )
    for decision in decisions(name, [seen, replace(seen, time=2.0), replace(seen, time=4.0)]):
        assert decision.weights.shape == (slots,)
        assert (decision.weights > 0).all()


@names
@settings(deadline=None, max_examples=20)
@given(history=histories(st.booleans()), grown=st.integers(1, 8))
def test_a_table_may_change_its_size(name, history, grown):
    def resized(values):
        return np.resize(values, (grown, *values.shape[1:]))

    later = [rearranged(seen, resized) for seen in history]
    for decision in decisions(name, history + later)[len(history) :]:
        assert decision.weights.shape == (grown,)
        assert np.isfinite(decision.weights).all()
