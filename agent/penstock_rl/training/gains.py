"""Gains: how far a trained network may move the anchor's decision, tuned by what comes of it.

Imitation minimises a delay that is computed, not one that is measured. Scaling its residuals by measured completion
times is what makes it pay: N. Hansen, A. Ostermeier, "Completely Derandomized Self-Adaptation in Evolution Strategies",
Evolutionary Computation 9(2), 2001, in the implementation of pycma.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Gains = tuple[float, float]
Cost = Callable[[Gains], float]  # of log weight's and log base's gain

SPREAD = 0.4  # of the first generation, in log gains
LARGEST = math.log(4.0)


def tune(cost: Cost, start: Gains, rounds: int, seed: int) -> Gains:
    """Minimise `cost` over gains for some generations; return the best that was tried, `start` included."""
    import cma

    best, lowest = start, cost(start)
    options = {"seed": seed + 1, "verbose": -9, "bounds": [-LARGEST, LARGEST], "maxiter": rounds}
    strategy = cma.CMAEvolutionStrategy([math.log(each) for each in start], SPREAD, options)
    for _ in range(rounds):
        tried: list[NDArray[np.float64]] = strategy.ask()
        costs = [cost(_gains(each)) for each in tried]
        strategy.tell(tried, costs)
        index = int(np.argmin(costs))
        if costs[index] < lowest:
            best, lowest = _gains(tried[index]), costs[index]
    return best


def _gains(logs: NDArray[np.float64]) -> Gains:
    return float(np.exp(logs[0])), float(np.exp(logs[1]))
