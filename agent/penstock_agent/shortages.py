"""What a data plane runs out of under load: found in its counters, told by Events and by the condition `Overloaded`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from penstock_embedded.messages import Stats

LASTING_SECONDS = 60.0  # a shortage is over when nothing was lost for as long as NAT ports rest
PATIENT_CLIENT_SECONDS = 1.0  # few handshakes take longer: half-open flows that last as long are no loss
TOLERABLE_DROPS = 0.01  # share of packets that TCP does not much mind to lose


class Shortage(StrEnum):
    """Reasons of Events and of the condition, the gravest first."""

    FLOW_TABLE_FULL = "FlowTableFull"
    NAT_PORTS_EXHAUSTED = "NATPortsExhausted"
    HANDSHAKES_CUT_SHORT = "HandshakesCutShort"
    PACKETS_DROPPED = "PacketsDropped"


_NOTES = {
    Shortage.FLOW_TABLE_FULL: (
        "new flows are dropped because the flow table is full; "
        "raise flowTableSize of DataPlane {dataplane}, add nodes, or shorten timeouts of the VIPs"
    ),
    Shortage.NAT_PORTS_EXHAUSTED: (
        "new flows are dropped because every NAT port towards their backend is in use; "
        "widen natSource.portFirst..portLast of DataPlane {dataplane}, add nodes or backends, "
        "or shorten timeouts of the VIPs"
    ),
    Shortage.HANDSHAKES_CUT_SHORT: (
        "half-open connections make room for new ones within a second, so that slow clients' never open: "
        "a flood of SYNs, or backends that do not answer; "
        "bound SYNs before this node, raise flowTableSize of DataPlane {dataplane}, or add nodes"
    ),
    Shortage.PACKETS_DROPPED: (
        "the data plane is too slow for what arrives, more than 1 % of which finds its queue full; "
        "give its pod more processor time, or add nodes to DataPlane {dataplane}"
    ),
}
_DROPS = {"table_full": Shortage.FLOW_TABLE_FULL, "no_nat_port": Shortage.NAT_PORTS_EXHAUSTED}


def describe(shortage: Shortage, dataplane: str) -> str:
    """Say what is lost and what helps; no number that always moves."""
    return _NOTES[shortage].format(dataplane=dataplane)


class Shortages:
    """Remembers for a while that a data plane lost packets or flows for want of something.

    One loss begins a shortage, and only `LASTING_SECONDS` without any end it, so what comes and goes is told once.
    """

    def __init__(self) -> None:
        self._stats: Stats | None = None
        self._at: dict[Shortage, float] = {}

    def look(self, stats: Stats | None, now: float) -> tuple[Shortage, ...]:
        """Compare counters with those of the last look; `now` is in seconds of any clock. Returns what goes on.

        A second look at the same counters changes nothing, so several readers may share one memory.
        """
        before, self._stats = self._stats, stats or self._stats
        if stats is not None and before is not None and stats.instance_id == before.instance_id:
            self._at |= dict.fromkeys(_wanting(before, stats), now)
        return tuple(shortage for shortage in Shortage if now - self._at.get(shortage, float("-inf")) < LASTING_SECONDS)


def _wanting(before: Stats, after: Stats) -> Iterator[Shortage]:
    """Say what was wanting between two looks at one process's counters."""
    for reason, shortage in _DROPS.items():
        if after.dropped.get(reason, 0) > before.dropped.get(reason, 0):
            yield shortage
    seconds = after.uptime_seconds - before.uptime_seconds
    if (after.recycled - before.recycled) * PATIENT_CLIENT_SECONDS > after.half_open * seconds:
        yield Shortage.HANDSHAKES_CUT_SHORT
    dropped, taken = after.queue_dropped - before.queue_dropped, after.packets - before.packets
    if dropped > TOLERABLE_DROPS * (dropped + taken):
        yield Shortage.PACKETS_DROPPED
