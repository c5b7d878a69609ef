"""Which boot of the machine this is: what a data plane keeps on the node ends with it."""

from __future__ import annotations

from pathlib import Path


def boot_id() -> str:
    """Return the id that the kernel gave itself at this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
