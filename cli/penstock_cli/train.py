"""`penstock train` and `penstock export`: from a recipe to a model that an agent loads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.failure import fail, reported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock_rl.recipes import Recipe
    from penstock_rl.training.loop import Evaluation, Options

NEEDED = ("torch", "tensordict", "torchrl", "tensorboard")
METRICS_SHOWN = 4


def train(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="YAML file; see examples/train.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the results.", show_default="runs/NAME")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the folder.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Train with this seed alone.", min=0)] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that collect episodes; 0: none.", min=0, max=256)
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")] = None,
    ray: Annotated[str, typer.Option("--ray", help="Collect episodes on the Ray cluster at this address.")] = "",
) -> None:
    """Train a policy as a recipe describes it.

    Writes checkpoints, evaluations and curves (`tensorboard --logdir runs`) into a folder for each seed, and the model
    at the end. Progress is shown against the heuristic that the network starts from, on scenarios that are not trained
    on. A run that was stopped goes on with --resume as if it had not been.
    """
    from penstock_rl import recipes

    with reported(recipes.RecipeError):
        wanted = recipes.load(recipe)
        for field, value in (("seed", seed), ("workers", workers), ("device", device)):
            if value is not None:
                wanted = recipes.with_training(wanted, field, value)
    if seed is not None:
        wanted = recipes.with_training(wanted, "seeds", 1)
    _require(NEEDED + (("ray",) if ray else ()))
    folder = output or Path("runs") / wanted.name
    from penstock_rl.training.loop import Options

    for each in range(wanted.training.seed, wanted.training.seed + wanted.training.seeds):
        one = recipes.with_training(recipes.with_training(wanted, "seed", each), "seeds", 1)
        _train(one, recipe.absolute().parent, Options(folder / f"seed-{each}", resume, ray))


def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="checkpoint.pt in a run's folder.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model's file, NAME.npz.")],
) -> None:
    """Write the network of a checkpoint as a model that agents load: arrays, normalisation and card, no code."""
    _require(NEEDED)
    from penstock_rl.algorithms.checkpoints import CheckpointError
    from penstock_rl.algorithms.models import write

    with reported(CheckpointError, OSError):
        digest = write(checkpoint, output)
    typer.echo(f"wrote {output}, sha256:{digest}")


def _require(modules: tuple[str, ...]) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        fail(f"{', '.join(missing)}: not installed; training needs more than an agent: pip install 'penstock[train]'")


def _train(recipe: Recipe, recipe_folder: Path, options: Options) -> None:
    from penstock_rl.algorithms.checkpoints import CheckpointError
    from penstock_rl.algorithms.models import write
    from penstock_rl.recipes import RecipeError
    from penstock_rl.training.loop import CHECKPOINT, Training, TrainingError
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        reported(RecipeError, TrainingError, CheckpointError),
        Progress(*columns, TextColumn("{task.fields[found]}")) as bar,
    ):
        training = Training(recipe, recipe_folder, options)
        name = f"{recipe.name} seed {recipe.training.seed}"
        shown = bar.add_task(name, total=recipe.training.iterations, completed=training.iteration, found="")

        def report(iteration: int, metrics: Mapping[str, float], evaluation: Evaluation | None) -> None:
            bar.update(shown, completed=iteration, found=_line(metrics, evaluation))
            if evaluation is not None and iteration == evaluation.iteration:
                bar.console.print(
                    f"iteration {iteration}: {_against(evaluation, recipe.environment.anchor)}",
                    highlight=False,
                    soft_wrap=True,
                )

        last = training.run(report)
        write(options.folder / CHECKPOINT, options.folder / f"{recipe.name}.npz")
    typer.echo(f"{name}: {_against(last, recipe.environment.anchor)}\nThe model is {options.folder / recipe.name}.npz.")


def _line(metrics: Mapping[str, float], evaluation: Evaluation | None) -> str:
    parts = [f"{key.rpartition('/')[2]} {value:.3g}" for key, value in metrics.items() if key.startswith("losses/")]
    if evaluation is not None:
        parts.insert(0, f"evaluation {100 * evaluation.change:+.1f} %")
    return "  ".join(parts[:METRICS_SHOWN])


def _against(found: Evaluation, anchor: str) -> str:
    low, high = 100 * found.low, 100 * found.high
    return f"mean completion time {100 * found.change:+.1f} % [{low:+.1f}, {high:+.1f}] against its start, `{anchor}`"
