"""What a benchmark finds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One line of the table; `met` where it has a bar."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    met: bool | None = None
    runs: list[float] = field(default_factory=list)
