"""Per-device IP settings by rtnetlink, where /proc/sys may be read-only: CAP_NET_ADMIN is enough.

One hand-made RTM_SETLINK with IFLA_AF_SPEC: pyroute2 reads these settings but does not write them. The kernel
takes IPv4 settings this way; of IPv6 only the way addresses are made. IPv6 forwarding has no netlink way.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping
from enum import IntEnum


class Ipv4Setting(IntEnum):
    """Settings of `net.ipv4.conf.<device>`, with the kernel's numbers (IPV4_DEVCONF_*)."""

    FORWARDING = 1
    RP_FILTER = 8
    ACCEPT_LOCAL = 23


_RTM_SETLINK = 19
_NLM_F_REQUEST_ACK = 0x5
_NLMSG_ERROR = 2
_NLMSG_HEADER = struct.Struct("=IHHII")
_IFINFOMSG = struct.Struct("=BxHiII")
_IFLA_AF_SPEC = 26
_IFLA_INET_CONF = 1
_IFLA_INET6_ADDR_GEN_MODE = 8
_ADDR_GEN_MODE_NONE = 1
_TIMEOUT_SECONDS = 5.0


def set_ipv4(index: int, settings: Mapping[Ipv4Setting, int]) -> None:
    """Change IPv4 settings of the device with this index. Raises OSError."""
    values = b"".join(_attribute(setting, struct.pack("=I", value)) for setting, value in settings.items())
    _set_link(index, _attribute(socket.AF_INET, _attribute(_IFLA_INET_CONF, values)))


def disable_ipv6_addresses(index: int) -> None:
    """Have the device make itself no link-local address, hence no router solicitations. Raises OSError."""
    mode = _attribute(_IFLA_INET6_ADDR_GEN_MODE, struct.pack("=B", _ADDR_GEN_MODE_NONE))
    try:
        _set_link(index, _attribute(socket.AF_INET6, mode))
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:  # a kernel without IPv6 makes no addresses either
            raise


def _set_link(index: int, specification: bytes) -> None:
    body = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0) + _attribute(_IFLA_AF_SPEC, specification)
    header = _NLMSG_HEADER.pack(_NLMSG_HEADER.size + len(body), _RTM_SETLINK, _NLM_F_REQUEST_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
        channel.settimeout(_TIMEOUT_SECONDS)
        channel.bind((0, 0))
        channel.send(header + body)
        answer = channel.recv(65536)
    _, kind, _, _, _ = _NLMSG_HEADER.unpack_from(answer)
    if kind != _NLMSG_ERROR:
        raise OSError(errno.EPROTO, f"rtnetlink answered with message type {kind}")
    (code,) = struct.unpack_from("=i", answer, _NLMSG_HEADER.size)
    if code != 0:
        raise OSError(-code, os.strerror(-code))


def _attribute(kind: int, payload: bytes) -> bytes:
    """A netlink attribute, padded to 4 bytes."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)
