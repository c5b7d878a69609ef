"""Speed and memory of the operator: a real API server, a real operator process, 1,000 VIPs at once.

Prints a line of JSON per figure. `python -m tools.bench.bench_operator --vips 200 --runs 1` for a quick look.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from penstock_kube import NAMESPACES, NODES, SERVICES, Key, KubeClient, Object, Reflector, Resource
from penstock_operator import kinds

from e2e.cluster import ControlPlane, control_plane

MANIFESTS = Path(__file__).parents[2] / "crds" / "manifests"
NAMESPACE = "bench"
WRITERS = 8  # clients that create VIPs side by side
ACCEPT_BAR = 60.0  # seconds for 1,000 VIPs
MEMORY_BAR = 200.0  # MB
CHANGE_BAR = 1.0  # seconds, p99


class Watcher:
    """Follows VIPs and lets waiters know."""

    def __init__(self, client: KubeClient) -> None:
        self._changed = asyncio.Event()
        self._reflector = Reflector(client, kinds.VIPS, namespace=NAMESPACE, prune=_prune, on_change=self._note)

    def _note(self, _key: Key, _obj: Object | None) -> None:
        self._changed.set()

    @property
    def vips(self) -> list[Object]:
        """VIPs as they are."""
        return list(self._reflector.cache.values())

    def vip(self, name: str) -> Object:
        """One VIP as it is."""
        return self._reflector.cache[NAMESPACE, name]

    async def until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Wait until a condition of the VIPs holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watcher]:
        """Follow while the context lasts."""
        task = asyncio.create_task(self._reflector.run())
        try:
            await self._reflector.synced.wait()
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _prune(obj: Object) -> Object:
    status = obj.get("status") or {}
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}
    return {
        "accepted": conditions.get("Accepted") == "True",
        "address": (status.get("addresses") or [""])[0],
        "seen": status.get("observedGeneration", -1),
        "generation": obj["metadata"]["generation"],
    }


@asynccontextmanager
async def operator(plane: ControlPlane) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an operator process; yield when it works."""
    environment = os.environ | {
        "PENSTOCK_KUBECONFIG": str(plane.kubeconfig),
        "PENSTOCK_HEALTH_PORT": "0",
        "PENSTOCK_METRICS_PORT": "0",
    }
    with tempfile.TemporaryFile("w+", prefix="penstock-operator-") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "penstock_operator", env=environment, stderr=log
        )
        try:
            async with asyncio.timeout(60):
                while True:
                    await asyncio.sleep(0.1)
                    if "operator works" in os.pread(log.fileno(), 1 << 20, 0).decode():
                        break
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def peak_megabytes(pid: int) -> float:
    """Return the most resident memory of a process so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


async def prepare(client: KubeClient) -> None:
    """Make what VIPs need: nodes, a DataPlane, a pool, a Service."""
    for name in ("penstock-system", NAMESPACE):
        await client.create(NAMESPACES, {"metadata": {"name": name}})
    for number in (1, 2):
        await client.create(NODES, {"metadata": {"name": f"lb-{number}", "labels": {"role": "lb"}}})
        addresses = [{"type": "InternalIP", "address": f"192.0.2.{number}"}]
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        status = {"addresses": addresses, "conditions": [ready]}
        body: Object = {"metadata": {"name": f"lb-{number}"}, "status": status}
        await client.apply(NODES, body, field_manager="bench", subresource="status")
    data_plane = {
        "metadata": {"name": "edge", "annotations": {"penstock.dev/default": "true"}},
        "spec": {"nodeSelector": {"role": "lb"}},
    }
    await client.create(kinds.DATA_PLANES, data_plane)
    await client.create(kinds.POOLS, {"metadata": {"name": "public"}, "spec": {"addresses": ["198.18.0.0/20"]}})
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    await client.create(SERVICES, {"metadata": {"name": "web", "namespace": NAMESPACE}, "spec": spec})


async def create_all(client: KubeClient, count: int) -> None:
    """Create VIPs as fast as the API server takes them."""
    numbers = iter(range(count))

    async def write() -> None:
        for number in numbers:
            spec = {"ports": [{"port": 80}], "backends": {"service": {"name": "web"}}}
            body: Object = {"metadata": {"name": f"vip-{number}", "namespace": NAMESPACE}, "spec": spec}
            await client.create(kinds.VIPS, body)

    await asyncio.gather(*(write() for _ in range(WRITERS)))


async def delete_all(client: KubeClient, res: Resource, watcher: Watcher) -> None:
    """Delete all VIPs and wait until they are gone."""
    names = iter([item["metadata"]["name"] for item in (await client.list(res, NAMESPACE))[0]])

    async def delete() -> None:
        for name in names:
            await client.delete(res, name, NAMESPACE)

    await asyncio.gather(*(delete() for _ in range(WRITERS)))
    await watcher.until(lambda: not watcher.vips)


async def accept(client: KubeClient, watcher: Watcher, count: int) -> float:
    """Return the seconds from the first create to the last acceptance."""
    started = time.monotonic()
    await create_all(client, count)
    await watcher.until(lambda: sum(vip["accepted"] for vip in watcher.vips) == count)
    seconds = time.monotonic() - started
    addresses = {vip["address"] for vip in watcher.vips}
    if len(addresses) != count:
        raise RuntimeError(f"{count} VIPs hold {len(addresses)} addresses: two have the same one")
    return seconds


async def change(client: KubeClient, watcher: Watcher, times: int) -> list[float]:
    """Return the seconds from a change of a spec to the status that has seen it, with all VIPs around."""
    found = []
    for number in range(times):
        name = f"vip-{number}"
        started = time.monotonic()
        patch = {"spec": {"drainSeconds": 100 + number}}
        generation = (await client.patch(kinds.VIPS, name, patch, NAMESPACE))["metadata"]["generation"]
        await watcher.until(lambda name=name, generation=generation: watcher.vip(name)["seen"] >= generation)  # type: ignore[misc]
        found.append(time.monotonic() - started)
    return found


def figure(name: str, value: float, unit: str, bar: float, runs: list[float]) -> None:
    """Print one figure."""
    line = {"name": name, "value": round(value, 4), "unit": unit, "bar": bar, "met": value < bar}
    print(json.dumps(line | {"runs": [round(run, 4) for run in runs]}), flush=True)


async def measure(plane: ControlPlane, vips: int, runs: int) -> None:
    """Measure everything."""
    async with KubeClient.from_kubeconfig(str(plane.kubeconfig)) as client:
        await prepare(client)
        async with operator(plane) as process, Watcher(client).running() as watcher:
            seconds = []
            for run in range(runs):
                if run:
                    await delete_all(client, kinds.VIPS, watcher)
                seconds.append(await accept(client, watcher, vips))
            figure(f"operator.accept_{vips}_vips", statistics.median(seconds), "s", ACCEPT_BAR, seconds)
            changes = sorted(await change(client, watcher, min(100, vips)))
            figure("operator.change_seen_p50", statistics.median(changes), "s", CHANGE_BAR, [])
            figure("operator.change_seen_p99", changes[int(len(changes) * 0.99) - 1], "s", CHANGE_BAR, [])
            peaks = [peak_megabytes(process.pid)]
        started = time.monotonic()
        async with operator(plane) as process, Watcher(client).running() as watcher:
            restart = time.monotonic() - started
            changes = await change(client, watcher, 1)
            figure("operator.restart_with_all_vips", restart + changes[0], "s", ACCEPT_BAR, [])
            peaks.append(peak_megabytes(process.pid))
        figure("operator.memory_peak", max(peaks), "MB", MEMORY_BAR, peaks)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vips", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with control_plane() as plane:
        files = sorted(file for file in MANIFESTS.glob("*.yaml") if "CustomResourceDefinition" in file.read_text())
        plane.kubectl("apply", *(f"--filename={file}" for file in files))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        asyncio.run(measure(plane, options.vips, options.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
