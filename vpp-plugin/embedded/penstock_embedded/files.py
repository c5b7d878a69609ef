"""Small files that outlive a process: replaced whole or not at all, and read whatever lies in their place."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LARGEST_BYTES = 64 * 1024 * 1024
DAMAGED_SUFFIX = ".damaged"
DAMAGED_KEPT = 5  # files set aside per path; the next one replaces the last
TEMPORARY_SUFFIX = ".tmp"
READABLE = 0o644  # mode of a file that all users may read


class UnusableFileError(Exception):
    """What lies at a path is not a file that this process, or root, wrote there."""


def read(path: Path) -> bytes | None:
    """Return a file's content; None where there is none. Raises UnusableFileError or OSError; never blocks."""
    try:
        # O_NONBLOCK: a FIFO at this path would block for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableFileError("it is not a regular file")
        if status.st_uid not in (os.geteuid(), 0):
            raise UnusableFileError(f"it belongs to user id {status.st_uid}")
        if status.st_size > LARGEST_BYTES:
            raise UnusableFileError(f"it has {status.st_size} bytes, more than {LARGEST_BYTES}")
        return file.read(LARGEST_BYTES) or b""


def replace(path: Path, content: bytes) -> None:
    """Replace a file by `replacing`. Raises OSError."""
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open a file whose content takes the place of that at `path` when the block ends without an error.

    A reader, also one after a power cut, sees the old content or the new. A directory is set aside. A device is never
    replaced: root could do that to /dev/null. Raises OSError.
    """
    _refuse_device(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        if path.is_dir() and not path.is_symlink():
            set_aside(path)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _refuse_device(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = path.lstat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise OSError(errno.EINVAL, "is a device, which is not replaced", str(path))


def sweep(path: Path) -> None:
    """Remove temporary files of `path` that processes left when they were killed."""
    with contextlib.suppress(OSError):
        for temporary in path.parent.glob(f".{path.name}.*{TEMPORARY_SUFFIX}"):
            temporary.unlink(missing_ok=True)


def set_aside(path: Path) -> Path | None:
    """Rename what lies at a path so that a person can look at it; None where that fails, or where it is a device."""
    names = [path.with_name(f"{path.name}{DAMAGED_SUFFIX}{number or ''}") for number in range(DAMAGED_KEPT)]
    free = next((name for name in names if not os.path.lexists(name)), names[-1])
    try:
        _refuse_device(path)
        path.rename(free)
    except OSError:
        return None
    return free
