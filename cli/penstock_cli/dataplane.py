"""`penstock dataplane`: the embedded data plane, or a question to one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli import logs
from penstock_cli.failure import describe_validation, fail, reported
from penstock_cli.roles import FLOW_TABLE_SIZE, LogLevel

if TYPE_CHECKING:
    from penstock_embedded.settings import Settings

RunDir = Annotated[Path, typer.Option(envvar="PENSTOCK_RUN_DIR", help="Directory of the control socket.")]
ShmDir = Annotated[
    Path, typer.Option(envvar="PENSTOCK_SHM_DIR", help="Shared-memory directory: flow arena, frames, actions.")
]
FlowTableSize = Annotated[str, typer.Option(envvar="PENSTOCK_FLOW_TABLE_SIZE", help=FLOW_TABLE_SIZE)]
Queues = Annotated[int, typer.Option(help="TUN queues, each with a packet thread of its own.")]
AllowUid = Annotated[
    list[int] | None, typer.Option(help="User id that may use the control socket, beside our own; repeatable.")
]
Group = Annotated[
    int | None, typer.Option(help="Group id that may open the control socket, read frames and write actions.")
]
AllowedVips = Annotated[
    Path | None, typer.Option(help="File with the addresses that VIPs may have, of the operator's; default: all.")
]
AgentStateDir = Annotated[
    Path | None, typer.Option(help="Directory of the agent's state, for members of the group to write.")
]
Interfaces = Annotated[
    list[str] | None,
    typer.Option(help="Interface on which traffic arrives; repeatable; default: those of the default routes."),
]
Shortcut = Annotated[
    bool,
    typer.Option(envvar="PENSTOCK_SHORTCUT", help="Take plain packets to the TUN past the node's routing and filters."),
]
GraceSeconds = Annotated[
    float, typer.Option(help="How long weights stay in force after the agent's last sign of life.")
]
Probe = Annotated[
    bool, typer.Option("--probe", help="Ask the running data plane for a sign of life and end: 0 if it answers.")
]
Withdraw = Annotated[
    bool, typer.Option("--withdraw", help="Have the data plane remove all it has put on this node, and end.")
]
Preflight = Annotated[
    bool, typer.Option("--preflight", help="Check what this node must offer, print remedies, and end.")
]

RUN_DIR = Path("/run/penstock")
SHM_DIR = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives


def dataplane(
    run_dir: RunDir = RUN_DIR,
    shm_dir: ShmDir = SHM_DIR,
    flow_table_size: FlowTableSize = "auto",
    queues: Queues = 1,
    allow_uid: AllowUid = None,
    group: Group = None,
    allowed_vips: AllowedVips = None,
    agent_state_dir: AgentStateDir = None,
    interface: Interfaces = None,
    shortcut: Shortcut = True,
    grace_seconds: GraceSeconds = 30.0,
    probe: Probe = False,
    withdraw: Withdraw = False,
    preflight: Preflight = False,
    log_level: LogLevel = logs.LogLevel.INFO,
) -> None:
    """Run the embedded data plane under its supervisor.

    Needs root with NET_ADMIN (and NET_RAW to announce addresses) and /dev/net/tun. SIGTERM ends it and changes
    nothing on the node; only `--withdraw`, or the agent, removes what it has set up.
    """
    logs.configure(log_level)
    settings = _settings(
        run_dir=run_dir,
        shm_dir=shm_dir,
        flow_table_size=flow_table_size,
        queues=queues,
        allowed_uids=tuple(allow_uid or ()),
        group=group,
        agent_state_dir=agent_state_dir,
        allowed_vips=allowed_vips,
        interfaces=tuple(interface or ()),
        shortcut=shortcut,
        grace_seconds=grace_seconds,
    )
    if probe:
        _probe(settings)
    elif withdraw:
        _withdraw(settings)
    elif preflight:
        _preflight(settings)
    else:
        _run(settings)


def _settings(**given: Any) -> Settings:
    from penstock_embedded.settings import Settings
    from pydantic import ValidationError

    try:
        return Settings(**given)
    except ValidationError as error:
        fail(describe_validation(error))


def _run(settings: Settings) -> None:
    from penstock_embedded import main

    raise typer.Exit(main.run(settings))


def _preflight(settings: Settings) -> None:
    from penstock_cli.preflight import preflight

    preflight(settings)


def _probe(settings: Settings) -> None:
    from penstock_embedded import main
    from penstock_embedded.client import ControlError

    with reported(ControlError):
        hello, stats = main.probe(settings)
    typer.echo(f"instance {hello.instance_id}, up {stats.uptime_seconds:.0f} s, {stats.flows} flows")


def _withdraw(settings: Settings) -> None:
    from penstock_embedded import main
    from penstock_embedded.client import ControlError

    with reported(ControlError):
        main.withdraw(settings)
