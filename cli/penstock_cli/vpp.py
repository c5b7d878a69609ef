"""`penstock vpp`: what the containers of a pod with a VPP run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli import logs
from penstock_cli.failure import describe_validation, fail, reported
from penstock_cli.roles import FLOW_TABLE_SIZE, LogLevel

if TYPE_CHECKING:
    from penstock_vpp.settings import PodSettings

app = typer.Typer(no_args_is_help=True, help="Run a VPP as a data plane: prepare the node, start VPP, steer it.")

VppDir = Annotated[Path, typer.Option(envvar="PENSTOCK_VPP_DIR", help="Directory of VPP's sockets and startup files.")]
ShmDir = Annotated[Path, typer.Option(envvar="PENSTOCK_SHM_DIR", help="Directory of flow arena, frames and actions.")]
Program = Annotated[Path, typer.Option(envvar="PENSTOCK_VPP_PROGRAM", help="VPP's program.")]
PluginPath = Annotated[
    str | None, typer.Option(envvar="PENSTOCK_VPP_PLUGIN_PATH", help="Directories of plugins, separated by colons.")
]
XdpProgram = Annotated[
    Path | None,
    typer.Option(envvar="PENSTOCK_XDP_PROGRAM", help="What leads frames of a card of type AfXdp to VPP, compiled."),
]
FlowTableSize = Annotated[str, typer.Option(help=FLOW_TABLE_SIZE)]
Workers = Annotated[int, typer.Option(help="Threads that forward, each on a processor of its own; 0: the main one.")]
PageSize = Annotated[str, typer.Option(help="Pages that VPP's memory lies in: 4Ki, or hugepages of 2Mi or 1Gi.")]
ExclusiveCpus = Annotated[
    bool, typer.Option("--exclusive-cpus", help="Say so when the container's processors are not its own.")
]
Hugepages = Annotated[int, typer.Option("--hugepages-mebibytes", help="Memory in hugepages.")]
Cards = Annotated[
    list[str] | None,
    typer.Option("--card", help="A network card that VPP takes for itself, as in a DataPlane, in JSON; repeatable."),
]
NodeName = Annotated[str, typer.Option(envvar="NODE_NAME", help="Name of this node, by which cards find addresses.")]

VPP_DIR = Path("/run/vpp")
SHM_DIR = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
PROGRAM = Path("/usr/bin/vpp")


@app.command()
def prepare(
    vpp_dir: VppDir = VPP_DIR,
    shm_dir: ShmDir = SHM_DIR,
    program: Program = PROGRAM,
    plugin_path: PluginPath = None,
    xdp_program: XdpProgram = None,
    flow_table_size: FlowTableSize = "auto",
    workers: Workers = 0,
    exclusive_cpus: ExclusiveCpus = False,
    page_size: PageSize = "4Ki",
    hugepages: Hugepages = 0,
    card: Cards = None,
    node_name: NodeName = "",
    check: Annotated[bool, typer.Option("--check", help="Say what the node lacks, touch nothing, and end.")] = False,
    log_level: LogLevel = logs.LogLevel.INFO,
) -> None:
    """Check this node, then make the veth pair that VPP takes one end of.

    Needs root with NET_ADMIN. On a node that lacks something nothing is touched: each reason is printed with the
    commands that mend it, and the exit status is 1.
    """
    from penstock_node import NodeError
    from penstock_vpp import pod

    logs.configure(log_level)
    settings = _settings(
        vpp_dir=vpp_dir,
        shm_dir=shm_dir,
        program=program,
        plugin_path=plugin_path,
        xdp_program=xdp_program,
        flow_table_size=flow_table_size,
        workers=workers,
        exclusive_cpus=exclusive_cpus,
        page_size=page_size,
        hugepages_mebibytes=hugepages,
        cards=_cards(card or []),
        node_name=node_name,
    )
    with reported(NodeError):
        try:
            pod.prepare(settings, only_check=check)
        except pod.UnfitNodeError as error:
            for finding in error.findings:
                typer.echo(f"{finding.severity.value}: {finding.check}: {finding.message}", err=True)
                for command in finding.remedy:
                    typer.echo(f"    {command}", err=True)
            fail(f"VPP cannot run here: {len(error.findings)} findings above must be mended")


@app.command()
def start(
    vpp_dir: VppDir = VPP_DIR,
    shm_dir: ShmDir = SHM_DIR,
    program: Program = PROGRAM,
    plugin_path: PluginPath = None,
    xdp_program: XdpProgram = None,
    flow_table_size: FlowTableSize = "auto",
    workers: Workers = 0,
    exclusive_cpus: ExclusiveCpus = False,
    page_size: PageSize = "4Ki",
    hugepages: Hugepages = 0,
    card: Cards = None,
    node_name: NodeName = "",
    group: Annotated[int | None, typer.Option(help="Group id that may read frames and write actions.")] = None,
    log_level: LogLevel = logs.LogLevel.INFO,
) -> None:
    """Write startup.conf for this machine and run VPP under a supervisor, which starts it again when it ends.

    Needs root with NET_RAW and IPC_LOCK. SIGTERM ends VPP and changes nothing on the node.
    """
    from penstock_vpp import pod

    logs.configure(log_level)
    settings = _settings(
        vpp_dir=vpp_dir,
        shm_dir=shm_dir,
        program=program,
        plugin_path=plugin_path,
        xdp_program=xdp_program,
        flow_table_size=flow_table_size,
        workers=workers,
        exclusive_cpus=exclusive_cpus,
        page_size=page_size,
        hugepages_mebibytes=hugepages,
        cards=_cards(card or []),
        node_name=node_name,
        group=group,
    )
    raise typer.Exit(pod.start(settings))


@app.command()
def control(
    run_dir: Annotated[Path, typer.Option(envvar="PENSTOCK_RUN_DIR", help="Directory of the control socket.")] = Path(
        "/run/penstock"
    ),
    vpp_dir: VppDir = VPP_DIR,
    shm_dir: ShmDir = SHM_DIR,
    wire: Annotated[
        bool, typer.Option(help="Keep the veth pair, lead packets to VPP by it, and announce VIPs on this node.")
    ] = False,
    cards: Annotated[
        bool, typer.Option("--cards", help="Clients come by cards of VPP's own: lead no VIPs to the veth pair.")
    ] = False,
    interface: Annotated[
        list[str] | None,
        typer.Option(help="Interface on which traffic arrives; repeatable; default: those of the default routes."),
    ] = None,
    allow_uid: Annotated[
        list[int] | None, typer.Option(help="User id that may use the control socket, beside our own; repeatable.")
    ] = None,
    group: Annotated[int | None, typer.Option(help="Group id that may open the control socket.")] = None,
    allowed_vips: Annotated[
        Path | None, typer.Option(help="File with the addresses that VIPs may have, of the operator's; default: all.")
    ] = None,
    agent_state_dir: Annotated[
        Path | None, typer.Option(help="Directory of the agent's state, for members of the group to write.")
    ] = None,
    log_level: LogLevel = logs.LogLevel.INFO,
) -> None:
    """Answer the control socket for a VPP that runs beside: the same protocol as the embedded data plane's.

    With `--wire` needs root with NET_ADMIN (and NET_RAW to announce addresses). SIGTERM ends it and changes nothing.
    """
    from penstock_vpp import main
    from penstock_vpp.settings import Settings
    from pydantic import ValidationError

    logs.configure(log_level)
    try:
        settings = Settings(
            run_dir=run_dir,
            vpp_dir=vpp_dir,
            shm_dir=shm_dir,
            vpp_socket=vpp_dir / "api.sock",
            wire=wire,
            cards=cards,
            interfaces=tuple(interface or ()),
            allowed_uids=tuple(allow_uid or ()),
            group=group,
            agent_state_dir=agent_state_dir,
            allowed_vips=allowed_vips,
        )
    except ValidationError as error:
        fail(describe_validation(error))
    raise typer.Exit(main.run(settings))


def _cards(texts: list[str]) -> list[object]:
    try:
        return [json.loads(text) for text in texts]
    except ValueError as error:
        fail(f"--card: no JSON: {error}")


def _settings(**options: object) -> PodSettings:
    from penstock_vpp.settings import PodSettings
    from pydantic import ValidationError

    try:
        # What was not given keeps its default.
        return PodSettings.model_validate({name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        fail(describe_validation(error))
