"""Packets that no host sends, configurations that contradict themselves: nothing comes out, nothing else suffers."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw

from tests.support.dataplane import VIP_IPV4, vip
from tests.support.subjects import Subject
from tests.support.talk import Talk


def syn(**fields: Any) -> Packet:
    return IP(src="10.77.0.2", dst=VIP_IPV4, **fields) / TCP(sport=54000, dport=80, flags="S")


BAD: dict[str, bytes] = {
    "nothing": b"\x45",
    "a header cut short": bytes(syn())[:30],
    "a total length beyond its end": bytes(syn(len=400)),
    "a wrong header checksum": bytes(syn(chksum=0x1234)),
    "a header length of 8": bytes([0x42]) + bytes(syn())[1:],
    "its own destination as source": bytes(IP(src=VIP_IPV4, dst=VIP_IPV4) / TCP(sport=54000, dport=80, flags="S")),
    "SYN and FIN": bytes(IP(src="10.77.0.2", dst=VIP_IPV4) / TCP(sport=54000, dport=80, flags="SF")),
    "no flags": bytes(IP(src="10.77.0.2", dst=VIP_IPV4) / TCP(sport=54000, dport=80, flags=0)),
    "a transport header of 4 bytes": bytes(IP(src="10.77.0.2", dst=VIP_IPV4) / TCP(sport=1, dport=80, dataofs=1)),
    "port 0": bytes(IP(src="10.77.0.2", dst=VIP_IPV4) / TCP(sport=0, dport=80, flags="S")),
    "a fragment into the header": bytes(IP(src="10.77.0.2", dst=VIP_IPV4, frag=1, proto=6) / Raw(b"x" * 40)),
    "a datagram longer than its packet": bytes(IP(src="10.77.0.2", dst=VIP_IPV4) / UDP(sport=9, dport=80, len=900)),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_packet_ends_here(subject: Subject, name: str) -> None:
    subject.apply(vip(subject.lab))
    talk = Talk(subject)
    server = talk.open()
    subject.swallow("client", BAD[name])
    assert talk.ask() == server


@pytest.mark.parametrize(
    "changes",
    [
        {"scheduler": {"type": "maglev", "table_size": 1000}},
        {"backends": [{"id": "s1", "address": "fd77:1::2", "port": 80}]},
    ],
)
def test_a_bad_vip_is_refused_and_the_others_serve(subject: Subject, changes: dict[str, Any]) -> None:
    good = vip(subject.lab)
    bad = vip(subject.lab, port=81, **changes)
    result = subject.apply(good, bad)
    errors = {each.id: each.error for each in result.vips}
    assert errors[good["id"]] is None
    assert errors[bad["id"]] is not None
    assert Talk(subject).open() in {"s1", "s2"}


def test_two_vips_of_one_place_cannot_be(subject: Subject) -> None:
    first = vip(subject.lab)
    second = vip(subject.lab) | {"id": "00000000000000ff", "key": "other"}
    errors = {each.id: each.error for each in subject.apply(first, second).vips}
    refused = errors[second["id"]]
    assert refused is not None
    assert refused.code == "conflict"
    assert Talk(subject).open() in {"s1", "s2"}
