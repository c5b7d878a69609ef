"""What can go wrong in the laboratory."""

from __future__ import annotations


class LabError(RuntimeError):
    """A laboratory that cannot be built or used; the message names the fix."""
