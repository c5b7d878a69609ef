"""What other programs change on the node is put back when it happens, not at the next round."""

from __future__ import annotations

import time

import pytest
from penstock_embedded import repairs
from penstock_embedded.repairs import REPAIR_SECONDS, Repairs

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, RunningDataplane, plumbing
from tests.support.lab import Lab, eventually

pytestmark = pytest.mark.netns

CHANGES = {
    "rules": "ip rule | grep -vE 'lookup (local|main|default)' | cut -d: -f1 | xargs -n 1 ip rule del pref",
    "routes": "ip route flush table 11201; ip route flush table 11200",
    "nft tables": "nft flush ruleset",
    "device down": "ip link set penstock down",
    "forwarding": "sysctl -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
    "forwarding of an interface": "sysctl -w net.ipv4.conf.c0.forwarding=0",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_removal_is_repaired_at_once_and_connections_go_on(lab: Lab, balanced: RunningDataplane, change: str) -> None:
    present = plumbing(lab)
    with HttpConnection(lab, VIP_IPV4, timeout=REPAIR_SECONDS) as kept:
        name = kept.get()
        began = time.monotonic()
        try:
            lab.balancer.shell(CHANGES[change])
            if "forwarding" not in change:  # is restored where it is needed alone
                eventually(lambda: plumbing(lab) == present, seconds=REPAIR_SECONDS)
            assert kept.get() == name
            assert get(lab, VIP_IPV4) in (b"s1", b"s2")
            assert time.monotonic() - began < REPAIR_SECONDS / 2  # a round would take it in half of all cases
        finally:
            lab.balancer.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")


def test_a_node_that_changes_all_the_time_is_not_looked_at_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Repairs()
    monkeypatch.setattr(found, "_seen_change", lambda: True)
    monkeypatch.setattr(repairs, "SHORTEST_SECONDS", 3600.0)
    assert found.due()
    found.begin()
    assert not found.due()
    monkeypatch.setattr(repairs, "SHORTEST_SECONDS", 0.0)
    assert found.due()


def test_a_firewall_that_drops_forwarded_packets_is_a_finding(lab: Lab, balanced: RunningDataplane) -> None:
    lab.balancer.sh(
        """nft add table inet strict
        nft add chain inet strict forward { type filter hook forward priority 0 ; policy drop ; }"""
    )
    try:
        (finding,) = eventually(lambda: balanced.stats().findings, seconds=REPAIR_SECONDS / 2)
        assert "inet strict forward" in finding
        assert "nft insert rule" in finding
    finally:
        lab.balancer.sh("nft delete table inet strict")
    eventually(lambda: not balanced.stats().findings, seconds=REPAIR_SECONDS / 2)
