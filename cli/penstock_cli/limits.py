"""Limits of this process that its parent chose for ordinary programs."""

from __future__ import annotations

import contextlib
import resource


def raise_open_files() -> None:
    """Raise the soft limit of open files to the hard one; child processes inherit it.

    The soft limit is 1,024 for the sake of programs that call select(), which Penstock does not.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Refused where a security module forbids it: then the limit that was given stays.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
