"""Penstock in a cluster, put there as a user would: images, chart, kubectl."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from penstock_agent.state import AgentState
from penstock_cli.agents import DEFAULT_PORT

from e2e.cluster import binaries
from e2e.cluster.errors import CommandError
from e2e.cluster.processes import wait_until
from e2e.cluster.provider import Provider
from e2e.images.build import VPP, Image

CHART = Path(__file__).parents[1] / "charts/penstock"
NAMESPACE = "penstock-system"
RELEASE = "penstock"
ROLES = ("operator", "agent", "dataplane")
_REFUSED = re.compile(r"forbidden|\b(status|code|http)[ =:'\"]{1,3}403\b", re.IGNORECASE)
LABELS = (  # of a cluster of four: two nodes that balance load, two for servers
    "1-2:penstock.dev/load-balancer=true",
    "3-4:penstock.dev/role=server",
)


class InstallationError(RuntimeError):
    """A step of the installation did not come to its end; the message says what was seen."""


class Installation:
    """The chart's release in one cluster."""

    def __init__(self, cluster: Provider, images: Iterable[Image]) -> None:
        self.cluster = cluster
        self.images = {image.name: image for image in images}
        self._looked_at: datetime | None = None

    def load_images(self) -> None:
        """Make the images known to the nodes."""
        self.cluster.load_images([image.archive for image in self.images.values()])

    def install(self, *options: str) -> None:
        """Install the chart and wait for the operator."""
        roles = [role for role in (*ROLES, VPP) if role in self.images]
        values = [f"--set-string=images.{role}.tag={self.images[role].tag}" for role in roles]
        self._helm("upgrade", "--install", RELEASE, str(CHART), "--create-namespace", *values, *options)
        self.cluster.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/penstock-operator", timeout=180)

    def uninstall(self) -> None:
        """Remove the release; the kinds stay."""
        self._helm("uninstall", RELEASE, "--wait")

    def apply(self, manifest: str | Path) -> None:
        """Run `kubectl apply` with a manifest, or with a file of some."""
        text = manifest.read_text() if isinstance(manifest, Path) else manifest
        self.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def wait_condition(
        self, kind: str, name: str, condition: str, *, namespace: str = "", seconds: float = 120
    ) -> None:
        """Wait for a condition to be True; what is there instead goes into the error."""
        where = ["-n", namespace] if namespace else []

        def holds() -> bool:
            conditions = self.cluster.get(*where, kind, name).get("status", {}).get("conditions", [])
            return any(item["type"] == condition and item["status"] == "True" for item in conditions)

        if not wait_until(holds, seconds, interval=0.5):
            found = self.cluster.kubectl("describe", *where, kind, name)
            raise InstallationError(f"{kind} {name} is not {condition} after {seconds:.0f} s:\n{found}")

    def address(self, namespace: str, vip: str) -> str:
        """Return the first address of a VIP."""
        return str(self.cluster.get("-n", namespace, "loadbalancervip", vip)["status"]["addresses"][0])

    def pods(self, component: str) -> list[str]:
        """Return the names of the pods of a component: operator, agent or dataplane."""
        selector = f"app.kubernetes.io/part-of=penstock,app.kubernetes.io/component={component}"
        return [pod["metadata"]["name"] for pod in self.cluster.get("-n", NAMESPACE, "pods", "-l", selector)["items"]]

    def agent_states(self, within: float) -> list[AgentState]:
        """Return what the agents show of themselves, with times of the last so many seconds."""
        states = []
        for pod in self.pods("agent"):
            path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{DEFAULT_PORT}/proxy/state?within={within:.3f}"
            states.append(AgentState.model_validate_json(self.cluster.kubectl("get", "--raw", path)))
        return states

    def logs(self) -> str:
        """Return the last lines of all pods, for a failure's report."""
        parts = []
        for pod in self.cluster.get("-n", NAMESPACE, "pods")["items"]:
            name = pod["metadata"]["name"]
            try:
                text = self.cluster.kubectl("-n", NAMESPACE, "logs", name, "--tail=40")
            except CommandError as error:
                text = str(error)
            parts.append(f"--- {name}\n{text}")
        return "\n".join(parts)

    def refusals(self) -> list[str]:
        """Return what operator and agents have logged, since the last call, of being refused by the API server.

        In normal operation that is nothing.
        """
        since = ["--since-time", self._looked_at.isoformat()] if self._looked_at else []
        # Logs are cut by the second: what lies in this one must not be found again.
        self._looked_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        found = []
        for component in ("operator", "agent"):
            for name in self.pods(component):
                try:
                    text = self.cluster.kubectl("-n", NAMESPACE, "logs", name, *since)
                except CommandError:
                    continue  # of a node that is gone, or not started yet
                found += [f"{name}: {line}" for line in refusals_in(text)]
        return found

    def penstock(self, *arguments: str) -> list[str]:
        """Return the command line of `penstock` for this cluster."""
        return [sys.executable, "-m", "penstock_cli", *arguments, "--kubeconfig", str(self.cluster.kubeconfig)]

    def _helm(self, *arguments: str) -> None:
        command = [str(binaries.program("helm")), "--namespace", NAMESPACE, *arguments]
        environment = os.environ | {"KUBECONFIG": str(self.cluster.kubeconfig)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0:
            raise InstallationError(f"helm {arguments[0]} failed: {done.stderr.strip()}")


def refusals_in(log: str) -> list[str]:
    """Return the lines of a log that tell of a request that was refused for want of a right."""
    return [line for line in log.splitlines() if _REFUSED.search(line)]
