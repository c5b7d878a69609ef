"""Tuning of a policy's parameters by CMA-ES in the simulator.

Method: N. Hansen, A. Ostermeier, "Completely Derandomized Self-Adaptation in Evolution Strategies", Evolutionary
Computation 9(2), 2001; the implementation is package `cma`. The objective is the mean over scenarios of the log of the
policy's mean completion time over that of `lsq`. All candidates of a generation see the same requests (common random
numbers), and run in one simulation: candidates x scenarios environments.

A checkpoint holds the values that the objective gave. A resumed search repeats its draws and reads those values, so it
goes on exactly as if it had not been interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cma
import numpy as np
from penstock_agent.observation import FloatArray
from penstock_embedded import files

FORMAT = 1


class TuningError(ValueError):
    """A plan or a checkpoint that cannot be used."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search consists of; two searches of the same plan give the same result."""

    start: tuple[float, ...]  # point of the unit cube
    seed: int = 0
    population: int = 16
    generations: int = 100
    spread: float = 0.15  # standard deviation at first, in the unit cube
    of: str = ""  # what the objective is: values of another one cannot be gone on with

    def __post_init__(self) -> None:
        if self.population < 4:
            raise TuningError(f"population: is {self.population}; use at least 4")
        if not all(0 <= value <= 1 for value in self.start):
            raise TuningError("start: has coordinates outside of [0, 1]; use penstock_agent.policies.tunable.to_vector")


@dataclass(frozen=True, slots=True)
class Generation:
    """What one generation found."""

    number: int  # from 1
    best: float
    mean: float
    center: FloatArray  # of the distribution after it: the estimate of the optimum
    spread: float


Objective = Callable[[int, FloatArray], FloatArray]
"""Values of points [population, parameters] in a generation, counted from 0; smaller is better."""


@dataclass
class Search:
    """A search that may be interrupted between any two generations."""

    plan: Plan
    objective: Objective
    checkpoint: Path | None = None
    values: list[list[float]] = field(default_factory=list)  # by generation
    _strategy: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.plan.seed)
        options = {
            "popsize": self.plan.population,
            "bounds": [0.0, 1.0],
            "seed": np.nan,  # the generator below is used instead of numpy's global one
            "randn": lambda *shape: random.standard_normal(shape),
            "verbose": -9,
            "maxiter": np.inf,
        }
        self._strategy = cma.CMAEvolutionStrategy(list(self.plan.start), self.plan.spread, options)
        if self.checkpoint is not None and self.checkpoint.exists():
            self._repeat(_read(self.checkpoint, self.plan))

    @property
    def center(self) -> FloatArray:
        """Center of the distribution: steadier than the best point, whose value is good luck in part."""
        center: FloatArray = np.clip(np.asarray(self._strategy.result.xfavorite, dtype=float), 0.0, 1.0)
        return center

    def run(self) -> Iterator[Generation]:
        """Run the generations that are left."""
        while len(self.values) < self.plan.generations:
            points = self._ask()
            values = self.objective(len(self.values), points)
            if not np.isfinite(values).all():
                raise TuningError(f"objective: gave {values[~np.isfinite(values)]} for a point; it must be finite")
            self._tell(points, values.tolist())
            if self.checkpoint is not None:
                _write(self.checkpoint, self.plan, self.values)
            yield Generation(
                len(self.values), float(values.min()), float(values.mean()), self.center, float(self._strategy.sigma)
            )

    def _repeat(self, values: list[list[float]]) -> None:
        for generation in values:
            self._tell(self._ask(), generation)

    def _ask(self) -> FloatArray:
        return np.array(self._strategy.ask())

    def _tell(self, points: FloatArray, values: list[float]) -> None:
        self._strategy.tell(list(points), values)
        self.values.append(values)


def _write(path: Path, plan: Plan, values: list[list[float]]) -> None:
    with files.replacing(path, files.READABLE) as file:
        file.write(json.dumps({"format": FORMAT, "plan": asdict(plan), "values": values}).encode())


def _read(path: Path, plan: Plan) -> list[list[float]]:
    """Return the values of a checkpoint, if it is of this plan; more generations than before are allowed."""
    try:
        found = json.loads(path.read_text())
        known = {name: value for name, value in found["plan"].items() if name != "generations"}
        values = [[float(value) for value in generation] for generation in found["values"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TuningError(f"{path}: is not a checkpoint of a search ({error}); remove it to start anew") from error
    wanted = json.loads(json.dumps({name: value for name, value in asdict(plan).items() if name != "generations"}))
    different = [name for name in wanted if known.get(name) != wanted[name]]
    if found.get("format") != FORMAT or different or any(len(each) != plan.population for each in values):
        what = ", ".join(different) or "format"
        raise TuningError(f"{path}: belongs to another plan ({what} differ); remove it to start anew")
    return values
