"""`make bench-training`: trains by the recipes of examples/train/compared, writes docs/results/training.

A run that is complete is not repeated. `--table` trains nothing and writes the page of the runs that are complete;
`--measure` does so after measuring them again, for example when the heuristic has changed that they correct.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from penstock_rl import recipes
from penstock_rl.evaluation import statistics
from penstock_rl.recipes import Recipe
from penstock_rl.training.collect import InProcess
from penstock_rl.training.curriculum import Curriculum
from penstock_rl.training.loop import CHECKPOINT, Evaluation, Options, Training

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "examples/train/compared"
PUBLISHED = ROOT / "docs/results/training"
WORK = ROOT / "build/bench-training"
REFERENCES = ("lsq", "inverse-duration", "little", "bayes")
MEASURED, REFERENCE_TIMES = "measured.json", "references.json"
LIBRARIES = ("penstock", "torch", "torchrl")
ORDER = ("imitation", "ppo", "sac-gru", "qmix", "rlb-sac")

Times = NDArray[np.float64]  # mean completion times by environment

TEXT = """\
# Trained by each algorithm, for minutes

Made by `make bench-training`: each recipe of `examples/train/compared` is trained for 15 to 60 s of one core. It shows
what learns at all in a short time; it is no ranking of algorithms, and a difference between them with one training seed
may be the seed's. All are measured on the same {environments} environments (8 servers, 1 or 2 balancers, seeds for
choosing), after training, without exploration.

"Against" compares mean completion times, -10 % is better by a tenth: the geometric mean over training seeds, paired
with the reference in each environment, with Student's 95 % interval over environments; in brackets each training seed
by itself. The anchor is the policy that the network corrects, and its start. References are on active flows.

"""


def main() -> int:
    """Train what is missing, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="recipes; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--measure", action="store_true", help="train nothing, measure again")
    options = parser.parse_args()
    names = options.names or [path.stem for path in RECIPES.glob("*.yaml")]
    names.sort(key=lambda name: (_place(name), name))
    for seed in range(1, options.seeds + 1):
        for name in names:
            if not (options.measure or options.table):
                _train(name, seed)
    if options.measure:
        (WORK / REFERENCE_TIMES).unlink(missing_ok=True)
        for path in WORK.glob(f"*/*/{MEASURED}"):
            path.unlink()
    _publish(_measured(names, options.seeds))
    return 0


def _place(name: str) -> int:
    return next(index for index, start in enumerate(ORDER) if name.startswith(start))


def _recipe(name: str, seed: int) -> Recipe:
    return recipes.with_training(recipes.load(RECIPES / f"{name}.yaml"), "seed", seed)


def _training(name: str, seed: int) -> Training:
    return Training(_recipe(name, seed), RECIPES, Options(WORK / name / f"seed-{seed}", resume=True))


def _train(name: str, seed: int) -> None:
    begun = time.process_time()

    def show(iteration: int, _: Mapping[str, float], evaluation: Evaluation | None) -> None:
        change = f"{100 * evaluation.change:+.1f} %" if evaluation else ""
        print(f"{name} seed {seed}: {iteration} {change} {time.process_time() - begun:.0f} s", flush=True)

    training = _training(name, seed)
    if training.iteration < training.recipe.training.iterations:
        training.run(show)
        _keep(training)


def _measured(names: Sequence[str], seeds: int) -> dict[str, Any]:
    """Run the environments of the evaluation under references and networks."""
    runs: dict[str, Any] = {}
    for name in names:
        done = [seed for seed in range(1, seeds + 1) if (WORK / name / f"seed-{seed}" / CHECKPOINT).exists()]
        found = {seed: _network(name, seed) for seed in done}
        complete = {seed: each for seed, each in found.items() if each is not None}
        if complete:
            recipe = _recipe(name, 1)
            runs[name] = {
                "algorithm": recipe.algorithm.name,
                "anchor": recipe.environment.anchor,
                "decisions": next(iter(complete.values()))["decisions"],
                "anchor_times": next(iter(complete.values()))["anchor_times"],
                "times": {str(seed): each["times"] for seed, each in complete.items()},
            }
    versions = {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
    return {"versions": versions, "references": _references(names[0]), "runs": runs}


def _network(name: str, seed: int) -> dict[str, Any] | None:
    kept = WORK / name / f"seed-{seed}" / MEASURED
    if kept.exists():
        known: dict[str, Any] = json.loads(kept.read_text())
        return known
    training = _training(name, seed)
    if training.iteration < training.recipe.training.iterations:
        print(f"{name} seed {seed}: is not complete, left out", file=sys.stderr)
        return None
    print(f"{name} seed {seed}: measured", flush=True)
    return _keep(training)


def _keep(training: Training) -> dict[str, Any]:
    """Write what the networks of a training reach, so that it is not measured twice."""
    totals = training.totals or training.measured(InProcess(training.source))
    found = {
        "decisions": training.decisions,
        "times": totals.policy.tolist(),
        "anchor_times": totals.anchor.tolist(),
    }
    (training.options.folder / MEASURED).write_text(json.dumps(found))
    return found


def _references(name: str) -> dict[str, list[float]]:
    """Return the times of heuristics on active flows in the environments that all recipes are evaluated in."""
    kept = WORK / REFERENCE_TIMES
    if kept.exists():
        known: dict[str, list[float]] = json.loads(kept.read_text())
        return known
    from penstock_rl.envs.batch import Batch, Settings

    (draw,) = Curriculum(_recipe(name, 1), RECIPES).evaluation()
    found = {}
    for anchor in REFERENCES:
        batch = Batch(draw.environments, Settings(anchor=anchor, features=("counts/open",)), draw.seconds)
        step = batch.reset()
        while not step.done:
            step = batch.step(np.zeros((*batch.shape, 2), dtype=np.float32))
        completed, seconds = batch.totals()
        found[anchor] = (seconds / completed).tolist()
    kept.write_text(json.dumps(found))
    return found


def _publish(found: Mapping[str, Any]) -> None:
    PUBLISHED.mkdir(parents=True, exist_ok=True)
    (PUBLISHED / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (PUBLISHED / "README.md").write_text(page(found))
    print(f"wrote {PUBLISHED}")


def page(found: Mapping[str, Any]) -> str:
    """Return the page of results."""
    references = {name: np.array(times) for name, times in found["references"].items()}
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    text = TEXT.format(environments=len(references["lsq"]))
    return f"{text}{_table(_rows(found['runs'], references))}\n\nVersions: {versions}.\n"


def _rows(runs: Mapping[str, Any], references: Mapping[str, Times]) -> Iterator[tuple[str, ...]]:
    yield "recipe", "anchor", "decisions", "seeds", "against its anchor", "against `lsq`", "against `bayes`"
    for name in REFERENCES[1:]:
        times = [references[name]]
        yield f"`{name}`", "", "", "", "", _against(times, references["lsq"]), _against(times, references["bayes"])
    for name, run in runs.items():
        times = [np.array(each) for each in run["times"].values()]
        against = (np.array(run["anchor_times"]), references["lsq"], references["bayes"])
        head = (f"`{name}`", f"`{run['anchor']}`", str(run["decisions"]), str(len(times)))
        yield (*head, *(_against(times, each) for each in against))


def _against(times: Sequence[Times], reference: Times) -> str:
    if all(np.array_equal(each, reference) for each in times):
        return "–"
    pooled = np.exp(np.mean([np.log(each) for each in times], axis=0))
    found = statistics.relative_difference(pooled, reference)
    each = [statistics.relative_difference(one, reference).estimate for one in times]
    seeds = f" ({', '.join(f'{100 * one:+.1f}' for one in each)})" if len(each) > 1 else ""
    return f"{100 * found.estimate:+.1f} % [{100 * found.low:+.1f}, {100 * found.high:+.1f}]{seeds}"


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    head, *rest = rows
    lines = [head, ("---",) * len(head), *rest]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    raise SystemExit(main())
