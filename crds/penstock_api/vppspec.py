"""What a DataPlane says of VPP: threads, memory, network cards."""

from __future__ import annotations

import re
from ipaddress import ip_interface
from typing import Annotated, ClassVar

from pydantic import Field

from penstock_api.choices import Choice
from penstock_api.fields import ATOMIC, Address, InterfaceName
from penstock_api.model import Model
from penstock_api.rules import Rule


class HugepageSize(Choice):
    """Size of a hugepage."""

    HUGE = "2Mi"
    """Can be reserved while a node runs."""
    GIGANTIC = "1Gi"
    """Mostly reserved when a node starts; fewest misses of the address cache."""


HugepageAmount = Annotated[
    str,
    Field(max_length=16),
    Rule(
        cel="self.matches('^([1-9][0-9]{0,3}Gi|([2-9][0-9]|[1-9][0-9]{2,5})[02468]Mi)$')",
        message="must be at least 200Mi, in even Mi or in Gi",
        fix="write for example 512Mi",
        holds=lambda text: re.fullmatch(r"[1-9][0-9]{0,3}Gi|([2-9][0-9]|[1-9][0-9]{2,5})[02468]Mi", text) is not None,
    ),
]


class Hugepages(Model):
    """Memory in large pages, which nodes must have reserved."""

    page_size: HugepageSize = HugepageSize.HUGE
    """Size of a hugepage."""
    amount: HugepageAmount = "512Mi"
    """How much of it VPP takes, for heap and packet buffers; flow table and statistics lie elsewhere."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.pageSize != '1Gi' || self.amount.endsWith('Gi')",
            message="amount must be whole pages of 1Gi",
            fix="write for example 1Gi",
            holds=lambda self: self.page_size is not HugepageSize.GIGANTIC or self.amount.endswith("Gi"),
            field="amount",
        ),
    )

    @property
    def mebibytes(self) -> int:
        """Return the amount as a number."""
        return int(self.amount[:-2]) * (1024 if self.amount.endswith("Gi") else 1)


def _is_interface_address(text: str) -> bool:
    try:
        ip_interface(text)
    except ValueError:
        return False
    return "/" in text


InterfaceAddress = Annotated[
    str,
    Field(max_length=43),
    Rule(
        cel="isCIDR(self)",
        message="must be an address with the length of its network's prefix",
        fix="write for example 192.0.2.11/24",
        holds=_is_interface_address,
    ),
]


PciAddress = Annotated[str, Field(max_length=12, pattern=r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}[.][0-7]$")]

_RESOURCE = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
ResourceName = Annotated[str, Field(max_length=253, pattern=_RESOURCE)]


class VppInterfaceType(Choice):
    """How VPP takes a network card."""

    AF_PACKET = "AfPacket"
    """By packet sockets of the kernel: any card, no driver of its own."""
    AF_XDP = "AfXdp"
    """By XDP sockets: faster, where the card's driver knows them."""
    DPDK = "Dpdk"
    """By a driver of VPP's own, past the kernel: the card is bound to vfio-pci and handed out by a device plugin."""


class VppAddress(Model):
    """An address of VPP's on one node."""

    node: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the node."""
    address: InterfaceAddress
    """Address with the length of its network's prefix, for example 192.0.2.11/24."""


class VppInterface(Model):
    """A network card that VPP takes for itself, for clients; backends are reached through the node."""

    type: VppInterfaceType
    """How VPP takes it."""
    name: InterfaceName | None = None
    """Name of the card on every node, with `AfPacket` and `AfXdp`."""
    pci_address: PciAddress | None = None
    """PCI address of the card on every node, with `Dpdk`."""
    resource_name: ResourceName | None = None
    """Resource by which a device plugin hands the card to a pod, with `Dpdk`."""
    queues: Annotated[int, Field(ge=1, le=16)] = 1
    """Queues to receive from, each of one worker."""
    addresses: Annotated[tuple[VppAddress, ...], Field(min_length=1, max_length=256, json_schema_extra=ATOMIC)]
    """What address VPP has there, for each node."""
    gateways: Annotated[tuple[Address, ...], Field(max_length=2, json_schema_extra=ATOMIC)] = ()
    """Routers on the way to clients, one of each family. Without them clients are those on the link."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.type == 'Dpdk' ? has(self.pciAddress) && has(self.resourceName) && !has(self.name)"
            " : has(self.name) && !has(self.pciAddress) && !has(self.resourceName)",
            message="AfPacket and AfXdp take a name, Dpdk takes pciAddress and resourceName",
            fix="set the fields of this type and remove the others",
            holds=lambda self: (
                (self.pci_address is not None and self.resource_name is not None and self.name is None)
                if self.type is VppInterfaceType.DPDK
                else (self.name is not None and self.pci_address is None and self.resource_name is None)
            ),
        ),
    )


class VppSpec(Model):
    """What a data plane of type `vpp` gets of each node."""

    workers: Annotated[int, Field(ge=0, le=16)] = 0
    """Threads that forward, beside the main one. With none the main thread forwards, and waits while tables are
    built."""
    exclusive_cpus: Annotated[bool, Field(alias="exclusiveCPUs")] = False
    """Whether threads have a processor each to themselves. Nodes need the CPU manager's policy `static`."""
    hugepages: Hugepages | None = None
    """Memory in large pages. Default: ordinary pages, which every node has."""
    interfaces: Annotated[tuple[VppInterface, ...], Field(max_length=4, json_schema_extra=ATOMIC)] = ()
    """Network cards that VPP takes for itself. Default: none, then clients come and go through the node, as the
    packets of backends always do."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.hugepages) || !has(self.interfaces) || !self.interfaces.exists(i, i.type == 'Dpdk')",
            message="an interface of type Dpdk needs hugepages",
            fix="set hugepages, for example with amount: 1Gi",
            holds=lambda self: (
                self.hugepages is not None or not any(each.type is VppInterfaceType.DPDK for each in self.interfaces)
            ),
            field="hugepages",
        ),
    )
