"""One change, programmed on the node: from an object's write to the state that the data plane has in force.

Everything is real: API server, operator and agent processes with the rights of their accounts, and an embedded data
plane in a network namespace. Prints a line of JSON per figure; `--vips 20 --changes 10` for a quick look.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from penstock_api.names import AGENT_ACCOUNT, INSTALL_NAMESPACE
from penstock_embedded import client as control
from penstock_embedded.messages import Dump, Hello, Method
from penstock_kube import ENDPOINT_SLICES, NAMESPACES, NODES, SERVICES, KubeClient, Object
from penstock_operator import kinds

from e2e.cluster import ControlPlane, control_plane
from tests.support.dataplane import RunningDataplane, running_dataplane
from tests.support.lab import Lab, lab
from tools.bench.bench_operator import MANIFESTS, figure, operator

NAMESPACE, NODE, DATA_PLANE = "bench", "lb-1", "edge"
BACKENDS = 4
BAR = 1.0  # seconds, p99
LOOK_SECONDS = 0.005  # between two looks at the data plane
PATIENCE_SECONDS = 60.0


class Rig:
    """The API server's client, and what the data plane has in force."""

    def __init__(self, client: KubeClient, dataplane: RunningDataplane, vips: int) -> None:
        self.client = client
        self.vips = vips
        self._socket = dataplane.settings.socket_path
        self._generation: int | None = None

    async def in_force(self) -> dict[str, set[str]]:
        """Return the backends' addresses by the key of their core VIP."""
        raw = await asyncio.to_thread(control.request, self._socket, Method.DUMP)
        return {vip.key: {str(b.address) for b in vip.backends} for vip in Dump.model_validate(raw).vips}

    async def until(self, holds: Callable[[dict[str, set[str]]], bool]) -> None:
        """Wait until the state in force is as wanted; it is read only when there is another, to be no load itself."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                raw = await asyncio.to_thread(control.request, self._socket, Method.HELLO)
                generation = Hello.model_validate(raw).generation
                if generation != self._generation:
                    self._generation = generation
                    if holds(await self.in_force()):
                        return
                await asyncio.sleep(LOOK_SECONDS)

    async def timed(self, write: Awaitable[object], holds: Callable[[dict[str, set[str]]], bool]) -> float:
        """Return the seconds from a write to the state that it asks for."""
        started = time.monotonic()
        await write
        await self.until(holds)
        return time.monotonic() - started

    async def vip(self, number: int, *ports: int) -> None:
        """Apply a VIP as `kubectl apply --server-side` does."""
        spec = {
            "ports": [{"port": port, "targetPort": "http"} for port in ports],
            "backends": {"service": {"name": f"web-{number}"}},
            "healthCheck": {"type": "None"},
            "policyName": "web",
        }
        body: Object = {"metadata": {"name": f"vip-{number}", "namespace": NAMESPACE}, "spec": spec}
        await self.client.apply(kinds.VIPS, body, field_manager="bench")

    async def endpoints(self, number: int, count: int) -> None:
        """Apply the EndpointSlice of a VIP's Service as Kubernetes' own controller does."""
        addresses = [address_of(number, host) for host in range(count)]
        body: Object = {
            "metadata": {
                "name": f"web-{number}-1",
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": f"web-{number}"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
        }
        await self.client.apply(ENDPOINT_SLICES, body, field_manager="bench")

    async def service(self, number: int) -> None:
        """Make a VIP's Service."""
        spec = {"selector": {"app": f"web-{number}"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
        body: Object = {"metadata": {"name": f"web-{number}", "namespace": NAMESPACE}, "spec": spec}
        await self.client.apply(SERVICES, body, field_manager="bench")


def address_of(number: int, host: int) -> str:
    """Return the address of a backend."""
    return f"10.{128 + number // 256}.{number % 256}.{host + 1}"


def key_of(number: int, port: int = 80) -> str:
    """Return the key of a core VIP."""
    return f"{NAMESPACE}/vip-{number}:{port}/TCP/IPv4"


async def prepare(client: KubeClient, laboratory: Lab) -> None:
    """Make what VIPs need: a node, a DataPlane, a pool, a policy."""
    await client.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    await client.create(NODES, {"metadata": {"name": NODE, "labels": {"role": "lb"}}})
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"addresses": [{"type": "InternalIP", "address": laboratory.balancer_ipv4}], "conditions": [ready]}
    await client.apply(
        NODES, {"metadata": {"name": NODE}, "status": status}, field_manager="bench", subresource="status"
    )
    data_plane = {
        "metadata": {"name": DATA_PLANE, "annotations": {"penstock.dev/default": "true"}},
        "spec": {"nodeSelector": {"role": "lb"}},
    }
    await client.create(kinds.DATA_PLANES, data_plane)
    await client.create(kinds.POOLS, {"metadata": {"name": "public"}, "spec": {"addresses": ["198.18.0.0/20"]}})
    policy = {"metadata": {"name": "web", "namespace": NAMESPACE}, "spec": {"heuristic": "little"}}
    await client.create(kinds.POLICIES, policy)


@asynccontextmanager
async def agent(plane: ControlPlane, dataplane: RunningDataplane, state: Path) -> AsyncIterator[None]:
    """Run an agent with the token that a pod of its node has."""
    kubeconfig = plane.issue_service_account(INSTALL_NAMESPACE, AGENT_ACCOUNT, node=NODE)
    settings = {
        "NODE_NAME": NODE,
        "PENSTOCK_DATAPLANE": DATA_PLANE,
        "PENSTOCK_RUN_DIR": str(dataplane.settings.run_dir),
        "PENSTOCK_SHM_DIR": str(dataplane.settings.shm_dir),
        "PENSTOCK_STATE_DIR": str(state / "agent"),
        "PENSTOCK_KUBECONFIG": str(kubeconfig),
        "PENSTOCK_HOST": "127.0.0.1",
        "PENSTOCK_PORT": "0",
    }
    with (state / "agent.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "penstock_cli", "agent", env=os.environ | settings, stdout=log, stderr=log
        )
        try:
            yield
        except TimeoutError:
            print((state / "agent.log").read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def fill(rig: Rig) -> None:
    """Make all VIPs, and wait until the data plane has them."""
    for number in range(rig.vips):
        await rig.service(number)
        await rig.endpoints(number, BACKENDS)
        await rig.vip(number, 80)
    wanted = {key_of(number) for number in range(rig.vips)}
    await rig.until(lambda found: wanted <= {key for key, backends in found.items() if len(backends) == BACKENDS})


def report(name: str, runs: list[float]) -> None:
    """Print median and 99th percentile."""
    ordered = sorted(runs)
    spread = [ordered[0], ordered[-1]]
    figure(f"node.{name}_p50", statistics.median(ordered), "s", BAR, spread)
    figure(f"node.{name}_p99", ordered[max(0, round(len(ordered) * 0.99) - 1)], "s", BAR, spread)


async def changes(rig: Rig, count: int) -> None:
    """Change one thing at a time, with all VIPs around."""
    numbers = [index % rig.vips for index in range(count)]
    report(
        "endpoint_change",
        [
            await rig.timed(
                rig.endpoints(number, BACKENDS + 1 + turn // rig.vips),
                lambda found, n=number, t=turn: address_of(n, BACKENDS + t // rig.vips) in found[key_of(n)],  # type: ignore[misc]
            )
            for turn, number in enumerate(numbers)
        ],
    )
    report(
        "vip_change",
        [
            await rig.timed(
                rig.vip(number, 80, *range(81, 82 + turn // rig.vips)),
                lambda found, n=number, t=turn: key_of(n, 81 + t // rig.vips) in found,  # type: ignore[misc]
            )
            for turn, number in enumerate(numbers)
        ],
    )
    fresh = range(rig.vips, rig.vips + count // 2)
    for number in fresh:
        await rig.service(number)
        await rig.endpoints(number, BACKENDS)
    report(
        "vip_created",
        [
            await rig.timed(rig.vip(number, 80), lambda found, n=number: len(found.get(key_of(n), ())) == BACKENDS)  # type: ignore[misc]
            for number in fresh
        ],
    )


async def measure(plane: ControlPlane, laboratory: Lab, options: argparse.Namespace) -> None:
    """Run everything, and measure."""
    async with KubeClient.from_kubeconfig(str(plane.kubeconfig)) as client:
        await prepare(client, laboratory)
        with (
            running_dataplane(laboratory) as dataplane,
            tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory,
        ):
            rig = Rig(client, dataplane, options.vips)
            async with operator(plane), agent(plane, dataplane, Path(directory)):
                await fill(rig)
                await changes(rig, options.changes)
            dataplane.withdraw()


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vips", type=int, default=100)
    parser.add_argument("--changes", type=int, default=200)
    options = parser.parse_args()
    with control_plane() as plane, lab("pbench", 0) as laboratory:
        plane.kubectl("create", "namespace", INSTALL_NAMESPACE)
        plane.kubectl("apply", "--server-side", "-f", str(MANIFESTS))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        asyncio.run(measure(plane, laboratory, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
