"""Ends processes and removes a control group when the other end of standard input is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from e2e.cluster.processes import start_ticks
from tools.lab.groups import Group, Hierarchies


def main() -> None:
    """Read lines `PID TICKS` until the end; then kill those processes that still are the same, and remove the group."""
    version, name, limits, accounts = sys.argv[1:]
    started = [tuple(map(int, line.split())) for line in sys.stdin]
    for pid, ticks in started:
        if start_ticks(pid) == ticks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    Group(Hierarchies(int(version), Path(limits), Path(accounts)), name).remove()


if __name__ == "__main__":
    main()
