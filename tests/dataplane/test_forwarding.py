"""What becomes of packets, on every data plane the same."""

from __future__ import annotations

import time
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

from tests.support.dataplane import PORTS, VIP_IPV4, VIP_IPV6, vip
from tests.support.subjects import ANSWER, Subject
from tests.support.talk import Talk, addressed, inside, is_right

BOTH = pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])


def of_family(subject: Subject, address: str, place: str) -> str:
    """Address of an end of a wire, in a VIP's family."""
    lab = subject.lab
    known = {"client": (lab.client_ipv4, lab.client_ipv6), "balancer": (lab.balancer_ipv4, lab.balancer_ipv6)}
    known |= {server.name: (server.ipv4, server.ipv6) for server in lab.servers}
    return str(ip_address(known[place][":" in address]))


def hops(packet: Packet) -> int:
    return int(packet.hlim if packet.version == 6 else packet.ttl)


@BOTH
def test_nat_translates_both_ways_and_nothing_else(subject: Subject, address: str) -> None:
    subject.apply(vip(subject.lab, address))
    talk = Talk(subject, address)
    seen = talk.client("S")
    tcp = seen.packet[TCP]
    assert (seen.packet.src, seen.packet.dst, tcp.dport) == (
        of_family(subject, address, "balancer"),
        of_family(subject, address, seen.place),
        8080,
    )
    assert PORTS[0] <= tcp.sport <= PORTS[1]
    assert (tcp.seq, tcp.flags) == (1000, "S")
    assert is_right(seen.packet)
    back = talk.serve("SA")
    assert (back.place, back.packet.src, back.packet[TCP].sport) == ("client", address, 80)
    assert (back.packet[TCP].dport, back.packet[TCP].ack) == (40000, 1001)
    assert is_right(back.packet)
    talk.client("A")
    there = talk.client("PA", b"data " * 50).packet
    assert there[Raw].load == b"data " * 50
    assert is_right(there)


@BOTH
def test_a_packet_is_a_hop_older_behind_the_data_plane(subject: Subject, address: str) -> None:
    subject.apply(vip(subject.lab, address))
    # A TUN device and a veth are hops of the node's own: as many for whatever goes through.
    talk = Talk(subject, address)
    assert 60 <= hops(talk.client("S").packet) <= 63


@BOTH
def test_datagrams_go_and_come(subject: Subject, address: str) -> None:
    backends = [
        {"id": server.name, "address": server.ipv6 if ":" in address else server.ipv4, "port": 5353}
        for server in subject.lab.servers
    ]
    subject.apply(vip(subject.lab, address, 53, protocol="UDP", backends=backends))
    question = addressed(of_family(subject, address, "client"), address) / UDP(sport=4000, dport=53) / Raw(b"question")
    seen = subject.send("client", question)
    assert seen.packet[UDP].dport == 5353
    assert is_right(seen.packet)
    answer = (
        addressed(seen.packet.dst, seen.packet.src) / UDP(sport=5353, dport=seen.packet[UDP].sport) / Raw(b"answer")
    )
    back = subject.send(seen.place, answer)
    assert (back.place, back.packet.src, back.packet[UDP].sport, back.packet[UDP].dport) == (
        "client",
        address,
        53,
        4000,
    )
    assert is_right(back.packet)


@BOTH
@pytest.mark.parametrize("outer", [4, 6])
def test_gre_carries_the_clients_packet_whole(subject: Subject, address: str, outer: int) -> None:
    backends = [
        {"id": server.name, "address": server.ipv4 if outer == 4 else server.ipv6, "port": 80}
        for server in subject.lab.servers
    ]
    subject.apply(vip(subject.lab, address, forwarding="GRE", backends=backends))
    talk = Talk(subject, address)
    sent = talk.segment("S")
    seen = talk.client("S")
    assert seen.packet.src == of_family(subject, VIP_IPV4 if outer == 4 else VIP_IPV6, "balancer")
    inner = inside(seen.packet)
    assert (inner.src, inner.dst) == (sent.src, address)
    assert bytes(inner[TCP]) == bytes(type(sent)(bytes(sent))[TCP])
    # An established flow's segments take another way through the core than its first.
    server = talk.server
    for number in range(3):
        segment = talk.segment("PA", b"x" * number)
        seen = talk.client("PA", b"x" * number)
        inner = inside(seen.packet)
        assert seen.place == server
        assert is_right(inner)
        assert bytes(inner[TCP]) == bytes(type(segment)(bytes(segment))[TCP])
        assert hops(inner) < hops(segment)


@BOTH
def test_l3dsr_marks_and_readdresses(subject: Subject, address: str) -> None:
    backends = [
        {"id": server.name, "address": server.ipv6 if ":" in address else server.ipv4, "port": 80}
        for server in subject.lab.servers
    ]
    subject.apply(vip(subject.lab, address, forwarding="L3DSR", dscp=9, backends=backends))
    talk = Talk(subject, address)
    for flags in ("S", "A", "PA"):
        seen = talk.client(flags)
        assert seen.packet.dst == of_family(subject, address, seen.place)
        assert (seen.packet.tc if seen.packet.version == 6 else seen.packet.tos) >> 2 == 9
        assert is_right(seen.packet)


@BOTH
def test_a_port_that_no_vip_has_is_refused(subject: Subject, address: str) -> None:
    subject.apply(vip(subject.lab, address))
    seen = Talk(subject, address, port=81).client("S")
    assert (seen.place, seen.packet[TCP].flags, seen.packet[TCP].ack) == ("client", "RA", 1001)


@BOTH
def test_a_vip_answers_ping(subject: Subject, address: str) -> None:
    subject.apply(vip(subject.lab, address))
    request = ICMPv6EchoRequest(id=7, seq=1, data=b"ping") if ":" in address else ICMP(id=7, seq=1) / Raw(b"ping")
    seen = subject.send("client", addressed(of_family(subject, address, "client"), address) / request)
    assert seen.place == "client"
    assert seen.packet.src == address
    assert ICMPv6EchoReply in seen.packet or seen.packet[ICMP].type == 0


@pytest.mark.parametrize("teller", ["server", "router"])
@BOTH
def test_a_packet_too_big_for_the_way_reaches_the_client_as_about_its_own(
    subject: Subject, address: str, teller: str
) -> None:
    subject.apply(vip(subject.lab, address))
    talk = Talk(subject, address)
    talk.open()
    big = talk.client("PA", b"x" * 1000).packet
    router = "fd77:1::99" if big.version == 6 else "10.77.1.99"
    source = big.dst if teller == "server" else router
    error: Packet
    if big.version == 4:
        error = IP(src=source, dst=big.src) / ICMP(type=3, code=4, nexthopmtu=600) / Raw(bytes(big)[:28])
    else:
        error = IPv6(src=source, dst=big.src) / ICMPv6PacketTooBig(mtu=1280) / Raw(bytes(big)[:400])
    seen = subject.send(talk.server, error)
    assert seen.place == "client"
    quoted: Packet
    if big.version == 4:
        told = seen.packet[ICMP]
        assert (told.type, told.code, told.nexthopmtu) == (3, 4, 600)
        quoted = IP(bytes(told.payload))
    else:
        assert seen.packet[ICMPv6PacketTooBig].mtu == 1280
        quoted = IPv6(bytes(seen.packet[ICMPv6PacketTooBig].payload))
    assert (quoted.src, quoted.dst) == (of_family(subject, address, "client"), address)
    assert bytes(quoted.payload)[:4] == (40000).to_bytes(2, "big") + (80).to_bytes(2, "big")


def test_a_slow_answer_from_port_53_reaches_the_socket_that_asked_twice(subject: Subject) -> None:
    """A and AAAA, of which the second is answered after an answered flow would have gone."""
    backends = [{"id": server.name, "address": server.ipv4, "port": 5353} for server in subject.lab.servers]
    subject.apply(vip(subject.lab, port=53, protocol="UDP", backends=backends))
    question = addressed(subject.lab.client_ipv4, VIP_IPV4) / UDP(sport=4000, dport=53) / Raw(b"question")
    first, second = subject.send("client", question), subject.send("client", question)
    assert first.place == second.place
    for _ in range(2):
        header = addressed(second.packet.dst, second.packet.src)
        answer = header / UDP(sport=5353, dport=second.packet[UDP].sport) / Raw(b"answer")
        assert subject.send(second.place, answer).place == "client"
        time.sleep(3)


def test_fragments_follow_their_first(subject: Subject) -> None:
    backends = [{"id": server.name, "address": server.ipv4, "port": 5353} for server in subject.lab.servers]
    subject.apply(vip(subject.lab, port=53, protocol="UDP", backends=backends))
    data = bytes(range(256)) * 8
    whole = IP(src=subject.lab.client_ipv4, dst=VIP_IPV4, id=77) / UDP(sport=4000, dport=53) / Raw(data)
    pieces = [bytes(piece) for piece in fragment(whole, 1000)]
    seen = subject.carry("client", pieces, wait=ANSWER)
    assert len(seen) == len(pieces)
    assert len({each.place for each in seen}) == 1
    assert len({each.packet.id for each in seen}) == 1
    arrived = b"".join(bytes(each.packet.payload) for each in sorted(seen, key=lambda each: each.packet.frag))
    assert arrived[8:] == data


def test_a_packet_that_may_go_no_further_is_answered(subject: Subject) -> None:
    subject.apply(vip(subject.lab))
    last = Talk(subject).segment("S")
    last.ttl = 1
    seen = subject.send("client", last)
    assert (seen.place, seen.packet[ICMP].type) == ("client", 11)
