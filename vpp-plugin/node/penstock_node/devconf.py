"""Per-device IP settings by rtnetlink, where /proc/sys may be read-only: CAP_NET_ADMIN is enough.

One RTM_SETLINK with IFLA_AF_SPEC: pyroute2 reads these settings but does not write them. The kernel
takes IPv4 settings this way; of IPv6 only the way addresses are made. IPv6 forwarding has no netlink way.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping
from enum import IntEnum

from penstock_node.rtnetlink import Channel, Request, attribute


class Ipv4Setting(IntEnum):
    """Settings of `net.ipv4.conf.<device>`, with the kernel's numbers (IPV4_DEVCONF_*)."""

    FORWARDING = 1
    RP_FILTER = 8
    ACCEPT_LOCAL = 23


_RTM_SETLINK = 19
_IFINFOMSG = struct.Struct("=BxHiII")
_IFLA_AF_SPEC = 26
_IFLA_INET_CONF = 1
_IFLA_INET6_ADDR_GEN_MODE = 8
_ADDR_GEN_MODE_NONE = 1


def set_ipv4(index: int, settings: Mapping[Ipv4Setting, int]) -> None:
    """Change IPv4 settings of the device with this index. Raises OSError."""
    values = b"".join(attribute(setting, struct.pack("=I", value)) for setting, value in settings.items())
    _set_link(index, attribute(socket.AF_INET, attribute(_IFLA_INET_CONF, values)))


def disable_ipv6_addresses(index: int) -> None:
    """Have the device make itself no link-local address, hence no router solicitations. Raises OSError."""
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, struct.pack("=B", _ADDR_GEN_MODE_NONE))
    try:
        _set_link(index, attribute(socket.AF_INET6, mode))
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:  # a kernel without IPv6 makes no addresses either
            raise


def _set_link(index: int, specification: bytes) -> None:
    body = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attribute(_IFLA_AF_SPEC, specification)
    with Channel() as channel:
        (code,) = channel.perform([Request(_RTM_SETLINK, 0, body)])
    if code != 0:
        raise OSError(code, os.strerror(code))
