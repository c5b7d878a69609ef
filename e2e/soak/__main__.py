"""`make soak`: random faults under load on a local cluster, by a seed; ends with SOAK PASSED or SOAK FAILED.

Two VIPs get requests at a constant rate from outside of the cluster all the time: one of a Deployment, one whose
EndpointSlice is written again and again. Faults are injected one after the other. A request may only fail where a
fault's loss is documented; after each fault all pods have to be Ready again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from e2e.cluster.errors import ClusterError
from e2e.cluster.local import LocalCluster
from e2e.cluster.processes import exit_on_sigterm, wait_until
from e2e.cluster.spec import make_spec
from e2e.cluster.steps import note, step
from e2e.components import ready_pods
from e2e.images.build import build
from e2e.installation import LABELS, Installation, InstallationError
from e2e.load import Load, LoadError, Report, Running, running
from e2e.shop import NAMESPACE, Shop
from e2e.soak import changes, controllers, faults
from e2e.soak.results import Injected, Result, around, attribute
from e2e.soak.schedule import Planned, schedule

CLUSTER = "penstock-soak"
DEMO_MANIFESTS = Path(__file__).parents[1] / "demo/manifests"
REQUEST_TIMEOUT = timedelta(seconds=15)
COMPONENTS = ("agent", "dataplane", "operator")
FAILURES_SHOWN = 10


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="seed of the schedule")
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the load")
    parser.add_argument("--rate", type=float, default=60.0, help="requests per second to each VIP")
    parser.add_argument("--changes", type=int, default=2000, help="endpoint changes")
    parser.add_argument("--only", default="", help="inject only faults whose name contains this text")
    parser.add_argument("--report", type=Path, default=Path("build/soak"), help="directory of the report")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the soak test; 0 if it passed."""
    options = options_of()
    exit_on_sigterm()
    chosen = {name: fault for name, fault in faults.FAULTS.items() if options.only in name}
    if not chosen:
        note(f"error: --only: no fault's name contains {options.only!r}; there are: {', '.join(faults.FAULTS)}")
        return 2
    plan = schedule({name: fault.seconds for name, fault in chosen.items()}, options.minutes * 60, options.seed)
    cluster = LocalCluster(CLUSTER)
    with ExitStack() as stack:
        stack.callback(cluster.down)
        try:
            cluster.down()  # what an earlier run left
            shop = set_up(cluster)
            injected, reports, written = soak(shop, cluster, plan, options)
        except (ClusterError, InstallationError, LoadError) as error:
            note(f"error: {error}")
            print("SOAK FAILED")
            return 1
    return 0 if conclude(injected, reports, written, options) else 1


def set_up(cluster: LocalCluster) -> Shop:
    """Start a cluster with small file systems on its balancing nodes, install Penstock, apply both VIPs."""
    with step("container images"):
        installation = Installation(cluster, build())
    with step("cluster of 4 nodes"):
        cluster.up(make_spec(4, name=CLUSTER, labels=LABELS))
        faults.shrink_filesystems(cluster)
        controllers.set_up(cluster)
        installation.load_images()
    with step("Penstock"):
        installation.install("--set=operator.replicas=2")
        installation.apply(DEMO_MANIFESTS / "penstock.yaml")
        installation.wait_condition("dataplane", "edge", "Ready")
    shop = Shop(installation)
    with step("servers and VIPs"):
        shop.apply_servers()
        shop.rolled_out()
        shop.apply_vip()
        everyone = changes.endpoint_slice(shop.server_addresses()[:1], random.Random(0))
        shop.apply("changing.yaml.jinja", slice=json.dumps(everyone))
        for name in ("web", changes.NAME):
            installation.wait_condition("loadbalancervip", name, "Ready", namespace=NAMESPACE)
        shop.wait_backends("4/4")
    return shop


def soak(
    shop: Shop, cluster: LocalCluster, plan: tuple[Planned, ...], options: argparse.Namespace
) -> tuple[list[Injected], list[Report], int]:
    """Put the load on, inject the faults of the plan, return what was injected and what became of the requests."""
    seconds = options.minutes * 60
    options.report.mkdir(parents=True, exist_ok=True)
    injected: list[Injected] = []
    with ExitStack() as stack:
        loads = [stack.enter_context(_loaded(shop, name, seconds, options)) for name in ("web", changes.NAME)]
        writer = stack.enter_context(changes.Changes(shop, options.seed, options.changes, seconds * 0.9))
        began = time.monotonic()
        for planned in plan:
            time.sleep(max(0.0, began + planned.at - time.monotonic()))
            if not all(load.active for load in loads):
                note("the load ended before the schedule: the faults took longer than planned")
                break
            injected.append(_inject(shop, cluster, planned))
        reports = [load.finish() for load in loads]
    return injected, reports, writer.written


def conclude(injected: list[Injected], reports: list[Report], written: int, options: argparse.Namespace) -> bool:
    """Print the table, write it down; return whether the run passed."""
    failures = sorted((f for report in reports for f in report.failures), key=lambda failure: failure.time)
    result = attribute(injected, failures, REQUEST_TIMEOUT)
    requests = sum(report.summary.requests for report in reports)
    console = Console()
    console.print(_table(result))
    for failure in result.undocumented[:FAILURES_SHOWN]:
        where = around(failure, injected)
        console.print(f"failed: {failure.time:%H:%M:%S.%f} {failure.kind} {failure.error} ({where})", highlight=False)
    for problem in result.problems:
        console.print(f"not recovered: {problem}", highlight=False)
    documented = sum(row.documented for row in result.rows)
    outcome = "SOAK PASSED" if result.passed else "SOAK FAILED"
    summary = (
        f"seed {options.seed}: {len(injected)} faults, {written} endpoint changes, {requests} requests, "
        f"{len(result.undocumented)} failed, {documented} failed where a loss is documented"
    )
    (options.report / "result.txt").write_text(f"{summary}\n{outcome}\n")
    console.print(summary, highlight=False)
    console.print(outcome)
    return result.passed


@contextmanager
def _loaded(shop: Shop, vip: str, seconds: float, options: argparse.Namespace) -> Iterator[Running]:
    address = shop.installation.address(NAMESPACE, vip)
    load = Load(f"http://{address}/", options.rate, seconds)
    program = shop.installation.cluster.client_program("loadgen")
    with running(program, load, options.report / f"{vip}.jsonl") as run:
        yield run


def _inject(shop: Shop, cluster: LocalCluster, planned: Planned) -> Injected:
    """Inject one fault and wait until everything is as before."""
    fault = faults.FAULTS[planned.fault]
    scene = faults.Scene(shop, cluster, random.Random(planned.seed))
    began = datetime.now(UTC)
    problem = ""
    with step(planned.fault):
        end = time.monotonic() + fault.seconds
        with fault.inject(scene):
            time.sleep(max(0.0, end - time.monotonic()))
        ended = datetime.now(UTC)
        if not wait_until(lambda: _whole(shop), fault.recovery_seconds, interval=1.0):
            problem = f"not all pods are Ready {fault.recovery_seconds:g} s after it ended"
    return Injected(planned.fault, began, ended, fault.loss_seconds, problem)


def _whole(shop: Shop) -> bool:
    try:
        return all(ready_pods(shop, component, 2) for component in COMPONENTS)
    except ClusterError:
        return False  # the API server is not back yet


def _table(result: Result) -> Table:
    table = Table("fault", "injected", "failed requests (documented)", "not recovered")
    for row in result.rows:
        table.add_row(row.fault, str(row.injected), str(row.documented), str(row.problems))
    return table


if __name__ == "__main__":
    sys.exit(main())
