"""`penstock validate`: the operator's plan for files, or that of `penstock run`, without doing anything."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.agents import cluster_client
from penstock_cli.failure import fail, reported
from penstock_cli.roles import Kubeconfig

if TYPE_CHECKING:
    from penstock_api import KubeObject
    from penstock_api.files import Reading
    from penstock_operator.plan.dry import Outcome, Surroundings

STANDARD_INPUT = Path("-")
_NEXT = {  # by whether the cluster was looked at
    False: "Addresses and Services that are in the cluster already were not looked at: add --cluster for these.",
    True: "Apply them: kubectl apply -f ...",
}
_STANDALONE = "Without an AddressPool these are files for `penstock run`, and were validated for it."


def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="The same as --files.", show_default=False)
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--files", "-f", help="YAML file, directory of such files, or - for standard input; repeatable."),
    ] = None,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", "-c", help="Judge beside what is in the cluster: its nodes, Services, pools, VIPs."),
    ] = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say what the operator would do with files: accept or refuse, and which addresses VIPs would get.

    Without --cluster only the files count: every Service is taken to exist, and pools and DataPlanes must be among
    them. Files without an AddressPool whose VIPs all list addresses and endpoints are for `penstock run`, and validated
    as it reads them. The exit code is 1 if anything would be refused.
    """
    from penstock_kube import ApiError, KubeConfigError
    from penstock_operator.plan.dry import dry_run

    reading = _read([*(paths or ()), *(files or ())])
    for problem in reading.problems:
        typer.echo(problem.text, err=True)
    if not reading.objects and not reading.problems:
        fail("no object of penstock.dev in these files; name files with LoadBalancerVIPs, AddressPools, ...")
    if not cluster and _is_standalone([each.obj for each in reading.objects]):
        _finish(list(_run_outcomes(reading)), len(reading.problems), _STANDALONE)
        return
    with reported(ApiError, KubeConfigError):
        surroundings = asyncio.run(_surroundings(kubeconfig)) if cluster else None
        report = dry_run([each.obj for each in reading.objects], surroundings)
    _finish(list(report.outcomes), len(reading.problems), _NEXT[cluster])


def _read(paths: list[Path]) -> Reading:
    """Read all our objects of files and directories, each for itself."""
    from penstock_api.files import join, read_files, read_text

    if not paths:
        fail("name files or directories: penstock validate FILE...")
    readings = []
    for path in paths:
        try:
            readings.append(read_text(sys.stdin.read(), "-") if path == STANDARD_INPUT else read_files(path))
        except UnicodeDecodeError as error:
            fail(f"{path}: is not UTF-8 (byte {error.start}); save it as text")
        except OSError as error:
            fail(f"{path}: {error.strerror}; name a file or directory")
    return join(readings)


def _is_standalone(objects: list[KubeObject]) -> bool:
    """Tell whether files are for `penstock run`: nothing in them needs a cluster."""
    from penstock_api import AddressPool, LoadBalancerVIP

    vips = [each for each in objects if isinstance(each, LoadBalancerVIP)]
    if not vips or any(isinstance(each, AddressPool) for each in objects):
        return False
    return all(vip.spec.addresses is not None and vip.spec.backends.service is None for vip in vips)


def _run_outcomes(found: Reading) -> Iterator[Outcome]:
    """Say what `penstock run` would do with objects, on a machine with any addresses."""
    from penstock_agent import desired
    from penstock_agent.sources.files import snapshot_of
    from penstock_api import LoadBalancerVIP
    from penstock_api.standalone import select
    from penstock_operator.plan.dry import Outcome

    served = select(found)
    refused = {problem.identity: problem.text for problem in served.problems}
    placeholder = (ip_address("192.0.2.1"), ip_address("2001:db8:ffff::1"))
    plan = desired.plan(snapshot_of(served, node_name="", scheduler_key="0" * 32, addresses=placeholder), None)
    findings = {(each.owner.namespace, each.owner.name): each for each in plan.findings}
    for each in found.objects:
        obj, error = each.obj, refused.get(each.identity, "")
        warnings: tuple[str, ...] = ()
        addresses: tuple[str, ...] = ()
        if isinstance(obj, LoadBalancerVIP) and not error:
            finding = findings[obj.metadata.namespace, obj.metadata.name]
            error, warnings = "; ".join(finding.errors), finding.warnings
            addresses = tuple(map(str, obj.spec.addresses or ()))
        yield Outcome(obj.info.kind, obj.key, not error, "Refused", error, addresses, "", warnings)


def _finish(outcomes: list[Outcome], unread: int, advice: str) -> None:
    for outcome in outcomes:
        _print(outcome)
    refused = sum(not outcome.accepted for outcome in outcomes)
    if unread:
        fail(f"{unread} files or objects cannot be read, {refused} of {len(outcomes)} others would be refused")
    if refused:
        fail(f"{refused} of {len(outcomes)} objects would be refused")
    typer.echo(f"\n{len(outcomes)} objects would be accepted. {advice}")


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
