"""`penstock run`: data plane and agent out of YAML files, without Kubernetes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.failure import fail, reported

if TYPE_CHECKING:
    from penstock_api import DataPlane

STOP_SECONDS = 10.0


class Places:
    """Where one standalone installation keeps its sockets, shared memory and state."""

    def __init__(self, root: Path, name: str) -> None:
        self.run = root / "run/penstock" / name
        self.shm = root / "dev/shm/penstock" / name
        self.state = root / "var/lib/penstock" / name

    def make(self) -> None:
        """Create the directories that are missing."""
        for directory in (self.run, self.shm, self.state):
            directory.mkdir(parents=True, exist_ok=True)


class Processes:
    """The two roles as child processes, and what a signal asks of them."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self.asked: int | None = None  # the signal that asked us to end

    def start(self, name: str, arguments: list[str]) -> None:
        """Start `penstock NAME ARGUMENTS` in a process group of its own: a terminal's Ctrl-C reaches only us."""
        command = [sys.executable, "-m", "penstock_cli", name, *arguments]
        self._children[name] = subprocess.Popen(command, process_group=0)

    def wait(self) -> str | None:
        """Wait for a signal (None) or for a child that ended by itself (its name)."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        while self.asked is None:
            for name, child in self._children.items():
                if child.poll() is not None:
                    return name
            time.sleep(0.1)
        return None

    def stop(self) -> None:
        """End the agent, then the data plane; traffic is forwarded until the last moment."""
        for child in reversed(self._children.values()):
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.asked = number


def run(
    files: Annotated[
        Path, typer.Option("--files", "-f", help="Directory of YAML files (or one file); changes take effect at once.")
    ],
    root: Annotated[Path, typer.Option(help="Where run/, dev/shm/ and var/lib/ are; for tests.")] = Path("/"),
    node_address: Annotated[
        list[str] | None,
        typer.Option(help="Address of this machine that backends answer to; repeatable; default: the default route's."),
    ] = None,
    interface: Annotated[
        list[str] | None,
        typer.Option(help="Interface on which clients arrive; repeatable; default: those of the default routes."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the agent's /metrics, /healthz and /state.")] = 9402,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave device, routes and flows in place on Ctrl-C, as SIGTERM always does.")
    ] = False,
) -> None:
    """Balance load on this machine alone: the same data plane and agent as in a cluster, configured by files.

    Needs root. Ctrl-C ends it and removes what it set up on the machine; SIGTERM, as a service manager sends for a
    restart, leaves everything in place, so that open connections go on when it is back.
    """
    if os.geteuid() != 0:
        fail("needs root: a TUN device, routes and nft rules are made; start it with sudo")
    dataplane = _dataplane_of(files)
    places = Places(root, dataplane.metadata.name)
    places.make()
    common = [f"--run-dir={places.run}", f"--shm-dir={places.shm}"]
    processes = Processes()
    processes.start(
        "dataplane",
        [
            *common,
            f"--flow-table-size={dataplane.spec.flow_table_size}",
            *([] if dataplane.spec.shortcut else ["--no-shortcut"]),
            *(f"--interface={name}" for name in interface or ()),
        ],
    )
    os.environ["PENSTOCK_NODE_ADDRESSES"] = ",".join(node_address or ())
    processes.start(
        "agent", [*common, "--source=files", f"--files={files}", f"--state-dir={places.state}", f"--port={port}"]
    )
    typer.echo(f"running {files} as DataPlane {dataplane.metadata.name}; watch it with: penstock top --local", err=True)
    ended = processes.wait()
    if processes.asked == signal.SIGINT and not keep:
        _withdraw(places)
    processes.stop()
    if ended is not None:
        fail(f"the {ended} ended by itself; its last messages above say why")


def _dataplane_of(files: Path) -> DataPlane:
    """Return the DataPlane in the files, or the default one."""
    from penstock_api import DataPlane, KindError, parse_yaml

    if not files.exists():
        fail(f"--files: {files} does not exist; name a directory of YAML files, for example examples/standalone")
    paths = sorted([*files.glob("*.yaml"), *files.glob("*.yml")]) if files.is_dir() else [files]
    with reported(KindError, OSError):
        objects = [item for path in paths for item in parse_yaml(path.read_text(), foreign="skip")]
    found = [item for item in objects if isinstance(item, DataPlane)]
    return found[0] if found else DataPlane.model_validate({"metadata": {"name": "default"}})


def _withdraw(places: Places) -> None:
    from penstock_embedded.client import ControlError, request
    from penstock_embedded.messages import Method

    try:
        request(places.run / "control.sock", Method.WITHDRAW, timeout=STOP_SECONDS)
    except ControlError as error:
        typer.echo(f"penstock: not everything could be removed from this machine: {error}", err=True)
