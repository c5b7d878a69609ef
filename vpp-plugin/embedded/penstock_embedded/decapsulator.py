"""The other end of GRE forwarding: what a server does that takes a VIP's packets out of their tunnel.

Packets arrive on raw sockets and go to the server's own stack through a TUN device that carries the VIPs' addresses;
answers go straight to the clients. It serves tests and servers whose kernel has no GRE: one packet at a time.
"""

from __future__ import annotations

import enum
import ipaddress
import os
import selectors
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import penstock_core
import structlog
from penstock_node import devconf
from penstock_node.tun import attach_plain
from pyroute2 import IPRoute

log = structlog.get_logger()

GRE = 47
PACKET_MAX = 65_535
LOOSE = 2
_IPV6_RECVTCLASS = 66
_IPV6_TCLASS = 67
_ANCILLARY_BYTES = socket.CMSG_SPACE(4)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_ADDRESSES = {4: (12, 16, 4), 6: (8, 24, 16)}
"""Offsets of source and destination in an IP header of each version, and the bytes of an address."""

_FRAGMENT = 44
_EXTENSIONS = {0, 43, _FRAGMENT, 60}
_WITH_PORTS = {socket.IPPROTO_TCP, socket.IPPROTO_UDP}


class Refusal(enum.Enum):
    """Why a packet is not taken out of its tunnel."""

    SENDER = "sender is no load-balancing node"
    PACKET = "no GRE, or no packet that a load balancer forwards"
    DESTINATION = "destination is no VIP"
    SOURCE = "source is a VIP or a link-local address"
    PORT = "port is none of the VIPs"


@dataclass(frozen=True)
class Admission:
    """Whose tunnels are opened, and for whom."""

    vips: frozenset[Address]
    balancers: tuple[Network, ...]
    ports: frozenset[tuple[int, int]] | None = None
    """Protocol and port; None: all."""

    def check_sender(self, sender: Address) -> Refusal | None:
        """Return why tunnels from there are not opened."""
        if any(sender.version == each.version and sender in each for each in self.balancers):
            return None
        return Refusal.SENDER

    def check_inner(self, inner: bytes) -> Refusal | None:
        """Return why a well-formed packet that was in a tunnel goes no further."""
        source_at, destination_at, size = _ADDRESSES[inner[0] >> 4]
        source = ipaddress.ip_address(inner[source_at : source_at + size])
        if ipaddress.ip_address(inner[destination_at : destination_at + size]) not in self.vips:
            return Refusal.DESTINATION
        if source in self.vips or source.is_link_local:
            return Refusal.SOURCE
        found = None if self.ports is None else _destination_port(inner)
        return None if self.ports is None or found is None or found in self.ports else Refusal.PORT


def _destination_port(packet: bytes) -> tuple[int, int] | None:
    """Return protocol and port of a well-formed packet, or None where it has no ports: later fragments, ICMP errors."""
    if packet[0] >> 4 == 4:
        protocol, at, later = packet[9], packet[0] % 16 * 4, int.from_bytes(packet[6:8], "big") & 0x1FFF != 0
    else:
        protocol, at, later = packet[6], 40, False
    while packet[0] >> 4 == 6 and protocol in _EXTENSIONS and not later:
        later = protocol == _FRAGMENT and int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF8 != 0
        size = 8 if protocol == _FRAGMENT else (packet[at + 1] + 1) * 8
        protocol, at = packet[at], at + size
    if later or protocol not in _WITH_PORTS:
        return None
    return protocol, int.from_bytes(packet[at + 2 : at + 4], "big")


class Decapsulator:
    """A TUN device with the VIPs' addresses, and sockets that hear GRE; a context manager.

    Raises TunError or OSError where it may not be made (it needs CAP_NET_ADMIN and CAP_NET_RAW).
    """

    def __init__(self, device: str, admission: Admission) -> None:
        self._device = device
        self._admission = admission
        self._refused: Counter[Refusal] = Counter()
        self._stack = ExitStack()
        self._selector = selectors.DefaultSelector()
        self._tun = -1

    def __enter__(self) -> Decapsulator:
        with ExitStack() as stack:
            stack.enter_context(self._selector)
            self._tun = attach_plain(self._device)
            stack.callback(os.close, self._tun)
            _configure(self._device, self._admission.vips)
            for family in (socket.AF_INET, socket.AF_INET6):
                heard = stack.enter_context(socket.socket(family, socket.SOCK_RAW, GRE))
                heard.setblocking(False)
                if family is socket.AF_INET6:
                    heard.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVTCLASS, 1)
                self._selector.register(heard, selectors.EVENT_READ)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for refusal, packets in self._refused.items():
            log.info("packets refused", reason=refusal.value, packets=packets)

    def run(self, stop: int) -> None:
        """Work until the file descriptor `stop` is readable."""
        self._selector.register(stop, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == stop:
                    return
                self._drain(key.fileobj)

    def _drain(self, heard: Any) -> None:
        while True:
            try:
                data, ancillary, _, sender = heard.recvmsg(PACKET_MAX, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            packet = data if heard.family is socket.AF_INET else _with_header(data, ancillary, sender[0])
            taken = self._take_out(packet, ipaddress.ip_address(sender[0].partition("%")[0]))
            if isinstance(taken, bytes):
                os.write(self._tun, taken)
            else:
                self._refuse(taken, sender[0])

    def _take_out(self, packet: bytes, sender: Address) -> bytes | Refusal:
        refusal = self._admission.check_sender(sender)
        if refusal is not None:
            return refusal
        inner = penstock_core.decapsulate(packet)
        if inner is None:
            return Refusal.PACKET
        return self._admission.check_inner(inner) or inner

    def _refuse(self, refusal: Refusal, sender: str) -> None:
        if refusal not in self._refused:
            log.warning("packet refused; further ones are counted", reason=refusal.value, sender=sender)
        self._refused[refusal] += 1


def _with_header(payload: bytes, ancillary: Sequence[tuple[int, int, bytes]], sender: str) -> bytes:
    """Return an IPv6 packet as it came: raw sockets keep its header to themselves, but for the traffic class."""
    values = [data for level, kind, data in ancillary if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_TCLASS)]
    (traffic_class,) = struct.unpack("=i", values[0]) if values else (0,)
    source = ipaddress.IPv6Address(sender.partition("%")[0]).packed
    return struct.pack("!IHBB", 6 << 28 | traffic_class << 20, len(payload), GRE, 64) + source + bytes(16) + payload


def _configure(device: str, addresses: Iterable[Address]) -> None:
    with IPRoute() as channel:
        index = channel.link_lookup(ifname=device)[0]
        for address in addresses:
            channel.addr("replace", index=index, address=str(address), prefixlen=address.max_prefixlen, flags=0x02)
        channel.link("set", index=index, state="up")
    devconf.set_ipv4(index, {devconf.Ipv4Setting.RP_FILTER: LOOSE})  # clients are elsewhere
