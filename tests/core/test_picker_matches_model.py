"""sed and lsq against their definition in plain Python."""

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
    st.sampled_from([0.25, 1.0]),
    st.integers(0, 2**64 - 1),
)
def test_up_to_64_slots_the_least_delay_is_found(
    kind: str, slots: list[tuple[float, bool, int]], base: float, random: int
) -> None:
    picker, loads = make(kind, slots, base)
    expected = best(kind, slots, base)
    found = picker.pick(loads, random)
    assert found in expected if expected else found is None


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["sed", "lsq"]), st.lists(slot, min_size=1, max_size=8), st.integers(0, 2**64 - 1))
def test_above_64_slots_a_usable_one_is_found(kind: str, some: list[tuple[float, bool, int]], random: int) -> None:
    slots = some * 65
    picker, loads = make(kind, slots, 1.0)
    usable = {i for i, (weight, eligible, _) in enumerate(slots) if eligible and weight > 0}
    found = picker.pick(loads, random)
    assert found in usable if usable else found is None


def test_every_tied_slot_is_reached() -> None:
    picker, loads = make("sed", [(1.0, True, 0), (1.0, True, 5), (2.0, True, 1), (1.0, True, 0)], 1.0)
    randoms = np.random.default_rng(1).integers(0, 2**63, 200)
    assert {picker.pick(loads, 2 * int(r)) for r in randoms} == {0, 2, 3}


def test_wrong_arguments_are_named() -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(ValueError, match="kind"):
        penstock_core.Picker("p2c", one, np.array([True]), 1.0)
    with pytest.raises(ValueError, match="eligible"):
        penstock_core.Picker("sed", one, np.array([True, True]), 1.0)
    with pytest.raises(ValueError, match="base"):
        penstock_core.Picker("sed", one, np.array([True]), 0.0)
    with pytest.raises(ValueError, match="load"):
        penstock_core.Picker("sed", one, np.array([True]), 1.0).pick(np.zeros(2, np.int32), 1)
