"""Active WCMP: weights in proportion to the capacity that each backend has left, and random assignment below them.

The rule is that of A. Aghdai, C.-Y. Chu, Y. Xu, D. H. Dai, J. Xu, H. J. Chao, "Spotlight: Scalable Transport Layer
Load Balancing for Data Center Networks", arXiv 1806.08455, 2018. Z. Yao et al. compare with it under this name in
"Aquarius: Enable Fast, Scalable, Data-Driven Service Management in the Cloud", IEEE Transactions on Network and
Service Management 19(4), 2022.

What differs: Spotlight polls servers for their utilization. Here nothing is polled. For processor sharing and Poisson
arrivals the capacity that is left is 1 / mean duration, so the weight is

    requests that ended / request-seconds,

both averaged over the same recent past. Requests in progress count in it: it falls as soon as a backend is overloaded,
while the durations of requests that ended rise later. With random assignment no count stands in for that: weights by
the latter swing, and overload one backend after another.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import DECAY_PER_SECOND, Observation
from penstock_agent.policies.base import Decision, Policy, neutral_where_unknown
from penstock_agent.policies.requests import Pace, Watch, watch

EVIDENCE = 1.0
"""Requests as if they had ended at the common rate: a backend that is new, or has had none for long, is tried."""


@dataclass(frozen=True, slots=True)
class AwcmpState:
    """What is kept between decisions."""

    watch: Watch
    pace: Pace


def decide(observation: Observation, state: AwcmpState | None) -> tuple[Decision, AwcmpState]:
    """Weigh each eligible backend by the capacity it has left."""
    work, seen = watch(observation, state.watch if state else None)
    pace = Pace.of(state.pace if state else None, work, DECAY_PER_SECOND)
    left = pace.per_request(observation.eligible, EVIDENCE)
    return Decision(neutral_where_unknown(left, observation.eligible)), AwcmpState(seen, pace)


POLICY = Policy("awcmp", SchedulerType.ALIAS, ("fct",), decide, decides_without=True)
