"""When the node is compared with what it should be: soon after anything on it changed, and now and then."""

from __future__ import annotations

import time

import structlog
from penstock_node import NodeWatch

log = structlog.get_logger()

REPAIR_SECONDS = 30.0  # between two looks when no change was seen: the kernel does not announce all of them
SHORTEST_SECONDS = 1.0  # between two looks on a node where something changes all the time


class Repairs:
    """The time of the next look; opens its sockets in the network namespace of the first call of `due`."""

    def __init__(self) -> None:
        self._watch: NodeWatch | None = None
        self._refused = False
        self._changed = False
        self._last = float("-inf")

    def due(self) -> bool:
        """Return whether it is time to look."""
        self._changed |= self._seen_change()
        return time.monotonic() - self._last >= (SHORTEST_SECONDS if self._changed else REPAIR_SECONDS)

    def begin(self) -> None:
        """Note that a look begins: what changes from now on is for the next one."""
        self._seen_change()
        self._changed = False
        self._last = time.monotonic()

    def close(self) -> None:
        """Close the sockets."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _seen_change(self) -> bool:
        try:
            if self._watch is None and not self._refused:
                self._watch = NodeWatch()
            return self._watch is not None and self._watch.changed()
        except OSError as error:
            log.warning("changes of the node are not announced: it is looked at now and then", error=str(error))
            self.close()
            self._refused = True
            return False
