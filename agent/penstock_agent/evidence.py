"""What the VIPs' own traffic shows of backends and of the path to them, read from the frames.

A server that sends payload to its clients works, however late its health check is. A server to which clients send again
and again without any packet back does not. A VIP where that holds for all servers has no path to them, whatever health
checks find that take another way. Computation only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock_agent.observation import BoolArray, FloatArray, Frame, Generations

NEVER = float("-inf")
ANSWERING_SECONDS = 10.0  # after its last payload a server counts as one that answers
SILENT_SECONDS = 2.0  # between packets of clients without one of the server in between: two retransmissions of TCP
NO_PATH_SECONDS = 10.0  # the same of all servers of a VIP


@dataclass(slots=True)
class _Seen:
    """Counters of a VIP's last frame by slot, and times at which they rose."""

    sequence: int
    generation: Generations
    answers: NDArray[np.int64]
    client: NDArray[np.int64]
    server: NDArray[np.int64]
    answered_at: FloatArray = field(init=False)
    client_at: FloatArray = field(init=False)
    unanswered_since: FloatArray = field(init=False)  # first packet of a client after the last one of the server
    no_path_since: float = NEVER  # the same over all slots; NEVER: the last packet came from a server
    any_client_at: float = NEVER

    def __post_init__(self) -> None:
        size = len(self.answers)
        self.answered_at, self.client_at = np.full(size, NEVER), np.full(size, NEVER)
        self.unanswered_since = np.full(size, np.inf)


class Evidence:
    """Evidence by core VIP and slot; times are monotonic seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def retain(self, vips: Collection[str]) -> None:
        """Drop what is known of all other VIPs."""
        for gone in self._seen.keys() - set(vips):
            del self._seen[gone]

    def observe(self, vip: str, frame: Frame, now: float) -> None:
        """Take a frame of a VIP, `now` being when it was read."""
        counters = frame.counters
        if "n_answer" not in counters:
            return  # of an older data plane
        answers, client = counters["n_answer"], counters["n_packet"]
        server = counters["packets"] - client
        before = self._seen.get(vip)
        if before is None or before.answers.shape != answers.shape:
            self._seen[vip] = _Seen(frame.sequence, frame.generation, answers, client, server)
        elif before.sequence != frame.sequence:
            same = frame.generation == before.generation
            _take(before, same, (answers > before.answers, client > before.client, server > before.server), now)
            before.sequence, before.generation = frame.sequence, frame.generation
            before.answers, before.client, before.server = answers, client, server

    def answers(self, vip: str, slot: int, now: float) -> bool:
        """Return whether the server in a slot has just sent payload to clients."""
        return now - self._value(vip, "answered_at", slot, NEVER) < ANSWERING_SECONDS

    def answered_since(self, vip: str, slot: int, time: float) -> bool:
        """Return whether the server in a slot was seen to send payload after `time`."""
        return self._value(vip, "answered_at", slot, NEVER) > time

    def silent(self, vip: str, slot: int) -> bool:
        """Return whether clients went on to send to the server in a slot, and it sent nothing since."""
        since = self._value(vip, "unanswered_since", slot, np.inf)
        return self._value(vip, "client_at", slot, NEVER) - since >= SILENT_SECONDS

    def no_path(self, vip: str) -> bool:
        """Return whether clients of a VIP went on to send, and no server of it sent anything since."""
        seen = self._seen.get(vip)
        if seen is None or seen.no_path_since == NEVER:
            return False
        return seen.any_client_at - seen.no_path_since >= NO_PATH_SECONDS

    def _value(self, vip: str, name: str, slot: int, default: float) -> float:
        seen = self._seen.get(vip)
        values: FloatArray | None = getattr(seen, name) if seen else None
        return float(values[slot]) if values is not None and slot < len(values) else default


def _take(seen: _Seen, same: BoolArray, rose: tuple[BoolArray, BoolArray, BoolArray], now: float) -> None:
    """Note what rose between two frames, in slots that hold the same backend as before."""
    answered, client, server = rose
    seen.answered_at[answered & same] = now
    seen.client_at[client & same] = now
    begins = client & ~server & same & np.isinf(seen.unanswered_since)
    seen.unanswered_since[begins] = now
    seen.unanswered_since[server | ~same] = np.inf
    seen.answered_at[~same], seen.client_at[~same] = NEVER, NEVER
    if server.any():
        seen.no_path_since = NEVER
    elif client.any() and seen.no_path_since == NEVER:
        seen.no_path_since = now
    if client.any():
        seen.any_client_at = now
