"""Guardrails: whatever a policy wants, what comes out is within bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from penstock_agent.guardrails import Guardrails, configured, guard, normalise
from penstock_agent.policies import Decision

SIZE = 6
anything = npst.arrays(float, SIZE, elements=st.floats(allow_nan=True, allow_infinity=True))
positive = npst.arrays(float, SIZE, elements=st.floats(1e-3, 1e3))
previous_steps = npst.arrays(float, SIZE, elements=st.floats(0.05, 20))
flags = npst.arrays(bool, SIZE)
all_bounds = st.builds(Guardrails, max_weight_ratio=st.floats(1.0, 1000), max_change_per_step=st.floats(0.01, 1))


def base_of(decided):
    assert decided.base is not None
    return decided.base


@given(wanted=anything, previous=previous_steps, eligible=flags, bounds=all_bounds)
def test_always_within_bounds(wanted, previous, eligible, bounds):
    out = guard(Decision(wanted), Decision(previous), eligible=eligible, bounds=bounds)
    assert np.isfinite(out.weights).all()
    assert (out.weights[~eligible] == 0).all()
    if eligible.any():
        weights = out.weights[eligible]
        assert weights.max() / weights.min() <= bounds.max_weight_ratio * (1 + 1e-9)
        inside = eligible & (previous <= bounds.highest) & (previous >= 1 / bounds.highest)
        change = np.abs(out.previous.weights[inside] / previous[inside] - 1)
        assert (change <= bounds.max_change_per_step * (1 + 1e-9)).all()


@given(wanted=positive, eligible=flags, bounds=all_bounds, scale=st.floats(1e-3, 1e3))
def test_scale_does_not_matter(wanted, eligible, bounds, scale):
    one = guard(Decision(wanted), Decision(np.ones(SIZE)), eligible=eligible, bounds=bounds)
    other = guard(Decision(wanted * scale), Decision(np.ones(SIZE)), eligible=eligible, bounds=bounds)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-9)


def test_steps_reach_what_is_wanted():
    wanted, previous = np.array([1.0, 4.0]), Decision(np.ones(2))
    bounds = Guardrails(max_weight_ratio=10, max_change_per_step=0.25)
    for _ in range(10):
        out = guard(Decision(wanted), previous, eligible=np.ones(2, bool), bounds=bounds)
        previous = out.previous
    assert out.weights.tolist() == pytest.approx([0.5, 2.0])
    assert (out.bounded, out.slowed, out.invalid) == (0, 0, 0)


def test_what_is_held_back_is_counted():
    bounds = Guardrails(max_weight_ratio=4, max_change_per_step=0.25)
    out = guard(
        Decision(np.array([1.0, 100.0, np.nan, -1.0])), Decision(np.ones(4)), eligible=np.ones(4, bool), bounds=bounds
    )
    assert (out.bounded, out.slowed, out.invalid) == (2, 2, 2)
    assert out.weights.tolist() == pytest.approx([0.75, 1.25, 1.0, 1.0])


@given(weights=npst.arrays(float, SIZE, elements=st.floats(0, 1e12)), eligible=flags)
def test_configured_weights_pass_up_to_what_a_data_plane_takes(weights, eligible):
    out = configured(weights, eligible=eligible)
    assert out.weights.tolist() == np.where(eligible, np.minimum(weights, 1e6), 0).tolist()
    assert np.isfinite(out.previous.weights).all()
    assert (out.previous.weights > 0).all()


def test_a_policy_goes_on_from_where_the_fallback_was():
    fallback = configured(np.array([1.0, 4.0]), eligible=np.ones(2, bool))
    out = guard(Decision(np.array([1.0, 1.0])), fallback.previous, eligible=np.ones(2, bool), bounds=Guardrails())
    assert out.weights.tolist() == pytest.approx([0.5 * 1.25, 2.0 * 0.75])


@given(weights=positive, valid=flags)
def test_normalised_weights_have_a_geometric_mean_of_one(weights, valid):
    scaled = normalise(weights, valid)
    assert np.log(scaled[valid]).sum() == pytest.approx(0, abs=1e-9)
    assert (scaled[~valid] == 1).all()


@given(
    base=anything,
    before=st.none() | npst.arrays(float, SIZE, elements=st.floats(0, 1e6)),
    eligible=flags,
    bounds=all_bounds,
    balancers=st.integers(1, 64),
    flows=npst.arrays(np.int64, SIZE, elements=st.integers(-5, 10**9)),
)
def test_bases_are_always_within_bounds(base, before, eligible, bounds, balancers, flows):
    wanted, previous = Decision(np.ones(SIZE), base), Decision(np.ones(SIZE), before)
    out = guard(wanted, previous, eligible=eligible, bounds=bounds, balancers=balancers, open_flows=flows)
    valid = eligible & np.isfinite(base) & (base > 0)
    assert (base_of(out)[~valid] == 0).all()
    assert out.invalid == np.count_nonzero(eligible & ~valid)
    mean = np.maximum(flows, 0)[eligible].mean() if eligible.any() else 0
    largest = min(bounds.max_weight_ratio * balancers * (1 + mean), 1e6)
    assert (base_of(out)[valid] > 0).all()
    assert (base_of(out)[valid] <= largest * (1 + 1e-9)).all()
    common = 1 / balancers
    start = np.full(SIZE, common) if before is None else np.where(before > 0, before, common)
    inside = valid & (start <= largest)
    change = (1 + base_of(out)[inside]) / (1 + start[inside]) - 1
    assert (np.abs(change) <= bounds.max_change_per_step + 1e-5).all()


@given(base=anything, weights=anything, eligible=npst.arrays(bool, (2, 3, SIZE)), balancers=st.integers(1, 9))
def test_stacked_vips_are_guarded_as_each_alone(base, weights, eligible, balancers):
    shape = eligible.shape
    rng = np.random.default_rng(1)
    wanted = Decision(rng.permuted(np.broadcast_to(weights, shape), axis=-1), np.broadcast_to(base, shape))
    previous = Decision(np.ones(shape), rng.uniform(0, 2, shape))
    flows = rng.integers(0, 50, shape)
    many = np.array([[[balancers]], [[balancers + 1]]])
    out = guard(wanted, previous, eligible=eligible, bounds=Guardrails(), balancers=many, open_flows=flows)
    for at in np.ndindex(shape[:-1]):
        alone = guard(
            Decision(wanted.weights[at], base_of(wanted)[at]),
            Decision(previous.weights[at], base_of(previous)[at]),
            eligible=eligible[at],
            bounds=Guardrails(),
            balancers=balancers + at[0],
            open_flows=flows[at],
        )
        assert out.weights[at].tolist() == alone.weights.tolist()
        assert base_of(out)[at].tolist() == base_of(alone).tolist()


def test_bases_move_by_steps_from_the_common_one():
    wanted, previous = Decision(np.ones(2), np.array([3.0, 0.125])), Decision(np.ones(2))
    eligible, bounds = np.ones(2, bool), Guardrails(max_change_per_step=0.5)
    seen = []
    for _ in range(3):
        out = guard(wanted, previous, eligible=eligible, bounds=bounds, balancers=2)
        previous = out.previous
        seen.append(base_of(out).tolist())
    assert seen == [pytest.approx([1.25, 0.125]), pytest.approx([2.375, 0.125]), pytest.approx([3.0, 0.125])]
    assert (out.invalid, out.bounded, out.slowed) == (0, 0, 0)


def test_the_bound_of_a_base_grows_with_the_flows_of_all_balancers():
    wanted, previous = Decision(np.ones(2), np.full(2, 1e9)), Decision(np.ones(2), np.full(2, 1e5))
    bounds = Guardrails(max_weight_ratio=10, max_change_per_step=1)
    flows = np.array([2, 4])
    out = guard(wanted, previous, eligible=np.ones(2, bool), bounds=bounds, balancers=3, open_flows=flows)
    assert base_of(out).tolist() == pytest.approx([120.0, 120.0])
    assert out.bounded == 2


def test_a_decision_without_base_leaves_it_to_the_data_plane_at_once():
    previous = Decision(np.ones(2), np.full(2, 5.0))
    out = guard(Decision(np.ones(2)), previous, eligible=np.ones(2, bool), bounds=Guardrails())
    assert out.base is None
    assert out.previous.base is None


def test_bases_on_the_flows_of_all_balancers_begin_at_one_and_do_not_mix_with_others():
    bounds, eligible = Guardrails(max_change_per_step=0.5), np.ones(2, bool)
    own = Decision(np.ones(2), np.array([0.25, 4.0]))
    out = guard(Decision(np.ones(2), np.full(2, 9.0), shared=True), own, eligible=eligible, bounds=bounds, balancers=4)
    assert base_of(out).tolist() == pytest.approx([2.0, 2.0])
    assert out.decision.shared
    assert out.previous.shared
    assert not guard(own, out.previous, eligible=eligible, bounds=bounds, balancers=4).decision.shared
