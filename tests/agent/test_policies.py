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


def test_little_finds_the_rate_that_load_hides():
    # Backend 0 serves 10 flows/s and holds 4 (0.5 s each), backend 1 serves 10 and is idle (0.1 s each): equals.
    seen = observation(fct=(0.5, 0.1, 0.2), n_flow=(10, 10, 10), l_assign=(40, 0, 0))
    assert decide("little", seen) == pytest.approx([10, 10, 5])


def test_little_gives_the_neutral_weight_where_nothing_arrived():
    seen = observation(fct=(0.5, 0.1, 0.2), n_flow=(10, 10, 0), l_assign=(40, 0, 0))
    assert decide("little", seen) == pytest.approx([10, 10, 10])


def test_little_forgets_at_the_pace_of_the_samples():
    policy = policies.by_name("little")
    _, state = policy.decide(observation(n_flow=(10, 1, 1), l_assign=(40, 0, 0)), None)
    # Ten seconds later: the old 10 arrivals weigh 10 * 0.9^10, the 10 new ones found nobody.
    later = observation(n_flow=(20, 1, 1), l_assign=(40, 0, 0), time=10.0)
    decision, _ = policy.decide(later, state)
    decay = 0.9**10
    assert decision.weights[0] == pytest.approx(40 * decay / (10 * decay + 10) + 1)


@pytest.mark.parametrize(
    "later",
    [
        {"generation": (1, 0, 0), "n_flow": (2, 1, 1), "l_assign": (6, 0, 0)},  # another backend in the slot
        {"generation": (0, 0, 0), "n_flow": (2, 1, 1), "l_assign": (6, 0, 0)},  # counters fell: a new data plane
    ],
)
def test_little_starts_afresh_with_another_backend_or_data_plane(later):
    policy = policies.by_name("little")
    _, state = policy.decide(observation(n_flow=(10, 1, 1), l_assign=(90, 0, 0)), None)
    decision, _ = policy.decide(observation(time=0.2, **later), state)
    assert decision.weights[0] == pytest.approx(3 + 1)


def test_little_takes_a_grown_table():
    policy = policies.by_name("little")
    _, state = policy.decide(observation(), None)
    grown = observation(fct=(1,) * 4, configured=(1,) * 4, n_flow=(1,) * 4, l_assign=(0,) * 4, generation=(0,) * 4)
    assert policy.decide(grown, state)[0].weights.shape == (4,)


@pytest.mark.parametrize("name", ["inverse-duration", "little"])
def test_turns_are_read_where_the_data_plane_records_them(name):
    policy = policies.by_name(name)
    assert policy.reads(["flow_duration", "fct"]) == ("fct",)
    assert policy.reads(["flow_duration", "fct", "pt_1st", "pt_gen"]) == ("pt_gen",)


def test_inverse_duration_goes_by_turns():
    assert decide("inverse-duration", observation(pt_gen=(0.1, 0.2, 0.4))) == pytest.approx([10, 5, 2.5])


def test_little_goes_by_requests_that_wait_and_not_by_idle_connections():
    # Backend 0 has 40 idle connections and nobody who waits, backend 1 answers as fast while 4 wait on average.
    policy = policies.by_name("little")
    common = {"pt_gen": (0.1, 0.1, 0.2), "n_flow": (10, 10, 10), "l_assign": (400, 0, 0)}
    _, state = policy.decide(observation(n_active=(0, 8, 0), **common), None)
    decision, _ = policy.decide(observation(n_active=(0, 0, 0), **common), state)
    assert decision.weights.tolist() == pytest.approx([10, 50, 5])


def test_little_starts_afresh_when_turns_come_or_go():
    policy = policies.by_name("little")
    _, by_turns = policy.decide(observation(pt_gen=(0.1, 0.1, 0.1), n_active=(9, 9, 9)), None)
    by_flows, state = policy.decide(observation(n_flow=(10, 10, 10), l_assign=(40, 0, 0)), by_turns)
    assert by_flows.weights.tolist() == pytest.approx([5, 1, 1])
    again, _ = policy.decide(observation(pt_gen=(0.1, 0.1, 0.1), n_flow=(10, 10, 10), l_assign=(40, 0, 0)), state)
    assert again.weights.tolist() == pytest.approx([10, 10, 10])


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
