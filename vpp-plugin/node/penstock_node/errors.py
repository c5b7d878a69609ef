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
    """Some changes failed, each with its reason; those in `made` succeeded.

    A later `reconcile` tries the failed ones again, so the caller reports this and carries on. As with its
    result, a `CreateTun` in `made` means that descriptors of an earlier device are dead.
    """

    def __init__(self, failures: Sequence[tuple[Change, str]], made: Sequence[Change]) -> None:
        self.failures = tuple(failures)
        self.made = tuple(made)
        super().__init__("; ".join(f"{change}: {reason}" for change, reason in self.failures))
