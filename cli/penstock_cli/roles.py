"""The roles that pods and services start: `dataplane`, `agent`, `operator`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli import logs
from penstock_cli.failure import describe_validation, fail, reported

if TYPE_CHECKING:
    from penstock_embedded.settings import Settings

LogLevel = Annotated[
    logs.LogLevel, typer.Option("--log-level", envvar="PENSTOCK_LOG_LEVEL", help="Least severe message to be logged.")
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(help="Kubeconfig file; without it the pod's own, then $KUBECONFIG, then ~/.kube/config."),
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", envvar="POD_NAMESPACE", help="Namespace of the installation.")
]


def dataplane(
    run_dir: Annotated[Path, typer.Option(envvar="PENSTOCK_RUN_DIR", help="Directory of the control socket.")] = Path(
        "/run/penstock"
    ),
    shm_dir: Annotated[
        Path, typer.Option(envvar="PENSTOCK_SHM_DIR", help="Shared-memory directory: flow arena, frames, actions.")
    ] = Path("/dev/shm"),  # noqa: S108 - where POSIX shared memory lives
    flow_table_size: Annotated[
        int, typer.Option(envvar="PENSTOCK_FLOW_TABLE_SIZE", help="Flows that the arena has room for.")
    ] = 65_536,
    queues: Annotated[int, typer.Option(help="TUN queues, each with a packet thread of its own.")] = 1,
    allow_uid: Annotated[
        list[int] | None, typer.Option(help="User id that may use the control socket, beside our own; repeatable.")
    ] = None,
    group: Annotated[
        int | None, typer.Option(help="Group id that may open the control socket, read frames and write actions.")
    ] = None,
    allowed_vips: Annotated[
        Path | None, typer.Option(help="File with the addresses that VIPs may have, of the operator's; default: all.")
    ] = None,
    agent_state_dir: Annotated[
        Path | None, typer.Option(help="Directory of the agent's state, for members of the group to write.")
    ] = None,
    interface: Annotated[
        list[str] | None,
        typer.Option(help="Interface on which traffic arrives; repeatable; default: those of the default routes."),
    ] = None,
    shortcut: Annotated[
        bool,
        typer.Option(
            envvar="PENSTOCK_SHORTCUT", help="Take plain packets to the TUN past the node's routing and filters."
        ),
    ] = True,
    grace_seconds: Annotated[
        float, typer.Option(help="How long weights stay in force after the agent's last sign of life.")
    ] = 30.0,
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask the running data plane for a sign of life and end: 0 if it answers.")
    ] = False,
    withdraw: Annotated[
        bool,
        typer.Option("--withdraw", help="Have the data plane remove all it has put on this node, and end."),
    ] = False,
    preflight: Annotated[
        bool, typer.Option("--preflight", help="Check what this node must offer, print remedies, and end.")
    ] = False,
    log_level: LogLevel = logs.LogLevel.INFO,
) -> None:
    """Run the embedded data plane under its supervisor.

    Needs root with NET_ADMIN (and NET_RAW to announce addresses) and /dev/net/tun. SIGTERM ends it and changes
    nothing on the node; only `--withdraw`, or the agent, removes what it has set up.
    """
    from penstock_embedded import main
    from penstock_embedded.settings import Settings
    from pydantic import ValidationError

    from penstock_cli.preflight import preflight as check_node

    logs.configure(log_level)
    try:
        settings = Settings(
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
    except ValidationError as error:
        fail(describe_validation(error))
    if probe:
        _probe(settings)
    elif withdraw:
        _withdraw(settings)
    elif preflight:
        check_node(settings)
    else:
        raise typer.Exit(main.run(settings))


def agent(
    source: Annotated[str | None, typer.Option(help="Where the desired state is: `kubernetes` or `files`.")] = None,
    files: Annotated[
        Path | None, typer.Option("--files", "-f", help="For source `files`: a directory of YAML files, watched.")
    ] = None,
    node_name: Annotated[str | None, typer.Option(help="Name of this node; default: $NODE_NAME.")] = None,
    dataplane: Annotated[str | None, typer.Option(help="Name of the DataPlane that this agent serves.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Directory of the data plane's control socket.")] = None,
    shm_dir: Annotated[Path | None, typer.Option(help="Shared-memory directory.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where the last good state is kept.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Namespace of the installation.")] = None,
    kubeconfig: Kubeconfig = None,
    port: Annotated[int | None, typer.Option(help="Port of /metrics, /healthz and /state; 0: any.")] = None,
    log_level: LogLevel = logs.LogLevel.INFO,
) -> None:
    """Run the agent beside a data plane: desired state to it, frames from it, weights back.

    Every option can also be given as an environment variable, PENSTOCK_ and its name in capitals.
    """
    from penstock_agent import main
    from penstock_agent.errors import ConfigError
    from penstock_agent.settings import Settings

    logs.configure(log_level)
    given = {
        "source": source,
        "files": files,
        "node_name": node_name,
        "dataplane": dataplane,
        "run_dir": run_dir,
        "shm_dir": shm_dir,
        "state_dir": state_dir,
        "namespace": namespace,
        "kubeconfig": kubeconfig,
        "port": port,
    }
    overrides = {f"PENSTOCK_{name.upper()}": str(value) for name, value in given.items() if value is not None}
    with reported(ConfigError):
        settings = Settings.from_environment({**os.environ, **overrides})
    main.run(settings)


def operator(
    kubeconfig: Kubeconfig = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig; default: its current one.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace of the installation; default: $POD_NAMESPACE.")
    ] = None,
    agent_image: Annotated[str | None, typer.Option(help="Image of agent pods.")] = None,
    dataplane_image: Annotated[str | None, typer.Option(help="Image of data-plane pods of type embedded.")] = None,
    vpp_image: Annotated[str | None, typer.Option(help="Image of data-plane pods of type vpp.")] = None,
    health_port: Annotated[int | None, typer.Option(help="Port of /healthz; 0: any.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Port of /metrics; 0: any.")] = None,
    log_level: LogLevel = logs.LogLevel.INFO,
) -> None:
    """Run the operator: in the cluster, or outside with a kubeconfig, for development.

    Every option can also be given as an environment variable, PENSTOCK_ and its name in capitals. Several may run:
    the one that holds the Lease works; a process that loses it ends.
    """
    from penstock_operator import main
    from penstock_operator.settings import Settings, SettingsError

    with reported(SettingsError):
        settings = Settings.from_environment(
            kubeconfig=str(kubeconfig) if kubeconfig else None,
            context=context,
            namespace=namespace,
            agent_image=agent_image,
            dataplane_image=dataplane_image,
            vpp_image=vpp_image,
            health_port=health_port,
            metrics_port=metrics_port,
            log_level=log_level.value,
        )
    raise typer.Exit(main.run(settings))


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
