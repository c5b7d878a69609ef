"""Collection of episodes: in this process, in worker processes, or on a Ray cluster.

An episode is a function of weights and task alone: where it is collected does not change it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_rl.recipes import Recipe
from penstock_rl.training.curriculum import Draw
from penstock_rl.training.episodes import BoolArray, Episode, Totals, roll_out
from penstock_rl.training.layout import Layout
from penstock_rl.training.sources import Source

if TYPE_CHECKING:
    from penstock_rl.algorithms.base import Learner

ALWAYS_MEASURED = (
    "counts",
    "slot",
    "configuration",
    "action",
    "anchor",
    "context",
)  # groups that no data plane is without
Weights = dict[str, NDArray[Any]]
Result = tuple[Episode, Totals]


@dataclass(frozen=True, slots=True)
class Task:
    """One episode to collect."""

    draw: Draw
    iteration: int
    seed: int
    explore: bool
    paired: bool
    dropout: float = 0.0  # probability that a group of features is missing


class Collector(Protocol):
    """Runs tasks with the current networks of a learner."""

    def collect(self, learner: Learner, tasks: Sequence[Task]) -> list[Result]:
        """Return the results in the order of the tasks."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


def run(learner: Learner, source: Source, task: Task) -> Result:
    """Collect one episode."""
    learner.begin_iteration(task.iteration)
    missing = missing_features(learner.layout, task) if task.dropout else None
    with learner.generators(task.seed):
        return roll_out(
            source.open(task.draw, paired=task.paired),
            learner.actor(),
            explore=task.explore,
            paired=task.paired,
            missing=missing,
        )


def missing_features(layout: Layout, task: Task) -> BoolArray:
    """Draw the groups that each environment is without, and return [E, F]."""
    generator = np.random.default_rng((task.seed, 1))
    drawn = generator.random((len(task.draw.environments), len(layout.groups))) < task.dropout
    drawn[:, [group in ALWAYS_MEASURED for group in layout.groups]] = False
    missing: BoolArray = drawn[:, np.array(layout.group_index)]
    return missing


class InProcess:
    """Runs tasks one after another, in this process."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self, learner: Learner, tasks: Sequence[Task]) -> list[Result]:
        """Return the results in the order of the tasks."""
        return [run(learner, self._source, task) for task in tasks]

    def close(self) -> None:
        """Nothing was started."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker gets."""

    recipe: str  # as JSON: a key for the learner that a worker keeps
    layout: Layout
    source: Source
    weights: Weights
    task: Task


def work(work: Work) -> Result:
    """Collect one episode in another process."""
    learner = _learner(work.recipe, work.layout)
    learner.load_weights(work.weights)
    return run(learner, work.source, work.task)


@lru_cache(maxsize=1)
def _learner(recipe: str, layout: Layout) -> Learner:
    from penstock_rl import algorithms

    parsed = Recipe.model_validate_json(recipe)
    on_cpu = parsed.training.model_copy(update={"device": "cpu"})
    made = parsed.model_copy(update={"training": on_cpu})
    return algorithms.learner(made, layout)


def _works(recipe: Recipe, source: Source, layout: Layout, learner: Learner, tasks: Sequence[Task]) -> list[Work]:
    text, weights = recipe.model_dump_json(), learner.weights()
    return [Work(text, layout, source, weights, task) for task in tasks]


class Processes:
    """Runs tasks in worker processes of this machine."""

    def __init__(self, recipe: Recipe, source: Source, layout: Layout, workers: int) -> None:
        self._given = recipe, source, layout
        # Not forked: torch and the simulator have threads.
        self._pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))

    def collect(self, learner: Learner, tasks: Sequence[Task]) -> list[Result]:
        """Return the results in the order of the tasks."""
        return list(self._pool.map(work, _works(*self._given, learner, tasks)))

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown()


class OnRay:
    """Runs tasks on a Ray cluster, whose nodes have Penstock with the extra `train` installed."""

    def __init__(self, recipe: Recipe, source: Source, layout: Layout, address: str) -> None:
        import ray

        self._ray = ray
        self._given = recipe, source, layout
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        self._work = ray.remote(work)

    def collect(self, learner: Learner, tasks: Sequence[Task]) -> list[Result]:
        """Return the results in the order of the tasks."""
        found: list[Result] = self._ray.get([self._work.remote(each) for each in _works(*self._given, learner, tasks)])
        return found

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


def split(task: Task, parts: int) -> list[Task]:
    """Divide the environments of a task; each part has a seed of its own."""
    environments = task.draw.environments
    size = len(environments) // max(parts, 1)
    if parts <= 1 or size == 0:
        return [task]
    pieces = [environments[start : start + size] for start in range(0, len(environments), size)]
    return [
        replace(task, draw=replace(task.draw, environments=piece), seed=task.seed + index)
        for index, piece in enumerate(pieces)
    ]
