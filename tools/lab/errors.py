"""What can go wrong in the laboratory."""

from __future__ import annotations


class LabError(RuntimeError):
    """A laboratory that cannot be built or used; the message names the fix."""


class DisturbedError(LabError):
    """Figures that say nothing about the load balancer: the client was late, or the machine had other work."""
