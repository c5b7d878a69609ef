"""Routes of the kernel's tables, read and written many at a time."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_network

from penstock_node import rtnetlink
from penstock_node.actual import Family, Network, Route
from penstock_node.changes import AddRoute, DeleteRoute
from penstock_node.constants import MAIN_TABLE

RouteChange = AddRoute | DeleteRoute

_NEW, _DELETE, _GET = 24, 25, 26  # RTM_*ROUTE
_REPLACE = 0x100 | 0x400  # NLM_F_REPLACE, NLM_F_CREATE
_MESSAGE = struct.Struct("=BBBBBBBBI")  # family, destination and source bits, TOS, table, protocol, scope, type, flags
_NEXT_HOP = struct.Struct("=HBBi")  # length, flags, weight, interface
_NUMBER = struct.Struct("=I")
_DESTINATION, _INTERFACE, _METRIC, _MULTIPATH, _TABLE = 1, 4, 6, 9, 15  # RTA_*
_ANY, _UNICAST, _BLACKHOLE = 0, 1, 6  # types
_UNIVERSE, _LINK, _ANY_SCOPE = 0, 253, 255

# A change that finds its work done has succeeded: the kernel or another process was faster.
_ALREADY_GONE = {errno.ENOENT, errno.ESRCH, errno.ENODEV}


def observe(channel: rtnetlink.Channel, table: int, names: Mapping[int, str]) -> Iterator[Route]:
    """Yield a table's routes; `names` are those of interfaces by number. Raises OSError."""
    for family in Family:
        for body, found in _dump(channel, family, table):
            bits, protocol, kind = body[1], body[5], body[7]
            address = found.get(_DESTINATION, bytes(4 if family is Family.IPV4 else 16))
            index = _number(found.get(_INTERFACE))
            yield Route(
                family=family,
                table=table,
                destination=_network(address, bits),
                metric=_number(found.get(_METRIC)),
                # IPv6 blackholes name the loopback device.
                device=None if kind == _BLACKHOLE else names.get(index, f"#{index}"),
                protocol=protocol,
            )


def default_interfaces(channel: rtnetlink.Channel, names: Mapping[int, str]) -> tuple[str, ...]:
    """Interfaces of the default routes, the preferred one first. Raises OSError."""
    found: dict[str, None] = {}
    for family in Family:
        defaults = [
            values for body, values in _dump(channel, family, MAIN_TABLE) if body[1] == 0 and body[7] == _UNICAST
        ]
        for values in sorted(defaults, key=lambda values: _number(values.get(_METRIC))):
            for index in (_number(values.get(_INTERFACE)), *_next_hops(values.get(_MULTIPATH, b""))):
                if index in names:
                    found[names[index]] = None
    return tuple(found)


def apply(channel: rtnetlink.Channel, changes: Sequence[RouteChange]) -> list[int]:
    """Make changes in their order; returns the error number of each, 0 of those that succeeded. Raises OSError."""
    indexes = {name: index for index, name in socket.if_nameindex()}
    possible = [change for change in changes if change.route.device is None or change.route.device in indexes]
    codes = channel.perform([_request(change, indexes) for change in possible])
    results = {
        id(change): 0 if isinstance(change, DeleteRoute) and code in _ALREADY_GONE else code
        for change, code in zip(possible, codes, strict=True)
    }
    # Routes of a device that is gone went with it.
    return [results.get(id(change), 0 if isinstance(change, DeleteRoute) else errno.ENODEV) for change in changes]


def _dump(channel: rtnetlink.Channel, family: Family, table: int) -> Iterator[tuple[bytes, dict[int, bytes]]]:
    wanted = _MESSAGE.pack(family, 0, 0, 0, table if table <= 0xFF else 0, 0, 0, 0, 0)
    try:
        answers = channel.dump(_GET, wanted + rtnetlink.attribute(_TABLE, _NUMBER.pack(table)))
    except OSError as error:
        if error.errno == errno.ENOENT:  # a table without routes may not be there at all
            return
        raise
    for body in answers:
        found = rtnetlink.attributes(body, _MESSAGE.size)
        if body[0] == family and _number(found.get(_TABLE)) == table:
            yield body, found


def _request(change: RouteChange, indexes: Mapping[str, int]) -> rtnetlink.Request:
    route = change.route
    adding = isinstance(change, AddRoute)
    if route.device is None:
        kind, scope = _BLACKHOLE, _UNIVERSE
    else:
        kind, scope = _UNICAST if adding else _ANY, _LINK
    body = _MESSAGE.pack(
        route.family,
        route.destination.prefixlen,
        0,
        0,
        0,  # the table's number may exceed a byte
        route.protocol,
        scope if adding else _ANY_SCOPE,
        kind,
        0,
    )
    body += rtnetlink.attribute(_TABLE, _NUMBER.pack(route.table))
    body += rtnetlink.attribute(_DESTINATION, route.destination.network_address.packed)
    body += rtnetlink.attribute(_METRIC, _NUMBER.pack(route.metric))
    if route.device is not None:
        body += rtnetlink.attribute(_INTERFACE, _NUMBER.pack(indexes[route.device]))
    # Replaces a route to another device, which IPv4 would take for the same; without a gap.
    return rtnetlink.Request(_NEW, _REPLACE, body) if adding else rtnetlink.Request(_DELETE, 0, body)


@lru_cache(maxsize=8192)  # most are the same at every look
def _network(address: bytes, bits: int) -> Network:
    return ip_network((address, bits))


def _next_hops(data: bytes) -> Iterator[int]:
    """Yield the interfaces of a route over several."""
    at = 0
    while at + _NEXT_HOP.size <= len(data):
        length, _, _, index = _NEXT_HOP.unpack_from(data, at)
        yield index
        at += max(length + 3 & ~3, _NEXT_HOP.size)


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(_NUMBER.unpack(value)[0])
