"""The isolated part of the laboratory: builds networks, servers and data planes, and has the client send its plan.

    python -m tools.lab.inside DIRECTORY VERSION LIMITS ACCOUNTS GROUP

Runs in namespaces of its own for processes, mounts and networks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tools.lab import balancers, programs
from tools.lab.errors import LabError
from tools.lab.groups import Group, Hierarchies, Throttling
from tools.lab.network import SERVER_PORT, VIP, VIP_PORT, Network, network, server_address
from tools.lab.setup import Files, Measured, Server, Setup, Usage

THREADS = 512  # of a server: connections that it can have at once
SHARED = Path("/dev/shm")
PENSTOCK = (sys.executable, "-m", "penstock_cli")
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run it."""
    directory, version, limits, accounts, name = sys.argv[1:]
    files = Files(Path(directory))
    group = Group(Hierarchies(int(version), Path(limits), Path(accounts)), name)
    _private_mounts()
    setup = Setup.model_validate_json(files.setup.read_text())
    files.measured.write_text(measure(setup, files, group).model_dump_json())


def _private_mounts() -> None:
    """Keep names of networks, sockets and shared memory in this mount namespace."""
    Path("/run/netns").mkdir(exist_ok=True)
    for place in ("/run/netns", str(SHARED)):
        subprocess.run(["mount", "-t", "tmpfs", "lab", place], check=True)


def measure(setup: Setup, files: Files, group: Group) -> Measured:
    """Build everything, run the client, and read the accounts."""
    with ExitStack() as stack:
        built = stack.enter_context(network(len(setup.servers), setup.balancers))
        groups = [
            stack.enter_context(_server(built, number, server, group.below(f"server-{number}")))
            for number, server in enumerate(setup.servers)
        ]
        prompt = _prompt()
        running = stack.enter_context(balancers.running(built, setup, prompt, PENSTOCK, SHARED / "lab"))
        return _replay(setup, files, built, group, groups, prompt, running)


def _prompt() -> list[str]:
    """Return what starts a command so that it runs as soon as it can: data planes and clients have processors of
    their own where they are used, here they share those of the servers."""
    realtime = ["chrt", "--fifo", "1"]
    if subprocess.run([*realtime, "true"], capture_output=True, check=False).returncode == 0:
        return realtime
    return ["nice", "-n", "-15"]


@contextmanager
def _server(built: Network, number: int, server: Server, group: Group) -> Iterator[Group]:
    group.make()
    processors = ",".join(map(str, server.processors))
    arguments = [server_address(number), SERVER_PORT, number, THREADS, server.limit, server.backlog]
    command = ["taskset", "-c", processors, str(programs.server()), *map(str, arguments)]
    process = built.servers.popen(group.command(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        _, errors = process.communicate()
        raise LabError(f"server {number} did not start: {errors.strip()}")
    if server.quota:
        group.limit(server.quota, server.period)
    yield group
    if process.poll() is not None:
        _, errors = process.communicate()
        raise LabError(f"server {number} ended by itself: {errors.strip()}")


def _replay(
    setup: Setup,
    files: Files,
    built: Network,
    group: Group,
    groups: Sequence[Group],
    prompt: Sequence[str],
    running: Sequence[balancers.Balancer],
) -> Measured:
    command = [*prompt, str(programs.client()), VIP, str(VIP_PORT), f"{setup.until:.6f}"]
    with files.plan.open() as plan, files.records.open("w") as records:
        client = built.client.popen(command, stdin=plan, stdout=records)
        zero = _zero(files.records, client)
        _sleep_until(zero + setup.warmup)
        before = Accounts(group, groups)
        _sleep_until(zero + setup.until)
        after = Accounts(group, groups)
        decisions = tuple(each.decisions() for each in running)
        if client.wait(30) != 0:
            raise LabError(f"the client failed with {client.returncode}; it says above why")
    return after.since(before, decisions)


def _zero(records: Path, client: subprocess.Popen[str]) -> float:
    """Return the client's time 0 on the monotonic clock, once it has said so."""
    while True:
        text = records.read_text()
        if text.endswith("\n"):
            return float(text.split()[1])
        if client.poll() is not None:
            raise LabError(f"the client failed with {client.returncode}; it says above why")
        time.sleep(0.01)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


class Accounts:
    """Counters of processor time at one moment."""

    def __init__(self, group: Group, servers: Sequence[Group]) -> None:
        self.time = time.monotonic()
        self.used = [server.used for server in servers]
        self.throttling = [server.throttling for server in servers]
        self.group = group.used
        self.busy, self.stolen = _processors(Path("/proc/stat").read_text())

    def since(self, before: Accounts, decisions: tuple[dict[str, int], ...]) -> Measured:
        """Return what happened since other counters."""
        seconds = self.time - before.time
        elsewhere = (self.busy - before.busy) - (self.group - before.group)
        return Measured(
            servers=tuple(map(_usage, before.used, self.used, before.throttling, self.throttling)),
            seconds=seconds,
            elsewhere=max(0.0, elsewhere / seconds),
            stolen=(self.stolen - before.stolen) / seconds,
            decisions=decisions,
        )


def _usage(used_before: float, used: float, before: Throttling, after: Throttling) -> Usage:
    return Usage(
        seconds=used - used_before,
        periods=after.periods - before.periods,
        throttled=after.throttled - before.throttled,
        throttled_seconds=after.seconds - before.seconds,
    )


def _processors(stat: str) -> tuple[float, float]:
    """Return seconds in which processors were busy, and were stolen, since the machine started."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.splitlines()[0].split()[1:9])
    return (user + nice + system + irq + softirq) / _TICKS, steal / _TICKS


if __name__ == "__main__":
    main()
