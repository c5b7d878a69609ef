"""What a data plane wants of its node. Values only; `plans` compares them with what is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from penstock_node.constants import TUN_NAME, VETH_PEER_NAME

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
class Veth:
    """A pair of devices between the node's kernel and a data plane that takes `peer` for itself, as VPP does.

    The kernel's end is to the node what a `Tun` is: routes lead to it. It resolves no neighbours: every frame on the
    wire, in either direction, goes to one fixed address (`constants.VETH_ADDRESS`).
    """

    name: str = TUN_NAME
    peer: str = VETH_PEER_NAME
    mtu: int = 9000  # jumbo frames pass; what leaves the node in smaller ones is reported by the interface it leaves on
    tx_queue_length: int = 1000

    def __post_init__(self) -> None:
        for label, name in (("name", self.name), ("peer", self.peer)):
            if not 0 < len(name) <= MAX_INTERFACE_NAME or any(c == "/" or c.isspace() for c in name):
                raise ValueError(f"veth.{label}: {name!r} is no interface name; use 1 to {MAX_INTERFACE_NAME} letters")
        if self.name == self.peer:
            raise ValueError(f"veth.peer: {self.peer!r} is the name of the other end; use another")
        if not 1280 <= self.mtu <= 65535:
            raise ValueError(f"veth.mtu: {self.mtu} is out of range; use 1280 (the least IPv6 allows) to 65535")


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

    `tun` is the data plane's device, whatever its make. `interfaces` are those on which client and backend traffic
    arrives; forwarding is switched on there. Empty means those of the default routes. With `shortcut`, plain packets
    that arrive there go straight to the TUN, past the node's routing and filters, where the kernel can do that; never
    to a `Veth`, whose frames have addresses.
    """

    tun: Tun | Veth = field(default_factory=Tun)
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
