"""Processes are recorded so that another command can stop them, and only them."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from e2e.cluster.errors import StartError, StateError
from e2e.cluster.processes import Processes, start_ticks, wait_until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_another_process_stops_what_one_started(tmp_path: Path) -> None:
    started = Processes(tmp_path)
    record = started.start("sleeper", ["sleep", "60"])
    found = Processes(tmp_path)
    assert found.names() == ["sleeper"]
    assert found.running("sleeper")
    found.stop("sleeper")
    assert not started.running("sleeper")
    assert start_ticks(record.pid) is None
    started.stop("sleeper")


def test_a_pid_that_somebody_else_got_is_left_alone(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("sleeper", ["sleep", "60"])
    processes.stop("sleeper")
    path = tmp_path / "sleeper.json"
    stale = json.loads(path.read_text()) | {"pid": os.getpid()}
    path.write_text(json.dumps(stale))
    assert not processes.running("sleeper")
    processes.stop("sleeper")  # would end this test


def test_who_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("stubborn", python(STUBBORN))
    assert wait_until(lambda: "up" in processes.log("stubborn").read_text(), 10)
    began = time.monotonic()
    processes.stop("stubborn", grace=0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert not processes.running("stubborn")


def test_a_restart_repeats_command_and_environment(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start(
        "teller", python("import os, time; print(os.environ['WHO'], flush=True); time.sleep(60)"), {"WHO": "me"}
    )
    log = processes.log("teller")
    assert wait_until(lambda: log.read_text() == "me\n", 10)
    with pytest.raises(StateError, match="running already"):
        processes.restart("teller")
    processes.stop("teller", grace=0)
    processes.restart("teller")
    assert wait_until(lambda: log.read_text() == "me\nme\n", 10)
    processes.stop("teller", grace=0)


def test_a_frozen_process_goes_on_later(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    record = processes.start("sleeper", ["sleep", "60"])
    stat = Path(f"/proc/{record.pid}/stat")
    processes.pause("sleeper")
    assert wait_until(lambda: " T " in stat.read_text(), 5)
    processes.resume("sleeper")
    assert wait_until(lambda: " S " in stat.read_text(), 5)
    processes.stop("sleeper", grace=0)


def test_an_early_end_is_reported_with_the_log(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("broken", python("raise SystemExit('no such flag')"))
    with pytest.raises(StartError, match=r"broken ended.*\n.*no such flag"):
        processes.wait_ready("broken", lambda: False, 10)
    processes.start("slow", ["sleep", "60"])
    with pytest.raises(StartError, match="was not ready after 0 s"):
        processes.wait_ready("slow", lambda: False, 0.1)
    processes.stop("slow", grace=0)


def test_what_was_never_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="'ghost'"):
        Processes(tmp_path).record("ghost")
