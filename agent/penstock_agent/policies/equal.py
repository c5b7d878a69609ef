"""Equal shares: ECMP (C. Hopps, "Analysis of an Equal-Cost Multi-Path Algorithm", RFC 2992, 2000)."""

from __future__ import annotations

from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import Observation
from penstock_agent.policies.base import Decision, Policy, State


def decide(observation: Observation, state: State) -> tuple[Decision, State]:
    """Give every eligible backend the same weight, whatever was configured."""
    return Decision(observation.eligible.astype(float)), state


POLICY = Policy("equal", SchedulerType.MAGLEV, (), decide)
