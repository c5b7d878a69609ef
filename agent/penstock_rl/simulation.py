"""Policies in the simulator: advance, observe, decide, guard, act, as the agent's loop does with a data plane.

A batch of environments is one `penstock_sim.Simulation`; observation, policy and guardrail see it as stacked arrays
[environments, balancers, slots] and are the agent's own functions. A policy reads exactly what it would read of a
data plane, and nothing of the environment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
import penstock_core
import penstock_sim
from numpy.typing import NDArray
from penstock_agent import decisions
from penstock_agent.guardrails import Guarded, Guardrails
from penstock_agent.observation import BoolArray, FloatArray, Generations, Observation, Slots, observe
from penstock_agent.policies import Decision, Policy
from penstock_agent.policies.progress import resized
from penstock_embedded.messages import SchedulerLoad, SchedulerType

INTERVAL_SECONDS = 0.2
Environment = Mapping[str, Any]


class Rule(IntEnum):
    """What picks a server for a new connection."""

    SCHEDULER = 0  # the core's, with the policy's weights
    ORACLE_SED = 1  # central: shortest expected delay, true capacities, global counts
    ORACLE_MARGINAL = 2  # central: least marginal delay


@dataclass(frozen=True, slots=True)
class Sharing:
    """How balancers exchange their counts of flows, and what they make of them (docs/explanation/simulation.md)."""

    interval: float = 0.02  # seconds between two messages of a balancer to a peer
    delay_low: float = 0.001  # seconds; the delay of a message is uniform between the two
    delay_high: float = 0.005
    loss: float = 0.01  # of messages
    anticipate: float = 0.5  # of own changes since, that each peer is expected to have had too
    doubt: float = 0.4  # weight of the estimate from own flows alone
    mirror: float = 0.5  # weight of own flows now, against their mean, in that estimate
    mean: float = 0.7  # seconds, time constant of that mean


@dataclass(frozen=True, slots=True)
class Setting:
    """Configuration of the simulated data planes, the same for a batch."""

    scheduler: SchedulerType = SchedulerType.SED
    load: SchedulerLoad = SchedulerLoad.OPEN
    level: str = "basic"  # of features
    forwarding: str = "nat"
    rule: Rule = Rule.SCHEDULER
    base: float | None = None  # of every backend, where the policy decides none; None: 1 / balancers
    sharing: Sharing | None = None  # None: every balancer has its own view


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened in one environment after warm-up, by request in order of completion."""

    arrival: FloatArray  # seconds
    duration: FloatArray  # seconds; NaN: failed
    server: NDArray[np.integer[Any]]
    balancer: NDArray[np.integer[Any]]
    kind: NDArray[np.integer[Any]]  # class of the connection
    utilisation: FloatArray  # by server: CPU time used over CPU time offered; NaN where nothing was offered

    @property
    def failed(self) -> int:
        """Count failed requests."""
        return int(np.count_nonzero(np.isnan(self.duration)))


def run(
    environments: Sequence[Environment],
    policy: Policy | None,
    *,
    until: float,
    setting: Setting | None = None,
    interval: float = INTERVAL_SECONDS,
    bounds: Guardrails | None = None,
    threads: int = 1,
    look: Callable[[float, Any], None] | None = None,
) -> list[Outcome]:
    """Run environments to a time under a policy; no policy: the configured weights, or what the rule does.

    `bounds` are the guardrail's; None: its defaults. `look` is called with the time and the simulation after each
    step. Raises what `penstock_sim` raises for a wrong environment.
    """
    setting = setting or Setting()
    simulation = started(environments, setting, threads)
    loop = None
    if policy is not None:
        channels = policy.reads(recorded(setting.level)) if policy.channels else ()
        loop = Loop(
            Planes(simulation, environments, channels, setting.base, trimmed=True), policy, bounds or Guardrails()
        )
        loop.step()
    for time in _times(until, interval):
        simulation.advance(time)
        if loop is not None:
            loop.step()
        if look is not None:
            look(time, simulation)
    return [outcome(simulation, index, environment) for index, environment in enumerate(environments)]


def started(environments: Sequence[Environment], setting: Setting, threads: int = 1) -> penstock_sim.Simulation:
    """Return a simulation at time 0; raises what `penstock_sim` raises for a wrong environment."""
    return penstock_sim.Simulation(
        environments,
        level=setting.level,
        scheduler=setting.scheduler.value,
        load=setting.load.value,
        forwarding=setting.forwarding,
        rule=int(setting.rule),
        threads=threads,
        record=True,
        sharing=asdict(setting.sharing) if setting.sharing else None,
    )


def _times(until: float, interval: float) -> Iterator[float]:
    """Return the ends of the steps; multiples of the interval, so that they do not drift."""
    for index in range(1, math.ceil(until / interval - 1e-9) + 1):
        yield min(index * interval, until)


def outcome(simulation: Any, index: int, environment: Environment) -> Outcome:
    """Read the requests that arrived after warm-up, and the utilisation, of one environment."""
    requests = simulation.requests(index)
    kept = requests["arrival"] >= environment["warmup"]
    offered = np.asarray(simulation.offered[index][: len(environment["servers"])], dtype=float)
    busy = simulation.busy[index][: len(offered)]
    return Outcome(
        arrival=requests["arrival"][kept],
        duration=requests["duration"][kept],
        server=requests["server"][kept],
        balancer=requests["balancer"][kept],
        kind=requests["class"][kept],
        utilisation=np.where(offered > 0, busy / np.where(offered > 0, offered, 1.0), np.nan),
    )


def _renewed(previous: Decision, before: Generations, now: Generations) -> Decision:
    """Return the decision of the step before for the backends that the slots have now; there may be more slots."""
    known = before.shape[-1]
    changed = np.ones(now.shape, dtype=np.bool_)
    changed[..., :known] = before != now[..., :known]
    if not changed.any():
        return previous
    base = None if previous.base is None else resized(previous.base, now.shape)
    return decisions.renewed(replace(previous, weights=resized(previous.weights, now.shape), base=base), changed)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest frames of a batch, as a policy's observation needs them.

    Arrays are copies: policies keep them, and the simulator's own change with each advance. Only the first slots are
    taken: a table of 8 servers has 32, and the time that a policy takes grows with them.
    """

    simulation: Any
    slots: int
    time_us: int
    active: BoolArray
    generation: Generations
    peers: NDArray[np.int64]
    counters: Mapping[str, NDArray[np.int64]]

    @classmethod
    def of(cls, simulation: Any, slots: int) -> Snapshot:
        """Copy the frames that were published last."""
        return cls(
            simulation,
            slots,
            time_us=round(simulation.time * 1e6),
            active=simulation.active[..., :slots].copy(),
            generation=simulation.generation[..., :slots].copy(),
            peers=simulation.peers[..., :slots].copy(),
            counters={name: values[..., :slots].copy() for name, values in simulation.counters.items()},
        )

    def reduce(self, channels: Sequence[str], now_us: int) -> Mapping[str, FloatArray]:
        """Reduce channels' reservoirs; the simulator's clock is that of the frame, as `now_us` is."""
        found = self.simulation.reduce(list(channels)) if channels else {}
        return {name: values[..., : self.slots, :] for name, values in found.items()}


class Planes:
    """The data planes of a simulation as an agent sees them, all of a batch at once.

    `base` is that of every backend where a policy decides none; None: the data planes' own. `trimmed`: observations
    end with the last slot that ever held a backend.
    """

    def __init__(
        self,
        simulation: Any,
        environments: Sequence[Environment],
        channels: Sequence[str],
        base: float | None = None,
        *,
        trimmed: bool = False,
    ) -> None:
        self._simulation = simulation
        self._channels = channels
        self.balancers = _balancers(environments)
        self._base = base
        self._generation: Generations | None = None
        self._used = 1 if trimmed else int(simulation.slots)

    @property
    def slots(self) -> Slots:
        """Copy what is configured: the names of the simulator's servers do not matter."""
        simulation = self._simulation
        if self._used < simulation.slots:
            taken = np.flatnonzero((simulation.active | (simulation.configured > 0)).any(axis=(0, 1)))
            self._used = max(self._used, *(taken[-1:] + 1))
        columns = (simulation.configured, simulation.active, simulation.eligible)
        return Slots((), *(each[..., : self._used].copy() for each in columns))

    def observe(self, last: Guarded | None) -> tuple[Observation, Decision]:
        """Read the frames of the last advance; return with them what the guardrails compare the next decision with.

        `last` is what passed the guardrails in the step before.
        """
        slots = self.slots
        frame = Snapshot.of(self._simulation, self._used)
        seen = observe(frame, frame, slots, self._channels, frame.time_us, self.balancers)
        if last is None or self._generation is None:
            previous = decisions.initial(slots.configured, slots.eligible)
        else:
            previous = _renewed(last.previous, self._generation, frame.generation)
        self._generation = frame.generation
        return decisions.after(seen, previous), previous

    def act(self, guarded: Guarded) -> None:
        """Put weights and bases into force."""
        weights, base = guarded.weights, guarded.base
        if base is None and self._base is not None:
            base = np.full(weights.shape, self._base)
        bases = None if base is None else self._whole(base)
        self._simulation.act(self._whole(weights), bases, guarded.decision.shared)

    def _whole(self, values: FloatArray) -> NDArray[np.float32]:
        shape = (*values.shape[:-1], self._simulation.slots)
        return resized(values.astype(np.float32), shape)


class Loop:
    """Steers data planes by a policy, one step for the whole batch."""

    def __init__(self, planes: Planes, policy: Policy, bounds: Guardrails) -> None:
        self._planes = planes
        self._policy = policy
        self._bounds = bounds
        self._state: Any = None
        self._guarded: Guarded | None = None
        self._decided_on: tuple[bytes, bytes] | None = None

    def step(self) -> Guarded:
        """Decide on the frames of the last advance, and put the decision into force."""
        self._guarded = self._measured() if self._policy.channels else self._configured()
        self._planes.act(self._guarded)
        return self._guarded

    def _measured(self) -> Guarded:
        seen, previous = self._planes.observe(self._guarded)
        guarded, self._state = decisions.decide(self._policy, seen, self._state, previous, self._bounds)
        return guarded

    def _configured(self) -> Guarded:
        """Decide anew where what was configured has changed: nothing else can change the decision."""
        slots = self._planes.slots
        decided_on = slots.eligible.tobytes(), slots.configured.tobytes()
        if self._guarded is not None and decided_on == self._decided_on:
            return self._guarded
        self._decided_on = decided_on
        return decisions.from_configuration(self._policy, slots, self._planes.balancers)


def recorded(level: str) -> tuple[str, ...]:
    """Name the channels that a data plane records at a level of features."""
    levels = list(penstock_core.LEVELS)  # in rising order
    below = levels[: levels.index(level) + 1]
    return tuple(channel.name for channel in penstock_core.CHANNELS if channel.level in below)


def _balancers(environments: Sequence[Environment]) -> NDArray[np.int64]:
    """Count the balancers of each environment, to broadcast over [environments, balancers, slots]."""
    counts = [len(environment["split"]) for environment in environments]
    return np.array(counts, dtype=np.int64)[:, None, None]
