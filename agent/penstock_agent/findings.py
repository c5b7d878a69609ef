"""Findings about this node itself, which no VIP is to blame for: a full disk, a limit of open files.

They are shown in `/state`, in metrics and in the status of the DataPlaneNode, and logged when they begin and end.
"""

from __future__ import annotations

import structlog

log = structlog.get_logger(__name__)


class NodeFindings:
    """The findings that hold now, by subject."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    @property
    def texts(self) -> tuple[str, ...]:
        """All findings, each with its remedy."""
        return tuple(self._texts.values())

    def report(self, subject: str, text: str) -> None:
        """Set the finding of a subject; an empty text ends it. A repetition is not logged."""
        before = self._texts.get(subject, "")
        if text == before:
            return
        if text:
            self._texts[subject] = text
            log.warning("finding on this node", subject=subject, finding=text)
        else:
            del self._texts[subject]
            log.info("finding on this node is over", subject=subject, finding=before)
