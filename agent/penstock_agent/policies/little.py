"""Service rates by Little's law: J. D. C. Little, "A Proof for the Queuing Formula: L = lambda W", Operations
Research 9(3), 1961.

A flow that finds L others at its backend and stays for W seconds was served at a rate of about (L + 1) / W flows
per second, itself included. Unlike 1 / W this does not punish a backend for being loaded, so weights settle at
what servers can do rather than swing with what they were sent. L is the mean over assignments (`l_assign` /
`n_flow`), which is what arriving flows see; it is taken over the same recent past as W by letting both sums decay
as the channel's samples do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import AVG_DECAY, DECAY_PER_SECOND, FloatArray, Generations, Observation
from penstock_agent.policies.base import Policy, neutral_where_unknown

SHORTEST_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class LittleState:
    """Counters at the last decision and the decayed sums of what they gained since."""

    time: float
    generation: Generations
    l_assign: NDArray[np.int64]
    n_flow: NDArray[np.int64]
    found: FloatArray  # open flows found by arrivals, decayed sum
    arrivals: FloatArray  # decayed count


def decide(observation: Observation, state: LittleState | None) -> tuple[FloatArray, LittleState]:
    """Weigh each eligible backend by (mean flows found at assignment + 1) / mean completion time."""
    state = _advance(observation, state)
    found = state.found / np.maximum(state.arrivals, 1e-9)
    duration = np.maximum(observation.channels["fct"][..., AVG_DECAY], SHORTEST_SECONDS)
    rate = np.where(state.arrivals > 0, (found + 1.0) / duration, np.nan)
    return neutral_where_unknown(rate, observation.eligible), state


def _advance(observation: Observation, state: LittleState | None) -> LittleState:
    l_assign, n_flow = observation.counters["l_assign"], observation.counters["n_flow"]
    if state is None or state.n_flow.shape != n_flow.shape:
        return LittleState(
            observation.time,
            observation.generation,
            l_assign,
            n_flow,
            found=l_assign.astype(float),
            arrivals=n_flow.astype(float),
        )
    # A slot with another backend, or counters that fell with a restarted data plane, start from nothing.
    same = (observation.generation == state.generation) & (n_flow >= state.n_flow) & (l_assign >= state.l_assign)
    decay = DECAY_PER_SECOND ** max(observation.time - state.time, 0.0)
    return LittleState(
        observation.time,
        observation.generation,
        l_assign,
        n_flow,
        found=np.where(same, state.found * decay + (l_assign - state.l_assign), l_assign),
        arrivals=np.where(same, state.arrivals * decay + (n_flow - state.n_flow), n_flow),
    )


POLICY = Policy("little", SchedulerType.SED, ("fct",), decide)
