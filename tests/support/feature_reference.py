"""What the definition table says, once more and slowly: features of captured packets in plain Python.

`Features` is fed the packets of one backend as its clients' side sees them (client address and port, VIP), parsed by
scapy, and keeps every counter and every single sample. It shares nothing with the core: where the two differ, one of
them reads the definition table in lbrl/features.h wrongly.

Only what the table needs is here. Flows do not time out, every packet reaches the backend, and each TCP flow begins
with its SYN. With `one_way` the server's packets are to be left out of what is fed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet

SYN, FIN, RST, PSH, ACK = 2, 1, 4, 8, 16
ACTIVE_SECONDS = 30


class Seen(NamedTuple):
    """A packet on its way: `segment_size` is the payload of each segment of a super-packet, 0 for a plain packet."""

    time_us: int
    packet: Packet
    from_client: bool
    segment_size: int = 0


def distance(a: int, b: int) -> int:
    """Of sequence number or timestamp `a` behind `b`, negative when it lies before."""
    return (a - b + 0x80000000) % 0x100000000 - 0x80000000


@dataclass
class Side:
    """What one end of a connection has told: the next sequence number, its acknowledgement, its window."""

    end: int = 0
    ack: int = 0
    window: int = 0
    scale: int = 0
    closed: bool = False


@dataclass
class Flow:
    """A TCP connection or a UDP exchange."""

    start_us: int
    state: str  # syn, syn_ack, established, closing; udp, answered
    client: Side = field(default_factory=Side)
    server: Side = field(default_factory=Side)
    mss: int = 536
    questions: int = 0  # port 53: that have had no answer
    counted: bool = True
    completed: bool = False
    resting: bool = False  # both have closed, the server first or before it heard of the client's end
    bytes: int = 0
    last_us: int | None = None
    window: int = 0
    shaken: bool = False
    paid_us: int | None = None
    asked_us: int | None = None
    asked_end: int = 0
    asking: bool = False
    asked_again: bool = False
    answered: bool = False
    active: bool = False
    answer_ended: bool = False
    heard: int | None = None  # one-way: what the client has acknowledged


def payload_length(packet: Packet) -> int:
    """Bytes behind the transport header; scapy would count padding."""
    header: int = packet.ihl * 4 if packet.version == 4 else 40
    return ip_length(packet) - header - (packet[TCP].dataofs * 4 if TCP in packet else 8)


def ip_length(packet: Packet) -> int:
    length: int = packet.len if packet.version == 4 else packet.plen + 40
    return length


def option(packet: Packet, name: str) -> int | None:
    value: int | None = next((value for key, value in packet[TCP].options if key == name), None)
    return value


class Features:
    """Counters and samples of one backend on one worker."""

    def __init__(self, *, one_way: bool = False, dns: bool = False) -> None:
        self.one_way, self.dns = one_way, dns
        self.counters: Counter[str] = Counter()
        self.samples: defaultdict[str, list[float]] = defaultdict(list)
        self.flows: dict[tuple[str, int], Flow] = {}
        self.packet_us: int | None = None
        self.flow_us: int | None = None
        self.now_us = 0

    def wait(self, now_us: int) -> None:
        """Let time pass without a packet."""
        for gauge, integral in (("n_flow_on", "open_us"), ("n_active", "active_us")):
            self.counters[integral] += self.counters[gauge] * (now_us - self.now_us)
        self.now_us = now_us

    def see(self, seen: Seen) -> None:
        """Take note of one packet that is forwarded."""
        self.wait(seen.time_us)
        packet = seen.packet
        transport = TCP if TCP in packet else UDP
        key = (packet.src, packet[transport].sport) if seen.from_client else (packet.dst, packet[transport].dport)
        flow = self.flows.get(key)
        if transport is TCP:
            flags = int(packet[TCP].flags)
            if seen.from_client and flags & (SYN | ACK) == SYN and (flow is None or flow.state == "closing"):
                flow = self.flows[key] = self.open_tcp(seen)
                self.packet(flow, seen)
            elif flow is not None:
                self.packet(flow, seen)
                self.segment(flow, seen)
                if self.one_way and flow.state != "syn":
                    flow.server.ack = flow.client.end  # what the server will have acknowledged
        else:
            if flow is None:
                flow = self.flows[key] = self.open(seen, "udp")
            if self.dns:
                self.question(key, flow, seen)
                flow = self.flows[key]
            self.packet(flow, seen)
            self.datagram(flow, seen)

    def sample(self, channel: str, value: float) -> None:
        self.samples[channel].append(value)

    # ---- flows

    def open(self, seen: Seen, state: str) -> Flow:
        self.counters["l_assign"] += self.counters["n_flow_on"]
        self.counters["n_flow"] += 1
        self.counters["n_flow_on"] += 1
        if self.flow_us is not None:
            self.sample("iat_f", (seen.time_us - self.flow_us) / 1e6)
        self.flow_us = seen.time_us
        return Flow(seen.time_us, state)

    def open_tcp(self, seen: Seen) -> Flow:
        flow = self.open(seen, "syn")
        self.first_syn(flow, seen)
        flow.mss = option(seen.packet, "MSS") or 536
        if payload_length(seen.packet):
            self.ask(flow, seen, flow.client.end)
            self.set_active(flow, True)
        return flow

    def first_syn(self, flow: Flow, seen: Seen) -> None:
        tcp = seen.packet[TCP]
        flow.client.end = (tcp.seq + 1 + payload_length(seen.packet)) % 2**32
        flow.client.scale = min(option(seen.packet, "WScale") or 0, 14)
        flow.server.ack, flow.server.scale = tcp.seq, 0

    def close(self, flow: Flow) -> None:
        if flow.counted:
            flow.counted = False
            self.counters["n_flow_on"] -= 1
            self.set_active(flow, False)

    def count_again(self, flow: Flow) -> None:
        if not flow.counted:
            flow.counted = True
            self.counters["n_flow_on"] += 1

    def complete(self, flow: Flow, seen: Seen) -> None:
        if not flow.completed:
            flow.completed = True
            self.counters["n_fct"] += 1
            self.sample("fct", (seen.time_us - flow.start_us) / 1e6)
            self.sample("byte_f", flow.bytes)

    def set_active(self, flow: Flow, active: bool) -> None:
        self.counters["n_active"] += active - flow.active
        flow.active = active

    # ---- every packet

    def packet(self, flow: Flow, seen: Seen) -> None:
        packet, payload = seen.packet, payload_length(seen.packet)
        segments = -(-payload // seen.segment_size) if seen.segment_size and payload else 1
        self.counters["packets"] += segments
        self.counters["bytes"] += ip_length(packet)
        if payload:
            self.sample("flow_duration", (seen.time_us - flow.start_us) / 1e6)
        if not seen.from_client:
            self.counters["n_answer"] += segments if payload else 0
            return
        self.counters["n_packet"] += segments
        flow.bytes += ip_length(packet)
        headers = ip_length(packet) - payload
        self.sample("byte_p", headers + seen.segment_size if segments > 1 else ip_length(packet))
        if payload:
            self.sample("byte_f_on", flow.bytes)
        if self.packet_us is not None:
            self.sample("iat_p", (seen.time_us - self.packet_us) / 1e6 / segments)
        self.packet_us = seen.time_us
        if flow.last_us is not None:
            self.sample("iat_ppf", (seen.time_us - flow.last_us) / 1e6 / segments)
        if TCP in packet and not int(packet[TCP].flags) & RST:
            scale = 0 if int(packet[TCP].flags) & SYN else flow.client.scale
            window = packet[TCP].window << scale
            self.sample("win", window)
            if flow.last_us is not None:
                self.sample("d_win", window - flow.window)
            flow.window = window
        flow.last_us = seen.time_us

    # ---- questions and answers

    def ask(self, flow: Flow, seen: Seen, end: int) -> None:
        flow.paid_us = seen.time_us if flow.paid_us is None else flow.paid_us
        flow.asked_us, flow.asked_end, flow.asking = seen.time_us, end, True
        flow.answer_ended = False

    def answer(self, flow: Flow, seen: Seen) -> None:
        assert flow.asked_us is not None
        assert flow.paid_us is not None
        self.counters["n_turn"] += 1
        if not flow.asked_again:
            self.sample("pt_gen", (seen.time_us - flow.asked_us) / 1e6)
            if not flow.answered:
                self.sample("pt_1st", (seen.time_us - flow.paid_us) / 1e6)
        flow.answered, flow.asking, flow.asked_again = True, False, False

    # ---- TCP

    def segment(self, flow: Flow, seen: Seen) -> None:
        flags = int(seen.packet[TCP].flags)
        if flags & RST:
            self.reset(flow, seen)
        elif flags & SYN:
            self.syn(flow, seen)
        elif flow.state != "syn" or (self.one_way and seen.from_client):
            self.plain(flow, seen)

    def syn(self, flow: Flow, seen: Seen) -> None:
        tcp, has_ack = seen.packet[TCP], int(seen.packet[TCP].flags) & ACK
        if flow.state not in ("syn", "syn_ack"):
            if flow.state == "established" and not seen.from_client and has_ack:
                self.begin_anew(flow, seen)
            return
        if seen.from_client and not has_ack:
            self.syn_again(flow, seen)
        elif not seen.from_client and has_ack and (flow.state == "syn_ack" or self.acknowledges_syn(flow, tcp.ack)):
            if (tcp.ack - flow.server.ack) % 2**32 > (flow.client.end - flow.server.ack) % 2**32:
                flow.client.end = tcp.ack  # it took another SYN
            if flow.state == "syn":
                flow.mss = min(flow.mss, option(seen.packet, "MSS") or 536)
                self.handshake_answered(flow, seen)
            scale = option(seen.packet, "WScale")
            flow.client.scale = flow.client.scale if scale is not None else 0
            flow.client.ack = tcp.seq
            flow.server = Side(
                end=(tcp.seq + 1 + payload_length(seen.packet)) % 2**32,
                ack=tcp.ack,
                window=tcp.window,
                scale=min(scale or 0, 14),
            )
            flow.state = "syn_ack"

    def begin_anew(self, flow: Flow, seen: Seen) -> None:
        """The server takes a new connection over an established one, unless it repeats its SYN-ACK of that."""
        tcp = seen.packet[TCP]
        if (flow.client.end - tcp.ack) % 2**32 <= 0xFFFF and self.acceptable(flow, seen):
            return
        self.set_active(flow, False)
        scale = option(seen.packet, "WScale")
        end = (tcp.seq + 1 + payload_length(seen.packet)) % 2**32
        client = Side(tcp.ack, tcp.seq, flow.client.window, flow.client.scale if scale is not None else 0)
        server = Side(end, tcp.ack, tcp.window, min(scale or 0, 14))
        mss = option(seen.packet, "MSS") or 536
        vars(flow).update(vars(Flow(seen.time_us, "established", client, server, mss)))

    def syn_again(self, flow: Flow, seen: Seen) -> None:
        tcp = seen.packet[TCP]
        end = (tcp.seq + 1 + payload_length(seen.packet)) % 2**32
        self.count_again(flow)
        if flow.state == "syn_ack" and end != flow.client.end:
            return  # the server's next SYN-ACK says which it took
        flow.shaken = True
        flow.asked_again = flow.asked_again or flow.asking
        flow.asked_end = end
        if end == flow.client.end:
            self.counters["n_rtr"] += 1
        else:
            self.first_syn(flow, seen)

    @staticmethod
    def acknowledges_syn(flow: Flow, ack: int) -> bool:
        return (ack - flow.server.ack - 1) % 2**32 <= (flow.client.end - flow.server.ack - 1) % 2**32

    def handshake_answered(self, flow: Flow, seen: Seen) -> None:
        if not flow.shaken:
            self.sample("lat_synack", (seen.time_us - flow.start_us) / 1e6)
        flow.shaken = True

    def reset(self, flow: Flow, seen: Seen) -> None:
        """RFC 5961: a receiver believes the number that it wants, which is what it acknowledged or what was sent."""
        tcp = seen.packet[TCP]
        sender, receiver = (flow.client, flow.server) if seen.from_client else (flow.server, flow.client)
        half_open = flow.state in ("syn", "syn_ack")
        if flow.state == "syn" and not seen.from_client:
            credible = bool(int(tcp.flags) & ACK) and tcp.ack == flow.client.end
        elif half_open:
            credible = (tcp.seq - receiver.ack) % 2**32 <= (sender.end - receiver.ack) % 2**32
        else:
            credible = tcp.seq in (receiver.ack, sender.end)
        if not credible:
            return
        self.close(flow)
        if half_open and seen.from_client and not self.one_way:
            return  # among the half-open flows it stays
        flow.state = "closing"
        if half_open:
            flow.client.closed = flow.server.closed = True  # no data revives what never was open

    def acceptable(self, flow: Flow, seen: Seen) -> bool:
        """Whether the receiver may take the segment: it overlaps its window, or 64 KiB before or behind.

        One-way nobody tells the server's window: it may be the largest.
        """
        receiver = flow.server if seen.from_client else flow.client
        window = (0xFFFF if flow.resting else receiver.window) << receiver.scale | 0xFFFF
        window = 0xFFFF << 14 | 0xFFFF if self.one_way else window
        tcp = seen.packet[TCP]
        return (
            distance(tcp.seq, receiver.ack) <= window
            and distance(tcp.seq + payload_length(seen.packet), receiver.ack) >= -window
        )

    def confirms(self, flow: Flow, ack: int) -> bool:
        """Whether an acknowledgement of the client is of a SYN-ACK, which one-way nobody here has seen."""
        if self.one_way:
            return flow.state == "syn"
        seen = (ack - flow.client.ack - 1) % 2**32 < (flow.server.end - flow.client.ack) % 2**32
        return flow.state == "syn_ack" and seen

    def plain(self, flow: Flow, seen: Seen) -> None:
        tcp, payload = seen.packet[TCP], payload_length(seen.packet)
        sender, receiver = (flow.client, flow.server) if seen.from_client else (flow.server, flow.client)
        end = (tcp.seq + payload) % 2**32
        new = payload > 0 and distance(end, sender.end) > 0
        acceptable = self.acceptable(flow, seen)
        was_established = flow.state == "established"
        if seen.from_client and int(tcp.flags) & ACK and self.confirms(flow, tcp.ack):
            flow.state = "established"
            flow.client.ack = tcp.ack
            self.count_again(flow)
        elif seen.from_client and flow.state == "syn_ack":
            return  # a guess
        if not acceptable:
            return
        if flow.state == "closing" and new and not sender.closed and not flow.resting:
            flow.state = "established"
            self.count_again(flow)
        if seen.from_client:
            self.client_segment(flow, seen, new, was_established)
        else:
            self.server_segment(flow, seen)
        if not flow.resting:
            fin_end = (end + bool(int(tcp.flags) & FIN)) % 2**32
            if distance(fin_end, sender.end) > 0:
                sender.end = fin_end
            sent = self.one_way or distance(tcp.ack, receiver.end) <= 0
            if distance(tcp.ack, sender.ack) > 0 and sent:
                sender.ack = tcp.ack
            sender.window = tcp.window
        if int(tcp.flags) & FIN and flow.state != "syn_ack":
            self.fin(flow, seen, sender)

    def client_segment(self, flow: Flow, seen: Seen, new: bool, was_established: bool) -> None:
        tcp, payload = seen.packet[TCP], payload_length(seen.packet)
        keep_alive = payload == 1 and (tcp.seq + 1) % 2**32 == flow.client.end
        if self.one_way:
            self.handshake_answered(flow, seen)
            self.acknowledge(flow, seen)
        elif flow.active and flow.answer_ended and distance(tcp.ack, flow.server.end) >= 0:
            self.set_active(flow, False)
        if flow.state == "established" and payload:
            if distance(tcp.seq, flow.client.end) > 0:
                self.counters["n_ooo"] += 1
            elif not new and not keep_alive:
                self.counters["n_rtr"] += 1
        elif was_established and not int(tcp.flags) & FIN:
            again = (tcp.seq, tcp.ack, tcp.window) == (flow.client.end, flow.client.ack, flow.client.window)
            self.counters["n_dpk"] += again
        if new:
            self.ask(flow, seen, (tcp.seq + payload) % 2**32)
            if flow.state != "closing":
                self.set_active(flow, True)
        elif payload and flow.asking and not keep_alive:
            flow.asked_again = True

    def acknowledge(self, flow: Flow, seen: Seen) -> None:
        """One-way: the client tells of an answer by acknowledging more."""
        ack = seen.packet[TCP].ack
        if flow.heard is None:
            flow.heard = ack
        elif distance(ack, flow.heard) > 0:
            flow.heard = ack
            if flow.asking:
                self.answer(flow, seen)

    def server_segment(self, flow: Flow, seen: Seen) -> None:
        tcp, payload = seen.packet[TCP], payload_length(seen.packet)
        flags = int(tcp.flags)
        end = tcp.seq + payload + bool(flags & FIN)
        if distance(end, flow.server.end) <= 0:
            return
        if payload and flow.asking and distance(tcp.ack, flow.asked_end) >= 0:
            self.answer(flow, seen)
        options = tcp.dataofs * 4 - 20
        if seen.segment_size and payload > seen.segment_size:
            short = payload % seen.segment_size != 0
        else:
            short = payload + options < flow.mss
        flow.answer_ended = not flow.asking and bool(flags & (PSH | FIN) or short)

    def fin(self, flow: Flow, seen: Seen, sender: Side) -> None:
        other = flow.server if seen.from_client else flow.client
        if sender.closed:
            return
        sender.closed = True
        if other.closed or self.one_way:
            self.complete(flow, seen)
            unheard = distance(seen.packet[TCP].ack, other.end) < 0
            flow.resting = (seen.from_client or unheard) and not self.one_way
        flow.state = "closing"
        self.close(flow)

    # ---- UDP

    def question(self, key: tuple[str, int], flow: Flow, seen: Seen) -> None:
        """Port 53: as many answers as questions end the flow, another question begins it anew."""
        size, segment = len(seen.packet[UDP].payload), seen.segment_size
        datagrams = -(-size // segment) if segment and size else 1
        if seen.from_client:
            if flow.state == "answered":
                flow = self.flows[key] = Flow(seen.time_us, "udp")
                self.counters["n_flow_on"] += 1
            flow.questions += datagrams
            return
        flow.questions = max(flow.questions - datagrams, 0)
        if flow.state != "answered" and flow.questions == 0:
            self.complete(flow, seen)
            flow.state = "answered"
            self.close(flow)

    def datagram(self, flow: Flow, seen: Seen) -> None:
        if seen.from_client:
            self.ask(flow, seen, 0)
        elif flow.asking:
            self.answer(flow, seen)
