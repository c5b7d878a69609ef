"""What each heuristic makes of an observation, at sizes a reader can check."""

from __future__ import annotations

import numpy as np
import pytest
from penstock_agent import policies
from penstock_agent.observation import AVG_DECAY, REDUCTIONS, Observation

NAN = float("nan")


def observation(
    *,
    fct=(1.0, 1.0, 1.0),
    configured=(1.0, 1.0, 1.0),
    eligible=None,
    n_flow=(0, 0, 0),
    l_assign=(0, 0, 0),
    generation=(0, 0, 0),
    time=0.0,
    pt_gen=None,
    n_active=(0, 0, 0),
):
    configured = np.array(configured, dtype=float)
    measured = {"fct": fct} if pt_gen is None else {"pt_gen": pt_gen}  # as the loop gives a policy what it reads
    return Observation(
        time=time,
        eligible=np.array(eligible) if eligible is not None else configured > 0,
        configured=configured,
        generation=np.array(generation, dtype=np.uint8),
        counters={
            "n_flow_on": np.zeros(len(configured), dtype=np.int64),
            "n_flow": np.array(n_flow),
            "n_fct": np.array(n_flow),
            "l_assign": np.array(l_assign),
            "n_active": np.array(n_active),
        },
        channels={name: channel(values) for name, values in measured.items()},
    )


def channel(means):
    reductions = np.full((len(means), len(REDUCTIONS)), NAN)
    reductions[:, AVG_DECAY] = means
    return reductions


def decide(name, seen, state=None):
    return policies.by_name(name).decide(seen, state)[0].weights.tolist()


@pytest.mark.parametrize(
    ("name", "weights"),
    [("equal", [1, 1, 0]), ("lsq", [1, 1, 0]), ("static", [3, 1, 0]), ("sed", [3, 1, 0])],
)
def test_unmeasured_policies_need_only_the_configuration(name, weights):
    assert policies.by_name(name).channels == ()
    assert decide(name, observation(configured=(3, 1, 5), eligible=[True, True, False])) == weights


def test_inverse_duration_doubles_the_weight_of_twice_as_fast():
    assert decide("inverse-duration", observation(fct=(0.1, 0.2, 0.4))) == pytest.approx([10, 5, 2.5])


def test_backends_without_samples_get_the_mean_of_the_others():
    assert decide("inverse-duration", observation(fct=(0.1, 0.2, NAN))) == pytest.approx([10, 5, 7.5])
    assert decide("inverse-duration", observation(fct=(NAN, NAN, NAN))) == [1, 1, 1]


def test_backends_that_may_not_take_flows_get_nothing_and_count_for_nothing():
    seen = observation(fct=(0.1, 0.2, NAN), eligible=[False, True, True])
    assert decide("inverse-duration", seen) == pytest.approx([0, 5, 5])


def little_after(steps):
    """Return weights after steps of a second each, given by (n_flow, fct): flows complete as they begin."""
    state = None
    for second, (n_flow, fct) in enumerate(steps):
        seen = observation(n_flow=n_flow, fct=fct, time=float(second))
        decision, state = policies.by_name("little").decide(seen, state)
    return decision.weights.tolist()


def test_little_finds_the_rate_that_load_hides():
    # Backend 0 ends 8 flows/s in 0.5 s each, as it holds 4; backend 1 ends none of its own in 0.1 s: equals.
    steps = [((8 * second, 0, 4 * second), (0.5, 0.1, 1.0)) for second in range(6)]
    assert little_after(steps) == pytest.approx([8 + 2, 10, 4 + 1])


def test_little_gives_the_neutral_weight_where_nothing_ended():
    steps = [((8 * second, 0, 0), (0.5, 0.1, NAN)) for second in range(6)]
    assert little_after(steps) == pytest.approx([10, 10, 10])


def test_little_forgets_at_the_pace_of_the_samples():
    steps = [((min(8 * second, 80), 0, 0), (1.0, 1.0, 1.0)) for second in range(21)]
    # 10 of 20 seconds ago, 8 flows a second ended.
    parts = [0.9**age for age in range(20)]
    assert little_after(steps)[0] == pytest.approx(8 * sum(parts[10:]) / sum(parts) + 1)


def test_little_takes_little_from_its_first_second():
    assert little_after([((0, 0, 0), (1, 1, 1)), ((8, 0, 0), (1, 1, 1))]) == pytest.approx([8 / 2 + 1, 1, 1])


def test_little_does_not_take_an_overloaded_backend_for_a_fast_one():
    # Backend 0 gets 40 flows/s and ends 10 of them; those that ended did not wait long yet.
    policy, state = policies.by_name("little"), None
    for second in range(6):
        seen = observation(n_flow=(40 * second, 10 * second, 10 * second), fct=(0.4, 0.2, 0.2), time=float(second))
        seen.counters["n_fct"] = np.array([10 * second] * 3)
        seen.counters["n_flow_on"] = np.array([30 * second, 2, 2])
        seen.counters["l_assign"] = np.array([600 * second * second, 10 * second, 10 * second])
        decision, state = policy.decide(seen, state)
    assert decision.weights[0] < decision.weights[1]


@pytest.mark.parametrize(
    "later",
    [
        {"generation": (1, 0, 0), "n_flow": (200, 1, 1)},  # another backend in the slot
        {"generation": (0, 0, 0), "n_flow": (2, 1, 1)},  # counters fell: a new data plane
    ],
)
def test_little_starts_afresh_with_another_backend_or_data_plane(later):
    policy, state = policies.by_name("little"), None
    for second in range(3):
        _, state = policy.decide(observation(n_flow=(50 * second, 1, 1), time=float(second)), state)
    decision, _ = policy.decide(observation(time=2.2, **later), state)
    assert decision.weights[0] == pytest.approx(1)


def test_little_takes_a_grown_table():
    policy = policies.by_name("little")
    _, state = policy.decide(observation(), None)
    grown = observation(
        fct=(1,) * 4, configured=(1,) * 4, n_flow=(1,) * 4, l_assign=(0,) * 4, generation=(0,) * 4, n_active=(0,) * 4
    )
    assert policy.decide(grown, state)[0].weights.shape == (4,)


@pytest.mark.parametrize("name", ["inverse-duration", "little"])
def test_turns_are_read_where_the_data_plane_records_them(name):
    policy = policies.by_name(name)
    assert policy.reads(["flow_duration", "fct"]) == ("fct",)
    assert policy.reads(["flow_duration", "fct", "pt_1st", "pt_gen"]) == ("pt_gen",)


def test_inverse_duration_goes_by_turns():
    assert decide("inverse-duration", observation(pt_gen=(0.1, 0.2, 0.4))) == pytest.approx([10, 5, 2.5])


def test_little_goes_by_requests_and_not_by_idle_connections():
    # Each has 10 requests a second answered in 0.1 s; backend 0 on 40 connections that end late, 1 on new ones.
    policy, state = policies.by_name("little"), None
    for second in range(6):
        seen = observation(pt_gen=(0.1, 0.1, 0.2), n_flow=(40, 10 * second, 10 * second), time=float(second))
        seen.counters["n_turn"] = seen.counters["n_answer"] = np.array([10 * second] * 3)
        decision, state = policy.decide(seen, state)
    assert decision.weights.tolist() == pytest.approx([20, 20, 15])


@pytest.mark.parametrize("name", sorted(policies.POLICIES))
def test_several_vips_may_be_stacked_in_front(name):
    one = observation(fct=(0.1, 0.2, 0.4), n_flow=(3, 4, 5), l_assign=(6, 4, 0))
    stacked = Observation(
        time=one.time,
        eligible=np.stack([one.eligible] * 2),
        configured=np.stack([one.configured] * 2),
        generation=np.stack([one.generation] * 2),
        counters={name: np.stack([values] * 2) for name, values in one.counters.items()},
        channels={name: np.stack([values] * 2) for name, values in one.channels.items()},
    )
    assert decide(name, stacked) == [decide(name, one)] * 2


@pytest.mark.parametrize("name", sorted(policies.POLICIES.keys() - {"bayes"}))
def test_heuristics_leave_the_base_to_the_data_plane(name):
    assert policies.by_name(name).decide(observation(), None)[0].base is None


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(
        policies.UnknownPolicyError, match=r"'best' is not known; use one of bayes, equal, inverse-duration"
    ):
        policies.by_name("best")
