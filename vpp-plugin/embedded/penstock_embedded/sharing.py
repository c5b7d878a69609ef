"""Directories of ours that an agent of another user works in, by way of a group.

Whoever hands them over is their owner and a member of the group, and needs no capability for it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import structlog

log = structlog.get_logger()


def share_directory(path: Path, group: int | None) -> None:
    """Let members of the group make objects of their own in a directory of ours, and touch no others'."""
    path.mkdir(parents=True, exist_ok=True)
    status = path.stat()
    if group is None or status.st_uid != os.geteuid() or status.st_mode & 0o1002 == 0o1002:
        return  # nothing to share, not ours, or open to everybody as /dev/shm is
    os.chown(path, -1, group)
    path.chmod(0o1770)


def hand_over(path: Path | None, group: int | None) -> None:
    """Let members of the group do as they like in a directory of ours, with what an earlier release left there as well.

    A failure is logged: the agent then keeps no state, and says so itself.
    """
    if path is None or group is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _hand_over(directory, group)
        finally:
            os.close(directory)
    except OSError as error:
        log.warning("the agent's directory is not handed over", path=str(path), group=group, error=str(error))


def _hand_over(directory: int, group: int) -> None:
    if os.fstat(directory).st_uid != os.geteuid():
        return
    os.fchown(directory, -1, group)
    os.fchmod(directory, 0o770)
    for name in os.listdir(directory):
        # What lies there may be the agent's doing: nothing is followed, and only files of ours are changed.
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            continue
        try:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1:
                os.fchown(file, -1, group)
                os.fchmod(file, stat.S_IMODE(status.st_mode) | 0o060)
        finally:
            os.close(file)
