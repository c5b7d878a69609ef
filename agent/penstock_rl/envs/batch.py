"""Many environments as one: the form that training uses.

One object is one episode. All environments start and end together, and the end is a truncation: the scenario would go
on. Arrays are [environments, balancers, slots, ...], as large as the largest environment of the batch needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import penstock_sim
from numpy.typing import NDArray
from penstock_agent import decisions, features, policies
from penstock_agent.guardrails import Guarded, Guardrails
from penstock_agent.observation import BoolArray, FloatArray, Observation
from penstock_agent.policies import learned
from penstock_embedded.messages import SchedulerLoad, SchedulerType

from penstock_rl.envs import rewards, truth
from penstock_rl.envs.rewards import Passed
from penstock_rl.simulation import Planes, Setting, Sharing, recorded, started

Float32Array = NDArray[np.float32]
Environment = Mapping[str, Any]
GUARDRAILS = Guardrails()


@dataclass(frozen=True, slots=True)
class Settings:
    """What all environments of a batch have in common."""

    step: float = 0.2  # seconds per decision
    level: str = "full"  # of features
    load: str = "active"  # flows that the scheduler counts: open, active
    forwarding: str = "nat"
    scheduler: str = "sed"
    anchor: str = "bayes"  # policy whose decision is corrected
    use_base: bool = True  # False: the base is left to the data plane
    features: tuple[str, ...] = features.DEFAULT
    reward: str = "duration"
    max_weight_ratio: float = GUARDRAILS.max_weight_ratio
    max_change_per_step: float = GUARDRAILS.max_change_per_step
    threads: int = 1
    sharing: Sharing | None = None  # of the balancers' counts; None: every balancer has its own view


@dataclass(frozen=True, slots=True)
class Step:
    """What is known at a decision: E environments, L balancers, S slots."""

    features: Float32Array  # [E, L, S, F]; NaN where not measured
    mask: BoolArray  # [E, L, S]: backends that take new flows
    renewed: BoolArray  # [E, L, S]: slots with another backend than in the step before; all at first
    anchor: Float32Array  # [E, L, S, 2]: log weight, log base of the anchor's decision
    count: Float32Array  # [E, L, S]: flows that the scheduler compares
    truth: Float32Array  # [E, L, S, T]: see truth.NAMES
    reward: Float32Array  # [E, L]: of the step that just ended; 0 at first
    present: BoolArray  # [E, L]: balancers that exist
    done: bool  # the episode ended with this step


class Batch:
    """Environments, as scenarios.expand returns them, for some seconds of virtual time.

    Raises ValueError for a wrong setting, and what `penstock_sim` raises for a wrong environment.
    """

    truth_names = truth.NAMES

    def __init__(self, environments: Sequence[Environment], settings: Settings, seconds: float) -> None:
        self.settings = settings
        self.feature_names = settings.features
        self.steps = math.floor(seconds / settings.step + 1e-9)
        if self.steps < 1:
            raise ValueError(f"seconds: {seconds} is less than a step of {settings.step} s; use more")
        self._environments = environments
        self._anchor = policies.by_name(settings.anchor)
        self._reward = rewards.by_name(settings.reward)
        self._bounds = Guardrails(settings.max_weight_ratio, settings.max_change_per_step)
        self._simulation = self._started()
        self._expected, self._work = _expected(environments, settings.step, seconds)
        known = recorded(settings.level)
        wanted = dict.fromkeys((*self._anchor.reads(known), *features.channels_of(settings.features)))
        self._channels = tuple(name for name in wanted if name in known)
        self.shape = (self._simulation.environments, self._simulation.balancers, self._simulation.slots)

    def _started(self) -> Any:
        chosen = self.settings
        # Utilisation is wanted from the start; `totals` looks at the warm-up itself.
        cold = [{**each, "warmup": 0.0} for each in self._environments]
        scheduler, load = SchedulerType(chosen.scheduler), SchedulerLoad(chosen.load)
        setting = Setting(scheduler, load, chosen.level, chosen.forwarding, sharing=chosen.sharing)
        return started(cold, setting, chosen.threads)

    def reset(self) -> Step:
        """Begin the episode, from the same seeds each time."""
        if self._simulation.time > 0:
            self._simulation = self._started()
        self._planes = Planes(self._simulation, self._environments, self._channels)
        self._servers = truth.Servers(self._environments)
        self._memory: features.Memory | None = None
        self._anchor_state: Any = None
        self._guarded: Guarded | None = None
        self._taken = 0
        self._read = [0] * len(self._environments)
        self._busy, self._offered = np.zeros_like(self._simulation.busy), np.zeros_like(self._simulation.offered)
        self._seen, self._count = self._observed()
        return self._step(np.zeros(self.shape[:2]))

    def step(self, residual: Float32Array) -> Step:
        """Decide, let a step pass, observe; `residual` [E, L, S, 2] is added to the anchor's logarithms."""
        decision = learned.compose(
            self._logs, residual, self._seen.eligible, use_base=self.settings.use_base, shared=self._shared
        )
        self._guarded = decisions.guarded(decision, self._seen, self._previous, self._bounds)
        self._planes.act(self._guarded)
        self._taken += 1
        self._simulation.advance(self._taken * self.settings.step)
        before = self._count
        self._seen, self._count = self._observed()
        return self._step(self._reward(self._passed(before)))

    def totals(self) -> tuple[FloatArray, FloatArray]:
        """Return requests that arrived after the warm-up and completed, and the sum of their durations, each [E]."""
        completed, seconds = np.zeros(self.shape[0]), np.zeros(self.shape[0])
        for index, environment in enumerate(self._environments):
            requests = self._simulation.requests(index)
            duration = requests["duration"][requests["arrival"] >= environment["warmup"]]
            done = np.isfinite(duration)
            completed[index], seconds[index] = done.sum(), duration[done].sum()
        return completed, seconds

    @property
    def decision(self) -> Guarded | None:
        """What passed the guardrails in the last step."""
        return self._guarded

    def _observed(self) -> tuple[Observation, FloatArray]:
        seen, self._previous = self._planes.observe(self._guarded)
        self._servers.advance(self._simulation.time)
        active = self.settings.load == "active" and "n_active" in seen.counters
        counted = seen.counters["n_active" if active else "n_flow_on"]
        return seen, np.maximum(counted, 0).astype(float)

    def _step(self, reward: FloatArray) -> Step:
        seen, server = self._seen, self._simulation.server
        wanted, self._anchor_state = self._anchor.decide(seen, self._anchor_state)
        self._logs, self._shared = features.logs(wanted, seen), wanted.shared
        values, self._memory = features.extract(seen, self._memory, self.feature_names, self._logs, self._anchor_state)
        return Step(
            features=values,
            mask=seen.eligible,
            renewed=self._memory.renewed,
            anchor=self._logs.astype(np.float32),
            count=self._count.astype(np.float32),
            truth=truth.at_slots(self._servers, self._count, server),
            reward=reward.astype(np.float32),
            present=self._expected > 0,
            done=self._taken >= self.steps,
        )

    def _passed(self, before: FloatArray) -> Passed:
        simulation, step = self._simulation, self.settings.step
        slowdowns, slow = self._requests() if self.settings.reward in rewards.READ_REQUESTS else (0.0, 0.0)
        busy, offered = simulation.busy - self._busy, simulation.offered - self._offered
        self._busy, self._offered = simulation.busy.copy(), simulation.offered.copy()
        capacity = self._servers.capacity
        present = truth.by_server(np.ones(self.shape), simulation.server, capacity.shape[1]) > 0
        requests = truth.by_server(self._count, simulation.server, capacity.shape[1])
        nothing = np.zeros(self.shape[:2])
        return Passed(
            seconds=step,
            expected=self._expected,
            work=self._work,
            completed=simulation.step_completed.sum(axis=-1).astype(float),
            durations=simulation.step_duration.sum(axis=-1),
            lost=simulation.step_failed.sum(axis=-1).astype(float) + simulation.step_refused,
            in_progress=(before.sum(axis=-1) + self._count.sum(axis=-1)) / 2.0,
            slowdowns=nothing + slowdowns,
            slow=nothing + slow,
            utilisation=np.where(offered > 0, busy / np.where(offered > 0, offered, 1.0), np.nan),
            load=np.where(present & (capacity > 0), requests / np.where(capacity > 0, capacity, 1.0), np.nan),
        )

    def _requests(self) -> tuple[FloatArray, FloatArray]:
        """Return the slowdowns and the slow ones of requests that ended in this step, by balancer."""
        slowdowns, slow = np.zeros(self.shape[:2]), np.zeros(self.shape[:2])
        for index in range(self.shape[0]):
            ended = {name: values[self._read[index] :] for name, values in self._simulation.requests(index).items()}
            self._read[index] += len(ended["duration"])
            done = np.isfinite(ended["duration"])
            balancer, lasted = ended["balancer"][done], ended["duration"][done]
            np.add.at(slowdowns[index], balancer, lasted / ended["work"][done])
            np.add.at(slow[index], balancer, lasted > rewards.TAIL * self._work[index, 0])
        return slowdowns, slow


def _expected(environments: Sequence[Environment], step: float, seconds: float) -> tuple[FloatArray, FloatArray]:
    """Return the mean requests per step of each balancer [E, L], and the mean work of a request [E, 1]."""
    most = max(len(each["split"]) for each in environments)
    expected, work = np.zeros((len(environments), most)), np.zeros((len(environments), 1))
    for index, each in enumerate(environments):
        per_connection, work[index, 0] = _class_means(np.asarray(each["classes"], dtype=float))
        per_step = _connections(each, seconds) * per_connection * step / seconds
        expected[index, : len(each["split"])] = np.maximum(np.asarray(each["split"]) * per_step, 1e-6)
    return expected, work


def _class_means(classes: FloatArray) -> tuple[float, float]:
    """Return requests per connection, and seconds per request without any load."""
    column = {name: classes[:, index] for index, name in enumerate(penstock_sim.CLASS_FIELDS)}
    requests = float((column["share"] * column["requests"]).sum() / column["share"].sum())
    of_requests = column["share"] * column["requests"]
    seconds = column["work_mean"] + column["io_mean"]
    return requests, float((of_requests * seconds).sum() / of_requests.sum())


def _connections(environment: Environment, seconds: float) -> float:
    """Return how many connections arrive on average until a time."""
    if (trace := environment.get("trace")) is not None:
        return float((np.asarray(trace)[:, 0] < seconds).sum())
    rates = np.asarray(environment["rates"], dtype=float)
    begins = np.minimum(rates[:, 0], seconds)
    return float((np.diff(begins, append=seconds) * rates[:, 1]).sum())


class Endless:
    """Episode after episode: a step after the last of one begins the next (autoreset `NEXT_STEP` of Gymnasium).

    `draw` returns the environments of an episode, by its number from 0.
    """

    def __init__(self, draw: Callable[[int], Sequence[Environment]], settings: Settings, seconds: float) -> None:
        self._draw, self._settings, self._seconds = draw, settings, seconds
        self._drawn = 0
        self._ended = True
        self.batch = Batch(draw(0), settings, seconds)

    def step(self, residual: Float32Array | None = None) -> Step:
        """Step the episode, or begin one: then the residual does not matter."""
        if self._ended:
            if self._drawn:
                self.batch = Batch(self._draw(self._drawn), self._settings, self._seconds)
            self._drawn += 1
            step = self.batch.reset()
        elif residual is None:
            raise ValueError("residual: is missing; only the first step of an episode goes without")
        else:
            step = self.batch.step(residual)
        self._ended = step.done
        return step
