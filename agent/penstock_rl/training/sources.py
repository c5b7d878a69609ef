"""Where batches of environments come from: the simulator, or whatever a test puts in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from penstock_rl.recipes import Recipe, RecipeError
from penstock_rl.training.curriculum import Draw
from penstock_rl.training.episodes import Batch
from penstock_rl.training.layout import Layout, of_groups


class Source(Protocol):
    """Makes batches. It is sent to other processes, so it holds settings only."""

    def layout(self, draw: Draw) -> Layout:
        """Return what networks must know; `draw` is any that may come."""
        ...

    def open(self, draw: Draw, *, paired: bool) -> Batch:
        """Return a batch of the draw's environments; `paired`: followed by the same once more."""
        ...


@dataclass(frozen=True, slots=True)
class Simulator:
    """Batches of `penstock_rl.envs`."""

    recipe: Recipe
    threads: int

    def layout(self, draw: Draw) -> Layout:
        """Return the columns of a batch, and the sizes of the recipe; RecipeError names a setting that is wrong."""
        from penstock_rl.envs.batch import Batch as Simulated

        settings = self._settings(draw)
        try:
            batch = Simulated(draw.environments[:1], settings, draw.seconds)
        except ValueError as error:
            raise RecipeError(f"environment: {error}") from error
        limits = self.recipe.scenarios
        return Layout(batch.feature_names, batch.truth_names, limits.max_balancers, limits.max_backends)

    def open(self, draw: Draw, *, paired: bool) -> Batch:
        """Return a batch of the simulator."""
        from penstock_rl.envs.batch import Batch as Simulated

        environments = draw.environments * 2 if paired else draw.environments
        return Simulated(environments, self._settings(draw), draw.seconds)

    def _settings(self, draw: Draw):  # type: ignore[no-untyped-def]  # the type's module loads the simulator
        from penstock_rl.envs.batch import Settings

        wanted = self.recipe.environment.model_dump(exclude={"level", "forwarding"})
        names = of_groups(Settings().features, self.recipe.feature_groups)
        return Settings(**wanted, features=names, level=draw.level, forwarding=draw.forwarding, threads=self.threads)
