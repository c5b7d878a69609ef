"""Network namespaces for tests: make them, join them with veth pairs, run Python or programs inside.

`Namespace.run(function, ...)` calls a function in a fresh thread that has joined the namespace, so closures,
results and exceptions pass as usual. What the function opens (sockets, netlink, child processes) stays in the
namespace when used from other threads later; `Path("/sys/class/net")` does not follow, /proc/sys/net does.

    with Namespace("pn-lb") as lb, Namespace("pn-client") as client:
        connect(lb, "eth0", client, "eth0")
        lb.sh("ip addr add 10.0.0.1/24 dev eth0")
        listener = client.run(socket.create_server, ("10.0.0.2", 80))
        server = lb.popen(["python3", "-m", "http.server"])
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


class Namespace:
    """A network namespace that lives as long as the `with` block, with `lo` up and an unused name.

    `prefix` starts the name that `ip netns` shows; it tells whose namespaces these are. Programs started by
    `popen` are killed at the end, so that nothing outlives the test.
    """

    def __init__(self, prefix: str = "pn") -> None:
        self.name = f"{prefix}-{os.getpid()}-{next(_numbers)}"
        self._programs: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        self.sh("ip link set lo up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """File that stands for the namespace, for setns(2)."""
        return Path("/run/netns") / self.name

    def close(self) -> None:
        """Kill the programs started here and delete the namespace with all devices in it."""
        for program in self._programs:
            program.kill()
            program.communicate()
        self._programs.clear()
        _ip("netns", "delete", self.name)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function inside the namespace and return, or raise, what it does."""
        results: list[T] = []
        errors: list[BaseException] = []

        def call() -> None:
            try:
                self._join()
                results.append(function(*args, **kwargs))
            except BaseException as error:  # handed to the caller below
                errors.append(error)

        thread = threading.Thread(target=call, name=self.name)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def sh(self, commands: str) -> str:
        """Run one command per line, each of which must succeed, and return their output."""
        lines = filter(None, map(str.strip, commands.splitlines()))
        return "".join(self._check_output(shlex.split(line)) for line in lines)

    def shell(self, script: str) -> str:
        """Run a shell script (quotes, pipes, here-documents) that must succeed and return its output."""
        return self._check_output(["sh", "-ec", script])

    def popen(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.DEVNULL,
        stderr: int | IO[Any] | None = None,
        text: bool = True,
    ) -> subprocess.Popen[Any]:
        """Start a program inside; it is killed when the namespace ends."""
        program = self.run(subprocess.Popen, list(command), stdin=stdin, stdout=stdout, stderr=stderr, text=text)
        self._programs.append(program)
        return program

    def _check_output(self, command: Sequence[str]) -> str:
        done = self.run(subprocess.run, command, capture_output=True, text=True, timeout=20)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {shlex.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _join(self) -> None:
        with self.path.open() as file:
            if _libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.name}")


def connect(left: Namespace, left_device: str, right: Namespace, right_device: str) -> None:
    """Join two namespaces with a veth pair, both ends up. MAC addresses are the kernel's."""
    _ip(
        *("link", "add", left_device, "netns", left.name, "type", "veth"),
        *("peer", "name", right_device, "netns", right.name),
    )
    left.sh(f"ip link set {left_device} up")
    right.sh(f"ip link set {right_device} up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)
