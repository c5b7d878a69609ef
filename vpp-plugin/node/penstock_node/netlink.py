"""Reads the node's state from the kernel and makes single changes to it. No decisions: those are in `plans`."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock_node import devconf, kernel, nftables, routes, shortcut, tun, veth
from penstock_node.actual import ActualNode, Family, IpProtocol, Link, Route, Rule, TunFlags
from penstock_node.changes import (
    AddRule,
    Change,
    ConfigureTun,
    ConfigureVeth,
    CreateTun,
    CreateVeth,
    DeleteLink,
    DeleteNftTable,
    DeleteRule,
    DeleteShortcut,
    ReplaceNftTable,
    ReplaceShortcut,
    SetForwarding,
    UpdateNftSets,
    UpdateShortcut,
)
from penstock_node.constants import (
    DEVICE_ALIAS,
    DEVICE_GROUP,
    LOCAL_TABLE,
    MAIN_TABLE,
    NFT_TABLE,
    PROTOCOL,
    SOURCE_TABLE,
    VIP_TABLE,
)
from penstock_node.desired import Address, Tun
from penstock_node.devconf import Ipv4Setting
from penstock_node.errors import ApplyError, NodeError, ObserveError
from penstock_node.rtnetlink import Channel

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_IFF_UP, _IFF_NOARP = 0x1, 0x80
_TUN_LAYER3 = 1  # IFLA_TUN_TYPE of a TUN; a TAP has 2
_ACTION_LOOKUP = 1
_SYSCTLS = Path("/proc/sys/net")

IPV6_FORWARDING_REMEDY = "sysctl -w net.ipv6.conf.all.forwarding=1"

# A change that finds its work done has succeeded: another process or the kernel was faster.
_ALREADY_THERE = {errno.EEXIST}
_ALREADY_GONE = {errno.ENOENT, errno.ESRCH, errno.ENODEV}

_RULE_SELECTORS = (
    *("FRA_SRC", "FRA_IIFNAME", "FRA_OIFNAME", "FRA_SPORT_RANGE", "FRA_UID_RANGE", "FRA_TUN_ID", "FRA_L3MDEV"),
    *("FRA_GOTO", "FRA_FLOW"),
)


def observe() -> ActualNode:
    """Read everything that concerns us. Raises `ObserveError`."""
    try:
        with kernel.channel(strict_check=True) as channel:
            found = {link.name: link for link in _links(channel)}
            early = shortcut.observe()
            present, defaults = _routes({link.index: link.name for link in found.values()})
            return ActualNode(
                links=found,
                default_interfaces=defaults,
                rules=frozenset(_rules(channel)),
                routes=present,
                nft=nftables.observe_table(),
                shortcut=early,
                # Asked only where there is none: each program that is started costs milliseconds.
                shortcut_possible=early is not None or shortcut.is_possible(),
                ipv4_forwarding=read_sysctl("ipv4/ip_forward") == "1",
                ipv6_forwarding=read_sysctl("ipv6/conf/all/forwarding") != "0",
            )
    except (OSError, nftables.NftError) as error:
        raise ObserveError(f"cannot read the state of the node: {_reason(error)}") from error


def default_interfaces() -> tuple[str, ...]:
    """Interfaces of the default routes, the preferred one first. Raises `ObserveError`."""
    try:
        with Channel() as channel:
            return routes.default_interfaces(channel, dict(socket.if_nameindex()))
    except OSError as error:
        raise ObserveError(f"cannot read the default routes: {_reason(error)}") from error


def occupied_addresses() -> dict[Address, str]:
    """Return addresses that can be no VIP's here, and whose they are: this machine's, its gateways'.

    Raises `ObserveError`.
    """
    try:
        with kernel.channel(strict_check=True) as channel:
            names = dict(socket.if_nameindex())
            own = {
                _address_of(message, "IFA_LOCAL") or _address_of(message, "IFA_ADDRESS"): message["index"]
                for message in channel.get_addr()
            }
            gateways = {gateway for family in Family for gateway in _gateways(channel, family)}
    except OSError as error:
        raise ObserveError(f"cannot read the addresses of the node: {_reason(error)}") from error
    found = dict.fromkeys(gateways, "a gateway of this node")
    found |= {
        address: f"an address of this node ({names.get(index, index)})" for address, index in own.items() if address
    }
    return found


def _gateways(channel: IPRoute, family: Family) -> Iterator[Address]:
    for route in channel.get_routes(family=int(family), table=MAIN_TABLE):
        hops = route.get_attr("RTA_MULTIPATH") or ()
        for message in (route, *hops):
            if (gateway := _address_of(message, "RTA_GATEWAY")) is not None:
                yield gateway


def _address_of(message: Any, attribute: str) -> Address | None:
    text = message.get_attr(attribute)
    return ip_address(text) if text else None


def links() -> dict[str, Link]:
    """Interfaces by name. Raises `ObserveError`."""
    try:
        with kernel.channel(strict_check=True) as channel:
            return {link.name: link for link in _links(channel)}
    except OSError as error:
        raise ObserveError(f"cannot read the interfaces: {_reason(error)}") from error


def apply(changes: tuple[Change, ...]) -> None:
    """Make the changes in order. One that fails does not stop the others; raises `ApplyError` at the end."""
    failures: list[tuple[Change, str]] = []
    made: list[Change] = []
    with kernel.channel() as channel:
        for are_routes, group in groupby(changes, lambda change: isinstance(change, routes.RouteChange)):
            together = list(group)
            problems = _change_routes(together) if are_routes else (_problem(channel, change) for change in together)
            for change, problem in zip(together, problems, strict=True):
                if problem:
                    failures.append((change, problem))
                else:
                    made.append(change)
    if failures:
        raise ApplyError(failures, made)


def read_sysctl(path: str) -> str:
    """Value of net/`path`, empty where the kernel has no such setting."""
    try:
        return (_SYSCTLS / path).read_text().strip()
    except FileNotFoundError:
        return ""


def _change_routes(changes: Sequence[Any]) -> list[str]:
    """Change routes, which are many, together; returns why, or "", for each."""
    try:
        with Channel() as channel:
            codes = routes.apply(channel, changes)
    except OSError as error:
        return [_reason(error)] * len(changes)
    return [_cause(code) if code else "" for code in codes]


def _problem(channel: IPRoute, change: Change) -> str:
    """Make a change; returns why it failed, or ""."""
    try:
        with kernel.kernel_errors():
            _make(channel, change)
    except (OSError, NodeError) as error:
        return _reason(error)
    return ""


def _make(channel: IPRoute, change: Change) -> None:  # noqa: C901 - one line per kind of change
    match change:
        case CreateTun(tun=wanted):
            tun.create_tun(wanted)
        case ConfigureTun(tun=wanted):
            _configure(channel, wanted)
        case CreateVeth(veth=pair):
            veth.create(channel, pair)
        case ConfigureVeth(veth=pair):
            veth.configure(channel, pair)
        case DeleteLink(name=name):
            channel.link("del", index=_index(name))
        case SetForwarding(family=Family.IPV4, interface=name, on=on):
            devconf.set_ipv4(_index(name), {Ipv4Setting.FORWARDING: int(on)})
        case SetForwarding(interface=name, on=on):
            _force_ipv6_forwarding(name, on=on)
        case AddRule(rule=rule):
            _tolerating(_ALREADY_THERE, channel.rule, "add", **_rule_arguments(rule))
        case DeleteRule(rule=rule):
            _tolerating(_ALREADY_GONE, channel.rule, "del", **_rule_arguments(rule))
        case ReplaceNftTable(table=table):
            nftables.replace_table(table)
        case UpdateNftSets(add=add, remove=remove):
            nftables.update_sets(add, remove)
        case DeleteNftTable():
            nftables.run(["delete", "table", "inet", NFT_TABLE])
        case ReplaceShortcut(table=early, device=device):
            shortcut.replace(device, early)
        case UpdateShortcut(add=new, remove=old):
            shortcut.update(new, old)
        case DeleteShortcut():
            shortcut.remove()


def _configure(channel: IPRoute, wanted: Tun) -> None:
    index = _index(wanted.name)
    # rp_filter off and accept_local on: what comes out of the device has a VIP or the node's own address as source.
    devconf.set_ipv4(index, {Ipv4Setting.FORWARDING: 1, Ipv4Setting.RP_FILTER: 0, Ipv4Setting.ACCEPT_LOCAL: 1})
    devconf.disable_ipv6_addresses(index)
    settings = {"mtu": wanted.mtu, "txqlen": wanted.tx_queue_length, "ifalias": DEVICE_ALIAS, "group": DEVICE_GROUP}
    channel.link("set", index=index, **settings, state="up")
    # The device has a queue of its own and drops what does not fit there: one before it would never hold a packet.
    channel.tc("replace", kind="noqueue", index=index)


def _force_ipv6_forwarding(name: str, *, on: bool) -> None:
    advice = f"run on the node: {IPV6_FORWARDING_REMEDY}"
    try:
        (_SYSCTLS / "ipv6/conf" / name / "force_forwarding").write_text(str(int(on)))
    except FileNotFoundError as error:
        raise NodeError(f"this kernel forwards IPv6 only for the whole node, which is off; {advice}") from error
    except OSError as error:
        raise NodeError(f"{error.strerror}; {advice}") from error


def _links(channel: IPRoute) -> Iterator[Link]:
    for message in channel.get_links():
        inet = _nested(message, "IFLA_AF_SPEC", "AF_INET") or {}
        name = message.get_attr("IFLA_IFNAME")
        yield Link(
            name=name,
            index=message["index"],
            kind=_nested(message, "IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
            up=bool(message["flags"] & _IFF_UP),
            mtu=message.get_attr("IFLA_MTU") or 0,
            tx_queue_length=message.get_attr("IFLA_TXQLEN") or 0,
            forwarding=bool(inet.get("forwarding", 0)),
            rp_filter=inet.get("rp_filter", 0),
            accept_local=bool(inet.get("accept_local", 0)),
            ipv6_forced=read_sysctl(f"ipv6/conf/{name}/force_forwarding") == "1",
            alias=message.get_attr("IFLA_IFALIAS") or "",
            group=message.get_attr("IFLA_GROUP") or 0,
            queueing=message.get_attr("IFLA_QDISC") or "",
            address=message.get_attr("IFLA_ADDRESS") or "",
            receive_queues=message.get_attr("IFLA_NUM_RX_QUEUES") or 1,
            arp=not message["flags"] & _IFF_NOARP,
            tun=_tun_flags(message),
        )


def _tun_flags(message: Any) -> TunFlags | None:
    data = _nested(message, "IFLA_LINKINFO", "IFLA_INFO_DATA")
    if data is None or _nested(message, "IFLA_LINKINFO", "IFLA_INFO_KIND") != "tun":
        return None
    return TunFlags(
        layer3=data.get_attr("IFLA_TUN_TYPE") == _TUN_LAYER3,
        vnet_hdr=bool(data.get_attr("IFLA_TUN_VNET_HDR")),
        multi_queue=bool(data.get_attr("IFLA_TUN_MULTI_QUEUE")),
        persistent=bool(data.get_attr("IFLA_TUN_PERSIST")),
        packet_information=bool(data.get_attr("IFLA_TUN_PI")),
        owner=data.get_attr("IFLA_TUN_OWNER"),
    )


def _rules(channel: IPRoute) -> Iterator[Rule]:
    for family in Family:
        for message in channel.get_rules(family=family):
            rule = _rule(family, message)
            if rule is not None and (rule.protocol == PROTOCOL or rule.table == LOCAL_TABLE):
                yield rule


def _rule(family: Family, message: Any) -> Rule | None:
    """A rule as we know rules, or None for one with selectors or actions that we never use."""
    protocol = message.get_attr("FRA_PROTOCOL") or 0
    strange = message["action"] != _ACTION_LOOKUP or any(message.get_attr(name) for name in _RULE_SELECTORS)
    if strange or message["flags"]:
        return None
    destination, ports = message.get_attr("FRA_DST"), message.get_attr("FRA_DPORT_RANGE")
    number = message.get_attr("FRA_IP_PROTO") or None
    if number is not None and number not in list(IpProtocol):
        return None
    first, _, last = ports.partition(":") if ports else ("", "", "")
    return Rule(
        family=family,
        preference=message.get_attr("FRA_PRIORITY") or 0,
        table=message.get_attr("FRA_TABLE"),
        to=ip_address(destination) if destination else None,
        ip_protocol=IpProtocol(number) if number else None,
        ports=(int(first), int(last)) if ports else None,
        mark=message.get_attr("FRA_FWMARK"),
        protocol=protocol,
    )


def _rule_arguments(rule: Rule) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "family": int(rule.family),
        "priority": rule.preference,
        "table": rule.table,
        "protocol": rule.protocol,
    }
    if rule.to is not None:
        arguments |= {"dst": str(rule.to), "dst_len": rule.to.max_prefixlen}
    if rule.ip_protocol is not None:
        arguments["ip_proto"] = int(rule.ip_protocol)
    if rule.ports is not None:
        arguments["dport_range"] = f"{rule.ports[0]}:{rule.ports[1]}"
    if rule.mark is not None:
        arguments |= {"fwmark": rule.mark, "fwmask": 0xFFFFFFFF}
    return arguments


def _routes(names: Mapping[int, str]) -> tuple[frozenset[Route], tuple[str, ...]]:
    """All routes of our tables, and the interfaces of default routes."""
    with Channel() as channel:
        found = (route for table in (SOURCE_TABLE, VIP_TABLE) for route in routes.observe(channel, table, names))
        return frozenset(found), routes.default_interfaces(channel, names)


class NoInterfaceError(NodeError):
    """The node has no interface of this name."""


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise NoInterfaceError(f"the node has no interface {name}; see: ip link") from error


def _tolerating(numbers: set[int], function: Any, *arguments: Any, **keywords: Any) -> None:
    try:
        with kernel.kernel_errors():
            function(*arguments, **keywords)
    except OSError as error:
        if error.errno not in numbers:
            raise


def _nested(message: Any, *names: str) -> Any:
    for name in names:
        if message is None:
            return None
        message = message.get_attr(name)
    return message


def _reason(error: Exception) -> str:
    """The cause in words, with what to do where we know."""
    if isinstance(error, OSError) and error.errno and (error.errno == errno.EPERM or error.filename is None):
        return _cause(error.errno)
    return str(error)


def _cause(code: int) -> str:
    return "not permitted; run as uid 0 with CAP_NET_ADMIN" if code == errno.EPERM else os.strerror(code)
