"""Service rates by Little's law: J. D. C. Little, "A Proof for the Queuing Formula: L = lambda W", Operations
Research 9(3), 1961.

Work that finds L others at its backend and stays for W seconds was served at a rate of about (L + 1) / W per second,
itself included. Unlike 1 / W this does not punish a backend for its load, so weights settle at what servers can do
rather than swing with what they were sent. With L = lambda W it is

    throughput + 1 / W,

exact for processor sharing and Poisson arrivals, where W = 1 / (rate - throughput). It is computed in this form: a
count rises at once when a backend is overloaded, durations only when its work has ended, and in between (L + 1) / W
takes the backend for a fast one. The throughput has a limit, so such a mistake ends by itself.

What counts as work depends on what is recorded. With turns (level `full`) it is a request: W is the time until its
answer begins (`pt_gen`). Otherwise it is a flow and W its completion time (`fct`). Both are averaged over the same
recent past.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import DECAY_PER_SECOND, FloatArray, Observation
from penstock_agent.policies.base import Decision, Policy, neutral_where_unknown
from penstock_agent.policies.inverse_duration import mean_duration
from penstock_agent.policies.progress import Throughput
from penstock_agent.policies.requests import Watch, watch

SHORTEST_SECONDS = 2.0
"""Least time over which a throughput is taken: in the first steps too few requests end to compare backends by."""


@dataclass(frozen=True, slots=True)
class LittleState:
    """What is kept between decisions."""

    watch: Watch
    throughput: Throughput


def decide(observation: Observation, state: LittleState | None) -> tuple[Decision, LittleState]:
    """Weigh each eligible backend by its service rate."""
    work, seen = watch(observation, state.watch if state else None)
    throughput = Throughput.of(state.throughput if state else None, work, work.ended, DECAY_PER_SECOND)
    rate = _per_second(throughput) + 1.0 / mean_duration(observation)
    return Decision(neutral_where_unknown(rate, observation.eligible)), LittleState(seen, throughput)


def _per_second(throughput: Throughput) -> FloatArray:
    rate: FloatArray = throughput.events / np.maximum(throughput.seconds, SHORTEST_SECONDS)
    return rate


POLICY = Policy("little", SchedulerType.SED, ("fct",), decide, better_channels=("pt_gen",))
