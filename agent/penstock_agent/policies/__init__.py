"""Policies: observation to decision, one file per heuristic with the paper it comes from.

Computation only: no clock, no I/O, no randomness. A policy returns any non-negative weights over slots, and
perhaps a base of each; scale, bounds and pace are the guardrails' business.
"""

from __future__ import annotations

from penstock_agent.policies import (
    awcmp,
    bayes,
    equal,
    inverse_duration,
    knapsack,
    little,
    lsq,
    prequal,
    sed,
    static,
)
from penstock_agent.policies.base import Decision, Policy, UnknownPolicyError

__all__ = ["EVALUATED", "POLICIES", "Decision", "Policy", "UnknownPolicyError", "by_name"]

POLICIES = {
    policy.name: policy
    for policy in (
        equal.POLICY,
        static.POLICY,
        lsq.POLICY,
        sed.POLICY,
        inverse_duration.POLICY,
        little.POLICY,
        bayes.POLICY,
    )
}
"""Those that an RLPolicy may name."""

EVALUATED = POLICIES | {policy.name: policy for policy in (awcmp.POLICY, knapsack.POLICY, prequal.POLICY)}
"""These and the ones that are only compared with."""


def by_name(name: str) -> Policy:
    """Look a policy up; UnknownPolicyError lists those there are."""
    try:
        return POLICIES[name]
    except KeyError:
        raise UnknownPolicyError(
            f"heuristic: {name!r} is not known; use one of {', '.join(sorted(POLICIES))}"
        ) from None
