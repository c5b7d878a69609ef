"""Policies from models: what the network computes, and what an agent makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent import decisions, features, policies
from penstock_agent.guardrails import Guardrails
from penstock_agent.models import Card, Head, ModelError, read
from penstock_agent.models.files import Model
from penstock_agent.models.network import Network, groups
from penstock_agent.policies import Decision, learned
from penstock_rl.export import export

from tests.support.models import SOME_FEATURES, arrays, metadata, model_file, observation, permuted, row_of

NAN = float("nan")


def policy(seed=0, **changes):
    return learned.policy(read(model_file(seed, **changes)), policies.POLICIES)


def network(**changes):
    described = metadata(**changes)
    return Network(described, arrays(described))


def base_of(decision):
    assert decision.base is not None
    return decision.base


def direct(model, values, eligible, hidden=None):
    """Compute one VIP's residual slot by slot, with loops, as the definition says."""
    described, array = model.metadata, {name: values.astype(float) for name, values in model.arrays.items()}
    names = groups(described.features)
    codes, states = [], []
    for slot, row in enumerate(values):
        score = [
            0.0 if np.isnan(value) else float(np.clip((value - mean) / std, -5, 5))
            for value, mean, std in zip(row, array["mean"], array["std"], strict=True)
        ]
        flags = [
            float(
                any(
                    not np.isnan(value)
                    for name, value in zip(described.features, row, strict=True)
                    if name.startswith(f"{group}/")
                )
            )
            for group in names
        ]
        code = np.array(score + flags)
        for layer in ("encoder.0", "encoder.1"):
            code = np.maximum(array[f"{layer}.weight"] @ code + array[f"{layer}.bias"], 0)
        if described.memory:
            before = np.zeros(described.hidden) if hidden is None else hidden[slot]
            new = np.split(array["memory.weight_ih"] @ code + array["memory.bias_ih"], 3)
            old = np.split(array["memory.weight_hh"] @ before + array["memory.bias_hh"], 3)
            reset, update = (1 / (1 + np.exp(-(new[gate] + old[gate]))) for gate in (0, 1))
            code = (1 - update) * np.tanh(new[2] + reset * old[2]) + update * before
        codes.append(code)
        states.append(code)
    taking = np.array(codes)[eligible]
    pooled = np.concatenate((taking.mean(axis=0), taking.max(axis=0))) if eligible.any() else np.zeros(2 * len(code))
    residuals = []
    for code in codes:
        out = np.maximum(array["decoder.0.weight"] @ np.concatenate((code, pooled)) + array["decoder.0.bias"], 0)
        out = array["decoder.1.weight"] @ out + array["decoder.1.bias"]
        continuous = described.head is Head.CONTINUOUS
        residuals.append(array["limits"] * np.tanh(out) if continuous else array["levels"][int(np.argmax(out))])
    return np.array(residuals), np.array(states)


@pytest.mark.parametrize("head", Head)
@pytest.mark.parametrize("memory", [False, True])
def test_the_network_computes_its_definition(head, memory):
    model = read(model_file(3, head=head, memory=memory))
    evaluated = Network(model.metadata, model.arrays)
    rng = np.random.default_rng(1)
    hidden = states = None
    for _ in range(4):
        values = rng.normal(0, 2, (5, len(SOME_FEATURES))).astype(np.float32)
        values[rng.random(values.shape) < 0.3] = np.nan
        eligible = rng.random(5) < 0.7
        output = evaluated(values, eligible, hidden)
        expected, states = direct(model, values, eligible, states)
        np.testing.assert_allclose(output.residual, expected, atol=1e-5)
        hidden = output.hidden


def test_no_eligible_slot_is_no_error():
    output = network()(np.zeros((3, 5), np.float32), np.zeros(3, bool), None)
    assert np.isfinite(output.residual).all()


@given(order=st.permutations(range(6)), seed=st.integers(0, 1000))
def test_permuted_slots_give_permuted_decisions(order, seed):
    chosen = policy()
    state = moved_state = None
    for time in (0.0, 0.2, 0.4):
        seen = observation(seed, time=time)
        moved = permuted(seen, order)
        decision, state = chosen.decide(seen, state)
        moved_decision, moved_state = chosen.decide(moved, moved_state)
        np.testing.assert_allclose(moved_decision.weights, decision.weights[order], rtol=1e-4)
        np.testing.assert_allclose(base_of(moved_decision), base_of(decision)[order], rtol=1e-4)


def test_stacked_vips_decide_as_each_does_alone():
    chosen = policy()
    state: Any = None
    alone: list[Any] = [None, None]
    for time in (0.0, 0.2, 0.4):
        seen = observation(5, shape=(2, 7), time=time)
        decision, state = chosen.decide(seen, state)
        for row in (0, 1):
            single, alone[row] = chosen.decide(row_of(seen, (row,)), alone[row])
            np.testing.assert_allclose(decision.weights[row], single.weights, rtol=1e-4)


def test_a_model_that_learned_nothing_decides_as_its_anchor():
    described = metadata(anchor="static")
    nothing = arrays(described) | {"limits": np.zeros(2, np.float32)}
    model = read(export(nothing, described, Card(name="a")))
    seen = observation(configured=np.array([1.0, 2, 4, 1, 2, 4]))
    decision, _ = learned.policy(model, policies.POLICIES).decide(seen, None)
    weights = seen.configured * seen.eligible
    np.testing.assert_allclose(decision.weights / decision.weights.max(), weights / weights.max())
    assert decision.base == pytest.approx(np.full(6, 0.5))  # of two balancers


def test_a_model_of_weights_leaves_the_base_to_the_data_plane():
    decision, _ = policy(use_base=False).decide(observation(), None)
    assert decision.base is None


def test_bases_on_the_flows_of_all_balancers_stay_so():
    seen = observation(peers=np.arange(6))
    decision, _ = policy(anchor="bayes").decide(seen, None)
    assert decision.shared
    assert not policy(anchor="bayes", use_base=False).decide(seen, None)[0].shared
    assert not policy(anchor="lsq").decide(seen, None)[0].shared


def test_levels_are_steps_of_the_residual():
    described = metadata(head=Head.LEVELS, anchor="lsq", use_base=False)
    made = arrays(described, levels=3)
    made["levels"] = np.array([[0, 0], [np.log(2), 0], [np.log(4), 0]], dtype=np.float32)
    chosen = learned.policy(read(export(made, described, Card(name="a"))), policies.POLICIES)
    seen = observation(2)
    decision, _ = chosen.decide(seen, None)
    assert set(np.round(decision.weights[seen.eligible], 5)) <= {1.0, 2.0, 4.0}
    assert (decision.weights[~seen.eligible] == 0).all()


def test_a_changed_slot_loses_its_hidden_state():
    chosen = policy()
    _, state = chosen.decide(observation(time=0.0), None)
    changed = observation(time=0.2, generation=np.array([1, 0, 0, 0, 0, 0], dtype=np.uint8))
    _, renewed = chosen.decide(changed, state)
    _, fresh = chosen.decide(changed, replace(state, hidden=np.zeros_like(state.hidden)))
    assert (renewed.hidden[0] == fresh.hidden[0]).all()
    assert (renewed.hidden[1] != fresh.hidden[1]).any()


def test_a_grown_table_keeps_hidden_states():
    chosen = policy()
    _, state = chosen.decide(observation(time=0.0), None)
    grown = observation(time=0.2, shape=(8,))
    decision, after = chosen.decide(grown, state)
    assert decision.weights.shape == (8,)
    assert after.hidden.shape == (8, 8)
    assert after.memory.renewed.tolist()[6:] == [True, True]


@pytest.mark.parametrize("anchor", ["lsq", "bayes"])
@pytest.mark.parametrize("level", ["off", "basic", "full"])
def test_every_level_of_features_gives_a_decision(level, anchor):
    chosen, state = policy(anchor=anchor), None
    for time in (0.0, 0.2):
        seen = observation(time=time, level=level)
        decision, state = chosen.decide(seen, state)
        assert (decision.weights[seen.eligible] > 0).all()


def test_reservoirs_are_read_where_they_are_recorded():
    chosen = policy(features=("fct/avg", "pt_gen/std"))
    assert chosen.reads(()) == ()
    assert chosen.reads(("flow_duration", "fct")) == ("fct",)
    assert set(chosen.reads(("flow_duration", "fct", "pt_gen", "win"))) == {"fct", "pt_gen"}
    assert chosen.channels


def test_a_model_sees_what_its_anchor_estimates():
    chosen = policy(anchor="bayes", features=("filter/log_speed", "filter/recent"))
    state: Any = None
    for time in (0.0, 1.0, 2.0):
        seen = observation(time=time)
        _, state = chosen.decide(seen, state)
    estimates, _ = features.extract(seen, None, ("filter/log_speed",), None, state.anchor)
    np.testing.assert_allclose(estimates[..., 0], state.anchor.estimate.log_speed, rtol=1e-6)
    assert estimates.any()


def test_an_unknown_anchor_is_refused():
    with pytest.raises(ModelError, match="anchor 'oracle' is no policy of this agent; known: bayes, equal"):
        policy(anchor="oracle")


@given(seed=st.integers(0, 1000), scale=st.floats(1, 1e6))
def test_whatever_a_network_contains_the_vip_gets_usable_weights(seed, scale):
    described = metadata()
    rng = np.random.default_rng(seed)
    wild = {
        name: rng.uniform(-scale, scale, values.shape).astype(np.float32)
        for name, values in arrays(described).items()
        if name not in ("std", "limits")
    }
    wild |= {"std": np.full(5, 1e-6, np.float32), "limits": np.full(2, 20, np.float32)}
    model = Model(described, Card(name="a"), wild, "")
    chosen, state, previous = learned.policy(model, policies.POLICIES), None, Decision(np.ones(6))
    for time in (0.0, 0.2, 0.4):
        seen = observation(seed, time=time)
        guarded, state = decisions.decide(chosen, seen, state, previous, Guardrails())
        previous = guarded.previous
        assert np.isfinite(guarded.weights).all()
        assert (guarded.weights[seen.eligible] > 0).all()
        assert (base_of(guarded)[seen.eligible] > 0).all()
