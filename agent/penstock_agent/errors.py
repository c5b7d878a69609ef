"""Errors of the agent: what is wrong, with what, and what to do about it."""

from __future__ import annotations


class AgentError(Exception):
    """Root of the agent's own errors."""


class ConfigError(AgentError):
    """Settings or input files that a person has to correct; names file or variable, field and fix."""


class DataPlaneError(AgentError):
    """A request to the data plane did not succeed."""


class DataPlaneUnreachableError(DataPlaneError):
    """No answer: not running, restarting, or stuck. Trying again helps."""


class DataPlaneRefusedError(DataPlaneError):
    """The data plane answered that it will not do this. Trying the same again does not help."""

    def __init__(self, code: str, field: str, message: str, fix: str) -> None:
        super().__init__(f"{field + ': ' if field else ''}{message}{'; ' + fix if fix else ''}")
        self.code = code
