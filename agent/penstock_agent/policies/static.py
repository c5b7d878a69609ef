"""Configured weights: WCMP (J. Zhou et al., "WCMP: Weighted Cost Multipathing for Improved Fairness in Data
Centers", EuroSys 2014).
"""

from __future__ import annotations

from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import Observation
from penstock_agent.policies.base import Decision, Policy, State


def decide(observation: Observation, state: State) -> tuple[Decision, State]:
    """Give every eligible backend the weight its user configured."""
    return Decision(observation.configured * observation.eligible), state


POLICY = Policy("static", SchedulerType.MAGLEV, (), decide)
