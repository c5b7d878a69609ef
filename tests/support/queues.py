"""Servers with exponential work under processor sharing, as a Markov chain in small steps of time.

Independent of the simulator.

The counts of requests in progress by balancer and server are the whole state. Balancers schedule as `sed` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from penstock_agent.guardrails import Guardrails, guard
from penstock_agent.observation import AVG_DECAY, DECAY_PER_SECOND, REDUCTIONS, Observation
from penstock_agent.policies import Decision

INTERVAL = 0.2
TICK = 0.01
WORK = 0.1  # seconds of one core


@dataclass
class Servers:
    """Servers and the balancers in front of them."""

    cores: Any
    speeds: Any
    balancers: int = 1
    load: float = 0.8  # of the servers' total capacity
    seed: int = 0
    time: float = 0.0
    requests: int = 0
    request_seconds: float = 0.0
    disturbance: Callable[[float], Any] = lambda _: 1.0  # factor on the speeds by time
    rng: Any = field(init=False)
    count: Any = field(init=False)  # [balancers, servers]
    begun: Any = field(init=False)
    ended: Any = field(init=False)
    durations: Any = field(init=False)  # decayed sums: duration, requests

    def __post_init__(self):
        self.cores, self.speeds = np.array(self.cores, float), np.array(self.speeds, float)
        self.rng = np.random.default_rng(self.seed)
        self.count = np.zeros((self.balancers, len(self.cores)), dtype=np.int64)
        self.begun, self.ended = np.zeros_like(self.count), np.zeros_like(self.count)
        self.durations = np.zeros((2, *self.count.shape))
        self.rate = self.load * (self.cores * self.speeds).sum() / WORK

    def advance(self, decision):
        """Let one interval pass under the decision."""
        area, ended = np.zeros(self.count.shape), self.ended.copy()
        for _ in range(round(INTERVAL / TICK)):
            for balancer in self.rng.integers(self.balancers, size=self.rng.poisson(self.rate * TICK)):
                self._place(balancer, decision)
            total = np.maximum(self.count.sum(axis=0), 1)
            rate = self.speeds * self.disturbance(self.time) / WORK * np.minimum(1.0, self.cores / total)
            gone = self.rng.binomial(self.count, -np.expm1(-rate * TICK))
            self.count, self.ended = self.count - gone, self.ended + gone
            area += self.count * TICK
            self.time += TICK
        self.request_seconds += area.sum()
        # By Little's law the area is the sum of the durations of those that ended, a step's border aside.
        self.durations = self.durations * DECAY_PER_SECOND**INTERVAL + np.stack((area, self.ended - ended))

    def _place(self, balancer, decision):
        with np.errstate(divide="ignore"):
            count = self.count.sum(axis=0) if decision.shared else self.count[balancer]
            index = (count + decision.base[balancer]) / decision.weights[balancer]
        best = np.flatnonzero(index <= index.min() * (1 + 1e-9))
        server = self.rng.choice(best)
        self.count[balancer, server] += 1
        self.begun[balancer, server] += 1
        self.requests += 1

    def observe(self, **changes):
        """Return what a policy observes at feature level `basic`."""
        shape = self.count.shape
        fct = np.full((*shape, len(REDUCTIONS)), np.nan)
        area, ended = self.durations
        fct[..., AVG_DECAY] = np.where(ended > 0, area / np.maximum(ended, 1), np.nan)
        seen = Observation(
            time=1000.0 + self.time,
            eligible=np.ones(shape, dtype=np.bool_),
            configured=np.ones(shape),
            generation=np.zeros(shape, dtype=np.uint8),
            counters={
                "n_flow_on": self.count.copy(),
                "n_flow": self.begun.copy(),
                "n_fct": self.ended.copy(),
                "l_assign": np.zeros(shape, dtype=np.int64),
            },
            channels={"fct": fct},
            balancers=self.balancers,
        )
        return replace(seen, **changes)


def run(servers, decide, seconds, state=None, warmup=0.0, bounds=None):
    """Steer servers through the agent's guardrails; return mean duration after the warm-up, last decision and state."""
    shape, bounds = servers.count.shape, bounds or Guardrails()
    common = np.full(shape, 1.0 / servers.balancers)
    decision, previous = Decision(np.ones(shape), common), Decision(np.ones(shape))
    end, begin = servers.time + seconds, servers.time + warmup
    while servers.time < end - TICK:
        if servers.time <= begin:
            servers.requests, servers.request_seconds = 0, 0.0
        servers.advance(decision)
        seen = servers.observe()
        wanted, state = decide(seen, state)
        guarded = guard(
            wanted,
            previous,
            eligible=seen.eligible,
            bounds=bounds,
            balancers=servers.balancers,
            open_flows=seen.counters["n_flow_on"],
        )
        previous = guarded.previous
        base = common if guarded.base is None else np.where(guarded.base > 0, guarded.base, common)
        decision = Decision(guarded.weights, base, guarded.decision.shared)
    return servers.request_seconds / max(servers.requests, 1), decision, state
