"""Long-running processes that are recorded on disk, so that a later command can stop or restart them.

A record holds the pid together with the kernel's start time of that process: a pid that was reused after a crash is
never signalled.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.cluster.errors import StartError, StateError

# Children of this Python process by pid, to collect when they end. They may well outlive it and whoever started them.
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}

TERMINATION_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Record:
    """One process: how it was started and which process it is now (pid 0: stopped)."""

    name: str
    argv: list[str]
    environment: dict[str, str]
    log: str
    pid: int = 0
    start_ticks: int = 0


def exit_on_sigterm() -> None:
    """Let SIGTERM end this program as an exception does, so that it removes what it has set up."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def start_ticks(pid: int) -> int | None:
    """Return the kernel's start time of a living process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    state, ticks = fields[0], int(fields[19])
    return None if state in "ZX" else ticks


def last_lines(log: Path, count: int = 15) -> str:
    """Return the end of a log file, for error messages."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 16_384))
            return "\n".join(stream.read().decode(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return "(no log)"


def wait_until(ready: Callable[[], bool], seconds: float, *, interval: float = _POLL_SECONDS) -> bool:
    """Poll until `ready` holds or the time is over; return whether it holds."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


class Processes:
    """The processes of one cluster; `directory` holds a record and a log for each."""

    def __init__(self, directory: Path):
        self._directory = directory

    def names(self) -> list[str]:
        """Return the names of all recorded processes, stopped ones too, in the order they were first started."""
        records = sorted(self._directory.glob("*.json"), key=lambda path: (path.stat().st_ctime_ns, path.name))
        return [path.stem for path in records]

    def log(self, name: str) -> Path:
        """Return the path of a process's log."""
        return self._directory / f"{name}.log"

    def record(self, name: str) -> Record:
        """Return the record of a process."""
        try:
            return Record(**json.loads(self._path(name).read_text()))
        except FileNotFoundError:
            raise StateError(
                f"process {name!r} has no record in {self._directory}: it was never started here"
            ) from None

    def start(self, name: str, argv: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Record:
        """Start a process in a session of its own, its output appended to its log."""
        if self.running(name):
            raise StateError(f"process {name!r} is running already")
        self._directory.mkdir(parents=True, exist_ok=True)
        record = Record(name, [str(part) for part in argv], dict(environment or {}), str(self.log(name)))
        return self._spawn(record)

    def restart(self, name: str) -> Record:
        """Start a stopped process again exactly as it was started before."""
        if self.running(name):
            raise StateError(f"process {name!r} is running already")
        return self._spawn(self.record(name))

    def running(self, name: str) -> bool:
        """Say whether the recorded process lives."""
        try:
            record = self.record(name)
        except StateError:
            return False
        if start_ticks(record.pid) == record.start_ticks:
            return True
        child = _CHILDREN.pop(record.pid, None)
        if child is not None:
            child.wait()
        return False

    def stop(self, name: str, *, grace: float = TERMINATION_GRACE_SECONDS) -> None:
        """Terminate a process, kill it after the grace time; no effect if it is gone already."""
        if self.running(name):
            pid = self.record(name).pid
            self._signal(pid, signal.SIGTERM if grace > 0 else signal.SIGKILL)
            if not wait_until(lambda: not self.running(name), max(grace, 1.0)):
                self._signal(pid, signal.SIGKILL)
                if not wait_until(lambda: not self.running(name), 10):
                    raise StateError(f"process {name!r} (pid {pid}) survives SIGKILL: see /proc/{pid}/stack")

    def pause(self, name: str) -> None:
        """Freeze a process (SIGSTOP): it keeps its sockets and answers nothing."""
        self._signal(self.record(name).pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a frozen process go on."""
        self._signal(self.record(name).pid, signal.SIGCONT)

    def wait_ready(self, name: str, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready` holds; fail at once if the process ends first."""
        ended = False

        def done() -> bool:
            nonlocal ended
            ended = not self.running(name)
            return ended or ready()

        reached = wait_until(done, seconds, interval=0.05)
        if ended or not reached:
            reason = "ended" if ended else f"was not ready after {seconds:.0f} s"
            raise StartError(f"{name} {reason}; its log {self.log(name)} ends with:\n{last_lines(self.log(name))}")

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _spawn(self, record: Record) -> Record:
        with Path(record.log).open("ab") as log:
            child = subprocess.Popen(
                record.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **record.environment},
                start_new_session=True,
            )
        _CHILDREN[child.pid] = child
        started = Record(**{**asdict(record), "pid": child.pid, "start_ticks": start_ticks(child.pid) or 0})
        path = self._path(record.name)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(started), indent=1))
        temporary.replace(path)
        return started

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
