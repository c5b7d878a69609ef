"""Clocks per packet of our node beside those of VPP's own `lb`, in one VPP, by turns.

One worker, VPP's packet generator, GRE over IPv4, TCP segments with 64 bytes of data and timestamps. `lb` without
features is the measure. Its VIP is one of all ports, which is its faster kind; both have room for twice the flows.
What counts is the median of the rounds' ratios. Every round sends the same segments again, so that ours count as
retransmissions, which takes no less work than new ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock_vpp.api import Api

from tests.support import vpp
from tests.support.vpp import VppProcess

ROUNDS = 9
PAIR_PACKETS = 1 << 20  # of one turn, but for new flows
CHUNK = 1 << 16  # flows of one /16, opened together: within the room for half-open ones
NEW_FLOWS = 1 << 17  # of one turn
FLOWS = 1 << 21  # room
SERVERS = 16
STOCK = "203.0.113.1"
LEVELS = {"off": "203.0.113.2", "basic": "203.0.113.3", "full": "203.0.113.4"}
STOCK_NODE, OUR_NODE = "lb4-gre4", "lb-rl-ip4"

STARTUP = """
unix {{ nodaemon runtime-dir {directory} cli-listen {directory}/cli.sock log {directory}/vpp.log }}
memory {{ main-heap-size 1G main-heap-page-size 4k }}
buffers {{ page-size 4k buffers-per-numa 16384 }}
api-segment {{ prefix {prefix} }}
socksvr {{ socket-name {directory}/api.sock }}
statseg {{ socket-name {directory}/stats.sock size 16M page-size 4k }}
cpu {{ main-core {first} corelist-workers {last} }}
plugins {{
    path {plugins}:{ours}
    plugin default {{ disable }}
    plugin lb_plugin.so {{ enable }}
    plugin lb_rl_plugin.so {{ enable }}
}}
lb-rl {{ directory {directory} flows {flows} vips 16 slots 1024 }}
"""

TIMEOUTS = {
    "tcp_handshake": 1_000,  # new flows make room for those of the next turn
    "tcp_established": 3_600_000,
    "tcp_closing": 10_000,
    "udp_unreplied": 10_000,
    "udp_exchange": 30_000,
    "udp_stream": 180_000,
    "udp_dns_answered": 1_000,
}


@dataclass(frozen=True)
class Case:
    """A number of flows, and what our levels may cost there as a ratio to `lb`; None: no bar."""

    name: str
    sources: str  # client addresses, a range of them
    flows: int
    bars: dict[str, float | None]


CASES = (
    Case("1_flow", "198.16.0.1", 1, {"basic": 1.25, "off": None}),
    Case("64k_flows", "198.16.0.0-198.16.255.255", CHUNK, {"basic": 1.1, "full": 2.0, "off": None}),
    Case("1m_flows", "198.16.0.0-198.31.255.255", 16 * CHUNK, {"basic": 0.6}),
)
NEW = Case("new_flows", "", NEW_FLOWS, {"basic": 1.0})


@dataclass(frozen=True)
class Result:
    """What is printed of one figure."""

    name: str
    value: float
    unit: str
    bar: float | None
    met: bool | None
    runs: list[float]


class Bench:
    """A VPP with both load balancers, and streams of packets through them."""

    def __init__(self, process: VppProcess) -> None:
        self._vpp = process

    def send(self, name: str, address: str, sources: str, packets: int, flags: str = "ACK PSH") -> None:
        """Send so many packets, each from the next client of the range, and wait until they are through."""
        opens = flags == "SYN"
        size = 40 if opens else 116
        sequence = "seqnum 1000" if opens else "seqnum 1001 acknum 1"
        data = f"TCP: {sources} -> {address} TCP: 4096 -> 80 {sequence} {flags}"
        options = "" if opens else "opt timestamp 1000 1000"
        stream = f"name {name} limit {packets} size {size}-{size} node ip4-input interface pg0 worker 0"
        self._vpp.quiet(f"packet-generator new {{ {stream} data {{ {data} {options} incrementing 64 }} }}")
        self._vpp.quiet(f"packet-generator enable-stream {name}")
        deadline = time.monotonic() + 60
        while re.search(rf"^{name}\s+Yes", self._vpp.ctl("show packet-generator"), re.MULTILINE):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name}: packets are not through after a minute")
            time.sleep(0.02)
        self._vpp.quiet(f"packet-generator delete {name}")

    def clocks(self, node: str, address: str, sources: str, packets: int, flags: str = "ACK PSH") -> float:
        """Send packets and return the clocks per packet that a node takes for them."""
        self._vpp.quiet("clear runtime")
        self.send("measured", address, sources, packets, flags)
        row = re.search(rf"^{node}\s+\S+\s+\d+\s+(\d+)\s+\d+\s+(\S+)\s", self._vpp.ctl("show runtime"), re.MULTILINE)
        if row is None or int(row[1]) != packets:
            raise RuntimeError(f"{node}: {packets} packets sent, seen: {row and row[1]}")
        return float(row[2])

    def flows(self) -> int:
        """Return how many flows our table holds."""
        found = re.search(r"^flows +(\d+)$", self._vpp.ctl("show lb rl stats").replace("\r", ""), re.MULTILINE)
        if found is None:
            raise RuntimeError("`show lb rl stats` shows no flows")
        return int(found[1])

    def forget_new(self, kept: int) -> None:
        """Make both load balancers forget the new flows of a turn."""
        self._vpp.ctl("test lb flowtable flush")
        deadline = time.monotonic() + 20
        while self.flows() > kept:
            if time.monotonic() > deadline:
                raise RuntimeError("new flows do not age")
            time.sleep(0.1)


def _start(command: list[str], **redirected: Any) -> subprocess.Popen[Any]:
    if subprocess.run(["chrt", "-f", "1", "true"], capture_output=True, check=False).returncode == 0:
        # Whatever else runs on this machine would be counted as the node's clocks.
        command = ["chrt", "-f", "1", *command]
    return subprocess.Popen(command, **redirected)


@contextmanager
def running() -> Iterator[VppProcess]:
    """A VPP on two processors, with both load balancers."""
    processors = sorted(os.sched_getaffinity(0))
    directory = Path(tempfile.mkdtemp(prefix="pn-bench-", dir="/dev/shm"))
    startup = STARTUP.format(
        directory=directory,
        prefix=directory.name,
        first=processors[0],
        last=processors[-1],
        plugins=vpp.plugins_of_vpp(),
        ours=vpp.plugin_directory(),
        flows=FLOWS,
    )
    try:
        process = VppProcess(directory, _start, startup)
        try:
            yield process
        finally:
            process.stop()
    finally:
        shutil.rmtree(directory)


def configure(process: VppProcess) -> None:
    """Give VPP an interface, the servers, and a VIP of each kind over them."""
    servers = [f"10.0.0.{number}" for number in range(1, SERVERS + 1)]
    for command in (
        "create packet-generator interface pg0",
        "set interface state pg0 up",
        "set interface ip address pg0 192.168.0.1/24",
        "set ip neighbor static pg0 192.168.0.2 02:70:65:6e:00:02",
        "ip route add 10.0.0.0/8 via 192.168.0.2 pg0",
        f"lb conf ip4-src-address 192.168.0.1 buckets {FLOWS // 4} timeout 3600",
        f"lb vip {STOCK}/32 encap gre4 new_len 65536",
        f"lb as {STOCK}/32 {' '.join(servers)}",
    ):
        process.ctl(command)
    api = Api(process.directory / "api.sock")
    source = {"address": "192.168.0.1", "port_first": 16384, "port_last": 28671}
    api.set_sources([source])
    alike = {"port": 80, "state": 1, "weight": 1.0}
    backends = [{"id": number, "address": address} | alike for number, address in enumerate(servers, 1)]
    for level, address in enumerate(LEVELS.values()):
        api.set_vip(
            {
                "id": 1 + level,
                "protocol": 6,
                "port": 80,
                "scheduler": 0,  # Maglev, as `lb`
                "feature_level": level,
                "forwarding": 1,
                "drain_timeout": 1000,
                "timeouts": TIMEOUTS,
                "address_count": 1,
                "addresses": [address] * 8,
                "count": len(backends),
                "backends": backends,
            }
        )
    api.close()


def establish(bench: Bench) -> None:
    """Open the flows of all cases, SYN and acknowledgement, on `lb` and on every level that has a bar for them."""
    for case in CASES:
        for target in (STOCK, *(LEVELS[level] for level in case.bars)):
            for chunk in range(max(1, case.flows // CHUNK)):
                net = f"198.{16 + chunk}"
                sources = case.sources if case.flows == 1 else f"{net}.0.0-{net}.255.255"
                for flags in ("SYN", "ACK"):
                    bench.send("open", target, sources, min(case.flows, CHUNK), flags)


def measure_case(bench: Bench, case: Case, rounds: int) -> dict[str, list[float]]:
    """Return clocks per packet by round of `lb` and of each level, taken by turns."""
    targets = {"lb": STOCK} | {level: LEVELS[level] for level in case.bars}
    found: dict[str, list[float]] = {name: [] for name in targets}
    for turn in range(rounds + 1):
        for name, address in targets.items():
            node = STOCK_NODE if name == "lb" else OUR_NODE
            packets = max(PAIR_PACKETS, case.flows)
            clocks = bench.clocks(node, address, case.sources, packets)
            if turn > 0:  # the first fills caches
                found[name].append(clocks)
    return found


def measure_new(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """The same where every packet is the first of its flow."""
    kept = bench.flows()
    found: dict[str, list[float]] = {"lb": [], "basic": []}
    sources = "198.64.0.0-198.65.255.255"
    for turn in range(rounds + 1):
        for name, address, node in (("lb", STOCK, STOCK_NODE), ("basic", LEVELS["basic"], OUR_NODE)):
            clocks = bench.clocks(node, address, sources, NEW_FLOWS, "SYN")
            if turn > 0:
                found[name].append(clocks)
        if bench.flows() != kept + NEW_FLOWS:
            raise RuntimeError(f"{bench.flows() - kept} of {NEW_FLOWS} new flows are held")
        bench.forget_new(kept)
    return found


def results(case: Case, found: dict[str, list[float]]) -> Iterator[Result]:
    """Ratios against their bars, and the clocks behind them."""
    for name, clocks in found.items():
        yield Result(f"vpp.{case.name}.{name}", statistics.median(clocks), "clocks/packet", None, None, clocks)
    for level, bar in case.bars.items():
        ratios = [round(ours / theirs, 3) for theirs, ours in zip(found["lb"], found[level], strict=True)]
        value = statistics.median(ratios)
        met = None if bar is None else value <= bar
        yield Result(f"vpp.{case.name}.{level}_ratio", value, "ratio to lb", bar, met, ratios)


def why_not() -> str:
    """Say what is missing; nothing if the benchmark can run."""
    if reason := vpp.missing():
        return reason
    if not next(vpp.prefix().rglob("vpp_plugins/lb_plugin.so"), None):
        return f"{vpp.prefix()}: VPP's own lb plugin is not there to compare with"
    return "" if len(os.sched_getaffinity(0)) > 1 else "one processor: VPP wants one for its worker"


def main() -> int:
    """Measure everything, print a line of JSON per figure."""
    if reason := why_not():
        print(json.dumps({"skipped": reason}))
        return 0
    with running() as process:
        configure(process)
        bench = Bench(process)
        version = process.ctl("show version").strip()
        print(f"{version}; pages of 4 KiB; load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        establish(bench)
        for case in CASES:
            for result in results(case, measure_case(bench, case, ROUNDS)):
                print(json.dumps(asdict(result)), flush=True)
        for result in results(NEW, measure_new(bench, ROUNDS)):
            print(json.dumps(asdict(result)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
