"""GRE and L3DSR against what scapy makes of the same packets."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import penstock_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

VIPS = {4: "203.0.113.10", 6: "fd00:1::10"}
CLIENTS = {4: "198.51.100.7", 6: "fd00:5::7"}
SOURCES = {4: "192.0.2.1", 6: "fd00:9::1"}
BACKENDS = {4: "10.0.0.1", 6: "fd00:2::1"}
HEADERS = {4: IP, 6: IPv6}
DSCP = 21
MTU = 1500

families = st.sampled_from([4, 6])
classes = st.integers(0, 255)


def core_with(family: int, outer: int, forwarding: str, protocol: int = 6) -> penstock_core.Core:
    core = penstock_core.Core(flows=1024, vips=4, slots=64, now_us=1_000_000, seed=bytes(range(32)))
    core.set_sources([(ip_address(address).packed, 16384, 28671) for address in SOURCES.values()])
    backend = penstock_core.Backend(id=1, address=ip_address(BACKENDS[outer]).packed, port=80)
    core.set_vip(
        1,
        [ip_address(VIPS[family]).packed],
        80,
        protocol,
        [backend],
        forwarding=forwarding,
        dscp=DSCP if forwarding == "l3dsr" else 0,
        now_us=1_000_000,
    )
    return core


def header(family: int, traffic_class: int, hops: int = 64) -> Packet:
    if family == 4:
        return IP(src=CLIENTS[4], dst=VIPS[4], tos=traffic_class, ttl=hops, flags="DF")
    return IPv6(src=CLIENTS[6], dst=VIPS[6], tc=traffic_class, hlim=hops)


def built(packet: Packet) -> Packet:
    return packet.__class__(bytes(packet))


def one_hop_less(packet: Packet) -> Packet:
    """The packet behind a router, checksums anew."""
    after = packet.copy()
    if packet.version == 4:
        after.ttl -= 1
        del after.chksum
    else:
        after.hlim -= 1
    return built(after)


def send(core: penstock_core.Core, packet: Packet, **offload: Any) -> penstock_core.Packet:
    (out,) = core.process([penstock_core.Packet(bytes(packet), **offload)], now_us=2_000_000)
    return out


@settings(deadline=None)
@given(families, families, classes, st.integers(2, 255), st.binary(max_size=200))
def test_a_gre_packet_is_what_scapy_builds(family: int, outer: int, traffic_class: int, hops: int, data: bytes) -> None:
    packet = built(header(family, traffic_class, hops) / TCP(sport=40000, dport=80, flags="S") / Raw(data))
    out = send(core_with(family, outer, "gre"), packet)
    assert out.verdict == "forward"
    inner = one_hop_less(packet)
    outside: Packet
    if outer == 4:
        outside = IP(src=SOURCES[4], dst=BACKENDS[4], tos=traffic_class, ttl=64, flags="DF", id=0, proto=47)
    else:
        outside = IPv6(src=SOURCES[6], dst=BACKENDS[6], tc=traffic_class, hlim=64, nh=47)
    assert out.data == bytes(outside / GRE(proto=0x0800 if family == 4 else 0x86DD) / inner)
    assert penstock_core.decapsulate(out.data) == bytes(inner)


@settings(deadline=None)
@given(families, classes, st.integers(2, 255), st.binary(max_size=200), st.sampled_from([TCP, UDP]))
def test_l3dsr_is_what_scapy_builds(family: int, traffic_class: int, hops: int, data: bytes, layer: type) -> None:
    transport = TCP(sport=40000, dport=80, flags="S") if layer is TCP else UDP(sport=40000, dport=80)
    packet = built(header(family, traffic_class, hops) / transport / Raw(data))
    out = send(core_with(family, family, "l3dsr", 6 if layer is TCP else 17), packet)
    expected = packet.copy()
    expected.dst = BACKENDS[family]
    marked = DSCP << 2 | traffic_class & 3
    if family == 4:
        expected.tos = marked
    else:
        expected.tc = marked
    del expected[layer].chksum
    assert out.verdict == "forward"
    assert out.data == bytes(one_hop_less(expected))


# RFC 6040, figure 4: rows are the inner field (Not-ECT, ECT(1), ECT(0), CE), columns the outer one in the same order.
NOT, ECT1, ECT0, CE = 0, 1, 2, 3
FIGURE_4: dict[int, dict[int, int | None]] = {
    NOT: {NOT: NOT, ECT0: NOT, ECT1: NOT, CE: None},
    ECT0: {NOT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
    ECT1: {NOT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
    CE: {NOT: CE, ECT0: CE, ECT1: CE, CE: CE},
}


@pytest.mark.parametrize("inner", FIGURE_4)
@pytest.mark.parametrize("outer", [NOT, ECT1, ECT0, CE])
@pytest.mark.parametrize(("family", "outside"), [(4, 4), (4, 6), (6, 4), (6, 6)])
def test_congestion_met_in_the_tunnel_reaches_the_inner_packet(
    inner: int, outer: int, family: int, outside: int
) -> None:
    packet = built(header(family, 46 << 2 | inner) / TCP(sport=40000, dport=80))
    around = IP(src="10.0.0.9", dst="10.0.0.1", tos=outer) if outside == 4 else IPv6(dst="fd00:2::1", tc=outer)
    around = around / GRE(proto=0x0800 if family == 4 else 0x86DD)
    found = penstock_core.decapsulate(bytes(around / packet))
    expected = FIGURE_4[inner][outer]
    if expected is None:
        assert found is None
        return
    after = packet.copy()
    if family == 4:
        after.tos = 46 << 2 | expected
        del after.chksum
    else:
        after.tc = 46 << 2 | expected
    assert found == bytes(after)


def damaged() -> Iterator[Packet]:
    """Packets that no load balancer forwards."""
    for family in (4, 6):
        plain = header(family, 0)
        yield plain / ICMP() if family == 4 else plain / ICMPv6EchoRequest()
        yield plain / GRE() / Raw(b"in a tunnel")
        yield plain / TCP(sport=40000, dport=80, flags="SF")
        yield plain / TCP(sport=0, dport=80)
        yield plain / UDP(sport=40000, dport=80, len=4)
        loopback = plain.copy()
        loopback.src = "127.0.0.1" if family == 4 else "::1"
        yield loopback / TCP(sport=40000, dport=80)
    routed = header(4, 0)
    routed.options = [IPOption_LSRR(routers=["10.0.0.1"])]
    yield routed / TCP(sport=40000, dport=80)
    wrong = header(4, 0)
    wrong.chksum = 1
    yield wrong / TCP(sport=40000, dport=80)
    yield header(6, 0) / IPv6ExtHdrFragment() / IPv6ExtHdrFragment() / TCP(sport=40000, dport=80)


@pytest.mark.parametrize("packet", list(damaged()), ids=Packet.summary)
def test_the_other_end_takes_only_what_a_load_balancer_forwards(packet: Packet) -> None:
    proto = 0x0800 if isinstance(packet, IP) else 0x86DD
    around = IP(src="10.0.0.9", dst="10.0.0.1") / GRE(proto=proto)
    assert penstock_core.decapsulate(bytes(around / packet)) is None


def test_the_other_end_cuts_off_what_follows_a_packet() -> None:
    packet = built(header(4, 0) / UDP(sport=40000, dport=80) / Raw(b"data"))
    around = IP(src="10.0.0.9", dst="10.0.0.1") / GRE(proto=0x0800)
    assert penstock_core.decapsulate(bytes(around / packet / Raw(b"padding"))) == bytes(packet)


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_no_bytes_crash_the_other_end(data: bytes) -> None:
    inner = penstock_core.decapsulate(data)
    assert inner is None or inner[20:] in data


@settings(deadline=None)
@given(
    families, families, st.integers(100, 1300), st.binary(min_size=1, max_size=6000), st.sampled_from(["A", "PA", "FA"])
)
def test_the_segments_of_a_super_packet_carry_the_stream(
    family: int, outer: int, size: int, data: bytes, flags: str
) -> None:
    core = core_with(family, outer, "gre")
    send(core, built(header(family, 0) / TCP(sport=40000, dport=80, flags="S", seq=999)))
    packet = built(header(family, 2) / TCP(sport=40000, dport=80, flags=flags, seq=1000) / Raw(data))
    headers = len(packet) - len(data)
    offload = {"gso_type": 1 if family == 4 else 4, "gso_size": size, "hdr_len": headers, "needs_csum": True}
    out = send(core, packet, **offload, csum_start=headers - 20, csum_offset=16)
    assert out.verdict == "forward"
    stream = b""
    found = penstock_core.segments(out)
    for number, piece in enumerate(found):
        bare = penstock_core.decapsulate(piece)
        assert bare is not None
        inner = HEADERS[family](bare)
        again = inner.copy()
        del again[TCP].chksum
        if family == 4:
            del again.chksum, again.len
        else:
            del again.plen
        assert bytes(again) == bytes(inner)
        assert inner[TCP].seq == 1000 + len(stream)
        assert str(inner[TCP].flags) == (flags if number == len(found) - 1 else "A")
        stream += bytes(inner[TCP].payload)
    assert stream == data
    assert len(found) == -(-len(data) // size)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
def test_what_does_not_fit_is_answered_with_what_does(family: int, outer: int) -> None:
    core = core_with(family, outer, "gre")
    fits = MTU - (24 if outer == 4 else 44)
    send(core, built(header(family, 0) / TCP(sport=40000, dport=80, flags="S")))
    base = len(header(family, 0) / TCP())
    for length, verdict in ((fits, "forward"), (fits + 1, "reply")):
        packet = built(header(family, 0) / TCP(sport=40000, dport=80, flags="A") / Raw(bytes(length - base)))
        out = send(core, packet)
        assert out.verdict == verdict
    answer = HEADERS[family](out.data)
    assert answer.dst == CLIENTS[family]
    if family == 4:
        assert (answer.payload.type, answer.payload.code, answer.payload.nexthopmtu) == (3, 4, fits)
    else:
        assert (answer.payload.type, answer.payload.mtu) == (2, fits)
