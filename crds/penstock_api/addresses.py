"""Addresses that are never those of a VIP or of a server, of every family.

Pure: the standard library and nothing of ours, since the data plane has a generated copy of this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_METADATA = "a cloud's metadata service"
_NEVER_IPV4 = {
    "0.0.0.0/8": "unspecified",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local",  # metadata services of most clouds among them
    "192.0.0.0/24": "reserved for protocols",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved, or broadcast",
    "100.100.100.200/32": _METADATA,  # Alibaba
    "168.63.129.16/32": _METADATA,  # Azure
}
_NEVER_IPV6 = {
    "::/16": "unspecified, loopback or IPv4 written as IPv6",
    "64:ff9b:1::/48": "a translation of IPv4",  # RFC 8215; where the IPv4 address is in it, nobody else can tell
    "100::/64": "a discard prefix",
    "2001::/32": "a Teredo tunnel",
    "2002::/16": "a 6to4 tunnel",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
    "fd00:ec2::/32": _METADATA,  # Amazon
    "fd00:c1::a9fe:a9fe/128": _METADATA,  # Oracle
    "fd00:42::42/128": _METADATA,  # Scaleway
    "fd20:ce::254/128": _METADATA,  # Google
}
_TRANSLATED = IPv6Network("64:ff9b::/96")  # RFC 6052: the IPv4 address is the last 32 bits


def _translated(network: IPv4Network) -> IPv6Network:
    base = int(_TRANSLATED.network_address) + int(network.network_address)
    return IPv6Network((base, _TRANSLATED.prefixlen + network.prefixlen))


def _never() -> Iterator[tuple[IPNetwork, str]]:
    for text, kind in (_NEVER_IPV4 | _NEVER_IPV6).items():
        yield ip_network(text), kind
    for text, kind in _NEVER_IPV4.items():
        yield _translated(IPv4Network(text)), f"a translation of IPv4 ({kind})"


NEVER: dict[IPNetwork, str] = dict(_never())
"""Networks of such addresses, and what they are."""


_RANGES = {
    version: tuple((int(n[0]), int(n[-1]), kind) for n, kind in NEVER.items() if n.version == version)
    for version in (4, 6)
}


def unusable(address: IPAddress) -> str:
    """Return why no VIP and no server can have this address; "" if one can."""
    return unusable_within(address, address)


def unusable_within(first: IPAddress, last: IPAddress) -> str:
    """Return why a block of addresses, both ends included, cannot be given to VIPs; "" if it can."""
    low, high = int(first), int(last)
    return next((kind for start, end, kind in _RANGES[first.version] if start <= high and low <= end), "")
