"""The data plane ends, in every way, and connections go on."""

from __future__ import annotations

import sys
import time

import penstock_core
import pytest
from penstock_embedded.client import ControlError
from penstock_embedded.dataplane import WATCH_SECONDS
from penstock_embedded.engine import Engine
from penstock_embedded.sizing import size_in_force

from tests.support.clients import Background, Ear, HttpConnection, get, udp_socket
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, RunningDataplane, plumbing, running_dataplane, vip
from tests.support.lab import Lab, eventually

pytestmark = pytest.mark.netns

ARENA_VERSION_OFFSET = 8  # behind the magic number

BOTH = pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])


@BOTH
@pytest.mark.alone
def test_open_connections_outlive_a_killed_data_plane(lab: Lab, balanced: RunningDataplane, address: str) -> None:
    before = balanced.hello()
    with HttpConnection(lab, address, timeout=20) as idle, HttpConnection(lab, address, timeout=20) as busy:
        name = idle.get()
        transfer = Background(lambda: len(busy.get("/bytes/200000000")))
        time.sleep(0.1)
        with Ear(lab) as ear:
            killed_at = time.monotonic()
            balanced.kill_child()
            eventually(balanced.answers, interval=0.005)
            assert time.monotonic() - killed_at < 1.0
            assert idle.get() == name
            assert transfer.result() == 200_000_000
        assert ear.heard == []
    after = balanced.hello()
    assert after.instance_id != before.instance_id
    assert after.reattached_flows >= 2
    assert after.generation == before.generation
    assert get(lab, address) in (b"s1", b"s2")  # new connections too, before anybody applied anything


def test_nothing_is_answered_while_no_data_plane_runs(lab: Lab, balanced: RunningDataplane) -> None:
    with HttpConnection(lab, VIP_IPV4, timeout=30) as kept, udp_socket(lab, VIP_IPV4, 53, timeout=0.2) as datagrams:
        name = kept.get()
        present = plumbing(lab)
        balanced.stop()
        assert plumbing(lab) == present  # SIGTERM changes nothing on the node
        with Ear(lab) as ear:
            with pytest.raises(TimeoutError):
                get(lab, VIP_IPV4, timeout=0.5)
            datagrams.send(b"lost")
            with pytest.raises(TimeoutError):
                datagrams.recv(100)
            answer = Background(kept.get)
            time.sleep(0.3)
            balanced.restart()
            assert answer.result() == name
        assert ear.heard == []
    assert plumbing(lab) == present


def test_killed_again_and_again_no_connection_meets_a_wrong_backend(lab: Lab, balanced: RunningDataplane) -> None:
    connections = [HttpConnection(lab, VIP_IPV4, timeout=20) for _ in range(20)]
    names = [connection.get() for connection in connections]
    for _ in range(5):
        balanced.kill_child()
        eventually(balanced.answers)
        assert [connection.get() for connection in connections] == names
    for connection in connections:
        connection.close()


@pytest.mark.parametrize(("before", "after"), [(4096, 65536), (65536, 4096), (131072, 65536)])
def test_a_flow_table_of_another_size_takes_flows_over(lab: Lab, before: int, after: int) -> None:
    with running_dataplane(lab, flow_table_size=before) as running:
        running.apply(vip(lab))
        with HttpConnection(lab, VIP_IPV4, timeout=20) as kept:
            name = kept.get()
            size = running.settings.arena_path.stat().st_size
            running.stop()
            running.settings = running.settings.model_copy(update={"flow_table_size": after})
            running.restart()
            assert (running.settings.arena_path.stat().st_size > size) is (after > before)
            assert running.stats().flow_capacity == after
            assert running.hello().reattached_flows >= 1
            assert kept.get() == name
        running.withdraw()


def test_an_automatic_flow_table_has_the_same_size_after_a_restart(lab: Lab) -> None:
    with running_dataplane(lab, flow_table_size="auto") as running:
        running.apply(vip(lab))
        capacity = running.stats().flow_capacity
        arena = running.settings.arena_path.stat()
        with HttpConnection(lab, VIP_IPV4, timeout=20) as kept:
            name = kept.get()
            running.stop()
            running.restart()
            assert running.stats().flow_capacity == capacity == size_in_force(None, running.settings.shm_dir)
            assert running.hello().reattached_flows >= 1
            assert kept.get() == name
        assert running.settings.arena_path.stat().st_ino == arena.st_ino  # attached, not imported into another
        running.withdraw()


@pytest.mark.parametrize("damage", ["arena", "arena of a release to come", "state"])
def test_a_damaged_object_is_replaced_and_the_next_apply_makes_all_well(
    lab: Lab, balanced: RunningDataplane, damage: str
) -> None:
    balanced.stop()
    path = balanced.settings.state_path if damage == "state" else balanced.settings.arena_path
    with path.open("r+b") as file:
        if damage == "arena of a release to come":
            file.seek(ARENA_VERSION_OFFSET)
            file.write((2).to_bytes(4, sys.byteorder))
        else:
            file.write(b"\xa5" * 64)
    balanced.restart()
    balanced.apply(vip(lab))
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")
    eventually(lambda: [each.key for each in balanced.dump().vips] == [vip(lab)["key"]])


def test_without_its_state_a_data_plane_leaves_the_node_as_it_finds_it(lab: Lab, balanced: RunningDataplane) -> None:
    present = plumbing(lab)
    with HttpConnection(lab, VIP_IPV4, timeout=20) as kept, HttpConnection(lab, VIP_IPV6, timeout=20) as kept_too:
        names = [kept.get(), kept_too.get()]
        balanced.stop()
        balanced.settings.state_path.write_text("of a release to come")
        balanced.restart()
        time.sleep(2.5 * WATCH_SECONDS)
        assert plumbing(lab) == present
        assert [kept.get(), kept_too.get()] == names


def test_two_data_planes_never_share_an_arena(lab: Lab, balanced: RunningDataplane) -> None:
    with pytest.raises(penstock_core.DataplaneError, match="in use by another data plane"):
        Engine(balanced.settings, "second")
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def test_a_device_that_is_deleted_is_made_again(lab: Lab, balanced: RunningDataplane) -> None:
    with HttpConnection(lab, VIP_IPV4, timeout=20) as kept:
        name = kept.get()
        lab.balancer.sh(f"ip link delete {balanced.settings.device}")
        assert kept.get() == name
        assert get(lab, VIP_IPV6) in (b"s1", b"s2")


def test_without_a_data_plane_the_probe_says_what_to_do(lab: Lab, dataplane: RunningDataplane) -> None:
    dataplane.stop()
    with pytest.raises(ControlError, match="penstock dataplane"):
        dataplane.hello()
