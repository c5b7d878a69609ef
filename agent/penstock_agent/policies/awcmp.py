"""Active WCMP: weights in proportion to the capacity that each backend has left, and random assignment below them.

The rule is that of A. Aghdai, C.-Y. Chu, Y. Xu, D. H. Dai, J. Xu, H. J. Chao, "Spotlight: Scalable Transport Layer
Load Balancing for Data Center Networks", arXiv 1806.08455, 2018. Z. Yao et al. compare with it under this name in
"Aquarius: Enable Fast, Scalable, Data-Driven Service Management in the Cloud", IEEE Transactions on Network and
Service Management 19(4), 2022.

    weight_i = max(capacity_i - throughput_i, LEAST_LEFT x capacity_i)

What differs: Spotlight polls servers for their utilization. Here nothing is polled. The capacity is the service rate by
Little's law, as heuristic `little` has it, and the throughput is the rate of requests that ended, averaged over the
same past. Both are of one balancer's own traffic. For processor sharing and Poisson arrivals the capacity that is left
is then 1 / mean duration: the same weights as `inverse-duration`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import DECAY_PER_SECOND, FloatArray, Observation
from penstock_agent.policies.base import Decision, Policy, neutral_where_unknown
from penstock_agent.policies.little import LittleState, service_rate
from penstock_agent.policies.progress import Throughput
from penstock_agent.policies.requests import Watch, watch

LEAST_LEFT = 0.05
"""Share of its capacity that a backend is taken to have left at least: it goes on being measured."""


@dataclass(frozen=True, slots=True)
class AwcmpState:
    """What is kept between decisions."""

    watch: Watch
    little: LittleState
    throughput: Throughput


def decide(observation: Observation, state: AwcmpState | None) -> tuple[Decision, AwcmpState]:
    """Weigh each eligible backend by the capacity it has left."""
    work, seen = watch(observation, state.watch if state else None)
    throughput = Throughput.of(state.throughput if state else None, work, work.ended, DECAY_PER_SECOND)
    capacity, little = service_rate(observation, state.little if state else None)
    weights = _left(capacity, throughput.per_second)
    return Decision(neutral_where_unknown(weights, observation.eligible)), AwcmpState(seen, little, throughput)


def _left(capacity: FloatArray, throughput: FloatArray) -> FloatArray:
    left: FloatArray = np.maximum(capacity - throughput, LEAST_LEFT * capacity)
    return left


POLICY = Policy("awcmp", SchedulerType.ALIAS, ("fct",), decide, better_channels=("pt_gen",))
