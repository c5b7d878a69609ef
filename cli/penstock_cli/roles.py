"""The roles `agent` and `operator`, and options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from penstock_cli import logs
from penstock_cli.failure import reported

LogLevel = Annotated[
    logs.LogLevel, typer.Option("--log-level", envvar="PENSTOCK_LOG_LEVEL", help="Least severe message to be logged.")
]
FLOW_TABLE_SIZE = "Flows that the arena has room for; `auto`: by the machine's memory, 65,536 to 1,048,576."
Kubeconfig = Annotated[
    Path | None,
    typer.Option(help="Kubeconfig file; without it the pod's own, then $KUBECONFIG, then ~/.kube/config."),
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", envvar="POD_NAMESPACE", help="Namespace of the installation.")
]


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
