"""Parameters that a tuner may vary: a dataclass of numbers with bounds, and its conversion to a flat vector.

Computation only. A tuner works in the unit cube: 0 is the lower bound, 1 the upper, on a logarithmic scale where the
order of magnitude is what matters. Bounds are part of a field's type:
`memory: Annotated[Number, Log(1, 100, "s")] = 10.0`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from penstock_agent.observation import FloatArray

Number = float | NDArray[np.float64]
"""A parameter's value; an array holds one value per row of a batch, with 1 in place of balancers and slots."""

Parameters = TypeVar("Parameters")


class Bounds(Protocol):
    """Range of a parameter and the scale on which a tuner moves."""

    low: float
    high: float

    def encode(self, value: Number) -> FloatArray:
        """Map [low, high] to [0, 1]."""
        ...

    def decode(self, share: FloatArray) -> FloatArray:
        """Map [0, 1] to [low, high]."""
        ...


@dataclass(frozen=True)
class Linear:
    """Equal steps are equal differences."""

    low: float
    high: float
    unit: str = "1"

    def encode(self, value: Number) -> FloatArray:
        """Map [low, high] to [0, 1]."""
        return np.asarray((np.asarray(value) - self.low) / (self.high - self.low))

    def decode(self, share: FloatArray) -> FloatArray:
        """Map [0, 1] to [low, high]."""
        return np.asarray(self.low + share * (self.high - self.low))


@dataclass(frozen=True)
class Log:
    """Equal steps are equal factors."""

    low: float
    high: float
    unit: str = "1"

    def encode(self, value: Number) -> FloatArray:
        """Map [low, high] to [0, 1]."""
        return np.asarray(np.log(np.asarray(value) / self.low) / np.log(self.high / self.low))

    def decode(self, share: FloatArray) -> FloatArray:
        """Map [0, 1] to [low, high]."""
        return np.asarray(self.low * (self.high / self.low) ** share)


def bounds_of(kind: type[Any]) -> dict[str, Bounds]:
    """Return the parameters' bounds by name, in the order of the vector."""
    hints = get_type_hints(kind, include_extras=True)
    return {each.name: hints[each.name].__metadata__[0] for each in fields(kind)}


def to_vector(parameters: Any) -> FloatArray:
    """Return the parameters as a point of the unit cube."""
    return np.array([bounds.encode(getattr(parameters, name)) for name, bounds in bounds_of(type(parameters)).items()])


def from_vector(kind: type[Parameters], vector: Sequence[float] | FloatArray) -> Parameters:
    """Return the parameters at a point of the unit cube, or a batch of them at points [rows, parameters].

    Coordinates outside of the cube are clipped. A batch's parameters have the shape [rows, 1, 1]: one value for the
    balancers and slots of an environment.
    """
    points = np.asarray(vector, dtype=float)
    known = bounds_of(kind)
    if points.ndim not in (1, 2) or points.shape[-1] != len(known) or not np.isfinite(points).all():
        raise ValueError(f"vector: needs {len(known)} finite numbers per row ({', '.join(known)}), got {points.shape}")
    shares = np.minimum(np.maximum(points, 0.0), 1.0)
    values = {name: bounds.decode(shares[..., i]) for i, (name, bounds) in enumerate(known.items())}
    if points.ndim == 1:
        return kind(**{name: float(value) for name, value in values.items()})
    return kind(**{name: value[:, None, None] for name, value in values.items()})
