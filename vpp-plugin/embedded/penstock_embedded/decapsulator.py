"""The other end of GRE forwarding: what a server does that takes a VIP's packets out of their tunnel.

Packets arrive on raw sockets and go to the server's own stack through a TUN device that carries the VIPs' addresses;
answers go straight to the clients. It serves tests and servers whose kernel has no GRE: one packet at a time.
"""

from __future__ import annotations

import ipaddress
import os
import selectors
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack
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

Addresses = Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address]


class Decapsulator:
    """A TUN device with the VIPs' addresses, and sockets that hear GRE; a context manager.

    Raises TunError or OSError where it may not be made (it needs CAP_NET_ADMIN and CAP_NET_RAW).
    """

    def __init__(self, device: str, addresses: Addresses) -> None:
        self._device = device
        self._addresses = addresses
        self._stack = ExitStack()
        self._selector = selectors.DefaultSelector()
        self._tun = -1

    def __enter__(self) -> Decapsulator:
        with ExitStack() as stack:
            stack.enter_context(self._selector)
            self._tun = attach_plain(self._device)
            stack.callback(os.close, self._tun)
            _configure(self._device, self._addresses)
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
            inner = penstock_core.decapsulate(packet)
            if inner is None:
                log.debug("no GRE packet of ours", sender=sender[0], bytes=len(data))
                continue
            os.write(self._tun, inner)


def _with_header(payload: bytes, ancillary: Sequence[tuple[int, int, bytes]], sender: str) -> bytes:
    """Return an IPv6 packet as it came: raw sockets keep its header to themselves, but for the traffic class."""
    values = [data for level, kind, data in ancillary if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_TCLASS)]
    (traffic_class,) = struct.unpack("=i", values[0]) if values else (0,)
    source = ipaddress.IPv6Address(sender.partition("%")[0]).packed
    return struct.pack("!IHBB", 6 << 28 | traffic_class << 20, len(payload), GRE, 64) + source + bytes(16) + payload


def _configure(device: str, addresses: Addresses) -> None:
    with IPRoute() as channel:
        index = channel.link_lookup(ifname=device)[0]
        for address in addresses:
            channel.addr("replace", index=index, address=str(address), prefixlen=address.max_prefixlen, flags=0x02)
        channel.link("set", index=index, state="up")
    devconf.set_ipv4(index, {devconf.Ipv4Setting.RP_FILTER: LOOSE})  # clients are elsewhere
