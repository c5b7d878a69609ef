"""What a model sees of a VIP: named features per slot, the same live, in the simulator and in training.

Computation only. Features have no unit that would tie a model to one site: counts are logarithms, durations and rates
are relative to the VIP's mean. They are equivariant: permuted slots give permuted features. A feature that is not
measured (level of features, forwarding, protocol, no sample yet) is NaN; a network reads 0 and a flag per group.

A name is "group/feature"; the features of a group are measured together. `VERSION` counts up when a name gets another
meaning: files of models carry it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_agent.observation import AVG, REDUCTIONS, BoolArray, FloatArray, Observation
from penstock_agent.policies.base import Decision
from penstock_agent.policies.progress import Mark, Step, advance, resized

VERSION = 1

FAST_SECONDS, SLOW_SECONDS = 2.0, 30.0
"""Time constants of the two decayed sums of everything that is counted."""

OLDEST_SECONDS = 600.0
LARGEST = 20.0
"""Bound of every feature; all but broken measurements are far below."""

TOTALS = ("n_flow", "n_fct", "l_assign", "n_packet", "n_answer", "n_cls", "n_rtr", "n_ooo", "n_dpk", "n_turn")
_TOTAL = {name: row for row, name in enumerate(TOTALS)}
GAUGES = ("n_flow_on", "n_active")
_AMOUNTS = (*TOTALS, "open_seconds", "active_seconds", "seconds")
"""Rows of the decayed sums: what was added to the totals, flow-seconds, seconds."""
OPEN_SECONDS, ACTIVE_SECONDS, SECONDS = range(len(TOTALS), len(_AMOUNTS))

SIGNED_CHANNELS = ("d_win",)
CHANNELS = (
    *("flow_duration", "fct", "byte_p", "byte_f_on", "iat_p", "iat_ppf", "win", "d_win", "pt_gen", "byte_f"),
    *("iat_f", "lat_synack", "pt_1st"),
)

SMALLEST_SHARE = 1e-3
"""Of the VIP's mean; a standard deviation may be 0."""

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Memory:
    """What the next step compares with."""

    mark: Mark
    renewed: BoolArray  # slots with another backend than in the step before; all of them at first
    flows: FloatArray  # [2, ..., slots]: open and active
    sums: FloatArray  # [2, amounts, ..., slots]: decayed over FAST_SECONDS and SLOW_SECONDS
    seconds: FloatArray  # since the slot's backend was first seen
    active: BoolArray  # [..., 1]: whether a flow ever counted as active


class UnknownFeatureError(ValueError):
    """A name that is no feature."""


_LOGARITHMS = (
    *("counts/open", "active/active", "counts/open_mean", "active/active_mean", "counts/found", "counts/untracked"),
    *("endings/evidence", "turns/evidence", "losses/n_rtr", "losses/n_ooo", "losses/n_dpk", "slot/age"),
)
"""log(1 + x). Means are over FAST_SECONDS; `found`: open flows that a new one found; losses: per hundred packets."""

_RELATIVE = (
    *("counts/open_relative", "active/active_relative", "counts/arrivals_fast", "counts/arrivals_slow"),
    "answers/relative",
)
"""log of x + 1 over the VIP's mean + 1."""

_PACES = ("endings/fast", "endings/slow", "active/fast", "active/slow", "turns/fast", "turns/slow")
"""log of what ended + 1 over what ended of as many flow-seconds at the VIP's mean rate + 1: flows by open and active
ones, answered requests by active ones."""

_BALANCES = ("endings/balance", "answers/per_packet")
"""log of a + 1 over b + 1: completed flows by new ones, packets of servers by packets of clients."""

_WEIGHTS = ("configuration/weight", "action/log_weight", "anchor/log_weight")
"""log of a weight, with mean 0 over eligible backends: configured, passed by the guardrails in the step before, decided
now by the policy that a model corrects."""

_BASES = ("action/log_base", "anchor/log_base")
"""log of a base over the data plane's own, 1 / balancers."""

_PEERS = ("peers/flows", "peers/total", "peers/total_relative")
"""log(1 + flows) of the other balancers and of all, and the latter relative to the VIP's mean; with a shared view."""

_FILTER = (
    *("filter/log_speed", "filter/speed_deviation", "filter/log_cores", "filter/cores_deviation"),
    *("filter/recent", "filter/expected"),
)
"""Estimates of the policy `bayes`, where a model corrects that."""

_CONTEXT = (
    *("context/backends", "context/balancers", "context/open", "context/active", "context/interval"),
    "context/arrivals",
)
"""The same at each slot: logs of counts, of means over eligible backends + 1, and of the interval over 0.2 s."""

_ROWS = (*_LOGARITHMS, *_RELATIVE, *_PACES, *_BALANCES, *_WEIGHTS, *_BASES, *_PEERS, *_FILTER, *_CONTEXT)
_AT = {name: row for row, name in enumerate(_ROWS)}


_PLACE = {
    names: slice(_AT[names[0]], _AT[names[-1]] + 1)
    for names in (_LOGARITHMS, _RELATIVE, _PACES, _BALANCES, _PEERS, _FILTER)
}


def _group_rows(group: str) -> list[int]:
    return [row for name, row in _AT.items() if name.partition("/")[0] == group]


def known() -> tuple[str, ...]:
    """Name all features: those of counters and decisions, then five for each channel."""
    return (*_ROWS, *(f"{channel}/{reduction}" for channel in CHANNELS for reduction in REDUCTIONS))


DEFAULT = (
    *_ROWS,
    *(f"{channel}/{name}" for channel in ("fct", "pt_gen") for name in ("avg_decay", "p90_decay", "std")),
    *("flow_duration/avg_decay", "lat_synack/avg_decay", "pt_1st/avg_decay", "iat_ppf/avg_decay"),
)
"""A choice for training: all that counters give, and durations."""


def channels_of(names: Sequence[str]) -> tuple[str, ...]:
    """Name the reservoirs that these features read, each once."""
    groups = {name.partition("/")[0] for name in names}
    return tuple(channel for channel in CHANNELS if channel in groups)


def extract(
    seen: Observation,
    memory: Memory | None,
    names: tuple[str, ...],
    anchor: FloatArray | None = None,
    anchor_state: Any = None,
) -> tuple[Float32Array, Memory]:
    """Return the named features [..., slots, features], NaN where not measured, and the memory for the next step.

    `anchor` is the decision of the policy that a model corrects, as `logs` returns it, with that policy's state.
    UnknownFeatureError names a feature that there is not.
    """
    rows, channels = _selection(names)
    step, memory = _advanced(seen, memory)
    values = np.full((len(_ROWS) + len(REDUCTIONS) * len(channels), *seen.eligible.shape), np.nan)
    pool = _Pool(seen)
    if "n_flow" in seen.counters:
        _measured(values, seen, memory, pool)
    if seen.peers is not None:
        _shared(values, seen, seen.peers, memory, pool)
    _decided(values, seen, anchor)
    _filtered(values, anchor_state)
    _pooled(values, seen, memory, step, pool)
    if channels:
        values[len(_ROWS) :] = _reduced(seen, channels, pool)
    # Comparisons with NaN are false: it stays.
    bounded = np.minimum(np.maximum(values[rows], -LARGEST), LARGEST)
    return np.moveaxis(bounded, 0, -1).astype(np.float32), memory


@lru_cache(maxsize=64)
def _selection(names: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    """Return the rows of these features, and the channels whose rows follow those of counters."""
    channels = tuple(channel for channel in CHANNELS if any(name.startswith(channel + "/") for name in names))
    at = _AT | {
        f"{channel}/{reduction}": len(_ROWS) + len(REDUCTIONS) * index + place
        for index, channel in enumerate(channels)
        for place, reduction in enumerate(REDUCTIONS)
    }
    for name in names:
        if name not in at:
            raise UnknownFeatureError(f"features: {name!r} is not known; use some of {', '.join(known())}")
    return [at[name] for name in names], channels


class _Pool:
    """Means over eligible backends."""

    def __init__(self, seen: Observation) -> None:
        self.eligible = seen.eligible
        self.count = np.maximum(np.add.reduce(seen.eligible, axis=-1, keepdims=True), 1).astype(float)
        self._share = seen.eligible / self.count

    def mean(self, values: FloatArray) -> FloatArray:
        """Return the mean [..., 1] of finite values."""
        return np.asarray(np.add.reduce(values * self._share, axis=-1, keepdims=True))


# ---- Memory ----


def _advanced(seen: Observation, memory: Memory | None) -> tuple[Step, Memory]:
    totals = {name: seen.counters[name] for name in TOTALS if name in seen.counters}
    step, mark = advance(seen, memory.mark if memory else None, totals)
    flows = _flows(seen)
    memory = _fitted(memory, flows.shape)
    any_active = np.logical_or.reduce(flows[1] > 0, axis=-1, keepdims=True)
    if memory is None:
        nothing = np.zeros(flows.shape[1:])
        sums = np.zeros((2, len(_AMOUNTS), *nothing.shape))
        return step, Memory(mark, np.ones(nothing.shape, dtype=np.bool_), flows, sums, nothing, any_active)
    amounts = np.zeros((len(_AMOUNTS), *flows.shape[1:]))
    for name, added in step.added.items():
        amounts[_TOTAL[name]] = added
    amounts[OPEN_SECONDS : ACTIVE_SECONDS + 1] = (flows + memory.flows) * (0.5 * step.seconds)
    amounts[SECONDS] = step.seconds
    paces = (math.exp(-step.seconds / FAST_SECONDS), math.exp(-step.seconds / SLOW_SECONDS))
    sums = memory.sums * np.array(paces).reshape(2, *[1] * amounts.ndim) + amounts
    sums = np.where(step.same, sums, 0.0)
    age = np.where(step.same, memory.seconds + step.seconds, 0.0)
    return step, Memory(mark, ~step.same, flows, sums, age, memory.active | any_active)


def _flows(seen: Observation) -> FloatArray:
    """Return open and active flows [2, ..., slots]; 0 where they are not counted."""
    nothing = np.zeros(seen.eligible.shape)
    flows: FloatArray = np.maximum(np.array([seen.counters.get(name, nothing) for name in GAUGES]), 0.0)
    return flows


def _fitted(memory: Memory | None, shape: tuple[int, ...]) -> Memory | None:
    """Return the memory with as many slots as there are now: a table grows; None where it is of other rows."""
    if memory is None or memory.flows.shape == shape:
        return memory
    if memory.flows.shape[:-1] != shape[:-1]:
        return None
    return Memory(
        memory.mark,
        resized(memory.renewed, shape[1:]),
        resized(memory.flows, shape),
        resized(memory.sums, (2, len(_AMOUNTS), *shape[1:])),
        resized(memory.seconds, shape[1:]),
        memory.active,
    )


# ---- Values ----


def _measured(values: FloatArray, seen: Observation, memory: Memory, pool: _Pool) -> None:
    """Fill in what counters give: each is log of a quantity + 1 over another + 1."""
    quantities = _quantities(memory)
    over = np.zeros((len(_NUMERATORS), *seen.eligible.shape))
    over[_PLACE[_RELATIVE]] = pool.mean(quantities[_NUMERATORS[_PLACE[_RELATIVE]]])
    over[_PLACE[_PACES]] = _expected(quantities, pool)
    over[_PLACE[_BALANCES]] = quantities[_BALANCED]
    values[: len(over)] = np.log((quantities[_NUMERATORS] + 1.0) / (over + 1.0))
    _hide(values, seen, memory, quantities)


def _quantities(memory: Memory) -> FloatArray:
    """Return what features are computed from, in the order of _QUANTITIES."""
    fast = memory.sums[0]
    seconds, packets = fast[SECONDS], fast[_PACKETS] + 1.0
    known = seconds > 0
    mean = np.where(known, fast[OPEN_SECONDS : ACTIVE_SECONDS + 1] / np.where(known, seconds, 1.0), memory.flows)
    found = fast[_FOUND] / np.maximum(fast[_NEW], 1e-3)
    age = np.minimum(memory.seconds, OLDEST_SECONDS)
    sums = memory.sums.reshape(-1, *age.shape)
    return np.concatenate((memory.flows, mean, sums, 100.0 * fast[_LOSSES] / packets, found[None], age[None]))


def _expected(quantities: FloatArray, pool: _Pool) -> FloatArray:
    """Return how much should have ended in these flow-seconds, at the VIP's mean rate per flow."""
    ended, flow_seconds = quantities[_NUMERATORS[_PLACE[_PACES]]], quantities[_FLOW_SECONDS]
    mean = pool.mean(flow_seconds)
    return np.asarray(np.where(mean > 0, pool.mean(ended) / np.where(mean > 0, mean, 1.0), 0.0) * flow_seconds)


_FOUND, _NEW, _PACKETS = (_AMOUNTS.index(name) for name in ("l_assign", "n_flow", "n_packet"))
_LOSSES = slice(_AMOUNTS.index("n_rtr"), _AMOUNTS.index("n_dpk") + 1)
_QUANTITIES = (
    *("open", "active", "open_mean", "active_mean"),
    *(f"{name}.{pace}" for pace in ("fast", "slow") for name in _AMOUNTS),
    *("n_rtr", "n_ooo", "n_dpk", "found", "age"),
)


def _rows_of(*names: str) -> NDArray[np.intp]:
    return np.array([_QUANTITIES.index(name) for name in names])


_NUMERATORS = _rows_of(
    # _LOGARITHMS
    *("open", "active", "open_mean", "active_mean", "found", "n_cls.fast", "n_fct.slow", "n_turn.slow"),
    *("n_rtr", "n_ooo", "n_dpk", "age"),
    # _RELATIVE
    *("open", "active", "n_flow.fast", "n_flow.slow", "n_answer.fast"),
    # _PACES
    *("n_fct.fast", "n_fct.slow", "n_fct.fast", "n_fct.slow", "n_turn.fast", "n_turn.slow"),
    # _BALANCES
    *("n_fct.fast", "n_answer.fast"),
)
_FLOW_SECONDS = _rows_of(
    *("open_seconds.fast", "open_seconds.slow", "active_seconds.fast", "active_seconds.slow"),
    *("active_seconds.fast", "active_seconds.slow"),
)
_BALANCED = _rows_of("n_flow.fast", "n_packet.fast")
_EVER = _rows_of("n_fct.slow", "n_turn.slow", "n_answer.slow")
_RECENT_PACKETS = _QUANTITIES.index("n_packet.fast")


def _hide(values: FloatArray, seen: Observation, memory: Memory, quantities: FloatArray) -> None:
    """Set features to NaN that level, forwarding or protocol leave unmeasured."""
    ended, turns, answers = np.logical_or.reduce(quantities[_EVER] > 0, axis=-1, keepdims=True)
    measured = {
        "active": memory.active,
        "endings": ended,  # UDP has none
        "turns": turns & memory.active,
        "answers": answers,  # not seen with one-way forwarding
        "losses": (quantities[_RECENT_PACKETS] > 0) & ("n_rtr" in seen.counters),  # from level `basic` on
    }
    for group, known in measured.items():
        if not known.all():
            rows = _ROWS_OF[group]
            values[rows] = np.where(known, values[rows], np.nan)


def _shared(values: FloatArray, seen: Observation, peers: NDArray[np.int64], memory: Memory, pool: _Pool) -> None:
    """Fill in flows of all balancers, as the data plane estimates them; -1 where it has no fresh view."""
    own = memory.flows[1] if "n_active" in seen.counters else memory.flows[0]
    flows = np.maximum(peers, 0).astype(float)
    total = flows + own
    relative = (total + 1.0) / (pool.mean(total) + 1.0)
    known = np.logical_and.reduce((peers >= 0) | ~seen.eligible, axis=-1, keepdims=True)
    values[_PLACE[_PEERS]] = np.where(known, np.log(np.array((flows + 1.0, total + 1.0, relative))), np.nan)


_ROWS_OF = {group: _group_rows(group) for group in ("active", "endings", "turns", "answers", "losses")}


def _decided(values: FloatArray, seen: Observation, anchor: FloatArray | None) -> None:
    """Fill in logs of weights and bases: configured, in force, and of the anchor."""
    common = np.log(np.asarray(seen.balancers, dtype=float))
    if seen.weights is None:
        values[_AT["configuration/weight"]] = _centred(seen.configured, seen.eligible)
    else:
        both = _centred(np.array((seen.configured, seen.weights)), seen.eligible)
        values[_AT["configuration/weight"]], values[_AT["action/log_weight"]] = both
        values[_AT["action/log_base"]] = _log_base(seen.base, seen) + common
    if anchor is not None:
        values[_AT["anchor/log_weight"]] = anchor[..., 0]
        values[_AT["anchor/log_base"]] = anchor[..., 1] + common


def logs(decision: Decision, seen: Observation) -> FloatArray:
    """Return (log weight, log base) of a decision [..., slots, 2].

    Log weights have mean 0 over eligible backends. Where a weight or a base is not usable, that of 1 or of the data
    plane, 1 / balancers, takes its place.
    """
    both = np.empty((*seen.eligible.shape, 2))
    both[..., 0] = _centred(decision.weights, seen.eligible)
    both[..., 1] = _log_base(decision.base, seen)
    return both


def _centred(weights: FloatArray, eligible: BoolArray) -> FloatArray:
    valid = eligible & (weights > 0) & (weights < np.inf)
    found = np.log(np.where(valid, weights, 1.0))
    count = np.maximum(np.add.reduce(valid, axis=-1, keepdims=True), 1)
    return np.where(valid, found - np.add.reduce(found, axis=-1, keepdims=True) / count, 0.0)


def _log_base(base: FloatArray | None, seen: Observation) -> FloatArray:
    common = 1.0 / np.asarray(seen.balancers, dtype=float)
    if base is None:
        return np.asarray(np.log(common))
    return np.asarray(np.log(np.where(np.isfinite(base) & (base > 0), base, common)))


def _filtered(values: FloatArray, state: Any) -> None:
    estimate = getattr(state, "estimate", None)
    if estimate is None:
        return
    recent = np.log((state.fast_ended + 1.0) / (state.fast_expected + 1.0))
    values[_PLACE[_FILTER]] = (
        estimate.log_speed,
        estimate.speed_deviation,
        estimate.log_cores,
        estimate.cores_deviation,
        recent,
        np.log1p(state.fast_expected),
    )


def _pooled(values: FloatArray, seen: Observation, memory: Memory, step: Step, pool: _Pool) -> None:
    flows = np.log1p(pool.mean(memory.flows))
    values[_AT["context/backends"]] = np.log(pool.count)
    values[_AT["context/balancers"]] = np.log(np.asarray(seen.balancers, dtype=float))
    if "n_flow" in seen.counters:
        values[_AT["context/open"]] = flows[0]
        values[_AT["context/active"]] = np.where(memory.active, flows[1], np.nan)
    if step.seconds > 0 and (arrived := step.added.get("n_flow")) is not None:
        values[_AT["context/interval"]] = np.log(step.seconds / 0.2)
        values[_AT["context/arrivals"]] = np.log1p(pool.mean(arrived))


def _reduced(seen: Observation, channels: tuple[str, ...], pool: _Pool) -> FloatArray:
    """Return reductions relative to the VIP's mean of `avg` [channels x reductions, ..., slots]: logs of the ratio.

    What may be negative is divided by the mean magnitude instead. NaN where there is no sample.
    """
    nothing = np.full((*seen.eligible.shape, len(REDUCTIONS)), np.nan)
    values = np.array([seen.channels.get(channel, nothing) for channel in channels])
    magnitude = np.abs(values[..., AVG])
    known = np.isfinite(magnitude) & pool.eligible
    count = np.add.reduce(known, axis=-1, keepdims=True)
    scale = np.add.reduce(np.where(known, magnitude, 0.0), axis=-1, keepdims=True) / np.maximum(count, 1)
    scale = scale[..., None]
    measured = np.isfinite(values) & (scale > 0)
    shares = np.where(measured, values, 0.0) / np.where(scale > 0, scale, 1.0)
    found = np.log(np.maximum(shares, SMALLEST_SHARE))
    for index, channel in enumerate(channels):
        if channel in SIGNED_CHANNELS:
            found[index] = shares[index]
    found = np.where(measured, found, np.nan)
    return np.moveaxis(found, -1, 1).reshape(-1, *seen.eligible.shape)
