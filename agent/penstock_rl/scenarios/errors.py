"""What can be wrong with a scenario."""

from __future__ import annotations


class ScenarioError(ValueError):
    """A scenario that cannot be read or run; the message has file and line, field, value and fix."""


class TooLargeError(ScenarioError):
    """A scenario that would take too much time or memory; `path` is the field that says so."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        self.path = path
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
        super().__init__(f"{name}: {message}; make it smaller, or the scenario shorter")
