"""Nothing of the laboratory outlives it, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.lab import eventually
from tools.lab.errors import LabError
from tools.lab.groups import Group, Hierarchies
from tools.lab.isolation import PREFIX, isolated

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("limits")]

PATIENCE = 100.0

FOREVER = """
from tools.lab.isolation import isolated
with isolated() as isolation:
    isolation.run(["sh", "-c", "sleep 1000 & echo started; sleep 1000"], 1000)
"""


def processes(group: Group) -> list[int]:
    """Those in a group and in the groups below it."""
    files = [file for path in group.paths for file in path.glob("**/cgroup.procs")]
    return [int(line) for file in files for line in file.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_all_is_removed_after_a_kill(number: signal.Signals) -> None:
    program = subprocess.Popen([sys.executable, "-c", FOREVER], stdout=-1, stderr=subprocess.DEVNULL, text=True)
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "started\n"
        group = Group(Hierarchies.find(), f"{PREFIX}{program.pid}")
        running = processes(group)
        program.send_signal(number)
        program.wait(20)
    assert len(running) >= 3
    # On a busy machine the watcher may still be starting.
    eventually(lambda: not any(path.exists() for path in group.paths), seconds=PATIENCE)
    eventually(lambda: not any(Path("/proc", str(pid)).exists() for pid in running), seconds=PATIENCE)


def test_a_part_that_fails_is_reported() -> None:
    with pytest.raises(LabError, match="no such thing"), isolated("x") as isolation:
        isolation.run(["sh", "-c", "echo no such thing >&2; exit 3"], 20)
    assert not any(path.exists() for path in isolation.group.paths)


def test_a_part_that_takes_too_long_is_ended() -> None:
    with pytest.raises(LabError, match="was not done after 1 s"), isolated("y") as isolation:
        isolation.run(["sleep", "1000"], 1)
    assert not any(path.exists() for path in isolation.group.paths)


def test_names_and_files_of_the_part_stay_in_it() -> None:
    with isolated("z") as isolation:
        isolation.run(["sh", "-ec", "ip link set lo up; mount -t tmpfs lab /mnt; touch /mnt/penstock-lab-file"], 20)
    assert not Path("/mnt/penstock-lab-file").exists()
