"""Captures made up from small steps: what two ends of a connection send, and what a network does to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from tests.support.feature_reference import Seen

VIPS = {4: "203.0.113.10", 6: "fd00:1::10"}
CLIENTS = {4: "198.51.100.7", 6: "fd00:5::7"}
PORT = 80
MSS = 400  # small segments keep captures small


@dataclass
class Conversation:
    """One TCP connection: methods append what an end sends. Sequence numbers may begin just before their wrap."""

    client_port: int
    family: int = 4
    client_next: int = 1000
    server_next: int = 9000
    scale: int | None = 7
    clock: int = 2**32 - 50  # of the timestamps, also before its wrap
    window: int = 500
    sent: list[tuple[Packet, bool, int]] = field(default_factory=list)

    def client(self, flags: str, payload: int = 0, *, segment: int = 0, **changes: int) -> None:
        """A segment of the client; `changes` replace header fields without moving anything on."""
        fields = {"seq": self.client_next, "ack": self.server_next, "window": self.window} | changes
        if "A" not in flags:
            fields["ack"] = 0
        self._append(True, flags, payload, segment, fields)
        if "seq" not in changes:
            self.client_next = (self.client_next + payload + ("S" in flags or "F" in flags)) % 2**32

    def server(self, flags: str, payload: int = 0, *, segment: int = 0, **changes: int) -> None:
        """The same of the server."""
        fields = {"seq": self.server_next, "ack": self.client_next, "window": 700} | changes
        self._append(False, flags, payload, segment, fields)
        if "seq" not in changes:
            self.server_next = (self.server_next + payload + ("S" in flags or "F" in flags)) % 2**32

    def _append(self, from_client: bool, flags: str, payload: int, segment: int, fields: dict[str, int]) -> None:
        self.clock = (self.clock + 3) % 2**32
        options: list[tuple[str, object]] = [("NOP", None), ("NOP", None), ("Timestamp", (self.clock, self.clock - 1))]
        if "S" in flags:
            options = [("MSS", MSS), *([("NOP", None), ("WScale", self.scale)] if self.scale is not None else [])]
        ports = (self.client_port, PORT) if from_client else (PORT, self.client_port)
        ends = (CLIENTS[self.family], VIPS[self.family])
        src, dst = ends if from_client else ends[::-1]
        ip = IP(src=src, dst=dst) if self.family == 4 else IPv6(src=src, dst=dst)
        wrapped: dict[str, Any] = {name: value % 2**32 for name, value in fields.items()}
        tcp = TCP(sport=ports[0], dport=ports[1], flags=flags, options=options, **wrapped)
        packet = ip.__class__(bytes(ip / tcp / Raw(b"x" * payload)))
        self.sent.append((packet, from_client, segment if payload > segment else 0))

    def open(self) -> None:
        self.client("S")
        self.server("SA")
        self.client("A")

    def step(self, name: str) -> None:
        """One of STEPS."""
        getattr(self, f"_{name}")()

    def _request(self) -> None:
        self.client("PA", 120)

    def _long_request(self) -> None:
        self.client("A", MSS - 12)
        self.client("PA", 50)

    def _answer(self) -> None:
        self.server("PA", 200)

    def _full_segment(self) -> None:
        self.server("A", MSS - 12)

    def _short_segment(self) -> None:
        self.server("A", MSS - 13)

    def _client_ack(self) -> None:
        self.client("A")

    def _server_ack(self) -> None:
        self.server("A")

    def _client_repeats(self) -> None:
        self.client("PA", 120, seq=self.client_next - 120)

    def _server_repeats(self) -> None:
        self.server("PA", 200, seq=self.server_next - 200)

    def _overlap(self) -> None:
        self.client("PA", 120, seq=self.client_next - 60)
        self.client_next = (self.client_next + 60) % 2**32

    def _gap(self) -> None:
        self.client_next = (self.client_next + 30) % 2**32
        self.client("PA", 120)

    def _keep_alive(self) -> None:
        self.client("A", 1, seq=self.client_next - 1)
        self.server("A")

    def _empty_keep_alive(self) -> None:
        self.client("A", 0, seq=self.client_next - 1)

    def _zero_window(self) -> None:
        self.window = 0
        self.client("A")

    def _window_opens(self) -> None:
        self.window = 900
        self.client("A")

    def _super_request(self) -> None:
        self.client("PA", 950, segment=300)

    def _super_answer(self) -> None:
        self.server("A", 900, segment=300)

    def _short_super_answer(self) -> None:
        self.server("A", 901, segment=300)

    def _client_fin(self) -> None:
        self.client("FA")

    def _server_fin(self) -> None:
        self.server("PFA", 80)

    def _both_fin(self) -> None:
        theirs = self.server_next
        self.server("FA")
        self.client("FA", ack=theirs)

    def _client_reset(self) -> None:
        self.client("RA")

    def _server_reset(self) -> None:
        self.server("RA")

    def _blind_reset(self) -> None:
        self.client("R", seq=self.client_next + 2**30)

    def _syn_again(self) -> None:
        self.client("S", seq=self.client_next - 1)

    def _old_segment(self) -> None:
        self.client("PA", 10, seq=self.client_next - 2**30)


STEPS = sorted(name[1:] for name in vars(Conversation) if name.startswith("_") and name.strip("_") == name[1:])
STEPS = [name for name in STEPS if name != "append"]
OPENINGS = ["open", "fast open", "fast open twice", "refused fast open", "syn twice", "half open", "new attempt"]


def begin(conversation: Conversation, opening: str) -> None:
    """The handshake, in one of OPENINGS."""
    c = conversation
    if opening == "open":
        c.open()
    elif opening.startswith("fast open"):
        c.client("S", 100)
        if opening == "fast open twice":
            c.client("S", 100, seq=c.client_next - 101)
        c.server("SA")
        c.server("PA", 60)
        c.client("A")
    elif opening == "refused fast open":
        c.client("S", 100)
        c.server("SA", ack=c.client_next - 100)
        c.client("PA", 100, seq=c.client_next - 100)
    elif opening == "syn twice":
        c.client("S")
        c.client("S", seq=c.client_next - 1)
        c.server("SA")
        c.server("SA", seq=c.server_next - 1)
        c.client("A")
    elif opening == "half open":
        c.client("S")
    elif opening == "new attempt":
        c.client("S")
        c.client_next = (c.client_next + 5000) % 2**32
        c.open()


@st.composite
def tcp_captures(draw: st.DrawFn) -> list[Seen]:
    """Up to three connections of a client, interleaved; packets may be overtaken, lost or doubled on the way."""
    family = draw(st.sampled_from([4, 6]))
    queues = []
    for number in range(draw(st.integers(1, 3))):
        conversation = Conversation(
            40000 + number,
            family,
            draw(st.sampled_from([1000, 2**32 - 1, 2**32 - 200])),
            draw(st.sampled_from([9000, 2**32 - 3, 2**32 - 500])),
            draw(st.sampled_from([None, 0, 7])),
        )
        begin(conversation, draw(st.sampled_from(OPENINGS)))
        for step in draw(st.lists(st.sampled_from(STEPS), max_size=14)):
            conversation.step(step)
        if draw(st.booleans()):  # the same port again
            conversation.client_next = (conversation.client_next + 70000) % 2**32
            begin(conversation, "open")
        queues.append(conversation.sent)
    packets = []
    while any(queues):
        packets.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(packets) - 1))
        match draw(st.sampled_from(["overtake", "lose", "double"])):
            case "overtake":
                packets[place : place + 2] = packets[place : place + 2][::-1]
            case "lose" if len(packets) > 1:
                del packets[place]
            case "double":
                packets.insert(place, packets[place])
    return timed(draw, packets)


def timed(draw: st.DrawFn, packets: list[tuple[Packet, bool, int]]) -> list[Seen]:
    """Gives packets times, some of them the same."""
    now_us = 5_000_000
    capture = []
    for packet, from_client, segment in packets:
        now_us += draw(st.sampled_from([0, 1, 150, 20_000, 1_000_000]))
        capture.append(Seen(now_us, packet, from_client, segment))
    return capture


@st.composite
def udp_captures(draw: st.DrawFn, port: int) -> list[Seen]:
    """Datagrams of two clients and their answers; some are USO super-packets."""
    packets: list[tuple[Packet, bool, int]] = []
    for _ in range(draw(st.integers(1, 25))):
        client = draw(st.integers(41000, 41001))
        from_client = draw(st.booleans())
        size = draw(st.sampled_from([0, 30, 900]))
        segment = draw(st.sampled_from([0, 400])) if size == 900 else 0
        src, dst = (CLIENTS[4], VIPS[4]) if from_client else (VIPS[4], CLIENTS[4])
        sport, dport = (client, port) if from_client else (port, client)
        packet = IP(bytes(IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / Raw(b"u" * size)))
        packets.append((packet, from_client, segment))
    return timed(draw, packets)
