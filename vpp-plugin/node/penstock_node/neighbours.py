"""ARP and neighbour discovery frames: built and read as bytes. Computation only."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from penstock_node.desired import Address

ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD

_BROADCAST = b"\xff" * 6
_ALL_NODES = IPv6Address("ff02::1")
_UNSPECIFIED = IPv6Address("::")
_SOLICITED_NODE = IPv6Address("ff02::1:ff00:0")

_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_ETHERNET_IPV4 = (1, 0x0800, 6, 4)
_ARP_REQUEST, _ARP_REPLY = 1, 2

_ETHERNET = struct.Struct("!6s6sH")
_IPV6 = struct.Struct("!IHBB16s16s")
_NEIGHBOUR = struct.Struct("!BBHI16s")
_NEXT_HEADER_ICMPV6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_HOP_LIMIT = 255  # proves that the packet comes from this link
_SOLICITED, _OVERRIDE = 0x40000000, 0x20000000
_OPTION_TARGET = 2


@dataclass(frozen=True)
class Question:
    """Somebody asks who has `target`. `asker` is None for a probe by a host that has no address yet."""

    target: Address
    asker: Address | None
    asker_mac: bytes


@dataclass(frozen=True)
class Claim:
    """Somebody says, unasked or asked by us, that it has `target`."""

    target: Address
    mac: bytes


def read(frame: bytes) -> Question | Claim | None:
    """What an Ethernet frame says about an address; None for everything else and everything malformed."""
    if len(frame) < _ETHERNET.size:
        return None
    _, source, ethertype = _ETHERNET.unpack_from(frame)
    if ethertype == ETHERTYPE_ARP:
        return _read_arp(frame[_ETHERNET.size :])
    if ethertype == ETHERTYPE_IPV6:
        return _read_neighbour(source, frame[_ETHERNET.size :])
    return None


def answer(question: Question, mac: bytes) -> bytes:
    """The frame that answers a question: the asked address is at `mac`."""
    if isinstance(question.target, IPv4Address):
        asker = question.asker if question.asker is not None else IPv4Address(0)
        return _arp(_ARP_REPLY, mac, question.target, question.asker_mac, asker.packed, destination=question.asker_mac)
    if question.asker is None:  # duplicate address detection: RFC 4861, 7.2.4
        return _advertisement(question.target, mac, _ALL_NODES, multicast_mac(_ALL_NODES), _OVERRIDE)
    assert isinstance(question.asker, IPv6Address)  # noqa: S101 - for the type checker: one frame, one family
    return _advertisement(question.target, mac, question.asker, question.asker_mac, _SOLICITED | _OVERRIDE)


def announcements(address: Address, mac: bytes) -> tuple[bytes, ...]:
    """Frames that tell everybody on the link that `address` is at `mac`.

    ARP in both forms, as request and as reply: there are devices that learn from only one of them.
    """
    if isinstance(address, IPv4Address):
        request = _arp(_ARP_REQUEST, mac, address, bytes(6), address.packed, destination=_BROADCAST)
        reply = _arp(_ARP_REPLY, mac, address, _BROADCAST, address.packed, destination=_BROADCAST)
        return request, reply
    return (_advertisement(address, mac, _ALL_NODES, multicast_mac(_ALL_NODES), _OVERRIDE),)


def probe(address: Address, mac: bytes) -> bytes:
    """A frame that asks who else has `address`, without claiming it."""
    if isinstance(address, IPv4Address):
        return _arp(_ARP_REQUEST, mac, IPv4Address(0), bytes(6), address.packed, destination=_BROADCAST)
    group = solicited_node(address)
    message = _neighbour(_SOLICITATION, 0, address, b"", _UNSPECIFIED, group)
    return _ipv6_frame(mac, multicast_mac(group), _UNSPECIFIED, group, message)


def solicited_node(address: IPv6Address) -> IPv6Address:
    """Multicast group to which questions about the address are sent."""
    return IPv6Address(int(_SOLICITED_NODE) | int(address) & 0xFFFFFF)


def multicast_mac(group: IPv6Address) -> bytes:
    """Ethernet address of an IPv6 multicast group."""
    return b"\x33\x33" + group.packed[12:]


def _read_arp(packet: bytes) -> Question | Claim | None:
    if len(packet) < _ARP.size:
        return None
    *kind, operation, sender_mac, sender, _, target = _ARP.unpack_from(packet)
    if tuple(kind) != _ARP_ETHERNET_IPV4 or operation not in (_ARP_REQUEST, _ARP_REPLY):
        return None
    if sender == target or operation == _ARP_REPLY:
        return Claim(IPv4Address(sender), sender_mac)
    asker = IPv4Address(sender)
    return Question(IPv4Address(target), asker if int(asker) else None, sender_mac)


def _read_neighbour(source_mac: bytes, packet: bytes) -> Question | Claim | None:
    """Read a solicitation or an advertisement, with the checks of RFC 4861, 7.1."""
    if len(packet) < _IPV6.size + _NEIGHBOUR.size:
        return None
    _, length, next_header, hops, source, destination = _IPV6.unpack_from(packet)
    message = packet[_IPV6.size : _IPV6.size + length]
    if next_header != _NEXT_HEADER_ICMPV6 or hops != _HOP_LIMIT or not _NEIGHBOUR.size <= length == len(message):
        return None
    kind, code, _, _, packed_target = _NEIGHBOUR.unpack_from(message)
    target, asker = IPv6Address(packed_target), IPv6Address(source)
    if code != 0 or target.is_multicast or _icmpv6_checksum(source, destination, message) != 0:
        return None
    if kind == _SOLICITATION:
        if asker == _UNSPECIFIED and IPv6Address(destination) != solicited_node(target):
            return None
        return Question(target, None if asker == _UNSPECIFIED else asker, source_mac)
    if kind == _ADVERTISEMENT:
        return Claim(target, _target_mac(message[_NEIGHBOUR.size :]) or source_mac)
    return None


def _target_mac(options: bytes) -> bytes | None:
    while len(options) >= 8:
        kind, units = options[0], options[1]
        if kind == _OPTION_TARGET and units == 1:
            return options[2:8]
        if units == 0:
            return None
        options = options[8 * units :]
    return None


def _arp(
    operation: int, mac: bytes, sender: IPv4Address, target_mac: bytes, target: bytes, *, destination: bytes
) -> bytes:
    packet = _ARP.pack(*_ARP_ETHERNET_IPV4, operation, mac, sender.packed, target_mac, target)
    return _ETHERNET.pack(destination, mac, ETHERTYPE_ARP) + packet


def _advertisement(target: IPv6Address, mac: bytes, to: IPv6Address, to_mac: bytes, flags: int) -> bytes:
    option = bytes((_OPTION_TARGET, 1)) + mac
    # Source is the announced address itself: it is ours, and needs no look-up of what the interface has.
    message = _neighbour(_ADVERTISEMENT, flags, target, option, target, to)
    return _ipv6_frame(mac, to_mac, target, to, message)


def _neighbour(
    kind: int, flags: int, target: IPv6Address, options: bytes, source: IPv6Address, to: IPv6Address
) -> bytes:
    unsummed = _NEIGHBOUR.pack(kind, 0, 0, flags, target.packed) + options
    checksum = _icmpv6_checksum(source.packed, to.packed, unsummed)
    return _NEIGHBOUR.pack(kind, 0, checksum, flags, target.packed) + options


def _ipv6_frame(mac: bytes, to_mac: bytes, source: IPv6Address, to: IPv6Address, message: bytes) -> bytes:
    header = _IPV6.pack(6 << 28, len(message), _NEXT_HEADER_ICMPV6, _HOP_LIMIT, source.packed, to.packed)
    return _ETHERNET.pack(to_mac, mac, ETHERTYPE_IPV6) + header + message


def _icmpv6_checksum(source: bytes, destination: bytes, message: bytes) -> int:
    """Internet checksum over pseudo-header and message; 0 for a received message that is intact."""
    data = source + destination + struct.pack("!II", len(message), _NEXT_HEADER_ICMPV6) + message
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
