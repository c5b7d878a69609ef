"""Features of a model: what they are, at sizes a reader can check, and what keeps them apart from slots and scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import penstock_core
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent import features
from penstock_agent.observation import Observation, Slots, unmeasured

from tests.support.models import ALL_FEATURES, observation, permuted, row_of

NAN = float("nan")


def seen(time=0.0, *, eligible=(True, True), generation=(0, 0), channels=None, **counters):
    return Observation(
        time=time,
        eligible=np.array(eligible),
        configured=np.ones(len(eligible)),
        generation=np.array(generation, dtype=np.uint8),
        counters={name: np.array(values) for name, values in ({"n_flow": (0, 0)} | counters).items()},
        channels={name: np.array(values, dtype=float) for name, values in (channels or {}).items()},
    )


def values(name, *observations, **given_):
    memory = None
    for each in observations:
        found, memory = features.extract(each, memory, (name,), **given_)
    return found[..., 0].tolist()


def finite(found, names=ALL_FEATURES):
    """Return the groups that are measured anywhere."""
    flat = np.isfinite(found).reshape(-1, len(names)).any(axis=0)
    return {name.partition("/")[0] for name, is_measured in zip(names, flat, strict=True) if is_measured}


def test_open_flows_are_logarithms_and_relative():
    now = seen(n_flow_on=(3, 1))
    assert values("counts/open", now) == pytest.approx(np.log([4, 2]))
    assert values("counts/open_relative", now) == pytest.approx(np.log([4 / 3, 2 / 3]))


def test_backends_that_may_not_take_flows_do_not_count_in_the_mean():
    now = seen(n_flow_on=(3, 1), eligible=(True, False))
    assert values("counts/open_relative", now) == pytest.approx(np.log([1, 2 / 4]))


def test_pace_is_relative_to_the_rate_of_the_vip():
    # Each backend holds 10 flows for a second; 30 and 10 of them end: 20 were to be expected.
    steps = [seen(0.0, n_fct=(0, 0), n_flow_on=(10, 10)), seen(1.0, n_fct=(30, 10), n_flow_on=(10, 10))]
    assert values("endings/fast", *steps) == pytest.approx(np.log([31 / 21, 11 / 21]))


def test_totals_before_the_first_observation_do_not_count():
    now = seen(5.0, n_fct=(1000, 10), n_flow_on=(1, 1))
    assert np.isnan(values("endings/slow", now)).all()


def test_channels_are_relative_to_the_mean_of_the_vip():
    now = seen(channels={"fct": [[1, 0, 2, 1, 2], [3, 0, 4, 3, 4]]})
    assert values("fct/avg", now) == pytest.approx(np.log([0.5, 1.5]))
    assert values("fct/p90", now) == pytest.approx(np.log([1, 2]))


def test_channels_that_may_be_negative_are_not_logarithms():
    now = seen(channels={"d_win": [[-1, 0, 2, 1, 2], [3, 0, 4, 3, 4]]})
    assert values("d_win/avg", now) == pytest.approx([-0.5, 1.5])


def test_a_backend_without_samples_is_not_measured():
    now = seen(channels={"fct": [[2, 0, 2, 1, 2], [NAN] * 5]})
    assert values("fct/avg", now) == pytest.approx([0.0, NAN], nan_ok=True)


def test_a_slot_with_another_backend_has_no_past():
    first = seen(0.0, n_fct=(0, 0), n_flow_on=(2, 2), n_flow=(0, 0))
    second = seen(1.0, n_fct=(50, 50), n_flow_on=(2, 2), n_flow=(50, 50))
    third = seen(2.0, n_fct=(90, 90), n_flow_on=(2, 2), n_flow=(90, 90), generation=(1, 0))
    memory = None
    for each in (first, second, third):
        found, memory = features.extract(each, memory, ("endings/evidence", "slot/age"))
    assert found[0].tolist() == [0.0, 0.0]
    assert found[1] == pytest.approx(np.log1p([50 * np.exp(-1 / 30) + 40, 2.0]))
    assert memory
    assert memory.renewed.tolist() == [True, False]


def test_totals_of_a_new_data_plane_begin_again():
    steps = [seen(0.0, n_fct=(90, 90)), seen(1.0, n_fct=(95, 95)), seen(2.0, n_fct=(3, 3))]
    assert np.isnan(values("endings/evidence", *steps)).all()


def test_a_grown_table_keeps_the_slots_it_had():
    small = [seen(0.0, n_fct=(0, 0)), seen(1.0, n_fct=(7, 7))]
    grown = seen(
        2.0, n_fct=(8, 8, 0), n_flow=(0, 0, 0), n_flow_on=(0, 0, 0), eligible=(True,) * 3, generation=(0, 0, 0)
    )
    found = values("endings/evidence", *small, grown)
    assert found == pytest.approx(np.log1p([7 * np.exp(-1 / 30) + 1] * 2 + [0]))


def test_what_is_in_force_and_what_the_anchor_decides():
    now = replace(seen(), weights=np.array([4.0, 1.0]), base=np.array([0.25, 0.0]), balancers=2)
    assert values("action/log_weight", now) == pytest.approx(np.log([2, 0.5]))
    assert values("action/log_base", now) == pytest.approx([np.log(0.5), 0])  # 0: the data plane's own
    anchor = np.array([[1.0, -np.log(2)], [-1.0, 0.0]])
    assert values("anchor/log_weight", now, anchor=anchor) == [1, -1]
    assert values("anchor/log_base", now, anchor=anchor) == pytest.approx([0, np.log(2)])


def test_flows_of_all_balancers_where_they_share_a_view():
    now = replace(seen(n_flow_on=(3, 1)), peers=np.array([4, 0]))
    assert values("peers/flows", now) == pytest.approx(np.log([5, 1]))
    assert values("peers/total", now) == pytest.approx(np.log([8, 2]))
    assert values("peers/total_relative", now) == pytest.approx(np.log([8 / 5, 2 / 5]))
    assert np.isnan(values("peers/flows", replace(now, peers=np.array([-1, -1])))).all()
    assert np.isnan(values("peers/flows", seen(n_flow_on=(3, 1)))).all()


@pytest.mark.parametrize(
    ("level", "missing"),
    [
        ("off", {"active", "turns", "losses", *features.CHANNELS}),
        ("basic", {"active", "turns", *set(features.CHANNELS) - {"fct", "flow_duration"}}),
        ("full", set()),
    ],
)
def test_what_a_level_does_not_record_is_not_measured(level, missing):
    memory = None
    for time in (0.0, 0.2):
        found, memory = features.extract(observation(time=time, level=level), memory, ALL_FEATURES)
    groups = {name.partition("/")[0] for name in ALL_FEATURES}
    # There is neither an anchor nor a shared view.
    assert finite(found) == groups - missing - {"anchor", "filter", "peers"}


def test_answers_are_not_measured_with_one_way_forwarding():
    nothing = {"n_answer": np.zeros(6, dtype=np.int64)}
    memory = None
    for time in (0.0, 0.2):
        found, memory = features.extract(observation(time=time, counters=nothing), memory, ALL_FEATURES)
    assert "answers" not in finite(found)


def test_udp_has_neither_endings_nor_active_flows():
    nothing = {name: np.zeros(6, dtype=np.int64) for name in ("n_fct", "n_active", "n_turn")}
    memory = None
    for time in (0.0, 0.2):
        found, memory = features.extract(observation(time=time, counters=nothing), memory, ALL_FEATURES)
    assert finite(found).isdisjoint({"endings", "active", "turns"})


def test_nothing_measured_is_no_error():
    configured = unmeasured(Slots.of(3, [(0, "a", 2.0, True), (2, "b", 1.0, True)]))
    found, _ = features.extract(configured, None, ALL_FEATURES)
    assert finite(found) == {"configuration", "context"}
    at = ALL_FEATURES.index("configuration/weight")
    assert found[:, at] == pytest.approx([0.5 * np.log(2), 0, -0.5 * np.log(2)])


@given(seed=st.integers(0, 10**6), order=st.permutations(range(6)), level=st.sampled_from(["off", "basic", "full"]))
def test_permuted_slots_give_permuted_features(seed, order, level):
    memory = other = None
    for time in (0.0, 0.2, 0.4):
        each = observation(seed, time=time, level=level)
        found, memory = features.extract(each, memory, ALL_FEATURES)
        moved, other = features.extract(permuted(each, order), other, ALL_FEATURES)
        np.testing.assert_allclose(moved, found[order], rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_the_scale_of_durations_and_weights_does_not_matter(seed, scale):
    one = observation(seed)
    other = replace(
        one,
        channels={name: reduced * scale for name, reduced in one.channels.items()},
        weights=None if one.weights is None else one.weights * scale,
        configured=one.configured * scale,
    )
    found, _ = features.extract(one, None, ALL_FEATURES)
    scaled, _ = features.extract(other, None, ALL_FEATURES)
    np.testing.assert_allclose(scaled, found, rtol=1e-4, atol=1e-5)


def test_stacked_vips_give_what_each_gives_alone():
    memory = None
    alone = dict.fromkeys([(0, 0), (0, 1), (1, 0), (1, 1)])
    for time in (0.0, 0.2, 0.4):
        each = observation(3, shape=(2, 2, 5), time=time)
        found, memory = features.extract(each, memory, ALL_FEATURES)
        for at in alone:
            single, alone[at] = features.extract(row_of(each, at), alone[at], ALL_FEATURES)
            np.testing.assert_allclose(found[at], single, rtol=1e-5, atol=1e-6)


def test_broken_measurements_stay_within_bounds():
    huge = {name: np.full(6, 2**62) for name in features.TOTALS}
    memory = None
    for time in (0.0, 0.2):
        channels = {name: np.full((6, 5), 1e300) for name in features.CHANNELS}
        each = observation(time=time, counters=huge if time else {}, channels=channels)
        found, memory = features.extract(each, memory, ALL_FEATURES)
        assert (np.abs(found[np.isfinite(found)]) <= features.LARGEST).all()


def test_an_unknown_feature_is_named():
    with pytest.raises(features.UnknownFeatureError, match="'fct/median' is not known"):
        features.extract(seen(), None, ("fct/median",))


def test_channels_that_features_need():
    assert features.channels_of(("counts/open", "fct/avg", "fct/p90")) == ("fct",)
    assert features.channels_of(("pt_gen/std", "active/active", "fct/p90")) == ("fct", "pt_gen")
    assert features.channels_of(("endings/fast",)) == ()


@pytest.mark.parametrize("level", ["off", "basic", "full"])
def test_tests_record_what_a_data_plane_does(level):
    """The observations of these tests have the counters and channels that frames of their level have."""
    levels = list(penstock_core.LEVELS)  # in rising order
    below = levels[: levels.index(level) + 1]
    counted = {counter.name for counter in penstock_core.COUNTERS if counter.recorded in below}
    recorded = {channel.name for channel in penstock_core.CHANNELS if channel.level in below}
    seen_then = observation(level=level)
    assert seen_then.counters.keys() - {"n_turn"} <= counted
    assert counted & {*features.TOTALS, *features.GAUGES} <= seen_then.counters.keys()
    assert seen_then.channels.keys() == recorded


def test_channels_are_those_of_the_data_plane():
    assert {channel.name for channel in penstock_core.CHANNELS} == set(features.CHANNELS)
