"""Stops the processes recorded below a directory when the process at the other end of stdin is gone, and removes it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from e2e.cluster.processes import Processes


def main() -> None:
    """Wait for the end of stdin, then clean up."""
    directory = Path(sys.argv[1])
    sys.stdin.buffer.read()
    for recorded in directory.glob("**/processes"):
        processes = Processes(recorded)
        for name in processes.names():
            processes.stop(name, grace=0)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
