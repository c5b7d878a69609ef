"""Runs a part of the laboratory so that nothing of it outlives it, however it ends.

The part has namespaces of its own for processes, mounts and networks: when its first process is killed, the kernel ends
all others, and its networks and memory files go with them. Control groups stay behind in that case. A watcher, in a
session of its own, waits for the end of this program, ends the part and removes the groups. It does so after a good
end as well, so that there is one way to clean up.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from e2e.cluster.processes import start_ticks
from tools.lab.errors import LabError
from tools.lab.groups import Group, Hierarchies, left_behind

PREFIX = "penstock-lab-"
_ROOT = Path(__file__).parents[2]
_UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Isolation:
    """Where a part of the laboratory runs: `group` is for the servers' groups, `rest` has all other processes."""

    group: Group
    rest: Group
    watcher: IO[str]

    def run(self, command: Sequence[str], seconds: float) -> None:
        """Run a command to its end; LabError where it fails or takes longer."""
        joined = self.rest.command([*_UNSHARE, *command], accounted_only=True)
        process = subprocess.Popen(joined, cwd=_ROOT, stderr=subprocess.PIPE, text=True)
        self._watch(process.pid)
        try:
            _, errors = process.communicate(timeout=seconds)
        except BaseException as error:
            process.kill()
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise LabError(f"the laboratory was not done after {seconds:.0f} s") from error
            raise
        if process.returncode != 0:
            raise LabError(f"the laboratory failed:\n{errors[-4000:].strip()}")

    def _watch(self, pid: int) -> None:
        self.watcher.write(f"{pid} {start_ticks(pid)}\n")
        self.watcher.flush()


@contextmanager
def isolated(name: str = "") -> Iterator[Isolation]:
    """Make control groups for a part of the laboratory; at the end, or when this program is gone, all is removed."""
    hierarchies = Hierarchies.find()
    for group in left_behind(hierarchies, PREFIX):
        group.remove()
    group = Group(hierarchies, f"{PREFIX}{os.getpid()}{name}")
    command = [sys.executable, "-m", "tools.lab.watcher", str(hierarchies.version), group.name]
    paths = [str(hierarchies.limits), str(hierarchies.accounts)]
    watcher = subprocess.Popen(
        [*command, *paths], cwd=_ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert watcher.stdin is not None
    rest = group.below("rest")
    try:
        group.make()
        group.favor()  # whatever else runs gets what the servers' quotas leave
        rest.make()
        yield Isolation(group, rest, watcher.stdin)
    finally:
        _, errors = watcher.communicate()
        if watcher.returncode != 0:
            raise LabError(f"not everything could be removed: {errors.strip()}")
