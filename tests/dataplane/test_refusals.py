"""What cannot be served is refused at once, as by a host whose port is closed, or dropped where the VIP says so."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach
from scapy.packet import Packet, Raw

from tests.support.dataplane import VIP_IPV4, VIP_IPV6, vip
from tests.support.subjects import Subject
from tests.support.talk import Talk, addressed, is_right

NOBODY: dict[str, dict[str, Any]] = {
    "failed": {"state": "failed"},
    "draining": {"state": "draining"},
    "unready": {"state": "unready"},
    "weightless": {"weight": 0},
}


def with_nobody(subject: Subject, how: str, **fields: Any) -> dict[str, Any]:
    """A VIP whose backends take no new flows."""
    built = vip(subject.lab, **fields)
    built["backends"] = [backend | NOBODY[how] for backend in built["backends"]] if how in NOBODY else []
    return built


def first_packet(subject: Subject, address: str, protocol: str) -> Packet:
    client = subject.lab.client_ipv6 if ":" in address else subject.lab.client_ipv4
    transport = TCP(sport=40000, dport=80, flags="S", seq=99) if protocol == "TCP" else UDP(sport=40000, dport=80)
    return addressed(client, address) / transport / Raw(b"" if protocol == "TCP" else b"question")


@pytest.mark.parametrize("how", ["absent", *NOBODY])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])
def test_new_flows_that_no_backend_takes_are_refused(subject: Subject, how: str, protocol: str, address: str) -> None:
    subject.apply(with_nobody(subject, how, address=address, protocol=protocol))
    seen = subject.send("client", first_packet(subject, address, protocol))
    assert (seen.place, seen.packet.src) == ("client", address)
    assert is_right(seen.packet)
    if protocol == "TCP":
        assert (seen.packet[TCP].flags, seen.packet[TCP].ack) == ("RA", 100)
    elif address == VIP_IPV4:
        assert (seen.packet[ICMP].type, seen.packet[ICMP].code) == (3, 3)
    else:
        assert seen.packet[ICMPv6DestUnreach].code == 4


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_new_flows_that_no_backend_takes_are_dropped_on_request(subject: Subject, protocol: str) -> None:
    subject.apply(with_nobody(subject, "absent", protocol=protocol, when_no_backends="drop"))
    subject.swallow("client", first_packet(subject, VIP_IPV4, protocol))


def stray(subject: Subject) -> Packet:
    """Data of a connection that nobody knows."""
    tcp = TCP(sport=54001, dport=80, flags="PA", seq=5, ack=777)
    return addressed(subject.lab.client_ipv4, VIP_IPV4) / tcp / Raw(b"x")


def test_a_packet_of_no_flow_is_answered_by_a_reset(subject: Subject) -> None:
    subject.apply(vip(subject.lab))
    talk = Talk(subject)
    server = talk.open()
    seen = subject.send("client", stray(subject))
    assert (seen.place, seen.packet[TCP].flags, seen.packet[TCP].seq) == ("client", "R", 777)
    assert talk.ask() == server


def test_a_servers_packet_of_no_flow_is_answered_by_a_reset(subject: Subject) -> None:
    subject.apply(vip(subject.lab))
    talk = Talk(subject)
    server = talk.open()
    unknown = talk.answer("PA", b"x")
    unknown[TCP].sport = 8081
    seen = subject.send(server, unknown)
    assert (seen.place, seen.packet[TCP].flags, seen.packet[TCP].dport) == (server, "R", 8081)
    assert talk.ask() == server


def test_packets_of_no_flow_are_dropped_on_request_and_resets_always(subject: Subject) -> None:
    subject.apply(vip(subject.lab))
    reset = stray(subject)
    reset[TCP].flags = "R"
    subject.swallow("client", reset)
    subject.apply(vip(subject.lab, when_no_flow="drop"))
    subject.swallow("client", stray(subject))
