"""One step of a policy: observation to decision to guardrail, for the loop and for the simulator alike.

Computation only. Arrays may be stacked: [..., slots].
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penstock_agent import guardrails
from penstock_agent.guardrails import Guarded, Guardrails
from penstock_agent.observation import Balancers, BoolArray, FloatArray, Observation, Slots, unmeasured
from penstock_agent.policies import Decision, Policy
from penstock_agent.policies.base import State


def decide(
    policy: Policy, seen: Observation, state: State, previous: Decision, bounds: Guardrails
) -> tuple[Guarded, State]:
    """Run a policy on measurements and guard its decision; `previous` is that of the step before."""
    wanted, state = policy.decide(after(seen, previous), state)
    return guarded(wanted, seen, previous, bounds), state


def guarded(wanted: Decision, seen: Observation, previous: Decision, bounds: Guardrails) -> Guarded:
    """Guard a decision on measurements."""
    return guardrails.guard(
        wanted,
        previous,
        eligible=seen.eligible,
        bounds=bounds,
        balancers=seen.balancers,
        open_flows=seen.counters.get("n_flow_on"),
    )


def after(seen: Observation, previous: Decision) -> Observation:
    """Return the observation with what passed the guardrails in the step before."""
    return replace(seen, weights=previous.weights, base=previous.base)


def from_configuration(policy: Policy, slots: Slots, balancers: Balancers) -> Guarded:
    """Run a policy without measurements: its weights repeat the configuration and pass as they are."""
    decision, _ = policy.decide(unmeasured(slots, balancers), None)
    return guardrails.configured(decision.weights, eligible=slots.eligible)


def initial(in_force: FloatArray, eligible: BoolArray, base: FloatArray | None = None) -> Decision:
    """Return what stands for the step before the first: weights and bases that the data plane has in force."""
    return Decision(guardrails.normalise(in_force, eligible & (in_force > 0)), base)


def renewed(previous: Decision, changed: BoolArray) -> Decision:
    """Return the decision with weight 1 and the common base where slots have another backend."""
    base = None if previous.base is None else np.where(changed, 0.0, previous.base)
    return Decision(np.where(changed, 1.0, previous.weights), base, previous.shared)
