"""The Bayes filter against an independent model of servers that it is told nothing of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from penstock_agent.policies import Decision, bayes
from penstock_agent.policies.tunable import bounds_of, from_vector, to_vector

from tests.support.queues import Servers, run

# Tuned values act better than they estimate: they shrink estimates to the mean. These take evidence as it is.
PARAMETERS = replace(
    bayes.OWN,
    memory_seconds=60.0,
    trust=0.7,
    bend=6.0,
    learned_after=4.0,
    cores_mean=3.0,
    cores_spread=0.9,
    rate_gain=0.3,
    load_seconds=0.7,
    others_share=0.5,
    surprise_seconds=300.0,
    cores_backends=10.0,
    caution_speed=0.0,
    caution_cores=0.0,
    speed_gain=1.0,
)
ESTIMATING = bayes.tuned_policy(PARAMETERS)
HET8 = (1, 1, 2, 2, 4, 4, 8, 8)


def estimates(state):
    """Speed and cores by server, averaged over balancers."""
    return (np.exp(each.mean(axis=0)) for each in (state.estimate.log_speed, state.estimate.log_cores))


def by_weights(weights):
    def decide(seen, state):
        shape = seen.eligible.shape
        return Decision(np.broadcast_to(np.array(weights, float), shape)), state

    return decide


@pytest.mark.parametrize("balancers", [1, 2, 3])  # one of several has to guess the load that comes by the others
def test_cores_are_found(balancers):
    servers = Servers(HET8, np.ones(8), balancers, load=0.85, seed=1)
    _, decision, state = run(servers, ESTIMATING, 90.0)
    speed, cores = estimates(state)
    truth = pytest.approx(np.array(HET8) / np.mean(HET8), rel=0.4)
    # What counts where servers are busy is the product; the cores alone show only near the knee.
    assert speed * cores / np.mean(speed * cores) == truth
    weights = decision.weights.mean(axis=0)
    assert weights / weights.mean() == truth  # so guardrails on weights are guardrails on capacities
    assert np.corrcoef(np.log(cores), np.log(HET8))[0, 1] > 0.9


def test_that_backends_are_alike_is_learned():
    # Nothing tells that the speeds are equal; a backend alone would show a spread of a fifth after so few requests.
    servers = Servers(HET8, np.ones(8), 1, load=0.7, seed=3)
    _, _, state = run(servers, ESTIMATING, 30.0)
    assert state.estimate.log_speed[0] == pytest.approx(np.zeros(8), abs=0.15)
    # Nor that the cores are: at this load some backends are never seen busy.
    servers = Servers([4] * 8, np.ones(8), 1, load=0.75, seed=4)
    _, _, state = run(servers, ESTIMATING, 60.0)
    assert state.estimate.cores_deviation.max() < 0.5 * np.sqrt(0.9)


def test_speeds_are_found():
    speeds = np.array([0.4, 0.4, 0.8, 0.8, 1.2, 1.2, 1.6, 1.6])
    servers = Servers([4] * 8, speeds, 2, load=0.85, seed=2)  # slow ones are needed: an unused one is forgotten
    _, _, state = run(servers, ESTIMATING, 90.0)
    speed, cores = estimates(state)
    # A slow server with four cores and a faster one with three are alike where both are busy.
    assert speed * cores / np.mean(speed * cores) == pytest.approx(speeds / speeds.mean(), rel=0.25)
    assert np.corrcoef(np.log(speed), np.log(speeds))[0, 1] > 0.9


def test_requests_take_hardly_longer_than_with_known_capacities():
    def mean(decide):
        return np.mean([run(Servers(HET8, np.ones(8), 2, 0.85, seed), decide, 60.0, warmup=20.0)[0] for seed in (1, 2)])

    lsq, told, learned = mean(by_weights(np.ones(8))), mean(by_weights(HET8)), mean(bayes.decide)
    assert learned < told + 0.15 * (lsq - told)


def test_equal_servers_are_treated_equally():
    servers = Servers([2] * 4, np.ones(4), load=0.85, seed=3)
    _, decision, _ = run(servers, bayes.decide, 60.0)
    shares = servers.begun[0] / servers.begun[0].sum()
    assert shares == pytest.approx(np.full(4, 0.25), rel=0.1)
    assert (decision.weights > 0).all()


def test_a_noisy_neighbor_is_noticed_within_seconds_and_forgiven():
    slow = np.array([0.3, 1, 1, 1])
    servers = Servers([4] * 4, np.ones(4), load=0.6, seed=4)
    _, _, state = run(servers, bayes.decide, 40.0)

    def share(seconds):
        nonlocal state
        begun = servers.begun.copy()
        _, _, state = run(servers, bayes.decide, seconds, state=state)
        return (servers.begun - begun)[0, 0] / (servers.begun - begun).sum()

    assert share(10.0) > 0.15
    servers.disturbance = lambda _: slow
    share(3.0)
    assert share(5.0) < 0.12  # its fair share is 0.3 / 3.3
    servers.disturbance = lambda _: 1.0
    share(5.0)
    assert share(10.0) > 0.13


def test_a_starved_server_that_recovers_is_found():
    servers = Servers([4] * 4, np.ones(4), load=0.25, seed=5)
    servers.disturbance = lambda time: np.array([0.1 if time < 90 else 1.0, 1, 1, 1])
    _, _, state = run(servers, bayes.decide, 90.0)
    run(servers, bayes.decide, 10.0, state=state)
    begun = servers.begun.copy()
    run(servers, bayes.decide, 20.0, state=state)
    gained = (servers.begun - begun)[0]
    assert gained[0] > 0.7 * gained.mean()


def test_idle_connections_do_not_count_where_requests_are_observed():
    # Half of the backends keep 50 idle connections each; requests are alike everywhere.
    servers = Servers([2] * 4, np.ones(4), load=0.7, seed=6)

    def decide(seen, state):
        idle = np.array([50, 50, 0, 0])
        counters = seen.counters | {"n_active": seen.counters["n_flow_on"], "n_turn": seen.counters["n_fct"]}
        counters |= {"n_answer": 3 * seen.counters["n_fct"]}
        counters |= {"n_flow_on": counters["n_flow_on"] + idle, "n_fct": counters["n_fct"] // 20}
        full = replace(seen, counters=counters, channels={"pt_gen": seen.channels["fct"]})
        return ESTIMATING(full, state)

    _, _, state = run(servers, decide, 30.0)
    assert state.estimate.log_speed[0] == pytest.approx(np.zeros(4), abs=0.25)
    assert state.watch.load.max() < 50


def test_open_flows_are_taken_where_none_ever_counts_as_active():
    # As with UDP: the counter is recorded, but no flow of it ever waits.
    servers = Servers([1, 4], np.ones(2), load=0.8, seed=7)

    def decide(seen, state):
        full = seen.counters | {"n_active": seen.counters["n_flow_on"] * 0, "n_answer": seen.counters["n_fct"]}
        return ESTIMATING(replace(seen, counters=full, channels={"pt_gen": seen.channels["fct"]}), state)

    _, _, state = run(servers, decide, 60.0)
    speed, cores = estimates(state)
    assert (speed * cores)[1] > 2.5 * (speed * cores)[0]


@pytest.mark.parametrize("change", ["generation", "restart"])
def test_only_what_changed_is_forgotten(change):
    servers = Servers([1, 4], np.ones(2), load=0.8, seed=8)
    _, _, state = run(servers, bayes.decide, 40.0)
    seen = servers.observe()
    if change == "generation":
        seen = replace(seen, time=seen.time + 0.2, generation=np.array([[1, 0]], dtype=np.uint8))
    else:
        gone = {name: np.where([True, False], 0, values) for name, values in seen.counters.items()}
        seen = replace(seen, time=seen.time + 0.2, counters=gone)
    _, after = bayes.decide(seen, state)
    assert after.estimate.log_cores[0, 0] == pytest.approx(np.log(bayes.OWN.cores_mean), abs=0.3)
    assert after.evidence[0, 0].sum() == 0
    assert after.estimate.log_cores[0, 1] == pytest.approx(state.estimate.log_cores[0, 1], abs=0.1)
    assert after.evidence[0, 1].sum() > 0


def test_a_grown_table_keeps_what_was_learned():
    servers = Servers([1, 4], np.ones(2), load=0.8, seed=9)
    _, _, state = run(servers, bayes.decide, 40.0)
    grown = Servers([1, 4, 2], np.ones(3)).observe(time=servers.observe().time + 0.2)
    for name, values in servers.observe().counters.items():
        grown.counters[name][:, :2] = values
    _, after = bayes.decide(grown, state)
    assert after.estimate.log_cores[0, :2] == pytest.approx(state.estimate.log_cores[0], abs=0.1)
    assert after.estimate.log_cores[0, 2] == pytest.approx(np.log(bayes.OWN.cores_mean), abs=0.3)


def test_nothing_is_learned_while_the_clock_stands_still():
    servers = Servers([1, 4], np.ones(2), load=0.8, seed=10)
    _, _, state = run(servers, bayes.decide, 20.0)
    decision, again = bayes.decide(servers.observe(), state)
    assert (again.evidence == state.evidence).all()
    repeated, _ = bayes.decide(servers.observe(), again)
    assert (repeated.weights == decision.weights).all()


def test_parameters_of_a_batch_act_as_each_alone():
    random = np.random.default_rng(0)
    points = random.random((3, len(to_vector(bayes.OWN))))
    batch, servers = from_vector(bayes.Parameters, points), Servers(HET8, np.ones(8), 2)
    states: Any = None
    alone: dict[int, Any] = dict.fromkeys(range(3))
    for _ in range(12):
        servers.advance(Decision(np.ones((2, 8)), np.full((2, 8), 0.5)))
        seen = servers.observe()
        stacked = replace(
            seen,
            **{name: np.stack([getattr(seen, name)] * 3) for name in ("eligible", "configured", "generation")},
            counters={name: np.stack([values] * 3) for name, values in seen.counters.items()},
            channels={name: np.stack([values] * 3) for name, values in seen.channels.items()},
        )
        together, states = bayes.decide(stacked, states, batch)
        for row, point in enumerate(points):
            decision, alone[row] = bayes.decide(seen, alone[row], from_vector(bayes.Parameters, point))
            assert together.weights[row] == pytest.approx(decision.weights, rel=1e-4)
            assert together.base is not None
            assert together.base[row] == pytest.approx(decision.base, rel=1e-3, abs=1e-6)


def test_a_vector_and_parameters_are_the_same():
    vector = to_vector(bayes.OWN)
    assert ((vector >= 0) & (vector <= 1)).all()
    assert to_vector(from_vector(bayes.Parameters, vector)) == pytest.approx(vector)
    assert from_vector(bayes.Parameters, np.full(len(vector), 7.0)) == from_vector(bayes.Parameters, vector * 0 + 1)
    assert all(bounds.low < bounds.high for bounds in bounds_of(bayes.Parameters).values())
    with pytest.raises(ValueError, match=rf"needs {len(vector)} finite numbers per row"):
        from_vector(bayes.Parameters, vector[1:])


def test_with_a_shared_view_bases_are_on_the_flows_of_all_balancers():
    servers = Servers(HET8, np.ones(8), 2, load=0.85, seed=8)

    def decide(seen, state):
        own = seen.counters["n_flow_on"]
        return ESTIMATING(replace(seen, peers=own.sum(0, keepdims=True) - own), state)

    _, decision, state = run(servers, decide, 60.0)
    assert decision.shared
    speed, cores = estimates(state)
    # Without a guess of the peers' load, cores are found as well as by one balancer alone.
    assert speed * cores / np.mean(speed * cores) == pytest.approx(np.array(HET8) / np.mean(HET8), rel=0.5)


def test_a_view_that_begins_brings_its_own_prior():
    servers = Servers(HET8, np.ones(8), 2, load=0.8, seed=9)
    shared = {"peers": np.zeros((2, 8), dtype=np.int64)}
    seen = servers.observe()
    _, alone = bayes.decide(seen, None)
    _, switched = bayes.decide(replace(seen, **shared), alone)
    _, begun = bayes.decide(replace(seen, **shared), None)
    assert switched.estimate.common == pytest.approx(begun.estimate.common)
    assert (alone.estimate.common != begun.estimate.common).any()


def test_a_view_that_is_lost_is_done_without():
    servers = Servers(HET8, np.ones(8), 2, load=0.8, seed=9)
    peers = np.zeros((2, 8), dtype=np.int64)

    def decide(seen, state):
        return bayes.decide(replace(seen, peers=peers), state)

    _, decision, state = run(servers, decide, 5.0)
    assert decision.shared
    peers[1, 3] = -1
    _, decision, _ = run(servers, decide, 1.0, state=state)
    assert not decision.shared
    assert np.isfinite(decision.weights).all()
