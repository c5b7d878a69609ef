"""What must hold when much happens: floods, ports that run short, paths that shrink, threads that come and go."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import penstock_core
import pytest

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, RunningDataplane, running_dataplane, vip
from tests.support.lab import HTTP_PORT, Lab, eventually, take_out_of_gre
from tests.support.lab import lab as build_lab

pytestmark = pytest.mark.netns

FLOOD = Path(__file__).parents[1] / "support" / "flood.py"
BOTH = pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])


def test_packets_that_find_the_queue_full_are_counted(lab: Lab) -> None:
    with running_dataplane(lab) as running:
        running.apply(vip(lab))
        before = running.stats().queue_dropped
        child = running.child()
        os.kill(child, signal.SIGSTOP)
        gateway = json.loads(lab.balancer.sh("ip -j link show c0"))[0]["address"]
        flood = lab.client.popen([sys.executable, str(FLOOD), VIP_IPV4, "80", gateway, "6400", "100000"])
        assert flood.wait() == 0
        os.kill(child, signal.SIGCONT)
        assert running.stats().queue_dropped >= before + 6400 - 2 * 2000  # its queue, and what the thread had read
        running.withdraw()


def test_ports_of_connections_that_the_server_closed_are_used_again_at_once(lab: Lab) -> None:
    """It sits in TIME-WAIT, but a client's later timestamp and sequence number tell old and new connections apart.

    No connection waits for a port: none is ever short of one.
    """
    sources = [{"address": lab.balancer_ipv4, "port_first": 20480, "port_last": 20480 + 4095}]
    total = 5500  # of 4,096 ports that rest for 60 s
    with running_dataplane(lab) as running:
        wanted = vip(lab)
        running.apply(wanted | {"backends": wanted["backends"][:1]}, nat_sources=sources)
        for _ in range(total):
            assert get(lab, VIP_IPV4, "/last") == b"s1"
        status = running.dump().vips[0]
        reader = penstock_core.FrameReader(str(running.settings.shm_dir / status.frames.lstrip("/")))
        eventually(lambda: reader.read().counters["n_fct"].sum() == total)
        assert reader.read().counters["n_cls"].sum() == 0
        assert running.stats().dropped["no_nat_port"] == 0
        running.withdraw()


def test_ports_that_must_rest_run_out_and_that_is_said(lab: Lab) -> None:
    """Without timestamps nothing tells connections apart: new ones wait until ports have rested."""
    sources = [{"address": lab.balancer_ipv4, "port_first": 20480, "port_last": 20480 + 127}]
    lab.client.sh("sysctl -qw net.ipv4.tcp_timestamps=0")
    try:
        with running_dataplane(lab) as running:
            running.apply(vip(lab), nat_sources=sources)
            served = 0
            with pytest.raises(TimeoutError):
                for _ in range(2 * 128 + 1):
                    get(lab, VIP_IPV4, "/last", timeout=0.5)
                    served += 1
            assert served > 0
            assert running.stats().dropped["no_nat_port"] > 0
            running.withdraw()
    finally:
        lab.client.sh("sysctl -qw net.ipv4.tcp_timestamps=1")


@BOTH
def test_a_path_to_servers_that_shrinks_is_learned_by_clients(address: str) -> None:
    """Also while super-packets are on their way: the kernel's ICMP errors about them find the client."""
    size = 5_000_000
    with build_lab("pn-mtu", 1) as lab, running_dataplane(lab) as running:
        running.apply(vip(lab, address))
        with HttpConnection(lab, address, timeout=20) as kept:
            assert kept.post(b"x" * size) == str(size).encode()
            lab.balancer.sh("ip link set s1 mtu 1300")
            lab.servers[0].namespace.sh("ip link set eth0 mtu 1300")
            assert kept.post(b"x" * size) == str(size).encode()
            assert len(kept.get(f"/bytes/{size}")) == size
        assert "mtu 1300" in lab.client.sh(f"ip route get {address}")
        running.withdraw()


def test_the_number_of_threads_may_change_from_one_process_to_the_next(lab: Lab) -> None:
    with running_dataplane(lab, queues=1) as running:
        running.apply(vip(lab), vip(lab, VIP_IPV6))
        kept = [HttpConnection(lab, address, timeout=20) for address in (VIP_IPV4, VIP_IPV6) for _ in range(20)]
        names = [connection.get() for connection in kept]
        for queues in (4, 2, 1):
            change_queues(running, queues)
            assert [connection.get() for connection in kept] == names
            assert len(get(lab, VIP_IPV4, "/bytes/5000000")) == 5_000_000
        for connection in kept:
            connection.close()
        running.withdraw()


def peer(lab: Lab, address: str, forwarding: str) -> str:
    """Return whom a server talks to, and from which address where it is not its own."""
    version = "ipv6" if ":" in address else "ipv4"
    if forwarding == "NAT":
        return str(getattr(lab, f"balancer_{version}"))
    return f"{getattr(lab, f'client_{version}')} from {address}"


@BOTH
@pytest.mark.parametrize("forwarding", ["NAT", "GRE"])
def test_a_path_to_clients_that_shrinks_is_learned_by_servers(address: str, forwarding: str) -> None:
    """A router's ICMP error says that the VIP's packets are too big; the server that sent them must hear of it."""
    size = 5_000_000
    with build_lab("pn-mtu", 2) as lab, running_dataplane(lab) as running:
        if forwarding == "GRE":
            for server in lab.servers:
                take_out_of_gre(server, [address])
        port = HTTP_PORT if forwarding == "GRE" else 80
        running.apply(vip(lab, address, port, forwarding=forwarding))
        with ExitStack() as stack:
            kept = [stack.enter_context(HttpConnection(lab, address, port, timeout=20)) for _ in range(8)]
            assert {connection.get() for connection in kept} == {b"s1", b"s2"}
            lab.balancer.sh("ip link set c0 mtu 1300")
            lab.client.sh("ip link set eth0 mtu 1300")
            assert all(len(connection.get(f"/bytes/{size}")) == size for connection in kept)
        for server in lab.servers:
            assert "mtu 1300" in server.namespace.sh(f"ip route get {peer(lab, address, forwarding)}")
        running.withdraw()


def change_queues(running: RunningDataplane, queues: int) -> None:
    running.stop()
    running.settings = running.settings.model_copy(update={"queues": queues})
    running.restart()
