"""Writes seeds of fuzz_packet, one packet of each kind: `python make_packet_corpus.py DIRECTORY`."""

import struct
import sys
from pathlib import Path

from scapy.layers import l2
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.packet import Packet, Raw

CLIENT, VIP = "198.51.100.7", "203.0.113.10"
CLIENT6, VIP6 = "fd00::5:7", "fd00::1:10"
AS_IS, MENDED, FROM_CLIENT, FROM_SERVER, ICMP_ERROR, GRE, L3DSR, CONTROL = range(8)
SUPER, PARTIAL, LATER = 8, 16, 6 << 5
V6, DATAGRAM, TOGETHER, AGAIN, WORKER_1 = 1, 2, 16, 32, 64


def framed(mode: int, packet: Packet | bytes, where: int = 0) -> bytes:
    """One packet behind the header that the fuzz target reads."""
    data = bytes(packet)
    return struct.pack("<BBH", mode, where, len(data)) + data


def seeds6() -> dict[str, bytes]:
    """What exists for IPv4, once more for IPv6."""
    client = IPv6(src=CLIENT6)
    stamp = [("Timestamp", (3, 4))]
    tcp = IPv6(src=CLIENT6, dst=VIP6) / TCP(sport=40000, dport=80, flags="A", options=stamp)
    syn = client / TCP(sport=40004, dport=80, flags="S", seq=1, options=[("MSS", 1440), ("WScale", 7)])
    data = client / TCP(sport=40004, dport=80, flags="PA", seq=2, options=stamp)
    close = client / TCP(sport=40004, dport=80, flags="FA", seq=2)
    datagram = client / UDP(sport=30001, dport=53) / Raw(b"d" * 20)
    pieces = fragment6(client / IPv6ExtHdrFragment() / UDP(sport=30002, dport=53) / Raw(b"p" * 1300), 700)
    answered = IPv6(src="fd00::1:11", dst=CLIENT6) / TCP(sport=80, dport=40004, flags="A")
    inner = bytes(IPv6(src=CLIENT6, dst="fd00::1:11") / TCP(sport=40004, dport=80, flags="A"))
    return {
        "data6": framed(FROM_CLIENT, tcp / Raw(b"z" * 300)) + framed(FROM_SERVER, tcp / Raw(b"w" * 30)),
        "close6": framed(FROM_SERVER, IPv6() / TCP(flags="FA")) + framed(FROM_CLIENT | LATER, IPv6() / TCP(flags="FA")),
        "reset6": framed(FROM_CLIENT, IPv6() / TCP(flags="R")) + framed(FROM_SERVER, IPv6() / TCP(flags="RA")),
        "super6": framed(FROM_CLIENT | SUPER | PARTIAL, tcp / Raw(b"s" * 3000)),
        "udp6": framed(FROM_CLIENT, datagram, DATAGRAM) + framed(FROM_SERVER, datagram, DATAGRAM),
        "udp6-super": framed(FROM_CLIENT | SUPER | PARTIAL, datagram / Raw(b"u" * 2000), DATAGRAM),
        "fragments6": b"".join(framed(AS_IS, bytes(piece)) for piece in pieces),
        "error6-back": framed(ICMP_ERROR | 0xF0, b"0123456789abcdef", V6),
        "error6-udp": framed(ICMP_ERROR | 0xF0, b"01234567", V6 | DATAGRAM),
        "gre6": framed(GRE, syn) + framed(GRE, data) + framed(GRE | LATER, data),
        "gre6-super": framed(GRE, syn) + framed(GRE | SUPER | PARTIAL, data / Raw(b"u" * 3000)),
        "gre6-udp": framed(GRE, datagram) + framed(GRE, datagram, WORKER_1),
        "gre6-fragments": b"".join(framed(GRE, bytes(piece)) for piece in pieces),
        "gre6-too-big": framed(GRE, syn) + framed(GRE, data / Raw(b"b" * 1440)),
        "gre6-error": framed(GRE, IPv6(src="fd00::9") / ICMPv6PacketTooBig(mtu=1280) / Raw(bytes(answered))),
        "gre6-in-gre": framed(AS_IS, IP(src="10.0.0.9", dst="10.0.0.1") / l2.GRE(proto=0x86DD) / Raw(inner)),
        "gre6-in-gre6": framed(AS_IS, IPv6(src="fd00::9", dst="fd00::2:1") / l2.GRE(proto=0x86DD) / Raw(inner)),
        "l3dsr6": framed(L3DSR, syn) + framed(L3DSR, data) + framed(L3DSR, close),
        "l3dsr6-super": framed(L3DSR, syn) + framed(L3DSR | SUPER | PARTIAL, data / Raw(b"v" * 3000)),
    }


def fragments() -> dict[str, bytes]:
    """Parts in an odd order, twice, at other workers, of a ping and for the host itself."""
    parts = fragment(IP(src=CLIENT, dst=VIP, id=9) / UDP(sport=30001, dport=53) / Raw(b"x" * 1200), 400)
    ping = fragment(IP(src=CLIENT, dst=VIP, id=9) / ICMP() / Raw(b"p" * 1200), 400)
    host = fragment(IP(src=CLIENT, dst="192.0.2.1", id=9) / UDP(sport=500, dport=500) / Raw(b"h" * 1200), 400)
    six = IPv6(src=CLIENT6, dst=VIP6)
    first6 = six / IPv6ExtHdrFragment(m=1, id=7) / UDP(sport=5, dport=53, len=72, chksum=1) / Raw(b"f" * 32)
    later6 = six / IPv6ExtHdrFragment(m=0, id=7, offset=5, nh=17) / Raw(b"f" * 32)
    return {
        "fragments-backwards": b"".join(framed(AS_IS, part) for part in reversed(parts)),
        "fragments-twice": b"".join(framed(AS_IS, part) for part in [*parts, *parts]),
        "fragments-workers": b"".join(framed(AS_IS, part, WORKER_1 * (i % 2)) for i, part in enumerate(parts[::-1])),
        "fragments-late": framed(AS_IS, parts[1]) + framed(AS_IS | LATER, parts[0]) + framed(AS_IS | 0xA0, parts[2]),
        "fragments-ping": b"".join(framed(AS_IS, part, WORKER_1) for part in reversed(ping)),
        "fragments-host": b"".join(framed(AS_IS, part) for part in reversed(host)),
        "fragments6-early": framed(AS_IS, later6, WORKER_1) + framed(AS_IS, first6) + framed(AS_IS, later6),
        "fragments6-twice": framed(AS_IS, six / IPv6ExtHdrFragment(id=7) / IPv6ExtHdrFragment(id=8) / UDP(dport=53)),
        "uncut": framed(AS_IS, IP(src=CLIENT, dst=VIP, flags="DF") / UDP(sport=30002, dport=53)),
        "forged": framed(AS_IS, IP(src=VIP, dst=VIP) / UDP(sport=53, dport=53)),
        "host-backend": framed(AS_IS, IP(src="192.0.2.1", dst="192.0.2.1") / UDP(sport=8080, dport=16400)),
    }


def vectors() -> dict[str, bytes]:
    """Packets that go through together, on both workers, and changes of VIPs between them."""
    tcp: Packet = IP(src=CLIENT, dst=VIP) / TCP(sport=40000, dport=80, flags="A", options=[("Timestamp", (1, 2))])
    tcp6 = IPv6(src=CLIENT6, dst=VIP6) / TCP(sport=40000, dport=80, flags="A", options=[("Timestamp", (1, 2))])
    udp = IP(src=CLIENT, dst=VIP) / UDP(sport=30000, dport=53) / Raw(b"x" * 64)
    syns = [IP(src=CLIENT, dst=VIP) / TCP(sport=41000 + i, dport=80, flags="S") for i in range(12)]
    mixed = [(FROM_CLIENT, tcp / Raw(b"a" * 100), 0), (FROM_SERVER, tcp / Raw(b"b" * 100), 0)]
    mixed += [(FROM_CLIENT, tcp6, 0), (FROM_SERVER, tcp6, 0), (FROM_CLIENT, udp, DATAGRAM), (AS_IS, syns[0], 0)]
    big = framed(FROM_CLIENT | SUPER | PARTIAL, tcp / Raw(b"s" * 3000), AGAIN | TOGETHER)
    failed = framed(CONTROL, bytes([0, 0b1010])) + framed(FROM_CLIENT, tcp / Raw(b"r"))
    return {
        "vector": b"".join(framed(mode, packet, where | TOGETHER) for mode, packet, where in mixed * 8),
        "vector-other": b"".join(framed(mode, packet, where | TOGETHER | WORKER_1) for mode, packet, where in mixed),
        "vector-burst": framed(FROM_CLIENT, tcp / Raw(b"a" * 90), AGAIN | TOGETHER) * 3,
        "vector-burst-back": framed(FROM_SERVER, tcp / Raw(b"a" * 90), AGAIN | TOGETHER) * 3,
        "vector-burst6": framed(FROM_CLIENT, tcp6 / Raw(b"a" * 90), AGAIN | TOGETHER | WORKER_1) * 3,
        "vector-super": big + framed(FROM_SERVER, tcp, TOGETHER) + big,
        "vector-syns": b"".join(framed(AS_IS, syn, TOGETHER) for syn in syns),
        "vector-same-syn": b"".join(framed(AS_IS, syn, TOGETHER | AGAIN | WORKER_1) for syn in syns[:3]),
        "failed": failed,
        "failed-udp": framed(CONTROL, bytes([2, 0b1010])) + framed(FROM_CLIENT, udp, DATAGRAM),
        "level": framed(CONTROL, bytes([0, 32])) + framed(FROM_CLIENT, tcp) + framed(CONTROL, bytes([0, 0])) + failed,
        "removed": framed(CONTROL, bytes([0, 128])) + framed(FROM_CLIENT, tcp / Raw(b"o")) + framed(AS_IS, syns[1]),
    }


def seeds() -> dict[str, bytes]:
    """Inputs by name."""
    tcp = IP(src=CLIENT, dst=VIP) / TCP(sport=40000, dport=80, flags="A", options=[("Timestamp", (1, 2))])
    syn = IP(src=CLIENT, dst=VIP) / TCP(
        sport=40001, dport=80, flags="S", options=[("WScale", 7), ("Timestamp", (1, 0))]
    )
    udp = IP(src=CLIENT, dst=VIP) / UDP(sport=30000, dport=53) / Raw(b"x" * 1200)
    udp6 = IPv6(src=CLIENT6, dst=VIP6) / UDP(sport=30000, dport=53) / Raw(b"y" * 40)
    pieces = fragment(udp, 512)
    quoted = IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=40000, flags="A")
    syn6 = IPv6(src=CLIENT6, dst=VIP6)
    one_way = IP(src=CLIENT) / TCP(sport=40004, dport=80, flags="S", seq=1, options=[("MSS", 1460), ("WScale", 7)])
    one_way_data = IP(src=CLIENT) / TCP(sport=40004, dport=80, flags="PA", seq=2, options=[("Timestamp", (3, 4))])
    one_way_close = IP(src=CLIENT) / TCP(sport=40004, dport=80, flags="FA", seq=2)
    big = Raw(b"b" * 1460)
    answered = IP(src="203.0.113.11", dst=CLIENT) / TCP(sport=80, dport=40004, flags="A")
    return {
        **seeds6(),
        **vectors(),
        **fragments(),
        "syn": framed(AS_IS, syn),
        "data": framed(FROM_CLIENT, tcp / Raw(b"z" * 300)) + framed(FROM_SERVER, tcp / Raw(b"w" * 30)),
        "close": framed(FROM_SERVER, IP() / TCP(flags="FA")) + framed(FROM_CLIENT | LATER, IP() / TCP(flags="FA")),
        "reset": framed(FROM_CLIENT, IP() / TCP(flags="R")) + framed(FROM_SERVER, IP() / TCP(flags="RA")),
        "super": framed(FROM_CLIENT | SUPER | PARTIAL, tcp / Raw(b"s" * 3000)),
        "udp": framed(AS_IS, udp) + framed(AS_IS | LATER, udp),
        "fragments": b"".join(framed(AS_IS, piece) for piece in pieces),
        "options": framed(AS_IS, IP(src=CLIENT, dst=VIP, options=[IPOption_RR(length=7)]) / TCP(dport=80, flags="S")),
        "echo": framed(AS_IS, IP(src=CLIENT, dst=VIP) / ICMP() / Raw(b"ping")),
        "echo6": framed(AS_IS, IPv6(src=CLIENT6, dst=VIP6) / ICMPv6EchoRequest(data=b"ping")),
        "error": framed(AS_IS, IP(src="10.9.9.9", dst=VIP) / ICMP(type=3, code=4) / Raw(bytes(quoted))),
        "error-back": framed(ICMP_ERROR | 0xF0, b"0123456789abcdef"),
        "error6": framed(AS_IS, IPv6(src="fd00::9", dst=VIP6) / ICMPv6PacketTooBig(mtu=1280) / Raw(bytes(udp6))),
        "syn6": framed(AS_IS, syn6 / IPv6ExtHdrHopByHop() / TCP(sport=1, dport=80, flags="S")),
        "fragment6": framed(AS_IS, syn6 / IPv6ExtHdrFragment(m=1, id=7) / UDP(sport=5, dport=53) / Raw(b"f" * 64)),
        "gre": framed(GRE, one_way) + framed(GRE, one_way_data) + framed(GRE | LATER, one_way_data),
        "gre-super": framed(GRE, one_way) + framed(GRE | SUPER | PARTIAL, one_way_data / Raw(b"u" * 3000)),
        "gre-stray": framed(GRE, IP(src=CLIENT) / TCP(sport=40005, dport=80, flags="PA") / Raw(b"q" * 10)),
        "gre-too-big": framed(GRE, one_way) + framed(GRE, IP(src=CLIENT, flags="DF") / one_way_data[TCP] / big),
        "gre-udp": framed(GRE, IP(src=CLIENT) / UDP(sport=30001, dport=53) / Raw(b"d" * 20)),
        "gre-fragments": b"".join(framed(GRE, piece) for piece in fragment(IP(src=CLIENT) / one_way_data[TCP] / big)),
        "gre-error": framed(GRE, IP(src="10.9.9.9") / ICMP(type=3, code=4) / Raw(bytes(answered))),
        "l3dsr": framed(L3DSR, one_way) + framed(L3DSR, one_way_data) + framed(L3DSR, one_way_close),
        "l3dsr-stray": framed(L3DSR, IP(src=CLIENT, tos=0x23) / TCP(sport=40006, dport=80, flags="A")),
        "l3dsr-super": framed(L3DSR, one_way) + framed(L3DSR | SUPER | PARTIAL, one_way_data / Raw(b"v" * 3000)),
        "ttl": framed(AS_IS, IP(src=CLIENT, dst=VIP, ttl=1) / TCP(sport=40002, dport=80, flags="S")),
        "port": framed(AS_IS, IP(src=CLIENT, dst=VIP) / TCP(dport=81)) + framed(AS_IS, IP(src=CLIENT, dst=VIP) / UDP()),
    }


def main() -> None:
    """Writes one file per seed."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (directory / name).write_bytes(data)


if __name__ == "__main__":
    main()
