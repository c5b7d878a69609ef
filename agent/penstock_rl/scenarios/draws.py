"""Random numbers that are the same on every machine and with every release of numpy."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

from penstock_rl.scenarios.fields import Span

T = TypeVar("T")


class Draws:
    """A stream of random numbers by name: streams with different names are independent of each other.

    They use the Mersenne Twister's `random()` alone, which Python guarantees to stay as it is.
    """

    def __init__(self, *name: object) -> None:
        self._random = random.Random("/".join(map(str, name))).random  # noqa: S311 - a simulation's

    def uniform(self, low: float, high: float) -> float:
        """Draw from an interval."""
        return low + (high - low) * self._random()

    def within(self, span: Span) -> float:
        """Draw from a span of a scenario file."""
        return self.uniform(span.low, span.high)

    def exponential(self, mean: float) -> float:
        """Draw from the exponential distribution."""
        return -mean * math.log1p(-self._random())

    def choice(self, items: Sequence[T]) -> T:
        """Draw an item, all alike."""
        return items[int(self._random() * len(items))]

    def weighted(self, items: Sequence[T], shares: Sequence[float]) -> T:
        """Draw an item with these probabilities, which add up to 1."""
        rest = self._random()
        for item, share in zip(items, shares, strict=True):
            rest -= share
            if rest < 0:
                return item
        return items[-1]

    def happens(self, probability: float) -> bool:
        """Draw whether something happens."""
        return self._random() < probability

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in random order."""
        rest = list(items)
        return [rest.pop(int(self._random() * len(rest))) for _ in items]
