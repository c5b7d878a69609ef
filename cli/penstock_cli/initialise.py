"""`penstock init`: a DataPlane and an AddressPool that fit the cluster, to begin with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.agents import cluster_client
from penstock_cli.failure import reported
from penstock_cli.roles import Kubeconfig

if TYPE_CHECKING:
    from penstock_operator.init import Proposal


def init(
    name: Annotated[str, typer.Option(help="Name of the DataPlane.")] = "edge",
    pool: Annotated[str, typer.Option(help="Name of the AddressPool.")] = "public",
    selector: Annotated[
        list[str] | None,
        typer.Option(
            "--selector", "-l", help="Label KEY=VALUE of the nodes that balance load; repeatable; default: found."
        ),
    ] = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print a DataPlane and an AddressPool that fit this cluster, as YAML with notes on what to check.

    Nothing is applied: read it, adapt it, then `kubectl apply -f` it.
    """
    from penstock_kube import ApiError, KubeConfigError
    from penstock_operator.init import InitError

    with reported(ApiError, KubeConfigError, InitError):
        proposal = asyncio.run(_propose(kubeconfig, name, pool, dict(_labels(selector or []))))
    typer.echo(proposal.to_yaml(), nl=False)


def _labels(assignments: list[str]) -> list[tuple[str, str]]:
    labels = []
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{assignment!r} is not KEY=VALUE", param_hint="--selector")
        labels.append((key, value))
    return labels


async def _propose(kubeconfig: Path | None, name: str, pool: str, selector: dict[str, str]) -> Proposal:
    from penstock_operator.init import gather, propose

    async with cluster_client(kubeconfig) as client:
        return propose(await gather(client), name=name, pool=pool, selector=selector or None)
