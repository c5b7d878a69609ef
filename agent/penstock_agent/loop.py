"""The loop: every 200 ms, for every VIP, frame to observation to policy to guardrail to weights.

Whatever happens to a frames object or inside a policy, the VIP gets the weights of its fallback and the next VIP
its turn. Weights are written in every step, changed or not: the data plane takes them as this process's sign of
life.
"""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray
from penstock_api.rlpolicy import PolicyMode

from penstock_agent import decisions, policies
from penstock_agent.desired import PolicyChoice
from penstock_agent.guardrails import Guarded, Guardrails
from penstock_agent.observation import FloatArray, Frame, Generations, Reader, Slots, observe
from penstock_agent.policies import Decision, Policy

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 0.2
VIPS_PER_TURN = 8  # after which other tasks may run: a turn takes a few milliseconds
REFRESH_SECONDS = 1.0  # between two requests for a new dump
HISTORY_FRAMES = 11  # rates are taken over two seconds
RAMP_STEPS = 5  # of slow start
REOPEN_SECONDS = 1.0  # age of a frame after which another object of the name may have taken over


class Writer(Protocol):
    """One VIP's actions object, as `penstock_core.ActionsWriter` offers it."""

    def write(
        self,
        weights: NDArray[np.float32],
        generation: Generations,
        time_us: int,
        base: NDArray[np.float32] | None = None,
        shared: bool = False,
    ) -> int:
        """Publish weights and bases; `shared`: bases on the flows of all balancers."""
        ...


class Reason(StrEnum):
    """Why a step used the fallback."""

    OFF = "off"  # the policy's mode
    SHADOW = "shadow"  # the policy's mode: it decided, but what it decided is only shown
    UNREADABLE = "unreadable"  # no frames object, or none that makes sense
    STALE = "stale"  # the data plane stopped publishing
    FAILED = "failed"  # the policy raised, or gave no usable weight


TROUBLE = (Reason.UNREADABLE, Reason.STALE, Reason.FAILED)


@dataclass(frozen=True, slots=True)
class LoopVip:
    """A core VIP as the loop needs it."""

    id: str
    key: str
    frames: Path
    actions: Path
    slots: Slots
    in_force: FloatArray  # weights at the data plane when it was asked
    choice: PolicyChoice
    base_in_force: FloatArray | None = None  # likewise; 0: the data plane's own
    balancers: int = 1  # that share the VIP
    ramps: Mapping[str, float] = field(default_factory=dict)  # by backend: when it returned to use, monotonic seconds
    slow_start: float = 0.0  # seconds until its share has its full size


@dataclass(slots=True)
class Steering:
    """What the loop holds of one VIP between steps."""

    vip: LoopVip
    due: float = 0.0
    reader: Reader | None = None
    writer: Writer | None = None
    policy_state: Any = None
    previous: Decision | None = None  # of the guardrail
    frame: Frame | None = None  # newest that could be read
    frame_age: float = float("inf")
    weights: FloatArray | None = None  # written last
    base: FloatArray | None = None  # written last; None, or 0 in a slot: the data plane's own
    base_shared: bool = False  # it is on the flows of all balancers
    wanted: FloatArray | None = None  # guarded weights of the policy, where it decided: in Shadow not those written
    wanted_base: FloatArray | None = None  # likewise
    reason: Reason | None = None  # of the last step; None: the policy's weights were written
    error: str = ""
    steps: Counter[str] = field(default_factory=Counter)  # by reason, "active" where the policy's were written
    held: Counter[str] = field(default_factory=Counter)  # guardrails: invalid, bounded, slowed
    write_errors: int = 0
    troubled_at: float | None = None  # when measurements or the policy began to fail; None while they do not
    history: deque[Frame] = field(default_factory=lambda: deque(maxlen=HISTORY_FRAMES))  # for rates


class WeightLoop:
    """Steers a changing set of VIPs."""

    def __init__(
        self,
        *,
        open_reader: Callable[[Path], Reader],
        open_writer: Callable[[Path, int], Writer],
        now_us: Callable[[], int],
        on_unknown_slots: Callable[[], None] = lambda: None,
    ) -> None:
        self._open_reader = open_reader
        self._open_writer = open_writer
        self._now_us = now_us
        self._on_unknown_slots = on_unknown_slots
        self._asked_at = float("-inf")
        self._vips: dict[str, Steering] = {}
        self.turns = 0
        self.turn_seconds = 0.0  # of the last turn over all VIPs
        self.late_seconds = 0.0  # by which the last turn began late
        self.progress_at = time.monotonic()

    @property
    def vips(self) -> Mapping[str, Steering]:
        """All VIPs that are steered, for metrics and reports."""
        return self._vips

    def configure(self, vips: Iterable[LoopVip]) -> None:
        """Steer exactly these from now on."""
        known = self._vips
        self._vips = {}
        for vip in vips:
            steering = known.get(vip.id)
            if steering is None:
                steering = Steering(vip)
            elif (steering.vip.frames, len(steering.vip.slots.backends)) != (vip.frames, len(vip.slots.backends)):
                # A grown table: positions stay, sizes do not.
                steering.reader, steering.writer, steering.previous = None, None, None
            if steering.vip.choice.heuristic != vip.choice.heuristic:
                steering.policy_state = None
            steering.vip = vip
            self._vips[vip.id] = steering

    async def run(self) -> None:
        """Take turns until cancelled."""
        due = time.monotonic()
        while True:
            self.late_seconds = max(time.monotonic() - due, 0.0)
            await self.turn()
            due = max(due + INTERVAL_SECONDS, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def turn(self) -> None:
        """Step all VIPs that are due."""
        spent = 0.0
        for index, steering in enumerate(list(self._vips.values())):
            started = time.perf_counter()
            # Half an interval of tolerance, or a policy of 200 ms would at times be due just after the turn.
            if time.monotonic() >= steering.due - INTERVAL_SECONDS / 2:
                steering.due = time.monotonic() + steering.vip.choice.interval
                self.step(steering)
            spent += time.perf_counter() - started
            if index % VIPS_PER_TURN == VIPS_PER_TURN - 1:
                await asyncio.sleep(0)
        self.turns += 1
        self.turn_seconds = spent
        self.progress_at = time.monotonic()

    def step(self, steering: Steering) -> None:
        """Decide and write the weights of one VIP; never raises for what a file or a policy does."""
        now_us = self._now_us()
        frame = self._read(steering, now_us)
        reason = _obstacle(steering, frame)
        decided = self._try_policy(steering, frame, now_us) if reason is None else None
        if reason is None and decided is None:
            reason = Reason.FAILED
        elif reason is None and steering.vip.choice.mode is PolicyMode.SHADOW:
            reason = Reason.SHADOW
        written = decided if decided and reason is None else _fallback(steering.vip)
        steering.previous = (decided or written).previous
        steering.wanted = decided.weights if decided else None
        steering.wanted_base = decided.base if decided else None
        steering.weights, steering.base = _ramped(written.weights, steering.vip, time.monotonic()), written.base
        steering.base_shared = written.decision.shared
        steering.reason = reason
        steering.steps[reason or "active"] += 1
        if reason not in TROUBLE:
            steering.troubled_at = None
        elif steering.troubled_at is None:
            steering.troubled_at = time.monotonic()
        self._write(steering, now_us)

    def _read(self, steering: Steering, now_us: int) -> Frame | None:
        """Read the newest frame; None where there is none to be had, and the next step opens the object anew."""
        try:
            if steering.reader is None or steering.reader.retired or steering.frame_age > REOPEN_SECONDS:
                # The object of another process, or a grown one: so may be that of the weights.
                steering.reader, steering.writer = self._open_reader(steering.vip.frames), None
            frame = steering.reader.read()
        except (OSError, ValueError) as error:
            steering.reader, steering.frame, steering.frame_age = None, None, float("inf")
            steering.error = f"frames of {steering.vip.key}: {error}"
            self._ask_for_dump()
            return None
        steering.frame_age = max(now_us - frame.time_us, 0) / 1e6
        self._notice_slots(steering, frame)
        if steering.frame is None or frame.sequence != steering.frame.sequence:
            steering.history.append(frame)
        steering.frame = frame
        return frame

    def _notice_slots(self, steering: Steering, frame: Frame) -> None:
        """Forget what was learned of slots that changed hands; ask who has them now where we do not know."""
        before = steering.frame
        # Bytes compare in a fraction of the time that arrays of this size take, and nearly always they are the same.
        if before is not None and before.generation.tobytes() != frame.generation.tobytes():
            self._ask_for_dump()
            if steering.previous is not None and before.generation.shape == frame.generation.shape:
                steering.previous = decisions.renewed(steering.previous, before.generation != frame.generation)
        if frame.active.tobytes() != steering.vip.slots.occupied.tobytes():
            self._ask_for_dump()

    def _try_policy(self, steering: Steering, frame: Frame | None, now_us: int) -> Guarded | None:
        policy = policies.by_name(steering.vip.choice.heuristic)
        try:
            return self._run_policy(policy, steering, frame, now_us)
        except Exception as error:
            # A policy may fail in any way, and traffic goes on.
            if steering.reason is not Reason.FAILED:
                # As plain text: a renderer that draws the arrays in every frame takes longer than an interval.
                where = traceback.format_exc(limit=-3)
                log.error("policy failed, the fallback is used", vip=steering.vip.key, policy=policy.name, error=where)  # noqa: TRY400
            steering.error, steering.policy_state = f"policy {policy.name}: {error}", None
            return None

    def _run_policy(self, policy: Policy, steering: Steering, frame: Frame | None, now_us: int) -> Guarded:
        choice, slots = steering.vip.choice, steering.vip.slots
        balancers = steering.vip.balancers
        if frame is None or steering.reader is None or not policy.channels:
            return decisions.from_configuration(policy, slots, balancers)
        channels = policy.reads(steering.reader.channels)
        seen = observe(steering.reader, frame, slots, channels, now_us, balancers)
        bounds = Guardrails(choice.max_weight_ratio, choice.max_change_per_step)
        previous = steering.previous or _in_force(steering.vip)
        guarded, steering.policy_state = decisions.decide(policy, seen, steering.policy_state, previous, bounds)
        steering.held.update(invalid=guarded.invalid, bounded=guarded.bounded, slowed=guarded.slowed)
        return guarded

    def _write(self, steering: Steering, now_us: int) -> None:
        weights, frame, size = steering.weights, steering.frame, len(steering.vip.slots.backends)
        # Without a frame we do not know the slots' generations, and the data plane would refuse the weights.
        if weights is None or frame is None or len(frame.generation) != size or not weights.any():
            return
        try:
            if steering.writer is None:
                steering.writer = self._open_writer(steering.vip.actions, size)
            base = None if steering.base is None else steering.base.astype(np.float32)
            steering.writer.write(weights.astype(np.float32), frame.generation, now_us, base, steering.base_shared)
        except (OSError, ValueError) as error:
            steering.writer = None
            steering.write_errors += 1
            steering.error = f"actions of {steering.vip.key}: {error}"

    def _ask_for_dump(self) -> None:
        if time.monotonic() - self._asked_at >= REFRESH_SECONDS:
            self._asked_at = time.monotonic()
            self._on_unknown_slots()


def _obstacle(steering: Steering, frame: Frame | None) -> Reason | None:
    """Tell what keeps the policy from deciding."""
    choice = steering.vip.choice
    if choice.mode is PolicyMode.OFF:
        return Reason.OFF
    if not policies.by_name(choice.heuristic).channels:
        return None
    if frame is None or len(frame.generation) != len(steering.vip.slots.backends):
        return Reason.UNREADABLE
    return Reason.STALE if steering.frame_age > choice.max_frame_age else None


def _fallback(vip: LoopVip) -> Guarded:
    return decisions.from_configuration(policies.by_name(vip.choice.fallback), vip.slots, vip.balancers)


def _in_force(vip: LoopVip) -> Decision:
    return decisions.initial(vip.in_force, vip.slots.eligible, vip.base_in_force)


def _ramped(weights: FloatArray, vip: LoopVip, now: float) -> FloatArray:
    """Reduce the weights of backends that have just returned to use.

    They grow in steps: with `maglev` every change builds the table anew.
    """
    if not vip.ramps:
        return weights
    factors = np.ones(len(weights))
    for backend, start in vip.ramps.items():
        if backend in vip.slots.backends and vip.slow_start > 0:
            step = math.floor((now - start) / vip.slow_start * RAMP_STEPS) + 1
            factors[vip.slots.backends.index(backend)] = min(max(step, 1) / RAMP_STEPS, 1.0)
    ramped: FloatArray = weights * factors
    return ramped
