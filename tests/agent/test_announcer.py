"""Who announces what: the pure part."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from penstock_agent.announcer import Peers, View, announced, announcer_of, candidates

ADDRESSES = frozenset(ip_address(f"203.0.113.{i}") for i in range(1, 51))
NODES = frozenset({"edge-a", "edge-b", "edge-c"})


def view(node, **changes):
    return View(
        **{
            "node": node,
            "addresses": ADDRESSES,
            "live": NODES,
            "connected": True,
            "announced": frozenset(),
            "lost": frozenset(),
            "rebooted": False,
            **changes,
        }
    )


def test_every_address_has_exactly_one_announcer():
    shares = [announced(view(node)) for node in NODES]
    assert frozenset().union(*shares) == ADDRESSES
    assert sum(map(len, shares)) == len(ADDRESSES)
    assert all(len(share) > 5 for share in shares)


@given(nodes=st.sets(st.text(min_size=1, max_size=10), min_size=2, max_size=6), data=st.data())
def test_a_lost_node_moves_only_its_own_addresses(nodes, data):
    lost = data.draw(st.sampled_from(sorted(nodes)))
    for address in ADDRESSES:
        before = announcer_of(address, nodes)
        after = announcer_of(address, nodes - {lost})
        assert after == before if before != lost else after in nodes - {lost}


def test_nobody_alive_means_nobody_announces():
    assert announcer_of(ip_address("203.0.113.1"), ()) is None


def test_a_node_counts_itself_even_before_its_lease_is_seen():
    assert announced(view("edge-a", live=frozenset())) == ADDRESSES


def test_a_draining_node_announces_nothing_while_there_is_another():
    draining = frozenset({"edge-a"})
    shares = {
        node: announced(view(node, live=candidates(NODES, draining), draining=node in draining)) for node in NODES
    }
    assert shares["edge-a"] == frozenset()
    assert shares["edge-b"] | shares["edge-c"] == ADDRESSES
    assert not shares["edge-b"] & shares["edge-c"]
    alone = frozenset({"edge-a"})
    assert announced(view("edge-a", live=candidates(alone, draining), draining=True)) == ADDRESSES
    assert announced(view("edge-a", live=frozenset(), draining=True)) == ADDRESSES
    assert candidates(NODES, NODES) == NODES


def test_cut_off_nodes_keep_what_they_had_until_they_hear_of_another():
    had = frozenset(list(ADDRESSES)[:10])
    lost = frozenset(list(had)[:3])
    kept = announced(view("edge-a", connected=False, live=frozenset(), announced=had, lost=lost))
    assert kept == had - lost


def test_cut_off_nodes_drop_addresses_of_vips_that_went():
    had = frozenset(list(ADDRESSES)[:10])
    gone = view("edge-a", connected=False, announced=had, addresses=frozenset(list(had)[:4]))
    assert announced(gone) == gone.addresses


def test_after_a_reboot_nothing_before_the_api_server_was_heard():
    had = frozenset(list(ADDRESSES)[:10])
    assert announced(view("edge-a", connected=False, announced=had, rebooted=True)) == frozenset()


def test_peers_live_by_renewals_on_our_clock():
    peers = Peers(duration=3, grace=30)
    peers.observe({"a": "t1", "b": "t1"}, now=0)
    peers.observe({"a": "t2", "b": "t1"}, now=2)
    assert peers.live(2.9) == {"a", "b"}
    assert peers.live(3.5) == {"a"}
    assert peers.doubtful(3.5) == {"b"}
    peers.observe({"a": "t2", "b": "t2"}, now=4)
    assert peers.live(4.5) == {"a", "b"}


def test_a_machine_that_answers_is_spared_for_a_while():
    peers = Peers(duration=3, grace=30)
    peers.observe({"b": "t1"}, now=0)
    peers.vouch("b", now=5)
    assert peers.doubtful(5.5) == frozenset()
    assert peers.doubtful(6.5) == {"b"}
    assert peers.live(7.5) == {"b"}
    assert peers.live(8.5) == frozenset()
    peers.vouch("b", now=29)
    assert peers.live(29.5) == {"b"}
    assert peers.live(30.5) == frozenset()


def test_leases_that_go_are_lost_at_once():
    peers = Peers(duration=3, grace=30)
    peers.observe({"a": "t1", "b": "t1"}, now=0)
    peers.observe({"a": "t1"}, now=1)
    assert peers.live(1) == {"a"}


def test_time_cut_off_counts_against_nobody():
    peers = Peers(duration=3, grace=30)
    peers.observe({"a": "t1"}, now=0)
    peers.reconnected(now=100)
    assert peers.live(102) == {"a"}
