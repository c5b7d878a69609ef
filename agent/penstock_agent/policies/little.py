"""Service rates by Little's law: J. D. C. Little, "A Proof for the Queuing Formula: L = lambda W", Operations
Research 9(3), 1961.

Work that finds L others at its backend and stays for W seconds was served at a rate of about (L + 1) / W per
second, itself included. Unlike 1 / W this does not punish a backend for being loaded, so weights settle at
what servers can do rather than swing with what they were sent. Both are taken over the same recent past: L is
averaged with weights that decay as the channel's samples do.

What counts as work depends on what is recorded. With turns (level `full`) it is a request: W is the time until its
answer begins (`pt_gen`) and L the mean number of flows that wait for one (`n_active`). Otherwise it is a flow: W is
its completion time (`fct`) and L the mean number of open flows at assignment (`l_assign` / `n_flow`), which is what
arriving flows see. Connections that are kept and idle make the second meaningless: they are open but no work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import DECAY_PER_SECOND, BoolArray, FloatArray, Generations, Observation
from penstock_agent.policies.base import Decision, Policy, neutral_where_unknown
from penstock_agent.policies.inverse_duration import mean_duration


@dataclass(frozen=True, slots=True)
class LittleState:
    """Counters at the last decision and the decayed sums of what was found since."""

    time: float
    turns: bool  # whether work is a request, else it is a flow
    generation: Generations
    l_assign: NDArray[np.int64]
    n_flow: NDArray[np.int64]
    found: FloatArray  # decayed sum of others at the backend, over arrivals or over frames
    weight: FloatArray  # decayed count of these arrivals or frames


def decide(observation: Observation, state: LittleState | None) -> tuple[Decision, LittleState]:
    """Weigh each eligible backend by its service rate."""
    rate, state = service_rate(observation, state)
    return Decision(neutral_where_unknown(rate, observation.eligible)), state


def service_rate(observation: Observation, state: LittleState | None) -> tuple[FloatArray, LittleState]:
    """Return (mean work found at each backend + 1) / mean time that work takes, per second; NaN where unknown."""
    turns = "pt_gen" in observation.channels
    state = _advance(observation, state, turns=turns)
    found = state.found / np.maximum(state.weight, 1e-9)
    return np.where(state.weight > 0, (found + 1.0) / mean_duration(observation), np.nan), state


def _advance(observation: Observation, state: LittleState | None, *, turns: bool) -> LittleState:
    l_assign, n_flow = observation.counters["l_assign"], observation.counters["n_flow"]
    known = state is not None and state.turns == turns and state.n_flow.shape == n_flow.shape
    if state is None or not known:
        nothing = np.zeros(n_flow.shape)
        zeros = np.zeros_like(n_flow)
        state = LittleState(observation.time, turns, observation.generation, zeros, zeros, nothing, nothing)
    # A slot with another backend, or counters that fell with a restarted data plane, start from nothing.
    same = (observation.generation == state.generation) & (n_flow >= state.n_flow) & (l_assign >= state.l_assign)
    found, weight = _found(observation, state, same, turns=turns)
    decay = np.where(same, DECAY_PER_SECOND ** max(observation.time - state.time, 0.0), 0.0)
    return LittleState(
        observation.time,
        turns,
        observation.generation,
        l_assign,
        n_flow,
        found=state.found * decay + found,
        weight=state.weight * decay + weight,
    )


def _found(
    observation: Observation, state: LittleState, same: BoolArray, *, turns: bool
) -> tuple[FloatArray, FloatArray]:
    """Return the others that were found since the last decision, summed, and how many times was looked."""
    if turns:
        waiting = np.maximum(observation.counters["n_active"], 0)
        return waiting.astype(float), np.ones(waiting.shape)
    l_assign, n_flow = observation.counters["l_assign"], observation.counters["n_flow"]
    return np.where(same, l_assign - state.l_assign, l_assign), np.where(same, n_flow - state.n_flow, n_flow)


POLICY = Policy("little", SchedulerType.SED, ("fct",), decide, better_channels=("pt_gen",))
