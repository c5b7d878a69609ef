"""The supervisor with real processes: crashes, orphans, SIGTERM."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from penstock_embedded.supervisor import Backoff

from tests.support.lab import eventually

PROGRAM = """
import os, signal, sys, time
from penstock_embedded.supervisor import Backoff, Supervisor
def child(ready):
    with open(sys.argv[1], "a") as log:
        print(os.getpid(), time.monotonic(), file=log)
    {body}
    return 0
backoff = Backoff(first_seconds=0.05, longest_seconds=0.2, healthy_seconds={healthy})
Supervisor(child, backoff=backoff, stop_seconds=0.5).run()
"""


class Program:
    """A supervisor in a process, with a child that notes its starts."""

    def __init__(self, log: Path, body: str, healthy: float) -> None:
        self.log = log
        source = PROGRAM.format(body=body, healthy=healthy)
        self.process = subprocess.Popen([sys.executable, "-c", source, str(log)])

    def starts(self) -> list[tuple[int, float]]:
        if not self.log.exists():
            return []
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(pid), float(at)) for pid, at in lines]


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        program.process.kill()
        program.process.wait()


def start(programs: list[Program], tmp_path: Path, body: str, healthy: float = 60.0) -> Program:
    program = Program(tmp_path / "starts", body, healthy)
    programs.append(program)
    eventually(program.starts)
    return program


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_a_killed_child_is_back_in_less_than_a_second(programs: list[Program], tmp_path: Path) -> None:
    program = start(programs, tmp_path, "time.sleep(600)")
    killed_at = time.monotonic()
    os.kill(program.starts()[0][0], signal.SIGKILL)
    eventually(lambda: len(program.starts()) == 2)
    assert program.starts()[1][1] - killed_at < 1.0


def test_a_child_that_keeps_ending_is_restarted_ever_later_but_always(programs: list[Program], tmp_path: Path) -> None:
    program = start(programs, tmp_path, "raise RuntimeError('broken')")
    eventually(lambda: len(program.starts()) >= 7)
    at = [second for _, second in program.starts()[:7]]
    gaps = [after - before for before, after in itertools.pairwise(at)]
    assert gaps[0] < 0.05 + 0.1  # the first restart is immediate
    assert gaps[-1] >= 0.2  # bounded by longest_seconds from below, by the machine from above


def test_sigterm_ends_the_child_and_then_the_supervisor(programs: list[Program], tmp_path: Path) -> None:
    body = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); time.sleep(600)"
    program = start(programs, tmp_path, body)
    program.process.terminate()
    assert program.process.wait(5) == 0
    assert not alive(program.starts()[0][0])
    assert len(program.starts()) == 1


def test_a_child_that_ignores_sigterm_is_killed(programs: list[Program], tmp_path: Path) -> None:
    program = start(programs, tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")
    time.sleep(0.1)  # let the child set its handler
    program.process.terminate()
    assert program.process.wait(5) == 0
    assert not alive(program.starts()[0][0])


def test_sigterm_during_a_backoff_ends_the_supervisor(programs: list[Program], tmp_path: Path) -> None:
    program = start(programs, tmp_path, "return 1")
    program.process.terminate()
    assert program.process.wait(5) == 0


def test_a_killed_supervisor_takes_its_child_along(programs: list[Program], tmp_path: Path) -> None:
    program = start(programs, tmp_path, "time.sleep(600)")
    program.process.kill()
    program.process.wait()
    eventually(lambda: not alive(program.starts()[0][0]))


def test_orphans_are_reaped(programs: list[Program], tmp_path: Path) -> None:
    # A subreaper inherits orphans as PID 1 does.
    body = (
        "import ctypes; ctypes.CDLL(None).prctl(36, 0)\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0: time.sleep(0.2); os._exit(0)\n"
        "        os._exit(0)\n"
        "    time.sleep(600)"
    )
    program = Program.__new__(Program)
    program.log = tmp_path / "starts"
    source = "import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n" + PROGRAM.format(body=body, healthy=60.0)
    program.process = subprocess.Popen([sys.executable, "-c", source, str(program.log)])
    programs.append(program)
    eventually(program.starts)
    children = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children")
    eventually(lambda: len(children.read_text().split()) > 1)  # the orphan has come
    eventually(lambda: len(children.read_text().split()) == 1)  # and is gone, reaped


def test_kills_of_ready_data_planes_are_followed_by_a_restart_at_once(programs: list[Program], tmp_path: Path) -> None:
    program = start(programs, tmp_path, "ready(); time.sleep(600)", healthy=0.05)
    delays = []

    def started(times: int) -> Callable[[], bool]:
        return lambda: len(program.starts()) == times

    for number in range(1, 8):
        eventually(started(number))
        time.sleep(0.2)  # ready for longer than is healthy
        killed_at = time.monotonic()
        os.kill(program.starts()[-1][0], signal.SIGKILL)
        eventually(started(number + 1))
        delays.append(program.starts()[-1][1] - killed_at)
    # The last gap with a backoff would be the bound of 0.2 s; the smallest one is not spoilt by a busy machine.
    assert min(delays[3:]) < 0.15


def test_backoff_doubles_to_its_bound_while_starts_fail() -> None:
    backoff = Backoff(first_seconds=0.1, longest_seconds=1.0)
    assert [backoff.delay(n) for n in (0, 1, 2, 3, 4, 5, 6, 10_000)] == [0.0, 0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_backoff_of_runs_that_became_ready_is_short() -> None:
    backoff = Backoff(first_seconds=0.1, longest_seconds=5.0, longest_ready_seconds=0.4)
    assert [backoff.delay(n, became_ready=True) for n in (0, 1, 2, 5, 10_000)] == [0.0, 0.0, 0.1, 0.4, 0.4]
    assert Backoff().delay(10_000, became_ready=True) < 0.5
