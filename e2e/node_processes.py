"""Processes on a node of the local cluster, found from outside: tests end them as a crash would."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from e2e.cluster.processes import start_ticks
from e2e.shop import Shop


def node_processes(shop: Shop, node: str, wanted: Callable[[list[bytes]], bool]) -> list[int]:
    """Return the processes in the node's network whose command line is wanted, the oldest first."""
    inside = subprocess.run(
        [*shop.installation.cluster.node_command(node), "readlink", "/proc/self/ns/net"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
            same_network = os.readlink(directory / "ns/net") == inside  # noqa: PTH115 - the target is no path
        except OSError:
            continue
        if same_network and wanted(words):
            found.append(int(directory.name))
    return sorted(found, key=lambda pid: start_ticks(pid) or 0)  # by age, not by number: numbers wrap round
