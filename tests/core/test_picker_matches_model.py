"""Schedulers that pick by weights and counts, against their definition in plain Python."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import penstock_core
import pytest
from hypothesis import given, settings

slot = st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]), st.booleans(), st.integers(-3, 20))


def best(kind: str, slots: list[tuple[float, bool, int]], base: float) -> set[int]:
    """Slots with the least expected delay among those that may be picked."""
    delay = {
        i: (max(load, 0) + base) / (weight if kind == "sed" else 1)
        for i, (weight, eligible, load) in enumerate(slots)
        if eligible and weight > 0
    }
    return {i for i, d in delay.items() if d == min(delay.values())}


def make(kind: str, slots: list[tuple[float, bool, int]], base: float) -> tuple[penstock_core.Picker, np.ndarray]:
    weights, eligible, loads = zip(*slots, strict=True)
    picker = penstock_core.Picker(kind, np.array(weights, np.float32), np.array(eligible), base)
    return picker, np.array(loads, np.int32)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["sed", "lsq"]),
    st.lists(slot, min_size=1, max_size=64),
    st.lists(st.integers(0, 100), max_size=100),
    st.sampled_from([0.25, 1.0]),
    st.integers(0, 2**64 - 1),
)
def test_among_up_to_64_the_least_delay_is_found(
    kind: str, slots: list[tuple[float, bool, int]], free: list[int], base: float, random: int
) -> None:
    for place in free:  # slots that nobody has, anywhere between
        slots.insert(place, (1.0, False, 0))
    picker, loads = make(kind, slots, base)
    expected = best(kind, slots, base)
    found = picker.pick(loads, random)
    assert found in expected if expected else found is None


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["sed", "lsq"]), st.lists(slot, min_size=1, max_size=8), st.integers(0, 2**64 - 1))
def test_among_more_than_64_a_usable_one_is_found(kind: str, some: list[tuple[float, bool, int]], random: int) -> None:
    slots = some * 65
    picker, loads = make(kind, slots, 1.0)
    usable = {i for i, (weight, eligible, _) in enumerate(slots) if eligible and weight > 0}
    found = picker.pick(loads, random)
    assert found in usable if usable else found is None


any_slot = st.tuples(
    st.floats(0, 1e6, width=32), st.booleans(), st.integers(-(2**31), 2**31 - 1), st.floats(0, 1e6, width=32)
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(any_slot, min_size=1, max_size=64),
    st.floats(2**-20, 1, width=32),
    st.integers(0, 2**64 - 1),
)
def test_of_any_weights_bases_and_counts_the_least_delay_is_found(
    slots: list[tuple[float, bool, int, float]], common: float, random: int
) -> None:
    weights, eligible, loads, bases = (np.array(column) for column in zip(*slots, strict=True))
    picker = penstock_core.Picker("sed", weights.astype(np.float32), eligible, common, np.array(bases, np.float32))
    found = picker.pick(loads.astype(np.int32), random)
    usable = eligible & (weights > 0)
    if not usable.any():
        assert found is None
        return
    added = np.maximum(np.where(bases > 0, bases, common), 1e-20)
    delay = (np.maximum(loads, 0) + added) / np.maximum(weights, 1e-20)
    assert usable[found]
    assert delay[found] <= delay[usable].min() * (1 + 1e-6)


@pytest.mark.parametrize("kind", ["lsq", "alias"])
def test_kinds_that_do_not_compare_delays_ignore_bases(kind: str) -> None:
    weights, eligible = np.ones(3, np.float32), np.ones(3, bool)
    plain = penstock_core.Picker(kind, weights, eligible, 1.0)
    other = penstock_core.Picker(kind, weights, eligible, 1.0, np.array([9, 1, 5], np.float32))
    for random in np.random.default_rng(3).integers(0, 2**64, 100, np.uint64):
        load = np.array([random % 3, random % 2, 1], np.int32)
        assert plain.pick(load, int(random)) == other.pick(load, int(random))


def test_p2c_compares_the_delays_with_their_bases() -> None:
    picker = penstock_core.Picker("p2c", np.ones(2, np.float32), np.ones(2, bool), 1.0, np.array([8, 0], np.float32))
    load, randoms = np.array([0, 5], np.int32), np.random.default_rng(5).integers(0, 2**64, 20_000, np.uint64)
    second = sum(picker.pick(load, int(random)) == 1 for random in randoms)
    assert second / len(randoms) == pytest.approx(0.75, abs=0.02)


def test_every_tied_slot_is_reached() -> None:
    picker, loads = make("sed", [(1.0, True, 0), (1.0, True, 5), (2.0, True, 1), (1.0, True, 0)], 1.0)
    randoms = np.random.default_rng(1).integers(0, 2**63, 200)
    assert {picker.pick(loads, 2 * int(r)) for r in randoms} == {0, 2, 3}


def test_wrong_arguments_are_named() -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(ValueError, match="kind"):
        penstock_core.Picker("first", one, np.array([True]), 1.0)
    with pytest.raises(ValueError, match="eligible"):
        penstock_core.Picker("sed", one, np.array([True, True]), 1.0)
    with pytest.raises(ValueError, match="common_base"):
        penstock_core.Picker("sed", one, np.array([True]), 0.0)
    with pytest.raises(ValueError, match="base: must have as many entries"):
        penstock_core.Picker("sed", one, np.array([True]), 1.0, np.ones(2, np.float32))
    with pytest.raises(ValueError, match="load"):
        penstock_core.Picker("sed", one, np.array([True]), 1.0).pick(np.zeros(2, np.int32), 1)


def shares(kind: str, weights: list[float], loads: list[int], draws: int) -> np.ndarray:
    """How often each slot is picked."""
    picker = penstock_core.Picker(kind, np.array(weights, np.float32), np.ones(len(weights), bool), 1.0)
    counts = np.zeros(len(weights))
    load = np.array(loads, np.int32)
    for random in np.random.default_rng(7).integers(0, 2**64, draws, np.uint64):
        counts[picker.pick(load, int(random))] += 1
    return counts


@pytest.mark.parametrize("n", [2, 7, 100])
def test_alias_is_exact(n: int) -> None:
    """Chi-square over 200,000 draws: a share that is wrong by a hundredth would be seen."""
    draws = 200_000
    weights = np.random.default_rng(n).uniform(0.2, 5.0, n)
    counts = shares("alias", list(weights), [0] * n, draws)
    expected = draws * weights / weights.sum()
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    # mean and deviation of the distribution are n - 1 and sqrt(2 (n - 1))
    assert chi_square < n - 1 + 5 * np.sqrt(2 * (n - 1))


def test_alias_does_not_look_at_counts() -> None:
    counts = shares("alias", [1.0, 1.0], [1000, 0], 2000)
    assert min(counts) > 800


def test_p2c_takes_the_better_of_two_draws() -> None:
    """The worst slot is picked only where both draws are it, the best one wherever one is."""
    draws = 50_000
    counts = shares("p2c", [1.0, 1.0, 1.0, 1.0], [0, 1, 2, 3], draws)
    expected = np.array([7, 5, 3, 1]) / 16
    assert np.allclose(counts / draws, expected, atol=0.01)


def test_a_draining_slot_is_never_drawn() -> None:
    for kind in ("alias", "p2c"):
        assert shares(kind, [1.0, 0.0, 3.0], [0, 0, 0], 2000)[1] == 0
