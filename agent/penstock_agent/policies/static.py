"""Configured weights: WCMP (J. Zhou et al., "WCMP: Weighted Cost Multipathing for Improved Fairness in Data
Centers", EuroSys 2014).
"""

from __future__ import annotations

from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import FloatArray, Observation
from penstock_agent.policies.base import Policy, State


def decide(observation: Observation, state: State) -> tuple[FloatArray, State]:
    """Give every eligible backend the weight its user configured."""
    return observation.configured * observation.eligible, state


POLICY = Policy("static", SchedulerType.MAGLEV, (), decide)
