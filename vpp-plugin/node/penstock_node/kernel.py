"""pyroute2, imported at its first use, and its errors as OSError.

The import takes longer than all else that a data plane does before it forwards again after a restart.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyroute2 import IPRoute


@contextmanager
def channel(*, strict_check: bool = False) -> Iterator[IPRoute]:
    """Open a channel to rtnetlink. Raises OSError."""
    from pyroute2 import IPRoute

    with kernel_errors(), IPRoute(strict_check=strict_check) as opened:
        yield opened


@contextmanager
def kernel_errors() -> Iterator[None]:
    """Raise OSError in place of pyroute2's errors."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error
