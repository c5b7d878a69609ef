"""Packet threads read, write and wait, and ask nothing else of the kernel, whatever the packets are.

A system call is where allocation, a lock that is taken, a log line and a clock that is not shared memory end up. What
the core calls in user space, tests/core/test_no_calls.c watches.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.clients import HttpConnection, get, udp_socket
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, RunningDataplane, running_dataplane, vip
from tests.support.lab import HTTP_PORT, UDP_PORT, Lab, take_out_of_gre
from tests.support.lab import lab as build_lab

pytestmark = pytest.mark.netns

CALL = re.compile(r"(\w+)\((?:\d+<([^>]+)>)?")
TUN, EVENT = "/dev/net/tun", "anon_inode:[eventfd]"
ALONE = {("read", TUN), ("preadv2", TUN), ("write", TUN), ("rt_sigreturn", "")}
# Several are woken by each other, and wait for either.
SHARED = {("read", TUN), ("write", TUN), ("write", EVENT), ("read", EVENT), ("poll", "")}
# What the kernel itself goes on with after the tracer has come in between.
TRACED = {("restart_syscall", "")}
GRE = "203.0.113.11"


def packet_threads(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(task.name) for task in tasks if (task / "comm").read_text().startswith("packets-")]


@contextmanager
def traced(lab: Lab, thread: int, into: Path) -> Iterator[None]:
    """Have the calls of this thread, and of no other, written down."""
    command = ["strace", "-y", "-s", "0", "-e", "signal=none", "-o", str(into), "-p", str(thread)]
    tracer = lab.balancer.popen(command, stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    try:
        yield
    finally:
        tracer.terminate()
        tracer.stderr.read()


def calls(lines: str) -> Counter[tuple[str, str]]:
    """Count calls by name and what their descriptor stands for."""
    found = (CALL.match(line) for line in lines.splitlines())
    return Counter((match[1], match[2] or "") for match in found if match)


def traffic(lab: Lab, running: RunningDataplane) -> None:
    """Of every kind, answered, refused and dropped; also while VIPs change."""
    for address in (VIP_IPV4, VIP_IPV6):
        for _ in range(8):
            get(lab, address, "/last")
        with HttpConnection(lab, address) as connection:
            assert len(connection.get("/bytes/1000000")) == 1_000_000
            assert connection.post(b"x" * 1_000_000) == b"1000000"
        with udp_socket(lab, address, 53, timeout=0.2) as datagrams, suppress(TimeoutError):
            datagrams.send(b"one")
            datagrams.recv(2048)
            datagrams.send(bytes(6144))  # in fragments
            datagrams.recv(65535)
        with pytest.raises(ConnectionRefusedError):
            get(lab, address, port=81)
        lab.client.shell(f"ping -c 1 -W 1 {address}")
    with HttpConnection(lab, GRE, HTTP_PORT) as connection:
        assert connection.post(b"x" * 200_000) == b"200000"


def apply(lab: Lab, running: RunningDataplane, drain: str) -> None:
    udp = [{"id": s.name, "address": s.ipv4, "port": UDP_PORT} for s in lab.servers]
    udp6 = [{"id": s.name, "address": s.ipv6, "port": UDP_PORT} for s in lab.servers]
    vips = [
        vip(lab, features="full"),
        vip(lab, VIP_IPV6, features="full", scheduler={"type": "maglev"}),
        vip(lab, port=53, protocol="UDP", backends=udp),
        vip(lab, VIP_IPV6, port=53, protocol="UDP", backends=udp6),
        vip(lab, GRE, HTTP_PORT, forwarding="GRE"),
    ]
    for each in vips:
        each["backends"] = [b | {"state": "draining"} if b["id"] == drain else b for b in each["backends"]]
    running.apply(*vips)


@pytest.mark.parametrize("queues", [1, 3])
def test_packet_threads_only_read_write_and_wait(queues: int, tmp_path: Path) -> None:
    with build_lab("pn-calls", 2) as lab, running_dataplane(lab, queues=queues) as running:
        for server in lab.servers:
            take_out_of_gre(server, [GRE])
        apply(lab, running, drain="none")
        thread = packet_threads(running.child())[0]
        with traced(lab, thread, tmp_path / "calls"):
            traffic(lab, running)
            apply(lab, running, drain="s1")
            traffic(lab, running)
        found = calls((tmp_path / "calls").read_text())
        assert found[("write", TUN)] > 100, found
        assert set(found) - TRACED <= (ALONE if queues == 1 else SHARED), found
        running.withdraw()
