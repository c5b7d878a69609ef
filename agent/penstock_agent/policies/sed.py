"""Shortest expected delay: S. Shenker, A. Weinrib, "The Optimal Control of Heterogeneous Queueing Systems: A
Paradigm for Load-Sharing and Routing", IEEE Transactions on Computers 38(12), 1989.

The scheduler minimises (open flows + base) / weight; the weights are the configured ones, taken as service rates.
"""

from __future__ import annotations

from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import Observation
from penstock_agent.policies.base import Decision, Policy, State


def decide(observation: Observation, state: State) -> tuple[Decision, State]:
    """Take configured weights as service rates."""
    return Decision(observation.configured * observation.eligible), state


POLICY = Policy("sed", SchedulerType.SED, (), decide)
