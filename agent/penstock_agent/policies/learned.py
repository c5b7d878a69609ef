"""Learned policies: a model's network corrects the decision of another policy, its anchor.

    log weight = anchor's + residual,    log base = anchor's + residual

where weights are relative to their geometric mean, and a base that the anchor leaves to the data plane is the common
one, 1 / balancers. A residual on a strong policy is easier to learn than a policy (T. Johannink et al., "Residual
Reinforcement Learning for Robot Control", ICRA 2019), and a model that learned nothing decides as its anchor does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from penstock_agent import features, guardrails
from penstock_agent.models import Metadata, Model, ModelError
from penstock_agent.models.network import Float32Array, Network
from penstock_agent.observation import BoolArray, FloatArray, Observation
from penstock_agent.policies.base import Decision, Policy, State
from penstock_agent.policies.progress import resized


@dataclass(frozen=True, slots=True)
class LearnedState:
    """What is kept between decisions."""

    memory: features.Memory
    hidden: Float32Array | None  # [..., slots, width]
    anchor: State


def policy(model: Model, anchors: Mapping[str, Policy]) -> Policy:
    """Return the policy of a model. ModelError: its anchor is not among these."""
    anchor = anchor_of(model.metadata, anchors)
    learned = Learned(model, anchor)
    wanted = features.channels_of(model.metadata.features)
    basic = dict.fromkeys((*anchor.channels, *[each for each in wanted if each in BASIC_CHANNELS]))
    return Policy(
        model.card.name,
        model.metadata.scheduler,
        tuple(basic) or BASIC_CHANNELS[:1],  # one without channels would repeat the configuration
        learned.decide,
        better_channels=tuple(dict.fromkeys((*basic, *anchor.better_channels, *wanted))),
        decides_without=anchor.decides_without or not anchor.channels,
    )


BASIC_CHANNELS = ("fct", "flow_duration")
"""Channels that level `basic` records."""


def anchor_of(metadata: Metadata, anchors: Mapping[str, Policy]) -> Policy:
    """Return the policy that a model corrects."""
    if metadata.anchor not in anchors:
        known = ", ".join(sorted(anchors))
        raise ModelError(f"model.json: anchor {metadata.anchor!r} is no policy of this agent; known: {known}")
    return anchors[metadata.anchor]


class Learned:
    """Evaluates one model; holds nothing between decisions."""

    def __init__(self, model: Model, anchor: Policy) -> None:
        self._metadata = model.metadata
        self._network = Network(model.metadata, model.arrays)
        self._anchor = anchor

    def decide(self, seen: Observation, state: LearnedState | None) -> tuple[Decision, LearnedState]:
        """Correct the anchor's decision."""
        wanted, anchor_state = self._anchor.decide(seen, state.anchor if state else None)
        anchor = features.logs(wanted, seen)
        known = state.memory if state else None
        values, memory = features.extract(seen, known, self._metadata.features, anchor, anchor_state)
        hidden = state.hidden if state else None
        if hidden is not None:
            hidden = _kept(hidden, memory.renewed)
        output = self._network(values, seen.eligible, hidden)
        use_base = self._metadata.use_base
        decision = compose(anchor, output.residual, seen.eligible, use_base=use_base, shared=wanted.shared)
        return decision, LearnedState(memory, output.hidden, anchor_state)


def compose(
    anchor: FloatArray, residual: Float32Array, eligible: BoolArray, *, use_base: bool, shared: bool = False
) -> Decision:
    """Return the decision of an anchor (`features.logs`) with a residual added; both [..., slots, 2].

    `shared`: the anchor's bases are on the flows of all balancers.
    """
    # A sum that is no number becomes one that the guardrails count as invalid; they bound the others.
    logs = np.minimum(np.maximum(anchor + residual, -guardrails.LARGEST_LOG), guardrails.LARGEST_LOG)
    values = np.exp(logs)
    weights = np.where(eligible, values[..., 0], 0.0)
    return Decision(weights, np.asarray(values[..., 1]), shared) if use_base else Decision(weights)


def _kept(hidden: Float32Array, renewed: BoolArray) -> Float32Array | None:
    """Return the hidden states of the slots there are now; 0 where the backend is another."""
    if hidden.shape[:-2] != renewed.shape[:-1]:
        return None
    fitted = resized(hidden, (*renewed.shape, hidden.shape[-1]), -2)
    # After an overflow a slot starts afresh: it would never recover.
    afresh = renewed[..., None] | ~np.isfinite(fitted)
    return np.where(afresh, np.float32(0), fitted) if afresh.any() else fitted
