"""The packet path against a plain model: a dictionary of flows, and scapy's own arithmetic for every checksum."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, NamedTuple

import penstock_core
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

VIPS = {4: "203.0.113.10", 6: "fd00:1::10"}
SOURCES = {4: "192.0.2.1", 6: "fd00:9::1"}
PORTS = (16384, 28671)
TCP_PORT, UDP_PORT, BACKEND_PORT = 80, 5000, 8080

families = st.sampled_from([4, 6])
clients = st.integers(1, 6)
client_ports = st.integers(40000, 40005)
payloads = st.binary(max_size=60)
backend_states = st.sampled_from(["active", "active", "draining", "failed", "unready"])


def packed(address: str) -> bytes:
    return ip_address(address).packed


def backend_address(family: int, number: int) -> str:
    return f"10.0.{number // 256}.{number % 256}" if family == 4 else f"fd00:2::{number:x}"


def client_address(family: int, number: int) -> str:
    return f"198.51.100.{number}" if family == 4 else f"fd00:5::{number:x}"


def ip(family: int, **fields: Any) -> Packet:
    return IP(**fields) if family == 4 else IPv6(**fields)


def parse(data: bytes) -> Packet:
    return (IP if data[0] >> 4 == 4 else IPv6)(data)


def assert_checksums_right(packet: Packet) -> None:
    """Lets scapy compute every checksum again and compares."""
    again = packet.copy()
    layer: Packet | None = again
    while layer:
        for field in ("chksum", "cksum"):
            if field in layer.fields and not isinstance(layer, Raw):
                del layer.fields[field]
        layer = layer.payload if layer.payload else None
    assert bytes(again) == bytes(packet)


class Flow(NamedTuple):
    backend: str
    source: str
    nat_port: int


class Key(NamedTuple):
    family: int
    client: str
    client_port: int
    protocol: int


def make_core(**options: Any) -> penstock_core.Core:
    core = penstock_core.Core(flows=4096, seed=bytes(range(32)), **options)
    core.set_sources([(packed(source), *PORTS) for source in SOURCES.values()])
    return core


class PacketPath(RuleBasedStateMachine):
    """Clients talk to one TCP and one UDP VIP per family while backends come and go."""

    @initialize(scheduler=st.sampled_from(["maglev", "sed", "lsq"]), affinity=st.booleans())
    def start(self, scheduler: str, affinity: bool) -> None:
        self.core = make_core()
        self.now = 1_000_000
        self.silent_until = 0
        self.scheduler, self.affinity = scheduler, affinity
        self.flows: dict[Key, Flow] = {}
        self.sequence: dict[Key, tuple[int, int]] = {}
        self.states: dict[int, str] = {}
        self.identifications: set[int] = set()
        self.configure({1: "active", 2: "active", 3: "active"})

    def configure(self, states: dict[int, str]) -> None:
        self.states = states
        for family, address in VIPS.items():
            backends = [
                penstock_core.Backend(n, packed(backend_address(family, n)), BACKEND_PORT, state)
                for n, state in states.items()
            ]
            for protocol, port in ((6, TCP_PORT), (17, UDP_PORT)):
                self.core.set_vip(
                    family * 100 + protocol,
                    [packed(address)],
                    port,
                    protocol,
                    backends,
                    scheduler=self.scheduler,
                    client_affinity=self.affinity,
                    now_us=self.now,
                )

    def run(self, packet: Packet) -> penstock_core.Packet:
        self.now += 100
        (result,) = self.core.process([penstock_core.Packet(bytes(packet))], self.now)
        return result

    def state_of(self, flow: Flow) -> str | None:
        for number, state in self.states.items():
            if flow.backend in (backend_address(4, number), backend_address(6, number)):
                return state
        return None

    def expect_to_server(self, key: Key, sent: Packet, result: penstock_core.Packet) -> None:
        """Checks a forwarded packet of a client and learns or confirms its flow."""
        out = parse(result.data)
        transport = TCP if key.protocol == 6 else UDP
        flow = Flow(out.dst, out.src, out[transport].sport)
        known = self.flows.get(key)
        if known is not None:
            assert flow == known, "a flow keeps its backend and port"
        else:
            assert self.state_of(flow) == "active"
            assert flow.source == SOURCES[key.family]
            assert PORTS[0] <= flow.nat_port <= PORTS[1]
            others = {(f.backend, f.nat_port) for k, f in self.flows.items() if k.protocol == key.protocol}
            assert (flow.backend, flow.nat_port) not in others, "ports towards a backend are its flows' own"
            if self.affinity:
                mates = {f.backend for k, f in self.flows.items() if k[:2] == key[:2] and self.state_of(f) == "active"}
                self.mates_agree(mates, flow)
            self.flows[key] = flow
        assert out[transport].dport == BACKEND_PORT
        assert bytes(out[transport].payload) == bytes(sent[transport].payload)
        self.expect_headers(sent, out)

    def mates_agree(self, mates: set[str], flow: Flow) -> None:
        # flows from before a change of backends may be elsewhere: consistent hashing moves few, not none
        if len(mates) == 1 and not self.changed:
            assert flow.backend in mates

    changed = False

    def expect_headers(self, sent: Packet, out: Packet) -> None:
        if isinstance(sent, IP):
            assert out.ttl == sent.ttl - 1
            assert (out.tos, out.flags) == (sent.tos, sent.flags)
            if sent.flags == "DF":
                assert out.id == sent.id
            else:
                assert out.id not in self.identifications, "packets that may be cut are told apart"
                self.identifications.add(out.id)
        else:
            assert out.hlim == sent.hlim - 1
            assert (out.tc, out.fl) == (sent.tc, sent.fl)
        assert_checksums_right(out)

    def expect_refusal(self, sent: Packet, result: penstock_core.Packet) -> None:
        """Nobody takes new flows: the client is told, but for a while after a restart."""
        silent = self.now < self.silent_until
        assert (result.verdict, result.reason) == ("drop" if silent else "reply", "no_backend")
        if silent:
            return
        answer = parse(result.data)
        assert (answer.src, answer.dst) == (sent.dst, sent.src)
        assert_checksums_right(answer)
        if TCP in sent:
            assert (answer[TCP].flags, answer[TCP].ack) == ("RA", sent[TCP].seq + 1)
        else:
            unreachable = (3, 3) if sent.version == 4 else (1, 4)
            assert (answer.payload.type, answer.payload.code) == unreachable

    def client_packet(self, key: Key, transport: Packet) -> Packet:
        flags = "DF" if key.client_port % 2 else 0
        fields = {"tos": 0xB9, "id": 77, "flags": flags} if key.family == 4 else {"tc": 0xB9, "fl": 5}
        return parse(bytes(ip(key.family, src=key.client, dst=VIPS[key.family], **fields) / transport))

    @rule(family=families, client=clients, port=client_ports)
    def tcp_opens(self, family: int, client: int, port: int) -> None:
        key = Key(family, client_address(family, client), port, 6)
        if key in self.flows:
            return
        syn = self.client_packet(key, TCP(sport=port, dport=TCP_PORT, flags="S", seq=1000))
        result = self.run(syn)
        if "active" not in self.states.values():
            self.expect_refusal(syn, result)
            return
        assert result.verdict == "forward"
        self.expect_to_server(key, syn, result)
        flow = self.flows[key]
        self.from_server(key, TCP(sport=BACKEND_PORT, dport=flow.nat_port, flags="SA", seq=9000, ack=1001))
        ack = self.client_packet(key, TCP(sport=port, dport=TCP_PORT, flags="A", seq=1001, ack=9001))
        assert self.run(ack).verdict == "forward"
        self.sequence[key] = (1001, 9001)

    def from_server(self, key: Key, transport: Packet) -> None:
        """A packet of the flow's backend must come out as the VIP's, to the client."""
        flow = self.flows[key]
        sent = parse(bytes(ip(key.family, src=flow.backend, dst=flow.source) / transport))
        result = self.run(sent)
        assert result.verdict == "forward"
        out = parse(result.data)
        layer = TCP if key.protocol == 6 else UDP
        assert (out.src, out.dst) == (VIPS[key.family], key.client)
        assert (out[layer].sport, out[layer].dport) == (TCP_PORT if layer is TCP else UDP_PORT, key.client_port)
        assert bytes(out[layer].payload) == bytes(sent[layer].payload)
        self.expect_headers(sent, out)

    @rule(data=st.data(), payload=payloads, reply=payloads)
    def tcp_talks(self, data: st.DataObject, payload: bytes, reply: bytes) -> None:
        keys = [key for key in self.flows if key.protocol == 6]
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        flow = self.flows[key]
        mine, theirs = self.sequence[key]
        sent = self.client_packet(
            key, TCP(sport=key.client_port, dport=TCP_PORT, flags="PA", seq=mine, ack=theirs) / Raw(payload)
        )
        result = self.run(sent)
        if self.state_of(flow) == "failed":
            assert (result.verdict, result.reason) == ("reply", "backend_failed")
            answer = parse(result.data)
            assert answer[TCP].flags == "R"
            assert answer[TCP].seq == theirs
            assert_checksums_right(answer)
            del self.flows[key]
            return
        assert result.verdict == "forward"
        self.expect_to_server(key, sent, result)
        mine += len(payload)
        self.from_server(
            key, TCP(sport=BACKEND_PORT, dport=flow.nat_port, flags="PA", seq=theirs, ack=mine) / Raw(reply)
        )
        self.sequence[key] = (mine, theirs + len(reply))

    @rule(family=families, client=clients, port=client_ports, payload=payloads, reply=st.none() | payloads)
    def udp_asks(self, family: int, client: int, port: int, payload: bytes, reply: bytes | None) -> None:
        key = Key(family, client_address(family, client), port, 17)
        known = self.flows.get(key)
        moves = self.state_of(known) if known else None
        if moves == "failed" or (moves == "gone" and "active" in self.states.values()):
            del self.flows[key]  # a failed backend is replaced at once, one that is gone if there is another
        sent = self.client_packet(key, UDP(sport=port, dport=UDP_PORT) / Raw(payload))
        result = self.run(sent)
        if key not in self.flows and "active" not in self.states.values():
            self.expect_refusal(sent, result)
            return
        assert result.verdict == "forward"
        self.expect_to_server(key, sent, result)
        if reply is not None:
            self.from_server(key, UDP(sport=BACKEND_PORT, dport=self.flows[key].nat_port) / Raw(reply))

    @rule(data=st.data())
    def packet_too_big(self, data: st.DataObject) -> None:
        """A router behind us cannot take a client's segment: the error reaches the client, about its own packet."""
        keys = [key for key in self.flows if key.protocol == 6]
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        flow = self.flows[key]
        quoted = ip(key.family, src=flow.source, dst=flow.backend) / TCP(
            sport=flow.nat_port, dport=BACKEND_PORT, flags="A", seq=5
        )
        error: Packet
        if key.family == 4:
            error = IP(src="10.200.0.1", dst=flow.source) / ICMP(type=3, code=4, nexthopmtu=1400) / quoted
        else:
            error = IPv6(src="fd00:200::1", dst=flow.source) / ICMPv6PacketTooBig(mtu=1400) / quoted
        result = self.run(error)
        assert result.verdict == "forward"
        out = parse(result.data)
        assert (out.src, out.dst) == (VIPS[key.family], key.client)
        offset = 28 if key.family == 4 else 48
        inner = parse(result.data[offset:])
        assert (inner.src, inner.dst) == (key.client, VIPS[key.family])
        assert (inner[TCP].sport, inner[TCP].dport) == (key.client_port, TCP_PORT)
        assert_checksums_right(inner)
        outer = parse(result.data)
        icmp = outer.payload
        (again := icmp.copy()).fields.pop("chksum" if key.family == 4 else "cksum")
        rebuilt = parse(bytes(ip(key.family, src=outer.src, dst=outer.dst) / again))
        field = "chksum" if key.family == 4 else "cksum"
        assert getattr(rebuilt.payload, field) == getattr(icmp, field)

    @rule(states=st.dictionaries(st.integers(1, 5), backend_states, max_size=5))
    def backends_change(self, states: dict[int, str]) -> None:
        # the flows of a backend that is gone from the list go on, unless it had failed before
        gone = {n: state for n, state in self.states.items() if n not in states}
        self.changed = True
        self.configure(dict(states))
        self.states |= {n: "failed" if state == "failed" else "gone" for n, state in gone.items()}

    @rule()
    def process_restarts(self) -> None:
        self.core = penstock_core.Core(flows=4096, seed=bytes(32), now_us=self.now, arena=self.core.arena())
        self.identifications.clear()
        assert self.core.report["status"] == "attached"
        self.silent_until = self.now + 5_000_000
        assert self.core.report["flows_dropped"] == 0

    @invariant()
    def table_agrees(self) -> None:
        if not hasattr(self, "core"):
            return
        held = {
            (str(ip_address(f.client)), f.client_port, f.protocol): Flow(
                str(ip_address(f.backend)), str(ip_address(f.source)), f.nat_port
            )
            for f in self.core.flows(self.now)
        }
        for key, flow in self.flows.items():
            assert held[(str(ip_address(key.client)), key.client_port, key.protocol)] == flow._replace(
                backend=str(ip_address(flow.backend)), source=str(ip_address(flow.source))
            )


TestPacketPath = PacketPath.TestCase
TestPacketPath.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


class Forger:
    """A TCP connection through a core, and somebody who knows its ports but sees none of its packets."""

    ISN, ISS = 1000, 3_000_000_000

    def __init__(self) -> None:
        self.core = make_core()
        self.now = 1_000_000
        backends = [penstock_core.Backend(1, packed(backend_address(4, 1)), BACKEND_PORT)]
        self.core.set_vip(1, [packed(VIPS[4])], TCP_PORT, 6, backends, now_us=self.now)

    def client(self, flags: str, seq: int, ack: int = 0, payload: int = 0) -> penstock_core.Packet:
        tcp = TCP(sport=4000, dport=TCP_PORT, flags=flags, seq=seq % 2**32, ack=ack % 2**32)
        packet = IP(src="198.51.100.1", dst=VIPS[4]) / tcp / Raw(bytes(payload))
        (result,) = self.core.process([penstock_core.Packet(bytes(packet))], self.now)
        return result

    def server(self, flags: str, seq: int, ack: int, payload: int = 0) -> None:
        (flow,) = self.core.flows(self.now)
        tcp = TCP(sport=BACKEND_PORT, dport=flow.nat_port, flags=flags, seq=seq % 2**32, ack=ack % 2**32)
        packet = IP(src=backend_address(4, 1), dst=SOURCES[4]) / tcp / Raw(bytes(payload))
        (result,) = self.core.process([penstock_core.Packet(bytes(packet))], self.now)
        assert result.verdict == "forward"

    def states(self) -> list[str]:
        return [flow.state for flow in self.core.flows(self.now)]

    def open(self) -> None:
        self.client("S", self.ISN)
        self.server("SA", self.ISS, self.ISN + 1)
        self.client("A", self.ISN + 1, self.ISS + 1)
        assert self.states() == ["established"]

    def wait(self, seconds: int) -> None:
        self.now += seconds * 1_000_000
        self.core.tick(self.now)

    def expect_followed(self) -> None:
        """Both ends go on, and the flow with either of them."""
        mine, theirs = self.ISN + 1, self.ISS + 1
        for _ in range(3):
            self.wait(20)
            self.client("PA", mine, theirs, 30)
            assert [flow.idle_ms for flow in self.core.flows(self.now)] == [0]
            mine += 30
            self.wait(20)
            self.server("PA", theirs, mine, 30)
            assert [flow.idle_ms for flow in self.core.flows(self.now)] == [0]
            theirs += 30
        assert self.states() == ["established"]


guesses = st.integers(0, 2**32 - 1) | st.integers(990, 1100)
forged = st.tuples(st.sampled_from(["S", "R", "RA", "A", "PA", "FA", "SA", ""]), guesses, guesses, st.integers(0, 20))


@given(segments=st.lists(forged, max_size=30), answered=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_flow_is_established_by_who_saw_the_servers_answer_only(
    segments: list[tuple[str, int, int, int]], answered: bool
) -> None:
    forger = Forger()
    forger.client("S", Forger.ISN)
    if answered:
        forger.server("SA", Forger.ISS, Forger.ISN + 1)
    for flags, seq, ack, payload in segments:
        if ack != Forger.ISS + 1:
            forger.client(flags, seq, ack, payload)
            assert set(forger.states()) <= {"syn", "syn_ack"}, "what is half open stays in its pool"
    if not answered:
        forger.client("S", Forger.ISN)
    forger.open()
    forger.expect_followed()


@given(segments=st.lists(forged, max_size=30))
@settings(max_examples=100, deadline=None)
def test_an_established_flow_is_not_moved_by_who_does_not_know_its_numbers(
    segments: list[tuple[str, int, int, int]],
) -> None:
    forger = Forger()
    forger.open()
    for flags, seq, ack, payload in segments:
        near = (seq - Forger.ISN + 2**17) % 2**32 < 2**18
        exact = seq == Forger.ISN + 1  # neither side has sent anything yet
        if not ((near and "F" in flags) or (exact and "R" in flags)):  # those may be true
            forger.client(flags, seq, ack, payload)
            assert forger.states() == ["established"]
    forger.expect_followed()


@given(payload=st.binary(max_size=200), sport=st.integers(1, 65535), zero=st.booleans())
@settings(max_examples=60, deadline=None)
def test_udp_checksum_is_right_or_absent(payload: bytes, sport: int, zero: bool) -> None:
    core = make_core()
    core.set_vip(1, [packed(VIPS[4])], UDP_PORT, 17, [penstock_core.Backend(1, b"\x0a\0\0\1", 8080)], now_us=1)
    sent = IP(src="198.51.100.1", dst=VIPS[4]) / UDP(sport=sport, dport=UDP_PORT) / Raw(payload)
    if zero:
        sent[UDP].chksum = 0
    (result,) = core.process([penstock_core.Packet(bytes(sent))], 2_000_000)
    out = IP(result.data)
    if zero:
        assert out[UDP].chksum == 0
    else:
        assert_checksums_right(out)


@given(packets=st.lists(st.binary(max_size=120), max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_bytes_end_in_one_counted_verdict(packets: list[bytes]) -> None:
    core = make_core()
    results = core.process([penstock_core.Packet(p) for p in packets], 2_000_000)
    stats = core.stats()
    assert stats["packets"] == len(packets)
    assert sum(stats["dropped"].values()) == sum(r.verdict in ("drop", "pass") for r in results)
    assert {r.verdict for r in results} <= {"drop", "pass"}


def test_reference_of_partitions_is_the_nat_port() -> None:
    core = make_core(workers=4)
    core.set_vip(1, [packed(VIPS[4])], TCP_PORT, 6, [penstock_core.Backend(1, b"\x0a\0\0\1", 8080)], now_us=1)
    for port in range(2000, 2064):
        syn = bytes(IP(src="198.51.100.1", dst=VIPS[4]) / TCP(sport=port, dport=TCP_PORT, flags="S"))
        (first,) = core.process([penstock_core.Packet(syn)], 2_000_000, worker=0)
        if first.verdict == "handover":
            assert first.data == syn
            (first,) = core.process([penstock_core.Packet(syn)], 2_000_000, worker=first.worker)
        assert first.verdict == "forward"
    for flow in core.flows(2_000_000):
        assert flow.nat_port % 64 == flow.partition


def test_arguments_are_checked() -> None:
    core = make_core()
    with pytest.raises(ValueError, match="seed: must have 32 bytes"):
        penstock_core.Core(seed=b"x")
    with pytest.raises(ValueError, match="out of range"):
        penstock_core.Core(flows=1, seed=bytes(32))
    with pytest.raises(ValueError, match="scheduler: must be"):
        core.set_vip(1, [b"\1\2\3\4"], 80, 6, [], scheduler="best", now_us=1)
    with pytest.raises(ValueError, match="address: must have 4 or 16"):
        core.set_vip(1, [b"\1\2\3"], 80, 6, [], now_us=1)
    with pytest.raises(ValueError, match="at most 256"):
        core.process([penstock_core.Packet(b"")] * 257, 1)
    with pytest.raises(ValueError, match="worker"):
        core.process([], 1, worker=1)
    with pytest.raises(ValueError, match="there is no such VIP"):
        core.remove_vip(5, 1)
    with pytest.raises(ValueError, match="state: must be"):
        penstock_core.Backend(1, b"\1\2\3\4", 80, "sleepy")
    with pytest.raises(ValueError, match="another size"):
        penstock_core.Core(flows=8192, seed=bytes(32), arena=core.arena())


def test_import_and_weights() -> None:
    old = make_core()
    old.set_node(bytes(16), 3)
    backends = [penstock_core.Backend(n, packed(backend_address(4, n)), 8080) for n in (1, 2)]
    old.set_vip(1, [packed(VIPS[4])], TCP_PORT, 6, backends, scheduler="sed", now_us=1)
    old.set_weights(1, [1.0, 4.0], bytes([1, 1]))
    syn = IP(src="198.51.100.1", dst=VIPS[4]) / TCP(sport=4000, dport=TCP_PORT, flags="S")
    (first,) = old.process([penstock_core.Packet(bytes(syn))], 2_000_000)
    new = penstock_core.Core(flows=1024, seed=bytes(32))
    new.import_arena(old.arena(), 2_000_000)
    assert new.report == {"status": "imported", "vips": 1, "flows": 1, "flows_dropped": 0, "version": 2}
    (again,) = new.process([penstock_core.Packet(bytes(syn))], 2_000_100)
    assert IP(again.data)[TCP].sport == IP(first.data)[TCP].sport
    assert IP(again.data).dst == IP(first.data).dst
    assert new.vip_ids() == [1]
    assert [b["weight"] for b in old.vip_status(1)["backends"]] == [1.0, 4.0]
    old.reset_weights(1)
    assert [b["weight"] for b in old.vip_status(1)["backends"]] == [1.0, 1.0]
    new.remove_vip(1, 2_000_200)
    for tick in range(40):
        new.tick(3_000_000 + tick * 500_000)
    assert new.vip_ids() == []
    assert new.stats()["flows"] == 0
