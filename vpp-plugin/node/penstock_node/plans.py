"""Decides what must change on a node. Pure: no kernel here, so that every case is a line in a table of tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_network

from penstock_node import nftables, shortcut
from penstock_node.actual import ActualNode, Family, IpProtocol, Link, Network, NftTable, Route, Rule
from penstock_node.changes import (
    AddRoute,
    AddRule,
    Change,
    ConfigureTun,
    ConfigureVeth,
    CreateTun,
    CreateVeth,
    DeleteLink,
    DeleteNftTable,
    DeleteRoute,
    DeleteRule,
    DeleteShortcut,
    ReplaceNftTable,
    ReplaceShortcut,
    SetForwarding,
    UpdateNftSets,
    UpdateShortcut,
)
from penstock_node.constants import (
    BLACKHOLE_METRIC,
    DEVICE_ALIAS,
    DEVICE_GROUP,
    DEVICE_METRIC,
    KERNEL_PROTOCOL,
    LOCAL_RULE_PREFERENCE,
    LOCAL_TABLE,
    MARK,
    PROTOCOL,
    SOURCE_RULE_PREFERENCE,
    SOURCE_TABLE,
    VETH_ADDRESS,
    VIP_RULE_PREFERENCE,
    VIP_TABLE,
)
from penstock_node.desired import Address, DesiredNode, Tun, Veth

_EVERYWHERE = {Family.IPV4: ip_network("0.0.0.0/0"), Family.IPV6: ip_network("::/0")}


def plan(desired: DesiredNode, actual: ActualNode) -> tuple[Change, ...]:
    """Return the changes, in order, that make `actual` what is desired.

    What catches packets comes before what attracts them: blackholes, device and its routes, then rules.
    """
    device = plan_device(desired.tun, actual)
    switching_on = _plan_forwarding(desired, actual)
    routes = _wanted_routes(desired)
    present = frozenset(actual.routes)
    recreated = any(isinstance(change, CreateTun | CreateVeth) for change in device)
    if recreated:
        present = frozenset(route for route in present if route.device != desired.tun.name)
    missing = sorted(routes - present, key=_route_order)
    stale = sorted(actual.routes - routes, key=_route_order)
    return (
        # A device that is there gets its settings before the rules that know it by them.
        *([] if recreated else device),
        *_plan_nft(desired, actual, switching_on),
        *(AddRoute(route) for route in missing if route.device is None),
        *(device if recreated else []),
        *switching_on,
        *(AddRoute(route) for route in missing if route.device is not None),
        *_plan_rules(desired, actual),
        *_plan_shortcut(desired, actual, recreated=recreated),
        *(DeleteRoute(route) for route in stale),
        *(DeleteLink(link.name) for link in _own_links(actual) if link.name != desired.tun.name),
    )


def plan_withdrawal(actual: ActualNode) -> tuple[Change, ...]:
    """Return the changes, in order, that leave nothing of ours; what attracts packets goes first."""
    changes: list[Change] = [] if actual.shortcut is None else [DeleteShortcut()]
    changes += [DeleteRule(rule) for rule in _ordered(actual.rules) if _is_ours(rule) and not _local(rule)]
    for family in Family:
        changes += _restore_local(family, actual)
    changes += [DeleteRoute(route) for route in sorted(actual.routes, key=_route_order)]
    changes += [DeleteLink(link.name) for link in _own_links(actual)]
    if actual.nft is None:
        return tuple(changes)
    for family, name in sorted(actual.nft.switched_on):
        # Where the node as a whole forwards by now, its administrator wants every interface to.
        if not (family is Family.IPV4 and actual.ipv4_forwarding) and _forwards(family, actual.links.get(name)):
            changes.append(SetForwarding(family, name, on=False))
    return (*changes, DeleteNftTable())


def plan_device(device: Tun | Veth, actual: ActualNode) -> tuple[Change, ...]:
    """Return the changes, in order, that make the data plane's device alone."""
    create, configure = _making(device)
    link = actual.links.get(device.name)
    if link is None:
        return create, configure
    if _is_foreign(link):
        # Something else of this name: it is not ours to delete, and its creation will say so.
        return (create,)
    if not _is_of_its_make(device, link, actual):
        return DeleteLink(device.name), create, configure
    return () if _settings_fit(device, link) else (configure,)


def _is_foreign(link: Link) -> bool:
    """Whether a link of our device's name is somebody else's. A pair has no alias before it is configured."""
    if link.kind == "veth":
        return link.alias != DEVICE_ALIAS and link.address != VETH_ADDRESS
    return link.tun is None


def _making(device: Tun | Veth) -> tuple[Change, Change]:
    if isinstance(device, Tun):
        return CreateTun(device), ConfigureTun(device)
    return CreateVeth(device), ConfigureVeth(device)


def _is_of_its_make(device: Tun | Veth, link: Link, actual: ActualNode) -> bool:
    """Whether the link can become right by settings alone."""
    if isinstance(device, Tun):
        return _flags_fit(device, link)
    peer = actual.links.get(device.peer)
    return link.kind == "veth" and peer is not None and peer.kind == "veth"


def _flags_fit(tun: Tun, link: Link) -> bool:
    flags = link.tun
    return (
        flags is not None
        and flags.layer3
        and flags.vnet_hdr
        and flags.persistent
        and not flags.packet_information
        and flags.multi_queue == tun.multi_queue
        and flags.owner == 0
    )


def _settings_fit(device: Tun | Veth, link: Link) -> bool:
    return (
        link.up
        and link.mtu == device.mtu
        and link.tx_queue_length == device.tx_queue_length
        and link.forwarding
        and link.rp_filter == 0
        and link.accept_local
        and link.alias == DEVICE_ALIAS
        and link.group == DEVICE_GROUP
        and link.queueing == "noqueue"
        and (isinstance(device, Tun) or (link.address == VETH_ADDRESS and not link.arp))
    )


def _plan_nft(desired: DesiredNode, actual: ActualNode, switching_on: Iterable[SetForwarding]) -> list[Change]:
    switched_on = {(change.family, change.interface) for change in switching_on if change.interface in actual.links}
    switched_on -= {(Family.IPV6, desired.tun.name)}  # which goes as a whole
    if actual.nft is not None:
        switched_on |= actual.nft.switched_on
    table = nftables.wanted(desired.vips, desired.nat_sources, switched_on)
    if actual.nft == table:
        return []
    if actual.nft is None or actual.nft.skeleton != table.skeleton:
        return [ReplaceNftTable(table)]
    return [UpdateNftSets(add=_difference(table, actual.nft), remove=_difference(actual.nft, table))]


def _difference(left: NftTable, right: NftTable) -> NftTable:
    return NftTable(
        vips=left.vips - right.vips,
        nat_sources=left.nat_sources - right.nat_sources,
        switched_on=left.switched_on - right.switched_on,
    )


def _plan_shortcut(desired: DesiredNode, actual: ActualNode, *, recreated: bool) -> list[Change]:
    """Rules of the table hold the number of the device, so one that is made anew needs new rules."""
    link = actual.links.get(desired.tun.name)
    if link is not None and _is_foreign(link):
        return []  # somebody else's device
    interfaces = [name for name in desired.interfaces or actual.default_interfaces if name in actual.links]
    table = None
    if desired.shortcut and actual.shortcut_possible and isinstance(desired.tun, Tun):
        table = shortcut.wanted(desired.tun.name, interfaces, desired.vips, desired.nat_sources)
    present = actual.shortcut
    if table is None:
        return [] if present is None else [DeleteShortcut()]
    if recreated or present is None or present.skeleton != table.skeleton:
        return [ReplaceShortcut(table, desired.tun.name)]
    if present.vips != table.vips:
        return [UpdateShortcut(add=table.vips - present.vips, remove=present.vips - table.vips)]
    return []


def _plan_forwarding(desired: DesiredNode, actual: ActualNode) -> list[SetForwarding]:
    """Forwarding on what packets arrive by; an interface that is missing fails when applied, and says so.

    The TUN's own IPv4 forwarding is part of its settings. IPv6 needs help per device only where the node as
    a whole does not forward.
    """
    interfaces = desired.interfaces or actual.default_interfaces
    missing = [(Family.IPV4, name) for name in interfaces]
    if not actual.ipv6_forwarding and Family.IPV6 in _vip_families(desired) | _source_families(desired):
        missing += [(Family.IPV6, name) for name in (*interfaces, desired.tun.name)]
    return [
        SetForwarding(family, name, on=True)
        for family, name in missing
        if not _forwards(family, actual.links.get(name))
    ]


def _forwards(family: Family, link: Link | None) -> bool:
    if link is None:
        return False
    return link.forwarding if family is Family.IPV4 else link.ipv6_forced


def _wanted_routes(desired: DesiredNode) -> frozenset[Route]:
    targets = [(SOURCE_TABLE, _EVERYWHERE[family]) for family in _source_families(desired)]
    targets += [(VIP_TABLE, _host(vip)) for vip in desired.vips]
    routes = set()
    for table, destination in targets:
        family = Family.of(destination)
        routes.add(Route(family, table, destination, DEVICE_METRIC, desired.tun.name))
        routes.add(Route(family, table, destination, BLACKHOLE_METRIC))
    return frozenset(routes)


@lru_cache(maxsize=8192)  # most are the same in every plan
def _host(address: Address) -> Network:
    return ip_network(address)


def _wanted_rules(desired: DesiredNode) -> frozenset[Rule]:
    rules = {Rule(family, VIP_RULE_PREFERENCE, VIP_TABLE) for family in _vip_families(desired)}
    rules |= {Rule(family, SOURCE_RULE_PREFERENCE, SOURCE_TABLE, mark=MARK) for family in _source_families(desired)}
    for source in desired.nat_sources:
        for protocol in IpProtocol:
            rules.add(
                Rule(
                    Family.of(source.address),
                    SOURCE_RULE_PREFERENCE,
                    SOURCE_TABLE,
                    to=source.address,
                    ip_protocol=protocol,
                    ports=(source.port_first, source.port_last),
                )
            )
    return frozenset(rules)


def _plan_rules(desired: DesiredNode, actual: ActualNode) -> list[Change]:
    changes: list[Change] = []
    for family in Family:
        if family in _source_families(desired):
            changes += _move_local(family, actual)
        else:
            changes += _restore_local(family, actual)
    wanted = _wanted_rules(desired)
    ours = {rule for rule in actual.rules if _is_ours(rule) and not _local(rule)}
    changes += [AddRule(rule) for rule in _ordered(wanted - ours)]
    changes += [DeleteRule(rule) for rule in _ordered(ours - wanted)]
    return changes


def _move_local(family: Family, actual: ActualNode) -> Sequence[Change]:
    """Make room before the local table's rule; somebody else may have done so already, at another preference."""
    rules = [rule for rule in _ordered(actual.rules) if rule.family is family and _local(rule)]
    early = [rule for rule in rules if rule.preference <= SOURCE_RULE_PREFERENCE]
    # The new rule first: without a rule for the local table the node would be deaf for a moment.
    moved = Rule(family, LOCAL_RULE_PREFERENCE, LOCAL_TABLE)
    add = [AddRule(moved)] if len(early) == len(rules) else []
    return [*add, *(DeleteRule(rule) for rule in early)]


def _restore_local(family: Family, actual: ActualNode) -> Sequence[Change]:
    """Put the local table's rule back where the kernel makes it, if it was us who moved it."""
    rules = [rule for rule in _ordered(actual.rules) if rule.family is family and _local(rule)]
    ours = [rule for rule in rules if _is_ours(rule)]
    original = Rule(family, 0, LOCAL_TABLE, protocol=KERNEL_PROTOCOL)
    if not ours:
        return []
    add = [AddRule(original)] if len(ours) == len(rules) else []
    return [*add, *(DeleteRule(rule) for rule in ours)]


def _vip_families(desired: DesiredNode) -> set[Family]:
    return {Family.of(vip) for vip in desired.vips}


def _source_families(desired: DesiredNode) -> set[Family]:
    return {Family.of(source.address) for source in desired.nat_sources}


def _own_links(actual: ActualNode) -> list[Link]:
    makes = (link for _, link in sorted(actual.links.items()) if link.tun is not None or link.kind == "veth")
    return [link for link in makes if link.alias == DEVICE_ALIAS]


def _is_ours(rule: Rule) -> bool:
    return rule.protocol == PROTOCOL


def _local(rule: Rule) -> bool:
    return rule.table == LOCAL_TABLE and (rule.to, rule.ip_protocol, rule.ports, rule.mark) == (None, None, None, None)


def _ordered(rules: Iterable[Rule]) -> list[Rule]:
    return sorted(rules, key=lambda rule: (rule.family, rule.preference, str(rule)))


def _route_order(route: Route) -> tuple[int, str, int]:
    return route.table, str(route.destination), route.metric
