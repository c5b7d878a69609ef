"""Requests: how many each backend has in progress, and how many ended since the last decision.

Computation only. In progress are flows that wait for an answer (`n_active`, TCP at level `full`); where that is not
recorded or never counts, as with UDP, open flows. Their mean since the last decision is exact where the data plane
counts flow microseconds (`active_us`, `open_us`).

Requests that ended are answers (`n_turn`, level `full`). At level `basic` they are packets of answers (`n_answer`)
times the completed flows per such packet, of all backends together: of connections with many requests a part only, the
same at every backend. Where answers take another way, they are completed flows (`n_fct`), likewise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_agent.observation import BoolArray, FloatArray, Observation
from penstock_agent.policies.progress import Mark, Step, advance, resized

LARGEST_LOAD = 1e5
"""Requests at a backend, as far as they are told apart."""

MEMORY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Work:
    """What happened at each slot since the last decision."""

    seconds: float
    same: BoolArray  # slots whose backend goes on and whose requests are counted as before
    load: FloatArray  # requests in progress now
    between: FloatArray  # in progress on average since; 0 where not the same
    ended: FloatArray  # requests


@dataclass(frozen=True, slots=True)
class Sums:
    """Decayed sums over the backends of a VIP, [..., 1]."""

    flows: FloatArray  # completed
    packets: FloatArray  # of answers


@dataclass(frozen=True, slots=True)
class Watch:
    """What is kept between decisions."""

    mark: Mark
    observed: bool  # whether requests are observed within flows
    active: BoolArray  # [..., 1]: VIPs of which any request was ever seen in progress
    load: FloatArray
    sums: Sums | None


def watch(observation: Observation, before: Watch | None) -> tuple[Work, Watch]:
    """Compare an observation with the last one."""
    if before is not None and before.observed != _are_observed(observation):
        before = None
    step, mark = advance(observation, before.mark if before else None, _totals(observation))
    active, same = _active(observation), step.same
    if before is not None and before.active.shape == active.shape:
        same = same & (before.active | ~active)
        active = active | before.active
    load = _load(observation, active)
    between = load if before is None else _between(step, active, resized(before.load, load.shape), load)
    between = between if before is None else np.where(same, between, 0.0)
    ended, sums = _ended(step, before.sums if before else None)
    work = Work(step.seconds, same, load, between, np.where(same, ended, 0.0))
    return work, Watch(mark, _are_observed(observation), active, load, sums)


def _are_observed(observation: Observation) -> bool:
    return "n_active" in observation.counters


def _active(observation: Observation) -> BoolArray:
    if not _are_observed(observation):
        return np.zeros((*observation.generation.shape[:-1], 1), dtype=np.bool_)
    return np.asarray(np.logical_or.reduce(observation.counters["n_active"] > 0, axis=-1, keepdims=True))


def _load(observation: Observation, active: BoolArray) -> FloatArray:
    flows = observation.counters["n_flow_on"]
    if _are_observed(observation):
        flows = np.where(active, observation.counters["n_active"], flows)
    return np.minimum(np.maximum(flows, 0), LARGEST_LOAD).astype(float)


def _totals(observation: Observation) -> dict[str, NDArray[np.int64]]:
    names = ("n_flow", "n_fct", "n_answer", "n_turn", "open_us", "active_us")
    return {name: observation.counters[name] for name in names if name in observation.counters}


def _between(step: Step, active: BoolArray, before: FloatArray, now: FloatArray) -> FloatArray:
    """Return the mean load of the step."""
    mean = (before + now) / 2.0
    if step.seconds <= 0 or "open_us" not in step.added:
        return mean
    flow_us = step.added["open_us"]
    if "active_us" in step.added:
        flow_us = np.where(active, step.added["active_us"], flow_us)
    return np.minimum(flow_us / (1e6 * step.seconds), LARGEST_LOAD)


def _ended(step: Step, before: Sums | None) -> tuple[FloatArray, Sums]:
    flows = step.added["n_fct"]
    packets = step.added.get("n_answer", np.zeros(flows.shape))
    sums = _sums(step, (flows, packets), before)
    answers = step.added.get("n_turn")
    if answers is None:
        answers = packets * np.minimum(sums.flows / np.maximum(sums.packets, 1.0), 1.0)
    return np.where(sums.packets > 0, answers, flows), sums


def _sums(step: Step, added: tuple[FloatArray, FloatArray], before: Sums | None) -> Sums:
    left = np.exp(-step.seconds / MEMORY_SECONDS)
    flows, packets = (np.add.reduce(values, axis=-1, keepdims=True) for values in added)
    if before is None or before.flows.shape != flows.shape:
        return Sums(flows, packets)
    return Sums(before.flows * left + flows, before.packets * left + packets)


@dataclass(frozen=True, slots=True)
class Pace:
    """Requests that ended and request-seconds of each slot, averaged with weights that decay with age.

    Their ratio falls as soon as requests pile up; 1 / mean duration falls when they have ended.
    """

    ended: FloatArray
    spent: FloatArray

    @classmethod
    def of(cls, before: Pace | None, work: Work, decay_per_second: float) -> Pace:
        """Add a step; slots with another backend begin anew."""
        shape = work.same.shape
        left = np.where(work.same, decay_per_second**work.seconds, 0.0)
        nothing = np.zeros(shape)
        ended, spent = (nothing, nothing) if before is None else (before.ended, before.spent)
        added = np.where(work.same, work.between * work.seconds, 0.0)
        return cls(resized(ended, shape) * left + work.ended, resized(spent, shape) * left + added)

    def per_request(self, eligible: BoolArray, evidence: float) -> FloatArray:
        """Return the rate at which each request in progress ends; NaN while nothing is known of any backend.

        `evidence`: requests as if they had ended at the rate of all backends together. It stands for a backend that
        is new or had no request for long.
        """
        ended, spent = (np.where(eligible, values, 0.0) for values in (self.ended, self.spent))
        all_ended = np.add.reduce(ended, axis=-1, keepdims=True)
        all_spent = np.add.reduce(spent, axis=-1, keepdims=True)
        known = (all_ended > 0) & (all_spent > 0)
        common = np.where(known, all_ended, 1.0) / np.where(known, all_spent, 1.0)
        return np.where(known, (ended + evidence) / (spent + evidence / common), np.nan)
