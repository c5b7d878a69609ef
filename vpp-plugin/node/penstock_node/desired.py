"""What a data plane wants of its node. Values only; `plans` compares them with what is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from penstock_node.constants import TUN_NAME

Address = IPv4Address | IPv6Address

MAX_INTERFACE_NAME = 15  # IFNAMSIZ less the terminating zero


@dataclass(frozen=True)
class Tun:
    """The data plane's device.

    `mtu` is the largest by default: packets are never fragmented on their way into the data plane, and
    the interface on which they leave the node reports what does not fit there.
    """

    name: str = TUN_NAME
    queues: int = 1
    mtu: int = 65535
    tx_queue_length: int = 2000  # at the kernel's default of 500 a burst of super-packets is dropped

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= MAX_INTERFACE_NAME or any(c == "/" or c.isspace() for c in self.name):
            raise ValueError(f"tun.name: {self.name!r} is no interface name; use 1 to {MAX_INTERFACE_NAME} letters")
        if not 1 <= self.queues <= 256:
            raise ValueError(f"tun.queues: {self.queues} is out of range; use 1 to 256")
        if not 1280 <= self.mtu <= 65535:
            raise ValueError(f"tun.mtu: {self.mtu} is out of range; use 1280 (the least IPv6 allows) to 65535")

    @property
    def multi_queue(self) -> bool:
        """Whether the device is made with IFF_MULTI_QUEUE, which cannot be changed later."""
        return self.queues > 1


@dataclass(frozen=True)
class NatSource:
    """One of the node's own addresses, with the ports of it that belong to the data plane."""

    address: Address
    port_first: int
    port_last: int

    def __post_init__(self) -> None:
        if not 1 <= self.port_first <= self.port_last <= 65535:
            raise ValueError(
                f"nat source {self.address}: {self.port_first}-{self.port_last} is no port range; "
                "use 1 <= first <= last <= 65535"
            )


@dataclass(frozen=True)
class DesiredNode:
    """Everything that the node should have.

    `interfaces` are those on which client and backend traffic arrives; forwarding is switched on there.
    Empty means those of the default routes. With `shortcut`, plain packets that arrive there go straight to the
    TUN, past the node's routing and filters, where the kernel can do that.
    """

    tun: Tun = field(default_factory=Tun)
    vips: frozenset[Address] = frozenset()
    nat_sources: frozenset[NatSource] = frozenset()
    interfaces: tuple[str, ...] = ()
    shortcut: bool = True

    def __post_init__(self) -> None:
        sources = {source.address for source in self.nat_sources}
        if len(sources) != len(self.nat_sources):
            raise ValueError("nat_sources: an address appears twice; give each address one port range")
        if both := sources & self.vips:
            raise ValueError(f"vips: {min(both, key=str)} is a NAT source too; a VIP needs an address of its own")
