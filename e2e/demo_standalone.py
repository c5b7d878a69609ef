"""`make demo-standalone`: data plane and agent without Kubernetes, between network namespaces of one machine.

A client, the load balancer and four HTTP servers whose page costs 4, 4, 2 and 1 units of work are joined by a bridge.
The example of examples/standalone is run as it is, with `lsq` and `little` in turns, by editing its file.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from penstock_agent.state import AgentState
from penstock_cli.agents import LOCAL_URL
from rich.console import Console

from e2e.cluster import binaries
from e2e.cluster.processes import exit_on_sigterm
from e2e.cluster.steps import step
from e2e.demo import report, trial
from e2e.demo.watch import watching
from tests.support.netns import Namespace, connect

EXAMPLES = Path("examples/standalone")
VIP = "203.0.113.10"
BALANCER = "10.88.0.1"
CLIENT = "10.88.0.200"
SERVERS = {f"10.88.0.{11 + number}": cost for number, cost in enumerate((4, 4, 2, 1))}
WORK = 24_000  # rounds of hashing that one unit of work stands for: about 2 ms of a core
PENSTOCK = [sys.executable, "-m", "penstock_cli"]


def server_name(address: str) -> str:
    """Return the name that a server gives itself, by its address."""
    return f"server-{address.rpartition('.')[2]}"


@contextmanager
def network() -> Iterator[tuple[Namespace, Namespace]]:
    """Make a bridge with a client, a load balancer and the servers on it; yield (client, balancer)."""
    with ExitStack() as stack:
        bridge = stack.enter_context(Namespace("psd-bridge"))
        bridge.sh("ip link add bridge type bridge\nip link set bridge up")

        def host(name: str, address: str) -> Namespace:
            namespace = stack.enter_context(Namespace(f"psd-{name}"))
            port = f"p{address.rpartition('.')[2]}"
            connect(bridge, port, namespace, "eth0")
            bridge.sh(f"ip link set {port} master bridge")
            namespace.sh(f"ip addr add {address}/24 dev eth0\nip route add default via {BALANCER}")
            return namespace

        balancer = stack.enter_context(Namespace("psd-balancer"))
        connect(bridge, "p1", balancer, "eth0")
        bridge.sh("ip link set p1 master bridge")
        balancer.sh(f"ip addr add {BALANCER}/24 dev eth0\nip route add default dev eth0")
        client = host("client", CLIENT)
        program = str(binaries.program("httpserver"))
        for address, cost in SERVERS.items():
            server = host("server", address)
            environment = [f"POD_NAME={server_name(address)}", "GOMAXPROCS=1"]
            server.popen(["env", *environment, program, f"--iterations={cost * WORK}"], stderr=subprocess.DEVNULL)
        yield client, balancer


@contextmanager
def penstock(balancer: Namespace, files: Path, root: Path) -> Iterator[None]:
    """Run `penstock run` in the balancer's namespace; Ctrl-C at the end has it clean up behind itself."""
    log = root / "penstock.log"
    with log.open("w") as out:
        command = [*PENSTOCK, "run", f"--files={files}", f"--root={root}"]
        process = balancer.popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield
        except BaseException:
            sys.stderr.write(log.read_text()[-4000:])
            raise
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)


def wait_served(client: Namespace, seconds: float = 20.0) -> None:
    """Wait until the VIP answers."""
    deadline = time.monotonic() + seconds
    command = ["curl", "-sf", "-m", "1", "-o", "/dev/null", f"http://{VIP}/healthz"]
    while subprocess.run(["ip", "netns", "exec", client.name, *command], check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"http://{VIP}/ was not served within {seconds:.0f} s")
        time.sleep(0.1)


def set_policy(files: Path, policy: str) -> None:
    """Edit the policy's file; the agent follows it within a second."""
    path = files / "rlpolicy.yaml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"  heuristic: {policy}" if "heuristic:" in line else line for line in lines) + "\n")
    time.sleep(1.0)


def agent_states(balancer: Namespace, within: float) -> list[AgentState]:
    """Return what the agent shows of itself, with times of the last so many seconds."""
    command = ["curl", "-sf", "-m", "5", f"{LOCAL_URL}/state?within={within:.3f}"]
    done = subprocess.run(["ip", "netns", "exec", balancer.name, *command], capture_output=True, check=True)
    return [AgentState.model_validate_json(done.stdout)]


def demonstrate(directory: Path, options: argparse.Namespace) -> report.Demonstration:
    """Run everything; `directory` holds a copy of the example and all that is written."""
    files = directory / "files"
    shutil.copytree(EXAMPLES, files)
    setting = (
        f"{options.rate:g} requests/s, each on a new connection; blocks of {options.seconds:g} s, order by seed "
        f"{options.seed}; four servers on this machine"
    )
    with ExitStack() as stack:
        with step("network namespaces and four servers"):
            client, balancer = stack.enter_context(network())
        with step(f"penstock run -f {EXAMPLES}, first request served"):
            stack.enter_context(penstock(balancer, files, directory))
            wait_served(client)
        bench = trial.Bench(
            loadgen=["ip", "netns", "exec", client.name, str(binaries.program("loadgen"))],
            target=f"http://{VIP}/",
            new_share=1.0,
            switch=lambda policy: set_policy(files, policy),
            states=lambda within: agent_states(balancer, within),
            backend_name=server_name,
            vip="default/web",
            speeds={server_name(address): 1.0 / cost for address, cost in SERVERS.items()},
        )
        top = ["ip", "netns", "exec", balancer.name, *PENSTOCK, "top", "--local"]
        watch = stack.enter_context(watching(top, bench.vip, bench.backend_name))
        return trial.run(
            bench, watch, options, title="Penstock without Kubernetes", setting=setting, out=directory / "report"
        )


def main() -> int:
    """Run the demonstration; 0 when no request failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    trial.add_options(parser, rate=150.0, pairs=4, seconds=3.0, settle=1.0)
    options = parser.parse_args()
    exit_on_sigterm()
    shared = Path("/dev/shm")  # the arena and the frames are shared memory
    with tempfile.TemporaryDirectory(prefix="penstock-demo-", dir=shared) as directory:
        demonstration = demonstrate(Path(directory), options)
    console = Console()
    console.print(report.tables(demonstration))
    console.print(demonstration.verdict())
    passed = demonstration.failed == 0
    console.print("DEMO PASSED" if passed else f"DEMO FAILED: {demonstration.failed} requests failed")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
