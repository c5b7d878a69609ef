"""The first process of a data-plane pod: keeps one child running and reaps what is orphaned.

The child is forked, not executed: everything is imported already, so that a data plane that crashed is
back within milliseconds. Nothing here touches the node; SIGTERM ends the child and changes nothing else.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import structlog

log = structlog.get_logger()

HANDLED = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
PR_SET_PDEATHSIG = 1
_SECONDS = struct.Struct("d")

Child = Callable[[Callable[[], None]], int]  # gets what it calls when it is ready, returns its exit code


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a restart: at once after a healthy run, doubling while starts fail.

    A run is healthy that became ready and stayed so for a while, however it ended then. A start that fails will fail
    again: it waits longest. One that became ready and ended soon may be met by the same packet, or be killed: traffic
    waits for it, so it waits little.
    """

    first_seconds: float = 0.05
    longest_seconds: float = 5.0  # while starts fail
    longest_ready_seconds: float = 0.4  # while runs become ready and end soon
    healthy_seconds: float = 1.0  # a run that was ready this long starts the count afresh

    def delay(self, short_runs: int, *, became_ready: bool = False) -> float:
        """Return the pause before the next start, after so many short runs in a row; the first costs nothing."""
        if short_runs <= 1:
            return 0.0
        longest = self.longest_ready_seconds if became_ready else self.longest_seconds
        return min(longest, self.first_seconds * 2.0 ** min(short_runs - 2, 30))


class Readiness:
    """What a child tells its supervisor: since when it has been ready. In memory that both have."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SECONDS.size)

    def announce(self) -> None:
        """Note that this process is ready."""
        self._memory[:] = _SECONDS.pack(time.monotonic())

    def reset(self) -> None:
        """Prepare for the next process."""
        self._memory[:] = _SECONDS.pack(0.0)

    @property
    def since(self) -> float | None:
        """Monotonic seconds; None where the process did not become ready."""
        seconds: float = _SECONDS.unpack(self._memory[:])[0]
        return seconds or None


class Supervisor:
    """Runs `child` in a process of its own until told to stop."""

    def __init__(self, child: Child, *, backoff: Backoff | None = None, stop_seconds: float = 8.0) -> None:
        self._child = child
        self._backoff = backoff or Backoff()
        self._stop_seconds = stop_seconds
        self._pid: int | None = None
        self._readiness = Readiness()
        self._short_runs = 0
        self._start_at: float | None = 0.0  # monotonic seconds; None: not to be started
        self._kill_at: float | None = None
        self._stopping = False

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; return the exit code for the process."""
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            while self._pid is not None or self._start_at is not None:
                self._start_if_due()
                self._wait()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        return 0

    def _start_if_due(self) -> None:
        now = time.monotonic()
        if self._pid is None and self._start_at is not None and now >= self._start_at:
            self._readiness.reset()
            self._pid, self._start_at = _fork(lambda: self._child(self._readiness.announce)), None
            log.info("data plane started", pid=self._pid)
        if self._kill_at is not None and now >= self._kill_at and self._pid is not None:
            log.warning("data plane did not stop in time: killing it", pid=self._pid, seconds=self._stop_seconds)
            os.kill(self._pid, signal.SIGKILL)
            self._kill_at = None

    def _wait(self) -> None:
        due = [at for at in (self._start_at, self._kill_at) if at is not None]
        timeout = max(0.0, min(due) - time.monotonic()) if due else 3600.0
        received = signal.sigtimedwait(HANDLED, timeout)
        if received is None:
            return
        if received.si_signo == signal.SIGCHLD:
            self._reap()
        elif received.si_signo in (signal.SIGTERM, signal.SIGINT):
            self._stop()

    def _stop(self) -> None:
        self._stopping, self._start_at = True, None
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)
            self._kill_at = time.monotonic() + self._stop_seconds

    def _reap(self) -> None:
        # One SIGCHLD may stand for several children; as PID 1 we inherit those of others too.
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._ended(status)

    def _ended(self, status: int) -> None:
        self._pid = self._kill_at = None
        if self._stopping:
            log.info("data plane stopped", code=os.waitstatus_to_exitcode(status))
            return
        now, ready = time.monotonic(), self._readiness.since
        healthy = ready is not None and now - ready >= self._backoff.healthy_seconds
        self._short_runs = 0 if healthy else self._short_runs + 1
        delay = self._backoff.delay(self._short_runs, became_ready=ready is not None)
        self._start_at = now + delay
        code = os.waitstatus_to_exitcode(status)
        log.error("data plane ended", code=code, was_ready=ready is not None, restart_in_seconds=delay)


def _fork(child: Callable[[], int]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _run_child(child, parent)
    return pid


def _run_child(child: Callable[[], int], parent: int) -> NoReturn:
    code = 1
    try:
        # A supervisor that is killed takes its child along, so that a new one finds the arena's lock free.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() == parent:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            code = child()
    except BaseException:  # nothing may unwind into the frames of the supervisor
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
