"""`penstock dataplane --preflight`: what this node lacks, with the commands that give it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from penstock_cli.failure import fail, reported

if TYPE_CHECKING:
    from penstock_embedded.settings import Settings


def preflight(settings: Settings) -> None:
    """Check the node against the settings and the default NAT ports; exit 1 if traffic would not flow."""
    from penstock_agent.errors import ConfigError
    from penstock_agent.sources.files import default_addresses
    from penstock_api import NatSource as DefaultSource
    from penstock_node import DesiredNode, NatSource, NodeError, Severity, Surroundings, Tun
    from penstock_node import preflight as check

    ports = DefaultSource()
    with reported(NodeError, ConfigError):
        addresses = default_addresses()
        desired = DesiredNode(
            tun=Tun(name=settings.device, queues=settings.queues),
            nat_sources=frozenset(NatSource(each, ports.port_first, ports.port_last) for each in addresses),
            interfaces=settings.interfaces,
        )
        surroundings = Surroundings(
            announce=True, shared_memory=settings.shm_dir, shared_memory_bytes=_arena_bytes(settings)
        )
        findings = check(desired, surroundings)
    for finding in findings:
        typer.echo(f"{finding.severity.value}: {finding.check}: {finding.message}")
        for command in finding.remedy:
            typer.echo(f"    {command}")
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    if errors:
        fail(f"{errors} of {len(findings)} findings must be mended before traffic flows; the commands are above")
    typer.echo(f"this node is fit, with {len(findings)} warnings" if findings else "this node is fit")


def _arena_bytes(settings: Settings) -> int:
    """Return what the next start takes of the shared-memory directory; nothing where an arena is, or no directory."""
    from penstock_embedded.sizing import BYTES_PER_FLOW, size_on_this_machine

    if settings.arena_path.exists() or not settings.shm_dir.is_dir():
        return 0
    flows = settings.flow_table_size or size_on_this_machine(settings.shm_dir)
    return flows * BYTES_PER_FLOW // 2  # those are for two tables
