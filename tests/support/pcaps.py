"""Captures as files that tcpdump and Wireshark read: pcapng, IP packets without their payload.

The length on the wire says how much payload there was. A super-packet's comment says how long its segments are, which
no field of the format does. Other programs' captures (pcap, pcapng) can be read too where they begin with IP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet
from scapy.utils import PcapNgWriter, rdpcap

from tests.support.feature_reference import Seen, ip_length, payload_length
from tests.support.feature_rig import without_sums

_COMMENT = "super-packet: segments of {} bytes"
_FIRST_US = 10**6  # time of the first packet as it is read


def write(path: Path, capture: Sequence[Seen]) -> None:
    """Write a capture, header by header; `path` ends in .pcapng."""
    with PcapNgWriter(str(path)) as writer:
        for seen in capture:
            length = ip_length(seen.packet)
            head = seen.packet.__class__(bytes(seen.packet)[: length - payload_length(seen.packet)])
            # Half a microsecond more, for scapy cuts off what a float falls short of.
            head.time = (seen.time_us + 0.5) / 10**6
            head.wirelen = length
            if seen.segment_size:
                head.comment = _COMMENT.format(seen.segment_size).encode()
            writer.write(head)


def read(path: Path, vip: str, port: int) -> list[Seen]:
    """Read a capture: the packets between a service's address and its clients. Payload is all zeros."""
    found: list[Seen] = []
    first = None
    for kept in rdpcap(str(path)):
        packet = _whole(kept)
        if packet is None or (vip, port) not in (
            (packet.dst, packet.payload.dport),
            (packet.src, packet.payload.sport),
        ):
            continue
        time_us = int(kept.time * 10**6)
        first = time_us if first is None else first
        from_client = (packet.dst, packet.payload.dport) == (vip, port)
        found.append(Seen(_FIRST_US + time_us - first, packet, from_client, _segment_size(kept)))
    return found


def service(path: Path) -> tuple[str, int, int]:
    """Address, port and protocol of the service that the first packet of a capture goes to."""
    packet = rdpcap(str(path), count=1)[0]
    return packet.dst, packet.payload.dport, 6 if TCP in packet else 17


def _whole(kept: Packet) -> Packet | None:
    """As it was on the wire, but for the contents; None for what is neither TCP nor UDP."""
    if not isinstance(kept, IP | IPv6) or not isinstance(kept.payload, TCP | UDP):
        return None
    data = bytes(kept)
    return without_sums(kept.__class__(data + bytes(ip_length(kept) - len(data))))


def _segment_size(kept: Packet) -> int:
    before, after = _COMMENT.split("{}")
    texts = [comment.decode() for comment in kept.comments or ()]
    return next((int(text.removeprefix(before).removesuffix(after)) for text in texts if text.startswith(before)), 0)
