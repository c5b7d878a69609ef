"""What can go wrong with a local cluster: one tree, each error says what to do next."""

from __future__ import annotations


class ClusterError(Exception):
    """Root of all errors that this package raises on purpose."""


class MissingProgramError(ClusterError):
    """A program is neither installed nor cached and could not be built."""


class StartError(ClusterError):
    """A process ended, or did not become ready in time; the message ends with its last log lines."""


class CommandError(ClusterError):
    """A command that changes the machine (ip, mount, ctr, ...) failed."""


class StateError(ClusterError):
    """The recorded state does not fit what was asked: no cluster is up, or one is up already."""
