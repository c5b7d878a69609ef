"""Local shortest queue: S. Vargaftik, I. Keslassy, A. Orda, "LSQ: Load Balancing in Large-Scale Heterogeneous
Systems With Multiple Dispatchers", IEEE/ACM Transactions on Networking 28(3), 2020.

The work is the scheduler's: each dispatcher sends a flow where its own count of open flows is lowest. Weights say
only who takes part.
"""

from __future__ import annotations

from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import FloatArray, Observation
from penstock_agent.policies.base import Policy, State


def decide(observation: Observation, state: State) -> tuple[FloatArray, State]:
    """Let every eligible backend take part."""
    return observation.eligible.astype(float), state


POLICY = Policy("lsq", SchedulerType.LSQ, (), decide)
