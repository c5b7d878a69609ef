"""Data planes of the laboratory: `penstock run` as in examples/standalone, data plane and agent with its loop."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from penstock_agent.state import AgentState
from penstock_api.rlpolicy import PolicySpec

from tests.support.netns import Namespace
from tools.lab.errors import LabError
from tools.lab.network import (
    DEVICE,
    NETWORK,
    SERVER_PORT,
    VIP,
    VIP_PORT,
    Network,
    balancer_address,
    mark,
    server_address,
)
from tools.lab.setup import Setup

AGENT_PORT = 9402
START_SECONDS = 60.0
STOP_SECONDS = 30.0
SO_MARK = 36


class Balancer:
    """One `penstock run`."""

    def __init__(self, namespace: Namespace, command: Sequence[str], log: Path) -> None:
        self._namespace = namespace
        self._log = log
        with log.open("w") as out:
            self._process = namespace.popen(command, stdout=out, stderr=subprocess.STDOUT)

    def state(self) -> AgentState | None:
        """What its agent shows; None while it does not answer."""
        with suppress(OSError, http.client.HTTPException):
            return self._namespace.run(_state)
        return None

    def settled(self) -> bool:
        """Tell whether the data plane serves the VIP as the agent wants it."""
        if self._process.poll() is not None:
            raise LabError(f"a data plane ended by itself; its log ends with:\n{self._log.read_text()[-3000:]}")
        state = self.state()
        return state is not None and state.settled and state.link.connected and len(state.vips) == 1

    def decisions(self) -> dict[str, int]:
        """Count the agent's decisions by what they led to."""
        state = self.state()
        if state is None or not state.vips:
            raise LabError(f"the agent does not answer; its log ends with:\n{self._log.read_text()[-3000:]}")
        return state.vips[0].steps

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)


@contextmanager
def running(
    network: Network, setup: Setup, prefix: Sequence[str], program: Sequence[str], root: Path
) -> Iterator[list[Balancer]]:
    """Run a data plane and an agent in each balancer's namespace; yield them when all serve."""
    built: list[Balancer] = []
    try:
        for number, namespace in enumerate(network.balancers):
            directory = root / f"lb{number}"
            files = _write(directory / "files", setup)
            command = [
                *(*prefix, *program, "run", f"--files={files}", f"--root={directory}"),
                *(f"--node-address={balancer_address(number)}", f"--interface={DEVICE}", f"--port={AGENT_PORT}"),
            ]
            built.append(Balancer(namespace, command, directory / "log"))
        _wait_until(lambda: all(each.settled() for each in built), "the data planes did not serve the VIP")
        for number in range(len(built)):
            _wait_until(partial(network.client.run, _connects, number), f"data plane {number} refuses connections")
        yield built
    finally:
        for each in built:
            each.stop()


def _write(files: Path, setup: Setup) -> Path:
    files.mkdir(parents=True)
    (files / "all.yaml").write_text("\n---\n".join(json.dumps(each) for each in objects(setup)))
    return files


def objects(setup: Setup) -> list[dict[str, Any]]:
    """Return DataPlane, VIP and policy. Nothing checks the servers: a check would cost them processor time."""
    endpoints = [
        {"address": server_address(number), "port": SERVER_PORT, "weight": server.weight}
        for number, server in enumerate(setup.servers)
    ]
    vip = {
        "addresses": [VIP],
        "ports": [{"port": VIP_PORT}],
        "backends": {"endpoints": endpoints},
        "healthCheck": {"type": "None"},
        "policyName": "lab",
    }
    return [
        _object("DataPlane", {"features": setup.features, "staticEndpointCIDRs": [NETWORK]}),
        _object("LoadBalancerVIP", vip),
        _object("RLPolicy", policy_spec(setup.policy)),
    ]


def policy_spec(policy: PolicySpec) -> dict[str, Any]:
    """Return a policy's spec as its file has it."""
    return policy.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "penstock.dev/v1alpha1", "kind": kind, "metadata": {"name": "lab"}, "spec": spec}


def _state() -> AgentState:
    connection = http.client.HTTPConnection("127.0.0.1", AGENT_PORT, timeout=5)
    try:
        connection.request("GET", "/state")
        return AgentState.model_validate_json(connection.getresponse().read())
    finally:
        connection.close()


def _connects(balancer: int) -> bool:
    """Tell whether the VIP answers through a data plane."""
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, SO_MARK, mark(balancer))
        probe.settimeout(1.0)
        probe.connect((VIP, VIP_PORT))
        probe.sendall(b"GET /0/0/1 HTTP/1.1\r\nHost: lab\r\n\r\n")
        return bool(probe.recv(1))
    return False


def _wait_until(ready: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > until:
            raise LabError(f"{otherwise} within {START_SECONDS:.0f} s")
        time.sleep(0.1)
