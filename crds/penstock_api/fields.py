"""Types of fields that several kinds use: names, addresses, address blocks, ports."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any, NamedTuple

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from penstock_api.addresses import NEVER, unusable, unusable_within
from penstock_api.choices import Choice
from penstock_api.rules import Rule

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

SET = {"x-kubernetes-list-type": "set"}
ATOMIC = {"x-kubernetes-list-type": "atomic"}


def map_list(*keys: str) -> dict[str, Any]:
    """Return the schema extension of a list whose items are told apart by `keys`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class AddressFamily(Choice):
    """Address family."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"


class Protocol(Choice):
    """Transport protocol."""

    TCP = "TCP"
    UDP = "UDP"


def family_of(address: IPAddress | IPNetwork) -> AddressFamily:
    """Return the family of an address or network."""
    return AddressFamily.IPV4 if address.version == 4 else AddressFamily.IPV6


def _named(pattern: str, limit: int, what: str, example: str) -> Rule:
    compiled = re.compile(pattern)
    return Rule(
        cel=f"self.matches('{pattern}')",
        message=f"must be {what} of at most {limit} characters",
        fix=f"use lower-case letters, digits and dashes, for example {example}",
        holds=lambda value: compiled.fullmatch(value) is not None,
    )


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"

ObjectName = Annotated[
    str,
    Field(max_length=253),
    _named(rf"^{_LABEL}([.]{_LABEL})*$", 253, "the name of an object", "web"),
]
LabelName = Annotated[str, Field(max_length=63), _named(f"^{_LABEL}$", 63, "a DNS label", "web")]

InterfaceName = Annotated[
    str,
    Field(max_length=15),
    Rule(
        cel="self.matches('^[!-.0-~]+$')",
        message="must be the name of a network interface, without / and spaces",
        fix="write for example eth0",
        holds=lambda name: bool(name) and all("!" <= character <= "~" and character != "/" for character in name),
    ),
]

_SERVICE_PORT = re.compile(_LABEL)
PORT_NAME_LIMIT = 63  # characters of a Service's port name, which is a DNS label

Port = Annotated[int, Field(ge=1, le=65535)]


def _unique(items: Any) -> bool:
    listed = list(items)
    return len(set(listed)) == len(listed)


def unique(what: str) -> Rule:
    """Return the rule that a list has no duplicates; the API server's half of it is the list's type."""
    return Rule(cel=None, message=f"each {what} may appear once", fix="remove the duplicate", holds=_unique)


def unique_by(what: str, key: Any) -> Rule:
    """Return the rule that a list of models has no two with the same key."""
    return Rule(
        cel=None,
        message=f"each {what} may appear once",
        fix="remove the duplicate",
        holds=lambda items: _unique(key(item) for item in items),
    )


# --- Ports of backends: a number, or the name of a port of the Service ---


def _parse_target_port(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    if isinstance(value, str) and len(value) <= PORT_NAME_LIMIT and _SERVICE_PORT.fullmatch(value):
        return value
    raise PydanticCustomError(
        "rule",
        "{message}; {fix}",
        {
            "message": "must be a port number from 1 to 65535, or the name of a port of the Service",
            "fix": "write a number without quotes, or a name of at most 63 characters such as http",
            "field": "",
        },
    )


TargetPort = Annotated[
    int | str,
    PlainValidator(_parse_target_port),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 1,
            "maximum": 65535,
            "maxLength": PORT_NAME_LIMIT,
            "pattern": f"^{_SERVICE_PORT.pattern}$",
        }
    ),
]


# --- Addresses ---


def _invalid(message: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{message}; {fix}", {"message": message, "fix": fix, "field": ""})


AddressInStatus = Annotated[IPv4Address | IPv6Address, WithJsonSchema({"type": "string", "maxLength": 45})]
"""An address that Penstock wrote: the API server need not check it again."""

_ADDRESS_MESSAGE = "must be one IP address in its shortest form"
_ADDRESS_FIX = "write for example 203.0.113.10 or 2001:db8::10, without prefix length, leading zeros or upper case"


def _parse_address(value: Any) -> IPAddress:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    try:
        address = ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        address = None
    mapped = isinstance(address, IPv6Address) and (address.ipv4_mapped is not None or address.scope_id is not None)
    if address is None or mapped or str(address) != value:
        raise _invalid(_ADDRESS_MESSAGE, _ADDRESS_FIX)
    return address


def is_unicast(address: IPAddress) -> bool:
    """Tell whether packets can be routed to one host by this address."""
    return not unusable(address)


# The same table for the API server.
_NEVER_CEL = "[" + ", ".join(f"'{network}'" for network in NEVER) + "]"


def _never_cel(text: str) -> str:
    """Return the expression that `text` is no unusable address."""
    return f"(!isIP({text}) || !{_NEVER_CEL}.exists(n, cidr(n).containsIP({text})))"


_NEVER_MESSAGE = (
    "must not be loopback, link-local, multicast, broadcast, unspecified or reserved, "
    "of a cloud's metadata service, or a translation of such an address"
)
_NEVER_BLOCK_MESSAGE = _NEVER_MESSAGE.replace("must not be", "must not hold addresses that are")
_NEVER_BLOCK_FIX = "use addresses that the network routes to the load-balancing nodes"

_IS_ADDRESS = Rule(
    cel="isIP(self) && ip.isCanonical(self)",
    message=_ADDRESS_MESSAGE,
    fix=_ADDRESS_FIX,
    holds=lambda value: True,
)
_IS_UNICAST = Rule(
    cel=_never_cel("self"),
    message=_NEVER_MESSAGE,
    fix="use an address that the network routes to one host",
    holds=is_unicast,
)

Address = Annotated[
    IPv4Address | IPv6Address,
    PlainValidator(_parse_address),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "maxLength": 45}),
    _IS_ADDRESS,
    _IS_UNICAST,
]
"""A unicast address that can be routed to."""


# --- Networks ---

_CIDR_MESSAGE = "must be a network in CIDR notation whose host bits are zero"
_CIDR_FIX = "write for example 10.0.0.0/16 or 2001:db8::/64"


def _parse_cidr(value: Any) -> IPNetwork:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        network = ipaddress.ip_network(value) if isinstance(value, str) else None
    except ValueError:
        network = None
    if network is None or str(network) != value:
        raise _invalid(_CIDR_MESSAGE, _CIDR_FIX)
    return network


Cidr = Annotated[
    IPv4Network | IPv6Network,
    PlainValidator(_parse_cidr),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "maxLength": 49}),
    Rule(
        cel="isCIDR(self) && string(cidr(self).masked()) == self",
        message=_CIDR_MESSAGE,
        fix=_CIDR_FIX,
        holds=lambda value: True,
    ),
]
"""A network."""


# --- Blocks of addresses: a network, a range, or one address ---


class AddressBlock(NamedTuple):
    """Addresses from `first` to `last`, both included; `text` is how the user wrote them."""

    first: IPAddress
    last: IPAddress
    text: str

    def __str__(self) -> str:
        return self.text

    def __contains__(self, address: object) -> bool:
        return (
            isinstance(address, IPv4Address | IPv6Address)
            and address.version == self.first.version
            and int(self.first) <= int(address) <= int(self.last)
        )

    @property
    def size(self) -> int:
        """Number of addresses."""
        return int(self.last) - int(self.first) + 1

    def overlaps(self, other: AddressBlock) -> bool:
        """Tell whether an address lies in both."""
        return (
            self.first.version == other.first.version
            and int(self.first) <= int(other.last)
            and int(other.first) <= int(self.last)
        )

    def contains_any(self, addresses: Iterable[str]) -> bool:
        """Tell whether one of `addresses` lies in the block."""
        return any(ipaddress.ip_address(address) in self for address in addresses)


_BLOCK_MESSAGE = "must be a network, a range first-last of one family with first <= last, or one address"
_BLOCK_FIX = "write for example 203.0.113.0/24, 198.51.100.10-198.51.100.20 or 203.0.113.10"

BLOCK_PREFIX = {4: 16, 6: 64}
"""A block lies in one network of this prefix: what is wider is a slip of the pen, and could hold special addresses."""


def _is_narrow(block: AddressBlock) -> bool:
    network = ipaddress.ip_network((block.first, BLOCK_PREFIX[block.first.version]), strict=False)
    return block.last in network


def parse_block(value: Any) -> AddressBlock:
    """Read a network, a range or an address."""
    if isinstance(value, AddressBlock):
        return value
    try:
        return _split_block(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise _invalid(_BLOCK_MESSAGE, _BLOCK_FIX) from error


def _split_block(value: str) -> AddressBlock:
    if "/" in value:
        network = ipaddress.ip_network(value)
        if str(network) != value:
            raise ValueError(value)
        return AddressBlock(network[0], network[-1], value)
    first_text, dash, last_text = value.partition("-")
    first = _parse_address(first_text)
    last = _parse_address(last_text) if dash else first
    if first.version != last.version or int(first) > int(last):
        raise ValueError(value)
    return AddressBlock(first, last, value)


_CEL_IS_BLOCK = (
    "(self.contains('/') ? isCIDR(self) && string(cidr(self).masked()) == self : "
    "self.split('-').size() <= 2 && self.split('-').all(a, isIP(a) && ip.isCanonical(a)) && "
    "self.split('-').all(a, ip(a).family() == ip(self.split('-')[0]).family()))"
)

# Without a list: the API server's estimate of what a rule costs takes a list of unknown length for a long one.
_CEL_FIRST = "(self.contains('-') ? self.substring(0, self.indexOf('-')) : self)"
_CEL_LAST = "(self.contains('-') ? self.substring(self.indexOf('-') + 1) : self)"

Block = Annotated[
    AddressBlock,
    PlainValidator(parse_block),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "maxLength": 91}),
    Rule(cel=_CEL_IS_BLOCK, message=_BLOCK_MESSAGE, fix=_BLOCK_FIX, holds=lambda block: True),
    Rule(
        # Only IPv4: CEL can't compare IPv6 addresses; a reversed IPv6 range is refused by the operator.
        cel="!self.matches('^[0-9.]+-[0-9.]+$') || self.split('-').exists(a, !isIP(a)) || "
        "[self.split('-').map(a, a.split('.')).map(o, int(o[0]) * 16777216 + int(o[1]) * 65536 + "
        "int(o[2]) * 256 + int(o[3]))].all(v, v[0] <= v[1])",
        message="a range must not end before it begins",
        fix="swap its ends",
        holds=lambda block: True,
    ),
    Rule(
        cel="self.contains('/') ? !isCIDR(self) || "
        "(cidr(self).prefixLength() >= (cidr(self).ip().family() == 4 ? 16 : 64)) : "
        "self.split('-').exists(a, !isIP(a)) || "
        "self.split('-').all(a, cidr(self.split('-')[0] + (ip(a).family() == 4 ? '/16' : '/64')).masked()"
        ".containsIP(a))",
        message="a block must lie in one /16 (IPv4) or one /64 (IPv6)",
        fix="split it, or correct its prefix or ends",
        holds=_is_narrow,
    ),
    Rule(
        cel=f"!isCIDR(self) || !{_NEVER_CEL}.exists(n, "
        "cidr(n).containsIP(cidr(self).ip()) || cidr(self).containsIP(cidr(n).ip()))",
        message=_NEVER_BLOCK_MESSAGE,
        fix=_NEVER_BLOCK_FIX,
        holds=lambda block: not unusable_within(block.first, block.last),
    ),
    Rule(
        # The ends alone: CEL cannot compare IPv6 addresses. What lies between them is refused by the operator.
        cel=f"self.contains('/') || ({_never_cel(_CEL_FIRST)} && {_never_cel(_CEL_LAST)})",
        message=_NEVER_BLOCK_MESSAGE,
        fix=_NEVER_BLOCK_FIX,
        holds=lambda block: True,
    ),
]
"""Addresses of a pool."""
