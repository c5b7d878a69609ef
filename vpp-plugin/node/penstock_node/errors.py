"""What can go wrong between us and the kernel: one tree, each message naming the thing, the reason and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock_node.changes import Change


class NodeError(Exception):
    """Base of all errors of this package."""


class ObserveError(NodeError):
    """The state of the node could not be read."""


class TunError(NodeError):
    """The TUN device could not be made or attached to."""


class AnnounceError(NodeError):
    """An interface cannot be used to announce addresses."""


class ApplyError(NodeError):
    """Some changes failed; the others were made.

    A later `reconcile` tries the failed ones again, so the caller reports this and carries on.
    """

    def __init__(self, failures: Sequence[tuple[Change, str]]) -> None:
        self.failures = tuple(failures)
        super().__init__("; ".join(f"{change}: {reason}" for change, reason in self.failures))
