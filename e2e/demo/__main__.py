"""`make demo`: a cluster of real kubelets, the chart, a VIP, a constant load from outside, two policies, a report.

Four servers with 0.1, 0.1, 0.2 and 0.4 cores serve a page that costs processor time. While the load goes to the VIP,
the policies `lsq` and `little` take turns in random order, each by one `kubectl patch`.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import jinja2
from rich.console import Console

from e2e.cluster import binaries
from e2e.cluster.errors import ClusterError
from e2e.cluster.processes import exit_on_sigterm, wait_until
from e2e.cluster.provider import Provider
from e2e.cluster.providers import PROVIDERS, find
from e2e.cluster.spec import make_spec
from e2e.cluster.steps import note, step
from e2e.demo import report, trial
from e2e.demo.watch import watching
from e2e.images.build import build
from e2e.installation import LABELS, Installation, InstallationError
from e2e.load import LoadError

MANIFESTS = Path(__file__).parent / "manifests"
SPEEDS = {"web-a": 0.1, "web-b": 0.1, "web-c": 0.2, "web-d": 0.4}  # cores
ITERATIONS = 24_000  # about 2 ms of a core a page
QUOTA_PERIOD = "10ms"  # so that a tenth of a core is a slow server, not a fast one that stands most of the time
VIP = ("shop", "web")
CLUSTER = "penstock-demo"


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--provider", choices=PROVIDERS, default="local", help="where the cluster is")
    trial.add_options(parser, rate=100.0, pairs=5, seconds=6.0, settle=3.0)
    parser.add_argument("--report", type=Path, default=Path("demo-report"), help="directory of the report")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up, to look around")
    return parser.parse_args(arguments)


def servers(image: str) -> str:
    """Return the manifest of the servers."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    template = environment.from_string((MANIFESTS / "servers.yaml.jinja").read_text())
    return template.render(speeds=SPEEDS, iterations=ITERATIONS, image=image)


def set_up(cluster: Provider) -> Installation:
    """Build what is missing, start the cluster, install Penstock, apply the VIP; print a line per step."""
    with step("container images and programs"), ThreadPoolExecutor() as pool:
        # Images wait for downloads and disk most of their time, programs for processors.
        programs = pool.submit(_build_programs, cluster)
        try:
            installation = Installation(cluster, build())
        except BaseException:
            binaries.stop()  # the error is shown now, not minutes later
            raise
        programs.result()
    with step("cluster of 4 nodes: 2 balance load, 2 run servers"):
        cluster.up(make_spec(4, name=CLUSTER, labels=LABELS, quota_period=QUOTA_PERIOD))
    with step("images loaded into the nodes"):
        installation.load_images()
    with step("helm install penstock"):
        installation.install()
    with step("kubectl apply: DataPlane, AddressPool"):
        installation.apply(MANIFESTS / "penstock.yaml")
        installation.wait_condition("dataplane", "edge", "Ready")
    with step("kubectl apply: four servers of unequal speed"):
        installation.apply(servers(installation.images["httpserver"].reference))
        for name in SPEEDS:
            cluster.kubectl("-n", VIP[0], "rollout", "status", f"statefulset/{name}", timeout=180)
    with step("kubectl apply: LoadBalancerVIP and RLPolicy"):
        installation.apply(MANIFESTS / "vip.yaml")
        installation.wait_condition("loadbalancervip", VIP[1], "Ready", namespace=VIP[0])
    return installation


def _build_programs(cluster: Provider) -> None:
    local = binaries.LOCAL_PROGRAMS if cluster.name == "local" else ()
    binaries.programs(*local, "kubectl", "helm", "httpserver", "loadgen")


def server_names(cluster: Provider) -> dict[str, str]:
    """Return the servers' names by their pods' addresses."""
    pods = cluster.get("-n", VIP[0], "pods", "-l", "app=web")["items"]
    return {pod["status"]["podIP"]: pod["metadata"]["labels"]["server"] for pod in pods}


def demonstrate(installation: Installation, options: argparse.Namespace) -> report.Demonstration:
    """Put the load on while the policies take turns."""
    cluster = installation.cluster
    names = server_names(cluster)

    def switch(policy: str) -> None:
        patch = f'{{"spec": {{"heuristic": "{policy}"}}}}'
        cluster.kubectl("-n", VIP[0], "patch", "rlpolicy", "web", "--type=merge", "-p", patch)

        def in_force() -> bool:
            summary = cluster.get("-n", VIP[0], "loadbalancervip", VIP[1])["status"].get("summary", {})
            return str(summary.get("policy", "")).startswith(policy)

        if not wait_until(in_force, 30, interval=0.3):
            raise InstallationError(f"policy {policy} is not in force after 30 s")

    bench = trial.Bench(
        loadgen=cluster.client_program("loadgen"),
        target=f"http://{installation.address(*VIP)}/",
        new_share=0.5,
        switch=switch,
        states=installation.agent_states,
        backend_name=lambda address: names.get(address, address),
        vip="/".join(VIP),
        speeds=SPEEDS,
    )
    setting = (
        f"{options.rate:g} requests/s, half of them on new connections; blocks of {options.seconds:g} s, order by seed "
        f"{options.seed}; four pods with CPU limits 1:1:2:4, two load-balancing nodes, all on one machine"
    )
    title = "Penstock: one VIP, four servers of unequal speed"
    with watching(installation.penstock("top"), bench.vip, bench.backend_name) as watch:
        return trial.run(bench, watch, options, title=title, setting=setting, out=options.report)


def conclude(demonstration: report.Demonstration, options: argparse.Namespace, seconds: float) -> bool:
    """Print the table and write the page; say whether the demonstration passed."""
    console = Console()
    console.print(report.tables(demonstration))
    console.print(demonstration.verdict())
    console.print(f"report: {report.write(demonstration, options.report)}   ({seconds:.0f} s in all)")
    missing = demonstration.unmeasured
    if demonstration.failed or missing:
        console.print(f"DEMO FAILED: {demonstration.failed} failed requests; not all measured for {missing or 'none'}")
        return False
    console.print("DEMO PASSED")
    return True


def main() -> int:
    """Run the demonstration; 0 if it passed."""
    options = options_of()
    exit_on_sigterm()
    began = time.monotonic()
    cluster = find(options.provider, CLUSTER)
    with ExitStack() as stack:
        if not options.keep:
            stack.callback(cluster.down)
        try:
            cluster.down()  # what an earlier run left
            installation = set_up(cluster)
            note(cluster.kubectl("get", "vip,rlp,pool,dp,dpn", "-A"))
            demonstration = demonstrate(installation, options)
        except (ClusterError, InstallationError, LoadError) as error:
            note(f"error: {error}")
            print("DEMO FAILED")
            return 1
        passed = conclude(demonstration, options, time.monotonic() - began)
        if options.keep:
            note(f"the cluster stays up: export KUBECONFIG={cluster.kubeconfig}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
