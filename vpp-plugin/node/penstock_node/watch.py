"""Notices that something on the node changed: links, addresses, routes, rules, settings of interfaces, queues, nft.

Messages of the kernel are counted, not read: whoever asks compares the whole node with what it should be anyway.
"""

from __future__ import annotations

import errno
import socket
from types import TracebackType
from typing import Self

# Multicast groups as bits, linux/rtnetlink.h: group N is bit N - 1.
_LINK, _TC = 1, 4
_IPV4_ADDRESS, _IPV4_ROUTE, _IPV4_RULE = 5, 7, 8
_IPV6_ADDRESS, _IPV6_ROUTE, _IPV6_RULE = 9, 11, 19
_IPV4_NETCONF, _IPV6_NETCONF = 24, 25  # forwarding and rp_filter
_ROUTE_GROUPS = (
    *(_LINK, _TC, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV4_RULE, _IPV6_ADDRESS, _IPV6_ROUTE, _IPV6_RULE),
    *(_IPV4_NETCONF, _IPV6_NETCONF),
)
_NETLINK_NETFILTER = 12
_NFTABLES = 7  # linux/netfilter/nfnetlink.h
_RECEIVE_BYTES = 1 << 16


class NodeWatch:
    """Sockets to the kernel's notifications in this thread's network namespace; a context manager.

    Raises OSError where the kernel has no such sockets. Changes that the kernel does not announce, such as
    `accept_local` of an interface, are not noticed.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        try:
            self._open(socket.NETLINK_ROUTE, _ROUTE_GROUPS)
            self._open(_NETLINK_NETFILTER, (_NFTABLES,))
        except OSError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()

    def changed(self) -> bool:
        """Return whether anything changed since the last call; does not block."""
        seen = [_drain(each) for each in self._sockets]  # all of them, not only up to the first with messages
        return any(seen)

    def _open(self, protocol: int, groups: tuple[int, ...]) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        opened = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._sockets.append(opened)
        opened.bind((0, sum(1 << (group - 1) for group in groups)))


def _drain(source: socket.socket) -> bool:
    """Take all messages; return whether there were any, or were lost because there were too many."""
    found = False
    while True:
        try:
            source.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return found
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
        found = True
