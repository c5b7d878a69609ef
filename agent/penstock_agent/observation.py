"""What a policy sees: counters and channel reductions of one VIP, as arrays over its slots.

Computation only. Every array has the slots on its last axis before the reductions', so several VIPs of the
same size may be stacked in front and policies stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Generations = NDArray[np.uint8]
Balancers = int | NDArray[np.int64]
Samples = tuple[NDArray[np.float32], NDArray[np.float32], BoolArray, NDArray[np.uint64]]

# Order of a channel's reductions on the last axis of Observation.channels.
REDUCTIONS = ("avg", "std", "p90", "avg_decay", "p90_decay")
AVG, STD, P90, AVG_DECAY, P90_DECAY = range(len(REDUCTIONS))

# A sample's weight falls to DECAY_PER_SECOND ** age: a mean over roughly the last ten seconds.
DECAY_PER_SECOND = 0.9


class Counts(Protocol):
    """Counters of one time."""

    @property
    def time_us(self) -> int:
        """CLOCK_BOOTTIME at which it was published."""
        ...

    @property
    def generation(self) -> Generations:
        """Count by slot, up with each new backend."""
        ...

    @property
    def peers(self) -> NDArray[np.int64] | None:
        """Flows of the other balancers, as the data plane estimates them; -1, or None for all, where not known."""
        ...

    @property
    def counters(self) -> Mapping[str, NDArray[np.int64]]:
        """Sums over workers, by name."""
        ...


class Frame(Counts, Protocol):
    """One consistent snapshot of a VIP's counters, as `penstock_core` reads it."""

    @property
    def sequence(self) -> int:
        """Count up with each frame."""
        ...

    @property
    def active(self) -> BoolArray:
        """Slots that hold a backend."""
        ...


class Reducer(Protocol):
    """What reduces the reservoirs that belong to a frame."""

    def reduce(self, channels: Sequence[str], now_us: int) -> Mapping[str, FloatArray]:
        """Reduce channels' reservoirs, each to [slots, 5]; NaN where there is no sample."""
        ...


class Reader(Reducer, Protocol):
    """One VIP's frames object, as `penstock_core.FrameReader` offers it."""

    @property
    def slots(self) -> int:
        """Size of the tables."""
        ...

    @property
    def retired(self) -> bool:
        """Tell whether the data plane replaced the object."""
        ...

    @property
    def channels(self) -> Collection[str]:
        """Name the channels that are recorded."""
        ...

    def read(self) -> Frame:
        """Copy the newest consistent frame."""
        ...

    def samples(self, channel: str) -> Samples:
        """Copy a channel's reservoirs: values, ages in seconds and validity [slots, samples], seen [slots, workers]."""
        ...


@dataclass(frozen=True, slots=True)
class Slots:
    """Which backend sits in which slot of a VIP, and what was configured for it."""

    backends: tuple[str, ...]  # id by slot, "" where the slot is free
    configured: FloatArray  # weights that users gave; 0 where the slot is free
    occupied: BoolArray
    eligible: BoolArray  # may take new flows: neither draining nor failed, and a weight above 0

    @classmethod
    def of(cls, slots: int, backends: Iterable[tuple[int, str, float, bool]]) -> Slots:
        """Place (slot, id, configured weight, takes new flows) into arrays of a VIP with that many slots."""
        ids = [""] * slots
        configured = np.zeros(slots)
        eligible = np.zeros(slots, dtype=np.bool_)
        for slot, backend, weight, takes_flows in backends:
            ids[slot] = backend
            configured[slot] = weight
            eligible[slot] = takes_flows and weight > 0
        occupied = np.array([bool(backend) for backend in ids], dtype=np.bool_)
        return cls(tuple(ids), configured, occupied, eligible)


@dataclass(frozen=True, slots=True)
class Observation:
    """Input of a policy; see the module's text for the shapes."""

    time: float  # of the frame, CLOCK_BOOTTIME seconds
    eligible: BoolArray
    configured: FloatArray
    generation: Generations  # changes when a slot gets another backend: what was learned of it is void
    counters: Mapping[str, NDArray[np.int64]]  # since the backend took its slot
    channels: Mapping[str, FloatArray]  # [..., slots, reductions]; only those that were asked for
    balancers: Balancers = 1  # that share the VIP: a number, or an array that broadcasts to [..., 1]
    peers: NDArray[np.int64] | None = None  # flows of the other balancers; -1, or None for all, where not known
    weights: FloatArray | None = None  # that passed the guardrails in the step before; None: unknown
    base: FloatArray | None = None  # the same; 0, or None for all: the data plane's own


def observe(
    reader: Reducer, frame: Counts, slots: Slots, channels: Sequence[str], now_us: int, balancers: Balancers = 1
) -> Observation:
    """Join a frame, the reductions of the channels a policy needs, and the configuration.

    The simulator passes stacked arrays [..., slots] in all of them.
    """
    return Observation(
        time=frame.time_us / 1e6,
        eligible=slots.eligible,
        configured=slots.configured,
        generation=frame.generation,
        counters=frame.counters,
        channels=reader.reduce(channels, now_us),
        balancers=balancers,
        peers=frame.peers,
    )


def unmeasured(slots: Slots, balancers: Balancers = 1) -> Observation:
    """Stand in for a frame that cannot be read: configuration without any measurement."""
    return Observation(
        time=0.0,
        eligible=slots.eligible,
        configured=slots.configured,
        generation=np.zeros(slots.eligible.shape, dtype=np.uint8),
        counters={},
        channels={},
        balancers=balancers,
    )
