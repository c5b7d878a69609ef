"""More processors than there are, for programs that want one for each of their threads.

A program finds the processors that Linux lists under /sys, and pins its threads to them. Both are replaced for it: the
list by a file in a mount namespace of its own, the pinning by a library that leaves threads where they may run.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("any_cpu.c")
ONLINE = "/sys/devices/system/cpu/online"


def with_processors(count: int, directory: Path) -> list[str]:
    """Return what to put before a command so that it finds so many processors; nothing where there are as many.

    `directory` keeps the list that the command finds. Needs root. The command's process is the one that is started.
    """
    if (os.cpu_count() or 1) >= count:
        return []
    listed = directory / "online"
    listed.write_text(f"0-{count - 1}\n")
    script = f'mount --bind "$1" {ONLINE}; export LD_PRELOAD="$2"; shift 2; exec "$@"'
    return ["unshare", "--mount", "sh", "-ec", script, "sh", str(listed), str(_library())]


@cache
def _library() -> Path:
    library = ROOT / "build" / "any_cpu.so"
    library.parent.mkdir(exist_ok=True)
    command = ["cc", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", str(SOURCE), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library
