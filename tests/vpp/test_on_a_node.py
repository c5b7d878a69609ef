"""What the containers of a pod run, on a node whose kernel has all addresses and routes: the veth pair, plumbing,
announcements, restarts, and the way out. Each program has the capabilities of its container and no other.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
from penstock_embedded import client
from penstock_embedded.messages import Method

from tests.support import vpp
from tests.support.clients import HttpConnection, get, udp_socket
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, vip
from tests.support.lab import HTTP_PORT, UDP_PORT, Lab, Server, eventually, start_server
from tests.support.lab import lab as build_lab
from tests.support.vpp_pod import Pod, pod_on

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

BOTH = pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A client, a node with addresses and routes of the kernel's, two servers."""
    if reason := vpp.missing():
        pytest.skip(reason)
    vpp.plugin_directory()
    with build_lab("pn-vpn", 2) as built:
        yield built


@pytest.fixture
def idle(lab: Lab) -> Iterator[Pod]:
    """A pod of which nothing runs yet; the node is clean again at the end."""
    with pod_on(lab) as found:
        yield found


@pytest.fixture
def pod(idle: Pod) -> Pod:
    """A pod whose containers run."""
    idle.prepare()
    idle.start()
    idle.control()
    return idle


@BOTH
def test_the_kernel_leads_clients_to_vpp_and_answers_back(lab: Lab, pod: Pod, address: str) -> None:
    result = pod.apply(vip(lab, address))
    assert not result.errors
    assert {get(lab, address) for _ in range(24)} == {b"s1", b"s2"}
    assert pod.ask(Method.STATS)["forwarded"] > 0


@BOTH
def test_big_transfers_are_whole(lab: Lab, pod: Pod, address: str) -> None:
    pod.apply(vip(lab, address))
    size = 5_000_000
    with HttpConnection(lab, address) as connection:
        assert len(connection.get(f"/bytes/{size}")) == size
        assert connection.post(b"x" * size) == str(size).encode()


def test_datagrams_pass(lab: Lab, pod: Pod) -> None:
    udp = [{"id": s.name, "address": s.ipv4, "port": UDP_PORT} for s in lab.servers]
    pod.apply(vip(lab, port=53, protocol="UDP", backends=udp))
    with udp_socket(lab, VIP_IPV4, 53) as datagrams:
        datagrams.send(b"hello")
        assert datagrams.recv(100).endswith(b" hello")


@pytest.fixture(scope="module")
def host(lab: Lab) -> Server:
    """The node as a server: its address is the NAT source, too."""
    found = Server("lb", lab.balancer, lab.balancer_ipv4, lab.balancer_ipv6)
    start_server(found)
    return found


@BOTH
def test_a_server_on_the_node_is_reached(lab: Lab, pod: Pod, host: Server, address: str) -> None:
    own = host.ipv6 if ":" in address else host.ipv4
    pod.apply(
        vip(lab, address, backends=[{"id": "lb", "address": own, "port": HTTP_PORT}]),
        vip(lab, address, port=53, protocol="UDP", backends=[{"id": "lb", "address": own, "port": UDP_PORT}]),
    )
    with HttpConnection(lab, address) as connection:
        assert connection.get() == b"lb"
        assert len(connection.get("/bytes/1000000")) == 1_000_000
    with udp_socket(lab, address, 53) as datagrams:
        datagrams.send(b"hello")
        assert datagrams.recv(100) == b"lb hello"


def test_vpp_is_killed_and_a_connection_goes_on(lab: Lab, pod: Pod) -> None:
    pod.apply(vip(lab))
    with HttpConnection(lab, VIP_IPV4) as connection:
        before = connection.get()
        os.kill(pod.vpp_process(), signal.SIGKILL)
        assert connection.get() == before


def test_the_control_process_is_replaced_and_traffic_goes_on(lab: Lab, pod: Pod) -> None:
    pod.apply(vip(lab))
    control = pod.running.pop()
    pod.stop([control])
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")
    pod.control()
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")
    assert not pod.apply(vip(lab)).errors


def test_the_pair_is_made_again(lab: Lab, pod: Pod) -> None:
    pod.apply(vip(lab))
    lab.balancer.sh("ip link delete penstock")
    assert not pod.apply(vip(lab)).errors
    eventually(lambda: get(lab, VIP_IPV4) in (b"s1", b"s2"))


def test_it_announces(lab: Lab, pod: Pod) -> None:
    address = "10.77.0.77"
    wanted = vip(lab, address)
    assert not pod.apply(wanted, announcement={"addresses": [address], "interfaces": ["c0"]}).errors
    assert get(lab, address) in (b"s1", b"s2")


def nothing_is_left(pod: Pod) -> bool:
    left = pod.lab.balancer.sh("ip -o link\nnft list tables\nip rule\nip route show table all")
    return "penstock" not in left and "1120" not in left and list(pod.shm.iterdir()) == []


def test_nothing_is_left_on_the_node(lab: Lab, pod: Pod) -> None:
    pod.apply(vip(lab))
    pod.ask(Method.WITHDRAW)
    assert nothing_is_left(pod)
    assert not pod.apply(vip(lab)).errors  # a later apply starts afresh
    assert get(lab, VIP_IPV4) in (b"s1", b"s2")


def test_what_a_vpp_left_that_does_not_come_back_is_removed(lab: Lab, pod: Pod) -> None:
    pod.apply(vip(lab))
    pod.stop([pod.running.pop(0)])
    with pytest.raises(client.ControlError, match="VPP does not answer"):
        pod.ask(Method.WITHDRAW)  # it may be starting again
    assert not nothing_is_left(pod)
    eventually(lambda: withdrawn(pod), seconds=30, interval=1.0)
    assert nothing_is_left(pod)


def test_a_vpp_that_never_came_leaves_nothing_on_the_node(idle: Pod) -> None:
    idle.prepare()
    idle.start_control()
    eventually(lambda: withdrawn(idle), seconds=30, interval=1.0)
    assert nothing_is_left(idle)


def withdrawn(pod: Pod) -> bool:
    try:
        pod.ask(Method.WITHDRAW)
    except client.ControlError:
        return False
    return True


@pytest.fixture
def card(idle: Pod) -> Iterator[str]:
    """An interface of the node on which VPP takes the node's place; as JSON, in the words of a DataPlane."""
    lab = idle.lab
    lab.balancer.sh("ip address flush dev c0 scope global")
    lab.client.sh("ethtool -K eth0 tx off gro off gso off tso off")
    addresses = [{"node": "lb-1", "address": "10.77.0.1/24"}, {"node": "lb-1", "address": "fd77:0::1/64"}]
    yield json.dumps({"type": "AfPacket", "name": "c0", "addresses": addresses})
    lab.balancer.sh("ip address add 10.77.0.1/24 dev c0\nip address add fd77:0::1/64 dev c0 nodad")
    lab.client.sh("ethtool -K eth0 tx on gro on gso on tso on")


def _serve_by_a_card(lab: Lab, pod: Pod, address: str) -> None:
    """Clients are served, and go on being served when VPP is killed; then the node is as it was."""
    pod.control("--cards", "--interface=s1", "--interface=s2")
    nat = [{"address": source, "port_first": 16384, "port_last": 28671} for source in ("10.77.1.1", "fd77:1::1")]
    assert not pod.apply(vip(lab, address), nat_sources=nat).errors
    assert {get(lab, address) for _ in range(24)} == {b"s1", b"s2"}
    assert address not in lab.balancer.sh("ip route show table all\nip -6 route show table all")  # not the kernel's
    with HttpConnection(lab, address) as connection:
        assert len(connection.get("/bytes/1000000")) == 1_000_000
        os.kill(pod.vpp_process(), signal.SIGKILL)
        assert connection.get("/") in (b"s1", b"s2")
    pod.ask(Method.WITHDRAW)
    assert "penstock" not in lab.balancer.sh("nft list tables\nip -o link")


@BOTH
def test_clients_come_by_a_card_of_vpps_own(lab: Lab, idle: Pod, card: str, address: str) -> None:
    idle.options += ["--node-name=lb-1", f"--card={card}"]
    before = lab.balancer.sh("ethtool -k c0")
    idle.prepare()
    idle.start()
    _serve_by_a_card(lab, idle, address)
    assert lab.balancer.sh("ethtool -k c0") == before
    assert list(idle.shm.iterdir()) == []


@BOTH
def test_clients_come_by_a_card_with_xdp(lab: Lab, idle: Pod, card: str, address: str) -> None:
    if not (vpp.plugins_of_vpp() / "af_xdp_plugin.so").exists():
        pytest.skip(f"VPP in {vpp.prefix()} was built without its plugin af_xdp")
    card = json.dumps(json.loads(card) | {"type": "AfXdp"})
    (program,) = vpp.build_directory().rglob("to_vpp.bpf.o")
    idle.options += ["--node-name=lb-1", f"--card={card}", f"--xdp-program={program}"]
    idle.prepare()
    idle.start("net_raw,+ipc_lock,+net_admin,+bpf")
    _serve_by_a_card(lab, idle, address)
    assert "xdp" not in lab.balancer.sh("ip -o link show dev c0")


def test_a_card_that_vpp_has_not_taken_is_told(lab: Lab, idle: Pod, card: str) -> None:
    idle.options += ["--node-name=lb-1", f"--card={card}"]
    idle.prepare()
    idle.start()
    idle.control("--cards", "--interface=s1", "--interface=s2")
    idle.ctl("delete host-interface name c0")
    with pytest.raises(client.ControlError, match="c0: VPP has not taken this card"):
        idle.ask(Method.HELLO)
    idle.ask(Method.WITHDRAW)


def test_the_card_of_the_default_route_is_not_taken(lab: Lab, idle: Pod, card: str) -> None:
    lab.balancer.sh("ip route add default via 10.77.1.2")
    mine = json.dumps(json.loads(card) | {"name": "s1"})
    program = idle.popen("net_admin", "prepare", *idle.options, "--node-name=lb-1", f"--card={mine}")
    assert program.wait(20) == 1
    assert "s1 has the node's default route" in idle.log()
    assert "penstock" not in lab.balancer.sh("nft list tables\nip -o link")
    lab.balancer.sh("ip route del default")


def test_an_unfit_node_is_told_and_left_alone(lab: Lab, idle: Pod) -> None:
    program = idle.popen("net_admin", "prepare", *idle.options, "--workers=16")
    assert program.wait(20) == 1
    assert "processors" in idle.log()
    assert "penstock" not in lab.balancer.sh("ip -o link")
