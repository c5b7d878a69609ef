"""Real clients and servers on a wire: what the core makes of their packets is what the reference makes of them."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import penstock_core
import pytest

from tests.support.clients import Background, HttpConnection, get
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, running_dataplane, vip
from tests.support.feature_reference import Features, Seen
from tests.support.feature_rig import Rig
from tests.support.lab import HTTP_PORT, Lab, eventually
from tests.support.lab import lab as build_lab
from tests.support.wire import Wire

pytestmark = pytest.mark.netns

LOSS = "numgen random mod 25 == 0 drop"
FAST_OPEN = 0x607  # both ends, without cookies, for every listener


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A client and one server with the balancer's kernel in between: nothing is balanced."""
    with build_lab("pn-cap", 1) as built:
        for namespace in (built.client, built.servers[0].namespace):
            namespace.sh(f"sysctl -qw net.ipv4.tcp_fastopen={FAST_OPEN}")
        yield built


def ask_on_new_connections(lab: Lab, address: str) -> None:
    for _ in range(10):
        get(lab, address, port=HTTP_PORT)


def ask_again_and_again(lab: Lab, address: str) -> None:
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        for size in (1, 700, 1400, 5000, 20000) * 3:
            assert len(connection.get(f"/bytes/{size}")) == size


def wait_for_slow_answers(lab: Lab, address: str) -> None:
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        for seconds in (0.05, 0.0, 0.1):
            connection.get(f"/slow/{seconds}")


def fetch_and_send_much(lab: Lab, address: str) -> None:
    size = 3_000_000
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        assert len(connection.get(f"/bytes/{size}")) == size
        assert connection.post(b"x" * size) == str(size).encode()


def in_single_segments(lab: Lab, address: str) -> None:
    """Neither end makes super-packets."""
    ends = (lab.client, lab.servers[0].namespace)
    for end in ends:
        end.sh("ip link set eth0 gso_max_segs 1")
    try:
        with HttpConnection(lab, address, HTTP_PORT) as connection:
            assert len(connection.get("/bytes/200000")) == 200_000
            connection.post(b"x" * 200_000)
    finally:
        for end in ends:
            end.sh("ip link set eth0 gso_max_segs 65535")


def over_a_wire_that_loses(lab: Lab, address: str) -> None:
    """Of the client's packets before they are captured and after, of the server's after."""
    places = {lab.balancer: "forward", lab.servers[0].namespace: "input"}
    for namespace, hook in places.items():
        namespace.shell(
            f"nft add table inet loss; nft add chain inet loss {hook} '{{ type filter hook {hook} priority 0; }}';"
            f"nft add rule inet loss {hook} {LOSS}"
        )
    try:
        in_single_segments(lab, address)
        for _ in range(5):
            get(lab, address, port=HTTP_PORT, timeout=20)
    finally:
        for namespace in places:
            namespace.sh("nft delete table inet loss")
    time.sleep(1.0)  # what was lost last is sent again


def reset_in_the_middle(lab: Lab, address: str) -> None:
    for _ in range(3):
        with HttpConnection(lab, address, HTTP_PORT) as connection:
            connection.socket.sendall(b"GET /bytes/3000000 HTTP/1.1\r\n\r\n")
            connection.socket.recv(1000)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def close_one_side_first(lab: Lab, address: str) -> None:
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        connection.socket.sendall(b"GET /slow/0.1 HTTP/1.1\r\n\r\n")
        connection.socket.shutdown(socket.SHUT_WR)
        while connection.socket.recv(1000):
            pass


def let_the_server_wait(lab: Lab, address: str) -> None:
    """The window shrinks to nothing and opens again."""
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.socket.sendall(b"GET /bytes/300000 HTTP/1.1\r\n\r\n")
        time.sleep(0.5)
        left = 300_000
        while left > 0:
            left -= len(connection.socket.recv(65536))


def idle_with_keep_alives(lab: Lab, address: str) -> None:
    with HttpConnection(lab, address, HTTP_PORT) as connection:
        for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1)):
            connection.socket.setsockopt(socket.IPPROTO_TCP, option, value)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.get()
        time.sleep(2.5)
        connection.get()


def with_data_in_the_syn(lab: Lab, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(3):
        with lab.client.run(socket.socket, family, socket.SOCK_STREAM) as connection:
            connection.sendto(b"GET / HTTP/1.1\r\n\r\n", socket.MSG_FASTOPEN, (address, HTTP_PORT))
            assert b"200 OK" in connection.recv(1000)


def without_options(lab: Lab, address: str) -> None:
    """Neither timestamps nor scaled windows."""
    for name in ("tcp_timestamps", "tcp_window_scaling"):
        lab.client.sh(f"sysctl -qw net.ipv4.{name}=0")
    try:
        ask_again_and_again(lab, address)
    finally:
        for name in ("tcp_timestamps", "tcp_window_scaling"):
            lab.client.sh(f"sysctl -qw net.ipv4.{name}=1")


def refused(lab: Lab, address: str) -> None:
    """A listener whose queue nobody empties is no listener: the server resets."""
    lab.servers[0].namespace.shell(
        f"nft add table inet closed; nft add chain inet closed input '{{ type filter hook input priority 0; }}';"
        f"nft add rule inet closed input tcp dport {HTTP_PORT} reject with tcp reset"
    )
    try:
        for _ in range(3):
            with suppress(ConnectionRefusedError):
                get(lab, address, port=HTTP_PORT)
    finally:
        lab.servers[0].namespace.sh("nft delete table inet closed")


SCENES: dict[Callable[[Lab, str], None], dict[str, int]] = {  # with the least that their counters must be
    ask_on_new_connections: {"n_flow": 10, "n_fct": 10},
    ask_again_and_again: {"n_flow": 1, "n_packet": 17},
    wait_for_slow_answers: {"n_flow": 1},
    fetch_and_send_much: {"n_packet": 2000},
    in_single_segments: {"n_packet": 137},
    over_a_wire_that_loses: {"n_rtr": 1, "n_ooo": 1},
    reset_in_the_middle: {"n_flow": 3},
    close_one_side_first: {"n_fct": 1},
    let_the_server_wait: {"n_packet": 10},
    idle_with_keep_alives: {"n_packet": 8},
    with_data_in_the_syn: {"n_flow": 3, "n_fct": 3},
    without_options: {"n_flow": 1},
    refused: {"n_flow": 3},
}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_core_and_reference_agree_on_captures(
    lab: Lab, scene: Callable[[Lab, str], None], family: int, tmp_path: Path
) -> None:
    server = lab.servers[0]
    address = server.ipv4 if family == 4 else server.ipv6
    with Wire(lab.balancer, "s1") as wire:  # the kernel's forwarding is the only load balancer
        scene(lab, address)
        time.sleep(0.1)  # last acknowledgements
    capture = wire.seen(HTTP_PORT)
    for one_way in (False, True):
        rig = Rig(tmp_path / f"frames-{one_way}", address, HTTP_PORT, one_way=one_way)
        rig.see(capture)
        rig.assert_equal()
        if not one_way:
            counters = rig.counters()
            least = SCENES[scene]
            assert all(counters[name] >= value for name, value in least.items()), (counters, least)
            assert counters["n_active"] == 0


@pytest.mark.parametrize("address", [VIP_IPV4, VIP_IPV6])
def test_the_data_plane_counts_what_is_on_the_wire(lab: Lab, address: str) -> None:
    """Through TUN, offloads and threads: frames hold what the reference finds in a capture of the client's side."""
    with running_dataplane(lab) as dataplane:
        dataplane.apply(vip(lab, address, features="full"))
        frames = next(status.frames for status in dataplane.dump().vips)
        reader = penstock_core.FrameReader(str(dataplane.settings.shm_dir / frames.lstrip("/")))
        with Wire(lab.client) as wire:
            transfers = [Background(lambda: len(get(lab, address, "/bytes/1000000"))) for _ in range(4)]
            with HttpConnection(lab, address) as connection:
                for path in ("/", "/slow/0.05", "/bytes/40000") * 3:
                    connection.get(path)
                connection.post(b"x" * 500_000)
            assert [transfer.result() for transfer in transfers] == [1_000_000] * 4
            time.sleep(0.3)
        expected = reference(wire.seen(80))
        wanted = dict(expected.counters)
        eventually(lambda: reader.read().counters["packets"][0] == wanted["packets"])
        time.sleep(0.3)  # a frame later
        counters = {name: int(values[0]) for name, values in reader.read().counters.items()}
        assert counters == {name: expected.counters[name] for name in counters}
        for channel in penstock_core.CHANNELS:
            assert reader.samples(channel.name)[3][0, 0] == len(expected.samples[channel.name]), channel.name
        dataplane.withdraw()


def reference(capture: list[Seen]) -> Features:
    """What the reference finds in a capture."""
    found = Features()
    for seen in capture:
        found.see(seen)
    return found
