"""The node becomes what is desired, stays so, and is left as it was found."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from penstock_node import ApplyError, NatSource, NodeWatch, Tun, TunError, open_tun, reconcile, withdraw
from penstock_node.actual import ActualNode
from penstock_node.changes import (
    AddRoute,
    Change,
    ConfigureTun,
    CreateTun,
    DeleteRoute,
    ReplaceNftTable,
    ReplaceShortcut,
    UpdateNftSets,
)
from penstock_node.netlink import apply, observe
from penstock_node.plans import plan, plan_withdrawal

from tests.node.conftest import Lab, TunUser

pytestmark = pytest.mark.netns


def test_a_second_run_changes_nothing(lab: Lab) -> None:
    assert lab.node.run(reconcile, lab.desired())
    assert lab.node.run(reconcile, lab.desired()) == ()


def test_withdraw_leaves_the_node_as_it_was(lab: Lab) -> None:
    before = lab.snapshot()
    lab.node.run(reconcile, lab.desired())
    assert lab.snapshot() != before
    lab.node.run(withdraw)
    assert lab.snapshot() == before
    assert lab.node.run(withdraw) == ()


def test_the_text_of_a_change_is_a_command_that_does_the_same(lab: Lab) -> None:
    changes = plan(lab.desired(), lab.node.run(observe))
    commands = [str(change) for change in changes if not isinstance(change, ReplaceNftTable | ReplaceShortcut)]
    lab.node.sh("\n".join(commands))
    rest = lab.node.run(reconcile, lab.desired())
    # ConfigureTun: of more settings than the text tells.
    assert {type(change) for change in rest} == {ReplaceNftTable, ReplaceShortcut, ConfigureTun}
    commands = [str(change) for change in plan_withdrawal(lab.node.run(observe))]
    lab.node.sh("\n".join(commands))
    assert lab.node.run(withdraw) == ()


def test_the_documented_removal_by_hand_removes_everything(lab: Lab) -> None:
    """Forwarding apart, as the page says."""
    lab.node.sh("sysctl -w net.ipv4.ip_forward=1\nsysctl -w net.ipv6.conf.all.forwarding=1")
    before = lab.snapshot()
    lab.node.run(reconcile, lab.desired())
    page = Path(__file__).parents[2] / "docs/explanation/node.md"
    script = page.read_text().partition("```sh\n")[2].partition("```")[0]
    lab.node.run(subprocess.run, ["sh", "-c", script], check=True, capture_output=True)
    assert lab.snapshot() == before


def test_without_vips_only_device_and_table_are_there(lab: Lab) -> None:
    lab.node.run(reconcile, lab.desired(vips=frozenset(), nat_sources=frozenset()))
    assert "proto 112" not in lab.node.shell("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all")
    assert lab.node.sh("ip rule").startswith("0:\tfrom all lookup local")


DRIFTS = {
    "rule of a NAT source gone": "ip rule del pref 0 ipproto tcp to {node4} dport 16384-28671",
    "rule of the VIPs gone": "ip -6 rule del pref 2",
    "local table first again": "ip rule add pref 0 lookup local",
    "no rule for the local table": "ip rule del pref 1",
    "routes of VIPs gone": "ip route flush table 11201",
    "blackhole gone": "ip -6 route del blackhole default table 11200 metric 4000",
    "stale route": "ip route add 192.0.2.7/32 dev client0 table 11201",
    "device down": "ip link set penstock down",
    "device gone": "ip link del penstock",
    "device with other flags": "ip link del penstock; ip tuntap add dev penstock mode tun; ip link set penstock up",
    "mtu changed": "ip link set penstock mtu 1500",
    "queue shortened": "ip link set penstock txqueuelen 500",
    "rp_filter on": "sysctl -w net.ipv4.conf.penstock.rp_filter=1",
    "accept_local off": "sysctl -w net.ipv4.conf.penstock.accept_local=0",
    "forwarding off": "sysctl -w net.ipv4.conf.server0.forwarding=0",
    "IPv6 forwarding off": "sysctl -w net.ipv6.conf.server0.force_forwarding=0",
    "nft chain flushed": "nft flush chain inet penstock untrack_in",
    "nft rule added": "nft insert rule inet penstock untrack_in counter",
    "nft policy changed": "nft add chain inet penstock untrack_out '{{ policy drop; }}'",
    "nft element gone": "nft delete element inet penstock vips4 '{{ {vip4} }}'",
    "other group": "ip link set penstock group default",
    "other queueing": "tc qdisc replace dev penstock root pfifo",
    "shortcut gone": "nft delete table netdev penstock",
    "shortcut rule added": "nft insert rule netdev penstock shortcut counter",
    "shortcut off an interface": "nft flush chain netdev penstock in_1",
    "shortcut element gone": "nft delete element netdev penstock vips4 '{{ {vip4} }}'",
    "nft element added": "nft add element inet penstock vips6 '{{ 2001:db8::bad }}'",
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_put_back(lab: Lab, drift: str) -> None:
    lab.node.run(reconcile, lab.desired())
    right = _comparable(lab)
    lab.node.shell(DRIFTS[drift].format(node4=lab.node4, vip4=lab.vip4))
    assert lab.node.run(reconcile, lab.desired())
    assert lab.node.run(reconcile, lab.desired()) == ()
    assert _comparable(lab) == right


UNANNOUNCED = {"accept_local off"}  # the kernel sends no message about it


@pytest.mark.parametrize("drift", sorted(DRIFTS.keys() - UNANNOUNCED))
def test_drift_is_noticed_at_once(lab: Lab, drift: str) -> None:
    lab.node.run(reconcile, lab.desired())
    with lab.node.run(NodeWatch) as watch:
        assert not watch.changed()
        lab.node.shell(DRIFTS[drift].format(node4=lab.node4, vip4=lab.vip4))
        assert watch.changed()


def test_nothing_is_noticed_of_a_node_that_stays_as_it_is(lab: Lab) -> None:
    lab.node.run(reconcile, lab.desired())
    with lab.node.run(NodeWatch) as watch:
        assert lab.node.run(reconcile, lab.desired()) == ()
        assert not watch.changed()


def test_changes_that_overflow_the_socket_are_noticed(lab: Lab) -> None:
    with lab.node.run(NodeWatch) as watch:
        routes = "\n".join(f"route add 198.18.{n // 250}.{n % 250}/32 dev server0" for n in range(5000))
        lab.node.run(subprocess.run, ["ip", "-batch", "-"], input=routes, text=True, check=True)
        assert watch.changed()
        assert not watch.changed()


def test_a_lost_table_comes_back_without_its_memory(lab: Lab) -> None:
    """Which interfaces did not forward before is known to the table alone; better on than wrongly off."""
    lab.node.run(reconcile, lab.desired())
    lab.node.sh("nft flush ruleset")
    assert [type(change) for change in lab.node.run(reconcile, lab.desired())] == [
        ReplaceNftTable,
        ReplaceShortcut,
    ]
    lab.node.run(withdraw)
    assert lab.node.sh("sysctl -n net.ipv4.conf.server0.forwarding").strip() == "1"


def test_a_local_rule_that_others_moved_is_theirs(lab: Lab) -> None:
    """Network plugins move it too, to make room for rules of their own."""
    lab.node.sh("ip rule add pref 100 lookup local\nip rule del pref 0")
    before = lab.snapshot()
    lab.node.run(reconcile, lab.desired())
    assert "\n1:\t" not in lab.node.sh("ip rule")
    lab.node.run(withdraw)
    assert lab.snapshot() == before


def test_many_vips_at_once_and_what_is_in_their_way(lab: Lab) -> None:
    vips = frozenset(
        ip_address(address) for net in ("198.18.0.0/24", "2001:db8:1::/121") for address in ip_network(net)
    )
    lab.node.run(reconcile, lab.desired(vips=frozenset()))
    lab.node.sh(
        """ip route add 198.18.0.7/32 dev client0 table 11201 metric 100
        ip route add 192.0.2.7/32 dev client0 table 11201"""
    )
    lab.node.run(reconcile, lab.desired(vips=vips))
    assert lab.node.run(reconcile, lab.desired(vips=vips)) == ()
    routes = lab.node.shell("ip route show table 11201; ip -6 route show table 11201").splitlines()
    assert len(routes) == 2 * len(vips)
    assert sum("dev penstock" in route for route in routes) == len(vips)
    lab.node.run(reconcile, lab.desired(vips=frozenset()))
    assert lab.node.shell("ip route show table 11201; ip -6 route show table 11201") == ""


def test_a_route_that_fails_does_not_stop_those_after_it(lab: Lab) -> None:
    """The kernel takes no route to a device that is down, but blackholes, and deletes what is there."""
    lab.node.run(reconcile, lab.desired())
    present = lab.node.run(observe).routes
    (to_vip,) = [route for route in present if route.destination == ip_network(lab.vip4) and route.device]
    lab.node.sh("ip link add idle type veth peer name idle-peer")
    failing = [
        AddRoute(replace(to_vip, destination=ip_network(f"192.0.2.{n}"), device=name))
        for n, name in ((1, "idle"), (2, "none"))
    ]
    succeeding: list[Change] = [
        AddRoute(replace(to_vip, destination=ip_network("192.0.2.3"))),
        DeleteRoute(to_vip),
        DeleteRoute(to_vip),
    ]
    with pytest.raises(ApplyError) as failed:
        lab.node.run(apply, (*failing, *succeeding))
    assert [change for change, _ in failed.value.failures] == failing
    assert [reason for _, reason in failed.value.failures] == ["Network is down", "No such device"]
    assert failed.value.made == tuple(succeeding)


def test_a_changed_plan_changes_only_the_difference(lab: Lab) -> None:
    lab.node.run(reconcile, lab.desired())
    second = ip_address("203.0.113.11")
    changes = lab.node.run(reconcile, lab.desired(vips=frozenset({lab.vip4, lab.vip6, second})))
    assert [str(change) for change in changes] == [
        "nft update sets of table inet penstock (add 1 elements, delete 0)",
        "ip route replace blackhole 203.0.113.11/32 table 11201 metric 4000 proto 112",
        "ip route replace 203.0.113.11/32 dev penstock table 11201 metric 100 proto 112",
        "nft update sets of table netdev penstock (add 1 elements, delete 0)",
    ]
    changes = lab.node.run(reconcile, lab.desired(vips=frozenset({lab.vip6, second})))
    assert any(isinstance(change, UpdateNftSets) for change in changes)
    assert str(lab.vip4) not in lab.node.shell("ip route show table all; nft list ruleset")
    changes = lab.node.run(reconcile, lab.desired(nat_sources=frozenset({NatSource(lab.node4, 20480, 24575)})))
    assert any(isinstance(change, ReplaceNftTable) for change in changes)
    assert lab.node.run(reconcile, lab.desired(nat_sources=frozenset({NatSource(lab.node4, 20480, 24575)}))) == ()
    assert "lookup local" in lab.node.sh("ip -6 rule").splitlines()[0]


def test_a_renamed_device_replaces_the_old_one(lab: Lab) -> None:
    lab.node.run(reconcile, lab.desired())
    lab.node.run(reconcile, lab.desired(tun=Tun(name="edge", queues=2)))
    links = lab.node.sh("ip -d link")
    assert "edge:" in links
    assert "penstock:" not in links
    assert lab.node.run(reconcile, lab.desired(tun=Tun(name="edge", queues=2))) == ()
    user = TunUser(lab.node, Tun(name="edge", queues=2))
    assert len(user.queues) == 2
    user.close()
    lab.node.run(withdraw)
    assert "edge:" not in lab.node.sh("ip link")


def test_a_foreign_device_of_our_name_is_left_alone(lab: Lab) -> None:
    lab.node.sh("ip link add penstock type veth peer name other")
    with pytest.raises(ApplyError, match="a device of this name exists with other flags"):
        lab.node.run(reconcile, lab.desired())
    assert "penstock@other" in lab.node.sh("ip link")
    lab.node.run(withdraw)
    assert "penstock@other" in lab.node.sh("ip link")


def test_what_can_be_done_is_done(lab: Lab) -> None:
    with pytest.raises(ApplyError, match="the node has no interface eth7") as caught:
        lab.node.run(reconcile, lab.desired(interfaces=("eth7", "server0")))
    assert any(isinstance(change, CreateTun) for change in caught.value.made)
    assert lab.node.sh("sysctl -n net.ipv4.conf.server0.forwarding").strip() == "1"
    assert "lookup 11200" in lab.node.sh("ip rule")


def test_interfaces_of_the_default_routes_are_the_default(lab: Lab) -> None:
    lab.node.sh("ip route add default via 10.1.0.2")
    lab.node.run(reconcile, lab.desired(interfaces=()))
    assert lab.node.sh("sysctl -n net.ipv4.conf.client0.forwarding net.ipv4.conf.server0.forwarding").split() == [
        "1",
        "0",
    ]


def test_forwarding_that_was_on_stays_on(lab: Lab) -> None:
    lab.node.sh("sysctl -w net.ipv4.ip_forward=1\nsysctl -w net.ipv6.conf.all.forwarding=1")
    before = lab.snapshot()
    lab.node.run(reconcile, lab.desired())
    lab.node.run(withdraw)
    assert lab.snapshot() == before


def test_another_processes_queue_is_not_stolen(lab: Lab, tun_user: TunUser) -> None:
    with pytest.raises(TunError, match="another process holds the device"):
        lab.node.run(open_tun, Tun())
    assert lab.node.run(reconcile, lab.desired()) == ()


def test_queues_of_another_shape_are_refused(lab: Lab) -> None:
    lab.node.run(reconcile, lab.desired())
    with pytest.raises(TunError, match="ip link delete penstock"):
        lab.node.run(open_tun, Tun(queues=2))
    assert any(isinstance(c, CreateTun) for c in lab.node.run(reconcile, lab.desired(tun=Tun(queues=2))))


def test_a_thousand_vips_are_programmed_quickly(lab: Lab) -> None:
    vips = frozenset(ip_address("203.0.112.0") + number for number in range(500))
    changes = lab.node.run(reconcile, lab.desired(vips=vips))
    assert len(changes) > 1000
    assert lab.node.run(reconcile, lab.desired(vips=vips)) == ()


def _comparable(lab: Lab) -> ActualNode:
    """The node's state less the numbers that the kernel gives devices."""
    actual = lab.node.run(observe)
    return replace(actual, links={name: replace(link, index=0) for name, link in actual.links.items()})
