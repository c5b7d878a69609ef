"""Policies in the simulator: what they see, what becomes of their decisions, and common random numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import penstock_sim
import pytest
from penstock_agent import policies
from penstock_agent.guardrails import Guardrails
from penstock_agent.observation import Observation
from penstock_agent.policies import Decision, Policy
from penstock_embedded.messages import SchedulerLoad, SchedulerType
from penstock_rl import simulation
from penstock_rl.scenarios import Scenario, expand
from penstock_rl.simulation import Outcome, Rule, Setting

from tests.rl.small import small

SED = Setting(SchedulerType.SED, level="full")


def run(scenario: Scenario, policy: str | Policy | None, *seeds: int, setting: Setting = SED) -> list[Outcome]:
    chosen = policies.by_name(policy) if isinstance(policy, str) else policy
    environments = [expand(scenario, seed) for seed in seeds]
    return simulation.run(environments, chosen, until=scenario.duration, setting=setting)


@dataclass
class Recorder:
    """A policy that keeps what it sees, and decides as another one."""

    decides_as: str
    seen: list[Observation] = field(default_factory=list)

    @property
    def policy(self) -> Policy:
        inner = policies.by_name(self.decides_as)

        def decide(observation: Observation, state: object) -> tuple[Decision, object]:
            self.seen.append(observation)
            return inner.decide(observation, state)

        return replace(inner, decide=decide)


def by_arrival(outcome: Outcome, until: float) -> Mapping[str, np.ndarray]:
    order = np.argsort(outcome.arrival, kind="stable")
    early = order[outcome.arrival[order] < until]
    return {"arrival": outcome.arrival[early], "balancer": outcome.balancer[early], "kind": outcome.kind[early]}


@pytest.mark.parametrize("name", ["equal", "lsq", "little", "inverse-duration"])
def test_policies_meet_the_same_arrivals(name: str) -> None:
    scenario = small()
    other = by_arrival(run(scenario, "sed", 7)[0], 9.0)
    this = by_arrival(run(scenario, name, 7)[0], 9.0)
    for key, values in other.items():
        assert np.array_equal(this[key], values), key


@pytest.mark.parametrize("name", ["little", "lsq"])
def test_a_batch_gives_what_each_environment_gives_alone(name: str) -> None:
    together = run(small(), name, 1, 2, 3)
    for seed, outcome in zip((1, 2, 3), together, strict=True):
        alone = run(small(), name, seed)[0]
        assert np.array_equal(outcome.arrival, alone.arrival)
        assert np.array_equal(outcome.duration, alone.duration)
        assert np.array_equal(outcome.utilisation, alone.utilisation)


def test_threads_change_nothing() -> None:
    environments = [expand(small(), seed) for seed in range(4)]
    little = policies.by_name("little")
    one, two = (simulation.run(environments, little, until=12.0, setting=SED, threads=threads) for threads in (1, 2))
    assert all(np.array_equal(a.duration, b.duration) for a, b in zip(one, two, strict=True))


def test_a_policy_sees_stacked_arrays_and_only_the_channels_it_reads() -> None:
    recorder = Recorder("little")
    run(small(), recorder.policy, 1, 2)
    assert len(recorder.seen) == 61, "one decision before the first interval, then one for each"
    first, last = recorder.seen[0], recorder.seen[-1]
    assert last.eligible.shape[:2] == (2, 2)
    assert set(last.channels) == {"pt_gen"}
    assert last.channels["pt_gen"].shape == (*last.eligible.shape, 5)
    assert first.counters["n_flow"].sum() == 0, "what was seen is not changed by what follows"
    assert last.counters["n_flow"].sum() > 100
    assert last.time - first.time == pytest.approx(12.0, abs=1e-3)
    assert np.broadcast_to(last.balancers, last.eligible.shape).max() == 2


def test_channels_are_those_of_the_level() -> None:
    recorder = Recorder("little")
    run(small(), recorder.policy, 1, setting=replace(SED, level="basic"))
    assert set(recorder.seen[-1].channels) == {"fct"}


def test_a_policy_without_measurements_decides_when_eligibility_changes() -> None:
    recorder = Recorder("lsq")
    run(small(), recorder.policy, 1)
    assert len(recorder.seen) == 1
    drained = small(disturbances=[{"remove": {"at": 3.0, "drain": 20.0, "servers": [0]}}])
    recorder = Recorder("lsq")
    run(drained, recorder.policy, 1)
    assert len(recorder.seen) == 2
    assert recorder.seen[1].eligible.sum() < recorder.seen[0].eligible.sum()


def test_weights_pass_the_guardrail() -> None:
    wild = Policy(
        "wild",
        SchedulerType.SED,
        ("fct",),
        lambda seen, state: (Decision(seen.eligible * 1e9 ** np.arange(seen.eligible.shape[-1])), state),
    )
    bounds = Guardrails(max_weight_ratio=4.0, max_change_per_step=0.1)
    environments = [expand(small(), 1)]
    sim = penstock_sim.Simulation(environments, level="basic", scheduler="sed", load="open", forwarding="nat")
    loop = simulation.Loop(simulation.Planes(sim, environments, ("fct",)), wild, bounds)
    before = np.ones(sim.eligible.shape)
    for step in range(1, 40):
        sim.advance(step * 0.2)
        weights = loop.step().weights
        taken = sim.eligible
        assert weights[taken].max() / weights[taken].min() <= 4.0 + 1e-9
        assert (np.abs(weights / before - 1)[taken] <= 0.1 + 1e-9).all()
        before = np.where(taken, weights, 1.0)
    assert weights[taken].max() / weights[taken].min() == pytest.approx(4.0)


def told() -> Scenario:
    """The scenario with the cores of servers as weights."""
    return small(servers=[{"count": 2, "cores": 1}, {"count": 2, "cores": 4, "weight": 4}], duration=40.0)


def test_a_base_reaches_the_scheduler() -> None:
    one, two = (run(told(), "sed", 1, setting=replace(SED, base=base))[0] for base in (0.5, 8.0))
    common = run(told(), "sed", 1)[0]
    assert np.array_equal(one.server, common.server), "1 / balancers is what the data plane takes itself"
    assert not np.array_equal(two.server, common.server)


def test_capacities_help_and_the_oracle_is_best() -> None:
    seeds = range(1, 7)
    found = (
        run(told(), None, *seeds, setting=replace(SED, rule=Rule.ORACLE_SED)),
        run(told(), "sed", *seeds),
        run(told(), "lsq", *seeds, setting=replace(SED, scheduler=SchedulerType.LSQ)),
    )
    oracle, sed, lsq = (np.mean([np.nanmean(outcome.duration) for outcome in outcomes]) for outcomes in found)
    assert oracle < sed < lsq


def test_active_counts_differ_from_open_ones_where_connections_are_kept() -> None:
    kept = small(duration=40.0, classes=[{"idleShare": 0.8, "idle": 5}])
    lsq = Setting(SchedulerType.LSQ, level="full")
    opened = run(kept, "lsq", 1, 2, setting=lsq)
    active = run(kept, "lsq", 1, 2, setting=replace(lsq, load=SchedulerLoad.ACTIVE))
    assert sum(np.nanmean(each.duration) for each in active) < sum(np.nanmean(each.duration) for each in opened)


def test_utilisation_is_near_the_load() -> None:
    outcome = run(small(duration=100.0, warmUp=10.0), "little", 1)[0]
    capacities = np.array([1, 1, 4, 4])
    assert np.average(outcome.utilisation, weights=capacities) == pytest.approx(0.8, abs=0.06)
    assert outcome.failed == 0
