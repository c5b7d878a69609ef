"""Random scenarios follow their definition."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from penstock_rl.scenarios import CHOOSING, KINDS, REPORTING, TRAINING, Scenario, dump, expand, load, training, unseen

from tests.rl.test_expansion import check_environment

SAMPLE = 500  # of each kind


@cache
def sample(kind: int) -> tuple[Scenario, ...]:
    return tuple(unseen(seed, kind) for seed in range(SAMPLE))


def every(value: Callable[[Scenario], float]) -> list[float]:
    return [value(each) for kind in range(len(KINDS)) for each in sample(kind)]


def assert_uniform(values: list[float], low: float, high: float) -> None:
    """Kolmogorov and Smirnov's test at 0.1 %; the seeds are fixed."""
    ordered = (np.sort(values) - low) / (high - low)
    steps = np.arange(1, len(values) + 1) / len(values)
    assert low <= min(values) <= max(values) <= high
    assert np.abs(ordered - steps).max() < 1.95 / np.sqrt(len(values)) + 1 / len(values)


def assert_shares(values: Sequence[object], shares: Mapping[Any, float]) -> None:
    counts = Counter(values)
    assert set(counts) == set(shares)
    for value, share in shares.items():
        deviation = np.sqrt(share * (1 - share) / len(values))
        assert counts[value] / len(values) == pytest.approx(share, abs=4 * deviation)


def test_ranges_of_seeds_have_none_in_common() -> None:
    ranges = sorted((TRAINING, CHOOSING, REPORTING), key=lambda each: each.start)
    assert all(first.stop <= second.start for first, second in itertools.pairwise(ranges))


def test_each_kind_is_reported_twelve_times() -> None:
    names = Counter(unseen(seed).name.rpartition("-")[0] for seed in REPORTING)
    assert names == {f"unseen-{kind}": 12 for kind in KINDS}


def test_numbers_of_servers_and_balancers_and_kinds_of_work() -> None:
    assert_shares(every(lambda each: each.server_count), {8: 0.5, 12: 0.25, 24: 0.25})
    assert_shares(every(lambda each: each.balancers.count), dict.fromkeys((1, 2, 3, 4, 6), 0.2))
    works = [each.classes[0].work for kind in range(len(KINDS)) for each in sample(kind)]
    assert_shares(
        [work.distribution.value for work in works], dict.fromkeys(("exponential", "lognormal", "pareto"), 1 / 3)
    )
    assert {work.mean for work in works} == {0.1}


def test_lengths() -> None:
    assert {each.duration for kind in range(8) for each in sample(kind) if each.server_count == 24} == {50}
    assert {each.duration for kind in range(8) for each in sample(kind) if each.server_count < 24} == {80}
    assert set(every(lambda each: each.warm_up)) == {20}


HIGHEST_LOADS = (0.9, 0.9, 0.9, 0.78, 0.68, 0.9, 0.9, 0.8)
ANY, FEW, SAME = (1, 2, 4, 8), (2, 4), (4,)
CORES = (ANY, ANY, SAME, SAME, FEW, ANY, ANY, FEW)


@pytest.mark.parametrize("kind", range(8))
def test_loads_are_uniform(kind: int) -> None:
    assert_uniform([each.arrivals.load or 0 for each in sample(kind)], 0.5, HIGHEST_LOADS[kind])


@pytest.mark.parametrize("kind", range(8))
def test_cores_are_drawn_alike(kind: int) -> None:
    found = [group.cores for each in sample(kind) for group in each.each_server]
    assert_shares(found, dict.fromkeys(CORES[kind], 1 / len(CORES[kind])))


@pytest.mark.parametrize("kind", range(8))
def test_logarithms_of_speeds_are_uniform_where_speeds_differ(kind: int) -> None:
    speeds = [float(np.log(group.speed)) for each in sample(kind) for group in each.each_server]
    if kind in (2, 6):
        assert_uniform(speeds, -0.8 - 1e-4, 0.8 + 1e-4)
    else:
        assert set(speeds) == {0}


@pytest.mark.parametrize("kind", range(8))
def test_idle_connections_modulation_and_noise_are_those_of_their_kinds(kind: int) -> None:
    for each in sample(kind)[:20]:
        (body,) = each.classes
        assert body.idle_share == (0.7 if kind == 7 else 0)
        modulated = each.arrivals.modulated
        assert (modulated and (modulated.factors, modulated.every)) == (((1.4, 0.6), 4) if kind == 4 else None)
        assert len(each.disturbances) == (1 if kind in (3, 5) else 0)
    if kind == 7:
        assert_uniform([each.classes[0].idle for each in sample(kind)], 1, 5)


def test_neighbors_become_noisy_as_defined() -> None:
    begins, lengths, factors, servers = [], [], [], []
    for seed in range(150):
        rows = expand(unseen(seed, kind=3), seed)["events"]
        assert rows[0, 0] == 10
        slow = rows[rows[:, 3] < 1]
        if len(set(slow[:, 2])) < len(slow):
            continue  # the same server twice: they may overlap
        begins += np.diff(slow[:, 0]).tolist()
        factors += slow[:, 3].tolist()
        servers += (slow[:, 2] / unseen(seed, kind=3).server_count).tolist()
        # Where two do not overlap.
        for begin, server in slow[:, [0, 2]]:
            after = rows[(rows[:, 0] > begin) & (rows[:, 2] == server)]
            if len(after) and after[0, 3] == 1:
                lengths.append(after[0, 0] - begin)
    assert min(begins) >= 8
    assert 0.1 <= min(factors) < 0.12
    assert 0.58 < max(factors) <= 0.6
    assert np.mean(factors) == pytest.approx(0.35, abs=0.02)
    assert 5 <= min(lengths) <= max(lengths) <= 20 + 1e-9
    assert np.mean(servers) == pytest.approx(0.46, abs=0.04)


FOREVER = """\
name: unseen-noisy-2000003
duration: 50
warmUp: 20
balancers: {count: 6}
servers:
- {count: 24, cores: 4}
arrivals: {load: 0.7556}
classes:
- work: {distribution: pareto}
disturbances:
- noisyNeighbor:
    at: 10
    every: [8, 25]
    lasting: [5, 20]
    factor: [0.1, 0.6]
"""


def test_a_seed_is_one_scenario_for_ever() -> None:
    """What was reported stays comparable: a change of the generator needs new ranges of seeds."""
    assert dump(unseen(2_000_003)) == FOREVER


def test_training_covers_what_models_have_to_bear(tmp_path: Path) -> None:
    found = [training(seed) for seed in range(200)]
    assert {each.server_count for each in found} == set(range(2, 17))
    assert {each.balancers.count for each in found} == set(range(1, 7))
    for part in (
        lambda each: each.forwarding.value == "GRE",
        lambda each: each.features.value == "basic",
        lambda each: each.balancers.split,
        lambda each: each.servers[0].quota,
        lambda each: each.servers[0].thrash,
        lambda each: each.servers[0].limit,
        lambda each: each.arrivals.mmpp,
        lambda each: each.arrivals.diurnal,
        lambda each: each.classes[0].io,
        lambda each: each.classes[0].requests > 1,
        lambda each: each.classes[0].idle_share,
        lambda each: len(each.classes) == 2,
        lambda each: each.classes[0].work.distribution.value == "pareto",
        lambda each: each.disturbances,
    ):
        assert 0.05 < np.mean([bool(part(each)) for each in found]) < 0.7
    for seed, each in enumerate(found):
        check_environment(expand(each, seed), each)
        path = tmp_path / "again.yaml"
        path.write_text(dump(each))
        assert load(path) == each
