"""Fragments against a plain model: whatever the order of its parts, a datagram arrives as it was sent."""

from __future__ import annotations

from collections import Counter, defaultdict
from ipaddress import ip_address
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import penstock_core
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

VIPS = {4: "203.0.113.10", 6: "fd00:1::10"}
SOURCES = {4: "192.0.2.1", 6: "fd00:9::1"}
BACKENDS = {4: "10.0.0.1", 6: "fd00:2::1"}
CLIENTS = {4: "198.51.100.{}", 6: "fd00:5::{}"}
PORT = 5000


class Datagram(NamedTuple):
    """What a client sends: to the UDP VIP, or as a ping."""

    family: int
    client: int
    ping: bool
    size: int
    cuts: frozenset[int]


datagrams = st.builds(
    Datagram,
    st.sampled_from([4, 6]),
    st.integers(1, 3),
    st.booleans(),
    st.integers(64, 400),
    st.frozensets(st.integers(2, 7), min_size=1, max_size=4),
)


def packed(address: str) -> bytes:
    return ip_address(address).packed


def whole(number: int, datagram: Datagram) -> Packet:
    addresses: dict[str, Any] = {"src": CLIENTS[datagram.family].format(datagram.client), "dst": VIPS[datagram.family]}
    payload = Raw(Random(number).randbytes(datagram.size))
    if datagram.family == 4:
        return (
            IP(**addresses, id=number) / (ICMP(id=number) if datagram.ping else UDP(sport=number, dport=PORT)) / payload
        )
    transport = ICMPv6EchoRequest(id=number) if datagram.ping else UDP(sport=number, dport=PORT)
    return IPv6(**addresses) / transport / payload


def fragments(number: int, datagram: Datagram, identification: int) -> list[bytes]:
    """The datagram in parts, in order. Clients use the same identifications."""
    packet = whole(number, datagram)
    data = bytes(packet)[20 if datagram.family == 4 else 40 :]
    edges = [0, *(8 * cut for cut in sorted(datagram.cuts)), len(data)]
    parts = []
    for first, last in pairwise(edges):
        more = last < len(data)
        header: Packet
        if datagram.family == 4:
            header = IP(
                src=packet.src, dst=packet.dst, id=identification, proto=packet.proto, flags=int(more), frag=first // 8
            )
        else:
            header = IPv6(src=packet.src, dst=packet.dst) / IPv6ExtHdrFragment(
                nh=packet.nh, offset=first // 8, m=int(more), id=identification
            )
        parts.append(bytes(header / Raw(data[first:last])))
    return parts


class Receiver:
    """Puts parts together again, as RFC 791 and RFC 8200 say."""

    def __init__(self) -> None:
        self.parts: dict[tuple[object, ...], dict[int, bytes]] = defaultdict(dict)

    def take(self, data: bytes) -> None:
        packet = IP(data) if data[0] >> 4 == 4 else IPv6(data)
        if isinstance(packet, IP):
            key, offset, payload = (packet.src, packet.dst, packet.proto, packet.id), packet.frag, data[20:]
        else:
            fragment = packet[IPv6ExtHdrFragment]
            key, offset, payload = (packet.src, packet.dst, fragment.nh, fragment.id), fragment.offset, data[48:]
        known = self.parts[key].setdefault(offset, payload)
        assert known == payload, "parts of two datagrams never share an identification"

    def datagrams(self) -> list[tuple[tuple[object, ...], bytes]]:
        return [(key, b"".join(parts[at] for at in sorted(parts))) for key, parts in self.parts.items()]


def expected(number: int, datagram: Datagram) -> tuple[object, ...]:
    """Whom the datagram or its echo must reach, and the bytes behind the transport header."""
    payload = Random(number).randbytes(datagram.size)
    if datagram.ping:
        client = CLIENTS[datagram.family].format(datagram.client)
        return (VIPS[datagram.family], client, 1 if datagram.family == 4 else 58, payload)
    return (SOURCES[datagram.family], BACKENDS[datagram.family], 17, payload)


def make_core(workers: int) -> penstock_core.Core:
    core = penstock_core.Core(flows=4096, seed=bytes(range(32)), workers=workers, holds=True)
    core.set_sources([(packed(source), 16384, 28671) for source in SOURCES.values()])
    for family, address in VIPS.items():
        backends = [penstock_core.Backend(1, packed(BACKENDS[family]), 8080)]
        core.set_vip(family, [packed(address)], PORT, 17, backends, now_us=1)
    return core


def checksum_holds(source: object, destination: object, protocol: object, data: bytes) -> bool:
    address = packed(str(source)) + packed(str(destination))
    pseudo = b"" if protocol == 1 else address + len(data).to_bytes(4, "big") + bytes([0, 0, 0, int(str(protocol))])
    padded = pseudo + data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


class Path:
    """A core of several workers, and who keeps what it holds and hands over."""

    def __init__(self, workers: int) -> None:
        self.core = make_core(workers)
        self.workers = workers
        self.now = 2_000_000
        self.receiver = Receiver()

    def send(self, worker: int, data: bytes) -> None:
        self.now += 100
        self._settle(self.core.process([penstock_core.Packet(data)], self.now, worker=worker))

    def release(self) -> None:
        """Let every worker look at what it holds; a packet may move from one to the next."""
        for _ in range(self.workers):
            self.now += 1000
            for worker in range(self.workers):
                self._settle(self.core.take_held(self.now, worker=worker))

    def _settle(self, results: list[penstock_core.Packet]) -> None:
        for result in results:
            assert result.verdict in ("forward", "reply", "hold", "handover"), result.reason
            if result.verdict == "handover":
                packet = penstock_core.Packet(result.data)
                self._settle(self.core.process([packet], self.now, worker=result.worker))
            elif result.verdict != "hold":
                self.receiver.take(result.data)


@given(
    sent=st.lists(datagrams, min_size=1, max_size=12),
    workers=st.integers(1, 3),
    order=st.randoms(use_true_random=False),
    repeated=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_datagrams_arrive_whole_in_whatever_order_their_parts_come(
    sent: list[Datagram], workers: int, order: Random, repeated: bool
) -> None:
    path = Path(workers)
    counts: Counter[tuple[int, int]] = Counter()
    parts = []
    for number, datagram in enumerate(sent, 1):
        counts[datagram[:2]] += 1
        parts += fragments(number, datagram, counts[datagram[:2]])
    parts += parts[: len(parts) // 2] if repeated else []
    order.shuffle(parts)
    for part in parts:
        path.send(order.randrange(workers), part)
        if order.random() < 0.3:
            path.release()
    path.release()
    arrived = []
    for (source, destination, protocol, _), data in path.receiver.datagrams():
        assert checksum_holds(source, destination, protocol, data)
        arrived.append((source, destination, protocol, data[8:]))
    wanted = [expected(number, datagram) for number, datagram in enumerate(sent, 1)]
    assert sorted(arrived, key=str) == sorted(wanted, key=str)
