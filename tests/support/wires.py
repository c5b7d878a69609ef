"""Packets by hand on the wires of a laboratory: a test plays the client and the servers, whose kernels stay silent."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from tests.support.lab import Lab, eventually
from tests.support.netns import Namespace

ETHER_TYPES = {4: 0x0800, 6: 0x86DD}
PACKET_OUTGOING = 4
NEIGHBOUR_TYPES = range(130, 138)  # ICMPv6: multicast listeners, routers, neighbours

MUTE = """
table inet mute {
    chain in {
        type filter hook input priority -300
        meta l4proto { tcp, udp, icmp, gre } drop
        icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, echo-request, echo-reply } drop
    }
}
"""


class Seen(NamedTuple):
    """A packet that came out, and at whose wire: `client`, or a server's name."""

    place: str
    packet: Packet


def parse(data: bytes) -> Packet:
    """Return an IP packet of either version."""
    return (IP if data[0] >> 4 == 4 else IPv6)(data)


class _End:
    """One end of a wire: sends to the balancer, hears what comes from it."""

    def __init__(self, namespace: Namespace, gateways: dict[int, str]) -> None:
        namespace.shell(f"nft -f - <<'END'\n{MUTE}\nEND")
        self.hardware = {version: self._resolve(namespace, gateway) for version, gateway in gateways.items()}
        self.socket = namespace.run(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.socket.bind(("eth0", 3))
        self.socket.setblocking(False)

    @staticmethod
    def _resolve(namespace: Namespace, gateway: str) -> bytes:
        def known() -> str:
            # Whatever is sent makes the kernel ask for the neighbour.
            namespace.shell(f"ping -c 1 -W 1 {gateway} > /dev/null || true")
            words = namespace.sh(f"ip neighbour show {gateway} dev eth0").split()
            return words[words.index("lladdr") + 1] if "lladdr" in words else ""

        return bytes.fromhex(eventually(known).replace(":", ""))

    def send(self, data: bytes) -> None:
        version = data[0] >> 4 if data and data[0] >> 4 in ETHER_TYPES else 4
        self.socket.sendto(data, ("eth0", ETHER_TYPES[version], 0, 0, self.hardware[version]))

    def heard(self) -> Packet | None:
        """Return what was heard, if it was an IP packet and not of the neighbourhood's own."""
        data, (_, ether_type, kind, *_) = self.socket.recvfrom(65535)
        if kind == PACKET_OUTGOING or ether_type not in ETHER_TYPES.values():
            return None
        packet = parse(data)
        if packet.version == 6 and packet.nh in (0, 58) and (packet.nh == 0 or data[40] in NEIGHBOUR_TYPES):
            return None
        return packet


class Wires:
    """The ends of all wires."""

    def __init__(self, ends: dict[str, _End]) -> None:
        self._ends = ends

    def carry(self, sender: str, packets: list[bytes], *, wait: float) -> list[Seen]:
        """Send packets and return what comes out: as many, or as many as come within so many seconds."""
        self._drain()
        for data in packets:
            self.send(sender, data)
        return self.hear(len(packets), wait=wait)

    def hardware(self, sender: str, version: int) -> bytes:
        """Return the address of the balancer that an end sends to."""
        return self._ends[sender].hardware[version]

    def send(self, sender: str, data: bytes) -> None:
        self._ends[sender].send(data)

    def hear(self, count: int, *, wait: float) -> list[Seen]:
        """Return what comes out: so many packets, or as many as come within so many seconds."""
        deadline = time.monotonic() + wait
        seen: list[Seen] = []
        while len(seen) < count and (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([end.socket for end in self._ends.values()], [], [], left)
            for place, end in self._ends.items():
                if end.socket in ready and (packet := end.heard()) is not None:
                    seen.append(Seen(place, packet))
        return seen

    def _drain(self) -> None:
        for end in self._ends.values():
            while select.select([end.socket], [], [], 0)[0]:
                end.socket.recvfrom(65535)


@contextmanager
def wires(lab: Lab) -> Iterator[Wires]:
    """Take all wires of a laboratory whose balancer answers for its addresses already."""
    with ExitStack() as stack:
        ends = {}
        namespaces = {"client": lab.client} | {server.name: server.namespace for server in lab.servers}
        for number, (name, namespace) in enumerate(namespaces.items()):
            end = _End(namespace, {4: f"10.77.{number}.1", 6: f"fd77:{number}::1"})
            stack.callback(end.socket.close)
            ends[name] = end
        yield Wires(ends)
