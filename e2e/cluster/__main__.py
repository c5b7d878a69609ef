"""Command line: `python -m e2e.cluster up|down|status`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from e2e.cluster import shell
from e2e.cluster.errors import ClusterError
from e2e.cluster.provider import Provider
from e2e.cluster.providers import PROVIDERS, find
from e2e.cluster.spec import DEFAULT_NAME, make_spec
from e2e.cluster.steps import note, step


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description="A real Kubernetes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make a cluster and print how to reach it")
    up.add_argument("--nodes", type=int, default=4, help="number of nodes (default 4)")
    nodes = "[FIRST[-LAST]:]"
    up.add_argument("--label", action="append", default=[], metavar=f"{nodes}KEY=VALUE", help="label nodes")
    up.add_argument("--taint", action="append", default=[], metavar=f"{nodes}KEY[=VALUE]:EFFECT", help="taint nodes")
    down = commands.add_parser("down", help="remove the cluster and everything that belongs to it")
    status = commands.add_parser("status", help="say what is running")
    for command in (up, down, status):
        command.add_argument("--provider", choices=PROVIDERS, default="local", help="what to run it on (default local)")
        command.add_argument("--name", default=DEFAULT_NAME, help=f"name of the cluster (default {DEFAULT_NAME})")
    return parser


def _status(cluster: Provider) -> int:
    if not cluster.exists():
        note("no cluster is up")
        return 1
    print(cluster.kubectl("get", "nodes", "-o", "wide"), end="")
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    options = _parser().parse_args(arguments)
    cluster = find(options.provider, options.name)
    try:
        if options.command == "status":
            return _status(cluster)
        if options.command == "down":
            with step(f"cluster {options.name} removed"):
                cluster.down()
            shell.remove()
            return 0
        spec = make_spec(options.nodes, name=options.name, labels=options.label, taints=options.taint)
        with step(f"cluster {options.name} of {options.nodes} nodes"):
            cluster.up(spec)
    except ClusterError as error:
        note(f"error: {error}")
        return 1
    environment = shell.write(cluster)
    print(environment.read_text(), end="")
    note(f"in a shell: . {environment}  (kubectl, helm, penstock and client, a machine outside of the cluster)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
