"""Hugepages of the machine, borrowed for a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEBIBYTES = 200
_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


@contextmanager
def borrowed(mebibytes: int = MEBIBYTES) -> Iterator[None]:
    """Have so much memory in free hugepages of 2 MiB, if the kernel can find it; give it back at the end."""
    if not _POOL.exists():
        yield
        return
    before, free = (int((_POOL / name).read_text()) for name in ("nr_hugepages", "free_hugepages"))
    (_POOL / "nr_hugepages").write_text(str(before + max(0, mebibytes // 2 - free)))
    try:
        yield
    finally:
        (_POOL / "nr_hugepages").write_text(str(before))
