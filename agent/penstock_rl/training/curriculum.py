"""Curriculum: which scenarios an iteration, or the evaluation, runs. Everything follows from the recipe's seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from penstock_rl import scenarios
from penstock_rl.recipes import Recipe, RecipeError, Stage
from penstock_rl.scenarios import Scenario

TRAINING = "training"
RANDOM = (TRAINING, *scenarios.KINDS)
LONGEST_SEARCH = 1000  # draws until a random scenario fits

Level = Literal["basic", "full"]
Forwarding = Literal["nat", "gre"]


@dataclass(frozen=True, slots=True)
class Draw:
    """Environments that run side by side."""

    environments: tuple[dict[str, Any], ...]  # as `scenarios.expand` returns them
    seconds: float
    level: Level
    forwarding: Forwarding


class Curriculum:
    """Draws scenarios. `folder` is where the recipe lies: files are found from there."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self._recipe = recipe
        names = {name for stage in recipe.scenarios.curriculum for name in stage.scenarios}
        names.update(recipe.scenarios.evaluation)
        self._fixed = {name: _load(folder, name) for name in sorted(names) if name not in RANDOM}
        for name, scenario in self._fixed.items():
            _check(name, scenario, recipe)

    def training(self, iteration: int) -> Draw:
        """Return the environments of an iteration."""
        stage = self._stage(iteration)
        generator = np.random.default_rng((self._recipe.training.seed, iteration))
        return self._draw(stage, self._recipe.scenarios.environments, scenarios.TRAINING, generator, iteration)

    def evaluation(self) -> tuple[Draw, ...]:
        """Return the environments of every evaluation, with seeds kept for choosing.

        There is one draw for each feature level that is trained on.
        """
        wanted = self._recipe.scenarios
        stage = Stage(scenarios=wanted.evaluation) if wanted.evaluation else wanted.curriculum[-1]
        count = self._recipe.scenarios.evaluation_environments
        levels = 2 if self._recipe.environment.level == "both" else 1
        return tuple(
            self._draw(stage, count, scenarios.CHOOSING, np.random.default_rng(index), index) for index in range(levels)
        )

    def _stage(self, iteration: int) -> Stage:
        share = iteration / self._recipe.training.iterations
        return next(stage for stage in self._recipe.scenarios.curriculum if share < stage.until or stage.until == 1.0)

    def _draw(self, stage: Stage, count: int, seeds: range, generator: np.random.Generator, iteration: int) -> Draw:
        found = list(islice(self._scenarios(stage, seeds, generator), count))
        environments = tuple(scenarios.expand(each, _one_of(seeds, generator)) for each in found)
        seconds = min(self._recipe.scenarios.seconds, *(each.duration for each in found))
        if (latest := max(each.warm_up for each in found)) >= seconds:
            raise RecipeError(
                f"scenarios.seconds: episodes of {seconds:g} s end within a scenario's warm-up of {latest:g} s; "
                "lengthen them, or nothing is measured"
            )
        settings = self._recipe.environment
        level: Level = settings.level if settings.level != "both" else ("full", "basic")[iteration % 2]
        forwarding: Forwarding = (
            settings.forwarding if settings.forwarding != "both" else ("nat", "gre")[iteration // 2 % 2]
        )
        return Draw(environments, seconds, level, forwarding)

    def _scenarios(self, stage: Stage, seeds: range, generator: np.random.Generator) -> Iterator[Scenario]:
        for name in cycle(stage.scenarios):
            yield self._fixed[name] if name in self._fixed else self._random(name, seeds, generator)

    def _random(self, name: str, seeds: range, generator: np.random.Generator) -> Scenario:
        limits = self._recipe.scenarios
        for _ in range(LONGEST_SEARCH):
            seed = _one_of(seeds, generator)
            found = (
                scenarios.training(seed) if name == TRAINING else scenarios.unseen(seed, scenarios.KINDS.index(name))
            )
            if found.server_count <= limits.max_backends and found.balancers.count <= limits.max_balancers:
                return found
        raise RecipeError(
            f"scenarios.curriculum: {name!r} has none with at most {limits.max_backends} backends and "
            f"{limits.max_balancers} balancers; raise scenarios.maxBackends or scenarios.maxBalancers"
        )


def _load(folder: Path, name: str) -> Scenario:
    """Read a file, or return a scenario that comes with Penstock."""
    if name.endswith((".yaml", ".yml", ".json")):
        try:
            return scenarios.load(folder / name)
        except scenarios.ScenarioError as error:
            raise RecipeError(f"scenarios.curriculum: {error}") from error
    known = scenarios.named()
    if name not in known:
        raise RecipeError(
            f"scenarios.curriculum: {name!r} is not known; use a file (its name ends with .yaml) or one of "
            f"{', '.join((*RANDOM, *known))}"
        )
    return known[name]


def _check(name: str, scenario: Scenario, recipe: Recipe) -> None:
    """Raise RecipeError for a scenario that the recipe's sizes do not fit."""
    limits = recipe.scenarios
    sizes = (
        ("backends", scenario.server_count, "maxBackends", limits.max_backends),
        ("balancers", scenario.balancers.count, "maxBalancers", limits.max_balancers),
    )
    for what, count, field, most in sizes:
        if count > most:
            raise RecipeError(f"scenarios.{field}: {name} has {count} {what}; raise it to as many")
    if scenario.duration < recipe.shortest:
        raise RecipeError(
            f"scenarios.curriculum: {name} lasts {scenario.duration:g} s, a sequence {recipe.shortest:g} s; "
            "lengthen it, or lower algorithm.sequence or algorithm.burnIn"
        )


def _one_of(seeds: range, generator: np.random.Generator) -> int:
    return int(generator.integers(seeds.start, seeds.stop))
