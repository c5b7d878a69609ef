"""What is decided, without a kernel: desired and actual in, changes out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from penstock_node import DesiredNode, NatSource, Tun, nftables, shortcut
from penstock_node.actual import ActualNode, Family, IpProtocol, Link, NftTable, Route, Rule, TunFlags
from penstock_node.changes import (
    AddRoute,
    AddRule,
    Change,
    ConfigureTun,
    CreateTun,
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
from penstock_node.constants import DEVICE_ALIAS, DEVICE_GROUP, KERNEL_PROTOCOL, LOCAL_TABLE, MARK
from penstock_node.plans import plan, plan_withdrawal

NODE = ip_address("10.2.0.1")
VIP = ip_address("203.0.113.10")
VIP6 = ip_address("2001:db8::10")
ETH0 = Link("eth0", 2, forwarding=False)
LOCAL = {family: Rule(family, 0, LOCAL_TABLE, protocol=KERNEL_PROTOCOL) for family in Family}
MOVED = {family: Rule(family, 1, LOCAL_TABLE) for family in Family}
FLAGS = TunFlags(layer3=True, vnet_hdr=True, multi_queue=False, persistent=True, packet_information=False, owner=0)
TUN = Link(
    "penstock",
    3,
    mtu=65535,
    tx_queue_length=2000,
    forwarding=True,
    accept_local=True,
    alias=DEVICE_ALIAS,
    group=DEVICE_GROUP,
    tun=FLAGS,
)
DESIRED = DesiredNode(
    vips=frozenset({VIP}), nat_sources=frozenset({NatSource(NODE, 16384, 28671)}), interfaces=("eth0",)
)
BARE = ActualNode(links={"eth0": ETH0}, rules=frozenset(LOCAL.values()), ipv4_forwarding=False, ipv6_forwarding=False)


def steering(protocol: IpProtocol) -> Rule:
    return Rule(Family.IPV4, 0, 11200, to=NODE, ip_protocol=protocol, ports=(16384, 28671))


RULES = frozenset(
    {
        steering(IpProtocol.TCP),
        steering(IpProtocol.UDP),
        Rule(Family.IPV4, 0, 11200, mark=MARK),
        Rule(Family.IPV4, 2, 11201),
    }
)
ROUTES = frozenset(
    Route(Family.IPV4, table, ip_network(destination), metric, device)
    for table, destination in ((11200, "0.0.0.0/0"), (11201, "203.0.113.10/32"))
    for metric, device in ((100, "penstock"), (4000, None))
)
NFT = nftables.wanted(DESIRED.vips, DESIRED.nat_sources, {(Family.IPV4, "eth0")})
EARLY = shortcut.wanted("penstock", ["eth0"], DESIRED.vips, DESIRED.nat_sources)
assert EARLY is not None
RIGHT = ActualNode(
    links={"eth0": replace(ETH0, forwarding=True), "penstock": TUN},
    rules=RULES | {MOVED[Family.IPV4], LOCAL[Family.IPV6]},
    routes=ROUTES,
    nft=NFT,
    shortcut=EARLY,
    ipv4_forwarding=False,
    ipv6_forwarding=False,
)


def test_what_is_right_needs_no_change() -> None:
    assert plan(DESIRED, RIGHT) == ()


def test_from_nothing_what_catches_packets_comes_before_what_attracts_them() -> None:
    changes = plan(DESIRED, BARE)
    assert [type(change) for change in changes] == [
        ReplaceNftTable,
        AddRoute,
        AddRoute,
        CreateTun,
        ConfigureTun,
        SetForwarding,
        AddRoute,
        AddRoute,
        AddRule,
        DeleteRule,
        *[AddRule] * 4,
        ReplaceShortcut,
    ]
    assert all(change.route.device is None for change in changes[1:3] if isinstance(change, AddRoute))
    assert changes[8:10] == (AddRule(MOVED[Family.IPV4]), DeleteRule(LOCAL[Family.IPV4]))


def test_the_local_table_is_never_without_a_rule() -> None:
    for changes, present in (
        (plan(DESIRED, BARE), {LOCAL[Family.IPV4]}),
        (plan_withdrawal(RIGHT), {MOVED[Family.IPV4]}),
        (plan(replace(DESIRED, nat_sources=frozenset()), RIGHT), {MOVED[Family.IPV4]}),
    ):
        for change in changes:
            if isinstance(change, AddRule) and change.rule.table == LOCAL_TABLE:
                present.add(change.rule)
            elif isinstance(change, DeleteRule) and change.rule.table == LOCAL_TABLE:
                present.remove(change.rule)
            assert present


def link(**changes: Any) -> dict[str, Link]:
    return {**RIGHT.links, "penstock": replace(TUN, **changes)}


def flags(**changes: Any) -> dict[str, Link]:
    return link(tun=replace(FLAGS, **changes))


RECREATED = [DeleteLink, CreateTun, ConfigureTun, AddRoute, AddRoute, ReplaceShortcut]
CASES: list[tuple[str, ActualNode, list[type[Change]]]] = [
    ("down", replace(RIGHT, links=link(up=False)), [ConfigureTun]),
    ("mtu", replace(RIGHT, links=link(mtu=1500)), [ConfigureTun]),
    ("queue length", replace(RIGHT, links=link(tx_queue_length=500)), [ConfigureTun]),
    ("rp_filter", replace(RIGHT, links=link(rp_filter=1)), [ConfigureTun]),
    ("accept_local", replace(RIGHT, links=link(accept_local=False)), [ConfigureTun]),
    ("alias", replace(RIGHT, links=link(alias="")), [ConfigureTun]),
    ("group", replace(RIGHT, links=link(group=0)), [ConfigureTun]),
    ("queueing", replace(RIGHT, links=link(queueing="fq_codel")), [ConfigureTun]),
    ("multi-queue", replace(RIGHT, links=flags(multi_queue=True)), RECREATED),
    ("no offloads", replace(RIGHT, links=flags(vnet_hdr=False)), RECREATED),
    ("anybody's", replace(RIGHT, links=flags(owner=None)), RECREATED),
    ("not persistent", replace(RIGHT, links=flags(persistent=False)), RECREATED),
    ("a TAP", replace(RIGHT, links=flags(layer3=False)), RECREATED),
    ("not a TUN", replace(RIGHT, links=link(tun=None)), [CreateTun, AddRoute, AddRoute]),
    ("old name", replace(RIGHT, links={**RIGHT.links, "old": replace(TUN, name="old")}), [DeleteLink]),
    ("forwarding off", replace(RIGHT, links={"eth0": ETH0, "penstock": TUN}), [SetForwarding]),
    ("rule missing", replace(RIGHT, rules=RIGHT.rules - {steering(IpProtocol.UDP)}), [AddRule]),
    ("rule stale", replace(RIGHT, rules=RIGHT.rules | {Rule(Family.IPV6, 2, 11201)}), [DeleteRule]),
    ("local first", replace(RIGHT, rules=RIGHT.rules | {LOCAL[Family.IPV4]}), [DeleteRule]),
    ("route missing", replace(RIGHT, routes=frozenset(list(ROUTES)[1:])), [AddRoute]),
    (
        "route stale",
        replace(RIGHT, routes=ROUTES | {Route(Family.IPV6, 11201, ip_network("::1/128"), 100, "eth0")}),
        [DeleteRoute],
    ),
    ("no nft table", replace(RIGHT, nft=None), [ReplaceNftTable]),
    ("nft rule changed", replace(RIGHT, nft=replace(NFT, skeleton=NFT.skeleton[:-1])), [ReplaceNftTable]),
    ("before groups", replace(RIGHT, links=link(group=0), nft=NftTable()), [ConfigureTun, ReplaceNftTable]),
    ("no shortcut", replace(RIGHT, shortcut=None), [ReplaceShortcut]),
    ("no shortcut possible", replace(RIGHT, shortcut=None, shortcut_possible=False), []),
    ("shortcut rule changed", replace(RIGHT, shortcut=replace(EARLY, skeleton=EARLY.skeleton[:-1])), [ReplaceShortcut]),
    ("shortcut element", replace(RIGHT, shortcut=replace(EARLY, vips=frozenset({VIP6}))), [UpdateShortcut]),
    ("nft element", replace(RIGHT, nft=replace(NFT, vips=frozenset({VIP6}))), [UpdateNftSets]),
]


@pytest.mark.parametrize(("actual", "changes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_drift(actual: ActualNode, changes: list[type[Change]]) -> None:
    assert [type(change) for change in plan(DESIRED, actual)] == changes


@pytest.mark.parametrize(
    ("ipv6_forwarding", "expected"),
    [(True, []), (False, ["eth0", "penstock"])],
    ids=["node forwards", "node is a host"],
)
def test_ipv6_forwarding_is_forced_only_where_needed(ipv6_forwarding: bool, expected: list[str]) -> None:
    desired = replace(DESIRED, vips=frozenset({VIP, VIP6}))
    changes = plan(desired, replace(RIGHT, ipv6_forwarding=ipv6_forwarding))
    forced = [c.interface for c in changes if isinstance(c, SetForwarding) and c.family is Family.IPV6]
    assert forced == expected


def test_withdrawal_takes_attraction_away_first_and_leaves_what_is_not_ours() -> None:
    changes = plan_withdrawal(RIGHT)
    assert [type(change) for change in changes] == [
        DeleteShortcut,
        *[DeleteRule] * 4,
        AddRule,
        DeleteRule,
        *[DeleteRoute] * 4,
        DeleteLink,
        SetForwarding,
        DeleteNftTable,
    ]
    assert DeleteRule(LOCAL[Family.IPV6]) not in changes
    assert plan_withdrawal(BARE) == ()


def test_forwarding_stays_on_where_the_node_forwards_by_now() -> None:
    changes = plan_withdrawal(replace(RIGHT, ipv4_forwarding=True))
    assert not any(isinstance(change, SetForwarding) for change in changes)


def test_the_nft_table_survives_a_round_trip_through_text() -> None:
    table = nftables.wanted({VIP, VIP6}, {NatSource(NODE, 64, 127)}, {(Family.IPV6, "eth0")})
    text = nftables.render_table(table, reassemble=True)
    assert "iifgroup 11200 notrack accept" in text
    assert "elements = { 203.0.113.10 }" in text
    assert "elements = { 10.2.0.1 . 64-127 }" in text
    assert nftables.render_update(NftTable(), NftTable(vips=frozenset({VIP6}))) == (
        "delete element inet penstock vips6 { 2001:db8::10 }\n"
    )


def test_the_shortcut_is_for_interfaces_that_are_there_and_for_those_who_want_it() -> None:
    two = replace(RIGHT, links={**RIGHT.links, "eth1": replace(ETH0, name="eth1", forwarding=True)})
    changes = plan(replace(DESIRED, interfaces=("eth0", "eth1", "gone")), two)
    assert [change.table.interfaces for change in changes if isinstance(change, ReplaceShortcut)] == [("eth0", "eth1")]
    assert plan(replace(DESIRED, shortcut=False), RIGHT) == (DeleteShortcut(),)
    nothing = plan(DesiredNode(interfaces=("eth0",)), RIGHT)
    assert DeleteShortcut() in nothing


def test_the_shortcut_survives_a_round_trip_through_text() -> None:
    table = shortcut.wanted("penstock", ["eth0"], {VIP, VIP6}, {NatSource(NODE, 64, 127)})
    assert table is not None
    text = shortcut.render("penstock", table)
    assert "elements = { 2001:db8::10 }" in text
    assert "ip daddr 10.2.0.1 ip protocol { tcp, udp } th dport 64-127" in text
    assert shortcut.render_update({VIP}, {VIP6}) == (
        "delete element netdev penstock vips6 { 2001:db8::10 }\nadd element netdev penstock vips4 { 203.0.113.10 }\n"
    )


BAD = [
    (lambda: Tun(name=""), "tun.name"),
    (lambda: Tun(name="a/b"), "tun.name"),
    (lambda: Tun(name="a" * 16), "tun.name"),
    (lambda: Tun(name="two words"), "tun.name"),
    (lambda: Tun(queues=0), "tun.queues"),
    (lambda: Tun(mtu=1000), "tun.mtu"),
    (lambda: NatSource(NODE, 200, 100), "no port range"),
    (lambda: NatSource(NODE, 0, 100), "no port range"),
    (lambda: DesiredNode(nat_sources=frozenset({NatSource(NODE, 1, 2), NatSource(NODE, 3, 4)})), "appears twice"),
    (lambda: DesiredNode(vips=frozenset({NODE}), nat_sources=frozenset({NatSource(NODE, 1, 2)})), "a VIP needs"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_what_makes_no_sense_is_refused_when_stated(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_an_nft_that_crashes_is_said_to_be_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(nftables.NftError, match=r"nft list tables: ended by SIGSEGV; .* install as new a one here"):
        nftables.run(["list", "tables"])


def test_a_listing_in_another_order_is_the_same_table() -> None:
    """nft 1.0 lists sets before chains, nft 1.1 after them."""
    sets = [{"set": {"name": name}} for name in nftables._SETS]
    chain = {"chain": {"name": "untrack_in", "type": "filter", "hook": "prerouting", "prio": -310, "policy": "accept"}}
    rule = {"rule": {"chain": "untrack_in", "comment": "penstock 0"}}
    listed = [json.dumps({"nftables": items}) for items in ([*sets, chain, rule], [chain, *sets, rule])]
    assert nftables.parse_table(listed[0]) == nftables.parse_table(listed[1])
