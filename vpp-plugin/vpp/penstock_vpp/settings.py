"""What the control process beside a VPP is started with, and VPP itself in a pod."""

from __future__ import annotations

import os
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Annotated

from penstock_embedded.settings import SHARED_MEMORY, WORKERS_MAX
from penstock_embedded.sizing import FlowTableSize, size_in_force
from penstock_node.netlink import links
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from penstock_vpp.startup import XDP_PROGRAM, Card, CardType, PageSize, Startup

PLUGIN_PATH = f"/usr/lib/{os.uname().machine}-linux-gnu/vpp_plugins:/opt/penstock/lib/vpp_plugins"


class Settings(BaseModel):
    """Start parameters of the control process; sizes are startup.conf's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_dir: Annotated[Path, Field(description="directory of the control socket")] = Path("/run/penstock")
    vpp_socket: Annotated[Path, Field(description="VPP's binary API socket")] = Path("/run/vpp/api.sock")
    shm_dir: Annotated[Path, Field(description="shared-memory directory of a VPP that is not there to say so")] = (
        SHARED_MEMORY
    )
    allowed_uids: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(max_length=16, description="user ids that may use the control socket, beside this process's own"),
    ] = ()
    group: Annotated[int | None, Field(ge=0, description="group id that may open the control socket")] = None
    allowed_vips: Annotated[
        Path | None, Field(description="file of the operator's with the addresses that VIPs may have; none: all")
    ] = None
    agent_state_dir: Annotated[
        Path | None, Field(description="directory of the agent's state, for members of the group to write")
    ] = None
    wire: Annotated[
        bool, Field(description="keep a veth pair between node and VPP, lead packets there, and announce VIPs")
    ] = False
    vpp_dir: Annotated[Path, Field(description="directory of VPP's startup files")] = Path("/run/vpp")
    cards: Annotated[bool, Field(description="clients come by cards of VPP's own: the node leads no VIPs to it")] = (
        False
    )
    interfaces: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=15)], ...],
        Field(max_length=64, description="interfaces on which traffic arrives; none: those of the default routes"),
    ] = ()

    @property
    def socket_path(self) -> Path:
        """Where the control socket lies."""
        return self.run_dir / "control.sock"

    def trusted_uids(self) -> frozenset[int]:
        """Return the peers that the control socket answers."""
        return frozenset(self.allowed_uids) | {os.geteuid()}


class NodeAddress(BaseModel):
    """An address of VPP's on one node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str
    address: IPv4Interface | IPv6Interface


class CardSettings(BaseModel):
    """A card that VPP takes for itself, on every node, in the words of a DataPlane's spec."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    type: CardType
    name: str | None = None
    pci_address: str | None = None
    queues: Annotated[int, Field(ge=1, le=16)] = 1
    addresses: tuple[NodeAddress, ...]
    gateways: tuple[IPv4Address | IPv6Address, ...] = ()

    @property
    def device(self) -> str:
        """What the card is known by."""
        return self.pci_address or self.name or ""

    def addresses_on(self, node: str) -> tuple[str, ...]:
        """Return VPP's addresses on a node."""
        return tuple(str(each.address) for each in self.addresses if each.node == node)

    def on(self, node: str) -> Card:
        """Return the card as it is on this node."""
        ethernet = "" if self.type is CardType.DPDK else links()[self.device].address
        gateways = tuple(map(str, self.gateways))
        return Card(self.type, self.device, self.addresses_on(node), gateways, self.queues, ethernet)


class PodSettings(BaseModel):
    """What VPP itself is started with in a pod; a change needs a restart of the pod."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vpp_dir: Annotated[Path, Field(description="directory of VPP's sockets and startup files")] = Path("/run/vpp")
    shm_dir: Annotated[Path, Field(description="shared-memory directory: arena, frames, actions")] = SHARED_MEMORY
    group: Annotated[int | None, Field(ge=0, description="group id that may read frames and write actions")] = None
    program: Annotated[Path, Field(description="VPP's program")] = Path("/usr/bin/vpp")
    plugin_path: Annotated[str, Field(description="where VPP looks for plugins, separated by colons")] = PLUGIN_PATH
    xdp_program: Annotated[Path, Field(description="what leads frames of a card of type AfXdp to VPP")] = XDP_PROGRAM
    flow_table_size: FlowTableSize = None
    workers: Annotated[
        int, Field(ge=0, le=WORKERS_MAX, description="threads that forward; none: the main thread does")
    ] = 0
    exclusive_cpus: Annotated[bool, Field(description="whether these processors were asked for alone")] = False
    page_size: Annotated[PageSize, Field(description="pages that heap and buffers lie in")] = PageSize.SMALL
    hugepages_mebibytes: Annotated[int, Field(ge=0, le=1 << 20, description="memory in such pages")] = 0
    cards: Annotated[tuple[CardSettings, ...], Field(max_length=4, description="cards that VPP takes for itself")] = ()
    node_name: Annotated[str, Field(description="name of this node, by which it finds its addresses")] = ""

    def startup(self, cpus: Iterable[int]) -> Startup:
        """Return what startup.conf is made of, for a process that may use these processors; the directory exists."""
        return Startup(
            vpp_dir=self.vpp_dir,
            shm_dir=self.shm_dir,
            group=self.group,
            plugin_path=self.plugin_path,
            xdp_program=self.xdp_program,
            flow_table_size=size_in_force(self.flow_table_size, self.shm_dir),
            workers=self.workers,
            cpus=tuple(sorted(cpus)),
            page_size=self.page_size,
            hugepages_mebibytes=self.hugepages_mebibytes,
            cards=tuple(card.on(self.node_name) for card in self.cards),
        )
