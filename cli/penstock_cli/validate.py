"""`penstock validate`: the operator's plan for files, without doing anything."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.agents import cluster_client
from penstock_cli.failure import fail, reported
from penstock_cli.roles import Kubeconfig

if TYPE_CHECKING:
    from penstock_api import KubeObject
    from penstock_operator.plan.dry import Outcome, Surroundings

STANDARD_INPUT = Path("-")
_NEXT = {  # by whether the cluster was looked at
    False: "Addresses and Services that are in the cluster already were not looked at: add --cluster for these.",
    True: "Apply them: kubectl apply -f ...",
}


def validate(
    files: Annotated[
        list[Path],
        typer.Option("--files", "-f", help="YAML file, directory of such files, or - for standard input; repeatable."),
    ],
    cluster: Annotated[
        bool,
        typer.Option("--cluster", "-c", help="Judge beside what is in the cluster: its nodes, Services, pools, VIPs."),
    ] = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say what the operator would do with files: accept or refuse, and which addresses VIPs would get.

    Without --cluster only the files count: every Service is taken to exist, and pools and DataPlanes must be among
    them. The exit code is 1 if anything would be refused.
    """
    from penstock_api import KindError
    from penstock_kube import ApiError, KubeConfigError
    from penstock_operator.plan.dry import dry_run

    with reported(KindError, OSError):
        objects = [obj for path in files for obj in _read(path)]
    if not objects:
        fail("-f: no object of penstock.dev in these files; name files with LoadBalancerVIPs, AddressPools, ...")
    with reported(ApiError, KubeConfigError):
        report = dry_run(objects, asyncio.run(_surroundings(kubeconfig)) if cluster else None)
    for outcome in report.outcomes:
        _print(outcome)
    if not report.accepted:
        refused = sum(not outcome.accepted for outcome in report.outcomes)
        fail(f"{refused} of {len(report.outcomes)} objects would be refused")
    typer.echo(f"\n{len(report.outcomes)} objects would be accepted. {_NEXT[cluster]}")


def _read(path: Path) -> list[KubeObject]:
    """Read all our objects of a file or directory; errors begin with the file's name."""
    from penstock_api import KindError, parse_yaml

    if path == STANDARD_INPUT:
        return parse_yaml(sys.stdin.read(), foreign="skip")
    paths = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
    objects: list[KubeObject] = []
    for each in paths:
        try:
            objects += parse_yaml(each.read_text(), foreign="skip")
        except KindError as error:
            fail(f"{each}: {error}")
    return objects


async def _surroundings(kubeconfig: Path | None) -> Surroundings:
    from penstock_operator.init import gather

    async with cluster_client(kubeconfig) as client:
        return await gather(client)


def _print(outcome: Outcome) -> None:
    mark = typer.style("accepted", fg="green") if outcome.accepted else typer.style("refused ", fg="red")
    addresses = f"  {', '.join(outcome.addresses)}" if outcome.addresses else ""
    where = f" by {outcome.data_plane}" if outcome.data_plane else ""
    typer.echo(f"{mark}  {outcome.kind} {outcome.name}{addresses}{where}")
    if not outcome.accepted:
        typer.echo(f"          {outcome.reason}: {outcome.message}")
    for warning in outcome.warnings:
        typer.echo(f"          {typer.style('warning', fg='yellow')}: {warning}")
