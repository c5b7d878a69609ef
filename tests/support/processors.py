"""More processors than there are, for programs that want one for each of their threads.

A program finds the processors that Linux lists under /sys, and pins its threads to them. Both are replaced for it: the
list by a file in a mount namespace of its own, the pinning by a library that leaves threads where they may run.
"""

from __future__ import annotations

import os
from pathlib import Path

from tools.compiled import compiled

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("any_cpu.c")
ONLINE = "/sys/devices/system/cpu/online"


def with_processors(count: int, directory: Path) -> list[str]:
    """Return what to put before a command so that it finds so many processors; nothing where there are as many.

    `directory` keeps the list that the command finds. Needs root. The command's process is the one that is started.
    """
    if (os.cpu_count() or 1) >= count:
        return []
    library = compiled(SOURCE, ROOT / "build/tests/any_cpu.so", "-shared", "-fPIC")
    listed = directory / "online"
    listed.write_text(f"0-{count - 1}\n")
    script = f'mount --bind "$1" {ONLINE}; export LD_PRELOAD="$2"; shift 2; exec "$@"'
    return ["unshare", "--mount", "sh", "-ec", script, "sh", str(listed), str(library)]
