"""Both ends of one TCP connection, played by a test through a subject of the conformance suite."""

from __future__ import annotations

from typing import Any

import penstock_core
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

from tests.support.dataplane import VIP_IPV4
from tests.support.subjects import Subject
from tests.support.wires import Seen, parse


def addressed(source: str, destination: str, **fields: Any) -> Packet:
    """An IP header of either version."""
    return (IPv6 if ":" in source else IP)(src=source, dst=destination, **fields)


def is_right(packet: Packet) -> bool:
    """Whether all lengths and checksums of a packet are what scapy makes of it."""
    again = packet.copy()
    layer = again
    while layer and not isinstance(layer, Raw):
        for field in ("chksum", "cksum", "len", "plen"):
            if field in layer.fields:
                del layer.fields[field]
        layer = layer.payload
    return bytes(again) == bytes(packet)


def inside(packet: Packet) -> Packet:
    """The packet in a GRE packet; any other one as it is."""
    if GRE not in packet:
        return packet
    data = penstock_core.decapsulate(bytes(packet))
    assert data is not None
    return parse(data)


class Talk:
    """A connection from a client's port to a VIP; it learns of its server by its first packet."""

    def __init__(
        self,
        subject: Subject,
        address: str = VIP_IPV4,
        port: int = 80,
        source_port: int = 40000,
        *,
        sequence: int = 1000,
    ) -> None:
        self._subject = subject
        lab = subject.lab
        client = lab.client_ipv6 if ":" in address else lab.client_ipv4
        self._header = addressed(client, address)
        self._ports = (source_port, port)
        self._sequence, self._server_sequence = sequence, 5000
        self._at_server: Packet | None = None
        self.server = ""

    def segment(self, flags: str, data: bytes = b"") -> Packet:
        """What the client would send next."""
        sport, dport = self._ports
        acknowledged = self._server_sequence if "A" in flags else 0
        tcp = TCP(sport=sport, dport=dport, flags=flags, seq=self._sequence, ack=acknowledged)
        return self._header / tcp / Raw(data)

    def client(self, flags: str, data: bytes = b"") -> Seen:
        """The client sends; returns what comes out."""
        seen = self._subject.send("client", self.segment(flags, data))
        self._sequence += len(data) + ("S" in flags) + ("F" in flags)
        if seen.place != "client":
            self._at_server = inside(seen.packet)
            self.server = seen.place
        return seen

    def answer(self, flags: str, data: bytes = b"") -> Packet:
        """What its server would send next."""
        asked = self._at_server
        assert asked is not None
        tcp = TCP(sport=asked[TCP].dport, dport=asked[TCP].sport, flags=flags)
        tcp.seq, tcp.ack = self._server_sequence, self._sequence
        return addressed(asked.dst, asked.src) / tcp / Raw(data)

    def serve(self, flags: str, data: bytes = b"") -> Seen:
        """The server sends; returns what comes out."""
        seen = self._subject.send(self.server, self.answer(flags, data))
        self._server_sequence += len(data) + ("S" in flags) + ("F" in flags)
        return seen

    def open(self) -> str:
        """Shake hands, where the server's way back is the balancer's too; returns the server's name."""
        self.client("S")
        self.serve("SA")
        self.client("A")
        return self.server

    def ask(self) -> str:
        """One question, unanswered; returns the name of the server that it went to."""
        return self.client("PA", b"question").place

    def close(self) -> None:
        """Both sides end."""
        self.client("FA")
        self.serve("FA")
        self.client("A")
