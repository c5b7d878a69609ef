"""One training: collect, learn, evaluate, save, until the recipe's iterations are done."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock_rl.evaluation import statistics
from penstock_rl.recipes import Imitation, Recipe
from penstock_rl.training import gains
from penstock_rl.training.collect import Collector, InProcess, OnRay, Processes, Task, split
from penstock_rl.training.curriculum import Curriculum
from penstock_rl.training.episodes import Totals, join
from penstock_rl.training.sources import Simulator, Source

if TYPE_CHECKING:
    from penstock_rl.algorithms.base import Learner
    from penstock_rl.algorithms.board import Board

CHECKPOINT, EVALUATIONS, RECIPE = "checkpoint.pt", "evaluations.jsonl", "recipe.json"
SEED_STRIDE = 7_919  # between iterations; parts of an iteration take the seeds between
EVALUATION_SEED = 5
NOT_OF_THE_RESULT = {"training": {"workers", "threads", "device", "checkpoint_every"}}


class TrainingError(ValueError):
    """A training that cannot begin or go on; the message names the cause and the fix."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean completion time against the anchor's on the same arrivals: -0.1 is 10 % less. 95 % interval."""

    iteration: int
    change: float
    low: float
    high: float


Report = Callable[[int, Mapping[str, float], Evaluation | None], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a user chooses beside the recipe."""

    folder: Path  # of this run
    resume: bool = False
    ray: str = ""


class Training:
    """One run with one seed. `folder` of the recipe is where its files are found from."""

    def __init__(self, recipe: Recipe, recipe_folder: Path, options: Options, source: Source | None = None) -> None:
        from penstock_rl import algorithms

        self.recipe = recipe
        self.options = options
        self.curriculum = Curriculum(recipe, recipe_folder)
        self.tests = self.curriculum.evaluation()
        self.source = source or Simulator(recipe, recipe.training.threads)
        self.layout = self.source.layout(self.tests[0])
        self.learner: Learner = algorithms.learner(recipe, self.layout)
        self.iteration = 0
        self.decisions = 0
        self.evaluations: list[Evaluation] = []
        self.totals: Totals | None = None  # of the last evaluation in this process
        self._prepare()

    def run(self, report: Report, *, until: int | None = None) -> Evaluation:
        """Train to the end, or to an iteration; return the last evaluation."""
        collector = self._collector()
        board = self._board()
        try:
            if not self.evaluations:
                self._evaluate(collector)
            report(self.iteration, {}, self.evaluations[-1])
            while self.iteration < (self.recipe.training.iterations if until is None else until):
                metrics = self._iterate(collector)
                board.write(metrics, self.iteration)
                report(self.iteration, metrics, self.evaluations[-1])
        finally:
            board.close()
            collector.close()
        return self.evaluations[-1]

    def _iterate(self, collector: Collector) -> dict[str, float]:
        settings = self.recipe.training
        begun = time.monotonic()
        draw = self.curriculum.training(self.iteration)
        seed = (settings.seed * 1_000_003 + self.iteration) * SEED_STRIDE
        task = Task(draw, self.iteration, seed, explore=True, paired=settings.paired, dropout=settings.feature_dropout)
        results = collector.collect(self.learner, split(task, settings.batches))
        collected = time.monotonic()
        episode = join([episode for episode, _ in results])
        self.learner.begin_iteration(self.iteration)
        metrics = self.learner.learn(episode, self.iteration)
        self.iteration += 1
        self.decisions += episode.steps * int(episode.present[0].sum())
        last = self.iteration == settings.iterations
        if last:
            self._tune_gains(collector, seed)
        if self.iteration % settings.evaluate_every == 0 or last:
            self._evaluate(collector)
            metrics["charts/evaluation_change"] = self.evaluations[-1].change
        if self.iteration % settings.checkpoint_every == 0 or last:
            self.save()
        return metrics | {
            "charts/reward": float(np.mean(episode.reward[:, episode.present[0]])),
            "charts/change": _change([totals for _, totals in results]),
            "time/collect": collected - begun,
            "time/learn": time.monotonic() - collected,
        }

    def _evaluate(self, collector: Collector) -> None:
        """Compare with the anchor, and write the result down."""
        self.totals = totals = self.measured(collector)
        found = statistics.relative_difference(totals.policy, totals.anchor)
        self.evaluations.append(Evaluation(self.iteration, found.estimate, found.low, found.high))
        with (self.options.folder / EVALUATIONS).open("a") as file:
            file.write(json.dumps(asdict(self.evaluations[-1])) + "\n")

    def measured(self, collector: Collector) -> Totals:
        """Run the environments of the evaluation with the networks that there are."""
        tasks = [
            part
            for draw in self.tests
            for part in split(
                Task(draw, self.iteration, EVALUATION_SEED, explore=False, paired=True), self.recipe.training.batches
            )
        ]
        return _together([totals for _, totals in collector.collect(self.learner, tasks)])

    def _tune_gains(self, collector: Collector, seed: int) -> None:
        """Scale the residuals of an imitated network by measured completion times, on scenarios of training."""
        settings = self.recipe.algorithm
        if not isinstance(settings, Imitation) or not settings.gain_rounds:
            return
        draw = self.curriculum.training(self.iteration)
        tasks = split(Task(draw, self.iteration, seed, explore=False, paired=True), self.recipe.training.batches)

        def cost(scale: gains.Gains) -> float:
            self.learner.scale = scale
            return _change([found for _, found in collector.collect(self.learner, tasks)])

        self.learner.scale = gains.tune(cost, self.learner.scale, settings.gain_rounds, self.recipe.training.seed)

    def save(self) -> None:
        """Write the checkpoint."""
        from penstock_rl.algorithms import checkpoints

        content = {
            "recipe": self.recipe.model_dump_json(),
            "iteration": self.iteration,
            "decisions": self.decisions,
            "layout": asdict(self.layout),
            "evaluations": [asdict(each) for each in self.evaluations],
            "learner": self.learner.state(replay=self.iteration < self.recipe.training.iterations),
        }
        checkpoints.save(self.options.folder / CHECKPOINT, content)

    def _prepare(self) -> None:
        """Make the folder of the run, or read its checkpoint."""
        folder, path = self.options.folder, self.options.folder / CHECKPOINT
        if path.exists() and not self.options.resume:
            raise TrainingError(f"{folder}: has a checkpoint; add --resume to go on from it, or name another --output")
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._restore(path)
        (folder / RECIPE).write_text(self.recipe.model_dump_json(indent=2) + "\n")
        kept = "".join(json.dumps(asdict(each)) + "\n" for each in self.evaluations)
        (folder / EVALUATIONS).write_text(kept)

    def _restore(self, path: Path) -> None:
        from penstock_rl.algorithms import checkpoints

        content = checkpoints.load(path)
        if _result_of(Recipe.model_validate_json(content["recipe"])) != _result_of(self.recipe):
            raise TrainingError(f"{path}: was made by another recipe; use that one, or name another --output")
        self.learner.load_state(content["learner"])
        self.iteration, self.decisions = content["iteration"], content["decisions"]
        self.evaluations = [Evaluation(**each) for each in content["evaluations"]]

    def _collector(self) -> Collector:
        workers = self.recipe.training.workers
        given = self.recipe, self.source, self.layout
        if self.options.ray:
            return OnRay(*given, self.options.ray)
        return Processes(*given, workers) if workers else InProcess(self.source)

    def _board(self) -> Board:
        from penstock_rl.algorithms.board import Board

        return Board(self.options.folder, self.iteration + 1)


def _result_of(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe that change its result."""
    return recipe.model_dump(exclude=NOT_OF_THE_RESULT)


def _change(totals: list[Totals]) -> float:
    """Return the change of mean completion times by the policy in training; NaN where episodes are not paired."""
    both = _together(totals)
    policy, anchor = both.policy[: len(both.anchor)], both.anchor
    known = np.isfinite(policy) & np.isfinite(anchor)
    if not known.any():
        return math.nan
    return math.expm1(float(np.mean(np.log(policy[known] / anchor[known]))))


def _together(parts: list[Totals]) -> Totals:
    return Totals(*(np.concatenate([getattr(each, name) for each in parts]) for name in ("policy", "anchor")))
