"""Tune the parameters of the Bayes filter: `python -m penstock_rl.tuning --checkpoint FILE`.

Prints a line per generation and, at the end, the parameters at the center of the distribution.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path

from penstock_rl.scenarios import TRAINING
from penstock_rl.tuning.objective import Comparison, parameters, start
from penstock_rl.tuning.search import Plan, Search, TuningError

SEEDS = len(TRAINING) // 10
"""Scenarios of a search's own."""


def main() -> None:
    """Run a search, or go on with one."""
    asked = _arguments()
    try:
        objective = _objective(asked)
        first = tuple(map(float, start(shared=asked.shared)))
        plan = Plan(first, asked.seed, asked.population, asked.generations, of=repr(replace(objective, threads=1)))
        search = Search(plan, objective, asked.checkpoint)
    except TuningError as error:
        raise SystemExit(f"error: {error}") from None
    for each in search.run():
        print(f"{each.number:4d}  best {each.best:+.4f}  mean {each.mean:+.4f}  spread {each.spread:.3f}", flush=True)
    for name, value in asdict(parameters(search.center, shared=asked.shared)).items():
        print(f"{name} = {value:.4g}")


def _objective(asked: argparse.Namespace) -> Comparison:
    if not 0 <= asked.seed < len(TRAINING) // SEEDS:
        raise TuningError(f"--seed: is {asked.seed}; use 0 to {len(TRAINING) // SEEDS - 1}")
    if not 0 < asked.scenarios * asked.generations <= SEEDS:
        raise TuningError(f"--scenarios x --generations: is {asked.scenarios * asked.generations}; use 1 to {SEEDS}")
    return Comparison(asked.seed * SEEDS, asked.scenarios, asked.threads, asked.level, asked.shared)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m penstock_rl.tuning", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="file that a search goes on from, if it is there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--generations", type=int, default=100)
    parser.add_argument("--scenarios", type=int, default=16, help="per generation")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--level", choices=("basic", "full"), default="full", help="of features")
    parser.add_argument("--shared", action="store_true", help="balancers exchange their counts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
