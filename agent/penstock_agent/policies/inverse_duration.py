"""Inverse mean flow completion time, one of the data-driven heuristics of Z. Yao, Y. Desmouceaux, J.-A. Cordero-
Fuertes, M. Townsley, T. Clausen, "Aquarius: Enable Fast, Scalable, Data-Driven Service Management in the Cloud",
IEEE Transactions on Network and Service Management 19(4), 2022.

A backend that finishes flows in half the time gets twice the weight. It reads `fct` and not `flow_duration`: the
latter is sampled on every packet, so long flows count many times. Where turns are recorded (level `full`) it reads
those, `pt_gen`: the completion time of a connection that is kept and idle says nothing about its server.
"""

from __future__ import annotations

import numpy as np
from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import AVG_DECAY, FloatArray, Observation
from penstock_agent.policies.base import Decision, Policy, State, neutral_where_unknown

# Completion times below the resolution of the clock would give absurd weights.
SHORTEST_SECONDS = 1e-6


def decide(observation: Observation, state: State) -> tuple[Decision, State]:
    """Weigh each eligible backend by 1 / its recent mean turn or completion time."""
    return Decision(neutral_where_unknown(1.0 / mean_duration(observation), observation.eligible)), state


def mean_duration(observation: Observation) -> FloatArray:
    """Return the recent mean turn or completion time by slot, in seconds; NaN where there was none."""
    channel = "pt_gen" if "pt_gen" in observation.channels else "fct"
    duration: FloatArray = np.maximum(observation.channels[channel][..., AVG_DECAY], SHORTEST_SECONDS)
    return duration


POLICY = Policy("inverse-duration", SchedulerType.SED, ("fct",), decide, better_channels=("pt_gen",))
