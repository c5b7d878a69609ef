"""What the kernel has: the part of it that concerns us, as values that compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network

from penstock_node.constants import PROTOCOL
from penstock_node.desired import Address, NatSource

Network = IPv4Network | IPv6Network


class Family(IntEnum):
    """Address family, with the kernel's numbers."""

    IPV4 = 2
    IPV6 = 10

    @classmethod
    def of(cls, value: Address | Network) -> Family:
        """Family of an address or prefix."""
        return cls.IPV4 if value.version == 4 else cls.IPV6


class IpProtocol(IntEnum):
    """Transport protocol, with the kernel's numbers."""

    TCP = 6
    UDP = 17


@dataclass(frozen=True)
class Link:
    """A network device and its per-device IP settings."""

    name: str
    index: int
    kind: str = ""
    up: bool = True
    mtu: int = 1500
    tx_queue_length: int = 1000
    forwarding: bool = True  # IPv4
    rp_filter: int = 0
    accept_local: bool = False
    ipv6_forced: bool = False  # force_forwarding, per device from Linux 6.17 on
    alias: str = ""
    group: int = 0
    queueing: str = "noqueue"  # discipline at the root
    address: str = ""  # Ethernet
    arp: bool = True
    receive_queues: int = 1
    tun: TunFlags | None = None


@dataclass(frozen=True)
class TunFlags:
    """What a TUN device was created with."""

    layer3: bool  # TUN, not TAP
    vnet_hdr: bool
    multi_queue: bool
    persistent: bool
    packet_information: bool
    owner: int | None


@dataclass(frozen=True)
class Rule:
    """A routing rule. Without selectors it holds for every packet."""

    family: Family
    preference: int
    table: int
    to: Address | None = None
    ip_protocol: IpProtocol | None = None
    ports: tuple[int, int] | None = None  # destination ports, first and last
    mark: int | None = None
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Route:
    """A route of one of our tables; without a device it is a blackhole."""

    family: Family
    table: int
    destination: Network
    metric: int
    device: str | None = None
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class NftTable:
    """Our nft table: fingerprints of its chains and rules in order, and what its sets hold."""

    skeleton: tuple[str, ...] = ()
    vips: frozenset[Address] = frozenset()
    nat_sources: frozenset[NatSource] = frozenset()
    switched_on: frozenset[tuple[Family, str]] = frozenset()  # interfaces on which we switched forwarding on


@dataclass(frozen=True)
class Shortcut:
    """Our nft table of family netdev; `skeleton` and `vips` tell two of them apart, the rest is what they say."""

    skeleton: tuple[str, ...] = ()
    vips: frozenset[Address] = frozenset()
    interfaces: tuple[str, ...] = field(default=(), compare=False)
    nat_sources: frozenset[NatSource] = field(default=frozenset(), compare=False)


@dataclass(frozen=True)
class ActualNode:
    """Everything that `plan` needs to know of a node."""

    links: Mapping[str, Link] = field(default_factory=dict)
    default_interfaces: tuple[str, ...] = ()
    rules: frozenset[Rule] = frozenset()  # ours, and every unconditional rule of the local table
    routes: frozenset[Route] = frozenset()  # all of our tables
    nft: NftTable | None = None
    shortcut: Shortcut | None = None
    shortcut_possible: bool = True  # whether nft and kernel know what it takes
    ipv4_forwarding: bool = True  # of all interfaces, present and future
    ipv6_forwarding: bool = True
