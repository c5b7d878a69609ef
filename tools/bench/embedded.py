"""Speed of the embedded data plane beside nft DNAT, side by side in one run on one processor.

Laboratories of the same build (client, balancer, server, each in a namespace): in one the kernel translates, in the
others the balancer runs the data plane, with basic features and with full ones, each with NAT and with GRE. Each is
measured in turn with the kernel's, so that whatever else the machine does meets both; what counts is the median of the
rounds' ratios, and the absolute figures of both stand beside it. Where the server's kernel has no GRE, a program stands
in, which costs more than the kernel's device.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from tests.support.dataplane import VIP_IPV4, running_dataplane, vip
from tests.support.lab import Lab, lab
from tests.support.netns import Namespace
from tools.bench import embedded_alone
from tools.bench.figures import Figure
from tools.compiled import compiled

PROGRAM = Path("build/bench/traffic")
DECAP = Path("build/bench/decap")
ROUNDS = 9
SECONDS = 0.4
PORT = 9000
PORTS = 16  # servers behind the VIP: NAT ports of closed connections are held for a while
VIP_PORT = 80
FULL = 0.9  # of what basic must reach

NFT = f"""
table ip bench {{
    chain before {{
        type nat hook prerouting priority dstnat
        ip daddr {VIP_IPV4} udp dport 80 dnat to 10.77.1.2:{PORT}
        ip daddr {VIP_IPV4} tcp dport 80 dnat to 10.77.1.2:{PORT}
    }}
    chain after {{
        type nat hook postrouting priority srcnat
        ip saddr 10.77.0.2 snat to 10.77.1.1
    }}
}}
"""


@dataclass(frozen=True)
class Bar:
    """One figure: how it is measured and what it must be, as a ratio to nft."""

    name: str
    mode: str  # of the traffic program
    bound: float
    at_least: bool
    unit: str = "ratio to nft DNAT"

    def met(self, value: float) -> bool:
        """Tell whether the value holds."""
        return value >= self.bound if self.at_least else value <= self.bound


BARS = (
    Bar("udp_64_bytes", "udp", 0.50, at_least=True),
    Bar("tcp_bulk", "bulk", 0.55, at_least=True),
    Bar("connections", "connect", 0.70, at_least=True),
    Bar("ping_pong_p50", "ping", 1.75, at_least=False),
)
# A super-packet in a tunnel is cut into segments by the data plane itself.
GRE_BARS = (Bar("udp_64_bytes", "udp", 0.50, at_least=True), Bar("tcp_bulk", "bulk", 0.06, at_least=True))


# A program that takes packets out of GRE costs the server more than a device of the kernel, for which the bars are.
WITH_STAND_IN = "ratio to nft, no GRE device"


def of_full(bars: tuple[Bar, ...]) -> tuple[Bar, ...]:
    """Return what these bars are at feature level full."""
    return tuple(replace(bar, bound=round(bar.bound * FULL if bar.at_least else bar.bound / FULL, 3)) for bar in bars)


Run = Callable[[str, float], float]


# What the traffic program prints of each mode.
UNITS = {"udp": "packets/s", "bulk": "Gb/s", "connect": "connections/s", "ping": "us"}


def main() -> int:
    """Measure everything, print a line of JSON per figure."""
    pinned = ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
    if subprocess.run(["chrt", "-f", "1", "true"], capture_output=True, check=False).returncode == 0:
        # Whatever else runs on this machine would be scheduled in between, more often where a path has more threads.
        pinned = ["chrt", "-f", "1", *pinned]
    for figure in chain(measure(pinned), embedded_alone.measure(pinned)):
        print(json.dumps(asdict(figure)), flush=True)
    return 0


def measure(pinned: list[str], rounds: int = ROUNDS, seconds: float = SECONDS) -> Iterator[Figure]:
    """Return the ratio of each figure, the median of so many rounds, and the absolute figures that it comes from."""
    _build()
    gre_bars = GRE_BARS if knows_gre() else tuple(replace(bar, unit=WITH_STAND_IN) for bar in GRE_BARS)
    variants: tuple[tuple[str, AbstractContextManager[Run], tuple[Bar, ...]], ...] = (
        ("embedded", nat_path(pinned, "basic"), BARS),
        ("embedded_full", nat_path(pinned, "full"), of_full(BARS)),
        ("embedded_gre", gre_path(pinned, "basic"), gre_bars),
        ("embedded_gre_full", gre_path(pinned, "full"), of_full(gre_bars)),
    )
    with kernel_path(pinned) as kernel:
        for prefix, path, bars in variants:
            with path as penstock:
                for bar in bars:
                    yield from _compare(replace(bar, name=f"{prefix}.{bar.name}"), kernel, penstock, rounds, seconds)


@contextmanager
def kernel_path(pinned: list[str]) -> Iterator[Run]:
    """A laboratory whose balancer translates by nft."""
    with lab("bench-nft", 1, start_servers=False) as built:
        built.balancer.shell(f"nft -f - <<'END'\n{NFT}\nEND")
        # As short as ours in this benchmark: else the connection table fills up and is what is measured.
        built.balancer.sh("sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_time_wait=1")
        yield _traffic(built, pinned, VIP_PORT)


@contextmanager
def nat_path(pinned: list[str], features: str) -> Iterator[Run]:
    """A laboratory whose balancer runs the data plane and translates."""
    with (
        lab("bench-emb", 1, start_servers=False) as built,
        running_dataplane(built, prefix=pinned, flow_table_size=65_536) as dataplane,
    ):
        address = built.servers[0].ipv4
        streams = [{"id": f"s{n}", "address": address, "port": PORT + n} for n in range(PORTS)]
        datagrams = [{"id": "s", "address": address, "port": PORT}]
        dataplane.apply(
            vip(built, backends=streams, timeouts={"tcp_closing": 1}, features=features),
            vip(built, protocol="UDP", backends=datagrams, features=features),
        )
        yield _traffic(built, pinned, VIP_PORT)
        dataplane.withdraw()


def knows_gre() -> bool:
    """Tell whether the kernel can make a GRE device."""
    with Namespace("bench-gre") as namespace:
        try:
            namespace.sh("ip link add tunnel type gre local 127.0.0.1")
        except RuntimeError:
            return False
        return True


@contextmanager
def gre_path(pinned: list[str], features: str) -> Iterator[Run]:
    """A laboratory whose balancer runs the data plane; the server takes packets out of GRE and answers."""
    by_kernel = knows_gre()
    if not by_kernel:
        print("the server has no GRE device: a program of ours takes packets out of it", file=sys.stderr)
    with (
        lab("bench-gre", 1, start_servers=False) as built,
        running_dataplane(built, prefix=pinned, flow_table_size=65_536) as dataplane,
    ):
        server = built.servers[0]
        make = f"link add tunnel type gre local {server.ipv4}" if by_kernel else "tuntap add dev tunnel mode tun"
        server.namespace.sh(
            f"""ip {make}
            ip link set tunnel up
            ip address add {VIP_IPV4}/32 dev lo
            sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunnel.rp_filter=0"""
        )
        if not by_kernel:
            _ready(server.namespace, [*pinned, str(DECAP), "tunnel"])
        backends = [{"id": "s", "address": server.ipv4, "port": PORT}]
        one_way: dict[str, Any] = {"backends": backends, "forwarding": "GRE", "features": features}
        dataplane.apply(*(vip(built, port=PORT, protocol=protocol, **one_way) for protocol in ("TCP", "UDP")))
        yield _traffic(built, pinned, PORT, VIP_IPV4)
        dataplane.withdraw()


def _ready(namespace: Namespace, command: list[str]) -> None:
    """Start a server and wait until it says that it works."""
    server = namespace.popen(command, stdout=-1)
    assert server.stdout is not None
    if not server.stdout.readline():
        raise RuntimeError(f"{' '.join(command)} ended with {server.wait()}")


def _traffic(built: Lab, pinned: list[str], port: int, bound: str = "0.0.0.0") -> Run:
    _ready(built.servers[0].namespace, [*pinned, str(PROGRAM), "serve", bound, str(PORT), str(PORTS)])
    # The client closes first: its ports must come back faster than it uses them up.
    built.client.sh("sysctl -qw net.ipv4.tcp_tw_reuse=1")
    built.client.shell("echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range")

    def run(mode: str, seconds: float) -> float:
        command = [*pinned, str(PROGRAM), mode, VIP_IPV4, str(port), str(seconds)]
        done = built.client.run(subprocess.run, command, capture_output=True, text=True, timeout=seconds + 30)
        if done.returncode != 0:
            raise RuntimeError(f"{mode}: {done.stderr}")
        return float(done.stdout)

    return run


def _compare(bar: Bar, kernel: Run, penstock: Run, rounds: int, seconds: float) -> Iterator[Figure]:
    for run in (kernel, penstock):
        run(bar.mode, 0.2)  # caches, neighbours, connection tables
    pairs = [(kernel(bar.mode, seconds), penstock(bar.mode, seconds)) for _ in range(rounds)]
    ratios = [round(ours / theirs, 3) for theirs, ours in pairs]
    value = statistics.median(ratios)
    yield Figure(bar.name, value, bar.unit, bar.bound, bar.met(value), ratios)
    for side, column in zip(
        ("penstock", "nft"), zip(*((ours, theirs) for theirs, ours in pairs), strict=True), strict=True
    ):
        yield Figure(f"{bar.name}.{side}", statistics.median(column), UNITS[bar.mode], runs=list(column))


def _build() -> None:
    for program in (PROGRAM, DECAP):
        compiled(Path(__file__).with_name(f"{program.name}.c"), program)


if __name__ == "__main__":
    sys.exit(main())
