"""Writes seeds of fuzz_packet, one packet of each kind: `python make_packet_corpus.py DIRECTORY`."""

import struct
import sys
from pathlib import Path

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw

CLIENT, VIP = "198.51.100.7", "203.0.113.10"
CLIENT6, VIP6 = "fd00::5:7", "fd00::1:10"
AS_IS, MENDED, FROM_CLIENT, FROM_SERVER, ICMP_ERROR = range(5)
SUPER, PARTIAL, LATER = 8, 16, 6 << 5


def framed(mode: int, packet: Packet | bytes) -> bytes:
    """One packet behind the header that the fuzz target reads."""
    data = bytes(packet)
    return struct.pack("<BH", mode, len(data)) + data


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
    return {
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
