"""ARP and neighbour discovery frames, against scapy's reading of them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_node import neighbours
from penstock_node.neighbours import Claim, Question
from scapy.layers.inet import UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

US, THEM = "02:00:00:00:00:01", "02:00:00:00:00:02"
US_BYTES, THEM_BYTES = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
VIP4, VIP6 = IPv4Address("203.0.113.10"), IPv6Address("2001:db8::10")
HOST4, HOST6 = IPv4Address("203.0.113.1"), IPv6Address("fe80::1")
BROADCAST, ALL_NODES = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
GROUP = "ff02::1:ff00:10"


def ethernet(to: str = BROADCAST) -> Ether:
    return Ether(src=THEM, dst=to)


def solicitation(**changes: Any) -> IPv6:
    fields: dict[str, Any] = {"src": str(HOST6), "dst": GROUP, "hlim": 255} | changes
    return IPv6(**fields) / ICMPv6ND_NS(tgt=str(VIP6))


READABLE = [
    (
        "who-has",
        ethernet() / ARP(op=1, hwsrc=THEM, psrc=str(HOST4), pdst=str(VIP4)),
        Question(VIP4, HOST4, THEM_BYTES),
    ),
    ("probe", ethernet() / ARP(op=1, hwsrc=THEM, psrc="0.0.0.0", pdst=str(VIP4)), Question(VIP4, None, THEM_BYTES)),
    (
        "gratuitous request",
        ethernet() / ARP(op=1, hwsrc=THEM, psrc=str(VIP4), pdst=str(VIP4)),
        Claim(VIP4, THEM_BYTES),
    ),
    (
        "gratuitous reply",
        ethernet() / ARP(op=2, hwsrc=THEM, psrc=str(VIP4), pdst=str(VIP4)),
        Claim(VIP4, THEM_BYTES),
    ),
    ("answer", ethernet(US) / ARP(op=2, hwsrc=THEM, psrc=str(VIP4), pdst=str(HOST4)), Claim(VIP4, THEM_BYTES)),
    (
        "solicitation",
        ethernet() / solicitation() / ICMPv6NDOptSrcLLAddr(lladdr=THEM),
        Question(VIP6, HOST6, THEM_BYTES),
    ),
    ("duplicate detection", ethernet() / solicitation(src="::"), Question(VIP6, None, THEM_BYTES)),
    (
        "advertisement",
        ethernet()
        / IPv6(src=str(VIP6), dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt=str(VIP6), R=0, S=0, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=THEM),
        Claim(VIP6, THEM_BYTES),
    ),
    (
        "advertisement without option",
        ethernet() / IPv6(src=str(VIP6), dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=str(VIP6), S=0),
        Claim(VIP6, THEM_BYTES),
    ),
]

UNREADABLE = [
    ("empty", b""),
    ("ethernet only", bytes(ethernet())),
    ("other protocol", bytes(ethernet() / IPv6() / UDP())),
    ("ARP of other hardware", bytes(ethernet() / ARP(hwtype=6, op=1, psrc=str(HOST4), pdst=str(VIP4)))),
    ("ARP operation 3", bytes(ethernet() / ARP(op=3, psrc=str(HOST4), pdst=str(VIP4)))),
    ("ARP cut short", bytes(ethernet() / ARP(op=1, psrc=str(HOST4), pdst=str(VIP4)))[:-1]),
    ("from beyond a router", bytes(ethernet() / solicitation(hlim=254))),
    (
        "nonzero code",
        bytes(ethernet() / IPv6(src=str(HOST6), dst=GROUP, hlim=255) / ICMPv6ND_NS(code=1, tgt=str(VIP6))),
    ),
    ("wrong checksum", bytes(ethernet() / IPv6(dst=GROUP, hlim=255) / ICMPv6ND_NS(cksum=1, tgt=str(VIP6)))),
    ("multicast target", bytes(ethernet() / IPv6(src=str(HOST6), dst=GROUP, hlim=255) / ICMPv6ND_NS(tgt="ff02::2"))),
    ("probe to a host", bytes(ethernet() / solicitation(src="::", dst=str(HOST6)))),
    ("solicitation cut short", bytes(ethernet() / solicitation())[:-1]),
    ("router solicitation", bytes(ethernet() / IPv6(dst=GROUP, hlim=255) / ICMPv6ND_NS(type=133, tgt=str(VIP6)))),
]


@pytest.mark.parametrize(("frame", "meaning"), [case[1:] for case in READABLE], ids=[case[0] for case in READABLE])
def test_frames_are_understood(frame: Ether, meaning: Question | Claim) -> None:
    assert neighbours.read(bytes(frame)) == meaning


@pytest.mark.parametrize("frame", [case[1] for case in UNREADABLE], ids=[case[0] for case in UNREADABLE])
def test_everything_else_is_ignored(frame: bytes) -> None:
    assert neighbours.read(frame) is None


@given(st.sampled_from([bytes(case[1]) for case in READABLE]), st.data())
def test_damaged_frames_do_no_harm(frame: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(frame) - 1))
    damaged = frame[:position] + data.draw(st.binary(max_size=40)) + frame[position + 1 :]
    neighbours.read(damaged[: data.draw(st.integers(0, len(damaged)))])


def test_a_question_is_answered_to_the_asker() -> None:
    frame = Ether(neighbours.answer(Question(VIP4, HOST4, THEM_BYTES), US_BYTES))
    assert (frame.src, frame.dst) == (US, THEM)
    arp = frame[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst) == (2, US, str(VIP4), THEM, str(HOST4))

    frame = Ether(neighbours.answer(Question(VIP6, HOST6, THEM_BYTES), US_BYTES))
    assert (frame.src, frame.dst, frame[IPv6].src, frame[IPv6].dst) == (US, THEM, str(VIP6), str(HOST6))
    answer = frame[ICMPv6ND_NA]
    assert (answer.tgt, answer.R, answer.S, answer.O) == (str(VIP6), 0, 1, 1)
    assert frame[ICMPv6NDOptDstLLAddr].lladdr == US
    assert_checksum(frame)


def test_a_probe_is_answered_so_that_the_prober_hears_it() -> None:
    assert Ether(neighbours.answer(Question(VIP4, None, THEM_BYTES), US_BYTES))[ARP].pdst == "0.0.0.0"
    frame = Ether(neighbours.answer(Question(VIP6, None, THEM_BYTES), US_BYTES))
    assert (frame.dst, frame[IPv6].dst, frame[ICMPv6ND_NA].S) == (ALL_NODES, "ff02::1", 0)


def test_announcements_are_heard_as_claims() -> None:
    request, reply = (Ether(frame) for frame in neighbours.announcements(VIP4, US_BYTES))
    assert [(f.dst, f[ARP].op, f[ARP].psrc, f[ARP].pdst) for f in (request, reply)] == [
        (BROADCAST, 1, str(VIP4), str(VIP4)),
        (BROADCAST, 2, str(VIP4), str(VIP4)),
    ]
    (advertisement,) = (Ether(frame) for frame in neighbours.announcements(VIP6, US_BYTES))
    assert (advertisement.dst, advertisement[IPv6].dst, advertisement[IPv6].hlim) == (ALL_NODES, "ff02::1", 255)
    assert_checksum(advertisement)
    for address in (VIP4, VIP6):
        for frame in neighbours.announcements(address, US_BYTES):
            assert neighbours.read(frame) == Claim(address, US_BYTES)


def test_probes_are_heard_as_questions() -> None:
    for address in (VIP4, VIP6):
        assert neighbours.read(neighbours.probe(address, US_BYTES)) == Question(address, None, US_BYTES)
    probe = Ether(neighbours.probe(VIP6, US_BYTES))
    assert (probe.dst, probe[IPv6].src, probe[IPv6].dst) == ("33:33:ff:00:00:10", "::", GROUP)
    assert_checksum(probe)


def assert_checksum(frame: Ether) -> None:
    """Scapy computes a missing checksum anew."""
    layer = frame[ICMPv6ND_NA] if ICMPv6ND_NA in frame else frame[ICMPv6ND_NS]
    sent = layer.cksum
    del layer.cksum
    again = Ether(bytes(frame))
    assert (again[ICMPv6ND_NA] if ICMPv6ND_NA in again else again[ICMPv6ND_NS]).cksum == sent
