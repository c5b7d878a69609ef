"""What a user's shell needs to work with a cluster: KUBECONFIG, and on PATH the programs that fit it.

`make cluster-up` writes it to build/cluster; `. build/cluster/env` takes it in.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from pathlib import Path

from e2e.cluster import binaries
from e2e.cluster.errors import StateError
from e2e.cluster.provider import Provider

FOLDER = Path(__file__).parents[2] / "build" / "cluster"


def write(cluster: Provider, folder: Path = FOLDER) -> Path:
    """Write the programs and the file `env`; return its path."""
    remove(folder)
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in ("kubectl", "helm"):
        (programs / name).symlink_to(binaries.program(name))
    (programs / "penstock").symlink_to(Path(sys.executable).parent / "penstock")
    with contextlib.suppress(StateError):  # a provider without a client machine: its network is reached from here
        _write_client(programs / "client", cluster.client_command())
    path = folder / "env"
    path.write_text(
        f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}\nexport PATH={shlex.quote(str(programs))}:$PATH\n"
    )
    return path


def remove(folder: Path = FOLDER) -> None:
    """Remove what `write` wrote."""
    shutil.rmtree(folder, ignore_errors=True)


def _write_client(path: Path, command: list[str]) -> None:
    path.write_text(
        "#!/bin/sh\n"
        "# client COMMAND...: runs a command on a machine outside of the cluster, on the network of its nodes.\n"
        f'exec {shlex.join(command)} "$@"\n'
    )
    path.chmod(0o755)
