"""Local shortest queue: S. Vargaftik, I. Keslassy, A. Orda, "LSQ: Load Balancing in Large-Scale Heterogeneous
Systems With Multiple Dispatchers", IEEE/ACM Transactions on Networking 28(3), 2020.

The work is the scheduler's: each dispatcher sends a flow where its own count of open flows is lowest. Weights say
only who takes part.
"""

from __future__ import annotations

from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import Observation
from penstock_agent.policies.base import Decision, Policy, State


def decide(observation: Observation, state: State) -> tuple[Decision, State]:
    """Let every eligible backend take part."""
    return Decision(observation.eligible.astype(float)), state


POLICY = Policy("lsq", SchedulerType.LSQ, (), decide)
