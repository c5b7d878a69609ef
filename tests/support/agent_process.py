"""A real agent with files beside a data plane in a laboratory, and what it shows of itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock_agent.state import AgentState, VipView

from tests.support.lab import Lab

PORT = 9402


class AgentProcess:
    """The program `penstock agent` in the balancer, with files of its own below `directory`."""

    def __init__(self, lab: Lab, directory: Path, run_dir: Path, shm_dir: Path) -> None:
        self.lab = lab
        self._files = directory / "files"
        self._files.mkdir()
        self._command = [
            *("env", f"PENSTOCK_NODE_ADDRESSES={lab.balancer_ipv4},{lab.balancer_ipv6}"),
            *(sys.executable, "-m", "penstock_cli", "agent", "--source=files", f"--files={self._files}"),
            *(f"--run-dir={run_dir}", f"--shm-dir={shm_dir}", f"--state-dir={directory / 'state'}", f"--port={PORT}"),
        ]

    def write(self, *objects: dict[str, Any]) -> None:
        """Give the agent its objects, all of them, in one file that is whole at any time."""
        new = self._files / "all.new"
        new.write_text("\n---\n".join(map(json.dumps, objects)))
        new.rename(self._files / "all.yaml")

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[Any]]:
        """Run the agent, and end it by SIGTERM."""
        process = self.lab.balancer.popen(self._command, stdout=2)  # standard output is the caller's
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0

    def state(self) -> AgentState | None:
        """What the agent shows; None while it does not answer."""
        with contextlib.suppress(OSError):
            return self.lab.balancer.run(_ask)
        return None

    def vip(self, version: int = 4) -> VipView | None:
        """What it shows of the VIP of an IP version; None while it shows none."""
        state = self.state()
        return next((v for v in state.vips if v.addresses[0].version == version), None) if state else None

    def settled(self, vips: int) -> bool:
        """Tell whether the data plane has so many VIPs, all that the agent wants."""
        state = self.state()
        return state is not None and state.settled and state.link.connected and len(state.vips) == vips


def _ask() -> AgentState:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        connection.request("GET", "/state")
        return AgentState.model_validate_json(connection.getresponse().read())
    finally:
        connection.close()


def policy(heuristic: str) -> dict[str, Any]:
    """An RLPolicy `chosen`."""
    return _object("RLPolicy", "chosen", {"heuristic": heuristic})


def dataplane(**spec: Any) -> dict[str, Any]:
    """The DataPlane of the node."""
    return _object("DataPlane", "edge", spec)


def balanced(lab: Lab, addresses: list[str], port: int, target: int, **spec: Any) -> dict[str, Any]:
    """A LoadBalancerVIP `web` with the policy `chosen` over all servers of the laboratory, by both families."""
    ends = [{"address": end, "port": target} for server in lab.servers for end in (server.ipv4, server.ipv6)]
    families = {"IPv6" if ":" in address else "IPv4" for address in addresses}
    fields = {
        "addresses": addresses,
        "addressFamilies": sorted(families),
        "ports": [{"port": port}],
        "backends": {"endpoints": ends},
        "policyName": "chosen",
        "healthCheck": {"type": "HTTP", "path": "/", "intervalSeconds": 1, "unhealthyThreshold": 1},
    }
    return _object("LoadBalancerVIP", "web", fields | spec)


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "penstock.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
