"""Storms of connections and SYNs in a laboratory, by a program in C that is compiled where it is first used."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.dataplane import VIP_IPV4
from tests.support.lab import Lab
from tools.compiled import compiled

SOURCE = Path(__file__).with_name("storm.c")
PROGRAM = Path(__file__).parents[2] / "build/tests/storm"
PORT = 9100
CROWD_PORTS = 11_000  # and up: the client's, for connections that are kept


@dataclass(frozen=True)
class Storm:
    """How new connections went that servers closed."""

    ended: int
    failed: int  # refused, reset or silent
    again: int  # with something sent again
    slow: int  # with a slow handshake, though nothing was sent again
    good: int  # none of these
    stalled: int  # for more than 200 ms
    longest_ms: float
    handshake_ms: float  # mean
    seconds: float


@dataclass(frozen=True)
class Flood:
    """How many SYNs were sent, and of how many the SYN-ACK was seen."""

    sent: int
    answered: int
    seconds: float


def program() -> str:
    """Return the program's path."""
    return str(compiled(SOURCE, PROGRAM, "-Wconversion", "-Wshadow"))


def serve(lab: Lab, ports: int, prefix: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Start servers on so many ports of each of the laboratory's servers; return them as backends."""
    for server in lab.servers:
        # Floods are answered from the kernel's memory of nothing.
        server.namespace.sh("sysctl -qw net.ipv4.tcp_syncookies=2 net.core.somaxconn=4096")
        command = [*prefix, program(), "serve", server.name[-1], str(PORT), str(ports)]
        _ready(server.namespace.popen(command, stdout=subprocess.PIPE))
    lab.client.shell("echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range")
    return [
        {"id": f"{server.name}-{number}", "address": server.ipv4, "port": PORT + number}
        for server in lab.servers
        for number in range(ports)
    ]


class Crowd:
    """Established connections that are kept, by several processes: one may have only so many files."""

    def __init__(self, lab: Lab, count: int, processes: int = 5) -> None:
        lab.client.shell(f"echo 1024 {CROWD_PORTS - 1} > /proc/sys/net/ipv4/ip_local_port_range")  # for others
        each = count // processes
        self._programs = []
        for first in range(CROWD_PORTS, CROWD_PORTS + count, each):
            command = [program(), "hold", VIP_IPV4, "80", str(each), str(first)]
            self._programs.append(lab.client.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        self.held = self._answers()["held"]

    def ask(self) -> dict[str, int]:
        """Ask on all of them; return how many were answered by another server, and how many not at all."""
        for program in self._programs:
            assert program.stdin is not None
            program.stdin.write("\n")
            program.stdin.flush()
        return self._answers()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._programs:
            program.kill()

    def _answers(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for program in self._programs:
            assert program.stdout is not None
            total.update(json.loads(program.stdout.readline()))
        return dict(total)


def connections(lab: Lab, count: int, rate: float, prompt_ms: float = 0, prefix: tuple[str, ...] = ()) -> Storm:
    """Open so many connections one after the other, at most `rate` a second; servers close them."""
    command = [*prefix, program(), "new", VIP_IPV4, "80", str(count), str(rate), str(prompt_ms)]
    running = lab.client.popen(command, stdout=subprocess.PIPE)
    assert running.stdout is not None
    return Storm(**json.loads(running.stdout.read()))


class Flooding:
    """A flood of SYNs that goes on until it is ended, or for so long."""

    def __init__(self, lab: Lab, seconds: float = 60) -> None:
        command = [program(), "flood", VIP_IPV4, "80", gateway(lab), str(seconds)]
        self._program = lab.client.popen(command, stdout=subprocess.PIPE)

    def end(self) -> Flood:
        """End it."""
        assert self._program.poll() is None
        assert self._program.stdout is not None
        self._program.terminate()
        return Flood(**json.loads(self._program.stdout.read()))


@contextmanager
def longer_way(lab: Lab, milliseconds: float) -> Iterator[None]:
    """Delay what the client sends to the VIP."""
    command = [program(), "delay", "longer", gateway(lab), str(milliseconds)]
    running = lab.client.popen(command, stdout=subprocess.PIPE)
    _ready(running)
    lab.client.sh(
        f"""sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0
        ip link set longer up
        ip route add {VIP_IPV4} dev longer src {lab.client_ipv4}"""
    )
    try:
        yield
    finally:
        running.kill()  # the device and its route go with it


def gateway(lab: Lab) -> str:
    """Return the balancer's MAC address towards the client."""
    address: str = json.loads(lab.balancer.sh("ip -j link show c0"))[0]["address"]
    return address


def _ready(running: subprocess.Popen[Any]) -> None:
    assert running.stdout is not None
    if running.stdout.readline() != "ready\n":
        raise RuntimeError(f"{running.args!r} ended with {running.wait()}")
