"""`penstock run`: data plane and agent out of YAML files, without Kubernetes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from penstock_cli import logs
from penstock_cli.failure import fail

if TYPE_CHECKING:
    from penstock_api import DataPlane
    from penstock_api.standalone import Served

STOP_SECONDS = 10.0
HEALTHY_SECONDS = 10.0  # of an agent, after which its end is a crash and no bad configuration
LONGEST_PAUSE_SECONDS = 30.0  # between two starts of an agent that keeps ending


class Places:
    """Where one standalone installation keeps its sockets, shared memory and state."""

    def __init__(self, root: Path, name: str) -> None:
        self.run = root / "run/penstock" / name
        self.shm = root / "dev/shm/penstock" / name
        self.state = root / "var/lib/penstock" / name

    def make(self) -> None:
        """Create the directory of the socket; without the others, data plane and agent do with less."""
        try:
            self.run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(f"{self.run}: {error.strerror}; the control socket needs this directory")


class _Process(Protocol):
    """As much of a child process as is needed here; `subprocess.Popen` has it."""

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class _Forked:
    """A child that goes on from here: it forwards as soon as it can, without another start of the interpreter."""

    def __init__(self, role: Callable[[], int]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._code: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                os.setpgid(0, 0)
                code = role()
            except BaseException:  # nothing may unwind into the frames of the parent
                traceback.print_exc()
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + timeout if timeout is not None else float("inf")
        while (code := self.poll()) is None:
            if time.monotonic() >= until:
                raise subprocess.TimeoutExpired("dataplane", timeout or 0.0)
            time.sleep(0.01)
        return code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._pid, number)


@dataclass
class _Child:
    start: Callable[[], _Process]
    process: _Process
    started: float
    failures: int = 0  # ends in a row, each soon after the start
    proven: bool = False  # it ran for a while once


class Processes:
    """The two roles as child processes, and what a signal asks of them.

    Each has a process group of its own: a terminal's Ctrl-C reaches only us.
    """

    def __init__(self) -> None:
        self._children: dict[str, _Child] = {}
        self._again: dict[str, float] = {}  # when those that ended are started again
        self.asked: int | None = None  # the signal that asked us to end

    def fork(self, name: str, role: Callable[[], int]) -> None:
        """Start a role in a copy of this process."""
        self._start(name, lambda: _Forked(role))

    def execute(self, name: str, arguments: list[str]) -> None:
        """Start `penstock NAME ARGUMENTS`."""
        command = [sys.executable, "-m", "penstock_cli", name, *arguments]
        self._start(name, lambda: subprocess.Popen(command, process_group=0))

    def _start(self, name: str, start: Callable[[], _Process]) -> None:
        self._children[name] = _Child(start, start(), time.monotonic())

    def wait(self) -> str | None:
        """Wait for a signal (None) or for a child that cannot go on (its name); an agent that crashed is started again.

        The data plane has a supervisor of its own, which ends only when it is told to.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        while self.asked is None:
            for name, child in self._children.items():
                if not self._goes_on(name, child, time.monotonic()):
                    return name
            time.sleep(0.1)
        return None

    def _goes_on(self, name: str, child: _Child, now: float) -> bool:
        lived = now - child.started
        if name in self._again:
            if now >= self._again[name]:
                del self._again[name]
                child.process, child.started = child.start(), now
            return True
        code = child.process.poll()
        if code is None:
            child.proven |= lived >= HEALTHY_SECONDS
            return True
        if name != "agent" or not child.proven:
            return False
        child.failures = 0 if lived >= HEALTHY_SECONDS else child.failures + 1
        pause = min(LONGEST_PAUSE_SECONDS, 0.5 * 2.0 ** min(child.failures, 10))
        self._again[name] = now + pause
        text = f"penstock: the agent ended with code {code}; traffic goes on, it starts again in {pause:g} s"
        typer.echo(text, err=True)
        return True

    def stop(self) -> None:
        """End the agent, then the data plane; traffic is forwarded until the last moment."""
        for child in reversed(self._children.values()):
            child.process.terminate()
            try:
                child.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

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

    Needs root. Objects and files that are bad are named; the others are served, and what was good before stays in
    force. Ctrl-C ends it and removes what it set up on the machine; SIGTERM, as a service manager sends for a
    restart, leaves everything in place, so that open connections go on when it is back.
    """
    if os.geteuid() != 0:
        fail("needs root: a TUN device, routes and nft rules are made; start it with sudo")
    dataplane = _dataplane_of(files, root)
    name = dataplane.metadata.name
    places = Places(root, name)
    places.make()
    processes = Processes()
    processes.fork("dataplane", lambda: _forward(dataplane, places, tuple(interface or ())))
    os.environ["PENSTOCK_NODE_ADDRESSES"] = ",".join(node_address or ())
    processes.execute(
        "agent",
        [
            f"--run-dir={places.run}",
            f"--shm-dir={places.shm}",
            "--source=files",
            f"--files={files}",
            f"--dataplane={name}",
            f"--state-dir={places.state}",
            f"--port={port}",
        ],
    )
    typer.echo(f"running {files} as DataPlane {name}; watch it with: penstock top --local", err=True)
    ended = processes.wait()
    if processes.asked == signal.SIGINT and not keep:
        _withdraw(places)
    processes.stop()
    if ended is not None:
        fail(f"the {ended} ended by itself; its last messages above say why")


def _forward(dataplane: DataPlane, places: Places, interfaces: tuple[str, ...]) -> int:
    """Be the data plane."""
    from penstock_embedded import main
    from penstock_embedded.settings import Settings

    logs.configure(logs.LogLevel.INFO)
    settings = Settings(
        run_dir=places.run,
        shm_dir=places.shm,
        flow_table_size=dataplane.spec.flow_table_size,
        interfaces=interfaces,
        shortcut=dataplane.spec.shortcut,
    )
    return main.run(settings)


def _dataplane_of(files: Path, root: Path) -> DataPlane:
    """Return the DataPlane in the files, the last good one if it went bad, or the default one; name what is bad."""
    from penstock_api import DataPlane
    from penstock_api.files import read_files
    from penstock_api.standalone import select

    if not files.exists():
        fail(f"--files: {files} does not exist; name a directory of YAML files, for example examples/standalone")
    try:
        reading = read_files(files)
    except OSError as error:
        fail(f"--files: {files}: {error.strerror}; check the path and its permissions")
    served = select(reading)
    if served.problems and served.data_plane is None:
        served = _with_last_good(root, lambda kept: select(reading, kept)) or served
    for problem in served.problems:
        typer.echo(f"penstock: {problem.text}", err=True)
    if served.problems and not served.objects:
        fail(f"nothing in {files} can be served; correct what is named above")
    return served.data_plane or DataPlane.model_validate({"metadata": {"name": "default"}})


def _with_last_good(root: Path, choose: Callable[..., Served]) -> Served | None:
    """Choose with the last good state of the one installation here whose DataPlane was in these files."""
    from penstock_agent.sources.files import last_good

    states = root / "var/lib/penstock"
    choices = [choose(last_good(path)) for path in sorted(states.glob("*")) if path.is_dir()]
    found = [served for served in choices if served.data_plane is not None]
    return found[0] if len(found) == 1 else next((served for served in choices if served.objects), None)


def _withdraw(places: Places) -> None:
    from penstock_embedded.client import ControlError, request
    from penstock_embedded.messages import Method

    try:
        request(places.run / "control.sock", Method.WITHDRAW, timeout=STOP_SECONDS)
    except ControlError as error:
        typer.echo(f"penstock: not everything could be removed from this machine: {error}", err=True)
