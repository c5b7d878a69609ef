"""Scenes that real clients and servers play: what happens to connections, for capturing it on the wire between them."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from scapy.layers.dns import DNS, DNSQR, DNSRR

from tests.support.clients import HttpConnection, get, udp_socket
from tests.support.detour import Detour
from tests.support.feature_reference import Seen
from tests.support.lab import HTTP_PORT, UDP_PORT, Lab, eventually
from tests.support.lab import lab as build_lab
from tests.support.wire import Wire

LOSS = "numgen inc mod 25 == 7 drop"
FAST_OPEN = 0x607  # both ends, without cookies, for every listener
PLAIN_PORT, DNS_PORT = 8090, 53  # of servers that a scene brings along
TCP, UDP = 6, 17
_TCP_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ, _TIMESTAMP = 19, 20, 21, 24  # linux/tcp.h
_SEND_QUEUE, _REPAIR_OFF_NO_PROBE = 2, -1


@dataclass(frozen=True)
class Scene:
    """What a client and a server do, and the least that it must come to: a scene that fails to happen shows nothing."""

    play: Callable[[Lab, str], None]
    least: dict[str, int] = field(default_factory=dict)  # of counters
    port: int = HTTP_PORT
    protocol: int = TCP

    @property
    def name(self) -> str:
        """Name of the scene."""
        return self.play.__name__

    def address(self, lab: Lab, family: int) -> str:
        """The server's."""
        return lab.servers[0].ipv4 if family == 4 else lab.servers[0].ipv6

    def capture(self, lab: Lab, family: int) -> list[Seen]:
        """Play it; the kernel's forwarding is the only load balancer."""
        with Wire(lab.balancer, "s1") as wire:
            self.play(lab, self.address(lab, family))
            time.sleep(0.1)  # last acknowledgements
        return wire.seen(self.port, self.protocol)


@contextmanager
def stage(prefix: str) -> Iterator[Lab]:
    """A client and one server with the balancer's kernel in between: nothing is balanced."""
    with build_lab(prefix, 1) as built:
        for namespace in (built.client, built.servers[0].namespace):
            namespace.sh(f"sysctl -qw net.ipv4.tcp_fastopen={FAST_OPEN}")
        yield built


@contextmanager
def listener(lab: Lab, address: str) -> Iterator[socket.socket]:
    """A server whose end of each connection the scene plays too."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.servers[0].namespace.run(socket.create_server, (address, PLAIN_PORT), family=family) as listening:
        yield listening


@contextmanager
def both_ends(lab: Lab, address: str, listening: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """An open connection: the client's end and the server's."""
    with lab.client.run(socket.create_connection, (address, PLAIN_PORT), 10) as client, listening.accept()[0] as server:
        server.settimeout(10)
        yield client, server


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
    eventually(lambda: not _open_connections(lab))  # what was lost last is sent again


def _open_connections(lab: Lab) -> list[str]:
    listed = [line for end in (lab.client, lab.servers[0].namespace) for line in end.sh("ss -Htan").splitlines()]
    return [line for line in listed if line.split()[0] not in {"LISTEN", "TIME-WAIT"}]


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


def overtaken_on_the_way(lab: Lab, address: str) -> None:
    """Nothing is lost, but a fifth of what either end sends is late and is overtaken."""
    draw = random.Random(1)
    ends = ((lab.client, address), (lab.servers[0].namespace, lab.client_ipv6 if ":" in address else lab.client_ipv4))
    with ExitStack() as stack:
        for namespace, destination in ends:
            stack.enter_context(Detour(namespace, destination, lambda: 0.01 if draw.random() < 0.2 else 0.002))
        with HttpConnection(lab, address, HTTP_PORT) as connection:
            assert len(connection.get("/bytes/60000")) == 60_000
            connection.post(b"x" * 60_000)
            for _ in range(5):
                connection.get()
        time.sleep(0.1)


def both_close_at_once(lab: Lab, address: str) -> None:
    """The client's FIN is still on its way when the server sends its own."""
    with listener(lab, address) as listening, Detour(lab.client, address, lambda: 0.03):
        for _ in range(3):
            with both_ends(lab, address, listening) as (client, server):
                client.sendall(b"question")
                server.sendall(server.recv(100))
                assert client.recv(100) == b"question"
                time.sleep(0.1)
                for end in (client, server):
                    end.shutdown(socket.SHUT_WR)
                assert client.recv(1) == server.recv(1) == b""
        time.sleep(0.1)


def never_open(lab: Lab, address: str) -> None:
    """First the server hears nothing, then the client does not hear its answers."""
    rules = {lab.servers[0].namespace: f"tcp dport {HTTP_PORT}", lab.client: f"tcp sport {HTTP_PORT}"}
    for namespace, packets in rules.items():
        namespace.shell(
            f"nft add table inet deaf; nft add chain inet deaf input '{{ type filter hook input priority 0; }}';"
            f"nft add rule inet deaf input {packets} drop"
        )
        try:
            with suppress(TimeoutError):
                get(lab, address, port=HTTP_PORT, timeout=1.5)  # its SYN is sent again after 1 s
        finally:
            namespace.sh("nft delete table inet deaf")


def left_half_open(lab: Lab, address: str) -> None:
    """The client is gone without a word, and answers what the server says with a reset."""
    with listener(lab, address) as listening, both_ends(lab, address, listening) as (client, server):
        client.sendall(b"question")
        server.recv(100)
        client.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        client.close()  # of a connection under repair nobody is told
        time.sleep(0.1)
        server.sendall(b"answer")
        with suppress(ConnectionResetError):
            server.recv(100)


def numbers_begin_again(lab: Lab, address: str) -> None:
    """The client's sequence numbers and timestamps reach 2^32 and go on from 0."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.client.run(socket.socket, family, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        with under_repair(client):
            client.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, _SEND_QUEUE)
            client.setsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ, struct.pack("=I", 2**32 - 20_000))
        client.connect((address, HTTP_PORT))
        (now,) = struct.unpack("=I", client.getsockopt(socket.IPPROTO_TCP, _TIMESTAMP, 4))
        end = 2**32 - 50  # ms
        for later in ((now + end) // 2, end, None):  # in two steps: no timestamp may be 2^31 later than the last
            client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 15000\r\n\r\n" + b"x" * 15_000)
            assert client.recv(1000).endswith(b"15000")
            if later is not None:
                with under_repair(client):
                    client.setsockopt(socket.IPPROTO_TCP, _TIMESTAMP, struct.pack("=I", later))
        time.sleep(0.1)
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"200 OK" in client.recv(1000)


@contextmanager
def under_repair(connection: socket.socket) -> Iterator[None]:
    """Lets numbers of a connection be set."""
    connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    yield
    connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _REPAIR_OFF_NO_PROBE)


def datagrams_there_and_back(lab: Lab, address: str) -> None:
    """Echoes: one exchange, then a stream with several on their way at a time."""
    with udp_socket(lab, address, UDP_PORT) as one:
        one.send(b"one")
        one.recv(100)
    with udp_socket(lab, address, UDP_PORT) as stream:
        for size in (10, 500, 1200) * 4:
            for _ in range(3):
                stream.send(b"x" * size)
            for _ in range(3):
                stream.recv(2000)


def names_asked_for(lab: Lab, address: str) -> None:
    """DNS: each question from a port of its own, two on one port, and one that is never answered."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.servers[0].namespace.run(socket.socket, family, socket.SOCK_DGRAM) as server:
        server.bind((address, DNS_PORT))
        thread = threading.Thread(target=_answer_names, args=(server,))
        thread.start()
        for _ in range(4):
            with udp_socket(lab, address, DNS_PORT) as resolver:
                _ask_for(resolver, b"www.example.org.")
        with udp_socket(lab, address, DNS_PORT) as resolver:
            for name in (b"a.example.org.", b"b.example.org."):
                _ask_for(resolver, name)
        with udp_socket(lab, address, DNS_PORT, timeout=0.2) as resolver, suppress(TimeoutError):
            _ask_for(resolver, b"silence.example.org.")
        with udp_socket(lab, address, DNS_PORT) as resolver:
            _ask_for(resolver, b"end.example.org.")
        thread.join(10)


def _ask_for(resolver: socket.socket, name: bytes) -> None:
    resolver.send(bytes(DNS(id=7, rd=1, qd=DNSQR(qname=name, qtype="AAAA"))))
    assert DNS(resolver.recv(1000)).ancount == 1


def _answer_names(server: socket.socket) -> None:
    name = b""
    while name != b"end.example.org.":
        data, client = server.recvfrom(1000)
        asked = DNS(data)
        name = asked.qd[0].qname
        if name != b"silence.example.org.":
            answer = DNSRR(rrname=name, type="AAAA", ttl=60, rdata="2001:db8::7")
            server.sendto(bytes(DNS(id=asked.id, qr=1, qd=asked.qd, an=answer)), client)


SCENES = [
    Scene(ask_on_new_connections, {"n_flow": 10, "n_fct": 10}),
    Scene(ask_again_and_again, {"n_flow": 1, "n_packet": 17}),
    Scene(wait_for_slow_answers, {"n_flow": 1}),
    Scene(fetch_and_send_much, {"n_packet": 2000}),
    Scene(in_single_segments, {"n_packet": 137}),
    Scene(over_a_wire_that_loses, {"n_rtr": 1, "n_ooo": 1}),
    Scene(overtaken_on_the_way, {"n_rtr": 1, "n_ooo": 1}),
    Scene(reset_in_the_middle, {"n_flow": 3}),
    Scene(close_one_side_first, {"n_fct": 1}),
    Scene(both_close_at_once, {"n_flow": 3, "n_fct": 3}, PLAIN_PORT),
    Scene(never_open, {"n_flow": 2, "n_rtr": 2}),
    Scene(left_half_open, {"n_flow": 1}, PLAIN_PORT),
    Scene(let_the_server_wait, {"n_packet": 10}),
    Scene(idle_with_keep_alives, {"n_packet": 8}),
    Scene(with_data_in_the_syn, {"n_flow": 3, "n_fct": 3}),
    Scene(without_options, {"n_flow": 1}),
    Scene(refused, {"n_flow": 3}),
    Scene(numbers_begin_again, {"n_flow": 1, "n_fct": 1}),
    Scene(datagrams_there_and_back, {"n_flow": 2, "n_packet": 37}, UDP_PORT, UDP),
    Scene(names_asked_for, {"n_flow": 7, "n_fct": 7}, DNS_PORT, UDP),
]
