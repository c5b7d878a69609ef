"""Single changes to a node: what `plan` returns and `apply` makes. Their text is the command that does the same."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_node.actual import Family, NftTable, Route, Rule, Shortcut
from penstock_node.constants import DEVICE_GROUP, VETH_ADDRESS
from penstock_node.desired import Address, Tun, Veth


@dataclass(frozen=True)
class CreateTun:
    """Make the persistent TUN device; it is then configured by a `ConfigureTun`."""

    tun: Tun

    def __str__(self) -> str:
        multi_queue = " multi_queue" if self.tun.multi_queue else ""
        return f"ip tuntap add dev {self.tun.name} mode tun user 0 vnet_hdr{multi_queue}"


@dataclass(frozen=True)
class DeleteLink:
    """Delete a device; its routes go with it."""

    name: str

    def __str__(self) -> str:
        return f"ip link delete {self.name}"


@dataclass(frozen=True)
class ConfigureTun:
    """Set size, queue and IP settings of the TUN and bring it up."""

    tun: Tun

    def __str__(self) -> str:
        settings = f"mtu {self.tun.mtu} txqueuelen {self.tun.tx_queue_length} group {DEVICE_GROUP}"
        return f"ip link set {self.tun.name} up {settings}"


@dataclass(frozen=True)
class CreateVeth:
    """Make a pair of devices; it is then configured by a `ConfigureVeth`."""

    veth: Veth

    def __str__(self) -> str:
        return f"ip link add {self.veth.name} address {VETH_ADDRESS} type veth peer name {self.veth.peer}"


@dataclass(frozen=True)
class ConfigureVeth:
    """Set sizes, offloads and IP settings of a pair and bring both ends up."""

    veth: Veth

    def __str__(self) -> str:
        settings = f"mtu {self.veth.mtu} txqueuelen {self.veth.tx_queue_length} group {DEVICE_GROUP}"
        return f"ip link set {self.veth.name} up arp off {settings}"


@dataclass(frozen=True)
class SetForwarding:
    """Switch forwarding of packets that arrive on one interface, though the node as a whole is a host."""

    family: Family
    interface: str
    on: bool

    def __str__(self) -> str:
        setting = "forwarding" if self.family is Family.IPV4 else "force_forwarding"
        version = 4 if self.family is Family.IPV4 else 6
        return f"sysctl -w net.ipv{version}.conf.{self.interface}.{setting}={int(self.on)}"


@dataclass(frozen=True)
class AddRule:
    """Add a routing rule."""

    rule: Rule

    def __str__(self) -> str:
        return f"{_ip(self.rule.family)} rule add {_rule(self.rule)}"


@dataclass(frozen=True)
class DeleteRule:
    """Delete a routing rule."""

    rule: Rule

    def __str__(self) -> str:
        return f"{_ip(self.rule.family)} rule delete {_rule(self.rule)}"


@dataclass(frozen=True)
class AddRoute:
    """Add a route, in place of one with the same destination and metric."""

    route: Route

    def __str__(self) -> str:
        return f"{_ip(self.route.family)} route replace {_route(self.route)}"


@dataclass(frozen=True)
class DeleteRoute:
    """Delete a route."""

    route: Route

    def __str__(self) -> str:
        return f"{_ip(self.route.family)} route delete {_route(self.route)}"


@dataclass(frozen=True)
class ReplaceNftTable:
    """Put our nft table in place as a whole, in one transaction."""

    table: NftTable

    def __str__(self) -> str:
        return "nft replace table inet penstock"


@dataclass(frozen=True)
class UpdateNftSets:
    """Add and remove set elements of our nft table, in one transaction."""

    add: NftTable
    remove: NftTable

    def __str__(self) -> str:
        added = len(self.add.vips) + len(self.add.nat_sources) + len(self.add.switched_on)
        removed = len(self.remove.vips) + len(self.remove.nat_sources) + len(self.remove.switched_on)
        return f"nft update sets of table inet penstock (add {added} elements, delete {removed})"


@dataclass(frozen=True)
class DeleteNftTable:
    """Delete our nft table."""

    def __str__(self) -> str:
        return "nft delete table inet penstock"


@dataclass(frozen=True)
class ReplaceShortcut:
    """Put our nft table of family netdev in place as a whole, in one transaction."""

    table: Shortcut
    device: str

    def __str__(self) -> str:
        return f"nft replace table netdev penstock ({', '.join(self.table.interfaces)})"


@dataclass(frozen=True)
class UpdateShortcut:
    """Change which VIPs come by the shortcut, in one transaction."""

    add: frozenset[Address]
    remove: frozenset[Address]

    def __str__(self) -> str:
        return f"nft update sets of table netdev penstock (add {len(self.add)} elements, delete {len(self.remove)})"


@dataclass(frozen=True)
class DeleteShortcut:
    """Delete our nft table of family netdev."""

    def __str__(self) -> str:
        return "nft delete table netdev penstock"


Change = (
    CreateTun
    | DeleteLink
    | ConfigureTun
    | CreateVeth
    | ConfigureVeth
    | SetForwarding
    | AddRule
    | DeleteRule
    | AddRoute
    | DeleteRoute
    | ReplaceNftTable
    | UpdateNftSets
    | DeleteNftTable
    | ReplaceShortcut
    | UpdateShortcut
    | DeleteShortcut
)


def _ip(family: Family) -> str:
    return "ip" if family is Family.IPV4 else "ip -6"


def _rule(rule: Rule) -> str:
    parts = [f"pref {rule.preference}"]
    if rule.to is not None:
        parts.append(f"to {rule.to}")
    if rule.ip_protocol is not None:
        parts.append(f"ipproto {rule.ip_protocol.name.lower()}")
    if rule.ports is not None:
        parts.append(f"dport {rule.ports[0]}-{rule.ports[1]}")
    if rule.mark is not None:
        parts.append(f"fwmark {rule.mark:#x}")
    return " ".join([*parts, f"lookup {rule.table}", f"protocol {rule.protocol}"])


def _route(route: Route) -> str:
    what = f"blackhole {route.destination}" if route.device is None else f"{route.destination} dev {route.device}"
    return f"{what} table {route.table} metric {route.metric} proto {route.protocol}"
