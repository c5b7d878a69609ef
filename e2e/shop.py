"""The servers behind a VIP on a cluster, the client outside, and what is done to them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jinja2

from e2e.cluster.processes import wait_until
from e2e.installation import Installation
from e2e.load import Load, Report, Running, running

MANIFESTS = Path(__file__).parent / "manifests"
REPORTS = Path("build/e2e")
RATE = 200.0  # requests per second
ITERATIONS = 5_000  # under half a millisecond of a core a page: the servers stay below 60 % of their limits
NAMESPACE = "shop"


@dataclass
class Shop:
    """The servers, their VIP, and the client outside."""

    installation: Installation
    replicas: int = 4
    generation: int = 1
    ports: tuple[int, ...] = (80,)
    heuristic: str = "lsq"

    def apply_servers(self) -> None:
        """Apply the Deployment and the Service as they should be now."""
        image = self.installation.images["httpserver"].reference
        self.apply("web.yaml.jinja", image=image, iterations=ITERATIONS)

    def apply_vip(self) -> None:
        """Apply the VIP and its policy as they should be now."""
        self.apply("vip.yaml.jinja")

    def rolled_out(self) -> None:
        """Wait until the Deployment is as it should be."""
        self.installation.cluster.kubectl(
            "-n", NAMESPACE, "rollout", "status", "deployment/web", "--timeout=150s", timeout=180
        )

    def backends(self) -> str:
        """Return the VIP's backends as its status says them, for example 4/4."""
        status = self.installation.cluster.get("-n", NAMESPACE, "loadbalancervip", "web").get("status", {})
        return str(status.get("summary", {}).get("backends", ""))

    def wait_backends(self, wanted: str, seconds: float = 60.0) -> None:
        """Wait until the status says so."""
        assert wait_until(lambda: self.backends() == wanted, seconds, interval=0.5), (
            f"backends are {self.backends()}, wanted {wanted}"
        )

    def server_addresses(self) -> list[str]:
        """Return the addresses of the servers' pods."""
        pods = self.installation.cluster.get("-n", NAMESPACE, "pods", "-l", "app=web")["items"]
        return sorted(pod["status"]["podIP"] for pod in pods)

    @property
    def address(self) -> str:
        """The VIP's address."""
        return self.installation.address(NAMESPACE, "web")

    def announcer(self) -> str:
        """Return the node that answers for the VIP's address, as the client's neighbour table has it."""
        cluster = self.installation.cluster
        self.get("/healthz")
        links = {}
        for node in ("node-1", "node-2"):
            links[node] = _run([*cluster.node_command(node), "ip", "-o", "link", "show", "dev", "eth0"])
        neighbour = _run([*cluster.client_command(), "ip", "neigh", "show", self.address]).split()
        hardware = neighbour[neighbour.index("lladdr") + 1]
        return next(node for node, link in links.items() if hardware in link)

    def get(self, path: str = "/healthz", timeout: float = 1.0) -> bool:
        """Make one request on a new connection; say whether it was answered."""
        url = f"http://{self.address}{path}"
        command = ["curl", "-s", "-o", "/dev/null", "-m", f"{timeout:g}", "-w", "%{http_code}", url]
        return _run([*self.installation.cluster.client_command(), *command], check=False) == "200"

    @contextmanager
    def load(
        self, name: str, seconds: float, *, new_share: float = 0.5, port: int = 80, rate: float = RATE
    ) -> Iterator[Running]:
        """Send requests at a constant rate for so long; the caller finishes it."""
        REPORTS.mkdir(parents=True, exist_ok=True)
        load = Load(f"http://{self.address}:{port}/", rate, seconds, new_share=new_share)
        with running(self.installation.cluster.client_program("loadgen"), load, REPORTS / f"{name}.jsonl") as run:
            assert wait_until(lambda: len(run.intervals()) >= 2, 10), "the load generator does not send"
            yield run

    def apply(self, template: str, **values: object) -> None:
        """Apply a template of `manifests/`."""
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
        text = environment.from_string((MANIFESTS / template).read_text())
        self.installation.apply(
            text.render(
                replicas=self.replicas,
                generation=self.generation,
                ports=self.ports,
                heuristic=self.heuristic,
                **values,
            )
        )


def assert_nothing_failed(report: Report) -> None:
    """Fail with the first failures in words if a request failed."""
    summary = report.summary
    first = "\n".join(f"{failure.intended}: {failure.kind} {failure.error}" for failure in report.failures[:10])
    assert summary.failed == 0, f"{summary.failed} of {summary.requests} requests failed:\n{first}"
    # An open loop that could not keep its rate would have tested less than it says.
    assert summary.completed >= 0.98 * summary.rate * (summary.ended - summary.began).total_seconds() * 0.9


def _run(command: list[str], *, check: bool = True) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=30).stdout.strip()
